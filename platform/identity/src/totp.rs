//! Time-based one-time passwords (RFC 6238): HMAC-SHA-1, six digits, steps of 30 s, as authenticator
//! apps have them. One step to either side is taken; a step is taken once.

use jiff::Timestamp;
use ring::hmac;
use ring::rand::{SecureRandom, SystemRandom};
use zeroize::Zeroizing;

const STEP_SECONDS: i64 = 30;
const WINDOW_STEPS: i64 = 1;
const DIGITS: u32 = 6;
/// RFC 4226, 4 (R6) asks for 128 bits and recommends 160.
const SEED_BYTES: usize = 20;
const SEED_BYTES_MIN: usize = 10;
const SEED_BYTES_MAX: usize = 128;
const BASE32: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";

/// Why a code is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TotpError {
    #[error("the code is wrong")]
    Wrong,
    #[error("the code has been used: wait for the next one")]
    Used,
}

/// A seed that two sides share: never printed, wiped when dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct TotpSeed(Zeroizing<Vec<u8>>);

impl TotpSeed {
    /// A new seed; `None`: no random numbers.
    pub fn generate() -> Option<Self> {
        let mut bytes = Zeroizing::new(vec![0; SEED_BYTES]);
        SystemRandom::new().fill(&mut bytes).ok()?;
        Some(Self(bytes))
    }

    /// What codes are compared with where there is no seed, so that it takes as long. Not secret: no code of it is
    /// ever taken.
    pub(crate) fn of_nobody() -> Self {
        Self(Zeroizing::new(vec![0; SEED_BYTES]))
    }

    /// Reads the blob of a Keystone `totp` credential: base32 (RFC 4648, 6), padding, case and spaces as
    /// people type them. `None`: not base32, or not of 80 to 1024 bits.
    pub fn from_base32(blob: &str) -> Option<Self> {
        let mut bytes = Zeroizing::new(Vec::with_capacity(blob.len() * 5 / 8));
        let (mut buffer, mut bits) = (0_u32, 0);
        let text = blob.trim().trim_end_matches('=');
        for letter in text.bytes().filter(|letter| !matches!(letter, b' ' | b'-')) {
            let value = BASE32.iter().position(|known| *known == letter.to_ascii_uppercase())?;
            buffer = buffer << 5 | u32::try_from(value).ok()?;
            bits += 5;
            if bits >= 8 {
                bits -= 8;
                bytes.push((buffer >> bits & 0xff) as u8);
                buffer &= (1 << bits) - 1;
            }
        }
        (SEED_BYTES_MIN..=SEED_BYTES_MAX).contains(&bytes.len()).then_some(Self(bytes))
    }

    /// The seed as Keystone's credential blobs and authenticator apps have it, without padding.
    pub fn to_base32(&self) -> Zeroizing<String> {
        let mut text = Zeroizing::new(String::with_capacity(self.0.len() * 8 / 5 + 1));
        for chunk in self.0.chunks(5) {
            let mut group = [0; 8];
            group[3..3 + chunk.len()].copy_from_slice(chunk);
            let group = u64::from_be_bytes(group);
            let letters = (chunk.len() * 8).div_ceil(5);
            text.extend((0..letters).map(|n| char::from(BASE32[(group >> (35 - 5 * n) & 31) as usize])));
        }
        text
    }

    /// What an authenticator app scans: `otpauth://totp/ISSUER:ACCOUNT?…`.
    pub fn to_uri(&self, issuer: &str, account: &str) -> Zeroizing<String> {
        let (issuer, account, seed) = (escaped(issuer), escaped(account), self.to_base32());
        Zeroizing::new(format!(
            "otpauth://totp/{issuer}:{account}?secret={}&issuer={issuer}&algorithm=SHA1&digits={DIGITS}&period={STEP_SECONDS}",
            seed.as_str()
        ))
    }

    /// Checks a code. `used`: the last step that was taken; keep what is returned in its place (and only
    /// if it is still `used`: [`crate::vault::Vault::replace`]), or a code is good twice.
    pub fn verify(&self, code: &str, now: Timestamp, used: Option<i64>) -> Result<i64, TotpError> {
        let code = code.trim();
        let digits = code.len() == DIGITS as usize && code.bytes().all(|byte| byte.is_ascii_digit());
        let Some(code) = digits.then(|| code.parse::<u32>().ok()).flatten() else {
            return Err(TotpError::Wrong);
        };
        let current = now.as_second().div_euclid(STEP_SECONDS);
        // All are computed, whichever fits: the time says nothing of the step.
        let fits = |step: &i64| std::hint::black_box(self.code_at(*step) ^ code) == 0;
        let steps = current - WINDOW_STEPS..=current + WINDOW_STEPS;
        let fitting: Vec<i64> = steps.filter(fits).collect();
        // The newest: two steps may have the same code by chance.
        let step = *fitting.last().ok_or(TotpError::Wrong)?;
        if used.is_some_and(|used| step <= used) { Err(TotpError::Used) } else { Ok(step) }
    }

