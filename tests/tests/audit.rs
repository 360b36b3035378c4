//! The audit trail through `gantry audit`: deeds are found by everything they have, each sees what is theirs, and a
//! byte that somebody changes on the disk is found.

use std::process::Command;
use std::time::Duration;

use gantry_testkit::{Instance, Output, binary, eventually, eventually_some, run, spawn};
use serde_json::Value;

use crate::people::Person;
use crate::support::{SOON, certificates, has_all};

/// The records that a search as JSON finds, the newest first.
#[track_caller]
fn found(search: Output) -> Vec<Value> {
    serde_json::from_str(&search.ok()).expect("a list of records")
}

/// The rows of a search's table: words between runs of blanks.
#[track_caller]
fn rows(search: Output) -> Vec<Vec<String>> {
    let out = search.ok();
    let mut lines = out.lines();
    let columns: Vec<&str> = lines.next().unwrap_or_default().split_whitespace().collect();
    assert_eq!(columns, ["TIME", "USER", "VERB", "OBJECT", "NAMESPACE", "NAME", "OUTCOME", "EVENT"], "{out}");
    let cells = |line: &str| {
        line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).map(str::to_owned).collect()
    };
    lines.map(cells).collect()
}

/// What happens in the story, and who tells it.
struct Deeds {
    gantry: Instance,
    alice: Person,
    began: String,
}

impl Deeds {
    /// Alice works in one project of acme, there is another one beside it.
    fn done() -> Option<Self> {
        let gantry = Instance::builder().no_node().start()?;
        for arguments in [
            &["domain", "create", "acme"][..],
            &["project", "create", "acme/web", "--environment", "dev"],
            &["project", "create", "acme/bank", "--environment", "dev"],
        ] {
            gantry.gantry(arguments).ok();
        }
        let alice = Person::signed_in(&gantry, "acme/alice");
        let began = run(Command::new("date").args(["-u", "+%Y-%m-%dT%H:%M:%SZ"])).ok().trim().to_owned();
        gantry.gantry(&["assign", "member", "--user", "acme/alice", "--project", "acme/web"]).ok();
        eventually("alice may work", SOON, || {
            alice.kubectl(&["get", "configmaps", "-n", "web-dev"]).succeeded()
        });
        alice
            .kubectl(&[
                "create",
                "secret",
                "generic",
                "token",
                "-n",
                "web-dev",
                "--from-literal=k=kept-from-all",
            ])
            .ok();
        alice.kubectl(&["get", "secret", "token", "-n", "web-dev", "-o", "yaml"]).ok();
        alice.kubectl(&["get", "secrets", "-n", "bank-dev"]).fails();
        let wrong = Person::known(&gantry, "acme/alice", "not-her-password");
        wrong.login(&gantry, &[]).fails();
        gantry.gantry(&["user", "password", "acme/alice", "--generate"]).ok();
        Some(Self { gantry, alice, began })
    }

    #[track_caller]
    fn search(&self, arguments: &[&str]) -> Output {
        self.gantry.gantry(&[&["audit", "search"], arguments].concat())
    }

    /// Exactly one record is found, with these cells after the time. It is queued before its deed is answered, and
    /// written a moment later.
    #[track_caller]
    fn one(&self, arguments: &[&str], cells: &[&str]) {
        let rows = eventually_some(&format!("a record of {arguments:?}"), SOON, || {
            let out = self.search(arguments);
            if out.stdout.is_empty() { Err(out.stderr) } else { Ok(rows(out)) }
        });
        assert_eq!(rows.len(), 1, "{arguments:?}: {rows:#?}");
        assert_eq!(rows[0][1..], *cells, "{arguments:?}");
    }
}

