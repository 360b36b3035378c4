//! What a command about a provider is given in files: its configuration, and what is secret of it.

use std::collections::BTreeMap;
use std::io::{IsTerminal as _, Read as _};

use anyhow::{Context as _, anyhow, bail};
use gantry_base::secret::Secret;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret as SecretObject;
use kube::api::{ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::{Map, Value, json};

use crate::commands::identity::lookup::plain;

/// No configuration and no bundle of certificates is longer; a pipe that never ends is not read to its end.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// Where the secrets of a provider are.
#[derive(clap::Args, Debug)]
pub struct SecretArgs {
    /// NAMESPACE/NAME of the Secret with `password`, `clientSecret` or `caBundle`; '' for none
    #[arg(long, value_name = "SECRET")]
    pub secret: Option<String>,
    /// Put the first line of this file into the Secret as the password of bindDn or account; - for standard input
    #[arg(long, value_name = "FILE")]
    password_file: Option<String>,
    /// Put the first line of this file into the Secret as the client's; - for standard input
    #[arg(long, value_name = "FILE")]
    client_secret_file: Option<String>,
    /// Put these authorities of the server's certificate (PEM) into the Secret; - for standard input
    #[arg(long, value_name = "FILE")]
    ca_file: Option<String>,
}

/// What goes into the Secret, by its keys.
pub type Entries = BTreeMap<&'static str, Secret<String>>;

impl SecretArgs {
    /// The Secret that was named; `Some(None)`: there is to be none.
    pub fn named(&self) -> anyhow::Result<Option<Option<String>>> {
        let Some(path) = &self.secret else { return Ok(None) };
        if path.is_empty() {
            return Ok(Some(None));
        }
        namespace_and_name(path)?;
        Ok(Some(Some(path.clone())))
    }

    /// Reads what is to be written.
    pub fn entries(&self, files: &mut Files) -> anyhow::Result<Entries> {
        let mut entries = Entries::new();
        for (key, path) in [("password", &self.password_file), ("clientSecret", &self.client_secret_file)] {
            if let Some(path) = path {
                let text = files.read(path)?;
                let line = text.lines().next().filter(|line| !line.is_empty());
                let line = line.ok_or_else(|| anyhow!("{path}: the first line is empty"))?;
                entries.insert(key, Secret::new(line.to_owned()));
            }
        }
        if let Some(path) = &self.ca_file {
            entries.insert("caBundle", Secret::new(files.read(path)?));
        }
        Ok(entries)
    }
}

fn namespace_and_name(path: &str) -> anyhow::Result<(&str, &str)> {
    let parts = path
        .split_once('/')
        .filter(|(namespace, name)| !namespace.is_empty() && !name.is_empty() && !name.contains('/'));
    parts.ok_or_else(|| anyhow!("--secret {path:?} is not NAMESPACE/NAME"))
}

/// Files as they are read. Standard input is one of them, once.
#[derive(Debug, Default)]
pub struct Files {
    stdin_is_read: bool,
}

impl Files {
    pub fn read(&mut self, path: &str) -> anyhow::Result<String> {
        let mut text = String::new();
        let named = || path.to_owned();
        let read = if path == "-" {
            if std::mem::replace(&mut self.stdin_is_read, true) {
                bail!("standard input can be one of the files only");
            }
            // What is typed would be shown.
            if std::io::stdin().is_terminal() {
                bail!("standard input is a terminal: pipe the file in");
            }
            std::io::stdin().lock().take(FILE_BYTES_MAX + 1).read_to_string(&mut text)
        } else {
            let file = std::fs::File::open(path).with_context(named)?;
            file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text)
        };
        if read.with_context(named)? as u64 > FILE_BYTES_MAX {
            bail!("{path} is longer than {FILE_BYTES_MAX} bytes");
        }
        Ok(text)
    }
}

