//! What the plugin is told of its connection by way of Luup.

use std::time::{Duration, Instant};

use crate::notify::Recipient;
use crate::notify::{Schedule, SubscriptionId};

/// The notifications of one connection, which are opened when there is something to say. Every method takes what the
/// plugin has subscribed to as a closure, since it is needed once at most.
#[derive(Clone, Copy, Debug)]
pub(super) enum Notifier {
    /// No notification has been made yet.
    Unopened,
    /// Notifications are made on this id.
    Open(SubscriptionId),
    /// The closing notification has been made: nothing follows it.
    Closed,
}

impl Notifier {
    /// The id, opened if need be. `None` after the closing notification, and for a plugin that has not subscribed.
    fn id(&mut self, recipient: impl FnOnce() -> Option<Recipient>, schedule: &mut Schedule) -> Option<SubscriptionId> {
        if let Self::Unopened = self {
            *self = Self::Open(schedule.open(recipient()?));
        }
        if let Self::Open(id) = self { Some(*id) } else { None }
    }

    /// Tells the schedule of an event by one of its methods that take the id and the time.
    pub(super) fn notify(
        &mut self,
        event: fn(&mut Schedule, SubscriptionId, Instant),
        recipient: impl FnOnce() -> Option<Recipient>,
        schedule: &mut Schedule,
        now: Instant,
    ) {
        if let Some(id) = self.id(recipient, schedule) {
            event(schedule, id, now);
        }
    }

    /// The connection has ended, `lived` after it was established; 0 if it never was. Only the first call has an effect.
    pub(super) fn notify_closed(
        &mut self,
        recipient: impl FnOnce() -> Option<Recipient>,
        lived: Duration,
        schedule: &mut Schedule,
        now: Instant,
    ) {
        if let Some(id) = self.id(recipient, schedule) {
            schedule.handle_closed(id, lived, now);
        }
        *self = Self::Closed;
    }

    /// Cancels pending notifications: the pid belongs to another session now.
    pub(super) fn cancel_all(&mut self, recipient: impl FnOnce() -> Option<Recipient>, schedule: &mut Schedule) {
        match std::mem::replace(self, Self::Closed) {
            Self::Open(id) => schedule.discard(id),
            Self::Closed => {
                if let Some(recipient) = recipient() {
                    schedule.cancel(&recipient);
                }
            }
            Self::Unopened => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notify::NotifyOutcome;

    fn subscribed() -> Option<Recipient> {
        Some(Recipient { device: "5".into(), query: "/q".into(), events: true, pace: None, secret: false })
    }

    /// The events that requests tell of, each of which is delivered.
    fn events(schedule: &mut Schedule, now: Instant) -> Vec<String> {
        let mut events = Vec::new();
        while let Some(job) = schedule.poll_job(now) {
            events.extend(job.query.split("&Event=").nth(1).map(str::to_owned));
            schedule.handle_outcome(job.id, NotifyOutcome::Delivered, now);
        }
        events
    }

    #[test]
    fn the_closing_notification_is_made_once_and_is_the_last() {
        let (mut notifier, mut schedule, now) = (Notifier::Unopened, Schedule::new(4, 10), Instant::now());
        notifier.notify(Schedule::handle_connected, subscribed, &mut schedule, now);
        notifier.notify(Schedule::handle_data, subscribed, &mut schedule, now);
        assert_eq!(events(&mut schedule, now), ["connected", "data"]);
        notifier.notify_closed(subscribed, Duration::ZERO, &mut schedule, now);
        notifier.notify_closed(subscribed, Duration::ZERO, &mut schedule, now);
        notifier.notify(Schedule::handle_data, subscribed, &mut schedule, now);
        assert_eq!(events(&mut schedule, now), ["closed"]);
    }

    #[test]
    fn a_plugin_that_has_not_subscribed_is_not_notified() {
        let (mut notifier, mut schedule, now) = (Notifier::Unopened, Schedule::new(4, 10), Instant::now());
        notifier.notify(Schedule::handle_data, || None, &mut schedule, now);
        notifier.notify_closed(|| None, Duration::ZERO, &mut schedule, now);
        assert_eq!((events(&mut schedule, now).len(), schedule.pending()), (0, 0));
    }

    #[test]
    fn silencing_drops_what_is_still_to_be_made() {
        for closes in [false, true] {
            let (mut notifier, mut schedule, now) = (Notifier::Unopened, Schedule::new(4, 10), Instant::now());
            notifier.notify(Schedule::handle_data, subscribed, &mut schedule, now);
            if closes {
                notifier.notify_closed(subscribed, Duration::ZERO, &mut schedule, now);
            }
            notifier.cancel_all(subscribed, &mut schedule);
            notifier.notify_closed(subscribed, Duration::ZERO, &mut schedule, now);
            assert_eq!(events(&mut schedule, now).len(), 0, "closes: {closes}");
        }
    }
}
