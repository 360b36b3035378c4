//! Which server a command talks to, and as whom: found as kubectl finds it.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use gantry_base::secret::Secret;
use gantry_base::settings::{DEFAULT_INSTANCE, InstanceDirs, environment};
use gantry_oci::client::RegistryClient;
use kube::config::{KubeConfigOptions, Kubeconfig};

use crate::credentials;
use crate::keystone::Keystone;

/// Flags that every client command has.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct ClientFlags {
    /// Path to the kubeconfig file to use (default: $KUBECONFIG, then the default instance's, then ~/.kube/config)
    #[arg(long, global = true, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// The name of the kubeconfig context to use
    #[arg(long, global = true, value_name = "NAME")]
    pub context: Option<String>,
}

/// The server and the caller's credentials for it.
pub struct Context {
    config: kube::Config,
    kubeconfig: Kubeconfig,
    context: String,
}

impl Context {
    pub async fn load(flags: &ClientFlags) -> anyhow::Result<Self> {
        let path = find(flags)?;
        let mut kubeconfig = Kubeconfig::read_from(&path).with_context(|| path.display().to_string())?;
        let context = flags.context.clone().or_else(|| kubeconfig.current_context.clone());
        let context = context.ok_or_else(|| anyhow!("{} names no current context", path.display()))?;
        credentials::resolve(&mut kubeconfig, &context).await?;
        let options = KubeConfigOptions { context: Some(context.clone()), ..KubeConfigOptions::default() };
        let config = kube::Config::from_custom_kubeconfig(kubeconfig.clone(), &options).await?;
        Ok(Self { config, kubeconfig, context })
    }

    pub fn kube(&self) -> anyhow::Result<kube::Client> {
        Ok(kube::Client::try_from(self.config.clone())?)
    }

    /// The namespace of the context.
    pub fn default_namespace(&self) -> &str {
        &self.config.default_namespace
    }

    /// `https://127.0.0.1:6443`: the front door, where the registry is too.
    pub fn server(&self) -> String {
        self.config.cluster_url.to_string().trim_end_matches('/').to_owned()
    }

    /// `127.0.0.1:6443`: what stands before a repository in an image's name.
    pub fn registry_host(&self) -> String {
        self.config.cluster_url.authority().map(ToString::to_string).unwrap_or_default()
    }

    /// A client that trusts what the context trusts, without credentials.
    fn anonymous(&self) -> anyhow::Result<reqwest::ClientBuilder> {
        let builder = reqwest::Client::builder();
        // Without authorities of its own, a server is one that the system's know.
        let Some(roots) = &self.config.root_cert else { return Ok(builder) };
        let roots = roots.iter().map(|der| reqwest::Certificate::from_der(der));
        Ok(builder.tls_certs_only(roots.collect::<Result<Vec<_>, _>>()?))
    }

    /// A plain HTTP client with the same authority and credentials, for what is not Kubernetes.
    pub fn http(&self) -> anyhow::Result<reqwest::Client> {
        Ok(self.signed_in()?.build()?)
    }

    /// The server's registry. Where it has a blob somewhere else, that is another host, which the system's
    /// authorities vouch for.
    pub fn registry(&self) -> anyhow::Result<RegistryClient> {
        let http = self.signed_in()?.redirect(reqwest::redirect::Policy::none()).build()?;
        let client = RegistryClient::new(self.server().parse()?, http);
        Ok(client.sent_elsewhere(reqwest::Client::builder().build()?))
    }

    fn signed_in(&self) -> anyhow::Result<reqwest::ClientBuilder> {
        let mut builder = self.anonymous()?;
        if let Some(identity) = self.identity_pem()? {
            builder = builder.identity(reqwest::Identity::from_pem(&identity)?);
        }
        if let Some(token) = self.token()? {
            let mut headers = http::HeaderMap::new();
            let mut value = http::HeaderValue::try_from(format!("Bearer {token}"))?;
            value.set_sensitive(true);
            headers.insert(http::header::AUTHORIZATION, value);
            builder = builder.default_headers(headers);
        }
        Ok(builder)
    }