#[test]
fn deeds_are_found_followed_exported_and_vouched_for() {
    let Some(mut deeds) = Deeds::done() else { return };
    let right = "roleassignments.identity.gantry.dev";
    let read = ["acme/alice", "get", "secrets", "web-dev", "token", "success 200", "secret-read"];
    deeds.one(&["--event", "secret-read", "--user", "acme/alice"], &read);
    deeds.one(&["--verb", "get", "--resource", "secrets", "-n", "web-dev", "--name", "token"], &read);
    let refused = ["acme/alice", "list", "secrets", "bank-dev", "-", "denied 403", "-"];
    // Until her role had come, she was denied her own project, too.
    deeds.one(&["--user", "acme/alice", "--outcome", "denied", "-n", "bank-dev"], &refused);
    deeds.one(&["forbidden", "bank-dev"], &refused);
    let failed = [
        "system:anonymous",
        "login-failed",
        "users.identity.gantry.dev",
        "-",
        "acme/alice",
        "denied 401",
        "login-failed",
    ];
    deeds.one(&["--event", "login-failed"], &failed);
    deeds.one(&["--verb", "login-failed", "acme", "alice"], &failed);
    let id = deeds.gantry.gantry(&["user", "list", "-o", "json"]).ok();
    let users: Value = serde_json::from_str(&id).expect("JSON");
    let users = users["items"].as_array().expect("a list");
    let id =
        users.iter().find(|user| user["spec"]["name"] == "alice").expect("alice")["metadata"]["name"].clone();
    let id = id.as_str().expect("an id");
    deeds.one(
        &["--event", "login"],
        &["acme/alice", "login", "users.identity.gantry.dev", "-", id, "success 200", "login"],
    );
    // Who set a password did it, not whose it is.
    for row in rows(deeds.search(&["--event", "password-reset", "--name", id])) {
        assert_eq!(row[1], "gantry-admin");
    }
    // What the platform gave itself when it came up may be of the second in which the deeds began.
    let given = ["--event", "right-changed", "--resource", right, "--user", "gantry-admin"];
    let given = rows(deeds.search(&[&given[..], &["--since", &deeds.began]].concat()));
    assert_eq!(given.len(), 1, "{given:?}");
    assert_eq!(given[0][1..5], ["gantry-admin", "create", right, "-"]);
    deeds.gantry.kubectl(&["get", right, &given[0][5]]).ok();
    let changed = found(deeds.search(&["--event", "right-changed", "-o", "json"]));
    assert!(changed.iter().all(|record| record["objectRef"]["subresource"] != "status"), "{changed:#?}");
    assert!(
        deeds
            .search(&["--until", &deeds.began, "--event", "secret-read", "--user", "acme/alice"])
            .stderr
            .contains("No records found.")
    );
    assert_eq!(rows(deeds.search(&["--since", "1h", "--limit", "7"])).len(), 7);
    let all = deeds.search(&["--limit", "1000", "-o", "json"]).ok();
    assert!(
        !all.contains("kept-from-all") && !all.contains(&deeds.alice.password),
        "a secret is in the trail"
    );

    sessions_end(&deeds);
    follows(&deeds);
    kubectl_finds_it_too(&deeds);
    let exported = deeds.gantry.gantry(&["audit", "export", "--user", "acme/alice", "--since", "1h"]).ok();
    let exported: Vec<Value> =
        exported.lines().map(|line| serde_json::from_str(line).expect("a record is a line")).collect();
    let numbers: Vec<u64> = exported.iter().filter_map(|record| record["sequence"].as_u64()).collect();
    assert!(numbers.len() > 5 && numbers.is_sorted() && numbers.len() == exported.len(), "{numbers:?}");
    assert!(exported.iter().all(|record| record["user"]["username"] == "acme/alice"), "{exported:#?}");
    is_whole_until_somebody_changes_it(&mut deeds);
}

/// curl at the instance, which trusts its authority.
fn curl(gantry: &Instance, arguments: &[&str], path: &str) -> Output {
    let mut command = Command::new("curl");
    command.args(["-sS", "--max-time", "30", "--cacert"]).arg(gantry.data_dir().join("pki/ca.crt"));
    run(command.args(arguments).arg(format!("https://{}{path}", gantry.registry())))
}

/// The id of the object that is called so, in a list of a command.
#[track_caller]
fn id_of(gantry: &Instance, list: &[&str], name: &str) -> String {
    let listed: Value =
        serde_json::from_str(&gantry.gantry(&[list, &["-o", "json"]].concat()).ok()).expect("JSON");
    let mut items = listed["items"].as_array().expect("a list").iter();
    let found = items.find(|item| item["spec"]["name"] == name).expect("it is listed");
    found["metadata"]["name"].as_str().expect("an id").to_owned()
}

