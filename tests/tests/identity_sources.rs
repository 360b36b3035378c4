//! Users of a real LDAP directory (OpenLDAP's slapd) sign in, get rights by their groups, and lose everything when
//! the directory disables them.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use gantry_testkit::{Instance, Output, eventually, eventually_some, free_port, run, run_with_input, skip};
use serde_json::{Value, json};

use crate::identity_keystone::{command_line, openstack};
use crate::people::Person;
use crate::support::{SOON, has_all, identity_object};

const BASE: &str = "dc=example,dc=org";
const ROOT_PASSWORD: &str = "root-of-the-directory";

/// A directory of the test's own.
struct Slapd {
    program: PathBuf,
    folder: PathBuf,
    port: u16,
    child: Option<Child>,
}

impl Slapd {
    /// `None`, with the reason printed, where slapd is not installed.
    fn start(folder: &Path) -> Option<Self> {
        let places = ["/usr/sbin", "/usr/libexec", "/usr/local/libexec", "/sbin"];
        let program = places.iter().map(|d| Path::new(d).join("slapd")).find(|p| p.is_file());
        let Some(program) = program else {
            skip("slapd is not installed (cargo xtask setup installs it)");
            return None;
        };
        let folder = folder.to_owned();
        std::fs::create_dir_all(folder.join("data")).expect("a data directory");
        std::fs::write(folder.join("slapd.conf"), configuration(&folder)).expect("written");
        std::fs::write(folder.join("data.ldif"), data()).expect("written");
        let mut add = Command::new(&program);
        add.args(["-T", "add", "-q", "-f"]).arg(folder.join("slapd.conf"));
        run(add.arg("-l").arg(folder.join("data.ldif"))).ok();
        let mut slapd = Self { program, folder, port: free_port(), child: None };
        slapd.run();
        Some(slapd)
    }

    fn run(&mut self) {
        let mut command = Command::new(&self.program);
        command.args(["-d", "none", "-h", &self.url(), "-f"]).arg(self.folder.join("slapd.conf"));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        self.child = Some(command.spawn().expect("slapd starts"));
        let port = self.port;
        eventually("slapd listens", SOON, || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
    }

    fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    fn url(&self) -> String {
        format!("ldap://127.0.0.1:{}", self.port)
    }

    fn modify(&self, ldif: &str) {
        let file = self.folder.join("change.ldif");
        std::fs::write(&file, ldif).expect("written");
        let mut command = Command::new("ldapmodify");
        command.args(["-x", "-H", &self.url(), "-D", &format!("cn=root,{BASE}"), "-w", ROOT_PASSWORD, "-f"]);
        run(command.arg(file)).ok();
    }
}

impl Drop for Slapd {
    fn drop(&mut self) {
        self.stop();
    }
}

fn configuration(folder: &Path) -> String {
    let folder = folder.display();
    format!(
        "include /etc/ldap/schema/core.schema
include /etc/ldap/schema/cosine.schema
include /etc/ldap/schema/inetorgperson.schema
modulepath /usr/lib/ldap
moduleload back_mdb
pidfile {folder}/slapd.pid
database mdb
suffix \"{BASE}\"
rootdn \"cn=root,{BASE}\"
rootpw {ROOT_PASSWORD}
directory {folder}/data
maxsize 16777216
access to attrs=userPassword by anonymous auth by * none
access to * by * read
"
    )
}

fn data() -> String {
    let mut text = format!(
        "dn: {BASE}\nobjectClass: dcObject\nobjectClass: organization\no: Example\ndc: example\n\n\
         dn: ou=people,{BASE}\nobjectClass: organizationalUnit\nou: people\n\n\
         dn: ou=groups,{BASE}\nobjectClass: organizationalUnit\nou: groups\n\n"
    );
    for uid in ["alice", "bob"] {
        text += &format!(
            "dn: uid={uid},ou=people,{BASE}\nobjectClass: inetOrgPerson\nuid: {uid}\ncn: {uid}\nsn: x\n\
             mail: {uid}@example.org\nuserPassword: password-of-{uid}\n\n"
        );
    }
    text += &format!(
        "dn: cn=devs,ou=groups,{BASE}\nobjectClass: groupOfNames\ncn: devs\nmember: uid=alice,ou=people,{BASE}\n"
    );
    text
}

/// Status and body of a call to the identity API, and the token it gave.
fn call(gantry: &Instance, arguments: &[&str], path: &str) -> (u16, String, Option<String>) {
    let url = format!("https://{}/identity/v3/{path}", gantry.registry());
    let mut command = Command::new("curl");
    command.args(["-sS", "--max-time", "30", "-i", "-H", "Content-Type: application/json", "--cacert"]);
    let out = run(command.arg(gantry.data_dir().join("pki/ca.crt")).args(arguments).arg(url)).ok();
    let (head, body) = out.split_once("\r\n\r\n").unwrap_or((&out, ""));
    let code = head.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
    let token = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("x-subject-token").then(|| value.trim().to_owned())
    });
    (code, body.to_owned(), token)
}

