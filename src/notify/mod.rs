//! Telling a plugin that there is something to read.
//!
//! [`schedule`] decides what is sent when; it is sans-IO. [`sender`] sends it, each request on a thread of its own,
//! since a Luup that hangs must hold up nobody; `https` is TLS for that. [`outcome`] judges the answers.

pub mod outcome;
pub mod schedule;
pub mod sender;

mod breaker;
mod closing_notices;
mod counters;
mod device;
mod https;
mod log_once;
mod subscription;

#[cfg(test)]
mod simulation;

pub use https::Trust;
pub use outcome::Outcome;
pub use schedule::{Job, LineId, Schedule};
pub use sender::Senders;

/// Why a plugin is notified; with EVNT=on it is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The connection stands.
    Connected,
    /// Data was handed over.
    Data,
    /// The connection has ended.
    Closed,
}

impl Event {
    /// The value of `&Event=`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Connected => "connected",
            Self::Data => "data",
            Self::Closed => "closed",
        }
    }
}
