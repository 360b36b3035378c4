//! The objects that kubectl sends as Kubernetes protobuf even to servers that offer JSON: reviews,
//! token requests, evictions, delete options, and the simple kinds that `kubectl create` makes from
//! flags (kubectl ≥ 1.32).
//!
//! A body is the four bytes `k8s\0` and a `runtime.Unknown` (`k8s.io/apimachinery/pkg/runtime`,
//! generated.proto) that names the kind and holds its message. Field numbers are those of the published
//! generated.proto of each group. A kind or a field that is not written here is refused as a whole (415):
//! dropping it would change what the client asked for.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

/// How one field becomes JSON.
#[derive(Clone, Copy)]
enum Kind {
    Text,
    Number,
    Flag,
    Message(&'static [Field]),
    /// `map<string, string>`
    TextMap,
    /// `map<string, ExtraValue>`: lists of text.
    ListMap,
    /// `map<string, bytes>`: base64 in JSON.
    BytesMap,
    /// What the server sets itself.
    Skip,
}

struct Field {
    number: u64,
    name: &'static str,
    kind: Kind,
    repeated: bool,
}

const fn one(number: u64, name: &'static str, kind: Kind) -> Field {
    Field { number, name, kind, repeated: false }
}

const fn many(number: u64, name: &'static str, kind: Kind) -> Field {
    Field { number, name, kind, repeated: true }
}

const OBJECT_META: &[Field] = &[
    one(1, "name", Kind::Text),
    one(2, "generateName", Kind::Text),
    one(3, "namespace", Kind::Text),
    one(5, "uid", Kind::Text),
    one(6, "resourceVersion", Kind::Text),
    one(11, "labels", Kind::TextMap),
    one(12, "annotations", Kind::TextMap),
    many(14, "finalizers", Kind::Text),
    // selfLink, generation, creationTimestamp, managedFields
    one(4, "", Kind::Skip),
    one(7, "", Kind::Skip),
    one(8, "", Kind::Skip),
    one(17, "", Kind::Skip),
];
const CONFIG_MAP: &[Field] = &[
    one(1, "metadata", Kind::Message(OBJECT_META)),
    one(2, "data", Kind::TextMap),
    one(3, "binaryData", Kind::BytesMap),
    one(4, "immutable", Kind::Flag),
];
const SECRET: &[Field] = &[
    one(1, "metadata", Kind::Message(OBJECT_META)),
    one(2, "data", Kind::BytesMap),
    one(3, "type", Kind::Text),
    one(4, "stringData", Kind::TextMap),
    one(5, "immutable", Kind::Flag),
];
const NAMESPACE: &[Field] =
    &[one(1, "metadata", Kind::Message(OBJECT_META)), one(2, "", Kind::Skip), one(3, "", Kind::Skip)];
const SERVICE_ACCOUNT: &[Field] = &[one(1, "metadata", Kind::Message(OBJECT_META))];
const POLICY_RULE: &[Field] = &[
    many(1, "verbs", Kind::Text),
    many(2, "apiGroups", Kind::Text),
    many(3, "resources", Kind::Text),
    many(4, "resourceNames", Kind::Text),
    many(5, "nonResourceURLs", Kind::Text),
];
const ROLE: &[Field] =
    &[one(1, "metadata", Kind::Message(OBJECT_META)), many(2, "rules", Kind::Message(POLICY_RULE))];
const SUBJECT: &[Field] = &[
    one(1, "kind", Kind::Text),
    one(2, "apiGroup", Kind::Text),
    one(3, "name", Kind::Text),
    one(4, "namespace", Kind::Text),
];
const ROLE_REF: &[Field] =
    &[one(1, "apiGroup", Kind::Text), one(2, "kind", Kind::Text), one(3, "name", Kind::Text)];
const ROLE_BINDING: &[Field] = &[
    one(1, "metadata", Kind::Message(OBJECT_META)),
    many(2, "subjects", Kind::Message(SUBJECT)),
    one(3, "roleRef", Kind::Message(ROLE_REF)),
];
const PRECONDITIONS: &[Field] = &[one(1, "uid", Kind::Text), one(2, "resourceVersion", Kind::Text)];
const DELETE_OPTIONS: &[Field] = &[
    one(1, "gracePeriodSeconds", Kind::Number),
    one(2, "preconditions", Kind::Message(PRECONDITIONS)),
    one(3, "orphanDependents", Kind::Flag),
    one(4, "propagationPolicy", Kind::Text),
    many(5, "dryRun", Kind::Text),
];
const EVICTION: &[Field] =
    &[one(1, "metadata", Kind::Message(OBJECT_META)), one(2, "deleteOptions", Kind::Message(DELETE_OPTIONS))];
const RESOURCE_ATTRIBUTES: &[Field] = &[
    one(1, "namespace", Kind::Text),
    one(2, "verb", Kind::Text),
    one(3, "group", Kind::Text),
    one(4, "version", Kind::Text),
    one(5, "resource", Kind::Text),
    one(6, "subresource", Kind::Text),
    one(7, "name", Kind::Text),
];
const PATH_ATTRIBUTES: &[Field] = &[one(1, "path", Kind::Text), one(2, "verb", Kind::Text)];
const ACCESS_SPEC: &[Field] = &[
    one(1, "resourceAttributes", Kind::Message(RESOURCE_ATTRIBUTES)),
    one(2, "nonResourceAttributes", Kind::Message(PATH_ATTRIBUTES)),
    one(3, "user", Kind::Text),
    many(4, "groups", Kind::Text),
    one(5, "extra", Kind::ListMap),
    one(6, "uid", Kind::Text),
];
const RULES_SPEC: &[Field] = &[one(1, "namespace", Kind::Text)];
const TOKEN_REVIEW_SPEC: &[Field] = &[one(1, "token", Kind::Text), many(2, "audiences", Kind::Text)];
const BOUND_OBJECT: &[Field] = &[
    one(1, "kind", Kind::Text),
    one(2, "apiVersion", Kind::Text),
    one(3, "name", Kind::Text),
    one(4, "uid", Kind::Text),
];
const TOKEN_REQUEST_SPEC: &[Field] = &[
    many(1, "audiences", Kind::Text),
    one(3, "boundObjectRef", Kind::Message(BOUND_OBJECT)),
    one(4, "expirationSeconds", Kind::Number),
];

const fn with_spec(spec: &'static [Field]) -> [Field; 3] {
    // The third is the status, which is the answer.
    [
        one(1, "metadata", Kind::Message(OBJECT_META)),
        one(2, "spec", Kind::Message(spec)),
        one(3, "", Kind::Skip),
    ]
}

const ACCESS_REVIEW: &[Field] = &with_spec(ACCESS_SPEC);
const RULES_REVIEW: &[Field] = &with_spec(RULES_SPEC);
const TOKEN_REVIEW: &[Field] = &with_spec(TOKEN_REVIEW_SPEC);
const TOKEN_REQUEST: &[Field] = &with_spec(TOKEN_REQUEST_SPEC);
const WHO_AM_I: &[Field] = &[one(1, "metadata", Kind::Message(OBJECT_META)), one(2, "", Kind::Skip)];

fn message_of(kind: &str) -> Option<&'static [Field]> {
    Some(match kind {
        "ConfigMap" => CONFIG_MAP,
        "Secret" => SECRET,
        "Namespace" => NAMESPACE,
        "ServiceAccount" => SERVICE_ACCOUNT,
        "Role" | "ClusterRole" => ROLE,
        "RoleBinding" | "ClusterRoleBinding" => ROLE_BINDING,
        "DeleteOptions" => DELETE_OPTIONS,
        "Eviction" => EVICTION,
        "SelfSubjectAccessReview" | "SubjectAccessReview" | "LocalSubjectAccessReview" => ACCESS_REVIEW,
        "SelfSubjectRulesReview" => RULES_REVIEW,
        "SelfSubjectReview" => WHO_AM_I,
        "TokenReview" => TOKEN_REVIEW,
        "TokenRequest" => TOKEN_REQUEST,
        _ => return None,
    })
}

