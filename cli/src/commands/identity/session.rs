//! Which sign-in a command is about.

use anyhow::{Context as _, anyhow};
use kube::config::Kubeconfig;

use crate::ClientFlags;
use crate::credentials::{TokenCache, own_plugin};

/// The name under which the token of the context is kept: the one that the context's credential plugin asks for,
/// which stays when somebody gives the context another name.
pub fn context_of(flags: &ClientFlags, cache: &TokenCache) -> anyhow::Result<String> {
    if let Some(name) = &flags.context
        && cache.read(name)?.is_some()
    {
        return Ok(name.clone());
    }
    let path = crate::context::find(flags);
    let config = path
        .as_ref()
        .ok()
        .map(|path| Kubeconfig::read_from(path).with_context(|| path.display().to_string()));
    if let Some(name) = &flags.context {
        // kubectl may have the context from another file than ours, and asks by the name of the token.
        let known = config.and_then(Result::ok).and_then(|config| kept_as(&config, name));
        return Ok(known.unwrap_or_else(|| name.clone()));
    }
    let (path, config) = (path?, config.transpose()?.unwrap_or_default());
    let name = config.current_context.clone();
    let name = name.ok_or_else(|| anyhow!("{} names no current context", path.display()))?;
    let kept = kept_as(&config, &name);
    kept.ok_or_else(|| anyhow!("the context {name:?} of {} has no token of `gantry login`", path.display()))
}

fn kept_as(config: &Kubeconfig, context: &str) -> Option<String> {
    let of = config.contexts.iter().find(|named| named.name == context)?.context.as_ref()?;
    let user = config.auth_infos.iter().find(|named| Some(&named.name) == of.user.as_ref())?;
    own_plugin(user.auth_info.as_ref()?.exec.as_ref()?).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_renamed_context_finds_its_token() {
        let config = Kubeconfig::from_yaml(
            "{contexts: [{name: new, context: {cluster: c, user: u}}, {name: admin, context: {cluster: c, user: a}}],
              users: [{name: u, user: {exec: {command: gantry, args: [token, --context, old]}}}, {name: a, user: {token: t}}]}",
        )
        .expect("a kubeconfig");
        assert_eq!(kept_as(&config, "new").as_deref(), Some("old"));
        assert_eq!(kept_as(&config, "admin"), None);
        assert_eq!(kept_as(&config, "none"), None);
    }
}
