//! Running client programs: bounded in time, with everything they said in the panic when they fail.

use std::io::{Read, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::wait::pause;

/// No client of these tests works longer.
const TIMEOUT: Duration = Duration::from_secs(90);

/// What a program printed and how it ended.
#[derive(Clone, Debug)]
pub struct Output {
    pub command: String,
    /// -1 where a signal ended it.
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Output {
    /// Standard output of a program that succeeded.
    ///
    /// # Panics
    /// When it failed, with what it said.
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(self.code, 0, "{self}");
        self.stdout
    }

    /// Both outputs of a program that failed as it should.
    ///
    /// # Panics
    /// When it succeeded.
    #[track_caller]
    pub fn fails(self) -> String {
        assert_ne!(self.code, 0, "this should have failed: {self}");
        format!("{}{}", self.stdout, self.stderr)
    }

    pub fn succeeded(&self) -> bool {
        self.code == 0
    }
}

impl std::fmt::Display for Output {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "`{}` ended with {}\n--- stdout\n{}\n--- stderr\n{}",
            self.command, self.code, self.stdout, self.stderr
        )
    }
}

/// Runs to the end.
#[track_caller]
pub fn run(command: &mut Command) -> Output {
    run_with_input(command, &[])
}

/// Runs to the end with `input` as its standard input, then end of file.
#[track_caller]
pub fn run_with_input(command: &mut Command, input: &[u8]) -> Output {
    let mut running = spawn(command);
    if let Some(mut stdin) = running.stdin() {
        let input = input.to_vec();
        // A program that reads slowly or not at all must not block the test.
        std::thread::spawn(move || {
            let _ = stdin.write_all(&input);
        });
    }
    running.wait(TIMEOUT)
}

/// A program that goes on while the test does something else. Killed when dropped.
pub struct Running {
    child: Child,
    command: String,
    stdout: Arc<Mutex<Vec<u8>>>,
    stderr: Arc<Mutex<Vec<u8>>>,
    readers: Vec<std::thread::JoinHandle<()>>,
}

/// Starts a program and collects what it prints.
///
/// # Panics
/// When it cannot be started.
#[track_caller]
pub fn spawn(command: &mut Command) -> Running {
    let words = words(command);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("cannot run `{words}`: {error}"));
    let (stdout, stderr) = (Arc::default(), Arc::default());
    let mut readers = Vec::new();
    readers.extend(child.stdout.take().map(|pipe| collect(pipe, &stdout)));
    readers.extend(child.stderr.take().map(|pipe| collect(pipe, &stderr)));
    Running { child, command: words, stdout, stderr, readers }
}

impl Running {
    /// Its standard input, once; dropping it is the end of file.
    pub fn stdin(&mut self) -> Option<ChildStdin> {
        self.child.stdin.take()
    }

    /// What it has printed until now.
    pub fn stdout(&self) -> String {
        text(&self.stdout)
    }

    pub fn stderr(&self) -> String {
        text(&self.stderr)
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for its end; after `timeout` it is killed.
    ///
    /// # Panics
    /// When it had to be killed.
    #[track_caller]
    pub fn wait(mut self, timeout: Duration) -> Output {
        let started = Instant::now();
        let status = loop {
            match self.child.try_wait() {
                Ok(Some(status)) => break status,
                Ok(None) if started.elapsed() < timeout => pause(Duration::from_millis(5)),
                Ok(None) => {
                    let said = (self.stdout(), self.stderr());
                    panic!("`{}` did not end within {} s: {said:?}", self.command, timeout.as_secs());
                }
                Err(error) => panic!("`{}`: {error}", self.command),
            }
        };
        // A background child that inherited the pipes would keep them open for ever: give it a moment.
        let deadline = Instant::now() + Duration::from_secs(2);
        while self.readers.iter().any(|reader| !reader.is_finished()) && Instant::now() < deadline {
            pause(Duration::from_millis(2));
        }
        Output {
            command: self.command.clone(),
            code: status.code().unwrap_or(-1),
            stdout: self.stdout(),
            stderr: self.stderr(),
        }
    }

    /// Ends it as Ctrl-C does.
    pub fn interrupt(&self) {
        let pid = nix::unistd::Pid::from_raw(self.child.id().cast_signed());
        // It may have ended by itself.
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn collect(mut pipe: impl Read + Send + 'static, into: &Arc<Mutex<Vec<u8>>>) -> std::thread::JoinHandle<()> {
    let into = into.clone();
    std::thread::spawn(move || {
        let mut buffer = [0; 16 * 1024];
        while let Ok(read @ 1..) = pipe.read(&mut buffer) {
            lock(&into).extend_from_slice(&buffer[..read]);
        }
    })
}

fn lock(bytes: &Mutex<Vec<u8>>) -> MutexGuard<'_, Vec<u8>> {
    bytes.lock().unwrap_or_else(PoisonError::into_inner)
}

fn text(bytes: &Mutex<Vec<u8>>) -> String {
    String::from_utf8_lossy(&lock(bytes)).into_owned()
}

fn words(command: &Command) -> String {
    let mut text = command.get_program().to_string_lossy().into_owned();
    for argument in command.get_args() {
        text.push(' ');
        text.push_str(&argument.to_string_lossy());
    }
    text
}