const MAGIC: &[u8] = b"k8s\0";
/// None of the messages above is deeper.
const DEPTH_MAX: u32 = 8;

/// Reads a body of media type `application/vnd.kubernetes.protobuf`; `None` where it is not one of the
/// kinds read here, or damaged.
pub fn decode(bytes: &[u8]) -> Option<Value> {
    let mut unknown = Reader(bytes.strip_prefix(MAGIC)?);
    let (mut api_version, mut kind, mut raw) = (String::new(), String::new(), &[][..]);
    while let Some((number, value)) = unknown.next()? {
        match (number, value) {
            (1, Wire::Bytes(type_meta)) => {
                let mut fields = Reader(type_meta);
                while let Some((number, value)) = fields.next()? {
                    match (number, value) {
                        (1, Wire::Bytes(text)) => api_version = text_of(text)?,
                        (2, Wire::Bytes(text)) => kind = text_of(text)?,
                        _ => {}
                    }
                }
            }
            (2, Wire::Bytes(message)) => raw = message,
            // An encoding of the content: none is in use.
            (3, Wire::Bytes(encoding)) if !encoding.is_empty() => return None,
            _ => {}
        }
    }
    let mut object = message(raw, message_of(&kind)?, 0)?;
    object.insert("apiVersion".to_owned(), api_version.into());
    object.insert("kind".to_owned(), kind.into());
    Some(Value::Object(object))
}

