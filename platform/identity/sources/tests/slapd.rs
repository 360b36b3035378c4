//! An OpenLDAP server of the test's own: configuration, certificates and data in a temporary directory.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use gantry_base::pki::CertificateAuthority;
use gantry_identity_sources::{LdapConfig, LdapSource};
use secrecy::SecretString;

use crate::peers::{Child, eventually, free_port};

pub const BASE: &str = "dc=example,dc=org";
pub const SERVICE_DN: &str = "cn=gantry,dc=example,dc=org";
pub const SERVICE_PASSWORD: &str = "service-secret-8841";
/// How many people there are beside the named ones.
pub const CROWD: usize = 1_500;

pub struct Slapd {
    pub port: u16,
    pub tls_port: u16,
    pub ca_pem: String,
    // Before the directory: a failed test prints the log when this goes.
    child: Option<Child>,
    directory: tempfile::TempDir,
}

impl Slapd {
    /// `None`, with the reason printed, where slapd is not installed.
    pub async fn start() -> Option<Self> {
        let Some(slapd) = program("slapd") else {
            gantry_testkit::skip("slapd is not installed (cargo xtask setup installs it)");
            return None;
        };
        let directory = tempfile::tempdir().expect("a directory");
        let root = directory.path();
        let authority =
            CertificateAuthority::open(&root.join("pki"), "test authority").expect("an authority");
        let names = ["localhost".to_owned()];
        let server = authority.server_certificate("slapd", &names, &[[127, 0, 0, 1].into()]);
        let ca_pem = authority.certificate_pem().to_owned();
        server.expect("a certificate");
        std::fs::create_dir(root.join("data")).expect("a data directory");
        write(&root.join("slapd.conf"), &configuration(root));
        write(&root.join("data.ldif"), &data());
        let mut add = Command::new(&slapd);
        add.args(["-T", "add", "-q", "-f"])
            .arg(root.join("slapd.conf"))
            .arg("-l")
            .arg(root.join("data.ldif"));
        let added = add.output().expect("slapadd runs");
        assert!(added.status.success(), "slapadd: {}", String::from_utf8_lossy(&added.stderr));
        let (port, tls_port) = (free_port(), free_port());
        let mut server = Self { port, tls_port, ca_pem, directory, child: None };
        server.run().await;
        Some(server)
    }

    /// Starts the server, again after [`Slapd::stop`].
    pub async fn run(&mut self) {
        let urls = format!("ldap://127.0.0.1:{}/ ldaps://127.0.0.1:{}/", self.port, self.tls_port);
        let mut command = Command::new(program("slapd").expect("it was there before"));
        command.args(["-d", "stats", "-h", &urls, "-f"]).arg(self.directory.path().join("slapd.conf"));
        command.stdin(std::process::Stdio::null());
        self.child = Some(Child::start(command, self.directory.path().join("slapd.log")));
        let port = self.port;
        eventually("slapd listens", async || {
            tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_ok()
        })
        .await;
    }

    pub fn stop(&mut self) {
        self.child = None;
    }

    /// What the server wrote about connections and operations.
    pub fn log(&self) -> String {
        self.child.as_ref().map(Child::log).unwrap_or_default()
    }

    pub fn url(&self) -> String {
        format!("ldap://127.0.0.1:{}", self.port)
    }

    pub fn tls_url(&self) -> String {
        format!("ldaps://127.0.0.1:{}", self.tls_port)
    }

    /// Over TLS, as the service account.
    pub fn config(&self) -> LdapConfig {
        let mut config = LdapConfig::open_ldap(
            vec![self.tls_url()],
            &format!("ou=people,{BASE}"),
            &format!("ou=groups,{BASE}"),
        );
        config.ca_pem = Some(self.ca_pem.clone());
        config.bind_dn = Some(SERVICE_DN.to_owned());
        config
    }

