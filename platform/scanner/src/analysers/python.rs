//! Python distributions: `NAME-VERSION.dist-info/METADATA` (core metadata) and `.egg-info` of setuptools.

use super::{Analyser, Candidate, Finding, TEXT_MAX_BYTES, paragraphs, plausible};
use crate::files::Content;
use crate::package::{Kind, Package};

pub(super) const ANALYSER: Analyser = Analyser {
    os: false,
    wants: |file| {
        let parent = file.path.rsplit('/').nth(1).unwrap_or("");
        match file.name {
            "METADATA" => parent.ends_with(".dist-info"),
            "PKG-INFO" => parent.ends_with(".egg-info") || parent == "EGG-INFO",
            name => name.ends_with(".egg-info"),
        }
    },
    read: |_: &Candidate<'_>, content: &Content| {
        Ok(parse(&content.text(TEXT_MAX_BYTES)?).map(Finding::Package).into_iter().collect())
    },
};

fn parse(text: &str) -> Option<Package> {
    // The description behind the first empty line may look like anything.
    let head = text.replace("\r\n", "\n");
    let head = head.split("\n\n").next().unwrap_or_default();
    let mut found = None;
    paragraphs(head, |fields| {
        let (Some(name), Some(version)) = (fields.get("Name"), fields.get("Version")) else { return };
        if !plausible(name) || !plausible(version) {
            return;
        }
        let mut package = Package::new(Kind::Pypi, name, version);
        let license = fields.get("License-Expression").or_else(|| fields.get("License"));
        // Some put the whole text there.
        let license = license.filter(|text| text.len() < 100 && !text.eq_ignore_ascii_case("unknown"));
        package.licenses.extend(license.map(str::to_owned));
        found = Some(package);
    });
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_head_counts() {
        let package =
            parse("Metadata-Version: 2.1\nName: PyYAML\nVersion: 6.0.1\nLicense: MIT\n\nName: fake\n");
        let package = package.expect("a package");
        assert_eq!((package.name.as_str(), package.version.as_str()), ("PyYAML", "6.0.1"));
        assert_eq!(package.licenses, ["MIT"]);
        assert_eq!(parse("Name: x\n\nVersion: 1\n"), None);
    }
}
