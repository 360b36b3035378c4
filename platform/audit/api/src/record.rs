//! A record as it is kept, and what is searched in it.

use std::borrow::Cow;
use std::fmt;

use gantry_kube_types::audit_annotations;
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// The fields of an `audit.k8s.io/v1` event that tables and searches look at.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Record<'a> {
    #[serde(borrow, rename = "auditID")]
    pub audit_id: Cow<'a, str>,
    #[serde(borrow)]
    pub level: Cow<'a, str>,
    #[serde(borrow)]
    pub stage: Cow<'a, str>,
    #[serde(borrow, rename = "requestURI")]
    pub request_uri: Cow<'a, str>,
    #[serde(borrow)]
    pub verb: Cow<'a, str>,
    #[serde(borrow)]
    pub user: User<'a>,
    #[serde(borrow)]
    pub impersonated_user: Option<User<'a>>,
    #[serde(borrow, rename = "sourceIPs")]
    pub source_ips: Vec<Text<'a>>,
    #[serde(borrow)]
    pub user_agent: Cow<'a, str>,
    #[serde(borrow)]
    pub object_ref: ObjectRef<'a>,
    #[serde(borrow)]
    pub response_status: Status<'a>,
    #[serde(borrow)]
    pub request_object: Option<&'a RawValue>,
    #[serde(borrow)]
    pub response_object: Option<&'a RawValue>,
    #[serde(borrow)]
    pub request_received_timestamp: Cow<'a, str>,
    #[serde(borrow)]
    pub annotations: Annotations<'a>,
}

/// A text that stands in the record as it is, or is made from what stands there escaped.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Text<'a>(#[serde(borrow)] pub Cow<'a, str>);

/// A record has few, so they are looked through.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Annotations<'a>(pub Vec<(Text<'a>, Text<'a>)>);

impl<'de: 'a, 'a> Deserialize<'de> for Annotations<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(PairsVisitor)
    }
}

struct PairsVisitor;

impl<'de> Visitor<'de> for PairsVisitor {
    type Value = Annotations<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("texts by name")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Self::Value, M::Error> {
        let mut all = Vec::with_capacity(8);
        while let Some(pair) = map.next_entry()? {
            all.push(pair);
        }
        Ok(Annotations(all))
    }
}

/// Who.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct User<'a> {
    #[serde(borrow)]
    pub username: Cow<'a, str>,
    /// Of no other user, also after this one is gone; empty where they have none.
    #[serde(borrow)]
    pub uid: Cow<'a, str>,
}

/// What it is about.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ObjectRef<'a> {
    #[serde(borrow)]
    pub resource: Cow<'a, str>,
    #[serde(borrow)]
    pub namespace: Cow<'a, str>,
    #[serde(borrow)]
    pub name: Cow<'a, str>,
    #[serde(borrow)]
    pub api_group: Cow<'a, str>,
    #[serde(borrow)]
    pub subresource: Cow<'a, str>,
}

/// How it ended.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Status<'a> {
    pub code: u16,
    #[serde(borrow)]
    pub reason: Cow<'a, str>,
    #[serde(borrow)]
    pub message: Cow<'a, str>,
}

/// The classes of outcomes that can be searched for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Done as asked.
    Success,
    /// 401 and 403.
    Denied,
    /// Another fault of the request: 4xx.
    Failed,
    /// A fault of the server, or no answer.
    Error,
}

impl Outcome {
    pub fn name(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Denied => "denied",
            Self::Failed => "failed",
            Self::Error => "error",
        }
    }

    pub fn of(code: u16) -> Self {
        match code {
            100..400 => Self::Success,
            401 | 403 => Self::Denied,
            400..500 => Self::Failed,
            _ => Self::Error,
        }
    }
}

impl<'a> Record<'a> {
    /// Reads a record's payload.
    pub fn parse(payload: &'a [u8]) -> Option<Self> {
        serde_json::from_slice(payload).ok()
    }

    pub fn annotation(&self, key: &str) -> &str {
        self.annotations.0.iter().find(|(name, _)| name.0 == key).map_or("", |(_, value)| &value.0)
    }

