//! The guide names every setting, and its example is the preset.

use gantry_identity_sources::{KeystoneConfig, LdapConfig, OidcConfig};
use serde_json::{Value, json};

const GUIDE: &str = include_str!("../../../../docs/guides/identity-providers.md");

fn names(value: &Value, found: &mut Vec<String>) {
    if let Value::Object(fields) = value {
        for (name, value) in fields {
            found.push(name.clone());
            names(value, found);
        }
    }
}

#[test]
fn every_setting_is_in_the_guide() {
    let ldap = LdapConfig::active_directory(vec!["ldaps://dc".to_owned()], "dc=example");
    let oidc: OidcConfig =
        serde_json::from_value(json!({ "issuer": "https://x", "clientId": "x", "redirectUris": [] }))
            .expect("a configuration");
    let keystone: KeystoneConfig =
        serde_json::from_value(json!({ "url": "https://x/v3", "account": { "user": "x" } }))
            .expect("a configuration");
    for config in [serde_json::to_value(ldap), serde_json::to_value(oidc), serde_json::to_value(keystone)] {
        let mut found = Vec::new();
        names(&config.expect("JSON"), &mut found);
        assert!(found.len() > 10);
        for name in found {
            let named = |end: &str| {
                GUIDE.contains(&format!("`{name}{end}")) || GUIDE.contains(&format!(".{name}{end}"))
            };
            let inside = GUIDE.contains(&format!("{name}: "));
            assert!(named("`") || named(".") || inside, "{name} is not in the guide");
        }
    }
}

#[test]
fn the_active_directory_of_the_guide_is_the_preset() {
    let (_, example) = GUIDE.split_once("kind: IdentityProvider\n").expect("an example");
    let (example, _) = example.split_once("```").expect("its end");
    let object: Value = serde_saphyr::from_str(example).expect("YAML");
    let shown: LdapConfig = serde_json::from_value(object["spec"]["config"].clone()).expect("understood");
    let servers = ["ldaps://dc1.corp.example.org", "ldaps://dc2.corp.example.org"].map(str::to_owned);
    let preset = LdapConfig {
        bind_dn: Some("CN=gantry,OU=Services,DC=corp,DC=example,DC=org".to_owned()),
        ..LdapConfig::active_directory(servers.to_vec(), "DC=corp,DC=example,DC=org")
    };
    assert_eq!(shown, preset);
}
