//! The order of versions, one scheme per ecosystem. Every comparison is defined for any two texts: what is no version
//! of its scheme is older than all that are.

mod apk;
mod dpkg;
mod gem;
mod maven;
mod pep440;
mod rpm;
mod semver;

use std::cmp::Ordering;

use crate::Kind;

/// How two versions of a kind of package are ordered.
pub fn compare(kind: Kind, a: &str, b: &str) -> Ordering {
    match kind {
        Kind::Deb => dpkg::compare(a, b),
        Kind::Apk => apk::compare(a, b),
        Kind::Rpm => rpm::compare(a, b),
        Kind::Pypi => pep440::compare(a, b),
        Kind::Maven => maven::compare(a, b),
        Kind::Gem => gem::compare(a, b),
        // Composer's and NuGet's versions are SemVer with more numbers or less care.
        Kind::Npm | Kind::Golang | Kind::Cargo | Kind::Composer | Kind::Nuget => semver::compare(a, b),
    }
}

/// Compares two runs of digits as numbers of any length.
fn digits(a: &str, b: &str) -> Ordering {
    let (a, b) = (a.trim_start_matches('0'), b.trim_start_matches('0'));
    a.len().cmp(&b.len()).then_with(|| a.cmp(b))
}

/// Cuts a run of characters that `fits` off the front.
fn run<'a>(rest: &mut &'a str, fits: impl Fn(char) -> bool) -> &'a str {
    let end = rest.find(|c| !fits(c)).unwrap_or(rest.len());
    let (run, tail) = rest.split_at(end);
    *rest = tail;
    run
}

/// A run of digits at the front.
fn number<'a>(rest: &mut &'a str) -> &'a str {
    run(rest, |c| c.is_ascii_digit())
}

#[cfg(test)]
mod tests;
