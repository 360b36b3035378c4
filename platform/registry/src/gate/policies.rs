//! Which policy holds where: a pure function of all policies and the place.

use gantry_registry_api::{Answer, ImagePolicy, ImagePolicySpec, OnFailure, Requirements, Scope};
use gantry_scanner::judgement::Exceptions;
use gantry_scanner::rating::RatingPolicy;
use kube::ResourceExt;
use serde_json::json;

/// A namespace, or a repository, which has no environment. With nothing it is the platform's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) domain: Option<String>,
    pub(crate) project: Option<String>,
    pub(crate) environment: Option<String>,
}

/// What is done with an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    Push,
    Pull,
    Deploy,
}

/// One policy, its documents read.
#[derive(Clone, Debug)]
struct Compiled {
    name: String,
    spec: ImagePolicySpec,
    rating: Option<RatingPolicy>,
    exceptions: Exceptions,
    /// What is wrong with it: written past admission, or before it knew better.
    problem: Option<String>,
}

/// All policies, the most specific first.
#[derive(Clone, Debug, Default)]
pub(crate) struct Book(Vec<Compiled>);

/// What holds at a place for an act, with the name of the policy that says so.
#[derive(Clone, Debug)]
pub(crate) struct Effective {
    pub(crate) rating: RatingPolicy,
    pub(crate) exceptions: Exceptions,
    pub(crate) requirements: Option<(String, Requirements)>,
    /// Of a deployment.
    pub(crate) other_registries: Option<(String, Answer)>,
    pub(crate) on_failure: OnFailure,
    /// A policy that holds and cannot be understood, and why.
    pub(crate) broken: Option<(String, String)>,
}

impl Compiled {
    fn of(policy: &ImagePolicy) -> Self {
        let read = documents(&policy.spec);
        let problem = read.as_ref().err().map(|(field, why)| format!("{field}: {why}"));
        let (rating, exceptions) = read.unwrap_or_default();
        Self { name: policy.name_any(), spec: policy.spec.clone(), rating, exceptions, problem }
    }
}

/// The documents of a policy; or the field that is wrong, and why.
pub(super) fn documents(
    spec: &ImagePolicySpec,
) -> Result<(Option<RatingPolicy>, Exceptions), (&'static str, String)> {
    let rating = spec.rating.as_ref().map(|document| RatingPolicy::parse(&document.to_string()));
    let rating = rating.transpose().map_err(|error| ("spec.rating", error.to_string()))?;
    let exceptions = json!({ "exceptions": spec.exceptions }).to_string();
    let exceptions =
        Exceptions::parse(&exceptions).map_err(|error| ("spec.exceptions", error.to_string()))?;
    Ok((rating, exceptions))
}

/// A project says more than a domain, and each says more with an environment than without.
fn rank(scope: &Scope) -> u8 {
    let of = |field: &Option<String>, weight| if field.is_some() { weight } else { 0 };
    of(&scope.project, 4) + of(&scope.domain, 2) + of(&scope.environment, 1)
}

fn holds(scope: &Scope, place: &Place) -> bool {
    let fits = |wanted: &Option<String>, is: &Option<String>| wanted.is_none() || wanted == is;
    fits(&scope.domain, &place.domain)
        && fits(&scope.project, &place.project)
        && fits(&scope.environment, &place.environment)
}

impl Book {
    pub(crate) fn new<'a>(policies: impl IntoIterator<Item = &'a ImagePolicy>) -> Self {
        let mut all: Vec<Compiled> = policies.into_iter().map(Compiled::of).collect();
        // Two of one scope are refused at admission; where they came all the same, the name decides.
        all.sort_by(|a, b| rank(&b.spec.scope).cmp(&rank(&a.spec.scope)).then_with(|| a.name.cmp(&b.name)));
        Self(all)
    }

    /// The policy that has this very scope.
    pub(super) fn of_scope(&self, scope: &Scope) -> Option<&str> {
        self.0.iter().find(|policy| policy.spec.scope == *scope).map(|policy| policy.name.as_str())
    }

    /// Whether anything is required anywhere for the act: most platforms have no rules for pushes and pulls.
    pub(crate) fn says_anything_of(&self, act: Act) -> bool {
        self.0.iter().any(|policy| requirements(&policy.spec, act).is_some() || policy.problem.is_some())
    }

    pub(crate) fn at(&self, place: &Place, act: Act) -> Effective {
        let here = || self.0.iter().filter(|policy| holds(&policy.spec.scope, place));
        let exceptions = here().flat_map(|policy| policy.exceptions.exceptions.clone()).collect();
        let broken = here().find_map(|policy| Some((policy.name.clone(), policy.problem.clone()?)));
        Effective {
            rating: here().find_map(|policy| policy.rating.clone()).unwrap_or_default(),
            exceptions: Exceptions { exceptions },
            requirements: here()
                .find_map(|p| Some((p.name.clone(), requirements(&p.spec, act)?.clone())))
                .filter(|(_, required)| *required != Requirements::default()),
            other_registries: here().find_map(|p| Some((p.name.clone(), p.spec.other_registries?))),
            on_failure: here().find_map(|p| p.spec.on_failure).unwrap_or_default(),
            broken,
        }
    }
}

