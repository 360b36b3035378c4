//! What the service catalogue begins with: the platform's own services, where clients reach them.

use gantry_identity_api::{KeystoneRecord, KeystoneRecordSpec};
use kube::ResourceExt as _;
use serde_json::{Value, json};

use crate::access_rules::{IDENTITY, KUBERNETES, REGISTRY};
use crate::core::Core;
use crate::errors::IdentityError;
use crate::keystone::record_name;

/// Keystone's own default.
const REGION: &str = "RegionOne";

/// Id, type, name, path and interfaces of each. Access rules of application credentials name the types.
const SERVICES: [(&str, &str, &str, &str, &[&str]); 3] = [
    ("gantry-identity", IDENTITY, "keystone", "/identity/v3", &["public", "internal", "admin"]),
    ("gantry-kubernetes", KUBERNETES, "kubernetes", "", &["public"]),
    ("gantry-registry", REGISTRY, "registry", "/v2", &["public"]),
];

/// The URL that we gave an endpoint: as long as it has that, it is nobody else's.
const OWN_URL: &str = "identity.gantry.dev/own-url";

/// Is an endpoint's URL the one that we gave it? The first versions gave this one and did not note it.
fn is_own(noted: Option<&str>, url: Option<&str>) -> bool {
    match noted {
        Some(noted) => Some(noted) == url,
        None => url.is_some_and(|url| url.starts_with("https://127.0.0.1:")),
    }
}

impl Core {
    /// Makes region, service and endpoints where the catalogue has no service of the type yet. What an administrator
    /// made or changed stays; an endpoint that nobody changed goes along when the platform is reached elsewhere.
    pub(crate) async fn ensure_catalogue(&self) -> Result<(), IdentityError> {
        for (id, kind, name, path, interfaces) in SERVICES {
            let url = format!("{}{path}", self.config.external_url);
            for interface in interfaces {
                self.move_endpoint(&format!("{id}-{interface}"), &url).await?;
            }
            let there = {
                let state = self.directory.read();
                state.records.iter().any(|r| {
                    r.spec.collection == "services" && r.spec.attributes.get("type") == Some(&json!(kind))
                })
            };
            if there {
                continue;
            }
            let region = json!({ "description": "", "parent_region_id": null });
            self.ensure_record("regions", REGION, region).await?;
            for interface in interfaces {
                let attributes = json!({
                    "service_id": id, "interface": interface, "region": REGION, "region_id": REGION,
                    "url": url, "enabled": true,
                });
                self.ensure_record("endpoints", &format!("{id}-{interface}"), attributes).await?;
            }
            // Last: it is what says that all of it is there.
            let attributes = json!({ "name": name, "type": kind, "description": "", "enabled": true });
            self.ensure_record("services", id, attributes).await?;
        }
        Ok(())
    }

    async fn move_endpoint(&self, id: &str, url: &str) -> Result<(), IdentityError> {
        let name = record_name("endpoints", None, id);
        let moves = self.directory.read().records.get(&name).is_some_and(|endpoint| {
            let at = endpoint.spec.attributes.get("url").and_then(Value::as_str);
            is_own(endpoint.annotations().get(OWN_URL).map(String::as_str), at) && at != Some(url)
        });
        if !moves {
            return Ok(());
        }
        let moved = |endpoint: &mut KeystoneRecord| {
            endpoint.spec.attributes.insert("url".to_owned(), url.into());
            endpoint.annotations_mut().insert(OWN_URL.to_owned(), url.to_owned());
            Ok(())
        };
        self.objects.update(&name, moved).await.map(drop)
    }

    async fn ensure_record(
        &self,
        collection: &str,
        id: &str,
        attributes: Value,
    ) -> Result<(), IdentityError> {
        let Value::Object(attributes) = attributes else { return Ok(()) };
        let url = attributes.get("url").and_then(Value::as_str).map(str::to_owned);
        let spec = KeystoneRecordSpec {
            collection: collection.to_owned(),
            parent: None,
            id: id.to_owned(),
            attributes,
        };
        let mut record = KeystoneRecord::new(&record_name(collection, None, id), spec);
        if let Some(url) = url {
            record.annotations_mut().insert(OWN_URL.to_owned(), url);
        }
        match self.objects.create(&record).await {
            Ok(_) | Err(IdentityError::Conflict(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }
}
