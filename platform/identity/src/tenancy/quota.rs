//! Nested quotas, as pure functions: what is given to a project is carved from what is above it.
//!
//! A project, or the domain, that has a bound on something answers for everything below it: a project below that
//! has a bound of its own counts with that bound, whether it uses it or not; one that has none counts with what it
//! uses. So what a project was given is there when it needs it.

use std::collections::BTreeMap;

use gantry_identity_api::{Environment, Named, Place, Project, ProjectTree, Quota};
use gantry_kube_logic::quantity::{Format, Quantity};
use kube::ResourceExt;

use crate::directory::State;

/// What is bounded, as [`Quota::entries`] names it.
pub const RESOURCES: [&str; 7] = ["cpu", "memory", "pods", "volumes", "images", "addresses", "loadBalancers"];

/// One amount of each of [`RESOURCES`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Amounts([Quantity; 7]);

impl Default for Amounts {
    fn default() -> Self {
        Self([zero(); 7])
    }
}

impl Amounts {
    pub fn get(&self, resource: usize) -> Quantity {
        self.0[resource]
    }

    /// One amount by its name; `None`: nothing is called so.
    pub fn of(&self, resource: &str) -> Option<Quantity> {
        RESOURCES.iter().position(|r| *r == resource).map(|at| self.0[at])
    }

    pub fn set(&mut self, resource: &str, amount: Quantity) {
        if let Some(at) = RESOURCES.iter().position(|r| *r == resource) {
            self.0[at] = amount;
        }
    }

    pub fn is_zero(&self) -> bool {
        self.0.iter().all(Quantity::is_zero)
    }

    /// The larger of each.
    pub fn max(&self, other: &Self) -> Self {
        self.with(other, |a, b| if b > a { b } else { a })
    }

    pub fn plus(&self, other: &Self) -> Self {
        self.with(other, plus)
    }

    /// What is more in `self`; nothing where it is less.
    pub fn over(&self, other: &Self) -> Self {
        self.with(other, |a, b| if a > b { minus(a, b) } else { zero() })
    }

    /// Exactly, where `other` was added before.
    pub fn minus(&self, other: &Self) -> Self {
        self.with(other, minus)
    }

    fn with(&self, other: &Self, f: impl Fn(Quantity, Quantity) -> Quantity) -> Self {
        let mut result = *self;
        for (at, amount) in result.0.iter_mut().enumerate() {
            *amount = f(*amount, other.0[at]);
        }
        result
    }
}

pub fn zero() -> Quantity {
    Quantity::from_units(0, Format::DecimalSi)
}

/// A sum past the end of numbers is the end of numbers: it fits into no bound.
pub fn plus(a: Quantity, b: Quantity) -> Quantity {
    a.checked_add(&b).unwrap_or_else(|| Quantity::from_units(i64::MAX, a.format()))
}

fn minus(a: Quantity, b: Quantity) -> Quantity {
    a.checked_sub(&b).unwrap_or(a)
}

/// The bounds of a quota. One that cannot be read bounds to nothing; admission lets none in.
fn bounds(quota: &Quota) -> [Option<Quantity>; 7] {
    let mut bounds = [None; 7];
    for (name, text) in quota.entries() {
        if let Some(at) = RESOURCES.iter().position(|r| *r == name) {
            bounds[at] = Some(Quantity::parse(text).unwrap_or_else(|_| zero()));
        }
    }
    bounds
}

#[derive(Debug, Default)]
struct Node {
    name: String,
    bounds: [Option<Quantity>; 7],
    used: Amounts,
}

/// A domain's projects, with their bounds and what each of them uses itself.
#[derive(Debug, Default)]
pub struct Tree {
    domain: String,
    domain_bounds: [Option<Quantity>; 7],
    projects: ProjectTree<Node>,
}

/// What is inside a bound.
#[derive(Clone, Copy, Debug)]
struct Inside {
    given: Quantity,
    used: Quantity,
}

