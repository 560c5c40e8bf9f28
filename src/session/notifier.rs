//! What the plugin is told of its connection by way of Luup.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::context::SessionContext;
use super::peer::Peer;
use super::pid::Pid;
use super::plugin::PluginNews;
use super::{Session, Stage};
use crate::client::ClientKey;
use crate::net::network::Network;
use crate::notify::{DeviceKey, Recipient, Schedule, SubscriptionId};
use crate::protocol::number;
use crate::protocol::options::Parameters;

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

impl<N: Network> Session<N> {
    /// Notifies the plugin of what a turn has brought, and logs that the connection was parked in it.
    pub(super) fn notify(&mut self, news: PluginNews, cx: &mut SessionContext<'_, N>) {
        if news.parked {
            let time = number::format(self.parameters.keep.unwrap_or_default().as_secs_f64());
            log::info!("{} parked, its plugin has gone; kept for {time} s", self.pid);
        }
        if news.data {
            let recipient = || recipient(&self.parameters, self.pid, &self.peer);
            self.notifier.notify(Schedule::handle_data, recipient, cx.schedule, cx.now);
        }
        if news.end {
            // For the plugin this is the end: there is nothing more to read, whatever it may still send.
            self.notify_closed(cx);
        }
    }

    /// Makes the closing notification, once.
    pub(super) fn notify_closed(&mut self, cx: &mut SessionContext<'_, N>) {
        let recipient = || recipient(&self.parameters, self.pid, &self.peer);
        let connected_at = match &self.stage {
            Stage::Relaying(relaying) => Some(relaying.outages().first_connected_at),
            Stage::Healing(healing) => Some(healing.outages().first_connected_at),
            Stage::UnreadTail(tail) => Some(tail.first_connected_at),
            Stage::Listening(listening) => Some(listening.since()),
            Stage::Setup(_)
            | Stage::Opening
            | Stage::Watching(_)
            | Stage::Checking(_)
            | Stage::Arriving(_)
            | Stage::Claiming(_)
            | Stage::Connecting(_)
            | Stage::Draining(_)
            | Stage::Closed => None,
        };
        let lived = connected_at.map_or(Duration::ZERO, |at| cx.now.saturating_duration_since(at));
        self.notifier.notify_closed(recipient, lived, cx.schedule, cx.now);
    }
}

/// What the plugin of `peer` has subscribed to, if anything.
pub(super) fn recipient(parameters: &Parameters, pid: Pid, peer: &Peer) -> Option<Recipient> {
    let notify = parameters.notify.as_deref().filter(|notify| notify.notifies())?;
    Some(Recipient {
        device: DeviceKey::new(ClientKey::of(peer.plugin()), &notify.device()),
        query: Arc::from(notify.query(pid.to_string().as_bytes())),
        events: parameters.events,
        pace: parameters.pace,
        secret: parameters.keep.is_some(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notify::NotifyOutcome;

    fn subscribed() -> Option<Recipient> {
        let device = DeviceKey::new(ClientKey::Loopback, "5");
        Some(Recipient { device, query: "/q".into(), events: true, pace: None, secret: false })
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
