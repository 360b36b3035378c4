//! Roles as decisions read them: each rule is found by the resources it names, and every binding knows
//! where its role stands, so that a caller with a hundred bindings costs a hundred short searches and not
//! a walk through all their rules.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};

use gantry_kube_types::Attributes;

use super::PolicyRule;
use super::matching::{LOGS, allows, list, reads_logs};

/// Where a role stands, or will stand once it is made.
pub(super) type Place = usize;

/// The rules of one role and where each resource is named in them.
#[derive(Debug, Default)]
pub(super) struct Indexed {
    pub(super) rules: Vec<PolicyRule>,
    /// Hashes of resources as they are written (`pods/log`, `*`), sorted, with the rule's number. Two that
    /// collide cost a look: the rule itself decides.
    named: Vec<(u64, u32)>,
    /// Rules with non-resource URLs.
    paths: Vec<u32>,
}

/// The hashes under which rules that may grant a request are found.
pub(super) struct Wanted {
    resources: [Option<u64>; 4],
}

#[derive(Debug, Default)]
struct Slot {
    /// One bit per hash in `role.named`: most roles are passed over without a look at their rules.
    mask: [u64; MASK_WORDS],
    role: Option<Indexed>,
    /// How many bindings stand for this place.
    bindings: usize,
}

impl Slot {
    /// No: certainly not. Yes: look.
    fn may_name(&self, hash: u64) -> bool {
        let (word, bit) = mask_bit(hash);
        self.mask[word] & bit != 0
    }
}

const MASK_WORDS: usize = 4;

fn mask_bit(hash: u64) -> (usize, u64) {
    ((hash >> 6) as usize % MASK_WORDS, 1 << (hash % 64))
}

/// All roles, by place; a place exists while there is a role or a binding for it.
#[derive(Debug, Default)]
pub(super) struct Roles {
    /// By namespace (empty: ClusterRoles), then name.
    places: HashMap<String, HashMap<String, Place>>,
    slots: Vec<Slot>,
    free: Vec<Place>,
    hasher: RandomState,
}

impl Roles {
    pub(super) fn set(&mut self, namespace: &str, name: &str, rules: Vec<PolicyRule>) {
        let indexed = self.index(rules);
        let place = self.place(namespace, name);
        let slot = &mut self.slots[place];
        slot.mask = [0; MASK_WORDS];
        for (hash, _) in &indexed.named {
            let (word, bit) = mask_bit(*hash);
            slot.mask[word] |= bit;
        }
        slot.role = Some(indexed);
    }

    pub(super) fn remove(&mut self, namespace: &str, name: &str) {
        let Some(place) = self.find(namespace, name) else { return };
        self.slots[place].role = None;
        self.tidy(namespace, name, place);
    }

    /// The place of a role for a binding, which must give it back with [`Roles::release`].
    pub(super) fn bind(&mut self, namespace: &str, name: &str) -> Place {
        let place = self.place(namespace, name);
        self.slots[place].bindings += 1;
        place
    }

    pub(super) fn release(&mut self, namespace: &str, name: &str, place: Place) {
        self.slots[place].bindings -= 1;
        self.tidy(namespace, name, place);
    }

    pub(super) fn get(&self, namespace: &str, name: &str) -> Option<&[PolicyRule]> {
        self.at(self.find(namespace, name)?)
    }

    pub(super) fn at(&self, place: Place) -> Option<&[PolicyRule]> {
        self.slots[place].role.as_ref().map(|role| role.rules.as_slice())
    }

    /// The names and rules of the roles of one namespace, or of the ClusterRoles.
    pub(super) fn in_namespace(&self, namespace: &str) -> impl Iterator<Item = (&str, &[PolicyRule])> {
        let places = self.places.get(namespace).into_iter().flatten();
        places.filter_map(|(name, place)| Some((name.as_str(), self.at(*place)?)))
    }

    pub(super) fn wanted(&self, attributes: &Attributes) -> Wanted {
        let hash = |resource: &str| Some(self.hasher.hash_one(resource));
        let Attributes { resource, subresource, .. } = attributes;
        if subresource.is_empty() {
            return Wanted { resources: [hash(resource), hash("*"), None, None] };
        }
        let (whole, any) = (format!("{resource}/{subresource}"), format!("*/{subresource}"));
        let logs = if reads_logs(attributes) { hash(LOGS) } else { None };
        Wanted { resources: [hash(&whole), hash("*"), hash(&any), logs] }
    }

    /// Does the role there grant it? `None`: there is no role.
    pub(super) fn allow(&self, place: Place, wanted: &Wanted, attributes: &Attributes) -> Option<bool> {
        let slot = &self.slots[place];
        let role = slot.role.as_ref()?;
        let grants =
            |number: u32| role.rules.get(number as usize).is_some_and(|rule| allows(rule, attributes));
        if !attributes.is_resource_request {
            return Some(role.paths.iter().any(|number| grants(*number)));
        }
        let named = wanted.resources.iter().flatten().filter(|hash| slot.may_name(**hash));
        Some(named.into_iter().any(|hash| {
            let first = role.named.partition_point(|(other, _)| other < hash);
            role.named[first..]
                .iter()
                .take_while(|(other, _)| other == hash)
                .any(|(_, number)| grants(*number))
        }))
    }

    fn index(&self, rules: Vec<PolicyRule>) -> Indexed {
        let (mut named, mut paths) = (Vec::new(), Vec::new());
        for (number, rule) in (0_u32..).zip(&rules) {
            named.extend(
                list(&rule.resources)
                    .iter()
                    .map(|resource| (self.hasher.hash_one(resource.as_str()), number)),
            );
            if !list(&rule.non_resource_urls).is_empty() {
                paths.push(number);
            }
        }
        named.sort_unstable();
        named.dedup();
        Indexed { rules, named, paths }
    }

    fn find(&self, namespace: &str, name: &str) -> Option<Place> {
        self.places.get(namespace)?.get(name).copied()
    }

    fn place(&mut self, namespace: &str, name: &str) -> Place {
        if let Some(place) = self.find(namespace, name) {
            return place;
        }
        let place = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            self.slots.len() - 1
        });
        self.places.entry(namespace.to_owned()).or_default().insert(name.to_owned(), place);
        place
    }

    /// Gives the place up where nothing stands on it any more.
    fn tidy(&mut self, namespace: &str, name: &str, place: Place) {
        let slot = &self.slots[place];
        if slot.role.is_some() || slot.bindings > 0 {
            return;
        }
        if let Some(names) = self.places.get_mut(namespace) {
            names.remove(name);
            if names.is_empty() {
                self.places.remove(namespace);
            }
        }
        self.free.push(place);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_lives_as_long_as_a_role_or_a_binding() {
        let mut roles = Roles::default();
        let place = roles.bind("a", "r");
        assert_eq!(roles.at(place), None, "bound before it is made");
        roles.set("a", "r", vec![PolicyRule::default()]);
        assert_eq!(roles.at(place).map(<[PolicyRule]>::len), Some(1));
        roles.remove("a", "r");
        roles.release("a", "r", place);
        assert!(roles.places.is_empty());
        assert_eq!(roles.bind("b", "other"), place, "places are used again");
        roles.set("b", "second", Vec::new());
        roles.remove("b", "second");
        assert_eq!(roles.slots.len(), 2);
        assert_eq!(roles.in_namespace("b").count(), 0);
    }
}
