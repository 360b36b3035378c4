//! Tokens that `gantry login` got: kept in files of the user (0600), renewed before they end, handed to kubectl as
//! an `ExecCredential`.

use std::path::PathBuf;

use anyhow::{Context as _, anyhow, bail};
use gantry_base::fs as durable;
use gantry_base::secret::Secret;
use gantry_base::settings::environment;
use jiff::{SignedDuration, Timestamp};
use kube::config::{ExecConfig, Kubeconfig};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::commands::identity::render::span;
use crate::keystone::{Keystone, Proof, Scope, Signed, http_client};

/// Renewed when less than this part of its life is left, …
const RENEW_LIFE_DIVISOR: i64 = 10;
/// … or less than this.
const RENEW_BEFORE: SignedDuration = SignedDuration::from_mins(5);
/// kubectl asks again this long before the end, so that no request arrives with a token that has just ended.
const ASK_AGAIN_BEFORE: SignedDuration = SignedDuration::from_secs(30);
/// Version of the files.
const VERSION: u32 = 1;

/// API version of what credential plugins print.
pub const EXEC_API_VERSION: &str = "client.authentication.k8s.io/v1";

/// One token with all that is needed to use and renew it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Cached {
    version: u32,
    pub server: String,
    /// Authorities of the server's certificate; absent: the system's.
    pub certificate_authority: Option<String>,
    #[serde(with = "exposed")]
    pub token: Secret<String>,
    pub issued_at: Timestamp,
    pub expires_at: Timestamp,
    /// `acme/alice`
    pub user: String,
    pub user_id: String,
    /// As a request for another token has it.
    pub scope: Value,
    /// With which a program signs in again by itself.
    pub application_credential: Option<ApplicationSecret>,
}

/// An application credential that was asked to be kept.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ApplicationSecret {
    pub id: String,
    #[serde(with = "exposed")]
    pub secret: Secret<String>,
}

/// A secret in a file that only its owner reads.
mod exposed {
    use gantry_base::secret::Secret;
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(secret: &Secret<String>, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(secret.expose())
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Secret<String>, D::Error> {
        String::deserialize(deserializer).map(Secret::new)
    }
}

impl Cached {
    pub fn new(server: &str, certificate_authority: Option<String>, signed: Signed) -> Self {
        Self {
            version: VERSION,
            server: server.to_owned(),
            certificate_authority,
            issued_at: signed.body.issued_at,
            expires_at: signed.body.expires_at,
            user: signed.body.user.full_name(),
            user_id: signed.body.user.id.clone(),
            scope: signed.body.scope(),
            token: signed.token,
            application_credential: None,
        }
    }

    /// A client of the server, without credentials of its own.
    pub fn keystone(&self) -> anyhow::Result<Keystone> {
        Ok(Keystone::new(http_client(self.certificate_authority.as_deref())?, &self.server))
    }

    /// Becomes another token of the same user.
    pub fn take(&mut self, signed: Signed) {
        self.issued_at = signed.body.issued_at;
        self.expires_at = signed.body.expires_at;
        self.token = signed.token;
    }
}

/// Is it time for another token?
pub fn renewal_due(issued: Timestamp, expires: Timestamp, now: Timestamp) -> bool {
    let left = expires.duration_since(now);
    let tenth = expires.duration_since(issued) / i32::try_from(RENEW_LIFE_DIVISOR).unwrap_or(1);
    left < tenth.min(RENEW_BEFORE)
}

/// What kubectl reads from a credential plugin.
pub fn exec_credential(cached: &Cached, now: Timestamp) -> Value {
    let asked_again = cached.expires_at.checked_sub(ASK_AGAIN_BEFORE).unwrap_or(cached.expires_at);
    let until = if asked_again > now { asked_again } else { cached.expires_at };
    json!({
        "apiVersion": EXEC_API_VERSION,
        "kind": "ExecCredential",
        "status": {
            "token": cached.token.expose(),
            // Whole seconds: client-go's RFC 3339 knows no more.
            "expirationTimestamp": Timestamp::from_second(until.as_second()).unwrap_or(until).to_string(),
        },
    })
}

/// The tokens of the user, one per context.
#[derive(Clone, Debug)]
pub struct TokenCache {
    directory: PathBuf,
}

impl TokenCache {
    /// `GANTRY_TOKEN_DIR`, or `gantry/tokens` where the user keeps settings.
    pub fn of_user() -> anyhow::Result<Self> {
        let set = environment("GANTRY_TOKEN_DIR").map(PathBuf::from);
        let settings = environment("XDG_CONFIG_HOME").map(PathBuf::from);
        let settings = settings.or_else(|| Some(PathBuf::from(environment("HOME")?).join(".config")));
        let directory = set.or_else(|| Some(settings?.join("gantry/tokens")));
        let directory =
            directory.ok_or_else(|| anyhow!("no place for tokens: set GANTRY_TOKEN_DIR, or HOME"))?;
        Ok(Self { directory })
    }

