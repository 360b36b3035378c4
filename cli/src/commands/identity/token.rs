//! `gantry token`: what kubectl's credential plugin prints.

use jiff::Timestamp;

use super::session::context_of;
use crate::ClientFlags;
use crate::credentials::{TokenCache, exec_credential};

#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  gantry token                    an ExecCredential, as kubectl reads it
  gantry token --audience prod    the same for a cluster elsewhere, by its OpenID client id
  curl -H \"X-Auth-Token: $(gantry token --raw)\" https://SERVER/identity/v3/users")]
pub struct TokenArgs {
    /// Print the token alone
    #[arg(long)]
    raw: bool,
    /// For others than this platform, who take it as their OpenID issuer: their client id. Good for an hour
    #[arg(long, value_name = "NAME")]
    audience: Vec<String>,
    /// Print an ExecCredential of client.authentication.k8s.io/v1 (this is what is printed anyway)
    #[arg(long, conflicts_with = "raw")]
    exec_credential: bool,
    /// Output format
    #[arg(short, long, value_parser = ["json"], conflicts_with = "raw", value_name = "FORMAT")]
    output: Option<String>,
}

pub async fn run(arguments: TokenArgs, flags: &ClientFlags) -> anyhow::Result<()> {
    let cache = TokenCache::of_user()?;
    let now = Timestamp::now();
    let mut cached = cache.fresh(&context_of(flags, &cache)?, now).await?;
    if !arguments.audience.is_empty() {
        let signed = cached.keystone()?.token_for(&cached.token, &arguments.audience).await?;
        cached.take(signed);
    }
    if arguments.raw {
        println!("{}", cached.token.expose());
    } else {
        println!("{}", serde_json::to_string_pretty(&exec_credential(&cached, now))?);
    }
    Ok(())
}
