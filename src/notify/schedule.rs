//! [`Schedule`]: which notification is sent when.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use slab::Slab;

use super::breaker::Breaker;
use super::closing_notices::ClosingNotices;
use super::device::Device;
use super::log_once::LogOnce;
use super::retry_policy::RetryDecision;
use super::subscription::{PendingEvents, Subscription, SubscriptionState};
use super::{NotifyEvent, NotifyOutcome, Recipient, SubscriptionId};

/// A request to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NotifyJob {
    /// The subscription that the outcome belongs to.
    pub id: SubscriptionId,
    /// Path and query, with the event.
    pub query: String,
    /// See [`Recipient::secret`].
    pub secret: bool,
}

/// Counters since the start, for STAT JSON.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counters {
    /// Requests sent.
    pub sent: u64,
    /// Requests that Luup accepted.
    pub delivered: u64,
    /// Notifications given up, because Luup refuses them.
    pub failed: u64,
    /// Requests that repeat a failed one.
    pub retried: u64,
    /// Closing notices dropped, because too many waited.
    pub dropped: u64,
}

/// The schedule of all notifications. Sans-IO: events and the time in, requests and a deadline out.
///
/// Each connection with notifications has a subscription. At most one `connected` and one `data` or `closed` wait in it;
/// further data while one waits needs no request of its own. Rules, in order of priority:
///
/// 1. At most one request is out for a device, and a subscription's next request waits for the outcome of the last one,
///    so that order is kept.
/// 2. PACE delays data, except for the first; it never delays the closing notice.
/// 3. While Luup is unreachable, one probe goes out at intervals (`Breaker`).
/// 4. Requests that may yet succeed are repeated at growing intervals (`RetryState`). A closing notice outlives its
///    connection; at most `max_closing` of them are kept, and those with the same recipient are one.
///
/// Call order: after every `handle_*`, `cancel` or `discard`, call [`Schedule::poll_job`] until it returns `None`, then
/// [`Schedule::poll_timeout`].
#[derive(Debug)]
pub(crate) struct Schedule {
    subscriptions: Slab<Subscription>,
    devices: HashMap<Arc<str>, Device>,
    /// Due subscriptions whose device is free, in order.
    ready: VecDeque<SubscriptionId>,
    /// Delayed subscriptions, by the instant at which they are due.
    delayed: BTreeSet<(Instant, SubscriptionId)>,
    /// Subscriptions of ended connections.
    closing: ClosingNotices,
    /// Refusals that have been logged.
    log_once: LogOnce,
    breaker: Breaker,
    in_flight: usize,
    /// Requests out to devices that are slow.
    slow_in_flight: usize,
    max_in_flight: usize,
    max_closing: usize,
    counters: Counters,
    /// See [`Schedule::held`].
    held: usize,
}

impl Schedule {
    /// A schedule for at most `max_in_flight` requests at once, which keeps at most `max_closing` closing notices of
    /// ended connections. Both are at least 1.
    pub(crate) fn new(max_in_flight: usize, max_closing: usize) -> Self {
        Self {
            subscriptions: Slab::new(),
            devices: HashMap::new(),
            ready: VecDeque::new(),
            delayed: BTreeSet::new(),
            closing: ClosingNotices::default(),
            log_once: LogOnce::default(),
            breaker: Breaker::default(),
            in_flight: 0,
            slow_in_flight: 0,
            max_in_flight: max_in_flight.max(1),
            max_closing: max_closing.max(1),
            counters: Counters::default(),
            held: 0,
        }
    }

    /// Changes the limits. Requests that are out are not affected.
    pub(crate) fn set_limits(&mut self, max_in_flight: usize, max_closing: usize) {
        self.max_in_flight = max_in_flight.max(1);
        self.max_closing = max_closing.max(1);
        self.enforce_closing_limit(None);
    }

    /// Opens a subscription for a connection. It ends with [`Schedule::handle_closed`] or [`Schedule::discard`].
    pub(crate) fn open(&mut self, recipient: Recipient) -> SubscriptionId {
        self.devices.entry(Arc::clone(&recipient.device)).or_default().subscriptions += 1;
        self.held += recipient.held();
        SubscriptionId(self.subscriptions.insert(Subscription::new(recipient)))
    }

    /// The connection is established. Causes a notification only if requests name their event.
    pub(crate) fn handle_connected(&mut self, id: SubscriptionId, now: Instant) {
        let subscription = &mut self.subscriptions[id.0];
        if subscription.recipient.events {
            subscription.pending.connected = true;
            self.arrange(id, now);
        }
    }

