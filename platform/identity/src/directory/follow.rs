//! One watch per kind, into the state.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::sync::Arc;

use futures::StreamExt;
use gantry_base::tasks::Tasks;
use gantry_identity_api::{
    ApplicationCredential, Domain, Group, IdentityProvider, KeystoneRecord, Project, Role, RoleAssignment,
    Trust, User,
};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::assignments::Assignment;
use super::{Directory, State};

/// How many kinds are followed.
pub(super) const KINDS: usize = 10;

/// A kind the directory holds.
pub trait Stored:
    kube::Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Serialize + Send + Sync + 'static
{
    /// What users call it in messages: `project`, `user`, …
    const WORD: &'static str;

    /// Takes the object into the state.
    fn put(state: &mut State, object: Arc<Self>);
    /// Takes it out.
    fn remove(state: &mut State, id: &str);
    /// The ids the state holds.
    fn ids(state: &State) -> Vec<String>;
    /// The revision of the object in the state.
    fn revision(state: &State, id: &str) -> Option<String>;
    /// Gone, or going as soon as what hangs on it is gone.
    fn leaving(state: &State, id: &str) -> bool;
}

macro_rules! stored {
    ($($kind:ty, $word:literal, $table:ident;)*) => {$(
        impl Stored for $kind {
            const WORD: &'static str = $word;

            fn put(state: &mut State, object: Arc<Self>) {
                state.$table.put(object);
            }

            fn remove(state: &mut State, id: &str) {
                state.$table.remove(id);
            }

            fn ids(state: &State) -> Vec<String> {
                state.$table.iter().map(|o| o.name_any()).collect()
            }

            fn revision(state: &State, id: &str) -> Option<String> {
                state.$table.get(id).and_then(|o| o.resource_version())
            }

            fn leaving(state: &State, id: &str) -> bool {
                state.$table.get(id).is_none_or(|o| o.metadata.deletion_timestamp.is_some())
            }
        }
    )*};
}

stored! {
    Domain, "domain", domains;
    Project, "project", projects;
    User, "user", users;
    Group, "group", groups;
    Role, "role", roles;
    ApplicationCredential, "application credential", application_credentials;
    IdentityProvider, "identity provider", providers;
    Trust, "trust", trusts;
    KeystoneRecord, "record", records;
}

impl Stored for RoleAssignment {
    const WORD: &'static str = "role assignment";

    fn put(state: &mut State, object: Arc<Self>) {
        match Assignment::of(&object) {
            Some(assignment) => state.assignments.put(assignment),
            None => state.assignments.remove(&object.name_any()),
        }
    }

    fn remove(state: &mut State, id: &str) {
        state.assignments.remove(id);
    }

    fn ids(state: &State) -> Vec<String> {
        state.assignments.iter().map(|a| a.id.to_string()).collect()
    }

    /// Assignments do not change: what is there is current.
    fn revision(state: &State, id: &str) -> Option<String> {
        state.assignments.get(id).map(|_| String::new())
    }

    fn leaving(state: &State, id: &str) -> bool {
        state.assignments.get(id).is_none()
    }
}

pub(super) fn start(directory: &Directory, tasks: &Tasks, client: &Client) {
    follow::<Domain>(directory, tasks, client);
    follow::<Project>(directory, tasks, client);
    follow::<User>(directory, tasks, client);
    follow::<Group>(directory, tasks, client);
    follow::<Role>(directory, tasks, client);
    follow::<RoleAssignment>(directory, tasks, client);
    follow::<ApplicationCredential>(directory, tasks, client);
    follow::<IdentityProvider>(directory, tasks, client);
    follow::<Trust>(directory, tasks, client);
    follow::<KeystoneRecord>(directory, tasks, client);
}

fn follow<K: Stored>(directory: &Directory, tasks: &Tasks, client: &Client) {
    let (directory, api) = (directory.clone(), Api::<K>::all(client.clone()));
    let shutdown = tasks.shutdown().clone();
    tasks.supervise(&format!("identity/{}", K::plural(&())), move || {
        let (directory, api, shutdown) = (directory.clone(), api.clone(), shutdown.clone());
        async move {
            tokio::select! {
                () = run(&directory, api) => Err("the watch ended"),
                () = shutdown.cancelled() => Ok(()),
            }
        }
    });
}

async fn run<K: Stored>(directory: &Directory, api: Api<K>) {
    let kind: &'static str = K::WORD;
    let mut events = std::pin::pin!(watcher::watcher(api, watcher::Config::default()).default_backoff());
    let mut listed: Vec<Arc<K>> = Vec::new();
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Init) => listed.clear(),
            Ok(Event::InitApply(object)) => listed.push(lean(object)),
            Ok(Event::InitDone) => {
                let revision = listed.iter().map(|o| revision(o.as_ref())).max().unwrap_or(0);
                replace(&mut directory.write(), std::mem::take(&mut listed));
                directory.mark(kind, revision);
            }
            Ok(Event::Apply(object)) => {
                let revision = revision(&object);
                K::put(&mut directory.write(), lean(object));
                directory.mark(kind, revision);
            }
            Ok(Event::Delete(object)) => {
                K::remove(&mut directory.write(), &object.name_any());
                directory.mark(kind, revision(&object));
            }
            // The stream has backed off and comes back by itself.
            Err(error) => tracing::debug!(kind, %error, "watch interrupted"),
        }
    }
}

fn replace<K: Stored>(state: &mut State, listed: Vec<Arc<K>>) {
    let keep: BTreeSet<String> = listed.iter().map(|o| o.name_any()).collect();
    for id in K::ids(state).into_iter().filter(|id| !keep.contains(id)) {
        K::remove(state, &id);
    }
    for object in listed {
        K::put(state, object);
    }
}

fn revision<K: kube::Resource>(object: &K) -> u64 {
    object.meta().resource_version.as_deref().and_then(|v| v.parse().ok()).unwrap_or(0)
}

/// Field ownership is the server's business and half of an object's size.
fn lean<K: kube::Resource>(mut object: K) -> Arc<K> {
    object.meta_mut().managed_fields = None;
    Arc::new(object)
}
