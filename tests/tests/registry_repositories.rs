//! Repositories of projects, domains and the platform: who may do what, with people's tokens and robots' credentials.

use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use gantry_testkit::{Instance, Output, eventually_some, run};
use serde_json::Value;

use crate::people::Person;
use crate::support::{SOON, has_all};

/// An instance with two organisations, an image, and skopeo without any certificate of its own.
struct Stage {
    gantry: Instance,
    alice: Person,
    eve: Person,
    archive: String,
    /// Trusts the registry and proves nothing.
    certs: String,
}

impl Stage {
    fn set() -> Option<Self> {
        // What is counted here is what was pushed: bills of materials come when they come.
        let config = "[registry]\nscan = false\n";
        let gantry = Instance::builder().no_node().file("config.toml", config).start()?;
        for arguments in [
            &["domain", "create", "acme"][..],
            &["domain", "create", "globex"],
            &["project", "create", "acme/web", "--environment", "dev"],
            &["project", "create", "acme/ops", "--environment", "dev"],
            &["project", "create", "globex/lab", "--environment", "dev", "--id", "lab"],
        ] {
            gantry.gantry(arguments).ok();
        }
        let (alice, eve) =
            (Person::signed_in(&gantry, "acme/alice"), Person::signed_in(&gantry, "globex/eve"));
        for (role, user, project) in [
            ("admin", "acme/alice", "acme/web"),
            ("reader", "acme/alice", "acme/ops"),
            ("admin", "globex/eve", "globex/lab"),
        ] {
            gantry.gantry(&["assign", role, "--user", user, "--project", project]).ok();
        }
        let archive = gantry.scratch().join("image.tar").display().to_string();
        gantry.gantry(&["image", "pack", "/bin/true", "--tag", "x:1", "--output", &archive]).ok();
        let certs = gantry.scratch().join("ca-only");
        std::fs::create_dir_all(&certs).expect("a folder");
        std::fs::copy(gantry.data_dir().join("pki/ca.crt"), certs.join("ca.crt")).expect("the authority");
        let certs = certs.display().to_string();
        Some(Self { gantry, alice, eve, archive, certs })
    }

    fn image(&self, repository: &str) -> String {
        format!("docker://{}/{repository}", self.gantry.registry())
    }

    /// An archive with an image of the program.
    fn packed(&self, program: &str) -> String {
        let name = program.replace('/', "-");
        let archive = self.gantry.scratch().join(format!("{name}.tar")).display().to_string();
        self.gantry.gantry(&["image", "pack", program, "--tag", "x:1", "--output", &archive]).ok();
        archive
    }

    /// skopeo with `NAME:PASSWORD`.
    fn push(&self, credentials: &str, repository: &str) -> Output {
        self.push_archive(&self.archive, credentials, repository)
    }

    fn push_archive(&self, archive: &str, credentials: &str, repository: &str) -> Output {
        let (from, to) = (format!("oci-archive:{archive}"), self.image(repository));
        run(Command::new("skopeo")
            .args(["--insecure-policy", "copy", "--dest-cert-dir", &self.certs])
            .args(["--dest-creds", credentials, &from, &to]))
    }

    fn pull(&self, credentials: &str, repository: &str) -> Output {
        let words = ["inspect", "--raw", "--cert-dir", &self.certs, "--creds", credentials];
        run(Command::new("skopeo").args(words).arg(self.image(repository)))
    }

    /// An application credential of alice's, as a user name and a password.
    fn robot(&self, name: &str, role: &str) -> String {
        let arguments = ["application-credential", "create", name, "--project", "acme/web", "--role", role];
        let said = self.alice.gantry(&arguments).ok();
        let field = |label: &str| {
            let line = said.lines().find_map(|line| line.strip_prefix(label));
            line.unwrap_or_else(|| panic!("{label} in {said}")).trim().to_owned()
        };
        format!("app:{}:{}", field("Id:"), field("Secret:"))
    }

    fn token_of(&self, person: &Person) -> String {
        format!("any:{}", person.gantry(&["token", "--raw"]).ok().trim())
    }

    /// A request to the registry: status and body.
    fn ask(&self, arguments: &[&str], path: &str) -> (String, String) {
        let ca = self.gantry.data_dir().join("pki/ca.crt").display().to_string();
        let url = format!("https://{}{path}", self.gantry.registry());
        let base = ["-sS", "--max-time", "10", "--cacert", &ca, "-w", "\n%{http_code}"];
        let said = run(Command::new("curl").args(base).args(arguments).arg(&url)).ok();
        let (body, status) = said.rsplit_once('\n').expect("a status");
        (status.to_owned(), body.to_owned())
    }
}

