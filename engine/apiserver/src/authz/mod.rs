//! Who may do what in the embedded cluster: RBAC, the node authoriser, the admission plugins that guard
//! both, and the reviews that ask them.

mod bootstrap;
mod derived;
mod escalation;
mod explain;
mod node;
mod node_graph;
mod node_restriction;
mod rbac;
mod review;
mod signers;
mod union;

pub use bootstrap::{BootstrapError, bootstrap};
pub use escalation::RbacEscalation;
pub use explain::ExplainApi;
pub use node::NodeAuthorizer;
pub use node_restriction::{NodeRestriction, check_token_request};
pub use rbac::RbacAuthorizer;
pub use review::{
    AccessReviewAction, RulesReviewAction, local_subject_access_review, self_subject_access_review,
    self_subject_rules_review, subject_access_review,
};
pub use signers::Signers;
pub use union::Union;

use std::sync::Arc;

use gantry_kube_types::Authorizer;

use crate::authn::{
    SelfSubjectReviewAction, ServiceAccountTokens, TokenAction, TokenAuthenticator, TokenReviewAction,
};
use crate::kind::{Action, Kind};

/// Wires every review and the `token` subresource of service accounts into the built-in kinds.
pub fn with_reviews(
    kinds: Vec<Kind>,
    authorizer: Arc<dyn Authorizer>,
    rbac: Arc<RbacAuthorizer>,
    issuer: Arc<ServiceAccountTokens>,
    tokens: Vec<Arc<dyn TokenAuthenticator>>,
) -> Vec<Kind> {
    let access = |ask: review::Ask| -> Arc<dyn Action> {
        Arc::new(AccessReviewAction { authorizer: authorizer.clone(), ask })
    };
    let action = |kind: &Kind| -> Option<(&'static str, Arc<dyn Action>)> {
        Some(match (kind.info.group.as_ref(), kind.info.resource.as_ref()) {
            ("", "serviceaccounts") => ("token", Arc::new(TokenAction(issuer.clone()))),
            ("authentication.k8s.io", "tokenreviews") => ("", Arc::new(TokenReviewAction(tokens.clone()))),
            ("authentication.k8s.io", "selfsubjectreviews") => ("", Arc::new(SelfSubjectReviewAction)),
            ("authorization.k8s.io", "subjectaccessreviews") => ("", access(review::Ask::Anybody)),
            ("authorization.k8s.io", "localsubjectaccessreviews") => ("", access(review::Ask::InNamespace)),
            ("authorization.k8s.io", "selfsubjectaccessreviews") => ("", access(review::Ask::Myself)),
            ("authorization.k8s.io", "selfsubjectrulesreviews") => {
                let (rbac, authorizer) = (rbac.clone(), authorizer.clone());
                ("", Arc::new(RulesReviewAction { rbac, authorizer }))
            }
            _ => return None,
        })
    };
    let wire = |kind: Kind| match action(&kind) {
        Some((subresource, action)) => kind.with_action(subresource, action),
        None => kind,
    };
    kinds.into_iter().map(wire).collect()
}

#[cfg(test)]
mod attacks;
#[cfg(test)]
mod tests;
