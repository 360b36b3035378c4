//! Secrets of application credentials and TOTP seeds, in the vault.

use jiff::Timestamp;
use ring::rand::{SecureRandom, SystemRandom};
use sha2::{Digest, Sha256};

use crate::errors::IdentityError;
use crate::lockout::Source;
use crate::password::{Password, PasswordError, Passwords};
use crate::totp::{TotpError, TotpSeed};
use crate::vault::{SecretBytes, SecretKey, SecretKind, Vault, VaultError};

/// Random bytes of a generated secret.
const SECRET_BYTES: usize = 48;
/// Marks the digest of a secret that we generated: with 384 random bits nothing is gained by a slow hash, and
/// programs sign in often.
const DIGEST_PREFIX: &str = "sha256:";
/// Begins every secret that we generate, and none that is kept otherwise: so what is shown says which hash it is to
/// be compared by, and nothing has to be known of the credential. Programs that look for leaked secrets find it, too.
const GENERATED_PREFIX: &str = "gac_";
/// Owner of nothing: looked up in place of who does not exist.
const NOBODY: &str = "\u{0}nobody";
/// Id, among a user's TOTP secrets, of the last step that was used.
const USED_STEP: &str = "\u{1}used";

fn unavailable(error: impl std::fmt::Display) -> IdentityError {
    IdentityError::Unavailable(error.to_string())
}

impl From<VaultError> for IdentityError {
    fn from(error: VaultError) -> Self {
        unavailable(error)
    }
}

fn is_generated(secret: &Password) -> bool {
    secret.expose().starts_with(GENERATED_PREFIX)
}

/// Refuses what [`keep_application_secret`] must not be given: it would never be found right.
pub(crate) fn check_given_secret(secret: &Password) -> Result<(), IdentityError> {
    if !is_generated(secret) {
        return Ok(());
    }
    Err(IdentityError::Invalid(format!(
        "A secret that begins with '{GENERATED_PREFIX}' is one that was made here: give another, or none, and one is \
         made."
    )))
}

/// A new secret, or the given one, which has been checked; what is kept of it does not give it back.
pub(crate) async fn keep_application_secret(
    vault: &Vault,
    passwords: &Passwords,
    credential: &str,
    given: Option<Password>,
) -> Result<Password, IdentityError> {
    let (secret, kept) = match given {
        Some(secret) => {
            // People choose badly: their secrets are hashed as passwords are.
            let hash = passwords.hasher().hash(Source::Unknown.lane(), secret.clone()).await;
            (secret, hash.map_err(unavailable)?)
        }
        None => {
            let mut bytes = [0; SECRET_BYTES];
            SystemRandom::new().fill(&mut bytes).map_err(unavailable)?;
            let text = base64::Engine::encode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, bytes);
            let text = format!("{GENERATED_PREFIX}{text}");
            let digest = digest_of(&text);
            (Password::new(text), digest)
        }
    };
    let key = SecretKey::only(SecretKind::ApplicationCredential, credential);
    vault.put(key, SecretBytes::new(kept.into_bytes())).await?;
    Ok(secret)
}

/// Is it the credential's secret? `None`: no such credential, or one that opens nothing now.
///
/// What is done depends on what is shown alone: one digest for a secret of the generated form, one slow hash for any
/// other, whatever is kept and whether anything is. So the time tells neither which credentials exist nor how their
/// secrets came about, and programs with a generated secret, who sign in often, never wait for a slow hash.
pub(crate) async fn check_application_secret(
    vault: &Vault,
    passwords: &Passwords,
    credential: Option<&str>,
    shown: &Password,
    source: Source,
) -> Result<bool, IdentityError> {
    let key = SecretKey::only(SecretKind::ApplicationCredential, credential.unwrap_or(NOBODY));
    let kept = vault.get(key).await?;
    let kept = kept.as_ref().map(|k| String::from_utf8_lossy(k.expose()).into_owned());
    // Digests of random secrets: how far two agree tells nothing that helps to find another.
    let is_digest = kept.as_ref() == Some(&digest_of(shown.expose()));
    if is_generated(shown) {
        return Ok(is_digest);
    }
    let hash = kept.filter(|kept| !kept.starts_with(DIGEST_PREFIX));
    match passwords.hasher().verify(source.lane(), shown.clone(), hash).await {
        // The digest: of a secret that was generated before those had a form of their own.
        Ok(verified) => Ok(verified.matches || is_digest),
        Err(PasswordError::TooLong) => Ok(false),
        Err(PasswordError::Busy { retry_after }) => {
            let seconds = u32::try_from(retry_after.as_secs()).unwrap_or(u32::MAX);
            Err(IdentityError::TooMany { retry_after_s: seconds.max(1) })
        }
        Err(error) => Err(unavailable(error)),
    }
}

fn digest_of(secret: &str) -> String {
    #[cfg(test)]
    crate::work::digested();
    format!("{DIGEST_PREFIX}{}", hex::encode(Sha256::digest(secret.as_bytes())))
}

/// Keeps the seed of one of a user's authenticators.
pub(crate) async fn keep_totp_seed(
    vault: &Vault,
    user: &str,
    credential: &str,
    seed: &TotpSeed,
) -> Result<(), IdentityError> {
    let key = SecretKey::new(SecretKind::Totp, user, credential);
    Ok(vault.put(key, SecretBytes::new(seed.to_base32().as_bytes().to_vec())).await?)
}

/// The user has that authenticator no more.
pub(crate) async fn forget_totp_seed(
    vault: &Vault,
    user: &str,
    credential: &str,
) -> Result<(), IdentityError> {
    vault.delete(SecretKey::new(SecretKind::Totp, user, credential)).await?;
    Ok(())
}

/// Is it a code of one of the user's authenticators that has not been used? `None`: no such user.
///
/// A wrong code writes nothing, and who does not exist, or has no authenticator, costs what one authenticator does.
pub(crate) async fn check_totp(
    vault: &Vault,
    user: Option<&str>,
    code: &str,
    now: Timestamp,
) -> Result<bool, IdentityError> {
    let owner = user.unwrap_or(NOBODY);
    let used_key = SecretKey::new(SecretKind::Totp, owner, USED_STEP);
    let used = step_of(vault.get(used_key.clone()).await?);
    let mut keys = vault.list(owner).await?;
    keys.retain(|key| key.kind == SecretKind::Totp && key.id != USED_STEP);
    if keys.is_empty() {
        keys.push(SecretKey::only(SecretKind::Totp, NOBODY));
    }
    let mut taken = None;
    for key in keys {
        let blob = vault.get(key.clone()).await?;
        let seed = blob.and_then(|blob| TotpSeed::from_base32(std::str::from_utf8(blob.expose()).ok()?));
        let (seed, known) = seed.map_or_else(|| (TotpSeed::of_nobody(), false), |seed| (seed, true));
        match seed.verify(code, now, used) {
            Ok(step) if known => taken = Some((key, step)),
            Ok(_) | Err(TotpError::Wrong | TotpError::Used) => {}
        }
    }
    let Some((key, step)) = taken else { return Ok(false) };
    vault
        .transaction(move |vault| {
            // Another sign-in may have used the code since, or the authenticator may be gone.
            let used = step_of(vault.get(&used_key)?);
            if used.is_some_and(|used| step <= used) || vault.get(&key)?.is_none() {
                return Ok(false);
            }
            vault.put(&used_key, &SecretBytes::new(step.to_string().into_bytes()))?;
            Ok(true)
        })
        .await
}

fn step_of(kept: Option<SecretBytes>) -> Option<i64> {
    std::str::from_utf8(kept?.expose()).ok()?.parse().ok()
}
