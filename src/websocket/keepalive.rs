//! [`Keepalive`]: the ping timer, and matching pongs to pings.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Unanswered pings of the user at most. Beyond that the oldest is forgotten.
const MAX_USER_PINGS: usize = 8;

/// State of the ping timer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PingState {
    /// No ping is due or unanswered.
    Idle,
    /// A ping has been due since this instant and is not sent yet.
    Due(Instant),
    /// A ping was due at this instant and has been sent. The peer has been silent since.
    Sent(Instant),
}

/// Which ping a pong answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PongMatch {
    /// One of the ping timer.
    Keepalive,
    /// One that the user sent.
    User,
    /// None.
    Unsolicited,
}

/// Sends a ping after a silence of the peer, and matches pongs to pings. Most connections have no timer and no pings of
/// the user, and then hold no memory for either.
#[derive(Debug)]
pub(super) struct Keepalive {
    timer: Option<Box<PingTimer>>,
    /// Payloads of the user's unanswered pings. Boxed because they are rare.
    #[expect(clippy::box_collection, reason = "None takes a quarter of the bytes of an empty VecDeque")]
    user_pings: Option<Box<VecDeque<Box<[u8]>>>>,
}

/// The state of the ping timer.
#[derive(Debug)]
struct PingTimer {
    interval: Duration,
    last_received: Instant,
    /// False while the caller does not read from the transport.
    reading: bool,
    state: PingState,
    /// Payload of the last ping of the timer, until it is answered.
    last_payload: Option<[u8; 4]>,
}

impl Keepalive {
    /// A keepalive whose interval starts `now`. `None` and zero: no ping timer.
    pub(super) fn new(interval: Option<Duration>, now: Instant) -> Self {
        let timer = |interval| PingTimer {
            interval,
            last_received: now,
            reading: true,
            state: PingState::Idle,
            last_payload: None,
        };
        let interval = interval.filter(|interval| !interval.is_zero());
        Self { timer: interval.map(timer).map(Box::new), user_pings: None }
    }

    /// Bytes have come from the peer. A part of a frame counts: a long frame over a slow line is not silence.
    pub(super) fn handle_received(&mut self, now: Instant) {
        if let Some(timer) = &mut self.timer {
            (timer.last_received, timer.state) = (now, PingState::Idle);
        }
    }

    /// Sets whether the caller reads from the transport; see [`super::Connection::set_reading`].
    pub(super) fn set_reading(&mut self, reading: bool, now: Instant) {
        if let Some(timer) = &mut self.timer {
            if reading && !timer.reading {
                (timer.last_received, timer.state) = (now, PingState::Idle);
            }
            timer.reading = reading;
        }
    }

