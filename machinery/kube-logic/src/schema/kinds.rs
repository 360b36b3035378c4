//! Which Rust type describes which built-in kind.

use k8s_openapi::Resource;
use schemars::{JsonSchema, SchemaGenerator};

/// A kind and the definition that describes it.
pub(super) struct Root {
    pub group: &'static str,
    pub version: &'static str,
    pub kind: &'static str,
    pub definition: String,
}

fn add<T: Resource + JsonSchema>(generator: &mut SchemaGenerator, roots: &mut Vec<Root>) {
    generator.subschema_for::<T>();
    roots.push(Root {
        group: T::GROUP,
        version: T::VERSION,
        kind: T::KIND,
        definition: T::schema_name().into_owned(),
    });
}

/// Adds every built-in kind's definitions to `generator`.
#[rustfmt::skip]
#[expect(clippy::too_many_lines, reason = "a table")]
pub(super) fn all(generator: &mut SchemaGenerator) -> Vec<Root> {
    let mut roots = Vec::with_capacity(120);
    let r = &mut roots;
    let g = generator;
    add::<k8s_openapi::api::admissionregistration::v1::MutatingAdmissionPolicy>(g, r);
    add::<k8s_openapi::api::admissionregistration::v1::MutatingAdmissionPolicyBinding>(g, r);
    add::<k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration>(g, r);
    add::<k8s_openapi::api::admissionregistration::v1::ValidatingAdmissionPolicy>(g, r);
    add::<k8s_openapi::api::admissionregistration::v1::ValidatingAdmissionPolicyBinding>(g, r);
    add::<k8s_openapi::api::admissionregistration::v1::ValidatingWebhookConfiguration>(g, r);
    add::<k8s_openapi::api::admissionregistration::v1alpha1::MutatingAdmissionPolicy>(g, r);
    add::<k8s_openapi::api::admissionregistration::v1alpha1::MutatingAdmissionPolicyBinding>(g, r);
    add::<k8s_openapi::api::admissionregistration::v1beta1::MutatingAdmissionPolicy>(g, r);
    add::<k8s_openapi::api::admissionregistration::v1beta1::MutatingAdmissionPolicyBinding>(g, r);
    add::<k8s_openapi::api::apiserverinternal::v1alpha1::StorageVersion>(g, r);
    add::<k8s_openapi::api::apps::v1::ControllerRevision>(g, r);
    add::<k8s_openapi::api::apps::v1::DaemonSet>(g, r);
    add::<k8s_openapi::api::apps::v1::Deployment>(g, r);
    add::<k8s_openapi::api::apps::v1::ReplicaSet>(g, r);
    add::<k8s_openapi::api::apps::v1::StatefulSet>(g, r);
    add::<k8s_openapi::api::authentication::v1::SelfSubjectReview>(g, r);
    add::<k8s_openapi::api::authentication::v1::TokenRequest>(g, r);
    add::<k8s_openapi::api::authentication::v1::TokenReview>(g, r);
    add::<k8s_openapi::api::authorization::v1::LocalSubjectAccessReview>(g, r);
    add::<k8s_openapi::api::authorization::v1::SelfSubjectAccessReview>(g, r);
    add::<k8s_openapi::api::authorization::v1::SelfSubjectRulesReview>(g, r);
    add::<k8s_openapi::api::authorization::v1::SubjectAccessReview>(g, r);
    add::<k8s_openapi::api::autoscaling::v1::HorizontalPodAutoscaler>(g, r);
    add::<k8s_openapi::api::autoscaling::v1::Scale>(g, r);
    add::<k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler>(g, r);
    add::<k8s_openapi::api::batch::v1::CronJob>(g, r);
    add::<k8s_openapi::api::batch::v1::Job>(g, r);
    add::<k8s_openapi::api::certificates::v1::CertificateSigningRequest>(g, r);
    add::<k8s_openapi::api::certificates::v1::ClusterTrustBundle>(g, r);
    add::<k8s_openapi::api::certificates::v1::PodCertificateRequest>(g, r);
    add::<k8s_openapi::api::certificates::v1beta1::ClusterTrustBundle>(g, r);
    add::<k8s_openapi::api::certificates::v1beta1::PodCertificateRequest>(g, r);
    add::<k8s_openapi::api::coordination::v1::Lease>(g, r);
    add::<k8s_openapi::api::coordination::v1alpha2::LeaseCandidate>(g, r);
    add::<k8s_openapi::api::coordination::v1beta1::LeaseCandidate>(g, r);
    add::<k8s_openapi::api::core::v1::Binding>(g, r);
    add::<k8s_openapi::api::core::v1::ComponentStatus>(g, r);
    add::<k8s_openapi::api::core::v1::ConfigMap>(g, r);
    add::<k8s_openapi::api::core::v1::Endpoints>(g, r);
    add::<k8s_openapi::api::core::v1::Event>(g, r);
    add::<k8s_openapi::api::core::v1::LimitRange>(g, r);
    add::<k8s_openapi::api::core::v1::Namespace>(g, r);
    add::<k8s_openapi::api::core::v1::Node>(g, r);
    add::<k8s_openapi::api::core::v1::PersistentVolume>(g, r);
    add::<k8s_openapi::api::core::v1::PersistentVolumeClaim>(g, r);
    add::<k8s_openapi::api::core::v1::Pod>(g, r);
    add::<k8s_openapi::api::core::v1::PodTemplate>(g, r);
    add::<k8s_openapi::api::core::v1::ReplicationController>(g, r);
    add::<k8s_openapi::api::core::v1::ResourceQuota>(g, r);
    add::<k8s_openapi::api::core::v1::Secret>(g, r);
    add::<k8s_openapi::api::core::v1::Service>(g, r);
    add::<k8s_openapi::api::core::v1::ServiceAccount>(g, r);
    add::<k8s_openapi::api::discovery::v1::EndpointSlice>(g, r);
    add::<k8s_openapi::api::events::v1::Event>(g, r);
    add::<k8s_openapi::api::flowcontrol::v1::FlowSchema>(g, r);
    add::<k8s_openapi::api::flowcontrol::v1::PriorityLevelConfiguration>(g, r);
    add::<k8s_openapi::api::lifecycle::v1alpha1::Eviction>(g, r);
    add::<k8s_openapi::api::lifecycle::v1alpha1::EvictionRequest>(g, r);
    add::<k8s_openapi::api::networking::v1::IPAddress>(g, r);
    add::<k8s_openapi::api::networking::v1::Ingress>(g, r);
    add::<k8s_openapi::api::networking::v1::IngressClass>(g, r);
    add::<k8s_openapi::api::networking::v1::NetworkPolicy>(g, r);
    add::<k8s_openapi::api::networking::v1::ServiceCIDR>(g, r);
    add::<k8s_openapi::api::node::v1::RuntimeClass>(g, r);
    add::<k8s_openapi::api::policy::v1::Eviction>(g, r);
    add::<k8s_openapi::api::policy::v1::PodDisruptionBudget>(g, r);
    add::<k8s_openapi::api::rbac::v1::ClusterRole>(g, r);
    add::<k8s_openapi::api::rbac::v1::ClusterRoleBinding>(g, r);
    add::<k8s_openapi::api::rbac::v1::Role>(g, r);
    add::<k8s_openapi::api::rbac::v1::RoleBinding>(g, r);
    add::<k8s_openapi::api::resource::v1::DeviceClass>(g, r);
    add::<k8s_openapi::api::resource::v1::DeviceTaintRule>(g, r);
    add::<k8s_openapi::api::resource::v1::ResourceClaim>(g, r);
    add::<k8s_openapi::api::resource::v1::ResourceClaimTemplate>(g, r);
    add::<k8s_openapi::api::resource::v1::ResourceSlice>(g, r);
    add::<k8s_openapi::api::resource::v1alpha3::DeviceTaintRule>(g, r);
    add::<k8s_openapi::api::resource::v1alpha3::ResourcePoolStatusRequest>(g, r);
    add::<k8s_openapi::api::resource::v1beta1::DeviceClass>(g, r);
    add::<k8s_openapi::api::resource::v1beta1::ResourceClaim>(g, r);
    add::<k8s_openapi::api::resource::v1beta1::ResourceClaimTemplate>(g, r);
    add::<k8s_openapi::api::resource::v1beta1::ResourceSlice>(g, r);
    add::<k8s_openapi::api::resource::v1beta2::DeviceClass>(g, r);
    add::<k8s_openapi::api::resource::v1beta2::DeviceTaintRule>(g, r);
    add::<k8s_openapi::api::resource::v1beta2::ResourceClaim>(g, r);
    add::<k8s_openapi::api::resource::v1beta2::ResourceClaimTemplate>(g, r);
    add::<k8s_openapi::api::resource::v1beta2::ResourceSlice>(g, r);
    add::<k8s_openapi::api::scheduling::v1::PriorityClass>(g, r);
    add::<k8s_openapi::api::scheduling::v1alpha3::CompositePodGroup>(g, r);
    add::<k8s_openapi::api::scheduling::v1alpha3::PodGroup>(g, r);
    add::<k8s_openapi::api::scheduling::v1alpha3::Workload>(g, r);
    add::<k8s_openapi::api::scheduling::v1beta1::PodGroup>(g, r);
    add::<k8s_openapi::api::scheduling::v1beta1::Workload>(g, r);
    add::<k8s_openapi::api::storage::v1::CSIDriver>(g, r);
    add::<k8s_openapi::api::storage::v1::CSINode>(g, r);
    add::<k8s_openapi::api::storage::v1::CSIStorageCapacity>(g, r);
    add::<k8s_openapi::api::storage::v1::StorageClass>(g, r);
    add::<k8s_openapi::api::storage::v1::VolumeAttachment>(g, r);
    add::<k8s_openapi::api::storage::v1::VolumeAttributesClass>(g, r);
    add::<k8s_openapi::api::storagemigration::v1::StorageVersionMigration>(g, r);
    add::<k8s_openapi::api::storagemigration::v1beta1::StorageVersionMigration>(g, r);
    add::<k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition>(g, r);
    add::<k8s_openapi::apimachinery::pkg::apis::meta::v1::APIGroup>(g, r);
    add::<k8s_openapi::apimachinery::pkg::apis::meta::v1::APIGroupList>(g, r);
    add::<k8s_openapi::apimachinery::pkg::apis::meta::v1::APIResourceList>(g, r);
    add::<k8s_openapi::apimachinery::pkg::apis::meta::v1::APIVersions>(g, r);
    add::<k8s_openapi::apimachinery::pkg::apis::meta::v1::Status>(g, r);
    add::<k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::APIService>(g, r);
    g.subschema_for::<k8s_openapi::apimachinery::pkg::apis::meta::v1::DeleteOptions>();
    g.subschema_for::<k8s_openapi::apimachinery::pkg::apis::meta::v1::ListMeta>();
    roots
}
