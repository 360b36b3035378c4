//! From a directory's entries to plain values.

use std::collections::HashMap;
use std::fmt::Write as _;

use super::config::{EnabledRule, IdFormat, LdapGroups, LdapUsers};
use super::dn;
use crate::{ExternalGroup, ExternalUser};

const DAY_SECONDS: i64 = 24 * 60 * 60;

/// One entry: attribute names in lower case, values as bytes.
#[derive(Clone, Debug, Default)]
pub(super) struct Entry {
    pub dn: String,
    attributes: HashMap<String, Vec<Vec<u8>>>,
}

/// What a server leaves out of a long attribute (`member;range=0-1499`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rest {
    /// Nothing.
    None,
    /// Everything from this index on.
    From(usize),
}

impl From<ldap3::SearchEntry> for Entry {
    fn from(found: ldap3::SearchEntry) -> Self {
        let text = found.attrs.into_iter().map(|(name, values)| {
            (name.to_ascii_lowercase(), values.into_iter().map(String::into_bytes).collect())
        });
        let binary = found.bin_attrs.into_iter().map(|(name, values)| (name.to_ascii_lowercase(), values));
        Self { dn: found.dn, attributes: text.chain(binary).collect() }
    }
}

impl Entry {
    fn values(&self, attribute: &str) -> &[Vec<u8>] {
        self.attributes.get(&attribute.to_ascii_lowercase()).map_or(&[], Vec::as_slice)
    }

    /// The values that are text, without empty ones.
    fn texts(&self, attribute: &str) -> impl Iterator<Item = &str> {
        let texts = self.values(attribute).iter().filter_map(|v| std::str::from_utf8(v).ok());
        texts.filter(|text| !text.is_empty())
    }

    /// One value, the same one whatever order the server sends them in: the one the entry is named by, else
    /// the first in order.
    fn text(&self, attribute: &str) -> Option<String> {
        let leading = dn::leading_value(&self.dn, attribute);
        if let Some(leading) = leading
            && self.texts(attribute).any(|value| value == leading)
        {
            return Some(leading);
        }
        self.texts(attribute).min().map(str::to_owned)
    }

    fn id(&self, attribute: &str, format: IdFormat) -> Option<String> {
        match format {
            IdFormat::Text => self.text(attribute),
            IdFormat::Hex => self.values(attribute).first().map(|bytes| hex(bytes)),
            IdFormat::Guid => self.values(attribute).first().and_then(|bytes| guid(bytes)),
        }
    }

    /// The members, and whether the server kept some back.
    pub(super) fn members(&self, attribute: &str) -> (Vec<String>, Rest) {
        let mut members: Vec<String> = self.texts(attribute).map(str::to_owned).collect();
        let mut rest = Rest::None;
        let prefix = format!("{};range=", attribute.to_ascii_lowercase());
        for (name, values) in &self.attributes {
            let Some(range) = name.strip_prefix(&prefix) else { continue };
            members.extend(values.iter().filter_map(|v| String::from_utf8(v.clone()).ok()));
            if let Some((_, Ok(last))) = range.split_once('-').map(|(f, l)| (f, l.parse::<usize>())) {
                rest = Rest::From(last + 1);
            }
        }
        (members, rest)
    }

    /// The person, without groups; or the attribute that is missing.
    pub(super) fn user<'a>(&self, users: &'a LdapUsers, now_seconds: i64) -> Result<ExternalUser, &'a str> {
        let id = self.id(&users.id_attribute, users.id_format).ok_or(users.id_attribute.as_str())?;
        let name = self.text(&users.name_attribute).ok_or(users.name_attribute.as_str())?;
        let optional = |attribute: &Option<String>| attribute.as_deref().and_then(|a| self.text(a));
        Ok(ExternalUser {
            id,
            name,
            display_name: optional(&users.display_name_attribute),
            email: optional(&users.email_attribute),
            domain: None,
            enabled: users.enabled.iter().all(|rule| rule.holds(self, now_seconds)),
            groups: Vec::new(),
            grants: Vec::new(),
        })
    }

    /// The group; or the attribute that is missing.
    pub(super) fn group<'a>(&self, groups: &'a LdapGroups) -> Result<ExternalGroup, &'a str> {
        let id = self.id(&groups.id_attribute, groups.id_format).ok_or(groups.id_attribute.as_str())?;
        let name = self.text(&groups.name_attribute).ok_or(groups.name_attribute.as_str())?;
        Ok(ExternalGroup { id, name })
    }
}

impl EnabledRule {
    pub(super) fn attribute(&self) -> &str {
        match self {
            Self::Bitmask { attribute, .. }
            | Self::Boolean { attribute, .. }
            | Self::Absent { attribute }
            | Self::ExpiryDay { attribute } => attribute,
        }
    }

