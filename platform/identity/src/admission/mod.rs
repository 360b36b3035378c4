//! What is refused at the API, whoever asks and by whatever client: objects of identity that make no sense or are
//! not the caller's to write, tenants who reach for what is the platform's, and more than a quota allows.

mod assignments;
#[cfg(test)]
mod attacks;
mod credentials;
mod disabled;
mod identity;
mod membership;
mod names;
mod organisations;
mod pending;
mod providers;
mod quota;
#[cfg(test)]
mod quota_tests;
mod refusal;
mod renamed;
mod roles;
mod tenants;
#[cfg(test)]
mod tests;

pub use disabled::DisabledTokens;
pub use identity::IdentityKinds;
pub use membership::{may_join, outranks, rules_provider, signs_in_otherwise};
pub use names::{domain_name_problem, name_problem};
pub use organisations::given_from_above;
pub use quota::TreeQuota;
pub use tenants::Tenants;
