//! `Impersonate-User`, `-Group`, `-Uid` and `-Extra-*`: a caller acts as another, when the rules let
//! it `impersonate` every part of that identity.

use std::collections::BTreeMap;

use gantry_kube_types::{Attributes, Authorizer, Decision, StatusError, UserFields, UserInfo, groups, users};
use http::HeaderMap;

use crate::responses::forbidden;

const USER: &str = "impersonate-user";
const GROUP: &str = "impersonate-group";
const UID: &str = "impersonate-uid";
const EXTRA_PREFIX: &str = "impersonate-extra-";
const SERVICE_ACCOUNT_PREFIX: &str = "system:serviceaccount:";

/// In the extensions of an impersonated request: who really asked.
#[derive(Clone, Debug)]
pub struct ImpersonatedBy(pub UserInfo);

/// As whom a caller acts, and what had to be allowed for it.
#[derive(Debug)]
pub(crate) struct Impersonation {
    pub(crate) user: UserInfo,
    pub(crate) asked: Vec<Attributes>,
}

/// The identity asked for by the headers, which are taken out; `None` where none is asked for.
pub(crate) fn impersonated(
    headers: &mut HeaderMap,
    caller: &UserInfo,
    authorizer: &dyn Authorizer,
) -> Result<Option<Impersonation>, StatusError> {
    let Some(wanted) = read(headers)? else { return Ok(None) };
    let asked = questions(caller, &wanted);
    for attributes in &asked {
        match authorizer.authorize(attributes) {
            Decision::Allow(_) => {}
            Decision::Deny(reason) | Decision::NoOpinion(reason) => {
                return Err(forbidden(attributes, &reason));
            }
        }
    }
    let names: Vec<_> = headers.keys().filter(|n| n.as_str().starts_with("impersonate-")).cloned().collect();
    for name in names {
        headers.remove(name);
    }
    Ok(Some(Impersonation { user: complete(wanted), asked }))
}

fn read(headers: &HeaderMap) -> Result<Option<UserInfo>, StatusError> {
    let text = |value: &http::HeaderValue| {
        value
            .to_str()
            .map(str::to_owned)
            .map_err(|_| StatusError::bad_request("impersonation headers must be plain text"))
    };
    let one = |name: &str| headers.get(name).map(text).transpose().map(Option::unwrap_or_default);
    let mut user = UserFields { username: one(USER)?, uid: one(UID)?, ..UserFields::default() };
    for group in headers.get_all(GROUP) {
        user.groups.push(text(group)?);
    }
    let mut extra: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, value) in headers {
        if let Some(key) = name.as_str().strip_prefix(EXTRA_PREFIX) {
            extra.entry(percent_decoded(key)).or_default().push(text(value)?);
        }
    }
    user.extra = extra;
    if !user.username.is_empty() {
        return Ok(Some(user.into()));
    }
    if user == UserFields::default() {
        return Ok(None);
    }
    Err(StatusError::bad_request("groups, uid or extra cannot be impersonated without impersonating a user"))
}

fn questions(caller: &UserInfo, wanted: &UserInfo) -> Vec<Attributes> {
    let ask = |group: &str, resource: &str, subresource: &str, namespace: &str, name: &str| Attributes {
        user: caller.clone(),
        verb: "impersonate".to_owned(),
        is_resource_request: true,
        group: group.to_owned(),
        version: "v1".to_owned(),
        resource: resource.to_owned(),
        subresource: subresource.to_owned(),
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        path: String::new(),
    };
    let mut all = vec![match service_account(&wanted.username) {
        Some((namespace, name)) => ask("", "serviceaccounts", "", namespace, name),
        None => ask("", "users", "", "", &wanted.username),
    }];
    all.extend(wanted.groups.iter().map(|group| ask("", "groups", "", "", group)));
    if !wanted.uid.is_empty() {
        all.push(ask("authentication.k8s.io", "uids", "", "", &wanted.uid));
    }
    for (key, values) in &wanted.extra {
        all.extend(values.iter().map(|value| ask("authentication.k8s.io", "userextras", key, "", value)));
    }
    all
}

