//! Label and field selectors as `k8s.io/apimachinery/pkg/labels` and `…/pkg/fields` read them.

use std::borrow::Cow;

use serde_json::{Map, Value};

use crate::names;

/// Why a selector could not be read; the text is the one upstream gives.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SelectorError(pub String);

/// A conjunction of label requirements. The default selects everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabelSelector {
    requirements: Vec<Requirement>,
    nothing: bool,
}

/// One label requirement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirement {
    pub key: String,
    pub operator: Operator,
    /// Sorted, without repetition.
    pub values: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    In,
    NotIn,
    Exists,
    DoesNotExist,
    GreaterThan,
    LessThan,
}

/// A conjunction of `field=value` and `field!=value`. The default selects everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSelector {
    pub requirements: Vec<FieldRequirement>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldRequirement {
    pub field: String,
    pub value: String,
    /// True for `=` and `==`, false for `!=`.
    pub equal: bool,
}

impl LabelSelector {
    /// Reads the query form: `a=b,c!=d,e in (x,y),!f`.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        let mut requirements = Vec::new();
        for part in split_outside_parentheses(text)? {
            requirements.push(parse_requirement(part.trim())?);
        }
        requirements.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(Self { requirements, nothing: false })
    }

    /// Reads a `metav1.LabelSelector` object; `null` selects nothing, `{}` everything.
    pub fn from_object(selector: &Value) -> Result<Self, SelectorError> {
        let Some(object) = selector.as_object() else { return Ok(Self::nothing()) };
        let labels = object.get("matchLabels").and_then(Value::as_object);
        let mut read = labels.map(Self::from_map).unwrap_or_default();
        for expression in object.get("matchExpressions").and_then(Value::as_array).into_iter().flatten() {
            let operator = match expression["operator"].as_str().unwrap_or_default() {
                "In" => Operator::In,
                "NotIn" => Operator::NotIn,
                "Exists" => Operator::Exists,
                "DoesNotExist" => Operator::DoesNotExist,
                other => {
                    return Err(SelectorError(format!("{other:?} is not a valid label selector operator")));
                }
            };
            let values = expression["values"].as_array().into_iter().flatten();
            let values = values.filter_map(Value::as_str).map(str::to_owned).collect();
            read.requirements.push(requirement(
                expression["key"].as_str().unwrap_or_default(),
                operator,
                values,
            )?);
        }
        Ok(read)
    }

    /// Reads a plain map (`Service.spec.selector`, `ReplicationController.spec.selector`).
    pub fn from_map(labels: &Map<String, Value>) -> Self {
        let requirements = labels.iter().map(|(key, value)| Requirement {
            key: key.clone(),
            operator: Operator::In,
            values: vec![value.as_str().unwrap_or_default().to_owned()],
        });
        Self { requirements: requirements.collect(), nothing: false }
    }

    pub fn everything() -> Self {
        Self::default()
    }

    pub fn nothing() -> Self {
        Self { requirements: Vec::new(), nothing: true }
    }

    pub fn is_everything(&self) -> bool {
        !self.nothing && self.requirements.is_empty()
    }

    pub fn requirements(&self) -> &[Requirement] {
        &self.requirements
    }

    /// `labels` is `metadata.labels` of an object, `None` where absent.
    pub fn matches(&self, labels: Option<&Map<String, Value>>) -> bool {
        self.matches_with(|key| labels?.get(key)?.as_str())
    }

    /// As `matches`, with any way to look a label up.
    pub fn matches_with<'a>(&self, label: impl Fn(&str) -> Option<&'a str>) -> bool {
        !self.nothing && self.requirements.iter().all(|r| r.matches(label(&r.key)))
    }
}

impl Requirement {
    fn matches(&self, value: Option<&str>) -> bool {
        let listed = |v: &str| self.values.iter().any(|w| w == v);
        let bound = || self.values.first().and_then(|v| v.parse::<i64>().ok());
        let number = || value.and_then(|v| v.parse::<i64>().ok());
        match self.operator {
            Operator::In => value.is_some_and(listed),
            Operator::NotIn => !value.is_some_and(listed),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
            Operator::GreaterThan => number().zip(bound()).is_some_and(|(n, b)| n > b),
            Operator::LessThan => number().zip(bound()).is_some_and(|(n, b)| n < b),
        }
    }
}

