//! Which kept session has which pid.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::client::{ClientKey, ClientLimits, ClientUsage, PerClient};
use crate::session::Key;

/// Wrong pids of one client that are looked up at once.
const MAX_WRONG_PIDS: u32 = 200;
/// One wrong pid more is looked up after this. Guessing a pid of eight characters takes longer than any connection lasts,
/// and plugins whose pids are gone notice nothing.
const WRONG_PID_INTERVAL: Duration = Duration::from_millis(100);
/// Clients whose wrong pids are counted. Further ones share one count.
const MAX_GUESSERS: usize = 256;
/// Log too many wrong pids at most once per minute.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// Pids of kept sessions. They are secrets, and are compared by a keyed hash: the time that takes tells nothing.
#[derive(Debug, Default)]
pub(super) struct KeptRegistry {
    entries: HashMap<Box<[u8]>, Entry>,
    /// How many entries each client has.
    usage: ClientUsage,
    guesses: GuessLimiter,
}

/// A kept session.
#[derive(Debug)]
struct Entry {
    key: Key,
    /// The client that made it, which it counts for.
    client: ClientKey,
}

/// Bounds the wrong pids of each client. So the guesses of one do not keep another from finding a right pid.
#[derive(Debug, Default)]
struct GuessLimiter {
    loopback: RateLimiter,
    others: PerClient<RateLimiter>,
    /// The clients for which `others` has no room.
    rest: RateLimiter,
    logged: Option<Instant>,
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
        let forgiven = now.saturating_duration_since(since).div_duration_f64(WRONG_PID_INTERVAL) as u32;
        self.wrong = self.wrong.saturating_sub(forgiven);
        self.since = if self.wrong == 0 { None } else { Some(since + WRONG_PID_INTERVAL * forgiven) };
        self.wrong < MAX_WRONG_PIDS
    }

    /// Counts a wrong pid. True if none more may be looked up.
    fn record_wrong(&mut self, now: Instant) -> bool {
        self.since.get_or_insert(now);
        self.wrong += 1;
        self.wrong >= MAX_WRONG_PIDS
    }
}

impl GuessLimiter {
    /// True if another pid of `client` may be looked up.
    fn allow(&mut self, client: ClientKey, now: Instant) -> bool {
        self.limiter(client, now).is_none_or(|limiter| limiter.allow(now))
    }

    /// Counts a wrong pid of `client`.
    fn record_wrong(&mut self, client: ClientKey, now: Instant) {
        let limiter = match self.limiter(client, now) {
            Some(limiter) => limiter,
            None => self.others.entry(client),
        };
        if limiter.record_wrong(now) && self.logged.is_none_or(|before| now - before >= LOG_INTERVAL) {
            self.logged = Some(now);
            log::warn!("too many wrong pids of kept connections from {client}: for a moment, it finds none");
        }
    }

    /// What counts the wrong pids of `client`. `None` if it has named none lately.
    fn limiter(&mut self, client: ClientKey, now: Instant) -> Option<&mut RateLimiter> {
        if client.is_loopback() {
            return Some(&mut self.loopback);
        }
        if self.others.get(client).is_none() && self.others.len() >= MAX_GUESSERS {
            self.others.retain(|limiter| {
                limiter.allow(now);
                limiter.wrong > 0
            });
            if self.others.len() >= MAX_GUESSERS {
                return Some(&mut self.rest);
            }
        }
        self.others.get_mut(client)
    }
}

/// A client has named so many wrong pids that none more is looked up for now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooManyGuesses;

impl KeptRegistry {
    /// The session of `pid`.
    pub(super) fn find(&self, pid: &[u8]) -> Option<Key> {
        self.entries.get(pid).map(|entry| entry.key)
    }

    /// The session of a `pid` that `client` names, among those for which `is_kept` returns true. `Ok(None)` if there is
    /// none, which counts as a guess.
    pub(super) fn look_up(
        &mut self,
        pid: &[u8],
        client: ClientKey,
        is_kept: impl FnOnce(Key) -> bool,
        now: Instant,
    ) -> Result<Option<Key>, TooManyGuesses> {
        if !self.guesses.allow(client, now) {
            return Err(TooManyGuesses);
        }
        let found = self.find(pid).filter(|&key| is_kept(key));
        if found.is_none() {
            self.guesses.record_wrong(client, now);
        }
        Ok(found)
    }

    /// True if `client` may have one kept session more, of `limit` in all: a client other than loopback half of them at
    /// most, and all of those together three quarters.
    pub(super) fn has_room(&self, client: ClientKey, limit: usize) -> bool {
        let limits = ClientLimits { all: limit, others: limit - limit / 4, each: limit.div_ceil(2) };
        self.usage.check(client, limits).is_ok()
    }

