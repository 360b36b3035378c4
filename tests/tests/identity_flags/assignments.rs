//! `gantry assign` and `unassign`: here, below, in a domain, on the platform; and what the list shows of it.

use std::collections::BTreeSet;

use gantry_testkit::{Instance, eventually};

use super::{admin, json};
use crate::people::Person;
use crate::support::{SOON, has_all};

#[test]
fn a_role_holds_where_its_assignment_says() {
    let Some(gantry) = Instance::builder().no_node().start() else { return };
    admin(&gantry, "domain create acme").ok();
    admin(&gantry, "project create acme/web --environment dev").ok();
    admin(&gantry, "group create acme/devs").ok();
    let [alice, bob] = ["acme/alice", "acme/bob"].map(|name| Person::signed_in(&gantry, name));
    admin(&gantry, "group add-user acme/devs acme/bob").ok();
    inherited_in_a_tree(&gantry, &alice);
    inherited_in_a_domain(&gantry, &bob);
    listed(&gantry);
}

/// May the person write there?
fn works(person: &Person, namespace: &str) -> bool {
    person.kubectl(&["create", "configmap", "x", "-n", namespace, "--dry-run=server"]).succeeded()
}

/// Not in the project itself, but in those below, also in one that is made later.
fn inherited_in_a_tree(gantry: &Instance, alice: &Person) {
    let assign = "assign member --user acme/alice --project acme/web --inherited";
    let said = "user acme/alice is member in every project below project acme/web";
    assert_eq!(admin(gantry, assign).ok(), format!("{said}\n"));
    assert_eq!(admin(gantry, assign).ok(), format!("{said} (already)\n"));
    for (name, parent) in [("acme/cart", "acme/web"), ("acme/till", "acme/cart")] {
        gantry.gantry(&["project", "create", name, "--parent", parent, "--environment", "dev"]).ok();
    }
    for namespace in ["cart-dev", "till-dev"] {
        eventually(&format!("{namespace} inherits"), SOON, || works(alice, namespace));
    }
    assert!(!works(alice, "web-dev"), "it holds in the project itself");
    let effective = admin(gantry, "assign list --user acme/alice --effective").ok();
    has_all(&effective, &["project acme/cart", "project acme/till"]);
    assert!(!effective.contains("acme/web"), "{effective}");
    has_all(&alice.gantry(&["whoami"]).ok(), &["member in project acme/cart"]);

    // Without the word it is another assignment, which nobody made.
    let here = "unassign member --user acme/alice --project acme/web";
    has_all(&admin(gantry, here).fails(), &["there is no such assignment"]);
    let below = "unassign member --user acme/alice --project acme/web --inherited";
    assert_eq!(admin(gantry, below).ok(), format!("no more: {said}\n"));
    eventually("nothing is inherited", SOON, || !works(alice, "cart-dev") && !works(alice, "till-dev"));
}

/// In the domain's projects, and in nothing of the domain itself; without the word the other way round.
fn inherited_in_a_domain(gantry: &Instance, bob: &Person) {
    let sees = |name: &str| bob.gantry(&["user", "get", name]).succeeded();
    admin(gantry, "assign member --group acme/devs --domain acme --inherited").ok();
    admin(gantry, "project create acme/lab --environment dev").ok();
    for namespace in ["web-dev", "lab-dev"] {
        eventually(&format!("{namespace} inherits"), SOON, || works(bob, namespace));
    }
    assert!(!sees("acme/alice"), "it holds in the domain itself");
    admin(gantry, "unassign member --group acme/devs --domain acme --inherited").ok();
    eventually("nothing is inherited", SOON, || !works(bob, "web-dev") && !works(bob, "lab-dev"));
    admin(gantry, "assign member --group acme/devs --domain acme").ok();
    eventually("it holds in the domain", SOON, || sees("acme/alice"));
    assert!(!works(bob, "web-dev"), "a domain's role is none in its projects");
    admin(gantry, "unassign member --group acme/devs --domain acme").ok();
    admin(gantry, "assign reader --user acme/bob --system").ok();
    eventually("the platform is seen", SOON, || sees("Default/admin"));
    admin(gantry, "unassign reader --user acme/bob --system").ok();
    eventually("it is not any more", SOON, || !sees("Default/admin"));
}

/// The filters of `gantry assign list`, alone and together.
fn listed(gantry: &Instance) {
    admin(gantry, "assign reader --user acme/alice --system").ok();
    admin(gantry, "assign manager --user acme/alice --domain acme").ok();
    admin(gantry, "assign member --group acme/devs --project acme/web").ok();
    admin(gantry, "assign member --user acme/alice --project acme/cart").ok();
    let system = "reader acme/alice system";
    let domain = "manager acme/alice acme";
    let (group, user) = ("member acme/devs acme/web", "member acme/alice acme/cart");
    for (out, wanted) in [
        (admin(gantry, "assign list --user acme/alice -o json"), &[system, domain, user][..]),
        (admin(gantry, "assign list --group acme/devs -o json"), &[group]),
        (admin(gantry, "assign list --project acme/web -o json"), &[group]),
        (admin(gantry, "assign list --domain acme -o json"), &[domain]),
        (admin(gantry, "assign list --role member -o json"), &[group, user]),
        (admin(gantry, "assign list --role member --user acme/alice -o json"), &[user]),
        (admin(gantry, "assign list --system -o json"), &[system, "admin Default/admin system"]),
    ] {
        let command = out.command.clone();
        let rows = json(out);
        let line = |row: &serde_json::Value| {
            let text = |field: &str| row[field].as_str().unwrap_or_default();
            let at = if text("scope") == "system" { "system" } else { text("in") };
            format!("{} {} {at}", text("role"), text("name"))
        };
        let seen: BTreeSet<String> = rows.as_array().expect("rows").iter().map(line).collect();
        assert_eq!(seen, wanted.iter().map(|text| (*text).to_owned()).collect(), "{command}");
    }
    has_all(
        &admin(gantry, "assign list --group acme/devs --effective").fails(),
        &["--effective says what users have"],
    );
}
