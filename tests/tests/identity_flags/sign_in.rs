//! `gantry login` and what goes before it: first passwords, second factors, scopes.

use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use gantry_testkit::{Instance, binary, eventually, run};
use ring::hmac;

use super::{admin, json, login, told, words};
use crate::people::Person;
use crate::support::{SOON, has_all};

/// Failures are part of the walk: they are not to slow it down.
const CONFIG: &str = "\
[identity.security_compliance]
change_password_upon_first_use = true
unique_last_password_count = 2
[identity.lockout]
user = { free = 100 }
";
const FIRST: &str = "a-first-pass-phrase";
const SECOND: &str = "a-second-pass-phrase";
const THIRD: &str = "a-third-pass-phrase";

#[test]
fn a_sign_in_is_proven_and_bounded_as_its_flags_say() {
    let Some(gantry) = Instance::builder().no_node().file("config.toml", CONFIG).start() else { return };
    admin(&gantry, "domain create acme").ok();
    admin(&gantry, "project create acme/web --environment dev").ok();
    first_password(&gantry);
    second_factor(&gantry);
    required_factor(&gantry);
    by_fingerprint(&gantry);
    scopes(&gantry);
    typed(&gantry);
}

/// One that somebody else has set is good for changing it; later it is changed because its user wants it.
fn first_password(gantry: &Instance) {
    let alice = Person::create(gantry, "acme/alice");
    let given = alice.password.as_str();
    let user = "login SERVER --user acme/alice --password-stdin";
    let change = "login SERVER --user acme/alice --password-stdin --change-password";
    has_all(
        &login(&alice, gantry, user, &[given]).fails(),
        &["the password of acme/alice has to be changed first: sign in again with --change-password"],
    );
    has_all(&login(&alice, gantry, change, &[given]).fails(), &["new password"]);
    has_all(&login(&alice, gantry, change, &[given, "short"]).fails(), &["the new password was not taken"]);
    has_all(&login(&alice, gantry, change, &["not-the-given-one", FIRST]).fails(), &["is not signed in"]);
    has_all(&login(&alice, gantry, change, &[given, FIRST]).ok(), &["Signed in as:  acme/alice"]);
    has_all(&login(&alice, gantry, user, &[given]).fails(), &["is not signed in"]);
    login(&alice, gantry, user, &[FIRST]).ok();

    // Nothing has ended, and yet it is changed: what was asked for is done.
    let token = alice.gantry(&words("token --raw")).ok();
    login(&alice, gantry, change, &[FIRST, SECOND]).ok();
    assert_ne!(alice.gantry(&words("token --raw")).ok(), token);
    login(&alice, gantry, user, &[FIRST]).fails();
    login(&alice, gantry, user, &[SECOND]).ok();
    has_all(&login(&alice, gantry, change, &[SECOND, FIRST]).fails(), &["the new password was not taken"]);
    login(&alice, gantry, user, &[SECOND]).ok();
}

/// RFC 6238 for a moment that is `ahead` steps from now, of what `gantry user totp enable` printed.
fn code(otpauth: &str, ahead: u64) -> String {
    let secret = otpauth.split_once("secret=").expect("a secret").1;
    let letters = secret.bytes().take_while(u8::is_ascii_alphanumeric);
    let (mut seed, mut buffer, mut bits) = (Vec::new(), 0_u64, 0);
    for letter in letters {
        let value = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567".iter().position(|known| *known == letter);
        buffer = (buffer << 5) & 0xffff | value.expect("base32") as u64;
        bits += 5;
        if bits >= 8 {
            bits -= 8;
            seed.push((buffer >> bits & 0xff) as u8);
        }
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &seed);
    let digest = hmac::sign(&key, &(now / 30 + ahead).to_be_bytes());
    let at = usize::from(digest.as_ref()[19] & 15);
    let four: [u8; 4] = digest.as_ref()[at..at + 4].try_into().expect("four bytes");
    format!("{:06}", (u32::from_be_bytes(four) & 0x7fff_ffff) % 1_000_000)
}

