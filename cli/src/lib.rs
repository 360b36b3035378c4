//! The commands for users: each one is a file in [`commands`]. They talk to a server over its public
//! APIs only, with the credentials of a kubeconfig.

pub mod commands;
mod context;
mod credentials;
mod keystone;
mod kubeconfig;
mod prompt;
mod trust;

pub use context::{ClientFlags, Context};

/// The commands that need a server.
#[derive(clap::Subcommand, Debug)]
pub enum Command {
    /// Bring advisories of known vulnerabilities up to date, and show what there is
    #[command(subcommand)]
    Advisories(commands::advisories::AdvisoriesCommand),
    /// Search, follow, export and verify the audit trail
    #[command(subcommand)]
    Audit(commands::audit::AuditCommand),
    /// Carry images, signatures and advisories to sites without a network, in one signed file
    #[command(subcommand)]
    Bundle(commands::bundle::BundleCommand),
    /// Check whether an action is allowed, and say by which binding
    Can(commands::can::CanArgs),
    /// Pack, load, upload, list, inspect, scan, sign, verify and remove images
    #[command(subcommand)]
    Image(commands::image::ImageCommand),
    #[command(flatten)]
    Identity(commands::identity::IdentityCommand),
    /// Collect the garbage of the registry, check it, and copy it to others
    #[command(subcommand)]
    Registry(commands::registry::RegistryCommand),
    /// List, show, change and share repositories of the registry
    #[command(subcommand, visible_alias = "repo")]
    Repository(commands::repository::RepositoryCommand),
    /// Explain where a pod was placed, node by node, and why
    Why(commands::why::WhyArgs),
}

/// Runs a command to its end.
pub async fn run(command: Command, flags: &ClientFlags) -> anyhow::Result<()> {
    match command {
        Command::Advisories(advisories) => commands::advisories::run(advisories, flags).await,
        Command::Audit(audit) => commands::audit::run(audit, flags).await,
        Command::Bundle(bundle) => commands::bundle::run(bundle, flags).await,
        Command::Can(can) => commands::can::run(can, &Context::load(flags).await?).await,
        Command::Image(image) => commands::image::run(image, flags).await,
        Command::Identity(identity) => commands::identity::run(identity, flags).await,
        Command::Registry(command) => commands::registry::run(command, &Context::load(flags).await?).await,
        Command::Repository(command) => {
            commands::repository::run(command, &Context::load(flags).await?).await
        }
        Command::Why(why) => commands::why::run(why, &Context::load(flags).await?).await,
    }
}