fn message(bytes: &[u8], fields: &[Field], depth: u32) -> Option<Map<String, Value>> {
    if depth > DEPTH_MAX {
        return None;
    }
    let mut object = Map::new();
    let mut reader = Reader(bytes);
    while let Some((number, wire)) = reader.next()? {
        let field = fields.iter().find(|f| f.number == number)?;
        if matches!(field.kind, Kind::Skip) {
            continue;
        }
        if let (Kind::TextMap | Kind::ListMap | Kind::BytesMap, Wire::Bytes(entry)) = (field.kind, wire) {
            let (key, value) = map_entry(entry, field.kind)?;
            let map = object.entry(field.name).or_insert_with(|| Map::new().into());
            map.as_object_mut()?.insert(key, value);
            continue;
        }
        let value = match (field.kind, wire) {
            // Empty text is absent text: the encoder writes both alike.
            (Kind::Text, Wire::Bytes([])) if !field.repeated => continue,
            (Kind::Text, Wire::Bytes(text)) => text_of(text)?.into(),
            // Two's complement, as protobuf keeps negative int64.
            (Kind::Number, Wire::Varint(number)) => i64::from_ne_bytes(number.to_ne_bytes()).into(),
            (Kind::Flag, Wire::Varint(number)) => (number != 0).into(),
            (Kind::Message(fields), Wire::Bytes(inner)) => message(inner, fields, depth + 1)?.into(),
            _ => return None,
        };
        if field.repeated {
            let list = object.entry(field.name).or_insert_with(|| Value::Array(Vec::new()));
            list.as_array_mut()?.push(value);
        } else {
            object.insert(field.name.to_owned(), value);
        }
    }
    Some(object)
}