    /// From now on `pid` is that of `key`, a session of `client`.
    pub(super) fn insert(&mut self, pid: &[u8], key: Key, client: ClientKey) {
        self.usage.add(client, 1);
        if let Some(replaced) = self.entries.insert(pid.into(), Entry { key, client }) {
            self.usage.subtract(replaced.client, 1);
        }
    }

    /// Removes `pid`, if it is still that of `key`.
    pub(super) fn remove(&mut self, pid: &[u8], key: Key) {
        if self.find(pid) == Some(key)
            && let Some(removed) = self.entries.remove(pid)
        {
            self.usage.subtract(removed.client, 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pid_belongs_to_the_last_session_that_got_it() {
        let mut registry = KeptRegistry::default();
        registry.insert(b"abcdefgh", 1, ClientKey::Loopback);
        assert_eq!((registry.find(b"abcdefgh"), registry.find(b"abcdefg")), (Some(1), None));
        registry.insert(b"abcdefgh", 2, ClientKey::Loopback);
        registry.remove(b"abcdefgh", 1);
        assert_eq!((registry.find(b"abcdefgh"), registry.entries.len()), (Some(2), 1));
        assert_eq!(registry.usage.of(ClientKey::Loopback), 1);
        registry.remove(b"abcdefgh", 2);
        assert_eq!((registry.entries.len(), registry.usage.of(ClientKey::Loopback)), (0, 0));
    }

    /// Clients other than loopback.
    fn stranger(number: u64) -> ClientKey {
        ClientKey::V6(number)
    }

    #[test]
    fn the_guesses_of_one_client_do_not_refuse_anothers_pid() {
        let (mut registry, now) = (KeptRegistry::default(), Instant::now());
        registry.insert(b"abcdefgh", 1, ClientKey::Loopback);
        let mut look_up = |pid: &[u8], client| registry.look_up(pid, client, |_| true, now);
        for guess in 0..MAX_WRONG_PIDS {
            assert_eq!(look_up(&guess.to_be_bytes(), stranger(1)), Ok(None));
        }
        assert_eq!(look_up(b"abcdefgh", stranger(1)), Err(TooManyGuesses));
        assert_eq!(look_up(b"abcdefgh", stranger(2)), Ok(Some(1)));
        for guess in 0..MAX_WRONG_PIDS {
            assert_eq!(look_up(&guess.to_be_bytes(), ClientKey::Loopback), Ok(None));
        }
        assert_eq!(look_up(b"abcdefgh", ClientKey::Loopback), Err(TooManyGuesses), "loopback is one client, too");
    }

    #[test]
    fn guessers_are_remembered_up_to_a_bound_and_beyond_share_a_limit() {
        let (mut guesses, now) = (GuessLimiter::default(), Instant::now());
        for number in 0..MAX_GUESSERS as u64 {
            guesses.record_wrong(stranger(number), now);
        }
        for number in 1000..1000 + u64::from(MAX_WRONG_PIDS) {
            assert!(guesses.allow(stranger(number), now));
            guesses.record_wrong(stranger(number), now);
        }
        assert_eq!(guesses.others.len(), MAX_GUESSERS);
        assert!(!guesses.allow(stranger(9999), now));
        assert!(guesses.allow(stranger(1), now) && guesses.allow(ClientKey::Loopback, now));
        let later = now + WRONG_PID_INTERVAL;
        assert!(guesses.allow(stranger(9999), later));
        guesses.record_wrong(stranger(9999), later);
        assert_eq!(guesses.others.len(), 1, "those that are forgiven are forgotten");
    }

    #[test]
    fn no_client_takes_all_kept_connections() {
        let mut registry = KeptRegistry::default();
        let mut fill = |client: ClientKey| {
            let before = registry.entries.len();
            while registry.has_room(client, 64) {
                let number = registry.entries.len();
                registry.insert(&number.to_be_bytes(), number, client);
            }
            registry.entries.len() - before
        };
        assert_eq!(fill(stranger(1)), 32);
        assert_eq!(fill(stranger(2)), 16);
        assert_eq!(fill(stranger(3)), 0);
        assert_eq!(fill(ClientKey::Loopback), 16);
        let mut registry = KeptRegistry::default();
        assert!(registry.has_room(stranger(1), 1) && !registry.has_room(ClientKey::Loopback, 0));
        registry.insert(b"abcdefgh", 1, stranger(1));
        assert!(!registry.has_room(ClientKey::Loopback, 1));
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
