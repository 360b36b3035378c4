//! `create`, `set`, `list` and `delete` of each kind with each of their flags.

use gantry_testkit::{Instance, eventually, eventually_some};
use serde_json::{Value, json as value};

use super::{admin, json, words};
use crate::people::Person;
use crate::support::{SOON, expect_field, has_all};

#[test]
fn every_field_of_an_object_is_made_and_changed_by_a_flag() {
    let Some(gantry) = Instance::builder().no_node().start() else { return };
    domains(&gantry);
    projects(&gantry);
    environments(&gantry);
    groups(&gantry);
    users(&gantry);
    roles(&gantry);
    lists(&gantry);
    deletions(&gantry);
}

/// What a command printed of an object as JSON.
#[track_caller]
fn object(gantry: &Instance, line: &str) -> Value {
    json(admin(gantry, line))
}

fn domains(gantry: &Instance) {
    let create = "domain create acme --id d-acme --disabled --tag shop --description Acme \
                  --quota cpu=16 --quota memory=32Gi,pods=100 -o name";
    let made = admin(gantry, create).ok();
    assert_eq!(made, "domain.identity.gantry.dev/d-acme\n");
    let spec = object(gantry, "domain get acme -o json")["spec"].clone();
    assert_eq!((&spec["enabled"], &spec["tags"]), (&value!(false), &value!(["shop"])), "{spec}");
    assert_eq!(spec["quota"], value!({"cpu": "16", "memory": "32Gi", "pods": "100"}), "{spec}");

    let set =
        "domain set acme --name acme-inc --description Shopkeepers --enable --quota cpu=32,pods= -o json";
    let changed = object(gantry, set);
    assert_eq!(
        (&changed["spec"]["name"], &changed["spec"]["description"], &changed["spec"]["enabled"]),
        (&value!("acme-inc"), &value!("Shopkeepers"), &value!(true))
    );
    assert_eq!(changed["spec"]["quota"], value!({"cpu": "32", "memory": "32Gi"}), "{changed}");
    has_all(
        &admin(gantry, "domain list -o wide").ok(),
        &["acme-inc", "cpu=32,memory=32Gi", "shop", "Shopkeepers", "d-acme"],
    );
    has_all(&admin(gantry, "domain get acme-inc -o yaml").ok(), &["kind: Domain\n", "  name: acme-inc\n"]);
    has_all(&admin(gantry, "domain get acme").fails(), &["there is no domain \"acme\""]);
    admin(gantry, "domain set acme-inc --name acme").ok();
    has_all(&admin(gantry, "domain set acme").fails(), &["nothing to change"]);
}

fn projects(gantry: &Instance) {
    let create = "project create acme/web --id p-web --disabled --tag front --description Shop --label team=shop \
                  --label tier=1 --quota cpu=8,pods=50 --environment dev --pod-security restricted --record-sessions \
                  -o json";
    let made = object(gantry, create);
    let spec = object(gantry, "project get acme/web -o json")["spec"].clone();
    assert_eq!(made["spec"], spec);
    assert_eq!(
        (&spec["enabled"], &spec["tags"], &spec["labels"]),
        (&value!(false), &value!(["front"]), &value!({"team": "shop", "tier": "1"})),
        "{spec}"
    );
    assert_eq!(
        (&spec["podSecurity"], &spec["recordSessions"]),
        (&value!("restricted"), &value!(true)),
        "{spec}"
    );
    expect_field(gantry, &["namespace", "web-dev"], "{.status.phase}", "Active");
    gantry.kubectl(&["create", "configmap", "stays", "-n", "web-dev"]).ok();
    let set = "project set acme/web --name shop --description Bakery --enable --label tier=2 --quota cpu=4,pods= \
               --pod-security baseline --record-sessions false -o json";
    let spec = object(gantry, set)["spec"].clone();
    assert_eq!(
        (&spec["enabled"], &spec["description"], &spec["quota"]),
        (&value!(true), &value!("Bakery"), &value!({"cpu": "4"})),
        "{spec}"
    );
    // A namespace cannot be renamed, and what is in it stays: another name of the project moves nothing.
    let at = ["namespace", "web-dev"];
    for (label, wanted) in [
        ("team", "shop"),
        ("tier", "2"),
        ("pod-security\\.kubernetes\\.io/enforce", "baseline"),
        ("audit\\.gantry\\.dev/record-sessions", "false"),
    ] {
        expect_field(gantry, &at, &format!("{{.metadata.labels.{label}}}"), wanted);
    }
    let listed = object(gantry, "project environment list acme/shop -o json");
    assert_eq!(listed[0]["namespace"], "web-dev", "{listed}");
    gantry.kubectl(&["get", "configmap", "stays", "-n", "web-dev"]).ok();
    admin(gantry, "project set acme/shop --disable").ok();
    assert_eq!(object(gantry, "project get acme/shop -o json")["spec"]["enabled"], false);
    admin(gantry, "project set acme/shop --enable").ok();
    let below = "project create acme/cart --parent acme/shop --quota cpu=5";
    has_all(&admin(gantry, below).fails(), &["quota cpu of project \"shop\" is 4"]);
    admin(gantry, "project create acme/cart --parent acme/shop --quota cpu=1").ok();
    has_all(&admin(gantry, "project list -o wide").ok(), &["acme/cart", "acme/shop", "cpu=4", "Bakery"]);
}

