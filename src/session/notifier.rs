//! What the plugin is told of its connection by way of Luup.

use std::time::Instant;

use crate::notify::Recipient;
use crate::notify::{Schedule, SubscriptionId};

/// The notifications of one connection, which are opened when there is something to say. Every method takes what the
/// plugin has subscribed to as a closure, since it is needed once at most.
#[derive(Clone, Copy, Debug)]
pub enum Notifier {
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

    /// The connection stands.
    pub fn notify_connected(
        &mut self,
        recipient: impl FnOnce() -> Option<Recipient>,
        schedule: &mut Schedule,
        now: Instant,
    ) {
        if let Some(id) = self.id(recipient, schedule) {
            schedule.handle_connected(id, now);
        }
    }

    /// There is something to read.
    pub fn notify_data(
        &mut self,
        recipient: impl FnOnce() -> Option<Recipient>,
        schedule: &mut Schedule,
        now: Instant,
    ) {
        if let Some(id) = self.id(recipient, schedule) {
            schedule.handle_data(id, now);
        }
    }

    /// The connection has ended. Only the first call has an effect.
    pub fn notify_closed(
        &mut self,
        recipient: impl FnOnce() -> Option<Recipient>,
        schedule: &mut Schedule,
        now: Instant,
    ) {
        if let Some(id) = self.id(recipient, schedule) {
            schedule.handle_closed(id, now);
        }
        *self = Self::Closed;
    }

    /// Drops every notification that is still to be made: the connection's name is another session's from now on.
    pub fn silence(&mut self, recipient: impl FnOnce() -> Option<Recipient>, schedule: &mut Schedule) {
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
