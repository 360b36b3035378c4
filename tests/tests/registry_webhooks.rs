//! Webhooks: what happens in repositories reaches who may hear of it, and nobody else, whatever breaks in between.

use std::collections::HashSet;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use gantry_testkit::{Instance, eventually, eventually_some};
use serde_json::{Value, json};

use crate::people::Person;
use crate::receiver::{Receiver, webhook};
use crate::support::{SOON, expect_field, has_all};

const KEY: &[u8] = b"a key that has 32 bytes, exactly";
const OLD_KEY: &[u8] = b"the one before, with 24+";

struct Stage {
    gantry: Instance,
    alice: Person,
    eve: Person,
}

fn set() -> Option<Stage> {
    let config = "[registry]\nscan = false\nwebhooks_may_reach = [\"127.0.0.0/8\"]\n";
    let gantry = Instance::builder().no_node().file("config.toml", config).start()?;
    for arguments in [
        &["domain", "create", "acme"][..],
        &["domain", "create", "globex"],
        &["project", "create", "acme/web", "--environment", "dev"],
        &["project", "create", "globex/lab", "--environment", "dev"],
    ] {
        gantry.gantry(arguments).ok();
    }
    let (alice, eve) = (Person::signed_in(&gantry, "acme/alice"), Person::signed_in(&gantry, "globex/eve"));
    for (role, user, project) in [
        ("manager", "acme/alice", "acme/web"),
        ("manager", "globex/eve", "globex/lab"),
        ("member", "globex/eve", "acme/web"),
    ] {
        gantry.gantry(&["assign", role, "--user", user, "--project", project]).ok();
    }
    for (person, namespace) in [(&alice, "web-dev"), (&eve, "lab-dev"), (&eve, "web-dev")] {
        let literal = format!("--from-literal=secret=whsec_{}", STANDARD.encode(KEY));
        let previous = format!("--from-literal=previous={}", std::str::from_utf8(OLD_KEY).expect("text"));
        let words = ["-n", namespace, "create", "secret", "generic", "hook", &literal, &previous];
        eventually("rights follow", SOON, || {
            let out = person.kubectl(&words);
            out.succeeded() || out.stderr.contains("already exists")
        });
    }
    Some(Stage { gantry, alice, eve })
}

#[track_caller]
fn accepted(gantry: &Instance, namespace: &str, name: &str) {
    let path = "{.status.conditions[?(@.type==\"Accepted\")].status}";
    expect_field(gantry, &["-n", namespace, "registrywebhook", name], path, "True");
}

fn pack(gantry: &Instance, program: &str, name: &str) {
    gantry.gantry(&["image", "pack", program, "--tag", name]).ok();
}

fn is(event: &Value, kind: &str, subject: &str) -> bool {
    event["type"] == format!("dev.gantry.registry.{kind}") && event["subject"] == subject
}

