//! What the plugin is told of its connection by way of Luup.

use std::sync::Arc;

use super::{Context, Session};
use crate::notify::{Recipient, SubscriptionId};
use crate::relay::Turn;

/// Where the plugin's notifications stand.
#[derive(Clone, Copy, Debug)]
pub enum Notices {
    /// Nothing has been said yet.
    None,
    /// There is a line.
    Open(SubscriptionId),
    /// The closing notice has been given: nothing follows it.
    Closed,
}

impl Session {
    /// What the plugin has subscribed to, if anything.
    pub(super) fn subscription(&self) -> Option<Recipient> {
        let notify = self.parameters.notify.as_deref().filter(|notify| notify.notifies())?;
        Some(Recipient {
            device: notify.device().into(),
            query: Arc::from(notify.query(self.pid.to_string().as_bytes())),
            events: self.parameters.events,
            pace: self.parameters.pace,
            secret: self.parameters.keep.is_some(),
        })
    }

    /// The line on which the plugin is notified, opened when there is something to say.
    fn line(&mut self, cx: &mut Context<'_>) -> Option<SubscriptionId> {
        match self.notices {
            Notices::Open(line) => Some(line),
            Notices::Closed => None,
            Notices::None => {
                let line = cx.schedule.open(self.subscription()?);
                self.notices = Notices::Open(line);
                Some(line)
            }
        }
    }

    /// The connection stands.
    pub(super) fn notify_connected(&mut self, cx: &mut Context<'_>) {
        if self.parameters.events
            && let Some(line) = self.line(cx)
        {
            cx.schedule.handle_connected(line, cx.now);
        }
    }

    /// There is something to read.
    fn notify_data(&mut self, cx: &mut Context<'_>) {
        if let Some(line) = self.line(cx) {
            cx.schedule.handle_data(line, cx.now);
        }
    }

    /// Tells the plugin what a turn has brought, and the log that the connection was `parked` in it.
    pub(super) fn tell(&mut self, turn: &Turn, parked: bool, cx: &mut Context<'_>) {
        if parked {
            let time = self.parameters.keep.unwrap_or_default().as_secs_f64();
            log::info!("{} parked, its plugin has gone; kept for {time} s", self.pid);
        }
        if turn.handed_over {
            self.notify_data(cx);
        }
        if turn.told_end {
            // For the plugin this is the end: there is nothing more to read, whatever it may still send.
            self.notify_closed(cx);
        }
    }

    /// The closing notice: one, whoever closed and whenever.
    pub(super) fn notify_closed(&mut self, cx: &mut Context<'_>) {
        if let Some(line) = self.line(cx) {
            cx.schedule.handle_closed(line, cx.now);
        }
        self.notices = Notices::Closed;
    }

    /// The plugin hears nothing more of this connection, whose name is another's from now on.
    pub(super) fn fall_silent(&mut self, cx: &mut Context<'_>) {
        match std::mem::replace(&mut self.notices, Notices::Closed) {
            Notices::Open(line) => cx.schedule.discard(line),
            Notices::Closed => {
                if let Some(subscription) = self.subscription() {
                    cx.schedule.cancel(&subscription);
                }
            }
            Notices::None => {}
        }
    }
}
