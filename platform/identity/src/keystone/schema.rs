//! What a request's attributes must look like, and the messages for those that do not (JSON Schema's, as Keystone
//! passes them on).

use serde_json::{Map, Value};

use super::errors::ApiError;

/// The attributes of one object.
pub(crate) type Json = Map<String, Value>;

/// The words Keystone takes for yes and no.
const YES: &[&str] = &["True", "TRUE", "true", "1", "y", "Y", "on", "ON", "yes"];
const NO: &[&str] = &["False", "FALSE", "false", "", "0", "n", "N", "off", "OFF", "no"];
const TAGS_MAX: usize = 80;
const TAG_CHARACTERS_MAX: usize = 255;

/// What an attribute's value may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// 1 to so many characters.
    Name(usize),
    /// Any text.
    Text,
    Boolean,
    /// A whole number of at least so much.
    Integer(i64),
    Object,
    Array,
    Tags,
    OneOf(&'static [&'static str]),
    /// 32 hexadecimal digits.
    Uuid,
    Url,
}

/// One attribute.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Field {
    pub(crate) name: &'static str,
    pub(crate) form: Form,
    pub(crate) required: bool,
    /// `null` stands for absent.
    pub(crate) nullable: bool,
}

/// An attribute that may be left out.
pub(crate) const fn may(name: &'static str, form: Form) -> Field {
    Field { name, form, required: false, nullable: false }
}

/// An attribute that may be left out or be null.
pub(crate) const fn null(name: &'static str, form: Form) -> Field {
    Field { name, form, required: false, nullable: true }
}

/// An attribute that a new object must have.
pub(crate) const fn must(name: &'static str, form: Form) -> Field {
    Field { name, form, required: true, nullable: false }
}

/// The attributes of a kind of object.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    /// `user`: the member of the body that holds the object.
    pub(crate) member: &'static str,
    pub(crate) fields: &'static [Field],
    /// Attributes that are not known are refused rather than kept.
    pub(crate) closed: bool,
}

impl Shape {
    pub(crate) const fn open(member: &'static str, fields: &'static [Field]) -> Self {
        Self { member, fields, closed: false }
    }

    pub(crate) const fn closed(member: &'static str, fields: &'static [Field]) -> Self {
        Self { member, fields, closed: true }
    }

    /// Checks a new object; words for yes and no become booleans.
    pub(crate) fn new_object(&self, object: &mut Json) -> Result<(), ApiError> {
        let missing = self.fields.iter().find(|field| field.required && !object.contains_key(field.name));
        if let Some(field) = missing {
            let message = format!("'{}' is a required property", field.name);
            return Err(bad(self.member, &Value::Object(object.clone()), &message));
        }
        self.values(object)
    }

    /// Checks the attributes of a change.
    pub(crate) fn change(&self, object: &mut Json) -> Result<(), ApiError> {
        if object.is_empty() {
            return Err(bad(self.member, &Value::Object(Json::new()), "{} should be non-empty"));
        }
        self.values(object)
    }

    fn values(&self, object: &mut Json) -> Result<(), ApiError> {
        let known =
            |name: &str| self.fields.iter().any(|f| f.name == name) || name == "id" || name == "links";
        let unknown = self.closed.then(|| object.keys().find(|name| !known(name))).flatten();
        if let Some(name) = unknown {
            let message = format!("Additional properties are not allowed ('{name}' was unexpected)");
            return Err(bad(self.member, &Value::Object(object.clone()), &message));
        }
        for field in self.fields {
            let Some(value) = object.get_mut(field.name) else { continue };
            if value.is_null() && field.nullable {
                continue;
            }
            if field.form == Form::Boolean {
                truth(field.name, value)?;
            } else {
                check(field.name, value, field.form)?;
            }
        }
        Ok(())
    }
}

/// `Invalid input for field/attribute NAME. Value: VALUE. MESSAGE`
pub(crate) fn bad(name: &str, value: &Value, message: &str) -> ApiError {
    let shown = match value {
        Value::String(text) => text.clone(),
        other => python(other),
    };
    ApiError::invalid(format!("Invalid input for field/attribute {name}. Value: {shown}. {message}"))
}

