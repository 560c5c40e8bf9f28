//! [`Breaker`]: a circuit breaker. While Luup is unreachable, one probe goes out at intervals in place of all requests.

use std::time::{Duration, Instant};

/// Time before the first probe, doubled for each that fails.
const MIN_PROBE_INTERVAL: Duration = Duration::from_millis(100);
/// Longest time between two probes: the longest time before a Luup that is back is noticed.
const MAX_PROBE_INTERVAL: Duration = Duration::from_secs(2);

/// Decides whether requests may go out.
///
/// Closed until a request fails to reach Luup; then open; half-open (probing) once the interval is over; closed again
/// when a request reaches Luup.
#[derive(Clone, Copy, Debug, Default)]
pub(super) enum Breaker {
    /// Luup is reachable; requests go out.
    #[default]
    Closed,
    /// Luup is unreachable; no request goes out before `until`.
    Open {
        /// When the next probe may go out.
        until: Instant,
        /// The interval before that probe.
        interval: Duration,
    },
    /// One request is out as a probe.
    Probing {
        /// The interval before it.
        interval: Duration,
    },
}

impl Breaker {
    /// True if a request may go out now.
    pub(super) fn allows_request(&self, now: Instant) -> bool {
        match *self {
            Self::Closed => true,
            Self::Open { until, .. } => until <= now,
            Self::Probing { .. } => false,
        }
    }

    /// When [`Breaker::allows_request`] changes from false to true by time alone.
    pub(super) fn deadline(&self) -> Option<Instant> {
        match *self {
            Self::Open { until, .. } => Some(until),
            Self::Closed | Self::Probing { .. } => None,
        }
    }

    /// A request goes out. If the breaker is open, it is the probe.
    pub(super) fn handle_request(&mut self) {
        if let Self::Open { interval, .. } = *self {
            *self = Self::Probing { interval };
        }
    }

    /// A request has reached Luup. True if Luup was unreachable before.
    pub(super) fn handle_reached(&mut self) -> bool {
        !matches!(std::mem::take(self), Self::Closed)
    }

    /// The request could not be sent. If it was the probe, another one follows after the same interval.
    pub(super) fn handle_not_sent(&mut self, now: Instant) {
        if let Self::Probing { interval } = *self {
            *self = Self::Open { until: now + interval, interval };
        }
    }

    /// A request did not reach Luup. True if Luup was reachable before.
    pub(super) fn handle_unreachable(&mut self, now: Instant) -> bool {
        let (was_closed, interval) = match *self {
            Self::Closed => (true, MIN_PROBE_INTERVAL),
            Self::Probing { interval } => (false, (interval * 2).min(MAX_PROBE_INTERVAL)),
            // A request that was already out when another one failed.
            Self::Open { .. } => return false,
        };
        *self = Self::Open { until: now + interval, interval };
        was_closed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_probe_at_a_time_at_growing_intervals() {
        let start = Instant::now();
        let mut breaker = Breaker::default();
        assert!(breaker.allows_request(start));
        assert!(breaker.handle_unreachable(start), "the first failure");
        assert!(!breaker.handle_unreachable(start), "a further failure");
        let mut now = start;
        let mut intervals = Vec::new();
        for _ in 0..8 {
            let until = breaker.deadline().unwrap();
            assert!(!breaker.allows_request(until - Duration::from_millis(1)));
            intervals.push((until - now).as_millis());
            now = until;
            assert!(breaker.allows_request(now));
            breaker.handle_request();
            assert!(!breaker.allows_request(now), "one probe at a time");
            assert!(!breaker.handle_unreachable(now));
        }
        assert_eq!(intervals, [100, 200, 400, 800, 1600, 2000, 2000, 2000]);
        assert!(breaker.handle_reached());
        assert!(breaker.allows_request(now));
        assert!(!breaker.handle_reached());
    }
}
