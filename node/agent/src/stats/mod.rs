//! Resource usage of this node and its pods: the kubelet's Summary API and `/metrics/resource`.

mod metrics;
mod sample;
mod summary;
#[cfg(test)]
mod tests;
mod usage;

use std::fs;

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use gantry_cri::ImageFsInfoRequest;
use jiff::Timestamp;

use self::sample::Sampler;
use crate::api::AgentApi;

/// `/stats/summary` and `/metrics/resource`.
pub(crate) fn router(api: AgentApi) -> Router {
    Router::new()
        .route("/stats/summary", get(summary))
        .route("/metrics/resource", get(resource))
        .with_state(Sampler::new(api))
}

async fn summary(State(sampler): State<Sampler>) -> Response {
    let images = sampler.api.runtime.image_fs_info(ImageFsInfoRequest::default());
    // The rest of the summary is worth telling while the runtime is away.
    let (images, (before, now)) = tokio::join!(images, sampler.pair());
    let used = images.ok().and_then(|i| i.image_filesystems.first()?.used_bytes.as_ref().map(|b| b.value));
    let dirs = &sampler.api.dirs;
    let image_dir = dirs.data.join("containerd");
    let node = summary::Node {
        name: &sampler.api.node_name,
        boot: boot_time(&fs::read_to_string("/proc/stat").unwrap_or_default()),
        fs: usage::file_system(&dirs.data),
        image_fs: usage::file_system(&image_dir).or_else(|| usage::file_system(&dirs.data)),
        image_bytes: used,
    };
    axum::Json(summary::summary(&node, &before, &now)).into_response()
}

async fn resource(State(sampler): State<Sampler>) -> Response {
    let sample = sampler.now().await;
    ([(http::header::CONTENT_TYPE, metrics::CONTENT_TYPE)], metrics::text(&sample)).into_response()
}

fn boot_time(stat: &str) -> Option<Timestamp> {
    let seconds = stat.lines().find_map(|l| l.strip_prefix("btime "))?.trim().parse().ok()?;
    Timestamp::from_second(seconds).ok()
}