/// The records that somebody sees.
#[track_caller]
fn seen_by(person: &Person) -> Vec<Value> {
    found(person.gantry(&["audit", "search", "--limit", "1000", "-o", "json"]))
}

/// What a record says of whose it is.
fn of(record: &Value, what: &str) -> String {
    record["annotations"][format!("audit.gantry.dev/{what}")].as_str().unwrap_or_default().to_owned()
}

/// As `user verb resource`.
fn told(record: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (user, object) = (text(&record["user"]["username"]), &record["objectRef"]);
    format!("{user} {} {}", text(&record["verb"]), text(&object["resource"]))
}

#[test]
fn who_manages_a_project_or_a_domain_sees_what_is_about_it() {
    let Some(gantry) = Instance::builder().no_node().start() else { return };
    for arguments in [
        &["domain", "create", "acme"][..],
        &["domain", "create", "globex"],
        // Without an environment: it has no namespace.
        &["project", "create", "acme/bare"],
        &["project", "create", "acme/bank"],
    ] {
        gantry.gantry(arguments).ok();
    }
    let names = ["acme/mia", "acme/dora", "acme/bob"];
    let [mia, dora, bob] = names.map(|name| Person::signed_in(&gantry, name));
    gantry.gantry(&["assign", "manager", "--user", "acme/mia", "--project", "acme/bare"]).ok();
    gantry.gantry(&["assign", "manager", "--user", "acme/dora", "--domain", "acme"]).ok();
    let _eve = Person::create(&gantry, "globex/eve");
    for project in ["acme/bare", "acme/bank"] {
        gantry.gantry(&["assign", "member", "--user", "acme/bob", "--project", project]).ok();
        let credentials = format!("{}:{}", bob.name, bob.password);
        curl(&gantry, &["-u", &credentials], &format!("/v2/{project}/front/tags/list")).ok();
    }
    let projects = ["bare", "bank"].map(|name| id_of(&gantry, &["project", "list"], name));
    let [bare, _] = &projects;
    let domain = id_of(&gantry, &["domain", "list"], "acme");
    let wanted = ["gantry-admin create roleassignments", "acme/bob pull repositories"];
    let sees_all = |person: &Person, wanted: &[&str]| {
        eventually_some("the records are hers to see", SOON, || {
            let seen = seen_by(person);
            let lines: Vec<String> = seen.iter().map(told).collect();
            let missing = wanted.iter().find(|line| !lines.iter().any(|seen| seen == *line));
            missing.map_or(Ok(seen), |line| Err(format!("no {line} in {lines:#?}")))
        })
    };
    for record in sees_all(&mia, &wanted) {
        let hers = record["user"]["username"] == "acme/mia" || of(&record, "project") == *bare;
        assert!(hers, "not of the project: {record:#}");
    }
    let wanted =
        ["gantry-admin create users", "gantry-admin create projects", "gantry-admin create roleassignments"];
    for record in sees_all(&dora, &wanted) {
        let hers = record["user"]["username"] == "acme/dora" || of(&record, "object-domain") == domain;
        assert!(hers, "not of the domain: {record:#}");
        assert!(!told(&record).ends_with("repositories"), "of a project: {record:#}");
    }
    for record in sees_all(&bob, &["acme/bob pull repositories"]) {
        assert_eq!(record["user"]["username"], "acme/bob", "{record:#}");
    }
    let by_kubectl = bob.kubectl(&["get", "records.audit.gantry.dev", "--no-headers"]).ok();
    let users: Vec<Option<&str>> = by_kubectl.lines().map(|line| line.split_whitespace().nth(1)).collect();
    assert!(!users.is_empty() && users.iter().all(|user| *user == Some("acme/bob")), "{by_kubectl}");
    // The name is given to another.
    gantry.gantry(&["user", "delete", "acme/bob"]).ok();
    let other = Person::signed_in(&gantry, "acme/bob");
    let theirs = eventually_some("the other's sign-in", SOON, || {
        let seen = seen_by(&other);
        let lines: Vec<String> = seen.iter().map(told).collect();
        if lines.iter().any(|line| line == "acme/bob login users") {
            Ok(lines)
        } else {
            Err(format!("{lines:?}"))
        }
    });
    assert!(!theirs.contains(&"acme/bob pull repositories".to_owned()), "{theirs:?}");
}

