//! Values of flags that several commands have.

use std::collections::BTreeMap;

use anyhow::{anyhow, bail};
use gantry_base::secret::Secret;
use gantry_identity_api::{PodSecurityLevel, Quota};
use jiff::{Span, Timestamp, Zoned};
use ring::rand::{SecureRandom, SystemRandom};

/// Letters of generated passwords: none is taken for another when it is read from a screen.
const PASSWORD_LETTERS: &[u8] = b"abcdefghijkmnpqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789";
/// 24 of 56 letters are 139 bits.
const PASSWORD_LENGTH: usize = 24;
/// RFC 4226, 4 (R6) recommends 160 bits.
const SEED_BYTES: usize = 20;
const BASE32: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";

/// Pod Security Standards, by their names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum PodSecurity {
    Restricted,
    Baseline,
    Privileged,
}

impl From<PodSecurity> for PodSecurityLevel {
    fn from(level: PodSecurity) -> Self {
        match level {
            PodSecurity::Restricted => Self::Restricted,
            PodSecurity::Baseline => Self::Baseline,
            PodSecurity::Privileged => Self::Privileged,
        }
    }
}

/// `cpu=8,memory=16Gi`; an empty value takes a bound away.
pub fn quota(texts: &[String]) -> anyhow::Result<BTreeMap<&'static str, Option<String>>> {
    const NAMES: [&str; 7] = ["cpu", "memory", "pods", "volumes", "images", "addresses", "loadBalancers"];
    let mut bounds = BTreeMap::new();
    for part in texts.iter().flat_map(|text| text.split(',')) {
        let (name, value) =
            part.split_once('=').ok_or_else(|| anyhow!("--quota {part:?} is not NAME=QUANTITY"))?;
        let known = NAMES.into_iter().find(|known| known.eq_ignore_ascii_case(name.trim()));
        let known = known.ok_or_else(|| anyhow!("--quota knows no {name:?}, only {}", NAMES.join(", ")))?;
        let value = value.trim();
        bounds.insert(known, (!value.is_empty()).then(|| value.to_owned()));
    }
    Ok(bounds)
}

/// The bounds as a quota.
pub fn new_quota(texts: &[String]) -> anyhow::Result<Quota> {
    let mut made = Quota::default();
    for (name, value) in quota(texts)? {
        if let Some(place) = made.entry_mut(name) {
            *place = value;
        }
    }
    Ok(made)
}

/// `key=value` pairs.
pub fn labels(texts: &[String]) -> anyhow::Result<BTreeMap<String, String>> {
    let pair = |text: &String| {
        let (key, value) =
            text.split_once('=').ok_or_else(|| anyhow!("--label {text:?} is not KEY=VALUE"))?;
        Ok((key.to_owned(), value.to_owned()))
    };
    texts.iter().map(pair).collect()
}

/// A moment, or how far from `now` it is: `2027-01-31T00:00:00Z`, `30d`, `12h`.
pub fn moment(text: &str, now: &Zoned) -> anyhow::Result<Timestamp> {
    let later = |span: Span| now.checked_add(span).map(|then| then.timestamp());
    let found = text.parse::<Timestamp>().or_else(|_| text.parse::<Span>().and_then(later));
    let found =
        found.map_err(|_| anyhow!("{text:?} is no moment: write 30d, 12h or 2027-01-31T00:00:00Z"))?;
    if found <= now.timestamp() {
        bail!("{text:?} is in the past");
    }
    Ok(found)
}

/// `password+totp` → `[["password", "totp"]]`; `none` → no rules.
pub fn multi_factor(texts: &[String]) -> anyhow::Result<Vec<Vec<String>>> {
    if texts.iter().any(|text| text == "none") {
        if texts.len() > 1 {
            bail!("--multi-factor none stands alone");
        }
        return Ok(Vec::new());
    }
    let rule = |text: &String| {
        let methods: Vec<String> = text.split('+').map(|method| method.trim().to_owned()).collect();
        if methods.iter().any(String::is_empty) {
            bail!("--multi-factor {text:?} is not METHOD+METHOD, as in password+totp");
        }
        Ok(methods)
    };
    texts.iter().map(rule).collect()
}

