//! [`SendFailures`]: limits the log to one warning per minute for each target to which datagrams cannot be sent.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Time between two warnings about one target.
const WARNING_INTERVAL: Duration = Duration::from_secs(60);
/// Targets remembered at most, and so warnings in one interval: a plugin chooses the addresses of its datagrams itself.
const MAX_TARGETS: usize = 64;

/// The targets that the log has warned of, the oldest first, of all connections: a plugin may connect anew for each
/// datagram.
#[derive(Debug, Default)]
pub(crate) struct SendFailures(VecDeque<(SocketAddr, Instant)>);

impl SendFailures {
    /// True if the log is to warn that a datagram to `target` could not be sent.
    pub(super) fn may_warn(&mut self, target: SocketAddr, now: Instant) -> bool {
        while self.0.front().is_some_and(|(_, at)| now.saturating_duration_since(*at) >= WARNING_INTERVAL) {
            self.0.pop_front();
        }
        if self.0.len() >= MAX_TARGETS || self.0.iter().any(|(warned, _)| *warned == target) {
            return false;
        }
        self.0.push_back((target, now));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(number: u16) -> SocketAddr {
        ([239, 255, 255, 250], number).into()
    }

    #[test]
    fn each_target_has_a_warning_a_minute() {
        let (mut failures, now) = (SendFailures::default(), Instant::now());
        assert!(failures.may_warn(target(1), now) && failures.may_warn(target(2), now));
        let almost = now + WARNING_INTERVAL - Duration::from_millis(1);
        assert!(!failures.may_warn(target(1), almost) && !failures.may_warn(target(2), almost));
        assert!(failures.may_warn(target(1), now + WARNING_INTERVAL));
        assert!(!failures.may_warn(target(1), now + WARNING_INTERVAL * 3 / 2));
    }

    #[test]
    fn warnings_and_memory_are_bounded() {
        let (mut failures, now) = (SendFailures::default(), Instant::now());
        let warnings = (0..10_000).filter(|&number| failures.may_warn(target(number), now)).count();
        assert_eq!((warnings, failures.0.len()), (MAX_TARGETS, MAX_TARGETS));
        assert!(failures.may_warn(target(9999), now + WARNING_INTERVAL));
        assert_eq!(failures.0.len(), 1);
    }
}
