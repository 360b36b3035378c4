use gantry_kube_types::{Attributes, Decision, UserInfo};
use proptest::prelude::*;
use serde_json::json;

use super::*;

fn policy(json: serde_json::Value) -> PolicyRule {
    serde_json::from_value(json).expect("a rule in the table")
}

fn ask(user: &UserInfo, verb: &str, group: &str, resource: &str, namespace: &str, name: &str) -> Attributes {
    let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
    Attributes {
        user: user.clone(),
        verb: verb.to_owned(),
        is_resource_request: true,
        group: group.to_owned(),
        resource: resource.to_owned(),
        subresource: subresource.to_owned(),
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        ..Attributes::default()
    }
}

#[test]
fn a_rule_on_logs_grants_the_logs_of_pods_and_nothing_else_of_them() {
    let user = UserInfo::authenticated("alice", &[]);
    let rule = |fields: serde_json::Value| {
        let mut rule = json!({"verbs": ["get"], "apiGroups": ["logs.gantry.dev"], "resources": ["logs"]});
        for (field, value) in fields.as_object().into_iter().flatten() {
            rule[field] = value.clone();
        }
        policy(rule)
    };
    let plain = json!({});
    let named = json!({"resourceNames": ["web"]});
    let lists = json!({"verbs": ["list"]});
    let whole_group = json!({"resources": ["*"]});
    let other_group = json!({"apiGroups": [""]});
    let below = json!({"resources": ["logs/log", "*/log"]});
    for (fields, verb, group, resource, name, want) in [
        (&plain, "get", "", "pods/log", "web", true),
        (&plain, "get", "logs.gantry.dev", "logs", "web", true),
        (&plain, "get", "", "pods", "web", false),
        (&plain, "get", "", "pods/exec", "web", false),
        (&plain, "get", "", "pods/attach", "web", false),
        (&plain, "create", "", "pods/log", "web", false),
        (&plain, "get", "metrics.k8s.io", "pods/log", "web", false),
        (&plain, "get", "", "nodes/log", "web", false),
        (&named, "get", "", "pods/log", "web", true),
        (&named, "get", "", "pods/log", "other", false),
        (&lists, "get", "", "pods/log", "web", false),
        (&whole_group, "get", "", "pods/log", "web", true),
        (&other_group, "get", "", "pods/log", "web", false),
        (&below, "get", "", "pods/log", "web", false),
    ] {
        let mut index = RuleIndex::new();
        index.set_role("dev", "looks", vec![rule(fields.clone())]);
        let role = RoleRef { api_group: None, kind: "Role".to_owned(), name: "looks".to_owned() };
        let alice = Subject { kind: "User".to_owned(), name: "alice".to_owned(), ..Subject::default() };
        index.set_binding("dev", "b", role, vec![alice]);
        let asked = ask(&user, verb, group, resource, "dev", name);
        assert_eq!(index.decide(&asked).is_allowed(), want, "{fields}: {verb} {group}/{resource} {name}");
        let elsewhere = Attributes { namespace: "prod".to_owned(), ..asked };
        assert!(!index.decide(&elsewhere).is_allowed(), "where the binding is, and not elsewhere");
    }
}

