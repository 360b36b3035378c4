//! Providers that let nobody in any more: what was got by them ends, and stays ended when they come back.
//!
//! That such a user has no rights follows from the directory, at once ([`State::user_active`]). This records it, so
//! that a token does not come back to life with its provider.

use std::collections::BTreeSet;

use crate::core::Core;
use crate::directory::State;
use crate::errors::IdentityError;
use crate::revocation::{Cause, Event, Target};

/// Those whose users' tokens have been revoked since they ended.
#[derive(Debug, Default)]
pub(super) struct Ended(BTreeSet<String>);

impl Ended {
    /// Revokes what was got by providers that have ended since the last time.
    pub(super) async fn revoke(&mut self, core: &Core) -> Result<(), IdentityError> {
        let now = ended(&core.directory.read());
        self.0.retain(|id| now.contains(id));
        for id in now {
            if !self.0.contains(&id) {
                core.revoke(Event::new(Target::Provider(id.clone()), Cause::Disabled, core.now())).await?;
                self.0.insert(id);
            }
        }
        Ok(())
    }
}

/// The providers of users here that are gone or disabled.
fn ended(state: &State) -> BTreeSet<String> {
    let of_users = state.users.iter().filter_map(|user| user.spec.provider.as_deref());
    let all: BTreeSet<&str> =
        of_users.chain(state.providers.iter().filter_map(|p| p.metadata.name.as_deref())).collect();
    all.into_iter().filter(|id| !state.lets_in(id)).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use gantry_identity_api::{FederatedIdentity, IdentityProvider, IdentityProviderSpec, User, UserSpec};

    use super::*;
    use crate::directory::tests::{forget, put, show};
    use crate::keystone::tests::Platform;
    use crate::login::{LoginRequest, Method, Origin, ScopeRequest};
    use crate::tenancy::tests::organisations;

    fn provider(enabled: bool) -> IdentityProvider {
        let spec = IdentityProviderSpec { domain: "acme".to_owned(), enabled, ..Default::default() };
        IdentityProvider::new("dir", spec)
    }

    async fn signs_in(core: &Core) -> Option<String> {
        let method = Method::Federated { user: "dora".to_owned(), protocol: "openid" };
        let request =
            LoginRequest { methods: vec![method], scope: ScopeRequest::Unscoped, ..LoginRequest::default() };
        core.login(request, &Origin::default()).await.ok().map(|issued| issued.token)
    }

    #[tokio::test]
    async fn what_was_got_by_a_provider_ends_with_it() {
        let mut state = organisations(&["member dora project:web"]);
        let federated = FederatedIdentity {
            provider: "dir".to_owned(),
            protocol: "openid".to_owned(),
            unique_id: "d".to_owned(),
        };
        let spec = UserSpec {
            domain: "acme".to_owned(),
            enabled: true,
            provider: Some("dir".to_owned()),
            federated: vec![federated],
            ..UserSpec::default()
        };
        put(&mut state, User::new("dora", spec));
        put(&mut state, provider(true));
        let platform = Platform::of(state);
        let (core, mut ended) = (&platform.core, Ended::default());
        let alice = platform.token("alice", crate::token::TokenScope::Unscoped);
        for gone in [false, true] {
            let token = signs_in(core).await.expect("the provider lets people in");
            ended.revoke(core).await.expect("recorded");
            assert!(core.validate(&token).is_ok(), "gone: {gone}");
            match gone {
                false => show(&core.directory, provider(false)),
                true => forget::<IdentityProvider>(&core.directory, "dir"),
            }
            assert!(core.validate(&token).is_err(), "at once; gone: {gone}");
            assert!(signs_in(core).await.is_none(), "gone: {gone}");
            ended.revoke(core).await.expect("recorded");
            show(&core.directory, provider(true));
            assert!(core.validate(&token).is_err(), "it stays ended; gone: {gone}");
            assert!(core.validate(&alice).is_ok(), "others go on; gone: {gone}");
        }
    }
}
