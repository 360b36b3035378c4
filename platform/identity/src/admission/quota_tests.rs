//! What a project uses, through all of the component's admission.

use gantry_identity_api::{Environment, Project, Quota};
use gantry_kube_types::AdmissionOutcome;
use serde_json::{Value, json};

use super::tests::Api;
use crate::directory::State;
use crate::tenancy::tests::{change, organisations};

/// `web` has these bounds, and its environment `dev` those.
fn bounded(project: &[(&str, &str)], environment: &[(&str, &str)]) -> State {
    let quota = |bounds: &[(&str, &str)]| {
        let mut quota = Quota::default();
        for (name, bound) in bounds {
            *quota.entry_mut(name).expect("a name of a bound") = Some((*bound).to_owned());
        }
        quota
    };
    let mut state = organisations(&["member alice project:web"]);
    change::<Project>(&mut state, "web", |p| {
        p.spec.quota = quota(project);
        let (name, quota) = ("dev".to_owned(), quota(environment));
        p.spec.environments = vec![Environment { name, quota, ..Environment::default() }];
    });
    state
}

fn service(kind: &str, external: &[&str]) -> Value {
    json!({"spec": {"type": kind, "externalIPs": external}})
}

/// What `alice` is told of a write; empty: it is admitted.
async fn writes(api: &Api, resource: &str, name: &str, old: Option<&Value>, new: &Value) -> String {
    let what = ("", resource, "web-dev", name);
    let done = api.write(&api.user("alice"), what, old, new, AdmissionOutcome::Written).await;
    done.err().map(|error| error.message).unwrap_or_default()
}

#[tokio::test]
async fn services_use_addresses_up() {
    let api = Api::of(bounded(&[("addresses", "3")], &[]));
    let creates = async |name: &str, new: Value| writes(&api, "services", name, None, &new).await;
    assert_eq!(creates("inside", service("ClusterIP", &[])).await, "");
    assert_eq!(creates("front", service("LoadBalancer", &[])).await, "");
    let two = service("ClusterIP", &["203.0.113.1", "203.0.113.2"]);
    let three = service("LoadBalancer", &["203.0.113.1", "203.0.113.2"]);
    let refused = creates("back", three.clone()).await;
    let numbers = r#"quota addresses of project "web" is 3: 1 is in use, 3 more are asked for, 2 are left"#;
    assert!(refused.contains(numbers), "{refused}");
    assert_eq!(creates("back", two.clone()).await, "");
    let refused = writes(&api, "services", "back", Some(&two), &three).await;
    let numbers = r#"quota addresses of project "web" is 3: 3 are in use, 1 more is asked for, 0 are left"#;
    assert!(refused.contains(numbers), "{refused}");
    // What takes less, or as much, is let through whatever the bound.
    assert_eq!(
        writes(&api, "services", "back", Some(&two), &service("ClusterIP", &["203.0.113.1"])).await,
        ""
    );
    assert_eq!(creates("other", service("NodePort", &[])).await, "");
}

#[tokio::test]
async fn an_environment_has_addresses_of_its_own() {
    let api = Api::of(bounded(&[("addresses", "5")], &[("addresses", "1")]));
    let creates = async |name: &str, new: Value| writes(&api, "services", name, None, &new).await;
    assert_eq!(creates("front", service("LoadBalancer", &[])).await, "");
    let refused = creates("back", service("ClusterIP", &["203.0.113.1"])).await;
    let numbers =
        r#"quota addresses of environment "dev" is 1: 1 is in use, 1 more is asked for, 0 are left"#;
    assert!(refused.contains(numbers), "{refused}");
    // Also where nothing else bounds it.
    let api = Api::of(bounded(&[], &[("addresses", "0")]));
    let refused = writes(&api, "services", "front", None, &service("LoadBalancer", &[])).await;
    let numbers = r#"quota addresses of environment "dev" is 0: 1 more is asked for, 0 are left"#;
    assert!(refused.contains(numbers), "{refused}");
    assert_eq!(writes(&api, "services", "inside", None, &service("ClusterIP", &[])).await, "");
}

#[tokio::test]
async fn a_dry_run_is_refused_as_the_write_would_be_and_books_nothing() {
    let bounds = [("addresses", "1"), ("memory", "1Gi"), ("volumes", "1Gi"), ("loadBalancers", "1")];
    let api = Api::of(bounded(&bounds, &[("addresses", "1")]));
    let pod =
        |memory: &str| json!({"spec": {"containers": [{"resources": {"requests": {"memory": memory}}}]}});
    let claim = |size: &str| json!({"spec": {"resources": {"requests": {"storage": size}}}});
    let balancer = service("LoadBalancer", &[]);
    for (resource, fits, too_much, bound) in [
        ("pods", pod("1Gi"), pod("2Gi"), "quota memory of project \"web\" is 1Gi"),
        ("persistentvolumeclaims", claim("1Gi"), claim("2Gi"), "quota volumes of project \"web\" is 1Gi"),
        (
            "services",
            balancer,
            service("LoadBalancer", &["203.0.113.1"]),
            "quota addresses of environment \"dev\" is 1",
        ),
    ] {
        api.dry_run.set(true);
        for name in ["a", "b", "c"] {
            assert_eq!(writes(&api, resource, name, None, &fits).await, "", "nothing is booked by trying");
        }
        let tried = writes(&api, resource, "a", None, &too_much).await;
        api.dry_run.set(false);
        let written = writes(&api, resource, "a", None, &too_much).await;
        assert!(tried.contains(bound), "{tried:?}");
        assert_eq!(tried, written);
        assert_eq!(writes(&api, resource, "a", None, &fits).await, "");
        api.dry_run.set(true);
        let tried = writes(&api, resource, "b", None, &fits).await;
        assert!(tried.contains("0 are left"), "what is booked counts when trying: {tried:?}");
        let grown = writes(&api, resource, "a", Some(&fits), &too_much).await;
        assert!(grown.contains(bound), "{grown:?}");
        api.dry_run.set(false);
    }
}
