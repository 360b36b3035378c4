//! The built-in resources, as `kubectl api-resources` shows them.

use std::borrow::Cow;

use gantry_kube_types::{ResourceInfo, Scope};

use crate::kinds::behaviour;
use crate::kinds::rules::Rules;

/// One resource in one version.
#[derive(Clone)]
pub(crate) struct Entry {
    pub group: &'static str,
    pub version: &'static str,
    pub resource: &'static str,
    pub kind: &'static str,
    pub namespaced: bool,
    pub short: &'static [&'static str],
    pub categories: &'static [&'static str],
    pub subresources: &'static [&'static str],
    pub rules: Rules,
    /// Answered, never stored: reviews.
    pub create_only: bool,
}

const fn entry(
    group: &'static str,
    version: &'static str,
    resource: &'static str,
    kind: &'static str,
) -> Entry {
    Entry {
        group,
        version,
        resource,
        kind,
        namespaced: true,
        short: &[],
        categories: &[],
        subresources: &[],
        rules: Rules::STORED,
        create_only: false,
    }
}

impl Entry {
    const fn cluster(mut self) -> Self {
        self.namespaced = false;
        self
    }

    const fn short(mut self, names: &'static [&'static str]) -> Self {
        self.short = names;
        self
    }

    const fn all(mut self) -> Self {
        self.categories = &["all"];
        self
    }

    const fn categories(mut self, names: &'static [&'static str]) -> Self {
        self.categories = names;
        self
    }

    const fn sub(mut self, names: &'static [&'static str]) -> Self {
        self.subresources = names;
        self
    }

    const fn rules(mut self, rules: Rules) -> Self {
        self.rules = rules;
        self
    }

    const fn review(mut self) -> Self {
        self.create_only = true;
        self
    }

    pub(crate) fn info(&self) -> ResourceInfo {
        let owned = |names: &'static [&'static str]| names.iter().map(|n| Cow::Borrowed(*n)).collect();
        ResourceInfo {
            group: self.group.into(),
            version: self.version.into(),
            resource: self.resource.into(),
            singular: self.kind.to_lowercase().into(),
            kind: self.kind.into(),
            list_kind: format!("{}List", self.kind).into(),
            scope: if self.namespaced { Scope::Namespaced } else { Scope::Cluster },
            short_names: owned(self.short),
            categories: owned(self.categories),
            subresources: owned(self.subresources),
        }
    }
}

const STATUS: &[&str] = &["status"];
const SCALED: &[&str] = &["status", "scale"];
const POD_SUBRESOURCES: &[&str] = &[
    "attach",
    "binding",
    "ephemeralcontainers",
    "eviction",
    "exec",
    "log",
    "portforward",
    "proxy",
    "resize",
    "status",
];

/// Every built-in resource, the stored version of each first.
pub(crate) fn entries() -> Vec<Entry> {
    [core(), workloads(), cluster_services(), extension_points(), reviews()].concat()
}

fn core() -> Vec<Entry> {
    let v1 = |resource, kind| entry("", "v1", resource, kind);
    vec![
        v1("bindings", "Binding").review(),
        v1("componentstatuses", "ComponentStatus").cluster().short(&["cs"]),
        v1("configmaps", "ConfigMap").short(&["cm"]).rules(behaviour::CONFIG_MAP),
        v1("endpoints", "Endpoints").short(&["ep"]).rules(behaviour::ENDPOINTS),
        v1("events", "Event").short(&["ev"]).rules(behaviour::EVENT),
        v1("limitranges", "LimitRange").short(&["limits"]).rules(behaviour::LIMIT_RANGE),
        v1("namespaces", "Namespace")
            .cluster()
            .short(&["ns"])
            .sub(&["finalize", "status"])
            .rules(behaviour::NAMESPACE),
        v1("nodes", "Node").cluster().short(&["no"]).sub(&["proxy", "status"]).rules(behaviour::NODE),
        v1("persistentvolumeclaims", "PersistentVolumeClaim")
            .short(&["pvc"])
            .sub(STATUS)
            .rules(behaviour::CLAIM),
        v1("persistentvolumes", "PersistentVolume")
            .cluster()
            .short(&["pv"])
            .sub(STATUS)
            .rules(behaviour::VOLUME),
        v1("pods", "Pod").short(&["po"]).all().sub(POD_SUBRESOURCES).rules(behaviour::POD),
        v1("podtemplates", "PodTemplate").rules(behaviour::POD_TEMPLATE),
        v1("replicationcontrollers", "ReplicationController")
            .short(&["rc"])
            .all()
            .sub(SCALED)
            .rules(behaviour::REPLICATION_CONTROLLER),
        v1("resourcequotas", "ResourceQuota").short(&["quota"]).sub(STATUS).rules(behaviour::RESOURCE_QUOTA),
        v1("secrets", "Secret").rules(behaviour::SECRET),
        v1("serviceaccounts", "ServiceAccount")
            .short(&["sa"])
            .sub(&["token"])
            .rules(behaviour::SERVICE_ACCOUNT),
        v1("services", "Service").short(&["svc"]).all().sub(&["proxy", "status"]).rules(behaviour::SERVICE),
    ]
}

