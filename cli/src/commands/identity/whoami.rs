//! `gantry whoami`: as whom the server sees the caller.

use gantry_base::secret::Secret;
use http::Method;
use jiff::Timestamp;
use serde::Serialize;

use gantry_identity_api::extra;

use super::lookup::Lookup;
use super::render::{self, Output, span};
use super::values::escaped;
use crate::Context;
use crate::keystone::{Keystone, Reference, TokenBody};

#[derive(clap::Args, Debug)]
pub struct WhoamiArgs {
    /// Output format
    #[arg(short, long, value_parser = ["json", "yaml", "name"], value_name = "FORMAT")]
    output: Option<String>,
}

/// What is known of the caller.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Caller {
    server: String,
    user: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    domain: Option<String>,
    groups: Vec<String>,
    /// How it was proven: `password`, `totp`, …; `certificate` or `bearer token` where nothing more is known.
    methods: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    scope: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    roles: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    application_credential: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<Timestamp>,
}

pub async fn run(arguments: WhoamiArgs, context: &Context) -> anyhow::Result<()> {
    let lookup = Lookup::new(context.kube()?);
    let caller = lookup.caller().await?;
    let mut found = Caller {
        server: context.server(),
        user: caller.username.clone().unwrap_or_default(),
        groups: caller.groups.clone().unwrap_or_default(),
        ..Caller::default()
    };
    match context.token()? {
        // Only identity's tokens have more to say; one of a service account does not.
        Some(token) if lookup.caller_extra(extra::USER_ID).await?.is_some() => {
            let keystone = context.keystone()?;
            let body = keystone.validate(&Secret::new(token)).await?;
            add_token(&mut found, &body);
            if body.project.is_none() && body.domain.is_none() && body.system.is_none() {
                found.roles = assigned(&keystone, &body.user.id).await;
            }
        }
        Some(_) => found.methods.push("bearer token".to_owned()),
        None => {
            found.methods.push("certificate".to_owned());
            found.expires_at = context.certificate_expiry()?;
        }
    }
    match arguments.output.as_deref() {
        Some("json") => println!("{}", serde_json::to_string_pretty(&found)?),
        Some("yaml") => print_if(render::structured(&found, Output::Yaml)?),
        Some(_) => println!("{}", found.user),
        None => println!("{}", describe(&found, Timestamp::now())),
    }
    Ok(())
}

fn print_if(text: Option<String>) {
    if let Some(text) = text {
        println!("{text}");
    }
}

fn add_token(found: &mut Caller, body: &TokenBody) {
    found.user_id = Some(body.user.id.clone());
    found.domain = body.user.domain.as_ref().map(|domain| domain.name.clone());
    found.methods.clone_from(&body.methods);
    found.scope = Some(body.scope_words());
    found.roles = body.roles.iter().map(Reference::full_name).collect();
    found.application_credential =
        body.application_credential.as_ref().map(|credential| credential.name.clone());
    found.expires_at = Some(body.expires_at);
}

/// `member in project acme/web`, for a token that is good wherever its user is.
async fn assigned(keystone: &Keystone, user: &str) -> Vec<String> {
    let path = format!("/role_assignments?effective=true&include_names=true&user.id={}", escaped(user));
    // Who may not look at the list still is who they are.
    let answer = keystone.call(Method::GET, &path, None).await.unwrap_or_default();
    let mut lines: Vec<String> = super::assign::in_words(&answer);
    lines.sort();
    lines.dedup();
    lines
}

fn describe(found: &Caller, now: Timestamp) -> String {
    let some = |text: &Option<String>| text.clone().unwrap_or_default();
    let mut rows = vec![("User", found.user.clone())];
    if found.user_id.is_some() {
        rows.push(("Id", some(&found.user_id)));
        rows.push(("Domain", some(&found.domain)));
    }
    rows.push(("Groups", found.groups.join("\n")));
    rows.push(("Proven by", found.methods.join(", ")));
    if let Some(credential) = &found.application_credential {
        rows.push(("Application credential", credential.clone()));
    }
    if let Some(scope) = &found.scope {
        rows.push(("Scope", scope.clone()));
        rows.push(("Roles", found.roles.join("\n")));
    }
    if let Some(expires) = found.expires_at {
        let left = expires.as_second() - now.as_second();
        let left = if left > 0 { format!("{} left", span(left)) } else { "over".to_owned() };
        rows.push(("Until", format!("{expires} ({left})")));
    }
    rows.push(("Server", found.server.clone()));
    render::fields(&rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callers_are_described() {
        let at = |text: &str| text.parse::<Timestamp>().expect("a time");
        let body: TokenBody = serde_json::from_str(
            r#"{"user":{"id":"4f2a","name":"alice","domain":{"id":"a","name":"acme"}},"methods":["password","totp"],
            "project":{"id":"p","name":"web","domain":{"id":"a","name":"acme"}},
            "roles":[{"id":"m","name":"member"},{"id":"r","name":"reader"}],
            "issued_at":"2026-01-01T00:00:00.000000Z","expires_at":"2026-01-01T08:00:00.000000Z"}"#,
        )
        .expect("a token");
        let mut found = Caller {
            server: "https://gantry.example.com".to_owned(),
            user: "acme/alice".to_owned(),
            groups: vec!["acme/devs".to_owned(), "system:authenticated".to_owned()],
            ..Caller::default()
        };
        add_token(&mut found, &body);
        insta::assert_snapshot!(describe(&found, at("2026-01-01T01:00:00Z")), @r"
        User:       acme/alice
        Id:         4f2a
        Domain:     acme
        Groups:     acme/devs
                    system:authenticated
        Proven by:  password, totp
        Scope:      project acme/web
        Roles:      member
                    reader
        Until:      2026-01-01T08:00:00Z (7h left)
        Server:     https://gantry.example.com
        ");
        let admin = Caller {
            server: "https://127.0.0.1:6443".to_owned(),
            user: "gantry-admin".to_owned(),
            groups: vec!["system:masters".to_owned()],
            methods: vec!["certificate".to_owned()],
            expires_at: Some(at("2027-01-01T00:00:00Z")),
            ..Caller::default()
        };
        insta::assert_snapshot!(describe(&admin, at("2026-01-01T00:00:00Z")), @r"
        User:       gantry-admin
        Groups:     system:masters
        Proven by:  certificate
        Until:      2027-01-01T00:00:00Z (365d left)
        Server:     https://127.0.0.1:6443
        ");
    }
}
