//! Writing objects: through the API like everybody, and seen in the directory before the caller is answered.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use kube::api::{DeleteParams, PostParams};
use kube::{Api, Client, ResourceExt};

use crate::directory::{Directory, Stored};
use crate::errors::{IdentityError, of_kube};

/// How often a change is tried anew when others change the object at the same time.
const CONFLICTS_MAX: usize = 16;

/// How long somebody waits for what they deleted to be gone.
const GONE_WAIT: Duration = Duration::from_secs(3);

/// What of an object is written.
#[derive(Clone, Copy)]
enum Part {
    Object,
    Status,
}

/// Writes identity's objects.
#[derive(Clone)]
pub struct Objects {
    /// There once the API is served.
    client: Arc<OnceLock<Client>>,
    directory: Directory,
}

impl Objects {
    pub fn new(directory: Directory) -> Self {
        Self { client: Arc::default(), directory }
    }

    /// Gives it the client, once.
    pub fn connect(&self, client: Client) {
        // A second one would speak as the same user.
        let _ = self.client.set(client);
    }

    /// Who the writes are made as.
    pub fn client(&self) -> Result<Client, IdentityError> {
        let client = self.client.get().cloned();
        client.ok_or_else(|| IdentityError::Unavailable("the API is not served yet".to_owned()))
    }

    /// Creates the object; its name is its id.
    pub async fn create<K: Stored>(&self, object: &K) -> Result<K, IdentityError> {
        let api = Api::<K>::all(self.client()?);
        let name = object.name_any();
        let made = api.create(&PostParams::default(), object).await;
        let made = made.map_err(|error| of_kube(K::WORD, &name, error))?;
        self.shown(&made).await?;
        Ok(made)
    }

    /// Reads the object, lets `change` change it, and writes it back; again when somebody was quicker.
    pub async fn update<K: Stored>(
        &self,
        id: &str,
        change: impl Fn(&mut K) -> Result<(), IdentityError>,
    ) -> Result<K, IdentityError> {
        self.write(id, change, Part::Object).await
    }

    /// [`Objects::update`] of what is known of the object, which is nobody's to ask for.
    pub async fn update_status<K: Stored>(
        &self,
        id: &str,
        change: impl Fn(&mut K) -> Result<(), IdentityError>,
    ) -> Result<K, IdentityError> {
        self.write(id, change, Part::Status).await
    }

    async fn write<K: Stored>(
        &self,
        id: &str,
        change: impl Fn(&mut K) -> Result<(), IdentityError>,
        part: Part,
    ) -> Result<K, IdentityError> {
        let api = Api::<K>::all(self.client()?);
        let mut tries = 0;
        loop {
            let mut object = api.get(id).await.map_err(|error| of_kube(K::WORD, id, error))?;
            change(&mut object)?;
            let replaced = match part {
                Part::Object => api.replace(id, &PostParams::default(), &object).await,
                Part::Status => api.replace_status(id, &PostParams::default(), &object).await,
            };
            match replaced {
                Ok(changed) => {
                    self.shown(&changed).await?;
                    return Ok(changed);
                }
                Err(kube::Error::Api(status)) if status.code == 409 && tries < CONFLICTS_MAX => tries += 1,
                Err(error) => return Err(of_kube(K::WORD, id, error)),
            }
        }
    }

    /// Deletes the object and waits until it is gone or on its way: what hangs on it, a project's namespaces, may
    /// take longer, and it is of no use to anybody meanwhile.
    pub async fn delete<K: Stored>(&self, id: &str) -> Result<(), IdentityError> {
        let api = Api::<K>::all(self.client()?);
        api.delete(id, &DeleteParams::default()).await.map_err(|error| of_kube(K::WORD, id, error))?;
        self.directory.until(|state| K::leaving(state, id)).await
    }

    /// [`Objects::delete`], and then until nobody sees the object any more, where that does not take long: what hung on a
    /// user is taken away in no time, pods of a project are given time to end.
    pub async fn remove<K: Stored>(&self, id: &str) -> Result<(), IdentityError> {
        self.delete::<K>(id).await?;
        let gone = self.directory.until(|state| K::revision(state, id).is_none());
        // As good as gone, otherwise: it is on its way.
        let _ = tokio::time::timeout(GONE_WAIT, gone).await;
        Ok(())
    }

    async fn shown<K: Stored>(&self, object: &K) -> Result<(), IdentityError> {
        let (id, want) = (object.name_any(), object.resource_version());
        let want: u64 = want.as_deref().and_then(|v| v.parse().ok()).unwrap_or(0);
        self.directory
            .until(|state| {
                K::revision(state, &id).is_some_and(|at| at.is_empty() || at.parse().unwrap_or(0) >= want)
            })
            .await
    }
}