fn unreadable(why: impl std::fmt::Display) -> SelectorError {
    SelectorError(format!("unable to parse requirement: {why}"))
}

fn requirement(key: &str, operator: Operator, mut values: Vec<String>) -> Result<Requirement, SelectorError> {
    let wrong = names::qualified_name(key);
    if !wrong.is_empty() {
        return Err(unreadable(format!("<nil>: Invalid value: {key:?}: {}", wrong.join("; "))));
    }
    let count_is_wrong = match operator {
        Operator::In | Operator::NotIn => {
            values.is_empty().then_some("for 'in', 'notin' operators, values set can't be empty")
        }
        Operator::Exists | Operator::DoesNotExist => {
            (!values.is_empty()).then_some("values set must be empty for exists and does not exist")
        }
        Operator::GreaterThan | Operator::LessThan => match values.as_slice() {
            [one] if one.parse::<i64>().is_ok() => None,
            _ => Some("for 'Gt', 'Lt' operators, exactly one value is required, and it must be an integer"),
        },
    };
    if let Some(wrong) = count_is_wrong {
        return Err(unreadable(format!("values: Invalid value: {values:?}: {wrong}")));
    }
    for value in &values {
        let wrong = names::label_value(value);
        if !wrong.is_empty() {
            return Err(unreadable(format!(
                "values[0][{key}]: Invalid value: {value:?}: {}",
                wrong.join("; ")
            )));
        }
    }
    values.sort();
    values.dedup();
    Ok(Requirement { key: key.to_owned(), operator, values })
}

/// Splits at commas that are not in parentheses; an empty text has no parts.
fn split_outside_parentheses(text: &str) -> Result<Vec<&str>, SelectorError> {
    let (mut parts, mut from, mut depth) = (Vec::new(), 0, 0_u32);
    for (at, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' if depth == 0 => {
                return Err(unreadable("found ')', expected: identifier, or 'end of string'"));
            }
            ')' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&text[from..at]);
                from = at + 1;
            }
            _ => {}
        }
    }
    if depth > 0 {
        return Err(unreadable("found '', expected: ',', or ')'"));
    }
    let last = &text[from..];
    match (parts.is_empty(), last.trim().is_empty()) {
        (true, true) => Ok(parts),
        (false, true) => Err(unreadable("found '', expected: identifier after ','")),
        _ => {
            parts.push(last);
            Ok(parts)
        }
    }
}

fn parse_requirement(text: &str) -> Result<Requirement, SelectorError> {
    if let Some(key) = text.strip_prefix('!') {
        return requirement(key.trim(), Operator::DoesNotExist, Vec::new());
    }
    for (sign, operator) in [
        ("!=", Operator::NotIn),
        ("==", Operator::In),
        ("=", Operator::In),
        (">", Operator::GreaterThan),
        ("<", Operator::LessThan),
    ] {
        if let Some((key, value)) = text.split_once(sign).filter(|_| !text.contains('(')) {
            return requirement(key.trim(), operator, vec![value.trim().to_owned()]);
        }
    }
    let Some((head, list)) = text.split_once('(') else {
        let mut words = text.split_whitespace();
        let key = words.next().unwrap_or_default();
        if let Some(extra) = words.next() {
            return Err(unreadable(format!("found '{extra}', expected: in, notin, =, ==, !=, gt, lt")));
        }
        return requirement(key, Operator::Exists, Vec::new());
    };
    let list = list.strip_suffix(')').ok_or_else(|| unreadable("found '', expected: ',', or ')'"))?;
    let values: Vec<String> = list.split(',').map(|v| v.trim().to_owned()).collect();
    let words: Vec<&str> = head.split_whitespace().collect();
    match words.as_slice() {
        [key, "in"] => requirement(key, Operator::In, values),
        [key, "notin"] => requirement(key, Operator::NotIn, values),
        _ => Err(unreadable(format!("found '{}', expected: in, notin", words.get(1).unwrap_or(&"")))),
    }
}

