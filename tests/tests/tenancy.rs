//! Projects as namespaces, rights and bounds: put back when somebody edits them, kept to by tenants, and gone with the
//! project. And whatever the platform dies of in between, rights end up as assigned and never wider.

use std::time::Duration;

use gantry_testkit::{Instance, eventually, eventually_some, run_with_input, spawn};
use serde_json::{Value, json};

use crate::people::Person;
use crate::support::{IDLE, SOON, has_all, identity_object, tools_pod};

/// Repairs begin when the edit is seen; the rest is for a busy machine.
const REPAIR: Duration = Duration::from_secs(15);

/// Two organisations with a project each: `web` with alice, `lab` with eve.
fn organisations(gantry: &Instance) -> (Person, Person) {
    for arguments in [
        &["domain", "create", "acme", "--quota", "cpu=16"][..],
        &["domain", "create", "globex"],
        &["project", "create", "acme/web", "--environment", "dev", "--quota", "cpu=8,pods=5"],
        &[
            "project",
            "create",
            "acme/cart",
            "--parent",
            "acme/web",
            "--environment",
            "dev",
            "--quota",
            "cpu=2",
        ],
        &["project", "create", "globex/lab", "--environment", "dev"],
    ] {
        gantry.gantry(arguments).ok();
    }
    let (alice, eve) = (Person::signed_in(gantry, "acme/alice"), Person::signed_in(gantry, "globex/eve"));
    gantry.gantry(&["assign", "admin", "--user", "acme/alice", "--project", "acme/web"]).ok();
    gantry.gantry(&["assign", "admin", "--user", "globex/eve", "--project", "globex/lab"]).ok();
    for (person, namespace) in [(&alice, "web-dev"), (&eve, "lab-dev")] {
        eventually("rights follow", SOON, || person.kubectl(&["get", "pods", "-n", namespace]).succeeded());
    }
    (alice, eve)
}

/// Everything of the object that a plan decides on.
fn essence(gantry: &Instance, kind: &str, namespace: &str) -> Result<Value, String> {
    let out = gantry.kubectl(&["get", kind, "-n", namespace, "-o", "json"]);
    let listed: Value = serde_json::from_str(&out.stdout).map_err(|error| format!("{error}: {out}"))?;
    let of = |item: &Value| {
        let labels = item["metadata"]["labels"].clone();
        json!([item["metadata"]["name"], labels, item["roleRef"], item["subjects"], item["spec"]])
    };
    Ok(listed["items"].as_array().into_iter().flatten().map(of).collect())
}

/// What somebody with every right may do to what the reconcilers made.
fn edits_by_hand() -> [&'static [&'static str]; 12] {
    const SUBJECT: &str = r#"[{"op":"add","path":"/subjects/-","value":{"kind":"User","name":"mallory","apiGroup":"rbac.authorization.k8s.io"}}]"#;
    [
        &["delete", "rolebinding", "gantry:admin", "-n", "web-dev"],
        &["patch", "rolebinding", "gantry:admin", "-n", "web-dev", "--type=json", "-p", SUBJECT],
        &["delete", "resourcequota", "gantry", "-n", "web-dev"],
        &[
            "patch",
            "resourcequota",
            "gantry",
            "-n",
            "web-dev",
            "--type=merge",
            "-p",
            r#"{"spec":{"hard":{"pods":"500"}}}"#,
        ],
        &["delete", "limitrange", "gantry", "-n", "web-dev"],
        &["label", "namespace", "web-dev", "pod-security.kubernetes.io/enforce=privileged", "--overwrite"],
        &["label", "namespace", "web-dev", "networks.gantry.dev/isolation=open", "--overwrite"],
        &["label", "namespace", "web-dev", "networks.gantry.dev/isolation-"],
        &["label", "namespace", "web-dev", "identity.gantry.dev/project-"],
        &["label", "namespace", "web-dev", "identity.gantry.dev/project=other", "--overwrite"],
        &[
            "label",
            "namespace",
            "web-dev",
            "app.kubernetes.io/managed-by-",
            "identity.gantry.dev/project-",
            "identity.gantry.dev/domain-",
        ],
        &["label", "rolebinding", "gantry:admin", "-n", "web-dev", "app.kubernetes.io/managed-by-"],
    ]
}