/// Waits until the object says so.
#[track_caller]
fn shows(gantry: &Instance, object: &str, path: &str, wanted: &str) {
    eventually_some(&format!("{object} {path} is {wanted}"), SOON, || {
        let seen = gantry.jsonpath(&["repository", object], path);
        if seen == wanted { Ok(()) } else { Err(seen) }
    });
}

#[test]
fn repositories_are_objects_with_owners_and_shares() {
    let Some(stage) = Stage::set() else { return };
    let Stage { gantry, alice, eve, .. } = &stage;
    let (alices, eves) = (stage.token_of(alice), stage.token_of(eve));
    stage.push(&alices, "acme/web/front:1").ok();
    stage.push(&alices, "acme/web/front:2").ok();
    has_all(&stage.push(&alices, "acme/ops/tool:1").fails().to_lowercase(), &["denied"]);
    has_all(&stage.push(&alices, "demo/mine:1").fails().to_lowercase(), &["denied"]);
    shows(gantry, "acme.web.front", "{.status.tags}", "2");
    shows(gantry, "acme.web.front", "{.status.owner}", "project acme/web");
    let listed = alice.kubectl(&["get", "repositories"]).ok();
    has_all(&listed, &["REPOSITORY", "OWNER", "acme/web/front", "project acme/web", "private", "MiB"]);
    has_all(&eve.kubectl(&["get", "repositories"]).stderr, &["No resources found"]);
    has_all(&eve.kubectl(&["get", "repository", "acme.web.front"]).fails(), &["acme.web.front"]);
    has_all(
        &eve.gantry(&["repository", "show", "acme/web/front"]).fails(),
        &["no repository acme/web/front"],
    );

    // What is another's is told as what is not there.
    let refused = |path: &str| stage.ask(&["-u", &eves], path);
    let (there, nowhere) =
        (refused("/v2/acme/web/front/manifests/1"), refused("/v2/acme/web/nothing/manifests/1"));
    assert_eq!(there.0, "403");
    assert_eq!(there, (nowhere.0, nowhere.1.replace("nothing", "front")));

    // Shared with another organisation's project: to pull, then to push.
    has_all(&stage.pull(&eves, "acme/web/front:1").fails().to_lowercase(), &["denied"]);
    alice.gantry(&["repository", "share", "acme/web/front", "--project", "lab"]).ok();
    let pulled = eventually_some("the share holds", SOON, || {
        let out = stage.pull(&eves, "acme/web/front:1");
        if out.succeeded() { Ok(out.ok()) } else { Err(out.to_string()) }
    });
    has_all(&pulled, &["application/vnd.oci.image"]);
    has_all(&stage.push(&eves, "acme/web/front:3").fails().to_lowercase(), &["denied"]);
    has_all(&eve.kubectl(&["get", "repositories"]).ok(), &["acme/web/front"]);
    has_all(
        &eve.gantry(&["repository", "set", "acme/web/front", "--visibility", "public"]).fails(),
        &["manager"],
    );
    alice.gantry(&["repository", "share", "acme/web/front", "--project", "lab", "--access", "push"]).ok();
    eventually_some("eve pushes", SOON, || {
        let out = stage.push(&eves, "acme/web/front:3");
        if out.succeeded() { Ok(()) } else { Err(out.to_string()) }
    });
    let (status, catalog) = stage.ask(&["-u", &eves], "/v2/_catalog");
    assert_eq!((status.as_str(), catalog.as_str()), ("200", r#"{"repositories":["acme/web/front"]}"#));
    alice.gantry(&["repository", "unshare", "acme/web/front", "--project", "lab"]).ok();
    eventually_some("the share is gone", SOON, || {
        let out = stage.pull(&eves, "acme/web/front:1");
        if out.succeeded() { Err("pulled".to_owned()) } else { Ok(()) }
    });

    // Public: whoever is signed in, and nobody else.
    alice.gantry(&["repository", "set", "acme/web/front", "--visibility", "public"]).ok();
    eventually_some("eve pulls what is public", SOON, || {
        let out = stage.pull(&eves, "acme/web/front:1");
        if out.succeeded() { Ok(()) } else { Err(out.to_string()) }
    });
    let (status, _) = stage.ask(&[], "/v2/acme/web/front/manifests/1");
    assert_eq!(status, "401");

    owners_do_not_change(&stage);
    the_content_goes_with_the_object(&stage, &alices);
}

/// Neither by editing nor by a new project of the old one's name.
fn owners_do_not_change(stage: &Stage) {
    let Stage { gantry, alice, eve, .. } = stage;
    let patch = r#"{"spec":{"owner":{"project":"lab"}}}"#;
    let edit = ["patch", "repository", "acme.web.front", "--type=merge", "-p", patch];
    has_all(&alice.kubectl(&edit).fails(), &["the owner of a repository cannot change"]);
    gantry.gantry(&["project", "set", "acme/web", "--name", "site"]).ok();
    eventually_some("the name is free", SOON, || {
        let out = gantry.gantry(&["project", "create", "acme/web", "--environment", "test"]);
        if out.succeeded() { Ok(()) } else { Err(out.to_string()) }
    });
    gantry.gantry(&["assign", "admin", "--user", "globex/eve", "--project", "acme/web"]).ok();
    shows(gantry, "acme.web.front", "{.spec.owner.project}", &{
        let text = gantry.gantry(&["project", "get", "acme/site", "-o", "json"]).ok();
        let project: Value = serde_json::from_str(&text).expect("JSON");
        project["metadata"]["name"].as_str().expect("a name").to_owned()
    });
    let eves = stage.token_of(eve);
    // What is new there is hers; what is old stays theirs.
    eventually_some("eve pushes something new", SOON, || {
        let out = stage.push(&eves, "acme/web/new:1");
        if out.succeeded() { Ok(()) } else { Err(out.to_string()) }
    });
    has_all(&stage.push(&eves, "acme/web/front:4").fails().to_lowercase(), &["denied"]);
    stage.push(&stage.token_of(alice), "acme/web/front:4").ok();
}

fn the_content_goes_with_the_object(stage: &Stage, alices: &str) {
    let Stage { alice, .. } = stage;
    alice.kubectl(&["delete", "repository", "acme.web.front", "--timeout=30s"]).ok();
    // The name is another project's now, and alice has no part in it.
    let admin = stage.gantry.gantry(&["image", "inspect", "acme/web/front:1"]);
    has_all(&admin.fails(), &["no such image"]);
    has_all(&stage.pull(alices, "acme/web/front:1").fails().to_lowercase(), &["denied"]);
}

#[test]
fn operators_collect_garbage_and_check_the_store() {
    let Some(stage) = Stage::set() else { return };
    let Stage { gantry, alice, .. } = &stage;
    stage.push(&stage.token_of(alice), "acme/web/front:1").ok();
    has_all(&gantry.gantry(&["registry", "gc"]).ok(), &["0 blobs removed"]);
    has_all(&gantry.gantry(&["registry", "fsck"]).ok(), &["1 repositories, 1 manifests, 2 blobs"]);
    for command in ["gc", "fsck"] {
        has_all(&alice.gantry(&["registry", command]).fails(), &["forbidden", "operator"]);
    }
    // What was damaged on the disk is found, and named.
    let text = gantry.gantry(&["image", "inspect", "acme/web/front:1"]).ok();
    let shown: Value = serde_json::from_str(&text).expect("JSON");
    let digest = shown[0]["manifest"]["layers"][0]["digest"].as_str().expect("a layer");
    let hex = digest.strip_prefix("sha256:").expect("a digest");
    let path = gantry.data_dir().join("registry/blobs/sha256").join(&hex[..2]).join(hex);
    let mut content = std::fs::read(&path).expect("the layer");
    content[100] ^= 1;
    std::fs::write(&path, content).expect("written");
    gantry.gantry(&["registry", "fsck", "--quick"]).ok();
    let checked = gantry.gantry(&["registry", "fsck", "-o", "json"]);
    let found: Value = serde_json::from_str(&checked.stdout).expect("JSON");
    assert_eq!((&found["problems"], &found["listed"][0]["digest"]), (&1.into(), &digest.into()));
    has_all(&checked.fails(), &["1 problems"]);
}

#[test]
fn rules_hold_for_tags_sizes_rates_and_quotas() {
    let Some(stage) = Stage::set() else { return };
    let Stage { gantry, alice, .. } = &stage;
    let alices = stage.token_of(alice);
    let set = |arguments: &[&str]| {
        let words = [&["repository", "set", "acme/web/front"], arguments].concat();
        alice.gantry(&words).ok();
    };
    let (other, third) = (stage.packed("/bin/ls"), stage.packed("/bin/cat"));
    // A rule holds when the registry has seen it: until then a push may still go through.
    let refused = |archive: &str, tag: &str, word: &str| {
        eventually_some(&format!("{tag} is refused: {word}"), SOON, || {
            let out = stage.push_archive(archive, &alices, tag);
            if out.stderr.contains(word) { Ok(()) } else { Err(out.to_string()) }
        });
    };
    for tag in ["v1", "v2", "dev"] {
        stage.push(&alices, &format!("acme/web/front:{tag}")).ok();
    }
    set(&["--immutable-tags", "v*"]);
    eventually_some("v1 is immutable", SOON, || {
        let out = alice.gantry(&["image", "rm", "acme/web/front:v1"]);
        // Where the rule came late, the tag is put back.
        if out.succeeded() {
            stage.push(&alices, "acme/web/front:v1").ok();
        }
        if out.stderr.contains("immutable") { Ok(()) } else { Err(out.to_string()) }
    });
    refused(&other, "acme/web/front:v1", "immutable");
    stage.push(&alices, "acme/web/front:v1").ok();
    stage.push_archive(&other, &alices, "acme/web/front:dev").ok();

    set(&["--max-image-size", "10Ki"]);
    refused(&other, "acme/web/front:big", "at most");
    set(&["--max-image-size", "", "--quota", "10Ki"]);
    refused(&third, "acme/web/front:big", "quota of repository acme/web/front");
    // What is there already takes no more room.
    stage.push_archive(&other, &alices, "acme/web/front:again").ok();
    set(&["--quota", ""]);
    gantry.gantry(&["project", "set", "acme/web", "--quota", "images=1Ki"]).ok();
    refused(&third, "acme/web/elsewhere:1", "the quota of project acme/web is 1.0 KiB");
    gantry.gantry(&["project", "set", "acme/web", "--quota", "images="]).ok();

    let keep = ["repository", "retention", "acme/web/front", "--keep", "newest=0"];
    let tried = alice.gantry(&[&keep[..], &["--dry-run"]].concat()).ok();
    has_all(&tried, &["dev\n", "would go"]);
    assert!(!tried.contains("v1"), "immutable: {tried}");
    has_all(
        &alice.gantry(&["repository", "retention", "acme/web/front", "--dry-run"]).ok(),
        &["0 tags and 0 images"],
    );
    alice.gantry(&keep).ok();
    eventually_some("dev goes", SOON, || {
        let out = alice.gantry(&["repository", "retention", "acme/web/front", "--now"]).ok();
        if out.contains("dev\n") { Ok(()) } else { Err(out) }
    });
    has_all(&stage.pull(&alices, "acme/web/front:dev").fails().to_lowercase(), &["unknown"]);
    stage.pull(&alices, "acme/web/front:v1").ok();
    set(&["--pulls-per-minute", "1"]);
    eventually_some("pulls are counted", SOON, || {
        let path = "/v2/acme/web/front/manifests/v1";
        let (status, body) = stage.ask(&["-u", &alices], path);
        if status == "429" && body.contains("1 pulls a minute") { Ok(()) } else { Err(status) }
    });
    has_all(
        &alice.gantry(&["repository", "show", "acme/web/front"]).ok(),
        &["v*", "keep newest=0", "Pulls a minute:"],
    );
}

/// What a project was given is there for it, and for nobody else; with a project and a domain go their images.
#[test]
fn quotas_of_images_nest_and_images_go_with_their_owner() {
    let Some(stage) = Stage::set() else { return };
    let Stage { gantry, alice, .. } = &stage;
    gantry.gantry(&["project", "create", "acme/cart", "--parent", "acme/web", "--environment", "test"]).ok();
    for project in ["acme/cart", "acme/ops"] {
        gantry.gantry(&["assign", "admin", "--user", "acme/alice", "--project", project]).ok();
    }
    let alices = stage.token_of(alice);
    for repository in ["acme/web/front:1", "acme/cart/api:1", "acme/ops/tool:1"] {
        eventually_some(&format!("{repository} is pushed"), SOON, || {
            let out = stage.push(&alices, repository);
            if out.succeeded() { Ok(()) } else { Err(out.to_string()) }
        });
    }
    quotas_of_images_nest(&stage, &alices);
    images_go_with_their_owner(&stage, &alices);
}

fn quotas_of_images_nest(stage: &Stage, alices: &str) {
    let Stage { gantry, .. } = stage;
    let (other, third) = (stage.packed("/bin/ls"), stage.packed("/bin/cat"));
    // A quota holds when the registry has seen it: until then a push may still go through.
    let refused = |repository: &str, words: &[&str]| {
        eventually_some(&format!("{repository} is refused: {words:?}"), SOON, || {
            let out = stage.push_archive(&third, alices, repository);
            if words.iter().all(|word| out.stderr.contains(word)) { Ok(()) } else { Err(out.to_string()) }
        });
    };
    gantry.gantry(&["project", "set", "acme/web", "--quota", "images=10Mi"]).ok();
    let set_cart = |bytes: &str| gantry.gantry(&["project", "set", "acme/cart", "--quota", bytes]);
    has_all(
        &set_cart("images=11Mi").fails(),
        &["quota images of project \"web\" is 10Mi: 11Mi more are asked for, 10Mi are left"],
    );
    set_cart("images=10Mi").ok();
    refused(
        "acme/web/big:1",
        &[
            "the quota of project acme/web is 10.0 MiB (10485760 bytes): 10.0 MiB given to projects below it, ",
            " used, and this image adds ",
            ", 0 B left",
        ],
    );
    // What it was given is there, whatever the one above has.
    stage.push_archive(&other, alices, "acme/cart/api:2").ok();
    gantry.gantry(&["domain", "set", "acme", "--quota", "images=10Mi"]).ok();
    refused(
        "acme/ops/big:1",
        &["the quota of domain acme is 10.0 MiB (10485760 bytes): 10.0 MiB given to projects below it, "],
    );
    stage.push_archive(&third, alices, "acme/cart/api:3").ok();
}

fn images_go_with_their_owner(stage: &Stage, alices: &str) {
    let Stage { gantry, .. } = stage;
    let there = || gantry.kubectl(&["get", "repositories", "-o", "name"]).ok();
    let gone = |names: &[&str]| {
        eventually_some(&format!("{names:?} are gone"), SOON, || {
            let there = there();
            if names.iter().any(|name| there.contains(name)) { Err(there) } else { Ok(()) }
        });
    };
    has_all(&there(), &["acme.web.front", "acme.cart.api", "acme.ops.tool"]);
    // Pushes that came before the quota may have made one or two more.
    let words = ["trusts                   0", "repositories of images   "];
    has_all(&gantry.gantry(&["project", "delete", "acme/web", "--dry-run"]).stderr, &words);
    has_all(&there(), &["acme.web.front", "acme.cart.api"]);
    gantry.gantry(&["project", "delete", "acme/web", "--confirm", "acme/web"]).ok();
    gone(&["acme.web.", "acme.cart."]);
    has_all(&gantry.gantry(&["image", "inspect", "acme/web/front:1"]).fails(), &["no such image"]);
    has_all(&there(), &["acme.ops.tool"]);
    stage.pull(alices, "acme/ops/tool:1").ok();
    // What had been given away is the domain's own again.
    eventually_some("the domain has room", SOON, || {
        let out = stage.push(alices, "acme/ops/more:1");
        if out.succeeded() { Ok(()) } else { Err(out.to_string()) }
    });

    gantry.gantry(&["image", "pack", "/bin/true", "--tag", "acme/base:1"]).ok();
    has_all(&there(), &["acme.base"]);
    gantry.gantry(&["domain", "set", "acme", "--disable"]).ok();
    let deleted = gantry.gantry(&["domain", "delete", "acme", "--confirm", "acme"]);
    has_all(&deleted.stderr, &["With the domain acme go:", "repositories of images   "]);
    deleted.ok();
    gone(&["acme."]);
    has_all(&gantry.gantry(&["image", "inspect", "acme/base:1"]).fails(), &["no such image"]);
}

#[test]
fn a_role_that_pulls_and_does_nothing_else() {
    let Some(stage) = Stage::set() else { return };
    let Stage { gantry, alice, .. } = &stage;
    stage.push(&stage.token_of(alice), "acme/web/front:1").ok();
    let bob = Person::signed_in(gantry, "acme/bob");
    let bobs = stage.token_of(&bob);
    let refused = |out: Output| has_all(&out.fails().to_lowercase(), &["denied"]);
    refused(stage.pull(&bobs, "acme/web/front:1"));

    gantry.gantry(&["role", "create", "acme/puller", "--rule", "registry.gantry.dev/repositories:pull"]).ok();
    let where_it_holds = ["acme/puller", "--user", "acme/bob", "--project", "acme/web"];
    gantry.gantry(&[&["assign"][..], &where_it_holds].concat()).ok();
    let pulled = eventually_some("bob pulls", SOON, || {
        let out = stage.pull(&bobs, "acme/web/front:1");
        if out.succeeded() { Ok(out.ok()) } else { Err(out.to_string()) }
    });
    has_all(&pulled, &["application/vnd.oci.image"]);
    refused(stage.push(&bobs, "acme/web/front:2"));
    refused(stage.push(&bobs, "acme/web/new:1"));
    refused(stage.pull(&bobs, "acme/ops/tool:1"));
    let (status, body) = stage.ask(&["-u", &bobs, "-X", "POST"], "/v2/acme/web/front/blobs/uploads/");
    assert_eq!(status, "403", "{body}");
    has_all(&body, &["DENIED"]);
    has_all(&bob.kubectl(&["get", "pods", "-n", "web-dev"]).fails(), &["pods is forbidden"]);
    bob.gantry(&["repository", "set", "acme/web/front", "--visibility", "public"]).fails();

    gantry.gantry(&[&["unassign"][..], &where_it_holds].concat()).ok();
    eventually_some("bob pulls no more", SOON, || {
        let out = stage.pull(&bobs, "acme/web/front:1");
        if out.succeeded() { Err("pulled".to_owned()) } else { Ok(()) }
    });
    refused(stage.pull(&bobs, "acme/web/front:1"));
}

#[test]
fn robots_do_what_their_credential_says_until_it_is_revoked() {
    let Some(stage) = Stage::set() else { return };
    let alice = &stage.alice;
    let (pusher, puller) = (stage.robot("pusher", "member"), stage.robot("puller", "reader"));
    stage.push(&pusher, "acme/web/front:1").ok();
    stage.pull(&puller, "acme/web/front:1").ok();
    has_all(&stage.push(&puller, "acme/web/front:2").fails().to_lowercase(), &["denied"]);
    // Alice reads the other project, her robots do not.
    has_all(&stage.pull(&pusher, "acme/ops/tool:1").fails().to_lowercase(), &["denied"]);
    let (name, secret) = puller.rsplit_once(':').expect("a secret");
    has_all(&stage.pull(&format!("{name}:wrong{secret}"), "acme/web/front:1").fails(), &["unauthorized"]);
    // By name, as people know it.
    stage.pull(&format!("app:acme/alice/puller:{secret}"), "acme/web/front:1").ok();

    // A token for one thing is no token for another.
    let scope = "/token?service=gantry&scope=repository:acme/web/front:pull";
    let (status, body) = stage.ask(&["-u", &pusher], scope);
    assert_eq!(status, "200", "{body}");
    let token: Value = serde_json::from_str(&body).expect("JSON");
    let header = format!("Authorization: Bearer {}", token["token"].as_str().expect("a token"));
    let pulls = |path: &str| stage.ask(&["-H", &header], path).0;
    assert_eq!(pulls("/v2/acme/web/front/manifests/1"), "200");
    assert_eq!(pulls("/v2/acme/web/other/manifests/1"), "401");
    assert_eq!(stage.ask(&["-H", &header, "-X", "POST"], "/v2/acme/web/front/blobs/uploads/").0, "401");
    assert_eq!(stage.ask(&["-H", &header, "-X", "DELETE"], "/v2/acme/web/front/manifests/1").0, "401");
    assert_eq!(pulls("/api/v1/namespaces/web-dev/pods"), "403", "it opens the registry alone");
    let (_, again) = stage.ask(&["-H", &header], scope);
    has_all(&again, &["cannot be exchanged"]);

    // The form that containerd sends; a secret does not come back as a token to keep.
    let (name, secret) = pusher.rsplit_once(':').expect("a secret");
    let form = format!("grant_type=password&service=gantry&username={name}&password={secret}&scope=x");
    let (status, body) = stage.ask(&["-d", &form], "/token");
    assert_eq!(status, "200", "{body}");
    assert!(!body.contains("refresh_token"), "{body}");

    // What was handed out for a token ends with it, and nobody else's.
    let pulls_of = |token: &str| {
        let (status, body) = stage.ask(&["-H", &format!("Authorization: Bearer {token}")], scope);
        assert_eq!(status, "200", "{body}");
        let handed: Value = serde_json::from_str(&body).expect("JSON");
        format!("Authorization: Bearer {}", handed["token"].as_str().expect("a token"))
    };
    let own = alice.gantry(&["token", "--raw"]).ok();
    let handed = pulls_of(own.trim());
    let asks = |header: &str| stage.ask(&["-H", header], "/v2/acme/web/front/manifests/1").0;
    assert_eq!(asks(&handed), "200");
    alice.gantry(&["logout"]).ok();
    assert_eq!((asks(&handed).as_str(), asks(&header).as_str()), ("401", "200"));
    alice.login(&stage.gantry, &[]).ok();

    // Revoked: neither the credential nor a token made with it.
    alice.gantry(&["application-credential", "delete", "pusher"]).ok();
    assert_eq!(pulls("/v2/acme/web/front/manifests/1"), "401");
    has_all(&stage.pull(&pusher, "acme/web/front:1").fails(), &["unauthorized"]);
    stage.pull(&puller, "acme/web/front:1").ok();
}

/// The image pull secret of a namespace, used as another cluster or a builder would.
struct PullSecret<'a> {
    stage: &'a Stage,
    /// `.dockerconfigjson`, as a file for `--authfile`.
    file: String,
    /// `NAME:PASSWORD` for the registry's address.
    credentials: String,
}

impl<'a> PullSecret<'a> {
    /// As a member of the project reads it.
    fn read(stage: &'a Stage) -> Result<Self, String> {
        let path = r"jsonpath={.data.\.dockerconfigjson}";
        let out = stage.alice.kubectl(&["get", "secret", "gantry-registry", "-n", "web-dev", "-o", path]);
        let text = STANDARD.decode(out.stdout.trim()).map_err(|error| format!("{error}: {out}"))?;
        let config: Value = serde_json::from_slice(&text).map_err(|error| format!("{error}: {out}"))?;
        let auth = config["auths"][stage.gantry.registry()]["auth"].as_str();
        let auth = auth.and_then(|auth| STANDARD.decode(auth).ok()).ok_or_else(|| config.to_string())?;
        let credentials = String::from_utf8(auth).map_err(|error| error.to_string())?;
        let file = stage.gantry.scratch().join("auth.json");
        std::fs::write(&file, text).expect("a file in our own temporary directory");
        Ok(Self { stage, file: file.display().to_string(), credentials })
    }

    fn pull(&self, repository: &str) -> Output {
        let words = ["inspect", "--raw", "--cert-dir", &self.stage.certs, "--authfile", &self.file];
        run(Command::new("skopeo").args(words).arg(self.stage.image(repository)))
    }

    fn push(&self, repository: &str) -> Output {
        let (from, to) = (format!("oci-archive:{}", self.stage.archive), self.stage.image(repository));
        let words = ["--insecure-policy", "copy", "--dest-cert-dir", &self.stage.certs];
        run(Command::new("skopeo").args(words).args(["--dest-authfile", &self.file, &from, &to]))
    }

    /// The status of a request with the credential as it stands in the Secret.
    fn status(&self, path: &str) -> String {
        self.stage.ask(&["-u", &self.credentials], path).0
    }
}

#[test]
fn a_pull_secret_pulls_what_its_project_may_pull_and_opens_nothing_else() {
    let Some(stage) = Stage::set() else { return };
    let Stage { gantry, alice, eve, .. } = &stage;
    gantry.gantry(&["assign", "member", "--user", "acme/alice", "--project", "acme/ops"]).ok();
    let (alices, eves) = (stage.token_of(alice), stage.token_of(eve));
    stage.push(&alices, "acme/web/front:1").ok();
    stage.push(&alices, "acme/ops/tool:1").ok();
    stage.push(&eves, "globex/lab/theirs:1").ok();
    let secret = eventually_some("the secret is there", SOON, || PullSecret::read(&stage));
    has_all(&secret.pull("acme/web/front:1").ok(), &["application/vnd.oci.image"]);
    has_all(&secret.push("acme/web/front:2").fails().to_lowercase(), &["denied"]);
    has_all(&secret.push("acme/web/new:1").fails().to_lowercase(), &["denied"]);
    // Of another project of the same organisation, which alice herself may pull, and of another organisation.
    has_all(&secret.pull("acme/ops/tool:1").fails().to_lowercase(), &["denied"]);
    has_all(&secret.pull("globex/lab/theirs:1").fails().to_lowercase(), &["denied"]);
    gantry.gantry(&["repository", "share", "globex/lab/theirs", "--project", "acme/web"]).ok();
    eventually_some("what is shared with the project is pulled", SOON, || {
        let out = secret.pull("globex/lab/theirs:1");
        if out.succeeded() { Ok(()) } else { Err(out.to_string()) }
    });

    for path in [
        "/api/v1/namespaces/web-dev/pods",
        "/api/v1/namespaces/web-dev/secrets/gantry-registry",
        "/apis/identity.gantry.dev/v1alpha1/projects",
        "/apis/registry.gantry.dev/v1alpha1/repositories",
        "/apis/audit.gantry.dev/v1alpha1/records",
        "/registry/v1/archives",
        "/gantry/health",
        "/gantry/routes",
        "/metrics",
        "/openid/v1/jwks",
        "/api",
    ] {
        assert_eq!(secret.status(path), "403", "{path}");
    }
    assert_eq!(secret.status("/identity/v3/projects"), "401");
    let (_, password) = secret.credentials.split_once(':').expect("a password");
    let header = |token: &str| format!("Authorization: Bearer {token}");
    let pods = "/api/v1/namespaces/web-dev/pods";
    assert_eq!(stage.ask(&["-H", &header(password)], pods).0, "401", "it is no bearer token");

    // The registry's token for it, whatever is asked for, is good for no more.
    let scope = "/token?service=gantry&scope=repository:acme/web/front:pull,push,delete";
    let (status, body) = stage.ask(&["-u", &secret.credentials], scope);
    assert_eq!(status, "200", "{body}");
    let token: Value = serde_json::from_str(&body).expect("JSON");
    let bearer = header(token["token"].as_str().expect("a token"));
    assert_eq!(stage.ask(&["-H", &bearer], "/v2/acme/web/front/manifests/1").0, "200");
    assert_eq!(stage.ask(&["-H", &bearer, "-X", "POST"], "/v2/acme/web/front/blobs/uploads/").0, "401");
    assert_eq!(stage.ask(&["-H", &bearer, "-X", "DELETE"], "/v2/acme/web/front/manifests/1").0, "401");
    assert_eq!(stage.ask(&["-H", &bearer], pods).0, "403");
    has_all(&stage.ask(&["-H", &bearer], scope).1, &["cannot be exchanged"]);

    it_ends_with_the_project_and_with_the_namespace(&secret);
}

fn it_ends_with_the_project_and_with_the_namespace(secret: &PullSecret<'_>) {
    let gantry = &secret.stage.gantry;
    let becomes = |wanted: &str, why: &str| {
        eventually_some(why, SOON, || {
            let status = secret.status("/v2/acme/web/front/manifests/1");
            if status == wanted { Ok(()) } else { Err(status) }
        });
    };
    gantry.gantry(&["project", "set", "acme/web", "--disable"]).ok();
    becomes("401", "a disabled project's secret is worthless");
    gantry.gantry(&["project", "set", "acme/web", "--enable"]).ok();
    becomes("200", "it is good again");
    gantry.gantry(&["project", "environment", "remove", "acme/web", "dev", "--confirm", "web-dev"]).ok();
    becomes("401", "it went with its namespace");
}

#[test]
fn a_pull_secret_that_somebody_edits_is_put_back() {
    let Some(stage) = Stage::set() else { return };
    let Stage { gantry, alice, .. } = &stage;
    stage.push(&stage.token_of(alice), "acme/web/front:1").ok();
    // What it says is another thing every twelve hours, so it is looked at by what it is good for.
    let whole = || {
        let secret = PullSecret::read(&stage)?;
        let out = secret.pull("acme/web/front:1");
        let path = r#"{.type} {.immutable} {.metadata.labels.app\.kubernetes\.io/managed-by}"#;
        let said = gantry.jsonpath(&["secret", "gantry-registry", "-n", "web-dev"], path);
        let wanted = "kubernetes.io/dockerconfigjson  gantry-identity";
        if out.succeeded() && said == wanted { Ok(()) } else { Err(format!("{said}: {out}")) }
    };
    eventually_some("the secret is there", SOON, whole);
    let edit = |how: &[&str]| alice.kubectl(&[how, &["-n", "web-dev"]].concat()).ok();
    let unlabel = ["label", "secret", "gantry-registry", "app.kubernetes.io/managed-by-"];
    let nothing = r#"{"data":{".dockerconfigjson":"e30="}}"#;
    let locked = r#"{"data":{".dockerconfigjson":"e30="},"immutable":true}"#;
    for how in [
        &["delete", "secret", "gantry-registry"][..],
        &["patch", "secret", "gantry-registry", "--type=merge", "-p", nothing],
        &["patch", "secret", "gantry-registry", "--type=merge", "-p", locked],
        &unlabel,
    ] {
        edit(how);
        eventually_some(&format!("{how:?} is repaired"), SOON, whole);
    }
    // Another of the name, in the moment in which there is none; the platform may have been faster.
    edit(&["delete", "secret", "gantry-registry"]);
    let other = ["create", "secret", "generic", "gantry-registry", "-n", "web-dev", "--from-literal=a=b"];
    drop(alice.kubectl(&other));
    eventually_some("it is the platform's again", SOON, whole);

    let account = |wanted: &str| {
        eventually_some(&format!("pods pull with {wanted}"), SOON, || {
            let path = "{.imagePullSecrets[*].name}";
            let seen = gantry.jsonpath(&["serviceaccount", "default", "-n", "web-dev"], path);
            if seen == wanted { Ok(()) } else { Err(seen) }
        });
    };
    account("gantry-registry");
    let theirs = r#"{"imagePullSecrets":[{"name":"quay"}]}"#;
    edit(&["patch", "serviceaccount", "default", "--type=merge", "-p", theirs]);
    account("quay gantry-registry");
    edit(&["delete", "serviceaccount", "default"]);
    account("gantry-registry");
    alice.kubectl(&["run", "front", "--image=acme/web/front:1", "-n", "web-dev"]).ok();
    let names = alice.kubectl(&[
        "get",
        "pod",
        "front",
        "-n",
        "web-dev",
        "-o",
        "jsonpath={.spec.imagePullSecrets[*].name}",
    ]);
    assert_eq!(names.ok(), "gantry-registry");
}
