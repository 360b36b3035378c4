//! Reading a pod's spec: its containers by kind, names, and the labels and annotations that tie runtime objects
//! to it. The label and annotation keys are the kubelet's, so that other CRI tools read them too.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};
use sha2::{Digest, Sha256};

pub(crate) const LABEL_POD_NAME: &str = "io.kubernetes.pod.name";
pub(crate) const LABEL_POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
pub(crate) const LABEL_POD_UID: &str = "io.kubernetes.pod.uid";
pub(crate) const LABEL_CONTAINER_NAME: &str = "io.kubernetes.container.name";
pub(crate) const ANNOTATION_HASH: &str = "io.kubernetes.container.hash";
pub(crate) const ANNOTATION_RESTARTS: &str = "io.kubernetes.container.restartCount";
pub(crate) const ANNOTATION_MESSAGE_PATH: &str = "io.kubernetes.container.terminationMessagePath";
pub(crate) const ANNOTATION_MESSAGE_POLICY: &str = "io.kubernetes.container.terminationMessagePolicy";
pub(crate) const ANNOTATION_GRACE: &str = "io.kubernetes.pod.terminationGracePeriod";

/// Grace of a pod that names none.
pub(crate) const GRACE_DEFAULT_SECONDS: i64 = 30;

/// What part a container plays in its pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// Runs to its end before the next one starts.
    Init,
    /// An init container with `restartPolicy: Always`: starts in order, then runs beside the others.
    Sidecar,
    /// A normal container.
    Main,
    /// Added to a running pod by a user; never restarted.
    Ephemeral,
}

/// When a container that ended is started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Restart {
    Always,
    OnFailure,
    Never,
}

impl Restart {
    fn parse(text: Option<&str>) -> Self {
        match text {
            Some("OnFailure") => Self::OnFailure,
            Some("Never") => Self::Never,
            _ => Self::Always,
        }
    }

    /// Whether a run that ended with `exit_code` is followed by another.
    pub(crate) fn again(self, exit_code: i32) -> bool {
        match self {
            Self::Always => true,
            Self::OnFailure => exit_code != 0,
            Self::Never => false,
        }
    }
}

/// One container of a pod with its part in it.
#[derive(Clone, Debug)]
pub(crate) struct Member<'a> {
    pub(crate) kind: Kind,
    pub(crate) container: Cow<'a, Container>,
    pub(crate) restart: Restart,
}

impl Member<'_> {
    pub(crate) fn name(&self) -> &str {
        &self.container.name
    }

    /// Its path inside the pod, as events name it.
    pub(crate) fn field_path(&self) -> String {
        let list = match self.kind {
            Kind::Init | Kind::Sidecar => "initContainers",
            Kind::Main => "containers",
            Kind::Ephemeral => "ephemeralContainers",
        };
        format!("spec.{list}{{{}}}", self.container.name)
    }
}

pub(crate) fn pod_spec(pod: &Pod) -> &PodSpec {
    static EMPTY: std::sync::LazyLock<PodSpec> = std::sync::LazyLock::new(PodSpec::default);
    pod.spec.as_ref().unwrap_or(&EMPTY)
}

/// Init containers and sidecars in their order.
pub(crate) fn init_members(pod: &Pod) -> impl Iterator<Item = Member<'_>> {
    let spec = pod_spec(pod);
    let policy = Restart::parse(spec.restart_policy.as_deref());
    spec.init_containers.iter().flatten().map(move |container| {
        let sidecar = container.restart_policy.as_deref() == Some("Always");
        // An init container that fails is tried again under either policy that restarts at all.
        let restart = match (sidecar, container.restart_policy.as_deref(), policy) {
            (true, ..) => Restart::Always,
            (_, Some("Never"), _) | (_, None, Restart::Never) => Restart::Never,
            _ => Restart::OnFailure,
        };
        let kind = if sidecar { Kind::Sidecar } else { Kind::Init };
        Member { kind, container: Cow::Borrowed(container), restart }
    })
}

