//! Which images of an archive go where: a pure function of their names.

use std::collections::{BTreeMap, HashMap, HashSet};

use gantry_oci::archive::ArchivedManifest;
use gantry_oci::reference::{may_be_tag, without_host};
use gantry_oci::{Digest, Reference, RepositoryName, Tag};

/// For each repository, the manifests that go there, by their places in the archive, with the tags that they get.
pub(super) type Plan = BTreeMap<RepositoryName, BTreeMap<usize, Vec<Tag>>>;

/// Plans an archive whose images go to `name`: to its tag, if it has one, else under the tags that the archive gives
/// them; or to where their own names say. What an index names, and what refers to an image, goes with it.
pub(super) fn plan(manifests: &[ArchivedManifest], name: Option<&Reference>) -> Result<Plan, String> {
    let at: HashMap<&Digest, usize> = manifests.iter().enumerate().map(|(n, m)| (&m.digest, n)).collect();
    let is_root = |m: &&(usize, &ArchivedManifest)| {
        !m.1.is_part && m.1.subject.as_ref().is_none_or(|subject| !at.contains_key(subject))
    };
    let all: Vec<(usize, &ArchivedManifest)> = manifests.iter().enumerate().collect();
    let roots: Vec<&(usize, &ArchivedManifest)> = all.iter().filter(is_root).collect();
    let mut plan = Plan::new();
    let mut taken: HashMap<(RepositoryName, Tag), usize> = HashMap::new();
    for (root, manifest) in &roots {
        for (repository, tag) in targets(manifest, name, roots.len())? {
            let before = taken.insert((repository.clone(), tag.clone()), *root);
            if before.is_some_and(|before| before != *root) {
                return Err(format!(
                    "two images of the archive would be {repository}:{tag}: give no tag, or no name"
                ));
            }
            let target = plan.entry(repository).or_default();
            for part in closure(manifests, &at, *root) {
                target.entry(part).or_default();
            }
            let tags = target.entry(*root).or_default();
            if !tags.contains(&tag) {
                tags.push(tag);
            }
        }
    }
    Ok(plan)
}

fn targets(
    manifest: &ArchivedManifest,
    name: Option<&Reference>,
    roots: usize,
) -> Result<Vec<(RepositoryName, Tag)>, String> {
    if let Some(Reference { repository, tag: Some(tag), .. }) = name {
        return match roots {
            1 => Ok(vec![(repository.clone(), tag.clone())]),
            _ => Err(format!(
                "the archive holds {roots} images, and {repository}:{tag} names one: give no tag"
            )),
        };
    }
    if let Some(Reference { repository, .. }) = name {
        if manifest.names.is_empty() && roots == 1 {
            return Ok(vec![(repository.clone(), Tag::latest())]);
        }
        if manifest.names.is_empty() {
            return Err(
                "an image of the archive has no tag there: archives with one image need none".to_owned()
            );
        }
        let tags = manifest.names.iter().map(|name| tag_of(name));
        return tags.map(|tag| Ok((repository.clone(), tag?))).collect();
    }
    if manifest.names.is_empty() {
        return Err("an image of the archive has no name there: say where it goes".to_owned());
    }
    manifest.names.iter().map(|name| whole(name)).collect()
}

/// The tag of a name as archives have it, which may be a tag alone.
fn tag_of(name: &str) -> Result<Tag, String> {
    let local = without_host(name);
    let tag = if may_be_tag(name) { Some(local.parse::<Tag>()) } else { reference(name)?.tag.map(Ok) };
    tag.unwrap_or_else(|| Ok(Tag::latest())).map_err(|error| error.to_string())
}

fn whole(name: &str) -> Result<(RepositoryName, Tag), String> {
    if may_be_tag(name) {
        return Err(format!("the archive calls its image {name:?}, which may be a tag: say where it goes"));
    }
    let reference = reference(name)?;
    Ok((reference.repository, reference.tag.unwrap_or_else(Tag::latest)))
}

fn reference(name: &str) -> Result<Reference, String> {
    without_host(name).parse().map_err(|error| format!("the archive calls an image {name:.200?}: {error}"))
}

