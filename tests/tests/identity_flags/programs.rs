//! Programs that sign in with an application credential, and tokens for others.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use gantry_testkit::{Instance, eventually, eventually_some};
use serde_json::Value;

use super::{admin, json, login, told, words};
use crate::people::Person;
use crate::support::{SOON, has_all};

#[test]
fn a_program_has_the_rights_of_its_credential() {
    let Some(gantry) = Instance::builder().no_node().start() else { return };
    admin(&gantry, "domain create acme").ok();
    admin(&gantry, "project create acme/web --environment dev").ok();
    let dave = Person::signed_in(&gantry, "acme/dave");
    has_all(
        &dave.gantry(&words("application-credential create ci --project acme/web")).fails(),
        &["there is no project \"acme/web\" that you can see"],
    );
    admin(&gantry, "assign member --user acme/dave --project acme/web").ok();
    eventually("the member's role has come", SOON, || {
        dave.kubectl(&["get", "configmaps", "-n", "web-dev"]).succeeded()
    });
    reads_alone(&gantry, &dave);
    makes_others(&gantry, &dave);
    ends(&gantry, &dave);
    others_credentials(&gantry, &dave);
    tokens_for_others(&dave);
}

/// Of the user's roles it has the one that it was given.
fn reads_alone(gantry: &Instance, dave: &Person) {
    let create = words(
        "application-credential create ci --project acme/web --role reader --description Releases --expires 90d \
         -o json",
    );
    let made = json(dave.gantry(&create));
    let [id, secret] = ["id", "secret"].map(|field| made[field].as_str().expect("text").to_owned());
    let listed = dave.gantry(&words("application-credential list -o wide")).ok();
    has_all(&listed, &["ci", "acme/dave", "acme/web", "reader", "Releases", &id]);
    has_all(&dave.gantry(&create).fails(), &["ci"]);

    let program = Person::known(gantry, "acme/program", "");
    let by_id = format!("login SERVER --application-credential-id {id} --secret-stdin");
    let said = login(&program, gantry, &by_id, &[&secret]).ok();
    has_all(
        &said,
        &["Signed in as:  acme/dave", "Scope:         project acme/web", "Roles:         reader\n"],
    );
    has_all(&said, &[&format!("Context:       acme/dave+ci@{}", gantry.registry())]);
    let who = json(program.gantry(&words("whoami -o json")));
    assert_eq!((&who["applicationCredential"], &who["roles"]), (&"ci".into(), &vec!["reader"].into()));
    program.kubectl(&["get", "configmaps", "-n", "web-dev"]).ok();
    program.kubectl(&["create", "configmap", "x", "-n", "web-dev", "--dry-run=server"]).fails();
    dave.kubectl(&["create", "configmap", "x", "-n", "web-dev", "--dry-run=server"]).ok();
    has_all(
        &program.gantry(&words("application-credential create child --project acme/web")).fails(),
        &["credential"],
    );

    let named = "login SERVER --application-credential-name ci --user acme/dave --secret-stdin";
    has_all(&login(&program, gantry, named, &[&secret]).ok(), &["Roles:         reader\n"]);
    has_all(
        &login(&program, gantry, named, &["gac_wrong"]).fails(),
        &["the application credential ci of acme/dave or its secret is wrong, or it has ended"],
    );
    has_all(
        &login(&program, gantry, &format!("{by_id} --project acme/web"), &[&secret]).fails(),
        &["an application credential has a scope of its own"],
    );
    let token = program.gantry(&words("token --raw")).ok();
    assert_eq!(
        dave.gantry(&words("application-credential delete ci")).ok(),
        "application credential ci deleted\n"
    );
    has_all(&program.gantry(&["whoami"]).fails(), &["sign in with `gantry login"]);
    assert!(login(&program, gantry, &by_id, &[&secret]).fails().contains("it has ended"), "{token}");
    has_all(
        &dave.gantry(&words("application-credential delete ci")).fails(),
        &["there is no application credential \"ci\""],
    );
}

