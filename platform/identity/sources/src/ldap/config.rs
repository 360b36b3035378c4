//! How to reach a directory and how to read it.

use serde::{Deserialize, Serialize};
use url::Url;

use crate::SourceError;

/// A directory server (RFC 4511), with what its entries are called.
///
/// The password of `bind_dn` is not part of it: it is handed to [`crate::LdapSource::new`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LdapConfig {
    /// `ldaps://host[:636]` or `ldap://host[:389]`, in the order of preference; the next is asked when one
    /// cannot be reached.
    pub urls: Vec<String>,
    /// Upgrade `ldap://` by StartTLS (RFC 4511, section 4.14) before anything else is said.
    #[serde(default)]
    pub start_tls: bool,
    /// Accept `ldap://` without StartTLS: passwords cross the network readable.
    #[serde(default)]
    pub insecure_plaintext: bool,
    /// The authorities that may sign the server's certificate; without: those of the host.
    #[serde(default)]
    pub ca_pem: Option<String>,
    /// Who searches; without: anonymous.
    #[serde(default)]
    pub bind_dn: Option<String>,
    /// Where people are and what they are called.
    pub users: LdapUsers,
    /// Where groups are; without: nobody has groups.
    #[serde(default)]
    pub groups: Option<LdapGroups>,
    /// Bounds.
    #[serde(default)]
    pub limits: LdapLimits,
}

/// How deep a search goes below its base (RFC 4511, section 4.5.1.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum LdapScope {
    /// The base's children.
    One,
    /// The base and all below it.
    #[default]
    Subtree,
}

/// People in the directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LdapUsers {
    /// Where to look.
    pub base: String,
    /// Which entries are people (RFC 4515).
    #[serde(default = "person_filter")]
    pub filter: String,
    /// How deep to look.
    #[serde(default)]
    pub scope: LdapScope,
    /// Attributes that may hold what a person types; one match in any of them counts.
    #[serde(default = "uid_list")]
    pub login_attributes: Vec<String>,
    /// The attribute that stays when a person is renamed.
    #[serde(default = "entry_uuid")]
    pub id_attribute: String,
    /// How the value of `id_attribute` is written.
    #[serde(default)]
    pub id_format: IdFormat,
    /// The attribute with the user name.
    #[serde(default = "uid")]
    pub name_attribute: String,
    /// The attribute with the name to show.
    #[serde(default)]
    pub display_name_attribute: Option<String>,
    /// The attribute with the mail address.
    #[serde(default)]
    pub email_attribute: Option<String>,
    /// A person is enabled when every rule says so.
    #[serde(default)]
    pub enabled: Vec<EnabledRule>,
}

/// How an identifier's bytes become text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum IdFormat {
    /// The value is text.
    #[default]
    Text,
    /// Sixteen bytes in Active Directory's order (`objectGUID`).
    Guid,
    /// Any bytes, in hexadecimal.
    Hex,
}

/// Tells from an attribute whether an account is switched on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", tag = "rule")]
pub enum EnabledRule {
    /// Enabled if a bit of `mask` is set in the number; with `invert` if none is
    /// (`userAccountControl`, 2, inverted). Without the attribute: disabled, unless `when_missing`.
    Bitmask {
        attribute: String,
        mask: u32,
        #[serde(default)]
        invert: bool,
        #[serde(default)]
        when_missing: bool,
    },
    /// Enabled if `TRUE`; with `invert` if anything else (`nsAccountLock`, inverted). Without the
    /// attribute: what `when_missing` says.
    Boolean {
        attribute: String,
        #[serde(default)]
        invert: bool,
        when_missing: bool,
    },
    /// Enabled while the attribute is absent (`pwdAccountLockedTime` of OpenLDAP's password policy).
    Absent { attribute: String },
    /// Enabled until the day the attribute names, counted from 1970-01-01 (`shadowExpire`); absent or
    /// negative: for ever.
    ExpiryDay { attribute: String },
}

