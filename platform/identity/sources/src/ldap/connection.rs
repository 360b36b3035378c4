//! One connection to one server: the few operations we need, each with a bound in time, each failure sorted.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::FutureExt;
use ldap3::controls::{ControlType, MakeCritical, PagedResults, RawControl};
use ldap3::{Ldap, LdapConnAsync, LdapConnSettings, LdapError, LdapResult, SearchEntry, SearchOptions};
use secrecy::{ExposeSecret, SecretString};
use url::Url;

use super::config::{LdapConfig, LdapScope};
use super::entry::Entry;

/// Result codes (RFC 4511, appendix A).
mod code {
    pub const SUCCESS: u32 = 0;
    pub const OPERATIONS_ERROR: u32 = 1;
    pub const TIME_LIMIT_EXCEEDED: u32 = 3;
    pub const SIZE_LIMIT_EXCEEDED: u32 = 4;
    pub const ADMIN_LIMIT_EXCEEDED: u32 = 11;
    pub const CONSTRAINT_VIOLATION: u32 = 19;
    pub const NO_SUCH_OBJECT: u32 = 32;
    pub const INVALID_DN_SYNTAX: u32 = 34;
    pub const INAPPROPRIATE_AUTHENTICATION: u32 = 48;
    pub const INVALID_CREDENTIALS: u32 = 49;
    pub const BUSY: u32 = 51;
    pub const UNAVAILABLE: u32 = 52;
    pub const UNWILLING_TO_PERFORM: u32 = 53;
}

/// Why an operation gave nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// The server is not there, too slow, or talks nonsense: another may do better.
    Lost(String),
    /// The server has no time now.
    Busy(String),
    /// The server refuses what was asked; so will its neighbours.
    Refused(String),
    /// It knows the name or the password better.
    Credentials,
}

/// What to search.
#[derive(Clone, Debug)]
pub(super) struct Query {
    pub base: String,
    pub scope: ldap3::Scope,
    pub filter: String,
    pub attributes: Vec<String>,
}

/// Some entries of a search, and where the next begin.
#[derive(Debug, Default)]
pub(super) struct Page {
    pub entries: Vec<Entry>,
    /// Empty: there is no more.
    pub cookie: Vec<u8>,
    /// The server found more than it was allowed to send.
    pub more: bool,
}

/// An open connection. Closed when dropped.
pub(super) struct Connection {
    ldap: Ldap,
    driver: tokio::task::JoinHandle<()>,
    timeout: Duration,
    /// When it was last used.
    pub used: Instant,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl From<LdapScope> for ldap3::Scope {
    fn from(scope: LdapScope) -> Self {
        match scope {
            LdapScope::One => Self::OneLevel,
            LdapScope::Subtree => Self::Subtree,
        }
    }
}

impl Connection {
    /// Connects to `url`, TLS included. Nobody is bound yet.
    pub(super) async fn open(
        url: &Url,
        config: &LdapConfig,
        tls: Option<&Arc<rustls::ClientConfig>>,
    ) -> Result<Self, Failure> {
        let within = Duration::from_millis(config.limits.connect_timeout_ms);
        let mut settings = LdapConnSettings::new().set_starttls(config.start_tls);
        if let Some(tls) = tls {
            settings = settings.set_config(tls.clone());
        }
        let (driver, ldap) = guarded(within, LdapConnAsync::from_url_with_settings(settings, url)).await?;
        let driver = tokio::spawn(async move {
            if let Err(e) = driver.drive().await {
                tracing::debug!(error = %Failure::from(e), "connection to the directory ended");
            }
        });
        let timeout = Duration::from_millis(config.limits.operation_timeout_ms);
        Ok(Self { ldap, driver, timeout, used: Instant::now() })
    }

    /// Did the other side hang up?
    pub(super) fn is_closed(&mut self) -> bool {
        self.ldap.is_closed() || self.driver.is_finished()
    }

    /// Simple bind (RFC 4511, section 4.2). An empty name or password would be an anonymous or unauthenticated
    /// bind, which succeeds and proves nothing (RFC 4513, section 5.1.2): it is never sent.
    pub(super) async fn bind(&mut self, dn: &str, password: &SecretString) -> Result<(), Failure> {
        if dn.is_empty() || password.expose_secret().is_empty() {
            return Err(Failure::Credentials);
        }
        let result = guarded(self.timeout, self.ldap.simple_bind(dn, password.expose_secret())).await?;
        // The server's text is left out: it is free to repeat what it was sent.
        match result.rc {
            code::SUCCESS => Ok(()),
            code::INVALID_CREDENTIALS
            | code::INAPPROPRIATE_AUTHENTICATION
            | code::UNWILLING_TO_PERFORM
            | code::CONSTRAINT_VIOLATION
            | code::NO_SUCH_OBJECT
            | code::INVALID_DN_SYNTAX => Err(Failure::Credentials),
            rc => Err(sorted(rc, format!("the bind ended with result code {rc}"))),
        }
    }

