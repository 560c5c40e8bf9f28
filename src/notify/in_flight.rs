//! [`InFlight`]: the requests that are out, and whether another one may go out. Neither devices that hang nor other machines
//! may take every sender, whether or not it is known already that they do.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::SubscriptionId;
use super::device::DeviceClass;
use crate::client::ClientKey;

/// How long senders are kept for loopback after its last subscription, or after the start of a connection that may get one:
/// a plugin that makes a connection for each exchange makes the next one within minutes.
const RESERVE_TIME: Duration = Duration::from_secs(600);

/// A request that has been out for this long is slow: it may take a sender until its time limit.
pub(super) const SLOW_ANSWER: Duration = Duration::from_secs(1);

/// Counts the requests that are out. Rules for n senders:
///
/// - Requests to slow devices go out while fewer than half of n are slow.
/// - Devices that are not known, and slow ones, leave a quarter of n to the prompt ones.
/// - Of the senders that slow requests have left, half are for requests that are not slow yet. So if all of these turn
///   out to hang, some are left for the next second, and one at least is tried in each second.
///
/// These hold for the requests of loopback and for those of all other clients, where n is what the ones have left to the
/// others. While loopback has subscriptions, and for [`RESERVE_TIME`] after that, the other clients have no more than:
///
/// - one request that is not slow yet: Luup runs one action at a time, and a request of loopback waits for that one at most;
/// - a quarter of the senders, at least one, for it and for slow ones.
#[derive(Debug)]
pub(super) struct InFlight {
    max: usize,
    /// Subscriptions of loopback.
    loopback_subscriptions: usize,
    /// When loopback last had any, or began a connection that may get one, if that is less than [`RESERVE_TIME`] ago.
    loopback_seen: Option<Instant>,
    /// Requests of loopback.
    loopback: Requests,
    /// Requests of the other clients.
    others: Requests,
}

/// Requests that are out.
#[derive(Debug, Default)]
struct Requests {
    /// Requests that are slow, or whose device was slow when they went out.
    slow: usize,
    /// The others, from the oldest: since when, and the class of the device then.
    recent: VecDeque<(Instant, SubscriptionId, DeviceClass)>,
}

impl Requests {
    fn len(&self) -> usize {
        self.slow + self.recent.len()
    }

    /// True if a request to a device of this class may go out, if these may take so many senders.
    fn allows(&self, class: DeviceClass, senders: usize) -> bool {
        if self.len() >= senders {
            return false;
        }
        let recent = |class| self.recent.iter().filter(|&&(_, _, recent)| recent == class).count();
        let (unknown, share) = (recent(DeviceClass::Unknown), senders - senders / 4);
        // Half of the senders that slow requests have left.
        let half = |senders: usize| (senders.saturating_sub(self.slow) / 2).max(1);
        match class {
            DeviceClass::Slow => self.slow < senders.div_ceil(2) && self.slow + unknown < share,
            DeviceClass::Unknown => self.slow + unknown < share && unknown < half(share),
            DeviceClass::Prompt => recent(class) < half(senders),
        }
    }

    fn poll_slow(&mut self, now: Instant) -> Option<SubscriptionId> {
        let &(since, id, _) = self.recent.front()?;
        if now < since + SLOW_ANSWER {
            return None;
        }
        self.recent.pop_front();
        self.slow += 1;
        Some(id)
    }
}

impl InFlight {
    /// No requests, and at most `max` at once, at least 1.
    pub(super) fn new(max: usize) -> Self {
        let (loopback, others) = Default::default();
        Self { max: max.max(1), loopback_subscriptions: 0, loopback_seen: None, loopback, others }
    }

    /// Changes the limit. Requests that are out are not affected.
    pub(super) fn set_max(&mut self, max: usize) {
        self.max = max.max(1);
    }

    /// `client` begins a connection that may get a subscription.
    pub(super) fn handle_connection(&mut self, client: ClientKey, now: Instant) {
        if client.is_loopback() {
            self.loopback_seen = Some(now);
        }
    }

    /// `client` has a subscription more.
    pub(super) fn handle_open(&mut self, client: ClientKey) {
        self.loopback_subscriptions += usize::from(client.is_loopback());
    }