#[test]
fn what_somebody_edits_by_hand_is_put_back() {
    let Some(gantry) = Instance::builder().no_node().start() else { return };
    let (alice, _) = organisations(&gantry);
    let kinds = ["rolebindings", "resourcequotas", "limitranges"];
    let look = || -> Result<Vec<Value>, String> {
        let mut seen: Vec<Value> = Vec::new();
        for kind in kinds {
            seen.push(essence(&gantry, kind, "web-dev")?);
        }
        seen.push(
            serde_json::from_str(&gantry.jsonpath(&["namespace", "web-dev"], "{.metadata.labels}"))
                .map_err(|e| e.to_string())?,
        );
        Ok(seen)
    };
    let before = eventually_some("everything is there", SOON, || {
        let seen = look()?;
        let there = seen.iter().all(|kind| kind.as_array().is_none_or(|items| !items.is_empty()));
        if there { Ok(seen) } else { Err(format!("{seen:?}")) }
    });
    for edit in edits_by_hand() {
        gantry.kubectl(edit).ok();
        eventually_some(&format!("{edit:?} is repaired"), REPAIR, || {
            let now = look()?;
            if now == before { Ok(()) } else { Err(format!("{now:?}")) }
        });
        // Whoever was slipped in had no right meanwhile either: rights are looked up in the assignments.
        let mallory = gantry.gantry(&["can", "get", "secrets", "-n", "web-dev", "--as", "mallory"]);
        assert_eq!(mallory.stdout, "no\n", "{edit:?}: {mallory}");
    }
    alice.kubectl(&["get", "pods", "-n", "web-dev"]).ok();
    assert_eq!(
        gantry.jsonpath(&["namespace", "web-dev"], r"{.metadata.labels.networks\.gantry\.dev/isolation}"),
        "isolated"
    );
    // What is not the component's stays.
    gantry.kubectl(&["label", "namespace", "web-dev", "team=shop"]).ok();
    gantry.gantry(&["project", "set", "acme/web", "--quota", "cpu=8,pods=6"]).ok();
    eventually("a change of the project arrives", SOON, || {
        gantry.jsonpath(&["resourcequota", "gantry", "-n", "web-dev"], "{.spec.hard.pods}") == "6"
    });
    assert_eq!(gantry.jsonpath(&["namespace", "web-dev"], "{.metadata.labels.team}"), "shop");
}

/// A pod that asks for `cpu`, with something more in its specification and in its container's.
fn pod(name: &str, cpu: &str, more: Value, container: Value) -> Value {
    let mut container = container;
    container["name"] = "main".into();
    container["image"] = "demo/tools:1".into();
    container["resources"] = json!({ "requests": { "cpu": cpu } });
    let mut spec = more;
    spec["containers"] = json!([container]);
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": { "name": name, "namespace": "web-dev" },
        "spec": spec,
    })
}

