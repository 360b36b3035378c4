//! Organisations, people and rights by `gantry`, as the guide tells it, and the example with two organisations as its
//! README tells it.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use gantry_testkit::{Instance, Output, binary, eventually, eventually_some, kubectl_program, run};
use serde_json::Value;

use crate::people::Person;
use crate::support::{SOON, has_all};
use crate::walks::Walk;

#[track_caller]
fn json(out: Output) -> Value {
    serde_json::from_str(&out.ok()).expect("JSON")
}

/// `spec.name` of each object of a list, sorted.
#[track_caller]
fn names(out: Output) -> Vec<String> {
    let listed = json(out);
    let items = listed["items"].as_array().expect("a list");
    let mut names: Vec<String> =
        items.iter().filter_map(|item| item["spec"]["name"].as_str().map(str::to_owned)).collect();
    names.sort();
    names
}

#[test]
fn a_sign_in_lasts_until_its_logout() {
    let Some(gantry) = Instance::builder().no_node().start() else { return };
    gantry.gantry(&["domain", "create", "acme"]).ok();
    gantry.gantry(&["project", "create", "acme/web", "--environment", "dev"]).ok();
    let bob = Person::create(&gantry, "acme/bob");
    gantry.gantry(&["assign", "member", "--user", "acme/bob", "--project", "acme/web"]).ok();

    strangers_are_told_nothing(&gantry, &bob);
    signed_in(&gantry, &bob);
    tokens_end(&gantry, &bob);
}

/// A server that nobody vouched for gets no password, and a wrong one gets no reason.
fn strangers_are_told_nothing(gantry: &Instance, bob: &Person) {
    let mut stranger = bob.command(binary("gantry"));
    let refused =
        run(stranger.args(["login", &gantry.registry(), "-u", "acme/bob", "--password-stdin"])).fails();
    has_all(&refused, &["is not trusted", "sha-256", "--trust-fingerprint"]);
    let fingerprint =
        refused.lines().find_map(|line| line.trim().strip_prefix("sha-256")).expect("a fingerprint");
    let openssl = run(Command::new("openssl")
        .args(["x509", "-noout", "-fingerprint", "-sha256", "-in"])
        .arg(gantry.data_dir().join("pki/ca.crt")))
    .ok();
    assert!(openssl.trim().ends_with(fingerprint.trim()), "{openssl} is not {fingerprint}");
    let wrong = Person::known(gantry, "acme/bob", "not-his-password");
    has_all(
        &wrong.login(gantry, &[]).fails(),
        &["acme/bob is not signed in: the name, the password or the code is wrong"],
    );
}

/// What a sign-in leaves: a kubeconfig without a secret, and a token that the server knows.
fn signed_in(gantry: &Instance, bob: &Person) {
    let said = bob.login(gantry, &[]).ok();
    let server = format!("https://{}", gantry.registry());
    has_all(
        &said,
        &["Signed in as:  acme/bob", &server, "Scope:         none: everything that is assigned", "(4h)"],
    );
    let kubeconfig = std::fs::read_to_string(bob.kubeconfig()).expect("a kubeconfig");
    let token = bob.gantry(&["token", "--raw"]).ok().trim().to_owned();
    assert!(!kubeconfig.contains(&token) && !kubeconfig.contains(&bob.password), "{kubeconfig}");
    let who = json(bob.gantry(&["whoami", "-o", "json"]));
    assert_eq!(
        (&who["user"], &who["domain"], &who["methods"][0]),
        (&"acme/bob".into(), &"acme".into(), &"password".into())
    );
    assert_eq!(who["roles"].as_array().map(Vec::len), Some(2), "{who}");
    has_all(
        &bob.gantry(&["whoami"]).ok(),
        &["Proven by:  password", "member in project acme/web", "reader in project acme/web"],
    );
    let credential = json(bob.gantry(&["token"]));
    assert_eq!(
        (&credential["kind"], &credential["status"]["token"]),
        (&"ExecCredential".into(), &token.clone().into())
    );
    eventually("bob's role has come", SOON, || bob.kubectl(&["get", "pods", "-n", "web-dev"]).succeeded());
    assert!(bob.kubectl(&["auth", "whoami"]).ok().contains("acme/bob"));

    // A token of one project alone: whoami says so.
    let narrow = Person::known(gantry, "acme/bob", &bob.password);
    has_all(
        &narrow.login(gantry, &["--project", "web", "--context", "narrow"]).ok(),
        &["project acme/web", "Roles:"],
    );
    let said = narrow.gantry(&["whoami", "--context", "narrow"]).ok();
    has_all(&said, &["project acme/web"]);
    narrow.gantry(&["logout", "--context", "narrow"]).ok();
}

