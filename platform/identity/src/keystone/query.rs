//! What a list's query asks for: filters, a page, an order.

use std::cmp::Ordering;

use serde_json::Value;

use super::errors::ApiError;
use super::schema::Json;

/// Items in an answer at most; further pages are had with `marker`.
const PAGE_MAX: usize = 10_000;

/// The decoded query of a request, in the order it was written.
#[derive(Clone, Debug, Default)]
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    pub(crate) fn of(uri: &http::Uri) -> Self {
        let pairs = axum::extract::Query::<Vec<(String, String)>>::try_from_uri(uri);
        Self(pairs.map(|pairs| pairs.0).unwrap_or_default())
    }

    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// A flag is on when it is there, unless it says no.
    pub(crate) fn flag(&self, name: &str) -> bool {
        self.get(name)
            .is_some_and(|value| !matches!(value.to_ascii_lowercase().as_str(), "0" | "false" | "no"))
    }

    /// Does the item have what the filters among `names` ask for? `tags` and its kin are always among them.
    pub(crate) fn matches(&self, names: &[&str], item: &Json) -> bool {
        self.0.iter().all(|(key, wanted)| {
            if let Some(found) = tags_match(key, wanted, item) {
                return found;
            }
            let (name, how) = key.split_once("__").unwrap_or((key, "equals"));
            !names.contains(&name) || compare(item.get(name), how, wanted)
        })
    }

    /// Cuts the page that is asked for out of the items; the marker of the next page, where there is one.
    pub(crate) fn page(&self, items: &mut Vec<Json>) -> Result<Option<String>, ApiError> {
        if let Some(key) = self.get("sort_key") {
            let order = |a: &Json, b: &Json| compare_values(a.get(key), b.get(key));
            let down = self.get("sort_dir") == Some("desc");
            items.sort_by(|a, b| if down { order(b, a) } else { order(a, b) });
        }
        if let Some(marker) = self.get("marker") {
            let at = items.iter().position(|item| id_of(item) == Some(marker));
            let at = at.ok_or_else(|| ApiError::invalid(format!("Marker {marker} could not be found.")))?;
            items.drain(..=at);
        }
        let limit = match self.get("limit") {
            None => PAGE_MAX,
            Some(text) => match text.parse::<usize>() {
                Ok(limit) if limit > 0 => limit.min(PAGE_MAX),
                _ => {
                    return Err(ApiError::invalid(format!(
                        "limit is {text:?}; a number above 0 is expected"
                    )));
                }
            },
        };
        let more = items.len() > limit;
        items.truncate(limit);
        Ok(items.last().filter(|_| more).and_then(|last| id_of(last).map(str::to_owned)))
    }

    /// The decoded pairs.
    pub(crate) fn pairs(&self) -> &[(String, String)] {
        &self.0
    }

    /// The query with another marker.
    pub(crate) fn with_marker(&self, marker: &str) -> String {
        let kept = self.0.iter().filter(|(key, _)| key != "marker");
        let kept = kept.map(|(key, value)| (key.as_str(), value.as_str()));
        let all = kept.chain([("marker", marker)]);
        all.map(|(key, value)| format!("{}={}", encode(key), encode(value))).collect::<Vec<_>>().join("&")
    }
}

fn id_of(item: &Json) -> Option<&str> {
    item.get("id").and_then(Value::as_str)
}

/// Percent-encodes what does not stand for itself in a query.
pub(crate) fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

/// `None`: the key is no filter of tags.
fn tags_match(key: &str, wanted: &str, item: &Json) -> Option<bool> {
    let has = |tag: &str| {
        item.get("tags")
            .and_then(Value::as_array)
            .is_some_and(|tags| tags.iter().any(|t| t.as_str() == Some(tag)))
    };
    let mut asked = wanted.split(',');
    match key {
        "tags" => Some(asked.all(has)),
        "tags-any" => Some(asked.any(has)),
        "not-tags" => Some(!asked.all(has)),
        "not-tags-any" => Some(!asked.any(has)),
        _ => None,
    }
}