#[test]
fn tenants_see_use_and_change_what_is_theirs_alone() {
    let Some(gantry) = Instance::builder().no_node().start() else { return };
    let (alice, eve) = organisations(&gantry);
    namespaces_are_shown_to_whom_they_belong(&gantry, &alice, &eve);
    quotas_nest(&gantry, &alice);
    services_use_addresses_up(&gantry, &alice);
    tenants_are_refused(&alice);
    privileged_pods_are_granted(&gantry, &alice);
    // Deleting asks for the name, shows what goes, and takes all of it.
    let shown = gantry.gantry(&["project", "delete", "acme/web", "--dry-run"]);
    has_all(
        &shown.stderr,
        &["With the project acme/web go:", "acme/cart", "web-dev", "cart-dev", "web-test"],
    );
    let refused = gantry.gantry(&["project", "delete", "acme/web", "--confirm", "acme/cart"]).fails();
    has_all(&refused, &["acme/web"]);
    has_all(
        &gantry.gantry(&["project", "delete", "acme/web", "--confirm", "acme/web"]).ok(),
        &["project acme/cart deleted", "project acme/web deleted"],
    );
    eventually_some("namespaces and projects are gone", SOON, || {
        let left = gantry
            .kubectl(&[
                "get",
                "namespaces,projects.identity.gantry.dev,roleassignments.identity.gantry.dev",
                "-o",
                "json",
            ])
            .ok();
        let left: Value = serde_json::from_str(&left).map_err(|error| error.to_string())?;
        let names = |item: &Value| format!("{} {}", item["metadata"]["name"], item["spec"]);
        let left: Vec<String> = left["items"].as_array().into_iter().flatten().map(names).collect();
        let of_acme = |text: &&String| {
            ["web-", "cart-", r#""web""#, r#""cart""#].iter().any(|word| text.contains(word))
        };
        match left.iter().find(of_acme) {
            None => Ok(()),
            Some(one) => Err(one.clone()),
        }
    });
    alice.kubectl(&["get", "pods", "-n", "web-dev"]).fails();
    eve.kubectl(&["get", "pods", "-n", "lab-dev"]).ok();
}

/// In a list and in a watch.
fn namespaces_are_shown_to_whom_they_belong(gantry: &Instance, alice: &Person, eve: &Person) {
    let list = |person: &Person| person.kubectl(&["get", "namespaces", "-o", "name"]).ok();
    assert_eq!(list(eve), "namespace/lab-dev\n");
    assert_eq!(list(alice), "namespace/web-dev\n", "cart is a project of its own, which she was not given");
    let watch =
        |person: &Person| spawn(&mut person.kubectl_command(&["get", "namespaces", "-w", "-o", "name"]));
    let (alices, eves) = (watch(alice), watch(eve));
    eventually("the watches begin", SOON, || {
        alices.stdout().contains("web-dev") && eves.stdout().contains("lab-dev")
    });
    gantry.gantry(&["project", "environment", "add", "acme/web", "test"]).ok();
    gantry.gantry(&["project", "environment", "add", "globex/lab", "test"]).ok();
    eventually("the watches show their own", SOON, || {
        alices.stdout().contains("web-test") && eves.stdout().contains("lab-test")
    });
    gantry.kubectl(&["create", "namespace", "of-nobody"]).ok();
    gantry.kubectl(&["label", "namespace", "lab-test", "team=x"]).ok();
    // What comes last in each watch is its own again.
    gantry.kubectl(&["label", "namespace", "web-test", "team=x"]).ok();
    gantry.kubectl(&["label", "namespace", "lab-dev", "team=x"]).ok();
    let only =
        |text: String, own: &str| text.lines().all(|line| line.starts_with(&format!("namespace/{own}-")));
    eventually("the last changes arrive", SOON, || {
        alices.stdout().matches("web-test").count() > 1 && eves.stdout().matches("lab-dev").count() > 1
    });
    assert!(only(alices.stdout(), "web"), "{}", alices.stdout());
    assert!(only(eves.stdout(), "lab"), "{}", eves.stdout());
    // Projects likewise.
    let projects = |person: &Person| person.kubectl(&["get", "projects.identity.gantry.dev"]).ok();
    assert!(!projects(alice).contains("lab") && !projects(eve).contains("web"));
}

/// Of the bounds of a project, of those above it, and of what a project was given that is below it.
fn quotas_nest(gantry: &Instance, alice: &Person) {
    let refused = gantry
        .gantry(&["project", "create", "acme/big", "--parent", "acme/web", "--quota", "cpu=12"])
        .fails();
    has_all(
        &refused,
        &[
            "quota cpu of project \"web\" is 8: 2 are given to its projects, 12 more are asked for, 6 are left",
        ],
    );
    let refused = gantry.gantry(&["project", "set", "acme/web", "--quota", "cpu=20"]).fails();
    has_all(&refused, &["quota cpu", "domain \"acme\" is 16"]);
    let refused = gantry.gantry(&["domain", "set", "acme", "--quota", "cpu=4"]).fails();
    has_all(&refused, &["quota cpu of domain \"acme\" cannot be 4: 8 are given to its projects"]);
    let plain = |name: &str, cpu: &str| pod(name, cpu, json!({}), json!({}));
    has_all(&alice.make(&plain("big", "7")).fails(), &["quota cpu of project \"web\" is 8", "6 are left"]);
    alice.make(&plain("one", "4")).ok();
    has_all(
        &alice.make(&plain("two", "3")).fails(),
        &["2 are given to its projects, 4 are in use, 3 more are asked for, 2 are left"],
    );
    alice.make(&plain("two", "2")).ok();
    for name in ["three", "four", "five"] {
        alice.make(&plain(name, "0")).ok();
    }
    has_all(&alice.make(&plain("six", "0")).fails(), &["pods", "5"]);
    gantry.kubectl(&["delete", "pod", "one", "-n", "web-dev", "--now"]).ok();
    eventually("what is gone counts no more", SOON, || alice.make(&plain("two-more", "1")).succeeded());
    gantry.kubectl(&["delete", "pods", "--all", "-n", "web-dev", "--now"]).ok();
}

/// Refused with the numbers, also when it is only tried, and shown in the project's status.
fn services_use_addresses_up(gantry: &Instance, alice: &Person) {
    gantry.gantry(&["project", "set", "acme/web", "--quota", "addresses=3"]).ok();
    let service = |name: &str, kind: &str, external: &[&str]| {
        json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": { "name": name, "namespace": "web-dev" },
            "spec": { "type": kind, "externalIPs": external, "ports": [{ "port": 80 }], "selector": { "app": name } },
        })
    };
    let shown = || {
        let path = r#"{.items[?(@.spec.name=="web")].status.environments[?(@.name=="dev")].addresses}"#;
        gantry.jsonpath(&["projects.identity.gantry.dev"], path)
    };
    alice.make(&service("front", "LoadBalancer", &[])).ok();
    eventually("one is shown", SOON, || shown() == "1");
    let too_many = service("back", "LoadBalancer", &["203.0.113.1", "203.0.113.2"]);
    let numbers = "quota addresses of project \"web\" is 3: 1 is in use, 3 more are asked for, 2 are left";
    eventually_some("what is only tried is refused", SOON, || {
        let tried = &["create", "--dry-run=server", "-f", "-"];
        let tried = run_with_input(&mut alice.kubectl_command(tried), too_many.to_string().as_bytes());
        if tried.stderr.contains(numbers) { Ok(()) } else { Err(tried.to_string()) }
    });
    has_all(&alice.make(&too_many).fails(), &[numbers]);
    alice.make(&service("back", "ClusterIP", &["203.0.113.1", "203.0.113.2"])).ok();
    eventually("three are shown", SOON, || shown() == "3");
    alice.kubectl(&["delete", "services", "front", "back", "-n", "web-dev"]).ok();
    eventually("none is shown", SOON, || shown().is_empty());
    gantry.gantry(&["project", "set", "acme/web", "--quota", "addresses="]).ok();
}