fn requirements(spec: &ImagePolicySpec, act: Act) -> Option<&Requirements> {
    match act {
        Act::Push => spec.push.as_ref(),
        Act::Pull => spec.pull.as_ref(),
        Act::Deploy => spec.deploy.as_ref(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gantry_registry_api::Grade;

    fn policy(name: &str, scope: serde_json::Value, more: serde_json::Value) -> ImagePolicy {
        let mut spec = more;
        spec["scope"] = scope;
        ImagePolicy::new(name, serde_json::from_value(spec).expect("a policy"))
    }

    fn place(project: &str, environment: &str) -> Place {
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        Place {
            domain: some(if project.is_empty() { "" } else { "acme" }),
            project: some(project),
            environment: some(environment),
        }
    }

    #[test]
    fn the_most_specific_policy_that_says_something_decides_it() {
        let grade = |grade: &str| json!({ "deploy": { "minimumGrade": grade } });
        let all = [
            policy("platform", json!({}), json!({ "deploy": { "minimumGrade": "E" }, "onFailure": "open" })),
            policy("prod", json!({ "environment": "prod" }), grade("C")),
            policy("acme", json!({ "domain": "acme" }), grade("D")),
            policy("acme-prod", json!({ "domain": "acme", "environment": "prod" }), grade("B")),
            policy("web", json!({ "project": "web" }), json!({ "otherRegistries": "refuse" })),
            policy("lab-prod", json!({ "project": "lab", "environment": "prod" }), json!({ "deploy": {} })),
        ];
        let book = Book::new(&all);
        for (place, want) in [
            (Place::default(), Some(("platform", Grade::E))),
            (Place { environment: Some("prod".to_owned()), ..Place::default() }, Some(("prod", Grade::C))),
            (place("shop", "dev"), Some(("acme", Grade::D))),
            (place("shop", "prod"), Some(("acme-prod", Grade::B))),
            // What a project's policy does not say, the next one does.
            (place("web", "prod"), Some(("acme-prod", Grade::B))),
            // What it says empty is required of nobody.
            (place("lab", "prod"), None),
            (place("lab", "dev"), Some(("acme", Grade::D))),
        ] {
            let found = book.at(&place, Act::Deploy);
            let found = found.requirements.map(|(name, r)| (name, r.minimum_grade));
            let want = want.map(|(name, grade)| (name.to_owned(), Some(grade)));
            assert_eq!(found, want, "{place:?}");
        }
        let web = book.at(&place("web", "dev"), Act::Deploy);
        assert_eq!(web.other_registries, Some(("web".to_owned(), Answer::Refuse)));
        assert_eq!(web.on_failure, OnFailure::Open);
        assert!(book.says_anything_of(Act::Deploy) && !book.says_anything_of(Act::Push));
        assert_eq!(book.of_scope(&all[1].spec.scope), Some("prod"));
    }

    #[test]
    fn exceptions_add_up_and_what_cannot_be_read_is_named() {
        let exception = |id: &str| {
            json!({ "exceptions": [{ "vulnerability": id, "author": "a", "reason": "r",
                "expires": "2999-01-01T00:00:00Z" }] })
        };
        let book = Book::new(&[
            policy("platform", json!({}), exception("CVE-1")),
            policy("web", json!({ "project": "web" }), exception("CVE-2")),
            policy("shop", json!({ "project": "shop" }), json!({ "rating": { "weights": { "hihg": 1 } } })),
        ]);
        let at = |project: &str| book.at(&place(project, ""), Act::Deploy);
        let ids = |found: &Effective| -> Vec<String> {
            found.exceptions.exceptions.iter().filter_map(|e| e.vulnerability.clone()).collect()
        };
        assert_eq!(ids(&at("web")), ["CVE-2", "CVE-1"]);
        assert_eq!(ids(&at("shop")), ["CVE-1"]);
        let (name, why) = at("shop").broken.expect("it is broken");
        assert!(name == "shop" && why.starts_with("spec.rating: ") && why.contains("hihg"), "{why}");
        assert!(at("web").broken.is_none());
    }
}