/// With its logout, with the password it was made with, with its user.
fn tokens_end(gantry: &Instance, bob: &Person) {
    let server = format!("https://{}", gantry.registry());
    let usable = |token: &str| {
        let mut command = Command::new(kubectl_program());
        let ca = gantry.data_dir().join("pki/ca.crt").display().to_string();
        command.args(["--kubeconfig", "/dev/null", "--server", &server, "--certificate-authority", &ca]);
        run(command.args(["--token", token, "get", "pods", "-n", "web-dev"])).succeeded()
    };
    let context = format!("acme/bob@{}", gantry.registry());
    let token = bob.gantry(&["token", "--raw", "--context", &context]).ok().trim().to_owned();
    assert!(usable(&token));
    assert_eq!(
        bob.gantry(&["logout", "--context", &context]).ok(),
        format!("Signed out acme/bob of {server}.\n")
    );
    assert!(!usable(&token), "a token lives on after its logout");
    has_all(&bob.gantry(&["whoami", "--context", &context]).fails(), &["sign in with `gantry login"]);
    bob.kubectl(&["--context", &context, "get", "pods", "-n", "web-dev"]).fails();

    // `logout` forgets the context's token, not the context.
    bob.login(gantry, &[]).ok();
    let token = bob.gantry(&["token", "--raw"]).ok().trim().to_owned();
    let mut change = bob.command(binary("gantry"));
    let lines = format!("{}\n{}\n", bob.password, "a-brand-new-pass-phrase-of-bob");
    gantry_testkit::run_with_input(change.args(["user", "password", "--stdin"]), lines.as_bytes()).ok();
    assert!(!usable(&token), "a token lives on after its password");
    bob.login(gantry, &[]).fails();
    let bob = Person::known(gantry, "acme/bob", "a-brand-new-pass-phrase-of-bob");
    bob.login(gantry, &[]).ok();
    let token = bob.gantry(&["token", "--raw"]).ok().trim().to_owned();
    gantry.gantry(&["user", "set", "acme/bob", "--disable"]).ok();
    assert!(!usable(&token), "a token lives on after its user");

    // Killed before anybody is enabled again: nothing depends on what was only remembered.
    gantry.kill9();
    gantry.restart();
    gantry.gantry(&["user", "set", "acme/bob", "--enable"]).ok();
    assert!(!usable(&token), "a token comes back with its user");
    bob.login(gantry, &[]).ok();
    let token = bob.gantry(&["token", "--raw"]).ok().trim().to_owned();
    eventually("a new sign-in is good", SOON, || usable(&token));
}

