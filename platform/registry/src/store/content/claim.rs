//! Which bucket a store's content is in, and whose it is: another one's content would look like garbage.
//!
//! A store on S3 has a file `CONTENT` with an id of its own, and the bucket an object with the same id.

use std::io;
use std::path::Path;

use super::BLOBS;
use super::s3::S3;
use super::settings::S3Settings;

const FILE: &str = "CONTENT";
/// The object, beside the directory of the blobs.
const OBJECT: &str = "gantry-registry";

#[derive(serde::Serialize, serde::Deserialize)]
struct Claim {
    id: String,
    /// For whoever reads it; the id is what counts, so that a bucket may be copied and renamed.
    bucket: String,
    rootdirectory: String,
    /// The object is written.
    made: bool,
}

impl Claim {
    fn read(root: &Path) -> io::Result<Option<Self>> {
        let path = root.join(FILE);
        let Some(bytes) = gantry_base::fs::read_optional(&path)? else { return Ok(None) };
        let parsed = serde_json::from_slice(&bytes);
        parsed.map(Some).map_err(|error| io::Error::other(format!("{}: {error}", path.display())))
    }

    fn write(&self, root: &Path) -> io::Result<()> {
        gantry_base::fs::write_atomic(&root.join(FILE), &serde_json::to_vec_pretty(self)?, 0o600)
    }
}

/// Refuses a store whose content is on S3.
pub(super) fn require_files(root: &Path) -> io::Result<()> {
    let Some(claim) = Claim::read(root)? else { return Ok(()) };
    let Claim { bucket, rootdirectory, .. } = claim;
    Err(io::Error::other(format!(
        "its blobs are in the bucket {bucket} (rootdirectory {rootdirectory:?}), and [registry.s3] is not set: set it, \
         or copy {BLOBS} from there to {} and remove {}",
        root.join(BLOBS).display(),
        root.join(FILE).display()
    )))
}

/// Refuses a bucket that has another store's content, or not this one's; one that has nobody's is taken.
pub(super) fn require_bucket(
    root: &Path,
    s3: &S3,
    settings: &S3Settings,
    no_files: impl Fn() -> io::Result<bool>,
) -> io::Result<()> {
    let refused = |why: String| Err(io::Error::other(format!("{settings} {why}")));
    let there = s3.read_small(OBJECT).map_err(|error| asked(settings, &error))?;
    let claim = Claim::read(root)?;
    let claim = match (claim, there) {
        (Some(claim), Some(id)) if id.trim() == claim.id => claim,
        (_, Some(_)) => {
            return refused(format!(
                "has the blobs of another registry: take another bucket or rootdirectory, or remove its object \
                 {OBJECT} if that registry is no more"
            ));
        }
        (Some(claim), None) if claim.made => {
            return refused(format!(
                "has not the blobs of this registry, which are in the bucket {} (rootdirectory {:?}): correct \
                 [registry.s3], or copy everything to there",
                claim.bucket, claim.rootdirectory
            ));
        }
        (Some(claim), None) => claim,
        (None, None) if !no_files()? => {
            let blobs = root.join(BLOBS);
            return refused(format!(
                "is set, and the blobs of this registry are files: copy {} to {}{BLOBS} there, and then rename the \
                 directory",
                blobs.display(),
                settings.prefix()
            ));
        }
        (None, None) => Claim {
            id: uuid::Uuid::new_v4().to_string(),
            bucket: String::new(),
            rootdirectory: String::new(),
            made: false,
        },
    };
    take(root, s3, settings, claim)
}

fn asked(settings: &S3Settings, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{settings}: {error}"))
}

fn take(root: &Path, s3: &S3, settings: &S3Settings, mut claim: Claim) -> io::Result<()> {
    if claim.made && claim.bucket == settings.bucket && claim.rootdirectory == settings.rootdirectory {
        return Ok(());
    }
    claim.bucket.clone_from(&settings.bucket);
    claim.rootdirectory.clone_from(&settings.rootdirectory);
    if !claim.made {
        // Not everybody who serves S3 refuses to write into a bucket that is not there.
        s3.list().map_err(|error| asked(settings, &error))?;
        // The file first: an object without one would be another registry's after a crash.
        claim.write(root)?;
        s3.write_small(OBJECT, claim.id.clone()).map_err(|error| asked(settings, &error))?;
        claim.made = true;
    }
    claim.write(root)
}
