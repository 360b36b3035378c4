//! Images, signatures and advisories from one instance to another that has no way to the first.

use std::path::Path;
use std::process::Command;

use gantry_testkit::{Instance, Output, eventually_some, run, run_with_input};
use serde_json::Value;

use crate::support::{IDLE, SOON, expect_output, has_all, tools_pod, wait_ready};

fn example() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/vulnerable-image")
}

/// The first instance, with what is carried away from it.
struct Connected {
    gantry: Instance,
    key: String,
    public: String,
}

impl Connected {
    fn set() -> Option<Self> {
        let gantry = Instance::builder().no_node().start()?;
        let prefix = gantry.scratch().join("cosign").display().to_string();
        let this = Self { gantry, key: format!("{prefix}.key"), public: format!("{prefix}.pub") };
        this.with_password(&[
            "image",
            "generate-key-pair",
            "--output-key-prefix",
            &prefix,
            "--password-stdin",
        ])
        .ok();
        Some(this)
    }

    fn with_password(&self, arguments: &[&str]) -> Output {
        run_with_input(&mut self.gantry.gantry_command(arguments), b"a password\n")
    }

    fn file(&self, name: &str) -> String {
        self.gantry.scratch().join(name).display().to_string()
    }

    /// Advisories of the example, and an image in which they find something.
    fn advisories_and_images(&self) {
        let source = self.gantry.scratch().join("osv");
        std::fs::create_dir_all(&source).expect("a folder");
        for entry in std::fs::read_dir(example().join("advisories")).expect("the example's") {
            let entry = entry.expect("an entry");
            let text = std::fs::read_to_string(entry.path()).expect("text");
            let text = text.replace("@NOW@", "2026-01-01T00:00:00Z");
            std::fs::write(source.join(entry.file_name()), text).expect("written");
        }
        let source = source.display().to_string();
        self.gantry.gantry(&["advisories", "update", &source, "--directory", &self.file("advisories")]).ok();
        let old = example().join("image").display().to_string();
        let pack = ["image", "pack", &old, "--destination", "/", "--tag", "demo/old:1", "--cmd", "/none"];
        self.gantry.gantry(&pack).ok();
        self.gantry.push_tools();
        // Its bill of materials is beside it once it was scanned.
        self.gantry.gantry(&["image", "report", "demo/tools:1"]).ok();
        for image in ["demo/old:1", "demo/tools:1"] {
            self.with_password(&["image", "sign", "--key", &self.key, "--password-stdin", image]).ok();
        }
    }

    fn bundle(&self, name: &str, arguments: &[&str]) -> Output {
        let path = self.file(name);
        let base = ["bundle", "create", "-o", &path, "--key", &self.key, "--password-stdin"];
        self.with_password(&[&base[..], arguments].concat())
    }
}

/// The same advisories in a directory, and from there to the server, which knows how old its own are.
fn advisories_of_this_machine_and_the_server(site: &Instance, load: &[&str]) {
    let here = site.scratch().join("here").display().to_string();
    let into = [load, &["--advisories-directory", &here]].concat();
    has_all(&site.gantry(&into).ok(), &[&here, "2 advisories installed"]);
    has_all(&site.gantry(&["advisories", "push", "--directory", &here]).ok(), &["2 advisories kept"]);
    site.gantry(&["advisories", "update", "--directory", &here]).ok();
    has_all(&site.gantry(&["advisories", "push", "--directory", &here]).ok(), &["2 advisories installed"]);
    let status = site.gantry(&["advisories", "status", "--server"]).ok();
    has_all(&status, &["Advisories:", "SOURCE", &site.data_dir().join("advisories").display().to_string()]);
}

#[test]
fn a_bundle_carries_images_signatures_and_advisories() {
    let Some(connected) = Connected::set() else { return };
    connected.advisories_and_images();
    let advisories = connected.file("advisories");
    let all = ["--advisories", "--advisories-directory", &advisories, "demo/old:1", "demo/tools:1"];
    connected.bundle("site.tar", &all).ok();
    has_all(&connected.bundle("x.tar", &["demo/none:1"]).fails(), &["no such image: demo/none:1"]);
    assert!(!Path::new(&connected.file("x.tar")).exists());
    others_read_it(&connected);

    let Some(site) = Instance::start() else { return };
    let bundle = site.scratch().join("site.tar").display().to_string();
    std::fs::copy(connected.file("site.tar"), &bundle).expect("carried");
    let public = site.scratch().join("cosign.pub").display().to_string();
    std::fs::copy(&connected.public, &public).expect("carried");
    // Nothing of the first is there any more.
    connected.gantry.down(&[]).ok();

    changed_ones_are_refused(&site, &bundle, &public);
    let load = ["bundle", "load", &bundle, "--key", &public];
    let said = site.gantry(&load).ok();
    has_all(&said, &["demo/old:1@sha256:", "demo/tools:1@sha256:", "2 advisories installed"]);
    for image in ["demo/old:1", "demo/tools:1"] {
        has_all(&site.gantry(&["image", "verify", "--key", &public, image]).ok(), &["with key sha256:"]);
    }
    // Signatures and bills of materials are where OCI clients look for them.
    let described = "application/vnd.cyclonedx";
    has_all(&site.gantry(&["bundle", "inspect", &bundle]).ok(), &[described]);
    eventually_some("it is compared with what came", SOON, || {
        let out = site.gantry(&["image", "report", "demo/old:1"]);
        if out.stdout.contains("CVE-0000-0001") { Ok(()) } else { Err(out) }
    });
    site.apply(&tools_pod("carried", &format!("echo it runs; {IDLE}")).to_string());
    wait_ready(&site, "pod/carried");
    expect_output(&site, &["logs", "carried"], "it runs");

    // Again, and elsewhere.
    has_all(&site.gantry(&load).ok(), &["demo/old:1@sha256:", "2 advisories kept"]);
    advisories_of_this_machine_and_the_server(&site, &load);
    let other = ["bundle", "load", &bundle, "--key", &public, "--into", "acme/web", "--no-advisories"];
    has_all(&site.gantry(&other).ok(), &["acme/web/demo/old:1@sha256:"]);
    site.gantry(&["image", "verify", "--key", &public, "acme/web/demo/tools:1"]).ok();
    has_all(&site.gantry(&["registry", "fsck"]).ok(), &["repositories"]);
}