/// A new password for somebody to be told once.
pub fn new_password() -> anyhow::Result<Secret<String>> {
    let letters = u8::try_from(PASSWORD_LETTERS.len())?;
    // The largest multiple of the number of letters: what is above would favour the first ones.
    let fair = u8::MAX - u8::MAX % letters;
    let mut password = String::with_capacity(PASSWORD_LENGTH);
    while password.len() < PASSWORD_LENGTH {
        let [byte] = random::<1>()?;
        if byte < fair {
            password.push(char::from(PASSWORD_LETTERS[usize::from(byte % letters)]));
        }
    }
    Ok(Secret::new(password))
}

/// A new seed for an authenticator app, in base32 (RFC 4648, 6).
pub fn new_seed() -> anyhow::Result<Secret<String>> {
    Ok(Secret::new(base32(&random::<SEED_BYTES>()?)))
}

fn random<const N: usize>() -> anyhow::Result<[u8; N]> {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).map_err(|_| anyhow!("this machine has no random numbers"))?;
    Ok(bytes)
}

fn base32(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 8 / 5 + 1);
    for chunk in bytes.chunks(5) {
        let mut group = [0; 8];
        group[3..3 + chunk.len()].copy_from_slice(chunk);
        let group = u64::from_be_bytes(group);
        let letters = (chunk.len() * 8).div_ceil(5);
        text.extend((0..letters).map(|n| char::from(BASE32[(group >> (35 - 5 * n) & 31) as usize])));
    }
    text
}

/// What an authenticator app reads.
pub fn otpauth(issuer: &str, account: &str, seed: &Secret<String>) -> String {
    let (issuer, account) = (escaped(issuer), escaped(account));
    format!("otpauth://totp/{issuer}:{account}?secret={}&issuer={issuer}", seed.expose())
}

/// Everything but letters, digits and `-._~` as `%XX`.
pub fn escaped(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~');
    text.bytes()
        .map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(all: &[&str]) -> Vec<String> {
        all.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn quotas_are_read() {
        let read = new_quota(&texts(&["cpu=8,memory=16Gi", "loadbalancers=2"])).expect("a quota");
        assert_eq!(
            read.entries().collect::<Vec<_>>(),
            [("cpu", "8"), ("memory", "16Gi"), ("loadBalancers", "2")]
        );
        assert_eq!(quota(&texts(&["pods="])).expect("a bound").get("pods"), Some(&None));
        for bad in ["cpu", "cores=8", "=8"] {
            assert!(quota(&texts(&[bad])).is_err(), "{bad}");
        }
    }

    #[test]
    fn moments_are_absolute_or_from_now() {
        let now: Zoned = "2026-11-25T12:00:00[UTC]".parse().expect("a time");
        for (text, want) in [
            ("30d", Some("2026-12-25T12:00:00Z")),
            ("12h", Some("2026-11-26T00:00:00Z")),
            ("2027-01-31T00:00:00Z", Some("2027-01-31T00:00:00Z")),
            ("2020-01-31T00:00:00Z", None),
            ("-3d", None),
            ("soon", None),
        ] {
            assert_eq!(moment(text, &now).ok().map(|m| m.to_string()).as_deref(), want, "{text}");
        }
    }

    #[test]
    fn multi_factor_rules_are_sets_of_methods() {
        let rules = multi_factor(&texts(&["password+totp", "oidc"])).expect("rules");
        assert_eq!(rules, [texts(&["password", "totp"]), texts(&["oidc"])]);
        assert!(multi_factor(&texts(&["none"])).expect("none").is_empty());
        assert!(multi_factor(&texts(&["none", "password"])).is_err());
        assert!(multi_factor(&texts(&["password+"])).is_err());
    }

    #[test]
    fn generated_secrets_are_new_and_readable() {
        let (one, other) = (new_password().expect("random"), new_password().expect("random"));
        assert_ne!(one, other);
        assert_eq!(one.expose().len(), PASSWORD_LENGTH);
        assert!(one.expose().bytes().all(|byte| PASSWORD_LETTERS.contains(&byte)));
        // RFC 4648, 10.
        assert_eq!(base32(b"foobar"), "MZXW6YTBOI");
        let uri = otpauth("Gantry", "acme/alice", &Secret::new("MZXW6YTBOI".to_owned()));
        assert_eq!(uri, "otpauth://totp/Gantry:acme%2Falice?secret=MZXW6YTBOI&issuer=Gantry");
    }
}