fn environments(gantry: &Instance) {
    let add = "project environment add acme/shop test --namespace shop-testing --pod-security restricted \
               --quota pods=20 --label stage=test";
    assert_eq!(
        admin(gantry, add).ok(),
        "environment test added to project acme/shop: namespace shop-testing\n"
    );
    let at = ["namespace", "shop-testing"];
    for (label, wanted) in
        [("stage", "test"), ("team", "shop"), ("pod-security\\.kubernetes\\.io/enforce", "restricted")]
    {
        expect_field(gantry, &at, &format!("{{.metadata.labels.{label}}}"), wanted);
    }
    let bounds = ["resourcequota", "gantry", "-n", "shop-testing"];
    expect_field(gantry, &bounds, "{.spec.hard.pods}", "20");
    let listed = json(admin(gantry, "project environment list acme/shop -o json"));
    let row = value!({"name": "test", "namespace": "shop-testing", "podSecurity": "restricted", "quota": "pods=20",
        "state": "Ready"});
    assert_eq!(listed[1], row, "{listed}");
    let wrong = admin(gantry, "project environment remove acme/shop test --confirm test");
    has_all(&wrong.fails(), &["shop-testing"]);
    admin(gantry, "project environment remove acme/shop test --confirm shop-testing").ok();
    eventually("its namespace is gone", SOON, || {
        !gantry.kubectl(&["get", "namespace", "shop-testing"]).succeeded()
    });
}

fn groups(gantry: &Instance) {
    let made = admin(gantry, "group create acme/devs --id g-devs --description Developers -o name").ok();
    assert_eq!(made, "group.identity.gantry.dev/g-devs\n");
    let set = "group set acme/devs --name developers --description Authors -o name";
    assert_eq!(admin(gantry, set).ok(), made);
    let spec = object(gantry, "group get acme/developers -o json")["spec"].clone();
    assert_eq!((&spec["name"], &spec["description"]), (&value!("developers"), &value!("Authors")));
    assert_eq!(admin(gantry, "group list -o name").ok(), "group.identity.gantry.dev/g-devs\n");
}

fn users(gantry: &Instance) {
    let create = "user create acme/alice --id u-alice --email a@acme.example --disabled --description Shopkeeper \
                  --group acme/developers --default-project acme/shop --generate-password -o name";
    let made = admin(gantry, create).ok();
    assert_eq!(made.lines().next(), Some("user.identity.gantry.dev/u-alice"), "{made}");
    let alice = Person::known(gantry, "acme/alice", made.lines().last().expect("a password"));
    has_all(&admin(gantry, "group members acme/developers").ok(), &["acme/alice"]);
    has_all(
        &admin(gantry, "user list -o wide").ok(),
        &["acme/alice", "acme/developers", "a@acme.example", "acme/shop", "Shopkeeper", "u-alice"],
    );
    alice.login(gantry, &[]).fails();
    let set = "user set acme/alice --name alicia --email b@acme.example --enable --description Baker \
               --default-project acme/cart -o json";
    let spec = object(gantry, set)["spec"].clone();
    let cart = object(gantry, "project get acme/cart -o json")["metadata"]["name"].clone();
    assert_eq!(
        (&spec["email"], &spec["description"], &spec["defaultProject"], &spec["enabled"]),
        (&value!("b@acme.example"), &value!("Baker"), &cart, &value!(true))
    );
    let alicia = Person::known(gantry, "acme/alicia", &alice.password);
    eventually_some("she signs in under her new name", SOON, || {
        let out = alicia.login(gantry, &[]);
        if out.succeeded() { Ok(()) } else { Err(out) }
    });
    admin(gantry, "user set acme/alicia --default-project=").ok();
    assert!(object(gantry, "user get acme/alicia -o json")["spec"]["defaultProject"].is_null());
    admin(gantry, "user set acme/alicia --disable").ok();
    alicia.login(gantry, &[]).fails();
    admin(gantry, "user set acme/alicia --enable").ok();
    let given = admin(gantry, "user password acme/alicia --generate").ok();
    Person::known(gantry, "acme/alicia", &given).login(gantry, &[]).ok();
    by_standard_input(gantry);
}