#[test]
fn objects_of_identity_are_made_shown_and_deleted_by_command() {
    let Some(gantry) = Instance::builder().no_node().start() else { return };
    let run = |arguments: &[&str]| gantry.gantry(arguments);
    has_all(
        &run(&["domain", "create", "acme", "--description", "Acme Corp.", "--quota", "cpu=16,memory=32Gi"])
            .ok(),
        &["domain acme created (id "],
    );
    run(&["user", "create", "acme/alice", "--email", "alice@acme.example", "--generate-password"]).ok();
    run(&["user", "create", "acme/bob", "--generate-password"]).ok();
    run(&["group", "create", "acme/devs", "--description", "Developers"]).ok();
    run(&[
        "project",
        "create",
        "acme/web",
        "--environment",
        "dev",
        "--environment",
        "prod",
        "--quota",
        "cpu=8",
    ])
    .ok();
    run(&["role", "create", "acme/deployer", "--rule", "apps/deployments:get,list,watch,patch"]).ok();
    assert_eq!(
        run(&["group", "add-user", "acme/devs", "acme/bob"]).ok(),
        "user acme/bob added to group acme/devs\n"
    );
    assert_eq!(
        run(&["assign", "acme/deployer", "--group", "acme/devs", "--project", "acme/web"]).ok(),
        "group acme/devs is acme/deployer in project acme/web\n"
    );
    assert_eq!(names(run(&["domain", "list", "-o", "json"])), ["Default", "acme"]);
    assert_eq!(names(run(&["user", "list", "-o", "json"])), ["admin", "alice", "bob"]);
    assert_eq!(names(run(&["group", "list", "-o", "json"])), ["devs"]);
    assert_eq!(names(run(&["group", "members", "acme/devs", "-o", "json"])), ["bob"]);
    assert_eq!(names(run(&["project", "list", "-o", "json"])), ["admin", "web"]);
    assert!(names(run(&["role", "list", "-o", "json"])).contains(&"deployer".to_owned()));
    for (kind, name, field, value) in [
        ("domain", "acme", "/spec/description", "Acme Corp."),
        ("user", "acme/alice", "/spec/email", "alice@acme.example"),
        ("group", "acme/devs", "/spec/description", "Developers"),
        ("project", "acme/web", "/spec/quota/cpu", "8"),
        ("role", "acme/deployer", "/spec/rules/0/apiGroups/0", "apps"),
    ] {
        let shown = json(run(&[kind, "get", name, "-o", "json"]));
        assert_eq!(shown.pointer(field), Some(&value.into()), "{kind}: {shown}");
        let id = shown["metadata"]["name"].as_str().expect("an id").to_owned();
        assert_eq!(json(run(&[kind, "get", &id, "-o", "json"])), shown, "by its id");
        has_all(&run(&[kind, "get", name]).ok(), &[name]);
        has_all(&run(&[kind, "create", name]).fails(), &[name, "already"]);
    }
    let assigned = json(run(&["assign", "list", "--project", "acme/web", "-o", "json"])).to_string();
    has_all(&assigned, &["devs", "deployer"]);
    let effective = run(&["assign", "list", "--user", "acme/bob", "--effective"]).ok();
    has_all(&effective, &["acme/deployer", "acme/web"]);

    reasons_are_told(&gantry);
    objects_go(&gantry);
}

/// The binding of the group; or what is missing, roles that can be given first.
fn reasons_are_told(gantry: &Instance) {
    let run = |arguments: &[&str]| gantry.gantry(arguments);
    eventually("the group's binding is there", SOON, || {
        run(&["can", "patch", "deployments", "-n", "web-dev", "--as", "acme/bob"]).succeeded()
    });
    let id = json(run(&["role", "get", "acme/deployer", "-o", "json"]))["metadata"]["name"]
        .as_str()
        .expect("an id")
        .to_owned();
    let why = run(&["can", "patch", "deployments", "-n", "web-dev", "--as", "acme/bob", "--why"]).ok();
    let granted = format!(
        "granted by RoleBinding \"gantry:{id}\" in namespace \"web-dev\": ClusterRole \"gantry:{id}\" to Group \"acme/devs\""
    );
    has_all(&why, &["yes\n", &granted]);
    let refused = run(&["can", "delete", "deployments", "-n", "web-dev", "--as", "acme/bob", "--why"]);
    has_all(&refused.stdout, &["no\n", "allowed on the same: get, list, patch, watch"]);
    let missing: Vec<&str> = refused.stdout.lines().filter(|line| line.contains("missing:")).collect();
    assert!(
        missing[0].contains("a RoleBinding in namespace \"web-dev\" to ClusterRole")
            && !missing[0].contains("system:"),
        "{refused}"
    );
    assert_eq!(refused.code, 1);
    has_all(&refused.stderr, &["user \"acme/bob\" may not delete deployments.apps in namespace \"web-dev\""]);
    let bob =
        Person::known(gantry, "acme/bob", run(&["user", "password", "acme/bob", "--generate"]).ok().trim());
    bob.login(gantry, &[]).ok();
    has_all(
        &bob.gantry(&["can", "patch", "deployments", "-n", "web-dev", "--why"]).ok(),
        &["yes\n", &granted],
    );
    let others = bob.gantry(&["can", "get", "pods", "-n", "web-dev", "--as", "acme/alice"]).fails();
    has_all(&others, &["cannot create resource \"subjectaccessreviews\""]);
    assert!(!others.contains("ApiError"), "{others}");
    reasons_of_assignments_are_told(gantry, &bob);
    rights_on_records_are_told(gantry, &bob);
    logs_are_a_right_of_their_own(gantry);
}

