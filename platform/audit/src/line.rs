//! An event as the JSON of its record: `audit.k8s.io/v1` `Event`, on the writer's thread.

use std::borrow::Cow;
use std::net::IpAddr;
use std::ops::Range;
use std::time::Duration;

use gantry_audit_api::record::{Annotations, ObjectRef, Record, Status, Text, User};
use gantry_identity_api::extra as said;
use gantry_kube_types::{AuditBody, AuditEvent, UserInfo, audit_annotations as keys};
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::classify::security_event;
use crate::json::{self, Times};
use crate::namespaces::Namespaces;
use crate::redact;

/// Addresses of `X-Forwarded-For` that are kept.
const FORWARDED_MAX: usize = 8;
/// Of a text that the client chose.
const TEXT_BYTES_MAX: usize = 2 << 10;
/// Of a path with its query.
const URI_BYTES_MAX: usize = 16 << 10;
/// The front door's word for the cookie of a browser.
const SESSION: &str = "session";

/// What the writer knows beside the event.
pub(crate) struct Surroundings<'a> {
    pub(crate) namespaces: &'a Namespaces,
    /// The recording that belongs to a request.
    pub(crate) session: Option<String>,
    /// For events that came without an id.
    pub(crate) fresh_id: &'a mut dyn FnMut() -> String,
    pub(crate) times: &'a mut Times,
}

/// Where in a record's JSON stands what no other record has, quotes included.
pub(crate) struct Own {
    pub(crate) id: Range<usize>,
    pub(crate) received: Range<usize>,
    pub(crate) completed: Range<usize>,
    pub(crate) latency: Option<Range<usize>>,
}

/// Appends the record's JSON, and shows what a reader of it would see, but for the time as a text.
pub(crate) fn write(
    out: &mut Vec<u8>,
    event: &AuditEvent,
    around: Surroundings<'_>,
    see: impl FnOnce(&Record<'_>),
) -> Own {
    let (reason, message) = refusal(event);
    let mut annotations = annotations(event, around.namespaces);
    if let Some(session) = around.session {
        annotations.push(pair(keys::SESSION, session));
    }
    let request_object = object(&event.request, event, "request", &mut annotations);
    let response_object = object(&event.response, event, "response", &mut annotations);
    let about = &event.object;
    let user = |info: &'_ UserInfo| User {
        username: Cow::Owned(info.username.clone()),
        uid: Cow::Owned(info.uid.clone()),
    };
    let record = Record {
        audit_id: if event.id.is_empty() { (around.fresh_id)().into() } else { Cow::Borrowed(&event.id) },
        stage: event.stage.name().into(),
        level: event.level.name().into(),
        request_uri: bounded(redact::uri(&event.uri), URI_BYTES_MAX),
        verb: Cow::Borrowed(&event.verb),
        user: User { username: Cow::Borrowed(&event.user.username), uid: Cow::Borrowed(&event.user.uid) },
        impersonated_user: event.impersonated.as_deref().map(user),
        source_ips: source_ips(event),
        user_agent: event.user_agent.as_ref().map(|agent| text(agent.as_bytes())).unwrap_or_default(),
        object_ref: match about.resource.is_empty() {
            true => ObjectRef::default(),
            false => ObjectRef {
                resource: Cow::Borrowed(&about.resource),
                namespace: Cow::Borrowed(&about.namespace),
                name: Cow::Borrowed(&about.name),
                api_group: Cow::Borrowed(&about.group),
                subresource: Cow::Borrowed(&about.subresource),
            },
        },
        response_status: Status {
            code: event.status.code,
            reason,
            message: bounded(message, TEXT_BYTES_MAX),
        },
        request_object: request_object.as_deref(),
        response_object: response_object.as_deref(),
        request_received_timestamp: Cow::Borrowed(""),
        annotations: Annotations(annotations),
    };
    let own = render(out, event, &record, around.times);
    see(&record);
    own
}

/// When the stage of an event was reached.
pub(crate) fn completed(received: Timestamp, latency: Duration) -> Timestamp {
    let latency = SignedDuration::try_from(latency).unwrap_or_default();
    received.checked_add(latency).unwrap_or(received)
}

/// Where the bytes that `write` appends stand.
fn within(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) -> Range<usize> {
    let start = out.len();
    write(out);
    start..out.len()
}

