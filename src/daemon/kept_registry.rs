//! Which kept session has which pid.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::session::Key;

/// Wrong pids that are looked up at once.
const MAX_WRONG_PIDS: u32 = 200;
/// One wrong pid more is looked up after this. Guessing a pid of eight characters, of which STAT shows four, takes hours
/// at this rate, and plugins whose pids are gone notice nothing.
const WRONG_PID_INTERVAL: Duration = Duration::from_millis(100);

/// Pids of kept sessions. They are secrets, and are compared by a keyed hash: the time that takes tells nothing.
#[derive(Debug, Default)]
pub(super) struct KeptRegistry {
    keys: HashMap<Box<[u8]>, Key>,
    limiter: RateLimiter,
}

/// A token bucket for wrong pids.
#[derive(Debug, Default)]
struct RateLimiter {
    /// Wrong pids that still count, and since when none has been forgiven.
    wrong: u32,
    since: Option<Instant>,
}

impl RateLimiter {
    /// True if another pid may be looked up.
    fn allow(&mut self, now: Instant) -> bool {
        let since = *self.since.get_or_insert(now);
        let forgiven = (now.saturating_duration_since(since).as_millis() / WRONG_PID_INTERVAL.as_millis()) as u32;
        self.wrong = self.wrong.saturating_sub(forgiven);
        self.since = if self.wrong == 0 { None } else { Some(since + WRONG_PID_INTERVAL * forgiven) };
        self.wrong < MAX_WRONG_PIDS
    }

    /// Counts a wrong pid.
    fn record_wrong(&mut self, now: Instant) {
        self.since.get_or_insert(now);
        self.wrong += 1;
        if self.wrong == MAX_WRONG_PIDS {
            log::warn!("too many wrong pids of kept connections: for a moment, none is found");
        }
    }
}

impl KeptRegistry {
    /// The session of `pid`.
    pub(super) fn find(&self, pid: &[u8]) -> Option<Key> {
        self.keys.get(pid).copied()
    }

    /// True if another pid that a client names may be looked up.
    pub(super) fn allow_lookup(&mut self, now: Instant) -> bool {
        self.limiter.allow(now)
    }

    /// Counts a pid that a client named and no session has.
    pub(super) fn record_wrong_pid(&mut self, now: Instant) {
        self.limiter.record_wrong(now);
    }

    /// How many pids there are.
    pub(super) fn len(&self) -> usize {
        self.keys.len()
    }

    /// From now on `pid` is that of `key`.
    pub(super) fn insert(&mut self, pid: &[u8], key: Key) {
        self.keys.insert(pid.into(), key);
    }

    /// Removes `pid`, if it is still that of `key`.
    pub(super) fn remove(&mut self, pid: &[u8], key: Key) {
        if self.find(pid) == Some(key) {
            self.keys.remove(pid);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pid_belongs_to_the_last_session_that_got_it() {
        let mut registry = KeptRegistry::default();
        registry.insert(b"abcdefgh", 1);
        assert_eq!((registry.find(b"abcdefgh"), registry.find(b"abcdefg")), (Some(1), None));
        registry.insert(b"abcdefgh", 2);
        registry.remove(b"abcdefgh", 1);
        assert_eq!((registry.find(b"abcdefgh"), registry.len()), (Some(2), 1));
        registry.remove(b"abcdefgh", 2);
        assert_eq!(registry.len(), 0);
    }

    #[test]
    fn wrong_pids_are_limited() {
        let start = Instant::now();
        let mut limiter = RateLimiter::default();
        let mut allowed_after = |after: Duration| {
            let now = start + after;
            let mut allowed = 0;
            while limiter.allow(now) {
                limiter.record_wrong(now);
                allowed += 1;
                assert!(allowed <= MAX_WRONG_PIDS, "without end");
            }
            allowed
        };
        assert_eq!(allowed_after(Duration::ZERO), MAX_WRONG_PIDS);
        assert_eq!(allowed_after(WRONG_PID_INTERVAL / 2), 0);
        assert_eq!(allowed_after(WRONG_PID_INTERVAL), 1);
        assert_eq!(allowed_after(WRONG_PID_INTERVAL * 5 / 2), 1);
        assert_eq!(allowed_after(WRONG_PID_INTERVAL * 3), 1, "halves add up");
        assert_eq!(allowed_after(WRONG_PID_INTERVAL * 100_000), MAX_WRONG_PIDS, "but not beyond the bound");
    }
}