    #[cfg(test)]
    fn at(directory: &std::path::Path) -> Self {
        Self { directory: directory.to_owned() }
    }

    fn path(&self, context: &str) -> PathBuf {
        self.directory.join(format!("{}.json", file_name(context)))
    }

    pub fn read(&self, context: &str) -> anyhow::Result<Option<Cached>> {
        let path = self.path(context);
        let bytes = durable::read_optional(&path).with_context(|| path.display().to_string())?;
        let Some(bytes) = bytes else { return Ok(None) };
        let cached: Cached = serde_json::from_slice(&bytes).with_context(|| path.display().to_string())?;
        if cached.version > VERSION {
            bail!("{} was written by a newer gantry: sign in again with `gantry login`", path.display());
        }
        Ok(Some(cached))
    }

    pub fn write(&self, context: &str, cached: &Cached) -> anyhow::Result<()> {
        durable::create_directory(&self.directory, 0o700)
            .with_context(|| self.directory.display().to_string())?;
        let path = self.path(context);
        let bytes = serde_json::to_vec_pretty(cached)?;
        durable::write_atomic(&path, &bytes, 0o600).with_context(|| path.display().to_string())
    }

    pub fn remove(&self, context: &str) -> anyhow::Result<()> {
        let path = self.path(context);
        durable::remove_all(&path).with_context(|| path.display().to_string())
    }