    pub fn source(&self, change: impl FnOnce(&mut LdapConfig)) -> LdapSource {
        let mut config = self.config();
        change(&mut config);
        LdapSource::new(config, Some(SERVICE_PASSWORD.into())).expect("the configuration is right")
    }

    /// Changes entries as the administrator.
    pub fn modify(&self, ldif: &str) {
        let file = self.directory.path().join("change.ldif");
        write(&file, ldif);
        let mut command = Command::new("ldapmodify");
        command.args([
            "-x",
            "-H",
            &self.url(),
            "-D",
            &format!("cn=admin,{BASE}"),
            "-w",
            "admin-secret",
            "-f",
        ]);
        let out = command.arg(file).output().expect("ldapmodify runs");
        assert!(out.status.success(), "ldapmodify: {}", String::from_utf8_lossy(&out.stderr));
    }
}

pub fn secret(text: &str) -> SecretString {
    SecretString::from(text)
}

fn program(name: &str) -> Option<PathBuf> {
    ["/usr/sbin", "/usr/libexec", "/usr/local/libexec", "/sbin"]
        .iter()
        .map(|d| Path::new(d).join(name))
        .find(|p| p.is_file())
}

#[expect(clippy::disallowed_methods, reason = "a test's own files need not be durable")]
fn write(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
}

fn configuration(root: &Path) -> String {
    let root = root.display();
    format!(
        "include /etc/ldap/schema/core.schema
include /etc/ldap/schema/cosine.schema
include /etc/ldap/schema/nis.schema
include /etc/ldap/schema/inetorgperson.schema
modulepath /usr/lib/ldap
moduleload back_mdb
moduleload ppolicy
pidfile {root}/slapd.pid
TLSCACertificateFile {root}/pki/ca.crt
TLSCertificateFile {root}/pki/slapd.crt
TLSCertificateKeyFile {root}/pki/slapd.key
database mdb
suffix \"{BASE}\"
rootdn \"cn=admin,{BASE}\"
rootpw admin-secret
directory {root}/data
maxsize 268435456
dbnosync
index objectClass,uid,member,memberUid,uniqueMember eq
overlay ppolicy
# An unpaged answer is cut off at 200: whoever does not page misses people.
limits dn.exact=\"{SERVICE_DN}\" size.soft=200 size.hard=200 size.pr=1000 size.prtotal=unlimited
limits anonymous size=2
access to attrs=userPassword by anonymous auth by * none
access to * by * read
"
    )
}

/// One entry; a value after `::` in base64.
fn entry(out: &mut String, dn: &str, lines: &[&str]) {
    let _ = writeln!(out, "dn:: {}", base64(dn));
    for line in lines {
        let _ = match line.split_once("=>") {
            Some((attribute, value)) => writeln!(out, "{attribute}:: {}", base64(value)),
            None => writeln!(out, "{line}"),
        };
    }
    out.push('\n');
}

fn base64(text: &str) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(text)
}

/// A name as it stands in a DN.
fn rdn(value: &str) -> String {
    ldap3::dn_escape(value).into_owned()
}

pub fn person_dn(uid: &str) -> String {
    format!("uid={},ou=people,{BASE}", rdn(uid))
}

pub fn group_dn(cn: &str) -> String {
    format!("cn={},ou=groups,{BASE}", rdn(cn))
}

fn person(out: &mut String, uid: &str, more: &[&str]) {
    let (uid_line, password) = (format!("uid=>{uid}"), format!("userPassword=>{}", password_of(uid)));
    let mail = format!("mail=>{uid}@example.org");
    let (cn, sn) = (format!("cn=>Person {uid}"), "sn: Person".to_owned());
    let mut lines = vec!["objectClass: inetOrgPerson"];
    // Values of one attribute must stand together.
    lines.extend(more);
    lines.extend([uid_line.as_str(), &cn, &sn, &password, &mail]);
    entry(out, &person_dn(uid), &lines);
}