impl FieldSelector {
    /// `\`, `,` and `=` in a value are escaped by `\`.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        let mut requirements = Vec::new();
        for part in split_unescaped(text) {
            if part.is_empty() {
                continue;
            }
            let (field, sign, value) = split_sign(&part).ok_or_else(|| {
                SelectorError(format!("invalid selector: '{text}'; can't understand '{part}'"))
            })?;
            let value = unescape(value).ok_or_else(|| {
                SelectorError(format!("invalid field selector: invalid escape sequence in {value:?}"))
            })?;
            requirements.push(FieldRequirement { field: field.to_owned(), value, equal: sign });
        }
        Ok(Self { requirements })
    }

    pub fn is_everything(&self) -> bool {
        self.requirements.is_empty()
    }

    /// `field` gives a field's value, `""` where it is absent.
    pub fn matches<'a>(&self, field: impl Fn(&str) -> Cow<'a, str>) -> bool {
        self.requirements.iter().all(|r| (field(&r.field) == r.value.as_str()) == r.equal)
    }
}

fn split_unescaped(text: &str) -> Vec<String> {
    let (mut parts, mut part, mut escaped) = (Vec::new(), String::new(), false);
    for c in text.chars() {
        if c == ',' && !escaped {
            parts.push(std::mem::take(&mut part));
        } else {
            part.push(c);
        }
        escaped = c == '\\' && !escaped;
    }
    parts.push(part);
    parts
}

fn split_sign(part: &str) -> Option<(&str, bool, &str)> {
    let at = part.find(['=', '!'])?;
    let (field, rest) = part.split_at(at);
    let signs = [("!=", false), ("==", true), ("=", true)];
    signs.into_iter().find_map(|(sign, equal)| rest.strip_prefix(sign).map(|value| (field, equal, value)))
}

fn unescape(value: &str) -> Option<String> {
    let mut out = String::with_capacity(value.len());
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some(escaped @ ('\\' | ',' | '=')) => out.push(escaped),
                _ => return None,
            },
            ',' | '=' => return None,
            other => out.push(other),
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn label_selectors_select() {
        let labels = json!({"app": "web", "tier": "2"});
        for (text, want) in [
            ("", true),
            ("app=web", true),
            ("app == web", true),
            ("app!=web", false),
            ("missing!=web", true),
            ("app in (api, web),tier", true),
            ("app notin (web)", false),
            ("!missing", true),
            ("!app", false),
            ("tier>1", true),
            ("tier<2", false),
            ("app=", false),
        ] {
            let selector = LabelSelector::parse(text).unwrap_or_else(|e| panic!("{text}: {e}"));
            assert_eq!(selector.matches(labels.as_object()), want, "{text}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_refused() {
        for text in ["app in web", "app in (a", "=x", "a,", "a b", "a in ()x", "x=a b", "tier>x", "a)"] {
            assert!(LabelSelector::parse(text).is_err(), "{text}");
        }
        assert!(FieldSelector::parse("a").is_err());
        assert!(FieldSelector::parse(r"a=b\x").is_err());
    }

    #[test]
    fn selector_objects() {
        assert!(!LabelSelector::from_object(&Value::Null).expect("nothing").matches(None));
        assert!(LabelSelector::from_object(&json!({})).expect("everything").matches(None));
        let object =
            json!({"matchLabels": {"a": "b"}, "matchExpressions": [{"key": "c", "operator": "Exists"}]});
        let selector = LabelSelector::from_object(&object).expect("readable");
        assert!(selector.matches(json!({"a": "b", "c": ""}).as_object()));
        assert!(!selector.matches(json!({"a": "b"}).as_object()));
        assert!(
            LabelSelector::from_object(&json!({"matchExpressions": [{"key": "c", "operator": "Is"}]}))
                .is_err()
        );
    }

    #[test]
    fn field_selectors_compare() {
        let selector =
            FieldSelector::parse(r"spec.nodeName=n1,status.phase!=Failed,metadata.name==a\,b").expect("ok");
        let of = |phase: &'static str| {
            move |field: &str| -> Cow<'static, str> {
                match field {
                    "spec.nodeName" => "n1".into(),
                    "status.phase" => phase.into(),
                    _ => "a,b".into(),
                }
            }
        };
        assert!(selector.matches(of("Running")));
        assert!(!selector.matches(of("Failed")));
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_panic(text in ".{0,60}") {
            let _ = LabelSelector::parse(&text);
            let _ = FieldSelector::parse(&text);
        }
    }
}
