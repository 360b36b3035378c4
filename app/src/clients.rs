//! OCI clients of this machine (skopeo, podman, buildah) know the registry's certificate and bring the
//! administrator's, without a flag: they look into `/etc/containers/certs.d/HOST:PORT/`.
//!
//! Every folder made here holds a file that names the instance's data directory, so that `gantry down` finds
//! it after any crash, and what somebody else put there is left alone.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::Context;
use gantry_base::fs as durable;
use gantry_base::pki::KeyedCertificate;

/// The file in a folder that says whose it is; clients read only `.crt`, `.cert` and `.key`.
const OWNER: &str = "gantry-instance";

/// Where OCI clients look for certificates.
pub fn directory() -> PathBuf {
    PathBuf::from("/etc/containers/certs.d")
}

/// `HOST:PORT` as clients on this machine write it.
pub fn names(listen: SocketAddr) -> Vec<String> {
    let port = listen.port();
    let mut names = Vec::new();
    if !listen.ip().is_unspecified() {
        names.push(listen.to_string());
    }
    if listen.ip().is_unspecified() || listen.ip().is_loopback() {
        names.push(format!("127.0.0.1:{port}"));
        names.push(format!("localhost:{port}"));
    }
    names.dedup();
    names
}

/// Writes the folders of `names` for the instance whose data is in `data`, and removes those of other
/// addresses it had before.
pub fn write(
    certificates: &Path,
    names: &[String],
    data: &Path,
    ca_pem: &str,
    user: &KeyedCertificate,
) -> anyhow::Result<()> {
    remove(certificates, data)?;
    for name in names {
        let folder = certificates.join(name);
        let foreign = folder.exists() && !folder.join(OWNER).exists();
        if foreign {
            tracing::info!(folder = %folder.display(), "not ours; left as it is");
            continue;
        }
        durable::create_directory(&folder, 0o755).with_context(|| folder.display().to_string())?;
        for (file, content, mode) in [
            (OWNER, data.as_os_str().as_encoded_bytes(), 0o644),
            ("ca.crt", ca_pem.as_bytes(), 0o644),
            ("client.cert", user.certificate_pem.as_bytes(), 0o644),
            ("client.key", user.key_pem.expose().as_bytes(), 0o600),
        ] {
            let path = folder.join(file);
            durable::write_atomic(&path, content, mode).with_context(|| path.display().to_string())?;
        }
    }
    Ok(())
}

/// Removes the folders of the instance whose data is, or was, in `data`.
pub fn remove(certificates: &Path, data: &Path) -> anyhow::Result<()> {
    for entry in fs::read_dir(certificates).into_iter().flatten().flatten() {
        let owner = fs::read(entry.path().join(OWNER)).unwrap_or_default();
        if owner == data.as_os_str().as_encoded_bytes() {
            durable::remove_all(&entry.path()).with_context(|| entry.path().display().to_string())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn clients_find_every_name_and_nothing_of_others_is_touched() {
        let host = tempfile::tempdir().expect("a temporary directory");
        let (certificates, data) = (host.path().join("certs.d"), host.path().join("data"));
        let authority = gantry_base::pki::CertificateAuthority::open(&host.path().join("pki"), "t")
            .expect("an authority");
        let user = authority.client_certificate("admin", "admin", &[]).expect("a certificate");
        let taken = certificates.join("localhost:7000");
        fs::create_dir_all(&taken).expect("somebody's folder");
        let listen = |text: &str| names(text.parse().expect("an address"));
        let put = |names: &[String]| {
            write(&certificates, names, &data, authority.certificate_pem(), &user).expect("written");
        };
        put(&listen("0.0.0.0:7000"));
        let key = certificates.join("127.0.0.1:7000/client.key");
        assert_eq!(fs::metadata(&key).expect("the key").permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(&taken).expect("still there").count(), 0);
        put(&listen("192.0.2.1:8000"));
        assert!(!key.exists(), "an address that is no longer listened on is forgotten");
        assert!(certificates.join("192.0.2.1:8000/ca.crt").exists());
        remove(&certificates, &data).expect("removed");
        assert_eq!(fs::read_dir(&certificates).expect("listed").count(), 1, "only somebody's folder is left");
    }
}
