//! Users, projects and domains that are disabled, and enabled again: no token of before comes back to life, as in
//! Keystone, whatever door the change comes by.
//!
//! Whoever is disabled has no rights, which follows from the directory. That their tokens stay dead is recorded before
//! the object that enables them again is stored: at that moment none of the tokens is good for anything, so nothing is
//! taken away that somebody could use, and no crash leaves a token that outlives it. When somebody is disabled the
//! event counts in memory alone, for who asks what has been revoked: after a start the directory says it again.

use std::sync::Arc;

use gantry_identity_api::{GROUP, Trust};
use gantry_kube_types::{
    Admission, AdmissionAttributes, AdmissionOperation, AdmissionOutcome, AdmissionPhase, StatusError,
};
use serde_json::Value;

use crate::core::Core;
use crate::directory::State;
use crate::directory::table::Entry;
use crate::providers::DISABLED_BY_SOURCE;
use crate::revocation::{Cause, Event, Target};
use crate::rights::OWN_USER;

/// Ends the tokens of what is disabled. To be asked after all that may refuse the write.
pub struct DisabledTokens {
    core: Arc<Core>,
}

impl DisabledTokens {
    pub fn new(core: Arc<Core>) -> Self {
        Self { core }
    }
}

#[async_trait::async_trait]
impl Admission for DisabledTokens {
    fn name(&self) -> &'static str {
        "DisabledTokens"
    }

    async fn review(&self, request: &mut AdmissionAttributes<'_>) -> Result<(), StatusError> {
        let kinds = ["users", "projects", "domains"];
        let concerns = request.group == GROUP && kinds.contains(&request.resource);
        if !concerns || !request.subresource.is_empty() || request.phase != AdmissionPhase::Validate {
            return Ok(());
        }
        let (AdmissionOperation::Update, Some(old)) = (request.operation, request.old_object) else {
            return Ok(());
        };
        match (enabled(old), enabled(&request.object)) {
            (true, false) => {
                let (core, resource, id) =
                    (self.core.clone(), request.resource.to_owned(), request.name.to_owned());
                request.on_outcome(move |outcome| {
                    if outcome == AdmissionOutcome::Written {
                        events(&core, &resource, &id).into_iter().for_each(|e| core.revocations.apply(e));
                    }
                });
            }
            (false, true) if !request.dry_run && !by_source(request, old) => {
                for event in events(&self.core, request.resource, request.name) {
                    self.core.revoke(event).await.map_err(|error| StatusError::from(&error))?;
                }
            }
            _ => {}
        }
        Ok(())
    }
}

fn enabled(object: &Value) -> bool {
    // As the kinds have it where nothing is said.
    object["spec"]["enabled"].as_bool().unwrap_or(true)
}

/// The component lets somebody in whom their source had shut out. They are signing in at this moment, and it has
/// recorded what ended when they were shut out.
fn by_source(request: &AdmissionAttributes<'_>, old: &Value) -> bool {
    let marked = |object: &Value| !object["metadata"]["annotations"][DISABLED_BY_SOURCE].is_null();
    request.user.username == OWN_USER && marked(old) && !marked(&request.object)
}

fn events(core: &Core, resource: &str, id: &str) -> Vec<Event> {
    let now = core.now();
    let targets = targets(&core.directory.read(), resource, id);
    targets.into_iter().map(|target| Event::new(target, Cause::Disabled, now)).collect()
}

/// All tokens that are good for nothing while it is disabled.
fn targets(state: &State, resource: &str, id: &str) -> Vec<Target> {
    match resource {
        "projects" => {
            let below = state.below(id);
            let below = below.iter().map(|project| Target::Project(project.id()));
            std::iter::once(Target::Project(id.to_owned())).chain(below).collect()
        }
        "domains" => {
            let of = |user: &str| state.users.get(user).is_some_and(|user| user.spec.domain == id);
            let mut all = vec![Target::Domain(id.to_owned())];
            all.extend(entrusted(state, of));
            all
        }
        _ => {
            let mut all = vec![Target::User(id.to_owned())];
            all.extend(entrusted(state, |user| user == id));
            all
        }
    }
}