impl Tree {
    /// `changed` are projects as they will be, where that is not yet in the state; `used` is what a project's own
    /// namespaces use.
    pub fn of(
        state: &State,
        domain: &str,
        changed: &BTreeMap<String, &Project>,
        used: impl Fn(&str) -> Amounts,
    ) -> Self {
        let mut tree = Self::default();
        if let Some(found) = state.domains.get(domain) {
            (tree.domain, tree.domain_bounds) = (found.display_name(), bounds(&found.spec.quota));
        }
        let known = state.projects.iter().map(std::convert::AsRef::as_ref);
        let known = known.filter(|p| !changed.contains_key(&p.name_any()));
        let projects = known.chain(changed.values().copied()).filter(|p| p.spec.domain == domain);
        tree.projects = ProjectTree::new(projects.map(|project| {
            let id = project.name_any();
            let (name, bounds, used) = (project.display_name(), bounds(&project.spec.quota), used(&id));
            (id, project.spec.parent.clone(), Node { name, bounds, used })
        }));
        tree
    }

    /// May the project have this quota? `Err` says which bound above it is in the way, or what it gave away already.
    pub fn carve(&self, project: &str, quota: &Quota) -> Result<(), String> {
        let Some(node) = self.projects.get(project) else { return Ok(()) };
        for (at, wanted) in bounds(quota).into_iter().enumerate() {
            let Some(wanted) = wanted else { continue };
            let given = self.below(Place::Project(project), at, None).given;
            if given > wanted {
                return Err(format!(
                    "quota {} of project {:?} cannot be {wanted}: {given} {} given to its projects",
                    RESOURCES[at],
                    node.name,
                    verb(given)
                ));
            }
            let above = self.projects.up(Place::Project(project)).skip(1);
            if let Some((holder, limit)) = self.holder(above, at) {
                self.fits(holder, limit, at, wanted, Some(project))?;
            }
        }
        Ok(())
    }

    /// May the domain have this quota?
    pub fn carve_domain(&self, quota: &Quota) -> Result<(), String> {
        for (at, wanted) in bounds(quota).into_iter().enumerate() {
            let Some(wanted) = wanted else { continue };
            let given = self.below(Place::Domain, at, None).given;
            if given > wanted {
                return Err(format!(
                    "quota {} of domain {:?} cannot be {wanted}: {given} {} given to its projects",
                    RESOURCES[at],
                    self.domain,
                    verb(given)
                ));
            }
        }
        Ok(())
    }

    /// May the project use `more` than it does?
    pub fn admit(&self, project: &str, more: &Amounts) -> Result<(), String> {
        for at in 0..RESOURCES.len() {
            let asked = more.get(at);
            if asked <= zero() {
                continue;
            }
            let up = self.projects.up(Place::Project(project));
            if let Some((holder, limit)) = self.holder(up, at) {
                self.fits(holder, limit, at, asked, None)?;
            }
        }
        Ok(())
    }

    /// Does any bound hold for what the project uses?
    pub fn is_bounded(&self, project: &str) -> bool {
        let up = || self.projects.up(Place::Project(project));
        (0..RESOURCES.len()).any(|at| self.holder(up(), at).is_some())
    }

