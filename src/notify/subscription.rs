//! [`Subscription`]: the notifications of one connection, as the schedule keeps them.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::retry_policy::RetryState;
use super::{NotifyEvent, NotifyOutcome};
use crate::client::ClientKey;

/// Identifies a subscription; see [`super::Schedule::open`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct SubscriptionId(pub(super) usize);

/// A Luup device, as the plugins of one client name it. The schedule keeps the requests of each client to a device apart, so
/// that those of one client neither delay nor pause those of another.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct DeviceKey {
    /// The client that is notified.
    pub client: ClientKey,
    /// Luup's device number, as printed.
    pub number: Arc<str>,
}

impl DeviceKey {
    /// The device `number` of `client`.
    pub(crate) fn new(client: ClientKey, number: &str) -> Self {
        Self { client, number: number.into() }
    }
}

/// Which action of which device is called, and how often.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Recipient {
    /// The device, and the client that is notified.
    pub device: DeviceKey,
    /// Path and query of the request, without the event.
    pub query: Arc<str>,
    /// True if requests name their event (EVNT=on).
    pub events: bool,
    /// Shortest time between two notifications of data (PACE); `None`: no limit.
    pub pace: Option<Duration>,
    /// True if the query ends in a pid that only the plugin may know (KEEP). The log does not show it.
    pub secret: bool,
}

impl Recipient {
    /// Path and query of the request for `event`.
    pub(crate) fn request(&self, event: NotifyEvent) -> String {
        let mut request = self.query.to_string();
        if self.events {
            request.push_str("&Event=");
            request.push_str(event.name());
        }
        request
    }

    /// Bytes of its strings. The collections of the schedule share them.
    pub(crate) fn held(&self) -> usize {
        self.device.number.len() + self.query.len()
    }

    /// The query as the log may show it.
    pub(crate) fn redacted_query(&self) -> Cow<'_, str> {
        redact_query(&self.query, self.secret)
    }
}

/// The part of a query that names device, service and action: all but the pid at its end.
pub(super) fn action_of(query: &str) -> &str {
    query.rsplit_once(PID).map_or(query, |(action, _)| action)
}

/// Introduces the pid in a query. Percent-encoding leaves none in what is before it or behind it.
const PID: &str = "&Pid=";

/// The query as the log may show it: if `secret`, without the pid at its end.
pub(super) fn redact_query(query: &str, secret: bool) -> Cow<'_, str> {
    let Some(at) = query.rfind(PID).filter(|_| secret) else { return Cow::Borrowed(query) };
    Cow::Owned(format!("{}****", &query[..at + PID.len()]))
}

/// The events of a subscription that wait for a request.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct PendingEvents {
    /// True if [`NotifyEvent::Connected`] waits.
    pub connected: bool,
    /// True if [`NotifyEvent::Lost`] waits.
    pub lost: bool,
    /// True if [`NotifyEvent::Back`] waits. A loss that comes after it takes its place.
    pub back: bool,
    /// Data, Incoming or Closed. Closed replaces the others: the plugin reads the data before the end.
    pub news: Option<NotifyEvent>,
}

impl PendingEvents {
    /// The event of the next request.
    pub(super) fn next(self) -> Option<NotifyEvent> {
        let states =
            [(self.connected, NotifyEvent::Connected), (self.lost, NotifyEvent::Lost), (self.back, NotifyEvent::Back)];
        states.into_iter().find_map(|(waits, event)| waits.then_some(event)).or(self.news)
    }

    /// Removes an event whose request has been sent.
    pub(super) fn clear(&mut self, event: NotifyEvent) {
        match event {
            NotifyEvent::Connected => self.connected = false,
            NotifyEvent::Lost => self.lost = false,
            NotifyEvent::Back => self.back = false,
            NotifyEvent::Data | NotifyEvent::Incoming | NotifyEvent::Closed => self.news = None,
        }
    }

    /// Puts back an event whose request must be repeated. Newer news stays.
    pub(super) fn restore(&mut self, event: NotifyEvent) {
        match event {
            NotifyEvent::Connected => self.connected = true,
            NotifyEvent::Lost => self.lost = true,
            // A loss that waits has come after it, and a return that waits after that.
            NotifyEvent::Back => self.back |= !self.lost,
            NotifyEvent::Data | NotifyEvent::Incoming | NotifyEvent::Closed => {
                self.news.get_or_insert(event);
            }
        }
    }
}

/// The place of a subscription in the schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SubscriptionState {
    /// No event waits.
    Idle,
    /// An event waits for this instant: the end of its pace, or of a pause after a failure, or until it is no longer held
    /// back.
    Delayed(Instant),
    /// An event waits for a sender or for its device, which may pause.
    Due,
    /// A request with this event is out since this instant.
    InFlight(NotifyEvent, Instant),
}

/// The notifications of one connection.
#[derive(Debug)]
pub(super) struct Subscription {
    /// Which action is called.
    pub recipient: Recipient,
    /// Its place in the schedule.
    pub state: SubscriptionState,
    /// The events that wait.
    pub pending: PendingEvents,
    /// True if the connection has ended. The subscription is removed once no event waits.
    pub closing: bool,
    /// No notification of data before this instant.
    pub paced_until: Option<Instant>,
    /// The connection was short-lived: no closing notice before this instant (`ReconnectBackoff`).
    pub held_until: Option<Instant>,
    /// What the failures of earlier requests mean for the next one.
    pub retry: RetryState,
    /// The outcome of the last request.
    pub last_outcome: Option<NotifyOutcome>,
}

impl Subscription {
    /// A subscription without events.
    pub(super) fn new(recipient: Recipient) -> Self {
        Self {
            recipient,
            state: SubscriptionState::Idle,
            pending: PendingEvents::default(),
            closing: false,
            paced_until: None,
            held_until: None,
            retry: RetryState::default(),
            last_outcome: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_pid_is_not_shown() {
        assert_eq!(redact_query("/data_request?action=a&Pid=secretpid1", true), "/data_request?action=a&Pid=****");
        assert_eq!(redact_query("/data_request?action=a&Pid=0817", false), "/data_request?action=a&Pid=0817");
        assert_eq!(redact_query("/data_request", true), "/data_request");
    }

    #[test]
    fn a_restored_event_does_not_replace_a_newer_one() {
        let mut pending = PendingEvents { news: Some(NotifyEvent::Closed), ..PendingEvents::default() };
        pending.restore(NotifyEvent::Data);
        pending.restore(NotifyEvent::Connected);
        assert_eq!(pending.next(), Some(NotifyEvent::Connected));
        pending.clear(NotifyEvent::Connected);
        assert_eq!(pending.next(), Some(NotifyEvent::Closed));
    }

    #[test]
    fn a_return_that_is_repeated_keeps_a_newer_one() {
        for (lost, back, then) in [(false, false, true), (true, false, false), (true, true, true)] {
            let mut pending = PendingEvents { lost, back, ..PendingEvents::default() };
            pending.restore(NotifyEvent::Back);
            pending.clear(NotifyEvent::Lost);
            assert_eq!(pending.next(), then.then_some(NotifyEvent::Back), "lost: {lost}, back: {back}");
        }
    }
}
