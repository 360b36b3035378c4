//! What an operator says of a bucket.

use std::path::PathBuf;

use reqwest::Url;

/// `[registry.s3]`; fields that the distribution project's registry has, too, have its names.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct S3Settings {
    pub bucket: String,
    #[serde(default = "default_region")]
    pub region: String,
    /// `https://HOST[:PORT]` of a server that is not Amazon's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub regionendpoint: Option<String>,
    /// What stands before all names in the bucket; no other registry may have the same.
    #[serde(default)]
    pub rootdirectory: String,
    /// The bucket is in the path of URLs, and not in the host's name.
    #[serde(default = "yes")]
    pub forcepathstyle: bool,
    /// A file (0600) with `aws_access_key_id` and `aws_secret_access_key`, as the AWS tools have it; absent: the
    /// environment's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credentials: Option<PathBuf>,
    /// Who signed the server's certificate (PEM); absent: those whom the system trusts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub authorities: Option<PathBuf>,
    /// Without TLS also to other machines than this.
    #[serde(default)]
    pub allow_http: bool,
    /// Clients that pull a blob are sent to the bucket for it.
    #[serde(default)]
    pub redirect: bool,
}

fn default_region() -> String {
    "us-east-1".to_owned()
}

fn yes() -> bool {
    true
}

impl S3Settings {
    pub fn new(bucket: impl Into<String>) -> Self {
        Self {
            bucket: bucket.into(),
            region: default_region(),
            regionendpoint: None,
            rootdirectory: String::new(),
            forcepathstyle: true,
            credentials: None,
            authorities: None,
            allow_http: false,
            redirect: false,
        }
    }

    /// The address of the server, with the bucket where URLs have it in the host; `None`: Amazon's.
    pub(super) fn endpoint(&self) -> Result<Option<String>, String> {
        let Some(text) = &self.regionendpoint else { return Ok(None) };
        let wrong = || format!("regionendpoint is {text:?}; https://HOST[:PORT] is expected");
        let mut url: Url = text.parse().map_err(|_| wrong())?;
        let host = url.host_str().filter(|_| url.path() == "/" && url.query().is_none()).ok_or_else(wrong)?;
        match url.scheme() {
            "https" => {}
            "http" if self.allow_http || is_loopback(host) => {}
            "http" => {
                let why = "sends what is in the registry over the network as it is";
                return Err(format!("{text} {why}: use https, or set allow_http"));
            }
            _ => return Err(wrong()),
        }
        if !self.forcepathstyle {
            let host = format!("{}.{host}", self.bucket);
            url.set_host(Some(&host)).map_err(|_| wrong())?;
        }
        Ok(Some(url.as_str().trim_end_matches('/').to_owned()))
    }

    /// `PREFIX/`, or nothing.
    pub(super) fn prefix(&self) -> String {
        match self.rootdirectory.trim_matches('/') {
            "" => String::new(),
            prefix => format!("{prefix}/"),
        }
    }
}

/// `the bucket images at https://s3.example.org`
impl std::fmt::Display for S3Settings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the bucket {}", self.bucket)?;
        match &self.regionendpoint {
            Some(endpoint) => write!(f, " at {endpoint}"),
            None => write!(f, " of Amazon's region {}", self.region),
        }
    }
}

fn is_loopback(host: &str) -> bool {
    let host = host.trim_matches(['[', ']']);
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints() {
        let with = |endpoint: &str, path_style: bool, allow_http: bool| {
            let regionendpoint = Some(endpoint.to_owned());
            let forcepathstyle = path_style;
            S3Settings { regionendpoint, forcepathstyle, allow_http, ..S3Settings::new("images") }.endpoint()
        };
        for (endpoint, path_style, want) in [
            ("https://s3.example.org", true, "https://s3.example.org"),
            ("https://s3.example.org:9000/", true, "https://s3.example.org:9000"),
            ("https://s3.example.org", false, "https://images.s3.example.org"),
            ("http://127.0.0.1:9000", true, "http://127.0.0.1:9000"),
            ("http://[::1]:9000", true, "http://[::1]:9000"),
        ] {
            assert_eq!(with(endpoint, path_style, false), Ok(Some(want.to_owned())), "{endpoint}");
        }
        for bad in ["s3.example.org", "ftp://s3", "https://s3/images", "https://s3/?a", "http://10.0.0.1"] {
            assert!(with(bad, true, false).is_err(), "{bad}");
        }
        assert!(with("http://10.0.0.1", true, true).is_ok());
        assert_eq!(S3Settings::new("images").endpoint(), Ok(None));
    }

    #[test]
    fn prefixes() {
        for (set, want) in [("", ""), ("/", ""), ("a", "a/"), ("/a/b/", "a/b/")] {
            let settings = S3Settings { rootdirectory: set.to_owned(), ..S3Settings::new("images") };
            assert_eq!(settings.prefix(), want);
        }
    }
}
