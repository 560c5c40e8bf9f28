//! The clock of RTIM: how long the remote has been silent.

use std::time::{Duration, Instant};

/// Since when the remote has been silent. Time in which a slow plugin holds the remote back is not silence, so the clock
/// stands still then and begins anew afterwards.
#[derive(Clone, Copy, Debug)]
pub(super) struct ReceiveTimer {
    /// `None` while the remote is held back.
    silent_since: Option<Instant>,
}

impl ReceiveTimer {
    /// A clock that starts now.
    pub(super) fn new(now: Instant) -> Self {
        Self { silent_since: Some(now) }
    }

    /// The remote sent something at `at`.
    pub(super) fn handle_received(&mut self, at: Instant) {
        self.silent_since = self.silent_since.map(|since| since.max(at));
    }

    /// Says whether the plugin holds the remote back.
    pub(super) fn set_held_back(&mut self, held_back: bool, now: Instant) {
        self.silent_since = if held_back { None } else { Some(self.silent_since.unwrap_or(now)) };
    }

    /// When the remote has been silent for `limit`. `None` without a limit, and while the remote is held back.
    pub(super) fn deadline(&self, limit: Option<Duration>) -> Option<Instant> {
        Some(self.silent_since? + limit?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_stands_still_while_the_remote_is_held_back() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let limit = Some(Duration::from_secs(10));
        let mut timer = ReceiveTimer::new(start);
        assert_eq!((timer.deadline(limit), timer.deadline(None)), (Some(at(10)), None));
        timer.handle_received(at(3));
        timer.handle_received(at(2));
        assert_eq!(timer.deadline(limit), Some(at(13)), "an earlier instant moves nothing");
        timer.set_held_back(true, at(4));
        timer.handle_received(at(5));
        assert_eq!(timer.deadline(limit), None);
        timer.set_held_back(false, at(60));
        timer.set_held_back(false, at(61));
        assert_eq!(timer.deadline(limit), Some(at(70)));
    }
}
