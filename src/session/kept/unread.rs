//! What a remote that has ended left for a kept plugin to read: a kept session's last stage.
//!
//! It lasts until the plugin has read everything, which it shows by ending its side after the end it was told, or until
//! KEEP runs out. A plugin that goes away before is parked, and may come back.

use std::time::{Duration, Instant};

use super::KeptPlugin;
use crate::net::endpoint::{Endpoint, Transfer};
use crate::net::socket::Stream;
use crate::protocol::options::Protocol;
use crate::protocol::target::Target;
use crate::relay::memory_budget::MemoryBudget;
use crate::relay::{Relay, RelayTurn};
use crate::session::TURN_READS;

/// Time for a plugin that has ended the connection itself: what is left to read says no more than why.
const READ_TIMEOUT: Duration = Duration::from_secs(2);

/// What is left of a connection.
#[derive(Debug)]
pub struct UnreadTail {
    /// Where it led.
    pub target: Target,
    /// What was spoken.
    pub protocol: Protocol,
    /// Messages received and sent, if the protocol has messages.
    pub messages: Option<(u64, u64)>,
    /// Bytes received from the remote.
    pub received: u64,
    /// Bytes sent to the remote.
    pub sent: u64,
    /// When the remote last sent something.
    pub last_heard: Instant,
    /// It waits for a plugin that goes away. False if the plugin itself has ended the connection.
    pub kept: bool,
    since: Instant,
}

/// What a turn leads to.
#[derive(Debug, PartialEq, Eq)]
pub enum TailOutcome {
    /// The tail waits for the plugin.
    Wait {
        /// What the plugin is to be notified of.
        turn: RelayTurn,
        /// The plugin was cut off in this turn.
        parked: bool,
    },
    /// The plugin has read everything, or does not come back.
    Done,
}

impl UnreadTail {
    /// What `relay` leaves of a connection to `target`.
    pub fn new(target: Target, protocol: Protocol, relay: &dyn Relay, kept: bool, now: Instant) -> Self {
        Self {
            target,
            protocol,
            messages: relay.messages(),
            received: relay.received(),
            sent: relay.sent(),
            last_heard: relay.last_heard(),
            kept,
            since: now,
        }
    }

    /// When an attached plugin's time is up that has last read something at `progress`.
    pub fn deadline(&self, progress: Instant, keep: Option<Duration>) -> Instant {
        self.since.max(progress) + keep.filter(|_| self.kept).unwrap_or(READ_TIMEOUT)
    }

    /// Writes what is left, and looks whether the plugin has read it. `history`: see [`KeptPlugin::begin_turn`].
    pub fn turn<S: Stream>(
        &self,
        plugin: &mut KeptPlugin<S>,
        history: usize,
        scratch: &mut [u8],
        budget: &mut MemoryBudget,
        now: Instant,
    ) -> TailOutcome {
        plugin.begin_turn(history, budget);
        let mut reads = 0;
        while reads < TURN_READS && plugin.is_readable() {
            reads += 1;
            match plugin.try_read(scratch) {
                Transfer::Eof | Transfer::Broken(_) => return TailOutcome::Done,
                // No remote is left to send it to.
                Transfer::Bytes(_) => {}
                Transfer::Blocked => break,
            }
        }
        let mut turn = RelayTurn { again: plugin.is_readable(), ..RelayTurn::default() };
        let parked = plugin.end_turn(&mut turn, now, budget);
        if !self.kept && plugin.parked_since().is_some() {
            return TailOutcome::Done;
        }
        TailOutcome::Wait { turn, parked }
    }
}
