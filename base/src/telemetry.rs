//! Logs of our own process: one line per event on standard error.

use tracing_subscriber::EnvFilter;

/// Starts logging. `filter` is tracing's syntax (`info,gantry_agent=debug`); one that cannot be read
/// falls back to `info` and says so.
pub fn init(filter: Option<&str>) {
    let asked = filter.unwrap_or(DEFAULT_FILTER);
    let parsed = EnvFilter::try_new(asked);
    let wrong = parsed.is_err();
    let filter = parsed.unwrap_or_else(|_| EnvFilter::new(DEFAULT_FILTER));
    let started = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .with_target(true)
        .try_init();
    if started.is_ok() && wrong {
        tracing::warn!(asked, "this log filter cannot be read; using the default");
    }
}

/// The client library logs every reconnect of a watch as an error; ours say what matters.
const DEFAULT_FILTER: &str = "info,kube_client=warn,kube_runtime=warn,hyper_util=warn,tower=warn";
