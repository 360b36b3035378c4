//! One watch per kind, into the state.

use std::collections::HashSet;
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

    /// As what it is in the state. A list is made of these, and not of objects that are taken in at its end: there may
    /// be a hundred thousand.
    type Kept: Send;

    /// What is kept of the object.
    fn kept(object: Self) -> Self::Kept;
    /// The id of the object that it was kept of.
    fn id(kept: &Self::Kept) -> &str;
    /// Takes it into the state.
    fn put(state: &mut State, kept: Self::Kept);
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

            type Kept = Arc<Self>;

            /// Without field ownership, which is the server's business and half of an object's size.
            fn kept(mut object: Self) -> Self::Kept {
                object.metadata.managed_fields = None;
                Arc::new(object)
            }

            fn id(kept: &Self::Kept) -> &str {
                kept.metadata.name.as_deref().unwrap_or_default()
            }

            fn put(state: &mut State, kept: Self::Kept) {
                state.$table.put(kept);
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

    /// Or the id of an object that grants nothing.
    type Kept = Result<Assignment, String>;

    fn kept(object: Self) -> Self::Kept {
        Assignment::of(&object).ok_or_else(|| object.name_any())
    }

    fn id(kept: &Self::Kept) -> &str {
        match kept {
            Ok(assignment) => &assignment.id,
            Err(id) => id,
        }
    }

    fn put(state: &mut State, kept: Self::Kept) {
        match kept {
            Ok(assignment) => state.assignments.put(assignment),
            Err(id) => state.assignments.remove(&id),
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
    let (mut listed, mut newest) = (Vec::new(), 0);
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Init) => (listed, newest) = (Vec::new(), 0),
            Ok(Event::InitApply(object)) => {
                newest = revision(&object).max(newest);
                listed.push(K::kept(object));
            }
            Ok(Event::InitDone) => {
                replace::<K>(&mut directory.write(), std::mem::take(&mut listed));
                directory.mark(kind, newest);
            }
            Ok(Event::Apply(object)) => {
                let revision = revision(&object);
                K::put(&mut directory.write(), K::kept(object));
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

fn replace<K: Stored>(state: &mut State, listed: Vec<K::Kept>) {
    let gone: Vec<String> = {
        let keep: HashSet<&str> = listed.iter().map(K::id).collect();
        K::ids(state).into_iter().filter(|id| !keep.contains(id.as_str())).collect()
    };
    gone.iter().for_each(|id| K::remove(state, id));
    listed.into_iter().for_each(|kept| K::put(state, kept));
}

fn revision<K: kube::Resource>(object: &K) -> u64 {
    object.meta().resource_version.as_deref().and_then(|v| v.parse().ok()).unwrap_or(0)
}