fn group(out: &mut String, cn: &str, members: &[String]) {
    let name = format!("cn=>{cn}");
    let members: Vec<String> = members.iter().map(|m| format!("member=>{m}")).collect();
    let mut lines = vec!["objectClass: groupOfNames", &name];
    lines.extend(members.iter().map(String::as_str));
    entry(out, &group_dn(cn), &lines);
}

pub fn password_of(uid: &str) -> String {
    format!("pw of {uid}")
}

/// People whose names are attacks, all of them real.
pub const HOSTILE: &[&str] =
    &["*", "*)(uid=*", "a)(|(cn=*", "back\\slash", "comma, plus+ \"quotes\" <x>;", "#hash", "ünïcode"];

fn data() -> String {
    let mut out = String::new();
    entry(
        &mut out,
        BASE,
        &["objectClass: dcObject", "objectClass: organization", "o: Example", "dc: example"],
    );
    let password = format!("userPassword: {SERVICE_PASSWORD}");
    let service =
        ["objectClass: organizationalRole", "objectClass: simpleSecurityObject", "cn: gantry", &password];
    entry(&mut out, SERVICE_DN, &service);
    for unit in ["people", "groups", "posix", "unique"] {
        let line = format!("ou: {unit}");
        entry(&mut out, &format!("ou={unit},{BASE}"), &["objectClass: organizationalUnit", &line]);
    }
    person(&mut out, "alice", &[]);
    person(&mut out, "bob", &["description: an account that will be locked"]);
    person(&mut out, "twin1", &["mail: twins@example.org"]);
    person(&mut out, "twin2", &["mail: twins@example.org"]);
    person(&mut out, "locked", &["pwdAccountLockedTime: 000001010000Z"]);
    let shadow = ["objectClass: shadowAccount", "shadowExpire: 10"];
    person(&mut out, "expired", &shadow);
    for name in HOSTILE {
        person(&mut out, name, &[]);
    }
    for number in 0..CROWD {
        person(&mut out, &format!("user{number:04}"), &[]);
    }
    // devs < engineering < company < engineering: a circle; chain0 < chain1 < … < chain9: depth.
    group(&mut out, "devs", &[person_dn("alice"), person_dn("user0001")]);
    group(&mut out, "engineering", &[group_dn("devs"), group_dn("company")]);
    group(&mut out, "company", &[group_dn("engineering"), person_dn("bob")]);
    group(&mut out, "odd (name)*", &[person_dn("alice")]);
    group(&mut out, "above odd", &[group_dn("odd (name)*"), person_dn("*)(uid=*")]);
    group(&mut out, "chain0", &[person_dn("user0002")]);
    for level in 1..10 {
        group(&mut out, &format!("chain{level}"), &[group_dn(&format!("chain{}", level - 1))]);
    }
    let crowd: Vec<String> = (0..CROWD).map(|n| person_dn(&format!("user{n:04}"))).collect();
    group(&mut out, "crowd", &crowd);
    for (cn, members) in [("posix-a", vec!["alice", "*"]), ("posix-b", vec!["Alice", "bob"])] {
        let name = format!("cn: {cn}");
        let members: Vec<String> = members.iter().map(|m| format!("memberUid: {m}")).collect();
        let mut lines = vec!["objectClass: posixGroup", "gidNumber: 5000", &name];
        lines.extend(members.iter().map(String::as_str));
        entry(&mut out, &format!("cn={cn},ou=posix,{BASE}"), &lines);
    }
    let members = [
        format!("uniqueMember=>{}", person_dn("alice")),
        format!("uniqueMember=>{}", person_dn("bob") + "#'0101'B"),
    ];
    let lines = ["objectClass: groupOfUniqueNames", "cn: unique", &members[0], &members[1]];
    entry(&mut out, &format!("cn=unique,ou=unique,{BASE}"), &lines);
    out
}