/// One that is set up by its user, and asked for once an administrator says so.
fn second_factor(gantry: &Instance) {
    let alice = Person::known(gantry, "acme/alice", SECOND);
    alice.login(gantry, &[]).ok();
    let otpauth = alice.gantry(&words("user totp enable")).ok();
    assert!(otpauth.starts_with("otpauth://totp/Gantry:acme%2Falice?secret="), "{otpauth}");
    alice.login(gantry, &[]).ok();
    let asked = words("user set acme/alice --multi-factor password+totp");
    has_all(&alice.gantry(&asked).fails(), &["forbidden"]);
    gantry.gantry(&asked).ok();
    eventually("the code is asked for", SOON, || !alice.login(gantry, &[]).succeeded());
    has_all(&alice.login(gantry, &[]).fails(), &["acme/alice needs a code as well: add --totp CODE"]);

    let now = code(&otpauth, 0);
    let wrong = format!("{:06}", (now.parse::<u32>().expect("digits") + 1) % 1_000_000);
    has_all(&alice.login(gantry, &["--totp", &wrong]).fails(), &["the code is wrong"]);
    alice.login(gantry, &["--totp", &now]).ok();
    assert_eq!(
        json(alice.gantry(&words("whoami -o json")))["methods"],
        serde_json::json!(["password", "totp"])
    );
    has_all(&alice.login(gantry, &["--totp", &now]).fails(), &["the code is wrong"]);
    // A code is good once, and one is enough to sign in with a new password.
    let next = code(&otpauth, 1);
    let change = format!("login SERVER --user acme/alice --password-stdin --change-password --totp {next}");
    login(&alice, gantry, &change, &[SECOND, THIRD]).ok();

    // The device is lost.
    let forgotten = admin(gantry, "user totp disable acme/alice");
    assert_eq!(forgotten.stdout, "user acme/alice: 1 authenticators forgotten\n", "{forgotten}");
    has_all(&forgotten.stderr, &["`gantry user set acme/alice --multi-factor none` ends that"]);
    let alice = Person::known(gantry, "acme/alice", THIRD);
    has_all(&alice.login(gantry, &[]).fails(), &["needs a code as well"]);
    admin(gantry, "user set acme/alice --multi-factor none").ok();
    eventually("the password alone is enough", SOON, || alice.login(gantry, &[]).succeeded());
}

/// An administrator makes the secret for somebody, with the rule at once. Of several rules one is enough.
fn required_factor(gantry: &Instance) {
    let bob = joined(gantry, "acme/bob");
    let otpauth = admin(gantry, "user totp enable acme/bob --require");
    has_all(&otpauth.stderr, &["Sign-ins of acme/bob need the password and a code from now on."]);
    let otpauth = otpauth.ok();
    eventually("the code is asked for", SOON, || !bob.login(gantry, &[]).succeeded());
    bob.login(gantry, &["--totp", &code(&otpauth, 0)]).ok();
    let either = "user set acme/bob --multi-factor password+totp --multi-factor password";
    admin(gantry, either).ok();
    eventually("the password alone is enough", SOON, || bob.login(gantry, &[]).succeeded());
}

/// A user who has signed in once and has a password of their own.
fn joined(gantry: &Instance, name: &str) -> Person {
    let new = Person::create(gantry, name);
    let change = format!("login SERVER --user {name} --password-stdin --change-password");
    login(&new, gantry, &change, &[&new.password, FIRST]).ok();
    Person::known(gantry, name, FIRST)
}

/// Without a file of the authority, where its SHA-256 is known; then it is kept.
fn by_fingerprint(gantry: &Instance) {
    let bert = joined(gantry, "acme/bert");
    std::fs::remove_file(bert.kubeconfig()).expect("the authority is forgotten");
    let pem = std::fs::read_to_string(gantry.data_dir().join("pki/ca.crt")).expect("a certificate");
    let text: String = pem.lines().filter(|line| !line.starts_with("-----")).collect();
    let certificate = base64::engine::general_purpose::STANDARD.decode(text).expect("base64");
    let digest = ring::digest::digest(&ring::digest::SHA256, &certificate);
    let right: Vec<String> = digest.as_ref().iter().map(|byte| format!("{byte:02X}")).collect();
    let server = gantry.registry();
    let other = ["00"; 32].join(":");
    let wrong = format!("login {server} --user acme/bert --password-stdin --trust-fingerprint {other}");
    has_all(&told(&bert, &wrong, &[FIRST]).fails(), &["not the one to trust"]);
    let right =
        format!("login {server} --user acme/bert --password-stdin --trust-fingerprint {}", right.join(":"));
    told(&bert, &right, &[FIRST]).ok();
    told(&bert, &format!("login {server} --user acme/bert --password-stdin"), &[FIRST]).ok();
}