/// What assignments grant and bindings do not: repositories and identity's own kinds. Nothing for the whole cluster is
/// ever what is missing.
fn reasons_of_assignments_are_told(gantry: &Instance, bob: &Person) {
    let front = "repositories.registry.gantry.dev/acme/web/front";
    let refused = bob.gantry(&["can", "pull", front, "--why"]);
    let missing = "no\n  missing: a RoleAssignment in project \"acme/web\" to Role \"reader\"\n";
    assert_eq!(refused.stdout, missing, "{refused}");
    gantry.gantry(&["assign", "member", "--group", "acme/devs", "--project", "acme/web"]).ok();
    eventually("the assignment is in effect", SOON, || bob.gantry(&["can", "push", front]).succeeded());
    let by_member =
        "granted by RoleAssignment in project \"acme/web\": Role \"member\" to Group \"acme/devs\"\n";
    assert_eq!(bob.gantry(&["can", "push", front, "--why"]).ok(), format!("yes\n  {by_member}"));
    let by_reader = by_member.replace("\"member\"", "\"member\", with \"reader\" in it,");
    let pulls = gantry.gantry(&["can", "pull", front, "--as", "acme/bob", "--why"]).ok();
    assert_eq!(pulls, format!("yes\n  {by_reader}"));
    let refused = bob.gantry(&["can", "delete", front, "--why"]);
    assert_eq!(
        refused.stdout,
        "no\n  allowed on the same: pull, push\n  missing: a RoleAssignment in project \"acme/web\" to Role \
         \"manager\"\n",
        "{refused}"
    );
    let refused = bob.gantry(&["can", "update", "projects.identity.gantry.dev/acme/web", "--why"]);
    assert_eq!(
        refused.stdout,
        "no\n  allowed on the same: get\n  missing: a RoleAssignment in project \"acme/web\" to Role \"manager\"\n  \
         missing: a RoleAssignment in domain \"acme\" to Role \"manager\"\n",
        "{refused}"
    );
    has_all(&refused.stderr, &["you may not update projects.identity.gantry.dev acme/web"]);
    // What is another's, and what is nobody's, look the same.
    gantry.gantry(&["domain", "create", "globex"]).ok();
    gantry.gantry(&["project", "create", "globex/lab"]).ok();
    let [others, nobodys] = ["globex/lab/x", "nobody/lab/x"].map(|name| {
        let refused =
            bob.gantry(&["can", "pull", &format!("repositories.registry.gantry.dev/{name}"), "--why"]);
        assert_eq!(refused.code, 1, "{refused}");
        refused.stdout
    });
    assert_eq!(others, "no\n  identity: no role that you can see grants it\n");
    assert_eq!(others, nobodys);
    gantry.gantry(&["unassign", "member", "--group", "acme/devs", "--project", "acme/web"]).ok();
}

