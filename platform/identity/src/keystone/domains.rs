//! `/domains`: organisations.

use gantry_identity_api::{DEFAULT_DOMAIN, Domain, DomainSpec, Named};
use serde_json::{Value, json};

use super::call::{Call, text};
use super::cascade;
use super::errors::ApiError;
use super::schema::{Form, Json, Shape, bad, may, must, null, python};
use super::typed::{Collection, check_immutable, check_options, immutable, merge_options, unknown};
use crate::directory::State;
use crate::directory::table::{Entry, Table};
use crate::hanging;
use crate::policy::{Act, Subject};

pub(crate) struct Domains;

/// Attributes that are ours and not the client's to invent.
const KNOWN: &[&str] = &["explicit_domain_id"];

impl Collection for Domains {
    type Kind = Domain;
    const PLURAL: &'static str = "domains";
    const NEW: Shape = Shape::open(
        "domain",
        &[
            must("name", Form::Name(64)),
            null("description", Form::Text),
            may("enabled", Form::Boolean),
            may("tags", Form::Tags),
            may("options", Form::Object),
        ],
    );
    const CHANGE: Shape = Self::NEW;
    const FILTERS: &'static [&'static str] = &["name", "enabled"];

    fn table(state: &State) -> &Table<Domain> {
        &state.domains
    }

    fn subject(domain: &Domain) -> Subject<'_> {
        Subject::Domain(domain.metadata.name.as_deref().unwrap_or_default())
    }

    fn show(domain: &Domain) -> Json {
        let mut all = domain.spec.extra.clone();
        all.entry("options").or_insert_with(|| json!({}));
        all.insert("name".to_owned(), json!(domain.display_name()));
        all.insert("description".to_owned(), json!(domain.spec.description));
        all.insert("enabled".to_owned(), json!(domain.spec.enabled));
        all.insert("tags".to_owned(), json!(domain.spec.tags));
        all
    }

    fn create(_call: &Call, state: &State, id: &str, body: &mut Json) -> Result<Domain, ApiError> {
        check_options(body)?;
        let mut domain = Domain::new(id, DomainSpec { enabled: true, ..DomainSpec::default() });
        if let Some(explicit) = text(body, "explicit_domain_id") {
            if !super::schema::is_uuid(explicit) {
                let message = format!("'{explicit}' is not a 'uuid'");
                return Err(bad("explicit_domain_id", &json!(explicit), &message));
            }
            if state.domains.get(explicit).is_some() {
                return Err(ApiError::conflict("domain", &format!("Duplicate ID, {explicit}")));
            }
            domain.metadata.name = Some(explicit.to_owned());
        }
        take(state, &mut domain, body)?;
        Ok(domain)
    }

    fn change(state: &State, domain: &mut Domain, body: &Json) -> Result<(), ApiError> {
        check_options(body)?;
        check_immutable("domain", &domain.id(), domain.spec.extra.get("options"), Some(body))?;
        take(state, domain, body)
    }

    fn may_list(_call: &Call, _state: &State) -> bool {
        true
    }

    fn keeps(_state: &State, domain: &Domain) -> Option<ApiError> {
        if immutable(domain.spec.extra.get("options")) {
            return check_immutable("domain", &domain.id(), domain.spec.extra.get("options"), None).err();
        }
        if domain.spec.enabled {
            let message = "Cannot delete a domain that is enabled, please disable it first.";
            return Some(ApiError::refused(message));
        }
        if domain.id() == DEFAULT_DOMAIN {
            return Some(ApiError::refused("The default domain cannot be deleted."));
        }
        None
    }

    async fn cascade(call: &Call, domain: &Domain) -> Result<(), ApiError> {
        let doomed = hanging::of_whole_domain(&call.state(), &domain.id());
        cascade::act(call, doomed).await
    }
}

fn take(state: &State, domain: &mut Domain, body: &Json) -> Result<(), ApiError> {
    let id = domain.id();
    if let Some(name) = text(body, "name") {
        check_name(name)?;
        if state.domains.by_name(None, name).is_some_and(|other| other.id() != id) {
            let detail = format!(
                "it is not permitted to have two projects acting as domains with the same name: {name}"
            );
            return Err(ApiError::conflict("project", &detail));
        }
        domain.spec.name = Some(name.to_owned());
    }
    if let Some(description) = body.get("description") {
        domain.spec.description = description.as_str().unwrap_or_default().to_owned();
    }
    if let Some(enabled) = body.get("enabled").and_then(Value::as_bool) {
        if id == DEFAULT_DOMAIN && !enabled {
            return Err(ApiError::refused("The default domain cannot be disabled."));
        }
        domain.spec.enabled = enabled;
    }
    if let Some(Value::Array(tags)) = body.get("tags") {
        domain.spec.tags = tags.iter().filter_map(|t| t.as_str().map(str::to_owned)).collect();
    }
    keep(&mut domain.spec.extra, &Domains::NEW, body, KNOWN);
    Ok(())
}

/// Takes attributes and options over that the kind has no field for.
pub(crate) fn keep(extra: &mut Json, shape: &Shape, body: &Json, known: &[&str]) {
    extra.extend(unknown(shape, body, known));
    let mut options = match extra.remove("options") {
        Some(Value::Object(options)) => options,
        _ => Json::new(),
    };
    merge_options(&mut options, body);
    if !options.is_empty() {
        extra.insert("options".to_owned(), Value::Object(options));
    }
}

/// Users are called `domain/user` in Kubernetes, and nothing there may look like the platform's own.
fn check_name(name: &str) -> Result<(), ApiError> {
    let value = json!(name);
    if name.contains(['/', ':']) || name.chars().any(char::is_control) {
        return Err(bad("name", &value, &format!("{} must not contain '/' or ':'", python(&value))));
    }
    if name.to_lowercase().starts_with("system") {
        return Err(bad(
            "name",
            &value,
            &format!("{} begins with 'system', which is reserved", python(&value)),
        ));
    }
    Ok(())
}

/// The domain a new object goes to: the one that is named, the token's, or the default one.
pub(crate) fn domain_of(call: &Call, body: &Json) -> String {
    if let Some(id) = text(body, "domain_id") {
        return id.to_owned();
    }
    let own = match (&call.session.scope, &call.session.scope_domain) {
        (Some(_), Some(domain)) => Some(domain.id()),
        _ => None,
    };
    own.unwrap_or_else(|| DEFAULT_DOMAIN.to_owned())
}

/// The domain must be there for who may know it.
pub(crate) fn known_domain(call: &Call, state: &State, id: &str, action: &str) -> Result<(), ApiError> {
    if state.domains.get(id).is_some() {
        return Ok(());
    }
    if call.may(state, Act::Read, &Subject::Private) {
        return Err(ApiError::not_found("domain", id));
    }
    Err(ApiError::forbidden(action))
}