    /// `client` has a subscription less.
    pub(super) fn handle_close(&mut self, client: ClientKey) {
        self.loopback_subscriptions -= usize::from(client.is_loopback());
    }

    /// The number of requests that are out.
    pub(super) fn len(&self) -> usize {
        self.loopback.len() + self.others.len()
    }

    /// True if no request of any client may go out.
    pub(super) fn is_full(&self) -> bool {
        self.len() >= self.max
    }

    /// True if `client` is one of those whose requests hang.
    pub(super) fn has_slow(&self, client: ClientKey) -> bool {
        self.of(client).slow > 0
    }

    /// True if a request of `client` to a device of some class may go out.
    pub(super) fn has_room(&self, client: ClientKey) -> bool {
        self.of(client).len() < self.senders_for(client)
    }

    /// True if a request of `client` to a device of this class may go out.
    pub(super) fn allows(&self, client: ClientKey, class: DeviceClass) -> bool {
        self.of(client).allows(class, self.senders_for(client))
    }

    /// A request of `client` goes out to a device of this class.
    pub(super) fn handle_request(&mut self, client: ClientKey, id: SubscriptionId, class: DeviceClass, now: Instant) {
        let requests = self.of_mut(client);
        match class {
            DeviceClass::Slow => requests.slow += 1,
            DeviceClass::Unknown | DeviceClass::Prompt => requests.recent.push_back((now, id, class)),
        }
    }

    /// A request of `client` has an outcome.
    pub(super) fn handle_outcome(&mut self, client: ClientKey, id: SubscriptionId) {
        let requests = self.of_mut(client);
        match requests.recent.iter().position(|&(_, recent, _)| recent == id) {
            Some(at) => drop(requests.recent.remove(at)),
            None => requests.slow -= 1,
        }
    }

    /// Returns a request that is slow from now on; to be called until it returns `None`, before [`InFlight::allows`].
    pub(super) fn poll_slow(&mut self, now: Instant) -> Option<SubscriptionId> {
        if self.loopback_subscriptions > 0 {
            self.loopback_seen = Some(now);
        } else if self.loopback_seen.is_some_and(|seen| seen + RESERVE_TIME <= now) {
            self.loopback_seen = None;
        }
        self.loopback.poll_slow(now).or_else(|| self.others.poll_slow(now))
    }

