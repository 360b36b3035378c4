//! What the benches share: the table of docs/benchmarks.md, and what a process costs.

use std::process::ExitCode;
use std::time::Duration;

/// The rows as they are measured, and the bars that were missed.
#[derive(Default)]
pub struct Table {
    missed: Vec<String>,
}

impl Table {
    pub fn begin() -> Self {
        println!("| what | bar | measured | |");
        println!("|---|---|---|---|");
        Self::default()
    }

    /// A row with a bar; `reached` is the verdict.
    pub fn judged(&mut self, what: &str, bar: &str, measured: &str, reached: bool) {
        let verdict = if reached { "reached" } else { "MISSED" };
        println!("| {what} | {bar} | {measured} | {verdict} |");
        if !reached {
            self.missed.push(format!("{what}: {measured}, the bar is {bar}"));
        }
    }

    /// A row that is only reported.
    pub fn told(&self, what: &str, measured: &str) {
        println!("| {what} | reported | {measured} | |");
    }

    pub fn end(self) -> ExitCode {
        for line in &self.missed {
            eprintln!("missed: {line}");
        }
        if self.missed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

pub fn resident_kib(pid: i32) -> u64 {
    in_status(pid, "VmRSS:")
}

/// User and system time of a process so far.
pub fn cpu(pid: i32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("it runs");
    // The name in brackets may hold spaces; utime and stime are the 12th and 13th field behind it.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks: u64 =
        [fields[11], fields[12]].iter().map(|field| field.parse::<u64>().expect("a number")).sum();
    // Linux reports 100 ticks per second to programs, whatever the kernel's own rate is.
    Duration::from_millis(ticks * 10)
}

/// A line of `/proc/PID/status`, in KiB.
pub fn in_status(pid: i32, field: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix(field)).expect("a process has memory");
    line.trim().trim_end_matches("kB").trim().parse().expect("a number")
}