/// Tokens made with a trust are one user's and end with the other, too.
fn entrusted(state: &State, of: impl Fn(&str) -> bool) -> Vec<Target> {
    let speaks = |trust: &Trust| match trust.spec.impersonation {
        true => of(&trust.spec.trustor),
        false => of(&trust.spec.trustee),
    };
    let concerned = state.trusts.iter().filter(|t| of(&t.spec.trustor) || of(&t.spec.trustee));
    concerned.filter(|trust| !speaks(trust)).map(|trust| Target::Trust(trust.id())).collect()
}

#[cfg(test)]
mod tests {
    use gantry_identity_api::{Project, TrustSpec, User};
    use kube::ResourceExt as _;
    use serde_json::json;

    use super::*;
    use crate::directory::tests::put;
    use crate::keystone::tests::Platform;
    use crate::login::{LoginRequest, Method, Origin, UserRef};
    use crate::password::Password;
    use crate::tenancy::tests::{change, organisations};
    use crate::token::{NewToken, TokenScope};

    /// Bob of acme has projects and has entrusted eve of globex, who administers the platform.
    fn acme() -> State {
        let mut state = organisations(&[
            "admin eve system",
            "member bob project:cart",
            "member bob project:ops",
            "reader bob domain:acme",
            "member eve project:cart",
            "member eve domain:globex",
        ]);
        for (id, impersonation) in [("speaks", true), ("acts", false)] {
            let spec = TrustSpec {
                trustor: "bob".to_owned(),
                trustee: "eve".to_owned(),
                project: Some("ops".to_owned()),
                roles: vec!["member".to_owned()],
                impersonation,
                ..TrustSpec::default()
            };
            put(&mut state, Trust::new(id, spec));
        }
        state
    }

    fn project(id: &str) -> TokenScope {
        TokenScope::Project { id: id.to_owned(), domain: "acme".to_owned() }
    }

    /// Tokens of every sort that are about bob, acme or its projects, and some that are not.
    fn tokens(platform: &Platform) -> Vec<(&'static str, String)> {
        let domain = |id: &str| TokenScope::Domain(id.to_owned());
        let entrusted = |user: &str, trust: &str| {
            let trust = Some(trust.to_owned());
            platform.made(NewToken { trust, scope: project("ops"), ..platform.new_token(user) })
        };
        vec![
            ("bob", platform.token("bob", TokenScope::Unscoped)),
            ("bob in cart", platform.token("bob", project("cart"))),
            ("bob in ops", platform.token("bob", project("ops"))),
            ("bob in acme", platform.token("bob", domain("acme"))),
            ("bob by eve", entrusted("bob", "speaks")),
            ("eve for bob", entrusted("eve", "acts")),
            ("eve", platform.token("eve", TokenScope::Unscoped)),
            ("eve in cart", platform.token("eve", project("cart"))),
            ("eve in globex", platform.token("eve", domain("globex"))),
        ]
    }

