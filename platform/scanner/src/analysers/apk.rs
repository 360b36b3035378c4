//! apk's database: `lib/apk/db/installed`, since Alpine 3.23 below `usr`.

use super::{Analyser, Candidate, Finding, TEXT_MAX_BYTES, may_hold_language_packages, plausible};
use crate::files::Content;
use crate::package::{Kind, Package, Source};

pub(super) const ANALYSER: Analyser = Analyser {
    os: true,
    wants: |file| matches!(file.path, "lib/apk/db/installed" | "usr/lib/apk/db/installed"),
    read: |_: &Candidate<'_>, content: &Content| Ok(parse(&content.text(TEXT_MAX_BYTES)?)),
};

/// Records are lines of a letter, a colon and a value, parted by empty lines; `F:` names a directory and `R:` a
/// file in it.
fn parse(text: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut record = Record::default();
    for line in text.lines().chain([""]) {
        let Some((key, value)) = line.split_once(':') else {
            if line.is_empty() {
                std::mem::take(&mut record).finish(&mut findings);
            }
            continue;
        };
        match key {
            "P" => value.clone_into(&mut record.name),
            "V" => value.clone_into(&mut record.version),
            "A" => value.clone_into(&mut record.architecture),
            "o" => value.clone_into(&mut record.origin),
            "L" => value.clone_into(&mut record.license),
            "F" => value.clone_into(&mut record.directory),
            "R" => {
                let path = format!("{}/{value}", record.directory);
                if may_hold_language_packages(&path) {
                    record.paths.push(path);
                }
            }
            _ => {}
        }
    }
    findings
}

#[derive(Default)]
struct Record {
    name: String,
    version: String,
    architecture: String,
    origin: String,
    license: String,
    directory: String,
    paths: Vec<String>,
}

impl Record {
    fn finish(self, findings: &mut Vec<Finding>) {
        if !plausible(&self.name) || !plausible(&self.version) {
            return;
        }
        let mut package = Package::new(Kind::Apk, &*self.name, &*self.version);
        package.architecture = Some(self.architecture).filter(|text| !text.is_empty());
        let origin = if self.origin.is_empty() { self.name.clone() } else { self.origin };
        package.source = Some(Source { name: origin, version: self.version });
        package.licenses.extend(Some(self.license).filter(|text| !text.is_empty()));
        findings.push(Finding::Package(package));
        if !self.paths.is_empty() {
            findings.push(Finding::Owned { package: self.name, paths: self.paths });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_give_packages_and_the_files_that_matter() {
        let findings = parse(
            "C:Q1x\nP:musl\nV:1.2.4-r2\nA:x86_64\nL:MIT\no:musl\nF:lib\nR:ld-musl-x86_64.so.1\n\n\
             P:py3-six\nV:1.16.0-r6\nA:x86_64\nF:usr/lib/python3.11/site-packages/six-1.16.0.dist-info\nR:METADATA\n",
        );
        let [Finding::Package(musl), Finding::Package(six), Finding::Owned { package, paths }] =
            &findings[..]
        else {
            panic!("{findings:?}")
        };
        assert_eq!((musl.version.as_str(), &musl.licenses[..]), ("1.2.4-r2", &["MIT".to_owned()][..]));
        assert_eq!(six.advisory_name(), ("py3-six", "1.16.0-r6"));
        assert_eq!(package, "py3-six");
        assert_eq!(paths[..], ["usr/lib/python3.11/site-packages/six-1.16.0.dist-info/METADATA"]);
    }
}
