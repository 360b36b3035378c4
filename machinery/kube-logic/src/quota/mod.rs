//! Resource quotas without I/O: what one object uses ([`usage`]), which quotas it falls under
//! ([`Quota::tracks`]), and whether one more fits ([`Quota::admit`]). Wording is upstream's
//! (`k8s.io/apiserver/pkg/admission/plugin/resourcequota`).

mod usage;

use std::collections::BTreeMap;

use serde_json::Value;

use crate::meta;
use crate::pod_resources::{Amounts, amounts};
use crate::quantity::{Format, Quantity};

pub use usage::{ObjectUsage, counted_as, missing_for_containers, usage};

/// Which pods a quota counts.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Scope {
    name: String,
    operator: String,
    values: Vec<String>,
}

/// One ResourceQuota.
#[derive(Clone, Debug)]
pub struct Quota {
    pub name: String,
    pub hard: Amounts,
    scopes: Vec<Scope>,
}

impl Quota {
    /// Reads a ResourceQuota object.
    pub fn of(object: &Value) -> Self {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
        let spec = &object["spec"];
        let plain = list(&spec["scopes"]);
        let plain = plain.iter().map(|name| Scope {
            name: text(name),
            operator: "Exists".to_owned(),
            values: Vec::new(),
        });
        let selected = list(&spec["scopeSelector"]["matchExpressions"]);
        let selected = selected.iter().map(|wanted| Scope {
            name: text(&wanted["scopeName"]),
            operator: text(&wanted["operator"]),
            values: list(&wanted["values"]).iter().map(text).collect(),
        });
        Self {
            name: meta::name(object).to_owned(),
            hard: amounts(&spec["hard"]),
            scopes: plain.chain(selected).collect(),
        }
    }

    /// Does the object fall under this quota? One with scopes counts pods alone.
    pub fn tracks(&self, object: &ObjectUsage) -> bool {
        self.scopes.iter().all(|scope| object.is_in(&scope.name, &scope.operator, &scope.values))
    }

    /// Names in `hard` that objects of this resource count towards.
    pub fn limits<'a>(&'a self, object: &'a ObjectUsage) -> impl Iterator<Item = &'a str> {
        self.hard.keys().map(String::as_str).filter(|name| object.amounts.contains_key(*name))
    }

    /// What tracked objects use of what is limited here: every name of `hard`, also with zero.
    pub fn used<'a>(&self, objects: impl IntoIterator<Item = &'a ObjectUsage>) -> Amounts {
        let mut used: BTreeMap<&str, Quantity> = BTreeMap::new();
        for object in objects.into_iter().filter(|object| self.tracks(object)) {
            for (name, amount) in &object.amounts {
                if let Some((name, _)) = self.hard.get_key_value(name) {
                    let sum = used.get(name.as_str()).map_or(Some(*amount), |have| have.checked_add(amount));
                    used.insert(name, sum.unwrap_or(*amount));
                }
            }
        }
        let zero = |hard: &Quantity| Quantity::from_units(0, hard.format());
        let of = |(name, hard): (&String, &Quantity)| {
            (name.clone(), used.get(name.as_str()).copied().unwrap_or_else(|| zero(hard)))
        };
        self.hard.iter().map(of).collect()
    }

    /// May a change that uses `delta` more be made on top of `used`? Only what grows is looked at.
    pub fn admit(&self, used: &Amounts, delta: &Amounts) -> Result<(), String> {
        let zero = Quantity::from_units(0, Format::DecimalSi);
        let exceeded: Vec<&String> = delta
            .iter()
            .filter(|(name, more)| {
                let Some(hard) = self.hard.get(*name) else { return false };
                let have = used.get(*name).unwrap_or(&zero);
                **more > zero && have.checked_add(more).is_none_or(|sum| sum > *hard)
            })
            .map(|(name, _)| name)
            .collect();
        if exceeded.is_empty() {
            return Ok(());
        }
        let shown = |from: &Amounts| {
            let parts = exceeded.iter().map(|name| format!("{name}={}", from.get(*name).unwrap_or(&zero)));
            parts.collect::<Vec<_>>().join(",")
        };
        Err(format!(
            "exceeded quota: {}, requested: {}, used: {}, limited: {}",
            self.name,
            shown(delta),
            shown(used),
            shown(&self.hard)
        ))
    }
}

/// What `new` uses beyond `old`, by name; what shrinks is left out.
pub fn growth(new: &ObjectUsage, old: Option<&ObjectUsage>) -> Amounts {
    let none = Amounts::new();
    let before = old.map_or(&none, |old| &old.amounts);
    let grown = new.amounts.iter().filter_map(|(name, now)| {
        let more = match before.get(name) {
            Some(before) => now.checked_sub(before)?,
            None => *now,
        };
        (more.nano() > 0).then(|| (name.clone(), more))
    });
    grown.collect()
}

#[cfg(test)]
mod tests;