/// A token of one project, of one domain, of the platform: it is good there and nowhere else.
fn scopes(gantry: &Instance) {
    let carol = joined(gantry, "acme/carol");
    let sign_in = |line: &str| login(&carol, gantry, line, &[FIRST]);
    for line in [
        "login SERVER --user acme/carol --password-stdin --project web",
        "login SERVER --user acme/carol --password-stdin --domain acme",
        "login SERVER --user acme/carol --password-stdin --system",
    ] {
        has_all(&sign_in(line).fails(), &["acme/carol is not signed in", "or has no role in the scope"]);
    }
    admin(gantry, "assign member --user acme/carol --project acme/web").ok();
    admin(gantry, "assign manager --user acme/carol --domain acme").ok();
    admin(gantry, "assign reader --user acme/carol --system").ok();
    sign_in("login SERVER --user carol --user-domain acme --password-stdin").ok();
    eventually("the member's role has come", SOON, || {
        carol.kubectl(&["get", "configmaps", "-n", "web-dev"]).succeeded()
    });
    let work = ["create", "configmap", "x", "-n", "web-dev", "--dry-run=server"];
    let manage = words("group create acme/devs");
    let look = words("user get Default/admin");
    for (line, scope, roles, may) in [
        (
            "login SERVER --user carol --user-domain acme --password-stdin --project web --project-domain acme",
            "project acme/web",
            "member, reader",
            [true, false, false],
        ),
        (
            "login SERVER --user acme/carol --password-stdin --project web",
            "project acme/web",
            "member, reader",
            [true, false, false],
        ),
        (
            "login SERVER --user acme/carol --password-stdin --domain acme",
            "domain acme",
            "manager, member, reader",
            [false, true, false],
        ),
        (
            "login SERVER --user acme/carol --password-stdin --system",
            "the system",
            "reader",
            [false, false, true],
        ),
        (
            "login SERVER --user acme/carol --password-stdin",
            "none: everything that is assigned",
            "",
            [true, true, true],
        ),
    ] {
        let said = sign_in(line).ok();
        has_all(&said, &[&format!("Scope:         {scope}\n")]);
        assert!(roles.is_empty() || said.contains(&format!("Roles:         {roles}\n")), "{said}");
        let really = [carol.kubectl(&work), carol.gantry(&manage), carol.gantry(&look)];
        assert_eq!(really.each_ref().map(|out| out.succeeded()), may, "{line}: {really:#?}");
        admin(gantry, "group delete acme/devs --ignore-not-found").ok();
    }
    let elsewhere = "login SERVER --user acme/carol --password-stdin --project web --project-domain Default";
    has_all(&sign_in(elsewhere).fails(), &["no role in the scope"]);
    let two = "login SERVER --user acme/carol --password-stdin --system --domain acme";
    has_all(&sign_in(two).fails(), &["cannot be used with"]);
}

/// Without a pipe the terminal is asked, and shows nothing of what is typed.
fn typed(gantry: &Instance) {
    let dora = Person::known(gantry, "acme/dora", "");
    let gantry_program = binary("gantry").display().to_string();
    // Each line is typed when it is asked for: what comes before is thrown away, as it would be shown.
    let in_terminal = |mut script: Command, arguments: &str, answers: &[(&str, &str)]| {
        script.args(["-qec", &format!("'{gantry_program}' {arguments}"), "/dev/null"]).env("TERM", "xterm");
        let mut running = gantry_testkit::spawn(&mut script);
        let mut stdin = running.stdin().expect("a pipe");
        for (question, answer) in answers {
            eventually(&format!("{question:?} is asked"), SOON, || running.stdout().contains(question));
            std::io::Write::write_all(&mut stdin, format!("{answer}\n").as_bytes()).expect("typed");
        }
        let out = running.wait(SOON);
        assert!(answers.iter().all(|(_, answer)| !out.stdout.contains(answer)), "{out}");
        out
    };
    let mut administrator = Command::new("script");
    administrator.env("KUBECONFIG", gantry.kubeconfig());
    let made = in_terminal(
        administrator,
        "user create acme/dora --password-prompt",
        &[("Password: ", FIRST), ("Password again: ", FIRST)],
    );
    has_all(&made.ok(), &["user acme/dora created"]);
    let ca = gantry.data_dir().join("pki/ca.crt").display().to_string();
    let said = in_terminal(
        dora.command("script".into()),
        &format!("login {} -u acme/dora --ca {ca} --change-password", gantry.registry()),
        &[("Password of acme/dora: ", FIRST), ("New password: ", SECOND), ("New password again: ", SECOND)],
    );
    has_all(&said.ok(), &["Signed in as:  acme/dora"]);
    assert_eq!(run(dora.command(binary("gantry")).args(words("whoami -o name"))).ok(), "acme/dora\n");
}