#[test]
fn a_rule_grants_what_upstream_says() {
    let nobody = UserInfo::default();
    let cases = [
        (json!({"verbs":["*"],"apiGroups":["*"],"resources":["*"]}), "get apps deployments/scale x", true),
        (json!({"verbs":["get"],"apiGroups":[""],"resources":["pods"]}), "get  pods x", true),
        (json!({"verbs":["get"],"apiGroups":[""],"resources":["pods"]}), "get  pods/log x", false),
        (json!({"verbs":["get"],"apiGroups":[""],"resources":["pods"]}), "list  pods ", false),
        (json!({"verbs":["get"],"apiGroups":[""],"resources":["pods"]}), "get apps pods x", false),
        (json!({"verbs":["get"],"apiGroups":[""],"resources":["pods/*"]}), "get  pods/log x", false),
        (
            json!({"verbs":["get"],"apiGroups":["*"],"resources":["*/scale"]}),
            "get apps deployments/scale x",
            true,
        ),
        (json!({"verbs":["get"],"apiGroups":["*"],"resources":["*/scale"]}), "get apps deployments x", false),
        (
            json!({"verbs":["get"],"apiGroups":[""],"resources":["pods"],"resourceNames":["a"]}),
            "get  pods a",
            true,
        ),
        (
            json!({"verbs":["get"],"apiGroups":[""],"resources":["pods"],"resourceNames":["a"]}),
            "get  pods b",
            false,
        ),
        (
            json!({"verbs":["list"],"apiGroups":[""],"resources":["pods"],"resourceNames":["a"]}),
            "list  pods ",
            false,
        ),
        (json!({"verbs":["get"],"resources":["pods"]}), "get  pods x", false),
        (json!({"verbs":["get"],"nonResourceURLs":["*"]}), "get  pods x", false),
    ];
    for (rule, question, want) in cases {
        let parts: Vec<&str> = question.split(' ').collect();
        let attributes = ask(&nobody, parts[0], parts[1], parts[2], "", parts[3]);
        assert_eq!(matching::allows(&policy(rule.clone()), &attributes), want, "{rule} for {question}");
    }
    for (pattern, path, want) in [
        ("/healthz", "/healthz", true),
        ("/healthz", "/healthz/ping", false),
        ("/healthz/*", "/healthz/ping", true),
        ("/healthz/*", "/healthz", false),
        ("/health*", "/healthz", true),
        ("*", "/anything", true),
    ] {
        let rule = policy(json!({"verbs":["get"],"nonResourceURLs":[pattern]}));
        assert_eq!(matching::allows_path(&rule, path), want, "{pattern} {path}");
    }
}

#[test]
fn rights_cover_rights() {
    let pods = json!({"verbs":["get","list"],"apiGroups":[""],"resources":["pods"]});
    let named = json!({"verbs":["get"],"apiGroups":[""],"resources":["pods"],"resourceNames":["a"]});
    let all = json!({"verbs":["*"],"apiGroups":["*"],"resources":["*"]});
    let urls = json!({"verbs":["get"],"nonResourceURLs":["/api/*"]});
    for (owner, requested, want) in [
        (vec![pods.clone()], named.clone(), true),
        (vec![named.clone()], pods.clone(), false),
        (vec![all.clone()], pods.clone(), true),
        (vec![pods.clone()], all.clone(), false),
        (vec![all.clone()], urls.clone(), false),
        (vec![urls.clone()], json!({"verbs":["get"],"nonResourceURLs":["/api/v1/*"]}), true),
        (vec![urls.clone()], json!({"verbs":["get"],"nonResourceURLs":["*"]}), false),
        (
            vec![json!({"verbs":["get"],"apiGroups":["*"],"resources":["*/scale"]})],
            json!({"verbs":["get"],"apiGroups":["apps"],"resources":["deployments/scale"]}),
            true,
        ),
        (
            vec![
                json!({"verbs":["get"],"apiGroups":[""],"resources":["pods"]}),
                json!({"verbs":["list"],"apiGroups":[""],"resources":["pods"]}),
            ],
            pods.clone(),
            true,
        ),
    ] {
        let rules: Vec<PolicyRule> = owner.iter().cloned().map(policy).collect();
        assert_eq!(covers(&rules, &[policy(requested.clone())]).is_ok(), want, "{owner:?} over {requested}");
    }
    let mut user = UserInfo::default();
    (user.username, user.groups) = ("eve".into(), vec!["a".into(), "b".into()]);
    let refused = confirm_no_escalation(&user, &[], &[policy(pods)], &[]).expect_err("eve holds nothing");
    assert_eq!(
        refused,
        "user \"eve\" (groups=[\"a\" \"b\"]) is attempting to grant RBAC permissions not currently held:\n{APIGroups:[\"\"], Resources:[\"pods\"], Verbs:[\"get\" \"list\"]}"
    );
}

fn role_ref(kind: &str, name: &str) -> RoleRef {
    RoleRef { api_group: Some(GROUP.to_owned()), kind: kind.to_owned(), name: name.to_owned() }
}

fn subject(kind: &str, namespace: Option<&str>, name: &str) -> Subject {
    Subject {
        api_group: None,
        kind: kind.to_owned(),
        name: name.to_owned(),
        namespace: namespace.map(str::to_owned),
    }
}

