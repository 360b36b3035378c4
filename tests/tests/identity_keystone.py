"""Every identity command of python-openstackclient against an identity service.

Each line of the table is one command with the exit code it must have and what its output must hold. Commands run in
one process through the client's own shell, in the order of the table; `=name:path` keeps a value of the JSON output
for later lines, where `{name}` stands for it.

Run by `identity_keystone.rs` against Gantry; the same table passes against a Keystone:
    OS_AUTH_URL=… OS_PASSWORD=… python identity_keystone.py
"""

import io
import json
import os
import sys
import tempfile
from contextlib import redirect_stderr, redirect_stdout

from openstackclient import shell
from openstackclient.common import clientmanager
from osc_lib import clientmanager as osc_clientmanager

# Taken out of the environment: the client would read them too.
URL = os.environ.pop("OS_AUTH_URL")
PASSWORD = os.environ.pop("OS_PASSWORD")
CA = os.environ.pop("OS_CACERT", None)

COMMON = ["--os-auth-url", URL, "--os-identity-api-version", "3"] + (["--os-cacert", CA] if CA else [])
ADMIN = ["--os-username", "admin", "--os-user-domain-name", "Default", "--os-password", PASSWORD]
SYSTEM = ADMIN + ["--os-system-scope", "all"]
PROJECT = ADMIN + ["--os-project-name", "admin", "--os-project-domain-name", "Default"]
ALICE_ONLY = ["--os-username", "alice", "--os-user-domain-name", "acme", "--os-password", "{alicepw}"]
ALICE = ALICE_ONLY + ["--os-project-name", "web", "--os-project-domain-name", "acme"]
BOB = ["--os-username", "bob", "--os-user-domain-name", "acme", "--os-password", "bobs-password-1"]

kept = {"alicepw": "alices-password-1", "bogus": "nonesuch"}


def scratch(text):
    with tempfile.NamedTemporaryFile("w", suffix=".json", delete=False) as file:
        file.write(text)
    return file.name


RULES = scratch('[{"local": [{"user": {"name": "{0}"}}], "remote": [{"type": "UserName"}]}]')
RULES2 = scratch('[{"local": [{"user": {"name": "{0}"}}, {"group": {"id": "0cd5e9"}}],'
                 ' "remote": [{"type": "UserName"}, {"type": "orgPersonType", "not_any_of": ["Contractor"]}]}]')
BAD_RULES = scratch('[{"local": [{"user": {"name": "{0}"}}]}]')
POLICY = scratch('{"rule": "true"}')
ACCESS = scratch('[{"path": "/v2.1/servers", "method": "GET", "service": "compute"}]')