/// Records have no names: whose they are stands there.
fn rights_on_records_are_told(gantry: &Instance, bob: &Person) {
    let refused = bob.gantry(&["can", "list", "records.audit.gantry.dev/acme/web", "--why"]);
    assert_eq!(
        refused.stdout,
        "no\n  missing: a RoleAssignment in project \"acme/web\" to Role \"auditor\"\n  missing: a RoleAssignment in \
         project \"acme/web\" to Role \"manager\"\n",
        "{refused}"
    );
    has_all(&refused.stderr, &["you may not list records.audit.gantry.dev acme/web"]);
    let refused = bob.gantry(&["can", "list", "records.audit.gantry.dev/acme", "--why"]);
    has_all(&refused.stdout, &["missing: a RoleAssignment in domain \"acme\" to Role \"auditor\""]);
    let in_namespace = ["can", "list", "records.audit.gantry.dev", "-n", "web-dev"];
    has_all(&bob.gantry(&in_namespace).fails(), &["in namespace \"web-dev\""]);
    gantry.gantry(&["assign", "auditor", "--user", "acme/bob", "--project", "acme/web"]).ok();
    eventually("it is bound in the namespace", SOON, || bob.gantry(&in_namespace).succeeded());
    bob.gantry(&["can", "list", "records.audit.gantry.dev"]).fails();
    let records = ["can", "list", "records.audit.gantry.dev/acme/web", "--why"];
    eventually("the assignment is in effect", SOON, || bob.gantry(&records).succeeded());
    assert_eq!(
        bob.gantry(&records).ok(),
        "yes\n  granted by RoleAssignment in project \"acme/web\": Role \"auditor\" to User \"acme/bob\"\n"
    );
    gantry.gantry(&["unassign", "auditor", "--user", "acme/bob", "--project", "acme/web"]).ok();
    for others in ["globex/lab", "globex", "nobody/lab", "nobody"] {
        let refused = bob.gantry(&["can", "list", &format!("records.audit.gantry.dev/{others}"), "--why"]);
        assert_eq!(
            refused.stdout, "no\n  identity: no role that you can see grants it\n",
            "{others}: {refused}"
        );
    }
}

/// `logs.gantry.dev/logs:get` is `get` on the logs of pods, and no more of them.
fn logs_are_a_right_of_their_own(gantry: &Instance) {
    let can = |verb: &str, resource: &str, more: &[&str]| {
        let asked = ["can", verb, resource, "-n", "web-dev", "--as", "acme/alice", "--why"];
        gantry.gantry(&[&asked[..], more].concat())
    };
    gantry.gantry(&["role", "create", "acme/looker", "--rule", "logs.gantry.dev/logs:get"]).ok();
    let id = json(gantry.gantry(&["role", "get", "acme/looker", "-o", "json"]))["metadata"]["name"]
        .as_str()
        .expect("an id")
        .to_owned();
    gantry.gantry(&["assign", "acme/looker", "--user", "acme/alice", "--project", "acme/web"]).ok();
    eventually("the binding is there", SOON, || can("get", "pods/p", &["--subresource", "log"]).succeeded());
    let granted = format!(
        "yes\n  granted by RoleBinding \"gantry:{id}\" in namespace \"web-dev\": ClusterRole \"gantry:{id}\" to User \
         \"acme/alice\"\n"
    );
    assert_eq!(can("get", "pods/p", &["--subresource", "log"]).ok(), granted);
    assert_eq!(can("get", "logs.logs.gantry.dev", &[]).ok(), granted);
    for (verb, resource, more) in [
        ("get", "pods/p", &[][..]),
        ("list", "pods", &[]),
        ("create", "pods/p", &["--subresource", "exec"]),
        ("get", "pods/p", &["--subresource", "attach"]),
    ] {
        assert_eq!(can(verb, resource, more).code, 1, "{verb} {resource} {more:?}");
    }
    gantry.gantry(&["role", "delete", "acme/looker"]).ok();
}

/// The right with its assignment, an object by its name, and a domain with all that is in it.
fn objects_go(gantry: &Instance) {
    let run = |arguments: &[&str]| gantry.gantry(arguments);
    run(&["unassign", "acme/deployer", "--group", "acme/devs", "--project", "acme/web"]).ok();
    eventually("the right is gone", SOON, || {
        !run(&["can", "patch", "deployments", "-n", "web-dev", "--as", "acme/bob"]).succeeded()
    });
    run(&["group", "remove-user", "acme/devs", "acme/bob"]).ok();
    assert!(names(run(&["group", "members", "acme/devs", "-o", "json"])).is_empty());
    for (kind, name) in
        [("role", "acme/deployer"), ("group", "acme/devs"), ("user", "acme/bob"), ("project", "acme/web")]
    {
        let confirmed = if kind == "project" { vec!["--confirm", name] } else { Vec::new() };
        let words = [vec![kind, "delete", name], confirmed].concat();
        has_all(&run(&words).ok(), &[name, "deleted"]);
        eventually(&format!("{kind} {name} is gone"), SOON, || !run(&[kind, "get", name]).succeeded());
    }
    has_all(&run(&["domain", "delete", "acme", "--confirm", "acme"]).fails(), &["--disable"]);
    run(&["domain", "set", "acme", "--disable"]).ok();
    has_all(&run(&["domain", "delete", "acme", "--confirm", "acme"]).ok(), &["domain acme deleted"]);
    eventually("alice went with her domain", SOON, || {
        names(run(&["user", "list", "-o", "json"])) == ["admin"]
    });
}