    /// When [`InFlight::poll_slow`] returns the next one, and [`InFlight::allows`] may allow more. `None` if it will not.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let fronts = [&self.loopback, &self.others].map(|requests| requests.recent.front());
        let since = fronts.into_iter().flatten().map(|&(since, _, _)| since).min()?;
        (!self.is_full()).then_some(since + SLOW_ANSWER)
    }

    /// The senders that requests of `client` may take, or those of all clients if it is not loopback, with those that they
    /// have taken. 0 if none may go out.
    fn senders_for(&self, client: ClientKey) -> usize {
        if client.is_loopback() {
            return self.max.saturating_sub(self.others.len());
        }
        let left = self.max.saturating_sub(self.loopback.len());
        match self.loopback_seen {
            None => left,
            Some(_) if self.others.recent.is_empty() => left.min((self.max / 4).max(1)),
            Some(_) => 0,
        }
    }

    fn of(&self, client: ClientKey) -> &Requests {
        if client.is_loopback() { &self.loopback } else { &self.others }
    }

    fn of_mut(&mut self, client: ClientKey) -> &mut Requests {
        if client.is_loopback() { &mut self.loopback } else { &mut self.others }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOOPBACK: ClientKey = ClientKey::Loopback;
    const OTHER: ClientKey = ClientKey::V6(1);

    /// Sends as many requests of `client` to devices of this class as may go out.
    fn send_all_of(
        client: ClientKey,
        in_flight: &mut InFlight,
        class: DeviceClass,
        next: &mut usize,
        now: Instant,
    ) -> usize {
        let before = in_flight.len();
        while in_flight.allows(client, class) {
            in_flight.handle_request(client, SubscriptionId(*next), class, now);
            *next += 1;
        }
        in_flight.len() - before
    }

    /// The same for loopback.
    fn send_all(in_flight: &mut InFlight, class: DeviceClass, next: &mut usize, now: Instant) -> usize {
        send_all_of(LOOPBACK, in_flight, class, next, now)
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
        assert!(in_flight.allows(LOOPBACK, DeviceClass::Prompt));
    }

    #[test]
    fn one_sender_serves_every_class() {
        let now = Instant::now();
        for class in [DeviceClass::Prompt, DeviceClass::Unknown, DeviceClass::Slow] {
            let (mut in_flight, mut next) = (InFlight::new(1), 0);
            assert_eq!(send_all(&mut in_flight, class, &mut next, now), 1);
            assert_eq!(in_flight.deadline(), None, "time alone frees no sender");
            in_flight.handle_outcome(LOOPBACK, SubscriptionId(0));
            assert_eq!(in_flight.len(), 0);
        }
    }

    /// What goes out each second if all requests hang.
    fn sent_each_second(in_flight: &mut InFlight, client: ClientKey, class: DeviceClass, start: Instant) -> Vec<usize> {
        let mut next = 1000;
        let mut second = |second| {
            let now = start + second * SLOW_ANSWER;
            while in_flight.poll_slow(now).is_some() {}
            send_all_of(client, in_flight, class, &mut next, now)
        };
        (0..6).map(&mut second).collect()
    }

    #[test]
    fn a_machine_alone_has_the_senders_that_loopback_alone_has() {
        let start = Instant::now();
        for senders in [1, 2, 3, 4, 16, 64] {
            for class in [DeviceClass::Prompt, DeviceClass::Unknown, DeviceClass::Slow] {
                let [loopback, other] =
                    [LOOPBACK, OTHER].map(|client| sent_each_second(&mut InFlight::new(senders), client, class, start));
                assert_eq!(loopback, other, "{senders} senders, {class:?}");
            }
        }
    }

    #[test]
    fn other_machines_have_one_request_out_beside_slow_ones_if_loopback_has_subscriptions() {
        let start = Instant::now();
        for (senders, class, expected) in [
            (1, DeviceClass::Prompt, [1, 0, 0, 0, 0, 0]),
            (2, DeviceClass::Prompt, [1, 0, 0, 0, 0, 0]),
            (16, DeviceClass::Prompt, [1, 1, 1, 1, 0, 0]),
            (16, DeviceClass::Unknown, [1, 1, 1, 0, 0, 0]),
            (16, DeviceClass::Slow, [2, 0, 0, 0, 0, 0]),
        ] {
            let mut in_flight = InFlight::new(senders);
            in_flight.handle_open(LOOPBACK);
            assert_eq!(sent_each_second(&mut in_flight, OTHER, class, start), expected, "{senders} senders, {class:?}");
            assert_eq!(in_flight.allows(LOOPBACK, DeviceClass::Unknown), senders > 1, "the rest is loopback's");
            in_flight.handle_close(LOOPBACK);
            for (time, left) in [(RESERVE_TIME - SLOW_ANSWER, (senders / 4).max(1)), (RESERVE_TIME, senders)] {
                // The last call above was in the sixth second.
                while in_flight.poll_slow(start + 5 * SLOW_ANSWER + time).is_some() {}
                assert_eq!(in_flight.senders_for(OTHER), left, "{senders} senders after {time:?}");
            }
        }
    }

    #[test]
    fn loopback_leaves_the_senders_that_others_have_taken() {
        let now = Instant::now();
        let (mut in_flight, mut next) = (InFlight::new(4), 0);
        assert_eq!(send_all_of(OTHER, &mut in_flight, DeviceClass::Prompt, &mut next, now), 2);
        in_flight.handle_open(LOOPBACK);
        assert_eq!(in_flight.poll_slow(now), None);
        assert_eq!(send_all(&mut in_flight, DeviceClass::Prompt, &mut next, now), 1);
        in_flight.set_max(1);
        assert!(!in_flight.allows(LOOPBACK, DeviceClass::Prompt) && !in_flight.allows(OTHER, DeviceClass::Prompt));
    }
}
