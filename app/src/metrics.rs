//! `/metrics`, as Prometheus scrapes an API server: for who may `get` that path.

use axum::extract::State;
use axum::response::IntoResponse;
use axum::routing::get;
use gantry_base::health::{Health, HealthBoard};
use gantry_base::metrics::{CONTENT_TYPE, Exposition};
use gantry_registry::Registry;
use gantry_routes::Routes;
use http::header;

pub const PATH: &str = "/metrics";

pub fn routes(health: HealthBoard, registry: Registry) -> Routes {
    Routes::new().route(PATH, get(scrape).with_state((health, registry)))
}

async fn scrape(State((health, registry)): State<(HealthBoard, Registry)>) -> impl IntoResponse {
    let mut scrape = Exposition::default();
    scrape
        .gauge("gantry_build_info", "The version that runs; always 1.")
        .sample(&[("version", env!("CARGO_PKG_VERSION"))], 1);
    let mut parts = scrape.gauge("gantry_part_healthy", "Whether a part of the platform is well.");
    for (part, health) in health.all() {
        if !matches!(health, Health::Off(_)) {
            parts.sample(&[("part", &part)], u64::from(health == Health::Ok));
        }
    }
    registry.measure(&mut scrape).await;
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], scrape.into_text())
}
