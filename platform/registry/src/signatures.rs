//! Who signed an image of ours, as far as it matters to somebody's trust.

use std::io::{self, Read};

use bytes::Bytes;
use gantry_oci::{Digest, RepositoryName};
use gantry_signatures::{Trust, Verified, attachment, payload, verify};
use jiff::Timestamp;

use crate::Registry;

/// Manifests with signatures of one image that are looked at.
const ATTACHMENTS_MAX: usize = 100;
/// Largest manifest of signatures that is read.
const ATTACHMENT_BYTES_MAX: u64 = 1 << 20;
/// Signatures of one image that are checked, over all manifests: each costs a computation.
const SIGNATURES_MAX: usize = 200;

/// What was found at an image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Signatures {
    /// Those that count; one is enough.
    pub verified: Vec<Verified>,
    /// Why others do not, each sentence once. Empty with `verified`: nobody signed it.
    pub refused: Vec<String>,
}

impl Registry {
    /// The signatures of an image, under its tag `sha256-HEX.sig` and among its referrers.
    pub async fn verify_signature(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        trust: &Trust,
    ) -> io::Result<Signatures> {
        crate::upstream::bring_signatures(self, repository, digest).await;
        let (repository, digest, trust) = (repository.clone(), digest.clone(), trust.clone());
        self.blocking(move |registry| registry.signatures(&repository, &digest, &trust, Timestamp::now()))
            .await
    }

    /// Whether it is signed, by one whom `trust` names if that is given; or why that does not count.
    pub(crate) fn signed(
        &self,
        repository: &RepositoryName,
        digests: &[Digest],
        trust: Option<&Trust>,
    ) -> io::Result<Result<(), String>> {
        let mut refused = Vec::new();
        for digest in digests {
            let Some(trust) = trust else {
                if !self.attachments(repository, digest)?.is_empty() {
                    return Ok(Ok(()));
                }
                continue;
            };
            let found = self.signatures(repository, digest, trust, Timestamp::now())?;
            if !found.verified.is_empty() {
                return Ok(Ok(()));
            }
            refused.extend(found.refused);
        }
        Ok(Err(if refused.is_empty() { "it has no signature".to_owned() } else { refused.join("; ") }))
    }

    fn signatures(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        trust: &Trust,
        now: Timestamp,
    ) -> io::Result<Signatures> {
        let mut found = Signatures::default();
        let mut left = SIGNATURES_MAX;
        for manifest in self.attachments(repository, digest)? {
            let entries = match attachment::entries(&manifest) {
                Ok(entries) => entries,
                Err(error) => {
                    found.refuse(error);
                    continue;
                }
            };
            for entry in entries {
                if left == 0 {
                    found.refuse(format!("it has more than {SIGNATURES_MAX} signatures"));
                    return Ok(found);
                }
                left -= 1;
                let Some(payload) = self.payload(repository, &entry.payload)? else {
                    found.refuse(format!("what was signed, {}, is missing or too large", entry.payload));
                    continue;
                };
                match verify(&entry.with_payload(payload), digest, trust, now) {
                    Ok(verified) if !found.verified.contains(&verified) => found.verified.push(verified),
                    Ok(_) => {}
                    Err(why) => found.refuse(why.to_string()),
                }
            }
        }
        Ok(found)
    }

    /// The manifests of its signatures.
    fn attachments(&self, repository: &RepositoryName, digest: &Digest) -> io::Result<Vec<Bytes>> {
        let store = self.store();
        let mut digests: Vec<Digest> = Vec::new();
        digests.extend(attachment::tag(digest).and_then(|tag| store.resolve(repository, &tag)));
        for (referrer, record) in store.referrers(repository, digest, None) {
            let kind = record.artifact_type.as_deref();
            if kind == Some(attachment::ARTIFACT_TYPE) && !digests.contains(&referrer) {
                digests.push(referrer);
            }
        }
        let mut found = Vec::new();
        for digest in digests.into_iter().take(ATTACHMENTS_MAX) {
            let small = store.record(repository, &digest).is_some_and(|r| r.size <= ATTACHMENT_BYTES_MAX);
            if small && let Some(manifest) = store.manifest(repository, &digest)? {
                found.push(manifest);
            }
        }
        Ok(found)
    }

    /// A small blob of the repository. Its digest was checked when it came, and the signature is what says more.
    fn payload(&self, repository: &RepositoryName, digest: &Digest) -> io::Result<Option<Bytes>> {
        let store = self.store();
        let size = store.blob(repository, digest).filter(|size| *size <= payload::BYTES_MAX as u64);
        let Some(size) = size else { return Ok(None) };
        let mut bytes = Vec::new();
        let read =
            store.content.source(digest, size).open().and_then(|mut blob| blob.read_to_end(&mut bytes));
        match read {
            Ok(_) => Ok(Some(bytes.into())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl Signatures {
    fn refuse(&mut self, why: String) {
        if !self.refused.contains(&why) {
            self.refused.push(why);
        }
    }
}
