//! Relays bytes between a plugin and a remote, with backpressure, half-close and bounds.
//!
//! [`stream`] relays two byte streams, [`datagram`] a byte stream and a datagram socket, [`websocket`] a byte stream
//! and messages over another; [`direction`] is one way of a stream. Relays see both sides as
//! [`crate::net::endpoint::Endpoint`]s, where readiness and its rules live, and take the time as an argument, so that a
//! simulation can stand in for both.

pub(crate) mod datagram;
pub(crate) mod direction;
pub(crate) mod memory_budget;
mod memory_shares;
pub(crate) mod pipe_pool;
mod receive_timer;
pub(crate) mod stream;
pub(crate) mod traced;
pub(crate) mod websocket;

#[cfg(test)]
mod simulation;

use std::time::{Duration, Instant};

use memory_budget::MemoryBudget;
use pipe_pool::PipePool;

use crate::trace::Trace;
use crate::websocket::{Entropy, MessageCounts};

/// Bytes that one direction may move in one turn before other sessions have theirs: a millisecond's work on a slow box.
pub(crate) const TURN_BYTES: usize = 256 * 1024;
/// Calls that one direction may make in one turn: a plugin that asks for its bytes one by one costs no more than others.
pub(crate) const TURN_CALLS: usize = 64;
/// Size in bytes of the buffer that all connections share for reading: what many senders write at once, 64 KiB, and
/// before it a frame's header or a line of MESG, so that one call takes it whole and knows that there is no more. Larger
/// ones gain nothing: bulk goes through pipes.
pub(crate) const SCRATCH_SIZE: usize = (64 + 4) * 1024;

/// What a turn needs from outside: the time, the shared memory, and the bounds.
pub(crate) struct RelayContext<'a> {
    /// When this turn of the loop began.
    pub now: Instant,
    /// The buffer that all connections share for reading, [`SCRATCH_SIZE`] bytes.
    pub scratch: &'a mut [u8],
    /// The bound on bytes held in all.
    pub budget: &'a mut MemoryBudget,
    /// Pipes to splice through.
    pub pipes: &'a mut PipePool,
    /// Unpredictable bytes.
    pub entropy: &'a mut dyn Entropy,
    /// Most bytes of a stream, or of a datagram, that are read for the plugin at once (BLKS). `None`: no limit. A WebSocket has
    /// none: its messages are not cut.
    pub block: Option<usize>,
    /// The remote's end is not the plugin's (HEAL): the plugin is not told it.
    pub heals: bool,
    /// Where a relay of datagrams records them. A stream's endpoint does it itself, and so does a WebSocket.
    pub trace: Option<&'a mut Trace>,
}

/// The time limits of a relay, and what else decides when they begin.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Timing {
    /// Longest silence of the remote (RTIM).
    pub receive: Option<Duration>,
    /// Longest silence of both sides.
    pub idle: Option<Duration>,
    /// Longest standstill once one side has ended.
    pub half_close: Duration,
    /// Longest standstill of a plugin that has yet to read what a remote left behind.
    pub stall: Duration,
    /// An event reported the end of the plugin's side. A direction that is held back does not read, so only the event
    /// reports the end.
    pub plugin_read_closed: bool,
    /// An event reported the end of the remote's side: see `plugin_read_closed`.
    pub remote_read_closed: bool,
}

/// What every relay answers, whatever it relays.
pub(crate) trait Relay {
    /// The time limits in force: each instant, and what passing it means.
    fn limits(&self, timing: &Timing) -> [Option<(Instant, CloseReason)>; 3];
    /// Another plugin has taken the place of the one before: half a message of the old one is discarded, and the time
    /// limits of the plugin's side begin anew.
    fn handle_new_plugin(&mut self, now: Instant);
    /// Counts in `budget` what is held. Each turn does so; a relay that waits for its first turn may hold bytes already.
    fn account(&mut self, budget: &mut MemoryBudget);
    /// Drops everything that is held, and gives it back to `budget` and `pipes`.
    fn release(&mut self, budget: &mut MemoryBudget, pipes: &mut PipePool);
    /// Bytes received from the remote and written to the plugin.
    fn received(&self) -> u64;
    /// Bytes sent to the remote.
    fn sent(&self) -> u64;
    /// Bytes held for slow readers.
    fn held(&self) -> usize;
    /// Bytes of [`Relay::held`] that are a byte stream's, and that backpressure bounds.
    fn stream_held(&self) -> usize {
        0
    }

