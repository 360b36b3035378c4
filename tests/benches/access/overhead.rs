//! What authentication, authorisation and the audit trail add to a small request.
//!
//! One engine and one store in this process behind two doors: the one that the platform has, and one that lets
//! everybody do everything and writes nothing down, which nobody can have. In turns, so that a slow moment of the
//! machine meets both.

use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use gantry_audit::Audit;
use gantry_base::health::HealthBoard;
use gantry_base::pki::CertificateAuthority;
use gantry_base::tasks::Tasks;
use gantry_embedded::{Embedded, EmbeddedConfig, Seams};
use gantry_frontdoor::{AuthPolicy, FrontDoor, TlsSource, server_config};
use gantry_host::{Capabilities, Host};
use gantry_identity::{Identity, installer, own_user};
use gantry_kube_types::{
    Attributes, Authenticator, Authorizer, ConnectionInfo, Decision, StatusError, UserInfo, groups,
};
use http::HeaderMap;
use tokio_util::sync::CancellationToken;

use crate::CLIENTS;
use crate::common::Table;
use crate::load::{Load, Target, Until, own_cpu};
use crate::people::{OBJECT, Server};

const ROUNDS: usize = 7;
const ROUND: Duration = Duration::from_secs(3);
const BAR: f64 = 15.0;

pub async fn measure(table: &mut Table) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let doors = Doors::open(directory.path()).await;
    let server = Server::sign_in(doors.closed, directory.path()).await;
    let people = server.people(CLIENTS).await;
    let closed = Target::new(doors.closed, &server.authority, None);
    let open = Target::new(doors.open, &server.authority, None);
    // The same bytes for both. Every client is somebody and has a connection, as clients have.
    let requests: Vec<Vec<u8>> = people
        .iter()
        .map(|person| closed.request("GET", OBJECT, &[("x-auth-token", &person.token)], ""))
        .collect();
    let measured = tokio::task::spawn_blocking(move || {
        let (mut with, mut without) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            without.push(round(&open, &requests));
            with.push(round(&closed, &requests));
        }
        (middle(with), middle(without))
    });
    let (with, without) = measured.await.expect("no panic");
    doors.close().await;
    table.told(
        &format!("GET of a ConfigMap, {CLIENTS} clients, everybody allowed and nothing recorded"),
        &shown(without),
    );
    let lost = 100.0 * (1.0 - with.0 / without.0);
    table.judged(
        &format!(
            "the same with authentication, authorisation and audit, median of {ROUNDS} × {} s in turns",
            ROUND.as_secs()
        ),
        &format!("≤ {BAR} % fewer requests"),
        &format!("{}, {lost:.1} % fewer", shown(with)),
        lost <= BAR,
    );
}

/// Requests per second, and milliseconds of CPU that the server and the load took for each.
type Round = (f64, f64, f64);

fn round(target: &Target, requests: &[Vec<u8>]) -> Round {
    let before = own_cpu();
    let until = Until::Time(ROUND);
    let load = Load { target, requests, connections: CLIENTS, until, status: 200, pause: Duration::ZERO };
    let outcome = load.run();
    // The load is a thread of this process.
    let server = own_cpu() - before - outcome.cpu;
    let each = |cpu: Duration| cpu.as_secs_f64() * 1e3 / outcome.done as f64;
    (outcome.rate(), each(server), each(outcome.cpu))
}

fn middle(mut rounds: Vec<Round>) -> Round {
    rounds.sort_by(|one, other| one.0.total_cmp(&other.0));
    rounds[rounds.len() / 2]
}

fn shown((rate, server, load): Round) -> String {
    format!("{rate:.0}/s, {server:.3} ms CPU of the server each ({load:.3} ms of the load)")
}

/// The platform's parts as `app` puts them together, behind its own door and behind an open one.
struct Doors {
    tasks: Tasks,
    audit: Audit,
    embedded: Embedded,
    closed: u16,
    open: u16,
}

