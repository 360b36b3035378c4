//! Events as requests: CloudEvents 1.0.2 in its HTTP binding, structured (section 3.2) or binary (3.1), signed as
//! Standard Webhooks 1.0.0 has it: HMAC-SHA256 of `ID.TIMESTAMP.BODY`, in `webhook-signature` as `v1,` and Base64.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use gantry_registry_api::ContentMode;
use http::HeaderMap;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use jiff::Timestamp;
use ring::hmac;
use serde_json::json;

use super::Event;

/// Bytes that a key may have (Standard Webhooks, "Signature scheme").
const KEY_BYTES: std::ops::RangeInclusive<usize> = 24..=64;
/// What stands before a key in Base64.
const KEY_PREFIX: &str = "whsec_";

/// The key that a Secret's field holds.
pub(super) fn key(field: &[u8]) -> Result<hmac::Key, String> {
    let text = std::str::from_utf8(field).map(str::trim).unwrap_or_default();
    let bytes = match text.strip_prefix(KEY_PREFIX) {
        Some(encoded) => STANDARD.decode(encoded).map_err(|_| "is no Base64 after whsec_".to_owned())?,
        None => field.to_vec(),
    };
    match KEY_BYTES.contains(&bytes.len()) {
        true => Ok(hmac::Key::new(hmac::HMAC_SHA256, &bytes)),
        false => Err(format!("has {} bytes: 24 to 64 are a key", bytes.len())),
    }
}

/// Headers and body of an event.
pub(super) fn request(event: &Event, mode: ContentMode, source: &str) -> (HeaderMap, Vec<u8>) {
    let subject = format!("{}{}", event.repository, event.reference.as_deref().unwrap_or_default());
    let (kind, time) = (event.kind.cloud_event_type(), event.time.to_string());
    let attributes = [
        ("specversion", "1.0"),
        ("id", &event.id),
        ("source", source),
        ("type", kind),
        ("subject", &subject),
        ("time", &time),
    ];
    let mut headers = HeaderMap::new();
    match mode {
        ContentMode::Structured => {
            let mut object = json!({});
            for (name, value) in attributes {
                object[name] = value.into();
            }
            object["datacontenttype"] = "application/json".into();
            object["data"] = event.data.clone();
            let kind = HeaderValue::from_static("application/cloudevents+json; charset=UTF-8");
            headers.insert(CONTENT_TYPE, kind);
            (headers, object.to_string().into_bytes())
        }
        ContentMode::Binary => {
            for (name, value) in attributes {
                // Names and values of ours are printable ASCII without quotes and percents, which needs no escapes.
                if let (Ok(name), Ok(value)) =
                    (HeaderName::try_from(format!("ce-{name}")), HeaderValue::try_from(value))
                {
                    headers.insert(name, value);
                }
            }
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            (headers, event.data.to_string().into_bytes())
        }
    }
}

/// Adds the signatures, one for each key, which hold for an attempt at `now`.
pub(super) fn sign(headers: &mut HeaderMap, id: &str, body: &[u8], keys: &[hmac::Key], now: Timestamp) {
    let seconds = now.as_second();
    let mut signed = format!("{id}.{seconds}.").into_bytes();
    signed.extend(body);
    let signatures: Vec<String> =
        keys.iter().map(|key| format!("v1,{}", STANDARD.encode(hmac::sign(key, &signed)))).collect();
    for (name, value) in [
        ("webhook-id", id.to_owned()),
        ("webhook-timestamp", seconds.to_string()),
        ("webhook-signature", signatures.join(" ")),
    ] {
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.insert(HeaderName::from_static(name), value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::tests::event;

    /// The example of the specification's own libraries.
    #[test]
    fn signatures_are_those_of_standard_webhooks() {
        let key = key(b"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n").expect("a key");
        let mut headers = HeaderMap::new();
        let now = Timestamp::from_second(1_614_265_330).expect("a time");
        let body = br#"{"test": 2432232314}"#;
        sign(&mut headers, "msg_p5jXN8AQM9LWM0D4loKWxJek", body, &[key.clone(), key], now);
        let one = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
        assert_eq!(headers["webhook-signature"], format!("{one} {one}"));
        assert_eq!(headers["webhook-timestamp"], "1614265330");
    }

    #[test]
    fn keys_have_a_length() {
        for (field, wanted) in [
            (&[7; 24][..], ""),
            (&[7; 64], ""),
            (&[7; 23], "has 23 bytes"),
            (&[7; 65], "has 65 bytes"),
            (b"", "has 0 bytes"),
            (b"whsec_AAAA", "has 3 bytes"),
            (b"whsec_!", "no Base64"),
        ] {
            let found = key(field).map(drop).err().unwrap_or_default();
            assert_eq!(found.is_empty(), wanted.is_empty(), "{found}");
            assert!(found.contains(wanted), "{found}");
        }
    }

    #[test]
    fn both_modes_say_the_same() {
        let event = event("acme/web");
        let (headers, body) = request(&event, ContentMode::Structured, "/v2/acme/web");
        assert_eq!(headers[CONTENT_TYPE], "application/cloudevents+json; charset=UTF-8");
        let object: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
        let (headers, body) = request(&event, ContentMode::Binary, "/v2/acme/web");
        assert_eq!(headers[CONTENT_TYPE], "application/json");
        assert_eq!(serde_json::from_slice::<serde_json::Value>(&body).expect("JSON"), object["data"]);
        for name in ["specversion", "id", "source", "type", "subject", "time"] {
            let header = headers[&format!("ce-{name}")].to_str().expect("text");
            assert_eq!(object[name].as_str(), Some(header), "{name}");
        }
        assert_eq!(object["subject"], "acme/web:1");
        assert_eq!(object["specversion"], "1.0");
    }
}
