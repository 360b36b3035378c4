//! What is refused of writes to repositories' objects, on clusters without rules in schemas, too.

use gantry_kube_types::{
    Admission, AdmissionAttributes, AdmissionOperation, AdmissionPhase, FieldError, StatusError,
};
use gantry_oci::RepositoryName;
use gantry_registry_api::{GROUP, RESOURCE, RepositorySpec, object_name};
use serde_json::Value;

use crate::quota::quantity;
use crate::trail::whose;

/// Keeps names and owners, and shares that make sense.
#[derive(Clone, Copy, Debug, Default)]
pub struct RepositoryAdmission;

#[async_trait::async_trait]
impl Admission for RepositoryAdmission {
    fn name(&self) -> &'static str {
        "Repositories"
    }

    async fn review(&self, request: &mut AdmissionAttributes<'_>) -> Result<(), StatusError> {
        if request.phase != AdmissionPhase::Validate || !request.is(GROUP, RESOURCE) {
            return Ok(());
        }
        let old = request.old_object.and_then(spec_of);
        let writes = matches!(request.operation, AdmissionOperation::Create | AdmissionOperation::Update);
        // What does not fit the types was refused by the schema.
        let spec = spec_of(&request.object).filter(|_| writes);
        if let Some(whose) = spec.as_ref().or(old.as_ref()).and_then(|spec| whose(&spec.owner)) {
            request.audit_annotations.push(whose);
        }
        let Some(spec) = spec else { return Ok(()) };
        let errors = problems(request.name, &spec, old.as_ref());
        match errors.is_empty() {
            true => Ok(()),
            false => Err(StatusError::invalid(GROUP, request.kind, request.name, &errors)),
        }
    }
}

fn spec_of(object: &Value) -> Option<RepositorySpec> {
    serde_json::from_value(object["spec"].clone()).ok()
}

fn problems(object: &str, spec: &RepositorySpec, old: Option<&RepositorySpec>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let mut invalid = |field: &str, value: Value, why: &str| {
        errors.push(FieldError::invalid(field, value, why));
    };
    match old {
        None => {
            let name = spec.name.parse::<RepositoryName>();
            if let Err(error) = &name {
                invalid("spec.name", spec.name.clone().into(), &error.to_string());
            } else if object_name(&spec.name) != object {
                let why = format!("its object is called {:?}", object_name(&spec.name));
                invalid("spec.name", spec.name.clone().into(), &why);
            }
        }
        Some(old) => {
            if old.name != spec.name {
                invalid("spec.name", spec.name.clone().into(), "the name of a repository cannot change");
            }
            if old.owner != spec.owner {
                let owner = spec.owner.to_string();
                invalid("spec.owner", owner.into(), "the owner of a repository cannot change");
            }
        }
    }
    if spec.owner.project.is_some() && spec.owner.domain.is_some() {
        invalid("spec.owner", spec.owner.to_string().into(), "a repository has one owner");
    }
    for (field, value) in [("maxImageSize", &spec.rules.max_image_size), ("quota", &spec.rules.quota)] {
        if let Some(text) = value.as_deref().filter(|text| quantity(text).is_none()) {
            invalid(&format!("spec.rules.{field}"), text.into(), "it is no quantity such as 500Mi or 20Gi");
        }
    }
    for (place, share) in spec.shares.iter().enumerate() {
        if share.project.is_some() == share.domain.is_some() {
            let field = format!("spec.shares[{place}]");
            invalid(&field, Value::Null, "a share names a project or a domain");
        }
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;
    use gantry_registry_api::{Owner, Share};

    #[test]
    fn names_and_owners_stay_and_shares_name_somebody() {
        let good = RepositorySpec {
            name: "acme/web/x".to_owned(),
            owner: Owner::of_project("web"),
            ..RepositorySpec::default()
        };
        let with = |change: fn(&mut RepositorySpec)| {
            let mut spec = good.clone();
            change(&mut spec);
            spec
        };
        let share = |project: Option<&str>, domain: Option<&str>| Share {
            project: project.map(str::to_owned),
            domain: domain.map(str::to_owned),
            ..Share::default()
        };
        let shared = RepositorySpec {
            shares: vec![share(Some("a"), None), share(None, None), share(Some("a"), Some("b"))],
            ..good.clone()
        };
        for (object, spec, old, wanted) in [
            ("acme.web.x", &good, None, ""),
            ("acme.web.y", &good, None, "spec.name: its object is called \"acme.web.x\""),
            ("acme.web.x", &with(|s| s.name = "Acme/x".to_owned()), None, "spec.name"),
            ("acme.web.x", &good, Some(&good), ""),
            (
                "acme.web.x",
                &with(|s| s.name = "acme/web/y".to_owned()),
                Some(&good),
                "name of a repository cannot",
            ),
            (
                "acme.web.x",
                &with(|s| s.owner = Owner::default()),
                Some(&good),
                "owner of a repository cannot",
            ),
            ("acme.web.x", &with(|s| s.owner.domain = Some("d".to_owned())), None, "one owner"),
            (
                "acme.web.x",
                &with(|s| s.rules.quota = Some("much".to_owned())),
                Some(&good),
                "spec.rules.quota",
            ),
            ("acme.web.x", &with(|s| s.rules.quota = Some("20Gi".to_owned())), Some(&good), ""),
            ("acme.web.x", &shared, Some(&good), "spec.shares[1] spec.shares[2]"),
        ] {
            let found = problems(object, spec, old);
            let text = found.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
            assert_eq!(found.is_empty(), wanted.is_empty(), "{text}");
            for word in wanted.split(": ").flat_map(|w| w.split(" spec.shares")) {
                assert!(text.contains(word), "{word}: {text}");
            }
        }
    }
}