/// By an administrator of the platform, and by nobody else; and taken away again.
fn privileged_pods_are_granted(gantry: &Instance, alice: &Person) {
    let grant: &[&str] = &["project", "set", "acme/web", "--pod-security", "privileged"];
    let who = "for an administrator of the platform to grant (role admin on the system)";
    has_all(&alice.gantry(grant).fails(), &["podSecurity \"privileged\"", who]);
    let privileged =
        |name: &str| pod(name, "0", json!({}), json!({ "securityContext": { "privileged": true } }));
    let refused = "violates PodSecurity \"baseline";
    has_all(&alice.make(&privileged("before")).fails(), &[refused, "privileged"]);
    let level = |level: &str| {
        eventually("the namespace has the level", SOON, || {
            let path = r"{.metadata.labels.pod-security\.kubernetes\.io/enforce}";
            gantry.jsonpath(&["namespace", "web-dev"], path) == level
        });
    };
    gantry.gantry(grant).ok();
    level("privileged");
    alice.make(&privileged("granted")).ok();
    gantry.gantry(&["project", "set", "acme/web", "--pod-security", "baseline"]).ok();
    level("baseline");
    has_all(&alice.make(&privileged("after")).fails(), &[refused, "privileged"]);
    gantry.kubectl(&["delete", "pod", "granted", "-n", "web-dev", "--now"]).ok();
}

/// Even an administrator of a project gets no way to the host, to other namespaces, or to more rights.
fn tenants_are_refused(alice: &Person) {
    let host = [
        ("hostPath", json!({ "volumes": [{ "name": "h", "hostPath": { "path": "/" } }] }), json!({})),
        ("privileged", json!({}), json!({ "securityContext": { "privileged": true } })),
        ("hostPort", json!({}), json!({ "ports": [{ "containerPort": 80, "hostPort": 80 }] })),
        ("hostNetwork", json!({ "hostNetwork": true }), json!({})),
        ("hostPID", json!({ "hostPID": true }), json!({})),
        ("SYS_ADMIN", json!({}), json!({ "securityContext": { "capabilities": { "add": ["SYS_ADMIN"] } } })),
    ];
    for (word, spec, container) in host {
        let refused = alice.make(&pod("host", "0", spec, container)).fails();
        has_all(&refused, &["violates PodSecurity \"baseline", word]);
    }
    rights_are_no_way_to_more(alice);
    let anywhere = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "x", "namespace": "default" } });
    has_all(&alice.make(&anywhere).fails(), &["forbidden"]);
}

