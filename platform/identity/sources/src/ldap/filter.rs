//! Search filters (RFC 4515). Whatever comes from outside goes through [`ldap3::ldap_escape`] here and nowhere
//! else.

use ldap3::ldap_escape;

use super::config::{LdapGroups, LdapUsers};

/// Active Directory's matching rule that follows chains of groups itself.
const IN_CHAIN: &str = "1.2.840.113556.1.4.1941";

/// The people who sign in as `name`.
pub(super) fn login(users: &LdapUsers, name: &str) -> String {
    let name = ldap_escape(name);
    let any: String = users.login_attributes.iter().map(|a| format!("({a}={name})")).collect();
    format!("(&{}(|{any}))", users.filter)
}

/// The groups that name one of `members` directly.
pub(super) fn groups_with(groups: &LdapGroups, members: &[String]) -> String {
    let attribute = &groups.member_attribute;
    let any: String = members.iter().map(|m| format!("({attribute}={})", ldap_escape(m.as_str()))).collect();
    format!("(&{}(|{any}))", groups.filter)
}

/// The groups that `dn` is in, directly or through others.
pub(super) fn groups_in_chain(groups: &LdapGroups, dn: &str) -> String {
    format!("(&{}({}:{IN_CHAIN}:={}))", groups.filter, groups.member_attribute, ldap_escape(dn))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::LdapConfig;

    #[test]
    fn what_a_user_types_cannot_change_the_filter() {
        let config = LdapConfig::active_directory(vec![], "dc=x");
        let hostile = ["*", "*)(uid=*", "a)(|(cn=*))", "\\2a", "a\0b", "(", "&", "ünï", "a\\", "*)(&"];
        for name in hostile {
            let filter = login(&config.users, name);
            let parsed = ldap3::parse_filter(&filter);
            assert!(parsed.is_ok(), "{filter}");
            let expected = "(&(&(objectCategory=person)(objectClass=user))\
                            (|(sAMAccountName=NAME)(userPrincipalName=NAME)))";
            assert_eq!(filter, expected.replace("NAME", &ldap_escape(name)));
            assert!(!ldap_escape(name).contains(['(', ')', '*', '\0']), "{name}");
        }
        assert!(login(&config.users, "*)(uid=*").contains("\\2a\\29\\28uid=\\2a"));
    }

    #[test]
    fn names_of_entries_are_escaped_too() {
        let config = LdapConfig::active_directory(vec![], "dc=x");
        let groups = config.groups.expect("the preset has groups");
        let filter = groups_with(&groups, &["cn=a (b)*,dc=x".to_owned()]);
        assert_eq!(filter, "(&(objectClass=group)(|(member=cn=a \\28b\\29\\2a,dc=x)))");
        let filter = groups_in_chain(&groups, "cn=x\\,y,dc=z");
        assert!(filter.ends_with("(member:1.2.840.113556.1.4.1941:=cn=x\\5c,y,dc=z))"), "{filter}");
        assert!(ldap3::parse_filter(&filter).is_ok());
    }
}
