//! Labels and annotations on objects the identity component makes for tenants.

/// Id of the project a namespace, binding or quota belongs to.
pub const PROJECT: &str = "identity.gantry.dev/project";
/// Id of the domain it belongs to.
pub const DOMAIN: &str = "identity.gantry.dev/domain";
/// Name of the environment a namespace is.
pub const ENVIRONMENT: &str = "identity.gantry.dev/environment";
/// Id of the role a binding or cluster role stands for.
pub const ROLE: &str = "identity.gantry.dev/role";
/// `isolated` or `open`: what the network component does by default with traffic from other projects.
pub const ISOLATION: &str = "networks.gantry.dev/isolation";
/// `true`: terminal sessions in the namespace are recorded.
pub const RECORD_SESSIONS: &str = "audit.gantry.dev/record-sessions";
/// Kubernetes' own label: which Pod Security Standard is enforced.
pub const POD_SECURITY_ENFORCE: &str = "pod-security.kubernetes.io/enforce";
/// `app.kubernetes.io/managed-by` of everything the component reconciles.
pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// Its value.
pub const MANAGED_BY_VALUE: &str = "gantry-identity";
