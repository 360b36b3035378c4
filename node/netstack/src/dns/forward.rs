//! Names of the world outside, from the host's resolvers.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::{Name, Record, RecordType};
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ResolveHosts, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use tokio::sync::{Mutex, Semaphore};
use tokio::time::Instant;

/// Questions under way at once; beyond that clients are told to come again.
const QUESTIONS_MAX: usize = 512;
const CACHED_ANSWERS_MAX: u64 = 4096;
const SERVER_TIMEOUT: Duration = Duration::from_secs(2);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// How often, at most, a question looks whether the host's resolvers changed.
const CONFIGURATION_AGE_MAX: Duration = Duration::from_secs(5);

/// Asks the servers of the host's `resolv.conf` and keeps their answers for as long as they allow.
pub(crate) struct Forwarder {
    path: PathBuf,
    /// Our own address: asking it would never end.
    own: Ipv4Addr,
    questions: Arc<Semaphore>,
    upstream: Mutex<Upstream>,
}

#[derive(Default)]
struct Upstream {
    checked: Option<Instant>,
    configuration: Vec<u8>,
    resolver: Option<Arc<TokioResolver>>,
}

/// The outcome of a question to the servers outside.
pub(crate) struct Forwarded {
    pub code: ResponseCode,
    pub answers: Vec<Record>,
    pub soa: Option<Record>,
}

impl Forwarded {
    fn failed() -> Self {
        Self { code: ResponseCode::ServFail, answers: Vec::new(), soa: None }
    }
}

impl Forwarder {
    pub fn new(own: Ipv4Addr) -> Self {
        Self {
            path: PathBuf::from("/etc/resolv.conf"),
            own,
            questions: Arc::new(Semaphore::new(QUESTIONS_MAX)),
            upstream: Mutex::default(),
        }
    }

    #[cfg(test)]
    pub fn with_file(own: Ipv4Addr, path: PathBuf) -> Self {
        Self { path, ..Self::new(own) }
    }

    pub async fn ask(&self, name: &Name, kind: RecordType) -> Forwarded {
        let Ok(_slot) = self.questions.try_acquire() else { return Forwarded::failed() };
        let Some(resolver) = self.resolver().await else { return Forwarded::failed() };
        match tokio::time::timeout(ANSWER_TIMEOUT, resolver.lookup(name.clone(), kind)).await {
            Ok(Ok(lookup)) => {
                let code = ResponseCode::NoError;
                Forwarded { code, answers: lookup.answers().to_vec(), soa: None }
            }
            Ok(Err(NetError::Dns(DnsError::NoRecordsFound(none)))) => {
                let soa = none.soa.map(|soa| soa.into_record_of_rdata());
                Forwarded { code: none.response_code, answers: Vec::new(), soa }
            }
            Ok(Err(NetError::Dns(DnsError::ResponseCode(code)))) => Forwarded { code, ..Forwarded::failed() },
            Ok(Err(error)) => {
                tracing::debug!(%name, %kind, %error, "forwarding");
                Forwarded::failed()
            }
            Err(_) => Forwarded::failed(),
        }
    }

    async fn resolver(&self) -> Option<Arc<TokioResolver>> {
        let mut upstream = self.upstream.lock().await;
        if upstream.checked.is_none_or(|at| at.elapsed() > CONFIGURATION_AGE_MAX) {
            upstream.checked = Some(Instant::now());
            let configuration = tokio::fs::read(&self.path).await.unwrap_or_default();
            if upstream.resolver.is_none() || configuration != upstream.configuration {
                upstream.resolver = build(&configuration, self.own);
                upstream.configuration = configuration;
            }
        }
        upstream.resolver.clone()
    }
}

/// A resolver over the servers of a `resolv.conf`, or `None` where it names none but ourselves.
fn build(configuration: &[u8], own: Ipv4Addr) -> Option<Arc<TokioResolver>> {
    let (parsed, mut options) = hickory_resolver::system_conf::parse_resolv_conf(configuration)
        .inspect_err(|error| tracing::warn!(%error, "the host's resolv.conf"))
        .ok()?;
    let (_, _, mut servers) = parsed.into_parts();
    servers.retain(|server| server.ip != IpAddr::V4(own));
    if servers.is_empty() {
        return None;
    }
    options.use_hosts_file = ResolveHosts::Never;
    options.cache_size = CACHED_ANSWERS_MAX;
    options.timeout = SERVER_TIMEOUT;
    options.preserve_intermediates = true;
    let config = ResolverConfig::from_parts(None, Vec::new(), servers);
    let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
    *builder.options_mut() = options;
    builder.build().inspect_err(|error| tracing::warn!(%error, "the host's resolvers")).ok().map(Arc::new)
}
