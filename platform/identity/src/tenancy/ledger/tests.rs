use super::*;
use crate::directory::tests::{put, two_organisations};
use crate::tenancy::namespaces::Known;
use gantry_identity_api::Quota;
use gantry_kube_logic::quantity::Quantity;

fn amounts(cpu: &str) -> Amounts {
    let mut amounts = Amounts::default();
    amounts.set("cpu", Quantity::parse(cpu).expect("a quantity"));
    amounts
}

fn pod(name: &str) -> Item {
    Item { kind: Counted::Pod, namespace: "web-dev".to_owned(), name: name.to_owned() }
}

/// Project `web` with 4 CPUs and one namespace.
fn bounded() -> (State, Namespaces, Ledger) {
    let mut state = two_organisations();
    let mut web = (**state.projects.get("web").expect("web")).clone();
    web.spec.quota = Quota { cpu: Some("4".to_owned()), ..Quota::default() };
    put(&mut state, web);
    let namespaces = Namespaces::default();
    namespaces.put("web-dev", Some(Known { project: Some("web".into()), ..Known::default() }));
    (state, namespaces, Ledger::default())
}

#[test]
fn writes_that_arrive_together_never_exceed_a_bound_together() {
    let (state, namespaces, ledger) = bounded();
    let (state, namespaces, ledger) = (Arc::new(state), namespaces, Arc::new(ledger));
    let threads: Vec<_> = (0..16)
        .map(|n| {
            let (state, namespaces, ledger) = (state.clone(), namespaces.clone(), ledger.clone());
            std::thread::spawn(move || {
                ledger.enter_use(&state, &namespaces, "web", pod(&format!("p{n}")), amounts("1")).is_ok()
            })
        })
        .collect();
    let admitted = threads.into_iter().filter_map(|t| t.join().ok()).filter(|ok| *ok).count();
    assert_eq!(admitted, 4);
}

#[test]
fn what_fails_is_given_back_and_what_is_seen_counts_once() {
    let (state, namespaces, ledger) = bounded();
    let enter = |name: &str, cpu: &str| ledger.enter_use(&state, &namespaces, "web", pod(name), amounts(cpu));
    let first = enter("a", "3").expect("fits").expect("counts");
    assert_eq!(
        enter("b", "2").expect_err("too much"),
        r#"quota cpu of project "web" is 4: 3 are in use, 2 more are asked for, 1 is left"#
    );
    ledger.settle(&first, AdmissionOutcome::Abandoned);
    let second = enter("b", "2").expect("given back").expect("counts");
    ledger.see(&pod("b"), Some(amounts("2")));
    ledger.settle(&second, AdmissionOutcome::Written);
    assert_eq!(ledger.used_in("web-dev"), amounts("2"));
    // The informer may be quicker than the outcome, and an older state of the object releases nothing.
    let grown = enter("b", "4").expect("grows").expect("counts");
    ledger.see(&pod("b"), Some(amounts("2")));
    assert!(enter("c", "1").is_err(), "promised to b");
    ledger.settle(&grown, AdmissionOutcome::Written);
    ledger.see(&pod("b"), Some(amounts("4")));
    ledger.see(&pod("b"), Some(amounts("0")));
    assert!(enter("c", "4").is_ok(), "it ended");
    ledger.see(&pod("c"), None);
    ledger.see(&pod("b"), None);
    assert_eq!(ledger.used_in("web-dev"), Amounts::default());
}

#[test]
fn a_promise_of_an_older_try_is_not_given_back_by_it() {
    let (state, namespaces, ledger) = bounded();
    let enter = |cpu: &str| ledger.enter_use(&state, &namespaces, "web", pod("a"), amounts(cpu));
    let first = enter("1").expect("fits").expect("counts");
    let second = enter("2").expect("fits").expect("counts");
    ledger.settle(&first, AdmissionOutcome::Abandoned);
    assert_eq!(ledger.used_in("web-dev"), amounts("2"));
    ledger.settle(&second, AdmissionOutcome::Abandoned);
    assert_eq!(ledger.used_in("web-dev"), Amounts::default());
}

#[test]
fn quotas_that_are_carved_together_do_not_exceed_what_is_above() {
    let (state, namespaces, ledger) = bounded();
    let child = |id: &str, cpu: &str| {
        let mut project = Project::new(id, Default::default());
        project.spec.domain = "acme".to_owned();
        project.spec.parent = Some("web".to_owned());
        project.spec.quota.cpu = Some(cpu.to_owned());
        project
    };
    let first = ledger.enter_quota(&state, &namespaces, &child("a", "3")).expect("fits");
    assert!(ledger.enter_quota(&state, &namespaces, &child("b", "2")).is_err());
    assert!(ledger.enter_use(&state, &namespaces, "web", pod("p"), amounts("2")).is_err(), "given away");
    ledger.settle(&first, AdmissionOutcome::Abandoned);
    assert!(ledger.enter_quota(&state, &namespaces, &child("b", "2")).is_ok());
}

#[test]
fn what_nobody_bounds_is_not_counted_against_anything() {
    let (state, namespaces, ledger) = bounded();
    namespaces.put("ops-dev", Some(Known { project: Some("ops".into()), ..Known::default() }));
    let item = Item { namespace: "ops-dev".to_owned(), ..pod("a") };
    assert!(matches!(ledger.enter_use(&state, &namespaces, "ops", item, amounts("1000")), Ok(None)));
}