/// Who signs in where nobody is known yet, who logs out, and whose token another revokes.
fn sessions_end(deeds: &Deeds) {
    let gantry = &deeds.gantry;
    let [una, vera] = ["acme/una", "acme/vera"].map(|name| Person::signed_in(gantry, name));
    let form = ["username", "password"].map(|field| {
        let value = if field == "username" { &una.name } else { &una.password };
        format!("{field}={value}")
    });
    let form = ["--data-urlencode", &form[0], "--data-urlencode", &form[1], "-d"];
    let said = curl(gantry, &[&form[..], &["grant_type=password&service=gantry"]].concat(), "/token").ok();
    has_all(&said, &["access_token"]);
    let asked = eventually_some("it is hers", SOON, || {
        let all = found(deeds.search(&["--user", "acme/una", "--verb", "post", "-o", "json"]));
        let asked = all.iter().find(|record| record["requestURI"] == "/token").cloned();
        asked.ok_or_else(|| format!("{all:#?}"))
    });
    assert_eq!(asked["annotations"]["audit.gantry.dev/credential"], "password", "{asked:#}");
    let logins = found(deeds.search(&["--user", "acme/una", "--event", "login", "-o", "json"]));
    assert_eq!(logins[0]["auditID"], asked["auditID"], "{logins:#?}");

    let [unas, veras] = ["una", "vera"].map(|name| id_of(gantry, &["user", "list"], name));
    una.gantry(&["logout"]).ok();
    let row = ["acme/una", "logout", "users.identity.gantry.dev", "-", &unas, "success 200", "logout"];
    deeds.one(&["--event", "logout"], &row);
    let admin = certificates(gantry);
    let [certificate, key] = ["client.cert", "client.key"].map(|name| admin.join(name).display().to_string());
    let subject = format!("X-Subject-Token: {}", vera.gantry(&["token", "--raw"]).ok().trim());
    let proven = ["--cert", &certificate, "--key", &key, "-X", "DELETE", "-f", "-H", &subject];
    curl(gantry, &proven, "/identity/v3/auth/tokens").ok();
    let users = "users.identity.gantry.dev";
    let row = ["gantry-admin", "token-revoked", users, "-", &veras, "success 200", "token-revoked"];
    deeds.one(&["--event", "token-revoked"], &row);
}

/// `tail` shows what comes.
fn follows(deeds: &Deeds) {
    let mut command = Command::new(binary("gantry"));
    command.args(["audit", "tail", "--lines", "1", "--resource", "secrets"]);
    let tail = spawn(command.env("KUBECONFIG", deeds.gantry.kubeconfig()));
    eventually("tail shows the newest", SOON, || tail.stdout().contains("bank-dev"));
    deeds.gantry.kubectl(&["get", "secret", "token", "-n", "web-dev"]).ok();
    eventually("tail shows the new one", Duration::from_secs(5), || {
        tail.stdout()
            .lines()
            .last()
            .is_some_and(|line| line.contains("gantry-admin  get  secrets  web-dev  token"))
    });
    tail.interrupt();
}