    /// The plugin has data to read.
    pub(crate) fn handle_data(&mut self, id: SubscriptionId, now: Instant) {
        let subscription = &mut self.subscriptions[id.0];
        if subscription.pending.news.is_none() {
            subscription.pending.news = Some(NotifyEvent::Data);
            self.arrange(id, now);
        }
    }

    /// The connection has ended. The subscription stays until its closing notice is delivered or given up.
    pub(crate) fn handle_closed(&mut self, id: SubscriptionId, now: Instant) {
        let subscription = &mut self.subscriptions[id.0];
        subscription.closing = true;
        subscription.pending.news = Some(NotifyEvent::Closed);
        let recipient = subscription.recipient.clone();
        if let Some(older) = self.closing.insert(recipient, id)
            && !self.is_in_flight(older)
        {
            // An equal notice waits already; one request is enough for both.
            self.remove(older);
        }
        self.arrange(id, now);
        self.enforce_closing_limit(Some(id));
    }

    /// The connection has ended and no closing notice is wanted, because another connection takes over its name.
    pub(crate) fn discard(&mut self, id: SubscriptionId) {
        let subscription = &mut self.subscriptions[id.0];
        if matches!(subscription.state, SubscriptionState::InFlight(_)) {
            subscription.closing = true;
            subscription.pending = PendingEvents::default();
        } else {
            self.remove(id);
        }
        self.check_invariants();
    }

    /// Cancels the closing notice that waits for `recipient`, if there is one; see [`Schedule::discard`]. A request that
    /// is out is not affected.
    pub(crate) fn cancel(&mut self, recipient: &Recipient) {
        if let Some(id) = self.closing.find(recipient).filter(|&id| !self.is_in_flight(id)) {
            self.remove(id);
        }
    }

    /// Takes the outcome of a request that [`Schedule::poll_job`] returned.
    pub(crate) fn handle_outcome(&mut self, id: SubscriptionId, outcome: NotifyOutcome, now: Instant) {
        let Some(subscription) = self.subscriptions.get_mut(id.0) else { return };
        let SubscriptionState::InFlight(event) = subscription.state else { return };
        self.held -= subscription.recipient.request(event).len();
        subscription.state = SubscriptionState::Idle;
        subscription.last_outcome = Some(outcome);
        let device = Arc::clone(&subscription.recipient.device);
        self.release_device(&device, outcome, now);
        self.update_breaker(outcome, now);
        self.apply_outcome(id, event, outcome, now);
        self.arrange(id, now);
        self.enforce_closing_limit(None);
    }

    /// Returns the next request to send, if one may go out at `now`.
    pub(crate) fn poll_job(&mut self, now: Instant) -> Option<NotifyJob> {
        while let Some(&(due, id)) = self.delayed.first()
            && due <= now
        {
            self.delayed.pop_first();
            self.arrange(id, now);
        }
        if self.in_flight >= self.max_in_flight || !self.breaker.allows_request(now) {
            return None;
        }
        let at = self.ready.iter().position(|id| self.may_send(*id))?;
        let id = self.ready.remove(at)?;
        let subscription = &mut self.subscriptions[id.0];
        // A subscription is in the queue only while an event waits.
        let event = subscription.pending.next()?;
        let secret = subscription.recipient.secret;
        subscription.pending.clear(event);
        subscription.state = SubscriptionState::InFlight(event);
        if event != NotifyEvent::Connected {
            subscription.paced_until = subscription.recipient.pace.map(|pace| now + pace);
        }
        let query = subscription.recipient.request(event);
        self.held += query.len();
        let device = self.devices.entry(Arc::clone(&subscription.recipient.device)).or_default();
        self.slow_in_flight += usize::from(device.is_slow());
        self.in_flight += 1;
        self.counters.sent += 1;
        self.counters.retried +=
            u64::from(subscription.last_outcome.is_some_and(|last| last != NotifyOutcome::Delivered));
        self.breaker.handle_request();
        self.check_invariants();
        Some(NotifyJob { id, query, secret })
    }

