//! Who the registry is to S3.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use gantry_base::secret::Secret;

/// Keys of a user of S3.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessKeys {
    pub id: String,
    pub secret: Secret<String>,
    /// Of keys that are good for some time only.
    pub session_token: Option<Secret<String>>,
}

impl AccessKeys {
    /// Of the variables that tools for S3 read; `None` if they are not set.
    pub fn of_environment(variable: impl Fn(&str) -> Option<String>) -> Option<Self> {
        let set = |name| variable(name).filter(|value| !value.is_empty());
        Some(Self {
            id: set("AWS_ACCESS_KEY_ID")?,
            secret: Secret::new(set("AWS_SECRET_ACCESS_KEY")?),
            session_token: set("AWS_SESSION_TOKEN").map(Secret::new),
        })
    }

    /// Reads a file that nobody else may read.
    pub(super) fn read(path: &Path) -> io::Result<Self> {
        let told = |what: &str| io::Error::other(format!("{} {what}", path.display()));
        let mode = fs::metadata(path).map_err(|error| told(&error.to_string()))?.permissions().mode();
        if mode & 0o077 != 0 {
            return Err(told(&format!("can be read by others (mode {:o}): chmod 600", mode & 0o777)));
        }
        let text = fs::read_to_string(path)?;
        Self::parse(&text).ok_or_else(|| told("has no aws_access_key_id and aws_secret_access_key"))
    }

    /// The first section of a file of credentials as the AWS tools have it.
    fn parse(text: &str) -> Option<Self> {
        let lines = text.lines().map(str::trim).skip_while(|line| !line.contains('='));
        let first = lines.take_while(|line| !line.starts_with('['));
        let fields: Vec<(&str, &str)> = first.filter_map(|line| line.split_once('=')).collect();
        let field = |wanted: &str| {
            let value = fields.iter().find(|(name, _)| name.trim() == wanted)?.1.trim();
            (!value.is_empty()).then(|| value.to_owned())
        };
        Some(Self {
            id: field("aws_access_key_id")?,
            secret: Secret::new(field("aws_secret_access_key")?),
            session_token: field("aws_session_token").map(Secret::new),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_credentials() {
        let keys = AccessKeys { id: "a".into(), secret: Secret::new("b=/+".into()), session_token: None };
        for text in [
            "[default]\naws_access_key_id = a\naws_secret_access_key = b=/+\n",
            "# ours\n\naws_access_key_id=a\naws_secret_access_key=b=/+",
            "[one]\naws_access_key_id=a\naws_secret_access_key=b=/+\n[two]\naws_access_key_id=c\n",
        ] {
            assert_eq!(AccessKeys::parse(text).as_ref(), Some(&keys), "{text}");
        }
        let temporary =
            AccessKeys::parse("aws_access_key_id=a\naws_secret_access_key=b\naws_session_token=c");
        assert_eq!(temporary.expect("keys").session_token, Some(Secret::new("c".into())));
        for bad in ["", "a b", "[x]\naws_access_key_id=a\n[y]\naws_secret_access_key=b", "aws_access_key_id="]
        {
            assert_eq!(AccessKeys::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_file_that_others_may_read_is_refused() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("credentials");
        gantry_base::fs::write_atomic(&path, b"aws_access_key_id=a\naws_secret_access_key=b\n", 0o640)
            .expect("written");
        let error = AccessKeys::read(&path).expect_err("refused").to_string();
        assert!(error.ends_with("can be read by others (mode 640): chmod 600"), "{error}");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("changed");
        let keys = AccessKeys::read(&path).expect("keys");
        assert_eq!(keys.id, "a");
        assert!(!format!("{keys:?}").contains("\"b\""), "{keys:?}");
    }

    #[test]
    fn keys_of_the_environment() {
        let of = |set: &'static [(&str, &str)]| {
            let value = move |name: &str| set.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned());
            AccessKeys::of_environment(value)
        };
        assert!(of(&[("AWS_ACCESS_KEY_ID", "a")]).is_none());
        assert!(of(&[("AWS_ACCESS_KEY_ID", "a"), ("AWS_SECRET_ACCESS_KEY", "")]).is_none());
        let keys = of(&[("AWS_ACCESS_KEY_ID", "a"), ("AWS_SECRET_ACCESS_KEY", "b")]).expect("keys");
        assert_eq!((keys.id.as_str(), keys.secret.expose().as_str()), ("a", "b"));
    }
}
