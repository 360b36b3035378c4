//! What many users, projects and assignments take of memory, and of a search of the trail.

use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use gantry_testkit::Instance;
use kube::config::Kubeconfig;
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};

use crate::common::{Table, cpu, resident_kib};
use crate::load::{Load, Target, Until};

const DOMAINS: usize = 20;
const USERS: usize = 10_000;
const PROJECTS: usize = 1_000;
const ASSIGNMENTS: usize = 100_000;
const WRITERS: usize = 64;
const BAR_MIB: u64 = 150;
/// The server has settled when it takes less than this of one processor for [`QUIET`].
const QUIET_SHARE: f64 = 0.02;
const QUIET: Duration = Duration::from_secs(5);
/// However long its loops may take.
const SETTLED_WITHIN: Duration = Duration::from_secs(900);
const RECORDS: &str = "/apis/audit.gantry.dev/v1alpha1/records?limit=100";
const SEARCHES: usize = 200;
const SEARCH_BAR_MS: f64 = 200.0;
const API: &str = "/apis/identity.gantry.dev/v1alpha1";

pub fn measure(gantry: &Instance, table: &mut Table) {
    let target = as_administrator(gantry);
    settle(gantry);
    let before = resident_kib(gantry.pid());
    let began = Instant::now();
    create(&target, "domains", (0..DOMAINS).map(domain));
    create(&target, "users", (0..USERS).map(user));
    create(&target, "projects", (0..PROJECTS).map(project));
    let assigned = Instant::now();
    create(&target, "roleassignments", (0..ASSIGNMENTS).map(assignment));
    let (assigned, made) = (assigned.elapsed(), began.elapsed());
    let at_once = resident_kib(gantry.pid());
    settle(gantry);
    let settled = began.elapsed();
    let grown = |now: u64| now.saturating_sub(before) / 1024;
    table.told(
        &format!("{USERS} users, {PROJECTS} projects of one environment and {ASSIGNMENTS} assignments made over the API"),
        &format!(
            "{} s ({:.0} assignments/s), all loops done after {} s",
            made.as_secs(),
            ASSIGNMENTS as f64 / assigned.as_secs_f64(),
            settled.as_secs()
        ),
    );
    let after = resident_kib(gantry.pid());
    table.judged(
        &format!(
            "– growth of resident memory (from {} MiB; {} MiB when the last was made)",
            before / 1024,
            grown(at_once)
        ),
        &format!("≤ {BAR_MIB} MiB"),
        &format!("{} MiB", grown(after)),
        grown(after) <= BAR_MIB,
    );
    searches(&target, table);
    gantry.down(&[]).ok();
    gantry.restart();
    settle(gantry);
    let anew = resident_kib(gantry.pid());
    table.told("– the same after a start on these data", &format!("{} MiB", grown(anew)));
}

/// What it costs to find out whose records somebody may see: each namespace, project and domain is asked about.
fn searches(target: &Target, table: &mut Table) {
    let spec = json!({ "role": "manager", "user": id("u", 0), "domain": id("d", 0), "inherited": true });
    create(target, "roleassignments", std::iter::once(object("RoleAssignment", &id("b", 0), spec)));
    let kept = format!("{} projects", PROJECTS / DOMAINS);
    for (who, user) in [
        ("an administrator".to_owned(), None),
        (format!("the manager of {kept}"), Some("org-0/user-0")),
        ("somebody with ten roles that show no records".to_owned(), Some("org-1/user-1")),
    ] {
        let as_user: Vec<(&str, &str)> = user.map(|user| ("impersonate-user", user)).into_iter().collect();
        let request = target.request("GET", RECORDS, &as_user, "");
        let load = Load {
            target,
            requests: &vec![request; SEARCHES],
            connections: 1,
            until: Until::Each,
            status: 200,
            pause: Duration::ZERO,
        };
        let outcome = load.run();
        let ms = |percent| f64::from(outcome.percentile_us(percent)) / 1000.0;
        let p95 = ms(95);
        table.judged(
            &format!("– the newest 100 records over the API by {who}"),
            &format!("p95 ≤ {SEARCH_BAR_MS} ms"),
            &format!("median {:.1} ms, p95 {p95:.1} ms", ms(50)),
            p95 <= SEARCH_BAR_MS,
        );
    }
}

fn as_administrator(gantry: &Instance) -> Target {
    let config = Kubeconfig::read_from(gantry.kubeconfig()).expect("the kubeconfig");
    let user = config.auth_infos[0].auth_info.clone().expect("a user");
    let decoded = |data: Option<String>| STANDARD.decode(data.expect("embedded")).expect("base64");
    let certificate = decoded(user.client_certificate_data);
    let key = user.client_key_data.expect("embedded");
    let key = STANDARD.decode(key.expose_secret()).expect("base64");
    Target::new(gantry.port(), &gantry.data_dir().join("pki/ca.crt"), Some((&certificate, &key)))
}

fn create(target: &Target, plural: &str, objects: impl Iterator<Item = Value>) {
    let path = format!("{API}/{plural}");
    let requests: Vec<Vec<u8>> =
        objects.map(|object| target.request("POST", &path, &[], &object.to_string())).collect();
    let load = Load {
        target,
        requests: &requests,
        connections: WRITERS,
        until: Until::Each,
        status: 201,
        pause: Duration::ZERO,
    };
    load.run();
}

fn object(kind: &str, name: &str, spec: Value) -> Value {
    json!({
        "apiVersion": "identity.gantry.dev/v1alpha1", "kind": kind, "metadata": { "name": name }, "spec": spec,
    })
}

/// Ids are as long as Keystone's.
fn id(kind: &str, number: usize) -> String {
    format!("{kind}{number:0width$}", width = 32 - kind.len())
}

fn domain(number: usize) -> Value {
    object("Domain", &id("d", number), json!({ "name": format!("org-{number}") }))
}

fn user(number: usize) -> Value {
    let spec = json!({
        "name": format!("user-{number}"), "domain": id("d", number % DOMAINS),
        "email": format!("user-{number}@org-{}.example", number % DOMAINS),
    });
    object("User", &id("u", number), spec)
}

fn project(number: usize) -> Value {
    let spec = json!({
        "name": format!("project-{number}"), "domain": id("d", number % DOMAINS),
        "environments": [{ "name": "prod" }],
    });
    object("Project", &id("p", number), spec)
}

/// Every user has ten roles in projects of the user's own organisation.
fn assignment(number: usize) -> Value {
    let (user, turn) = (number % USERS, number / USERS);
    let domain = user % DOMAINS;
    let project = (user / DOMAINS + turn * 7) % (PROJECTS / DOMAINS) * DOMAINS + domain;
    let role = ["member", "reader"][turn % 2];
    let spec = json!({ "role": role, "user": id("u", user), "project": id("p", project) });
    object("RoleAssignment", &id("a", number), spec)
}

/// Waits until the server's loops have nothing left to do.
fn settle(gantry: &Instance) {
    let began = Instant::now();
    loop {
        let before = cpu(gantry.pid());
        #[expect(clippy::disallowed_methods, reason = "a share of time takes time to measure")]
        std::thread::sleep(QUIET);
        let share = (cpu(gantry.pid()) - before).as_secs_f64() / QUIET.as_secs_f64();
        if share < QUIET_SHARE {
            return;
        }
        assert!(began.elapsed() < SETTLED_WITHIN, "the server does not settle");
    }
}