/// `spec.config` from YAML or JSON.
pub fn config(path: &str, text: &str) -> anyhow::Result<Map<String, Value>> {
    match serde_saphyr::from_str(text).with_context(|| path.to_owned())? {
        Value::Object(whole) if whole.contains_key("spec") => bail!(
            "{path} is a whole object, which `kubectl apply -f` takes: only what is below spec.config is wanted here"
        ),
        Value::Object(config) => Ok(config),
        _ => bail!("{path} has no settings: `name: value` lines are wanted"),
    }
}

/// Writes the entries into the Secret; what else is in it stays.
pub async fn write(client: &Client, path: Option<&str>, entries: &Entries) -> anyhow::Result<()> {
    let path = path.ok_or_else(|| anyhow!("say with --secret NAMESPACE/NAME where the secrets go"))?;
    let (namespace, name) = namespace_and_name(path)?;
    let api: Api<SecretObject> = Api::namespaced(client.clone(), namespace);
    let bytes = |text: &Secret<String>| ByteString(text.expose().as_bytes().to_vec());
    let data: BTreeMap<String, ByteString> =
        entries.iter().map(|(key, text)| ((*key).to_owned(), bytes(text))).collect();
    let patch = Patch::Merge(json!({ "data": data }));
    match api.patch(name, &PatchParams::default(), &patch).await {
        Err(kube::Error::Api(status)) if status.code == 404 => {
            let metadata = ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() };
            let new = SecretObject { metadata, data: Some(data), ..SecretObject::default() };
            api.create(&PostParams::default(), &new).await.map(drop).map_err(plain)
        }
        done => done.map(drop).map_err(plain),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_is_yaml_or_json_of_settings_alone() {
        for (text, want) in [
            ("urls: [ldaps://x]\nusers: {base: ou=people}\n", Some(2)),
            (r#"{"issuer": "https://x"}"#, Some(1)),
            ("{}", Some(0)),
            ("kind: IdentityProvider\nspec: {config: {}}\n", None),
            ("- urls", None),
            ("urls", None),
            ("a: [", None),
        ] {
            assert_eq!(config("file", text).ok().map(|config| config.len()), want, "{text:?}");
        }
    }

    #[test]
    fn a_secret_is_named_with_its_namespace() {
        for (text, want) in [
            (None, Some(None)),
            (Some(""), Some(Some(None))),
            (Some("default/directory"), Some(Some(Some("default/directory")))),
            (Some("directory"), None),
            (Some("default/"), None),
            (Some("/directory"), None),
            (Some("a/b/c"), None),
        ] {
            let arguments = SecretArgs {
                secret: text.map(str::to_owned),
                password_file: None,
                client_secret_file: None,
                ca_file: None,
            };
            let want = want.map(|named| named.map(|path: Option<&str>| path.map(str::to_owned)));
            assert_eq!(arguments.named().ok(), want, "{text:?}");
        }
    }

    #[test]
    fn passwords_are_first_lines_and_come_by_one_pipe() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = |name: &str, text: &str| {
            let path = folder.path().join(name);
            gantry_base::fs::write_atomic(&path, text.as_bytes(), 0o600).expect("written");
            path.display().to_string()
        };
        let arguments = SecretArgs {
            secret: Some("default/x".to_owned()),
            password_file: Some(file("password", "sesame \nof whom\n")),
            client_secret_file: None,
            ca_file: Some(file("ca", "one\ntwo\n")),
        };
        let entries = arguments.entries(&mut Files::default()).expect("read");
        let shown: Vec<(&str, &str)> =
            entries.iter().map(|(key, text)| (*key, text.expose().as_str())).collect();
        assert_eq!(shown, [("caBundle", "one\ntwo\n"), ("password", "sesame ")]);
        let empty = SecretArgs { password_file: Some(file("empty", "\nx")), ..arguments };
        assert!(empty.entries(&mut Files::default()).is_err());
        let mut files = Files { stdin_is_read: true };
        assert!(files.read("-").is_err());
    }
}
