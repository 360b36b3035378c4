//! The two cookies: the session's, which is a token, and that of a sign-in under way at a provider.

use gantry_kube_types::SESSION_COOKIE;
use http::header::HeaderValue;
use http::{HeaderMap, StatusCode};
use jiff::Timestamp;

use super::CALLBACK;
use crate::keystone::ApiError;

/// Binds a sign-in at a provider to the browser that began it. Sent to one path alone, so its prefix cannot be
/// `__Host-`.
pub(super) const SIGN_IN_COOKIE: &str = "__Secure-gantry-sign-in";
/// What browsers keep of a name and its value (RFC 6265bis, section 5.6).
const COOKIE_BYTES_MAX: usize = 4096;

/// The token, until its end.
///
/// `Lax`: a `Strict` cookie is left out of the page that a provider leads back to, and of every page that is opened by
/// a link. What `Strict` would refuse beyond that, the front door does.
pub(super) fn session(token: &str, ends: Timestamp, now: Timestamp) -> Result<HeaderValue, ApiError> {
    let seconds = ends.as_second().saturating_sub(now.as_second()).max(0);
    made(SESSION_COOKIE, token, &format!("Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age={seconds}"))
}

/// Makes the browser forget the session.
pub(super) fn ended() -> HeaderValue {
    HeaderValue::from_static("__Host-gantry-session=; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age=0")
}

/// What [`read_sign_in`] reads again. `Lax`: it is a provider that leads back.
pub(super) fn sign_in(provider: &str, sealed: &str, seconds: u64) -> Result<HeaderValue, ApiError> {
    let attributes = format!("Path={CALLBACK}; Secure; HttpOnly; SameSite=Lax; Max-Age={seconds}");
    made(SIGN_IN_COOKIE, &format!("{provider}.{sealed}"), &attributes)
}

/// Makes the browser forget the sign-in.
pub(super) fn sign_in_ended() -> HeaderValue {
    HeaderValue::from_static(
        "__Secure-gantry-sign-in=; Path=/identity/session/callback; Secure; HttpOnly; SameSite=Lax; Max-Age=0",
    )
}

/// Id of the provider, and what it sealed.
pub(super) fn read_sign_in(headers: &HeaderMap) -> Option<(&str, &str)> {
    match gantry_kube_types::Cookie::of(headers, SIGN_IN_COOKIE) {
        // What is sealed has no dot, ids may.
        gantry_kube_types::Cookie::One(value) => value.rsplit_once('.'),
        _ => None,
    }
}

fn made(name: &str, value: &str, attributes: &str) -> Result<HeaderValue, ApiError> {
    let too_long = || {
        let why = format!("The session does not fit into a cookie: browsers keep {COOKIE_BYTES_MAX} bytes.");
        ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, why)
    };
    if name.len() + value.len() > COOKIE_BYTES_MAX {
        return Err(too_long());
    }
    let mut line = HeaderValue::from_str(&format!("{name}={value}; {attributes}")).map_err(|_| too_long())?;
    line.set_sensitive(true);
    Ok(line)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keystone::tests::Platform;
    use crate::tenancy::tests::organisations;
    use crate::token::{Federation, NewToken, TokenScope};

    #[test]
    fn cookies_say_who_gets_them_and_until_when() {
        let at = |second| Timestamp::from_second(second).expect("a time");
        let text = |value: HeaderValue| value.to_str().expect("text").to_owned();
        assert_eq!(
            text(session("x.y.z", at(100), at(40)).expect("short")),
            "__Host-gantry-session=x.y.z; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age=60"
        );
        assert!(text(session("x", at(40), at(100)).expect("short")).ends_with("Max-Age=0"));
        let begun = text(sign_in("acme.corporate", "sealed", 600).expect("short"));
        assert_eq!(
            begun,
            "__Secure-gantry-sign-in=acme.corporate.sealed; Path=/identity/session/callback; Secure; HttpOnly; \
             SameSite=Lax; Max-Age=600"
        );
        let sent = begun.split(';').next().expect("a pair").parse().expect("a value");
        let sent = HeaderMap::from_iter([(http::header::COOKIE, sent)]);
        assert_eq!(read_sign_in(&sent), Some(("acme.corporate", "sealed")));
        assert!(ended().to_str().is_ok_and(|line| line.starts_with(&format!("{SESSION_COOKIE}=;"))));
        let ended = sign_in_ended();
        assert!(ended.to_str().is_ok_and(|line| line.contains(CALLBACK) && line.starts_with(SIGN_IN_COOKIE)));
    }

    #[test]
    fn what_is_longer_than_a_cookie_is_refused() {
        let at = Timestamp::UNIX_EPOCH;
        let longest = COOKIE_BYTES_MAX - SESSION_COOKIE.len();
        assert!(session(&"x".repeat(longest), at, at).is_ok());
        assert!(session(&"x".repeat(longest + 1), at, at).is_err());
    }

    /// The longest ids that objects can have, and every method.
    #[tokio::test]
    async fn the_longest_token_of_a_session_fits() {
        let platform = Platform::of(organisations(&["admin alice system"]));
        let id = "i".repeat(253);
        let token = platform.made(NewToken {
            user: id.clone(),
            user_domain: id.clone(),
            methods: ["password", "totp", "token", "openid", "keystone"].map(str::to_owned).to_vec(),
            scope: TokenScope::Project { id: id.clone(), domain: id.clone() },
            chain: Some("AAAAAAAAAAAAAAAAAAAAAA".to_owned()),
            federation: Some(Federation { provider: id, protocol: "openid".to_owned(), groups: Vec::new() }),
            ..platform.new_token("alice")
        });
        assert!(token.len() < 3000, "{} bytes", token.len());
        assert!(session(&token, Timestamp::UNIX_EPOCH, Timestamp::UNIX_EPOCH).is_ok());
    }
}