/// Namespaces, bounds, bindings and other people are not theirs to make or to be.
fn rights_are_no_way_to_more(alice: &Person) {
    let refusals: [(&[&str], &str); 15] = [
        (&["create", "namespace", "web-other"], "namespaces are made by environments of projects"),
        (&["create", "namespace", "mine"], "namespaces are made by environments of projects"),
        (&["delete", "namespace", "web-dev"], "forbidden"),
        (
            &[
                "label",
                "namespace",
                "web-dev",
                "pod-security.kubernetes.io/enforce=privileged",
                "--overwrite",
            ],
            "orbidden",
        ),
        (&["label", "namespace", "web-dev", "networks.gantry.dev/isolation=open", "--overwrite"], "orbidden"),
        (&["annotate", "namespace", "web-dev", "identity.gantry.dev/made-for=x", "--overwrite"], "orbidden"),
        (&["delete", "resourcequota", "gantry", "-n", "web-dev"], "forbidden"),
        (&["delete", "rolebinding", "gantry:admin", "-n", "web-dev"], "forbidden"),
        (
            &[
                "create",
                "rolebinding",
                "gantry:x",
                "-n",
                "web-dev",
                "--clusterrole=view",
                "--user=acme/alice",
            ],
            "orbidden",
        ),
        (
            &[
                "create",
                "rolebinding",
                "x",
                "-n",
                "web-dev",
                "--clusterrole=cluster-admin",
                "--user=acme/alice",
            ],
            "orbidden",
        ),
        (
            &["create", "rolebinding", "x", "-n", "lab-dev", "--clusterrole=view", "--user=acme/alice"],
            "orbidden",
        ),
        (&["create", "clusterrolebinding", "x", "--clusterrole=view", "--user=acme/alice"], "orbidden"),
        (&["create", "role", "x", "-n", "web-dev", "--verb=get", "--resource=nodes"], "orbidden"),
        (
            &["get", "pods", "-n", "web-dev", "--as", "system:admin", "--as-group", "system:masters"],
            "cannot impersonate",
        ),
        (&["get", "pods", "-n", "web-dev", "--as", "globex/eve"], "cannot impersonate"),
    ];
    for (arguments, word) in refusals {
        has_all(&alice.kubectl(arguments).fails(), &[word]);
    }
    for verb in ["bind", "escalate"] {
        let rules = json!([{ "apiGroups": ["rbac.authorization.k8s.io"], "resources": ["roles", "clusterroles"], "verbs": [verb] }]);
        let role = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "Role",
            "metadata": { "name": verb, "namespace": "web-dev" },
            "rules": rules,
        });
        has_all(&alice.make(&role).fails(), &["orbidden"]);
    }
}

/// By the log itself: `kubectl logs` reads the pod first, which is another right.
#[test]
fn a_role_of_logs_alone_reads_logs_and_nothing_else() {
    let Some(gantry) = Instance::start() else { return };
    gantry.push_tools();
    gantry.gantry(&["repository", "set", "demo/tools", "--visibility", "public"]).ok();
    gantry.gantry(&["domain", "create", "acme"]).ok();
    gantry.gantry(&["project", "create", "acme/web", "--environment", "dev"]).ok();
    let [bob, una] = ["acme/bob", "acme/una"].map(|name| Person::signed_in(&gantry, name));
    gantry.gantry(&["assign", "member", "--user", "acme/bob", "--project", "acme/web"]).ok();
    gantry.gantry(&["role", "create", "acme/looker", "--rule", "logs.gantry.dev/logs:get"]).ok();
    bob.run_pod("web-dev", tools_pod("talker", &format!("echo to be read; {IDLE}")));
    let pods = "/api/v1/namespaces/web-dev/pods";
    let (log, exec) = (format!("{pods}/talker/log"), format!("{pods}/talker/exec?command=true"));
    has_all(&una.kubectl(&["get", "--raw", &log]).fails(), &["forbidden"]);
    gantry.gantry(&["assign", "acme/looker", "--user", "acme/una", "--project", "acme/web"]).ok();
    let read = eventually_some("una reads the log", SOON, || {
        let out = una.kubectl(&["get", "--raw", &log]);
        if out.succeeded() { Ok(out.stdout) } else { Err(out.stderr) }
    });
    assert_eq!(read, "to be read\n");
    for more in [
        &["get", "pods", "-n", "web-dev"][..],
        &["get", "pod", "talker", "-n", "web-dev"],
        &["get", "--raw", &exec],
        &["exec", "-n", "web-dev", "talker", "--", "true"],
        &["get", "--raw", "/api/v1/namespaces/kube-system/pods/talker/log"],
    ] {
        has_all(&una.kubectl(more).fails(), &["orbidden"]);
    }
    gantry.gantry(&["unassign", "acme/looker", "--user", "acme/una", "--project", "acme/web"]).ok();
    eventually("the right is gone", SOON, || !una.kubectl(&["get", "--raw", &log]).succeeded());
    bob.kubectl(&["delete", "pod", "talker", "-n", "web-dev", "--now"]).ok();
}

