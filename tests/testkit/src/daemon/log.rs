//! The output of the daemon in lines, and waiting for a line.

use std::io::BufRead;
use std::net::SocketAddr;
use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::Duration;

/// The log: reading threads fill it, and the test waits for it.
#[derive(Default)]
pub(super) struct SharedLog {
    pub(super) state: Mutex<Log>,
    changed: Condvar,
}

/// The output so far.
#[derive(Default)]
pub(super) struct Log {
    pub(super) lines: Vec<String>,
    /// The number of pipes that have not ended.
    pub(super) readers: usize,
    pub(super) ended: bool,
}

impl Log {
    pub(super) fn listening(&self) -> Vec<SocketAddr> {
        self.lines
            .iter()
            .filter_map(|line| line.split_once("listening on "))
            .filter_map(|(_, rest)| rest.split_whitespace().next()?.parse().ok())
            .collect()
    }
}

impl SharedLog {
    pub(super) fn lock(&self) -> MutexGuard<'_, Log> {
        self.state.lock().expect("log lock")
    }

    pub(super) fn wait(&self, timeout: Duration, enough: impl Fn(&Log) -> bool) -> MutexGuard<'_, Log> {
        let guard = self.lock();
        self.changed.wait_timeout_while(guard, timeout, |log| !enough(log)).expect("log lock").0
    }

    pub(super) fn read(&self, mut from: impl BufRead) {
        let mut line = Vec::new();
        while matches!(from.read_until(b'\n', &mut line), Ok(n) if n > 0) {
            let text = String::from_utf8_lossy(&line).trim_end_matches('\n').to_string();
            let mut log = self.lock();
            log.lines.push(text);
            drop(log);
            self.changed.notify_all();
            line.clear();
        }
        let mut log = self.lock();
        log.readers -= 1;
        log.ended = log.readers == 0;
        drop(log);
        self.changed.notify_all();
    }
}
