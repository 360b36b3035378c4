//! Which server to sign in at, and whether it is the one that is meant.

use std::path::Path;

use anyhow::{Context as _, anyhow, bail};
use kube::config::Kubeconfig;
use url::Url;

use super::LoginArgs;
use crate::ClientFlags;
use crate::kubeconfig::authority_of;
use crate::trust::{Trust, establish};

/// Where the front door is when nobody says otherwise.
const DEFAULT_PORT: u16 = 6443;

/// `https://10.0.0.5:6443` of what people write.
pub fn parse(text: &str) -> anyhow::Result<Url> {
    let text = text.trim();
    let has_scheme = text.contains("://");
    let url = if has_scheme { text.to_owned() } else { format!("https://{text}") };
    let mut url = Url::parse(&url).map_err(|error| anyhow!("{text:?} is no server: {error}"))?;
    if url.scheme() != "https" {
        bail!("{text:?} would be asked in the clear: a server's address begins with https://");
    }
    if url.host_str().is_none_or(str::is_empty) || !url.username().is_empty() || url.password().is_some() {
        bail!("{text:?} is no server: write HOST, HOST:PORT or https://…");
    }
    // `https://HOST` has https's own port; HOST alone has the platform's.
    if !has_scheme && url.port().is_none() && !text.ends_with(":443") {
        url.set_port(Some(DEFAULT_PORT)).map_err(|()| anyhow!("{text:?} is no server"))?;
    }
    url.set_path("");
    url.set_query(None);
    url.set_fragment(None);
    Ok(url)
}

/// The server's address and the authorities it is trusted by.
pub async fn trusted(
    arguments: &LoginArgs,
    flags: &ClientFlags,
    file: &Path,
) -> anyhow::Result<(String, Option<String>)> {
    let read = |path: &Path| Kubeconfig::read_from(path).ok();
    let known: Vec<Kubeconfig> = [Some(file.to_owned()), crate::context::find(flags).ok()]
        .iter()
        .flatten()
        .filter_map(|p| read(p))
        .collect();
    let url = match &arguments.server {
        Some(server) => parse(server)?,
        None => {
            let current = known.iter().find_map(|config| current_server(config, flags.context.as_deref()));
            parse(&current.context("say which server: gantry login SERVER")?)?
        }
    };
    let server = url.as_str().trim_end_matches('/').to_owned();
    let named = match &arguments.ca {
        Some(path) => Some(std::fs::read_to_string(path).with_context(|| path.display().to_string())?),
        None => known.iter().find_map(|config| authority_of(config, &server)),
    };
    let trust = Trust { authority: named.as_deref(), fingerprint: arguments.trust_fingerprint.as_deref() };
    let authority = establish(&url, &trust).await?;
    Ok((server, authority))
}

fn current_server(config: &Kubeconfig, context: Option<&str>) -> Option<String> {
    let name = context.or(config.current_context.as_deref())?;
    let of = config.contexts.iter().find(|named| named.name == name)?.context.as_ref()?;
    let cluster = config.clusters.iter().find(|named| named.name == of.cluster)?;
    cluster.cluster.as_ref()?.server.clone()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_read_as_people_write_them() {
        for (text, want) in [
            ("10.0.0.5", Some("https://10.0.0.5:6443/")),
            ("10.0.0.5:7443", Some("https://10.0.0.5:7443/")),
            ("gantry.example.com:443", Some("https://gantry.example.com/")),
            ("https://gantry.example.com", Some("https://gantry.example.com/")),
            ("https://gantry.example.com:6443/console?x#y", Some("https://gantry.example.com:6443/")),
            ("[::1]", Some("https://[::1]:6443/")),
            ("http://10.0.0.5", None),
            ("https://user:pw@host", None),
            ("", None),
            ("a b", None),
        ] {
            assert_eq!(parse(text).ok().as_ref().map(Url::as_str), want, "{text:?}");
        }
    }

    #[test]
    fn the_current_contexts_server_is_the_default() {
        let config = Kubeconfig::from_yaml(
            "{current-context: a, contexts: [{name: a, context: {cluster: one, user: u}}, {name: b, context: {cluster: two, user: u}}],
              clusters: [{name: one, cluster: {server: 'https://one'}}, {name: two, cluster: {server: 'https://two'}}]}",
        )
        .expect("a kubeconfig");
        assert_eq!(current_server(&config, None).as_deref(), Some("https://one"));
        assert_eq!(current_server(&config, Some("b")).as_deref(), Some("https://two"));
        assert_eq!(current_server(&config, Some("c")), None);
    }
}
