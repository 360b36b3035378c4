//! Other clients than kubectl: Python's, kube-rs, and a service account used from outside.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use futures::{AsyncBufReadExt as _, StreamExt as _, TryStreamExt as _};
use gantry_testkit::{Instance, eventually_some, python_program, run, skip};
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::api::{
    Api, AttachParams, DeleteParams, ListParams, LogParams, Patch, PatchParams, PostParams, WatchEvent,
    WatchParams,
};
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::json;
use tokio::io::AsyncReadExt as _;

use crate::support::{IDLE, SOON, expect_field, has_all, tools_pod, wait_ready};

const PYTHON: &str = include_str!("clients.py");

#[test]
fn the_python_client_creates_watches_and_executes() {
    let Some(gantry) = Instance::start() else { return };
    let imported = run(Command::new(python_program()).args(["-c", "import kubernetes"]));
    if !imported.succeeded() {
        skip(format!("{} has no kubernetes client: run `cargo xtask setup`", python_program().display()));
        return;
    }
    gantry.push_tools();
    let script = gantry.scratch().join("clients.py");
    std::fs::write(&script, PYTHON).expect("written");
    let out = run(Command::new(python_program()).arg(script).env("KUBECONFIG", gantry.kubeconfig()));
    assert_eq!(out.code, 0, "{out}\n{}", gantry.log_tail());
    has_all(&out.stdout, &["created", "watched ADDED MODIFIED DELETED", "executed: from python", "all done"]);
}

pub async fn client(kubeconfig: &Path) -> kube::Client {
    // A second test of this process may have installed it already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let config = Kubeconfig::read_from(kubeconfig).expect("the kubeconfig");
    let config = kube::Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await;
    kube::Client::try_from(config.expect("a usable kubeconfig")).expect("a client")
}

#[test]
fn kube_rs_works_with_types() {
    let Some(gantry) = Instance::start() else { return };
    gantry.push_tools();
    gantry.apply(&tools_pod("talker", &format!("echo hello from within; {IDLE}")).to_string());
    wait_ready(&gantry, "pod/talker");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let kubeconfig = gantry.kubeconfig();
    let work = async {
        let client = client(&kubeconfig).await;
        config_maps(client.clone()).await;
        watch(client.clone()).await;
        streams(client).await;
    };
    let done = runtime.block_on(async { tokio::time::timeout(Duration::from_secs(60), work).await });
    done.expect("kube-rs is done within a minute");
}

pub fn map(name: &str, value: &str) -> ConfigMap {
    ConfigMap {
        metadata: kube::api::ObjectMeta { name: Some(name.to_owned()), ..Default::default() },
        data: Some(BTreeMap::from([("k".to_owned(), value.to_owned())])),
        ..Default::default()
    }
}

async fn config_maps(client: kube::Client) {
    let maps: Api<ConfigMap> = Api::namespaced(client, "default");
    let made = maps.create(&PostParams::default(), &map("one", "1")).await.expect("created");
    let mut changed = made.clone();
    changed.data = map("one", "2").data;
    maps.replace("one", &PostParams::default(), &changed).await.expect("replaced");
    // The first copy is out of date now.
    let stale = maps.replace("one", &PostParams::default(), &made).await.expect_err("a conflict");
    let kube::Error::Api(status) = stale else { panic!("no status: {stale}") };
    assert_eq!((status.code, status.reason.as_str()), (409, "Conflict"));
    let apply = PatchParams::apply("kube-rs").force();
    let mut desired = map("one", "3");
    desired.metadata.labels = Some(BTreeMap::from([("by".to_owned(), "apply".to_owned())]));
    let applied = maps.patch("one", &apply, &Patch::Apply(&desired)).await.expect("applied");
    assert_eq!(applied.data.as_ref().and_then(|d| d.get("k")).map(String::as_str), Some("3"));
    for n in 0..7 {
        maps.create(&PostParams::default(), &map(&format!("page-{n}"), "x")).await.expect("created");
    }
    let (mut names, mut token) = (Vec::new(), None::<String>);
    loop {
        let mut page = ListParams::default().limit(3);
        page.continue_token = token;
        let list = maps.list(&page).await.expect("a page");
        assert!(list.items.len() <= 3);
        names.extend(list.items.into_iter().filter_map(|m| m.metadata.name));
        token = list.metadata.continue_.filter(|t| !t.is_empty());
        if token.is_none() {
            break;
        }
    }
    assert_eq!(names.iter().filter(|name| name.starts_with("page-")).count(), 7);
    maps.delete_collection(&DeleteParams::default(), &ListParams::default().labels("by=apply"))
        .await
        .expect("deleted");
    assert!(maps.get_opt("one").await.expect("asked").is_none());
}

