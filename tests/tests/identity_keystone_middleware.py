"""A WSGI service behind keystonemiddleware.auth_token: who calls is known, and what they may do no more ends. Then a
sign-in with two factors, by keystoneauth and by hand.

Prints a line per thing that was shown; an assertion fails with what was seen.
"""

import base64
import hashlib
import hmac
import json
import os
import struct
import threading
import time
import urllib.error
import urllib.request
from wsgiref.simple_server import WSGIRequestHandler, make_server

from keystoneauth1 import session
from keystoneauth1.identity import v3
from keystonemiddleware import auth_token
from oslo_config import cfg

URL = os.environ.pop("OS_AUTH_URL")
PASSWORD = os.environ.pop("OS_PASSWORD")
CA = os.environ.pop("OS_CACERT", None)


def sign_in(**words):
    return session.Session(auth=v3.Password(auth_url=URL, **words), verify=CA or True)


admin = sign_in(username="admin", user_domain_id="default", password=PASSWORD, system_scope="all")


def call(method, path, body=None, who=admin):
    answer = who.request(URL + path, method, json=body, raise_exc=True)
    return answer.json() if answer.content else {}


def make(collection, member, **attributes):
    return call("POST", f"/{collection}", {member: attributes})[member]["id"]


def role(name):
    found = call("GET", f"/roles?name={name}")["roles"]
    return found[0]["id"] if found else make("roles", "role", name=name)


services = make("projects", "project", name="service", domain_id="default")
service = make("users", "user", name="nova", domain_id="default", password="service-password-1")
call("PUT", f"/projects/{services}/users/{service}/roles/{role('service')}")
web = make("projects", "project", name="web", domain_id="default")
user = make("users", "user", name="dora", domain_id="default", password="doras-password-1")
call("PUT", f"/projects/{web}/users/{user}/roles/{role('member')}")
compute = make("services", "service", type="compute", name="nova")
make("endpoints", "endpoint", service_id=compute, interface="public", url="http://nova.test/v2.1")


def application(environ, start_response):
    seen = {key: environ.get(key) for key in environ if key.startswith("HTTP_X_")}
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps(seen).encode()]


class Quiet(WSGIRequestHandler):
    def log_message(self, *arguments):
        pass


conf = {
    "www_authenticate_uri": URL, "auth_type": "password", "auth_url": URL, "username": "nova",
    "user_domain_id": "default", "password": "service-password-1", "project_name": "service",
    "project_domain_id": "default", "token_cache_time": -1, "cafile": CA or "", "service_type": "compute",
    "oslo_config_config": cfg.ConfigOpts(),
}
conf["oslo_config_config"]([])
server = make_server("127.0.0.1", 0, auth_token.AuthProtocol(application, conf), handler_class=Quiet)
threading.Thread(target=server.serve_forever, daemon=True).start()


def ask(token, path="/v2.1/servers"):
    request = urllib.request.Request(f"http://127.0.0.1:{server.server_port}{path}")
    if token:
        request.add_header("X-Auth-Token", token)
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.status, json.loads(answer.read()), answer.headers
    except urllib.error.HTTPError as error:
        return error.code, {}, error.headers


status, _, headers = ask(None)
assert status == 401 and headers["WWW-Authenticate"].startswith("Keystone uri="), (status, dict(headers))
print("nobody is refused")
assert ask("nonsense")[0] == 401
print("nonsense is refused")

words = dict(username="dora", user_domain_id="default", password="doras-password-1")
dora = sign_in(project_name="web", project_domain_id="default", **words)
status, seen, _ = ask(dora.get_token())
assert status == 200, status
assert seen["HTTP_X_IDENTITY_STATUS"] == "Confirmed", seen
assert (seen["HTTP_X_USER_NAME"], seen["HTTP_X_PROJECT_NAME"]) == ("dora", "web"), seen
assert seen["HTTP_X_USER_DOMAIN_ID"] == "default" and seen["HTTP_X_PROJECT_ID"] == web, seen
assert set(seen["HTTP_X_ROLES"].split(",")) == {"member", "reader"}, seen
assert "identity" in seen["HTTP_X_SERVICE_CATALOG"], seen
print("the caller is known with project, roles and catalogue")

