//! Objects by the names people give them, and what else the commands ask the Kubernetes API.

use anyhow::{anyhow, bail};
use gantry_identity_api::{DEFAULT_DOMAIN, Domain, extra};
use k8s_openapi::api::authentication::v1::{SelfSubjectReview, UserInfo};
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt as _};
use serde::de::DeserializeOwned;
use tokio::sync::OnceCell;

use super::kinds::{Kind, Known};
use super::names::{self, Name};

/// Objects in one answer of a list: bounds what one request costs the server.
const PAGE_OBJECTS: u32 = 500;

/// What a command that sets things says where nothing is set.
pub const NOTHING_TO_SET: &str = "nothing to change: name at least one thing to set";

/// Finds objects by name. Asks once for what it needs more than once.
pub struct Lookup {
    client: Client,
    domains: OnceCell<Vec<Domain>>,
    caller: OnceCell<UserInfo>,
}

impl Lookup {
    pub fn new(client: Client) -> Self {
        Self { client, domains: OnceCell::new(), caller: OnceCell::new() }
    }

    pub fn client(&self) -> &Client {
        &self.client
    }

    pub fn api<K: Kind>(&self) -> Api<K> {
        Api::all(self.client.clone())
    }

    /// Who the server says we are.
    pub async fn caller(&self) -> anyhow::Result<&UserInfo> {
        let asked = self.caller.get_or_try_init(|| async {
            let api: Api<SelfSubjectReview> = Api::all(self.client.clone());
            let review =
                api.create(&PostParams::default(), &SelfSubjectReview::default()).await.map_err(plain)?;
            let user = review.status.and_then(|status| status.user_info);
            user.ok_or_else(|| anyhow!("the server does not say who you are"))
        });
        asked.await
    }

    /// One value the server has of the caller beside the name.
    pub async fn caller_extra(&self, key: &str) -> anyhow::Result<Option<String>> {
        let caller = self.caller().await?;
        Ok(caller.extra.as_ref().and_then(|extra| extra.get(key)).and_then(|values| values.first().cloned()))
    }

    /// Id of the domain that a name without one is looked for in: the caller's own.
    pub async fn own_domain(&self) -> anyhow::Result<String> {
        Ok(self.caller_extra(extra::DOMAIN).await?.unwrap_or_else(|| DEFAULT_DOMAIN.to_owned()))
    }

    /// Every domain the caller sees.
    pub async fn domains(&self) -> anyhow::Result<&[Domain]> {
        Ok(self.domains.get_or_try_init(|| self.all::<Domain>()).await?)
    }

    pub async fn known(&self) -> anyhow::Result<Known> {
        Ok(Known::with_domains(self.domains().await?))
    }

    pub async fn all<K: Kind>(&self) -> anyhow::Result<Vec<K>> {
        list_all(&self.api::<K>(), &ListParams::default()).await
    }

    /// The id of the domain called so; absent: the caller's own.
    pub async fn domain_id(&self, name: Option<&str>) -> anyhow::Result<String> {
        match name {
            Some(name) => Ok(self.domain(name).await?.name_any()),
            None => self.own_domain().await,
        }
    }

    pub async fn domain(&self, name: &str) -> anyhow::Result<Domain> {
        let found = names::pick_domain(self.domains().await?, name).cloned();
        found.ok_or_else(|| anyhow!("there is no domain {name:?} that you can see"))
    }

    /// The object of a name; roles of the whole platform go before the own domain's.
    pub async fn find<K: Kind>(&self, text: &str) -> anyhow::Result<K> {
        Ok(self.find_among(&self.all::<K>().await?, text).await?.clone())
    }

    /// As [`Lookup::find`], where all objects are at hand.
    pub async fn find_among<'a, K: Kind>(&self, all: &'a [K], text: &str) -> anyhow::Result<&'a K> {
        let name: Name = text.parse()?;
        let domain = self.domain_id(name.domain.as_deref()).await?;
        let own = [None, Some(domain.as_str())];
        let domains = if name.domain.is_none() { &own[..] } else { &own[1..] };
        let found = names::pick(all, domains, &name.name);
        found.ok_or_else(|| anyhow!("there is no {} {text:?} that you can see", K::WORD))
    }

    /// Creates and returns what was made.
    pub async fn create<K: Kind>(&self, object: &K) -> anyhow::Result<K> {
        let made = self.api::<K>().create(&PostParams::default(), object).await;
        let known = self.known().await.unwrap_or_default();
        // The id was made a moment ago and says nothing to anybody.
        made.map_err(|error| named(plain(error), &object.name_any(), &known.full_name(object)))
    }

    /// Changes the fields of `spec` that `change` has; `null` takes one away.
    pub async fn set<K: Kind>(&self, id: &str, change: &serde_json::Value) -> anyhow::Result<K> {
        if change.as_object().is_none_or(serde_json::Map::is_empty) {
            bail!(NOTHING_TO_SET);
        }
        let patch = Patch::Merge(serde_json::json!({ "spec": change }));
        self.api::<K>().patch(id, &PatchParams::default(), &patch).await.map_err(plain)
    }

    /// Reads, changes and writes back, again when somebody was quicker.
    pub async fn update<K: Kind>(
        &self,
        id: &str,
        change: impl Fn(&mut K) -> anyhow::Result<bool>,
    ) -> anyhow::Result<Option<K>> {
        const CONFLICTS_MAX: usize = 8;
        let api = self.api::<K>();
        for _ in 0..CONFLICTS_MAX {
            let mut object = api.get(id).await.map_err(plain)?;
            if !change(&mut object)? {
                return Ok(None);
            }
            match api.replace(id, &PostParams::default(), &object).await {
                // Other conflicts, as that a name is taken, do not go away by themselves.
                Err(kube::Error::Api(status))
                    if status.code == 409 && status.message.contains("has been modified") => {}
                other => return other.map(Some).map_err(plain),
            }
        }
        bail!("{} {id} is changed by others all the time: try again", K::WORD)
    }
}

/// All pages of a list.
pub async fn list_all<K>(api: &Api<K>, parameters: &ListParams) -> anyhow::Result<Vec<K>>
where
    K: Clone + DeserializeOwned + std::fmt::Debug,
{
    let mut parameters = parameters.clone().limit(PAGE_OBJECTS);
    let mut all = Vec::new();
    loop {
        let page = api.list(&parameters).await.map_err(plain)?;
        all.extend(page.items);
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => parameters = parameters.continue_token(&token),
            None => return Ok(all),
        }
    }
}

/// The error with a name in place of an id.
fn named(error: anyhow::Error, id: &str, name: &str) -> anyhow::Error {
    anyhow!("{}", format!("{error:#}").replace(&format!("\"{id}\""), &format!("\"{name}\"")))
}

/// The server's own sentence, which is written for people.
pub fn plain(error: kube::Error) -> anyhow::Error {
    match error {
        kube::Error::Api(status) if status.code == 401 => {
            anyhow!(
                "the server does not take your token or certificate any more: sign in with `gantry login`"
            )
        }
        kube::Error::Api(status) if !status.message.is_empty() => anyhow!("{}", status.message),
        other => other.into(),
    }
}