#[test]
fn what_goes_by_kubectl_takes_along_what_hangs_on_it() {
    let Some(gantry) = Instance::builder().no_node().start() else { return };
    let credential = json!({ "user_id": "shop-ann", "type": "cert", "project_id": null });
    let objects = [
        identity_object("Domain", "shop", json!({ "name": "shop", "enabled": false })),
        identity_object("Project", "till", json!({ "name": "till", "domain": "shop" })),
        identity_object("Group", "tellers", json!({ "name": "tellers", "domain": "shop" })),
        identity_object("Role", "counts", json!({ "name": "counts" })),
        identity_object("Role", "tells", json!({ "name": "tells", "implies": ["counts"] })),
        identity_object("User", "shop-ann", json!({ "domain": "shop", "groups": ["tellers"] })),
        record("credentials", None, "of-ann", credential),
        record("access_tokens", Some("shop-ann"), "by-ann", json!({ "project_id": "till" })),
        record("limits", None, "of-till", json!({ "project_id": "till" })),
        record("limits", None, "of-shop", json!({ "domain_id": "shop" })),
        record("project_endpoints", Some("till"), "of-till-too", json!({})),
        record("domain_config", None, "shop", json!({ "ldap": { "url": "ldap://x" } })),
    ];
    for object in &objects {
        gantry.apply(&object.to_string());
    }
    let field = |kind: &str, name: &str, path: &str| gantry.kubectl(&["get", kind, name, "-o", path]).ok();
    let records = || gantry.kubectl(&["get", "keystonerecords", "-o", "jsonpath={.items[*].spec.id}"]).ok();
    let gone = |id: &str| !records().split_whitespace().any(|there| there == id);

    gantry.kubectl(&["delete", "groups.identity.gantry.dev", "tellers", "--wait"]).ok();
    gantry.apply(&objects[2].to_string());
    assert_eq!(field("users.identity.gantry.dev", "shop-ann", "jsonpath={.spec.groups[*]}"), "");
    gantry.kubectl(&["delete", "roles.identity.gantry.dev", "counts", "--wait"]).ok();
    assert_eq!(field("roles.identity.gantry.dev", "tells", "jsonpath={.spec.implies[*]}"), "");
    for (kind, name, ids) in [
        ("users.identity.gantry.dev", "shop-ann", vec!["of-ann", "by-ann"]),
        ("projects.identity.gantry.dev", "till", vec!["of-till", "of-till-too"]),
        ("domains.identity.gantry.dev", "shop", vec!["of-shop", "shop"]),
    ] {
        assert!(ids.iter().all(|id| !gone(id)), "{kind} {name}: {}", records());
        gantry.kubectl(&["delete", kind, name, "--wait"]).ok();
        eventually(&format!("nothing of {kind} {name} is left"), SOON, || ids.iter().all(|id| gone(id)));
    }
}

/// A record of the Keystone API, under a name of our own.
fn record(collection: &str, parent: Option<&str>, id: &str, attributes: Value) -> Value {
    let spec = json!({ "collection": collection, "parent": parent, "id": id, "attributes": attributes });
    identity_object("KeystoneRecord", &format!("{collection}-{id}").replace('_', "-"), spec)
}
