//! Notifications: HTTP requests to Luup that call an action of the plugin when it has something to read.
//!
//! May depend on: `client`, `thread_pool`, `net`, and `tls` for a Luup behind https.
//!
//! | file | holds |
//! | --- | --- |
//! | [`schedule`] | which notification is sent when; sans-IO. Start here |
//! | `subscription` | the notifications of one connection, and their recipient |
//! | `retry_policy`, `breaker`, `device` | pauses: for a notification, for Luup as a whole, for a device |
//! | `in_flight` | how many requests may be out, so that devices that hang and other machines leave senders to the others |
//! | `ready_queue` | whose turn it is among clients |
//! | `reconnect_backoff` | holds back the closing notices of short-lived connections |
//! | `closing_notices` | notifications that outlive their connection |
//! | [`outcome`] | the result of a request |
//! | [`sender`], `https` | sends the requests, each on a thread of its own, since ureq and Luup may block |
//! | `log_once` | one log line per target that refuses |

pub(crate) mod outcome;
pub(crate) mod schedule;
pub(crate) mod sender;

mod breaker;
mod closing_notices;
mod device;
mod https;
mod in_flight;
mod log_once;
mod ready_queue;
mod reconnect_backoff;
mod retry_policy;
mod subscription;

#[cfg(test)]
mod simulation;

pub(crate) use https::Trust;
pub(crate) use outcome::NotifyOutcome;
pub(crate) use schedule::{Counters, NotifyJob, Schedule};
pub(crate) use sender::Senders;
pub(crate) use subscription::{DeviceKey, Recipient, SubscriptionId};

/// Why a plugin is notified. With EVNT=on the request names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotifyEvent {
    /// The connection is established.
    Connected,
    /// There is data to read.
    Data,
    /// A connection has arrived at the plugin's listener.
    Incoming,
    /// The remote has ended, and the proxy connects again (HEAL).
    Lost,
    /// The proxy has connected again.
    Back,
    /// The connection has ended.
    Closed,
}

impl NotifyEvent {
    /// The value of `&Event=`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Connected => "connected",
            Self::Data => "data",
            Self::Incoming => "incoming",
            Self::Lost => "lost",
            Self::Back => "back",
            Self::Closed => "closed",
        }
    }
}
