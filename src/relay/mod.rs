//! Bytes from one side to the other, with backpressure, half-close and bounds.
//!
//! [`stream`] relays two byte streams, [`datagram`] a byte stream and a datagram socket, [`websocket`] a byte stream
//! and messages over another; [`direction`] is one way of a stream. They speak to sockets through the traits of
//! [`crate::net::socket`] and take the time as an argument, so that a simulation can stand in for both.
//!
//! # Readiness
//!
//! mio is edge-triggered: the kernel says once that a socket became ready. [`Ready`] remembers it. Three rules:
//!
//! 1. A bit is cleared only by the socket saying `WouldBlock`, or by a short read or write, which means the same but
//!    where [`Ready::insists`].
//! 2. Who stops on purpose, for want of room or because its turn is over, leaves the bit, and asks for another turn.
//! 3. Bytes put aside for a socket are offered to it in the same turn.

pub mod datagram;
pub mod direction;
pub mod memory_budget;
pub mod pipe_pool;
pub mod stream;
pub mod websocket;

#[cfg(test)]
mod simulation;

use std::io;
use std::time::{Duration, Instant};

use memory_budget::Buffers;
use pipe_pool::Pipes;

use crate::websocket::Entropy;

/// Bytes that one direction may move in one turn before others have theirs: a millisecond's work on a slow box.
pub const TURN_BYTES: usize = 256 * 1024;
/// Calls that one direction may make in one turn. A plugin that wants its bytes one by one costs no more than others.
pub const TURN_CALLS: usize = 64;
/// Size of the buffer that all connections share for reading: what many senders write at once, 64 KiB, and before it a
/// frame's header or a line of MESG, so that one call takes it whole and knows that there is no more. Larger ones gain
/// nothing: bulk goes through pipes.
pub const SCRATCH: usize = (64 + 4) * 1024;

/// What is known of a socket's readiness. See the module's rules.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ready {
    /// Reading may give something.
    pub readable: bool,
    /// Writing may take something.
    pub writable: bool,
    /// The peer has ended, or the connection broke.
    pub hangup: bool,
    /// The peer has sent urgent data, at whose mark reads stop short.
    pub urgent: bool,
    /// The connection is gone both ways: nobody reads what is written.
    pub broken: bool,
    /// What stands before the socket (TLS) may hold bytes back, and gives a record at a time.
    pub layered: bool,
}

impl Ready {
    /// Adds what an event says.
    pub fn handle_event(&mut self, event: &mio::event::Event) {
        self.readable |= event.is_readable() || event.is_read_closed() || event.is_error();
        self.writable |= event.is_writable() || event.is_write_closed() || event.is_error();
        self.hangup |= event.is_read_closed() || event.is_error();
        self.urgent |= event.is_priority();
        self.broken |= event.is_error() || event.is_write_closed();
    }

    /// True where a short read is no sign of there being nothing more: reading goes on until the socket itself says so.
    pub fn insists(&self) -> bool {
        self.hangup || self.urgent || self.layered
    }

    /// A connection that has just been made: it may be read and written until it says otherwise.
    pub fn fresh() -> Self {
        Self { readable: true, writable: true, ..Self::default() }
    }
}

/// What a turn needs from outside: the time, the shared memory, and the bounds.
pub struct Env<'a> {
    /// When this turn of the loop began.
    pub now: Instant,
    /// The buffer that all connections share for reading, [`SCRATCH`] bytes.
    pub scratch: &'a mut [u8],
    /// The bound on bytes held in all.
    pub buffers: &'a mut Buffers,
    /// Pipes to splice through.
    pub pipes: &'a mut Pipes,
    /// Unpredictable bytes.
    pub entropy: &'a mut dyn Entropy,
    /// Most that is read for the plugin at once, where it gave a size (BLKS). In a byte stream nobody sees how it was
    /// written.
    pub block: Option<usize>,
}