/// A file of the example with two organisations.
fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/two-organisations").join(name)
}

/// A script of the example, by the platform's administrator.
#[track_caller]
fn script(gantry: &Instance, name: &str) -> Output {
    run(Walk::new(gantry, "administrator").command("sh").arg(example(name)))
}

/// The README of the example, each command as it stands there, after its users have signed in.
fn readme_is_true(gantry: &Instance, people: &BTreeMap<&str, Person>) {
    let mut walk = Walk::new(gantry, "walk");
    for (name, person) in people {
        walk.sign_in(gantry, name, &person.password);
    }
    let text = std::fs::read_to_string(example("README.md")).expect("the README");
    let steps = walk.walk(&text);
    assert!(steps > 20, "only {steps} commands were found in the README");
}

#[test]
fn two_organisations_do_not_see_each_other() {
    let Some(gantry) = Instance::builder().no_node().start() else { return };
    let seeded = script(&gantry, "seed.sh").ok();
    let passwords: BTreeMap<&str, &str> =
        seeded.lines().skip(1).filter_map(|line| line.split_once(' ')).collect();
    assert_eq!(
        passwords.keys().copied().collect::<Vec<_>>(),
        ["acme/alice", "acme/bob", "acme/carol", "globex/eve", "globex/frank"],
        "{seeded}"
    );
    let people: BTreeMap<&str, Person> = passwords
        .iter()
        .map(|(name, password)| {
            let person = Person::known(&gantry, name, password);
            person.login(&gantry, &[]).ok();
            (*name, person)
        })
        .collect();
    let at = |name: &str| &people[name];
    let namespaces = |name: &str| {
        let out = at(name).kubectl(&["get", "namespaces", "-o", "jsonpath={.items[*].metadata.name}"]);
        out.ok()
    };
    for (name, wanted) in [
        ("acme/alice", "cart-dev web-dev web-prod"),
        ("acme/bob", "web-dev web-prod"),
        ("acme/carol", "cart-dev web-dev web-prod"),
        ("globex/eve", "lab-dev"),
        ("globex/frank", "lab-dev"),
    ] {
        eventually_some(&format!("{name} sees {wanted}"), SOON, || {
            let seen = namespaces(name);
            if seen == wanted { Ok(()) } else { Err(seen) }
        });
    }
    readme_is_true(&gantry, &people);
    rights_end_where_the_other_begins(&people);
    managers_manage_their_own(&people);
    script(&gantry, "seed.sh").ok();
    script(&gantry, "remove.sh").ok();
    eventually("nothing of them is left", SOON, || {
        names(gantry.gantry(&["domain", "list", "-o", "json"])) == ["Default"]
            && !gantry.kubectl(&["get", "namespace", "web-dev", "lab-dev"]).succeeded()
    });
    at("acme/bob").kubectl(&["get", "namespaces"]).fails();
}

