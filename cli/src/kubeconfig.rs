//! What `gantry login` writes for kubectl: a cluster, a user with a credential plugin, and a context of both, in a
//! file that has more than these.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use gantry_base::fs as durable;
use gantry_base::settings::environment;
use serde_json::{Map, Value, json};

use crate::credentials::EXEC_API_VERSION;

/// One sign-in, as it stands in the file.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Also the user's name: one sign-in, one token.
    pub context: String,
    pub cluster: String,
    pub server: String,
    pub certificate_authority: Option<String>,
    /// Absolute: kubectl is often started with another PATH than the shell has.
    pub program: PathBuf,
    /// Where the tokens are kept, if not at the usual place.
    pub token_directory: Option<String>,
}

impl Entry {
    fn exec(&self) -> Value {
        let mut exec = json!({
            "apiVersion": EXEC_API_VERSION,
            "command": self.program.display().to_string(),
            "args": ["token", "--context", self.context],
            "installHint": "gantry is not where it was at sign-in: put it there, or sign in again with `gantry login`",
            "interactiveMode": "Never",
            "provideClusterInfo": false,
        });
        if let Some(directory) = &self.token_directory {
            exec["env"] = json!([{ "name": "GANTRY_TOKEN_DIR", "value": directory }]);
        }
        exec
    }

    fn cluster(&self) -> Value {
        let mut cluster = json!({ "server": self.server });
        if let Some(pem) = &self.certificate_authority {
            cluster["certificate-authority-data"] = STANDARD.encode(pem).into();
        }
        cluster
    }
}

/// `existing` with the entry in it, current; everything else stays as it is, unknown fields too.
pub fn merged(existing: Value, entry: &Entry) -> anyhow::Result<Value> {
    let mut config = match existing {
        Value::Null => Map::new(),
        Value::Object(config) => config,
        _ => bail!("this is no kubeconfig"),
    };
    config.entry("apiVersion").or_insert_with(|| "v1".into());
    config.entry("kind").or_insert_with(|| "Config".into());
    put(&mut config, "clusters", "cluster", &entry.cluster, |_| entry.cluster())?;
    put(&mut config, "users", "user", &entry.context, |_| json!({ "exec": entry.exec() }))?;
    put(&mut config, "contexts", "context", &entry.context, |old| {
        let mut context = json!({ "cluster": entry.cluster, "user": entry.context });
        // The namespace somebody works in is theirs to choose.
        if let Some(namespace) = old.get("namespace").filter(|n| n.is_string()) {
            context["namespace"] = namespace.clone();
        }
        context
    })?;
    config.insert("current-context".to_owned(), entry.context.as_str().into());
    Ok(Value::Object(config))
}

fn put(
    config: &mut Map<String, Value>,
    list: &str,
    field: &str,
    name: &str,
    value: impl Fn(&Value) -> Value,
) -> anyhow::Result<()> {
    let entries = config.entry(list).or_insert_with(|| Value::Array(Vec::new()));
    if entries.is_null() {
        *entries = Value::Array(Vec::new());
    }
    let Value::Array(entries) = entries else { bail!("`{list}` is no list") };
    match entries.iter_mut().find(|entry| entry["name"] == name) {
        Some(entry) => entry[field] = value(&entry[field]),
        None => entries.push(json!({ "name": name, field: value(&Value::Null) })),
    }
    Ok(())
}

/// The file that is written: the one named, `$KUBECONFIG`'s first, or `~/.kube/config`.
pub fn path_to_write(named: Option<&Path>) -> anyhow::Result<PathBuf> {
    if let Some(path) = named {
        return Ok(path.to_owned());
    }
    if let Some(list) = environment("KUBECONFIG")
        && let Some(first) = std::env::split_paths(&list).find(|path| !path.as_os_str().is_empty())
    {
        return Ok(first);
    }
    let home = environment("HOME").context("no place for a kubeconfig: name one with --kubeconfig")?;
    Ok(Path::new(&home).join(".kube/config"))
}

/// Puts the entry into the file; makes the file (0600) where there is none.
pub fn write(path: &Path, entry: &Entry) -> anyhow::Result<()> {
    // A link stays a link: what it points to is replaced.
    let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let named = || path.display().to_string();
    let text = durable::read_optional(&path).with_context(named)?.unwrap_or_default();
    let text = String::from_utf8(text).with_context(named)?;
    let existing = match text.trim() {
        "" => Value::Null,
        text => serde_saphyr::from_str(text).with_context(named)?,
    };
    let config = merged(existing, entry).with_context(named)?;
    if let Some(directory) = path.parent().filter(|directory| !directory.as_os_str().is_empty()) {
        durable::create_directory(directory, 0o700).with_context(named)?;
    }
    durable::write_atomic(&path, serde_saphyr::to_string(&config)?.as_bytes(), 0o600).with_context(named)
}

