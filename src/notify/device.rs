//! What is known of one Luup device: at most one request is with it, and how it has answered lately.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

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
    /// Nothing is sent to it before this, since its last request got no answer.
    pub resting_until: Option<Instant>,
}

impl Device {
    /// True where its last request got no answer: it may take only part of the senders.
    pub fn is_suspect(&self) -> bool {
        self.timeouts > 0
    }

    /// Its request got no answer in time: it is left alone for a while, longer each time.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.resting_until = Some(now + backoff(FIRST_PAUSE, LONGEST_PAUSE, self.timeouts));
        self.timeouts += 1;
    }

    /// It has answered.
    pub fn handle_answer(&mut self) {
        self.timeouts = 0;
        self.resting_until = None;
    }
}

/// `first`, doubled `times` times, at most `longest`.
pub fn backoff(first: Duration, longest: Duration, times: u32) -> Duration {
    first.saturating_mul(1 << times.min(16)).min(longest)
}