    /// The first entries, at most `max`.
    pub(super) async fn search(&mut self, query: &Query, max: usize) -> Result<Page, Failure> {
        let options = SearchOptions::new().sizelimit(i32::try_from(max).unwrap_or(i32::MAX));
        self.run(query, max, None, Some(options)).await
    }

    /// The page that `cookie` stands for, an empty one for the first (RFC 2696).
    pub(super) async fn page(
        &mut self,
        query: &Query,
        size: usize,
        cookie: Vec<u8>,
    ) -> Result<Page, Failure> {
        let paging = PagedResults { size: i32::try_from(size).unwrap_or(i32::MAX), cookie };
        let page = self.run(query, size, Some(paging.critical().into()), None).await?;
        if page.more {
            let why = "the server limits what this account may read (size limit exceeded)";
            return Err(Failure::Refused(why.to_owned()));
        }
        Ok(page)
    }

    async fn run(
        &mut self,
        query: &Query,
        max: usize,
        control: Option<RawControl>,
        options: Option<SearchOptions>,
    ) -> Result<Page, Failure> {
        let ldap = &mut self.ldap;
        let work = async {
            if let Some(control) = control {
                ldap.with_controls(control);
            }
            if let Some(options) = options {
                ldap.with_search_options(options);
            }
            let attributes = &query.attributes;
            let mut stream =
                ldap.streaming_search(&query.base, query.scope, &query.filter, attributes).await?;
            let mut page = Page::default();
            while let Some(found) = stream.next().await? {
                if found.is_ref() || found.is_intermediate() {
                    continue;
                }
                if page.entries.len() == max {
                    // Neither bound was kept by the server.
                    page.more = true;
                    break;
                }
                page.entries.push(Entry::from(SearchEntry::construct(found)));
            }
            if page.more {
                return Ok((page, None));
            }
            let result = stream.finish().await;
            let paged = result.ctrls.iter().find(|c| matches!(c.0, Some(ControlType::PagedResults)));
            page.cookie = paged.map(|c| c.1.parse::<PagedResults>().cookie).unwrap_or_default();
            Ok((page, Some(result)))
        };
        let (mut page, result) = guarded(self.timeout, work).await?;
        match result {
            None => Ok(page),
            Some(LdapResult { rc: code::SUCCESS, .. }) => Ok(page),
            Some(LdapResult { rc: code::SIZE_LIMIT_EXCEEDED, .. }) => {
                page.more = true;
                Ok(page)
            }
            Some(result) => {
                let (base, filter) = (&query.base, &query.filter);
                Err(sorted(result.rc, format!("searching {filter} below {base:?}: {result}")))
            }
        }
    }
}

fn sorted(rc: u32, text: String) -> Failure {
    match rc {
        code::OPERATIONS_ERROR
        | code::TIME_LIMIT_EXCEEDED
        | code::ADMIN_LIMIT_EXCEEDED
        | code::BUSY
        | code::UNAVAILABLE => Failure::Busy(text),
        _ => Failure::Refused(text),
    }
}

/// Bounds `work` in time. The LDAP library panics on answers that are no LDAP: a server must not be able to
/// take a task of ours down with that.
async fn guarded<T>(
    within: Duration,
    work: impl Future<Output = Result<T, LdapError>>,
) -> Result<T, Failure> {
    match tokio::time::timeout(within, AssertUnwindSafe(work).catch_unwind()).await {
        Err(_) => Err(Failure::Lost(format!("no answer within {} ms", within.as_millis()))),
        Ok(Err(_)) => Err(Failure::Lost("the server's answer is no LDAP".to_owned())),
        Ok(Ok(done)) => done.map_err(Failure::from),
    }
}

impl From<LdapError> for Failure {
    /// Texts are chosen here, one by one: some of the library's errors carry the request, password included.
    fn from(error: LdapError) -> Self {
        match error {
            LdapError::Io { source } => Self::Lost(source.to_string()),
            LdapError::Timeout { .. } => Self::Lost("no answer in time".to_owned()),
            LdapError::Rustls { source } => Self::Lost(source.to_string()),
            LdapError::DNSName { .. } => Self::Refused("the host's name fits no certificate".to_owned()),
            LdapError::FilterParsing => Self::Refused("the filter cannot be read".to_owned()),
            LdapError::LdapResult { result } => sorted(result.rc, format!("result code {}", result.rc)),
            LdapError::UnknownScheme(_) | LdapError::UrlParsing { .. } => {
                Self::Refused("the URL cannot be used".to_owned())
            }
            _ => Self::Lost("the connection was closed".to_owned()),
        }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Lost(why) | Self::Busy(why) | Self::Refused(why) => f.write_str(why),
            Self::Credentials => f.write_str("the credentials are not accepted"),
        }
    }
}
