//! Somebody who asks the same over one connection again and again: what is remembered of it ends with the rights it came
//! from, and each question has its record.

use std::time::Instant;

use gantry_testkit::Instance;
use reqwest::Method;
use serde_json::{Value, json};

use crate::closed::Door;
use crate::people::Person;
use crate::support::SOON;

const PATH: &str = "/api/v1/namespaces/web-dev/configmaps";
/// So often it is asked for each answer.
const TIMES: usize = 30;

struct Poller {
    door: Door,
    token: String,
    answers: Vec<u16>,
}

impl Poller {
    async fn poll(&mut self) -> u16 {
        let status = self.door.ask(Method::GET, PATH, Some(("x-auth-token", &self.token))).await.as_u16();
        self.answers.push(status);
        status
    }

    /// Asks until this is the answer, and then for some more time.
    async fn until(&mut self, wanted: u16) {
        let began = Instant::now();
        while self.poll().await != wanted {
            assert!(began.elapsed() < SOON, "it is not {wanted}");
        }
        for _ in 0..TIMES {
            assert_eq!(self.poll().await, wanted, "after it had been");
        }
    }
}

#[test]
fn who_polls_notices_what_changes_and_leaves_a_record_each_time() {
    let Some(gantry) = Instance::builder().no_node().start() else { return };
    gantry.gantry(&["domain", "create", "acme"]).ok();
    gantry.gantry(&["project", "create", "acme/web", "--environment", "dev"]).ok();
    let alice = Person::create(&gantry, "acme/alice");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let mut poller = runtime.block_on(async {
        let door = Door::of(&gantry);
        let user = json!({ "name": "alice", "domain": { "name": "acme" }, "password": alice.password });
        let login =
            json!({ "auth": { "identity": { "methods": ["password"], "password": { "user": user } } } });
        let token = door.login(&login).await;
        Poller { door, token, answers: Vec::new() }
    });
    let given = ["member", "--user", "acme/alice", "--project", "acme/web"];
    for (command, answer) in [("assign", 200), ("unassign", 403), ("assign", 200)] {
        gantry.gantry(&[&[command], &given[..]].concat()).ok();
        runtime.block_on(poller.until(answer));
    }
    gantry.gantry(&["user", "password", "acme/alice", "--generate"]).ok();
    runtime.block_on(poller.until(401));

    let all = ["audit", "export", "--user", "acme/alice", "--verb", "list", "--resource", "configmaps"];
    let records = gantry.gantry(&all).ok();
    let records =
        records.lines().map(|line| serde_json::from_str::<Value>(line).expect("a record is a line"));
    let recorded: Vec<Value> = records.map(|record| record["responseStatus"]["code"].clone()).collect();
    // Those of a token that is not good any more are nobody's.
    let answered: Vec<u16> = poller.answers.into_iter().filter(|answer| *answer != 401).collect();
    assert!(answered.len() > 3 * TIMES);
    assert_eq!(recorded, answered);
}