fn check(name: &str, value: &Value, form: Form) -> Result<(), ApiError> {
    let wrong =
        |expected: &str| Err(bad(name, value, &format!("{} is not of type '{expected}'", python(value))));
    let no = |said: &str| Err(bad(name, value, &format!("{} {said}", python(value))));
    match (form, value) {
        (Form::Boolean, _) | (Form::Text, Value::String(_)) => Ok(()),
        (Form::Name(_), Value::String(text)) if text.is_empty() => no("should be non-empty"),
        (Form::Name(max), Value::String(text)) if text.chars().count() > max => no("is too long"),
        (Form::Name(_), Value::String(text)) if text.trim().is_empty() => no("does not match '[\\S]+'"),
        (Form::Uuid, Value::String(text)) if !is_uuid(text) => no("is not a 'uuid'"),
        (Form::Url, Value::String(text)) if !is_url(text) => no("does not match '^[a-zA-Z0-9+.-]+:.+'"),
        (Form::Name(_) | Form::Uuid | Form::Url, Value::String(_)) => Ok(()),
        (Form::OneOf(words), Value::String(text)) if words.contains(&text.as_str()) => Ok(()),
        (Form::OneOf(words), _) => {
            let words: Vec<Value> = words.iter().map(|w| Value::from(*w)).collect();
            no(&format!("is not one of {}", python(&Value::Array(words))))
        }
        (Form::Integer(least), Value::Number(number)) => match number.as_i64() {
            Some(number) if number >= least => Ok(()),
            Some(_) => no(&format!("is less than the minimum of {least}")),
            None => wrong("integer"),
        },
        (Form::Object, Value::Object(_)) | (Form::Array, Value::Array(_)) => Ok(()),
        (Form::Tags, Value::Array(tags)) => self::tags(tags),
        (Form::Integer(_), _) => wrong("integer"),
        (Form::Object, _) => wrong("object"),
        (Form::Array | Form::Tags, _) => wrong("array"),
        (Form::Name(_) | Form::Text | Form::Uuid | Form::Url, _) => wrong("string"),
    }
}

/// The words of a project or domain.
pub(crate) fn tags(tags: &[Value]) -> Result<(), ApiError> {
    let all = || Value::Array(tags.to_vec());
    if tags.len() > TAGS_MAX {
        return Err(ApiError::invalid(format!("{} is too long", python(&all()))));
    }
    for (at, tag) in tags.iter().enumerate() {
        let at = at.to_string();
        check(&at, tag, Form::Name(TAG_CHARACTERS_MAX))?;
        if tag.as_str().is_some_and(|tag| tag.contains([',', '/'])) {
            return Err(bad(&at, tag, &format!("{} does not match '^[^,/]*$'", python(tag))));
        }
        if tags.iter().filter(|other| *other == tag).count() > 1 {
            return Err(ApiError::invalid(format!("{} has non-unique elements", python(&all()))));
        }
    }
    Ok(())
}

fn truth(name: &str, value: &mut Value) -> Result<(), ApiError> {
    let word = match value {
        Value::Bool(_) => return Ok(()),
        Value::String(word) if YES.contains(&word.as_str()) => true,
        Value::String(word) if NO.contains(&word.as_str()) => false,
        _ => {
            let known = "[True, 'True', 'TRUE', 'true', False, 'False', 'FALSE', 'false', '', '1', '0', 'y', 'Y', \
                         'n', 'N', 'on', 'ON', 'off', 'OFF', 'yes', 'no']";
            return Err(bad(name, value, &format!("{} is not one of {known}", python(value))));
        }
    };
    *value = Value::Bool(word);
    Ok(())
}

pub(crate) fn is_uuid(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit())
}

fn is_url(text: &str) -> bool {
    text.split_once(':').is_some_and(|(scheme, rest)| {
        let letter = |b: u8| b.is_ascii_alphanumeric() || b"+.-".contains(&b);
        !scheme.is_empty() && scheme.bytes().all(letter) && !rest.is_empty()
    })
}

