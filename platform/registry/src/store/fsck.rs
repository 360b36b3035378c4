//! Is everything that was acknowledged still there, and is it what its digest says?

use std::collections::HashMap;
use std::io;

use gantry_oci::{Digest, Hasher, RepositoryName};

use super::{Store, file_name};

/// Problems that are listed one by one; further ones are only counted.
const LISTED_MAX: usize = 1000;

/// What a check found.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Checked {
    pub repositories: usize,
    pub manifests: usize,
    pub blobs: usize,
    /// Bytes that were read and hashed.
    pub bytes: u64,
    pub problems: usize,
    /// The first of them.
    pub listed: Vec<Problem>,
}

/// Something that is not as it was acknowledged.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Problem {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repository: Option<String>,
    pub digest: String,
    /// What is wrong, in a sentence.
    pub problem: String,
}

impl Checked {
    fn found(&mut self, repository: Option<&RepositoryName>, digest: &Digest, problem: impl Into<String>) {
        self.problems += 1;
        if self.listed.len() < LISTED_MAX {
            let repository = repository.map(ToString::to_string);
            self.listed.push(Problem { repository, digest: digest.to_string(), problem: problem.into() });
        }
    }
}

impl Store {
    /// Looks at every manifest and what it names; with `content`, reads and hashes every blob. What is pushed or
    /// deleted meanwhile is looked at again before it is called a problem. `watch` is told how many of how many
    /// repositories and blobs are done, and stops the check by returning false.
    pub(crate) fn check(&self, content: bool, watch: &dyn Fn(usize, usize) -> bool) -> io::Result<Checked> {
        let mut checked = Checked::default();
        let names: Vec<RepositoryName> = self.index().repositories.keys().cloned().collect();
        let blobs: Vec<Digest> = self.index().blobs.keys().cloned().collect();
        let total = names.len() + blobs.len();
        for (done, repository) in names.iter().enumerate() {
            if !watch(done, total) {
                return Ok(checked);
            }
            checked.repositories += 1;
            self.check_repository(repository, &mut checked)?;
        }
        let sizes = self.content.list()?.into_iter().map(|found| (found.digest, found.size_bytes)).collect();
        for (done, digest) in blobs.iter().enumerate() {
            if !watch(names.len() + done, total) {
                return Ok(checked);
            }
            checked.blobs += 1;
            if let Some(problem) = self.check_blob(digest, &sizes, content, &mut checked.bytes)? {
                checked.found(None, digest, problem);
            }
        }
        watch(total, total);
        Ok(checked)
    }

    fn check_repository(&self, repository: &RepositoryName, checked: &mut Checked) -> io::Result<()> {
        let manifests: Vec<Digest> = {
            let index = self.index();
            let Some(entry) = index.repositories.get(repository) else { return Ok(()) };
            entry.manifests.keys().cloned().collect()
        };
        for digest in manifests {
            checked.manifests += 1;
            if let Some(problem) = self.manifest_problem(repository, &digest)? {
                checked.found(Some(repository), &digest, problem);
            }
            self.check_references(repository, &digest, checked);
        }
        Ok(())
    }

    /// What is wrong with the manifest's own bytes.
    fn manifest_problem(&self, repository: &RepositoryName, digest: &Digest) -> io::Result<Option<String>> {
        let read = match self.manifest(repository, digest) {
            Ok(read) => read,
            // Shorter or longer than it was.
            Err(error) if error.kind() == io::ErrorKind::Other => return Ok(Some(error.to_string())),
            Err(error) => return Err(error),
        };
        let Some(bytes) = read else {
            // Deleted while it was read, or lost.
            let known = self.record(repository, digest).is_some();
            return Ok(known.then(|| "the manifest's file is gone".to_owned()));
        };
        let mut hasher = Hasher::new(digest.algorithm());
        hasher.update(&bytes);
        let found = hasher.finish();
        Ok((found != *digest).then(|| format!("the manifest's file has the digest {found}")))
    }

    fn check_references(&self, repository: &RepositoryName, digest: &Digest, checked: &mut Checked) {
        let links = self.repository_directory(repository, "_blobs");
        let index = self.index();
        let Some(entry) = index.repositories.get(repository) else { return };
        let Some(record) = entry.manifests.get(digest).filter(|record| !record.partial) else { return };
        for blob in &record.blobs {
            let link = links.join(file_name(blob));
            if !index.blobs.contains_key(blob) {
                checked.found(Some(repository), digest, format!("its blob {blob} is missing"));
            } else if !entry.blobs.contains(blob) || !link.exists() {
                checked.found(
                    Some(repository),
                    digest,
                    format!("its blob {blob} is not seen in the repository"),
                );
            }
        }
        for child in record.manifests.iter().filter(|child| !entry.manifests.contains_key(child)) {
            checked.found(Some(repository), digest, format!("its manifest {child} is missing"));
        }
    }

    /// `sizes` is what there was when the check came to the blobs.
    fn check_blob(
        &self,
        digest: &Digest,
        sizes: &HashMap<Digest, u64>,
        content: bool,
        bytes: &mut u64,
    ) -> io::Result<Option<String>> {
        let known = || self.index().blobs.get(digest).copied();
        let Some(info) = known() else { return Ok(None) };
        // Garbage that went meanwhile, or lost.
        let gone = || known().map(|_| "the blob's content is gone".to_owned());
        let size = match sizes.get(digest) {
            Some(size) => Some(*size),
            None => self.content.size(digest)?,
        };
        let Some(size) = size else { return Ok(gone()) };
        if size != info.size_bytes {
            return Ok(Some(format!("the blob's content has {size} bytes, not {}", info.size_bytes)));
        }
        if !content {
            return Ok(None);
        }
        let source = self.content.source(digest, size);
        let (found, read) = match source.open().and_then(|read| Hasher::read(digest.algorithm(), read)) {
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(gone()),
            Err(error) => return Err(error),
        };
        *bytes += read;
        Ok((found != *digest).then(|| format!("the blob's content has the digest {found}")))
    }
}