/// Groups in the directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LdapGroups {
    /// Where to look.
    pub base: String,
    /// Which entries are groups (RFC 4515).
    #[serde(default = "group_filter")]
    pub filter: String,
    /// How deep to look.
    #[serde(default)]
    pub scope: LdapScope,
    /// The attribute that stays when a group is renamed.
    #[serde(default = "entry_uuid")]
    pub id_attribute: String,
    /// How the value of `id_attribute` is written.
    #[serde(default)]
    pub id_format: IdFormat,
    /// The attribute with the group's name.
    #[serde(default = "cn")]
    pub name_attribute: String,
    /// The attribute with the members: `member`, `uniqueMember`, `memberUid`.
    #[serde(default = "member")]
    pub member_attribute: String,
    /// What the values of `member_attribute` are.
    #[serde(default)]
    pub member_value: MemberValue,
    /// Whether groups have groups as members.
    #[serde(default)]
    pub nested: Nesting,
}

/// What names a member in a group's entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum MemberValue {
    /// The distinguished name of the member's entry (`member`, `uniqueMember`).
    #[default]
    Dn,
    /// The value of the person's `name_attribute` (`memberUid`, RFC 2307).
    Name,
}

/// How groups in groups are followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", tag = "follow")]
pub enum Nesting {
    /// They are not.
    None,
    /// By one search for each level. What lies deeper than `depth_max` levels is not followed.
    Recursive { depth_max: usize },
    /// By Active Directory's own rule LDAP_MATCHING_RULE_IN_CHAIN at a login; a listing follows
    /// [`LdapLimits::chain_depth_max`] levels.
    InChain,
}

/// Bounds of one source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct LdapLimits {
    /// Entries the server is asked for at once (RFC 2696).
    pub page_size: usize,
    /// More people than this make a listing fail.
    pub users_max: usize,
    /// More groups than this, of the directory or of one person, are an error.
    pub groups_max: usize,
    /// More memberships than this make a listing fail.
    pub memberships_max: usize,
    /// Levels that a listing follows when `nested` is `inChain`.
    pub chain_depth_max: usize,
    /// Connections open at the same time.
    pub connections_max: usize,
    /// An unused connection is closed after this.
    pub idle_ms_max: u64,
    /// Reaching a server, TLS included.
    pub connect_timeout_ms: u64,
    /// One operation, and each page of a listing.
    pub operation_timeout_ms: u64,
    /// Waiting for a free connection.
    pub wait_timeout_ms: u64,
    /// A server that could not be reached is asked last for this long.
    pub avoid_ms: u64,
}

impl Default for LdapLimits {
    fn default() -> Self {
        Self {
            page_size: 500,
            users_max: 200_000,
            groups_max: 20_000,
            memberships_max: 5_000_000,
            chain_depth_max: 32,
            connections_max: 16,
            idle_ms_max: 60_000,
            connect_timeout_ms: 5_000,
            operation_timeout_ms: 10_000,
            wait_timeout_ms: 5_000,
            avoid_ms: 30_000,
        }
    }
}

impl Default for Nesting {
    fn default() -> Self {
        Self::Recursive { depth_max: 8 }
    }
}

fn person_filter() -> String {
    "(objectClass=person)".to_owned()
}

fn group_filter() -> String {
    "(objectClass=groupOfNames)".to_owned()
}

fn uid() -> String {
    "uid".to_owned()
}

fn uid_list() -> Vec<String> {
    vec![uid()]
}

fn entry_uuid() -> String {
    "entryUUID".to_owned()
}

fn cn() -> String {
    "cn".to_owned()
}

fn member() -> String {
    "member".to_owned()
}

impl LdapConfig {
    /// How OpenLDAP and its like are usually filled: `inetOrgPerson` with `uid`, `groupOfNames`.
    pub fn open_ldap(urls: Vec<String>, user_base: &str, group_base: &str) -> Self {
        let users = LdapUsers {
            base: user_base.to_owned(),
            filter: "(objectClass=inetOrgPerson)".to_owned(),
            scope: LdapScope::Subtree,
            login_attributes: uid_list(),
            id_attribute: entry_uuid(),
            id_format: IdFormat::Text,
            name_attribute: uid(),
            display_name_attribute: Some(cn()),
            email_attribute: Some("mail".to_owned()),
            enabled: vec![EnabledRule::Absent { attribute: "pwdAccountLockedTime".to_owned() }],
        };
        let groups = LdapGroups {
            base: group_base.to_owned(),
            filter: group_filter(),
            scope: LdapScope::Subtree,
            id_attribute: entry_uuid(),
            id_format: IdFormat::Text,
            name_attribute: cn(),
            member_attribute: member(),
            member_value: MemberValue::Dn,
            nested: Nesting::default(),
        };
        Self::of(urls, users, groups)
    }