    /// When to call [`Keepalive::handle_timeout`].
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let timer = self.timer.as_ref().filter(|timer| timer.reading)?;
        match timer.state {
            PingState::Idle => timer.last_received.checked_add(timer.interval),
            PingState::Due(at) | PingState::Sent(at) => at.checked_add(timer.interval),
        }
    }

    /// A deadline may have passed. True if the peer is lost; otherwise a ping may have become due.
    pub(super) fn handle_timeout(&mut self, now: Instant) -> bool {
        if self.poll_timeout().is_none_or(|at| now < at) {
            return false;
        }
        match &mut self.timer {
            Some(timer) if timer.state == PingState::Idle => {
                timer.state = PingState::Due(now);
                false
            }
            _ => true,
        }
    }

    /// Returns the payload of a ping to send now, if one is due. It is the result of `payload`.
    pub(super) fn poll_ping(&mut self, payload: impl FnOnce() -> [u8; 4]) -> Option<[u8; 4]> {
        let timer = self.timer.as_mut()?;
        let PingState::Due(at) = timer.state else { return None };
        timer.state = PingState::Sent(at);
        timer.last_payload = Some(payload());
        timer.last_payload
    }

    /// Bytes of the user's unanswered pings.
    pub(super) fn held(&self) -> usize {
        self.user_pings.as_ref().map_or(0, |pings| pings.iter().map(|ping| ping.len()).sum())
    }

    /// The user has sent a ping.
    pub(super) fn handle_user_ping(&mut self, payload: &[u8]) {
        let user_pings = self.user_pings.get_or_insert_default();
        if user_pings.len() == MAX_USER_PINGS {
            user_pings.pop_front();
        }
        user_pings.push_back(payload.into());
    }

    /// A pong has come. Returns which ping it answers.
    pub(super) fn handle_pong(&mut self, payload: &[u8]) -> PongMatch {
        if let Some(timer) = &mut self.timer
            && timer.last_payload.is_some_and(|last_payload| last_payload == payload)
        {
            timer.last_payload = None;
            return PongMatch::Keepalive;
        }
        let Some(user_pings) = &mut self.user_pings else { return PongMatch::Unsolicited };
        let Some(at) = user_pings.iter().position(|ping| **ping == *payload) else { return PongMatch::Unsolicited };
        // Section 5.5.3: a peer may answer only the latest ping, so earlier ones are answered too.
        user_pings.drain(..=at);
        if user_pings.is_empty() {
            self.user_pings = None;
        }
        PongMatch::User
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn silence_causes_a_ping_and_more_silence_the_end() {
        let start = Instant::now();
        let mut keepalive = Keepalive::new(Some(10 * SECOND), start);
        assert_eq!(keepalive.poll_timeout(), Some(start + 10 * SECOND));
        assert!(!keepalive.handle_timeout(start + 9 * SECOND));
        assert_eq!(keepalive.poll_ping(|| *b"ping"), None);
        assert!(!keepalive.handle_timeout(start + 11 * SECOND));
        assert_eq!(keepalive.poll_ping(|| *b"ping"), Some(*b"ping"));
        assert_eq!(keepalive.poll_ping(|| *b"ping"), None, "once");
        assert_eq!(keepalive.poll_timeout(), Some(start + 21 * SECOND));
        assert!(!keepalive.handle_timeout(start + 20 * SECOND));
        assert!(keepalive.handle_timeout(start + 21 * SECOND));
    }

    #[test]
    fn any_byte_from_the_peer_restarts_the_interval() {
        let start = Instant::now();
        let mut keepalive = Keepalive::new(Some(10 * SECOND), start);
        assert!(!keepalive.handle_timeout(start + 10 * SECOND));
        keepalive.poll_ping(|| *b"ping");
        keepalive.handle_received(start + 19 * SECOND);
        assert_eq!(keepalive.poll_timeout(), Some(start + 29 * SECOND));
        assert_eq!(keepalive.handle_pong(b"ping"), PongMatch::Keepalive, "a late pong is still matched");
        assert_eq!(keepalive.handle_pong(b"ping"), PongMatch::Unsolicited, "only once");
    }

    #[test]
    fn no_ping_is_due_while_the_caller_does_not_read() {
        let start = Instant::now();
        let mut keepalive = Keepalive::new(Some(10 * SECOND), start);
        assert!(!keepalive.handle_timeout(start + 10 * SECOND));
        keepalive.set_reading(false, start + 11 * SECOND);
        assert_eq!(keepalive.poll_timeout(), None);
        assert!(!keepalive.handle_timeout(start + 100 * SECOND));
        keepalive.set_reading(true, start + 100 * SECOND);
        keepalive.set_reading(true, start + 105 * SECOND);
        assert_eq!(keepalive.poll_timeout(), Some(start + 110 * SECOND));
        assert!(!keepalive.handle_timeout(start + 110 * SECOND), "a ping comes before the end");
    }

    #[test]
    fn without_a_usable_interval_there_is_no_timeout() {
        let start = Instant::now();
        for interval in [None, Some(Duration::ZERO), Some(Duration::MAX)] {
            let mut keepalive = Keepalive::new(interval, start);
            assert_eq!(keepalive.poll_timeout(), None);
            assert!(!keepalive.handle_timeout(start + 1000 * SECOND));
        }
    }

    #[test]
    fn rfc6455_5_5_3_the_latest_ping_may_be_the_only_one_answered() {
        let mut keepalive = Keepalive::new(None, Instant::now());
        for payload in [b"1", b"2", b"3"] {
            keepalive.handle_user_ping(payload);
        }
        assert_eq!(keepalive.handle_pong(b"2"), PongMatch::User);
        assert_eq!(keepalive.handle_pong(b"1"), PongMatch::Unsolicited);
        assert_eq!(keepalive.handle_pong(b"3"), PongMatch::User);
        for payload in 0..=MAX_USER_PINGS as u8 {
            keepalive.handle_user_ping(&[payload]);
        }
        assert_eq!(keepalive.handle_pong(&[0]), PongMatch::Unsolicited, "the oldest of nine is forgotten");
        assert_eq!(keepalive.handle_pong(&[1]), PongMatch::User);
    }
}