    /// The code of this moment, for tests and for enrolment that shows one.
    pub fn code(&self, now: Timestamp) -> String {
        format!("{:0width$}", self.code_at(now.as_second().div_euclid(STEP_SECONDS)), width = DIGITS as usize)
    }

    fn code_at(&self, step: i64) -> u32 {
        self.truncated(step) % 10_u32.pow(DIGITS)
    }

    /// RFC 4226, 5.3.
    fn truncated(&self, step: i64) -> u32 {
        #[cfg(test)]
        crate::work::digested();
        let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &self.0);
        let mac = hmac::sign(&key, &step.to_be_bytes());
        let mac = mac.as_ref();
        let offset = usize::from(mac.last().copied().unwrap_or(0) & 0xf);
        let bytes = mac[offset..offset + 4].try_into().unwrap_or([0; 4]);
        u32::from_be_bytes(bytes) & 0x7fff_ffff
    }
}

impl std::fmt::Debug for TotpSeed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[secret]")
    }
}

fn escaped(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~');
    text.bytes()
        .map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SEED: &[u8] = b"12345678901234567890";

    fn seed() -> TotpSeed {
        TotpSeed(Zeroizing::new(SEED.to_vec()))
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).expect("a time")
    }

    #[test]
    fn the_rfc_vectors() {
        // RFC 6238, appendix B, SHA-1, of whose eight digits the last six are ours.
        for (seconds, code) in [
            (59, "94287082"),
            (1_111_111_109, "07081804"),
            (1_111_111_111, "14050471"),
            (1_234_567_890, "89005924"),
            (2_000_000_000, "69279037"),
            (20_000_000_000, "65353130"),
        ] {
            assert_eq!(format!("{:08}", seed().truncated(seconds / 30) % 100_000_000), code);
            assert_eq!(seed().code(at(seconds)), code[2..]);
        }
        // RFC 4226, appendix D.
        for (step, truncated) in
            [(0, 1_284_755_224), (1, 1_094_287_082), (2, 137_359_152), (4, 1_640_338_314)]
        {
            assert_eq!(seed().truncated(step), truncated);
        }
    }

    #[test]
    fn a_code_is_good_for_a_window_and_once() {
        let code = seed().code(at(1000 * 30));
        for (step, good) in [(998, false), (999, true), (1000, true), (1001, true), (1002, false)] {
            let verified = seed().verify(&code, at(step * 30 + 29), None);
            assert_eq!(verified, if good { Ok(1000) } else { Err(TotpError::Wrong) }, "{step}");
        }
        let now = at(1000 * 30);
        assert_eq!(seed().verify(&code, now, Some(999)), Ok(1000));
        assert_eq!(seed().verify(&code, now, Some(1000)), Err(TotpError::Used));
        assert_eq!(
            seed().verify(&code, now, Some(1001)),
            Err(TotpError::Used),
            "an earlier step than the last"
        );
        assert_eq!(seed().verify(&format!(" {code} "), now, None), Ok(1000));
        for bad in ["", "12345", "1234567", "12345a", "+12345", "１２３４５６", "-12345"] {
            assert_eq!(seed().verify(bad, now, None), Err(TotpError::Wrong), "{bad}");
        }
    }

    #[test]
    fn base32_as_keystone_and_people_write_it() {
        let text = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ";
        assert_eq!(seed().to_base32().as_str(), text);
        for written in
            [text, "gezd gnbv gy3t qojq gezd gnbv gy3t qojq", "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ====\n"]
        {
            assert_eq!(TotpSeed::from_base32(written), Some(seed()), "{written}");
        }
        for bad in ["", "GEZD", "GEZDGNBVGY3TQOJ1GEZDGNBV", "GEZDGNBVGY3T=QOJQGEZDGNBV", &"A".repeat(300)] {
            assert_eq!(TotpSeed::from_base32(bad), None, "{bad}");
        }
        let uri = seed().to_uri("Gantry", "acme/al ice");
        assert!(uri.starts_with("otpauth://totp/Gantry:acme%2Fal%20ice?secret=GEZDGNBV"), "{}", uri.as_str());
        assert_eq!(format!("{:?}", seed()), "[secret]");
    }

    proptest! {
        #[test]
        fn base32_loses_nothing(bytes in prop::collection::vec(any::<u8>(), SEED_BYTES_MIN..=SEED_BYTES_MAX)) {
            let seed = TotpSeed(Zeroizing::new(bytes));
            prop_assert_eq!(TotpSeed::from_base32(&seed.to_base32()), Some(seed.clone()));
        }
    }
}
