//! What the notifications of all connections have come to.

/// Counters for STAT JSON.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Requests sent.
    pub sent: u64,
    /// Requests that Luup took.
    pub delivered: u64,
    /// Notices given up: Luup will not have them.
    pub failed: u64,
    /// Requests that were sent again.
    pub retried: u64,
    /// Closing notices dropped for want of room.
    pub dropped: u64,
}
