//! Runs of the daemon and of other programs that exit by themselves, and directories for their files.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// The result of a run.
#[derive(Debug)]
pub(crate) struct Run {
    pub status: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Run {
    fn of(output: &Output) -> Run {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Run { status: output.status.code(), out: text(&output.stdout), err: text(&output.stderr) }
    }
}

/// The command that starts the daemon, without its arguments.
fn program() -> Vec<String> {
    let named = std::env::var("SOCKPROXYD").unwrap_or_default();
    let words: Vec<String> = named.split_whitespace().map(String::from).collect();
    if words.is_empty() { vec![super::BINARY.to_owned()] } else { words }
}

/// The daemon as a command that the caller starts.
pub(crate) fn command(args: &[&str]) -> Command {
    let words = program();
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]).args(args).stdin(Stdio::null());
    command
}

/// Runs the daemon with these arguments until it exits.
///
/// # Panics
/// If it has not exited after 10 seconds.
#[track_caller]
pub(crate) fn run(args: &[&str]) -> Run {
    let mut command = Command::new("timeout");
    command.arg("10").args(program()).args(args).stdin(Stdio::null());
    let output = command.output().expect("timeout(1)");
    let run = Run::of(&output);
    assert_ne!(run.status, Some(124), "the daemon does not exit: {run:?}");
    run
}

/// A private directory. Dropping it removes the directory.
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    pub(crate) fn new() -> Scratch {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("sockproxyd-e2e-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).expect("a private directory");
        Scratch(path)
    }

    /// The path of a file in the directory.
    pub(crate) fn path(&self, name: &str) -> String {
        self.0.join(name).to_string_lossy().into_owned()
    }

    /// Writes a file and returns its path.
    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        let path = self.path(name);
        fs::write(&path, content).expect("a file");
        path
    }

    /// The text of a file; empty if the file does not exist.
    pub(crate) fn read(&self, name: &str) -> String {
        String::from_utf8_lossy(&fs::read(self.0.join(name)).unwrap_or_default()).into_owned()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).ok();
    }
}

/// A run of curl(1) with these arguments, half a minute at most.
#[track_caller]
pub(crate) fn curl(arguments: &[&str]) -> Run {
    let output = Command::new("curl").args(["-s", "-m", "30"]).args(arguments).output();
    Run::of(&output.expect("curl is needed (apt-get install curl)"))
}
