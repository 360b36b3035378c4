//! What is inside images and known of it: every image that is pushed is looked through once, in the background, and
//! compared again when advisories change.
//!
//! One worker takes one image after the other from a bounded queue, in which owners of repositories take turns. What the
//! queue cannot hold, and what waited when the process ended, is found again in the store: an image without a report, or
//! without a bill of materials beside it, is one that is still to be scanned. Pushes and pulls wait for none of this.

mod brought;
mod data;
mod grades;
pub(crate) mod images;
mod kept;
mod matched;
mod routes;
mod turns;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use gantry_base::tasks::Tasks;
use gantry_kube_types::SecurityEvent;
use gantry_oci::image::Image;
use gantry_oci::{Digest, RepositoryName};
use gantry_registry_api::EventType;
use gantry_scanner::advisories::{AdvisoryData, Index};
use gantry_scanner::rating::Grade;
use gantry_scanner::{Limits, Options, Report, Scanner};
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::sync::Notify;

use crate::Registry;
use crate::routes::ManifestName;
use crate::store::ManifestRecord;
use data::Advisories;
use kept::Kept;
use matched::{Matched, Regraded};
use turns::Turns;

pub(crate) use brought::advisories;
pub(crate) use grades::{GRADES_STAY, RepositoryGrades};
pub(crate) use routes::report as route;

/// Images that wait; further ones are found in the store later.
const WAITING_MAX: usize = 10_000;
/// Failures that are remembered; then all is tried again.
const FAILED_MAX: usize = 10_000;
/// Of one layer once it is not compressed: one image must not hold the only worker for long.
const LAYER_MAX_BYTES: u64 = 16 << 30;
/// How often it is looked whether there are other advisories. They are a file, and nobody tells of its change.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Why an attestation, for one, has no report.
const NO_IMAGE: &str = "it holds no file system that could be scanned";

/// An image, in a repository that has it.
type Wanted = (RepositoryName, Digest);

/// What is known of images, and what is to be found out.
pub(crate) struct Scans {
    kept: Kept,
    data: Advisories,
    queue: Mutex<Waiting>,
    woken: Notify,
    pub(crate) grades: grades::Grades,
    matched: Mutex<Matched>,
    /// What all reports were compared with: [`Matched`] is held while that is done.
    compared: Mutex<Option<AdvisoryData>>,
}

struct Waiting {
    images: Turns<Wanted>,
    /// Those in `images`, and the one that is being scanned.
    known: HashSet<Wanted>,
    /// The store may hold images that should be here.
    look: bool,
    failed: HashMap<Digest, String>,
    is_running: bool,
}

/// Why there is no report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Unscanned {
    Waiting,
    Failed(String),
    /// It is called an image, and holds no file system.
    NoImage,
    /// Nothing is scanned here.
    Off,
}

impl std::fmt::Display for Unscanned {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Waiting => f.write_str("it is not scanned yet: try again in a moment"),
            Self::NoImage => f.write_str(NO_IMAGE),
            Self::Failed(why) => write!(f, "it could not be scanned: {why}"),
            Self::Off => f.write_str("it is not scanned: this server scans nothing ([registry] scan)"),
        }
    }
}

impl Scans {
    /// Below `root`, with the advisories of a directory that need not be there.
    pub(crate) fn open(root: &std::path::Path, advisories: PathBuf) -> io::Result<Self> {
        let kept = Kept::open(root)?;
        let matched = Matched::load(&kept)?;
        let queue = Waiting {
            images: Turns::default(),
            known: HashSet::new(),
            look: true,
            failed: HashMap::new(),
            is_running: false,
        };
        Ok(Self {
            kept,
            data: Advisories::new(advisories),
            queue: Mutex::new(queue),
            woken: Notify::new(),
            grades: grades::Grades::default(),
            compared: Mutex::new(matched.data.clone()),
            matched: Mutex::new(matched),
        })
    }

    fn queue(&self) -> MutexGuard<'_, Waiting> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many images wait. Those that the queue could not hold are not counted.
    pub(crate) fn waiting(&self) -> usize {
        self.queue().images.len()
    }

    fn matched(&self) -> MutexGuard<'_, Matched> {
        self.matched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn compared(&self) -> MutexGuard<'_, Option<AdvisoryData>> {
        self.compared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The facts of an image, compared with the newest advisories that all images were compared with; or why there
    /// are none. Reads files.
    pub(crate) fn report(&self, image: &Digest) -> io::Result<Result<Report, Unscanned>> {
        let had = self.kept.has(image);
        let Some(mut report) = self.kept.report(image)? else {
            let mut queue = self.queue();
            if had {
                // It was damaged, and is to be made again.
                queue.look = true;
                self.woken.notify_one();
            }
            return Ok(Err(match queue.failed.get(image) {
                Some(why) if why == NO_IMAGE => Unscanned::NoImage,
                Some(why) => Unscanned::Failed(why.clone()),
                None if queue.is_running => Unscanned::Waiting,
                None => Unscanned::Off,
            }));
        };
        if let (Some(data), Some(index)) = (&mut report.advisory_data, self.data.current())
            && matched::is_same(self.compared().as_ref(), &index.data())
        {
            // What did not change of it says the same of this image.
            *data = index.data();
        }
        Ok(Ok(report))
    }