/// Adds the groups every identity of its kind is in.
fn complete(mut user: UserInfo) -> UserInfo {
    if user.groups.is_empty()
        && let Some((namespace, name)) = service_account(&user.username)
    {
        user.groups = UserInfo::service_account(namespace, name, "").groups.clone();
    }
    if user.username == users::ANONYMOUS {
        if !user.in_group(groups::UNAUTHENTICATED) {
            user.groups.push(groups::UNAUTHENTICATED.to_owned());
        }
    } else if !user.in_group(groups::AUTHENTICATED) && !user.in_group(groups::UNAUTHENTICATED) {
        user.groups.push(groups::AUTHENTICATED.to_owned());
    }
    user
}

fn service_account(username: &str) -> Option<(&str, &str)> {
    let (namespace, name) = username.strip_prefix(SERVICE_ACCOUNT_PREFIX)?.split_once(':')?;
    (!namespace.is_empty() && !name.is_empty() && !name.contains(':')).then_some((namespace, name))
}

/// Keys are sent percent-encoded because header names are a narrow alphabet; a malformed escape
/// stands for itself, as upstream has it.
fn percent_decoded(key: &str) -> String {
    let mut bytes = Vec::with_capacity(key.len());
    let mut rest = key;
    while let Some(first) = rest.as_bytes().first() {
        let escape = (*first == b'%').then(|| rest.get(1..3)).flatten();
        match escape.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &rest[3..];
            }
            None => {
                bytes.push(*first);
                rest = &rest[1..];
            }
        }
    }
    String::from_utf8(bytes).unwrap_or_else(|_| key.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    /// Grants what its closure says.
    struct Rule<F>(F);

    impl<F: Fn(&Attributes) -> bool + Send + Sync> Authorizer for Rule<F> {
        fn authorize(&self, attributes: &Attributes) -> Decision {
            if (self.0)(attributes) {
                Decision::Allow(String::new())
            } else {
                Decision::NoOpinion(String::new())
            }
        }
    }

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in lines {
            map.append(*name, HeaderValue::from_static(value));
        }
        map
    }

    #[test]
    fn every_part_of_the_identity_is_asked_for() {
        let caller = UserInfo::authenticated("boss", &[]);
        let mut lines = headers(&[
            (USER, "alice"),
            (GROUP, "dev"),
            (GROUP, "ops"),
            ("impersonate-extra-acme.com%2fproject", "p1"),
        ]);
        let everything = Rule(|a: &Attributes| a.verb == "impersonate" && a.user.username == "boss");
        let user = impersonated(&mut lines, &caller, &everything).expect("allowed").expect("asked for").user;
        assert_eq!(user.username, "alice");
        assert_eq!(user.groups, ["dev", "ops", "system:authenticated"]);
        assert_eq!(user.extra["acme.com/project"], ["p1"]);
        assert!(lines.is_empty(), "the handler must not see the headers");

        let only_users = Rule(|a: &Attributes| a.resource == "users");
        let refused = impersonated(&mut headers(&[(USER, "alice"), (GROUP, "dev")]), &caller, &only_users);
        assert_eq!(
            refused.expect_err("no right for groups").message,
            "groups \"dev\" is forbidden: User \"boss\" cannot impersonate resource \"groups\" in API group \"\" at the cluster scope"
        );
        let incomplete = impersonated(&mut headers(&[(GROUP, "system:masters")]), &caller, &everything);
        assert_eq!(incomplete.expect_err("no user").code, 400);
    }

    #[test]
    fn service_accounts_are_asked_for_in_their_namespace_and_get_their_groups() {
        let caller = UserInfo::authenticated("boss", &[]);
        let in_dev = Rule(|a: &Attributes| a.resource == "serviceaccounts" && a.namespace == "dev");
        let mut lines = headers(&[(USER, "system:serviceaccount:dev:builder")]);
        let user = impersonated(&mut lines, &caller, &in_dev).expect("allowed").expect("asked for").user;
        assert!(user.in_group("system:serviceaccounts:dev") && user.in_group("system:authenticated"));
        let mut lines = headers(&[(USER, "system:anonymous")]);
        let all = Rule(|_: &Attributes| true);
        let user = impersonated(&mut lines, &caller, &all).expect("allowed").expect("asked for").user;
        assert_eq!(user.groups, ["system:unauthenticated"]);
    }
}
