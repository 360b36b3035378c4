//! Browsers: the cookie that holds a session, and whether a page of ours sent the request that brings it.
//!
//! A browser adds its cookies to every request, whoever made the page that asks. So a cookie says who sits there, and
//! nothing of whose idea the request was; that is told by headers which no page can write (Fetch Metadata, `Origin`).

use http::header::{COOKIE, HOST, HeaderName, ORIGIN, UPGRADE};
use http::{HeaderMap, HeaderValue, Method, Uri};

/// The cookie that holds the token of a session. By the prefix browsers let it come from its own host alone (RFC 6265bis,
/// section 4.1.3.2).
pub const SESSION_COOKIE: &str = "__Host-gantry-session";

const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");
const FETCH_DEST: HeaderName = HeaderName::from_static("sec-fetch-dest");

/// What a request brings under one name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cookie<'a> {
    Absent,
    One(&'a str),
    /// More than one, or no text: no browser sends that, and which of them counts is not for us to guess.
    Unclear,
}

impl<'a> Cookie<'a> {
    /// The cookie of this name, in whatever number of `Cookie` headers.
    pub fn of(headers: &'a HeaderMap, name: &str) -> Self {
        let mut found = Self::Absent;
        for line in headers.get_all(COOKIE) {
            for value in pairs(line).filter_map(|pair| value_of(pair, name)) {
                found = match (found, std::str::from_utf8(value)) {
                    (Self::Absent, Ok(text)) => Self::One(text),
                    _ => return Self::Unclear,
                };
            }
        }
        found
    }
}

fn pairs(line: &HeaderValue) -> impl Iterator<Item = &[u8]> {
    line.as_bytes().split(|byte| *byte == b';').map(<[u8]>::trim_ascii)
}

fn value_of<'a>(pair: &'a [u8], name: &str) -> Option<&'a [u8]> {
    pair.strip_prefix(name.as_bytes())?.strip_prefix(b"=")
}

/// Takes every cookie of this name out; the others stay.
pub fn remove_cookie(headers: &mut HeaderMap, name: &str) {
    if Cookie::of(headers, name) == Cookie::Absent {
        return;
    }
    let others = |line: &HeaderValue| {
        let kept: Vec<&[u8]> = pairs(line).filter(|pair| value_of(pair, name).is_none()).collect();
        let kept = kept.join(&b"; "[..]);
        HeaderValue::from_bytes(&kept).ok().filter(|line| !line.is_empty())
    };
    let kept: Vec<HeaderValue> = headers.get_all(COOKIE).iter().filter_map(others).collect();
    headers.remove(COOKIE);
    for line in kept {
        headers.append(COOKIE, line);
    }
}

/// Did a page of ours send the request, or the person at the browser? Only then its cookies count.
///
/// What changes something, and every upgrade (exec over a WebSocket), has to say that it does. What only reads need not;
/// it counts also as a page that is opened by a link or a redirect from elsewhere, whose maker sees nothing of the answer.
pub fn is_own_page(method: &Method, uri: &Uri, headers: &HeaderMap) -> bool {
    let reads = method.is_safe() && !headers.contains_key(UPGRADE);
    match Sent::of(headers, &FETCH_SITE) {
        Sent::One(b"same-origin") => true,
        // An address that was typed, or a bookmark.
        Sent::One(b"none") => reads || has_own_origin(uri, headers),
        Sent::One(_) => reads && opens_page(headers),
        Sent::Unclear => false,
        // An old browser, or none.
        Sent::Absent if reads => !headers.contains_key(ORIGIN) || has_own_origin(uri, headers),
        Sent::Absent => has_own_origin(uri, headers),
    }
}

/// Did a page of somebody else send the request? Programs say nothing of it, and are no pages.
pub fn is_foreign_page(method: &Method, uri: &Uri, headers: &HeaderMap) -> bool {
    let says = headers.contains_key(ORIGIN) || headers.contains_key(FETCH_SITE);
    says && !is_own_page(method, uri, headers)
}

/// In the address line, and in no frame.
fn opens_page(headers: &HeaderMap) -> bool {
    Sent::of(headers, &FETCH_MODE) == Sent::One(b"navigate")
        && Sent::of(headers, &FETCH_DEST) == Sent::One(b"document")
}

