//! The sole reader of the process environment, and the directories of one instance.

use std::path::{Path, PathBuf};

/// Every environment variable Gantry reads, with what it does; the reference page is made from this.
pub const ENVIRONMENT: &[(&str, &str)] = &[
    ("KUBECONFIG", "kubeconfig file of the client commands, as kubectl reads it"),
    ("GANTRY_LOG", "what is logged, in tracing's filter syntax (default: info)"),
    ("GANTRY_TOKEN_DIR", "where `gantry login` keeps tokens (default: $XDG_CONFIG_HOME/gantry/tokens)"),
    (
        "GANTRY_ADVISORIES_DIR",
        "where `gantry advisories update` keeps advisories (default: $XDG_DATA_HOME/gantry/advisories)",
    ),
    ("COSIGN_PASSWORD", "the password of private keys that sign images, as cosign reads it"),
    ("AWS_ACCESS_KEY_ID", "who `gantry up` is to S3, where images are there and no file says it"),
    ("AWS_SECRET_ACCESS_KEY", "the secret of that key"),
    ("AWS_SESSION_TOKEN", "the token of a key that is good for some time only"),
    ("PATH", "where containerd, runc, nft and ip are looked for"),
    ("HOME", "where ~/.kube/config is looked for"),
    ("XDG_CONFIG_HOME", "where users keep their settings (default: ~/.config)"),
    ("XDG_DATA_HOME", "where users keep their data (default: ~/.local/share)"),
];

/// Reads a variable of [`ENVIRONMENT`]; empty counts as absent.
pub fn environment(name: &str) -> Option<String> {
    debug_assert!(ENVIRONMENT.iter().any(|(known, _)| *known == name), "{name} is not declared");
    #[expect(clippy::disallowed_methods, reason = "this is the one place that reads the environment")]
    let value = std::env::var(name);
    value.ok().filter(|v| !v.is_empty())
}

/// The instance that is meant when none is named.
pub const DEFAULT_INSTANCE: &str = "default";

/// The operator's settings, in the folder of an instance's settings.
pub const CONFIG_FILE: &str = "config.toml";

/// Where one instance keeps its state and its sockets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstanceDirs {
    /// Survives reboots: store, registry, images, volumes, certificates, `kubeconfig`.
    pub data: PathBuf,
    /// Sockets, pid files, containerd's run state.
    pub run: PathBuf,
    /// Container logs in the kubelet's layout.
    pub logs: PathBuf,
    /// The operator's settings, where there are any.
    pub config: PathBuf,
}

impl InstanceDirs {
    /// Directories derived from the instance's name where not given. As root they are the system's;
    /// otherwise the user's own.
    pub fn derive(
        instance: &str,
        data: Option<PathBuf>,
        run: Option<PathBuf>,
        root: bool,
        home: Option<&Path>,
    ) -> Self {
        let suffix = if instance == DEFAULT_INSTANCE { String::new() } else { format!("-{instance}") };
        let moved = data.is_some();
        let data = data.unwrap_or_else(|| match (root, home) {
            (false, Some(home)) => home.join(format!(".local/share/gantry{suffix}")),
            _ => PathBuf::from(format!("/var/lib/gantry{suffix}")),
        });
        let run = run.unwrap_or_else(|| {
            if root { PathBuf::from(format!("/run/gantry{suffix}")) } else { data.join("run") }
        });
        let own_logs = moved || !root || instance != DEFAULT_INSTANCE;
        let logs = if own_logs { data.join("log") } else { PathBuf::from("/var/log") };
        let config = match (moved, root, home) {
            (true, ..) => data.join(CONFIG_FILE),
            (false, false, Some(home)) => home.join(format!(".config/gantry{suffix}")).join(CONFIG_FILE),
            _ => PathBuf::from(format!("/etc/gantry{suffix}")).join(CONFIG_FILE),
        };
        Self { data, run, logs, config }
    }

    pub fn kubeconfig(&self) -> PathBuf {
        self.data.join("kubeconfig")
    }

    pub fn pki(&self) -> PathBuf {
        self.data.join("pki")
    }
}

/// Is `name` fit for file, interface and table names? Lower-case letters, digits and `-`, 1–30 long,
/// beginning with a letter.
pub fn is_instance_name(name: &str) -> bool {
    (1..=30).contains(&name.len())
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_follow_the_instance_name() {
        let of =
            |instance, root| InstanceDirs::derive(instance, None, None, root, Some(Path::new("/home/u")));
        assert_eq!(of("default", true).data, Path::new("/var/lib/gantry"));
        assert_eq!(of("default", true).logs, Path::new("/var/log"));
        assert_eq!(of("t1", true).run, Path::new("/run/gantry-t1"));
        assert_eq!(of("t1", true).logs, Path::new("/var/lib/gantry-t1/log"));
        assert_eq!(of("default", false).run, Path::new("/home/u/.local/share/gantry/run"));
        assert_eq!(of("default", true).config, Path::new("/etc/gantry/config.toml"));
        assert_eq!(of("t1", true).config, Path::new("/etc/gantry-t1/config.toml"));
        assert_eq!(of("default", false).config, Path::new("/home/u/.config/gantry/config.toml"));
        let moved = InstanceDirs::derive("t1", Some("/d".into()), None, true, None);
        assert_eq!(moved.config, Path::new("/d/config.toml"));
    }

    #[test]
    fn instance_names_are_safe_everywhere() {
        for (name, good) in
            [("default", true), ("t-1", true), ("", false), ("1a", false), ("A", false), ("a/b", false)]
        {
            assert_eq!(is_instance_name(name), good, "{name}");
        }
    }
}
