use gantry_registry_api::Retention;
use proptest::prelude::*;

use super::*;

const NOW: i64 = 1_800_000_000;

fn days_ago(days: i64) -> Timestamp {
    Timestamp::from_second(NOW - days * SECONDS_PER_DAY).expect("a time")
}

fn digest(name: u8) -> Digest {
    Digest::of(&[name])
}

fn tag(name: &str, image: u8, pushed: i64, pulled: Option<i64>) -> TagFacts {
    let tag = name.parse().expect("a tag");
    TagFacts { tag, digest: digest(image), pushed: days_ago(pushed), pulled: pulled.map(days_ago) }
}

fn manifest(image: u8, pushed: i64, children: &[u8], subject: Option<u8>) -> ManifestFacts {
    ManifestFacts {
        digest: digest(image),
        pushed: days_ago(pushed),
        children: children.iter().map(|c| digest(*c)).collect(),
        subject: subject.map(digest),
    }
}

fn keep(tags: &[&str], newest: Option<u32>, pushed_days: Option<u32>, pulled_days: Option<u32>) -> Keep {
    Keep { tags: tags.iter().map(|t| (*t).to_owned()).collect(), newest, pushed_days, pulled_days }
}

fn rules(keep: &[Keep], untagged_days: Option<u32>, immutable: &[&str]) -> Rules {
    Rules {
        retention: Some(Retention { keep: keep.to_vec(), untagged_days }),
        immutable_tags: immutable.iter().map(|t| (*t).to_owned()).collect(),
        ..Rules::default()
    }
}

#[test]
fn each_rule_keeps_what_it_says_and_the_rest_goes() {
    let tags = [
        tag("1.0", 1, 300, Some(2)),
        tag("1.1", 2, 200, None),
        tag("1.2", 3, 20, None),
        tag("dev-1", 4, 100, None),
        tag("dev-2", 5, 1, None),
    ];
    let manifests: Vec<ManifestFacts> = (1..=5).map(|i| manifest(i, 100, &[], None)).collect();
    for (given, gone) in [
        (rules(&[], None, &[]), ""),
        (rules(&[keep(&["*"], None, None, None)], None, &[]), ""),
        (rules(&[keep(&[], Some(2), None, None)], None, &[]), "1.0 1.1 dev-1"),
        (rules(&[keep(&[], Some(2), None, None)], None, &["1.*"]), "dev-1"),
        (rules(&[keep(&["1.*"], None, None, None)], None, &[]), "dev-1 dev-2"),
        (
            rules(&[keep(&["1.*"], None, None, None), keep(&["dev-*"], Some(1), None, None)], None, &[]),
            "dev-1",
        ),
        (rules(&[keep(&[], None, Some(30), None)], None, &[]), "1.0 1.1 dev-1"),
        // Pushed counts as pulled: what is new has not been pulled by anybody yet.
        (rules(&[keep(&[], None, None, Some(30))], None, &[]), "1.1 dev-1"),
        (rules(&[keep(&[], Some(0), None, None)], None, &[]), "1.0 1.1 1.2 dev-1 dev-2"),
        (Rules { immutable_tags: vec!["x".to_owned()], ..Rules::default() }, ""),
    ] {
        let plan = plan(&tags, &manifests, &given, days_ago(0));
        let names: Vec<&str> = plan.tags.iter().map(Tag::as_str).collect();
        assert_eq!(names.join(" "), gone, "{given:?}");
        assert_eq!(plan.manifests.len(), names.len(), "each had an image of its own: {given:?}");
    }
}

#[test]
fn images_go_when_nothing_leads_to_them() {
    // 1: an index of 2 and 3, tagged; 4 signs 2; 5: an index of 3, whose tag goes; 6 signs 5; 7 and 8: untagged.
    let tags = [
        tag("keep", 1, 1, None),
        tag("old", 5, 100, None),
        tag("also-old", 9, 100, None),
        tag("same", 9, 1, None),
    ];
    let manifests = [
        manifest(1, 1, &[2, 3], None),
        manifest(2, 90, &[], None),
        manifest(3, 90, &[], None),
        manifest(4, 90, &[], Some(2)),
        manifest(5, 90, &[3], None),
        manifest(6, 90, &[], Some(5)),
        manifest(7, 90, &[], None),
        manifest(8, 1, &[], None),
        manifest(9, 90, &[], None),
    ];
    let gone = |untagged_days| {
        let given = rules(&[keep(&[], None, Some(30), None)], untagged_days, &[]);
        let plan = plan(&tags, &manifests, &given, days_ago(0));
        assert_eq!(plan.tags.iter().map(Tag::as_str).collect::<Vec<_>>(), ["also-old", "old"]);
        plan.manifests
    };
    let set = |all: &[u8]| all.iter().map(|image| digest(*image)).collect::<BTreeSet<_>>();
    assert_eq!(gone(None), set(&[5, 6]), "what never had a tag stays where nobody says how long");
    assert_eq!(gone(Some(30)), set(&[5, 6, 7]));
}

