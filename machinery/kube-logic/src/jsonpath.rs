//! The JSONPath subset of printer columns and scale paths: `.a.b`, `['a.b']`, `[0]`, `[*]`, `.*`,
//! `[?(@.type=="Ready")]`.

use serde_json::Value;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct JsonPathError(pub String);

/// A parsed path such as `.spec.replicas` or `.status.conditions[?(@.type=="Ready")].status`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JsonPath {
    steps: Vec<Step>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Field(String),
    /// Negative counts from the end.
    Index(i64),
    All,
    /// Elements whose value at the path compares so with the literal.
    Where {
        path: Vec<String>,
        equal: bool,
        value: Value,
    },
}

impl JsonPath {
    pub fn parse(text: &str) -> Result<Self, JsonPathError> {
        let fail = |why: &str| JsonPathError(format!("{text:?}: {why}"));
        let mut rest = text.trim().trim_start_matches('$');
        let mut steps = Vec::new();
        while !rest.is_empty() {
            if let Some(after) = rest.strip_prefix('.') {
                let end = after.find(['.', '[']).unwrap_or(after.len());
                let (name, tail) = after.split_at(end);
                match name {
                    "" if tail.starts_with('[') => {}
                    "" => return Err(fail("a field name is missing")),
                    "*" => steps.push(Step::All),
                    name => steps.push(Step::Field(name.to_owned())),
                }
                rest = tail;
            } else if let Some(after) = rest.strip_prefix('[') {
                let end = closing(after).ok_or_else(|| fail("a bracket is not closed"))?;
                steps.push(bracket(&after[..end]).ok_or_else(|| fail("this bracket cannot be read"))?);
                rest = &after[end + 1..];
            } else {
                return Err(fail("a path begins with a dot"));
            }
        }
        Ok(Self { steps })
    }

    /// Everything the path leads to, in order; empty where it leads nowhere.
    pub fn find<'v>(&self, root: &'v Value) -> Vec<&'v Value> {
        let mut found = vec![root];
        for step in &self.steps {
            found = found.into_iter().flat_map(|value| step.follow(value)).collect();
        }
        found
    }
}

impl Step {
    fn follow<'v>(&self, value: &'v Value) -> Vec<&'v Value> {
        match (self, value) {
            (Self::Field(name), Value::Object(map)) => map.get(name).into_iter().collect(),
            (Self::Index(index), Value::Array(list)) => {
                let at = if *index < 0 { index + list.len() as i64 } else { *index };
                usize::try_from(at).ok().and_then(|at| list.get(at)).into_iter().collect()
            }
            (Self::All, Value::Array(list)) => list.iter().collect(),
            (Self::All, Value::Object(map)) => map.values().collect(),
            (Self::Where { path, equal, value }, Value::Array(list)) => {
                let holds = |element: &&Value| {
                    let at = path.iter().try_fold(*element, |at, name| at.get(name));
                    (at == Some(value)) == *equal
                };
                list.iter().filter(holds).collect()
            }
            _ => Vec::new(),
        }
    }
}

/// The bracket that closes, not counting those in quotes or further brackets.
fn closing(text: &str) -> Option<usize> {
    let (mut quote, mut depth) = (None, 0_u32);
    for (at, c) in text.char_indices() {
        match (quote, c) {
            (Some(q), c) if c == q => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'') => quote = Some(c),
            (None, '[') => depth += 1,
            (None, ']') if depth == 0 => return Some(at),
            (None, ']') => depth -= 1,
            _ => {}
        }
    }
    None
}

fn bracket(text: &str) -> Option<Step> {
    let text = text.trim();
    if text == "*" {
        return Some(Step::All);
    }
    if let Some(name) = quoted(text) {
        return Some(Step::Field(name));
    }
    if let Some(condition) = text.strip_prefix("?(").and_then(|t| t.strip_suffix(')')) {
        let (left, equal, right) = ["==", "!="]
            .into_iter()
            .find_map(|sign| condition.split_once(sign).map(|(left, right)| (left, sign == "==", right)))?;
        let path =
            left.trim().strip_prefix('@')?.split('.').filter(|n| !n.is_empty()).map(str::to_owned).collect();
        let right = right.trim();
        let value = quoted(right).map(Value::String).or_else(|| serde_json::from_str(right).ok())?;
        return Some(Step::Where { path, equal, value });
    }
    text.parse().ok().map(Step::Index)
}

fn quoted(text: &str) -> Option<String> {
    let inner = |quote| text.strip_prefix(quote)?.strip_suffix(quote);
    inner('\'').or_else(|| inner('"')).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn paths_lead_where_they_say() {
        let object = json!({"spec": {"a": 1, "list": [10, 20]}, "metadata": {"labels": {"x.y/z": "l"}},
            "status": {"conditions": [{"type": "A", "status": "no"}, {"type": "Ready", "status": "yes"}]}});
        for (path, want) in [
            (".spec.a", json!([1])),
            (".spec.list[1]", json!([20])),
            (".spec.list[-1]", json!([20])),
            (".spec.list[*]", json!([10, 20])),
            (".metadata.labels['x.y/z']", json!(["l"])),
            (r#".status.conditions[?(@.type=="Ready")].status"#, json!(["yes"])),
            (r#".status.conditions[?(@.type!="Ready")].status"#, json!(["no"])),
            (".spec.missing.deeper", json!([])),
        ] {
            let found = JsonPath::parse(path).unwrap_or_else(|e| panic!("{e}"));
            assert_eq!(json!(found.find(&object)), want, "{path}");
        }
        for bad in ["spec", ".a..b", ".a[", ".a[x]", "."] {
            assert!(JsonPath::parse(bad).is_err(), "{bad}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_panic(text in ".{0,40}") {
            if let Ok(path) = JsonPath::parse(&text) {
                let _ = path.find(&json!({"a": [{"b": 1}]}));
            }
        }
    }
}
