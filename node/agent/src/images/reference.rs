//! Image references: what is valid, which registry they name.

use std::sync::LazyLock;

use regex::Regex;

/// The grammar of the OCI distribution specification for names, tags and digests.
static REFERENCE: LazyLock<Regex> = LazyLock::new(|| {
    let host = r"(?:(?:[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?(?:\.[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?)*|\[[0-9a-fA-F:]+\])(?::[0-9]+)?/)?";
    let part = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*";
    let rest = r"(?::[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(?:@[A-Za-z][A-Za-z0-9+._-]*:[0-9a-fA-F]{32,})?";
    Regex::new(&format!("^{host}{part}(?:/{part})*{rest}$")).expect("a constant pattern")
});

/// The message for a reference that is not valid.
pub(super) fn check(image: &str) -> Result<(), String> {
    if REFERENCE.is_match(image) {
        return Ok(());
    }
    let cause = if image.chars().any(|c| c.is_ascii_uppercase()) && !image.contains(' ') {
        "invalid reference format: repository name must be lowercase"
    } else {
        "invalid reference format"
    };
    Err(format!(
        "Failed to apply default image tag \"{image}\": couldn't parse image name \"{image}\": {cause}"
    ))
}

/// The registry that a reference names; `docker.io` when it names none.
pub(super) fn host(image: &str) -> &str {
    match image.split_once('/') {
        Some((first, _)) if first.contains(['.', ':']) || first == "localhost" => first,
        _ => "docker.io",
    }
}

/// The reference has no tag and no digest, or the tag `latest`.
pub(super) fn is_latest(image: &str) -> bool {
    let last = image.rsplit('/').next().unwrap_or_default();
    !last.contains('@') && last.split_once(':').is_none_or(|(_, tag)| tag == "latest")
}

/// A key of a docker configuration stands for this registry.
pub(super) fn registry_matches(key: &str, host: &str) -> bool {
    let key = key.strip_prefix("https://").or(key.strip_prefix("http://")).unwrap_or(key);
    let key = key.split('/').next().unwrap_or_default();
    match key.strip_prefix("*.") {
        Some(domain) => host.split_once('.').is_some_and(|(_, rest)| rest == domain),
        None => key == host || host == "docker.io" && key.ends_with(".docker.io"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references() {
        for (image, valid, registry, latest) in [
            ("busybox", true, "docker.io", true),
            ("busybox:1.36", true, "docker.io", false),
            ("127.0.0.1:6443/demo/web:latest", true, "127.0.0.1:6443", true),
            ("localhost/x", true, "localhost", true),
            (
                "quay.io/a/b@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
                true,
                "quay.io",
                false,
            ),
            ("Bad/Image", false, "docker.io", true),
            ("a b", false, "docker.io", true),
            ("", false, "docker.io", true),
        ] {
            assert_eq!(check(image).is_ok(), valid, "{image}");
            assert_eq!((host(image), is_latest(image)), (registry, latest), "{image}");
        }
        assert!(registry_matches("https://index.docker.io/v1/", "docker.io"));
        assert!(registry_matches("*.example.org", "r.example.org"));
        assert!(!registry_matches("example.org", "r.example.org"));
    }
}