fn sign_in(
    gantry: &Instance,
    name: &str,
    password: &str,
    scope: Option<&str>,
) -> (u16, Value, Option<String>) {
    let user = json!({ "name": name, "domain": { "name": "acme" }, "password": password });
    let mut auth = json!({ "identity": { "methods": ["password"], "password": { "user": user } } });
    if let Some(project) = scope {
        auth["scope"] = json!({ "project": { "name": project, "domain": { "name": "acme" } } });
    }
    let body = json!({ "auth": auth }).to_string();
    let (code, body, token) = call(gantry, &["-X", "POST", "-d", &body], "auth/tokens");
    (code, serde_json::from_str(&body).unwrap_or_default(), token)
}

/// How the directory is reached, and what of it counts.
fn configuration_of(slapd: &Slapd) -> Value {
    json!({
        "urls": [slapd.url()],
        "insecurePlaintext": true,
        "bindDn": format!("cn=root,{BASE}"),
        "users": {
            "base": format!("ou=people,{BASE}"),
            "emailAttribute": "mail",
            "enabled": [{ "rule": "absent", "attribute": "employeeType" }],
        },
        "groups": { "base": format!("ou=groups,{BASE}") },
        "limits": { "avoidMs": 200 },
    })
}

fn organisation(slapd: &Slapd) -> String {
    let provider = json!({
        "type": "ldap",
        "domain": "acme",
        "enabled": true,
        "syncIntervalSeconds": 1,
        "secret": "default/directory",
        "config": configuration_of(slapd),
    });
    let secret = json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": { "name": "directory", "namespace": "default" },
        "stringData": { "password": ROOT_PASSWORD },
    });
    let all = [
        secret,
        identity_object("Domain", "acme", json!({ "name": "acme", "enabled": true })),
        identity_object(
            "Project",
            "web",
            json!({ "name": "web", "domain": "acme", "environments": [{ "name": "dev" }] }),
        ),
        identity_object("IdentityProvider", "directory", provider),
    ];
    all.map(|object| object.to_string()).join("\n")
}

/// The member of the group `devs` is a member of the project `web`.
fn assign(gantry: &Instance) {
    let group = eventually_some("the group appears", SOON, || {
        let out = gantry.kubectl(&["get", "groups.identity.gantry.dev", "-o", "json"]);
        let listed: Value = serde_json::from_str(&out.stdout).unwrap_or_default();
        let items = listed["items"].as_array().cloned().unwrap_or_default();
        let found = items.iter().find(|item| item["spec"]["name"] == "devs");
        let name = found.and_then(|item| item["metadata"]["name"].as_str()).map(str::to_owned);
        name.ok_or_else(|| {
            format!("{out}\n{}", gantry.jsonpath(&["identityproviders", "directory"], "{.status}"))
        })
    });
    let assignment = json!({
        "apiVersion": "identity.gantry.dev/v1alpha1",
        "kind": "RoleAssignment",
        "metadata": { "name": "devs-of-web" },
        "spec": { "role": "member", "group": group, "project": "web" },
    });
    gantry.apply(&assignment.to_string());
}