    /// A value that cannot be read counts against the account.
    fn holds(&self, entry: &Entry, now_seconds: i64) -> bool {
        let value = entry.texts(self.attribute()).next();
        match self {
            Self::Bitmask { mask, invert, when_missing, .. } => match value {
                None => *when_missing,
                // Active Directory writes the 32 bits as a signed number.
                Some(text) => text.trim().parse::<i64>().is_ok_and(|n| (n as u32 & mask != 0) != *invert),
            },
            Self::Boolean { invert, when_missing, .. } => match value {
                None => *when_missing,
                Some(text) => text.trim().eq_ignore_ascii_case("true") != *invert,
            },
            Self::Absent { attribute } => entry.values(attribute).is_empty(),
            Self::ExpiryDay { .. } => match value {
                None => true,
                Some(text) => text
                    .trim()
                    .parse::<i64>()
                    .is_ok_and(|day| day < 0 || now_seconds.div_euclid(DAY_SECONDS) < day),
            },
        }
    }
}

/// What to ask of a person's entry.
pub(super) fn user_attributes(users: &LdapUsers) -> Vec<String> {
    let named = [Some(&users.id_attribute), Some(&users.name_attribute)];
    let optional = [users.display_name_attribute.as_ref(), users.email_attribute.as_ref()];
    let mut all: Vec<String> = named.into_iter().chain(optional).flatten().cloned().collect();
    all.extend(users.enabled.iter().map(|rule| rule.attribute().to_owned()));
    all
}

/// What to ask of a group's entry, beside its members.
pub(super) fn group_attributes(groups: &LdapGroups) -> Vec<String> {
    vec![groups.id_attribute.clone(), groups.name_attribute.clone()]
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The first three fields are little-endian (MS-DTYP, section 2.3.4.2).
fn guid(bytes: &[u8]) -> Option<String> {
    let b: &[u8; 16] = bytes.try_into().ok()?;
    let head = [b[3], b[2], b[1], b[0]];
    let tail = [hex(&[b[5], b[4]]), hex(&[b[7], b[6]]), hex(&b[8..10]), hex(&b[10..])];
    Some(format!("{}-{}", hex(&head), tail.join("-")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(dn: &str, attributes: &[(&str, &[&str])]) -> Entry {
        let attributes = attributes.iter().map(|(name, values)| {
            (name.to_ascii_lowercase(), values.iter().map(|v| v.as_bytes().to_vec()).collect())
        });
        Entry { dn: dn.to_owned(), attributes: attributes.collect() }
    }

    #[test]
    fn accounts_are_switched_off_as_each_directory_does_it() {
        let now = 20_000 * DAY_SECONDS + 5;
        let uac = |when_missing| EnabledRule::Bitmask {
            attribute: "userAccountControl".into(),
            mask: 2,
            invert: true,
            when_missing,
        };
        let lock =
            || EnabledRule::Boolean { attribute: "nsAccountLock".into(), invert: true, when_missing: true };
        let locked = || EnabledRule::Absent { attribute: "pwdAccountLockedTime".into() };
        let expire = || EnabledRule::ExpiryDay { attribute: "shadowExpire".into() };
        let cases: Vec<(EnabledRule, Option<&str>, bool)> = vec![
            (uac(false), Some("512"), true),
            (uac(false), Some("514"), false),
            (uac(false), Some("-2147483136"), true),
            (uac(false), Some("-2147483134"), false),
            (uac(false), Some("nonsense"), false),
            (uac(false), None, false),
            (uac(true), None, true),
            (lock(), Some("TRUE"), false),
            (lock(), Some("false"), true),
            (lock(), None, true),
            (locked(), Some("000001010000Z"), false),
            (locked(), None, true),
            (expire(), Some("20001"), true),
            (expire(), Some("20000"), false),
            (expire(), Some("-1"), true),
            (expire(), Some("0"), false),
            (expire(), Some("x"), false),
            (expire(), None, true),
        ];
        for (rule, value, expected) in cases {
            let values: Vec<&str> = value.into_iter().collect();
            let entry = match values.as_slice() {
                [] => entry("cn=x", &[]),
                some => entry("cn=x", &[(rule.attribute(), some)]),
            };
            assert_eq!(rule.holds(&entry, now), expected, "{rule:?} with {value:?}");
        }
    }

    #[test]
    fn object_guids_read_as_windows_shows_them() {
        let bytes: Vec<u8> = (0..16).collect();
        assert_eq!(guid(&bytes).as_deref(), Some("03020100-0504-0706-0809-0a0b0c0d0e0f"));
        assert_eq!(guid(&bytes[1..]), None);
    }

    #[test]
    fn ranged_members_say_what_is_left() {
        let whole = entry("cn=g", &[("member", &["a", "b"])]);
        assert_eq!(whole.members("Member"), (vec!["a".to_owned(), "b".to_owned()], Rest::None));
        let first = entry("cn=g", &[("member", &[]), ("member;range=0-1499", &["a"])]);
        assert_eq!(first.members("member"), (vec!["a".to_owned()], Rest::From(1500)));
        let last = entry("cn=g", &[("member;range=1500-*", &["z"])]);
        assert_eq!(last.members("member"), (vec!["z".to_owned()], Rest::None));
    }

    #[test]
    fn of_several_names_the_entry_s_own_is_taken() {
        let people = entry("uid=zed,dc=x", &[("uid", &["alias", "zed"])]);
        assert_eq!(people.text("uid").as_deref(), Some("zed"));
        let moved = entry("cn=other,dc=x", &[("uid", &["b", "a"])]);
        assert_eq!(moved.text("uid").as_deref(), Some("a"));
    }
}
