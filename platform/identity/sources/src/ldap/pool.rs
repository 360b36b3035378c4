//! Connections, shared and bounded, over several servers.
//!
//! Those that search stay bound as the service account; those that check passwords are bound as somebody else
//! each time and never search. The two are never mixed.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use secrecy::SecretString;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use url::Url;

use super::config::LdapConfig;
use super::connection::{Connection, Failure};
use crate::SourceError;

const NAME: &str = "the directory";

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Bound as the service account.
    Search,
    /// Bound as whoever signs in.
    Bind,
}

pub(super) struct Pool {
    pub config: LdapConfig,
    password: Option<SecretString>,
    servers: Vec<Url>,
    tls: Option<Arc<rustls::ClientConfig>>,
    slots: Arc<Semaphore>,
    state: Mutex<State>,
}

struct State {
    idle: Vec<(Purpose, Connection)>,
    /// By server: until when it is asked last.
    avoid_until: Vec<Option<Instant>>,
}

/// A connection on loan; closed when dropped unless [`Lease::give_back`] is called.
pub(super) struct Lease {
    pub connection: Connection,
    /// It was used before: a failure may just mean that it grew old.
    pub reused: bool,
    purpose: Purpose,
    pool: Arc<Pool>,
    _slot: OwnedSemaphorePermit,
}

impl Pool {
    pub(super) fn new(config: LdapConfig, password: Option<SecretString>) -> Result<Self, SourceError> {
        let servers = config.servers()?;
        let tls = match &config.ca_pem {
            Some(pem) => {
                let tls = crate::tls::client_config(pem);
                Some(Arc::new(tls.map_err(|why| SourceError::misconfigured(NAME, why))?))
            }
            None => None,
        };
        if config.bind_dn.as_ref().is_some_and(|dn| !dn.is_empty()) != password.is_some() {
            return Err(SourceError::misconfigured(NAME, "bindDn and its password belong together"));
        }
        let slots = Arc::new(Semaphore::new(config.limits.connections_max));
        let state = State { idle: Vec::new(), avoid_until: vec![None; servers.len()] };
        Ok(Self { config, password, servers, tls, slots, state: Mutex::new(state) })
    }

    /// An idle connection, else a new one to the first server that answers.
    pub(super) async fn lease(self: &Arc<Self>, purpose: Purpose) -> Result<Lease, SourceError> {
        let wait = Duration::from_millis(self.config.limits.wait_timeout_ms);
        let slot = match tokio::time::timeout(wait, self.slots.clone().acquire_owned()).await {
            Ok(Ok(slot)) => slot,
            _ => {
                let why = format!("all {} connections are in use", self.config.limits.connections_max);
                return Err(SourceError::unavailable(NAME, why));
            }
        };
        let (connection, reused) = match self.idle(purpose) {
            Some(connection) => (connection, true),
            None => (self.connect(purpose).await?, false),
        };
        Ok(Lease { connection, reused, purpose, pool: self.clone(), _slot: slot })
    }

    /// Does `server` answer, and does it know the service account?
    pub(super) async fn probe(&self, server: &Url) -> Result<Connection, SourceError> {
        self.open(server, Purpose::Search).await.map_err(|failure| self.service_error(&failure))
    }

    pub(super) fn servers(&self) -> &[Url] {
        &self.servers
    }

    /// What an operation's failure means to the caller, where it does not mean wrong credentials.
    pub(super) fn service_error(&self, failure: &Failure) -> SourceError {
        match failure {
            Failure::Lost(why) | Failure::Busy(why) => SourceError::unavailable(NAME, why),
            Failure::Refused(why) => SourceError::misconfigured(NAME, why),
            Failure::Credentials => {
                let who = self.config.bind_dn.as_deref().unwrap_or("anonymous");
                SourceError::misconfigured(NAME, format!("the server does not let {who:?} in"))
            }
        }
    }

    fn idle(&self, purpose: Purpose) -> Option<Connection> {
        let idle_max = Duration::from_millis(self.config.limits.idle_ms_max);
        let mut state = self.state();
        state.idle.retain_mut(|(_, c)| c.used.elapsed() < idle_max && !c.is_closed());
        let at = state.idle.iter().rposition(|(p, _)| *p == purpose)?;
        Some(state.idle.swap_remove(at).1)
    }

    /// Servers in order, those that failed lately at the end.
    async fn connect(&self, purpose: Purpose) -> Result<Connection, SourceError> {
        let now = Instant::now();
        let mut order: Vec<usize> = (0..self.servers.len()).collect();
        {
            let state = self.state();
            order.sort_by_key(|at| state.avoid_until[*at].is_some_and(|until| until > now));
        }
        let mut failures = Vec::new();
        for at in order {
            match self.open(&self.servers[at], purpose).await {
                Ok(connection) => {
                    self.state().avoid_until[at] = None;
                    return Ok(connection);
                }
                // Neighbours share their accounts: a second refusal would only count against the account.
                Err(Failure::Credentials) => return Err(self.service_error(&Failure::Credentials)),
                Err(failure) => {
                    let avoid = Duration::from_millis(self.config.limits.avoid_ms);
                    self.state().avoid_until[at] = Some(Instant::now() + avoid);
                    tracing::warn!(server = %self.servers[at], error = %failure, "directory server passed over");
                    failures.push((&self.servers[at], failure));
                }
            }
        }
        let said: Vec<String> = failures.iter().map(|(server, why)| format!("{server}: {why}")).collect();
        let refused = failures.iter().all(|(_, why)| matches!(why, Failure::Refused(_)));
        let why = said.join("; ");
        Err(if refused { SourceError::misconfigured(NAME, why) } else { SourceError::unavailable(NAME, why) })
    }

    async fn open(&self, server: &Url, purpose: Purpose) -> Result<Connection, Failure> {
        let mut connection = Connection::open(server, &self.config, self.tls.as_ref()).await?;
        if purpose == Purpose::Search
            && let (Some(dn), Some(password)) = (&self.config.bind_dn, &self.password)
        {
            connection.bind(dn, password).await?;
        }
        Ok(connection)
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        // Nothing between lock and unlock can leave the lists half-changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lease {
    /// Lets the next caller use the connection.
    pub(super) fn give_back(self) {
        let Self { mut connection, purpose, pool, _slot, .. } = self;
        connection.used = Instant::now();
        pool.state().idle.push((purpose, connection));
    }
}