#[test]
fn users_of_a_directory_come_and_go_with_it() {
    let Some(gantry) = Instance::builder().no_node().start() else { return };
    let Some(mut slapd) = Slapd::start(&gantry.scratch().join("slapd")) else { return };
    gantry.apply(&organisation(&slapd));
    assign(&gantry);
    // The group's role is alice's, at her first sign-in.
    let (_, body, token) = eventually_some("alice signs in", SOON, || {
        let answer = sign_in(&gantry, "alice", "password-of-alice", Some("web"));
        if answer.0 == 201 { Ok(answer) } else { Err(answer) }
    });
    let token = token.expect("a token");
    let roles: Vec<&str> =
        body["token"]["roles"].as_array().expect("roles").iter().filter_map(|r| r["name"].as_str()).collect();
    assert!(roles.contains(&"member") && roles.contains(&"reader"), "{body}");
    assert_eq!(body["token"]["user"]["name"], "alice");
    // bob is in no group.
    assert_eq!(sign_in(&gantry, "bob", "password-of-bob", None).0, 201);
    assert_eq!(sign_in(&gantry, "bob", "password-of-bob", Some("web")).0, 401);
    // All that is wrong is wrong alike.
    for (name, password) in [
        ("bob", "password-of-alice"),
        ("bob", ""),
        ("nobody", "password-of-bob"),
        ("*)(uid=*", "password-of-bob"),
        ("*", "password-of-bob"),
        ("bob)(|(uid=alice", "password-of-alice"),
    ] {
        let (code, body, token) = sign_in(&gantry, name, password, None);
        assert_eq!((code, token), (401, None), "{name:?}: {body}");
        assert_eq!(
            body["error"]["message"], "The request you have made requires authentication.",
            "{name:?}"
        );
    }
    // The same by command: kubectl works with what the directory's groups give.
    let alice = Person::known(&gantry, "acme/alice", "password-of-alice");
    alice.login(&gantry, &[]).ok();
    eventually("alice may work", SOON, || alice.kubectl(&["get", "pods", "-n", "web-dev"]).succeeded());
    let bob = Person::known(&gantry, "acme/bob", "password-of-bob");
    bob.login(&gantry, &[]).ok();
    bob.kubectl(&["get", "pods", "-n", "web-dev"]).fails();
    follows(&gantry, &slapd, &token);
    alice.kubectl(&["auth", "whoami"]).fails();
    eventually("bob may work", SOON, || bob.kubectl(&["get", "pods", "-n", "web-dev"]).succeeded());
    // Who is managed here does not need the directory; whoever is not is told to come back.
    slapd.stop();
    eventually("the directory is missed", SOON, || {
        sign_in(&gantry, "alice", "password-of-alice", None).0 == 503
    });
    slapd.run();
    eventually("the directory is back", SOON, || {
        sign_in(&gantry, "alice", "password-of-alice", None).0 == 201
    });
}

