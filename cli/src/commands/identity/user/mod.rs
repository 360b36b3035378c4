//! `gantry user …`: who signs in.

mod password;
mod totp;

use gantry_base::secret::Secret;
use gantry_identity_api::{Group, Project, User, UserSpec, extra};
use http::Method;
use kube::ResourceExt as _;
use serde_json::{Map, Value, json};

use super::kinds::Kind as _;
use super::lookup::Lookup;
use super::names::{self, Name};
use super::ops::{self, DeleteArgs, EnabledArgs, GetArgs, ListArgs};
use super::render::OutputArgs;
use super::values;
use crate::keystone::Keystone;
use crate::{Context, prompt};

/// People and programs that sign in
#[derive(clap::Subcommand, Debug)]
pub enum UserCommand {
    /// Make a user
    #[command(after_help = "\
Examples:
  gantry user create acme/alice --email alice@acme.example --group acme/devs --generate-password
  pass show acme/bob | gantry user create acme/bob --password-stdin")]
    Create(Box<CreateArgs>),
    /// List the users you see
    #[command(visible_alias = "ls")]
    List(ListArgs),
    /// Show users
    #[command(visible_alias = "show")]
    Get(GetArgs),
    /// Change a user
    #[command(after_help = "\
Examples:
  gantry user set acme/alice --disable
  gantry user set acme/alice --multi-factor password+totp")]
    Set(Box<SetArgs>),
    /// Delete users, with their credentials and what is assigned to them
    Delete(DeleteArgs),
    /// Change your own password, or set another user's
    #[command(after_help = "\
Examples:
  gantry user password                        asks for the old and the new one
  gantry user password acme/bob --generate    sets a new one and prints it
  printf '%s\\n%s\\n' \"$OLD\" \"$NEW\" | gantry user password --stdin")]
    Password(password::PasswordArgs),
    /// Codes of an authenticator app
    #[command(subcommand)]
    Totp(totp::TotpCommand),
}

#[derive(clap::Args, Debug)]
pub struct CreateArgs {
    /// DOMAIN/NAME, or NAME in your own domain
    name: Name,
    /// Where mail reaches the user
    #[arg(long)]
    email: Option<String>,
    /// What people read beside it
    #[arg(long, default_value = "", hide_default_value = true)]
    description: String,
    /// A group of the same domain; several are possible
    #[arg(long, value_name = "GROUP")]
    group: Vec<String>,
    /// Scope of sign-ins that ask for none
    #[arg(long, value_name = "PROJECT")]
    default_project: Option<String>,
    /// Make the user, but let nobody sign in
    #[arg(long)]
    disabled: bool,
    /// The first line of standard input is the password
    #[arg(long, group = "how")]
    password_stdin: bool,
    /// Make up a password and print it once
    #[arg(long, group = "how")]
    generate_password: bool,
    /// Ask for a password
    #[arg(long, group = "how")]
    password_prompt: bool,
    /// The object's name (id) [default: a new one]
    #[arg(long, value_name = "ID")]
    id: Option<String>,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(clap::Args, Debug)]
pub struct SetArgs {
    /// DOMAIN/NAME, NAME in your own domain, or an id
    user: String,
    /// A new name, without the domain
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Where mail reaches the user
    #[arg(long)]
    email: Option<String>,
    /// What people read beside it
    #[arg(long)]
    description: Option<String>,
    /// Scope of sign-ins that ask for none; '' for none
    #[arg(long, value_name = "PROJECT")]
    default_project: Option<String>,
    /// Methods that are asked for together, as password+totp; several are possible, one is enough; none for no rule
    #[arg(long, value_name = "METHODS")]
    multi_factor: Vec<String>,
    #[command(flatten)]
    enabled: EnabledArgs,
    #[command(flatten)]
    output: OutputArgs,
}

pub async fn run(command: UserCommand, context: &Context) -> anyhow::Result<()> {
    let lookup = &Lookup::new(context.kube()?);
    match command {
        UserCommand::Create(arguments) => create(*arguments, lookup, &context.keystone()?).await,
        UserCommand::List(arguments) => ops::list::<User>(lookup, &arguments).await,
        UserCommand::Get(arguments) => ops::get::<User>(lookup, &arguments).await,
        UserCommand::Set(arguments) => set(*arguments, lookup).await,
        UserCommand::Delete(arguments) => ops::delete::<User>(lookup, &arguments).await,
        UserCommand::Password(arguments) => password::run(arguments, lookup, &context.keystone()?).await,
        UserCommand::Totp(command) => totp::run(command, lookup, &context.keystone()?).await,
    }
}

