//! Exceptions: a document that the operator owns. Each has an author, a reason and an end.

use gantry_base::pattern::matches;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Judgement, JudgementError, Status, purl_names};
use crate::Target;
use crate::advisories::Vulnerability;
use crate::compliance::Check;

const DOCUMENT_MAX_BYTES: usize = 16 << 20;
const EXCEPTIONS_MAX: usize = 10_000;
const REASON_MAX_BYTES: usize = 4096;

/// The document.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Exceptions {
    pub exceptions: Vec<Exception>,
}

/// One finding that is put up with for a time.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Exception {
    /// An identifier or an alias of a vulnerability; this or `check`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vulnerability: Option<String>,
    /// An identifier of a check.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub check: Option<String>,
    /// A package URL, whose version and qualifiers may be left out; none is every package.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub package: Option<String>,
    /// The target's name, where `*` stands for any text; none is every target.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    pub author: String,
    pub reason: String,
    pub expires: Timestamp,
}

impl Exceptions {
    /// Reads YAML or JSON.
    pub fn parse(text: &str) -> Result<Self, JudgementError> {
        let invalid = |message| JudgementError::Invalid { what: "the document of exceptions", message };
        if text.len() > DOCUMENT_MAX_BYTES {
            return Err(invalid(format!("it has more than {DOCUMENT_MAX_BYTES} bytes")));
        }
        let document: Self = serde_saphyr::from_str(text).map_err(|error| invalid(error.to_string()))?;
        if document.exceptions.len() > EXCEPTIONS_MAX {
            return Err(invalid(format!("it has more than {EXCEPTIONS_MAX} exceptions")));
        }
        for (n, exception) in document.exceptions.iter().enumerate() {
            exception
                .validate()
                .map_err(|(field, why)| invalid(format!("exceptions[{n}].{field}: {why}")))?;
        }
        Ok(document)
    }

    pub(super) fn of_vulnerability(
        &self,
        target: &Target,
        found: &Vulnerability,
        now: Timestamp,
    ) -> Option<Judgement> {
        self.latest(target, now, |exception| {
            let id = exception.vulnerability.as_ref();
            id.is_some_and(|id| *id == found.id || found.aliases.contains(id))
                && exception.package.as_ref().is_none_or(|purl| purl_names(purl, &found.purl))
        })
    }

    pub(super) fn of_check(&self, target: &Target, check: &Check, now: Timestamp) -> Option<Judgement> {
        self.latest(target, now, |exception| exception.check.as_deref() == Some(check.id.as_str()))
    }

    /// The one that holds longest.
    fn latest(
        &self,
        target: &Target,
        now: Timestamp,
        fits: impl Fn(&Exception) -> bool,
    ) -> Option<Judgement> {
        let valid = self.exceptions.iter().filter(|exception| exception.expires > now);
        let here = valid.filter(|e| e.target.as_ref().is_none_or(|pattern| matches(pattern, &target.name)));
        let exception = here.filter(|exception| fits(exception)).max_by_key(|exception| exception.expires)?;
        Some(Judgement {
            status: Status::Accepted,
            author: exception.author.clone(),
            reason: exception.reason.clone(),
            expires: Some(exception.expires),
        })
    }
}

impl Exception {
    fn validate(&self) -> Result<(), (&'static str, String)> {
        let empty = |text: &str| text.trim().is_empty();
        match (&self.vulnerability, &self.check) {
            (Some(_), Some(_)) => return Err(("check", "not together with vulnerability".to_owned())),
            (None, None) => return Err(("vulnerability", "this or check is required".to_owned())),
            (None, Some(_)) if self.package.is_some() => {
                return Err(("package", "not together with check".to_owned()));
            }
            (Some(id), _) if empty(id) => return Err(("vulnerability", "it is empty".to_owned())),
            (_, Some(id)) if empty(id) => return Err(("check", "it is empty".to_owned())),
            _ => {}
        }
        if empty(&self.author) {
            return Err(("author", "it is empty: say who answers for it".to_owned()));
        }
        if empty(&self.reason) || self.reason.len() > REASON_MAX_BYTES {
            return Err(("reason", format!("1 to {REASON_MAX_BYTES} bytes are wanted")));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named() {
        let parse = |entry: &str| {
            let text = format!("exceptions:\n- {{{entry}, expires: 2026-12-31T00:00:00Z}}\n");
            Exceptions::parse(&text).map_err(|error| error.to_string())
        };
        assert!(parse("vulnerability: CVE-1, author: a, reason: r").is_ok());
        for (entry, want) in [
            ("author: a, reason: r", "exceptions[0].vulnerability: this or check is required"),
            ("vulnerability: CVE-1, check: X, author: a, reason: r", "exceptions[0].check: not together"),
            ("vulnerability: CVE-1, author: '', reason: r", "exceptions[0].author: it is empty"),
            ("vulnerability: CVE-1, author: a, reason: ' '", "exceptions[0].reason: 1 to"),
            ("vulnerability: CVE-1, reason: r", "author"),
            ("vulnerability: CVE-1, author: a, reason: r, untl: x", "untl"),
        ] {
            let error = parse(entry).expect_err(entry);
            assert!(error.contains(want), "{error}");
        }
        assert!(
            Exceptions::parse("exceptions: [{vulnerability: C, author: a, reason: r}]").is_err(),
            "no end"
        );
    }
}