/// The fields of `audit.k8s.io/v1`, in upstream's order.
fn render(out: &mut Vec<u8>, event: &AuditEvent, record: &Record<'_>, times: &mut Times) -> Own {
    out.push(b'{');
    json::name(out, "auditID");
    let id = within(out, |out| json::text(out, &record.audit_id));
    json::field(out, "stage", &record.stage);
    json::field(out, "level", &record.level);
    json::name(out, "requestReceivedTimestamp");
    let received = within(out, |out| times.write(out, event.received));
    json::name(out, "stageTimestamp");
    let completed = within(out, |out| times.write(out, completed(event.received, event.latency)));
    json::name(out, "user");
    render_user(out, &event.user);
    if let Some(user) = &event.impersonated {
        json::name(out, "impersonatedUser");
        render_user(out, user);
    }
    json::field(out, "verb", &record.verb);
    json::field(out, "requestURI", &record.request_uri);
    if !record.source_ips.is_empty() {
        json::name(out, "sourceIPs");
        json::list(out, record.source_ips.iter().map(|ip| ip.0.as_ref()));
    }
    if event.user_agent.is_some() {
        json::field(out, "userAgent", &record.user_agent);
    }
    if !event.object.resource.is_empty() {
        json::name(out, "objectRef");
        let object = &event.object;
        let fields = [
            ("resource", &object.resource),
            ("namespace", &object.namespace),
            ("name", &object.name),
            ("apiGroup", &object.group),
            ("apiVersion", &object.version),
            ("subresource", &object.subresource),
        ];
        render_texts(out, fields.into_iter().map(|(name, text)| (name, text.as_str())));
    }
    json::name(out, "responseStatus");
    let status = &record.response_status;
    out.extend_from_slice(b"{\"code\":");
    out.extend_from_slice(status.code.to_string().as_bytes());
    for (name, text) in [("reason", &status.reason), ("message", &status.message)] {
        if !text.is_empty() {
            json::field(out, name, text);
        }
    }
    out.push(b'}');
    for (name, object) in
        [("requestObject", record.request_object), ("responseObject", record.response_object)]
    {
        if let Some(object) = object {
            json::name(out, name);
            out.extend_from_slice(object.get().as_bytes());
        }
    }
    json::name(out, "annotations");
    out.push(b'{');
    let mut latency = None;
    for (Text(key), Text(value)) in &record.annotations.0 {
        json::name(out, key);
        let place = within(out, |out| json::text(out, value));
        if key == keys::LATENCY_US {
            latency.get_or_insert(place);
        }
    }
    out.extend_from_slice(b"}}");
    Own { id, received, completed, latency }
}

fn render_user(out: &mut Vec<u8>, user: &UserInfo) {
    out.push(b'{');
    json::field(out, "username", &user.username);
    if !user.uid.is_empty() {
        json::field(out, "uid", &user.uid);
    }
    json::name(out, "groups");
    json::list(out, user.groups.iter().map(String::as_str));
    if !user.extra.is_empty() {
        json::name(out, "extra");
        out.push(b'{');
        for (key, values) in &user.extra {
            json::name(out, key);
            json::list(out, values.iter().map(String::as_str));
        }
        out.push(b'}');
    }
    out.push(b'}');
}

/// An object of those texts that say something.
fn render_texts<'a>(out: &mut Vec<u8>, fields: impl Iterator<Item = (&'a str, &'a str)>) {
    out.push(b'{');
    fields.filter(|(_, text)| !text.is_empty()).for_each(|(name, text)| json::field(out, name, text));
    out.push(b'}');
}

fn pair<'a>(key: impl Into<Cow<'a, str>>, value: impl Into<Cow<'a, str>>) -> (Text<'a>, Text<'a>) {
    (Text(key.into()), Text(value.into()))
}

