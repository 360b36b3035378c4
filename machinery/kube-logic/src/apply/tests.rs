use super::*;
use proptest::prelude::*;
use serde_json::json;

fn schema(api_version: &str, kind: &str) -> crate::schema::SchemaRef {
    catalog().for_kind(&GroupVersionKind::from_api_version(api_version, kind)).expect("built in")
}

fn by(name: &str, time: u32) -> Manager {
    Manager {
        name: name.to_owned(),
        api_version: "apps/v1".to_owned(),
        subresource: String::new(),
        time: format!("2026-01-02T03:04:{time:02}Z"),
    }
}

fn deployment(spec: Value) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d", "namespace": "n"}, "spec": spec})
}

fn apply_by(live: Option<&Value>, applied: &Value, manager: &Manager) -> Result<Value, StatusError> {
    apply(live, applied, &schema("apps/v1", "Deployment"), manager, false)
}

fn update_by(old: Option<&Value>, new: &Value, manager: &Manager) -> Value {
    let mut new = new.clone();
    track_update(old, &mut new, &schema("apps/v1", "Deployment"), manager).expect("tracked");
    new
}

fn containers(containers: Value) -> Value {
    json!({"template": {"spec": {"containers": containers}}})
}

fn fields_of(object: &Value, manager: &str) -> Value {
    let entries = object["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
    entries.into_iter().find(|e| e["manager"] == manager).map_or(Value::Null, |e| e["fieldsV1"].clone())
}

#[test]
fn applying_owns_what_was_applied_and_again_changes_nothing() {
    let config =
        deployment(containers(json!([{"name": "c", "image": "i", "ports": [{"containerPort": 80}]}])));
    let live = apply_by(None, &config, &by("a", 1)).expect("first");
    assert_eq!(
        live["metadata"]["managedFields"],
        json!([{"manager": "a", "operation": "Apply", "apiVersion": "apps/v1", "time": "2026-01-02T03:04:01Z",
            "fieldsType": "FieldsV1", "fieldsV1": {"f:spec": {"f:template": {"f:spec": {"f:containers": {
                "k:{\"name\":\"c\"}": {".": {}, "f:image": {}, "f:name": {}, "f:ports": {
                    "k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {".": {}, "f:containerPort": {}}}}}}}}}}])
    );
    assert_eq!(apply_by(Some(&live), &config, &by("a", 9)).expect("again"), live);
}

#[test]
fn what_is_applied_no_longer_goes_unless_owned() {
    let live = apply_by(None, &deployment(json!({"replicas": 2, "paused": true})), &by("a", 1)).expect("a");
    let live = apply_by(Some(&live), &deployment(json!({"replicas": 2})), &by("b", 2)).expect("same value");
    let live = apply_by(Some(&live), &deployment(json!({"minReadySeconds": 1})), &by("a", 3)).expect("a");
    assert_eq!(live["spec"], json!({"replicas": 2, "minReadySeconds": 1}));
    assert_eq!(fields_of(&live, "a"), json!({"f:spec": {"f:minReadySeconds": {}}}));
    let live = apply_by(Some(&live), &deployment(json!({})), &by("b", 4)).expect("b");
    assert_eq!(live["spec"], json!({"minReadySeconds": 1}));
    assert_eq!(fields_of(&live, "b"), json!({"f:spec": {}}));
}

#[test]
fn list_items_go_with_their_defaults() {
    let two = deployment(containers(json!([{"name": "c"}, {"name": "d", "image": "x"}])));
    let mut live = apply_by(None, &two, &by("a", 1)).expect("a");
    live["spec"]["template"]["spec"]["containers"][1]["imagePullPolicy"] = "Always".into();
    live["spec"]["template"]["spec"]["containers"][0]["imagePullPolicy"] = "Always".into();
    let one = deployment(containers(json!([{"name": "c"}])));
    let live = apply_by(Some(&live), &one, &by("a", 2)).expect("a");
    let left = &live["spec"]["template"]["spec"]["containers"];
    assert_eq!(*left, json!([{"name": "c", "imagePullPolicy": "Always"}]));
}

#[test]
fn conflicts_name_owner_and_field() {
    let live = apply_by(None, &deployment(json!({"replicas": 2, "paused": true})), &by("a", 1)).expect("a");
    let mut edited = live.clone();
    edited["spec"]["replicas"] = 3.into();
    let live = update_by(Some(&live), &edited, &by("kubectl-edit", 2));
    let error =
        apply_by(Some(&live), &deployment(json!({"replicas": 4})), &by("b", 3)).expect_err("conflict");
    assert_eq!(
        (error.code, error.message.as_str()),
        (409, "Apply failed with 1 conflict: conflict with \"kubectl-edit\" using apps/v1: .spec.replicas")
    );
    let causes = error.details.expect("details").causes;
    assert_eq!(
        (causes[0].reason.as_str(), causes[0].field.as_str()),
        ("FieldManagerConflict", ".spec.replicas")
    );
    let both = deployment(json!({"replicas": 4, "paused": false}));
    let error = apply_by(Some(&live), &both, &by("b", 3)).expect_err("conflicts");
    assert_eq!(
        error.message,
        "Apply failed with 2 conflicts: conflicts with \"a\":\n- .spec.paused\n\
         conflicts with \"kubectl-edit\" using apps/v1:\n- .spec.replicas"
    );
    let forced =
        apply(Some(&live), &both, &schema("apps/v1", "Deployment"), &by("b", 3), true).expect("forced");
    assert_eq!(forced["spec"], json!({"replicas": 4, "paused": false}));
    assert_eq!((fields_of(&forced, "a"), fields_of(&forced, "kubectl-edit")), (Value::Null, Value::Null));
}

#[test]
fn updates_take_over_what_they_change() {
    let first = deployment(json!({"replicas": 1, "selector": {"matchLabels": {"a": "b"}},
        "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "args": ["x"]}]}}}));
    let live = update_by(None, &first, &by("create", 1));
    assert_eq!(
        fields_of(&live, "create"),
        json!({"f:spec": {"f:replicas": {}, "f:selector": {}, "f:template": {
            "f:metadata": {"f:labels": {".": {}, "f:a": {}}},
            "f:spec": {"f:containers": {".": {}, "k:{\"name\":\"c\"}": {".": {}, "f:args": {}, "f:name": {}}}}}}})
    );
    let mut edited = live.clone();
    edited["spec"]["replicas"] = 2.into();
    edited["spec"]["template"]["metadata"]["labels"] = json!({});
    let live = update_by(Some(&live), &edited, &by("edit", 2));
    assert_eq!(
        fields_of(&live, "edit"),
        json!({"f:spec": {"f:replicas": {}, "f:template": {"f:metadata": {"f:labels": {}}}}})
    );
    assert_eq!(fields_of(&live, "create")["f:spec"]["f:template"].get("f:metadata"), None);
    let mut touched = live.clone();
    touched["metadata"]["resourceVersion"] = "7".into();
    assert_eq!(update_by(Some(&live), &touched, &by("edit", 3)), touched);
    let mut bare = live.clone();
    meta::metadata_mut(&mut bare).shift_remove("managedFields");
    assert_eq!(update_by(Some(&live), &bare, &by("edit", 3)), live);
}

#[test]
fn managed_fields_can_be_reset() {
    let live = update_by(None, &deployment(json!({"replicas": 1})), &by("create", 1));
    for reset in [json!([]), json!([{}])] {
        let mut new = live.clone();
        new["metadata"]["managedFields"] = reset;
        assert_eq!(update_by(Some(&live), &new, &by("x", 2))["metadata"].get("managedFields"), None);
    }
    let mut bad = deployment(json!({}));
    bad["metadata"]["managedFields"] = json!([{}]);
    let error = apply_by(Some(&live), &bad, &by("x", 2)).expect_err("refused");
    assert_eq!((error.code, error.message.as_str()), (400, "metadata.managedFields must be nil"));
}

#[test]
fn duplicate_keys_are_refused() {
    let twice = deployment(containers(json!([{"name": "c"}, {"name": "c"}])));
    let error = apply_by(None, &twice, &by("a", 1)).expect_err("duplicate");
    assert_eq!(error.code, 400);
    assert_eq!(
        error.message,
        "failed to create typed patch object (n/d; apps/v1, Kind=Deployment): \
         .spec.template.spec.containers: duplicate entries for key [name=\"c\"]"
    );
    // Where they stand already, they are no obstacle.
    let live = apply_by(Some(&twice), &deployment(json!({"replicas": 1})), &by("a", 1)).expect("applies");
    assert_eq!(live["spec"]["template"], twice["spec"]["template"]);
}

#[test]
fn lists_merge_in_the_applied_order() {
    for (live, applied, want) in [
        (json!(["a", "b"]), json!(["c"]), json!(["a", "b", "c"])),
        (json!(["a", "b", "x"]), json!(["n", "b"]), json!(["a", "n", "b", "x"])),
        (json!(["a", "b"]), json!(["b", "a"]), json!(["b", "a"])),
    ] {
        let object = |list: &Value| json!({"metadata": {"name": "d", "finalizers": list}});
        let got = apply_by(Some(&object(&live)), &object(&applied), &by("a", 1)).expect("applies");
        assert_eq!(got["metadata"]["finalizers"], want, "{live} {applied}");
    }
}

#[test]
fn kubectl_goes_over_from_client_side_apply() {
    let mut first = deployment(json!({"replicas": 1}));
    first["metadata"]["annotations"] = json!({LAST_APPLIED: first.to_string()});
    let live = update_by(None, &first, &by("kubectl-client-side-apply", 1));
    let live =
        apply_by(Some(&live), &deployment(json!({"replicas": 2})), &by("kubectl", 2)).expect("allowed");
    assert_eq!(live["spec"]["replicas"], 2);
    let unknown = deployment(json!({"replicas": 1, "paused": true}));
    let error = apply_by(Some(&unknown), &deployment(json!({"paused": false})), &by("kubectl", 2));
    assert!(
        error.expect_err("conflict").message.contains("\"before-first-apply\" using apps/v1: .spec.paused")
    );
}

#[test]
fn many_updaters_are_merged() {
    let mut live = update_by(None, &deployment(json!({})), &by("m0", 0));
    for at in 1..=14_u32 {
        let mut new = live.clone();
        new["metadata"]["labels"][format!("l{at}")] = "x".into();
        live = update_by(Some(&live), &new, &by(&format!("m{at}"), at));
    }
    let entries = live["metadata"]["managedFields"].as_array().expect("entries");
    assert_eq!(entries.len(), 10);
    assert_eq!(fields_of(&live, "ancient-changes")["f:metadata"]["f:labels"]["f:l2"], json!({}));
}

#[test]
fn status_is_not_applied_through_the_main_resource() {
    let mut config = deployment(json!({"replicas": 1}));
    config["status"] = json!({"replicas": 5});
    let live = apply_by(None, &config, &by("a", 1)).expect("applies");
    assert_eq!((live.get("status"), fields_of(&live, "a").get("f:status")), (None, None));
}

fn json_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![Just(Value::from(1)), Just(Value::from("x")), Just(json!([])), Just(json!({}))];
    leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            prop::collection::btree_map("[a-c]", inner, 0..3).prop_map(|m| json!(m)),
        ]
    })
}

prop_compose! {
    fn config()(labels in prop::collection::btree_map("[a-c]", "[xy]", 0..3),
        images in prop::collection::btree_map("[a-c]", "[xy]", 0..3), extra in json_value()) -> Value {
        let list: Vec<Value> = images.iter().map(|(n, i)| json!({"name": n, "image": i})).collect();
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d", "labels": labels},
            "spec": {"template": {"spec": {"containers": list}}}, "extra": extra})
    }
}

proptest! {
    #[test]
    fn apply_is_idempotent_and_holds_what_was_applied(live in config(), first in config(), second in config()) {
        let schema = schema("apps/v1", "Deployment");
        let live = update_by(None, &live, &by("u", 0));
        let live = apply(Some(&live), &first, &schema, &by("a", 1), true).expect("applies");
        let done = apply(Some(&live), &second, &schema, &by("a", 2), true).expect("applies");
        prop_assert_eq!(&apply(Some(&done), &second, &schema, &by("a", 3), false).expect("again"), &done);
        for (name, value) in second["metadata"]["labels"].as_object().into_iter().flatten() {
            prop_assert_eq!(&done["metadata"]["labels"][name], value);
        }
    }
}