#[test]
fn events_arrive_signed_in_spite_of_refusals_and_a_kill() {
    let Some(Stage { gantry, alice, eve }) = set() else { return };
    let (mut hers, others) = (Receiver::start(&gantry, "alice"), Receiver::start(&gantry, "eve"));
    alice.make(&webhook("web-dev", "all", &hers.spec(&json!({})))).ok();
    eve.make(&webhook("lab-dev", "all", &others.spec(&json!({})))).ok();
    has_all(&eve.make(&webhook("web-dev", "spy", &others.spec(&json!({})))).fails(), &["forbidden"]);
    has_all(&eve.kubectl(&["-n", "web-dev", "get", "registrywebhooks"]).fails(), &["forbidden"]);
    accepted(&gantry, "web-dev", "all");
    accepted(&gantry, "lab-dev", "all");

    // Refused twice, and sent again as what it is.
    hers.answer(&[503, 500]);
    pack(&gantry, "/bin/true", "acme/web/front:1");
    let pushed = hers.expect("the push", |event| is(event, "pushed", "acme/web/front:1"));
    let of_push: Vec<_> = hers.got().into_iter().filter(|got| got.event() == pushed.event()).collect();
    assert_eq!(of_push.iter().map(|got| got.status).collect::<Vec<_>>(), [503, 500, 204]);
    for got in &of_push {
        assert!(got.is_signed_by(KEY) && got.is_signed_by(OLD_KEY), "{got:?}");
        assert!(!got.is_signed_by(b"another key with 24 bytes"), "{got:?}");
        assert_eq!(got.header("webhook-id"), pushed.event()["id"].as_str().expect("an id"));
        assert_eq!(got.header("content-type"), "application/cloudevents+json; charset=UTF-8");
    }
    let event = pushed.event();
    assert_eq!((&event["specversion"], &event["source"]), (&"1.0".into(), &"/v2/acme/web/front".into()));
    assert_eq!(
        (&event["data"]["tag"], &event["data"]["repository"]),
        (&"1".into(), &"acme/web/front".into())
    );
    assert!(event["data"]["digest"].as_str().expect("a digest").starts_with("sha256:"), "{event}");

    every_pull_is_one_event(&gantry, &hers);
    gantry.gantry(&["repository", "set", "acme/web/front", "--quota", "1"]).ok();
    gantry.gantry(&["image", "pack", "/bin/cat", "--tag", "acme/web/front:big"]).fails();
    let refused = hers.expect("the quota", |event| event["type"] == "dev.gantry.registry.quotaExceeded");
    assert_eq!(refused.event()["data"]["quotaBytes"], 1);
    gantry.gantry(&["repository", "set", "acme/web/front", "--quota", "1Gi"]).ok();
    gantry.gantry(&["image", "rm", "acme/web/front:1"]).ok();
    hers.expect("the deletion", |event| {
        event["type"] == "dev.gantry.registry.deleted" && event["data"]["reason"] == "request"
    });

    // Nobody is there, and then the server is gone, too.
    hers.stop();
    pack(&gantry, "/bin/cat", "acme/web/front:2");
    pack(&gantry, "/bin/ls", "globex/lab/x:1");
    gantry.kill9();
    let before = hers.got().len();
    gantry.restart();
    assert_eq!(hers.got().len(), before);
    hers.resume();
    hers.expect("what was pushed before", |event| is(event, "pushed", "acme/web/front:2"));
    others.expect("the other project's", |event| is(event, "pushed", "globex/lab/x:1"));
    expect_field(&gantry, &["-n", "web-dev", "registrywebhook", "all"], "{.status.pending}", "0");
    let shown = alice.kubectl(&["-n", "web-dev", "get", "regwh"]).ok();
    has_all(&shown, &["URL", "READY", "PENDING", "DELIVERED", "FAILED", "LAST-DELIVERY", "True"]);

    let repositories = |receiver: &Receiver| -> HashSet<String> {
        let all = receiver.got().into_iter().map(|got| got.event()["data"]["repository"].to_string());
        all.collect()
    };
    assert_eq!(repositories(&hers), HashSet::from(["\"acme/web/front\"".to_owned()]));
    assert_eq!(repositories(&others), HashSet::from(["\"globex/lab/x\"".to_owned()]));
    gantry.gantry(&["registry", "fsck"]).ok();
}

fn every_pull_is_one_event(gantry: &Instance, receiver: &Receiver) {
    let pki = gantry.data_dir().join("pki");
    let file = |name: &str| pki.join(name).display().to_string();
    let url = format!("https://{}/v2/acme/web/front/manifests/1", gantry.registry());
    for _ in 0..20 {
        let mut curl = std::process::Command::new("curl");
        curl.args(["-sSf", "--max-time", "10", "--cacert", &file("ca.crt"), "--cert", &file("admin.crt")]);
        gantry_testkit::run(curl.args(["--key", &file("admin.key"), &url])).ok();
    }
    eventually_some("twenty pulls are twenty events", SOON, || {
        let taken = receiver.taken();
        let pulls = taken.iter().filter(|got| is(&got.event(), "pulled", "acme/web/front:1"));
        let ids: HashSet<&str> = pulls.map(|got| got.header("webhook-id")).collect();
        if ids.len() == 20 { Ok(()) } else { Err(ids.len().to_string()) }
    });
}

