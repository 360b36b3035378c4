//! The objects that kubectl sends as Kubernetes protobuf even to servers that offer JSON: reviews,
//! token requests, evictions, delete options, and the kinds that `kubectl create` makes from
//! flags (kubectl ≥ 1.32).
//!
//! A body is the four bytes `k8s\0` and a `runtime.Unknown` (`k8s.io/apimachinery/pkg/runtime`,
//! generated.proto) that names the kind and holds its message. Field numbers are those of the published
//! generated.proto of each group. A kind or a field that is not written here is refused as a whole (415):
//! dropping it would change what the client asked for.

mod kinds;
mod workloads;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

use kinds::{Field, Kind, message_of};

const MAGIC: &[u8] = b"k8s\0";
/// None of the messages is deeper: of a CronJob, down to the ports of its containers.
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
        if let (Kind::TextMap | Kind::ListMap | Kind::BytesMap | Kind::QuantityMap, Wire::Bytes(entry)) =
            (field.kind, wire)
        {
            let (key, value) = map_entry(entry, field.kind)?;
            let map = object.entry(field.name).or_insert_with(|| Map::new().into());
            map.as_object_mut()?.insert(key, value);
            continue;
        }
        if let (Kind::Inline(fields), Wire::Bytes(inner)) = (field.kind, wire) {
            object.extend(message(inner, fields, depth + 1)?);
            continue;
        }
        let value = match (field.kind, wire) {
            // Empty text is absent text: the encoder writes both alike.
            (Kind::Text, Wire::Bytes([])) if !field.repeated => continue,
            (Kind::Count | Kind::Switch, Wire::Varint(0)) => continue,
            (Kind::Text, Wire::Bytes(text)) => text_of(text)?.into(),
            // Two's complement, as protobuf keeps negative int64.
            (Kind::Number | Kind::Count, Wire::Varint(number)) => signed(number).into(),
            (Kind::Flag | Kind::Switch, Wire::Varint(number)) => (number != 0).into(),
            (Kind::IntOrString, Wire::Bytes(inner)) => int_or_string(inner)?,
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

fn signed(number: u64) -> i64 {
    i64::from_ne_bytes(number.to_ne_bytes())
}

/// `IntOrString`: its first field says which of the other two counts.
fn int_or_string(bytes: &[u8]) -> Option<Value> {
    let (mut is_text, mut number, mut text) = (false, 0, String::new());
    let mut reader = Reader(bytes);
    while let Some((field, wire)) = reader.next()? {
        match (field, wire) {
            (1, Wire::Varint(kind)) => is_text = kind == 1,
            (2, Wire::Varint(value)) => number = signed(value),
            (3, Wire::Bytes(value)) => text = text_of(value)?,
            _ => return None,
        }
    }
    Some(if is_text { text.into() } else { number.into() })
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
            (2, Wire::Bytes(quantity)) if matches!(kind, Kind::QuantityMap) => {
                let mut reader = Reader(quantity);
                while let Some((1, Wire::Bytes(text))) = reader.next()? {
                    value = text_of(text)?.into();
                }
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
        fn no_bytes_make_it_panic(bytes: Vec<u8>, kind in "(DeleteOptions|Eviction|TokenReview|CronJob|PodDisruptionBudget|ResourceQuota)") {
            let _ = decode(&[MAGIC, &bytes].concat());
            let type_meta = field(2, kind.as_bytes());
            let head = [MAGIC.to_vec(), field(1, &type_meta)].concat();
            if bytes.len() < 128 {
                let _ = decode(&[head, field(2, &bytes)].concat());
            }
        }
    }
}
