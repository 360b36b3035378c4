//! The commands of identity: signing in, and the organisations, people and rights of the platform.
//!
//! Objects go through the Kubernetes API with the typed kinds; what has a secret in it (passwords, tokens,
//! credentials) goes through the Keystone API, so that no secret is ever part of an object. A new object's id is
//! made anew each time, never derived from its name: an `acme/alice` who is made again gets nothing of the one
//! who was deleted. An identity provider alone is called by its id, which people and Keystone's clients type; who makes
//! one again rules over those who came by it before, and must be allowed to. Its password is in a Secret, which the
//! object names.

mod application_credential;
mod assign;
mod confirm;
mod domain;
mod group;
mod identity_provider;
pub(crate) mod kinds;
mod login;
mod logout;
pub(crate) mod lookup;
mod names;
mod ops;
mod project;
pub(crate) mod render;
mod role;
mod rules;
mod session;
mod token;
mod user;
mod values;
mod whoami;

use crate::{ClientFlags, Context};
use lookup::Lookup;

/// Signing in, and who is there and may do what.
#[derive(clap::Subcommand, Debug)]
pub enum IdentityCommand {
    /// Sign in at a server and have kubectl know it
    Login(Box<login::LoginArgs>),
    /// Revoke the token of a sign-in and forget it
    Logout(logout::LogoutArgs),
    /// Show as whom the server sees you, and with which rights
    Whoami(whoami::WhoamiArgs),
    /// Print the token of a sign-in, for kubectl and for scripts
    Token(token::TokenArgs),
    #[command(subcommand)]
    Domain(domain::DomainCommand),
    #[command(subcommand)]
    Project(project::ProjectCommand),
    #[command(subcommand)]
    User(user::UserCommand),
    #[command(subcommand)]
    Group(group::GroupCommand),
    #[command(subcommand)]
    Role(role::RoleCommand),
    /// Give a role to a user or a group, or list who has which
    Assign(assign::AssignArgs),
    /// Take a role away
    #[command(after_help = "Example:\n  gantry unassign member --group acme/devs --project acme/web")]
    Unassign(assign::AssignmentArgs),
    #[command(subcommand, visible_alias = "appcred")]
    ApplicationCredential(application_credential::ApplicationCredentialCommand),
    #[command(subcommand, visible_alias = "idp")]
    IdentityProvider(identity_provider::IdentityProviderCommand),
}

/// Runs a command to its end.
pub async fn run(command: IdentityCommand, flags: &ClientFlags) -> anyhow::Result<()> {
    // These are about a sign-in, and work where there is none yet or none any more.
    let command = match command {
        IdentityCommand::Login(arguments) => return login::run(*arguments, flags).await,
        IdentityCommand::Logout(arguments) => return logout::run(arguments, flags).await,
        IdentityCommand::Token(arguments) => return token::run(arguments, flags).await,
        other => other,
    };
    let context = Context::load(flags).await?;
    let lookup = || Ok::<_, anyhow::Error>(Lookup::new(context.kube()?));
    match command {
        IdentityCommand::Login(_) | IdentityCommand::Logout(_) | IdentityCommand::Token(_) => Ok(()),
        IdentityCommand::Whoami(arguments) => whoami::run(arguments, &context).await,
        IdentityCommand::Domain(command) => domain::run(command, &lookup()?).await,
        IdentityCommand::Project(command) => project::run(command, &lookup()?).await,
        IdentityCommand::User(command) => user::run(command, &context).await,
        IdentityCommand::Group(command) => group::run(command, &lookup()?).await,
        IdentityCommand::Role(command) => role::run(command, &lookup()?).await,
        IdentityCommand::Assign(arguments) => assign::assign(arguments, &context).await,
        IdentityCommand::Unassign(arguments) => assign::unassign(&arguments, &context).await,
        IdentityCommand::ApplicationCredential(command) => {
            application_credential::run(command, &context).await
        }
        IdentityCommand::IdentityProvider(command) => identity_provider::run(command, &lookup()?).await,
    }
}

#[cfg(test)]
mod tests {
    use clap::Subcommand as _;

    use super::*;

    fn root() -> clap::Command {
        let root = clap::Command::new("gantry").disable_help_subcommand(true).term_width(100);
        IdentityCommand::augment_subcommands(root)
    }

    #[test]
    fn arguments_are_consistent() {
        root().debug_assert();
    }

    /// The words people read first: changed on purpose only.
    #[test]
    fn help_is_as_it_was() {
        let mut root = root();
        root.build();
        let mut text = String::new();
        describe(&mut root, &mut text);
        insta::assert_snapshot!(text);
    }

    fn describe(command: &mut clap::Command, text: &mut String) {
        let help = command.render_help().to_string();
        let name = command.get_bin_name().unwrap_or(command.get_name()).to_owned();
        text.push_str(&format!("### {name}\n{help}\n"));
        for below in command.get_subcommands_mut() {
            describe(below, text);
        }
    }
}
