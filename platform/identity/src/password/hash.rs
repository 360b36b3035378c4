//! Argon2id in PHC string form, pure but for the salt.

use argon2::{Algorithm, Argon2, Block, Params, Version};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use ring::rand::{SecureRandom, SystemRandom};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{PASSWORD_BYTES_MAX, Password, PasswordError};

const SALT_BYTES: usize = 16;
const OUTPUT_BYTES: usize = 32;
/// Hashes may come from elsewhere: longer salts and outputs are read, within reason.
const OUTPUT_BYTES_MAX: usize = 64;
const PHC_BYTES_MAX: usize = 512;

/// What one hash costs. The default is OWASP's recommendation for argon2id (19 MiB, two passes, one lane).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HashCost {
    pub memory_kib: u32,
    pub iterations: u32,
    pub parallelism: u32,
}

impl Default for HashCost {
    fn default() -> Self {
        Self { memory_kib: 19 << 10, iterations: 2, parallelism: 1 }
    }
}

impl HashCost {
    /// More than this for one hash is an attack or a slip of the pen.
    const MEMORY_KIB_MAX: u32 = 1 << 20;
    const ITERATIONS_MAX: u32 = 64;
    const PARALLELISM_MAX: u32 = 16;

    /// Is the cost within what this version is ready to spend?
    pub fn check(&self) -> Result<(), PasswordError> {
        self.params().map(drop)
    }

    fn params(&self) -> Result<Params, PasswordError> {
        let bad = || PasswordError::Cost(format!("{self}"));
        let within = self.memory_kib <= Self::MEMORY_KIB_MAX
            && self.iterations <= Self::ITERATIONS_MAX
            && self.parallelism <= Self::PARALLELISM_MAX;
        if !within {
            return Err(bad());
        }
        Params::new(self.memory_kib, self.iterations, self.parallelism, None).map_err(|_| bad())
    }
}

impl std::fmt::Display for HashCost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "m={},t={},p={}", self.memory_kib, self.iterations, self.parallelism)
    }
}

/// The memory that hashing works in. One per thread, kept from hash to hash: to get and clear 19 MiB
/// each time would cost a tenth of the hash. It holds traces of the last password until [`release`].
///
/// [`release`]: Workspace::release
#[derive(Default)]
pub struct Workspace {
    blocks: Vec<Block>,
    /// Hashes computed since it was last taken.
    #[cfg(test)]
    pub(super) computed: u64,
}

impl Workspace {
    /// An empty one; it grows to what the first hash needs.
    pub fn new() -> Self {
        Self::default()
    }

    /// Hashes with a fresh salt: `$argon2id$v=19$m=…,t=…,p=…$SALT$HASH`.
    pub fn hash(&mut self, password: &Password, cost: &HashCost) -> Result<String, PasswordError> {
        let mut salt = [0; SALT_BYTES];
        SystemRandom::new().fill(&mut salt).map_err(|_| PasswordError::Random)?;
        let mut output = Zeroizing::new([0; OUTPUT_BYTES]);
        self.compute(password, cost, &salt, &mut output[..])?;
        let (salt, output) = (STANDARD_NO_PAD.encode(salt), STANDARD_NO_PAD.encode(&output[..]));
        Ok(format!("$argon2id$v={}${cost}${salt}${output}", Version::V0x13 as u32))
    }

    /// Is it the password of this hash? Takes as long for a wrong one as for the right one.
    pub fn verify(&mut self, password: &Password, phc: &str) -> Result<bool, PasswordError> {
        let stored = Stored::parse(phc).ok_or(PasswordError::MalformedHash)?;
        let mut output = Zeroizing::new(vec![0; stored.output.len()]);
        self.compute(password, &stored.cost, &stored.salt, &mut output)?;
        let same = output.iter().zip(&stored.output).fold(0, |differs, (a, b)| differs | (a ^ b));
        Ok(std::hint::black_box(same) == 0)
    }

    /// Gives the memory back, wiped.
    pub fn release(&mut self) {
        self.blocks.fill(Block::default());
        std::hint::black_box(&self.blocks);
        self.blocks = Vec::new();
    }

    fn compute(
        &mut self,
        password: &Password,
        cost: &HashCost,
        salt: &[u8],
        output: &mut [u8],
    ) -> Result<(), PasswordError> {
        if password.expose().len() > PASSWORD_BYTES_MAX {
            return Err(PasswordError::TooLong);
        }
        let params = cost.params()?;
        let blocks = params.block_count();
        if self.blocks.len() < blocks {
            self.blocks.resize(blocks, Block::default());
        }
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
        let (password, memory) = (password.expose().as_bytes(), &mut self.blocks[..blocks]);
        #[cfg(test)]
        {
            self.computed += 1;
        }
        let failed = |error: argon2::Error| PasswordError::Cost(error.to_string());
        argon2.hash_password_into_with_memory(password, salt, output, memory).map_err(failed)
    }
}

