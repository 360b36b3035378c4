//! The directory client against a real slapd.

use std::collections::{BTreeMap, BTreeSet};

use gantry_identity_sources::{EnabledRule, ExternalUser, LdapSource, MemberValue, Nesting, SourceError};

use crate::slapd::{BASE, CROWD, HOSTILE, SERVICE_PASSWORD, Slapd, password_of, person_dn, secret};

fn groups(user: &ExternalUser) -> Vec<&str> {
    let mut names: Vec<&str> = user.groups.iter().map(|g| g.name.as_str()).collect();
    names.sort_unstable();
    names
}

async fn everybody(source: &LdapSource) -> Result<BTreeMap<String, ExternalUser>, SourceError> {
    let mut listing = source.list().await?;
    let mut users = BTreeMap::new();
    while let Some(page) = listing.next_page().await? {
        for user in page {
            let name = user.name.clone();
            assert!(users.insert(name.clone(), user).is_none(), "{name} is listed twice");
        }
    }
    Ok(users)
}

#[tokio::test]
async fn people_sign_in_with_their_password_and_their_groups() {
    let Some(slapd) = Slapd::start().await else { return };
    let source = slapd.source(|_| {});
    let alice = source.authenticate("alice", &secret("pw of alice")).await.expect("alice may");
    assert_eq!(alice.name, "alice");
    assert_eq!(alice.display_name.as_deref(), Some("Person alice"));
    assert_eq!(alice.email.as_deref(), Some("alice@example.org"));
    assert_eq!(alice.id.len(), 36, "an entryUUID: {}", alice.id);
    assert!(alice.enabled);
    assert_eq!(groups(&alice), ["above odd", "company", "devs", "engineering", "odd (name)*"]);
    let again = source.authenticate("ALICE", &secret("pw of alice")).await.expect("names match without case");
    assert_eq!(again, alice);
    for wrong in ["pw of bob", "pw of alice ", "PW OF ALICE", "\0", "*"] {
        let refused = source.authenticate("alice", &secret(wrong)).await;
        assert_eq!(refused, Err(SourceError::BadCredentials), "{wrong:?}");
    }
    assert_eq!(source.find_user("alice").await, Ok(Some(alice)));
    assert_eq!(source.find_user("nobody").await, Ok(None));
}

#[tokio::test]
async fn a_bind_without_a_password_never_counts() {
    let Some(slapd) = Slapd::start().await else { return };
    let source = slapd.source(|_| {});
    for name in ["alice", "nobody", ""] {
        assert_eq!(
            source.authenticate(name, &secret("")).await,
            Err(SourceError::BadCredentials),
            "{name:?}"
        );
    }
    assert!(!slapd.log().contains("BIND"), "nothing is sent for it");
    assert!(source.authenticate("alice", &secret("pw of alice")).await.is_ok());
    assert!(slapd.log().contains("BIND dn"), "the log would show it");
    // This server would have said yes: that is what makes the rule necessary.
    let (driver, mut ldap) = ldap3::LdapConnAsync::new(&slapd.url()).await.expect("a connection");
    tokio::spawn(driver.drive());
    let unauthenticated = ldap.simple_bind("", "").await.expect("an answer");
    assert_eq!(unauthenticated.rc, 0);
}

#[tokio::test]
async fn names_that_are_filters_mean_only_themselves() {
    let Some(slapd) = Slapd::start().await else { return };
    let source = slapd.source(|_| {});
    for name in HOSTILE {
        let user = source.authenticate(name, &secret(&password_of(name))).await;
        assert_eq!(user.map(|u| u.name).as_deref(), Ok(*name));
        let other = source.authenticate(name, &secret("pw of alice")).await;
        assert_eq!(other, Err(SourceError::BadCredentials), "{name} with a password of somebody else");
    }
    let nobody = [
        "alice)(objectClass=*",
        "alic*",
        "*)(|(uid=alice",
        "alice)(!(uid=x)",
        "\\61lice",
        "alice\0",
        "alice\n",
        "*)(userPassword=*",
        "uid=alice",
        "alice,ou=people",
        "admin)(&",
        ")",
        "(",
        "",
    ];
    for name in nobody {
        for password in ["pw of alice", "pw of *"] {
            let refused = source.authenticate(name, &secret(password)).await;
            assert_eq!(refused, Err(SourceError::BadCredentials), "{name:?}");
        }
    }
    let hostile = source.find_user("*)(uid=*").await.expect("it can be searched").expect("it is there");
    assert_eq!(groups(&hostile), ["above odd"]);
}