rule = {"path": "/v2.1/servers", "method": "GET", "service": "compute"}
body = {"application_credential": {"name": "ci", "access_rules": [rule]}}
made = call("POST", f"/users/{user}/application_credentials", body, who=dora)["application_credential"]
limited = session.Session(verify=CA or True, auth=v3.ApplicationCredential(
    auth_url=URL, application_credential_id=made["id"], application_credential_secret=made["secret"]))
token = limited.get_token()
assert ask(token)[0] == 200, ask(token)
assert ask(token, "/v2.1/flavors")[0] in (401, 403), ask(token, "/v2.1/flavors")
print("access rules are kept to")

token = dora.get_token()
assert ask(token)[0] == 200
call("DELETE", f"/projects/{web}/users/{user}/roles/{role('member')}")
assert ask(token)[0] == 401, ask(token)
print("a token without a role is refused at once")

call("PUT", f"/projects/{web}/users/{user}/roles/{role('member')}")
dora = sign_in(project_name="web", project_domain_id="default", **words)
token = dora.get_token()
assert ask(token)[0] == 200
admin.delete(URL + "/auth/tokens", headers={"X-Subject-Token": token})
assert ask(token)[0] == 401, ask(token)
print("a revoked token is refused at once")
server.shutdown()

# Two factors: a password, then a code of the authenticator whose seed is a credential.
SEED = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ"


def code(ahead=0):
    counter = struct.pack(">Q", int(time.time()) // 30 + ahead)
    digest = hmac.new(base64.b32decode(SEED), counter, hashlib.sha1).digest()
    at = digest[-1] & 15
    return f"{(struct.unpack('>I', digest[at:at + 4])[0] & 0x7fffffff) % 10**6:06}"


erin = make("users", "user", name="erin", domain_id="default", password="erins-password-1", options={
    "multi_factor_auth_enabled": True, "multi_factor_auth_rules": [["password", "totp"]]})
call("PUT", f"/projects/{web}/users/{erin}/roles/{role('member')}")
call("POST", "/credentials", {"credential": {"type": "totp", "user_id": erin, "blob": SEED}})
scope = {"project": {"id": web}}


def post(methods, receipt=None):
    identity = {"methods": list(methods), **{name: {"user": {"id": erin, **shown}} for name, shown in methods.items()}}
    headers = {"Openstack-Auth-Receipt": receipt} if receipt else {}
    body = {"auth": {"identity": identity, "scope": scope}}
    return admin.post(URL + "/auth/tokens", json=body, headers=headers, authenticated=False, raise_exc=False)


first = post({"password": {"password": "erins-password-1"}})
assert first.status_code == 401, first.text
assert first.json()["required_auth_methods"] == [["password", "totp"]], first.text
assert first.json()["receipt"]["methods"] == ["password"], first.text
receipt = first.headers["Openstack-Auth-Receipt"]
assert post({"totp": {"passcode": "000000"}}, receipt).status_code == 401
used = code()
second = post({"totp": {"passcode": used}}, receipt)
assert second.status_code == 201 and second.headers["X-Subject-Token"], second.text
assert set(second.json()["token"]["methods"]) == {"password", "totp"}, second.text
assert post({"password": {"password": "erins-password-1"}, "totp": {"passcode": used}}).status_code == 401, "twice"
both = session.Session(verify=CA or True, auth=v3.MultiFactor(
    auth_url=URL, auth_methods=["v3password", "v3totp"], user_id=erin, password="erins-password-1", passcode=code(1),
    project_id=web))
assert both.get_token() and both.get_project_id() == web
print("two factors sign in, one does not, and a code is good once")
print("all done")