fn map_entry(bytes: &[u8], kind: Kind) -> Option<(String, Value)> {
    let (mut key, mut value) = (String::new(), Value::from(""));
    let mut reader = Reader(bytes);
    while let Some((number, wire)) = reader.next()? {
        match (number, wire) {
            (1, Wire::Bytes(text)) => key = text_of(text)?,
            (2, Wire::Bytes(text)) if matches!(kind, Kind::TextMap) => value = text_of(text)?.into(),
            (2, Wire::Bytes(bytes)) if matches!(kind, Kind::BytesMap) => {
                value = STANDARD.encode(bytes).into()
            }
            (2, Wire::Bytes(list)) => {
                let mut items = Vec::new();
                let mut reader = Reader(list);
                while let Some((_, wire)) = reader.next()? {
                    if let Wire::Bytes(text) = wire {
                        items.push(text_of(text)?.into());
                    }
                }
                value = Value::Array(items);
            }
            _ => {}
        }
    }
    Some((key, value))
}

fn text_of(bytes: &[u8]) -> Option<String> {
    String::from_utf8(bytes.to_vec()).ok()
}

#[derive(Clone, Copy)]
enum Wire<'b> {
    Varint(u64),
    Bytes(&'b [u8]),
    Fixed,
}

/// Fields of one message, in order.
struct Reader<'b>(&'b [u8]);

impl<'b> Reader<'b> {
    /// `None`: damaged. `Some(None)`: the end.
    #[expect(clippy::option_option, reason = "damage and end are different answers")]
    fn next(&mut self) -> Option<Option<(u64, Wire<'b>)>> {
        if self.0.is_empty() {
            return Some(None);
        }
        let tag = self.varint()?;
        let wire = match tag & 7 {
            0 => Wire::Varint(self.varint()?),
            1 => self.take(8).map(|_| Wire::Fixed)?,
            2 => {
                let length = usize::try_from(self.varint()?).ok()?;
                Wire::Bytes(self.take(length)?)
            }
            5 => self.take(4).map(|_| Wire::Fixed)?,
            _ => return None,
        };
        Some(Some((tag >> 3, wire)))
    }

    fn take(&mut self, count: usize) -> Option<&'b [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = *self.take(1)?.first()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(number: u8, content: &[u8]) -> Vec<u8> {
        let mut out = vec![number << 3 | 2, u8::try_from(content.len()).expect("short")];
        out.extend(content);
        out
    }

    #[test]
    fn a_review_is_read() {
        let attributes = [field(1, b"ns"), field(2, b"list"), field(5, b"pods"), field(7, b"")].concat();
        let spec = field(1, &attributes);
        let review = [field(1, b""), field(2, &spec)].concat();
        let type_meta = [field(1, b"authorization.k8s.io/v1"), field(2, b"SelfSubjectAccessReview")].concat();
        let body = [MAGIC.to_vec(), field(1, &type_meta), field(2, &review)].concat();
        let want = serde_json::json!({
            "metadata": {},
            "spec": {"resourceAttributes": {"namespace": "ns", "verb": "list", "resource": "pods"}},
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
        });
        assert_eq!(decode(&body), Some(want));
        let pod = [MAGIC.to_vec(), field(1, &field(2, b"Pod"))].concat();
        assert_eq!(decode(&pod), None);
    }

    #[test]
    fn bytes_become_base64_and_unknown_fields_refuse_the_whole() {
        let entry = [field(1, b"k"), field(2, b"\0v")].concat();
        let body =
            |message: &[u8]| [MAGIC.to_vec(), field(1, &field(2, b"Secret")), field(2, message)].concat();
        let secret = decode(&body(&[field(2, &entry), field(3, b"Opaque")].concat())).expect("readable");
        assert_eq!((&secret["data"]["k"], &secret["type"]), (&"AHY=".into(), &"Opaque".into()));
        assert_eq!(decode(&body(&field(9, b"?"))), None);
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>, kind in "(DeleteOptions|Eviction|TokenReview)") {
            let _ = decode(&[MAGIC, &bytes].concat());
            let type_meta = field(2, kind.as_bytes());
            let head = [MAGIC.to_vec(), field(1, &type_meta)].concat();
            if bytes.len() < 128 {
                let _ = decode(&[head, field(2, &bytes)].concat());
            }
        }
    }
}