#[tokio::test]
async fn two_entries_for_one_name_let_nobody_in() {
    let Some(slapd) = Slapd::start().await else { return };
    let source = slapd.source(|c| c.users.login_attributes = vec!["uid".into(), "mail".into()]);
    for twin in ["twin1", "twin2"] {
        let refused = source.authenticate("twins@example.org", &secret(&password_of(twin))).await;
        assert_eq!(refused, Err(SourceError::BadCredentials));
        assert!(source.authenticate(twin, &secret(&password_of(twin))).await.is_ok());
    }
    let by_mail = source.authenticate("alice@example.org", &secret("pw of alice")).await.expect("one match");
    assert_eq!(by_mail.name, "alice");
}

#[tokio::test]
async fn disabled_people_are_refused_and_listed_as_such() {
    let Some(slapd) = Slapd::start().await else { return };
    let source = slapd.source(|c| {
        c.users.enabled.push(EnabledRule::ExpiryDay { attribute: "shadowExpire".into() });
    });
    let right = source.authenticate("expired", &secret("pw of expired")).await;
    assert_eq!(right, Err(SourceError::Disabled { user: "expired".into() }));
    let wrong = source.authenticate("expired", &secret("guess")).await;
    assert_eq!(wrong, Err(SourceError::BadCredentials), "who does not know the password learns nothing");
    // Without a policy of its own this server lets a locked account bind: it is we who refuse.
    let locked = source.authenticate("locked", &secret("pw of locked")).await;
    assert_eq!(locked, Err(SourceError::Disabled { user: "locked".into() }));
    let users = everybody(&source).await.expect("a listing");
    let disabled: Vec<&str> = users.values().filter(|u| !u.enabled).map(|u| u.name.as_str()).collect();
    assert_eq!(disabled, ["expired", "locked"]);

    assert!(source.authenticate("bob", &secret("pw of bob")).await.is_ok());
    let lock = "changetype: modify\nadd: pwdAccountLockedTime\npwdAccountLockedTime: 000001010000Z\n";
    slapd.modify(&format!("dn: {}\n{lock}", person_dn("bob")));
    let refused = source.authenticate("bob", &secret("pw of bob")).await;
    assert_eq!(refused, Err(SourceError::Disabled { user: "bob".into() }));
    assert!(!source.find_user("bob").await.expect("a search").expect("bob is there").enabled);
    assert!(!everybody(&source).await.expect("a listing")["bob"].enabled);
}

#[tokio::test]
async fn a_listing_pages_through_everybody_with_the_groups_of_a_login() {
    let Some(slapd) = Slapd::start().await else { return };
    let source = slapd.source(|c| c.limits.page_size = 100);
    let mut listing = source.list().await.expect("a listing");
    assert_eq!(listing.groups().len(), 16);
    let mut pages = Vec::new();
    while let Some(page) = listing.next_page().await.expect("a page") {
        pages.push(page.len());
    }
    let named = 6 + HOSTILE.len();
    assert_eq!(pages.iter().sum::<usize>(), CROWD + named);
    assert!(pages.len() > 15 && pages.iter().all(|n| *n <= 100), "{pages:?}");
    assert_eq!(listing.skipped(), 0);

    let users = everybody(&source).await.expect("a listing");
    let some = ["alice", "bob", "user0001", "user0002", "user1499"].iter().chain(HOSTILE);
    for name in some {
        let login = source.authenticate(name, &secret(&password_of(name))).await.expect("they may");
        assert_eq!(login, users[*name], "a login and a listing say the same");
    }
    assert_eq!(groups(&users["user0001"]), ["company", "crowd", "devs", "engineering"]);
    let ids: BTreeSet<&str> = users.values().map(|u| u.id.as_str()).collect();
    assert_eq!(ids.len(), users.len());
}

#[tokio::test]
async fn groups_in_groups_are_followed_as_deep_as_configured() {
    let Some(slapd) = Slapd::start().await else { return };
    for (nested, expected) in [
        (Nesting::None, 1),
        (Nesting::Recursive { depth_max: 0 }, 1),
        (Nesting::Recursive { depth_max: 3 }, 4),
        (Nesting::Recursive { depth_max: 100 }, 10),
    ] {
        let source = slapd.source(|c| c.groups.as_mut().expect("groups").nested = nested);
        let login = source.authenticate("user0002", &secret("pw of user0002")).await.expect("they may");
        let chain = groups(&login).iter().filter(|g| g.starts_with("chain")).count();
        assert_eq!(chain, expected, "{nested:?}");
        assert_eq!(everybody(&source).await.expect("a listing")["user0002"], login);
    }
}

