//! Asking the person at the terminal, and reading secrets that come by a pipe.

use std::fs::{File, OpenOptions};
use std::io::{BufRead as _, IsTerminal as _, Read as _, Write as _};

use anyhow::{Context as _, anyhow, bail};
use gantry_base::secret::Secret;
use nix::sys::termios::{LocalFlags, SetArg, SpecialCharacterIndices, Termios, tcgetattr, tcsetattr};

/// No password is longer; a pipe that never ends is not read to its end.
const SECRET_BYTES_MAX: u64 = 64 * 1024;

/// Is there somebody to ask?
pub fn interactive() -> bool {
    std::io::stdin().is_terminal() && terminal().is_ok()
}

fn terminal() -> anyhow::Result<File> {
    let opened = OpenOptions::new().read(true).write(true).open("/dev/tty");
    opened.context("there is no terminal to ask on")
}

/// Asks for a line that may be seen.
pub fn line(label: &str) -> anyhow::Result<String> {
    let mut tty = terminal()?;
    write!(tty, "{label}: ")?;
    let mut text = String::new();
    std::io::BufReader::new(tty).read_line(&mut text)?;
    Ok(text.trim().to_owned())
}

/// Asks for a secret; what is typed is not shown.
pub fn secret(label: &str) -> anyhow::Result<Secret<String>> {
    let mut tty = terminal()?;
    let typed = {
        // Silent before it asks: whoever answers at once is not shown either.
        let mut quiet = Quiet::enter(tty.try_clone()?)?;
        write!(quiet.tty, "{label}: ")?;
        typed(&quiet.tty)
    };
    writeln!(tty)?;
    let typed = typed?;
    if typed.is_empty() {
        bail!("nothing was typed");
    }
    Ok(Secret::new(String::from_utf8(typed).context("what was typed is no text")?))
}

/// Asks for a new secret, twice.
pub fn new_secret(label: &str) -> anyhow::Result<Secret<String>> {
    let first = secret(label)?;
    if first != secret(&format!("{label} again"))? {
        bail!("the two differ");
    }
    Ok(first)
}

/// The terminal shows nothing of what is typed until this is dropped. Keys that end a program come as letters:
/// a program that ended here would leave the terminal silent.
struct Quiet {
    tty: File,
    before: Termios,
}

impl Quiet {
    fn enter(tty: File) -> anyhow::Result<Self> {
        let before = tcgetattr(&tty)?;
        let mut silent = before.clone();
        silent.local_flags &=
            !(LocalFlags::ECHO | LocalFlags::ECHONL | LocalFlags::ICANON | LocalFlags::ISIG);
        silent.control_chars[SpecialCharacterIndices::VMIN as usize] = 1;
        silent.control_chars[SpecialCharacterIndices::VTIME as usize] = 0;
        tcsetattr(&tty, SetArg::TCSAFLUSH, &silent)?;
        Ok(Self { tty, before })
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        // Nothing else can be done for a terminal that is gone.
        let _ = tcsetattr(&self.tty, SetArg::TCSAFLUSH, &self.before);
    }
}

fn typed(tty: &File) -> anyhow::Result<Vec<u8>> {
    let mut text = Vec::new();
    let mut tty = tty;
    let mut key = [0];
    // Key by key: what is typed ahead is the next question's.
    while text.len() < SECRET_BYTES_MAX as usize && tty.read(&mut key)? > 0 {
        match edited(&mut text, key[0]) {
            Edit::More => {}
            Edit::Done => break,
            Edit::Cancelled => bail!("interrupted"),
        }
    }
    Ok(text)
}

#[derive(Debug, PartialEq, Eq)]
enum Edit {
    More,
    Done,
    Cancelled,
}

/// What a key does to the line.
fn edited(text: &mut Vec<u8>, key: u8) -> Edit {
    const INTERRUPT: u8 = 0x03;
    const END: u8 = 0x04;
    const ERASE_LINE: u8 = 0x15;
    match key {
        b'\r' | b'\n' | END => return Edit::Done,
        INTERRUPT => return Edit::Cancelled,
        ERASE_LINE => text.clear(),
        0x08 | 0x7f => {
            // A letter, which may be several bytes.
            while text.pop().is_some_and(|byte| byte & 0xc0 == 0x80) {}
        }
        _ => text.push(key),
    }
    Edit::More
}

/// The lines of standard input, each a secret; `what` for when there are not as many.
pub fn secrets_from_stdin<const N: usize>(what: [&str; N]) -> anyhow::Result<[Secret<String>; N]> {
    if std::io::stdin().is_terminal() {
        bail!(
            "standard input is a terminal: pipe the {} in, or leave the flag away to be asked",
            what.join(" and the ")
        );
    }
    let mut text = String::new();
    std::io::stdin().lock().take(SECRET_BYTES_MAX).read_to_string(&mut text)?;
    lines(&text, what)
}

fn lines<const N: usize>(text: &str, what: [&str; N]) -> anyhow::Result<[Secret<String>; N]> {
    let mut lines = text.lines();
    let mut found = Vec::with_capacity(N);
    for word in what {
        let line = lines.next().filter(|line| !line.is_empty());
        found.push(Secret::new(line.ok_or_else(|| anyhow!("standard input has no {word}"))?.to_owned()));
    }
    found.try_into().map_err(|_| anyhow!("standard input has not what is needed"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_edit_a_line_nobody_sees() {
        for (keys, text, end) in [
            (&b"abc\r"[..], "abc", Edit::Done),
            (b"abd\x7fc\n", "abc", Edit::Done),
            (b"wrong\x15abc\x04", "abc", Edit::Done),
            (b"ab\x03", "ab", Edit::Cancelled),
            ("a\u{20ac}\u{7f}b\n".as_bytes(), "ab", Edit::Done),
            (b"\x7f\x7fa\n", "a", Edit::Done),
        ] {
            let mut line = Vec::new();
            let last = keys.iter().map(|key| edited(&mut line, *key)).find(|edit| *edit != Edit::More);
            assert_eq!(String::from_utf8(line).expect("text"), text, "{keys:?}");
            assert_eq!(last, Some(end), "{keys:?}");
        }
    }

    #[test]
    fn a_pipe_gives_as_many_secrets_as_it_has_lines() {
        let [old, new] = lines("old \nnew\r\n", ["password", "new password"]).expect("two lines");
        assert_eq!((old.expose().as_str(), new.expose().as_str()), ("old ", "new"));
        let error = lines("old\n", ["password", "new password"]).expect_err("one line").to_string();
        assert_eq!(error, "standard input has no new password");
    }
}
