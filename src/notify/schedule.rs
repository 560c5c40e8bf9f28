//! [`Schedule`]: which notification is sent when.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use slab::Slab;

use super::breaker::Breaker;
use super::closing_notices::ClosingNotices;
use super::device::{Device, DeviceClass, Devices};
use super::in_flight::InFlight;
use super::log_once::LogOnce;
use super::ready_queue::{ReadyPlace, ReadyQueue};
use super::reconnect_backoff::ReconnectBackoff;
use super::retry_policy::RetryDecision;
use super::subscription::{PendingEvents, Subscription, SubscriptionState};
use super::{DeviceKey, NotifyEvent, NotifyOutcome, Recipient, SubscriptionId};
use crate::client::ClientKey;

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
    /// How long Luup takes to accept a request: a smoothed mean, as RFC 6298 section 2 has it for round trips. `None` before
    /// the first.
    pub latency: Option<Duration>,
}

impl Counters {
    fn record_delivery(&mut self, took: Duration) {
        self.delivered += 1;
        self.latency = Some(self.latency.map_or(took, |mean| (mean * 7 + took) / 8));
    }
}

/// The schedule of all notifications. Sans-IO: events and the time in, requests and a deadline out.
///
/// Each connection with notifications has a subscription. At most one `connected` and one `data` or `closed` wait in it;
/// further data while one waits needs no request of its own. Rules, in order of priority:
///
/// 1. At most one request of a client is out for a device (`DeviceKey`), and a subscription's next request waits for the
///    outcome of the last one, so that order is kept. After an answer the device pauses for as long as the answer took (`Device`).
/// 2. PACE delays data, except for the first; it never delays the closing notice.
/// 3. Closing notices of short-lived connections are held back if they come fast (`ReconnectBackoff`).
/// 4. Devices that hang leave senders to the others (`InFlight`). While requests hang, the newest of the others goes
///    first: what has waited for long is no likelier to be answered, and what comes next must not wait behind it.
/// 5. Clients have turns (`ReadyQueue`). Where loopback has subscriptions, all other clients have one request out at a
///    time, beside slow ones (`InFlight`).
/// 6. While Luup is unreachable, one probe goes out at intervals (`Breaker`).
/// 7. Requests that may yet succeed are repeated at growing intervals (`RetryState`). A closing notice outlives its
///    connection; at most `max_closing` of them are kept, fewer if they are long, of which clients have shares
///    (`ClosingNotices`), and those with the same recipient are one.
///
/// Call order: after every `handle_*`, `cancel` or `discard`, call [`Schedule::poll_job`] until it returns `None`, then
/// [`Schedule::poll_timeout`].
#[derive(Debug)]
pub(crate) struct Schedule {
    subscriptions: Slab<Subscription>,
    devices: Devices,
    /// Devices that pause, by the end of the pause. Those whose pause was ended otherwise stay until then.
    paused: BTreeSet<(Instant, DeviceKey)>,
    /// Due subscriptions whose device is free.
    ready: ReadyQueue,
    /// Delayed subscriptions, by the instant at which they are due.
    delayed: BTreeSet<(Instant, SubscriptionId)>,
    /// Subscriptions of ended connections.
    closing: ClosingNotices,
    /// The last closing notices of short-lived connections.
    reconnects: ReconnectBackoff,
    /// Refusals that have been logged.
    log_once: LogOnce,
    breaker: Breaker,
    in_flight: InFlight,
    max_closing: usize,
    /// The daemon ends.
    shuts_down: bool,
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
            devices: Devices::default(),
            paused: BTreeSet::new(),
            ready: ReadyQueue::default(),
            delayed: BTreeSet::new(),
            closing: ClosingNotices::default(),
            reconnects: ReconnectBackoff::default(),
            log_once: LogOnce::default(),
            breaker: Breaker::default(),
            in_flight: InFlight::new(max_in_flight),
            max_closing: max_closing.max(1),
            shuts_down: false,
            counters: Counters::default(),
            held: 0,
        }
    }

    /// Changes the limits. Requests that are out are not affected.
    pub(crate) fn set_limits(&mut self, max_in_flight: usize, max_closing: usize) {
        self.in_flight.set_max(max_in_flight);
        self.max_closing = max_closing.max(1);
        self.enforce_closing_limit(None);
    }

    /// A connection of `client` begins that may open a subscription. Its first notification need not wait for requests of other
    /// clients that go out until then.
    pub(crate) fn handle_connection(&mut self, client: ClientKey, now: Instant) {
        self.in_flight.handle_connection(client, now);
    }

    /// Opens a subscription for a connection. It ends with [`Schedule::handle_closed`] or [`Schedule::discard`].
    pub(crate) fn open(&mut self, recipient: Recipient) -> SubscriptionId {
        self.devices.open(&recipient.device);
        self.in_flight.handle_open(recipient.device.client);
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

    /// The remote has ended, and the proxy connects again. Causes a notification only if requests name their event.
    pub(crate) fn handle_lost(&mut self, id: SubscriptionId, now: Instant) {
        let subscription = &mut self.subscriptions[id.0];
        if subscription.recipient.events {
            (subscription.pending.lost, subscription.pending.back) = (true, false);
            self.arrange(id, now);
        }
    }

    /// The proxy has connected again. The rules are those of [`Schedule::handle_lost`].
    pub(crate) fn handle_back(&mut self, id: SubscriptionId, now: Instant) {
        let subscription = &mut self.subscriptions[id.0];
        if subscription.recipient.events {
            subscription.pending.back = true;
            self.arrange(id, now);
        }
    }

    /// The plugin has data to read.
    pub(crate) fn handle_data(&mut self, id: SubscriptionId, now: Instant) {
        self.handle_news(id, NotifyEvent::Data, now);
    }

    /// A connection has arrived at the plugin's listener. The rules are those of data.
    pub(crate) fn handle_incoming(&mut self, id: SubscriptionId, now: Instant) {
        self.handle_news(id, NotifyEvent::Incoming, now);
    }

    fn handle_news(&mut self, id: SubscriptionId, event: NotifyEvent, now: Instant) {
        let subscription = &mut self.subscriptions[id.0];
        if subscription.pending.news.is_none() {
            subscription.pending.news = Some(event);
            self.arrange(id, now);
        }
    }

    /// The connection has ended, `lived` after it was established; 0 if it never was. The subscription stays until its
    /// closing notice is delivered or given up.
    pub(crate) fn handle_closed(&mut self, id: SubscriptionId, lived: Duration, now: Instant) {
        let subscription = &mut self.subscriptions[id.0];
        subscription.closing = true;
        subscription.pending.news = Some(NotifyEvent::Closed);
        let recipient = subscription.recipient.clone();
        let due = self.reconnects.handle_closed(&recipient, lived, now).filter(|_| !self.shuts_down);
        subscription.held_until = due;
        if let Some(older) = self.closing.insert(recipient, id) {
            // An equal notice waits already; one request is enough for both.
            if self.is_in_flight(older) {
                self.subscriptions[older.0].pending = PendingEvents::default();
            } else {
                // It comes when the older one was to come, or the end of one connection after the other would put it off.
                let held_until = self.subscriptions[older.0].held_until;
                self.subscriptions[id.0].held_until = due.min(held_until);
                self.remove(older);
            }
        }
        let subscription = &mut self.subscriptions[id.0];
        let is_held = subscription.held_until.is_some_and(|until| until > now);
        let is_end_next = subscription.pending.next() == Some(NotifyEvent::Closed);
        if is_held && subscription.state == SubscriptionState::Due && is_end_next {
            // Data were due. Now it is the end that waits, and is held back.
            let device = subscription.recipient.device.clone();
            subscription.state = SubscriptionState::Idle;
            self.dequeue(id, &device);
        }
        self.arrange(id, now);
        self.enforce_closing_limit(Some(id));
    }

    /// The connection has ended and no closing notice is wanted, because another connection takes over its name.
    pub(crate) fn discard(&mut self, id: SubscriptionId) {
        let subscription = &mut self.subscriptions[id.0];
        if matches!(subscription.state, SubscriptionState::InFlight(..)) {
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

    /// The daemon ends: no plugin can reconnect, so no notice is held back any longer, and none waits because its device
    /// has taken Luup's time.
    pub(crate) fn handle_shutdown(&mut self, now: Instant) {
        self.shuts_down = true;
        let pauses = |device: &&mut Device| device.class() != DeviceClass::Slow && device.paused_until.is_some();
        let next: Vec<_> = self.devices.iter_mut().filter(pauses).filter_map(Device::end_pause).collect();
        next.into_iter().for_each(|id| self.make_ready(id));
        for (_, id) in self.delayed.clone() {
            self.subscriptions[id.0].held_until = None;
            self.arrange(id, now);
        }
    }

    /// Takes the outcome of a request that [`Schedule::poll_job`] returned.
    pub(crate) fn handle_outcome(&mut self, id: SubscriptionId, outcome: NotifyOutcome, now: Instant) {
        let Some(subscription) = self.subscriptions.get_mut(id.0) else { return };
        let SubscriptionState::InFlight(event, since) = subscription.state else { return };
        self.held -= subscription.recipient.request(event).len();
        subscription.state = SubscriptionState::Idle;
        subscription.last_outcome = Some(outcome);
        let device = subscription.recipient.device.clone();
        self.in_flight.handle_outcome(device.client, id);
        let took = now.saturating_duration_since(since);
        self.release_device(&device, outcome, took, now);
        self.update_breaker(outcome, now);
        self.apply_outcome(id, event, outcome, took, now);
        self.arrange(id, now);
        self.enforce_closing_limit(None);
    }

    /// Returns the next request to send, if one may go out at `now`.
    pub(crate) fn poll_job(&mut self, now: Instant) -> Option<NotifyJob> {
        while let Some(id) = self.in_flight.poll_slow(now) {
            if let Some(device) = self.devices.get_mut(&self.subscriptions[id.0].recipient.device) {
                device.handle_slow();
            }
        }
        while self.paused.first().is_some_and(|&(until, _)| until <= now)
            && let Some((until, name)) = self.paused.pop_first()
        {
            let device = self.devices.get_mut(&name).filter(|device| device.paused_until == Some(until));
            if let Some(next) = device.and_then(Device::end_pause) {
                self.make_ready(next);
            }
        }
        while let Some(&(due, id)) = self.delayed.first()
            && due <= now
        {
            self.delayed.pop_first();
            self.arrange(id, now);
        }
        if !self.breaker.allows_request(now) {
            return None;
        }
        let place = self.next_ready()?;
        let id = self.ready.take(place)?;
        let subscription = &mut self.subscriptions[id.0];
        // A subscription is in the queue only while an event waits.
        let event = subscription.pending.next()?;
        let secret = subscription.recipient.secret;
        subscription.pending.clear(event);
        subscription.state = SubscriptionState::InFlight(event, now);
        if event == NotifyEvent::Closed && subscription.held_until.is_some() {
            self.reconnects.handle_sent(&subscription.recipient, now);
        }
        if event != NotifyEvent::Connected {
            subscription.paced_until = subscription.recipient.pace.map(|pace| now + pace);
        }
        let query = subscription.recipient.request(event);
        self.held += query.len();
        let client = subscription.recipient.device.client;
        self.in_flight.handle_request(client, id, self.class_of(id), now);
        let subscription = &self.subscriptions[id.0];
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
        let is_awaited = |name: &DeviceKey| self.devices.get(name).is_some_and(|device| !device.waiting.is_empty());
        let paused = self.paused.iter().find(|(_, name)| is_awaited(name)).map(|&(until, _)| until);
        // The breaker's deadline counts only if a request could go out then; otherwise the loop would spin.
        let probe = self.breaker.deadline().filter(|_| self.next_ready().is_some());
        let slow = self.in_flight.deadline().filter(|_| !self.ready.is_empty());
        [delayed, paused, probe, slow].into_iter().flatten().min()
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
            SubscriptionState::InFlight(..) | SubscriptionState::Due => return,
            // The instant may change: a closing notice does not wait for the pace.
            SubscriptionState::Delayed(due) => {
                self.delayed.remove(&(due, id));
            }
            SubscriptionState::Idle => {}
        }
        let not_before = subscription.retry.not_before();
        let due: Option<Instant> = match subscription.pending.next() {
            None => {
                subscription.state = SubscriptionState::Idle;
                if subscription.closing {
                    self.remove(id);
                }
                return;
            }
            Some(NotifyEvent::Data | NotifyEvent::Incoming) => not_before.max(subscription.paced_until),
            Some(NotifyEvent::Closed) => not_before.max(subscription.held_until),
            Some(NotifyEvent::Connected | NotifyEvent::Lost | NotifyEvent::Back) => not_before,
        };
        match due.filter(|&due| due > now) {
            Some(due) => {
                subscription.state = SubscriptionState::Delayed(due);
                self.delayed.insert((due, id));
            }
            None => self.enqueue(id),
        }
        self.check_invariants();
    }

    /// Puts a due subscription into the queue of senders, or into its device's queue if the device is busy or pauses.
    fn enqueue(&mut self, id: SubscriptionId) {
        let subscription = &mut self.subscriptions[id.0];
        subscription.state = SubscriptionState::Due;
        let Some(device) = self.devices.get_mut(&subscription.recipient.device) else { return };
        if device.busy {
            device.waiting.push_back(id);
        } else {
            device.busy = true;
            self.make_ready(id);
        }
    }

    /// Puts a due subscription whose device is free into the queue of senders.
    fn make_ready(&mut self, id: SubscriptionId) {
        self.ready.push(self.subscriptions[id.0].recipient.device.client, id);
    }

    /// The class of a subscription's device.
    fn class_of(&self, id: SubscriptionId) -> DeviceClass {
        let device = &self.subscriptions[id.0].recipient.device;
        self.devices.get(device).map_or(DeviceClass::Unknown, Device::class)
    }

    /// The place in `ready` of the subscription whose request goes out next, if one may.
    fn next_ready(&self) -> Option<ReadyPlace> {
        if self.in_flight.is_full() {
            return None;
        }
        self.ready.find(|client, ready| {
            if !self.in_flight.has_room(client) {
                return None;
            }
            let may_send = |id: SubscriptionId| self.in_flight.allows(client, self.class_of(id));
            if self.in_flight.has_slow(client) {
                let is_next = |&id: &SubscriptionId| self.class_of(id) != DeviceClass::Slow && may_send(id);
                let newest = ready.iter().rposition(is_next);
                if newest.is_some() {
                    return newest;
                }
            }
            ready.iter().position(|&id| may_send(id))
        })
    }

    /// Frees the device of a request that has an outcome after `took`, and puts its next subscription into the queue.
    fn release_device(&mut self, name: &DeviceKey, outcome: NotifyOutcome, took: Duration, now: Instant) {
        let Some(device) = self.devices.get_mut(name) else { return };
        match outcome {
            NotifyOutcome::TimedOut => device.handle_timeout(now),
            NotifyOutcome::Unreachable | NotifyOutcome::TlsFailed | NotifyOutcome::NotSent => {
                device.handle_not_reached();
            }
            _ => device.handle_answer(if self.shuts_down { Duration::ZERO } else { took }, now),
        }
        match device.paused_until {
            Some(until) => drop(self.paused.insert((until, name.clone()))),
            None => {
                if let Some(next) = device.next_waiting() {
                    self.make_ready(next);
                }
            }
        }
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

    /// Ends, drops or puts back the event of a request, whose answer took so long.
    fn apply_outcome(
        &mut self,
        id: SubscriptionId,
        event: NotifyEvent,
        outcome: NotifyOutcome,
        took: Duration,
        now: Instant,
    ) {
        let subscription = &mut self.subscriptions[id.0];
        match subscription.retry.handle_outcome(outcome, now) {
            RetryDecision::Delivered => {
                self.log_once.reset(&subscription.recipient.query);
                self.counters.record_delivery(took);
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
                if subscription.closing {
                    // Of a connection that has ended, its end is the news.
                    subscription.pending.news = Some(NotifyEvent::Closed);
                }
            }
        }
    }

    /// Drops closing notices beyond the limit (`ClosingNotices`), except `newest` and those whose request is out.
    fn enforce_closing_limit(&mut self, newest: Option<SubscriptionId>) {
        while let Some(id) =
            self.closing.poll_excess(self.max_closing, |id| Some(id) != newest && !self.is_in_flight(id))
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
            SubscriptionState::Due => self.dequeue(id, &subscription.recipient.device),
            SubscriptionState::Idle | SubscriptionState::InFlight(..) => {}
        }
        self.devices.close(&subscription.recipient.device);
        self.in_flight.handle_close(subscription.recipient.device.client);
    }

    /// Takes a subscription of this device out of the queue that it is in.
    fn dequeue(&mut self, id: SubscriptionId, key: &DeviceKey) {
        let Some(device) = self.devices.get_mut(key) else { return };
        if let Some(at) = device.waiting.iter().position(|&waiting| waiting == id) {
            device.waiting.remove(at);
            return;
        }
        self.ready.remove(key.client, id);
        if let Some(next) = device.next_waiting() {
            self.make_ready(next);
        }
    }

    fn is_in_flight(&self, id: SubscriptionId) -> bool {
        matches!(self.subscriptions[id.0].state, SubscriptionState::InFlight(..))
    }

    /// Checks, in debug builds, what must hold after every public call.
    fn check_invariants(&self) {
        if !cfg!(debug_assertions) {
            return;
        }
        let count = |is_counted: fn(SubscriptionState) -> bool| {
            self.subscriptions.iter().filter(|(_, subscription)| is_counted(subscription.state)).count()
        };
        assert_eq!(count(|state| matches!(state, SubscriptionState::InFlight(..))), self.in_flight.len());
        let waiting: usize = self.devices.iter().map(|device| device.waiting.len()).sum();
        assert_eq!(count(|state| state == SubscriptionState::Due), self.ready.len() + waiting);
        assert_eq!(count(|state| matches!(state, SubscriptionState::Delayed(_))), self.delayed.len());
        let held = |subscription: &Subscription| match subscription.state {
            SubscriptionState::InFlight(event, _) => {
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
