//! `gantry identity-provider show corporate`

use gantry_identity_api::{Group, IdentityProvider};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::ResourceExt as _;

use super::ProviderGetArgs;
use crate::commands::identity::kinds::{Kind as _, Known};
use crate::commands::identity::lookup::Lookup;
use crate::commands::identity::ops;
use crate::commands::identity::render::{self, Output};

pub(super) async fn run(arguments: &ProviderGetArgs, lookup: &Lookup) -> anyhow::Result<()> {
    let all = lookup.all::<IdentityProvider>().await?;
    let mut found = Vec::with_capacity(arguments.names.len());
    for name in &arguments.names {
        found.push(lookup.find_among(&all, name).await?.clone());
    }
    let output = arguments.output.output;
    match found.as_slice() {
        providers if output == Output::Table => {
            let mut known = lookup.known().await?;
            // What the caller may not list is shown by its id.
            known.add(&lookup.all::<Group>().await.unwrap_or_default());
            let texts = providers.iter().map(|provider| described(provider, &known));
            println!("{}", texts.collect::<anyhow::Result<Vec<_>>>()?.join("\n\n"));
            Ok(())
        }
        [one] => ops::print_one(lookup, one, output).await,
        _ => ops::print_list(lookup, found, output).await,
    }
}

fn described(provider: &IdentityProvider, known: &Known) -> anyhow::Result<String> {
    let (spec, status) = (&provider.spec, provider.status.clone().unwrap_or_default());
    let mut rows = vec![
        ("Name", provider.called()),
        ("Id", provider.name_any()),
        ("Type", spec.provider_type.as_str().to_owned()),
        ("Domain", known.domain(&spec.domain).to_owned()),
        ("Enabled", spec.enabled.to_string()),
        ("Secret", spec.secret.clone().unwrap_or_default()),
        ("Compared", format!("every {} s", spec.sync_interval_seconds)),
        ("Synced", status.synced_at.map_or_else(|| "never".to_owned(), |at| at.0.to_string())),
        ("Users", status.users.to_string()),
        ("Groups", status.groups.to_string()),
    ];
    if !spec.description.is_empty() {
        rows.push(("Description", spec.description.clone()));
    }
    let mapped = |(outside, ids): (&String, &Vec<String>)| {
        format!("{outside} = {}", ids.iter().map(|id| known.other(id)).collect::<Vec<_>>().join(", "))
    };
    if !spec.group_mapping.is_empty() {
        rows.push(("Mapping", spec.group_mapping.iter().map(mapped).collect::<Vec<_>>().join("\n")));
    }
    rows.push(("Config", render::structured(&spec.config, Output::Yaml)?.unwrap_or_default()));
    if status.conditions.is_empty() {
        rows.push(("Ready", "Unknown: it was not compared yet".to_owned()));
    }
    let conditions = status.conditions.iter().map(|c| (c.type_.as_str(), condition(c)));
    let rows: Vec<(&str, String)> = rows.into_iter().chain(conditions).collect();
    Ok(render::fields(&rows))
}

/// `False (Unavailable) since 2026-11-26T17:24:58Z`, and why on the next line.
fn condition(condition: &Condition) -> String {
    let Condition { status, reason, message, last_transition_time, .. } = condition;
    let since = format!("{status} ({reason}) since {}", last_transition_time.0);
    if message.is_empty() { since } else { format!("{since}\n{message}") }
}

#[cfg(test)]
mod tests {
    use gantry_identity_api::{Domain, DomainSpec, GroupSpec};
    use serde_json::json;

    use super::*;

    #[test]
    fn a_provider_is_shown_with_what_it_does_and_why_not() {
        let object = json!({
            "apiVersion": "identity.gantry.dev/v1alpha1",
            "kind": "IdentityProvider",
            "metadata": { "name": "directory" },
            "spec": {
                "type": "ldap",
                "domain": "5f0c",
                "enabled": true,
                "syncIntervalSeconds": 60,
                "secret": "default/directory",
                "config": { "urls": ["ldaps://ldap.example.org"], "users": { "base": "ou=people" } },
                "groupMapping": { "devs": ["17", "gone"] },
            },
            "status": {
                "users": 2,
                "groups": 1,
                "syncedAt": "2026-11-26T17:24:58Z",
                "conditions": [
                    { "type": "Ready", "status": "False", "reason": "Unavailable",
                      "message": "ldap://127.0.0.1: connection refused",
                      "lastTransitionTime": "2026-11-26T17:25:58Z" },
                    { "type": "Suspended", "status": "False", "reason": "Unavailable", "message": "",
                      "lastTransitionTime": "2026-11-26T17:20:58Z" },
                ],
            },
        });
        let provider: IdentityProvider = serde_json::from_value(object).expect("a provider");
        let name = Some("acme".to_owned());
        let mut known =
            Known::with_domains(&[Domain::new("5f0c", DomainSpec { name, ..Default::default() })]);
        let group =
            GroupSpec { name: Some("devs".to_owned()), domain: "5f0c".to_owned(), ..Default::default() };
        known.add(&[Group::new("17", group)]);
        insta::assert_snapshot!(described(&provider, &known).expect("text"), @r"
        Name:       directory
        Id:         directory
        Type:       ldap
        Domain:     acme
        Enabled:    true
        Secret:     default/directory
        Compared:   every 60 s
        Synced:     2026-11-26T17:24:58Z
        Users:      2
        Groups:     1
        Mapping:    devs = acme/devs, gone
        Config:     urls:
                    - ldaps://ldap.example.org
                    users:
                      base: ou=people
        Ready:      False (Unavailable) since 2026-11-26T17:25:58Z
                    ldap://127.0.0.1: connection refused
        Suspended:  False (Unavailable) since 2026-11-26T17:20:58Z
        ");
        let new = IdentityProvider::new("new", Default::default());
        let shown = described(&new, &known).expect("text");
        assert!(shown.ends_with("Ready:     Unknown: it was not compared yet"), "{shown}");
        let now = "2026-11-26T17:26:00Z".parse().expect("a time");
        let listed = render::list(&[provider, new], &known, Output::Wide, now).expect("text");
        insta::assert_snapshot!(listed, @r"
        NAME        TYPE   DOMAIN   ENABLED   READY     SYNCED                 USERS   GROUPS   SECRET              DESCRIPTION   AGE      ID
        directory   ldap   acme     true      False     2026-11-26T17:24:58Z   2       1        default/directory   <none>        <none>   directory
        new         ldap   <none>   false     Unknown   never                  0       0        <none>              <none>        <none>   new
        ");
    }
}