/// Records are a resource of the API like another.
fn kubectl_finds_it_too(deeds: &Deeds) {
    let (gantry, records) = (&deeds.gantry, "records.audit.gantry.dev");
    let listed = gantry.kubectl(&["api-resources", "--api-group", "audit.gantry.dev", "--no-headers"]).ok();
    let listed: Vec<&str> = listed.split_whitespace().collect();
    assert_eq!(listed, ["records", "audit.gantry.dev/v1alpha1", "false", "Record"]);
    let may = gantry.kubectl(&["auth", "can-i", "list", records]);
    // It says that the resource is of no namespace, and not that there is none.
    assert!(may.stdout == "yes\n" && !may.stderr.contains("doesn't have"), "{may}");
    let selector = "--field-selector=user=acme/alice,event=secret-read";
    let shown = gantry.kubectl(&["get", records, selector]).ok();
    let (head, found) = shown.split_once('\n').expect("a head");
    let head: Vec<&str> = head.split_whitespace().collect();
    assert_eq!(head, ["TIME", "USER", "VERB", "OBJECT", "NAMESPACE", "NAME", "OUTCOME", "EVENT"]);
    let found: Vec<&str> = found.split_whitespace().collect();
    assert_eq!(
        found[1..],
        ["acme/alice", "get", "secrets", "web-dev", "token", "success", "200", "secret-read"]
    );
    let whole: Value =
        serde_json::from_str(&gantry.kubectl(&["get", records, selector, "-o", "json"]).ok()).expect("JSON");
    let id = whole["items"][0]["auditID"].as_str().unwrap_or_else(|| panic!("{whole:#}"));
    has_all(&gantry.kubectl(&["get", records, id, "-o", "wide"]).ok(), &["secret-read", id, "127.0.0.1"]);
    let refused = gantry.kubectl(&["get", records, "--field-selector=colour=red"]).fails();
    has_all(&refused, &["field label not supported: colour"]);
    let watch =
        gantry.kubectl_spawn(&["get", records, "-w", "--field-selector=resource=secrets,namespace=web-dev"]);
    eventually("kubectl shows the newest", SOON, || watch.stdout().contains("secret-read"));
    let before = watch.stdout().lines().count();
    gantry.kubectl(&["get", "secret", "token", "-n", "web-dev"]).ok();
    eventually("kubectl shows the new one", SOON, || watch.stdout().lines().count() > before);
    watch.interrupt();
}

/// Intact while it runs and when it is down; with one byte changed, the record is named.
fn is_whole_until_somebody_changes_it(deeds: &mut Deeds) {
    let gantry = &deeds.gantry;
    has_all(&gantry.gantry(&["audit", "verify"]).ok(), &["The audit trail is intact."]);
    let victim = found(deeds.search(&["--event", "secret-read", "--user", "acme/alice", "-o", "json"]));
    let (id, number) =
        (victim[0]["auditID"].as_str().expect("an id"), victim[0]["sequence"].as_u64().expect("a number"));
    gantry.down(&[]).ok();
    let trail = gantry.data_dir().join("audit");
    let verify = || {
        let mut command = Command::new(binary("gantry"));
        run(command.args(["audit", "verify", "--dir"]).arg(&trail))
    };
    let whole = verify().ok();
    has_all(&whole, &["Checkpoints:", "The audit trail is intact."]);
    let segments = std::fs::read_dir(trail.join("segments")).expect("segments");
    let (path, mut bytes, at) = segments
        .filter_map(|entry| {
            let path = entry.expect("an entry").path();
            let bytes = std::fs::read(&path).expect("a segment");
            let at = bytes.windows(id.len()).position(|window| window == id.as_bytes())?;
            Some((path, bytes, at))
        })
        .next()
        .expect("the record is in a segment");
    bytes[at] ^= 1;
    std::fs::write(&path, &bytes).expect("written");
    let changed = verify();
    assert_eq!(changed.code, 1, "{changed}");
    has_all(&changed.stdout, &[&format!("First bad:    record {number} in segment 1")]);
    has_all(&changed.stderr, &[&format!("gantry: the audit trail is not intact from record {number} on")]);
    bytes[at] ^= 1;
    std::fs::write(&path, &bytes).expect("written");
    assert_eq!(verify().ok(), whole);
    gantry.restart();
    has_all(&gantry.gantry(&["audit", "verify"]).ok(), &["The audit trail is intact."]);
}