    pub fn outcome(&self) -> Outcome {
        Outcome::of(self.response_status.code)
    }

    /// The kind of security event it is, or empty.
    pub fn event(&self) -> &str {
        self.annotation(audit_annotations::EVENT)
    }

    pub fn project(&self) -> &str {
        self.annotation(audit_annotations::PROJECT)
    }

    /// The id of the domain that the object is, or belongs to.
    pub fn object_domain(&self) -> &str {
        self.annotation(audit_annotations::OBJECT_DOMAIN)
    }

    /// Microseconds since 1970 of `requestReceivedTimestamp`; 0 where it is not readable.
    pub fn received_us(&self) -> i64 {
        let time: Result<jiff::Timestamp, _> = self.request_received_timestamp.parse();
        time.map_or(0, |time| time.as_microsecond())
    }

    /// `pods/exec`, `deployments.apps`, or the path where it is about no object.
    pub fn target(&self) -> String {
        let object = &self.object_ref;
        if object.resource.is_empty() {
            return self.request_uri.split('?').next().unwrap_or_default().to_owned();
        }
        let mut target = object.resource.to_string();
        if !object.subresource.is_empty() {
            target = format!("{target}/{}", object.subresource);
        }
        if !object.api_group.is_empty() {
            target = format!("{target}.{}", object.api_group);
        }
        target
    }

    /// Every text whose words are searched, and whether the same text is in many records.
    pub fn texts(&self, mut visit: impl FnMut(&str, bool)) {
        let object = &self.object_ref;
        for (text, common) in [
            (&self.user.username, true),
            (&self.request_uri, false),
            (&self.user_agent, true),
            (&object.resource, true),
            (&object.namespace, true),
            (&object.name, false),
            (&object.api_group, true),
            (&self.response_status.reason, true),
            (&self.response_status.message, false),
        ] {
            visit(text, common);
        }
        if let Some(user) = &self.impersonated_user {
            visit(&user.username, true);
        }
        self.source_ips.iter().for_each(|ip| visit(&ip.0, true));
        for (Text(key), Text(value)) in &self.annotations.0 {
            // A number that is of no use in a search, and different in every record.
            if key != audit_annotations::LATENCY_US {
                visit(value, true);
            }
        }
        for body in [self.request_object, self.response_object].into_iter().flatten() {
            let text = body.get();
            let mut end = text.len().min(BODY_TEXT_BYTES_MAX);
            while !text.is_char_boundary(end) {
                end -= 1;
            }
            visit(&text[..end], false);
        }
    }
}

/// So much of a recorded body can be searched for words.
pub const BODY_TEXT_BYTES_MAX: usize = 4 << 10;
/// Of one word; what follows is cut off.
pub const WORD_BYTES_MAX: usize = 64;

/// The words of a text: runs of letters and digits, in lower case, of two bytes and more.
pub fn words(text: &str, mut visit: impl FnMut(&[u8])) {
    let mut buffer = [0_u8; WORD_BYTES_MAX];
    let mut length = 0;
    for byte in text.bytes().chain(std::iter::once(b' ')) {
        if byte.is_ascii_alphanumeric() || byte >= 0x80 {
            if length < WORD_BYTES_MAX {
                buffer[length] = byte.to_ascii_lowercase();
                length += 1;
            }
        } else {
            if length > 1 {
                visit(&buffer[..length]);
            }
            length = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_what_users_type() {
        let of = |text: &str| {
            let mut all = Vec::new();
            words(text, |word| all.push(String::from_utf8_lossy(word).into_owned()));
            all.join(" ")
        };
        assert_eq!(
            of("/api/v1/namespaces/acme-dev/pods/web-7F9c?limit=5"),
            "api v1 namespaces acme dev pods web 7f9c limit"
        );
        assert_eq!(of("Mozilla/5.0 (X11)"), "mozilla x11");
        assert_eq!(of("Grüße, a b"), "grüße");
        assert_eq!(of(&"x".repeat(100)).len(), WORD_BYTES_MAX);
    }
}