/// Who may do what: `gantry can` says it, and `kubectl` is told the same.
fn rights_end_where_the_other_begins(people: &BTreeMap<&str, Person>) {
    let at = |name: &str| &people[name];
    for (name, verb, resource, namespace, may) in [
        ("acme/alice", "create", "deployments", "cart-dev", true),
        ("acme/alice", "get", "pods", "lab-dev", false),
        ("acme/bob", "create", "configmaps", "web-prod", true),
        ("acme/bob", "get", "pods", "cart-dev", false),
        ("acme/bob", "get", "configmaps", "lab-dev", false),
        ("acme/carol", "get", "pods", "cart-dev", true),
        ("acme/carol", "create", "configmaps", "web-dev", false),
        ("acme/carol", "get", "secrets", "web-dev", false),
        ("globex/eve", "create", "deployments", "lab-dev", true),
        ("globex/eve", "get", "pods", "web-dev", false),
        ("globex/frank", "create", "configmaps", "lab-dev", true),
        ("globex/frank", "get", "pods", "web-dev", false),
    ] {
        let said = at(name).gantry(&["can", verb, resource, "-n", namespace]);
        assert_eq!(said.stdout.trim() == "yes", may, "{name} {verb} {resource} in {namespace}: {said}");
        let really = at(name).kubectl(&["auth", "can-i", verb, resource, "-n", namespace]);
        assert_eq!(really.stdout.trim() == "yes", may, "{name} {verb} {resource} in {namespace}: {really}");
    }
    // Who administers an organisation asks about its people, there and not elsewhere.
    for (about, verb, namespace, may) in [
        ("acme/bob", "create", "web-prod", true),
        ("acme/carol", "create", "web-dev", false),
        ("globex/frank", "get", "web-dev", false),
    ] {
        let said = at("acme/alice").gantry(&["can", verb, "configmaps", "-n", namespace, "--as", about]);
        assert_eq!(said.stdout.trim(), if may { "yes" } else { "no" }, "{about} in {namespace}: {said}");
    }
    let elsewhere = at("acme/alice").gantry(&["can", "get", "pods", "-n", "lab-dev", "--as", "globex/frank"]);
    has_all(&elsewhere.fails(), &["cannot create resource \"subjectaccessreviews\""]);
}

/// What each sees of people and projects, and up to where an administrator of one may go.
fn managers_manage_their_own(people: &BTreeMap<&str, Person>) {
    let at = |name: &str| &people[name];
    assert_eq!(names(at("acme/alice").gantry(&["user", "list", "-o", "json"])), ["alice", "bob", "carol"]);
    assert_eq!(names(at("globex/eve").gantry(&["project", "list", "-o", "json"])), ["lab"]);
    assert_eq!(names(at("acme/bob").gantry(&["project", "list", "-o", "json"])), ["cart", "web"]);
    assert_eq!(names(at("acme/bob").gantry(&["user", "list", "-o", "json"])), ["bob"]);
    at("acme/alice").gantry(&["assign", "member", "--user", "acme/carol", "--project", "globex/lab"]).fails();
    // Each manages their own up to the operator's bounds.
    at("acme/alice").gantry(&["domain", "set", "acme", "--quota", "cpu=100"]).fails();
    has_all(
        &at("acme/alice").gantry(&["project", "create", "acme/huge", "--quota", "cpu=9"]).fails(),
        &["quota cpu of domain", "8 are left"],
    );
}

#[test]
fn the_first_administrators_password_is_shown_once_or_chosen() {
    let Some(gantry) = Instance::builder().no_node().start() else { return };
    // Once more from the beginning, to see what a first start says.
    gantry.down(&["--purge"]).ok();
    let first = gantry.up();
    let file = gantry.data_dir().join("identity/admin-password");
    let password = std::fs::read_to_string(&file).expect("it is kept").trim().to_owned();
    let said = first.to_string();
    has_all(&said, &["Administrator Default/admin, password ", &password, &file.display().to_string()]);
    assert_eq!(std::fs::metadata(&file).expect("it is there").permissions().mode() & 0o777, 0o600);
    Person::known(&gantry, "Default/admin", &password).login(&gantry, &[]).ok();
    gantry.down(&[]).ok();
    let second = gantry.up().to_string();
    assert!(!second.contains(&password), "{second}");

    gantry.down(&["--purge"]).ok();
    let chosen = "Chosen-by-the-0perator";
    let given = gantry.scratch().join("chosen");
    std::fs::write(&given, format!("{chosen}\n")).expect("a file of ours");
    let mut up = Command::new(binary("gantry"));
    up.args(["up", "--detach", "--no-node", "--listen", &gantry.registry()]).args(gantry.flags());
    let said = run(up.arg("--admin-password-file").arg(&given));
    assert!(said.succeeded() && !said.to_string().contains(chosen), "{said}");
    assert!(!file.exists(), "it is not kept");
    Person::known(&gantry, "Default/admin", chosen).login(&gantry, &[]).ok();
}