fn compare(value: Option<&Value>, how: &str, wanted: &str) -> bool {
    let text = match value {
        None | Some(Value::Null) => return wanted.is_empty() && how == "equals",
        Some(Value::Bool(value)) => {
            let no = matches!(wanted.to_ascii_lowercase().as_str(), "0" | "false" | "no");
            return *value != no;
        }
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    };
    match how {
        "contains" => text.contains(wanted),
        "icontains" => text.to_lowercase().contains(&wanted.to_lowercase()),
        "startswith" => text.starts_with(wanted),
        "istartswith" => text.to_lowercase().starts_with(&wanted.to_lowercase()),
        "endswith" => text.ends_with(wanted),
        "iendswith" => text.to_lowercase().ends_with(&wanted.to_lowercase()),
        "iequals" => text.to_lowercase() == wanted.to_lowercase(),
        "equals" => text == wanted,
        // A comparison that is not known limits nothing.
        _ => true,
    }
}

fn compare_values(a: Option<&Value>, b: Option<&Value>) -> Ordering {
    match (a, b) {
        (Some(Value::Number(a)), Some(Value::Number(b))) => {
            a.as_f64().partial_cmp(&b.as_f64()).unwrap_or(Ordering::Equal)
        }
        (Some(Value::String(a)), Some(Value::String(b))) => a.cmp(b),
        (a, b) => a.map(Value::to_string).cmp(&b.map(Value::to_string)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn query(text: &str) -> Query {
        Query::of(&format!("/x?{text}").parse().expect("a path"))
    }

    fn item(value: Value) -> Json {
        value.as_object().cloned().expect("an object")
    }

    #[test]
    fn filters_limit_by_declared_attributes() {
        let alice =
            item(json!({"id": "1", "name": "Alice", "enabled": true, "n": 3, "tags": ["x", "y"], "d": null}));
        for (text, want) in [
            ("", true),
            ("name=Alice", true),
            ("name=alice", false),
            ("name__iequals=alice", true),
            ("name__contains=lic", true),
            ("name__startswith=li", false),
            ("name__endswith=ce", true),
            ("name__bogus=q", true),
            ("enabled", true),
            ("enabled=0", false),
            ("enabled=False", false),
            ("undeclared=zzz", true),
            ("n=3", true),
            ("d=", true),
            ("d=x", false),
            ("missing=x", false),
            ("tags=x,y", true),
            ("tags=x,z", false),
            ("tags-any=x,z", true),
            ("not-tags=x,y", false),
            ("not-tags-any=z", true),
            ("name=Al%69ce&enabled=true", true),
        ] {
            let names = ["name", "enabled", "n", "d", "missing"];
            assert_eq!(query(text).matches(&names, &alice), want, "{text}");
        }
    }

    #[test]
    fn pages_follow_each_other() {
        let all: Vec<Json> = (1..=5).map(|n| item(json!({"id": n.to_string(), "name": 9 - n}))).collect();
        let ids = |items: &[Json]| items.iter().filter_map(id_of).collect::<String>();
        for (text, want, next) in [
            ("", "12345", None),
            ("limit=2", "12", Some("2")),
            ("limit=2&marker=2", "34", Some("4")),
            ("limit=2&marker=4", "5", None),
            ("limit=5", "12345", None),
            ("sort_key=name", "54321", None),
            ("sort_key=name&sort_dir=desc&limit=1", "1", Some("1")),
        ] {
            let mut items = all.clone();
            let marker = query(text).page(&mut items).expect("a page");
            assert_eq!((ids(&items).as_str(), marker.as_deref()), (want, next), "{text}");
        }
        for text in ["limit=0", "limit=x", "marker=9"] {
            assert!(query(text).page(&mut all.clone()).is_err(), "{text}");
        }
        assert_eq!(query("a=b%20c&marker=1").with_marker("2"), "a=b%20c&marker=2");
    }
}