/// It is an image layout with a signature that openssl verifies.
fn others_read_it(connected: &Connected) {
    let folder = connected.gantry.scratch().join("opened");
    std::fs::create_dir_all(&folder).expect("a folder");
    let bundle = connected.file("site.tar");
    let here =
        |program: &str, words: &[&str]| run(Command::new(program).args(words).current_dir(&folder)).ok();
    here("tar", &["-xf", &bundle, "bundle.json", "bundle.json.sig"]);
    here("sh", &["-c", "base64 -d bundle.json.sig > raw.sig"]);
    let verify = ["dgst", "-sha256", "-verify", &connected.public, "-signature", "raw.sig", "bundle.json"];
    has_all(&here("openssl", &verify), &["Verified OK"]);
    here(
        "skopeo",
        &["--insecure-policy", "copy", &format!("oci-archive:{bundle}:demo/tools:1"), "dir:tools"],
    );
    let said = connected.gantry.gantry(&["bundle", "inspect", &bundle, "-o", "json"]).ok();
    let said: Value = serde_json::from_str(&said).expect("JSON");
    assert_eq!((&said["signed"], &said["bundle"]["advisories"]["count"]), (&true.into(), &2.into()));
    let verified = ["bundle", "inspect", &bundle, "--key", &connected.public, "--check"];
    has_all(&connected.gantry.gantry(&verified).ok(), &["by key sha256:", "is what it says", "demo/tools"]);
}

fn changed_ones_are_refused(site: &Instance, bundle: &str, public: &str) {
    let bad = site.scratch().join("bad.tar").display().to_string();
    let listed = site.gantry(&["bundle", "inspect", bundle, "-o", "json"]).ok();
    let listed: Value = serde_json::from_str(&listed).expect("JSON");
    let entries = listed["bundle"]["entries"].as_array().expect("entries");
    let largest = entries.iter().max_by_key(|entry| entry["sizeBytes"].as_u64()).expect("an entry");
    let largest = largest["name"].as_str().expect("a name");
    // The place of each entry is where tar says that it is.
    let change = "import tarfile, sys, shutil
source, target, name, find, put = sys.argv[1:]
shutil.copy(source, target)
member = tarfile.open(source).getmember(name)
with open(target, 'r+b') as file:
    file.seek(member.offset_data)
    content = file.read(member.size)
    changed = content.replace(find.encode(), put.encode()) if find else content[:-9] + bytes([content[-9] ^ 1]) + content[-8:]
    assert changed != content and len(changed) == len(content)
    file.seek(member.offset_data)
    file.write(changed)";
    let changed = |name: &str, find: &str, put: &str| {
        run(Command::new("python3").args(["-c", change, bundle, &bad, name, find, put])).ok();
        site.gantry(&["bundle", "load", &bad, "--key", public]).fails()
    };
    has_all(&changed(largest, "", ""), &["was changed", largest, "has the digest"]);
    has_all(&changed("advisories/advisories.table", "", ""), &["advisories/advisories.table has the digest"]);
    has_all(&changed("index.json", "", ""), &["index.json has the digest"]);
    has_all(&changed("bundle.json", "demo/tools", "evil/tools"), &["its signature is by none of the keys"]);
    has_all(&site.gantry(&["bundle", "load", bundle]).fails(), &["--key", "--insecure-skip-signature"]);
    let other = site.scratch().join("other").display().to_string();
    let make = ["image", "generate-key-pair", "--output-key-prefix", &other, "--password-stdin"];
    run_with_input(&mut site.gantry_command(&make), b"a password\n").ok();
    let by_other = site.gantry(&["bundle", "load", bundle, "--key", &format!("{other}.pub")]);
    has_all(&by_other.fails(), &["its signature is by none of the keys"]);
    // Of none of them, anything came.
    let list = site.gantry(&["image", "list"]).ok();
    assert!(!list.contains("demo/") && !list.contains("evil/"), "{list}");
}