fn workloads() -> Vec<Entry> {
    let apps = |resource, kind| entry("apps", "v1", resource, kind);
    vec![
        apps("controllerrevisions", "ControllerRevision").rules(behaviour::CONTROLLER_REVISION),
        apps("daemonsets", "DaemonSet").short(&["ds"]).all().sub(STATUS).rules(behaviour::DAEMON_SET),
        apps("deployments", "Deployment").short(&["deploy"]).all().sub(SCALED).rules(behaviour::DEPLOYMENT),
        apps("replicasets", "ReplicaSet").short(&["rs"]).all().sub(SCALED).rules(behaviour::REPLICA_SET),
        apps("statefulsets", "StatefulSet").short(&["sts"]).all().sub(SCALED).rules(behaviour::STATEFUL_SET),
        entry("batch", "v1", "jobs", "Job").all().sub(STATUS).rules(behaviour::JOB),
        entry("batch", "v1", "cronjobs", "CronJob")
            .short(&["cj"])
            .all()
            .sub(STATUS)
            .rules(behaviour::CRON_JOB),
        entry("autoscaling", "v2", "horizontalpodautoscalers", "HorizontalPodAutoscaler")
            .short(&["hpa"])
            .all()
            .sub(STATUS)
            .rules(behaviour::AUTOSCALER),
        entry("autoscaling", "v1", "horizontalpodautoscalers", "HorizontalPodAutoscaler")
            .short(&["hpa"])
            .all()
            .sub(STATUS)
            .rules(behaviour::AUTOSCALER_V1),
        entry("policy", "v1", "poddisruptionbudgets", "PodDisruptionBudget")
            .short(&["pdb"])
            .sub(STATUS)
            .rules(behaviour::DISRUPTION_BUDGET),
    ]
}

fn cluster_services() -> Vec<Entry> {
    let networking = |resource, kind| entry("networking.k8s.io", "v1", resource, kind);
    let rbac = |resource, kind| entry("rbac.authorization.k8s.io", "v1", resource, kind);
    let storage = |resource, kind| entry("storage.k8s.io", "v1", resource, kind);
    vec![
        networking("ingresses", "Ingress").short(&["ing"]).sub(STATUS).rules(behaviour::INGRESS),
        networking("ingressclasses", "IngressClass").cluster().rules(behaviour::INGRESS_CLASS),
        networking("networkpolicies", "NetworkPolicy").short(&["netpol"]).rules(behaviour::NETWORK_POLICY),
        networking("ipaddresses", "IPAddress").cluster().short(&["ip"]),
        networking("servicecidrs", "ServiceCIDR").cluster().sub(STATUS),
        rbac("roles", "Role").rules(behaviour::ROLE),
        rbac("rolebindings", "RoleBinding").rules(behaviour::BINDING),
        rbac("clusterroles", "ClusterRole").cluster().rules(behaviour::ROLE),
        rbac("clusterrolebindings", "ClusterRoleBinding").cluster().rules(behaviour::BINDING),
        storage("storageclasses", "StorageClass").cluster().short(&["sc"]).rules(behaviour::STORAGE_CLASS),
        storage("csidrivers", "CSIDriver").cluster().rules(behaviour::CSI_DRIVER),
        storage("csinodes", "CSINode").cluster().rules(behaviour::CSI_NODE),
        storage("csistoragecapacities", "CSIStorageCapacity"),
        storage("volumeattachments", "VolumeAttachment").cluster().sub(STATUS),
        storage("volumeattributesclasses", "VolumeAttributesClass").cluster().short(&["vac"]),
        entry("coordination.k8s.io", "v1", "leases", "Lease").rules(behaviour::LEASE),
        entry("discovery.k8s.io", "v1", "endpointslices", "EndpointSlice").rules(behaviour::ENDPOINT_SLICE),
        entry("events.k8s.io", "v1", "events", "Event").short(&["ev"]).rules(behaviour::NEW_EVENT),
        entry("scheduling.k8s.io", "v1", "priorityclasses", "PriorityClass")
            .cluster()
            .short(&["pc"])
            .rules(behaviour::PRIORITY_CLASS),
        entry("node.k8s.io", "v1", "runtimeclasses", "RuntimeClass")
            .cluster()
            .rules(behaviour::RUNTIME_CLASS),
    ]
}

