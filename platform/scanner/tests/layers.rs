//! What upper layers remove is gone, and every package names the layer that brought it.

use gantry_scanner::{Options, Scanner};

use crate::support::{Layer, STATUS, deb, directory, image, names, now, scan, zip};

const NPM: &str = "app/node_modules/left-pad/package.json";
const NPM_JSON: &str = r#"{"name":"left-pad","version":"1.3.0","license":"WTFPL"}"#;

#[test]
fn every_compression_gives_the_same() {
    let layer = || Layer::default().file(STATUS, deb("curl", "7.88.1-10")).file(NPM, NPM_JSON);
    for blob in [layer().plain(), layer().gzip(), layer().zstd()] {
        let report = scan(vec![blob.clone()]).expect("scanned");
        assert_eq!(names(&report), ["curl@7.88.1-10", "left-pad@1.3.0"]);
        let at = &report.packages[1].locations[0];
        assert_eq!((at.path.as_str(), at.layer.as_ref()), (NPM, Some(&blob.digest)));
    }
}

#[test]
fn a_package_belongs_to_the_layer_that_brought_it() {
    let base = Layer::default().file(STATUS, deb("curl", "1") + &deb("dash", "1")).gzip();
    let top = Layer::default().file(STATUS, deb("curl", "2") + &deb("dash", "1") + &deb("nano", "1")).gzip();
    let report = scan(vec![base.clone(), top.clone()]).expect("scanned");
    let seen: Vec<_> = report
        .packages
        .iter()
        .map(|found| (found.package.name.as_str(), found.locations[0].layer.clone().expect("a layer")))
        .collect();
    assert_eq!(seen, [("curl", top.digest.clone()), ("dash", base.digest), ("nano", top.digest)]);
    assert_eq!(names(&report)[0], "curl@2");
}

#[test]
fn what_upper_layers_remove_or_cover_is_gone() {
    let base =
        || Layer::default().file(NPM, NPM_JSON).file("app/b/node_modules/x/package.json", NPM_JSON).gzip();
    for (top, left) in [
        (Layer::default().file("app/node_modules/left-pad/.wh.package.json", ""), 1),
        (Layer::default().file("app/.wh.node_modules", ""), 1),
        (Layer::default().file(".wh.app", ""), 0),
        (Layer::default().file("app/node_modules/.wh..wh..opq", ""), 1),
        (Layer::default().file(".wh..wh..opq", ""), 0),
        (Layer::default().file("app", "a file now"), 0),
        (Layer::default().link("app/node_modules", "/elsewhere"), 1),
        (Layer::default().file(NPM, r#"{"private":true}"#), 1),
        (Layer::default().file("app/node_modules/left-pad/index.js", ""), 2),
        (Layer::default().directory("app/node_modules/"), 2),
        (Layer::default().file("ap/.wh.p", "").file(".wh.ap", ""), 2),
    ] {
        let top = top.gzip();
        let report = scan(vec![base(), top]).expect("scanned");
        assert_eq!(report.packages.iter().map(|found| found.locations.len()).sum::<usize>(), left);
    }
    // A whiteout hides what is below, never what its own layer brings.
    let both = Layer::default().file("app/.wh..wh..opq", "").file(NPM, NPM_JSON).gzip();
    assert_eq!(names(&scan(vec![base(), both]).expect("scanned")), ["left-pad@1.3.0"]);
}

#[test]
fn a_merged_usr_is_one_place() {
    let apk = |version| format!("P:musl\nV:{version}\nA:x86_64\n\n");
    let base =
        || Layer::default().link("lib", "usr/lib").file("usr/lib/apk/db/installed", apk("1.2.4-r0")).gzip();
    let through = Layer::default().file("lib/apk/db/installed", apk("1.2.5-r0")).gzip();
    assert_eq!(names(&scan(vec![base(), through]).expect("scanned")), ["musl@1.2.5-r0"]);
    let removed = Layer::default().file("lib/apk/.wh.db", "").gzip();
    assert!(scan(vec![base(), removed]).expect("scanned").packages.is_empty());
    // The link alone, made again, changes nothing.
    let again = Layer::default().link("lib", "usr/lib").gzip();
    assert_eq!(names(&scan(vec![base(), again]).expect("scanned")), ["musl@1.2.4-r0"]);
}

#[test]
fn archives_within_archives_name_the_way_to_them() {
    let pom = b"groupId=org.apache.logging.log4j\nartifactId=log4j-core\nversion=2.14.1\n";
    let inner = zip(&[("META-INF/maven/org.apache.logging.log4j/log4j-core/pom.properties", pom)]);
    let war = zip(&[("WEB-INF/lib/log4j-core-2.14.1.jar", &inner)]);
    let report = scan(vec![Layer::default().file("srv/app.war", war).gzip()]).expect("scanned");
    let [found] = &report.packages[..] else { panic!("{report:?}") };
    assert_eq!(found.purl, "pkg:maven/org.apache.logging.log4j/log4j-core@2.14.1");
    assert_eq!(found.locations[0].path, "srv/app.war!/WEB-INF/lib/log4j-core-2.14.1.jar");
}

#[test]
fn packages_of_a_language_that_the_distribution_installed_name_their_owner() {
    let metadata = "usr/lib/python3/dist-packages/six-1.16.0.egg-info/PKG-INFO";
    let (_kept, root) = directory(&[
        (STATUS, deb("python3-six", "1.16.0-4").as_bytes()),
        ("var/lib/dpkg/info/python3-six.list", format!("/.\n/usr\n/{metadata}\n").as_bytes()),
        (metadata, b"Metadata-Version: 1.2\nName: six\nVersion: 1.16.0\n"),
        ("opt/venv/lib/x-1.dist-info/METADATA", b"Name: x\nVersion: 1\n"),
        ("etc/os-release", b"ID=debian\nVERSION_ID=\"12\"\n"),
    ]);
    let report = Scanner::new(Options::default()).directory(&root, now()).expect("scanned");
    let owners: Vec<_> = report.packages.iter().map(|f| (f.purl.as_str(), f.owner.as_deref())).collect();
    assert_eq!(
        owners,
        [
            ("pkg:deb/debian/python3-six@1.16.0-4?arch=amd64&distro=debian-12", None),
            ("pkg:pypi/six@1.16.0", Some("python3-six")),
            ("pkg:pypi/x@1", None),
        ]
    );
    let os_only = Scanner::new(Options { os_only: true, ..Options::default() });
    assert_eq!(names(&os_only.directory(&root, now()).expect("scanned")), ["python3-six@1.16.0-4"]);
}

#[test]
fn a_layer_that_images_share_is_looked_through_once() {
    let shared = Layer::default().file(STATUS, deb("curl", "1")).gzip();
    let mut scanner = Scanner::new(Options::default());
    let one = image(vec![shared.clone()]);
    assert_eq!(names(&scanner.image("one", &one, now()).expect("scanned")), ["curl@1"]);
    // Its bytes are not needed again.
    let mut gone = shared;
    gone.source = gantry_oci::image::MediaSource::Bytes(bytes::Bytes::from_static(b"no tar at all"));
    let two = image(vec![gone, Layer::default().file(NPM, NPM_JSON).gzip()]);
    assert_eq!(names(&scanner.image("two", &two, now()).expect("scanned")), ["curl@1", "left-pad@1.3.0"]);
}