#[test]
fn decisions_name_what_grants_them_and_follow_changes() {
    let mut index = RuleIndex::new();
    let pods = policy(json!({"verbs":["get"],"apiGroups":[""],"resources":["pods"]}));
    index.set_role("", "y", vec![pods.clone()]);
    index.set_binding("", "x", role_ref("ClusterRole", "y"), vec![subject("Group", None, "z")]);
    let user = UserInfo::authenticated("u", &["z"]);
    assert_eq!(
        index.decide(&ask(&user, "get", "", "pods", "any", "p")),
        Decision::Allow(
            "RBAC: allowed by ClusterRoleBinding \"x\" of ClusterRole \"y\" to Group \"z\"".into()
        )
    );
    let robot = UserInfo::service_account("ci", "bot", "1");
    index.set_binding(
        "dev",
        "rb",
        role_ref("ClusterRole", "y"),
        vec![subject("ServiceAccount", Some("ci"), "bot")],
    );
    assert_eq!(
        index.decide(&ask(&robot, "get", "", "pods", "dev", "p")),
        Decision::Allow(
            "RBAC: allowed by RoleBinding \"rb/dev\" of ClusterRole \"y\" to ServiceAccount \"bot/ci\""
                .into()
        )
    );
    assert!(!index.decide(&ask(&robot, "get", "", "pods", "other", "p")).is_allowed());
    assert!(!index.decide(&ask(&robot, "get", "", "pods", "", "p")).is_allowed());
    index.remove_role("", "y");
    assert_eq!(
        index.decide(&ask(&robot, "get", "", "pods", "dev", "p")),
        Decision::NoOpinion("RBAC: clusterrole.rbac.authorization.k8s.io \"y\" not found".into())
    );
    index.set_role("", "y", vec![pods]);
    index.remove_binding("dev", "rb");
    assert_eq!(index.decide(&ask(&robot, "get", "", "pods", "dev", "p")), Decision::NoOpinion(String::new()));
    let broken = index.apply(RbacKind::ClusterRoleBinding, "", "x", Some(b"{\"roleRef\":1}"));
    assert!(broken.is_err());
    assert!(
        !index.decide(&ask(&user, "get", "", "pods", "any", "p")).is_allowed(),
        "unreadable grants nothing"
    );
}

#[test]
fn the_default_roles_do_what_their_names_say() {
    let mut index = RuleIndex::new();
    let all = defaults::defaults();
    for role in &all.cluster_roles {
        index.set_role(
            "",
            role.metadata.name.as_deref().unwrap_or(""),
            role.rules.clone().unwrap_or_default(),
        );
    }
    for binding in &all.cluster_role_bindings {
        let name = binding.metadata.name.as_deref().unwrap_or("");
        assert!(index.role_rules("ClusterRole", "", &binding.role_ref.name).is_some(), "{name} binds a role");
        index.set_binding("", name, binding.role_ref.clone(), binding.subjects.clone().unwrap_or_default());
    }
    let dev = UserInfo::authenticated("dev", &[]);
    index.set_binding("dev", "edit", role_ref("ClusterRole", "edit"), vec![subject("User", None, "dev")]);
    let deployments = |verb: &str, namespace: &str| {
        index.decide(&ask(&dev, verb, "apps", "deployments", namespace, "")).is_allowed()
    };
    assert!(deployments("create", "dev") && deployments("list", "dev") && !deployments("list", "prod"));
    assert!(!index.decide(&ask(&dev, "create", GROUP, "rolebindings", "dev", "")).is_allowed());
    let scheduler = UserInfo::authenticated("system:kube-scheduler", &[]);
    assert!(index.decide(&ask(&scheduler, "create", "", "pods/binding", "a", "p")).is_allowed());
    assert!(!index.decide(&ask(&scheduler, "get", "", "secrets", "a", "s")).is_allowed());
    let path = |user: UserInfo, path: &str| {
        index
            .decide(&Attributes { user, verb: "get".into(), path: path.into(), ..Attributes::default() })
            .is_allowed()
    };
    assert!(path(UserInfo::anonymous(), "/healthz") && !path(UserInfo::anonymous(), "/api"));
    assert!(path(dev.clone(), "/apis/apps"));
    for name in ["view", "edit", "admin"] {
        let role =
            all.cluster_roles.iter().find(|r| r.metadata.name.as_deref() == Some(name)).expect("a default");
        let rules = aggregation::aggregated_rules(role, &all.cluster_roles).expect("aggregates");
        let now = role.rules.as_deref().unwrap_or_default();
        assert!(covers(now, &rules).is_ok() && covers(&rules, now).is_ok(), "{name} begins as its aggregate");
    }
}

const NAMES: [&str; 3] = ["a", "b", "c"];

fn any_name() -> impl Strategy<Value = &'static str> {
    proptest::sample::select(&NAMES[..])
}

