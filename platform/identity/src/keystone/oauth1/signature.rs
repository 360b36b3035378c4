//! Signatures of OAuth 1.0 requests (RFC 5849, section 3) by HMAC-SHA1.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::hmac;

use crate::keystone::query::encode;

/// The `oauth_…` parameters of a request, decoded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Parameters(Vec<(String, String)>);

impl Parameters {
    /// Out of `Authorization: OAuth key="value", …`; `None`: the header is of another scheme, or broken.
    pub(crate) fn of_header(header: &str) -> Option<Self> {
        let (scheme, rest) = header.split_once(' ')?;
        if !scheme.eq_ignore_ascii_case("oauth") {
            return None;
        }
        let pair = |part: &str| {
            let (key, value) = part.trim().split_once('=')?;
            let value = value.strip_prefix('"')?.strip_suffix('"')?;
            Some((decode(key)?, decode(value)?))
        };
        rest.split(',').map(pair).collect::<Option<Vec<_>>>().map(Self)
    }

    /// `None` also where it is given twice.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        let mut found = self.0.iter().filter(|(key, _)| key == name);
        match (found.next(), found.next()) {
            (Some((_, value)), None) => Some(value),
            _ => None,
        }
    }

    /// Was the request signed with the two secrets? `query` are further parameters of the URL.
    pub(crate) fn verify(
        &self,
        method: &str,
        url: &str,
        query: &[(String, String)],
        consumer_secret: &str,
        token_secret: &str,
    ) -> bool {
        if self.get("oauth_signature_method") != Some("HMAC-SHA1") {
            return false;
        }
        let Some(shown) = self.get("oauth_signature").and_then(|text| STANDARD.decode(text).ok()) else {
            return false;
        };
        let key = format!("{}&{}", encode(consumer_secret), encode(token_secret));
        let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, key.as_bytes());
        hmac::verify(&key, self.base(method, url, query).as_bytes(), &shown).is_ok()
    }

    /// The signature base string (section 3.4.1).
    fn base(&self, method: &str, url: &str, query: &[(String, String)]) -> String {
        let signed = self.0.iter().filter(|(key, _)| key != "oauth_signature" && key != "realm");
        let mut pairs: Vec<(String, String)> =
            signed.chain(query).map(|(key, value)| (encode(key), encode(value))).collect();
        pairs.sort();
        let pairs: Vec<String> = pairs.into_iter().map(|(key, value)| format!("{key}={value}")).collect();
        format!("{method}&{}&{}", encode(url), encode(&pairs.join("&")))
    }
}

fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        if *first == b'%' {
            let (digits, after) = after.split_at_checked(2)?;
            bytes.push(u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?);
            rest = after;
        } else {
            bytes.push(*first);
            rest = after;
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The request of RFC 5849, section 1.2, whose printed signature is not that of its own parameters as implementations agree;
    /// this one is.
    const HEADER: &str = r#"OAuth realm="Photos", oauth_consumer_key="dpf43f3p2l4k3l03", oauth_signature_method="HMAC-SHA1", oauth_timestamp="137131200", oauth_nonce="wIjqoxSM", oauth_callback="http%3A%2F%2Fprinter.example.com%2Fready", oauth_signature="RPY19r6hFRWrxjJL%2FH7oZ2%2B1iT8%3D""#;

    #[test]
    fn a_signature_is_of_this_request_and_these_secrets() {
        let parameters = Parameters::of_header(HEADER).expect("a header");
        assert_eq!(parameters.get("oauth_consumer_key"), Some("dpf43f3p2l4k3l03"));
        let url = "https://photos.example.net/initiate";
        let verify =
            |url: &str, secret: &str, token: &str| parameters.verify("POST", url, &[], secret, token);
        assert!(verify(url, "kd94hf93k423kf44", ""));
        assert!(!verify(url, "kd94hf93k423kf45", ""));
        assert!(!verify(url, "kd94hf93k423kf44", "x"));
        assert!(!verify("https://photos.example.net/other", "kd94hf93k423kf44", ""));
        assert!(!parameters.verify("GET", url, &[], "kd94hf93k423kf44", ""));
        let more = [("x".to_owned(), "1".to_owned())];
        assert!(!parameters.verify("POST", url, &more, "kd94hf93k423kf44", ""));
    }

    #[test]
    fn broken_headers_are_no_parameters() {
        for text in ["", "Basic eDp5", "OAuth", "OAuth a", "OAuth a=b", "OAuth a=\"%zz\"", "OAuth a=\"%4\""] {
            assert_eq!(Parameters::of_header(text), None, "{text}");
        }
        let twice = Parameters::of_header(r#"OAuth a="1", a="2""#).expect("a header");
        assert_eq!(twice.get("a"), None);
    }
}
