//! What knowing who asks costs: tokens, logins, the way through the front door, and memory, on a real server.
//! `cargo xtask bench access`; `cargo bench --package gantry-tests --bench access -- tokens` is one part of it.
//!
//! The load is made on the same machine and costs time of the same processors, so every rate is beside the CPU time
//! of the server, which is its own.

#[path = "../common.rs"]
mod common;
#[path = "../load.rs"]
mod load;
mod logins;
mod memory;
mod overhead;
#[path = "../people.rs"]
mod people;
mod tokens;

use std::process::ExitCode;

use gantry_testkit::Instance;

use common::Table;
use people::Server;

/// As the platform has it: the part `overhead` runs in this process.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Users of the parts that sign in.
const PEOPLE: usize = 200;
/// Connections, each with one request under way.
const CLIENTS: usize = 16;

fn main() -> ExitCode {
    // Another TLS provider cannot be there: this is the first line that could install one.
    let _ = rustls::crypto::ring::default_provider().install_default();
    // `--bench` is cargo's.
    let chosen: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    let wanted = |part: &str| chosen.is_empty() || chosen.iter().any(|word| word == part);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let mut table = Table::begin();
    if wanted("tokens") || wanted("logins") {
        let Some(gantry) = Instance::builder().no_node().start() else { return unmeasured() };
        let server = runtime.block_on(Server::sign_in(gantry.port(), gantry.data_dir()));
        let people = runtime.block_on(server.people(PEOPLE));
        if wanted("tokens") {
            tokens::measure(&gantry, &server, &people, &mut table);
        }
        if wanted("logins") {
            logins::measure(&gantry, &server, &people, &mut table);
        }
    }
    if wanted("overhead") {
        runtime.block_on(overhead::measure(&mut table));
    }
    if wanted("memory") {
        let Some(gantry) = Instance::builder().no_node().start() else { return unmeasured() };
        memory::measure(&gantry, &mut table);
    }
    table.end()
}

fn unmeasured() -> ExitCode {
    eprintln!("nothing could be measured here");
    ExitCode::FAILURE
}