async fn watch(client: kube::Client) {
    let maps: Api<ConfigMap> = Api::namespaced(client, "default");
    let list = maps.list(&ListParams::default()).await.expect("a list");
    let from = list.metadata.resource_version.expect("lists have a version");
    let only = WatchParams::default().fields("metadata.name=seen");
    let mut events = maps.watch(&only, &from).await.expect("a watch").boxed();
    maps.create(&PostParams::default(), &map("unseen", "1")).await.expect("created");
    maps.create(&PostParams::default(), &map("seen", "1")).await.expect("created");
    maps.delete("seen", &DeleteParams::default()).await.expect("deleted");
    let mut kinds = Vec::new();
    while kinds.len() < 2 {
        match events.try_next().await.expect("the watch goes on").expect("the watch does not end") {
            WatchEvent::Added(m) => kinds.push(("ADDED", m.metadata.name)),
            WatchEvent::Deleted(m) => kinds.push(("DELETED", m.metadata.name)),
            WatchEvent::Bookmark(_) => {}
            other => panic!("unexpected {other:?}"),
        }
    }
    let seen = Some("seen".to_owned());
    assert_eq!(kinds, [("ADDED", seen.clone()), ("DELETED", seen)]);
}

async fn streams(client: kube::Client) {
    let pods: Api<Pod> = Api::namespaced(client, "default");
    let logs =
        pods.log_stream("talker", &LogParams { follow: true, ..LogParams::default() }).await.expect("a log");
    let first = logs.lines().next().await.expect("a line").expect("text");
    assert_eq!(first, "hello from within");
    let parameters = AttachParams::default().stdout(true).stderr(false);
    let mut process = pods.exec("talker", ["sh", "-c", "echo ran; exit 3"], &parameters).await.expect("exec");
    let mut said = String::new();
    let mut stdout = process.stdout().expect("asked for");
    stdout.read_to_string(&mut said).await.expect("read");
    let status = process.take_status().expect("a status").await.expect("told");
    assert_eq!((said.as_str(), status.reason.as_deref()), ("ran\n", Some("NonZeroExitCode")));
}

const CRD: &str = r#"
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: ships.test.gantry.dev}
spec:
  group: test.gantry.dev
  scope: Namespaced
  names: {plural: ships, singular: ship, kind: Ship, shortNames: [sh]}
  versions:
    - name: v1
      served: true
      storage: true
      subresources: {status: {}, scale: {specReplicasPath: .spec.sails, statusReplicasPath: .status.sails}}
      additionalPrinterColumns: [{name: Sails, type: integer, jsonPath: .spec.sails}]
      schema:
        openAPIV3Schema:
          type: object
          required: [spec]
          properties:
            spec:
              type: object
              required: [name]
              properties:
                name: {type: string, pattern: "^[A-Z]"}
                sails: {type: integer, minimum: 1, default: 2}
            status: {type: object, properties: {sails: {type: integer}}}
"#;