    /// Bytes of [`Relay::held`] of messages that have come in part, if only their sender keeps them from going on.
    fn incomplete(&self) -> usize {
        0
    }

    /// False while a plugin that takes nothing keeps the relay from reading the remote.
    fn reads_remote(&self) -> bool;
    /// When the remote last sent something.
    fn last_heard(&self) -> Instant;
    /// How the remote's connection was lost, or how the remote broke its protocol, in words. `None`: neither has happened.
    fn failure(&self) -> Option<&str> {
        None
    }

    /// Why the remote has ended, once the plugin has everything that came before; only where the remote's end is not the
    /// plugin's, and the plugin has not ended.
    fn remote_end(&self) -> Option<CloseReason>;

    /// Messages received from the remote, and sent to it. `None` for relays of plain bytes.
    fn messages(&self) -> Option<MessageCounts> {
        None
    }

    /// When the first of [`Relay::limits`] passes.
    fn next_limit(&self, timing: &Timing) -> Option<Instant> {
        self.limits(timing).into_iter().flatten().map(|(due, _)| due).min()
    }

    /// When [`Relay::handle_timeout`] is to be called, if no event comes before.
    fn deadline(&self, timing: &Timing) -> Option<Instant> {
        self.next_limit(timing)
    }

    /// The time limit that has passed, if one has.
    fn handle_timeout(&self, timing: &Timing, now: Instant) -> Option<CloseReason> {
        self.limits(timing).into_iter().flatten().find(|&(due, _)| due <= now).map(|(_, end)| end)
    }
}

/// What has passed between a plugin and remotes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct RelayTotals {
    /// Bytes received from remotes.
    pub received: u64,
    /// Bytes sent to remotes.
    pub sent: u64,
    /// Messages received from remotes, and sent to them. `None`: the protocol has none.
    pub messages: Option<MessageCounts>,
}

impl RelayTotals {
    /// What `relay` has passed, and what `earlier` ones have that it follows.
    pub(crate) fn of(relay: &dyn Relay, earlier: &Self) -> Self {
        let before = earlier.messages.unwrap_or_default();
        let add = |now: MessageCounts| MessageCounts {
            received: now.received + before.received,
            sent: now.sent + before.sent,
        };
        Self {
            received: relay.received() + earlier.received,
            sent: relay.sent() + earlier.sent,
            messages: relay.messages().map(add),
        }
    }
}

/// What a relay did in one turn.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct RelayTurn {
    /// Bytes from the remote were written to the plugin.
    pub delivered: bool,
    /// The plugin was told that nothing more comes.
    pub end_delivered: bool,
    /// There is more to do at once: the turn ended because other sessions have theirs.
    pub again: bool,
    /// The relay is over.
    pub end: Option<CloseReason>,
}

/// Why a relay is over; displays as the log shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CloseReason {
    /// Both sides have ended, and everything was relayed.
    Done,
    /// The plugin's connection broke.
    PluginLost,
    /// The remote's connection broke.
    RemoteLost,
    /// The remote was silent for RTIM.
    RemoteSilent,
    /// Both sides were silent for the idle limit.
    Idle,
    /// One side had ended, and the other moved nothing.
    HalfClosed,
    /// One side had ended, and the other did not read its last bytes.
    Stalled,
    /// The plugin ended the connection in its framing (CLOS).
    PluginClosed,
    /// The plugin violated its framing.
    BadFraming,
    /// The remote ended the connection in its protocol (a close frame).
    RemoteClosed,
    /// The remote violated its protocol.
    BadRemote,
    /// There was no memory for a message that must be put together, or others needed what the connection held.
    NoMemory,
    /// An operator has ended the connection.
    Dropped,
    /// The daemon ends.
    Shutdown,
}

impl std::fmt::Display for CloseReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Done => "both sides ended",
            Self::PluginLost => "plugin's connection lost",
            Self::RemoteLost => "remote's connection lost",
            Self::RemoteSilent => "remote silent for too long",
            Self::Idle => "idle for too long",
            Self::HalfClosed => "one side ended, the other stood still",
            Self::Stalled => "one side ended, the other did not take its last bytes",
            Self::PluginClosed => "plugin closed the connection",
            Self::BadFraming => "plugin's framing is broken",
            Self::RemoteClosed => "remote sent a close frame",
            Self::BadRemote => "remote broke the protocol",
            Self::NoMemory => "no memory, buffers= is used up",
            Self::Dropped => "DROP",
            Self::Shutdown => "the proxy ends",
        })
    }
}
