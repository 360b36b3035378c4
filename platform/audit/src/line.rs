//! An event as the JSON of its record: `audit.k8s.io/v1` `Event`, on the writer's thread.

use std::borrow::Cow;

use gantry_kube_types::{AuditBody, AuditEvent, UserInfo, audit_annotations as keys};
use jiff::{SignedDuration, Timestamp};
use serde::ser::{SerializeMap, SerializeStruct};
use serde::{Serialize, Serializer};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::classify::security_event;
use crate::namespaces::Namespaces;
use crate::redact;

/// Addresses of `X-Forwarded-For` that are kept.
const FORWARDED_MAX: usize = 8;
/// Of a text that the client chose.
const TEXT_BYTES_MAX: usize = 2 << 10;
/// Of a path with its query.
const URI_BYTES_MAX: usize = 16 << 10;

/// The identity component's words for what a token says; see its API crate.
const EXTRA_PROJECT: &str = "identity.gantry.dev/project";
const EXTRA_DOMAIN: &str = "identity.gantry.dev/domain";
const EXTRA_METHOD: &str = "identity.gantry.dev/method";

/// What the writer knows beside the event.
pub(crate) struct Surroundings<'a> {
    pub(crate) namespaces: &'a Namespaces,
    /// The recording that belongs to a request.
    pub(crate) session: Option<String>,
    /// For events that came without an id.
    pub(crate) fresh_id: &'a mut dyn FnMut() -> String,
}

/// Appends the record's JSON.
pub(crate) fn write(out: &mut Vec<u8>, event: &AuditEvent, around: Surroundings<'_>) {
    let id = if event.id.is_empty() { (around.fresh_id)() } else { event.id.clone() };
    let (reason, message) = refusal(event);
    let mut annotations = annotations(event, around.namespaces);
    if let Some(session) = around.session {
        annotations.push((keys::SESSION, Cow::Owned(session)));
    }
    let request_object = object(&event.request, event, "request", &mut annotations);
    let response_object = object(&event.response, event, "response", &mut annotations);
    let latency = SignedDuration::try_from(event.latency).unwrap_or_default();
    let line = Line {
        event,
        id: &id,
        uri: bounded(redact::uri(&event.uri), URI_BYTES_MAX),
        source_ips: source_ips(event),
        user_agent: event.user_agent.as_ref().map(|agent| text(agent.as_bytes())),
        reason,
        message: bounded(message, TEXT_BYTES_MAX),
        request_object,
        response_object,
        completed: event.received.checked_add(latency).unwrap_or(event.received),
        annotations,
    };
    // Strings and numbers into memory: neither can fail.
    let _ = serde_json::to_writer(out, &line);
}

struct Line<'a> {
    event: &'a AuditEvent,
    id: &'a str,
    uri: Cow<'a, str>,
    source_ips: Vec<String>,
    user_agent: Option<Cow<'a, str>>,
    reason: Cow<'a, str>,
    message: Cow<'a, str>,
    request_object: Option<Box<RawValue>>,
    response_object: Option<Box<RawValue>>,
    completed: Timestamp,
    annotations: Vec<(&'a str, Cow<'a, str>)>,
}

impl Serialize for Line<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let event = self.event;
        let mut line = serializer.serialize_struct("Event", 17)?;
        line.serialize_field("auditID", self.id)?;
        line.serialize_field("stage", event.stage.name())?;
        line.serialize_field("level", &event.level)?;
        line.serialize_field("requestReceivedTimestamp", &Micros(event.received))?;
        line.serialize_field("stageTimestamp", &Micros(self.completed))?;
        line.serialize_field("user", &event.user)?;
        if let Some(user) = &event.impersonated {
            line.serialize_field::<UserInfo>("impersonatedUser", user)?;
        }
        line.serialize_field("verb", &event.verb)?;
        line.serialize_field("requestURI", &self.uri)?;
        if !self.source_ips.is_empty() {
            line.serialize_field("sourceIPs", &self.source_ips)?;
        }
        if let Some(agent) = &self.user_agent {
            line.serialize_field("userAgent", agent)?;
        }
        if !event.object.resource.is_empty() {
            line.serialize_field("objectRef", &ObjectRef(event))?;
        }
        line.serialize_field("responseStatus", &Status(self))?;
        if let Some(object) = &self.request_object {
            line.serialize_field("requestObject", object)?;
        }
        if let Some(object) = &self.response_object {
            line.serialize_field("responseObject", object)?;
        }
        line.serialize_field("annotations", &Pairs(&self.annotations))?;
        line.end()
    }
}

struct Micros(Timestamp);

impl Serialize for Micros {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{:.6}", self.0))
    }
}

struct ObjectRef<'a>(&'a AuditEvent);

