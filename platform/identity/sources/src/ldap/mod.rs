//! People and groups of an LDAP directory: OpenLDAP, 389, Active Directory.

mod config;
mod connection;
mod dn;
mod entry;
mod filter;
mod groups;
mod listing;
mod pool;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use secrecy::{ExposeSecret, SecretString};

pub use config::{
    EnabledRule, IdFormat, LdapConfig, LdapGroups, LdapLimits, LdapScope, LdapUsers, MemberValue, Nesting,
};
pub use listing::LdapListing;

use crate::{ExternalUser, Named, SourceError};
use connection::{Failure, Query};
use entry::Entry;
use pool::{Lease, Pool, Purpose};

/// Longer names are nobody's.
const NAME_BYTES_MAX: usize = 256;
/// Longer passwords are not sent.
const PASSWORD_BYTES_MAX: usize = 4096;
/// Names of groups in one filter.
const MEMBERS_PER_FILTER: usize = 50;

/// A directory. Cheap to clone.
#[derive(Clone)]
pub struct LdapSource {
    pool: Arc<Pool>,
}

/// What one server said when asked for its health.
#[derive(Clone, Debug)]
pub struct LdapServerHealth {
    /// Which server.
    pub url: String,
    /// How long it took to connect, bind and search.
    pub latency_ms: u64,
    /// What is wrong with it.
    pub problem: Option<SourceError>,
}

impl LdapSource {
    /// Checks the configuration; nothing is sent yet. `bind_password` belongs to `config.bind_dn`.
    pub fn new(config: LdapConfig, bind_password: Option<SecretString>) -> Result<Self, SourceError> {
        Ok(Self { pool: Arc::new(Pool::new(config, bind_password)?) })
    }

    /// Who `name` is, if `password` is theirs: the one entry that matches is looked up as the service account,
    /// then bound as.
    ///
    /// An unknown name costs as many questions to the server as a known one.
    pub async fn authenticate(
        &self,
        name: &str,
        password: &SecretString,
    ) -> Result<ExternalUser, SourceError> {
        let length = password.expose_secret().len();
        if length == 0 || length > PASSWORD_BYTES_MAX || !is_name(name) {
            return Err(SourceError::BadCredentials);
        }
        let found = self.find(name).await?;
        let dn = match &found {
            Some(entry) => entry.dn.clone(),
            None => format!("cn={},{}", uuid_like(), self.config().users.base),
        };
        let known = self.check_password(&dn, password).await;
        let Some(entry) = found else {
            return Err(match known {
                Err(SourceError::Unavailable { source_name, why }) => {
                    SourceError::Unavailable { source_name, why }
                }
                _ => SourceError::BadCredentials,
            });
        };
        known?;
        let user = self.user(&entry)?;
        if !user.enabled {
            return Err(SourceError::Disabled { user: user.name });
        }
        self.with_groups(&entry, user).await
    }

    /// Who `name` is, without a password: to look again at one person between listings. `None`: there is
    /// nobody, or more than one.
    pub async fn find_user(&self, name: &str) -> Result<Option<ExternalUser>, SourceError> {
        if !is_name(name) {
            return Ok(None);
        }
        let Some(entry) = self.find(name).await? else { return Ok(None) };
        let user = self.user(&entry)?;
        self.with_groups(&entry, user).await.map(Some)
    }

    /// Everybody, page by page, and every group. See [`LdapListing`].
    pub async fn list(&self) -> Result<LdapListing, SourceError> {
        LdapListing::begin(self.pool.clone()).await
    }

    /// Asks every server: can it be reached, does it let the service account in, does the base exist?
    pub async fn test(&self) -> Vec<LdapServerHealth> {
        let mut health = Vec::new();
        for server in self.pool.servers() {
            let begun = Instant::now();
            let problem = self.test_server(server).await.err();
            let latency_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
            health.push(LdapServerHealth { url: server.to_string(), latency_ms, problem });
        }
        health
    }

    async fn test_server(&self, server: &url::Url) -> Result<(), SourceError> {
        let mut connection = self.pool.probe(server).await?;
        let config = self.config();
        let users = (&config.users.base, config.users.scope, &config.users.filter);
        let groups = config.groups.as_ref().map(|g| (&g.base, g.scope, &g.filter));
        for (base, scope, filter) in [users].into_iter().chain(groups) {
            let query = Query {
                base: base.clone(),
                scope: scope.into(),
                filter: filter.clone(),
                attributes: vec!["1.1".to_owned()],
            };
            let page = connection.search(&query, 1).await.map_err(|f| self.pool.service_error(&f))?;
            if page.entries.is_empty() {
                let why = format!("nothing below {base:?} matches {filter}, or the account may not see it");
                return Err(SourceError::misconfigured("the directory", why));
            }
        }
        Ok(())
    }

    fn config(&self) -> &LdapConfig {
        &self.pool.config
    }

    fn user(&self, entry: &Entry) -> Result<ExternalUser, SourceError> {
        entry.user(&self.config().users, now_seconds()).map_err(|attribute| {
            let why = format!("{:?} has no attribute {attribute}, or it may not be read", entry.dn);
            SourceError::misconfigured("the directory", why)
        })
    }

