//! Everything a directory holds, for the periodic comparison with what is known here.

use std::sync::Arc;

use super::config::{LdapGroups, MemberValue, Nesting};
use super::connection::{Page, Query};
use super::entry::{self, Entry, Rest};
use super::groups::{Membership, RawGroup};
use super::now_seconds;
use super::pool::{Lease, Pool, Purpose};
use crate::{ExternalGroup, ExternalUser, SourceError};

/// A listing under way: all groups are read when it begins, people come page by page with all their groups.
///
/// Only a listing that reached its end ([`LdapListing::next_page`] gave `None`) says that somebody is gone.
/// One that failed half-way says nothing, and one that would be larger than the configured bounds fails.
pub struct LdapListing {
    pool: Arc<Pool>,
    lease: Option<Lease>,
    query: Query,
    cookie: Vec<u8>,
    membership: Option<Membership>,
    users: usize,
    skipped: usize,
}

impl LdapListing {
    pub(super) async fn begin(pool: Arc<Pool>) -> Result<Self, SourceError> {
        let mut lease = pool.lease(Purpose::Search).await?;
        let mut skipped = 0;
        let membership = match &pool.config.groups {
            None => None,
            Some(groups) => {
                let raw = all_groups(&pool, &mut lease, groups, &mut skipped).await?;
                let depth_max = match groups.nested {
                    Nesting::None => 0,
                    Nesting::Recursive { depth_max } => depth_max,
                    Nesting::InChain => pool.config.limits.chain_depth_max,
                };
                Some(Membership::new(raw, groups.member_value, depth_max))
            }
        };
        let users = &pool.config.users;
        let query = Query {
            base: users.base.clone(),
            scope: users.scope.into(),
            filter: users.filter.clone(),
            attributes: entry::user_attributes(users),
        };
        let cookie = Vec::new();
        Ok(Self { pool, lease: Some(lease), query, cookie, membership, users: 0, skipped })
    }

    /// Every group of the directory.
    pub fn groups(&self) -> Vec<ExternalGroup> {
        self.membership.iter().flat_map(Membership::groups).collect()
    }

    /// Entries that matched but lack a name or an id; they are in no page.
    pub fn skipped(&self) -> usize {
        self.skipped
    }

    /// The next people, disabled ones included. `None`: that was everybody. After an error the listing is over.
    pub async fn next_page(&mut self) -> Result<Option<Vec<ExternalUser>>, SourceError> {
        let Some(mut lease) = self.lease.take() else { return Ok(None) };
        let cookie = std::mem::take(&mut self.cookie);
        let page = next(&self.pool, &mut lease, &self.query, cookie).await?;
        self.users += page.entries.len();
        bounded(self.users, self.pool.config.limits.users_max, "users")?;
        let now = now_seconds();
        let mut users = Vec::with_capacity(page.entries.len());
        for entry in &page.entries {
            match entry.user(&self.pool.config.users, now) {
                Ok(mut user) => {
                    if let Some(membership) = &self.membership {
                        user.groups = membership.of(&entry.dn, &user.name);
                    }
                    users.push(user.ordered());
                }
                Err(attribute) => {
                    self.skipped += 1;
                    tracing::debug!(dn = entry.dn, attribute, "an entry without this attribute is no user");
                }
            }
        }
        if page.cookie.is_empty() {
            lease.give_back();
        } else {
            self.cookie = page.cookie;
            self.lease = Some(lease);
        }
        Ok(Some(users))
    }
}

async fn next(pool: &Pool, lease: &mut Lease, query: &Query, cookie: Vec<u8>) -> Result<Page, SourceError> {
    let page = lease.connection.page(query, pool.config.limits.page_size, cookie).await;
    page.map_err(|failure| pool.service_error(&failure))
}

async fn all_groups(
    pool: &Pool,
    lease: &mut Lease,
    groups: &LdapGroups,
    skipped: &mut usize,
) -> Result<Vec<RawGroup>, SourceError> {
    let mut attributes = entry::group_attributes(groups);
    attributes.push(groups.member_attribute.clone());
    let query = Query {
        base: groups.base.clone(),
        scope: groups.scope.into(),
        filter: groups.filter.clone(),
        attributes,
    };
    let limits = &pool.config.limits;
    let (mut raw, mut memberships, mut cookie) = (Vec::new(), 0, Vec::new());
    loop {
        let page = next(pool, lease, &query, cookie).await?;
        for entry in page.entries {
            let members = all_members(pool, lease, groups, &entry).await?;
            memberships += members.len();
            bounded(memberships, limits.memberships_max, "memberships")?;
            match entry.group(groups) {
                Ok(group) => raw.push(RawGroup { dn: entry.dn, group, members }),
                Err(attribute) => {
                    *skipped += 1;
                    tracing::debug!(dn = entry.dn, attribute, "an entry without this attribute is no group");
                }
            }
        }
        bounded(raw.len(), limits.groups_max, "groups")?;
        if page.cookie.is_empty() {
            return Ok(raw);
        }
        cookie = page.cookie;
    }
}

/// The members of a group, in as many answers as the server makes of them (Active Directory sends 1,500 at a
/// time, MS-ADTS section 3.1.1.3.1.3.3).
async fn all_members(
    pool: &Pool,
    lease: &mut Lease,
    groups: &LdapGroups,
    group: &Entry,
) -> Result<Vec<String>, SourceError> {
    let attribute = &groups.member_attribute;
    let (mut members, mut rest) = group.members(attribute);
    while let Rest::From(first) = rest {
        bounded(members.len(), pool.config.limits.memberships_max, "memberships")?;
        let query = Query {
            base: group.dn.clone(),
            scope: ldap3::Scope::Base,
            filter: "(objectClass=*)".to_owned(),
            attributes: vec![format!("{attribute};range={first}-*")],
        };
        let page = lease.connection.search(&query, 1).await;
        let page = page.map_err(|failure| pool.service_error(&failure))?;
        let Some(more) = page.entries.first() else { break };
        let (some, after) = more.members(attribute);
        // A server that does not move on is not asked again.
        rest = if some.is_empty() { Rest::None } else { after };
        members.extend(some);
    }
    if groups.member_value == MemberValue::Dn {
        members.iter_mut().for_each(strip_unique_identifier);
    }
    Ok(members)
}

/// `uniqueMember` may end in a bit string that tells namesakes apart (RFC 4517, section 3.3.21).
fn strip_unique_identifier(member: &mut String) {
    if let Some(at) = member.rfind("#'")
        && member.ends_with("'B")
    {
        member.truncate(at);
    }
}

fn bounded(count: usize, max: usize, what: &'static str) -> Result<(), SourceError> {
    if count > max {
        return Err(SourceError::TooLarge { source_name: "the directory".to_owned(), what, max });
    }
    Ok(())
}
