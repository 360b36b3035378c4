//! The registry beside docker-registry: images in and out, requests per second, and garbage collection while images
//! come in. `cargo xtask bench registry`; `cargo bench --package gantry-tests --bench registry -- transfers` is one part.
//!
//! Both listen on loopback with TLS, keep their content on the same disk, and are asked by the same client in turns.
//! Ours also asks who it is and writes down what they did; docker-registry lets everybody in.

mod bucket;
#[path = "../common.rs"]
mod common;
mod downloads;
mod garbage;
mod gets;
#[path = "../load.rs"]
#[expect(dead_code, reason = "the access bench asks more of it")]
mod load;
mod peer;
#[path = "../people.rs"]
#[expect(dead_code, reason = "the access bench asks more of it")]
mod people;
mod remote;
mod transfers;

use std::process::ExitCode;

use gantry_testkit::Instance;

use common::Table;
use people::Server;
use remote::Remote;

fn main() -> ExitCode {
    // Another TLS provider cannot be there: this is the first line that could install one.
    let _ = rustls::crypto::ring::default_provider().install_default();
    // `--bench` is cargo's.
    let chosen: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    let wanted = |part: &str| chosen.is_empty() || chosen.iter().any(|word| word == part);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let mut table = Table::begin();
    if wanted("transfers") || wanted("gets") {
        let Some(gantry) = Instance::builder().no_node().start() else { return unmeasured("no instance") };
        let Some(peer) = peer::start() else { return unmeasured("there is no docker-registry (apt)") };
        let server = runtime.block_on(Server::sign_in(gantry.port(), gantry.data_dir()));
        let ours = runtime.block_on(Remote::ours(&gantry, &server));
        let theirs = peer::remote(&peer);
        if wanted("transfers") {
            runtime.block_on(transfers::measure(&ours, &theirs, &mut table));
        }
        if wanted("gets") {
            runtime.block_on(gets::measure(&ours, &theirs, &mut table));
        }
    }
    if wanted("garbage") {
        runtime.block_on(garbage::measure(&mut table));
    }
    if wanted("bucket") && runtime.block_on(bucket::measure(&table)).is_none() {
        return unmeasured("no instance");
    }
    table.end()
}

fn unmeasured(why: &str) -> ExitCode {
    eprintln!("nothing could be measured here: {why}");
    ExitCode::FAILURE
}