    /// The one entry that `name` stands for.
    async fn find(&self, name: &str) -> Result<Option<Entry>, SourceError> {
        let users = &self.config().users;
        let query = Query {
            base: users.base.clone(),
            scope: users.scope.into(),
            filter: filter::login(users, name),
            attributes: entry::user_attributes(users),
        };
        let mut found = self.search(&query, 2).await?;
        if found.len() > 1 {
            tracing::warn!(name, "more than one entry of the directory goes by this name: nobody may use it");
            return Ok(None);
        }
        Ok(found.pop())
    }

    async fn check_password(&self, dn: &str, password: &SecretString) -> Result<(), SourceError> {
        loop {
            let mut lease = self.pool.lease(Purpose::Bind).await?;
            match lease.connection.bind(dn, password).await {
                Ok(()) => {
                    lease.give_back();
                    return Ok(());
                }
                Err(Failure::Credentials) => {
                    lease.give_back();
                    return Err(SourceError::BadCredentials);
                }
                // An old connection may have died unseen; a new one has no such excuse.
                Err(Failure::Lost(_)) if lease.reused => {}
                Err(failure) => return Err(self.pool.service_error(&failure)),
            }
        }
    }

    /// A short search, at most `max` entries.
    async fn search(&self, query: &Query, max: usize) -> Result<Vec<Entry>, SourceError> {
        loop {
            let mut lease = self.pool.lease(Purpose::Search).await?;
            match lease.connection.search(query, max).await {
                Ok(page) => {
                    // A search that was cut off may still be sending.
                    if !page.more {
                        lease.give_back();
                    }
                    return Ok(page.entries);
                }
                Err(Failure::Lost(_)) if lease.reused => {}
                Err(failure) => return Err(self.pool.service_error(&failure)),
            }
        }
    }

    async fn with_groups(&self, entry: &Entry, mut user: ExternalUser) -> Result<ExternalUser, SourceError> {
        let Some(groups) = &self.config().groups else { return Ok(user) };
        let mut lease = self.pool.lease(Purpose::Search).await?;
        let found = match groups.nested {
            Nesting::InChain => {
                let filter = filter::groups_in_chain(groups, &entry.dn);
                self.groups_of(&mut lease, groups, filter).await.map(|found| found.into_values().collect())
            }
            Nesting::None => self.climb(&mut lease, groups, entry, &user, 0).await,
            Nesting::Recursive { depth_max } => self.climb(&mut lease, groups, entry, &user, depth_max).await,
        };
        user.groups = found?;
        lease.give_back();
        Ok(user.ordered())
    }

    /// The groups of a person, then the groups of those, level by level, each group once.
    async fn climb(
        &self,
        lease: &mut Lease,
        groups: &LdapGroups,
        entry: &Entry,
        user: &ExternalUser,
        depth_max: usize,
    ) -> Result<Vec<Named>, SourceError> {
        let mut members = match groups.member_value {
            MemberValue::Dn => vec![entry.dn.clone()],
            MemberValue::Name => vec![user.name.clone()],
        };
        let mut seen: HashSet<String> = HashSet::new();
        let mut all = Vec::new();
        for _ in 0..=depth_max {
            let mut above = Vec::new();
            for some in members.chunks(MEMBERS_PER_FILTER) {
                let filter = filter::groups_with(groups, some);
                for (dn, group) in self.groups_of(lease, groups, filter).await? {
                    if seen.insert(dn::normalised(&dn)) {
                        above.push(dn);
                        all.push(group);
                    }
                }
            }
            self.bounded_groups(all.len())?;
            members = above;
            if members.is_empty() {
                break;
            }
        }
        Ok(all)
    }

    /// The groups that match, by the names of their entries.
    async fn groups_of(
        &self,
        lease: &mut Lease,
        groups: &LdapGroups,
        filter: String,
    ) -> Result<HashMap<String, Named>, SourceError> {
        let query = Query {
            base: groups.base.clone(),
            scope: groups.scope.into(),
            filter,
            attributes: entry::group_attributes(groups),
        };
        let mut found = HashMap::new();
        let mut cookie = Vec::new();
        loop {
            let page = lease.connection.page(&query, self.config().limits.page_size, cookie).await;
            let page = page.map_err(|failure| self.pool.service_error(&failure))?;
            for entry in page.entries {
                // As in a listing, what has no name or id is no group.
                if let Ok(group) = entry.group(groups) {
                    found.insert(entry.dn, Named { id: group.id, name: group.name });
                }
            }
            self.bounded_groups(found.len())?;
            if page.cookie.is_empty() {
                return Ok(found);
            }
            cookie = page.cookie;
        }
    }

    fn bounded_groups(&self, count: usize) -> Result<(), SourceError> {
        let max = self.config().limits.groups_max;
        if count > max {
            let source_name = "the directory".to_owned();
            return Err(SourceError::TooLarge { source_name, what: "groups", max });
        }
        Ok(())
    }
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= NAME_BYTES_MAX && !name.contains(char::is_control)
}

fn now_seconds() -> i64 {
    jiff::Timestamp::now().as_second()
}

/// A name that no entry has.
fn uuid_like() -> String {
    format!("{:032x}", rand::random::<u128>())
}