    /// When to call [`Schedule::poll_job`] again, if no `handle_*` is called before.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let delayed = self.delayed.first().map(|&(due, _)| due);
        // The breaker's deadline counts only if a request could go out then; otherwise the loop would spin.
        let could_send = || self.in_flight < self.max_in_flight && self.ready.iter().any(|&id| self.may_send(id));
        let probe = self.breaker.deadline().filter(|_| could_send());
        [delayed, probe].into_iter().flatten().min()
    }

    /// The outcome of a subscription's last request. `None` if there was none or the subscription is gone.
    pub(crate) fn last_outcome(&self, id: SubscriptionId) -> Option<NotifyOutcome> {
        self.subscriptions.get(id.0).and_then(|subscription| subscription.last_outcome)
    }

    /// Counters since the start.
    pub(crate) fn counters(&self) -> Counters {
        self.counters
    }

    /// The number of subscriptions with an event that waits or a request that is out.
    pub(crate) fn pending(&self) -> usize {
        let is_pending = |subscription: &Subscription| subscription.state != SubscriptionState::Idle;
        self.subscriptions.iter().filter(|(_, subscription)| is_pending(subscription)).count()
    }

    /// Bytes of memory for requests: the recipients of all subscriptions, and the requests that are out.
    pub(crate) fn held(&self) -> usize {
        self.held
    }

    /// Moves a subscription to the state that its events and the time require. Removes it if its connection has ended
    /// and no event waits.
    fn arrange(&mut self, id: SubscriptionId, now: Instant) {
        let subscription = &mut self.subscriptions[id.0];
        match subscription.state {
            SubscriptionState::InFlight(_) | SubscriptionState::Due => return,
            // The instant may change: a closing notice does not wait for the pace.
            SubscriptionState::Delayed(due) => {
                self.delayed.remove(&(due, id));
            }
            SubscriptionState::Idle => {}
        }
        let not_before = subscription.retry.not_before();
        let due = match subscription.pending.next() {
            None => {
                subscription.state = SubscriptionState::Idle;
                if subscription.closing {
                    self.remove(id);
                }
                return;
            }
            Some(NotifyEvent::Data) => not_before.max(subscription.paced_until),
            Some(NotifyEvent::Connected | NotifyEvent::Closed) => not_before,
        };
        let paused_until = self.devices.get(&subscription.recipient.device).and_then(|device| device.paused_until);
        match due.max(paused_until).filter(|&due| due > now) {
            Some(due) => {
                subscription.state = SubscriptionState::Delayed(due);
                self.delayed.insert((due, id));
            }
            None => self.enqueue(id),
        }
        self.check_invariants();
    }

    /// Puts a due subscription into the queue of senders, or into its device's queue if the device is busy.
    fn enqueue(&mut self, id: SubscriptionId) {
        let subscription = &mut self.subscriptions[id.0];
        subscription.state = SubscriptionState::Due;
        let device = self.devices.entry(Arc::clone(&subscription.recipient.device)).or_default();
        if device.busy {
            device.waiting.push_back(id);
        } else {
            device.busy = true;
            self.ready.push_back(id);
        }
    }

    /// True unless the device is slow and slow devices already take half of the senders. The other half stays free for
    /// devices that answer.
    fn may_send(&self, id: SubscriptionId) -> bool {
        let device = &self.subscriptions[id.0].recipient.device;
        let is_slow = self.devices.get(device).is_some_and(Device::is_slow);
        !is_slow || self.slow_in_flight < self.max_in_flight.div_ceil(2)
    }

    /// Frees the device of a finished request, and puts its next subscription into the queue.
    fn release_device(&mut self, name: &Arc<str>, outcome: NotifyOutcome, now: Instant) {
        self.in_flight -= 1;
        let Some(device) = self.devices.get_mut(name) else { return };
        self.slow_in_flight -= usize::from(device.is_slow());
        match outcome {
            NotifyOutcome::TimedOut => device.handle_timeout(now),
            // The request did not reach the device, so its record stays.
            NotifyOutcome::Unreachable | NotifyOutcome::TlsFailed | NotifyOutcome::NotSent => {}
            _ => device.handle_answer(),
        }
        if let Some(due) = device.paused_until.filter(|&due| due > now) {
            device.busy = false;
            for id in std::mem::take(&mut device.waiting) {
                self.subscriptions[id.0].state = SubscriptionState::Delayed(due);
                self.delayed.insert((due, id));
            }
            return;
        }
        self.ready.extend(device.next_waiting());
    }

    fn update_breaker(&mut self, outcome: NotifyOutcome, now: Instant) {
        match outcome {
            NotifyOutcome::NotSent => self.breaker.handle_not_sent(now),
            NotifyOutcome::Unreachable | NotifyOutcome::TlsFailed if self.breaker.handle_unreachable(now) => {
                log::warn!("Luup cannot be reached; notifications wait");
            }
            NotifyOutcome::Unreachable | NotifyOutcome::TlsFailed => {}
            _ if self.breaker.handle_reached() => log::info!("Luup is back"),
            _ => {}
        }
    }

    /// Ends, drops or puts back the event of a request.
    fn apply_outcome(&mut self, id: SubscriptionId, event: NotifyEvent, outcome: NotifyOutcome, now: Instant) {
        let subscription = &mut self.subscriptions[id.0];
        match subscription.retry.handle_outcome(outcome, now) {
            RetryDecision::Delivered => {
                self.log_once.reset(&subscription.recipient.query);
                self.counters.delivered += 1;
            }
            RetryDecision::GiveUp => {
                if self.log_once.first_time(&subscription.recipient.query) {
                    let query = subscription.recipient.redacted_query();
                    log::warn!("notification given up, {}: {query}", outcome.name());
                }
                self.counters.failed += 1;
            }
            RetryDecision::Retry if subscription.closing && !self.closing.must_repeat(&subscription.recipient, id) => {
                subscription.pending = PendingEvents::default();
            }
            RetryDecision::Retry => {
                // PACE limits how often a plugin is called, and this request has not reached it.
                subscription.paced_until = None;
                subscription.pending.restore(event);
            }
        }
    }

    /// Drops the oldest closing notices beyond the limit, except `newest` and those whose request is out.
    fn enforce_closing_limit(&mut self, newest: Option<SubscriptionId>) {
        while let Some(id) =
            self.closing.oldest_above(self.max_closing, |id| Some(id) != newest && !self.is_in_flight(id))
        {
            let query = self.subscriptions[id.0].recipient.redacted_query();
            log::warn!("too many closing notices wait; one is dropped: {query}");
            self.counters.dropped += 1;
            self.remove(id);
        }
    }

    /// Removes a subscription from all collections.
    fn remove(&mut self, id: SubscriptionId) {
        let subscription = self.subscriptions.remove(id.0);
        self.held -= subscription.recipient.held();
        self.closing.remove(&subscription.recipient, id);
        match subscription.state {
            SubscriptionState::Delayed(due) => {
                self.delayed.remove(&(due, id));
            }
            SubscriptionState::Due => {
                let device = self.devices.entry(Arc::clone(&subscription.recipient.device)).or_default();
                if let Some(at) = device.waiting.iter().position(|&waiting| waiting == id) {
                    device.waiting.remove(at);
                } else {
                    self.ready.retain(|&ready| ready != id);
                    self.ready.extend(device.next_waiting());
                }
            }
            SubscriptionState::Idle | SubscriptionState::InFlight(_) => {}
        }
        if let Some(device) = self.devices.get_mut(&subscription.recipient.device) {
            device.subscriptions -= 1;
            if device.subscriptions == 0 {
                self.devices.remove(&subscription.recipient.device);
            }
        }
    }

    fn is_in_flight(&self, id: SubscriptionId) -> bool {
        matches!(self.subscriptions[id.0].state, SubscriptionState::InFlight(_))
    }

    /// Checks, in debug builds, what must hold after every public call.
    fn check_invariants(&self) {
        if !cfg!(debug_assertions) {
            return;
        }
        let count = |is_counted: fn(SubscriptionState) -> bool| {
            self.subscriptions.iter().filter(|(_, subscription)| is_counted(subscription.state)).count()
        };
        assert_eq!(count(|state| matches!(state, SubscriptionState::InFlight(_))), self.in_flight);
        assert!(self.slow_in_flight <= self.in_flight);
        let waiting: usize = self.devices.values().map(|device| device.waiting.len()).sum();
        assert_eq!(count(|state| state == SubscriptionState::Due), self.ready.len() + waiting);
        assert_eq!(count(|state| matches!(state, SubscriptionState::Delayed(_))), self.delayed.len());
        let held = |subscription: &Subscription| match subscription.state {
            SubscriptionState::InFlight(event) => {
                subscription.recipient.held() + subscription.recipient.request(event).len()
            }
            _ => subscription.recipient.held(),
        };
        assert_eq!(self.subscriptions.iter().map(|(_, subscription)| held(subscription)).sum::<usize>(), self.held);
        for (id, subscription) in &self.subscriptions {
            let is_idle = subscription.state == SubscriptionState::Idle;
            assert!(!is_idle || subscription.pending.next().is_none(), "subscription {id} is idle with an event");
            assert!(!is_idle || !subscription.closing, "subscription {id} has ended and is not removed");
        }
    }
}

#[cfg(test)]
mod tests;
