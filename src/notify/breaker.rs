//! A circuit-breaker: while Luup refuses connections, one probe goes out now and then instead of a storm.

use std::time::{Duration, Instant};

/// Delay before the first probe, doubled for each that fails.
const FIRST_DELAY: Duration = Duration::from_millis(100);
/// Longest delay: how late, at most, the house learns that Luup is back.
const LONGEST_DELAY: Duration = Duration::from_secs(2);

/// Whether requests may go out.
#[derive(Clone, Copy, Debug, Default)]
pub enum Breaker {
    /// Luup is there, as far as anybody knows.
    #[default]
    Closed,
    /// Luup refused; nothing goes out before `until`.
    Open {
        /// When the next probe may go.
        until: Instant,
        /// How long the wait was.
        delay: Duration,
    },
    /// One request is out to see whether Luup is back.
    Probing {
        /// How long the wait before it was.
        delay: Duration,
    },
}

impl Breaker {
    /// True where a request may go out now.
    pub fn lets_through(&self, now: Instant) -> bool {
        match *self {
            Self::Closed => true,
            Self::Open { until, .. } => until <= now,
            Self::Probing { .. } => false,
        }
    }

    /// When asking again makes sense, where only time is missing.
    pub fn deadline(&self) -> Option<Instant> {
        match *self {
            Self::Open { until, .. } => Some(until),
            Self::Closed | Self::Probing { .. } => None,
        }
    }

    /// A request goes out. After an outage it is the probe.
    pub fn handle_request(&mut self) {
        if let Self::Open { delay, .. } = *self {
            *self = Self::Probing { delay };
        }
    }

    /// Luup was reached. True where it had been away.
    pub fn handle_reached(&mut self) -> bool {
        !matches!(std::mem::take(self), Self::Closed)
    }

    /// The request could not go out: what it might have shown is still open.
    pub fn handle_not_sent(&mut self, now: Instant) {
        if let Self::Probing { delay } = *self {
            *self = Self::Open { until: now + delay, delay };
        }
    }

    /// Luup was not reached. True where it had been there until now.
    pub fn handle_unreachable(&mut self, now: Instant) -> bool {
        let (was_closed, delay) = match *self {
            Self::Closed => (true, FIRST_DELAY),
            Self::Probing { delay } => (false, (delay * 2).min(LONGEST_DELAY)),
            // A request that was on its way when another one was refused says nothing new.
            Self::Open { .. } => return false,
        };
        *self = Self::Open { until: now + delay, delay };
        was_closed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_probe_at_a_time_with_growing_delay() {
        let start = Instant::now();
        let mut breaker = Breaker::default();
        assert!(breaker.lets_through(start));
        assert!(breaker.handle_unreachable(start), "the outage begins");
        assert!(!breaker.handle_unreachable(start), "and is known");
        let mut now = start;
        let mut delays = Vec::new();
        for _ in 0..8 {
            let until = breaker.deadline().unwrap();
            assert!(!breaker.lets_through(until - Duration::from_millis(1)));
            delays.push((until - now).as_millis());
            now = until;
            assert!(breaker.lets_through(now));
            breaker.handle_request();
            assert!(!breaker.lets_through(now), "one probe");
            assert!(!breaker.handle_unreachable(now));
        }
        assert_eq!(delays, [100, 200, 400, 800, 1600, 2000, 2000, 2000]);
        assert!(breaker.handle_reached());
        assert!(breaker.lets_through(now));
        assert!(!breaker.handle_reached());
    }
}