/// A manifest with its parts, and with what refers to any of them.
fn closure(manifests: &[ArchivedManifest], at: &HashMap<&Digest, usize>, root: usize) -> HashSet<usize> {
    let (mut found, mut open) = (HashSet::from([root]), vec![root]);
    while let Some(next) = open.pop() {
        let manifest = &manifests[next];
        let parts = manifest.parts.iter().filter_map(|part| at.get(part).copied());
        let refers = |m: &ArchivedManifest| m.subject.as_ref() == Some(&manifest.digest);
        let referrers = manifests.iter().enumerate().filter(|(_, m)| refers(m)).map(|(n, _)| n);
        for more in parts.chain(referrers) {
            if found.insert(more) {
                open.push(more);
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(label: &str, names: &[&str]) -> ArchivedManifest {
        ArchivedManifest {
            names: names.iter().map(|name| (*name).to_owned()).collect(),
            media_type: String::new(),
            digest: Digest::of(label.as_bytes()),
            bytes: bytes::Bytes::new(),
            blobs: Vec::new(),
            parts: Vec::new(),
            is_part: false,
            subject: None,
        }
    }

    /// `REPOSITORY: NUMBER=TAG,TAG …; …`
    fn shown(manifests: &[ArchivedManifest], name: &str) -> String {
        let name = (!name.is_empty()).then(|| name.parse::<Reference>().expect("a name"));
        let plan = match plan(manifests, name.as_ref()) {
            Ok(plan) => plan,
            Err(error) => return format!("refused: {error}"),
        };
        let one = |(n, tags): (&usize, &Vec<Tag>)| {
            format!("{n}={}", tags.iter().map(Tag::as_str).collect::<Vec<_>>().join(","))
        };
        let of = |m: &BTreeMap<usize, Vec<Tag>>| m.iter().map(one).collect::<Vec<_>>().join(" ");
        plan.iter().map(|(repository, m)| format!("{repository}: {}", of(m))).collect::<Vec<_>>().join("; ")
    }

    #[test]
    fn names_say_where_images_go() {
        let one = [manifest("a", &["docker.io/library/web:1", "localhost:5000/shop/web:2"])];
        let bare = [manifest("a", &["1.0"])];
        let none = [manifest("a", &[])];
        let two = [manifest("a", &["demo/a:1"]), manifest("b", &["demo/b:1", "demo/b:2"])];
        for (manifests, name, want) in [
            (&one[..], "", "library/web: 0=1; shop/web: 0=2"),
            (&one, "acme/x", "acme/x: 0=1,2"),
            (&one, "acme/x:9", "acme/x: 0=9"),
            (&bare, "acme/x", "acme/x: 0=1.0"),
            (&none, "acme/x", "acme/x: 0=latest"),
            (&none, "acme/x:9", "acme/x: 0=9"),
            (&two, "", "demo/a: 0=1; demo/b: 1=1,2"),
        ] {
            assert_eq!(shown(manifests, name), want, "{name}");
        }
        for (manifests, name, want) in [
            (&bare[..], "", "may be a tag"),
            (&none, "", "has no name"),
            (&two, "acme/x:9", "holds 2 images"),
            (&two, "acme/x", "two images of the archive would be acme/x:1"),
            (&[manifest("a", &["demo/../etc:1"])], "", "is no repository name"),
            (&[manifest("a", &["demo/A:1"])], "", "is no repository name"),
            (&[manifest("a", &["demo/a:.x"])], "acme/x", "is no tag"),
        ] {
            let said = shown(manifests, name);
            assert!(said.starts_with("refused: ") && said.contains(want), "{name}: {said}");
        }
    }

    #[test]
    fn parts_and_referrers_go_with_their_image() {
        let child = ArchivedManifest { is_part: true, ..manifest("child", &[]) };
        let index =
            ArchivedManifest { parts: vec![child.digest.clone()], ..manifest("index", &["demo/a:1"]) };
        let signature =
            ArchivedManifest { subject: Some(child.digest.clone()), ..manifest("signature", &[]) };
        let other = manifest("other", &["demo/b:1"]);
        let manifests = [child, index, signature, other];
        assert_eq!(shown(&manifests, ""), "demo/a: 0= 1=1 2=; demo/b: 3=1");
        assert_eq!(shown(&manifests[..3], "x:2"), "x: 0= 1=2 2=");
    }
}