    /// The identity service, asked with the caller's credentials.
    pub fn keystone(&self) -> anyhow::Result<Keystone> {
        match self.token()? {
            Some(token) => self.keystone_as(Secret::new(token)),
            None => Ok(Keystone::new(self.http()?, &self.server())),
        }
    }

    /// The identity service, asked with a token in place of the context's credentials.
    pub fn keystone_as(&self, token: Secret<String>) -> anyhow::Result<Keystone> {
        Ok(Keystone::new(self.anonymous()?.build()?, &self.server()).with_token(token))
    }

    /// When the client certificate ends, where the caller has one.
    pub fn certificate_expiry(&self) -> anyhow::Result<Option<jiff::Timestamp>> {
        let Some(pem) = self.identity_pem()? else { return Ok(None) };
        let pem = String::from_utf8(pem).context("the client certificate is no text")?;
        let Some(certificate) = gantry_base::pki::certificates(&pem)?.into_iter().next() else {
            return Ok(None);
        };
        let (_, parsed) = x509_parser::parse_x509_certificate(&certificate)?;
        Ok(jiff::Timestamp::from_second(parsed.validity().not_after.timestamp()).ok())
    }

    fn user(&self) -> Option<&kube::config::AuthInfo> {
        let context = self.kubeconfig.contexts.iter().find(|c| c.name == self.context)?.context.as_ref()?;
        let name = context.user.as_ref()?;
        self.kubeconfig.auth_infos.iter().find(|u| &u.name == name)?.auth_info.as_ref()
    }

    /// The client certificate and its key in one PEM text, where the user has one.
    fn identity_pem(&self) -> anyhow::Result<Option<Vec<u8>>> {
        use secrecy::ExposeSecret as _;
        let Some(user) = self.user() else { return Ok(None) };
        let certificate =
            inline_or_file(user.client_certificate_data.as_deref(), user.client_certificate.as_deref())?;
        let key = user.client_key_data.as_ref().map(|secret| secret.expose_secret().to_owned());
        let key = inline_or_file(key.as_deref(), user.client_key.as_deref())?;
        Ok(certificate.zip(key).map(|(mut certificate, key)| {
            certificate.push(b'\n');
            certificate.extend(key);
            certificate
        }))
    }

    /// The caller's bearer token, where the caller has one.
    pub fn token(&self) -> anyhow::Result<Option<String>> {
        use secrecy::ExposeSecret as _;
        let Some(user) = self.user() else { return Ok(None) };
        if let Some(token) = &user.token {
            return Ok(Some(token.expose_secret().to_owned()));
        }
        let Some(path) = &user.token_file else { return Ok(None) };
        let text = std::fs::read_to_string(path).with_context(|| path.clone())?;
        Ok(Some(text.trim().to_owned()))
    }
}

fn inline_or_file(inline: Option<&str>, path: Option<&str>) -> anyhow::Result<Option<Vec<u8>>> {
    match (inline, path) {
        (Some(data), _) => Ok(Some(STANDARD.decode(data).context("kubeconfig: bad base64")?)),
        (None, Some(path)) => Ok(Some(std::fs::read(path).with_context(|| path.to_owned())?)),
        (None, None) => Ok(None),
    }
}

/// The kubeconfig file the commands read.
pub(crate) fn find(flags: &ClientFlags) -> anyhow::Result<PathBuf> {
    if let Some(path) = &flags.kubeconfig {
        return Ok(path.clone());
    }
    if let Some(list) = environment("KUBECONFIG") {
        let first = std::env::split_paths(&list).find(|path| path.is_file());
        return first.ok_or_else(|| anyhow!("KUBECONFIG names no file that exists: {list}"));
    }
    let home = environment("HOME").map(PathBuf::from);
    let root = nix::unistd::geteuid().is_root();
    let own = InstanceDirs::derive(DEFAULT_INSTANCE, None, None, root, home.as_deref()).kubeconfig();
    let users = home.as_deref().unwrap_or(Path::new("/")).join(".kube/config");
    [own, users]
        .into_iter()
        .find(|path| path.is_file())
        .ok_or_else(|| anyhow!("no server is known: run `gantry up`, or name a kubeconfig with --kubeconfig"))
}