/// `Origin` is the scheme and host that the request was sent to. The front door speaks TLS alone.
fn has_own_origin(uri: &Uri, headers: &HeaderMap) -> bool {
    let Sent::One(origin) = Sent::of(headers, &ORIGIN) else { return false };
    let host = match (uri.authority(), Sent::of(headers, &HOST)) {
        // HTTP/2 has it there.
        (Some(authority), _) => authority.as_str().as_bytes(),
        (None, Sent::One(host)) => host,
        (None, _) => return false,
    };
    let plain = |host: &[u8]| host.strip_suffix(b":443").unwrap_or(host).to_ascii_lowercase();
    origin.strip_prefix(b"https://").is_some_and(|origin| !host.is_empty() && plain(origin) == plain(host))
}

/// A header that is to stand once.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sent<'a> {
    Absent,
    One(&'a [u8]),
    Unclear,
}

impl<'a> Sent<'a> {
    fn of(headers: &'a HeaderMap, name: &HeaderName) -> Self {
        let mut all = headers.get_all(name).iter();
        match (all.next(), all.next()) {
            (None, _) => Self::Absent,
            (Some(one), None) => Self::One(one.as_bytes()),
            (Some(_), Some(_)) => Self::Unclear,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[&str]) -> HeaderMap {
        let mut all = HeaderMap::new();
        for line in lines {
            let (name, value) = line.split_once(": ").expect("NAME: VALUE");
            let name: HeaderName = name.parse().expect("a name");
            all.append(name, HeaderValue::from_bytes(value.as_bytes()).expect("a value"));
        }
        all
    }

    #[test]
    fn a_cookie_is_found_by_its_exact_name_and_once() {
        let name = SESSION_COOKIE;
        for (lines, want) in [
            (vec![], Cookie::Absent),
            (vec!["cookie: a=b"], Cookie::Absent),
            (vec!["cookie: __Host-gantry-session=t"], Cookie::One("t")),
            (vec!["cookie: a=b; __Host-gantry-session=t; c=d"], Cookie::One("t")),
            (vec!["cookie: a=b;__Host-gantry-session=t;"], Cookie::One("t")),
            // HTTP/2 splits them.
            (vec!["cookie: a=b", "cookie: __Host-gantry-session=t"], Cookie::One("t")),
            (vec!["cookie: __Host-gantry-session=a=b"], Cookie::One("a=b")),
            (vec!["cookie: __Host-gantry-session="], Cookie::One("")),
            (vec!["cookie: __host-gantry-session=t"], Cookie::Absent),
            (vec!["cookie: __Host-gantry-session2=t"], Cookie::Absent),
            (vec!["cookie: x__Host-gantry-session=t"], Cookie::Absent),
            (vec!["cookie: a=__Host-gantry-session=t"], Cookie::Absent),
            (vec!["cookie: __Host-gantry-session"], Cookie::Absent),
            (vec!["cookie: __Host-gantry-session=t; __Host-gantry-session=t"], Cookie::Unclear),
            (vec!["cookie: __Host-gantry-session=t", "cookie: __Host-gantry-session=u"], Cookie::Unclear),
        ] {
            assert_eq!(Cookie::of(&headers(&lines), name), want, "{lines:?}");
        }
        let mut bytes = HeaderMap::new();
        bytes.append(COOKIE, HeaderValue::from_bytes(b"__Host-gantry-session=\xff").expect("a value"));
        assert_eq!(Cookie::of(&bytes, name), Cookie::Unclear);
    }

    #[test]
    fn a_cookie_is_taken_out_and_the_others_stay() {
        for (lines, want) in [
            (vec![], vec![]),
            (vec!["cookie: a=b;c=d"], vec!["a=b;c=d"]),
            (vec!["cookie: __Host-gantry-session=t"], vec![]),
            (vec!["cookie: a=b; __Host-gantry-session=t;c=d"], vec!["a=b; c=d"]),
            (vec!["cookie: __Host-gantry-session=t; __Host-gantry-session=u; a=b"], vec!["a=b"]),
            (vec!["cookie: __Host-gantry-session=t", "cookie: a=b"], vec!["a=b"]),
        ] {
            let mut all = headers(&lines);
            remove_cookie(&mut all, SESSION_COOKIE);
            let left: Vec<&str> = all.get_all(COOKIE).iter().map(|v| v.to_str().expect("text")).collect();
            assert_eq!(left, want, "{lines:?}");
        }
    }

    #[test]
    fn a_page_of_ours_is_known_by_what_no_page_can_write() {
        let host = "host: g.test:6443";
        let (own, foreign) = ("origin: https://g.test:6443", "origin: https://evil.test");
        let site = |word: &str| format!("sec-fetch-site: {word}");
        let (same, cross, sibling, none) =
            (site("same-origin"), site("cross-site"), site("same-site"), site("none"));
        let page = ["sec-fetch-mode: navigate", "sec-fetch-dest: document"];
        let frame = ["sec-fetch-mode: navigate", "sec-fetch-dest: iframe"];
        let upgrade = "upgrade: websocket";
        for (method, lines, want) in [
            // What only reads.
            ("GET", vec![], true),
            ("HEAD", vec![], true),
            ("GET", vec![own], true),
            ("GET", vec![foreign], false),
            ("GET", vec!["origin: null"], false),
            ("GET", vec![&same], true),
            ("GET", vec![&none], true),
            ("GET", vec![&cross], false),
            ("GET", vec![&sibling], false),
            ("GET", vec![&cross, page[0], page[1]], true),
            ("GET", vec![&sibling, page[0], page[1]], true),
            ("GET", vec![&cross, frame[0], frame[1]], false),
            ("GET", vec![&cross, page[0]], false),
            ("GET", vec![&cross, "sec-fetch-mode: no-cors", "sec-fetch-dest: image"], false),
            ("GET", vec!["sec-fetch-site: something-new"], false),
            ("GET", vec![&same, &cross], false),
            // What changes something.
            ("POST", vec![], false),
            ("POST", vec![own], true),
            ("POST", vec!["origin: https://G.test:6443"], true),
            ("POST", vec![&same], true),
            ("POST", vec![&same, own], true),
            ("POST", vec![&none], false),
            ("POST", vec![&none, own], true),
            ("POST", vec![&cross, own], false),
            ("POST", vec![&cross, page[0], page[1]], false),
            ("POST", vec![&sibling], false),
            ("POST", vec![foreign], false),
            ("POST", vec!["origin: null"], false),
            ("POST", vec!["origin: http://g.test:6443"], false),
            ("POST", vec!["origin: https://g.test"], false),
            ("POST", vec!["origin: https://g.test:64430"], false),
            ("POST", vec!["origin: https://g.test:6443.evil.test"], false),
            ("POST", vec!["origin: https://evil.test/g.test:6443"], false),
            ("POST", vec!["origin: https://g.test:6443/"], false),
            ("POST", vec!["origin: https://x@g.test:6443"], false),
            ("POST", vec![own, foreign], false),
            ("POST", vec![own, own], false),
            ("DELETE", vec![], false),
            ("DELETE", vec![own], true),
            ("CONNECT", vec![], false),
            ("QUUX", vec![], false),
            // A read that becomes a stream in both directions.
            ("GET", vec![upgrade], false),
            ("GET", vec![upgrade, own], true),
            ("GET", vec![upgrade, &same], true),
            ("GET", vec![upgrade, foreign], false),
            ("GET", vec![upgrade, &none], false),
            ("GET", vec![upgrade, &cross, page[0], page[1]], false),
        ] {
            let method: Method = method.parse().expect("a method");
            let all = headers(&[&[host], &lines[..]].concat());
            let found = is_own_page(&method, &Uri::from_static("/x"), &all);
            assert_eq!(found, want, "{method} {lines:?}");
        }
    }

    #[test]
    fn the_host_is_where_the_request_was_sent() {
        for (uri, lines, want) in [
            ("/x", vec!["host: g.test", "origin: https://g.test"], true),
            ("/x", vec!["host: g.test:443", "origin: https://g.test"], true),
            ("/x", vec!["origin: https://g.test"], false),
            ("/x", vec!["host: ", "origin: https://"], false),
            ("/x", vec!["host: g.test", "host: evil.test", "origin: https://evil.test"], false),
            ("https://g.test/x", vec!["origin: https://g.test"], true),
            ("https://g.test/x", vec!["host: evil.test", "origin: https://evil.test"], false),
            ("/x", vec!["host: [::1]:6443", "origin: https://[::1]:6443"], true),
        ] {
            let uri: Uri = uri.parse().expect("a URI");
            assert_eq!(is_own_page(&Method::POST, &uri, &headers(&lines)), want, "{uri} {lines:?}");
        }
        let program = headers(&["host: g.test"]);
        assert!(!is_foreign_page(&Method::POST, &Uri::from_static("/"), &program), "a program");
        let page = headers(&["host: g.test", "origin: https://evil.test"]);
        assert!(is_foreign_page(&Method::POST, &Uri::from_static("/"), &page));
    }
}
