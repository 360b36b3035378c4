//! Several authorisers as one.

use std::sync::Arc;

use gantry_kube_types::{Attributes, Authorizer, Decision, Explanation, UserInfo};

/// Asked in order: the first that allows or denies decides.
pub struct Union(pub Vec<Arc<dyn Authorizer>>);

impl Authorizer for Union {
    fn authorize(&self, attributes: &Attributes) -> Decision {
        let mut reasons = Vec::new();
        for authorizer in &self.0 {
            match authorizer.authorize(attributes) {
                Decision::NoOpinion(reason) if reason.is_empty() => {}
                Decision::NoOpinion(reason) => reasons.push(reason),
                decided => return decided,
            }
        }
        Decision::NoOpinion(reasons.join("; "))
    }

    fn decisions_version(&self, user: &UserInfo) -> Option<u64> {
        self.0.iter().map(|authorizer| authorizer.decisions_version(user)).sum()
    }

    fn explain(&self, attributes: &Attributes, listener: &UserInfo) -> Option<Explanation> {
        self.0.iter().find_map(|authorizer| authorizer.explain(attributes, listener))
    }
}
