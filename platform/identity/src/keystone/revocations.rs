//! `/OS-REVOKE/events`: what has been revoked, for services that check tokens themselves.

use serde_json::{Value, json};

use super::call::{Answer, Call};
use super::errors::ApiError;
use super::timestamps;
use super::users::plain;
use crate::policy::{Act, Subject};
use crate::revocation::{Event, Target};

/// `GET /OS-REVOKE/events`
pub(crate) async fn list(call: Call) -> Answer {
    call.require(&call.state(), Act::Read, &Subject::Private, "list_revoke_events")?;
    let since = match call.query.get("since") {
        None => None,
        Some(text) => {
            let since = timestamps::parse(text);
            Some(since.ok_or_else(|| ApiError::invalid(format!("invalid date format {text}")))?)
        }
    };
    let events: Vec<Value> = call.core.revocations.events(since).iter().map(show).collect();
    plain(json!({ "events": events, "links": { "self": call.own_url(), "next": null, "previous": null } }))
}

fn show(event: &Event) -> Value {
    let mut shown = match &event.target {
        Target::Token { id, .. } => json!({ "audit_id": id }),
        Target::Chain { id, .. } => json!({ "audit_chain_id": id }),
        Target::User(user) => json!({ "user_id": user }),
        Target::UserInProject { user, project } => json!({ "user_id": user, "project_id": project }),
        Target::Project(project) => json!({ "project_id": project }),
        Target::Domain(domain) => json!({ "domain_id": domain }),
        Target::ApplicationCredential(id) => json!({ "application_credential_id": id }),
        Target::Trust(id) => json!({ "OS-TRUST:trust_id": id }),
        Target::OAuthConsumer(id) => json!({ "OS-OAUTH1:consumer_id": id }),
        Target::OAuthAccessToken(id) => json!({ "OS-OAUTH1:access_token_id": id }),
        Target::Provider(id) => json!({ "identity_provider_id": id }),
        Target::Everything => json!({}),
    };
    shown["issued_before"] = json!(timestamps::zulu(event.issued_before));
    shown["revoked_at"] = json!(timestamps::zulu(event.revoked_at));
    shown
}
