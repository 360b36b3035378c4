//! `gantry logout`: the token is revoked and forgotten.

use anyhow::Context as _;

use super::session::context_of;
use crate::ClientFlags;
use crate::credentials::{Cached, TokenCache};
use crate::keystone::KeystoneError;

#[derive(clap::Args, Debug)]
#[command(after_help = "The context stays in the kubeconfig: `gantry login --context NAME` signs in again.")]
pub struct LogoutArgs {}

pub async fn run(_: LogoutArgs, flags: &ClientFlags) -> anyhow::Result<()> {
    let cache = TokenCache::of_user()?;
    let context = context_of(flags, &cache)?;
    let Some(cached) = cache.read(&context)? else {
        println!("Nobody is signed in for the context {context}.");
        return Ok(());
    };
    let revoked = revoke(&cached).await;
    // Whatever the server says, nothing is kept here.
    cache.remove(&context)?;
    revoked.with_context(|| {
        format!(
            "the token of {} is forgotten here but was not revoked and is good until {}",
            cached.user, cached.expires_at
        )
    })?;
    println!("Signed out {} of {}.", cached.user, cached.server);
    Ok(())
}

async fn revoke(cached: &Cached) -> anyhow::Result<()> {
    let keystone = cached.keystone()?.with_token(cached.token.clone());
    match keystone.revoke(&cached.token).await {
        // It was not good any more.
        Err(KeystoneError::Refused { code: 401 | 404, .. }) | Ok(()) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
