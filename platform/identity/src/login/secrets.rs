//! Secrets of application credentials and TOTP seeds, in the vault.

use jiff::Timestamp;
use ring::rand::{SecureRandom, SystemRandom};
use sha2::{Digest, Sha256};

use crate::errors::IdentityError;
use crate::lockout::Source;
use crate::password::{Password, Passwords};
use crate::totp::{TotpError, TotpSeed};
use crate::vault::{SecretBytes, SecretKey, SecretKind, Vault, VaultError};

/// Random bytes of a generated secret.
const SECRET_BYTES: usize = 48;
/// Marks the digest of a secret that we generated: with 384 random bits nothing is gained by a slow hash, and
/// programs sign in often.
const DIGEST_PREFIX: &str = "sha256:";
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

/// A new secret, or the given one; what is kept of it does not give it back.
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
            let digest = digest_of(&text);
            (Password::new(text), digest)
        }
    };
    let key = SecretKey::only(SecretKind::ApplicationCredential, credential);
    vault.put(key, SecretBytes::new(kept.into_bytes())).await?;
    Ok(secret)
}

/// Is it the credential's secret? One that does not exist takes as long as one that does.
pub(crate) async fn check_application_secret(
    vault: &Vault,
    passwords: &Passwords,
    credential: Option<&str>,
    shown: &Password,
    source: Source,
) -> Result<bool, IdentityError> {
    let key = SecretKey::only(SecretKind::ApplicationCredential, credential.unwrap_or("\u{0}nobody"));
    let kept = vault.get(key).await?;
    let kept = kept.as_ref().map(|k| String::from_utf8_lossy(k.expose()).into_owned());
    match kept {
        Some(digest) if digest.starts_with(DIGEST_PREFIX) => {
            // Digests of random secrets: how far two agree tells nothing that helps to find another.
            Ok(digest == digest_of(shown.expose()))
        }
        other => {
            let verified = passwords.hasher().verify(source.lane(), shown.clone(), other).await;
            Ok(verified
                .map_err(|error| IdentityError::TooMany { retry_after_s: retry_after(&error) })?
                .matches)
        }
    }
}

fn retry_after(error: &crate::password::PasswordError) -> u32 {
    match error {
        crate::password::PasswordError::Busy { retry_after } => {
            u32::try_from(retry_after.as_secs()).unwrap_or(u32::MAX).max(1)
        }
        _ => 1,
    }
}

fn digest_of(secret: &str) -> String {
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

/// Is it a code of one of the user's authenticators that has not been used?
pub(crate) async fn check_totp(
    vault: &Vault,
    user: &str,
    code: &str,
    now: Timestamp,
) -> Result<bool, IdentityError> {
    let (user, code) = (user.to_owned(), code.to_owned());
    vault
        .transaction(move |vault| {
            let used_key = SecretKey::new(SecretKind::Totp, &user, USED_STEP);
            let used = vault.get(&used_key)?;
            let used = used.as_ref().and_then(|u| std::str::from_utf8(u.expose()).ok()?.parse::<i64>().ok());
            let seeds = vault.list(&user)?.into_iter();
            let mut taken = None;
            for key in seeds.filter(|k| k.kind == SecretKind::Totp && k.id != USED_STEP) {
                let Some(blob) = vault.get(&key)? else { continue };
                let seed = std::str::from_utf8(blob.expose()).ok().and_then(TotpSeed::from_base32);
                match seed.map(|seed| seed.verify(&code, now, used)) {
                    Some(Ok(step)) => taken = Some(step),
                    Some(Err(TotpError::Wrong | TotpError::Used)) | None => {}
                }
            }
            let Some(step) = taken else { return Ok(false) };
            vault.put(&used_key, &SecretBytes::new(step.to_string().into_bytes()))?;
            Ok(true)
        })
        .await
}
