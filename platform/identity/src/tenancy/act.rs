//! Writing what a plan wants. Every write is safe to repeat.

use std::collections::BTreeMap;
use std::fmt::Debug;

use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use super::account::{self, DefaultAccount};
use super::managed::{Managed, Thin, digest};
use super::names;

/// What can go wrong in a reconciler: all of it is tried again.
pub type Result<T> = std::result::Result<T, ActError>;

/// A write that failed, or a callback.
#[derive(Debug, thiserror::Error)]
pub enum ActError {
    #[error("{what}: {source}")]
    Api { what: String, source: kube::Error },
    #[error("forgetting the secrets of {owner:?}: {why}")]
    Secrets { owner: String, why: String },
}

fn failed(what: impl Into<String>) -> impl FnOnce(kube::Error) -> ActError {
    let what = what.into();
    move |source| ActError::Api { what, source }
}

fn code(error: &kube::Error) -> u16 {
    match error {
        kube::Error::Api(status) => status.code,
        _ => 0,
    }
}

/// Makes the object be as wanted, and nothing besides: a replacement, so that no subject or rule of somebody else
/// stays in it.
pub async fn keep<K: Managed>(api: &Api<K>, wanted: &K, known: Option<&Thin<K>>) -> Result<()> {
    let name = wanted.name_any();
    if known.is_some_and(|known| known.digest == digest(wanted)) {
        return Ok(());
    }
    let what = || format!("writing {} {name:?}", K::plural(&()));
    let version = match known {
        Some(known) => known.resource_version(),
        None => match api.create(&PostParams::default(), wanted).await {
            Ok(_) => return Ok(()),
            // There without our label, so that we did not see it.
            Err(error) if code(&error) == 409 => {
                api.get(&name).await.map_err(failed(what()))?.resource_version()
            }
            Err(error) => return Err(failed(what())(error)),
        },
    };
    let mut next = wanted.clone();
    next.meta_mut().resource_version = version;
    match api.replace(&name, &PostParams::default(), &next).await {
        Ok(_) => Ok(()),
        // A binding's role cannot change.
        Err(error) if code(&error) == 422 => {
            delete(api, &name).await?;
            drop(api.create(&PostParams::default(), wanted).await.map_err(failed(what()))?);
            Ok(())
        }
        Err(error) => Err(failed(what())(error)),
    }
}

/// Deletes the object; one that is gone is fine.
pub async fn delete<K>(api: &Api<K>, name: &str) -> Result<()>
where
    K: kube::Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    match api.delete(name, &DeleteParams::background()).await {
        Ok(_) => Ok(()),
        Err(error) if code(&error) == 404 => Ok(()),
        Err(error) => Err(failed(format!("deleting {} {name:?}", K::plural(&())))(error)),
    }
}

/// Gives the namespace's `default` account this list of pull secrets. Whoever changed it meanwhile goes first: the
/// write fails then, and is tried again on what they wrote.
pub async fn set_pull_secrets(
    client: &Client,
    namespace: &str,
    account: &DefaultAccount,
    list: &[String],
) -> Result<()> {
    let api: Api<ServiceAccount> = Api::namespaced(client.clone(), namespace);
    let list: Vec<_> = list.iter().map(|name| json!({ "name": name })).collect();
    let patch = json!({
        "metadata": { "resourceVersion": account.resource_version() },
        "imagePullSecrets": list,
    });
    match api.patch(account::DEFAULT, &PatchParams::default(), &Patch::Merge(&patch)).await {
        // The engine makes it anew, and that is told.
        Err(error) if code(&error) == 404 => Ok(()),
        other => other.map(drop).map_err(failed(format!("writing the default account of {namespace:?}"))),
    }
}

/// Changes the object as it is now; one that is gone is fine. When somebody else is quicker the reconciler comes again.
pub async fn change<K>(api: &Api<K>, name: &str, change: impl FnOnce(&mut K)) -> Result<()>
where
    K: kube::Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Serialize,
{
    let what = || format!("changing {} {name:?}", K::plural(&()));
    let Some(mut object) = api.get_opt(name).await.map_err(failed(what()))? else { return Ok(()) };
    change(&mut object);
    match api.replace(name, &PostParams::default(), &object).await {
        Err(error) if code(&error) == 404 => Ok(()),
        other => other.map(drop).map_err(failed(what())),
    }
}

/// Creates the namespace of the project or brings its labels back; labels that others put on it stay.
pub async fn apply_namespace(
    client: &Client,
    project: &str,
    name: &str,
    labels: &BTreeMap<String, String>,
    given: &str,
) -> Result<()> {
    let api: Api<Namespace> = Api::all(client.clone());
    let object = json!({
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {
            "name": name,
            "labels": labels,
            "annotations": { names::GIVEN_LABELS: given, names::MADE_FOR: project },
        },
    });
    let patch = PatchParams::apply(names::MANAGER).force();
    let applied = api.patch(name, &patch, &Patch::Apply(&object)).await;
    applied.map(drop).map_err(failed(format!("applying namespace {name:?}")))
}

/// Writes the status where it is another.
pub async fn write_status<K, S>(client: &Client, name: &str, had: Option<&S>, wanted: &S) -> Result<()>
where
    K: kube::Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
    S: Serialize + PartialEq,
{
    if had == Some(wanted) {
        return Ok(());
    }
    let api: Api<K> = Api::all(client.clone());
    let patch = Patch::Merge(json!({ "status": wanted }));
    match api.patch_status(name, &PatchParams::default(), &patch).await {
        Err(error) if code(&error) == 404 => Ok(()),
        other => other.map(drop).map_err(failed(format!("writing the status of {name:?}"))),
    }
}

/// Adds or takes away the component's finalizer.
pub async fn set_finalizer<K>(client: &Client, object: &K, present: bool) -> Result<()>
where
    K: kube::Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    let mut finalizers = object.finalizers().to_vec();
    if finalizers.iter().any(|f| f == names::FINALIZER) == present {
        return Ok(());
    }
    if present {
        finalizers.push(names::FINALIZER.to_owned());
    } else {
        finalizers.retain(|f| f != names::FINALIZER);
    }
    let name = object.name_any();
    let patch = json!({
        "metadata": { "resourceVersion": object.resource_version(), "finalizers": finalizers },
    });
    let api: Api<K> = Api::all(client.clone());
    match api.patch(&name, &PatchParams::default(), &Patch::Merge(&patch)).await {
        Err(error) if code(&error) == 404 => Ok(()),
        other => other.map(drop).map_err(failed(format!("writing the finalizers of {name:?}"))),
    }
}