    fn alive(platform: &Platform, tokens: &[(&'static str, String)]) -> Vec<&'static str> {
        let good = tokens.iter().filter(|(_, token)| platform.core.validate(token).is_ok());
        good.map(|(what, _)| *what).collect()
    }

    #[tokio::test]
    async fn what_was_disabled_and_is_enabled_again_has_no_token_of_before() {
        for (what, path, left) in [
            ("user", "/users/bob", vec!["eve", "eve in cart", "eve in globex"]),
            (
                "project",
                "/projects/ops",
                vec!["bob", "bob in cart", "bob in acme", "eve", "eve in cart", "eve in globex"],
            ),
            ("domain", "/domains/acme", vec!["eve", "eve in globex"]),
        ] {
            let platform = Platform::of(acme());
            let (old, root) = (tokens(&platform), platform.token("eve", TokenScope::System));
            assert_eq!(alive(&platform, &old).len(), old.len(), "{path}");
            let patch = async |change: Value| {
                let said = platform.call(&root, &format!("PATCH {path}"), json!({ what: change })).await;
                assert_eq!(said.status, 200, "{path} {change}: {said:?}");
            };
            for enabled in [false, true] {
                patch(json!({ "enabled": enabled })).await;
                assert_eq!(alive(&platform, &old), left, "{path} {enabled}");
            }
            let new = tokens(&platform);
            assert_eq!(alive(&platform, &new).len(), new.len(), "new ones are good: {path}");
            patch(json!({ "description": "x" })).await;
            assert_eq!(alive(&platform, &new).len(), new.len(), "nothing ends by another change: {path}");
        }
    }

    #[tokio::test]
    async fn a_project_above_ends_the_tokens_of_those_below() {
        let platform = Platform::of(acme());
        let old = tokens(&platform);
        let left = ["bob", "bob in ops", "bob in acme", "bob by eve", "eve for bob", "eve", "eve in globex"];
        for enabled in [false, true] {
            // As kubectl does it: Keystone's API wants the projects below disabled first.
            let set = |project: &mut Project| {
                project.spec.enabled = enabled;
                Ok(())
            };
            platform.core.objects.update::<Project>("web", set).await.expect("written");
            assert_eq!(alive(&platform, &old), left, "{enabled}");
        }
    }

    async fn enable(platform: &Platform, user: &str, enabled: bool) {
        let set = |user: &mut User| {
            user.spec.enabled = enabled;
            Ok(())
        };
        platform.core.objects.update::<User>(user, set).await.expect("written");
    }

    #[tokio::test]
    async fn nothing_needs_to_be_remembered_of_when_it_was_disabled() {
        let mut state = acme();
        change::<User>(&mut state, "bob", |u| u.spec.enabled = false);
        // Started anew after a crash: all there is is an object that says it.
        let platform = Platform::of(state);
        assert!(platform.core.revocations.events(None).is_empty());
        let old = tokens(&platform);
        enable(&platform, "bob", true).await;
        assert_eq!(alive(&platform, &old), ["eve", "eve in cart", "eve in globex"]);
        let new = tokens(&platform);
        assert_eq!(alive(&platform, &new).len(), new.len());
    }

    #[tokio::test]
    async fn who_is_let_in_again_by_their_source_is_signing_in_at_this_moment() {
        let mut state = acme();
        change::<User>(&mut state, "bob", |u| {
            u.spec.enabled = false;
            u.annotations_mut().insert(DISABLED_BY_SOURCE.to_owned(), String::new());
        });
        for (by_source, want) in [(true, true), (false, false)] {
            let platform = Platform::of(state.clone());
            let begun = platform.token("bob", TokenScope::Unscoped);
            let set = |user: &mut User| {
                user.spec.enabled = true;
                if by_source {
                    user.annotations_mut().remove(DISABLED_BY_SOURCE);
                }
                Ok(())
            };
            platform.core.objects.update::<User>("bob", set).await.expect("written");
            assert_eq!(platform.core.validate(&begun).is_ok(), want, "by the source: {by_source}");
        }
    }

    #[tokio::test]
    async fn a_sign_in_after_it_is_good() {
        let platform = Platform::of(acme());
        let root = platform.token("eve", TokenScope::System);
        let body = json!({ "user": { "password": "Tr0ub4dor&3" } });
        assert_eq!(platform.call(&root, "PATCH /users/bob", body).await.status, 200);
        let signs_in = async || {
            let (user, password) = (UserRef::Id("bob".to_owned()), Password::new("Tr0ub4dor&3".to_owned()));
            let methods = vec![Method::Password { user, password }];
            let request = LoginRequest { methods, ..LoginRequest::default() };
            platform.core.login(request, &Origin::default()).await.ok().map(|issued| issued.token)
        };
        let before = signs_in().await.expect("enabled");
        enable(&platform, "bob", false).await;
        assert!(signs_in().await.is_none());
        enable(&platform, "bob", true).await;
        assert!(platform.core.validate(&before).is_err());
        let after = signs_in().await.expect("enabled again");
        assert!(platform.core.validate(&after).is_ok());
    }
}
