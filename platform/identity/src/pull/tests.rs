use std::collections::BTreeMap;

use gantry_identity_api::{Domain, Project};

use super::*;
use crate::tenancy::tests::{Engine, ask, change, organisations, world};

const HOUR: i64 = 3600;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).expect("a time")
}

fn credentials(key: u8) -> PullCredentials {
    let hosts = vec!["127.0.0.1:6443".to_owned(), "registry.test:6443".to_owned()];
    PullCredentials { key: hmac::Key::new(hmac::HMAC_SHA256, &[key; 32]), hosts }
}

/// A time at which the namespace gets its next password.
fn begin(namespace: &str) -> i64 {
    period_begin(namespace, at(1_800_000_000))
}

fn project_of(namespace: &str) -> Option<Arc<str>> {
    [("web-dev", "web"), ("ops-dev", "ops")]
        .iter()
        .find(|(name, _)| *name == namespace)
        .map(|(_, id)| (*id).into())
}

#[test]
fn a_password_is_renewed_long_before_it_ends_and_is_the_same_until_then() {
    let (made, begin) = (credentials(1), begin("web-dev"));
    let password = |second: i64| made.password("web", "web-dev", at(second));
    let good = |password: &str, second: i64| made.namespace(password, project_of, at(second)).is_some();
    let first = password(begin);
    assert_eq!(password(begin + 12 * HOUR - 1), first, "whoever writes it twice writes the same");
    let second = password(begin + 12 * HOUR);
    assert_ne!(second, first);
    // The whole next period is there to fetch the next one in.
    for (hours, of_first, of_second) in [
        (0, true, false),
        (12, true, true),
        (23, true, true),
        (24, false, true),
        (35, false, true),
        (36, false, false),
    ] {
        let now = begin + hours * HOUR;
        assert_eq!(good(&first, now), of_first, "the first after {hours} h");
        assert_eq!(good(&second, now), of_second, "the second after {hours} h");
    }
    for (seconds, left) in
        [(0, 3600), (1, 3599), (3599, 1), (3600, 3600), (12 * HOUR - 1, 1), (12 * HOUR, 3600)]
    {
        let wait = looked_at_in("web-dev", at(begin + seconds)).as_secs();
        assert_eq!(wait, left, "{seconds} s after its beginning");
    }
}

#[test]
fn nobody_makes_one_and_one_is_good_for_its_namespace_alone() {
    let (made, begin) = (credentials(1), begin("web-dev"));
    let password = made.password("web", "web-dev", at(begin));
    let end = (begin + 24 * HOUR).to_string();
    for (what, shown, want) in [
        ("itself", password.clone(), true),
        ("another namespace's name in it", password.replace("web-dev", "ops-dev"), false),
        ("a later end", password.replace(&end, &(begin + 25 * HOUR).to_string()), false),
        ("made with another key", credentials(2).password("web", "web-dev", at(begin)), false),
        ("made when the namespace was another project's", made.password("ops", "web-dev", at(begin)), false),
        ("of a namespace of no project", made.password("web", "gone-dev", at(begin)), false),
        (
            "made while the clock was a year ahead",
            made.password("web", "web-dev", at(begin + 8760 * HOUR)),
            false,
        ),
        ("something behind it", format!("{password}.x"), false),
        ("without its MAC", password.rsplit_once('.').expect("a MAC").0.to_owned(), false),
        ("an empty MAC", format!("{}.", password.rsplit_once('.').expect("a MAC").0), false),
        ("nothing", String::new(), false),
    ] {
        let known = made.namespace(&shown, project_of, at(begin));
        assert_eq!(known.is_some_and(|(namespace, _)| namespace == "web-dev"), want, "{what}: {shown}");
    }
}

#[test]
fn renewals_are_spread_over_the_period() {
    let (now, mut hours) = (1_800_000_000, BTreeMap::new());
    for number in 0..1000 {
        let since = now - period_begin(&format!("project-{number}-dev"), at(now));
        assert!((0..12 * HOUR).contains(&since), "{number}: {since}");
        *hours.entry(since / HOUR).or_insert(0) += 1;
    }
    assert_eq!(hours.len(), 12);
    assert!(hours.values().all(|count| (40..=130).contains(count)), "{hours:?}");
}

#[test]
fn clients_read_the_secret_as_what_docker_login_writes() {
    let text = credentials(1).docker_config("web", "web-dev", at(1_800_000_000));
    let config: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let hosts: Vec<&String> = config["auths"].as_object().expect("hosts").keys().collect();
    assert_eq!(hosts, ["127.0.0.1:6443", "registry.test:6443"]);
    let auth = config["auths"]["registry.test:6443"]["auth"].as_str().expect("a credential");
    let decoded = String::from_utf8(STANDARD.decode(auth).expect("base64")).expect("text");
    let (name, password) = decoded.split_once(':').expect("a name and a password");
    assert_eq!(name, "gantry-registry");
    assert!(credentials(1).namespace(password, project_of, at(1_800_000_000)).is_some());
}