    /// What is to be scanned next.
    fn next(&self, registry: &Registry) -> Option<Wanted> {
        let mut queue = self.queue();
        if queue.images.len() == 0 && std::mem::take(&mut queue.look) {
            let known = |digest: &Digest| self.kept.has(digest);
            let failed: HashSet<Digest> = queue.failed.keys().cloned().collect();
            // Pushes wait for this lock, and looking takes its time.
            drop(queue);
            let (found, more) = images::unscanned(registry.store(), &known, &failed, WAITING_MAX);
            queue = self.queue();
            queue.look |= more;
            for wanted in found {
                if queue.known.insert(wanted.clone()) {
                    queue.images.push(registry.owner(&wanted.0), wanted);
                }
            }
        }
        queue.images.pop()
    }

    fn done(&self, wanted: &Wanted, failed: Option<String>) {
        let mut queue = self.queue();
        queue.known.remove(wanted);
        match failed {
            Some(why) => {
                if queue.failed.len() >= FAILED_MAX {
                    queue.failed.clear();
                }
                queue.failed.insert(wanted.1.clone(), why);
            }
            None => drop(queue.failed.remove(&wanted.1)),
        }
    }
}

/// As records of the trail have it.
fn spoken(grade: Option<Grade>) -> &'static str {
    grade.map_or("none", Grade::as_str)
}

impl Registry {
    /// An image was pushed.
    pub(crate) fn scan_later(&self, repository: &RepositoryName, digest: &Digest, record: &ManifestRecord) {
        if !images::is_image(record) {
            return;
        }
        let (owner, wanted) = (self.owner(repository), (repository.clone(), digest.clone()));
        let mut queue = self.inner.scans.queue();
        if queue.images.len() >= WAITING_MAX {
            queue.look = true;
        } else if queue.known.insert(wanted.clone()) {
            queue.images.push(owner, wanted);
        }
        drop(queue);
        self.inner.scans.woken.notify_one();
    }

    /// Scans what is pushed from now on, and what was pushed before and is not scanned.
    pub fn scan(&self, tasks: &Tasks) {
        self.inner.scans.queue().is_running = true;
        let (registry, shutdown) = (self.clone(), tasks.shutdown().clone());
        tasks.supervise("registry/scans", move || {
            let (registry, shutdown) = (registry.clone(), shutdown.clone());
            async move {
                let all = async {
                    loop {
                        if registry.scan_next().await?.is_none() {
                            let woken = registry.inner.scans.woken.notified();
                            // Either way the next round looks at everything.
                            let _ = tokio::time::timeout(LOOK_EVERY, woken).await;
                        }
                    }
                };
                tokio::select! {
                    ended = all => ended,
                    () = shutdown.cancelled() => Ok::<(), String>(()),
                }
            }
        });
    }

    /// Scans one image, if one waits, and compares all with new advisories before.
    pub(crate) async fn scan_next(&self) -> Result<Option<Wanted>, String> {
        let text = |error: io::Error| error.to_string();
        let followed = self.blocking(|registry| registry.inner.scans.follow(registry)).await;
        if let Some(regraded) = followed.map_err(text)? {
            self.inner.policies.again.images();
            self.show_all();
            self.record_regraded(&regraded).await;
        }
        let wanted = self.blocking(|registry| Ok(registry.inner.scans.next(registry))).await;
        let Some(wanted) = wanted.map_err(text)? else {
            self.blocking(|registry| registry.inner.scans.save()).await.map_err(text)?;
            return Ok(None);
        };
        let (repository, digest) = &wanted;
        let scanned = match self.whole(repository, digest).await {
            Err(why) => Err(io::Error::other(why)),
            Ok(()) => {
                let (repository, digest) = wanted.clone();
                // A scan that panics ends as an error here, and is not tried again.
                self.blocking(move |registry| scan(registry, &repository, &digest)).await
            }
        };
        let failed = match scanned {
            Ok(None) => None,
            Ok(Some(report)) => {
                self.inner.policies.again.images();
                let rated = self.rated(report, repository.as_str(), &self.place_of(repository));
                let data = scanned_data(&rated);
                let (shown, grade) = (digest.to_string(), spoken(rated.rating.map(|rating| rating.grade)));
                let facts = [("digest", shown.as_str()), ("grade", grade)];
                self.record(SecurityEvent::ImageScanned, repository, &facts).await;
                let image = ManifestName::Digest(digest.clone());
                self.told(EventType::Scanned, repository, Some(&image), data).await;
                None
            }
            // It is gone, and nobody wants to know.
            Err(_) if self.store().record(repository, digest).is_none() => None,
            Err(error) => {
                tracing::info!(%repository, %digest, %error, "an image could not be scanned");
                Some(error.to_string())
            }
        };
        match &failed {
            None => self.inner.counts.scans_good.add(1),
            Some(_) => self.inner.counts.scans_failed.add(1),
        }
        self.inner.scans.done(&wanted, failed);
        self.note(repository);
        Ok(Some(wanted))
    }

