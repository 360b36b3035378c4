//! Certificate signing requests: they carry who made them, and only those approve and sign who may for
//! that signer (upstream's CertificateApproval, CertificateSigning and CertificateSubjectRestriction).

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use gantry_kube_types::{Attributes, Authorizer, StatusError, groups};
use serde_json::{Value, json};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer;

use crate::admission::{AdmissionPlugin, AdmissionRequest, Operation};

const GROUP: &str = "certificates.k8s.io";
const CLIENT_SIGNER: &str = "kubernetes.io/kube-apiserver-client";

/// Guards `certificatesigningrequests`.
pub struct Signers {
    authorizer: Arc<dyn Authorizer>,
}

impl Signers {
    pub fn new(authorizer: Arc<dyn Authorizer>) -> Self {
        Self { authorizer }
    }

    /// May the caller `verb` for this signer, by its name or by `DOMAIN/*`?
    fn may(&self, request: &AdmissionRequest<'_>, verb: &str, signer: &str) -> bool {
        let domain = signer.split_once('/').map_or(signer, |(domain, _)| domain);
        [signer.to_owned(), format!("{domain}/*")].into_iter().any(|name| {
            let asked = Attributes {
                user: request.user.clone(),
                verb: verb.to_owned(),
                is_resource_request: true,
                group: GROUP.to_owned(),
                version: "*".to_owned(),
                resource: "signers".to_owned(),
                name,
                ..Attributes::default()
            };
            self.authorizer.authorize(&asked).is_allowed()
        })
    }

    fn confirm(&self, request: &AdmissionRequest<'_>, verb: &str, signer: &str) -> Result<(), StatusError> {
        if self.may(request, verb, signer) {
            return Ok(());
        }
        Err(request.forbidden(format!("user not permitted to {verb} requests with signerName {signer:?}")))
    }
}

fn concerns(request: &AdmissionRequest<'_>) -> bool {
    request.kind.info.group == GROUP && request.kind.info.resource == "certificatesigningrequests"
}

fn signer(object: &Value) -> &str {
    object["spec"]["signerName"].as_str().unwrap_or_default()
}

#[async_trait::async_trait]
impl AdmissionPlugin for Signers {
    fn name(&self) -> &'static str {
        "CertificateSigners"
    }

    /// Who asks is written by the server; what was asked for stays as it was.
    async fn admit(&self, request: &mut AdmissionRequest<'_>) -> Result<(), StatusError> {
        if !concerns(request) {
            return Ok(());
        }
        match (request.operation, request.old_object) {
            (Operation::Create, _) => {
                let user = request.user;
                let spec = &mut request.object["spec"];
                spec["username"] = json!(user.username);
                spec["groups"] = json!(user.groups);
                for (field, value) in [("uid", json!(user.uid)), ("extra", json!(user.extra))] {
                    let empty = value.as_str().is_some_and(str::is_empty)
                        || value.as_object().is_some_and(serde_json::Map::is_empty);
                    match spec.as_object_mut() {
                        Some(spec) if empty => drop(spec.shift_remove(field)),
                        _ => spec[field] = value,
                    }
                }
            }
            (Operation::Update, Some(old)) => request.object["spec"] = old["spec"].clone(),
            _ => {}
        }
        Ok(())
    }

    async fn validate(&self, request: &AdmissionRequest<'_>) -> Result<(), StatusError> {
        if !concerns(request) {
            return Ok(());
        }
        match (request.operation, request.subresource, request.old_object) {
            (Operation::Create, "", _) if signer(request.object) == CLIENT_SIGNER => {
                if organisations(request.object).iter().any(|group| group == groups::MASTERS) {
                    let masters = groups::MASTERS;
                    return Err(request.forbidden(format!(
                        "use of {CLIENT_SIGNER} signer with {masters} group is not allowed"
                    )));
                }
                Ok(())
            }
            (Operation::Update, "approval", Some(old)) => self.confirm(request, "approve", signer(old)),
            (Operation::Update, "status", Some(old))
                if old["status"]["certificate"] != request.object["status"]["certificate"] =>
            {
                self.confirm(request, "sign", signer(old))
            }
            _ => Ok(()),
        }
    }
}

/// The organisations of the request's subject; what cannot be read names none (no signer reads it either).
fn organisations(object: &Value) -> Vec<String> {
    let pem = object["spec"]["request"].as_str().and_then(|text| STANDARD.decode(text).ok());
    let Some((_, pem)) =
        pem.and_then(|pem| x509_parser::pem::parse_x509_pem(&pem).ok().map(|(_, pem)| ((), pem)))
    else {
        return Vec::new();
    };
    let Ok((_, request)) = X509CertificationRequest::from_der(&pem.contents) else { return Vec::new() };
    let subject = &request.certification_request_info.subject;
    subject.iter_organization().filter_map(|name| name.as_str().ok().map(str::to_owned)).collect()
}
