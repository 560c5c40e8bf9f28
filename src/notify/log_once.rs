//! What has been logged of Luup's refusals: each target once, however many connections have it.

use std::collections::VecDeque;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;

/// As many targets are remembered; the oldest is forgotten, and may be logged once more.
const MOST: usize = 256;

/// Targets (device, service and action) that have been logged, each by a hash: they may be long.
#[derive(Debug, Default)]
pub struct Complaints {
    told: VecDeque<u64>,
    hasher: RandomState,
}

impl Complaints {
    /// True where the target of `query` has not been complained of. From now on it has.
    pub fn is_new(&mut self, query: &str) -> bool {
        let target = self.target(query);
        if self.told.contains(&target) {
            return false;
        }
        if self.told.len() == MOST {
            self.told.pop_front();
        }
        self.told.push_back(target);
        true
    }

    /// Luup has taken a notification of this target: the next refusal is news.
    pub fn settle(&mut self, query: &str) {
        if !self.told.is_empty() {
            let target = self.target(query);
            self.told.retain(|told| *told != target);
        }
    }

    /// A request's target is all of it but the connection, which stands last.
    fn target(&self, query: &str) -> u64 {
        self.hasher.hash_one(query.rsplit_once("&Pid=").map_or(query, |(target, _)| target))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_target_is_told_once() {
        let mut complaints = Complaints::default();
        assert!(complaints.is_new("/data_request?DeviceNum=5&action=a&Pid=1"));
        assert!(!complaints.is_new("/data_request?DeviceNum=5&action=a&Pid=2"));
        assert!(complaints.is_new("/data_request?DeviceNum=5&action=b&Pid=2"));
        complaints.settle("/data_request?DeviceNum=5&action=a&Pid=3");
        assert!(complaints.is_new("/data_request?DeviceNum=5&action=a&Pid=1"));
    }

    #[test]
    fn memory_is_bounded() {
        let mut complaints = Complaints::default();
        (0..10_000).for_each(|number| assert!(complaints.is_new(&format!("/{number}"))));
        assert_eq!(complaints.told.len(), MOST);
    }
}