#[derive(Clone, Debug)]
enum Step {
    Role(&'static str, &'static str, Option<&'static str>),
    Binding(&'static str, &'static str, Option<(bool, &'static str, &'static str, &'static str)>),
}

fn any_step() -> impl Strategy<Value = Step> {
    let place = proptest::sample::select(&["", "a", "b"][..]);
    prop_oneof![
        (place.clone(), any_name(), proptest::option::of(any_name()))
            .prop_map(|(n, r, v)| Step::Role(n, r, v)),
        (
            place,
            any_name(),
            proptest::option::of((
                any::<bool>(),
                any_name(),
                proptest::sample::select(&["User", "Group", "ServiceAccount"][..]),
                any_name()
            ))
        )
            .prop_map(|(n, b, v)| Step::Binding(n, b, v)),
    ]
}

proptest! {
    #[test]
    fn the_index_agrees_with_a_naive_evaluation(
        steps in proptest::collection::vec(any_step(), 0..40),
        verb in any_name(), who in any_name(), group in any_name(),
        namespace in proptest::sample::select(&["", "a", "b"][..]), robot in any::<bool>(),
    ) {
        let mut index = RuleIndex::new();
        let mut roles = std::collections::BTreeMap::new();
        let mut bindings = std::collections::BTreeMap::new();
        for step in steps {
            match step {
                Step::Role(ns, name, Some(verb)) => {
                    index.set_role(ns, name, vec![policy(json!({"verbs":[verb],"apiGroups":[""],"resources":["pods"]}))]);
                    roles.insert((ns, name), verb);
                }
                Step::Role(ns, name, None) => { index.remove_role(ns, name); roles.remove(&(ns, name)); }
                Step::Binding(ns, name, Some((cluster, role, kind, subject_name))) => {
                    let role_kind = if cluster { "ClusterRole" } else { "Role" };
                    index.set_binding(ns, name, role_ref(role_kind, role), vec![subject(kind, Some("a"), subject_name)]);
                    bindings.insert((ns, name), (cluster, role, kind, subject_name));
                }
                Step::Binding(ns, name, None) => { index.remove_binding(ns, name); bindings.remove(&(ns, name)); }
            }
        }
        let user = if robot { UserInfo::service_account("a", who, "") } else { UserInfo::authenticated(who, &[group]) };
        let naive = bindings.iter().any(|((ns, _), (cluster, role, kind, subject_name))| {
            let in_scope = ns.is_empty() || *ns == namespace;
            let is_subject = match *kind {
                "User" => !robot && *subject_name == who,
                "Group" => !robot && *subject_name == group,
                _ => robot && *subject_name == who,
            };
            let place = if *cluster { "" } else { ns };
            let valid = *cluster || !ns.is_empty();
            in_scope && is_subject && valid && roles.get(&(place, *role)) == Some(&verb)
        });
        let decided = index.decide(&ask(&user, verb, "", "pods", namespace, "p")).is_allowed();
        prop_assert_eq!(decided, naive);
    }
}

/// Prints the time of one decision with 10,000 bindings and 1,000 roles; fails only on the wrong order
/// of magnitude, because the machine may be busy and the build unoptimised.
#[test]
fn a_decision_is_quick_among_many_bindings() {
    let mut index = RuleIndex::new();
    for r in 0..1000 {
        let resource = format!("kind{r}");
        index.set_role(
            "",
            &format!("r{r}"),
            vec![policy(json!({"verbs":["get"],"apiGroups":[""],"resources":[resource]}))],
        );
    }
    for b in 0..10_000 {
        let (namespace, role) = (format!("ns{}", b % 500), format!("r{}", b % 1000));
        let who = vec![
            subject("Group", None, &format!("g{}", b % 700)),
            subject("User", None, &format!("u{}", b % 900)),
        ];
        index.set_binding(&namespace, &format!("b{b}"), role_ref("ClusterRole", &role), who);
    }
    let user = UserInfo::authenticated("u7", &["g7", "g8", "g9"]);
    let question = ask(&user, "get", "", "kind999", "ns7", "x");
    let rounds = 20_000_u32;
    let began = std::time::Instant::now();
    for _ in 0..rounds {
        std::hint::black_box(index.decide(std::hint::black_box(&question)));
    }
    let each = began.elapsed() / rounds;
    println!("one RBAC decision, 10,000 bindings, 1,000 roles: {each:?}");
    assert!(each < std::time::Duration::from_micros(50), "{each:?}");
}
