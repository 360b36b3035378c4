//! Orders that the ecosystems' own documents and tools state, as tables, and what any order must be.

use std::cmp::Ordering;

use proptest::prelude::*;

use super::compare;
use crate::Kind;

/// Each line is in ascending order; `=` joins what is equal.
fn check(kind: Kind, lines: &[&str]) {
    for line in lines {
        let groups: Vec<Vec<&str>> = line.split(" < ").map(|group| group.split(" = ").collect()).collect();
        for (i, one) in groups.iter().enumerate() {
            for (j, other) in groups.iter().enumerate() {
                for (a, b) in one.iter().flat_map(|a| other.iter().map(move |b| (a, b))) {
                    assert_eq!(compare(kind, a, b), i.cmp(&j), "{kind:?}: {a} {b} in {line}");
                }
            }
        }
    }
}

#[test]
fn dpkg() {
    check(
        Kind::Deb,
        &[
            "1.0~beta1~svn1245 < 1.0~beta1 < 1.0 = 0:1.0 < 1.0-1 < 1.0-1+b1 < 1.0-1.1 < 1.0+dfsg-1",
            "~~ < ~~a < ~ < 0 = 00 < a < +",
            "1.2.3 < 1.2.3a < 1.2.3b < 1.2.3+ < 1.2.4 < 1.2.10 < 1:0.1 < 2:0",
            "7.6-0 = 7.6- < 7.6p2-4",
            "1.0-1~bpo12+1 < 1.0-1 < 1.0-1ubuntu1",
            "2.36-9+deb12u1 < 2.36-9+deb12u3 < 2.36-9+deb12u10 < 2.37-1",
            "0.9.8o-4squeeze14 < 1.0.1e-2+deb7u9",
            "1.11-5 = 1.011-05 < 1.11-5.1",
        ],
    );
}

#[test]
fn apk() {
    check(
        Kind::Apk,
        &[
            "1.2_alpha < 1.2_alpha1 < 1.2_beta < 1.2_pre2 < 1.2_rc3 < 1.2 < 1.2-r1 < 1.2_cvs1 < 1.2_git20200101 < 1.2_p1 < 1.2a < 1.2b < 1.2.0 < 1.2.1",
            "1.0.4 < 1.0.4-r3 < 1.0.4-r4 < 1.1.0 < 1.9.9 < 1.10.0",
            "0.1.0_alpha_pre2 < 0.1.0_alpha < 0.1.3_alpha < 0.1.3",
            "2.34 < 2.34.0 < 2.34.1",
            "1.0.0 < 1.0.01 < 1.0.1 < 1.0.2",
            "3.0.8_p7-r0 < 3.0.8_p8-r0 < 3.0.8_p10-r0",
            "1.36.1-r1 < 1.36.1-r2 < 1.36.1-r15",
        ],
    );
}

#[test]
fn rpm() {
    check(
        Kind::Rpm,
        &[
            "1.0~rc1~git123 < 1.0~rc1 < 1.0 = 1.0. < 1.0^ < 1.0^git1 < 1.0^git1.1 < 1.0.1",
            "2.0 < 2.0.1 < 2.0.1a < 2.1 < 10.0001 = 10.1 < 10.10",
            "5.5p1 < 5.5p2 < 5.5p10 < 5.6p1",
            "xyz10 < 10xyz < 10.1xyz",
            "xyz.4 < 8 < 8.0 < 8.0.rc1.1",
            "1.0-1.el8 < 1.0-2.el8 < 1.0-2.el8_9.1 < 1.0-10.el8 < 1:0.1-1",
            "2_0 = 2.0",
            "FC4 < fc4 = fc.4",
        ],
    );
}

#[test]
fn pep440() {
    check(
        Kind::Pypi,
        &[
            "1.dev0 < 1.0.dev456 < 1.0a1 < 1.0a2.dev456 < 1.0a12.dev456 < 1.0a12 < 1.0b1.dev456 < 1.0b2 < 1.0b2.post345.dev456 < 1.0b2.post345 < 1.0rc1.dev456 < 1.0rc1 < 1.0 < 1.0+abc.5 < 1.0+abc.7 < 1.0+5 < 1.0.post456.dev34 < 1.0.post456 < 1.0.15 < 1.1.dev1",
            "1.0 = 1 = 1.0.0 = v1.0 < 1!0.1",
            "1.0a1 = 1.0.alpha1 = 1.0-ALPHA_1 < 1.0rc0 = 1.0c = 1.0-preview < 1.0.post1 = 1.0-1 = 1.0.rev1 = 1.0-r1",
            "2012.2 < 2013.10 < 1!1.0",
            "not a version < 0.dev0",
        ],
    );
}

