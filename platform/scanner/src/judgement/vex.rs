//! OpenVEX documents (openvex.dev/ns, v0.0.1 to v0.2.0): whether a product is affected, said by who makes it.

use jiff::Timestamp;
use serde::Deserialize;

use super::{Judgement, JudgementError, Status, purl_names};
use crate::Target;
use crate::advisories::Vulnerability;

const DOCUMENT_MAX_BYTES: usize = 64 << 20;

/// One document.
#[derive(Clone, Debug, Deserialize)]
pub struct Vex {
    #[serde(rename = "@context")]
    context: String,
    #[serde(default)]
    author: String,
    #[serde(default)]
    timestamp: Option<Timestamp>,
    #[serde(default)]
    statements: Vec<Statement>,
}

#[derive(Clone, Debug, Deserialize)]
struct Statement {
    vulnerability: Named,
    #[serde(default)]
    products: Vec<Product>,
    status: Status,
    #[serde(default)]
    timestamp: Option<Timestamp>,
    #[serde(default)]
    justification: Option<String>,
    #[serde(default)]
    impact_statement: Option<String>,
    #[serde(default)]
    action_statement: Option<String>,
}

/// A text up to v0.0.1, an object with a name since.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
enum Named {
    Text(String),
    Object {
        #[serde(default)]
        name: String,
        #[serde(default)]
        aliases: Vec<String>,
    },
}

#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
enum Product {
    Text(String),
    Object {
        #[serde(rename = "@id", default)]
        id: String,
        #[serde(default)]
        identifiers: Identifiers,
        #[serde(default)]
        subcomponents: Vec<Product>,
    },
}

#[derive(Clone, Debug, Default, Deserialize)]
struct Identifiers {
    #[serde(default)]
    purl: String,
}

impl Vex {
    pub fn parse(bytes: &[u8]) -> Result<Self, JudgementError> {
        let invalid = |message| JudgementError::Invalid { what: "the OpenVEX document", message };
        if bytes.len() > DOCUMENT_MAX_BYTES {
            return Err(invalid(format!("it has more than {DOCUMENT_MAX_BYTES} bytes")));
        }
        let document: Self = serde_json::from_slice(bytes).map_err(|error| invalid(error.to_string()))?;
        if !document.context.starts_with("https://openvex.dev/ns") {
            return Err(invalid(format!(
                "its @context is {:.100}, not one of openvex.dev/ns",
                document.context
            )));
        }
        if document.author.is_empty() {
            return Err(invalid("it names no author".to_owned()));
        }
        Ok(document)
    }
}

/// What the latest statement of all documents says.
pub(super) fn latest(all: &[Vex], target: &Target, vulnerability: &Vulnerability) -> Option<Judgement> {
    let statements = all.iter().flat_map(|vex| vex.statements.iter().map(move |statement| (vex, statement)));
    let fitting = statements.filter(|(_, statement)| statement.is_of(target, vulnerability));
    let (vex, statement) = fitting.max_by_key(|(vex, statement)| statement.timestamp.or(vex.timestamp))?;
    let said = [&statement.justification, &statement.impact_statement, &statement.action_statement];
    let said: Vec<&str> = said.into_iter().flatten().map(String::as_str).collect();
    Some(Judgement {
        status: statement.status,
        author: vex.author.clone(),
        reason: said.join(": "),
        expires: None,
    })
}

impl Statement {
    fn is_of(&self, target: &Target, vulnerability: &Vulnerability) -> bool {
        let is_name = |name: &String| *name == vulnerability.id || vulnerability.aliases.contains(name);
        let is_named = match &self.vulnerability {
            Named::Text(name) => is_name(name),
            Named::Object { name, aliases } => is_name(name) || aliases.iter().any(is_name),
        };
        is_named && self.products.iter().any(|product| product.is_of(target, vulnerability))
    }
}

impl Product {
    fn is_of(&self, target: &Target, vulnerability: &Vulnerability) -> bool {
        let (ids, subcomponents) = match self {
            Self::Text(id) => (vec![id.as_str()], &[][..]),
            Self::Object { id, identifiers, subcomponents } => {
                (vec![id.as_str(), identifiers.purl.as_str()], &subcomponents[..])
            }
        };
        if ids.iter().any(|id| purl_names(id, &vulnerability.purl)) {
            return true;
        }
        // The image as the product: of all its packages, or of those that are named.
        ids.iter().any(|id| is_image(id, target))
            && (subcomponents.is_empty()
                || subcomponents.iter().any(|part| part.is_of(target, vulnerability)))
    }
}

/// `pkg:oci/NAME@sha256:…`, or the digest or the name itself.
fn is_image(id: &str, target: &Target) -> bool {
    let digest = target.digest.as_ref().map(ToString::to_string);
    let by_digest = digest.is_some_and(|digest| {
        id == digest
            || id.strip_prefix("pkg:oci/").is_some_and(|rest| {
                let version = rest.split(['?', '#']).next().unwrap_or(rest).rsplit_once('@').map(|(_, v)| v);
                version.is_some_and(|version| version.replace("%3A", ":").replace("%3a", ":") == digest)
            })
    });
    by_digest || (!id.is_empty() && id == target.name)
}