/// Shown by a client that calls itself so.
async fn known(world: &Arc<World>, name: &str, password: &str) -> Result<Option<UserInfo>, StatusError> {
    let authenticator = PullAuthenticator {
        credentials: Arc::new(credentials(1)),
        world: world.clone(),
        now: || at(1_800_000_000),
    };
    let basic = STANDARD.encode(format!("{name}:{password}"));
    let headers =
        HeaderMap::from_iter([(AUTHORIZATION, format!("Basic {basic}").parse().expect("a header"))]);
    authenticator.authenticate(&headers, &ConnectionInfo::default()).await
}

#[tokio::test]
async fn it_is_known_while_the_project_lives() {
    let password = credentials(1).password("web", "web-dev", at(1_800_000_000));
    let all = world(organisations(&[]));
    for name in ["gantry-registry", "", "acme/alice"] {
        let caller = known(&all, name, &password).await.expect("no refusal").expect("somebody");
        assert_eq!(caller.username, "gantry:pull:web-dev", "as {name:?}");
        assert_eq!(caller.extra[extra::PULLS], ["web"]);
    }
    // Others may know these.
    for other in ["secret", "gantry-pull", "gantry-pullx.web-dev.1.x"] {
        assert!(known(&all, "acme/alice", other).await.expect("no refusal").is_none(), "{other}");
    }
    assert!(known(&all, "x", &format!("{password}x")).await.is_err());
    let mut disabled = organisations(&[]);
    change::<Project>(&mut disabled, "web", |project| project.spec.enabled = false);
    assert!(known(&world(disabled), "x", &password).await.is_err());
    let mut disabled = organisations(&[]);
    change::<Domain>(&mut disabled, "acme", |domain| domain.spec.enabled = false);
    assert!(known(&world(disabled), "x", &password).await.is_err());
}

#[tokio::test]
async fn it_pulls_what_the_project_may_pull_and_does_nothing_else() {
    let world = world(organisations(&["admin alice project:web"]));
    let authorizer = Tenancy(world.clone()).wrap(Arc::new(Engine::of(&world)));
    let password = credentials(1).password("web", "web-dev", at(1_800_000_000));
    let caller = known(&world, "x", &password).await.expect("no refusal").expect("somebody");
    let decided = |text: &str| authorizer.authorize(&ask(&caller, text));
    for (asked, want) in [
        ("pull registry.gantry.dev/repositories project:web x", true),
        ("pull registry.gantry.dev/repositories - acme/web/x", true),
        ("pull registry.gantry.dev/repositories domain:acme x", true),
        ("pull registry.gantry.dev/repositories project:ops x", false),
        ("pull registry.gantry.dev/repositories - acme/ops/x", false),
        ("pull registry.gantry.dev/repositories domain:globex x", false),
        ("pull registry.gantry.dev/repositories platform x", false),
        ("push registry.gantry.dev/repositories project:web x", false),
        ("delete registry.gantry.dev/repositories project:web x", false),
        ("update registry.gantry.dev/repositories project:web x", false),
        ("get registry.gantry.dev/repositories - x", false),
        ("get -/secrets web-dev gantry-registry", false),
        ("get -/pods web-dev p", false),
        ("list -/namespaces -", false),
        ("impersonate -/users - acme/alice", false),
        ("get identity.gantry.dev/projects - web", false),
        ("create identity.gantry.dev/applicationcredentials -", false),
        ("create authorization.k8s.io/selfsubjectaccessreviews -", false),
        ("list audit.gantry.dev/records web-dev", false),
    ] {
        assert_eq!(decided(asked).is_allowed(), want, "{asked}");
    }
    // Elsewhere nobody else is asked; of another's repository somebody it is shared with may still be.
    assert!(matches!(decided("get -/pods web-dev p"), Decision::Deny(_)));
    assert!(matches!(decided("pull registry.gantry.dev/repositories project:ops x"), Decision::NoOpinion(_)));
    let discovery = Attributes {
        user: caller.clone(),
        verb: "get".to_owned(),
        path: "/version".to_owned(),
        ..Attributes::default()
    };
    assert!(!authorizer.authorize(&discovery).is_allowed());
    for (path, want) in [
        ("/v2", true),
        ("/v2/acme/web/x/manifests/1", true),
        ("/token", true),
        ("/v20", false),
        ("/tokens", false),
        ("/registry/v1/images", false),
        ("/gantry/health", false),
        ("/api/v1/namespaces/web-dev/pods", false),
        ("/identity/v3/auth/tokens", false),
    ] {
        assert_eq!(may_reach(path), want, "{path}");
    }
}

/// A right that was assigned to somebody of its name, or to everybody, is not the credential's.
#[test]
fn rights_given_by_hand_do_not_count() {
    let mut state = organisations(&[]);
    change::<Project>(&mut state, "web", |project| project.spec.enabled = false);
    let mut caller = UserInfo::authenticated("gantry:pull:web-dev", &["system:masters"]);
    for (ids, want) in [(&["web"][..], false), (&["ops"], true), (&["ops", "web"], false), (&[], false)] {
        caller.extra.insert(extra::PULLS.to_owned(), ids.iter().map(|id| (*id).to_owned()).collect());
        let asked = ask(&caller, "pull registry.gantry.dev/repositories project:ops x");
        assert_eq!(decide(&state, &asked).is_allowed(), want, "{ids:?}");
        assert!(!decide(&state, &ask(&caller, "get -/pods web-dev p")).is_allowed(), "{ids:?}");
    }
}
