//! What the service catalogue begins with: this identity service, where clients reach it.

use gantry_identity_api::{KeystoneRecord, KeystoneRecordSpec};
use serde_json::{Value, json};

use crate::core::Core;
use crate::errors::IdentityError;
use crate::keystone::record_name;

/// Keystone's own default.
const REGION: &str = "RegionOne";
const SERVICE: &str = "gantry-identity";

impl Core {
    /// Makes region, service and endpoints where the catalogue has no identity service yet. What an administrator
    /// made or changed stays.
    pub(crate) async fn ensure_catalogue(&self) -> Result<(), IdentityError> {
        let there = {
            let state = self.directory.read();
            state.records.iter().any(|r| {
                r.spec.collection == "services" && r.spec.attributes.get("type") == Some(&json!("identity"))
            })
        };
        if there {
            return Ok(());
        }
        let url = format!("{}/identity/v3", self.config.external_url);
        self.ensure_record("regions", REGION, json!({ "description": "", "parent_region_id": null })).await?;
        for interface in ["public", "internal", "admin"] {
            let attributes = json!({
                "service_id": SERVICE, "interface": interface, "region": REGION, "region_id": REGION,
                "url": url, "enabled": true,
            });
            self.ensure_record("endpoints", &format!("{SERVICE}-{interface}"), attributes).await?;
        }
        // Last: it is what says that all of it is there.
        let attributes =
            json!({ "name": "keystone", "type": "identity", "description": "", "enabled": true });
        self.ensure_record("services", SERVICE, attributes).await
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
