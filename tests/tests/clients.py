"""The official Python client against Gantry: create, list, watch, patch, delete, logs, exec."""

import threading

from kubernetes import client, config, watch
from kubernetes.client.rest import ApiException
from kubernetes.stream import stream

config.load_kube_config()
core = client.CoreV1Api()
apps = client.AppsV1Api()


def config_map(name, value):
    return client.V1ConfigMap(metadata=client.V1ObjectMeta(name=name), data={"k": value})


core.create_namespaced_config_map("default", config_map("py", "1"))
assert core.read_namespaced_config_map("py", "default").data == {"k": "1"}
try:
    core.create_namespaced_config_map("default", config_map("py", "1"))
    raise AssertionError("a second one was created")
except ApiException as error:
    assert error.status == 409, error
core.patch_namespaced_config_map("py", "default", {"data": {"k": "2"}})
assert core.read_namespaced_config_map("py", "default").data == {"k": "2"}
print("created")

version = core.list_namespaced_config_map("default").metadata.resource_version


def change():
    core.create_namespaced_config_map("default", config_map("seen", "1"))
    core.patch_namespaced_config_map("seen", "default", {"data": {"k": "2"}})
    core.delete_namespaced_config_map("seen", "default")


worker = threading.Thread(target=change)
worker.start()
kinds = []
watcher = watch.Watch()
for event in watcher.stream(
    core.list_namespaced_config_map, "default", resource_version=version, timeout_seconds=20
):
    if event["object"].metadata.name == "seen":
        kinds.append(event["type"])
    if len(kinds) == 3:
        watcher.stop()
worker.join()
print("watched", *kinds)

pod = client.V1Pod(
    metadata=client.V1ObjectMeta(name="py", labels={"app": "py"}),
    spec=client.V1PodSpec(
        termination_grace_period_seconds=0,
        containers=[
            client.V1Container(name="main", image="demo/tools:1", command=["sh", "-c", "echo logged; sleep 600"])
        ],
    ),
)
core.create_namespaced_pod("default", pod)
watcher = watch.Watch()
for event in watcher.stream(
    core.list_namespaced_pod, "default", label_selector="app=py", timeout_seconds=60
):
    if event["object"].status.phase == "Running":
        watcher.stop()
said = stream(
    core.connect_get_namespaced_pod_exec,
    "py",
    "default",
    command=["sh", "-c", "echo from python"],
    stderr=True,
    stdin=False,
    stdout=True,
    tty=False,
)
print("executed:", said.strip())
assert core.read_namespaced_pod_log("py", "default") == "logged\n"
assert apps.list_deployment_for_all_namespaces().items == []
core.delete_namespaced_pod("py", "default")
core.delete_namespaced_config_map("py", "default")
print("all done")