/// Disabled there, nothing works here; enabled there, it does again; out of the group, the role is gone.
fn follows(gantry: &Instance, slapd: &Slapd, token: &str) {
    let header = format!("X-Auth-Token: {token}");
    let works = || call(gantry, &["-H", &header], "auth/projects").0;
    assert_eq!(works(), 200);
    let dn = format!("dn: uid=alice,ou=people,{BASE}\nchangetype: modify\n");
    slapd.modify(&format!("{dn}add: employeeType\nemployeeType: gone\n"));
    // The interval is a second; the rest is for a busy machine.
    eventually("the token is dead", Duration::from_secs(20), || works() == 401);
    assert_eq!(sign_in(gantry, "alice", "password-of-alice", None).0, 401);
    slapd.modify(&format!("{dn}delete: employeeType\n"));
    eventually("alice is back", SOON, || sign_in(gantry, "alice", "password-of-alice", Some("web")).0 == 201);
    assert_eq!(works(), 401, "what was revoked stays revoked");
    slapd.modify(&format!(
        "dn: cn=devs,ou=groups,{BASE}\nchangetype: modify\nreplace: member\nmember: uid=bob,ou=people,{BASE}\n"
    ));
    eventually("the role is gone", SOON, || {
        sign_in(gantry, "alice", "password-of-alice", Some("web")).0 == 401
    });
    eventually("the role is bob's", SOON, || sign_in(gantry, "bob", "password-of-bob", Some("web")).0 == 201);
}

/// The same by commands alone: made and shown by `gantry`, listed, switched off and on by `openstack`, deleted by
/// either.
#[test]
fn a_directory_is_kept_by_commands() {
    let Some(python) = openstack() else { return };
    let Some(gantry) = Instance::builder().no_node().start() else { return };
    let Some(slapd) = Slapd::start(&gantry.scratch().join("slapd")) else { return };
    gantry.gantry(&["domain", "create", "acme"]).ok();
    made_by_commands(&gantry, &slapd);
    let alice = |want: u16| {
        eventually_some(&format!("alice's sign-in ends with {want}"), SOON, || {
            let (code, body, _) = sign_in(&gantry, "alice", "password-of-alice", None);
            if code == want { Ok(()) } else { Err((code, body)) }
        });
    };
    alice(201);
    let (_, _, token) = sign_in(&gantry, "alice", "password-of-alice", None);
    let token = format!("X-Auth-Token: {}", token.expect("a token"));
    let openstack =
        |words: &[&str]| run(command_line(&gantry, &python).args(["identity", "provider"]).args(words));
    seen_by_openstack(&openstack);
    openstack(&["set", "--disable", "--description", "Moved", "directory"]).ok();
    alice(401);
    assert_eq!(call(&gantry, &["-H", &token], "auth/projects").0, 401, "what was got by it ends with it");
    has_all(&gantry.gantry(&["idp", "show", "directory"]).ok(), &["Enabled:      false", "Moved"]);
    has_all(&gantry.kubectl(&["get", "identityproviders"]).ok(), &["READY", "directory", "ldap", "false"]);
    gantry.gantry(&["identity-provider", "set", "directory", "--enable"]).ok();
    alice(201);
    ends_by_commands(&gantry, &openstack);
    alice(401);
}