    /// The first of them that has a bound.
    fn holder<'a>(
        &self,
        mut up: impl Iterator<Item = Place<'a>>,
        at: usize,
    ) -> Option<(Place<'a>, Quantity)> {
        up.find_map(|place| {
            let bounds = match place {
                Place::Domain => Some(&self.domain_bounds),
                Place::Project(id) => self.projects.get(id).map(|node| &node.bounds),
            };
            Some((place, bounds?[at]?))
        })
    }

    fn fits(
        &self,
        holder: Place<'_>,
        limit: Quantity,
        at: usize,
        asked: Quantity,
        without: Option<&str>,
    ) -> Result<(), String> {
        let mut inside = self.below(holder, at, without);
        let node = match holder {
            Place::Domain => None,
            Place::Project(id) => self.projects.get(id),
        };
        if let Some(node) = node {
            inside.used = plus(inside.used, node.used.get(at));
        }
        let (what, name) = node.map_or(("domain", &self.domain), |node| ("project", &node.name));
        inside.admits(limit, asked).map_err(|why| format!("quota {} of {what} {name:?} {why}", RESOURCES[at]))
    }

    /// What projects take of a bound above them; `without` is taken as absent.
    fn below(&self, place: Place<'_>, at: usize, without: Option<&str>) -> Inside {
        let below = self.projects.below(place, without, |node| node.bounds[at].is_some());
        let nodes =
            |ids: Vec<&str>| ids.into_iter().filter_map(|id| self.projects.get(id)).collect::<Vec<_>>();
        let given = nodes(below.bounded).into_iter().filter_map(|node| node.bounds[at]).fold(zero(), plus);
        let used = nodes(below.open).into_iter().map(|node| node.used.get(at)).fold(zero(), plus);
        Inside { given, used }
    }

    /// What the projects below a project (or, without one, below the domain) are given.
    pub fn allocated(&self, project: Option<&str>) -> Quota {
        let place = project.map_or(Place::Domain, Place::Project);
        let mut quota = Quota::default();
        for (at, name) in RESOURCES.iter().enumerate() {
            let given = self.below(place, at, None).given;
            if !given.is_zero()
                && let Some(entry) = quota.entry_mut(name)
            {
                *entry = Some(given.to_string());
            }
        }
        quota
    }
}

impl Inside {
    /// Is there room for `asked` more? `Err` are the numbers, as the end of a sentence.
    fn admits(self, limit: Quantity, asked: Quantity) -> Result<(), String> {
        let taken = plus(self.given, self.used);
        if plus(taken, asked) <= limit {
            return Ok(());
        }
        let left = if limit > taken { minus(limit, taken) } else { zero() };
        let mut parts = Vec::new();
        if !self.given.is_zero() {
            parts.push(format!("{} {} given to its projects", self.given, verb(self.given)));
        }
        if !self.used.is_zero() {
            parts.push(format!("{} {} in use", self.used, verb(self.used)));
        }
        parts.push(format!("{asked} more {} asked for", verb(asked)));
        parts.push(format!("{left} {} left", verb(left)));
        Err(format!("is {limit}: {}", parts.join(", ")))
    }
}

/// The environment's own bounds, of what the ResourceQuota of its namespace cannot bound: addresses.
#[derive(Clone, Copy, Debug)]
pub struct Alone<'a> {
    environment: &'a str,
    at: usize,
    limit: Quantity,
}

impl<'a> Alone<'a> {
    /// `None`: the environment has no such bound.
    pub fn of(environment: &'a Environment) -> Option<Self> {
        let at = RESOURCES.iter().position(|r| *r == "addresses")?;
        Some(Self { environment: &environment.name, at, limit: bounds(&environment.quota)[at]? })
    }

    /// May the environment's namespace use `more` than it does?
    pub fn admit(&self, used: &Amounts, more: &Amounts) -> Result<(), String> {
        let asked = more.get(self.at);
        if asked <= zero() {
            return Ok(());
        }
        let inside = Inside { given: zero(), used: used.get(self.at) };
        let admitted = inside.admits(self.limit, asked);
        admitted.map_err(|why| {
            format!("quota {} of environment {:?} {why}", RESOURCES[self.at], self.environment)
        })
    }
}

