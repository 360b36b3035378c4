//! The first administrator.

use std::path::PathBuf;

use gantry_identity_api::{DEFAULT_DOMAIN, RoleAssignment, RoleAssignmentSpec, User, UserSpec, roles};

use crate::core::Core;
use crate::directory::assignments::{Actor, Target};
use crate::directory::table::Entry;
use crate::errors::IdentityError;
use crate::login::Origin;
use crate::password::Password;
use crate::session::ADMIN_PROJECT;

/// Name of the first administrator.
pub const ADMIN: &str = "admin";

/// What became of it.
#[derive(Debug)]
pub enum Admin {
    /// There is an administrator already.
    There,
    /// Made now.
    Made { user: String, generated: Option<Generated> },
}

/// A password that nobody chose: to be shown once. It is in the file, for root alone, until somebody removes it.
#[derive(Debug)]
pub struct Generated {
    pub password: Password,
    pub file: PathBuf,
}

impl Core {
    /// Makes the user `admin` of the domain `default`, administrator of the system, where nobody is one yet.
    /// `given`: the password from `--admin-password-file`; else one is generated and kept in `data`.
    pub async fn ensure_admin(&self, given: Option<Password>) -> Result<Admin, IdentityError> {
        let found = {
            let state = self.directory.read();
            state.users.by_name(Some(DEFAULT_DOMAIN), ADMIN).map(|user| user.id())
        };
        let user = match found {
            Some(user) => user,
            None => self.make_admin().await?,
        };
        // Made, but killed before it had its rights or its password: go on where it stopped.
        for target in [Target::System, Target::Project(ADMIN_PROJECT.into())] {
            self.ensure_assignment(roles::ADMIN, Actor::User(user.as_str().into()), target).await?;
        }
        if self.passwords.record(&user).await?.is_some() {
            return Ok(Admin::There);
        }
        let file = self.config.data.join("admin-password");
        let (password, generated) = match given {
            Some(password) => (password, None),
            None => {
                let password = Password::generate();
                let password =
                    password.ok_or_else(|| IdentityError::Unavailable("no random numbers".to_owned()))?;
                let text = format!("{}\n", password.expose());
                gantry_base::fs::write_atomic(&file, text.as_bytes(), 0o600)
                    .map_err(|error| IdentityError::Unavailable(format!("{}: {error}", file.display())))?;
                (password.clone(), Some(Generated { password, file }))
            }
        };
        self.set_password(&user, password, crate::own_user(), &Origin::default()).await?;
        let name = {
            let state = self.directory.read();
            state.users.get(&user).and_then(|found| state.kubernetes_name(found))
        };
        Ok(Admin::Made { user: name.unwrap_or(user), generated })
    }

    async fn make_admin(&self) -> Result<String, IdentityError> {
        let id = uuid::Uuid::new_v4().simple().to_string();
        let mut spec = UserSpec {
            name: Some(ADMIN.to_owned()),
            domain: DEFAULT_DOMAIN.to_owned(),
            description: "The first administrator".to_owned(),
            enabled: true,
            default_project: Some(ADMIN_PROJECT.to_owned()),
            ..UserSpec::default()
        };
        // The platform's last way in is neither locked out nor expired from outside.
        spec.options.ignore_lockout_failure_attempts = Some(true);
        spec.options.ignore_change_password_upon_first_use = Some(true);
        self.objects.create(&User::new(&id, spec)).await?;
        Ok(id)
    }

    /// The assignment, made where it is not there.
    pub async fn ensure_assignment(
        &self,
        role: &str,
        actor: Actor,
        target: Target,
    ) -> Result<(), IdentityError> {
        let mut spec = RoleAssignmentSpec { role: role.to_owned(), ..RoleAssignmentSpec::default() };
        match actor {
            Actor::User(id) => spec.user = Some(id.to_string()),
            Actor::Group(id) => spec.group = Some(id.to_string()),
        }
        match target {
            Target::System => spec.system = true,
            Target::Domain(id) => spec.domain = Some(id.to_string()),
            Target::Project(id) => spec.project = Some(id.to_string()),
        }
        let name = spec.object_name();
        if self.directory.read().assignments.get(&name).is_some() {
            return Ok(());
        }
        match self.objects.create(&RoleAssignment::new(&name, spec)).await {
            Ok(_) | Err(IdentityError::Conflict(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }
}
