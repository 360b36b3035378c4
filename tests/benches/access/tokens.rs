//! Validation of tokens by a service, as keystonemiddleware does it.

use std::time::Duration;

use gantry_testkit::Instance;

use crate::CLIENTS;
use crate::common::{Table, cpu};
use crate::load::{Load, Target, Until};
use crate::people::{Person, Server};

const ROUNDS: usize = 3;
const ROUND: Duration = Duration::from_secs(5);
const RATE_BAR: f64 = 20_000.0;
const CPU_BAR_MS: f64 = 0.1;

pub fn measure(gantry: &Instance, server: &Server, people: &[Person], table: &mut Table) {
    let target = Target::new(server.port, &server.authority, None);
    let requests: Vec<Vec<u8>> = people
        .iter()
        .map(|person| {
            let headers = [("x-auth-token", server.token.as_str()), ("x-subject-token", &person.token)];
            target.request("GET", "/identity/v3/auth/tokens", &headers, "")
        })
        .collect();
    let mut rounds: Vec<(f64, f64, f64)> = (0..ROUNDS)
        .map(|_| {
            let before = cpu(gantry.pid());
            let load = Load {
                target: &target,
                requests: &requests,
                connections: CLIENTS,
                until: Until::Time(ROUND),
                status: 200,
                pause: Duration::ZERO,
            };
            let outcome = load.run();
            let spent = cpu(gantry.pid()) - before;
            let each = |cpu: Duration| cpu.as_secs_f64() * 1e3 / outcome.done as f64;
            (outcome.rate(), each(spent), each(outcome.cpu))
        })
        .collect();
    rounds.sort_by(|one, other| one.0.total_cmp(&other.0));
    let (rate, each, of_load) = rounds[ROUNDS / 2];
    table.judged(
        &format!(
            "token validations, {} tokens, {CLIENTS} clients, median of {ROUNDS} × {} s (the load took {of_load:.3} ms CPU each of the same processors)",
            people.len(),
            ROUND.as_secs()
        ),
        &format!("≥ {RATE_BAR}/s"),
        &format!("{rate:.0}/s"),
        rate >= RATE_BAR,
    );
    table.judged(
        "– CPU of the server for each",
        &format!("≤ {CPU_BAR_MS} ms"),
        &format!("{each:.3} ms"),
        each <= CPU_BAR_MS,
    );
}
