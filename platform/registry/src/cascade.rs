//! With a project, and with a domain, go its repositories.
//!
//! They are deleted as anybody would delete them: as objects, whose finalizer stays until the content is gone. Nothing
//! is kept of a deletion that is under way. What has to go is seen by looking at what is there, and a process that
//! ends in the middle finds the rest at its next start.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::{StreamExt, TryStreamExt, stream};
use gantry_host::Host;
use gantry_identity_api::{Domain, Project};
use gantry_reconcile::{Again, Change, Informer, Kind, Queue, work};
use gantry_registry_api::{Owner, Repository};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{DeleteParams, PartialObjectMeta, Preconditions};
use kube::{Api, Client, ResourceExt};

use crate::catalogue::{Catalogue, Followed};

/// One is enough: an owner goes rarely, and its repositories go several at a time.
const WORKERS: usize = 1;
/// Deletions on the way at one time.
const PARALLEL: usize = 8;
/// When an owner is looked up again whom the API knows, and the catalogue does not: an owner that came and went while
/// the watch was interrupted is never told of.
const LOOK_AGAIN: Duration = Duration::from_secs(30);

#[derive(Clone)]
struct Cascade {
    client: Client,
    catalogue: Catalogue,
    repositories: Informer<Repository>,
    went: Went,
}

/// Who was seen to go, and whose repositories have not all been deleted since. Whoever makes a project of the same id
/// at once, in whatever domain, must not find the images of the one before.
#[derive(Clone, Default)]
struct Went(Arc<Mutex<HashSet<Owner>>>);

impl Went {
    fn all(&self) -> MutexGuard<'_, HashSet<Owner>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Is the change the end of one, perhaps with another of the same id in its place?
    fn is_end<K: Kind>(change: &Change<K>) -> bool {
        let uid = |object: &Option<Arc<K>>| object.as_ref().and_then(|object| object.meta().uid.clone());
        change.old.is_some() && uid(&change.old) != uid(&change.new)
    }
}

/// Deletes repositories whose owner is gone, now and from now on. Projects and domains are known already: who is not
/// among them is looked up.
pub(crate) fn start(host: &Host, catalogue: &Catalogue, followed: &Followed) {
    let (queue, went) = (Queue::<Owner>::default(), Went::default());
    let note = {
        let (queue, went) = (queue.clone(), went.clone());
        move |owner: Owner| {
            went.all().insert(owner.clone());
            queue.add(owner);
        }
    };
    let gone = note.clone();
    followed.projects.on_change(move |change| {
        if let Some(object) = change.object().filter(|_| Went::is_end(change)) {
            gone(Owner::of_project(object.name_any()));
        }
    });
    followed.domains.on_change(move |change| {
        if let Some(object) = change.object().filter(|_| Went::is_end(change)) {
            note(Owner::of_domain(object.name_any()));
        }
    });
    // Also those that a push made at the moment when their owner went, and those found at the start.
    let (gone, known) = (queue.clone(), catalogue.clone());
    followed.repositories.on_change(move |change| {
        let owner = change.object().map(|object| object.spec.owner.clone());
        if let Some(owner) = owner.filter(|owner| !known.knows(owner)) {
            gone.add(owner);
        }
    });
    let cascade = Cascade {
        client: host.client.clone(),
        catalogue: catalogue.clone(),
        repositories: followed.repositories.clone(),
        went,
    };
    work(&host.tasks, "cascade", queue, WORKERS, move |owner| {
        let cascade = cascade.clone();
        async move { cascade.reconcile(&owner).await }
    });
}

impl Cascade {
    async fn reconcile(&self, owner: &Owner) -> Result<Again, kube::Error> {
        let went = self.went.all().contains(owner);
        if !went && self.catalogue.knows(owner) {
            return Ok(Again::OnChange);
        }
        let left: Vec<Arc<Repository>> =
            self.repositories.list().into_iter().filter(|r| r.spec.owner == *owner).collect();
        if left.is_empty() {
            self.went.all().remove(owner);
            self.catalogue.forget_gone(owner);
            return Ok(Again::OnChange);
        }
        // What is kept here may be behind; what takes images away must not be.
        let goes: Vec<Arc<Repository>> = match self.look_up(owner).await? {
            Found::Nobody => left,
            Found::Since(made) if went => {
                left.into_iter().filter(|r| r.metadata.creation_timestamp < made).collect()
            }
            Found::Since(_) => return Ok(Again::After(LOOK_AGAIN)),
        };
        let goes = goes.into_iter().filter(|r| r.metadata.deletion_timestamp.is_none());
        let deletions: Vec<_> = goes.map(|repository| self.delete(repository)).collect();
        let deleted: Vec<()> = stream::iter(deletions).buffer_unordered(PARALLEL).try_collect().await?;
        self.went.all().remove(owner);
        if !deleted.is_empty() {
            tracing::info!(%owner, repositories = deleted.len(), "repositories go with their owner");
        }
        Ok(Again::OnChange)
    }

    /// Asks the API itself who has the owner's id.
    async fn look_up(&self, owner: &Owner) -> kube::Result<Found> {
        match (&owner.project, &owner.domain) {
            (Some(id), _) => Found::of(id, Api::<Project>::all(self.client.clone()).get_metadata(id).await),
            (None, Some(id)) => Found::of(id, Api::<Domain>::all(self.client.clone()).get_metadata(id).await),
            // The platform does not go.
            (None, None) => Ok(Found::Since(None)),
        }
    }

    /// This one, and none that was made of its name meanwhile.
    async fn delete(&self, repository: Arc<Repository>) -> kube::Result<()> {
        let preconditions = Some(Preconditions { uid: repository.uid(), resource_version: None });
        let how = DeleteParams { preconditions, ..DeleteParams::default() };
        match Api::<Repository>::all(self.client.clone()).delete(&repository.name_any(), &how).await {
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
            done => done.map(drop),
        }
    }
}

/// Who has an id.
enum Found {
    Nobody,
    /// Somebody who was made then.
    Since(Option<Time>),
}

impl Found {
    /// Nobody, that is a 404 that names the object. One that does not says that the kind is not served: that is true
    /// of every id.
    fn of<K>(id: &str, asked: kube::Result<PartialObjectMeta<K>>) -> kube::Result<Self> {
        match asked {
            Ok(found) => Ok(Self::Since(found.metadata.creation_timestamp)),
            Err(kube::Error::Api(status))
                if status.code == 404
                    && status.details.as_ref().is_some_and(|details| details.name == id) =>
            {
                Ok(Self::Nobody)
            }
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
#[path = "cascade/tests.rs"]
mod tests;