#[test]
fn custom_resources_are_validated_defaulted_and_shown() {
    let Some(gantry) = Instance::builder().no_node().start() else { return };
    gantry.apply(CRD);
    gantry
        .kubectl(&["wait", "--for=condition=Established", "crd/ships.test.gantry.dev", "--timeout=20s"])
        .ok();
    let ship = |spec: serde_json::Value| {
        json!({"apiVersion": "test.gantry.dev/v1", "kind": "Ship", "metadata": {"name": "pearl"}, "spec": spec}).to_string()
    };
    let create = |spec: serde_json::Value| {
        gantry.kubectl_with_input(&["create", "--validate=false", "-f", "-"], ship(spec).as_bytes())
    };
    has_all(&create(json!({})).fails(), &["is invalid", "spec.name: Required value"]);
    has_all(
        &create(json!({"name": "pearl"})).fails(),
        &["spec.name: Invalid value", "should match '^[A-Z]'"],
    );
    has_all(&create(json!({"name": "Pearl", "sails": 0})).fails(), &["should be greater than or equal to 1"]);
    create(json!({"name": "Pearl", "unknown": true})).ok();
    let spec = gantry.jsonpath(&["ship/pearl"], "{.spec}");
    assert_eq!(spec, r#"{"name":"Pearl","sails":2}"#, "defaulted and pruned");
    has_all(&gantry.kubectl(&["get", "sh"]).ok(), &["NAME", "SAILS", "pearl", "2"]);
    gantry.kubectl(&["scale", "ship/pearl", "--replicas=4"]).ok();
    assert_eq!(gantry.jsonpath(&["ship/pearl"], "{.spec.sails}"), "4");
    let patch = [
        "patch",
        "ship/pearl",
        "--type=merge",
        "--subresource=status",
        "--patch",
        r#"{"status": {"sails": 4}, "spec": {"sails": 9}}"#,
    ];
    gantry.kubectl(&patch).ok();
    let both = gantry.jsonpath(&["ship/pearl"], "{.spec.sails} {.status.sails}");
    assert_eq!(both, "4 4", "a status write changes the status alone");
    has_all(&gantry.kubectl(&["explain", "ship.spec"]).ok(), &["sails", "<integer>"]);
    gantry.kubectl(&["delete", "crd/ships.test.gantry.dev", "--timeout=30s"]).ok();
    // The API server follows its definitions, as upstream's does.
    let said = eventually_some("the kind is gone", SOON, || {
        let out = gantry.kubectl(&["get", "ships"]);
        if out.succeeded() { Err(out) } else { Ok(out.fails()) }
    });
    has_all(&said, &["could not find the requested resource"]);
}

const RIGHTS: &str = r#"
---
{apiVersion: v1, kind: ServiceAccount, metadata: {name: robot}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: reads-maps}
rules: [{apiGroups: [""], resources: [configmaps], verbs: [get, list]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: robot-reads-maps}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: reads-maps}
subjects: [{kind: ServiceAccount, name: robot, namespace: default}]
"#;

#[test]
fn a_service_account_can_do_what_its_role_says_and_no_more() {
    let Some(gantry) = Instance::builder().no_node().start() else { return };
    gantry.apply(RIGHTS);
    let token = gantry.kubectl(&["create", "token", "robot", "--duration=10m"]).ok();
    let bare = gantry.scratch().join("robot.kubeconfig");
    let text = std::fs::read(gantry.kubeconfig()).expect("the kubeconfig");
    let mut config: serde_json::Value = serde_json::from_slice(&text).expect("JSON");
    config["users"][0]["user"] = json!({"token": token.trim()});
    std::fs::write(&bare, config.to_string()).expect("written");
    let robot = |words: &[&str]| {
        let mut command = gantry.kubectl_command(words);
        run(command.env("KUBECONFIG", &bare))
    };
    eventually_some("the rights are in force", SOON, || {
        let out = robot(&["get", "configmaps"]);
        if out.succeeded() { Ok(()) } else { Err(out.stderr) }
    });
    let user = "User \"system:serviceaccount:default:robot\"";
    for (words, verb, resource) in [
        (vec!["get", "secrets"], "list", "secrets"),
        (vec!["delete", "configmap", "kube-root-ca.crt"], "delete", "configmaps"),
        (vec!["get", "configmaps", "-n", "kube-system"], "list", "configmaps"),
    ] {
        let said = robot(&words).fails();
        has_all(&said, &["(Forbidden)", user, &format!("cannot {verb} resource \"{resource}\"")]);
    }
    has_all(
        &robot(&["auth", "whoami"]).ok(),
        &["system:serviceaccount:default:robot", "system:authenticated"],
    );
    // Rights cannot be given by who does not have them.
    let grab = [
        "create",
        "clusterrolebinding",
        "grab",
        "--clusterrole=cluster-admin",
        "--serviceaccount=default:robot",
    ];
    has_all(&robot(&grab).fails(), &["is forbidden"]);
    gantry.kubectl(&["delete", "rolebinding/robot-reads-maps"]).ok();
    eventually_some("the rights are gone", SOON, || {
        let out = robot(&["get", "configmaps"]);
        if out.succeeded() { Err(out.stdout) } else { Ok(()) }
    });
    gantry.kubectl(&["delete", "serviceaccount/robot"]).ok();
    eventually_some("the token died with its account", SOON, || {
        let out = robot(&["get", "configmaps"]);
        if out.stderr.contains("Unauthorized") || out.stderr.contains("logged in") {
            Ok(())
        } else {
            Err(out.stderr)
        }
    });
}

/// A pod's own token works from within, and the addresses it is told are right.
#[test]
fn a_pod_reaches_the_api_with_its_own_token() {
    let Some(gantry) = Instance::start() else { return };
    gantry.push_tools();
    gantry.apply(&tools_pod("inside", IDLE).to_string());
    wait_ready(&gantry, "pod/inside");
    let sh = |script: &str| gantry.kubectl(&["exec", "inside", "--", "sh", "-c", script]).ok();
    has_all(&sh("ls /var/run/secrets/kubernetes.io/serviceaccount"), &["ca.crt", "namespace", "token"]);
    assert_eq!(sh("cat /var/run/secrets/kubernetes.io/serviceaccount/namespace"), "default");
    let api = gantry.jsonpath(&["service/kubernetes"], "{.spec.clusterIP}");
    assert_eq!(sh("echo $KUBERNETES_SERVICE_HOST:$KUBERNETES_SERVICE_PORT").trim(), format!("{api}:443"));
    has_all(&sh("nslookup kubernetes.default.svc.cluster.local"), &[&api]);
    expect_field(&gantry, &["pod/inside"], "{.spec.serviceAccountName}", "default");
    // busybox's wget does not check certificates; that the token is taken is what is asked here.
    let token = sh("cat /var/run/secrets/kubernetes.io/serviceaccount/token");
    let url = format!("https://{api}/apis");
    let header = format!("Authorization: Bearer {}", token.trim());
    let ca = gantry.data_dir().join("pki/ca.crt").display().to_string();
    let out =
        run(Command::new("curl").args(["-sS", "--max-time", "10", "--cacert", &ca, "-H", &header, &url]));
    has_all(&out.ok(), &["APIGroupList"]);
}

/// Newer kubectl sends what it makes of flags as protobuf.
#[test]
fn kubectl_creates_from_flags() {
    let Some(gantry) = Instance::builder().no_node().start() else { return };
    let create = |words: &str| {
        let words: Vec<&str> = std::iter::once("create").chain(words.split(' ')).collect();
        gantry.kubectl(&words).ok();
    };
    create("deployment web --image=demo/x:1 --replicas=2 --port=8080");
    create("job once --image=demo/x:1 -- /bin/echo one two");
    create("cronjob tick --image=demo/x:1 --schedule=@hourly");
    create("job of-tick --from=cronjob/tick");
    create("quota bounds --hard=cpu=2,pods=3 --scopes=NotTerminating");
    create("poddisruptionbudget some --selector=app=web --min-available=50%");
    create("poddisruptionbudget two --selector=app=web --max-unavailable=2");
    create("priorityclass high --value=1000 --description=first");
    create("service clusterip inside --tcp=80:8080");
    create("service nodeport outside --tcp=443:https --node-port=0");
    for (object, path, want) in [
        (
            "deployment/web",
            "{.spec.replicas} {.spec.template.spec.containers[0].ports[0].containerPort}",
            "2 8080",
        ),
        ("deployment/web", "{.metadata.labels.app} {.spec.selector.matchLabels.app}", "web web"),
        (
            "job/once",
            "{.spec.template.spec.containers[0].command} {.spec.template.spec.restartPolicy}",
            "[\"/bin/echo\",\"one\",\"two\"] Never",
        ),
        (
            "job/of-tick",
            "{.spec.template.spec.containers[0].image} {.metadata.ownerReferences[0].name}",
            "demo/x:1 tick",
        ),
        ("quota/bounds", "{.spec.hard.cpu} {.spec.hard.pods} {.spec.scopes}", "2 3 [\"NotTerminating\"]"),
        ("pdb/some", "{.spec.minAvailable} {.spec.maxUnavailable}", "50% "),
        ("pdb/two", "{.spec.minAvailable} {.spec.maxUnavailable}", " 2"),
        ("priorityclass/high", "{.value} {.description}", "1000 first"),
        (
            "service/inside",
            "{.spec.type} {.spec.ports[0].port} {.spec.ports[0].targetPort}",
            "ClusterIP 80 8080",
        ),
        ("service/outside", "{.spec.type} {.spec.ports[0].targetPort}", "NodePort https"),
    ] {
        assert_eq!(gantry.jsonpath(&[object], path), want, "{object} {path}");
    }
}