/// The authority a kubeconfig has for a server, in PEM.
pub fn authority_of(config: &kube::config::Kubeconfig, server: &str) -> Option<String> {
    let same = |url: &str| url.trim_end_matches('/') == server;
    let clusters = config.clusters.iter().filter_map(|named| named.cluster.as_ref());
    let mut ours = clusters.filter(|cluster| cluster.server.as_deref().is_some_and(same));
    ours.find_map(|cluster| {
        let inline = cluster.certificate_authority_data.as_ref().and_then(|data| STANDARD.decode(data).ok());
        let file = || std::fs::read(cluster.certificate_authority.as_ref()?).ok();
        String::from_utf8(inline.or_else(file)?).ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry() -> Entry {
        Entry {
            context: "acme/alice@10.0.0.5".to_owned(),
            cluster: "10.0.0.5:6443".to_owned(),
            server: "https://10.0.0.5:6443".to_owned(),
            certificate_authority: Some("-----BEGIN CERTIFICATE-----\n".to_owned()),
            program: PathBuf::from("/usr/local/bin/gantry"),
            token_directory: None,
        }
    }

    #[test]
    fn a_new_file_is_what_kubectl_expects() {
        let config = merged(Value::Null, &entry()).expect("merged");
        insta::assert_snapshot!(serde_saphyr::to_string(&config).expect("YAML"));
    }

    #[test]
    fn what_else_is_in_the_file_stays() {
        let existing = json!({
            "apiVersion": "v1", "kind": "Config", "preferences": {"colors": true}, "x-mine": 1,
            "current-context": "work",
            "clusters": [{"name": "work", "cluster": {"server": "https://work"}}],
            "users": [
                {"name": "work", "user": {"token": "t"}},
                {"name": "acme/alice@10.0.0.5", "user": {"token": "old"}},
            ],
            "contexts": [
                {"name": "work", "context": {"cluster": "work", "user": "work"}},
                {"name": "acme/alice@10.0.0.5", "context": {"cluster": "x", "user": "y", "namespace": "web-dev"}},
            ],
        });
        let config = merged(existing.clone(), &entry()).expect("merged");
        for field in ["preferences", "x-mine"] {
            assert_eq!(config[field], existing[field], "{field}");
        }
        assert_eq!(config["clusters"][0], existing["clusters"][0]);
        assert_eq!(config["users"][0], existing["users"][0]);
        assert_eq!(config["current-context"], "acme/alice@10.0.0.5");
        assert_eq!(config["users"].as_array().map(Vec::len), Some(2));
        assert_eq!(
            config["users"][1]["user"]["token"],
            Value::Null,
            "an old token is not left beside the plugin"
        );
        let context = &config["contexts"][1]["context"];
        assert_eq!(context["namespace"], "web-dev");
        assert_eq!(context["cluster"], "10.0.0.5:6443");
        assert_eq!(merged(config.clone(), &entry()).expect("again"), config, "twice is once");
        assert!(merged(json!({"clusters": "x"}), &entry()).is_err());
        assert!(merged(json!([]), &entry()).is_err());
    }

    #[test]
    fn the_file_is_the_owners_and_kube_reads_it() {
        use std::os::unix::fs::PermissionsExt as _;
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("new/config");
        write(&path, &entry()).expect("written");
        write(&path, &entry()).expect("written again");
        assert_eq!(std::fs::metadata(&path).expect("stat").permissions().mode() & 0o777, 0o600);
        let read = kube::config::Kubeconfig::read_from(&path).expect("a kubeconfig");
        assert_eq!(read.current_context.as_deref(), Some("acme/alice@10.0.0.5"));
        let exec =
            read.auth_infos[0].auth_info.as_ref().and_then(|info| info.exec.as_ref()).expect("a plugin");
        assert_eq!(crate::credentials::own_plugin(exec), Some("acme/alice@10.0.0.5"));
        assert!(authority_of(&read, "https://10.0.0.5:6443").expect("kept").starts_with("-----BEGIN"));
        assert!(authority_of(&read, "https://10.0.0.6:6443").is_none());
    }
}