/// A value as Python writes it, which is how it stands in Keystone's messages.
pub(crate) fn python(value: &Value) -> String {
    match value {
        Value::Null => "None".to_owned(),
        Value::Bool(true) => "True".to_owned(),
        Value::Bool(false) => "False".to_owned(),
        Value::Number(number) => number.to_string(),
        Value::String(text) if text.contains('\'') && !text.contains('"') => format!("\"{text}\""),
        Value::String(text) => format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'")),
        Value::Array(items) => {
            format!("[{}]", items.iter().map(python).collect::<Vec<_>>().join(", "))
        }
        Value::Object(members) => {
            let members = members.iter().map(|(key, value)| format!("'{key}': {}", python(value)));
            format!("{{{}}}", members.collect::<Vec<_>>().join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const SHAPE: Shape = Shape::open(
        "thing",
        &[
            must("name", Form::Name(5)),
            may("enabled", Form::Boolean),
            null("count", Form::Integer(1)),
            may("kind", Form::OneOf(&["a", "b"])),
            may("tags", Form::Tags),
            may("url", Form::Url),
        ],
    );

    fn says(shape: &Shape, new: bool, object: Value) -> String {
        let Value::Object(mut object) = object else { panic!("an object") };
        let done = if new { shape.new_object(&mut object) } else { shape.change(&mut object) };
        done.err().map_or_else(|| "ok".to_owned(), |error| error.message().to_owned())
    }

    #[test]
    fn attributes_are_checked_with_keystones_words() {
        let field = |rest: &str| format!("Invalid input for field/attribute {rest}");
        for (object, want) in [
            (json!({"name": "n", "other": [1]}), "ok".to_owned()),
            (json!({}), field("thing. Value: {}. 'name' is a required property")),
            (json!({"name": ""}), field("name. Value: . '' should be non-empty")),
            (json!({"name": "  "}), field("name. Value:   . '  ' does not match '[\\S]+'")),
            (json!({"name": "longer"}), field("name. Value: longer. 'longer' is too long")),
            (json!({"name": 4}), field("name. Value: 4. 4 is not of type 'string'")),
            (json!({"name": null}), field("name. Value: None. None is not of type 'string'")),
            (json!({"name": "n", "count": null}), "ok".to_owned()),
            (json!({"name": "n", "count": 0}), field("count. Value: 0. 0 is less than the minimum of 1")),
            (json!({"name": "n", "count": "1"}), field("count. Value: 1. '1' is not of type 'integer'")),
            (json!({"name": "n", "kind": "c"}), field("kind. Value: c. 'c' is not one of ['a', 'b']")),
            (
                json!({"name": "n", "tags": ["x", "y/z"]}),
                field("1. Value: y/z. 'y/z' does not match '^[^,/]*$'"),
            ),
            (json!({"name": "n", "tags": ["x", "x"]}), "['x', 'x'] has non-unique elements".to_owned()),
            (
                json!({"name": "n", "url": "no"}),
                field("url. Value: no. 'no' does not match '^[a-zA-Z0-9+.-]+:.+'"),
            ),
            (json!({"name": "n", "url": "http://x"}), "ok".to_owned()),
        ] {
            assert_eq!(says(&SHAPE, true, object.clone()), want, "{object}");
        }
        assert_eq!(says(&SHAPE, false, json!({})), field("thing. Value: {}. {} should be non-empty"));
        let closed = Shape { closed: true, ..SHAPE };
        let want = field(
            "thing. Value: {'name': 'n', 'x': True}. Additional properties are not allowed ('x' was unexpected)",
        );
        assert_eq!(says(&closed, true, json!({"name": "n", "x": true})), want);
    }

    #[test]
    fn words_for_yes_and_no_become_booleans() {
        for (word, want) in [("yes", Some(true)), ("True", Some(true)), ("", Some(false)), ("maybe", None)] {
            let mut object = json!({"name": "n", "enabled": word}).as_object().cloned().expect("an object");
            let done = SHAPE.new_object(&mut object).ok().and_then(|()| object["enabled"].as_bool());
            assert_eq!(done, want, "{word}");
        }
    }

    #[test]
    fn values_are_written_as_python_writes_them() {
        let value = json!({"a": [1, "x", null], "b": {"c": "it's"}, "d": false});
        assert_eq!(python(&value), "{'a': [1, 'x', None], 'b': {'c': \"it's\"}, 'd': False}");
    }
}
