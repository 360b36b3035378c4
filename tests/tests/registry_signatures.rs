//! Signatures: made and checked by the CLI, beside openssl, which makes and checks what is underneath by other code.

use std::path::Path;
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use gantry_testkit::{Instance, Output, eventually_some, run, run_with_input};
use serde_json::Value;

use crate::support::{SOON, certificates, has_all};

struct Stage {
    gantry: Instance,
}

impl Stage {
    fn set() -> Option<Self> {
        Some(Self { gantry: Instance::builder().no_node().start()? })
    }

    fn file(&self, name: &str) -> String {
        self.gantry.scratch().join(name).display().to_string()
    }

    /// `gantry image …` with the password of the key.
    fn image(&self, arguments: &[&str]) -> Output {
        let mut command = self.gantry.gantry_command(&[&["image"], arguments].concat());
        run_with_input(&mut command, b"a password\n")
    }

    fn key(&self, name: &str) -> (String, String) {
        let prefix = self.file(name);
        self.image(&["generate-key-pair", "--output-key-prefix", &prefix, "--password-stdin"]).ok();
        (format!("{prefix}.key"), format!("{prefix}.pub"))
    }

    /// A request by an administrator.
    fn get(&self, path: &str) -> String {
        let pki = self.gantry.data_dir().join("pki");
        let file = |name: &str| pki.join(name).display().to_string();
        let url = format!("https://{}{path}", self.gantry.registry());
        let mut command = Command::new("curl");
        command.args(["-sSf", "--max-time", "30", "--cacert", &file("ca.crt"), "--cert", &file("admin.crt")]);
        run(command.args(["--key", &file("admin.key"), &url])).ok()
    }

    /// Looks at the signature as cosign does, with openssl in the place of its cryptography.
    fn openssl_verifies(&self, public: &str, repository: &str, digest: &str) -> bool {
        let tag = format!("{}.sig", digest.replace(':', "-"));
        let manifest: Value =
            serde_json::from_str(&self.get(&format!("/v2/{repository}/manifests/{tag}"))).expect("JSON");
        let layer = &manifest["layers"][0];
        assert_eq!(layer["mediaType"], "application/vnd.dev.cosign.simplesigning.v1+json");
        let payload =
            self.get(&format!("/v2/{repository}/blobs/{}", layer["digest"].as_str().expect("a digest")));
        let said: Value = serde_json::from_str(&payload).expect("JSON");
        assert_eq!(said["critical"]["image"]["docker-manifest-digest"], digest);
        assert_eq!(said["critical"]["type"], "cosign container image signature");
        let signature =
            layer["annotations"]["dev.cosignproject.cosign/signature"].as_str().expect("a signature");
        let files = [self.file("payload"), self.file("signature")];
        std::fs::write(&files[0], payload).expect("written");
        std::fs::write(&files[1], STANDARD.decode(signature).expect("Base64")).expect("written");
        let words = ["dgst", "-sha256", "-verify", public, "-signature", &files[1], &files[0]];
        run(Command::new("openssl").args(words)).succeeded()
    }
}

#[test]
fn images_are_signed_and_verified_with_keys_and_certificates() {
    let Some(stage) = Stage::set() else { return };
    let archive = stage.file("image.tar");
    stage.image(&["pack", "/bin/true", "--tag", "demo/x:1"]).ok();
    stage.image(&["pack", "/bin/ls", "--tag", "demo/x:2"]).ok();
    stage.image(&["pack", "/bin/cat", "--tag", "x:1", "--output", &archive]).ok();
    let ((key, public), (_, other)) = (stage.key("mine"), stage.key("other"));
    let mode =
        std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&key).expect("a key").permissions());
    assert_eq!(mode & 0o777, 0o600);
    has_all(
        &stage
            .image(&["generate-key-pair", "--output-key-prefix", &stage.file("mine"), "--password-stdin"])
            .fails(),
        &["is there already"],
    );

    has_all(
        &stage.image(&["verify", "--key", &public, "demo/x:1"]).fails(),
        &["demo/x@sha256:", "has no signature"],
    );
    let signed = stage.image(&["sign", "--key", &key, "--password-stdin", "demo/x:1"]).ok();
    has_all(
        &stage.image(&["verify", "--key", &public, "demo/x:1"]).ok(),
        &[signed.trim(), "signed as", "with key sha256:"],
    );
    has_all(&stage.image(&["verify", "--key", &other, "demo/x:1"]).fails(), &["none of the keys"]);
    has_all(&stage.image(&["verify", "--key", &public, "demo/x:2"]).fails(), &["has no signature"]);
    let said = stage.image(&["verify", "--key", &other, "--key", &public, "-o", "json", "demo/x:1"]).ok();
    let said: Value = serde_json::from_str(&said).expect("JSON");
    let reference = format!("{}/demo/x", stage.gantry.registry());
    assert_eq!(said["signatures"][0]["reference"], reference.as_str());

    // Ours, checked by other code.
    let (repository, digest) = signed.trim().split_once('@').expect("a digest");
    assert!(stage.openssl_verifies(&public, repository, digest));
    assert!(!stage.openssl_verifies(&other, repository, digest));
    // A second signature stands beside the first.
    stage.image(&["sign", "--key", &stage.file("other.key"), "--password-stdin", "demo/x:1"]).ok();
    for public in [&public, &other] {
        stage.image(&["verify", "--key", public, "demo/x:1"]).ok();
    }
    reports_say_whether_it_is_signed(&stage, &public);
    signed_with_a_certificate(&stage, &archive);
    skopeo_takes_signatures_along(&stage, &public);
}

