//! [`LogOnce`]: limits the log to one line per target that refuses notifications.

use std::collections::VecDeque;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;

use super::subscription::action_of;

/// Targets remembered at most. The oldest is dropped and may be logged once more.
const MAX_TARGETS: usize = 256;

/// The targets (device, service and action) whose refusal has been logged. Stored as hashes, since a target may be long.
#[derive(Debug, Default)]
pub(super) struct LogOnce {
    logged: VecDeque<u64>,
    hasher: RandomState,
}

impl LogOnce {
    /// True if the refusal of this query's target is to be logged: on the first call, and again after
    /// [`LogOnce::reset`].
    pub(super) fn first_time(&mut self, query: &str) -> bool {
        let target = self.target(query);
        if self.logged.contains(&target) {
            return false;
        }
        if self.logged.len() == MAX_TARGETS {
            self.logged.pop_front();
        }
        self.logged.push_back(target);
        true
    }

    /// Luup has accepted a notification of this query's target: its next refusal is logged again.
    pub(super) fn reset(&mut self, query: &str) {
        if !self.logged.is_empty() {
            let target = self.target(query);
            self.logged.retain(|logged| *logged != target);
        }
    }

    /// The hash of a query without the pid at its end.
    fn target(&self, query: &str) -> u64 {
        self.hasher.hash_one(action_of(query))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_target_is_logged_once() {
        let mut log = LogOnce::default();
        assert!(log.first_time("/data_request?DeviceNum=5&action=a&Pid=1"));
        assert!(!log.first_time("/data_request?DeviceNum=5&action=a&Pid=2"));
        assert!(log.first_time("/data_request?DeviceNum=5&action=b&Pid=2"));
        log.reset("/data_request?DeviceNum=5&action=a&Pid=3");
        assert!(log.first_time("/data_request?DeviceNum=5&action=a&Pid=1"));
    }

    #[test]
    fn memory_is_bounded() {
        let mut log = LogOnce::default();
        (0..10_000).for_each(|number| assert!(log.first_time(&format!("/{number}"))));
        assert_eq!(log.logged.len(), MAX_TARGETS);
    }
}
