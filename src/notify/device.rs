//! What is known of one Luup device: at most one request is with it, and how it has answered lately.

use std::collections::VecDeque;
use std::time::Duration;

use super::LineId;

/// First pause after an action that did not answer in time, doubled for each that follows.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// Longest pause: how late, at most, a device is tried again that has come back to its senses. An action that works but
/// answers late is invoked each time, and Luup does nothing else meanwhile; so this is no short time.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// One device, while a line tells it anything.
#[derive(Debug, Default)]
pub struct Device {
    /// Lines that tell it.
    pub lines: usize,
    /// True while one of them is next in the queue or has a request out.
    pub busy: bool,
    /// Lines that are due and wait for it, first come first served.
    pub waiting: VecDeque<LineId>,
    /// Requests in a row that got no answer in time.
    pub timeouts: u32,
}

impl Device {
    /// True where its last request got no answer: it may take only part of the senders.
    pub fn is_suspect(&self) -> bool {
        self.timeouts > 0
    }

    /// How long a line waits before it tries this device again.
    pub fn pause(&self) -> Duration {
        backoff(FIRST_PAUSE, LONGEST_PAUSE, self.timeouts.saturating_sub(1))
    }
}

/// `first`, doubled `times` times, at most `longest`.
pub fn backoff(first: Duration, longest: Duration, times: u32) -> Duration {
    first.saturating_mul(1 << times.min(16)).min(longest)
}