/// Was the hash made at another cost than this, so that it should be made anew?
pub(super) fn is_outdated(phc: &str, cost: &HashCost) -> bool {
    Stored::parse(phc).is_none_or(|stored| stored.cost != *cost)
}

struct Stored {
    cost: HashCost,
    salt: Vec<u8>,
    output: Vec<u8>,
}

impl Stored {
    /// The PHC string format, for argon2id in version 0x13 alone.
    fn parse(phc: &str) -> Option<Self> {
        if phc.len() > PHC_BYTES_MAX {
            return None;
        }
        let rest = phc.strip_prefix("$argon2id$v=19$")?;
        let [cost, salt, output]: [&str; 3] = rest.split('$').collect::<Vec<_>>().try_into().ok()?;
        let [memory, iterations, parallelism]: [&str; 3] =
            cost.split(',').collect::<Vec<_>>().try_into().ok()?;
        let cost = HashCost {
            memory_kib: memory.strip_prefix("m=")?.parse().ok()?,
            iterations: iterations.strip_prefix("t=")?.parse().ok()?,
            parallelism: parallelism.strip_prefix("p=")?.parse().ok()?,
        };
        cost.params().ok()?;
        let (salt, output) = (STANDARD_NO_PAD.decode(salt).ok()?, STANDARD_NO_PAD.decode(output).ok()?);
        let fits = salt.len() >= argon2::MIN_SALT_LEN && (16..=OUTPUT_BYTES_MAX).contains(&output.len());
        fits.then_some(Self { cost, salt, output })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHEAP: HashCost = HashCost { memory_kib: 64, iterations: 1, parallelism: 1 };

    #[test]
    fn known_hashes_of_the_reference_program_are_read() {
        // From the tests of the reference implementation: "password", "somesalt", 2^8 KiB, 2 passes, 1 lane.
        let phc = "$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4";
        let mut workspace = Workspace::new();
        assert_eq!(workspace.verify(&Password::new("password"), phc), Ok(true));
        assert_eq!(workspace.verify(&Password::new("passworD"), phc), Ok(false));
    }

    #[test]
    fn a_hash_is_salted_and_knows_its_password() {
        let mut workspace = Workspace::new();
        let password = Password::new("pässwort");
        let (one, two) = (workspace.hash(&password, &CHEAP), workspace.hash(&password, &CHEAP));
        let (one, two) = (one.expect("hashed"), two.expect("hashed"));
        assert_ne!(one, two);
        assert!(one.starts_with("$argon2id$v=19$m=64,t=1,p=1$"), "{one}");
        let dearer = workspace.hash(&password, &HashCost { memory_kib: 128, ..CHEAP }).expect("hashed");
        workspace.release();
        for hash in [&one, &two, &dearer] {
            assert_eq!(workspace.verify(&password, hash), Ok(true));
            assert_eq!(workspace.verify(&Password::new("passwort"), hash), Ok(false));
        }
        assert!(!is_outdated(&one, &CHEAP));
        assert!(is_outdated(&dearer, &CHEAP));
        assert!(is_outdated("garbage", &CHEAP));
    }

    #[test]
    fn what_is_no_reasonable_hash_is_refused_before_work() {
        let mut workspace = Workspace::new();
        let good = workspace.hash(&Password::new("x"), &CHEAP).expect("hashed");
        for (what, bad) in [
            ("empty", String::new()),
            ("bcrypt", "$2b$12$C6UzMDM.H6dfI/f/IKcEeO".to_owned()),
            ("argon2i", good.replace("argon2id", "argon2i")),
            ("old version", good.replace("v=19", "v=16")),
            ("too much memory", good.replace("m=64", "m=4000000000")),
            ("too many passes", good.replace("t=1", "t=100000")),
            ("no passes", good.replace("t=1", "t=0")),
            ("no hash", good.rsplit_once('$').expect("parts").0.to_owned()),
            ("a hash too short", format!("{}$AAAA", good.rsplit_once('$').expect("parts").0)),
            ("more parts", format!("{good}$AAAA")),
            ("too long", format!("{good}{}", "A".repeat(600))),
        ] {
            let refused = workspace.verify(&Password::new("x"), &bad);
            assert_eq!(refused, Err(PasswordError::MalformedHash), "{what}");
        }
        let long = Password::new("x".repeat(PASSWORD_BYTES_MAX + 1));
        assert_eq!(workspace.verify(&long, &good), Err(PasswordError::TooLong));
        assert_eq!(workspace.hash(&long, &CHEAP), Err(PasswordError::TooLong));
    }
}
