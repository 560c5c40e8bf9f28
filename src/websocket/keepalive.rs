//! Whether somebody is there: pings, and whose a pong is.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Pings of the user that may be on their way at once; more, and the oldest is forgotten.
const USER_PINGS: usize = 8;

/// How it stands with our ping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The peer has lately been heard.
    Heard,
    /// It is to be sent.
    Due(Instant),
    /// It was sent (or should have been) at that time, and the peer has not been heard since.
    Sent(Instant),
}

/// Whose ping a pong answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answers {
    /// One that watched over the silence.
    Ours,
    /// One of the user's.
    Users,
    /// None.
    Nothing,
}

/// Whether somebody is there. Most connections ask nobody, and pay for nothing.
#[derive(Debug)]
pub struct Liveness {
    watch: Option<Box<Watch>>,
    /// What pings of the user said that are on their way. Boxed, since they are rare.
    #[expect(clippy::box_collection, reason = "while there is none, it takes a quarter of the room")]
    users: Option<Box<VecDeque<Box<[u8]>>>>,
}

/// Watches over the peer's silence.
#[derive(Debug)]
struct Watch {
    interval: Duration,
    heard: Instant,
    /// False: the caller does not listen.
    listening: bool,
    state: State,
    /// What our last ping said.
    ours: Option<[u8; 4]>,
}

impl Liveness {
    /// A peer that has been heard `now`.
    pub fn new(interval: Option<Duration>, now: Instant) -> Self {
        let watch = |interval| Watch { interval, heard: now, listening: true, state: State::Heard, ours: None };
        let interval = interval.filter(|interval| !interval.is_zero());
        Self { watch: interval.map(watch).map(Box::new), users: None }
    }

    /// The peer has been heard. Any byte counts: a long frame over a slow line is no silence.
    pub fn handle_heard(&mut self, now: Instant) {
        if let Some(watch) = &mut self.watch {
            (watch.heard, watch.state) = (now, State::Heard);
        }
    }

    /// The caller listens, or has ceased to.
    pub fn set_listening(&mut self, listening: bool, now: Instant) {
        if let Some(watch) = &mut self.watch {
            if listening && !watch.listening {
                (watch.heard, watch.state) = (now, State::Heard);
            }
            watch.listening = listening;
        }
    }

    /// When [`Liveness::handle_timeout`] is to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let watch = self.watch.as_ref().filter(|watch| watch.listening)?;
        match watch.state {
            State::Heard => watch.heard.checked_add(watch.interval),
            State::Due(at) | State::Sent(at) => at.checked_add(watch.interval),
        }
    }

    /// It is `now`. True: the peer is lost.
    pub fn handle_timeout(&mut self, now: Instant) -> bool {
        if self.poll_timeout().is_none_or(|at| now < at) {
            return false;
        }
        match &mut self.watch {
            Some(watch) if watch.state == State::Heard => {
                watch.state = State::Due(now);
                false
            }
            _ => true,
        }
    }

    /// Whether a ping is to be sent now; it will say what `payload` gives.
    pub fn poll_ping(&mut self, payload: impl FnOnce() -> [u8; 4]) -> Option<[u8; 4]> {
        let watch = self.watch.as_mut()?;
        let State::Due(at) = watch.state else { return None };
        watch.state = State::Sent(at);
        watch.ours = Some(payload());
        watch.ours
    }

    /// The user has sent a ping.
    pub fn handle_user_ping(&mut self, payload: &[u8]) {
        let users = self.users.get_or_insert_default();
        if users.len() == USER_PINGS {
            users.pop_front();
        }
        users.push_back(payload.into());
    }

    /// A pong has come.
    pub fn handle_pong(&mut self, payload: &[u8]) -> Answers {
        if let Some(watch) = &mut self.watch
            && watch.ours.is_some_and(|ours| ours == payload)
        {
            watch.ours = None;
            return Answers::Ours;
        }
        let Some(users) = &mut self.users else { return Answers::Nothing };
        let Some(at) = users.iter().position(|ping| **ping == *payload) else { return Answers::Nothing };
        // Section 5.5.3: the latest ping may be the only one that is answered.
        users.drain(..=at);
        if users.is_empty() {
            self.users = None;
        }
        Answers::Users
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_ping_after_silence_and_the_end_after_more() {
        let start = Instant::now();
        let mut liveness = Liveness::new(Some(10 * SECOND), start);
        assert_eq!(liveness.poll_timeout(), Some(start + 10 * SECOND));
        assert!(!liveness.handle_timeout(start + 9 * SECOND));
        assert_eq!(liveness.poll_ping(|| *b"ping"), None);
        assert!(!liveness.handle_timeout(start + 11 * SECOND));
        assert_eq!(liveness.poll_ping(|| *b"ping"), Some(*b"ping"));
        assert_eq!(liveness.poll_ping(|| *b"ping"), None, "once");
        assert_eq!(liveness.poll_timeout(), Some(start + 21 * SECOND));
        assert!(!liveness.handle_timeout(start + 20 * SECOND));
        assert!(liveness.handle_timeout(start + 21 * SECOND));
    }

    #[test]
    fn any_sign_of_life_will_do() {
        let start = Instant::now();
        let mut liveness = Liveness::new(Some(10 * SECOND), start);
        assert!(!liveness.handle_timeout(start + 10 * SECOND));
        liveness.poll_ping(|| *b"ping");
        liveness.handle_heard(start + 19 * SECOND);
        assert_eq!(liveness.poll_timeout(), Some(start + 29 * SECOND));
        assert_eq!(liveness.handle_pong(b"ping"), Answers::Ours, "however late");
        assert_eq!(liveness.handle_pong(b"ping"), Answers::Nothing, "but once");
    }

    #[test]
    fn who_does_not_listen_hears_no_silence() {
        let start = Instant::now();
        let mut liveness = Liveness::new(Some(10 * SECOND), start);
        assert!(!liveness.handle_timeout(start + 10 * SECOND));
        liveness.set_listening(false, start + 11 * SECOND);
        assert_eq!(liveness.poll_timeout(), None);
        assert!(!liveness.handle_timeout(start + 100 * SECOND));
        liveness.set_listening(true, start + 100 * SECOND);
        liveness.set_listening(true, start + 105 * SECOND);
        assert_eq!(liveness.poll_timeout(), Some(start + 110 * SECOND));
        assert!(!liveness.handle_timeout(start + 110 * SECOND), "a ping first");
    }

    #[test]
    fn without_an_interval_nothing_happens() {
        let start = Instant::now();
        for interval in [None, Some(Duration::ZERO), Some(Duration::MAX)] {
            let mut liveness = Liveness::new(interval, start);
            assert_eq!(liveness.poll_timeout(), None);
            assert!(!liveness.handle_timeout(start + 1000 * SECOND));
        }
    }

    #[test]
    fn rfc6455_5_5_3_the_latest_ping_may_be_the_only_one_answered() {
        let mut liveness = Liveness::new(None, Instant::now());
        for payload in [b"1", b"2", b"3"] {
            liveness.handle_user_ping(payload);
        }
        assert_eq!(liveness.handle_pong(b"2"), Answers::Users);
        assert_eq!(liveness.handle_pong(b"1"), Answers::Nothing);
        assert_eq!(liveness.handle_pong(b"3"), Answers::Users);
        for payload in 0..=USER_PINGS as u8 {
            liveness.handle_user_ping(&[payload]);
        }
        assert_eq!(liveness.handle_pong(&[0]), Answers::Nothing, "the ninth is one too many");
        assert_eq!(liveness.handle_pong(&[1]), Answers::Users);
    }
}