#[test]
fn an_auditor_sees_all_a_manager_the_project_and_a_user_their_own_deeds() {
    let Some(deeds) = Deeds::done() else { return };
    let gantry = &deeds.gantry;
    let [audra, mona, una] =
        ["acme/audra", "acme/mona", "acme/una"].map(|name| Person::signed_in(gantry, name));
    gantry.gantry(&["assign", "auditor", "--user", "acme/audra", "--system"]).ok();
    gantry.gantry(&["assign", "manager", "--user", "acme/mona", "--project", "acme/web"]).ok();
    let sees = |person: &Person, arguments: &[&str]| {
        found(person.gantry(&[&["audit", "search", "--limit", "1000", "-o", "json"], arguments].concat()))
    };
    eventually("the auditor sees all", SOON, || !sees(&audra, &["--event", "login-failed"]).is_empty());
    eventually("the manager sees the project", SOON, || !sees(&mona, &["-n", "web-dev"]).is_empty());
    assert!(sees(&audra, &["--resource", "secrets"]).len() >= 3, "both namespaces'");
    has_all(&audra.gantry(&["audit", "verify"]).ok(), &["The audit trail is intact."]);

    assert_eq!(sees(&mona, &["--event", "secret-read"]).len(), 1);
    for record in sees(&mona, &[]) {
        let (user, namespace) = (&record["user"]["username"], &record["objectRef"]["namespace"]);
        let project = &record["annotations"]["audit.gantry.dev/project"];
        assert!(user == "acme/mona" || namespace == "web-dev" || !project.is_null(), "{record:#}");
        assert_ne!(namespace, "bank-dev", "{record:#}");
    }
    for record in sees(&una, &[]) {
        assert_eq!(record["user"]["username"], "acme/una", "{record:#}");
    }
    assert!(!sees(&una, &["--event", "login"]).is_empty());
    assert!(sees(&una, &["--user", "acme/alice"]).is_empty());
    let theirs = una.gantry(&["audit", "export"]).ok();
    assert!(
        !theirs.is_empty() && theirs.lines().all(|line| line.contains(r#""username":"acme/una""#)),
        "{theirs}"
    );
    for person in [&una, &mona] {
        has_all(&person.gantry(&["audit", "verify"]).fails(), &["cannot get resource", "records"]);
    }
}

/// What is in no namespace: images of the project, reads of it through Keystone, roles in it.
#[test]
fn a_manager_sees_who_pushed_pulled_and_read_in_the_project() {
    let Some(deeds) = Deeds::done() else { return };
    let gantry = &deeds.gantry;
    let [mona, una] = ["acme/mona", "acme/una"].map(|name| Person::signed_in(gantry, name));
    gantry.gantry(&["assign", "manager", "--user", "acme/mona", "--project", "acme/web"]).ok();
    gantry.push_hello("acme/web/front:1", &[]).ok();
    gantry.push_hello("acme/bank/vault:1", &[]).ok();
    gantry.gantry(&["image", "inspect", "acme/web/front:1"]).ok();
    let project = id_of(gantry, &["project", "list"], "web");
    let token = format!("X-Auth-Token: {}", una.gantry(&["token", "--raw"]).ok().trim());
    curl(gantry, &["-H", &token], &format!("/identity/v3/projects/{project}")).ok();

    let sees = |person: &Person, arguments: &[&str]| {
        found(person.gantry(&[&["audit", "search", "--limit", "1000", "-o", "json"], arguments].concat()))
    };
    let front = ["--resource", "repositories", "--name", "acme/web/front"];
    eventually("the manager sees the project", SOON, || !sees(&mona, &front).is_empty());
    for verb in ["push", "pull"] {
        let deed = ["--resource", "repositories/manifests", "--name", "acme/web/front", "--verb", verb];
        for records in [found(deeds.search(&[&deed[..], &["-o", "json"]].concat())), sees(&mona, &deed)] {
            assert!(!records.is_empty(), "{verb}");
            for record in records {
                assert_eq!(record["user"]["username"], "gantry-admin", "{record:#}");
                assert_eq!(record["annotations"]["audit.gantry.dev/project"], project.as_str(), "{record:#}");
            }
        }
    }
    let read = ["--resource", "projects", "--name", &project, "--user", "acme/una"];
    let read = sees(&mona, &read);
    assert!(
        read.iter().any(|record| record["requestURI"].to_string().contains("/identity/v3/")),
        "{read:#?}"
    );
    let given = sees(&mona, &["--event", "right-changed", "--resource", "roleassignments"]);
    assert!(given.iter().any(|record| record["user"]["username"] == "gantry-admin"), "{given:#?}");
    // By the project's name; and of the other project there is nothing.
    assert!(!sees(&mona, &["--project", "acme/web", "--resource", "repositories"]).is_empty());
    assert!(sees(&mona, &["--name", "acme/bank/vault"]).is_empty());
    assert!(sees(&una, &front).is_empty());
    mona.gantry(&["audit", "search", "--project", "acme/none"]).fails();
}