impl Doors {
    async fn open(data: &Path) -> Self {
        let tasks = Tasks::new(CancellationToken::new(), HealthBoard::default());
        let pki = data.join("pki");
        let authority = CertificateAuthority::open(&pki, "bench").expect("an authority");
        let identity = Identity::open(gantry_identity::core::Config {
            data: data.join("identity"),
            keys: pki.clone(),
            external_url: "https://127.0.0.1".to_owned(),
            registry_hosts: Vec::new(),
            settings: gantry_identity::core::Settings::default(),
        });
        let identity = identity.expect("identity opens");
        let wraps = identity.clone();
        let seams = Seams {
            admission: identity.admission(),
            authenticators: vec![identity.tokens()],
            wrap_authorizer: Some(Box::new(move |engine| wraps.wrap(engine))),
            visibility: vec![identity.visibility()],
            seldom_read: gantry_identity::SELDOM_READ,
            ..Seams::default()
        };
        let config = EmbeddedConfig {
            data: data.to_owned(),
            keys: pki.clone(),
            service_cidr: "10.96.0.0/16".parse().expect("a range"),
            cluster_domain: "cluster.local".to_owned(),
            external_url: "https://127.0.0.1".to_owned(),
            root_ca_pem: authority.certificate_pem().to_owned(),
            tasks: tasks.clone(),
        };
        let embedded = Embedded::open_with(config, seams).await.expect("the engine opens");
        let mut config = gantry_audit::Config::new(data.join("audit"));
        config.key = pki.join("audit.key");
        let audit = gantry_audit::build(config, embedded.authorizer()).expect("the trail opens");
        identity.audit_to(audit.sink());
        let closed = closed_door(&identity, &embedded, &audit);
        let open = FrontDoor::builder()
            .authenticator(Arc::new(Everybody))
            .authorizer(Arc::new(Everything))
            .fallback(embedded.router())
            .build();
        let (closed_port, open_port) =
            (serve(&closed, &authority, &tasks).await, serve(&open, &authority, &tasks).await);
        embedded.start_loops(&closed, Ipv4Addr::new(10, 96, 0, 1), None).await.expect("the loops start");
        let host = |user: UserInfo| Host {
            client: kube::Client::new(closed.connect_as(user), "default"),
            tasks: tasks.clone(),
            capabilities: Capabilities::default(),
        };
        let masters = host(installer()).client;
        identity.start(&host(own_user()), &masters, None).await.expect("identity starts");
        audit.install(&masters).await.expect("the trail's rights");
        audit.start(&host(UserInfo::authenticated(gantry_audit::OWN_USER, &[])));
        Self { tasks, audit, embedded, closed: closed_port, open: open_port }
    }

    async fn close(self) {
        self.tasks.drain(Duration::from_secs(15)).await;
        self.audit.close().await;
        self.embedded.close().await;
    }
}

/// As the platform's own, without the registry.
fn closed_door(identity: &Identity, embedded: &Embedded, audit: &Audit) -> FrontDoor {
    let mut builder = FrontDoor::builder().authenticator(identity.tokens());
    for authenticator in embedded.authenticators() {
        builder = builder.authenticator(authenticator);
    }
    builder
        .authenticator(embedded.basic_authenticator())
        .authenticator(identity.passwords())
        .audit(audit.sink())
        .authorizer(embedded.authorizer())
        .route_with("/identity", AuthPolicy::Delegated, identity.router())
        .fallback(embedded.router())
        .build()
}

async fn serve(door: &FrontDoor, authority: &CertificateAuthority, tasks: &Tasks) -> u16 {
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
    let port = listener.local_addr().expect("an address").port();
    let certificate = authority
        .server_certificate("front-door", &["localhost".to_owned()], &[Ipv4Addr::LOCALHOST.into()])
        .expect("a certificate");
    let tls = server_config(&certificate, authority.certificate_pem()).expect("usable");
    let (door, shutdown) = (door.clone(), tasks.shutdown().clone());
    tokio::spawn(async move { door.serve(listener, TlsSource::new(tls), shutdown).await });
    port
}

/// Knows everybody.
struct Everybody;

#[async_trait::async_trait]
impl Authenticator for Everybody {
    async fn authenticate(&self, _: &HeaderMap, _: &ConnectionInfo) -> Result<Option<UserInfo>, StatusError> {
        Ok(Some(UserInfo::authenticated("somebody", &[groups::MASTERS])))
    }
}

/// Allows everything.
struct Everything;

impl Authorizer for Everything {
    fn authorize(&self, _: &Attributes) -> Decision {
        Decision::Allow(String::new())
    }
}