/// skopeo finds signatures where cosign puts them, and takes them along. It could also make and believe them, but
/// Debian's is built without.
fn skopeo_takes_signatures_along(stage: &Stage, public: &str) {
    let host = stage.gantry.registry();
    let certificates = certificates(&stage.gantry).display().to_string();
    let attachments = stage.gantry.scratch().join("registries.d");
    std::fs::create_dir(&attachments).expect("a folder");
    let all = "default-docker:\n  use-sigstore-attachments: true\n";
    std::fs::write(attachments.join("all.yaml"), all).expect("written");
    let copy = |from: &str, to: &str| {
        let mut command = Command::new("skopeo");
        command.args(["--insecure-policy", "--registries.d"]).arg(&attachments).arg("copy");
        command.args(["--src-cert-dir", &certificates, "--dest-cert-dir", &certificates]);
        run(command.args([from, to].map(|name| format!("docker://{host}/{name}")))).ok();
    };
    copy("demo/x:1", "demo/carried:1");
    has_all(&stage.image(&["verify", "--key", public, "demo/carried:1"]).ok(), &["with key sha256:"]);
    copy("demo/x:2", "demo/carried:2");
    has_all(&stage.image(&["verify", "--key", public, "demo/carried:2"]).fails(), &["has no signature"]);
}

fn reports_say_whether_it_is_signed(stage: &Stage, public: &str) {
    let outcome = |name: &str| {
        let report: Value =
            serde_json::from_str(&stage.image(&["report", name, "--format", "json"]).ok()).expect("JSON");
        let checks = report["compliance"]["checks"].as_array().expect("checks").clone();
        let check = checks.into_iter().find(|check| check["id"] == "unsigned-image").expect("the check");
        (
            check["outcome"].to_string(),
            check["evidence"][0]["message"].as_str().unwrap_or_default().to_owned(),
        )
    };
    assert_eq!(outcome("demo/x:1").0, "\"passed\"");
    assert_eq!(outcome("demo/x:2"), ("\"failed\"".to_owned(), "it has no signature".to_owned()));
    // With a policy, a signature of somebody else is none.
    let policy = |key: &str| {
        let key = std::fs::read_to_string(key).expect("a key");
        let policy = serde_json::json!({ "apiVersion": "registry.gantry.dev/v1alpha1", "kind": "ImagePolicy",
            "metadata": { "name": "signed" }, "spec": { "deploy": { "signature": { "keys": [key] } } } });
        stage.gantry.apply(&policy.to_string());
    };
    policy(&stage.key("third").1);
    eventually_some("the third has not signed", SOON, || {
        let (outcome, why) = outcome("demo/x:1");
        if outcome == "\"failed\"" && why.contains("none of the keys") { Ok(()) } else { Err(why) }
    });
    policy(public);
    eventually_some("one has", SOON, || match outcome("demo/x:1") {
        (outcome, _) if outcome == "\"passed\"" => Ok(()),
        (_, why) => Err(why),
    });
    stage.gantry.kubectl(&["delete", "imagepolicy", "signed"]).ok();
}

fn openssl(directory: &Path, arguments: &[&str]) {
    run(Command::new("openssl").args(arguments).current_dir(directory)).ok();
}

fn signed_with_a_certificate(stage: &Stage, archive: &str) {
    let scratch = stage.gantry.scratch();
    std::fs::write(
        scratch.join("leaf.cnf"),
        "extendedKeyUsage = codeSigning\nsubjectAltName = email:alice@example.org\n",
    )
    .expect("a file");
    for arguments in [
        "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout root.key -out root.pem -subj /CN=root -days 2",
        "genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out leaf.key",
        "req -new -key leaf.key -subj /CN=alice -out leaf.csr",
        "x509 -req -in leaf.csr -CA root.pem -CAkey root.key -CAcreateserial -extfile leaf.cnf -days 1 -out leaf.pem",
        "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout no.key -out no.pem -subj /CN=no -days 2",
    ] {
        openssl(&scratch, &arguments.split(' ').collect::<Vec<_>>());
    }
    stage.image(&["load", archive, "--tag", "demo/certified:1"]).ok();
    let (key, leaf) = (stage.file("leaf.key"), stage.file("leaf.pem"));
    stage.image(&["sign", "--key", &key, "--certificate", &leaf, "demo/certified:1"]).ok();
    let verify = |root: &str, more: &[&str]| {
        let words = ["verify", "--certificate-chain", &stage.file(root)];
        stage.image(&[&words[..], more, &["demo/certified:1"]].concat())
    };
    has_all(&verify("root.pem", &[]).ok(), &["certificate of alice@example.org"]);
    verify("root.pem", &["--certificate-identity", "*@example.org"]).ok();
    has_all(
        &verify("root.pem", &["--certificate-identity", "bob@*"]).fails(),
        &["alice@example.org, who is not among"],
    );
    has_all(&verify("no.pem", &[]).fails(), &["does not lead to a root"]);
}
