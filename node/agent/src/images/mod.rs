//! Images: presence, pulls with the pod's credentials, and the words for what goes wrong.

pub(crate) mod gc;
mod reference;

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use gantry_cri::{AuthConfig, CriError, Image, ImageSpec, ImageStatusRequest, PullImageRequest, Runtime};
use k8s_openapi::api::core::v1::{Container, Pod};
use tokio::sync::Semaphore;

use crate::errors::PodProblem;
use crate::pods::spec;
use crate::volumes::sources::{Lookup, Objects};

/// Pulls at the same time on this node.
const PULLS_MAX: usize = 4;
/// A pull that takes longer has lost its server.
const PULL_LIMIT: Duration = Duration::from_secs(2 * 3600);

/// The image store of the runtime.
#[derive(Clone)]
pub(crate) struct Images {
    runtime: Runtime,
    slots: Arc<Semaphore>,
}

/// An image that is there, and how it came.
pub(crate) struct Present {
    pub(crate) image: Image,
    /// How long the pull took, alone and with the wait for its turn; `None` when nothing was pulled.
    pub(crate) pulled: Option<(Duration, Duration)>,
}

impl Images {
    pub(crate) fn new(runtime: Runtime) -> Self {
        Self { runtime, slots: Arc::new(Semaphore::new(PULLS_MAX)) }
    }

    /// The image as the runtime knows it, `None` when it is not present.
    pub(crate) async fn status(&self, image: &str) -> Result<Option<Image>, CriError> {
        let spec = Some(ImageSpec { image: image.to_owned(), ..Default::default() });
        Ok(self.runtime.image_status(ImageStatusRequest { image: spec, verbose: false }).await?.image)
    }

    /// Whether the container's image must be pulled now, and the image when it is present.
    pub(crate) async fn check(&self, container: &Container) -> Result<(Option<Image>, bool), PodProblem> {
        let name = container.image.as_deref().unwrap_or_default();
        reference::check(name).map_err(|text| PodProblem::new("InvalidImageName", text))?;
        let present = self.status(name).await;
        let present = present.map_err(|error| PodProblem::new("ImageInspectError", error.to_string()))?;
        match (policy(container), present) {
            ("Never", None) => {
                let text = format!("Container image \"{name}\" is not present with pull policy of Never");
                Err(PodProblem::new("ErrImageNeverPull", text))
            }
            ("Always", present) => Ok((present, true)),
            (_, present) => {
                let missing = present.is_none();
                Ok((present, missing))
            }
        }
    }

    /// Pulls the container's image with each credential that fits, then without any.
    pub(crate) async fn pull(
        &self,
        pod: &Pod,
        container: &Container,
        objects: &Objects,
    ) -> Result<Present, PodProblem> {
        let name = container.image.as_deref().unwrap_or_default();
        let begun = tokio::time::Instant::now();
        let failed = |text: String| PodProblem::new("ErrImagePull", text);
        let slot = self.slots.acquire().await;
        let _slot = slot.map_err(|error| failed(error.to_string()))?;
        let turn = tokio::time::Instant::now();
        let mut last = None;
        for auth in credentials(pod, name, objects).into_iter().map(Some).chain([None]) {
            match self.pull_with(name, auth).await {
                Ok(()) => {
                    last = None;
                    break;
                }
                Err(error) => last = Some(last.unwrap_or(error)),
            }
        }
        if let Some(error) = last {
            return Err(failed(error));
        }
        let image = self.status(name).await.map_err(|error| failed(error.to_string()))?;
        let image = image.ok_or_else(|| failed(format!("image \"{name}\" is gone right after its pull")))?;
        Ok(Present { image, pulled: Some((turn.elapsed(), begun.elapsed())) })
    }

    async fn pull_with(&self, image: &str, auth: Option<AuthConfig>) -> Result<(), String> {
        let image = Some(ImageSpec { image: image.to_owned(), ..Default::default() });
        let pull = self.runtime.pull_image(PullImageRequest { image, auth, ..Default::default() });
        match tokio::time::timeout(PULL_LIMIT, pull).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err("rpc error: code = DeadlineExceeded desc = context deadline exceeded".into()),
        }
    }

    /// Makes an image of the platform itself present.
    pub(crate) async fn require(&self, image: &str) -> Result<(), String> {
        match self.status(image).await {
            Ok(Some(_)) => Ok(()),
            _ => self.pull_with(image, None).await,
        }
    }
}

/// The pull policy; without one, `latest` is always pulled.
fn policy(container: &Container) -> &str {
    match container.image_pull_policy.as_deref() {
        Some(policy) if !policy.is_empty() => policy,
        _ if reference::is_latest(container.image.as_deref().unwrap_or_default()) => "Always",
        _ => "IfNotPresent",
    }
}

/// Credentials of the pod's pull secrets that fit the image's registry.
fn credentials(pod: &Pod, image: &str, objects: &Objects) -> Vec<AuthConfig> {
    let host = reference::host(image);
    let mut found = Vec::new();
    for secret in spec::pod_spec(pod).image_pull_secrets.iter().flatten() {
        let Lookup::Found(data) = objects.secret(&secret.name, true) else { continue };
        let (text, nested) = match (data.get(".dockerconfigjson"), data.get(".dockercfg")) {
            (Some(text), _) => (text, true),
            (None, Some(text)) => (text, false),
            (None, None) => continue,
        };
        let Ok(json) = serde_json::from_slice::<serde_json::Value>(text) else { continue };
        let entries = if nested { json.get("auths") } else { Some(&json) };
        for (registry, entry) in entries.and_then(|e| e.as_object()).into_iter().flatten() {
            if reference::registry_matches(registry, host) {
                found.push(auth(entry));
            }
        }
    }
    found
}

fn auth(entry: &serde_json::Value) -> AuthConfig {
    let text = |key: &str| entry.get(key).and_then(|v| v.as_str()).unwrap_or_default().to_owned();
    let mut auth = AuthConfig {
        username: text("username"),
        password: text("password"),
        identity_token: text("identitytoken"),
        registry_token: text("registrytoken"),
        ..Default::default()
    };
    let decoded = base64::engine::general_purpose::STANDARD.decode(text("auth")).unwrap_or_default();
    if let Some((user, password)) = std::str::from_utf8(&decoded).ok().and_then(|t| t.split_once(':'))
        && auth.username.is_empty()
    {
        (auth.username, auth.password) = (user.to_owned(), password.to_owned());
    }
    auth
}