fn extension_points() -> Vec<Entry> {
    let admission = |resource, kind| entry("admissionregistration.k8s.io", "v1", resource, kind).cluster();
    let flow =
        |resource, kind| entry("flowcontrol.apiserver.k8s.io", "v1", resource, kind).cluster().sub(STATUS);
    vec![
        admission("mutatingwebhookconfigurations", "MutatingWebhookConfiguration").rules(behaviour::WEBHOOKS),
        admission("validatingwebhookconfigurations", "ValidatingWebhookConfiguration")
            .rules(behaviour::WEBHOOKS),
        admission("validatingadmissionpolicies", "ValidatingAdmissionPolicy")
            .sub(STATUS)
            .rules(behaviour::ADMISSION_POLICY),
        admission("validatingadmissionpolicybindings", "ValidatingAdmissionPolicyBinding")
            .rules(behaviour::ADMISSION_BINDING),
        admission("mutatingadmissionpolicies", "MutatingAdmissionPolicy").rules(behaviour::ADMISSION_POLICY),
        admission("mutatingadmissionpolicybindings", "MutatingAdmissionPolicyBinding")
            .rules(behaviour::ADMISSION_BINDING),
        entry("apiextensions.k8s.io", "v1", "customresourcedefinitions", "CustomResourceDefinition")
            .cluster()
            .short(&["crd", "crds"])
            .categories(&["api-extensions"])
            .sub(STATUS)
            .rules(behaviour::CRD),
        entry("apiregistration.k8s.io", "v1", "apiservices", "APIService")
            .cluster()
            .categories(&["api-extensions"])
            .sub(STATUS)
            .rules(behaviour::API_SERVICE),
        entry("certificates.k8s.io", "v1", "certificatesigningrequests", "CertificateSigningRequest")
            .cluster()
            .short(&["csr"])
            .sub(&["approval", "status"])
            .rules(behaviour::SIGNING_REQUEST),
        flow("flowschemas", "FlowSchema").rules(behaviour::FLOW_SCHEMA),
        flow("prioritylevelconfigurations", "PriorityLevelConfiguration").rules(behaviour::PRIORITY_LEVEL),
    ]
}

fn reviews() -> Vec<Entry> {
    let authorization = |resource, kind| entry("authorization.k8s.io", "v1", resource, kind).review();
    let authentication = |resource, kind| entry("authentication.k8s.io", "v1", resource, kind).review();
    vec![
        authentication("tokenreviews", "TokenReview").cluster(),
        authentication("selfsubjectreviews", "SelfSubjectReview").cluster(),
        authorization("localsubjectaccessreviews", "LocalSubjectAccessReview"),
        authorization("selfsubjectaccessreviews", "SelfSubjectAccessReview").cluster(),
        authorization("selfsubjectrulesreviews", "SelfSubjectRulesReview").cluster(),
        authorization("subjectaccessreviews", "SubjectAccessReview").cluster(),
    ]
}