/// The user named, or the caller; with the caller's own id where the caller is a user.
async fn named_or_self(name: Option<&str>, lookup: &Lookup) -> anyhow::Result<(User, bool)> {
    let own = lookup.caller_extra(extra::USER_ID).await?;
    let user = match (name, &own) {
        (Some(name), _) => lookup.find::<User>(name).await?,
        (None, Some(id)) => lookup.api::<User>().get(id).await.map_err(super::lookup::plain)?,
        (None, None) => {
            anyhow::bail!("you are no user of the platform but signed in by certificate: name a user")
        }
    };
    let is_self = own.is_some_and(|id| id == user.name_any());
    Ok((user, is_self))
}

async fn create(arguments: CreateArgs, lookup: &Lookup, keystone: &Keystone) -> anyhow::Result<()> {
    let domain = lookup.domain_id(arguments.name.domain.as_deref()).await?;
    let mut groups = Vec::with_capacity(arguments.group.len());
    if !arguments.group.is_empty() {
        let all = lookup.all::<Group>().await?;
        for name in &arguments.group {
            let group = lookup.find_among(&all, name).await?;
            anyhow::ensure!(group.spec.domain == domain, "group {name} is of another domain than the user");
            groups.push(group.name_any());
        }
    }
    let default_project = match &arguments.default_project {
        Some(name) => Some(lookup.find::<Project>(name).await?.name_any()),
        None => None,
    };
    let password = if arguments.password_stdin {
        let [password] = prompt::secrets_from_stdin(["password"])?;
        Some(password)
    } else if arguments.generate_password {
        Some(values::new_password()?)
    } else if arguments.password_prompt {
        Some(prompt::new_secret("Password")?)
    } else {
        None
    };
    let spec = UserSpec {
        name: Some(arguments.name.name),
        domain,
        description: arguments.description,
        email: arguments.email,
        enabled: !arguments.disabled,
        default_project,
        groups,
        ..UserSpec::default()
    };
    let id = arguments.id.unwrap_or_else(names::new_id);
    let user = lookup.create(&User::new(&id, spec)).await?;
    if let Some(password) = &password
        && let Err(error) = set_password(keystone, &id, password).await
    {
        // A user nobody can sign in as, for a password that was refused, would be half of what was asked for.
        ops::delete_one(lookup, &user).await?;
        let name = user.called();
        return Err(
            anyhow::Error::from(error).context(format!("user {name} was not made: the password was refused"))
        );
    }
    ops::print_done(lookup, &user, "created", arguments.output.output).await?;
    if arguments.generate_password
        && let Some(password) = &password
    {
        eprintln!("Its password, which is not shown again:");
        println!("{}", password.expose());
    }
    Ok(())
}

/// Sets a password without the old one, as administrators may.
async fn set_password(
    keystone: &Keystone,
    id: &str,
    password: &Secret<String>,
) -> Result<(), crate::keystone::KeystoneError> {
    const TRIES: usize = 20;
    const BETWEEN: std::time::Duration = std::time::Duration::from_millis(100);
    let body = json!({ "user": { "password": password.expose() } });
    let path = format!("/users/{id}");
    let mut tries = 0;
    loop {
        let answer = keystone.call(Method::PATCH, &path, Some(&body)).await;
        match answer {
            // The identity service follows the objects and may be an instant behind one just made.
            Err(error) if error.code() == Some(404) && tries < TRIES => tries += 1,
            other => return other.map(drop),
        }
        tokio::time::sleep(BETWEEN).await;
    }
}

async fn set(arguments: SetArgs, lookup: &Lookup) -> anyhow::Result<()> {
    let user = lookup.find::<User>(&arguments.user).await?;
    let mut change = Map::new();
    let texts =
        [("name", arguments.name), ("email", arguments.email), ("description", arguments.description)];
    for (field, value) in texts {
        if let Some(value) = value {
            change.insert(field.to_owned(), value.into());
        }
    }
    if let Some(project) = arguments.default_project {
        let id = match project.as_str() {
            "" => Value::Null,
            name => lookup.find::<Project>(name).await?.name_any().into(),
        };
        change.insert("defaultProject".to_owned(), id);
    }
    if let Some(enabled) = arguments.enabled.wanted() {
        change.insert("enabled".to_owned(), enabled.into());
    }
    if !arguments.multi_factor.is_empty() {
        let rules = values::multi_factor(&arguments.multi_factor)?;
        change.insert("options".to_owned(), multi_factor_options(&rules));
    }
    let changed: User = lookup.set(&user.name_any(), &Value::Object(change)).await?;
    ops::print_done(lookup, &changed, "changed", arguments.output.output).await
}

fn multi_factor_options(rules: &[Vec<String>]) -> Value {
    match rules {
        [] => json!({ "multi_factor_auth_enabled": null, "multi_factor_auth_rules": null }),
        rules => json!({ "multi_factor_auth_enabled": true, "multi_factor_auth_rules": rules }),
    }
}
