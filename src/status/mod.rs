//! What the proxy tells of itself: STAT's table and STAT JSON.

mod json;
mod table;

pub use json::json;
pub use table::{header, row};

use std::time::Duration;

use crate::notify::Counters;

/// What is told of the daemon as a whole.
#[derive(Clone, Debug, Default)]
pub struct Overview {
    /// Since the start.
    pub uptime: Duration,
    /// Bytes held for slow readers, in all.
    pub buffered: usize,
    /// Bytes of kept connections that were handed over, and are kept in case they are asked for again, in all.
    pub history: usize,
    /// Connections accepted since the start.
    pub accepted: u64,
    /// Connections refused since the start.
    pub refused: u64,
    /// Where the proxy listens, and where direct listeners lead.
    pub listeners: Vec<(String, Option<String>)>,
    /// Notifications since the start.
    pub notifications: Counters,
    /// Notices that wait or are under way.
    pub pending: usize,
}
