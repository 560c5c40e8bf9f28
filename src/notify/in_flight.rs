//! [`InFlight`]: the requests that are out, and whether another one may go out. Devices that hang must not take every
//! sender, whether or not it is known already that they hang.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::SubscriptionId;
use super::device::DeviceClass;

/// A request that has been out for this long is slow: it may take a sender until its time limit.
pub(super) const SLOW_ANSWER: Duration = Duration::from_secs(1);

/// Counts the requests that are out. Rules for n senders:
///
/// - Requests to slow devices go out while fewer than half of n are slow.
/// - Devices that are not known, and slow ones, leave a quarter of n to the prompt ones.
/// - Of the senders that slow requests have left, half are for requests that are not slow yet. So if all of these turn
///   out to hang, some are left for the next second, and one at least is tried in each second.
#[derive(Debug)]
pub(super) struct InFlight {
    max: usize,
    /// Requests that are slow, or whose device was slow when they went out.
    slow: usize,
    /// The others, from the oldest: since when, and the class of the device then.
    recent: VecDeque<(Instant, SubscriptionId, DeviceClass)>,
}

impl InFlight {
    /// No requests, and at most `max` at once, at least 1.
    pub(super) fn new(max: usize) -> Self {
        Self { max: max.max(1), slow: 0, recent: VecDeque::new() }
    }

    /// Changes the limit. Requests that are out are not affected.
    pub(super) fn set_max(&mut self, max: usize) {
        self.max = max.max(1);
    }

    /// The number of requests that are out.
    pub(super) fn len(&self) -> usize {
        self.slow + self.recent.len()
    }

    /// True if no request of any class may go out.
    pub(super) fn is_full(&self) -> bool {
        self.len() >= self.max
    }

    /// True if there are slow ones.
    pub(super) fn has_slow(&self) -> bool {
        self.slow > 0
    }

    /// True if a request to a device of this class may go out.
    pub(super) fn allows(&self, class: DeviceClass) -> bool {
        if self.is_full() {
            return false;
        }
        let recent = |class| self.recent.iter().filter(|&&(_, _, recent)| recent == class).count();
        let (unknown, share) = (recent(DeviceClass::Unknown), self.max - self.max / 4);
        // Half of the senders that slow requests have left.
        let half = |senders: usize| (senders.saturating_sub(self.slow) / 2).max(1);
        match class {
            DeviceClass::Slow => self.slow < self.max.div_ceil(2) && self.slow + unknown < share,
            DeviceClass::Unknown => self.slow + unknown < share && unknown < half(share),
            DeviceClass::Prompt => recent(class) < half(self.max),
        }
    }

    /// A request goes out to a device of this class.
    pub(super) fn handle_request(&mut self, id: SubscriptionId, class: DeviceClass, now: Instant) {
        match class {
            DeviceClass::Slow => self.slow += 1,
            DeviceClass::Unknown | DeviceClass::Prompt => self.recent.push_back((now, id, class)),
        }
    }

    /// A request has an outcome.
    pub(super) fn handle_outcome(&mut self, id: SubscriptionId) {
        match self.recent.iter().position(|&(_, recent, _)| recent == id) {
            Some(at) => drop(self.recent.remove(at)),
            None => self.slow -= 1,
        }
    }

    /// Returns a request that is slow from now on; to be called until it returns `None`.
    pub(super) fn poll_slow(&mut self, now: Instant) -> Option<SubscriptionId> {
        let &(since, id, _) = self.recent.front()?;
        if now < since + SLOW_ANSWER {
            return None;
        }
        self.recent.pop_front();
        self.slow += 1;
        Some(id)
    }

    /// When [`InFlight::poll_slow`] returns the next one, and [`InFlight::allows`] may allow more. `None` if it will not.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let since = self.recent.front().map(|&(since, _, _)| since)?;
        (!self.is_full()).then_some(since + SLOW_ANSWER)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends as many requests to devices of this class as may go out.
    fn send_all(in_flight: &mut InFlight, class: DeviceClass, next: &mut usize, now: Instant) -> usize {
        let before = in_flight.len();
        while in_flight.allows(class) {
            in_flight.handle_request(SubscriptionId(*next), class, now);
            *next += 1;
        }
        in_flight.len() - before
    }

    #[test]
    fn each_second_some_are_tried_if_all_hang() {
        for (class, expected) in [(DeviceClass::Unknown, [6, 3, 1, 1, 1]), (DeviceClass::Prompt, [8, 4, 2, 1, 1])] {
            let start = Instant::now();
            let (mut in_flight, mut next) = (InFlight::new(16), 0);
            let mut sent = Vec::new();
            for second in 0..5 {
                let now = start + second * SLOW_ANSWER;
                while in_flight.poll_slow(now).is_some() {}
                sent.push(send_all(&mut in_flight, class, &mut next, now));
            }
            assert_eq!(sent, expected, "{class:?}");
        }
    }

    #[test]
    fn prompt_devices_have_senders_of_their_own() {
        let now = Instant::now();
        let (mut in_flight, mut next) = (InFlight::new(16), 0);
        for second in 0..10 {
            let now = now + second * SLOW_ANSWER;
            while in_flight.poll_slow(now).is_some() {}
            send_all(&mut in_flight, DeviceClass::Unknown, &mut next, now);
            send_all(&mut in_flight, DeviceClass::Slow, &mut next, now);
        }
        assert_eq!(in_flight.len(), 12);
        assert!(in_flight.allows(DeviceClass::Prompt));
    }

    #[test]
    fn one_sender_serves_every_class() {
        let now = Instant::now();
        for class in [DeviceClass::Prompt, DeviceClass::Unknown, DeviceClass::Slow] {
            let (mut in_flight, mut next) = (InFlight::new(1), 0);
            assert_eq!(send_all(&mut in_flight, class, &mut next, now), 1);
            assert_eq!(in_flight.deadline(), None, "time alone frees no sender");
            in_flight.handle_outcome(SubscriptionId(0));
            assert_eq!(in_flight.len(), 0);
        }
    }
}
