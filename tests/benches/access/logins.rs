//! Sign-ins with a password against the hash alone, and what others feel of many of them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use gantry_identity::password::{HashCost, HasherSettings, Password, Workspace};
use gantry_testkit::Instance;

use crate::CLIENTS;
use crate::common::{Table, cpu};
use crate::load::{Load, Outcome, Target, Until};
use crate::people::{OBJECT, Person, Server};

const ROUNDS: usize = 5;
const ROUND: Duration = Duration::from_secs(3);
/// Between two small requests of one client.
const PAUSE: Duration = Duration::from_millis(2);
const SHARE_BAR: f64 = 90.0;
const P99_BAR: f64 = 2.0;

pub fn measure(gantry: &Instance, server: &Server, people: &[Person], table: &mut Table) {
    let target = Target::new(server.port, &server.authority, None);
    let logins: Vec<Vec<u8>> = people
        .iter()
        .map(|person| target.request("POST", "/identity/v3/auth/tokens", &[], &person.login_body()))
        .collect();
    rate(gantry, &target, &logins, table);
    patience(&target, &logins, people, table);
}

fn storm<'a>(target: &'a Target, logins: &'a [Vec<u8>], time: Duration) -> Load<'a> {
    Load {
        target,
        requests: logins,
        connections: CLIENTS,
        until: Until::Time(time),
        status: 201,
        pause: Duration::ZERO,
    }
}

/// Sign-ins beside bare hashes in turns: whatever else runs here slows down both.
fn rate(gantry: &Instance, target: &Target, logins: &[Vec<u8>], table: &mut Table) {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let mut shares = Vec::new();
    let (mut alone, mut signed_in, mut spent) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let bare = bare(threads);
        let before = cpu(gantry.pid());
        let outcome = storm(target, logins, ROUND).run();
        let each = (cpu(gantry.pid()) - before).as_secs_f64() * 1e3 / outcome.done as f64;
        shares.push(100.0 * outcome.rate() / bare);
        alone.push(bare);
        signed_in.push(outcome.rate());
        spent.push(each);
    }
    let cost = HashCost::default();
    table.told(
        &format!("argon2id ({cost}) alone, {threads} threads"),
        &format!("{:.1}/s", median(&mut alone)),
    );
    table.judged(
        &format!(
            "password logins, {CLIENTS} clients, median of {ROUNDS} × {} s ({:.1} ms CPU of the server each)",
            ROUND.as_secs(),
            median(&mut spent)
        ),
        &format!("≥ {SHARE_BAR} % of it"),
        &format!("{:.1}/s, {:.1} %", median(&mut signed_in), median(&mut shares)),
        median(&mut shares) >= SHARE_BAR,
    );
}

/// Comparisons per second of threads that do nothing else, at the priority of the server's.
fn bare(threads: usize) -> f64 {
    let password = Password::new("correct horse battery staple");
    let hash = Workspace::new().hash(&password, &HashCost::default()).expect("hashed");
    let niceness = HasherSettings::default().niceness;
    let began = Instant::now();
    let compare = || {
        gantry_base::threads::stand_back(niceness);
        let (mut workspace, mut done) = (Workspace::new(), 0);
        while began.elapsed() < ROUND {
            assert!(workspace.verify(&password, &hash).expect("a good hash"));
            done += 1;
        }
        done
    };
    let done: u32 = std::thread::scope(|scope| {
        let all: Vec<_> = (0..threads).map(|_| scope.spawn(compare)).collect();
        all.into_iter().map(|thread| thread.join().expect("no panic")).sum()
    });
    f64::from(done) / began.elapsed().as_secs_f64()
}

/// How long a small request takes when nothing else is asked for, and during a storm of sign-ins.
fn patience(target: &Target, logins: &[Vec<u8>], people: &[Person], table: &mut Table) {
    let requests: Vec<Vec<u8>> = people
        .iter()
        .map(|person| target.request("GET", OBJECT, &[("x-auth-token", &person.token)], ""))
        .collect();
    let small = || {
        let until = Until::Time(ROUND);
        Load { target, requests: &requests, connections: 1, until, status: 200, pause: PAUSE }.run()
    };
    let (mut idle, mut busy): (Vec<Outcome>, Vec<Outcome>) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        idle.push(small());
        let ended = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !ended.load(Ordering::Relaxed) {
                    storm(target, logins, ROUND / 4).run();
                }
            });
            busy.push(small());
            ended.store(true, Ordering::Relaxed);
        });
    }
    let percentile = |outcomes: &[Outcome], percent| {
        median(&mut outcomes.iter().map(|o| f64::from(o.percentile_us(percent))).collect::<Vec<_>>())
    };
    let times = percentile(&busy, 99) / percentile(&idle, 99);
    table.judged(
        &format!(
            "p99 of a GET of a ConfigMap every {} ms during a login storm against idle, median of {ROUNDS} × {} s (p50 {:.0} µs against {:.0} µs)",
            PAUSE.as_millis(),
            ROUND.as_secs(),
            percentile(&busy, 50),
            percentile(&idle, 50)
        ),
        &format!("≤ {P99_BAR} ×"),
        &format!("{:.0} µs against {:.0} µs, {times:.1} ×", percentile(&busy, 99), percentile(&idle, 99)),
        times <= P99_BAR,
    );
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