fn any_rules() -> impl Strategy<Value = Rules> {
    let some = || proptest::option::of(0..40_u32);
    let patterns =
        || proptest::collection::vec(proptest::sample::select(vec!["*", "a*", "?1", "b2", "c*"]), 0..3);
    let keep = (patterns(), some(), some(), some())
        .prop_map(|(tags, newest, pushed, pulled)| keep(&tags, newest, pushed, pulled));
    (proptest::collection::vec(keep, 0..3), some(), patterns())
        .prop_map(|(keep, untagged, immutable)| rules(&keep, untagged, &immutable))
}

fn any_tags() -> impl Strategy<Value = Vec<TagFacts>> {
    let one = ("[abc][0-3]", 0..12_u8, 0..60_i64, proptest::option::of(0..60_i64));
    proptest::collection::vec(one, 0..10).prop_map(|all| {
        let by_name: BTreeMap<String, TagFacts> = all
            .into_iter()
            .map(|(name, image, pushed, pulled)| (name.clone(), tag(&name, image, pushed, pulled)))
            .collect();
        by_name.into_values().collect()
    })
}

fn any_manifests() -> impl Strategy<Value = Vec<ManifestFacts>> {
    let one = (0..60_i64, proptest::collection::vec(0..12_u8, 0..3), proptest::option::of(0..12_u8));
    proptest::collection::vec(one, 12).prop_map(|all| {
        let numbered = all.into_iter().zip(0_u8..);
        // Indexes name what was pushed before them.
        numbered
            .map(|((pushed, children, subject), image)| {
                let children: Vec<u8> = children.into_iter().filter(|c| *c < image).collect();
                manifest(image, pushed, &children, subject)
            })
            .collect()
    })
}

proptest! {
    #[test]
    fn what_stays_is_whole_and_a_second_run_changes_nothing(
        given in any_rules(), tags in any_tags(), manifests in any_manifests()
    ) {
        let first = plan(&tags, &manifests, &given, days_ago(0));
        let tags: Vec<TagFacts> = tags.into_iter().filter(|t| !first.tags.contains(&t.tag)).collect();
        let immutable = |tag: &Tag| given.immutable_tags.iter().any(|p| matches(p, tag.as_str()));
        prop_assert!(first.tags.iter().all(|tag| !immutable(tag)));
        let left: Vec<ManifestFacts> =
            manifests.into_iter().filter(|m| !first.manifests.contains(&m.digest)).collect();
        let there: BTreeSet<&Digest> = left.iter().map(|m| &m.digest).collect();
        for tag in &tags {
            prop_assert!(there.contains(&tag.digest), "{} leads nowhere", tag.tag);
        }
        for manifest in &left {
            prop_assert!(manifest.children.iter().all(|c| there.contains(c)), "an index has holes");
        }
        // Times pass between runs in truth; in the same moment nothing more goes but what hung on what went.
        let second = plan(&tags, &left, &given, days_ago(0));
        prop_assert_eq!(&second.tags, &BTreeSet::new());
    }
}

/// Signatures are tags, too: no rule of people's tags means them.
#[test]
fn tags_called_after_an_image_stay_and_go_with_it() {
    let of = |image: u8, ending: &str| format!("sha256-{}{ending}", digest(image).hex());
    let tags = [
        tag("keep", 1, 100, None),
        tag("old", 2, 100, None),
        tag(&of(1, ".sig"), 3, 100, None),
        tag(&of(2, ".sig"), 4, 100, None),
        tag(&of(4, ".att"), 5, 100, None),
        tag(&of(1, ""), 6, 100, None),
        // Called after nothing that is here: a tag like others.
        tag(&of(99, ".sig"), 7, 100, None),
    ];
    let manifests: Vec<ManifestFacts> = (1..=7).map(|i| manifest(i, 100, &[], None)).collect();
    let plan = plan(&tags, &manifests, &rules(&[keep(&["keep"], None, None, None)], None, &[]), days_ago(0));
    let mut names: Vec<String> = plan.tags.iter().map(ToString::to_string).collect();
    names.sort();
    let mut wanted = vec!["old".to_owned(), of(2, ".sig"), of(4, ".att"), of(99, ".sig")];
    wanted.sort();
    assert_eq!(names, wanted);
    assert_eq!(plan.manifests, [2, 4, 5, 7].map(digest).into());
}