#[tokio::test]
async fn posix_and_unique_groups_are_read() {
    let Some(slapd) = Slapd::start().await else { return };
    let posix = slapd.source(|c| {
        let groups = c.groups.as_mut().expect("groups");
        groups.base = format!("ou=posix,{BASE}");
        groups.filter = "(objectClass=posixGroup)".into();
        groups.member_attribute = "memberUid".into();
        groups.member_value = MemberValue::Name;
        groups.nested = Nesting::None;
    });
    let unique = slapd.source(|c| {
        let groups = c.groups.as_mut().expect("groups");
        groups.base = format!("ou=unique,{BASE}");
        groups.filter = "(objectClass=groupOfUniqueNames)".into();
        groups.member_attribute = "uniqueMember".into();
    });
    for (source, name, expected) in [
        (&posix, "alice", "posix-a"),
        (&posix, "bob", "posix-b"),
        (&posix, "*", "posix-a"),
        (&unique, "alice", "unique"),
    ] {
        let login = source.authenticate(name, &secret(&password_of(name))).await.expect("they may");
        assert_eq!(groups(&login), [expected], "{name}");
        assert_eq!(groups(&everybody(source).await.expect("a listing")[name]), [expected], "{name}");
    }
    // A name with a distinguishing bit string is found by a listing.
    assert_eq!(groups(&everybody(&unique).await.expect("a listing")["bob"]), ["unique"]);
}

#[tokio::test]
async fn bounds_are_errors_and_nothing_is_cut_off() {
    let Some(slapd) = Slapd::start().await else { return };
    let users = slapd.source(|c| c.limits.users_max = 1_000);
    let max = everybody(&users).await.expect_err("there are more");
    assert_eq!(max, SourceError::TooLarge { source_name: "the directory".into(), what: "users", max: 1_000 });
    let groups = slapd.source(|c| c.limits.groups_max = 3);
    assert!(matches!(groups.list().await.err(), Some(SourceError::TooLarge { what: "groups", .. })));
    let login = groups.authenticate("alice", &secret("pw of alice")).await;
    assert!(matches!(login, Err(SourceError::TooLarge { what: "groups", .. })), "{login:?}");
    let memberships = slapd.source(|c| c.limits.memberships_max = 1_000);
    assert!(matches!(
        memberships.list().await.err(),
        Some(SourceError::TooLarge { what: "memberships", .. })
    ));
}

#[tokio::test]
async fn tls_is_checked_and_plaintext_is_asked_for() {
    let Some(slapd) = Slapd::start().await else { return };
    let alice = async |source: &LdapSource| source.authenticate("alice", &secret("pw of alice")).await;
    let upgraded = slapd.source(|c| (c.urls, c.start_tls) = (vec![slapd.url()], true));
    assert!(alice(&upgraded).await.is_ok());
    assert!(slapd.log().contains("STARTTLS"), "StartTLS was used");
    let plain = slapd.source(|c| (c.urls, c.insecure_plaintext) = (vec![slapd.url()], true));
    assert!(alice(&plain).await.is_ok());
    let mut refused = slapd.config();
    refused.urls = vec![slapd.url()];
    let refused = LdapSource::new(refused, Some(SERVICE_PASSWORD.into())).err();
    assert!(matches!(refused, Some(SourceError::Misconfigured { ref why, .. }) if why.contains("startTls")));

    let directory = tempfile::tempdir().expect("a directory");
    let stranger = gantry_base::pki::CertificateAuthority::open(directory.path(), "stranger").expect("a CA");
    let pem = stranger.certificate_pem().to_owned();
    for start_tls in [true, false] {
        let url = if start_tls { slapd.url() } else { slapd.tls_url() };
        let source =
            slapd.source(|c| (c.urls, c.start_tls, c.ca_pem) = (vec![url], start_tls, Some(pem.clone())));
        let error = alice(&source).await.expect_err("the certificate is signed by somebody else").to_string();
        assert!(error.contains("certificate"), "{error}");
    }
    let before = slapd.log().matches("BIND dn").count();
    let other_name = slapd.source(|c| c.urls = vec![slapd.tls_url().replace("127.0.0.1", "127.0.0.2")]);
    assert!(alice(&other_name).await.is_err());
    assert_eq!(slapd.log().matches("BIND dn").count(), before, "no password is sent to a stranger");
}

