//! `docs/guides/identity.md`: its commands print what stands below them. Signing in, and what asks for a name on a
//! terminal, is looked at by `identity_commands.rs` and `identity_flags`.

use std::path::Path;

use gantry_testkit::Instance;

use crate::people::Person;
use crate::walks::Walk;

/// The part of the guide below a heading.
#[track_caller]
fn section<'a>(guide: &'a str, heading: &str) -> &'a str {
    let begin = format!("\n## {heading}\n");
    let rest = guide.split_once(&begin).unwrap_or_else(|| panic!("the guide has no {heading:?}")).1;
    rest.split("\n## ").next().unwrap_or(rest)
}

#[test]
fn the_guide_to_identity_is_true() {
    let Some(gantry) = Instance::builder().no_node().start() else { return };
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/guides/identity.md");
    let guide = std::fs::read_to_string(file).expect("the guide");
    let mut walk = Walk::new(&gantry, "guide");
    walk.left_out = vec!["gantry project environment remove", "gantry project delete"];
    walk.prepared = vec![
        ("gantry can create deployments", "gantry assign reader --user acme/carol --domain acme --inherited"),
        ("kubectl -n web-dev expose", "kubectl wait --for=create --timeout=60s namespace/web-dev"),
        ("kubectl -n web-dev expose", "gantry project set acme/web --quota addresses=2"),
        ("kubectl -n web-dev expose", "kubectl -n web-dev create deployment shop --image demo/tools:1"),
        (
            "kubectl -n web-dev expose",
            "kubectl -n web-dev expose deployment shop --name a --type LoadBalancer --port 80",
        ),
        (
            "kubectl -n web-dev expose",
            "kubectl -n web-dev expose deployment shop --name b --type LoadBalancer --port 80",
        ),
    ];
    let mut steps = walk.walk(section(&guide, "Organisations"));
    walk.shell("gantry user create acme/bob").ok();
    walk.shell("gantry user create acme/carol").ok();
    let alice = Person::create(&gantry, "acme/alice");
    walk.sign_in(&gantry, &alice.name, &alice.password);
    for heading in ["Groups", "Projects and environments", "Roles and assignments"] {
        steps += walk.walk(section(&guide, heading));
    }
    walk.kubeconfig = "acme-alice.kubeconfig".to_owned();
    steps += walk.walk(section(&guide, "Programs"));
    assert!(steps > 30, "only {steps} commands were found in the guide");
}