    /// The token of a context, renewed where it is time.
    pub async fn fresh(&self, context: &str, now: Timestamp) -> anyhow::Result<Cached> {
        let again = format!("sign in with `gantry login --context {context}");
        let cached = self.read(context)?;
        let mut cached =
            cached.ok_or_else(|| anyhow!("no token is kept for the context {context:?}: {again}`"))?;
        if renewal_due(cached.issued_at, cached.expires_at, now) {
            match renew(&cached).await {
                // A server may renew no token beyond the life of the one it is shown.
                Ok(signed) if signed.body.expires_at > cached.expires_at => {
                    cached.take(signed);
                    self.write(context, &cached)?;
                }
                Ok(_) => {}
                Err(error) => tracing::debug!("the token of {context} is not renewed: {error:#}"),
            }
        }
        if cached.expires_at <= now {
            let ago = span(now.as_second() - cached.expires_at.as_second());
            bail!("the token of {user} ended {ago} ago: {again} -u {user}`", user = cached.user);
        }
        Ok(cached)
    }
}

async fn renew(cached: &Cached) -> anyhow::Result<Signed> {
    let (proof, scope) = match &cached.application_credential {
        // Its scope is its own and may not be asked for.
        Some(ApplicationSecret { id, secret }) => {
            (Proof::ApplicationCredential { id: id.clone(), secret: secret.clone() }, Scope::Default)
        }
        None => (Proof::Token(cached.token.clone()), Scope::Kept(cached.scope.clone())),
    };
    Ok(cached.keystone()?.sign_in(&[proof], &scope, None).await?)
}

/// The context's name as a file's: other bytes than letters, digits and `-_.@` as `%XX`.
fn file_name(context: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'@');
    let inner = |at: usize, byte: u8| plain(byte) || (byte == b'.' && at > 0);
    let bytes = context.bytes().enumerate();
    bytes
        .map(|(at, byte)| if inner(at, byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

/// The context whose token the plugin prints, where it is this program.
pub fn own_plugin(exec: &ExecConfig) -> Option<&str> {
    match exec.args.as_deref()? {
        [token, flag, context, ..] if token == "token" && flag == "--context" => Some(context),
        _ => None,
    }
}

/// Puts the token into the context's user where that is kept by us: no program needs to be started to ask
/// ourselves, and clients that know no plugins see a token.
pub async fn resolve(kubeconfig: &mut Kubeconfig, context: &str) -> anyhow::Result<()> {
    let of = kubeconfig.contexts.iter().find(|c| c.name == context).and_then(|c| c.context.as_ref());
    let Some(user) = of.and_then(|of| of.user.clone()) else { return Ok(()) };
    let named = kubeconfig.auth_infos.iter_mut().find(|named| named.name == user);
    let Some(info) = named.and_then(|named| named.auth_info.as_mut()) else { return Ok(()) };
    let Some(ours) = info.exec.as_ref().and_then(own_plugin) else { return Ok(()) };
    let cached = TokenCache::of_user()?.fresh(ours, Timestamp::now()).await?;
    info.exec = None;
    info.token = Some(cached.token.expose().as_str().into());
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::Path;

    use super::*;

    fn cached() -> Cached {
        Cached {
            version: VERSION,
            server: "https://127.0.0.1:6443".to_owned(),
            certificate_authority: None,
            token: Secret::new("eyJ".to_owned()),
            issued_at: at(0),
            expires_at: at(3600),
            user: "acme/alice".to_owned(),
            user_id: "1".to_owned(),
            scope: json!("unscoped"),
            application_credential: None,
        }
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + seconds).expect("a time")
    }

    #[test]
    fn tokens_are_renewed_shortly_before_their_end() {
        for (life, now, due) in [
            (3600, 0, false),
            (3600, 3299, false),
            (3600, 3301, true),
            (3600, 4000, true),
            // Five minutes of a short life would be most of it.
            (600, 500, false),
            (600, 541, true),
        ] {
            assert_eq!(renewal_due(at(0), at(life), at(now)), due, "{life} {now}");
        }
    }

    #[test]
    fn kubectl_is_told_to_ask_again_in_time() {
        insta::assert_snapshot!(serde_json::to_string_pretty(&exec_credential(&cached(), at(0))).expect("JSON"), @r#"
        {
          "apiVersion": "client.authentication.k8s.io/v1",
          "kind": "ExecCredential",
          "status": {
            "token": "eyJ",
            "expirationTimestamp": "2027-01-15T08:59:30Z"
          }
        }
        "#);
        let late = exec_credential(&cached(), at(3590));
        assert_eq!(late["status"]["expirationTimestamp"], "2027-01-15T09:00:00Z");
    }

    #[test]
    fn a_token_is_its_owners_alone() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let cache = TokenCache::at(&directory.path().join("tokens"));
        let context = "acme/alice@127.0.0.1:6443";
        assert!(cache.read(context).expect("read").is_none());
        cache.write(context, &cached()).expect("written");
        let mode = |path: &Path| std::fs::metadata(path).expect("stat").permissions().mode() & 0o777;
        assert_eq!(mode(&cache.directory), 0o700);
        assert_eq!(mode(&cache.path(context)), 0o600);
        let read = cache.read(context).expect("read").expect("kept");
        assert_eq!(read.token.expose(), "eyJ");
        assert!(!format!("{read:?}").contains("eyJ"), "a secret does not print");
        cache.remove(context).expect("removed");
        assert!(cache.read(context).expect("read").is_none());
    }

    #[test]
    fn contexts_do_not_leave_the_directory() {
        for (context, name) in [
            ("acme/alice@host:6443", "acme%2Falice@host%3A6443"),
            ("../x", "%2E.%2Fx"),
            (".", "%2E"),
            ("公", "%E5%85%AC"),
        ] {
            assert_eq!(file_name(context), name);
        }
    }

    #[test]
    fn our_plugin_is_recognised() {
        let exec = |args: &[&str]| ExecConfig {
            args: Some(args.iter().map(|a| (*a).to_owned()).collect()),
            ..ExecConfig::default()
        };
        assert_eq!(own_plugin(&exec(&["token", "--context", "c"])), Some("c"));
        assert_eq!(own_plugin(&exec(&["eks", "get-token"])), None);
        assert_eq!(own_plugin(&ExecConfig::default()), None);
    }
}