#[tokio::test]
async fn the_next_server_answers_when_one_is_gone() {
    let Some(mut slapd) = Slapd::start().await else { return };
    let dead = format!("ldaps://127.0.0.1:{}", crate::peers::free_port());
    let source = slapd.source(|c| c.urls = vec![dead.clone(), slapd.tls_url()]);
    assert!(source.authenticate("alice", &secret("pw of alice")).await.is_ok());
    let health = source.test().await;
    assert!(matches!(health[0].problem, Some(SourceError::Unavailable { .. })), "{health:?}");
    assert_eq!(health[1].problem, None);

    // A server that went away and came back is used again: connections from before do not hurt.
    slapd.stop();
    let gone = source.authenticate("alice", &secret("pw of alice")).await;
    assert!(matches!(gone, Err(SourceError::Unavailable { .. })), "{gone:?}");
    slapd.run().await;
    assert!(source.authenticate("alice", &secret("pw of alice")).await.is_ok());
}

#[tokio::test]
async fn a_server_that_talks_nonsense_or_not_at_all_is_unavailable() {
    use tokio::io::AsyncWriteExt;
    let answers: [&[u8]; 4] = [
        b"",
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"\x30\x05\x02\x01\x01\x61\x00",
        b"\x30\x84\x7f\xff\xff\xff",
    ];
    for answer in answers {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("bound").port();
        let server = tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let _ = stream.write_all(answer).await;
                std::mem::forget(stream);
            }
        });
        let mut config = gantry_identity_sources::LdapConfig::open_ldap(
            vec![format!("ldap://127.0.0.1:{port}")],
            BASE,
            BASE,
        );
        config.insecure_plaintext = true;
        config.limits.operation_timeout_ms = 300;
        let source = LdapSource::new(config, None).expect("a right configuration");
        let error = source.authenticate("alice", &secret("hunter2-hunter2")).await.expect_err("no directory");
        assert!(matches!(error, SourceError::Unavailable { .. }), "{answer:?}: {error}");
        assert!(!format!("{error} {error:?}").contains("hunter2"));
        server.abort();
    }
}

#[tokio::test]
async fn what_an_operator_did_wrong_is_told_apart() {
    let Some(slapd) = Slapd::start().await else { return };
    let wrong_password =
        LdapSource::new(slapd.config(), Some("not-the-password".into())).expect("well-formed");
    let error = wrong_password.authenticate("alice", &secret("pw of alice")).await.expect_err("refused");
    assert!(matches!(error, SourceError::Misconfigured { .. }), "{error}");
    assert!(!format!("{error:?}").contains("not-the-password"));
    let no_base = slapd.source(|c| c.users.base = format!("ou=nowhere,{BASE}"));
    let error = no_base.authenticate("alice", &secret("pw of alice")).await.expect_err("no such base");
    assert!(
        matches!(error, SourceError::Misconfigured { ref why, .. } if why.contains("noSuchObject")),
        "{error}"
    );
    let empty = slapd.source(|c| c.users.filter = "(objectClass=device)".into());
    assert!(matches!(empty.test().await[0].problem, Some(SourceError::Misconfigured { .. })));
    let no_id = slapd.source(|c| c.users.id_attribute = "employeeNumber".into());
    let error = no_id.authenticate("alice", &secret("pw of alice")).await.expect_err("no id");
    assert!(
        matches!(error, SourceError::Misconfigured { ref why, .. } if why.contains("employeeNumber")),
        "{error}"
    );
    let good = slapd.source(|_| {}).test().await;
    assert!(good[0].problem.is_none(), "{good:?}");
}

#[tokio::test]
async fn connections_are_shared_and_bounded() {
    let Some(slapd) = Slapd::start().await else { return };
    let source = slapd.source(|c| c.limits.connections_max = 4);
    let logins = (0..40).map(|n| {
        let source = source.clone();
        tokio::spawn(async move {
            let name = format!("user{n:04}");
            source.authenticate(&name, &secret(&password_of(&name))).await.map(|u| u.name == name)
        })
    });
    for login in futures::future::join_all(logins).await {
        assert_eq!(login.expect("no panic"), Ok(true));
    }
    let opened = slapd.log().matches("ACCEPT from").count();
    assert!(opened <= 20, "{opened} connections for 40 logins");
    let starved = slapd.source(|c| (c.limits.connections_max, c.limits.wait_timeout_ms) = (1, 100));
    let _held = starved.list().await.expect("it takes the only connection");
    let error = starved.authenticate("alice", &secret("pw of alice")).await.expect_err("none is left");
    assert!(matches!(error, SourceError::Unavailable { .. }), "{error}");
}
