//! Query parameters, read as upstream's `metav1.*Options`.

use gantry_kube_logic::selector::{FieldSelector, LabelSelector};
use gantry_kube_types::{FieldError, StatusError};

/// The decoded pairs of a query string.
#[derive(Clone, Debug, Default)]
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    pub(crate) fn parse(query: Option<&str>) -> Self {
        let pairs = query.unwrap_or("").split('&').filter(|p| !p.is_empty());
        Self(
            pairs
                .map(|p| p.split_once('=').unwrap_or((p, "")))
                .map(|(k, v)| (decode(k), decode(v)))
                .collect(),
        )
    }

    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(k, _)| k == name).map(|(_, v)| v.as_str())
    }

    pub(crate) fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(k, v)| (k.as_str(), v.as_str()))
    }

    /// `""` where absent.
    pub(crate) fn text(&self, name: &str) -> &str {
        self.get(name).unwrap_or("")
    }

    pub(crate) fn flag(&self, name: &str) -> bool {
        self.get(name).is_some_and(|v| !matches!(v, "false" | "0" | "False" | "FALSE" | "f" | "F"))
    }

    pub(crate) fn number(&self, name: &str) -> Result<Option<i64>, StatusError> {
        match self.get(name) {
            None | Some("") => Ok(None),
            Some(text) => text.parse().map(Some).map_err(|_| {
                StatusError::bad_request(format!("invalid value for {name}: {text:?} is not a number"))
            }),
        }
    }

    /// `dryRun=All`; anything else is refused.
    pub(crate) fn dry_run(&self, options: &str) -> Result<bool, StatusError> {
        match self.get("dryRun") {
            None | Some("") => Ok(false),
            Some("All") => Ok(true),
            Some(other) => Err(StatusError::invalid(
                "meta.k8s.io",
                options,
                "",
                &[FieldError::not_supported("dryRun", other, &["All"])],
            )),
        }
    }
}

/// Form decoding: `+` is a space; malformed escapes stay.
fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let escape = (bytes[at] == b'%')
            .then(|| text.get(at + 1..at + 3).and_then(|hex| u8::from_str_radix(hex, 16).ok()))
            .flatten();
        out.push(escape.unwrap_or(if bytes[at] == b'+' { b' ' } else { bytes[at] }));
        at += if escape.is_some() { 3 } else { 1 };
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// How strictly unknown and duplicate fields are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FieldValidation {
    Ignore,
    Warn,
    Strict,
}

impl FieldValidation {
    pub(crate) fn of(query: &Query) -> Result<Self, StatusError> {
        match query.text("fieldValidation") {
            "" | "Warn" => Ok(Self::Warn),
            "Ignore" => Ok(Self::Ignore),
            "Strict" => Ok(Self::Strict),
            other => Err(StatusError::invalid(
                "meta.k8s.io",
                "CreateOptions",
                "",
                &[FieldError::not_supported("fieldValidation", other, &["Ignore", "Warn", "Strict"])],
            )),
        }
    }
}

/// Both selectors of a list or watch.
#[derive(Clone, Debug, Default)]
pub(crate) struct Selectors {
    pub(crate) labels: LabelSelector,
    pub(crate) fields: FieldSelector,
}

impl Selectors {
    pub(crate) fn of(query: &Query) -> Result<Self, StatusError> {
        let bad = |what: &str, error: &dyn std::fmt::Display| {
            StatusError::bad_request(format!("unable to parse requirement of {what}: {error}"))
        };
        let labels = match query.text("labelSelector") {
            "" => LabelSelector::everything(),
            text => LabelSelector::parse(text).map_err(|e| bad("labelSelector", &e.0))?,
        };
        let fields = match query.text("fieldSelector") {
            "" => FieldSelector::default(),
            text => FieldSelector::parse(text).map_err(|e| bad("fieldSelector", &e.0))?,
        };
        Ok(Self { labels, fields })
    }

    pub(crate) fn is_everything(&self) -> bool {
        self.labels.is_everything() && self.fields.is_everything()
    }

    /// The one name wanted, where a field selector says so.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.fields.requirements.iter().find(|r| r.equal && r.field == name).map(|r| r.value.as_str())
    }
}

/// `resourceVersion` as a number: `None` where absent or empty.
pub(crate) fn resource_version(text: &str) -> Result<Option<u64>, StatusError> {
    if text.is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|_| {
        StatusError::bad_request(format!("invalid resource version {text:?}: must be a decimal number"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_form_decoded() {
        let query = Query::parse(Some("labelSelector=a%3Db%2Cc+in+%28d%29&watch&limit=5&bad=%zz"));
        assert_eq!(query.text("labelSelector"), "a=b,c in (d)");
        assert!(query.flag("watch"));
        assert_eq!(query.number("limit").expect("a number"), Some(5));
        assert_eq!(query.text("bad"), "%zz");
        assert!(query.number("bad").is_err());
    }
}