/// Passwords that somebody else made up.
fn by_standard_input(gantry: &Instance) {
    let bob = Person::known(gantry, "acme/bob", "a-pass-phrase-for-bob");
    let mut create = gantry.gantry_command(&words("user create acme/bob --password-stdin"));
    gantry_testkit::run_with_input(&mut create, b"a-pass-phrase-for-bob\n").ok();
    bob.login(gantry, &[]).ok();
    let mut set = gantry.gantry_command(&words("user password acme/bob --stdin"));
    gantry_testkit::run_with_input(&mut set, b"another-pass-phrase\n").ok();
    bob.login(gantry, &[]).fails();
    Person::known(gantry, "acme/bob", "another-pass-phrase").login(gantry, &[]).ok();
}

fn roles(gantry: &Instance) {
    let create = "role create acme/deployer --id r-deployer --description Deploys \
                  --rule apps/deployments:get,patch --rule pods:get --implies reader \
                  -o yaml";
    has_all(&admin(gantry, create).ok(), &["kind: Role\n", "  name: r-deployer\n"]);
    admin(gantry, "role create acme/empty").ok();
    has_all(
        &admin(gantry, "role get acme/deployer -o wide").ok(),
        &["reader", "apps/deployments:get,patch; pods:get", "Deploys"],
    );
    admin(gantry, "assign acme/deployer --user acme/bob --project acme/shop").ok();
    let has = || admin(gantry, "assign list --user acme/bob --effective").ok();
    has_all(&has(), &["acme/deployer", "reader"]);

    let set = "role set acme/deployer --name releaser --description Releases --rule apps/deployments:get \
               --implies acme/empty -o name";
    assert_eq!(admin(gantry, set).ok(), "role.identity.gantry.dev/r-deployer\n");
    let shown = admin(gantry, "role get acme/releaser -o wide").ok();
    has_all(&shown, &["acme/empty", "apps/deployments:get ", "Releases", "r-deployer"]);
    assert!(!shown.contains("pods:get"), "{shown}");
    eventually("what was implied is not any more", SOON, || {
        has().contains("acme/empty") && !has().contains("reader")
    });
    admin(gantry, "role set acme/releaser --implies=").ok();
    eventually("nothing is implied", SOON, || !has().contains("acme/empty"));
    has_all(&has(), &["acme/releaser"]);
}

/// `--domain` of the lists.
fn lists(gantry: &Instance) {
    admin(gantry, "domain create globex").ok();
    for (listed, wanted) in [
        (admin(gantry, "project list --domain acme -o name"), 2),
        (admin(gantry, "project list --domain globex"), 0),
        (admin(gantry, "user list --domain acme -o name"), 2),
        (admin(gantry, "user list --domain globex"), 0),
        (admin(gantry, "group list --domain d-acme -o name"), 1),
        (admin(gantry, "group list --domain globex"), 0),
        (admin(gantry, "role list --domain acme -o name"), 2),
        (admin(gantry, "role list --domain globex"), 0),
    ] {
        assert_eq!(listed.stdout.lines().count(), wanted, "{listed}");
        assert!(listed.succeeded() && (wanted > 0 || listed.stderr.starts_with("No ")), "{listed}");
    }
    has_all(&admin(gantry, "user list --domain nobody").fails(), &["there is no domain \"nobody\""]);
}

fn deletions(gantry: &Instance) {
    for (deleted, name) in [
        (admin(gantry, "user delete acme/nobody acme/bob --ignore-not-found"), "user acme/bob"),
        (admin(gantry, "group delete acme/x acme/developers --ignore-not-found"), "group acme/developers"),
        (admin(gantry, "role delete acme/x acme/empty --ignore-not-found"), "role acme/empty"),
    ] {
        assert_eq!(deleted.ok(), format!("{name} deleted\n"));
    }
    has_all(&admin(gantry, "user delete acme/nobody").fails(), &["there is no user \"acme/nobody\""]);

    let looked = admin(gantry, "project delete acme/shop --dry-run");
    has_all(&looked.to_string(), &["With the project acme/shop go:", "acme/cart"]);
    object(gantry, "project get acme/shop -o json");
    let cart = admin(gantry, "project delete acme/cart --confirm acme/cart --timeout 60");
    assert_eq!(cart.ok(), "project acme/cart deleted\n");
    assert!(!admin(gantry, "project get acme/cart").succeeded(), "it waits until the project is gone");
    admin(gantry, "domain set acme --disable").ok();
    has_all(&admin(gantry, "domain delete acme --confirm globex").fails(), &["acme"]);
    let acme = admin(gantry, "domain delete acme --confirm acme --timeout 60");
    has_all(&acme.ok(), &["domain acme deleted\n"]);
    has_all(&admin(gantry, "domain get acme").fails(), &["there is no domain \"acme\""]);
}