/// Normal containers.
pub(crate) fn main_members(pod: &Pod) -> impl Iterator<Item = Member<'_>> {
    let spec = pod_spec(pod);
    spec.containers.iter().map(move |container| {
        let policy = container.restart_policy.as_deref().or(spec.restart_policy.as_deref());
        Member { kind: Kind::Main, container: Cow::Borrowed(container), restart: Restart::parse(policy) }
    })
}

/// Ephemeral containers, as containers: they have the same fields and one more.
pub(crate) fn ephemeral_members(pod: &Pod) -> impl Iterator<Item = Member<'_>> {
    pod_spec(pod).ephemeral_containers.iter().flatten().filter_map(|ephemeral| {
        let container: Container = serde_json::from_value(serde_json::to_value(ephemeral).ok()?).ok()?;
        Some(Member { kind: Kind::Ephemeral, container: Cow::Owned(container), restart: Restart::Never })
    })
}

/// All containers: init and sidecar, normal, ephemeral.
pub(crate) fn members(pod: &Pod) -> impl Iterator<Item = Member<'_>> {
    init_members(pod).chain(main_members(pod)).chain(ephemeral_members(pod))
}

/// The named container.
pub(crate) fn member<'a>(pod: &'a Pod, name: &str) -> Option<Member<'a>> {
    members(pod).find(|m| m.name() == name)
}

pub(crate) fn name(pod: &Pod) -> &str {
    pod.metadata.name.as_deref().unwrap_or_default()
}

pub(crate) fn namespace(pod: &Pod) -> &str {
    pod.metadata.namespace.as_deref().unwrap_or_default()
}

pub(crate) fn uid(pod: &Pod) -> &str {
    pod.metadata.uid.as_deref().unwrap_or_default()
}

/// `NAME_NAMESPACE(UID)`, as status messages name a pod.
pub(crate) fn display(pod: &Pod) -> String {
    format!("{}_{}({})", name(pod), namespace(pod), uid(pod))
}

pub(crate) fn host_network(pod: &Pod) -> bool {
    pod_spec(pod).host_network.unwrap_or(false)
}

/// The pod reached an end that the API server knows: nothing of it may start again.
pub(crate) fn is_terminal(pod: &Pod) -> bool {
    matches!(phase(pod), "Succeeded" | "Failed")
}

pub(crate) fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or_default()
}

pub(crate) fn is_deleting(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
}

/// How long the pod's containers may take to stop.
pub(crate) fn grace(pod: &Pod) -> Duration {
    let seconds = pod
        .metadata
        .deletion_grace_period_seconds
        .or(pod_spec(pod).termination_grace_period_seconds)
        .unwrap_or(GRACE_DEFAULT_SECONDS);
    // Even a forced deletion gives the runtime a second, so that containers see their signal.
    Duration::from_secs(u64::try_from(seconds).unwrap_or(0).max(1))
}

/// Changes when a running container no longer is what the spec asks for. Only the image can change in place.
pub(crate) fn hash(container: &Container) -> String {
    let mut digest = Sha256::new();
    digest.update(container.name.as_bytes());
    digest.update([0]);
    digest.update(container.image.as_deref().unwrap_or_default().as_bytes());
    hex::encode(&digest.finalize()[..4])
}

/// Labels of the pod's sandbox: the pod's own and those that find it again.
pub(crate) fn sandbox_labels(pod: &Pod) -> BTreeMap<String, String> {
    let mut labels = pod.metadata.labels.clone().unwrap_or_default();
    labels.extend(identity_labels(pod));
    labels
}

/// Labels that name the pod.
pub(crate) fn identity_labels(pod: &Pod) -> BTreeMap<String, String> {
    BTreeMap::from([
        (LABEL_POD_NAME.to_owned(), name(pod).to_owned()),
        (LABEL_POD_NAMESPACE.to_owned(), namespace(pod).to_owned()),
        (LABEL_POD_UID.to_owned(), uid(pod).to_owned()),
    ])
}

/// Key of an annotation or field path's bracket: `metadata.labels['app']` → (`metadata.labels`, `app`).
pub(crate) fn split_subscript(path: &str) -> Option<(&str, &str)> {
    let (head, rest) = path.split_once("['")?;
    Some((head, rest.strip_suffix("']")?))
}