#[test]
fn semver() {
    let lines = [
        "1.0.0-alpha < 1.0.0-alpha.1 < 1.0.0-alpha.beta < 1.0.0-beta < 1.0.0-beta.2 < 1.0.0-beta.11 < 1.0.0-rc.1 < 1.0.0 = 1.0.0+build.5 < 2.0.0 < 2.1.0 < 2.1.1 < 2.10.0",
        "1.2.3-1 < 1.2.3-2 < 1.2.3-10 < 1.2.3-a < 1.2.3-a-b < 1.2.3",
        "0.0.0-0 < 0.0.0 < 99999999999999999999.0.0",
    ];
    for kind in [Kind::Npm, Kind::Cargo, Kind::Golang] {
        check(kind, &lines);
    }
    check(
        Kind::Golang,
        &[
            "v0.0.0-20190101000000-abcdefabcdef < v0.0.0-20200101000000-000000000000 < v0.0.1 = 0.0.1",
            "v1.2.3-0.20200101000000-abcdefabcdef < v1.2.3-pre < v1.2.3 < v2.0.0+incompatible = v2.0.0",
            "1.20.4 < 1.21rc2 < 1.21.0 < 1.21.10",
        ],
    );
    check(Kind::Nuget, &["1.0 = 1.0.0 = 1.0.0.0 < 1.0.0.1 < 1.0.1-beta < 1.0.1"]);
}

#[test]
fn maven() {
    check(
        Kind::Maven,
        &[
            "1-alpha2snapshot < 1-alpha2 < 1-alpha-123 < 1-beta-2 < 1-beta123 < 1-m2 < 1-m11 < 1-rc < 1-cr2 < 1-rc123 < 1-snapshot < 1 < 1-sp < 1-sp2 < 1-sp123 < 1-abc < 1-def < 1-pom-1 < 1-1-snapshot < 1-1 < 1-2 < 1-123",
            "2.0.1-xyz < 2.0.1-123 = 2.0.1-0123",
            "1 = 1.0 = 1.0.0 = 1-0 = 1.0-0 = 1-ga = 1-final = 1.0.release < 1.0.1 < 1.1 < 1.10 < 2",
            "1a1 = 1-alpha-1 < 1b2 = 1-beta-2 < 1m3 = 1-milestone-3",
            "31.0-jre < 31.1-jre < 32.0.0-jre",
            "2.14.1 < 2.15.0 < 2.17.1",
            "4.1.100.Final = 4.1.100 < 4.1.101.Final",
        ],
    );
}

#[test]
fn rubygems() {
    check(
        Kind::Gem,
        &[
            "1.0.a < 1.0.b1 < 1.0.pre = 1.0- < 1.0 = 1 = 1.0.0 < 1.0.1 < 1.1.rc1 < 1.1 < 1.9.3 < 1.10",
            "0.beta < 0 < 0.0.1",
            "5.0.0.rc2 < 5.0.0 < 5.2.4.3",
        ],
    );
}

/// Texts that look like versions of some scheme.
const SHAPE: &str = "(v|[0-9]:|[0-9]!)?[0-9]{1,2}(\\.[0-9]{1,2}){0,3}([-._~+^]?(a|b|rc|alpha|pre|dev|post|p|git|final|sp|r)[0-9]{0,2}){0,2}(-r?[0-9])?";

const KINDS: &[Kind] =
    &[Kind::Deb, Kind::Apk, Kind::Rpm, Kind::Pypi, Kind::Npm, Kind::Golang, Kind::Gem, Kind::Maven];

proptest! {
    #[test]
    fn any_texts_have_an_order(a in ".{0,24}", b in ".{0,24}") {
        for kind in KINDS {
            prop_assert_eq!(compare(*kind, &a, &a), Ordering::Equal);
            prop_assert_eq!(compare(*kind, &a, &b), compare(*kind, &b, &a).reverse());
        }
    }

    #[test]
    fn orders_are_transitive(versions in proptest::collection::vec(SHAPE, 3)) {
        for kind in KINDS {
            let mut sorted = versions.clone();
            // Maven's own order is not transitive where words and dashes mix, so it is left out of this.
            if *kind == Kind::Maven {
                continue;
            }
            sorted.sort_by(|a, b| compare(*kind, a, b));
            prop_assert!(compare(*kind, &sorted[0], &sorted[1]).is_le());
            prop_assert!(compare(*kind, &sorted[1], &sorted[2]).is_le());
            prop_assert!(compare(*kind, &sorted[0], &sorted[2]).is_le(), "{:?} {:?}", kind, sorted);
        }
    }
}
