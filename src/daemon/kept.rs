//! Which session is whose: the pids of kept connections, and what concerns two sessions at once (CONN with KEEP, ATCH,
//! DROP).

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::{Daemon, slot_of};
use crate::protocol::reply;
use crate::protocol::target::Target;
use crate::session::{Keeping, Key, Request};

/// Turns in which what a plugin has sent is passed on before another takes its place. What is still left then is what
/// the remote does not take.
const TURNS: usize = 16;

/// So many wrong pids are looked up at once,
const GUESSES: u32 = 200;
/// and one more each time this has passed. Who guesses a pid of eight characters, of which STAT shows four, is at it
/// for hours; plugins that have yet to learn that theirs are gone notice nothing.
const GUESS_INTERVAL: Duration = Duration::from_millis(100);

/// Pids of kept connections. They are secrets, and are compared by a hash with a key of its own: how long that takes
/// tells nobody anything.
#[derive(Debug, Default)]
pub struct Directory {
    keys: HashMap<Box<[u8]>, Key>,
    guesses: Guesses,
}

/// Counts wrong pids.
#[derive(Debug, Default)]
struct Guesses {
    /// Those that count still, and since when none has been forgiven.
    wrong: u32,
    since: Option<Instant>,
}

impl Guesses {
    /// True where another pid may be looked up.
    fn may_guess(&mut self, now: Instant) -> bool {
        let since = *self.since.get_or_insert(now);
        let forgiven = (now.saturating_duration_since(since).as_millis() / GUESS_INTERVAL.as_millis()) as u32;
        self.wrong = self.wrong.saturating_sub(forgiven);
        self.since = if self.wrong == 0 { None } else { Some(since + GUESS_INTERVAL * forgiven) };
        self.wrong < GUESSES
    }

    /// One was wrong.
    fn count(&mut self, now: Instant) {
        self.since.get_or_insert(now);
        self.wrong += 1;
        if self.wrong == GUESSES {
            log::warn!("pids of kept connections are guessed: for a moment, none is found");
        }
    }
}

impl Directory {
    /// Whose a pid is.
    pub fn find(&self, pid: &[u8]) -> Option<Key> {
        self.keys.get(pid).copied()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// From now on `pid` is that of `key`.
    pub fn insert(&mut self, pid: &[u8], key: Key) {
        self.keys.insert(pid.into(), key);
    }

    /// `pid` is no longer that of `key`; if it is another's, it stays.
    pub fn remove(&mut self, pid: &[u8], key: Key) {
        if self.find(pid) == Some(key) {
            self.keys.remove(pid);
        }
    }
}

impl Daemon {
    /// Does what a session asks concerning kept connections.
    pub(super) fn perform_kept(&mut self, slot: usize, key: Key) {
        match self.sessions[slot].session.take_request() {
            Some(Request::Connect(target)) => self.claim(slot, key, target),
            Some(Request::Attach(pid, seen)) => {
                if let Err(reason) = self.attach(slot, &pid, seen) {
                    self.sessions[slot].session.answer(reply::kept_failed("ATCH", reason));
                }
            }
            Some(Request::Drop(pid)) => {
                let answer = match self.find_asked(&pid) {
                    Some((kept_slot, kept_key)) => {
                        let mut cx = self.house.context(kept_key, self.now);
                        self.sessions[kept_slot].session.end_keeping("DROP", &mut cx);
                        self.enqueue(kept_key);
                        reply::ok("DROP")
                    }
                    None => reply::kept_failed("DROP", reply::NO_SUCH_PID),
                };
                self.sessions[slot].session.answer(answer);
            }
            None => {}
        }
    }

    /// The kept connection of a pid, unless it is ending.
    fn find_kept(&self, pid: &[u8]) -> Option<(usize, Key)> {
        let key = self.directory.find(pid)?;
        let slot = slot_of(&self.sessions, key)?;
        (self.sessions[slot].session.keeping() != Keeping::Over).then_some((slot, key))
    }