/// The password comes by a pipe and goes into the Secret, whatever else is given as an argument.
fn made_by_commands(gantry: &Instance, slapd: &Slapd) {
    let file = gantry.scratch().join("ldap.json");
    std::fs::write(&file, configuration_of(slapd).to_string()).expect("written");
    let file = file.display().to_string();
    let create = |name: &str, domain: &str| {
        let mut command = gantry.gantry_command(&["identity-provider", "create", name, "--type", "ldap"]);
        command.args(["--domain", domain, "--config-file", &file, "--sync-interval", "1"]);
        command.args(["--secret", "default/directory", "--password-file", "-"]);
        run_with_input(&mut command, format!("{ROOT_PASSWORD}\n").as_bytes())
    };
    // What is refused leaves no Secret.
    has_all(&create("directory", "nonesuch").fails(), &["there is no domain \"nonesuch\""]);
    has_all(&create("No Name", "acme").fails(), &["No Name"]);
    gantry.kubectl(&["get", "secret", "directory"]).fails();
    assert_eq!(create("directory", "acme").ok(), "identity provider directory created (id directory)\n");
    has_all(&create("directory", "acme").fails(), &["already exists"]);
    let shown = eventually_some("the directory is read", SOON, || {
        let shown = gantry.gantry(&["identity-provider", "show", "directory"]).ok();
        if shown.contains("Ready:      True (Synchronised)") { Ok(shown) } else { Err(shown) }
    });
    has_all(&shown, &["Domain:     acme", "Secret:     default/directory", "2 users, 1 groups", "urls:"]);
    assert!(!shown.contains(ROOT_PASSWORD), "{shown}");
    let listed = gantry.gantry(&["idp", "list", "--domain", "acme"]).ok();
    has_all(&listed, &["NAME", "TYPE", "SYNCED", "directory   ldap   acme     true      True "]);
    has_all(&gantry.gantry(&["idp", "set", "directory"]).fails(), &["nothing to change"]);
    // A wrong password for a while, and the right one again: neither is told to anybody.
    let set = |password: &str| {
        let words = ["idp", "set", "directory", "--sync-interval", "2", "--password-file", "-"];
        run_with_input(&mut gantry.gantry_command(&words), format!("{password}\n").as_bytes()).ok()
    };
    set("not-the-password");
    eventually_some("the status says why it is not read", SOON, || {
        let shown = gantry.gantry(&["idp", "show", "directory"]).ok();
        if shown.contains("Ready:      False (") { Ok(()) } else { Err(shown) }
    });
    set(ROOT_PASSWORD);
    eventually("the directory is read again", SOON, || {
        gantry.gantry(&["idp", "show", "directory"]).ok().contains("Ready:      True (Synchronised)")
    });
    let confirmed = gantry.gantry(&["idp", "confirm-disable", "directory", "12"]).ok();
    assert_eq!(confirmed, "identity provider directory may disable 12 people at once\n");
    let path = "{.metadata.annotations.identity\\.gantry\\.dev/confirm-disable}";
    assert_eq!(gantry.jsonpath(&["identityproviders", "directory"], path), "12");
}

/// Beside what its own users make, with names that are given once.
fn seen_by_openstack(openstack: &dyn Fn(&[&str]) -> Output) {
    openstack(&["create", "--remote-id", "https://idp.test", "theirs"]).ok();
    let listed = openstack(&["list", "-f", "value", "-c", "ID", "-c", "Enabled"]).ok();
    has_all(&listed, &["directory True", "theirs True"]);
    has_all(&openstack(&["create", "directory"]).fails(), &["409"]);
    let shown = openstack(&["show", "directory", "-f", "json"]).ok();
    let shown: Value = serde_json::from_str(&shown).expect("JSON");
    assert_eq!((&shown["id"], &shown["enabled"]), (&json!("directory"), &json!(true)), "{shown}");
    has_all(&openstack(&["set", "--remote-id", "https://x.test", "directory"]).fails(), &["remote_ids"]);
}

/// Deleted by `openstack`, its name is another's; deleted by `gantry`, a provider is gone for `openstack`.
fn ends_by_commands(gantry: &Instance, openstack: &dyn Fn(&[&str]) -> Output) {
    let again = |name: &str| {
        let words = ["idp", "create", name, "--type", "oidc", "--domain", "acme", "--config-file", "-"];
        let config = json!({ "issuer": "https://id.example.org", "clientId": "x", "redirectUris": [] });
        run_with_input(&mut gantry.gantry_command(&words), config.to_string().as_bytes())
    };
    has_all(&again("theirs").fails(), &["\"theirs\" exists already"]);
    openstack(&["delete", "directory"]).ok();
    has_all(&gantry.gantry(&["idp", "show", "directory"]).fails(), &["there is no identity provider"]);
    openstack(&["delete", "theirs"]).ok();
    again("theirs").ok();
    let shown = openstack(&["show", "theirs", "-f", "json"]).ok();
    has_all(&shown, &["https://id.example.org"]);
    assert_eq!(gantry.gantry(&["idp", "delete", "theirs"]).ok(), "identity provider theirs deleted\n");
    openstack(&["show", "theirs"]).fails();
}
