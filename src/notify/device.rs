//! [`Device`]: the schedule's record of one Luup device.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::SubscriptionId;
use super::retry_policy::backoff;

/// First pause after a request without an answer in time, doubled for each further one.
const MIN_PAUSE: Duration = Duration::from_millis(500);
/// Longest pause: the longest time before a device that works again is tried. An action that works but answers too late
/// is invoked at each attempt, and Luup does nothing else meanwhile, so the pause is not short.
const MAX_PAUSE: Duration = Duration::from_secs(60);

/// One device, for as long as a subscription names it.
#[derive(Debug, Default)]
pub(super) struct Device {
    /// Number of subscriptions that name it.
    pub subscriptions: usize,
    /// True while one of them is in the queue of senders or has a request out.
    pub busy: bool,
    /// Due subscriptions that wait for the device, in order.
    pub waiting: VecDeque<SubscriptionId>,
    /// Requests in a row without an answer in time.
    timeouts: u32,
    /// No request before this instant.
    pub paused_until: Option<Instant>,
}

impl Device {
    /// True if the last request got no answer in time. Such devices may take only half of the senders.
    pub(super) fn is_slow(&self) -> bool {
        self.timeouts > 0
    }

    /// A request got no answer in time: pauses the device, longer each time.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        self.paused_until = Some(now + backoff(MIN_PAUSE, MAX_PAUSE, self.timeouts));
        self.timeouts += 1;
    }

    /// One of its subscriptions is done. Returns the next one, which keeps the device busy.
    pub(super) fn next_waiting(&mut self) -> Option<SubscriptionId> {
        let next = self.waiting.pop_front();
        self.busy = next.is_some();
        next
    }

    /// A request got an answer.
    pub(super) fn handle_answer(&mut self) {
        self.timeouts = 0;
        self.paused_until = None;
    }
}