    /// How Active Directory is filled: `sAMAccountName` or `userPrincipalName`, `objectGUID`,
    /// `userAccountControl`.
    pub fn active_directory(urls: Vec<String>, base: &str) -> Self {
        let users = LdapUsers {
            base: base.to_owned(),
            filter: "(&(objectCategory=person)(objectClass=user))".to_owned(),
            scope: LdapScope::Subtree,
            login_attributes: vec!["sAMAccountName".to_owned(), "userPrincipalName".to_owned()],
            id_attribute: "objectGUID".to_owned(),
            id_format: IdFormat::Guid,
            name_attribute: "sAMAccountName".to_owned(),
            display_name_attribute: Some("displayName".to_owned()),
            email_attribute: Some("mail".to_owned()),
            enabled: vec![EnabledRule::Bitmask {
                attribute: "userAccountControl".to_owned(),
                mask: 2,
                invert: true,
                when_missing: false,
            }],
        };
        let groups = LdapGroups {
            base: base.to_owned(),
            filter: "(objectClass=group)".to_owned(),
            scope: LdapScope::Subtree,
            id_attribute: "objectGUID".to_owned(),
            id_format: IdFormat::Guid,
            name_attribute: "sAMAccountName".to_owned(),
            member_attribute: member(),
            member_value: MemberValue::Dn,
            nested: Nesting::InChain,
        };
        Self::of(urls, users, groups)
    }

    fn of(urls: Vec<String>, users: LdapUsers, groups: LdapGroups) -> Self {
        Self {
            urls,
            start_tls: false,
            insecure_plaintext: false,
            ca_pem: None,
            bind_dn: None,
            users,
            groups: Some(groups),
            limits: LdapLimits::default(),
        }
    }

    /// The servers, once everything that can be checked without asking one is checked.
    pub(super) fn servers(&self) -> Result<Vec<Url>, SourceError> {
        let wrong = |why: String| SourceError::misconfigured("the directory", why);
        if self.urls.is_empty() {
            return Err(wrong("urls names no server".to_owned()));
        }
        let servers = self.urls.iter().map(|text| self.server(text)).collect::<Result<Vec<_>, _>>();
        let servers = servers.map_err(wrong)?;
        let mut filters = vec![("users.filter", self.users.filter.as_str())];
        if let Some(groups) = &self.groups {
            filters.push(("groups.filter", groups.filter.as_str()));
            if groups.member_value == MemberValue::Name && groups.nested != Nesting::None {
                let why = "groups.nested: groups whose members are user names cannot hold groups";
                return Err(wrong(why.to_owned()));
            }
        }
        for (field, filter) in filters {
            if !filter.starts_with('(') || ldap3::parse_filter(filter).is_err() {
                return Err(wrong(format!("{field}: {filter:?} is no filter")));
            }
        }
        if self.users.login_attributes.is_empty() {
            return Err(wrong("users.loginAttributes is empty".to_owned()));
        }
        let limits = &self.limits;
        if limits.page_size == 0 || limits.page_size > 10_000 || limits.connections_max == 0 {
            return Err(wrong("limits: pageSize is 1 to 10000, connectionsMax at least 1".to_owned()));
        }
        Ok(servers)
    }

    fn server(&self, text: &str) -> Result<Url, String> {
        let url = Url::parse(text).map_err(|e| format!("urls: {text:?}: {e}"))?;
        if url.host_str().is_none_or(str::is_empty) {
            return Err(format!("urls: {text:?} names no host"));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err("urls: credentials do not belong into a URL".to_owned());
        }
        match url.scheme() {
            "ldaps" => Ok(url),
            "ldap" if self.start_tls || self.insecure_plaintext => Ok(url),
            "ldap" => Err(format!("urls: {text:?} needs startTls, or insecurePlaintext if that is meant")),
            _ => Err(format!("urls: {text:?} is neither ldap:// nor ldaps://")),
        }
    }
}