/// "2 are left", "1 is left".
fn verb(amount: Quantity) -> &'static str {
    if amount == Quantity::from_units(1, Format::DecimalSi) { "is" } else { "are" }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::directory::tests::{put, two_organisations};

    /// `web=8 shop=4` on the tree `acme ⊃ web ⊃ shop ⊃ cart`, `ops`; `acme=…` is the domain's. All of cpu.
    fn tree(quotas: &str, used: &[(&str, &str)]) -> Tree {
        let mut state = two_organisations();
        for (id, cpu) in quotas.split(' ').filter_map(|text| text.split_once('=')) {
            let quota = Quota { cpu: Some(cpu.to_owned()), ..Quota::default() };
            if id == "acme" {
                let mut domain = (**state.domains.get(id).expect("a domain")).clone();
                domain.spec.quota = quota;
                put(&mut state, domain);
            } else {
                let mut project = (**state.projects.get(id).expect("a project")).clone();
                project.spec.quota = quota;
                put(&mut state, project);
            }
        }
        Tree::of(&state, "acme", &BTreeMap::new(), |id| {
            let mut amounts = Amounts::default();
            if let Some((_, cpu)) = used.iter().find(|(project, _)| *project == id) {
                amounts.set("cpu", Quantity::parse(cpu).expect("a quantity"));
            }
            amounts
        })
    }

    fn cpu(text: &str) -> Quota {
        Quota { cpu: Some(text.to_owned()), ..Quota::default() }
    }

    #[test]
    fn a_childs_quota_is_carved_from_its_parents() {
        for (quotas, used, project, wanted, error) in [
            ("", vec![], "shop", "1000", ""),
            ("web=8", vec![], "shop", "8", ""),
            (
                "web=8",
                vec![],
                "shop",
                "9",
                r#"quota cpu of project "web" is 8: 9 more are asked for, 8 are left"#,
            ),
            // What the project has now is not in its own way.
            ("web=8 shop=6", vec![], "shop", "8", ""),
            // The nearest that is bounded counts, and what it uses itself.
            (
                "web=8",
                vec![("web", "3")],
                "cart",
                "6",
                r#"quota cpu of project "web" is 8: 3 are in use, 6 more are asked for, 5 are left"#,
            ),
            ("web=8", vec![("shop", "3"), ("web", "1")], "cart", "4", ""),
            (
                "acme=10 web=6",
                vec![],
                "ops",
                "4500m",
                r#"quota cpu of domain "acme" is 10: 6 are given to its projects, 4500m more are asked for, 4 are left"#,
            ),
            ("acme=10 web=6", vec![("web", "6")], "ops", "4", ""),
            (
                "web=8 shop=6",
                vec![],
                "web",
                "4",
                r#"quota cpu of project "web" cannot be 4: 6 are given to its projects"#,
            ),
            // Past a project without a bound.
            (
                "web=8 cart=6",
                vec![],
                "web",
                "4",
                r#"quota cpu of project "web" cannot be 4: 6 are given to its projects"#,
            ),
        ] {
            let result = tree(quotas, &used).carve(project, &cpu(wanted));
            assert_eq!(result.err().unwrap_or_default(), error, "{quotas} {used:?} {project}={wanted}");
        }
    }

    #[test]
    fn use_is_bounded_by_the_nearest_bound() {
        for (quotas, used, project, more, error) in [
            ("", vec![("web", "100")], "web", "100", ""),
            ("web=8", vec![("web", "7")], "web", "1", ""),
            (
                "web=8",
                vec![("web", "7")],
                "web",
                "1500m",
                r#"quota cpu of project "web" is 8: 7 are in use, 1500m more are asked for, 1 is left"#,
            ),
            (
                "web=8",
                vec![("web", "4"), ("cart", "3")],
                "shop",
                "2",
                r#"quota cpu of project "web" is 8: 7 are in use, 2 more are asked for, 1 is left"#,
            ),
            // What was given away is not there, used or not.
            (
                "web=8 shop=6",
                vec![],
                "web",
                "4",
                r#"quota cpu of project "web" is 8: 6 are given to its projects, 4 more are asked for, 2 are left"#,
            ),
            ("web=8 shop=6", vec![("web", "2")], "cart", "6", ""),
            (
                "acme=4",
                vec![("ops", "3")],
                "cart",
                "2",
                r#"quota cpu of domain "acme" is 4: 3 are in use, 2 more are asked for, 1 is left"#,
            ),
            // Over already: nothing more, and nothing negative in the message.
            (
                "web=2",
                vec![("web", "3")],
                "web",
                "1",
                r#"quota cpu of project "web" is 2: 3 are in use, 1 more is asked for, 0 are left"#,
            ),
        ] {
            let mut amounts = Amounts::default();
            amounts.set("cpu", Quantity::parse(more).expect("a quantity"));
            let result = tree(quotas, &used).admit(project, &amounts);
            assert_eq!(result.err().unwrap_or_default(), error, "{quotas} {used:?} {project}+{more}");
        }
    }

    /// As cpu does: carved, used up, and refused with the numbers in the bound's own unit.
    #[test]
    fn every_bound_nests() {
        for (name, whole, given, taken, more, left) in [
            ("memory", "8Gi", "5Gi", "1Gi", "2560Mi", "2Gi"),
            ("volumes", "100Gi", "60Gi", "30Gi", "20Gi", "10Gi"),
            ("loadBalancers", "4", "2", "1", "2", "1"),
            ("addresses", "6", "3", "1", "4", "2"),
            ("pods", "10", "5", "2", "4", "3"),
            ("images", "8Gi", "5Gi", "1Gi", "3Gi", "2Gi"),
            ("cpu", "8", "5", "1", "2500m", "2"),
        ] {
            let quota = |bound: &str| {
                let mut quota = Quota::default();
                *quota.entry_mut(name).expect("a name of a bound") = Some(bound.to_owned());
                quota
            };
            let amounts = |amount: &str| {
                let mut amounts = Amounts::default();
                amounts.set(name, Quantity::parse(amount).expect("a quantity"));
                amounts
            };
            let mut state = two_organisations();
            for (id, bound) in [("web", whole), ("cart", given)] {
                let mut project = (**state.projects.get(id).expect("a project")).clone();
                project.spec.quota = quota(bound);
                put(&mut state, project);
            }
            // `shop`, between the two, has no bound: what it uses is of what web has.
            let tree = Tree::of(&state, "acme", &BTreeMap::new(), |id| {
                if id == "shop" { amounts(taken) } else { Amounts::default() }
            });
            let verb = |amount: &str| if amount == "1" { "is" } else { "are" };
            let said = format!(
                r#"quota {name} of project "web" is {whole}: {given} are given to its projects, {taken} {} in use, {more} more are asked for, {left} {} left"#,
                verb(taken),
                verb(left)
            );
            assert_eq!(tree.admit("shop", &amounts(more)), Err(said.clone()));
            assert_eq!(tree.admit("web", &amounts(more)), Err(said));
            assert_eq!(tree.admit("web", &amounts(left)), Ok(()));
            assert_eq!(tree.admit("cart", &amounts(given)), Ok(()), "what it was given is there");
            assert_eq!(tree.carve("cart", &quota(given)), Ok(()));
            let error = tree.carve("cart", &quota(whole)).expect_err("what shop uses is not there");
            assert!(
                error.starts_with(&format!("quota {name} of project \"web\" is {whole}: {taken} ")),
                "{error}"
            );
            let error = tree.carve("web", &quota(left)).expect_err("less than given");
            assert_eq!(
                error,
                format!(
                    r#"quota {name} of project "web" cannot be {left}: {given} are given to its projects"#
                )
            );
            assert_eq!(tree.allocated(Some("web")), quota(given));
        }
    }

    #[test]
    fn a_domain_keeps_what_it_gave_and_shows_it() {
        let tree = tree("acme=10 web=6 shop=2 ops=1", &[]);
        assert!(tree.carve_domain(&cpu("7")).is_ok());
        let error = tree.carve_domain(&cpu("6")).expect_err("less than given");
        assert_eq!(error, r#"quota cpu of domain "acme" cannot be 6: 7 are given to its projects"#);
        assert_eq!(tree.allocated(None), cpu("7"));
        assert_eq!(tree.allocated(Some("web")), cpu("2"));
        assert_eq!(tree.allocated(Some("shop")), Quota::default());
    }
}