impl Serialize for ObjectRef<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let object = &self.0.object;
        let mut map = serializer.serialize_map(None)?;
        for (name, text) in [
            ("resource", &object.resource),
            ("namespace", &object.namespace),
            ("name", &object.name),
            ("apiGroup", &object.group),
            ("apiVersion", &object.version),
            ("subresource", &object.subresource),
        ] {
            if !text.is_empty() {
                map.serialize_entry(name, text)?;
            }
        }
        map.end()
    }
}

struct Status<'a>(&'a Line<'a>);

impl Serialize for Status<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("code", &self.0.event.status.code)?;
        for (name, text) in [("reason", &self.0.reason), ("message", &self.0.message)] {
            if !text.is_empty() {
                map.serialize_entry(name, text)?;
            }
        }
        map.end()
    }
}

struct Pairs<'a>(&'a [(&'a str, Cow<'a, str>)]);

impl Serialize for Pairs<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(key, value)| (key, value)))
    }
}

fn annotations<'a>(event: &'a AuditEvent, namespaces: &Namespaces) -> Vec<(&'a str, Cow<'a, str>)> {
    let mut all: Vec<(&str, Cow<'_, str>)> = Vec::with_capacity(8);
    if let Some((allowed, reason)) = &event.decision {
        all.push((keys::DECISION, Cow::Borrowed(if *allowed { "allow" } else { "forbid" })));
        if !reason.is_empty() {
            all.push((keys::REASON, Cow::Borrowed(reason)));
        }
    }
    if let Some(kind) = security_event(event) {
        all.push((keys::EVENT, Cow::Borrowed(kind.name())));
    }
    let extra = |key: &str| event.user.extra.get(key).and_then(|values| values.first());
    let credential = match extra(EXTRA_METHOD) {
        Some(method) => Cow::Borrowed(method.as_str()),
        None => Cow::Borrowed(event.credential.as_ref()),
    };
    if !credential.is_empty() {
        all.push((keys::CREDENTIAL, credential));
    }
    if let Some(domain) = extra(EXTRA_DOMAIN) {
        all.push((keys::DOMAIN, Cow::Borrowed(domain)));
    }
    let of_namespace = namespaces.get(&event.object.namespace).and_then(|facts| facts.project.clone());
    let project = of_namespace.map(Cow::Owned);
    let told = |key: &str| event.annotations.iter().any(|(k, _)| k == key);
    if !told(keys::PROJECT)
        && let Some(project) = project.or_else(|| extra(EXTRA_PROJECT).map(|p| Cow::Borrowed(p.as_str())))
    {
        all.push((keys::PROJECT, project));
    }
    if !event.latency.is_zero() {
        all.push((keys::LATENCY_US, Cow::Owned(event.latency.as_micros().to_string())));
    }
    for (key, value) in &event.annotations {
        all.push((key, bounded(Cow::Borrowed(value), TEXT_BYTES_MAX)));
    }
    all
}

/// Reason and message: what the front door said, else what stands in the refusal's body in the words of
/// Kubernetes, Keystone, or the registry.
fn refusal(event: &AuditEvent) -> (Cow<'_, str>, Cow<'_, str>) {
    let status = &event.status;
    let Some(body) = &status.refusal else {
        return (Cow::Borrowed(&status.reason), Cow::Borrowed(&status.message));
    };
    let value: Value = serde_json::from_slice(body).unwrap_or_default();
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let (reason, message) = if value["error"].is_object() {
        (&value["error"]["title"], &value["error"]["message"])
    } else if value["errors"][0].is_object() {
        (&value["errors"][0]["code"], &value["errors"][0]["message"])
    } else {
        (&value["reason"], &value["message"])
    };
    (Cow::Owned(text(reason).unwrap_or_default()), Cow::Owned(text(message).unwrap_or_default()))
}

fn object<'a>(
    body: &AuditBody,
    event: &AuditEvent,
    which: &'static str,
    annotations: &mut Vec<(&'a str, Cow<'a, str>)>,
) -> Option<Box<RawValue>> {
    let key = if which == "request" {
        "audit.gantry.dev/request-object"
    } else {
        "audit.gantry.dev/response-object"
    };
    let why = match body {
        AuditBody::Absent => return None,
        AuditBody::TooLarge => "not recorded: too large",
        AuditBody::Opaque => "not recorded: no object",
        AuditBody::Whole(bytes) => match redact::body(bytes, &event.object, event.omit_managed_fields) {
            Ok(text) => match RawValue::from_string(text) {
                Ok(raw) => return Some(raw),
                Err(_) => "not recorded: not readable",
            },
            Err(_) => "not recorded: neither JSON nor YAML",
        },
    };
    annotations.push((key, Cow::Borrowed(why)));
    None
}