fn annotations<'a>(event: &'a AuditEvent, namespaces: &Namespaces) -> Vec<(Text<'a>, Text<'a>)> {
    let mut all = Vec::with_capacity(8);
    if let Some((allowed, reason)) = &event.decision {
        all.push(pair(keys::DECISION, if *allowed { "allow" } else { "forbid" }));
        if !reason.is_empty() {
            all.push(pair(keys::REASON, reason));
        }
    }
    if let Some(kind) = security_event(event) {
        all.push(pair(keys::EVENT, kind.name()));
    }
    let extra = |key: &str| event.user.extra.get(key).and_then(|values| values.first());
    let credential = match event.credential.as_ref() {
        // That a browser did it says more than how somebody signed in there, which their sign-in has on record.
        SESSION => SESSION,
        other => extra(said::METHOD).map_or(other, String::as_str),
    };
    if !credential.is_empty() {
        all.push(pair(keys::CREDENTIAL, credential));
    }
    if let Some(domain) = extra(said::DOMAIN) {
        all.push(pair(keys::DOMAIN, domain));
    }
    // Of what is a project or a domain itself, the name is the id.
    let is = |resource: &str| {
        let about = &event.object;
        let is = about.group == gantry_identity_api::GROUP && about.resource == resource;
        (is && !about.name.is_empty()).then_some(about.name.as_str())
    };
    let of_namespace = namespaces.get(&event.object.namespace).and_then(|facts| facts.project);
    let told = |key: &str| event.annotations.iter().any(|(k, _)| k == key);
    if !told(keys::PROJECT) {
        let project = of_namespace.map(Cow::Owned).or_else(|| is("projects").map(Cow::Borrowed));
        let project = project.or_else(|| extra(said::PROJECT).map(|p| Cow::Borrowed(p.as_str())));
        all.extend(project.map(|project| pair(keys::PROJECT, project)));
    }
    if !told(keys::OBJECT_DOMAIN) {
        all.extend(is("domains").map(|domain| pair(keys::OBJECT_DOMAIN, domain)));
    }
    if !event.latency.is_zero() {
        all.push(pair(keys::LATENCY_US, event.latency.as_micros().to_string()));
    }
    for (key, value) in &event.annotations {
        all.push(pair(key.as_ref(), bounded(Cow::Borrowed(value), TEXT_BYTES_MAX)));
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
    annotations: &mut Vec<(Text<'a>, Text<'a>)>,
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
    annotations.push(pair(key, why));
    None
}

/// As upstream: what proxies say, then the address we see. All but the last can be invented.
fn source_ips(event: &AuditEvent) -> Vec<Text<'static>> {
    let forwarded = event.forwarded_for.as_ref().and_then(|value| value.to_str().ok()).unwrap_or_default();
    let parsed = forwarded.split(',').filter_map(|part| part.trim().parse::<IpAddr>().ok());
    let shown = |ip: IpAddr| Text(ip.to_string().into());
    let mut all: Vec<Text<'_>> = parsed.take(FORWARDED_MAX).map(shown).collect();
    if let Some(peer) = event.source.map(|ip| shown(ip.to_canonical()))
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
    use crate::index::terms;
    use gantry_kube_types::{AuditLevel, AuditObject, AuditStatus, UserFields};

    fn line(event: &AuditEvent) -> String {
        let mut out = Vec::new();
        let around = Surroundings {
            namespaces: &Namespaces::default(),
            session: None,
            fresh_id: &mut || "fresh".to_owned(),
            times: &mut Times::default(),
        };
        let terms = |record: &Record<'_>| {
            let mut all = Vec::new();
            terms::of_record(record, &mut terms::Texts::default(), |term| all.push(term));
            all
        };
        let mut shown = Vec::new();
        write(&mut out, event, around, |record| shown = terms(record));
        let read = Record::parse(&out).expect("a record");
        assert_eq!(terms(&read), shown, "found by other words than those that are shown");
        assert_eq!(read.received_us(), event.received.as_microsecond());
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn a_record_says_how_somebody_signed_in_or_that_it_was_a_browser() {
        let extra = std::collections::BTreeMap::from([(said::METHOD.to_owned(), vec!["totp".to_owned()])]);
        let user: UserInfo =
            UserFields { username: "acme/alice".to_owned(), extra, ..UserFields::default() }.into();
        for (credential, want) in [("bearer", "totp"), ("token", "totp"), ("session", "session")] {
            let event =
                AuditEvent { credential: credential.into(), user: user.clone(), ..AuditEvent::default() };
            let want = pair(keys::CREDENTIAL, want);
            assert!(annotations(&event, &Namespaces::default()).contains(&want), "{credential}");
        }
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
        event.user.extra.insert(said::DOMAIN.to_owned(), vec!["d1".to_owned()]);
        assert_eq!(
            line(&event),
            r#"{"auditID":"r1","stage":"ResponseComplete","level":"Request","requestReceivedTimestamp":"2026-11-25T10:00:00.000000Z","stageTimestamp":"2026-11-25T10:00:00.001500Z","user":{"username":"acme/alice","groups":["acme/devs","system:authenticated"],"extra":{"identity.gantry.dev/domain":["d1"]}},"impersonatedUser":{"username":"acme/bob","groups":["system:authenticated"]},"verb":"create","requestURI":"/api/v1/namespaces/n/secrets?token=REMOVED","sourceIPs":["10.0.0.1","192.0.2.7"],"objectRef":{"resource":"secrets","namespace":"n","name":"s"},"responseStatus":{"code":201},"requestObject":{"kind":"Secret","data":{"a":"REMOVED"}},"annotations":{"authorization.k8s.io/decision":"allow","authorization.k8s.io/reason":"RBAC: allowed","audit.gantry.dev/credential":"bearer","audit.gantry.dev/domain":"d1","audit.gantry.dev/latency-us":"1500","audit.gantry.dev/response-object":"not recorded: too large"}}"#
        );
    }

    #[test]
    fn texts_that_need_care_are_found_again() {
        let odd = "quo\"te \\ \u{1}\u{7f} tab\there Grüße \u{1f600}";
        let mut event = AuditEvent {
            user: UserInfo::authenticated(odd, &[odd, "plain"]),
            user_agent: http::HeaderValue::from_bytes(b"agent\xff \"x\"").ok(),
            uri: http::Uri::from_static("/version?q=%22"),
            verb: odd.to_owned(),
            decision: Some((false, odd.to_owned())),
            annotations: vec![("a/b".into(), odd.to_owned())],
            ..AuditEvent::default()
        };
        event.user.extra.insert(odd.to_owned(), vec![odd.to_owned(), String::new()]);
        let text = line(&event);
        let value: Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(value["user"], serde_json::to_value(&event.user).expect("JSON"));
        assert_eq!(value["annotations"]["a/b"], odd);
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