/// The time limits of a relay.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Timing {
    /// Longest silence of the remote (RTIM).
    pub receive: Option<Duration>,
    /// Longest silence of both sides.
    pub idle: Option<Duration>,
    /// Longest standstill once one side has ended.
    pub half_close: Duration,
    /// Longest standstill of a plugin that has yet to read what a remote left behind.
    pub stall: Duration,
}

/// What can be asked of a relay, whatever it relays.
pub trait Relay {
    /// What is known of the plugin's socket.
    fn plugin_ready(&mut self) -> &mut Ready;
    /// What is known of the remote's socket.
    fn remote_ready(&mut self) -> &mut Ready;
    /// The time limits in force: when, and what passing it means.
    fn limits(&self, timing: &Timing) -> [Option<(Instant, End)>; 3];
    /// Another plugin has taken the place of the one before, of which `ready` is known: half a message of the old one is
    /// forgotten, and the time limits of the plugin's side begin anew.
    fn handle_new_plugin(&mut self, ready: Ready, now: Instant);
    /// Lets go of everything that is held.
    fn release(&mut self, buffers: &mut Buffers, pipes: &mut Pipes);
    /// Bytes received from the remote and handed over.
    fn received(&self) -> u64;
    /// Bytes sent to the remote.
    fn sent(&self) -> u64;
    /// Bytes held for slow readers.
    fn held(&self) -> usize;
    /// When the remote was last heard.
    fn last_heard(&self) -> Instant;
    /// Whole messages received and sent, where there are messages.
    fn messages(&self) -> Option<(u64, u64)> {
        None
    }

    /// When [`Relay::handle_timeout`] should be called, if nothing happens before.
    fn deadline(&self, timing: &Timing) -> Option<Instant> {
        self.limits(timing).into_iter().flatten().map(|(due, _)| due).min()
    }

    /// Says whether a time limit has passed, and which.
    fn handle_timeout(&self, timing: &Timing, now: Instant) -> Option<End> {
        self.limits(timing).into_iter().flatten().find(|&(due, _)| due <= now).map(|(_, end)| end)
    }
}

/// What a turn has done.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Turn {
    /// Bytes from the remote were handed over to the plugin.
    pub handed_over: bool,
    /// The plugin was told that nothing more comes.
    pub told_end: bool,
    /// There is more to do at once: the turn ended because others have theirs.
    pub again: bool,
    /// All is over.
    pub end: Option<End>,
}

/// Why a relay is over; displays as the log says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Both sides have ended, and everything was passed on.
    Done,
    /// The plugin's connection broke.
    PluginLost,
    /// The remote's connection broke.
    RemoteLost,
    /// The remote was silent for RTIM.
    RemoteSilent,
    /// Both sides were silent for the idle limit.
    Idle,
    /// One side had ended, and the other stood still.
    HalfClosed,
    /// One side had ended, and the other did not take its last bytes.
    Stalled,
    /// The plugin said goodbye in its framing.
    Goodbye,
    /// The plugin broke the rules of its framing.
    BadFraming,
    /// The remote said goodbye.
    RemoteGoodbye,
    /// The remote broke the rules of its protocol.
    BadRemote,
}

impl std::fmt::Display for End {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Done => "both sides ended",
            Self::PluginLost => "plugin's connection lost",
            Self::RemoteLost => "remote's connection lost",
            Self::RemoteSilent => "remote silent for too long",
            Self::Idle => "idle for too long",
            Self::HalfClosed => "one side ended, the other stood still",
            Self::Stalled => "one side ended, the other did not take its last bytes",
            Self::Goodbye => "plugin said goodbye",
            Self::BadFraming => "plugin's framing is broken",
            Self::RemoteGoodbye => "remote said goodbye",
            Self::BadRemote => "remote broke the protocol",
        })
    }
}

/// True where a call on a non-blocking socket should be tried again later.
fn would_block(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock
}

/// True where a call should be tried again at once.
fn interrupted(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::Interrupted
}