/// As upstream: what proxies say, then the address we see. All but the last can be invented.
fn source_ips(event: &AuditEvent) -> Vec<String> {
    let forwarded = event.forwarded_for.as_ref().and_then(|value| value.to_str().ok()).unwrap_or_default();
    let parsed = forwarded.split(',').filter_map(|part| part.trim().parse::<std::net::IpAddr>().ok());
    let mut all: Vec<String> = parsed.take(FORWARDED_MAX).map(|ip| ip.to_string()).collect();
    if let Some(peer) = event.source.map(|ip| ip.to_canonical().to_string())
        && all.last() != Some(&peer)
    {
        all.push(peer);
    }
    all
}

fn text(bytes: &[u8]) -> Cow<'_, str> {
    bounded(String::from_utf8_lossy(bytes), TEXT_BYTES_MAX)
}

fn bounded(text: Cow<'_, str>, bytes_max: usize) -> Cow<'_, str> {
    if text.len() <= bytes_max {
        return text;
    }
    let mut end = bytes_max;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    Cow::Owned(format!("{}…", &text[..end]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use gantry_audit_api::record::Record;
    use gantry_kube_types::{AuditLevel, AuditObject, AuditStatus};

    fn line(event: &AuditEvent) -> String {
        let mut out = Vec::new();
        let around = Surroundings {
            namespaces: &Namespaces::default(),
            session: None,
            fresh_id: &mut || "fresh".to_owned(),
        };
        write(&mut out, event, around);
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn a_record_reads_as_upstreams() {
        let mut event = AuditEvent {
            id: "r1".to_owned(),
            level: AuditLevel::Request,
            received: "2026-11-25T10:00:00Z".parse().expect("a time"),
            latency: std::time::Duration::from_micros(1500),
            user: UserInfo::authenticated("acme/alice", &["acme/devs"]),
            impersonated: Some(Box::new(UserInfo::authenticated("acme/bob", &[]))),
            source: "::ffff:192.0.2.7".parse().ok(),
            forwarded_for: Some(http::HeaderValue::from_static("10.0.0.1, nonsense")),
            uri: http::Uri::from_static("/api/v1/namespaces/n/secrets?token=SEKRIT"),
            verb: "create".to_owned(),
            object: AuditObject::new("", "secrets", "s").in_namespace("n"),
            status: AuditStatus { code: 201, ..AuditStatus::default() },
            request: AuditBody::Whole(r#"{"kind":"Secret","data":{"a":"SEKRIT"}}"#.into()),
            response: AuditBody::TooLarge,
            decision: Some((true, "RBAC: allowed".to_owned())),
            credential: "bearer".into(),
            ..AuditEvent::default()
        };
        event.user.extra.insert(EXTRA_DOMAIN.to_owned(), vec!["d1".to_owned()]);
        assert_eq!(
            line(&event),
            r#"{"auditID":"r1","stage":"ResponseComplete","level":"Request","requestReceivedTimestamp":"2026-11-25T10:00:00.000000Z","stageTimestamp":"2026-11-25T10:00:00.001500Z","user":{"username":"acme/alice","groups":["acme/devs","system:authenticated"],"extra":{"identity.gantry.dev/domain":["d1"]}},"impersonatedUser":{"username":"acme/bob","groups":["system:authenticated"]},"verb":"create","requestURI":"/api/v1/namespaces/n/secrets?token=REMOVED","sourceIPs":["10.0.0.1","192.0.2.7"],"objectRef":{"resource":"secrets","namespace":"n","name":"s"},"responseStatus":{"code":201},"requestObject":{"kind":"Secret","data":{"a":"REMOVED"}},"annotations":{"authorization.k8s.io/decision":"allow","authorization.k8s.io/reason":"RBAC: allowed","audit.gantry.dev/credential":"bearer","audit.gantry.dev/domain":"d1","audit.gantry.dev/latency-us":"1500","audit.gantry.dev/response-object":"not recorded: too large"}}"#
        );
    }

    #[test]
    fn refusals_are_read_in_every_services_words() {
        for (body, want) in [
            (
                r#"{"kind":"Status","reason":"AlreadyExists","message":"pods \"a\" already exists"}"#,
                ("AlreadyExists", "pods \"a\" already exists"),
            ),
            (r#"{"error":{"code":401,"title":"Unauthorized","message":"no"}}"#, ("Unauthorized", "no")),
            (r#"{"errors":[{"code":"DENIED","message":"no"}]}"#, ("DENIED", "no")),
            ("<html>", ("", "")),
        ] {
            let status = AuditStatus { code: 409, refusal: Some(body.into()), ..AuditStatus::default() };
            let text = line(&AuditEvent { status, ..AuditEvent::default() });
            let record = Record::parse(text.as_bytes()).expect("a record");
            let found = (record.response_status.reason.as_ref(), record.response_status.message.as_ref());
            assert_eq!(found, want);
            assert_eq!(record.audit_id, "fresh");
        }
    }
}