/// When the token ends, the kept secret gives another; without one somebody has to sign in.
#[test]
fn a_kept_secret_signs_in_again() {
    let brief = "[identity]\ntoken_lifetime_seconds = 15\n";
    let Some(gantry) = Instance::builder().no_node().file("config.toml", brief).start() else { return };
    admin(&gantry, "domain create acme").ok();
    admin(&gantry, "project create acme/web --environment dev").ok();
    let dave = Person::create(&gantry, "acme/dave");
    admin(&gantry, "assign member --user acme/dave --project acme/web").ok();
    dave.login(&gantry, &[]).ok();
    let made = json(dave.gantry(&words("application-credential create night --project acme/web -o json")));
    let [id, secret] = ["id", "secret"].map(|field| made[field].as_str().expect("text").to_owned());
    let [keeps, forgets] = ["acme/keeps", "acme/forgets"].map(|name| Person::known(&gantry, name, ""));
    let line = format!("login SERVER --application-credential-id {id} --secret-stdin --keep-secret");
    login(&keeps, &gantry, &line, &[&secret]).ok();
    let line = format!("login SERVER --application-credential-id {id} --secret-stdin");
    login(&forgets, &gantry, &line, &[&secret]).ok();

    let look = ["get", "configmaps", "-n", "web-dev"];
    let ended = eventually_some("the token ends", SOON, || {
        let out = forgets.gantry(&["token", "--raw"]);
        if out.succeeded() { Err(out) } else { Ok(out.stderr) }
    });
    has_all(&ended, &["the token of acme/dave ended", "ago: sign in with `gantry login --context"]);
    forgets.kubectl(&look).fails();
    keeps.kubectl(&look).ok();
    has_all(&keeps.gantry(&["whoami"]).ok(), &["Application credential:  night"]);
}

/// With `--unrestricted` a program may make credentials, and with a secret that somebody else chose.
fn makes_others(gantry: &Instance, dave: &Person) {
    let chosen = "A-secret-that-dave-chose-1";
    let create = "application-credential create maker --project acme/web --unrestricted --secret-stdin";
    told(dave, create, &[chosen]).ok();
    let maker = Person::known(gantry, "acme/maker", "");
    let named = "login SERVER --application-credential-name maker --user acme/dave --secret-stdin";
    login(&maker, gantry, named, &[chosen]).ok();
    let child = words("application-credential create child --project acme/web --role reader");
    has_all(&maker.gantry(&child).ok(), &["Secret:   gac_", "Roles:    reader"]);
}

/// At the time that it was given, tokens included.
fn ends(gantry: &Instance, dave: &Person) {
    let create = words("application-credential create brief --project acme/web --expires 5s -o json");
    let made = json(dave.gantry(&create));
    let [id, secret] = ["id", "secret"].map(|field| made[field].as_str().expect("text").to_owned());
    let program = Person::known(gantry, "acme/brief", "");
    let by_id = format!("login SERVER --application-credential-id {id} --secret-stdin");
    eventually("it has ended", SOON, || !login(&program, gantry, &by_id, &[&secret]).succeeded());
    has_all(&login(&program, gantry, &by_id, &[&secret]).fails(), &["or it has ended"]);
    let past = words("application-credential create past --project acme/web --expires 2020-01-01T00:00:00Z");
    has_all(&dave.gantry(&past).fails(), &["is in the past"]);
}

/// An administrator sees and deletes everybody's.
fn others_credentials(gantry: &Instance, dave: &Person) {
    let eve = Person::signed_in(gantry, "acme/eve");
    let names = |person: Option<&Person>, user: Option<&str>| -> Vec<String> {
        let mut line = words("application-credential list --user USER -o json");
        match user {
            Some(user) => line[3] = user,
            None => drop(line.drain(2..4)),
        }
        let listed = json(person.map_or_else(|| gantry.gantry(&line), |person| person.gantry(&line)));
        let items = listed["items"].as_array().expect("a list").iter();
        items.map(|item| item["spec"]["name"].as_str().unwrap_or_default().to_owned()).collect()
    };
    for (person, user, wanted) in [
        (Some(dave), None, &["brief", "child", "maker"][..]),
        (None, Some("acme/dave"), &["brief", "child", "maker"]),
        (None, Some("all"), &["brief", "child", "maker"]),
        (None, Some("acme/eve"), &[]),
        (Some(&eve), Some("all"), &[]),
    ] {
        assert_eq!(names(person, user), wanted, "{user:?}");
    }
    let delete = words("application-credential delete maker child");
    has_all(&eve.gantry(&delete).fails(), &["there is no application credential \"maker\""]);
    let of_dave = "application-credential delete maker child --user acme/dave";
    admin(gantry, of_dave).ok();
    assert_eq!(names(Some(dave), None), ["brief"]);
}

/// What kubectl reads, and what a cluster elsewhere takes.
fn tokens_for_others(dave: &Person) {
    let plain = json(dave.gantry(&["token"]));
    assert_eq!(json(dave.gantry(&words("token --exec-credential"))), plain);
    assert_eq!(json(dave.gantry(&words("token -o json"))), plain);
    let token = dave.gantry(&words("token --raw --audience prod --audience test")).ok();
    let claims = token.split('.').nth(1).expect("a signed token");
    let claims: Value =
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).expect("base64")).expect("JSON");
    assert_eq!(claims["aud"], serde_json::json!(["prod", "test"]), "{claims}");
    assert_eq!(claims["preferred_username"], "acme/dave");
    let hours = |field: &str| claims[field].as_i64().expect("a time");
    assert_eq!(hours("exp") - hours("iat"), 3600);
}
