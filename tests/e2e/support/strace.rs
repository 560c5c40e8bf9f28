//! The daemon's system calls, counted by strace(1).

use std::collections::BTreeMap;
use std::fmt;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use testkit::daemon::Daemon;

use super::{LIMIT, skipped_under_emulation};

/// A daemon with no system call for this long has come to rest: its last one is waiting for events.
const REST: Duration = Duration::from_millis(1500);

/// A running strace that is attached to all threads of a daemon. Dropping it detaches.
pub(crate) struct Strace {
    process: Child,
    /// The name of each completed system call.
    calls: Receiver<String>,
}

/// Numbers of system calls by their names.
#[derive(Debug, Default)]
pub(crate) struct Calls(BTreeMap<String, usize>);

impl Strace {
    /// Attaches to the daemon. `None`, with the reason printed, if strace is missing or may not trace, or if the daemon
    /// runs under an emulator, whose calls would be counted.
    #[track_caller]
    pub(crate) fn attach(daemon: &Daemon) -> Option<Strace> {
        if skipped_under_emulation("system calls are the emulator's") {
            return None;
        }
        let mut command = Command::new("strace");
        command.args(["-f", "-p", &daemon.pid().to_string()]);
        let spawned = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
        let mut process = match spawned {
            Ok(process) => process,
            Err(error) => {
                println!("skipped: no strace here: {error}");
                return None;
            }
        };
        let mut lines = BufReader::new(process.stderr.take().expect("stderr")).lines().map_while(Result::ok);
        // The first line says that strace is attached, or why it is not.
        let first = lines.next().unwrap_or_default();
        if !first.ends_with("attached") && !first.contains(" attached with ") {
            println!("skipped: no tracing here: {first}");
            process.wait().expect("strace");
            return None;
        }
        let (sender, calls) = channel();
        thread::spawn(move || lines.filter_map(|line| name(&line)).try_for_each(|name| sender.send(name)));
        let strace = Strace { process, calls };
        strace.wait_for_rest();
        Some(strace)
    }

    /// Waits until there is no system call any more, and returns those since the last call of this function.
    #[track_caller]
    pub(crate) fn wait_for_rest(&self) -> Calls {
        let mut calls = Calls::default();
        let start = std::time::Instant::now();
        while let Some(name) = self.next_within(REST) {
            *calls.0.entry(name).or_default() += 1;
            assert!(start.elapsed() < 2 * LIMIT, "the daemon does not come to rest: {calls}");
        }
        calls
    }

    /// The next system call that completes within `time`.
    ///
    /// # Panics
    /// If strace has ended.
    #[track_caller]
    pub(crate) fn next_within(&self, time: Duration) -> Option<String> {
        match self.calls.recv_timeout(time) {
            Ok(name) => Some(name),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => panic!("strace has ended"),
        }
    }
}

impl Drop for Strace {
    fn drop(&mut self) {
        // Unlike SIGKILL this leaves the daemon running.
        kill(Pid::from_raw(self.process.id() as i32), Signal::SIGINT).ok();
        self.process.wait().ok();
    }
}

impl Calls {
    /// An error, with all numbers, if a call was made more often than `per_unit` says, on average over `units`, or one was
    /// made that it does not name. `tolerance`: calls of a name beyond that, for `units` in all.
    pub(crate) fn check(&self, units: usize, per_unit: &[(&str, f64)], tolerance: usize) -> Result<(), String> {
        for (name, &count) in &self.0 {
            let allowed = per_unit.iter().find(|(named, _)| named == name).map_or(0.0, |&(_, allowed)| allowed);
            let most = (allowed * units as f64) as usize + tolerance;
            if count > most {
                return Err(format!("{name}: {count} calls for {units}, expected {most} at most; all: {self}"));
            }
        }
        Ok(())
    }

    /// The number of all calls.
    pub(crate) fn total(&self) -> usize {
        self.0.values().sum()
    }
}

impl fmt::Display for Calls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} calls:", self.total())?;
        self.0.iter().try_for_each(|(name, count)| write!(f, " {name} {count}"))
    }
}

/// The name of the system call that a line of strace's output completes, as x86-64 calls it. `None` for other lines.
fn name(line: &str) -> Option<String> {
    // With several threads a call may take two lines: "[pid 5] read(3,  <unfinished ...>" and "<... read resumed>".
    let line = line.strip_prefix("[pid ").and_then(|line| line.split_once("] ")).map_or(line, |(_, line)| line);
    // With debug assertions the standard library asks of each descriptor that it closes whether it is open.
    if line.contains("<unfinished ...>") || line.contains("F_GETFD") {
        return None;
    }
    let name = match line.strip_prefix("<... ") {
        Some(resumed) => resumed.split_once(" resumed>")?.0,
        None => line.split_once('(')?.0,
    };
    let is_name = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    is_name.then(|| match name {
        "epoll_pwait" | "epoll_pwait2" => "epoll_wait".to_owned(),
        "recv" => "recvfrom".to_owned(),
        "send" => "sendto".to_owned(),
        other => other.to_owned(),
    })
}

#[test]
fn lines_of_strace_are_understood() {
    for (line, expected) in [
        ("epoll_pwait(3, [{events=EPOLLIN}], 256, -1, NULL, 8) = 1", Some("epoll_wait")),
        ("[pid    12] sendto(7, \"a(b\", 3, MSG_NOSIGNAL, NULL, 0) = 3", Some("sendto")),
        ("[pid 12] epoll_wait(3,  <unfinished ...>", None),
        ("<... epoll_wait resumed>[], 256, 5) = 0", Some("epoll_wait")),
        ("strace: Process 12 attached", None),
        ("fcntl(9, F_GETFD) = 0x1 (flags FD_CLOEXEC)", None),
        ("--- SIGHUP {si_signo=SIGHUP} ---", None),
        ("+++ exited with 0 +++", None),
    ] {
        assert_eq!(name(line).as_deref(), expected, "{line}");
    }
}