    /// Sees to it that all of the image is here, where it is another registry's.
    async fn whole(&self, repository: &RepositoryName, digest: &Digest) -> Result<(), String> {
        let Some(record) = self.store().record(repository, digest) else { return Ok(()) };
        let brought = self.bring_blobs(repository, &record).await;
        brought.map_err(|error| format!("the upstream registry does not give all of it: {error:?}"))
    }

    async fn record_regraded(&self, regraded: &[Regraded]) {
        for Regraded { image, before, now } in regraded {
            for repository in images::holders(self.store(), image) {
                let digest = image.to_string();
                let facts =
                    [("digest", digest.as_str()), ("grade", spoken(*now)), ("grade-before", spoken(*before))];
                self.record(SecurityEvent::ImageRated, &repository, &facts).await;
                let word = |grade: &Option<Grade>| grade.map_or(Value::Null, |grade| grade.as_str().into());
                let data = json!({ "grade": word(now), "gradeBefore": word(before) });
                let reference = ManifestName::Digest(image.clone());
                self.told(EventType::Rated, &repository, Some(&reference), data).await;
            }
        }
    }

    /// Takes away what is kept of images that are gone.
    pub(crate) fn forget_scans(&self) -> io::Result<()> {
        let scans = &self.inner.scans;
        // What is reported now and not in the store then was gone before: reports come after their images.
        let reported = scans.kept.images();
        let images = images::sweep(self.store())?;
        for image in reported.iter().filter(|image| !images.contains(image)) {
            scans.kept.remove_report(image)?;
            scans.grades.forget(image);
            scans.matched().forget(image);
        }
        Ok(())
    }
}

/// What an event of a scan says of the image.
fn scanned_data(report: &Report) -> Value {
    let mut by_severity: BTreeMap<String, u64> = BTreeMap::new();
    for found in report.vulnerabilities.iter().flatten() {
        let severity = serde_json::to_value(found.severity).ok();
        let severity = severity.as_ref().and_then(Value::as_str).unwrap_or("unknown");
        *by_severity.entry(severity.to_owned()).or_default() += 1;
    }
    json!({
        "grade": report.rating.as_ref().map(|rating| rating.grade.as_str()),
        "packages": report.packages.len(),
        "vulnerabilities": by_severity,
        "advisories": report.advisory_data,
    })
}

/// Makes what is missing of the image's report and bill of materials. Gives the report, if it is new.
fn scan(registry: &Registry, repository: &RepositoryName, digest: &Digest) -> io::Result<Option<Report>> {
    let scans = &registry.inner.scans;
    let (report, is_new) = match scans.kept.report(digest)? {
        Some(report) => (report, false),
        None => {
            let image = images::read(registry.store(), repository, digest)?;
            let image = image.ok_or_else(|| io::Error::other(NO_IMAGE))?;
            let mut report = analyse(&scans.kept, &format!("{repository}@{digest}"), &image)?;
            if let Some(index) = scans.data.current() {
                compare(&index, &mut report)?;
            }
            scans.kept.put_report(digest, &report)?;
            scans.grades.forget(digest);
            scans.matched().add(digest, &report);
            tracing::info!(%repository, %digest, packages = report.packages.len(), "an image was scanned");
            (report, true)
        }
    };
    images::describe(registry, repository, digest, report.clone())?;
    Ok(is_new.then_some(report))
}

/// Looks through the layers that were not looked through before.
fn analyse(kept: &Kept, name: &str, image: &Image) -> io::Result<Report> {
    let limits = Limits { uncompressed_max_bytes: LAYER_MAX_BYTES, ..Limits::default() };
    let mut scanner = Scanner::new(Options { limits, checks: true, ..Options::default() });
    let mut new = Vec::new();
    for layer in &image.layers {
        match kept.layer(&layer.digest)? {
            Some(analysis) => scanner.know(layer.digest.clone(), analysis),
            None => new.push(layer.digest.clone()),
        }
    }
    let report = scanner.image(name, image, Timestamp::now()).map_err(io::Error::other)?;
    for layer in new {
        if let Some(analysis) = scanner.analysis(&layer) {
            kept.put_layer(&layer, analysis)?;
        }
    }
    Ok(report)
}

fn compare(index: &Index, report: &mut Report) -> io::Result<()> {
    index.compare(report).map_err(io::Error::other)
}
