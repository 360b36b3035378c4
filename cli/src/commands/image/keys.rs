//! `gantry image generate-key-pair`

use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use gantry_base::secret::Secret;
use gantry_signatures::PrivateKey;

use crate::prompt;

/// Where scripts for cosign have the password.
const PASSWORD_VARIABLE: &str = "COSIGN_PASSWORD";

#[derive(Debug, clap::Args)]
pub struct KeyPairArgs {
    /// PREFIX.key and PREFIX.pub are written
    #[arg(long, value_name = "PREFIX", default_value = "cosign")]
    output_key_prefix: PathBuf,
    #[command(flatten)]
    password: Password,
}

/// How the password of a private key is told: never as an argument, which others on the machine could read.
#[derive(Debug, clap::Args)]
pub struct Password {
    /// Read the password of the private key from standard input [default: $COSIGN_PASSWORD, else ask]
    #[arg(long)]
    password_stdin: bool,
}

impl Password {
    fn read(&self, ask: impl Fn() -> anyhow::Result<Secret<String>>) -> anyhow::Result<Secret<String>> {
        if self.password_stdin {
            let [password] = prompt::secrets_from_stdin(["password"])?;
            return Ok(password);
        }
        if let Some(password) = gantry_base::settings::environment(PASSWORD_VARIABLE) {
            return Ok(Secret::new(password));
        }
        anyhow::ensure!(
            prompt::interactive(),
            "the private key needs a password: pipe it in with --password-stdin, or set {PASSWORD_VARIABLE}"
        );
        ask()
    }

    /// Reads a private key, and its password where it has one.
    pub fn open(&self, path: &Path) -> anyhow::Result<PrivateKey> {
        let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
        let password = match PrivateKey::is_sealed(&text) {
            true => Some(self.read(|| prompt::secret("Password of the private key"))?),
            false => None,
        };
        let password = password.as_ref().map(|password| password.expose().as_bytes());
        PrivateKey::from_pem(&text, password).with_context(|| path.display().to_string())
    }
}

/// Writes both halves; files that are there are left as they are.
pub fn run(args: &KeyPairArgs) -> anyhow::Result<()> {
    let with = |extension: &str| {
        let mut name = args.output_key_prefix.clone().into_os_string();
        name.push(extension);
        PathBuf::from(name)
    };
    let (private, public) = (with(".key"), with(".pub"));
    for path in [&private, &public] {
        anyhow::ensure!(!path.exists(), "{} is there already: move it away first", path.display());
    }
    let password = args.password.read(|| prompt::new_secret("Password for the private key"))?;
    let key = PrivateKey::generate()?;
    create(&private, &key.to_pem(password.expose().as_bytes())?, 0o600)?;
    create(&public, &key.public().to_pem(), 0o644)?;
    eprintln!("Private key: {}", private.display());
    println!("{}", public.display());
    Ok(())
}

fn create(path: &Path, text: &str, mode: u32) -> anyhow::Result<()> {
    use std::io::Write as _;
    let file = std::fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
    let written = file.and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()));
    written.with_context(|| path.display().to_string())
}