# (who, command, exit code, what the output holds: words, or =name:key of the JSON object to keep)
TABLE = [
    # tokens and the catalogue
    (SYSTEM, "token issue -f json", 0, ["expires", "user_id", "=admin:user_id"]),
    (PROJECT, "token issue -f json", 0, ["project_id", "=token:id", "=adminproject:project_id"]),
    (PROJECT, "token revoke {token}", 0, []),
    (PROJECT, "catalog list", 0, ["identity", "public"]),
    (PROJECT, "catalog show identity -f json", 0, ["endpoints", "identity"]),
    (PROJECT, "catalog show nonesuch", 0, ["service nonesuch not found"]),
    # domains
    (SYSTEM, "domain create --description first acme -f json", 0, ["=acme:id", "acme", "first"]),
    (SYSTEM, "domain create acme", 1, ["409", "Conflict"]),
    (SYSTEM, "domain create acme --or-show -f value -c name", 0, ["acme"]),
    (SYSTEM, "domain create --disable globex -f json", 0, ["=globex:id", "false"]),
    (SYSTEM, "domain list -f json", 0, ["acme", "globex", "Default"]),
    (SYSTEM, "domain list --name acme -f value -c ID", 0, ["{acme}"]),
    (SYSTEM, "domain list --enabled -f value -c Name", 0, ["acme", "!globex"]),
    (SYSTEM, "domain show acme -f json", 0, ["{acme}", "first"]),
    (SYSTEM, "domain show nonesuch", 1, ["No Domain found for"]),
    (SYSTEM, "domain set --description second --enable globex", 0, []),
    (SYSTEM, "domain show {globex} -f json", 0, ["second", "true"]),
    (SYSTEM, "domain delete globex", 1, ["please disable it first"]),
    # projects
    (SYSTEM, "project create --domain acme --description w --tag red --property k=v web -f json", 0,
     ["=web:id", "red", "{acme}", "k"]),
    (SYSTEM, "project create --domain acme web", 1, ["409"]),
    (SYSTEM, "project create --domain acme --or-show web -f value -c id", 0, ["{web}"]),
    (SYSTEM, "project create --domain acme --parent web shop -f json", 0, ["=shop:id", "{web}"]),
    (SYSTEM, "project create --domain acme --disable closed -f json", 0, ["false"]),
    (SYSTEM, "project create --domain nonesuch x", 1, []),
    (SYSTEM, "project list -f json", 0, ["web", "shop", "admin"]),
    (SYSTEM, "project list --domain acme --long -f json", 0, ["web", "Enabled", "!admin"]),
    (SYSTEM, "project list --parent web --domain acme -f value -c Name", 0, ["shop", "!web"]),
    (SYSTEM, "project list --tags red -f value -c Name", 0, ["web", "!shop"]),
    (SYSTEM, "project list --not-tags red -f value -c Name", 0, ["shop", "!web"]),
    (SYSTEM, "project show --domain acme web -f json", 0, ["{web}"]),
    (SYSTEM, "project show --parents {shop} -f json", 0, ["parents", "{web}"]),
    (SYSTEM, "project show --children {web} -f json", 0, ["subtree", "{shop}"]),
    (SYSTEM, "project show nonesuch", 1, ["No Project found for"]),
    (SYSTEM, "project set --name web --domain acme --description better --tag blue web", 0, []),
    (SYSTEM, "project set --property size=big --remove-tag red {web}", 0, []),
    (SYSTEM, "project show {web} -f json", 0, ["better", "blue", "big", "!red"]),
    (SYSTEM, "project set --clear-tags {web}", 0, []),
    (SYSTEM, "project delete {web}", 1, ["not a leaf in the hierarchy"]),
    # users
    (SYSTEM, "user create --domain acme --password {alicepw} --email a@acme.test --project {web} alice -f json", 0,
     ["=alice:id", "a@acme.test", "{web}", "!alices-password"]),
    (SYSTEM, "user create --domain acme --password bobs-password-1 --description B --ignore-lockout-failure-attempts"
             " bob -f json", 0, ["=bob:id", "ignore_lockout_failure_attempts"]),
    (SYSTEM, "user create --domain acme alice", 1, ["409"]),
    (SYSTEM, "user create --domain acme --or-show alice -f value -c id", 0, ["{alice}"]),
    (SYSTEM, "user create --domain acme --disable carol -f json", 0, ["=carol:id", "false"]),
    (SYSTEM, "user list -f json", 0, ["alice", "bob", "admin"]),
    (SYSTEM, "user list --domain acme --long -f json", 0, ["alice", "a@acme.test", "!admin"]),
    (SYSTEM, "user show --domain acme alice -f json", 0, ["{alice}", "password_expires_at"]),
    (SYSTEM, "user show nonesuch", 1, ["No User found for"]),
    (SYSTEM, "user set --domain acme --email b@acme.test --enable {carol}", 0, []),
    (SYSTEM, "user show {carol} -f json", 0, ["b@acme.test", "true"]),
    (SYSTEM, "user set --password bobs-password-1 {bob}", 0, []),
    (SYSTEM, "user set --enable-lock-password {carol}", 0, []),
    (ALICE_ONLY, "token issue -f json", 0, ["{alice}"]),
    (ALICE_ONLY, "user password set --original-password {alicepw} --password alices-password-2", 0, []),
    (ALICE_ONLY, "token issue", 1, ["401", "requires authentication"]),
    (None, "=alicepw:alices-password-2", 0, []),
    (ALICE_ONLY, "token issue -f json", 0, ["{alice}"]),
    # groups
    (SYSTEM, "group create --domain acme --description D devs -f json", 0, ["=devs:id", "{acme}"]),
    (SYSTEM, "group create --domain acme devs", 1, ["409"]),
    (SYSTEM, "group list --domain acme -f json", 0, ["devs"]),
    (SYSTEM, "group list --long -f json", 0, ["devs", "{acme}"]),
    (SYSTEM, "group show --domain acme devs -f json", 0, ["{devs}"]),
    (SYSTEM, "group set --domain acme --description E devs", 0, []),
    (SYSTEM, "group add user {devs} {alice} {bob}", 0, []),
    (SYSTEM, "group contains user {devs} {alice}", 0, ["in group"]),
    (SYSTEM, "group contains user {devs} {carol}", 0, ["not in group"]),
    (SYSTEM, "group list --user {alice} -f json", 0, ["devs"]),
    (SYSTEM, "user list --group {devs} -f json", 0, ["alice", "bob", "!carol"]),
    (SYSTEM, "group remove user {devs} {bob}", 0, []),
    (SYSTEM, "group remove user {devs} {carol}", 1, []),
    # roles and assignments
    (SYSTEM, "role create --description R deployer -f json", 0, ["=deployer:id"]),
    (SYSTEM, "role create deployer", 1, ["409"]),
    (SYSTEM, "role create --or-show deployer -f value -c id", 0, ["{deployer}"]),
    (SYSTEM, "role create --domain acme packer -f json", 0, ["=packer:id", "{acme}"]),
    (SYSTEM, "role list -f json", 0, ["admin", "manager", "member", "reader", "deployer", "!packer"]),
    (SYSTEM, "role list --domain acme -f json", 0, ["packer", "!deployer"]),
    (SYSTEM, "role show deployer -f json", 0, ["{deployer}", "R"]),
    (SYSTEM, "role show member -f json", 0, ["=member:id"]),
    (SYSTEM, "role show nonesuch", 1, ["No Role found for"]),
    (SYSTEM, "role set --name deployer --description S deployer", 0, []),
    (SYSTEM, "role add --project {web} --user {alice} member", 0, []),
    (SYSTEM, "role add --project {web} --user {alice} {deployer}", 0, []),
    (SYSTEM, "role add --project {web} --group {devs} reader", 0, []),
    (SYSTEM, "role add --project {web} --user {carol} --inherited member", 0, []),
    (SYSTEM, "role add --domain acme --user {carol} reader", 0, []),
    (SYSTEM, "role add --domain acme --group {devs} --inherited reader", 0, []),
    (SYSTEM, "role add --system all --user {carol} reader", 0, []),
    (SYSTEM, "role add --system all --group {devs} reader", 0, []),
    (SYSTEM, "role add --project {web} --user {alice} --role-domain acme packer", 0, []),
    (SYSTEM, "role assignment list -f json", 0, ["{alice}", "{devs}"]),
    (SYSTEM, "role assignment list --names --user {alice} -f json", 0, ["member", "alice@acme", "web@acme"]),
    (SYSTEM, "role assignment list --effective --user {alice} -f json", 0, ["{member}"]),
    (SYSTEM, "role assignment list --names --effective --user {alice} --project {web} -f json", 0, ["reader"]),
    (SYSTEM, "role assignment list --project {web} -f json", 0, ["{devs}", "{carol}"]),
    (SYSTEM, "role assignment list --system all --names -f json", 0, ["admin@Default", "carol@acme"]),
    (SYSTEM, "role assignment list --group {devs} --names -f json", 0, ["devs@acme"]),
    (SYSTEM, "role assignment list --domain acme --names -f json", 0, ["carol@acme"]),
    (SYSTEM, "role assignment list --role deployer --names -f json", 0, ["alice@acme", "!carol@acme"]),
    (SYSTEM, "role assignment list --effective --group {devs}", 1, ["Combining effective and group"]),
    (SYSTEM, "role remove --system all --user {carol} reader", 0, []),
    (SYSTEM, "role remove --system all --group {devs} reader", 0, []),
    (SYSTEM, "role remove --domain acme --user {carol} reader", 0, []),
    (SYSTEM, "role remove --domain acme --group {devs} --inherited reader", 0, []),
    (SYSTEM, "role remove --project {web} --user {carol} --inherited member", 0, []),
    (SYSTEM, "role remove --project {web} --group {devs} reader", 0, []),
    (SYSTEM, "role remove --project {web} --user {alice} --role-domain acme packer", 0, []),
    (SYSTEM, "implied role list -f json", 0, ["admin", "manager"]),
    (SYSTEM, "implied role create --implied-role reader deployer -f json", 0, ["{deployer}"]),
    (SYSTEM, "implied role create --implied-role admin deployer", 1, ["cannot be an implied role"]),
    (SYSTEM, "implied role list -f value", 0, ["deployer"]),
    (SYSTEM, "implied role delete --implied-role reader deployer", 0, []),
    (SYSTEM, "implied role delete --implied-role reader deployer", 1, ["does not imply"]),
    # what a plain user may
    (ALICE, "token issue -f json", 0, ["{web}"]),
    (ALICE, "user show {alice} -f json", 0, ["{alice}"]),
    (ALICE, "user show {bob}", 1, ["403"]),
    (ALICE, "user list", 1, ["403"]),
    (ALICE, "user create mallory", 1, ["403"]),
    (ALICE, "project create other", 1, ["403"]),
    (ALICE, "domain create other", 1, ["403"]),
    (ALICE, "project list -f value -c Name", 0, ["web", "!admin"]),
    (ALICE, "project list --my-projects -f value -c Name", 0, ["web", "!admin"]),
    (ALICE, "federation project list -f json", 0, ["web"]),
    (ALICE, "federation domain list -f json", 0, []),
    # The client says nothing of a refusal here; the next line shows that there was one.
    (ALICE, "role add --project {web} --user {bob} member", 0, []),
    (SYSTEM, "role assignment list --user {bob} --project {web} --names -f json", 0, ["!bob@acme"]),
    # credentials
    (SYSTEM, "credential create --type cert --project {web} {alice} PEM -f json", 0, ["=cred:id", "PEM"]),
    (SYSTEM, "credential list -f json", 0, ["cert", "PEM"]),
    (SYSTEM, "credential list --user {alice} --type cert -f json", 0, ["{cred}"]),
    (SYSTEM, "credential show {cred} -f json", 0, ["PEM", "{alice}"]),
    (SYSTEM, "credential set --type cert --user {alice} --project {web} --data DER {cred}", 0, []),
    (SYSTEM, "credential show {cred} -f json", 0, ["DER"]),
    (SYSTEM, "credential delete {cred}", 0, []),
    (SYSTEM, "credential show {cred}", 1, ["Could not find credential"]),
    (ALICE, "ec2 credentials create -f json", 0, ["=ec2:access", "secret", "{web}"]),
    (ALICE, "ec2 credentials list -f json", 0, ["{ec2}"]),
    (ALICE, "ec2 credentials show {ec2} -f json", 0, ["{alice}"]),
    (ALICE, "ec2 credentials delete {ec2}", 0, []),
    (ALICE, "ec2 credentials show {ec2}", 1, ["Could not find credential"]),
    # application credentials
    (ALICE, "application credential create ci --description C --role member --expiration 2037-01-01T00:00:00"
            " --access-rules {ACCESS} -f json", 0, ["=ac:ID", "Secret", "member"]),
    (ALICE, "application credential create ci", 1, ["409"]),
    (ALICE, "application credential create more --role admin", 1, ["400"]),
    (ALICE, "application credential create free --secret my-own-secret --unrestricted -f json", 0,
     ["=free:ID", "my-own-secret"]),
    (ALICE, "application credential list -f json", 0, ["ci", "free"]),
    (ALICE, "application credential show ci -f json", 0, ["{ac}", "!Secret"]),
    (ALICE, "access rule list -f json", 0, ["compute", "=rule:0.ID"]),
    (ALICE, "access rule show {rule} -f json", 0, ["/v2.1/servers", "GET"]),
    (ALICE, "access rule delete {rule}", 1, ["in use"]),
    (["--os-auth-type", "v3applicationcredential", "--os-application-credential-id", "{free}",
      "--os-application-credential-secret", "my-own-secret"], "token issue -f json", 0, ["{web}", "{alice}"]),
    (["--os-auth-type", "v3applicationcredential", "--os-application-credential-name", "free", "--os-username",
      "alice", "--os-user-domain-name", "acme", "--os-application-credential-secret", "wrong"],
     "token issue", 1, ["401"]),
    (ALICE, "application credential delete ci free", 0, []),
    (ALICE, "access rule delete {rule}", 0, []),
    (ALICE, "application credential show ci", 1, ["No ApplicationCredential found"]),
    # trusts
    (ALICE, "trust create --project {web} --role {member} --impersonate --expiration 2037-01-01T00:00:00"
            " {alice} {bob} -f json", 0, ["=trust:id", "{bob}"]),
    (ALICE, "trust create --project {web} --role admin {alice} {bob}", 1, []),
    (ALICE, "trust list --auth-user --trustor {alice}", 1, ["cannot be used"]),
    (ALICE, "trust list --trustor {alice} -f json", 0, ["{trust}"]),
    (SYSTEM, "trust list -f json", 0, ["{trust}"]),
    (ALICE, "trust show {trust} -f json", 0, ["{alice}", "{bob}", "member"]),
    (BOB + ["--os-trust-id", "{trust}"], "token issue -f json", 0, ["{web}", "{alice}"]),
    (ALICE, "trust delete {trust}", 0, []),
    (ALICE, "trust show {trust}", 1, []),
    # regions, services, endpoints
    (SYSTEM, "region create --description R north -f json", 0, ["north"]),
    (SYSTEM, "region create --parent-region north north-1 -f json", 0, ["north"]),
    (SYSTEM, "region create north", 1, ["409"]),
    (SYSTEM, "region list -f json", 0, ["north-1"]),
    (SYSTEM, "region list --parent-region north -f value -c Region", 0, ["north-1"]),
    (SYSTEM, "region set --description S north-1", 0, []),
    (SYSTEM, "region show north-1 -f json", 0, ["S"]),
    (SYSTEM, "region show nonesuch", 1, ["No Region found for nonesuch"]),
    (SYSTEM, "service create --name nova --description C compute -f json", 0, ["=nova:id"]),
    (SYSTEM, "service list --long -f json", 0, ["nova", "compute"]),
    (SYSTEM, "service show nova -f json", 0, ["{nova}"]),
    (SYSTEM, "service set --description D --disable nova", 0, []),
    (SYSTEM, "service set --enable nova", 0, []),
    (SYSTEM, "service show nonesuch", 1, []),
    (SYSTEM, "endpoint create --region north nova public http://nova.test/$(project_id)s -f json", 0,
     ["=ep:id", "north"]),
    (SYSTEM, "endpoint create --region north nova internal http://nova.int -f json", 0, ["=epi:id"]),
    (SYSTEM, "endpoint create --region north nova public http://x/$(bogus)s", 1, ["invalid URL"]),
    (SYSTEM, "endpoint list --service nova -f json", 0, ["{ep}", "{epi}"]),
    (SYSTEM, "endpoint list --interface internal --region north -f value -c ID", 0, ["{epi}", "!{ep}\n"]),
    (SYSTEM, "endpoint show {ep} -f json", 0, ["nova.test"]),
    (SYSTEM, "endpoint set --url http://nova2.test/$(project_id)s {ep}", 0, []),
    (ALICE, "catalog show nova -f json", 0, ["http://nova2.test/{web}"]),
    (SYSTEM, "endpoint add project {epi} {web}", 0, []),
    (SYSTEM, "endpoint list --project {web} -f value -c ID", 0, ["{epi}"]),
    (SYSTEM, "endpoint list --endpoint {epi} -f value -c ID", 0, ["{web}"]),
    (ALICE, "catalog show nova -f json", 0, ["nova.int", "!nova2.test"]),
    (SYSTEM, "endpoint remove project {epi} {web}", 0, []),
    (SYSTEM, "endpoint group create --description G internals {FILTERS} -f json", 0, ["=eg:id"]),
    (SYSTEM, "endpoint group list -f json", 0, ["internals"]),
    (SYSTEM, "endpoint group show internals -f json", 0, ["{eg}"]),
    (SYSTEM, "endpoint group set --name inside --description H --filters {FILTERS} {eg}", 0, []),
    (SYSTEM, "endpoint group add project {eg} {web}", 0, []),
    (SYSTEM, "endpoint group list --project {web} -f json", 0, ["inside"]),
    (SYSTEM, "endpoint group list --endpointgroup {eg} -f json", 0, ["web"]),
    (SYSTEM, "endpoint group remove project {eg} {web}", 0, []),
    (SYSTEM, "endpoint group delete {eg}", 0, []),
    (SYSTEM, "endpoint group show {eg}", 1, []),
    # limits
    (SYSTEM, "registered limit create --service nova --region north --default-limit 10 --description L cores"
             " -f json", 0, ["=rl:id", "10"]),
    (SYSTEM, "registered limit create --service nova --region north --default-limit 10 cores", 1, ["409"]),
    (SYSTEM, "registered limit list --service nova -f json", 0, ["cores"]),
    (SYSTEM, "registered limit set --default-limit 20 {rl} -f json", 0, ["20"]),
    (SYSTEM, "registered limit show {rl} -f json", 0, ["20", "cores"]),
    (SYSTEM, "limit create --project {web} --service nova --region north --resource-limit 5 cores -f json", 0,
     ["=limit:id"]),
    (SYSTEM, "limit create --project {web} --service nova --resource-limit 5 nonesuch", 1, ["403"]),
    (SYSTEM, "limit list --project {web} -f json", 0, ["cores"]),
    (SYSTEM, "limit set --resource-limit 7 {limit} -f json", 0, ["7"]),
    (SYSTEM, "limit show {limit} -f json", 0, ["7", "{web}"]),
    (SYSTEM, "registered limit delete {rl}", 1, ["403"]),
    (SYSTEM, "limit delete {limit}", 0, []),
    (SYSTEM, "registered limit delete {rl}", 0, []),
    (SYSTEM, "endpoint delete {ep} {epi}", 0, []),
    (SYSTEM, "service delete nova", 0, []),
    (SYSTEM, "region delete north-1 north", 0, []),
    # policies
    (SYSTEM, "policy create --type application/json {POLICY} -f json", 0, ["=policy:id"]),
    (SYSTEM, "policy list --long -f json", 0, ["{policy}"]),
    (SYSTEM, "policy set --type text/plain {policy}", 0, []),
    (SYSTEM, "policy show {policy} -f json", 0, ["text/plain"]),
    (SYSTEM, "policy delete {policy}", 0, []),
    (SYSTEM, "policy show {policy}", 1, ["Could not find policy"]),
    # federation
    (SYSTEM, "identity provider create --remote-id https://idp.test --description I idp -f json", 0, ["idp"]),
    (SYSTEM, "identity provider create idp", 1, ["409"]),
    (SYSTEM, "identity provider list -f json", 0, ["idp"]),
    (SYSTEM, "identity provider set --disable --description J idp", 0, []),
    (SYSTEM, "identity provider show idp -f json", 0, ["J", "false", "https://idp.test"]),
    (SYSTEM, "mapping create --rules {RULES} m1 -f json", 0, ["m1"]),
    (SYSTEM, "mapping create --rules {BAD_RULES} m2", 1, ["remote"]),
    (SYSTEM, "mapping list -f json", 0, ["m1"]),
    (SYSTEM, "mapping set --rules {RULES2} m1", 0, []),
    (SYSTEM, "mapping show m1 -f json", 0, ["orgPersonType"]),
    (SYSTEM, "federation protocol create --identity-provider idp --mapping m1 saml2 -f json", 0, ["saml2"]),
    (SYSTEM, "federation protocol create --identity-provider idp --mapping nonesuch openid", 1,
     ["Invalid mapping id"]),
    (SYSTEM, "federation protocol list --identity-provider idp -f json", 0, ["saml2"]),
    # This client's command gives its table as its exit code, against a Keystone too.
    (SYSTEM, "federation protocol set --identity-provider idp --mapping m1 saml2", 1, []),
    (SYSTEM, "federation protocol show --identity-provider idp saml2 -f json", 0, ["m1"]),
    (SYSTEM, "federation protocol delete --identity-provider idp saml2", 0, []),
    (SYSTEM, "federation protocol show --identity-provider idp saml2", 1, ["Could not find federated protocol"]),
    (SYSTEM, "mapping delete m1", 0, []),
    (SYSTEM, "mapping show m1", 1, ["Could not find mapping"]),
    (SYSTEM, "identity provider delete idp", 0, []),
    (SYSTEM, "identity provider show idp", 1, []),
    (SYSTEM, "service provider create --auth-url https://sp.test/auth --service-provider-url https://sp.test/sp"
             " --description P sp -f json", 0, ["sp.test"]),
    (SYSTEM, "service provider create --auth-url bogus --service-provider-url https://sp.test/sp sp2", 1, ["400"]),
    (SYSTEM, "service provider list -f json", 0, ["sp"]),
    (SYSTEM, "service provider set --disable --description Q sp", 0, []),
    (SYSTEM, "service provider show sp -f json", 0, ["Q", "false"]),
    (SYSTEM, "service provider delete sp", 0, []),
    (SYSTEM, "service provider show sp", 1, []),
    # OAuth1
    (SYSTEM, "consumer create --description O -f json", 0, ["=consumer:id", "=consumersecret:secret"]),
    (SYSTEM, "consumer list -f json", 0, ["{consumer}"]),
    (SYSTEM, "consumer set --description Q {consumer}", 0, []),
    (SYSTEM, "consumer show {consumer} -f json", 0, ["Q", "!{consumersecret}"]),
    (ALICE, "request token create --consumer-key {consumer} --consumer-secret {consumersecret} --project {web}"
            " -f json", 0, ["=rkey:id", "=rsecret:secret"]),
    (ALICE, "request token create --consumer-key {consumer} --consumer-secret wrong --project {web}", 1, ["401"]),
    (ALICE, "request token authorize --request-key {rkey} --role {member} -f json", 0, ["=verifier:oauth_verifier"]),
    (ALICE, "access token create --consumer-key {consumer} --consumer-secret {consumersecret} --request-key {rkey}"
            " --request-secret {rsecret} --verifier {verifier} -f json", 0, ["id", "secret"]),
    (SYSTEM, "consumer delete {consumer}", 0, []),
    (SYSTEM, "consumer show {consumer}", 1, []),
    # deletion
    (SYSTEM, "role delete deployer {packer}", 0, []),
    (SYSTEM, "role delete member", 1, ["immutable"]),
    (SYSTEM, "group delete --domain acme devs", 0, []),
    (SYSTEM, "user delete --domain acme bob", 0, []),
    (SYSTEM, "user show {bob}", 1, []),
    (SYSTEM, "project delete {shop}", 0, []),
    (SYSTEM, "project show {shop}", 1, []),
    (SYSTEM, "domain set --disable acme", 0, []),
    (ALICE_ONLY, "token issue", 1, ["401"]),
    (SYSTEM, "domain delete acme", 0, []),
    (SYSTEM, "domain set --disable globex", 0, []),
    (SYSTEM, "domain delete globex", 0, []),
    (SYSTEM, "user show {alice}", 1, ["No User found for"]),
    (SYSTEM, "project show {web}", 1, ["No Project found for"]),
]


