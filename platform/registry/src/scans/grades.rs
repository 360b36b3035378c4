//! The grades that objects show of their repositories: for people, who look at lists. What may run is decided by
//! reports.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use gantry_oci::{Digest, RepositoryName};
use gantry_registry_api::Grade;
use gantry_scanner::rating;

use super::images::is_image;
use crate::Registry;
use crate::retention::attached_to;

/// Exceptions end and advisories grow old without anybody telling: a grade is worked out again after this time.
pub(crate) const GRADES_STAY: Duration = Duration::from_hours(6);

/// Grades that were worked out: that takes all of a report, and one push changes one image of many.
#[derive(Default)]
pub(crate) struct Grades(Mutex<Known>);

#[derive(Default)]
struct Known {
    /// By image, and by the name that exceptions know it by.
    of: HashMap<Digest, HashMap<String, (Instant, Option<Grade>)>>,
    /// Counts what made grades others, so that one of before is not taken for one of now.
    changes: u64,
}

impl Grades {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The image's report is another one now, or gone.
    pub(super) fn forget(&self, image: &Digest) {
        let mut known = self.known();
        known.of.remove(image);
        known.changes += 1;
    }

    fn forget_all(&self) {
        let mut known = self.known();
        known.of.clear();
        known.changes += 1;
    }

    fn get(
        &self,
        image: &Digest,
        name: &str,
        work_out: impl FnOnce() -> io::Result<Option<Grade>>,
    ) -> io::Result<Option<Grade>> {
        let before = {
            let known = self.known();
            let found = known.of.get(image).and_then(|names| names.get(name));
            if let Some((_, grade)) = found.filter(|(at, _)| at.elapsed() < GRADES_STAY) {
                return Ok(*grade);
            }
            known.changes
        };
        let grade = work_out()?;
        let mut known = self.known();
        if known.changes == before {
            known.of.entry(image.clone()).or_default().insert(name.to_owned(), (Instant::now(), grade));
        }
        Ok(grade)
    }
}

/// How good the images of a repository are that tags lead to; those that are not scanned do not count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct RepositoryGrades {
    pub(crate) worst: Option<Grade>,
    /// Of the tag that was pushed last.
    pub(crate) latest: Option<Grade>,
}

impl Registry {
    /// The grades by the policy of the place where the repository belongs. Reads files.
    pub(crate) fn grades(&self, repository: &RepositoryName) -> io::Result<RepositoryGrades> {
        let mut tags = self.store().history(repository).0;
        tags.retain(|facts| attached_to(&facts.tag).is_none());
        tags.sort_by(|a, b| a.pushed.cmp(&b.pushed).then_with(|| a.tag.cmp(&b.tag)));
        let mut grades = RepositoryGrades::default();
        for facts in &tags {
            let name = format!("{repository}:{}", facts.tag);
            grades.latest = self.worst_grade(repository, &facts.digest, &name)?;
            grades.worst = grades.worst.max(grades.latest);
        }
        Ok(grades)
    }

    /// Of an image, or of those that an index leads to.
    fn worst_grade(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        name: &str,
    ) -> io::Result<Option<Grade>> {
        let Some(record) = self.store().record(repository, digest) else { return Ok(None) };
        let images = match is_image(&record) {
            true => vec![digest.clone()],
            false => self.images_in(repository, &record, &BTreeSet::new()),
        };
        let mut worst = None;
        for image in images {
            let grade = self.inner.scans.grades.get(&image, name, || {
                let Ok(report) = self.inner.scans.report(&image)? else { return Ok(None) };
                let rated = self.rated(report, name, &self.place_of(repository));
                Ok(rated.rating.map(|rating| shown(rating.grade)))
            });
            // `None` is less than every grade.
            worst = worst.max(grade?);
        }
        Ok(worst)
    }

    /// Policies are others now: every object may have to show another grade.
    pub(crate) fn regrade_all(&self) {
        self.inner.scans.grades.forget_all();
        self.show_all();
    }

    /// Sees to it that every object shows what is known now.
    pub(crate) fn show_all(&self) {
        for repository in self.store().names() {
            self.inner.changed.add(repository.to_string());
        }
    }
}

/// As objects have it.
fn shown(grade: rating::Grade) -> Grade {
    match grade {
        rating::Grade::A => Grade::A,
        rating::Grade::B => Grade::B,
        rating::Grade::C => Grade::C,
        rating::Grade::D => Grade::D,
        rating::Grade::E => Grade::E,
        rating::Grade::F => Grade::F,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grades_are_worked_out_once_and_again_when_something_changed() {
        let grades = Grades::default();
        let image = Digest::of(b"x");
        let get = |grade| grades.get(&image, "x:1", || Ok(grade)).expect("a grade");
        assert_eq!(get(Some(Grade::B)), Some(Grade::B));
        assert_eq!(get(None), Some(Grade::B), "it is known");
        grades.forget(&image);
        let during = grades.get(&image, "x:1", || {
            grades.forget(&image);
            Ok(Some(Grade::C))
        });
        assert_eq!(during.expect("a grade"), Some(Grade::C));
        assert_eq!(get(Some(Grade::D)), Some(Grade::D), "what changed meanwhile is not taken over");
        grades.forget_all();
        assert_eq!(get(None), None);
    }
}