#[test]
fn operators_hear_everything_and_receivers_have_their_say() {
    let Some(Stage { gantry, alice, .. }) = set() else { return };
    let all = Receiver::start(&gantry, "all");
    let literal = format!("--from-literal=secret={}", std::str::from_utf8(KEY).expect("text"));
    gantry.kubectl(&["create", "secret", "generic", "hook", &literal]).ok();
    let spec = all.spec(&json!({ "contentMode": "binary", "events": ["pushed", "deleted"] }));
    gantry.apply(&webhook("default", "all", &spec).to_string());
    accepted(&gantry, "default", "all");
    pack(&gantry, "/bin/true", "acme/web/front:1");
    pack(&gantry, "/bin/true", "demo/x:1");
    for subject in ["acme/web/front:1", "demo/x:1"] {
        let got = eventually_some(subject, SOON, || {
            let found = all.taken().into_iter().find(|got| got.header("ce-subject") == subject);
            found.ok_or_else(|| format!("{:?}", all.got()))
        });
        assert!(got.is_signed_by(KEY), "{got:?}");
        assert_eq!(got.header("ce-type"), "dev.gantry.registry.pushed");
        assert_eq!(got.header("ce-id"), got.header("webhook-id"));
        assert_eq!((got.header("ce-specversion"), got.header("content-type")), ("1.0", "application/json"));
        assert_eq!(got.event()["tag"], "1");
    }
    // A whole repository goes.
    gantry.kubectl(&["delete", "repository", "demo.x"]).ok();
    eventually_some("the repository's end", SOON, || {
        let found = all.taken().into_iter().find(|got| got.header("ce-subject") == "demo/x");
        found.filter(|got| got.event()["reason"] == "repository").ok_or_else(|| format!("{:?}", all.got()))
    });

    addresses_of_the_machine_are_closed(&gantry, &alice);
    what_is_too_old_is_given_up(&gantry);
    who_is_gone_is_left_alone(&gantry);
}

fn addresses_of_the_machine_are_closed(gantry: &Instance, alice: &Person) {
    let message = |name: &str, wanted: &[&str]| {
        let path = "{.status.conditions[?(@.type==\"Accepted\")].message}";
        eventually_some(name, SOON, || {
            let said = gantry.jsonpath(&["-n", "web-dev", "registrywebhook", name], path);
            if wanted.iter().all(|word| said.contains(word)) { Ok(()) } else { Err(said) }
        });
    };
    for (name, url) in [("metadata", "http://169.254.169.254/latest"), ("here", "http://[::1]:6443/")] {
        let spec = json!({ "url": url, "secret": { "name": "hook" } });
        alice.make(&webhook("web-dev", name, &spec)).ok();
        message(name, &["url: webhooks do not go to", "webhooks_may_reach"]);
    }
    let spec = json!({ "url": "https://receiver.example.org/", "secret": { "name": "none" } });
    alice.make(&webhook("web-dev", "keyless", &spec)).ok();
    message("keyless", &["secret: none does not exist"]);
}

fn what_is_too_old_is_given_up(gantry: &Instance) {
    let receiver = Receiver::start(gantry, "never");
    receiver.answer(&[500; 100]);
    let spec = receiver.spec(&json!({ "giveUpAfterSeconds": 2, "repositories": ["demo/old"] }));
    gantry.apply(&webhook("default", "never", &spec).to_string());
    accepted(gantry, "default", "never");
    pack(gantry, "/bin/true", "demo/old:1");
    let object = ["-n", "default", "registrywebhook", "never"];
    let ready = |field: &str| format!("{{.status.conditions[?(@.type==\"Ready\")].{field}}}");
    expect_field(gantry, &object, "{.status.failed}", "1");
    expect_field(gantry, &object, "{.status.pending}", "0");
    expect_field(gantry, &object, &ready("reason"), "Failing");
    has_all(&gantry.jsonpath(&object, "{.status.lastError}"), &["it answered 500"]);
    eventually_some("an event tells", SOON, || {
        let said = gantry.kubectl(&["get", "events", "--field-selector", "reason=EventsGivenUp"]).ok();
        if said.contains("1 events were given up") { Ok(()) } else { Err(said) }
    });
    assert!(receiver.got().len() > 1, "it was tried again");
}

fn who_is_gone_is_left_alone(gantry: &Instance) {
    let receiver = Receiver::start(gantry, "gone");
    receiver.answer(&[410]);
    let spec = |more: Value| {
        let mut spec = receiver.spec(&more);
        spec["repositories"] = json!(["demo/gone"]);
        webhook("default", "gone", &spec).to_string()
    };
    gantry.apply(&spec(json!({})));
    accepted(gantry, "default", "gone");
    pack(gantry, "/bin/true", "demo/gone:1");
    let ready = "{.status.conditions[?(@.type==\"Ready\")].reason}";
    expect_field(gantry, &["-n", "default", "registrywebhook", "gone"], ready, "Gone");
    pack(gantry, "/bin/true", "demo/gone:2");
    // It waits, until the object is another one; suspended, it waits as well.
    gantry.apply(&spec(json!({ "suspend": true })));
    expect_field(gantry, &["-n", "default", "registrywebhook", "gone"], ready, "Suspended");
    expect_field(gantry, &["-n", "default", "registrywebhook", "gone"], "{.status.pending}", "1");
    assert_eq!(receiver.got().len(), 1);
    gantry.apply(&spec(json!({ "suspend": false })));
    receiver.expect("the second", |event| is(event, "pushed", "demo/gone:2"));
}
