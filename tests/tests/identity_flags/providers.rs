//! `identity-provider` with each of its flags. That people sign in by what it makes is in `identity_sources.rs`.

use gantry_testkit::{Instance, eventually_some};
use serde_json::{Value, json as value};

use super::{admin, json};
use crate::support::{SOON, has_all};

#[test]
fn every_field_of_a_provider_is_made_and_changed_by_a_flag() {
    let Some(gantry) = Instance::builder().no_node().start() else { return };
    for line in ["domain create acme", "group create acme/devs", "group create acme/ops"] {
        admin(&gantry, line).ok();
    }
    made(&gantry);
    changed(&gantry);
    let listed = json(admin(&gantry, "identity-provider list -o json"));
    assert_eq!(listed["items"].as_array().map(Vec::len), Some(2), "{listed}");
    let missing = "identity-provider delete nonesuch";
    has_all(&admin(&gantry, missing).fails(), &["there is no identity provider \"nonesuch\""]);
    admin(&gantry, "identity-provider delete nonesuch corporate directory --ignore-not-found").ok();
    assert_eq!(admin(&gantry, "identity-provider list -o name").ok(), "");
}

/// A file of the test's, by its path.
fn file(gantry: &Instance, name: &str, text: &str) -> String {
    let path = gantry.scratch().join(name);
    std::fs::write(&path, text).expect("written");
    path.display().to_string()
}

fn secret(gantry: &Instance, name: &str, key: &str) -> String {
    let template = format!("{{{{index .data {key:?} | base64decode}}}}");
    gantry.kubectl(&["get", "secret", name, "-o", &format!("go-template={template}")]).ok()
}

/// Ids of the groups that a group elsewhere stands for, by their names here.
fn mapped(gantry: &Instance, provider: &Value, outside: &str) -> Vec<String> {
    let ids = provider["spec"]["groupMapping"][outside].as_array().cloned().unwrap_or_default();
    let name = |id: &Value| gantry.jsonpath(&["groups", id.as_str().expect("an id")], "{.spec.name}");
    ids.iter().map(name).collect()
}

fn made(gantry: &Instance) {
    let oidc = file(gantry, "oidc.yaml", "issuer: https://idp.test\nclientId: gantry\n");
    let [client, ca] =
        [("client", "hush-1\nnot this\n"), ("ca.pem", "a bundle\n")].map(|(n, t)| file(gantry, n, t));
    let made = json(admin(
        gantry,
        &format!(
            "identity-provider create corporate --type oidc --domain acme --config-file {oidc} --disabled \
             --secret default/corporate --client-secret-file {client} --ca-file {ca} --sync-interval 60 \
             --map-group idp:devs=devs --map-group idp:devs=acme/ops --description Corporate -o json"
        ),
    ));
    let spec = &made["spec"];
    assert_eq!(spec["config"], value!({"issuer": "https://idp.test", "clientId": "gantry"}), "{spec}");
    assert_eq!(
        (&spec["type"], &spec["enabled"], &spec["syncIntervalSeconds"], &spec["description"]),
        (&value!("oidc"), &value!(false), &value!(60), &value!("Corporate"))
    );
    assert_eq!(spec["secret"], "default/corporate");
    assert_eq!(mapped(gantry, &made, "idp:devs"), ["devs", "ops"]);
    assert_eq!(secret(gantry, "corporate", "clientSecret"), "hush-1");
    assert_eq!(secret(gantry, "corporate", "caBundle"), "a bundle\n");

    let ldap = file(gantry, "ldap.yaml", "urls: ['ldap://127.0.0.1:1']\nusers: {base: dc=x}\n");
    let password = file(gantry, "password", "hush-2\n");
    let create = format!(
        "identity-provider create directory --type ldap --domain acme --config-file {ldap} --disabled \
         --secret default/directory --password-file {password}"
    );
    admin(gantry, &create).ok();
    assert_eq!(secret(gantry, "directory", "password"), "hush-2");
    let unnamed =
        create.replace("--secret default/directory", "").replace("create directory", "create other");
    has_all(&admin(gantry, &unnamed).fails(), &["--secret NAMESPACE/NAME"]);
    has_all(&admin(gantry, "identity-provider get directory -o yaml").ok(), &["kind: IdentityProvider\n"]);
}

fn changed(gantry: &Instance) {
    let oidc = file(gantry, "other.yaml", "issuer: https://login.test\nclientId: gantry\n");
    let [client, ca] = [("client", "hush-3\n"), ("ca.pem", "another\n")].map(|(n, t)| file(gantry, n, t));
    let set = format!(
        "identity-provider set corporate --name work --config-file {oidc} --secret default/work --description Work \
         --client-secret-file {client} --ca-file {ca} --map-group idp:devs= --map-group idp:ops=ops -o json"
    );
    let now = json(admin(gantry, &set));
    let spec = &now["spec"];
    assert_eq!(spec["config"]["issuer"], "https://login.test");
    assert_eq!(
        (&spec["name"], &spec["description"], &spec["secret"], &spec["syncIntervalSeconds"]),
        (&value!("work"), &value!("Work"), &value!("default/work"), &value!(60))
    );
    assert_eq!(
        (mapped(gantry, &now, "idp:devs").len(), mapped(gantry, &now, "idp:ops")),
        (0, vec!["ops".to_owned()])
    );
    assert_eq!(secret(gantry, "work", "clientSecret"), "hush-3");
    assert_eq!(secret(gantry, "work", "caBundle"), "another\n");
    assert_eq!(secret(gantry, "corporate", "clientSecret"), "hush-1", "what was is left where it was");
    // By the new name; the id stays.
    let now = json(admin(gantry, "identity-provider set work --enable -o json"));
    assert_eq!((&now["metadata"]["name"], &now["spec"]["enabled"]), (&value!("corporate"), &value!(true)));
    eventually_some("what is missing is in its status", SOON, || {
        let shown = admin(gantry, "identity-provider get work").ok();
        if shown.contains("False (Misconfigured)") && shown.contains("`redirectUris`") {
            Ok(())
        } else {
            Err(shown)
        }
    });
    let now = json(admin(gantry, "identity-provider set work --disable -o json"));
    assert_eq!(now["spec"]["enabled"], false);
    admin(gantry, "identity-provider set work --name corporate").ok();
}
