//! The session's attempts to connect again: there is one for each delay, and delays are as documented.

use std::time::{Duration, Instant};

/// The first delay.
const FIRST: Duration = Duration::from_secs(1);
/// A connection that has lasted this long sets the delay back.
const LASTING: Duration = Duration::from_secs(10);

/// What is known of the attempts.
#[derive(Debug)]
pub(super) struct Attempts {
    /// HEAL.
    max: Duration,
    /// Connections that one attempt may begin.
    most: usize,
    /// The delay before the last one.
    pub delay: Duration,
    retry_at: Option<Instant>,
    pub losses: u32,
    /// When the connection was made that stands.
    connected_at: Option<Instant>,
    /// From when on the session may begin connections. `None`: it is connected.
    may_begin: Option<Instant>,
    /// Connections that this attempt has begun.
    begun: usize,
}

impl Attempts {
    pub(super) fn new(max: Duration, most: usize, now: Instant) -> Self {
        Self {
            max,
            most,
            delay: Duration::ZERO,
            retry_at: None,
            losses: 0,
            connected_at: None,
            may_begin: Some(now),
            begun: 0,
        }
    }

    /// The session has begun so many connections since this was last called.
    pub(super) fn handle_begun(&mut self, count: usize, now: Instant) {
        let in_time = self.may_begin.is_some_and(|from| from <= now);
        assert!(count == 0 || in_time, "the proxy connects before its time: {self:?}");
        self.begun += count;
        assert!(self.begun <= self.most, "an attempt has connected {} times", self.begun);
    }

    /// The session relays since `connected_at`, or has not begun to.
    pub(super) fn handle_relaying(&mut self, connected_at: Option<Instant>, now: Instant) {
        self.may_begin = connected_at.is_none().then_some(now);
        self.connected_at = connected_at;
    }

    /// The session waits for `next`, or connects, and has lost its remote so many times. Returns whether it has just lost
    /// it, and whether it has just begun to wait.
    pub(super) fn handle_healing(&mut self, next: Option<Instant>, losses: u32, now: Instant) -> (bool, bool) {
        let is_lost = losses != self.losses;
        if is_lost {
            assert_eq!(losses, self.losses + 1, "one loss at a time");
            let lasted = self.connected_at.map_or(Duration::ZERO, |at| now - at);
            if lasted >= LASTING {
                self.delay = Duration::ZERO;
            }
            self.losses = losses;
        }
        self.connected_at = None;
        let mut waits = false;
        if let Some(at) = next
            && (is_lost || self.retry_at != next)
        {
            waits = true;
            self.begun = 0;
            self.delay = (self.delay * 2).clamp(FIRST, self.max.max(FIRST));
            let (wait, delay) = ((at - now).as_secs_f64(), self.delay.as_secs_f64());
            assert!((0.79 * delay..=1.21 * delay).contains(&wait), "{wait} s, not about {delay} s");
        }
        self.may_begin = Some(next.unwrap_or(now));
        self.retry_at = next;
        (is_lost, waits)
    }
}
