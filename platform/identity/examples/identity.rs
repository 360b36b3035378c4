//! What a token and a password cost: `cargo run --release -p gantry-identity --example identity`.
//!
//! Prints one table. Tokens are verified on one thread; passwords on as many as there are processors,
//! once by bare threads and once through the pool that logins use.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use gantry_identity::keys::{KeyRing, KeySchedule};
use gantry_identity::password::{HashCost, HasherSettings, Password, PasswordHasher, Workspace};
use gantry_identity::revocation::{Cause, Event, Facts, RevocationSet, SetLimits, Target};
use gantry_identity::token::{Checks, NewToken, TokenScope, Tokens, TokensConfig};
use jiff::{SignedDuration, Timestamp};

const TOKENS: usize = 5_000;
const EVENTS: usize = 50_000;
const CLIENTS: u64 = 16;
const HASHING: Duration = Duration::from_secs(3);
const ROUNDS: u32 = 4;

fn main() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let keys = KeyRing::open(directory.path(), KeySchedule::default(), Timestamp::now()).expect("keys");
    let keys = Arc::new(keys);
    println!("{:<52} {:>12}", "what", "result");
    tokens(&keys);
    signatures();
    revocations(&keys);
    passwords();
}

fn row(what: &str, result: String) {
    println!("{what:<52} {result:>12}");
}

/// Mean time of one call.
fn each<T>(calls: usize, mut call: impl FnMut(usize) -> T) -> String {
    let began = Instant::now();
    for n in 0..calls {
        black_box(call(n));
    }
    format!("{:.2} µs", began.elapsed().as_secs_f64() * 1e6 / calls as f64)
}

fn new_token() -> NewToken {
    NewToken {
        user: "0123456789abcdef0123456789abcdef".to_owned(),
        user_domain: "default".to_owned(),
        authenticated_at: Timestamp::now(),
        methods: vec!["password".to_owned()],
        scope: TokenScope::Project {
            id: "fedcba9876543210fedcba9876543210".to_owned(),
            domain: "default".to_owned(),
        },
        ..NewToken::default()
    }
}

fn tokens(keys: &Arc<KeyRing>) {
    let config = TokensConfig::new("https://gantry.example:6443/identity", "gantry");
    let issuer = Tokens::new(keys.clone(), config.clone());
    let now = Timestamp::now();
    let mut made = Vec::with_capacity(TOKENS);
    let issue = each(TOKENS, |_| made.push(issuer.issue(new_token(), now).expect("issued").token));
    row("token: length", format!("{} B", made[0].len()));
    row("token: issue (ES256)", issue);
    let verifier = Tokens::new(keys.clone(), config);
    let verify = |n: usize| verifier.verify(&made[n % TOKENS], Checks::at(now)).expect("good");
    row("token: verify, first time", each(TOKENS, verify));
    row("token: verify, again", each(20 * TOKENS, verify));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let began = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| (0..20 * TOKENS).for_each(|n| drop(black_box(verify(n)))));
        }
    });
    let rate = (20 * TOKENS * threads) as f64 / began.elapsed().as_secs_f64();
    row(&format!("token: verify, again, {threads} threads"), format!("{rate:.0}/s"));
}

/// What decided for ES256: `src/keys/mod.rs`.
fn signatures() {
    use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
    let random = ring::rand::SystemRandom::new();
    let document = Ed25519KeyPair::generate_pkcs8(&random).expect("a key");
    let pair = Ed25519KeyPair::from_pkcs8(document.as_ref()).expect("a key");
    let message = [7_u8; 450];
    row("Ed25519: sign 450 B", each(2_000, |_| pair.sign(&message)));
    let signature = pair.sign(&message);
    let key = UnparsedPublicKey::new(&ED25519, pair.public_key().as_ref());
    row("Ed25519: verify 450 B", each(2_000, |_| key.verify(&message, signature.as_ref()).expect("good")));
}

fn revocations(keys: &Arc<KeyRing>) {
    let config = TokensConfig::new("https://gantry.example:6443/identity", "gantry");
    let claims =
        Tokens::new(keys.clone(), config).issue(new_token(), Timestamp::now()).expect("issued").claims;
    let now = Timestamp::now();
    let mut set = RevocationSet::new(SignedDuration::from_hours(72), SetLimits::default());
    for n in 0..EVENTS {
        let target = if n % 2 == 0 {
            Target::Token { id: format!("token-{n}"), user: format!("user-{n}") }
        } else {
            Target::User(format!("user-{n}"))
        };
        set.insert(Event::new(target, Cause::Revoked, now));
    }
    let facts = Facts::from(&*claims);
    row(&format!("revocation: {EVENTS} events, one token"), each(200_000, |_| set.find(black_box(&facts))));
}

fn passwords() {
    let cost = HashCost::default();
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let password = Password::new("correct horse battery staple");
    let hash = Workspace::new().hash(&password, &cost).expect("hashed");
    // Of the same priority as the bare threads, in turns: whatever else runs here slows down both.
    let settings = HasherSettings { cost, niceness: 0, ..HasherSettings::default() };
    let hasher = PasswordHasher::start(settings).expect("threads");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let (mut alone, mut through) = (0.0, 0.0);
    for _ in 0..ROUNDS {
        alone += bare(threads, &password, &hash) / f64::from(ROUNDS);
        through += runtime.block_on(pooled(&hasher, &password, &hash)) / f64::from(ROUNDS);
    }
    row(&format!("argon2id ({cost}): bare, {threads} threads"), format!("{alone:.1}/s"));
    row(&format!("argon2id: through the pool, {CLIENTS} clients"), format!("{through:.1}/s"));
    row("argon2id: pool / bare", format!("{:.1} %", 100.0 * through / alone));
}

/// Comparisons per second of threads that do nothing else.
fn bare(threads: usize, password: &Password, hash: &str) -> f64 {
    let began = Instant::now();
    let compare = || {
        let (mut workspace, mut done) = (Workspace::new(), 0);
        while began.elapsed() < HASHING {
            assert!(workspace.verify(password, hash).expect("a good hash"));
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

async fn pooled(hasher: &PasswordHasher, password: &Password, hash: &str) -> f64 {
    let began = Instant::now();
    let clients = (0..CLIENTS).map(|client| {
        let (hasher, password, hash) = (hasher.clone(), password.clone(), hash.to_owned());
        tokio::spawn(async move {
            let mut done = 0;
            while began.elapsed() < HASHING {
                let verified = hasher.verify(client, password.clone(), Some(hash.clone())).await;
                assert!(verified.expect("room").matches);
                done += 1;
            }
            done
        })
    });
    let mut done = 0;
    for client in clients.collect::<Vec<_>>() {
        done += client.await.expect("no panic");
    }
    f64::from(done) / began.elapsed().as_secs_f64()
}