    /// As [`Daemon::find_kept`], for who shows that it knows the pid. Who is wrong too often is told that there is none,
    /// whatever it says.
    fn find_asked(&mut self, pid: &[u8]) -> Option<(usize, Key)> {
        if !self.directory.guesses.may_guess(self.now) {
            return None;
        }
        let found = self.find_kept(pid);
        if found.is_none() {
            self.directory.guesses.count(self.now);
        }
        found
    }

    /// A session wants to connect, and to be found again by its pid.
    fn claim(&mut self, slot: usize, key: Key, target: Target) {
        let pid: Box<[u8]> = self.sessions[slot].session.kept_pid().unwrap_or_default().into();
        let known = self.directory.find(&pid);
        let most = self.house.config.limits.kept;
        let refusal = match self.find_kept(&pid) {
            Some((older_slot, older_key)) => {
                // It may just have been left, and not know of it yet.
                let older = &mut self.sessions[older_slot].session;
                let mut cx = self.house.context(older_key, self.now);
                older.look_again();
                older.turn(&mut cx);
                let taken = older.keeping() == Keeping::Taken;
                if !taken {
                    older.give_way(&mut cx);
                }
                self.enqueue(older_key);
                taken.then_some(reply::PID_IN_USE)
            }
            None if known.is_none() && self.directory.len() >= most => Some(reply::TOO_MANY_KEPT),
            None => None,
        };
        let mut cx = self.house.context(key, self.now);
        let session = &mut self.sessions[slot].session;
        match refusal {
            Some(reason) => session.refuse_pid(reason, &mut cx),
            None => {
                self.directory.insert(&pid, key);
                session.handle_pid(target, &mut cx);
            }
        }
    }

    /// A session's connection takes the place of that of the kept session of `pid`. An error is the reason.
    fn attach(&mut self, slot: usize, pid: &[u8], seen: Option<u64>) -> Result<(), &'static str> {
        let (kept_slot, kept_key) = self.find_asked(pid).ok_or(reply::NO_SUCH_PID)?;
        let mut cx = self.house.context(kept_key, self.now);
        let (asker, kept) = self.sessions.get2_mut(slot, kept_slot).ok_or(reply::NO_SUCH_PID)?;
        // What the plugin before has sent is passed on first, as far as it goes.
        kept.session.look_again();
        for _ in 0..TURNS {
            if !kept.session.turn(&mut cx).again {
                break;
            }
        }
        let resumed = kept.session.resume(seen);
        if resumed.is_ok()
            && let Err(error) = kept.session.attach(&mut asker.session, &mut cx)
        {
            log::warn!("cannot watch a connection: {error}");
        }
        // Whatever came of it, its turns above may have left it something to do, or another deadline.
        self.enqueue(kept_key);
        resumed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pid_is_the_last_ones_who_got_it() {
        let mut directory = Directory::default();
        directory.insert(b"abcdefgh", 1);
        assert_eq!((directory.find(b"abcdefgh"), directory.find(b"abcdefg")), (Some(1), None));
        directory.insert(b"abcdefgh", 2);
        directory.remove(b"abcdefgh", 1);
        assert_eq!((directory.find(b"abcdefgh"), directory.len()), (Some(2), 1));
        directory.remove(b"abcdefgh", 2);
        assert_eq!(directory.len(), 0);
    }

    #[test]
    fn guesses_are_few() {
        let start = Instant::now();
        let mut guesses = Guesses::default();
        let mut in_time = |after: Duration| {
            let now = start + after;
            let mut made = 0;
            while guesses.may_guess(now) {
                guesses.count(now);
                made += 1;
                assert!(made <= GUESSES, "without end");
            }
            made
        };
        assert_eq!(in_time(Duration::ZERO), GUESSES);
        assert_eq!(in_time(GUESS_INTERVAL / 2), 0);
        assert_eq!(in_time(GUESS_INTERVAL), 1);
        assert_eq!(in_time(GUESS_INTERVAL * 5 / 2), 1);
        assert_eq!(in_time(GUESS_INTERVAL * 3), 1, "halves add up");
        assert_eq!(in_time(GUESS_INTERVAL * 100_000), GUESSES, "but not without end");
    }
}
