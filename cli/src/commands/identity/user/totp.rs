//! `gantry user totp`: codes of an authenticator app, kept as Keystone's `totp` credentials.

use anyhow::anyhow;
use gantry_identity_api::User;
use http::Method;
use kube::ResourceExt as _;
use serde_json::{Value, json};

use crate::commands::identity::lookup::Lookup;
use crate::commands::identity::values;
use crate::keystone::Keystone;

/// The name authenticator apps show above the account.
const ISSUER: &str = "Gantry";

#[derive(clap::Subcommand, Debug)]
pub enum TotpCommand {
    /// Make a secret for an authenticator app and print it once
    #[command(after_help = "\
Having an app does not yet mean that its code is asked for: with --require it is.

Examples:
  gantry user totp enable
  gantry user totp enable acme/alice --require
  gantry user totp enable | qrencode -t ansiutf8")]
    Enable(EnableArgs),
    /// Forget the secrets of all authenticator apps
    Disable(DisableArgs),
}

#[derive(clap::Args, Debug)]
pub struct EnableArgs {
    /// DOMAIN/NAME, NAME in your own domain, or an id [default: yourself]
    user: Option<String>,
    /// From now on ask for the code together with the password (an administrator's to say)
    #[arg(long)]
    require: bool,
}

#[derive(clap::Args, Debug)]
pub struct DisableArgs {
    /// DOMAIN/NAME, NAME in your own domain, or an id [default: yourself]
    user: Option<String>,
}

pub async fn run(command: TotpCommand, lookup: &Lookup, keystone: &Keystone) -> anyhow::Result<()> {
    match command {
        TotpCommand::Enable(arguments) => enable(&arguments, lookup, keystone).await,
        TotpCommand::Disable(arguments) => disable(&arguments, lookup, keystone).await,
    }
}

async fn enable(arguments: &EnableArgs, lookup: &Lookup, keystone: &Keystone) -> anyhow::Result<()> {
    let (user, _) = super::named_or_self(arguments.user.as_deref(), lookup).await?;
    let name = lookup.known().await?.full_name(&user);
    let seed = values::new_seed()?;
    let body = json!({ "credential": { "type": "totp", "user_id": user.name_any(), "blob": seed.expose() } });
    keystone.call(Method::POST, "/credentials", Some(&body)).await?;
    if arguments.require {
        let rules = [vec!["password".to_owned(), "totp".to_owned()]];
        let change = json!({ "options": super::multi_factor_options(&rules) });
        lookup.set::<User>(&user.name_any(), &change).await?;
        eprintln!("Sign-ins of {name} need the password and a code from now on.");
    }
    eprintln!("Scan this with an authenticator app, or type its secret; it is not shown again:");
    println!("{}", values::otpauth(ISSUER, &name, &seed));
    Ok(())
}

async fn disable(arguments: &DisableArgs, lookup: &Lookup, keystone: &Keystone) -> anyhow::Result<()> {
    let (user, _) = super::named_or_self(arguments.user.as_deref(), lookup).await?;
    let name = lookup.known().await?.full_name(&user);
    let path = format!("/credentials?type=totp&user_id={}", values::escaped(&user.name_any()));
    let found = keystone.call(Method::GET, &path, None).await?;
    let ids = ids(&found).ok_or_else(|| anyhow!("the server's list of credentials cannot be read"))?;
    for id in &ids {
        keystone.call(Method::DELETE, &format!("/credentials/{id}"), None).await?;
    }
    println!("user {name}: {} authenticators forgotten", ids.len());
    let rules = user.spec.options.multi_factor_auth_rules.unwrap_or_default();
    if user.spec.options.multi_factor_auth_enabled == Some(true) && needs_totp(&rules) {
        eprintln!(
            "Sign-ins of {name} still need a code: `gantry user set {name} --multi-factor none` ends that."
        );
    }
    Ok(())
}

fn ids(list: &Value) -> Option<Vec<String>> {
    let all = list["credentials"].as_array()?;
    Some(all.iter().filter_map(|credential| credential["id"].as_str().map(str::to_owned)).collect())
}

/// Is there no rule that does without?
fn needs_totp(rules: &[Vec<String>]) -> bool {
    !rules.is_empty() && rules.iter().all(|rule| rule.iter().any(|method| method == "totp"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_needed_when_every_rule_has_one() {
        let rules =
            |texts: &[&str]| values::multi_factor(&texts.iter().map(|t| (*t).to_owned()).collect::<Vec<_>>());
        for (texts, want) in
            [(&["password+totp"][..], true), (&["password+totp", "oidc"], false), (&["none"], false)]
        {
            assert_eq!(needs_totp(&rules(texts).expect("rules")), want, "{texts:?}");
        }
    }
}
