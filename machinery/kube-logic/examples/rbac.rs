//! Measures RBAC decisions: `cargo run --release -p gantry-kube-logic --example rbac`.
//!
//! 1,000 roles of 12 rules, 10,000 bindings over 500 namespaces, 2,000 users in 8 groups each. Every
//! question is timed alone, so the percentiles are those of decisions and not of averages.

use std::hint::black_box;
use std::time::{Duration, Instant};

use gantry_kube_logic::rbac::{PolicyRule, RoleRef, RuleIndex, Subject};
use gantry_kube_types::{Attributes, UserInfo};

const ROLES: usize = 1_000;
const BINDINGS: usize = 10_000;
const NAMESPACES: usize = 500;
const USERS: usize = 2_000;
const GROUPS: usize = 700;
const QUESTIONS: usize = 200_000;
const P99_MAX: Duration = Duration::from_micros(5);

fn rule(verbs: &[&str], group: &str, resources: &[String]) -> PolicyRule {
    PolicyRule {
        verbs: verbs.iter().map(|v| (*v).to_owned()).collect(),
        api_groups: Some(vec![group.to_owned()]),
        resources: Some(resources.to_vec()),
        ..PolicyRule::default()
    }
}

fn filled() -> RuleIndex {
    let mut index = RuleIndex::new();
    for role in 0..ROLES {
        let rules = (0..12).map(|part| {
            let resources: Vec<String> =
                (0..4).map(|n| format!("kind{}", (role + part * 7 + n) % 300)).collect();
            rule(&["get", "list", "watch"], if part % 2 == 0 { "" } else { "apps" }, &resources)
        });
        index.set_role("", &format!("role{role}"), rules.collect());
    }
    let subject =
        |kind: &str, name: String| Subject { api_group: None, kind: kind.to_owned(), name, namespace: None };
    for binding in 0..BINDINGS {
        let role = RoleRef {
            api_group: None,
            kind: "ClusterRole".to_owned(),
            name: format!("role{}", binding % ROLES),
        };
        let who = vec![
            subject("User", format!("acme/user{}", binding * 13 % USERS)),
            subject("Group", format!("acme/group{}", binding * 7 % GROUPS)),
        ];
        // One in a hundred holds in the whole cluster.
        let namespace =
            if binding % 100 == 0 { String::new() } else { format!("project{}", binding % NAMESPACES) };
        index.set_binding(&namespace, &format!("binding{binding}"), role, who);
    }
    index
}

fn questions() -> Vec<Attributes> {
    (0..4096)
        .map(|n| {
            let groups: Vec<String> =
                (0..8).map(|g| format!("acme/group{}", (n * 31 + g * 89) % GROUPS)).collect();
            let groups: Vec<&str> = groups.iter().map(String::as_str).collect();
            Attributes {
                user: UserInfo::authenticated(format!("acme/user{}", n * 17 % USERS), &groups),
                verb: if n % 3 == 0 { "delete" } else { "get" }.to_owned(),
                is_resource_request: true,
                group: if n % 2 == 0 { "" } else { "apps" }.to_owned(),
                version: "v1".to_owned(),
                resource: format!("kind{}", n * 11 % 300),
                namespace: format!("project{}", n * 7 % NAMESPACES),
                name: "web".to_owned(),
                ..Attributes::default()
            }
        })
        .collect()
}

fn main() -> std::process::ExitCode {
    let index = filled();
    let questions = questions();
    let mut allowed = 0_usize;
    let mut times: Vec<Duration> = Vec::with_capacity(QUESTIONS);
    for n in 0..QUESTIONS {
        let question = &questions[n % questions.len()];
        let began = Instant::now();
        let decision = black_box(index.decide(black_box(question)));
        times.push(began.elapsed());
        allowed += usize::from(decision.is_allowed());
    }
    times.sort_unstable();
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize];
    let p99 = at(0.99);
    println!("RBAC decision, {BINDINGS} bindings, {ROLES} roles, {QUESTIONS} questions ({allowed} allowed):");
    println!("p50 {:?}  p90 {:?}  p99 {p99:?}  p99.9 {:?}", at(0.5), at(0.9), at(0.999));
    let visible: usize = {
        let user = &questions[0].user;
        let began = Instant::now();
        let seen = (0..NAMESPACES).filter(|n| index.is_bound(user, &format!("project{n}"))).count();
        println!("namespaces a user is bound in, of {NAMESPACES}: {seen} in {:?}", began.elapsed());
        seen
    };
    black_box(visible);
    if p99 > P99_MAX {
        println!("slower than the bar of {P99_MAX:?}");
        return std::process::ExitCode::FAILURE;
    }
    std::process::ExitCode::SUCCESS
}
