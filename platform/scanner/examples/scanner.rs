//! Time and memory of a scan: `scanner DIRECTORY|ARCHIVE [os|all [FILE]]`. FILE gets the
//! bill of materials, to compare it with another tool's. Each run is timed alone; the first fills the
//! machine's caches and does not count.

use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use gantry_oci::archive::{ArchiveLimits, open};
use gantry_scanner::{Options, Report, Scanner, sbom};
use jiff::Timestamp;

const RUNS: usize = 11;

fn scan(path: &Path, os_only: bool) -> Result<Report, Box<dyn std::error::Error>> {
    let mut scanner = Scanner::new(Options { os_only, ..Options::default() });
    if path.is_dir() {
        return Ok(scanner.directory(path, Timestamp::now())?);
    }
    let images = open(path, &ArchiveLimits::default())?;
    let image = images.first().ok_or("the archive holds no image")?;
    Ok(scanner.image("image", &image.image, Timestamp::now())?)
}

fn peak_mib() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().trim_end_matches(" kB").parse::<u64>().ok()? / 1024)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let path = arguments.first().ok_or("usage: scanner DIRECTORY|ARCHIVE [os|all [FILE]]")?;
    let os_only = arguments.get(1).is_some_and(|word| word == "os");
    let mut times = Vec::new();
    let (mut packages, mut bytes) = (0, 0);
    for _ in 0..RUNS {
        let start = Instant::now();
        let report = scan(Path::new(path), os_only)?;
        let document = serde_json::to_vec(&sbom::cyclonedx(&report))?;
        bytes = document.len();
        times.push(start.elapsed());
        packages = report.packages.len();
        if let Some(file) = arguments.get(2) {
            std::fs::File::create(file)?.write_all(&document)?;
        }
    }
    times.remove(0);
    times.sort_unstable();
    let ms = |time: Duration| time.as_secs_f64() * 1000.0;
    println!("| what | packages | CycloneDX | median | least | most | peak memory |");
    println!("|---|---|---|---|---|---|---|");
    println!(
        "| {} of {path} | {packages} | {} KiB | {:.0} ms | {:.0} ms | {:.0} ms | {} MiB |",
        if os_only { "packages of the distribution" } else { "everything" },
        bytes / 1024,
        ms(times[times.len() / 2]),
        ms(times[0]),
        ms(times[times.len() - 1]),
        peak_mib().unwrap_or_default(),
    );
    Ok(())
}
