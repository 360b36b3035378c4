//! What the service catalogue begins with: the platform's own services, where clients reach them.

use gantry_identity_api::{KeystoneRecord, KeystoneRecordSpec};
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

impl Core {
    /// Makes region, service and endpoints where the catalogue has no service of the type yet. What an administrator
    /// made or changed stays.
    pub(crate) async fn ensure_catalogue(&self) -> Result<(), IdentityError> {
        for (id, kind, name, path, interfaces) in SERVICES {
            let there = {
                let state = self.directory.read();
                state.records.iter().any(|r| {
                    r.spec.collection == "services" && r.spec.attributes.get("type") == Some(&json!(kind))
                })
            };
            if there {
                continue;
            }
            let url = format!("{}{path}", self.config.external_url);
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

    async fn ensure_record(
        &self,
        collection: &str,
        id: &str,
        attributes: Value,
    ) -> Result<(), IdentityError> {
        let Value::Object(attributes) = attributes else { return Ok(()) };
        let spec = KeystoneRecordSpec {
            collection: collection.to_owned(),
            parent: None,
            id: id.to_owned(),
            attributes,
        };
        match self.objects.create(&KeystoneRecord::new(&record_name(collection, None, id), spec)).await {
            Ok(_) | Err(IdentityError::Conflict(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }
}