def forget_clients():
    """The client keeps its first connection for the life of the process; each command here is somebody else's."""
    for kind in clientmanager.ClientManager.__mro__:
        for member in vars(kind).values():
            if isinstance(member, osc_clientmanager.ClientCache):
                member._handle = None


def run(arguments):
    """One command through the client's own entry, as its exit code and what it said."""
    out = io.StringIO()
    argv = COMMON + arguments
    forget_clients()
    with redirect_stdout(out), redirect_stderr(out):
        try:
            app = shell.OpenStackShell()
            app.stdout = app.stderr = out
            code = app.run(argv)
        except SystemExit as error:
            code = error.code or 0
        except Exception as error:  # noqa: BLE001 what the command line would print
            out.write(f"{type(error).__name__}: {error}")
            code = 1
    return int(bool(code)), out.getvalue()


def fill(text):
    for name, value in kept.items():
        text = text.replace("{" + name + "}", str(value))
    for name, value in (("ACCESS", ACCESS), ("RULES", RULES), ("RULES2", RULES2), ("BAD_RULES", BAD_RULES),
                        ("POLICY", POLICY), ("FILTERS", FILTERS)):
        text = text.replace("{" + name + "}", value)
    return text


FILTERS = scratch('{"interface": "internal"}')


def check(who, command, code, holds):
    """Returns what is wrong, or an empty list."""
    if who is None:
        name, value = command[1:].split(":", 1)
        kept[name] = value
        return []
    arguments = [fill(word) for word in who] + [fill(word) for word in command.split()]
    got, said = run(arguments)
    wrong = [] if got == code else [f"exit code {got}, wanted {code}"]
    for word in holds:
        if word.startswith("="):
            name, path = word[1:].split(":")
            try:
                value = json.loads(said[min(i for i in (said.find("{"), said.find("[")) if i >= 0):])
                for key in path.split("."):
                    value = value[int(key)] if isinstance(value, list) else value[key]
                kept[name] = value
            except (ValueError, KeyError, IndexError, TypeError) as error:
                wrong.append(f"no {path} in the output: {error!r}")
        elif word.startswith("!"):
            if fill(word[1:]) in said:
                wrong.append(f"{fill(word[1:])!r} is in the output")
        elif fill(word) not in said:
            wrong.append(f"{fill(word)!r} is not in the output")
    return wrong and wrong + ["    " + line for line in said.strip().splitlines()[-12:]]


def commands_without_a_line():
    """Identity commands the client has and the table has not."""
    from importlib.metadata import entry_points

    names = {e.name.replace("_", " ") for e in entry_points(group="openstack.identity.v3")}
    lines = [command for _, command, _, _ in TABLE]
    return sorted(n for n in names if not any(line == n or line.startswith(n + " ") for line in lines))


def main():
    missing = commands_without_a_line()
    for name in missing:
        print(f"MISSING {name}")
    failed = 0
    for who, command, code, holds in TABLE:
        wrong = check(who, command, code, holds)
        if wrong:
            failed += 1
            print(f"FAILED openstack {fill(command)}")
            print("\n".join("  " + line for line in wrong), flush=True)
    total = sum(1 for who, *_ in TABLE if who is not None)
    print(f"{total - failed} of {total} commands passed; {len(missing)} commands have no line")
    return 1 if failed or missing else 0


if __name__ == "__main__":
    sys.exit(main())
