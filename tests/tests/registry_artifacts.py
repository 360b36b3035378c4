"""Artifacts with the client of the ORAS project: push, attach, discover, pull. Arguments: host, authority, token."""

import json
import os
import sys
from urllib.parse import quote

import oras.client
import oras.oci

host, authority, token = sys.argv[1:]
client = oras.client.OrasClient(hostname=host, tls_verify=authority, auth_backend="basic")
client.session.auth = ("any", token)
target = f"{host}/demo/model:1"


def referrers(digest, kind=None):
    url = f"https://{host}/v2/demo/model/referrers/{digest}" + (f"?artifactType={quote(kind)}" if kind else "")
    answer = client.do_request(url, "GET")
    assert answer.status_code == 200, answer.text
    return answer.json()["manifests"]


with open("model.bin", "wb") as file:
    file.write(os.urandom(300_000))
with open("note.json", "w") as file:
    json.dump({"said": "it is good"}, file)

pushed = client.push(target, files=["model.bin:application/vnd.example.model"], quiet=True)
digest = pushed.headers["Docker-Content-Digest"]
print("pushed", digest)
chunked = client.push(f"{host}/demo/model:2", files=["model.bin"], do_chunked=True, chunk_size=100_000, quiet=True)
assert chunked.status_code == 201, chunked.text

manifest = client.get_manifest(target)
subject = oras.oci.Subject(manifest["mediaType"], digest, len(pushed.request.body))
assert referrers(digest) == []
attached = client.push(f"{host}/demo/model:note", files=["note.json:application/json"],
                       manifest_annotations={"org.example.kind": "note"}, subject=subject, quiet=True)
assert attached.headers["OCI-Subject"] == digest, attached.headers
found = referrers(digest)
assert [entry["digest"] for entry in found] == [attached.headers["Docker-Content-Digest"]], found
assert found[0]["annotations"] == {"org.example.kind": "note"}, found
assert referrers(digest, found[0]["artifactType"]) == found
assert referrers(digest, "application/vnd.other") == []
print("attached", found[0]["digest"])

for tag in ["1", "2"]:
    [path] = client.pull(f"{host}/demo/model:{tag}", outdir=f"pulled-{tag}")
    with open(path, "rb") as pulled, open("model.bin", "rb") as origin:
        assert pulled.read() == origin.read(), path
assert client.get_tags(target) == ["1", "2", "note"], client.get_tags(target)
assert client.delete_tag(target, "2")
assert client.get_tags(target) == ["1", "note"], client.get_tags(target)
print("all done")
