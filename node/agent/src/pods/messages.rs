//! Termination messages: what a container left to say, from its file or the end of its log.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use super::observe::Run;

/// Most of a message file that is shown.
const FILE_BYTES_MAX: u64 = 4096;
/// Most of a log's end that is shown.
const LOG_BYTES_MAX: usize = 2048;
const LOG_LINES_MAX: usize = 80;
/// How much of the log file's end is read for it: lines carry a time and a stream name each.
const LOG_READ_BYTES: u64 = 16 << 10;

/// The message of a run that ended.
pub(crate) fn read(run: &Run) -> String {
    let own = run.message_path.as_deref().map(file).unwrap_or_default();
    if own.is_empty() && run.exit_code != 0 && run.message_policy == "FallbackToLogsOnError" {
        return log_end(&run.log_path);
    }
    own
}

fn file(path: &Path) -> String {
    let mut bytes = Vec::new();
    // The container wrote this file, and it may be anything: read a bounded part of what opens.
    let read = File::open(path).and_then(|f| f.take(FILE_BYTES_MAX).read_to_end(&mut bytes));
    if read.is_err() { String::new() } else { String::from_utf8_lossy(&bytes).into_owned() }
}

fn log_end(path: &Path) -> String {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|mut f| {
        let length = f.seek(SeekFrom::End(0))?;
        f.seek(SeekFrom::Start(length.saturating_sub(LOG_READ_BYTES)))?;
        f.take(LOG_READ_BYTES).read_to_end(&mut bytes)
    });
    if read.is_err() {
        return String::new();
    }
    let text = String::from_utf8_lossy(&bytes);
    // `TIME STREAM FLAG content`; the first line may be cut.
    let lines: Vec<&str> = text.lines().filter_map(|line| line.splitn(4, ' ').nth(3)).collect();
    let mut out = lines[lines.len().saturating_sub(LOG_LINES_MAX)..].join("\n");
    if !out.is_empty() {
        out.push('\n');
    }
    let cut = out.len().saturating_sub(LOG_BYTES_MAX);
    let cut = (cut..=out.len()).find(|at| out.is_char_boundary(*at)).unwrap_or(out.len());
    out.split_off(cut)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_logs_end_is_bounded_and_without_its_prefixes() {
        let dir = tempfile::tempdir().expect("temp dir");
        let path = dir.path().join("0.log");
        let line = |i: usize| format!("2026-01-01T00:00:00Z stdout F line {i}\n");
        let text: String = (0..500).map(line).collect();
        crate::files::write_atomic(&path, text.as_bytes(), 0o644).expect("written");
        let end = log_end(&path);
        assert!(end.ends_with("line 499\n") && end.starts_with("line 420\n"), "{end}");
        assert_eq!(log_end(Path::new("/nonexistent/x")), "");
    }
}
