//! Content negotiation: which body came, which answer is wanted.

use gantry_kube_types::StatusError;
use http::{HeaderMap, header};

/// The form of the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    Object,
    Table,
    /// `PartialObjectMetadata` or its list.
    Metadata,
}

/// The wanted answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Output {
    pub form: Form,
    pub yaml: bool,
    pub pretty: bool,
    pub gzip: bool,
}

/// The media type of a header's value without parameters, lower case.
pub fn media_type(value: &str) -> String {
    value.split(';').next().unwrap_or("").trim().to_ascii_lowercase()
}

impl Output {
    /// 406 where no accepted type can be served. Protobuf alone is refused: clients fall back to JSON.
    pub fn of(headers: &HeaderMap, pretty: bool) -> Result<Self, StatusError> {
        let accept: Vec<&str> = headers
            .get_all(header::ACCEPT)
            .iter()
            .filter_map(|v| v.to_str().ok())
            .flat_map(|v| v.split(','))
            .map(str::trim)
            .filter(|v| !v.is_empty())
            .collect();
        let gzip = headers
            .get(header::ACCEPT_ENCODING)
            .and_then(|v| v.to_str().ok())
            .is_some_and(|v| v.split(',').any(|e| e.split(';').next().is_some_and(|e| e.trim() == "gzip")));
        let browser = headers
            .get(header::USER_AGENT)
            .and_then(|v| v.to_str().ok())
            .is_some_and(|v| v.starts_with("curl") || v.starts_with("Wget") || v.starts_with("Mozilla/5.0"));
        let base = Self { form: Form::Object, yaml: false, pretty: pretty || browser, gzip };
        if accept.is_empty() {
            return Ok(base);
        }
        accept.iter().find_map(|clause| base.with(clause)).ok_or_else(|| {
            StatusError::not_acceptable(
                "only the following media types are accepted: application/json, application/yaml, \
                 application/json;stream=watch",
            )
        })
    }

    fn with(self, clause: &str) -> Option<Self> {
        let yaml = match media_type(clause).as_str() {
            "application/json" | "*/*" | "application/*" => false,
            "application/yaml" => true,
            _ => return None,
        };
        let parameter = |name: &str| {
            clause.split(';').skip(1).find_map(|p| {
                p.trim().split_once('=').filter(|(k, _)| *k == name).map(|(_, v)| v.trim_matches('"'))
            })
        };
        let form = match parameter("as") {
            None => Form::Object,
            Some("Table") => Form::Table,
            Some("PartialObjectMetadata" | "PartialObjectMetadataList") => Form::Metadata,
            Some(_) => return None,
        };
        if form != Form::Object && (parameter("g") != Some("meta.k8s.io") || parameter("v") != Some("v1")) {
            return None;
        }
        Some(Self { form, yaml, ..self })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_type_we_serve_wins() {
        for (accept, want) in [
            ("", Some((Form::Object, false))),
            ("application/json", Some((Form::Object, false))),
            (
                "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json",
                Some((Form::Table, false)),
            ),
            ("application/vnd.kubernetes.protobuf, application/json", Some((Form::Object, false))),
            ("application/vnd.kubernetes.protobuf", None),
            ("application/json;as=Table;v=v1alpha1;g=meta.k8s.io", None),
            (
                "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1",
                Some((Form::Metadata, false)),
            ),
            ("application/yaml", Some((Form::Object, true))),
        ] {
            let mut headers = HeaderMap::new();
            if !accept.is_empty() {
                headers.insert(header::ACCEPT, accept.parse().expect("a header value"));
            }
            let got = Output::of(&headers, false).ok().map(|o| (o.form, o.yaml));
            assert_eq!(got, want, "{accept}");
        }
    }
}
