//! A plugin's side that outlives the plugin's connection (`KEEP=`).
//!
//! [`KeptPlugin`] stands between a relay and the plugin's socket, and is itself an [`Endpoint`], so that no relay knows
//! of it. It is writable while its buffer has room, whether or not a plugin reads it, and a plugin that goes away looks
//! to the relay like one that sends nothing. The session decides about time, notifications and its end, from what
//! [`KeptPlugin::end_turn`] reports.
//!
//! A plugin is *disconnected* when its connection has broken, or when it has ended its side: a plugin that restarts looks
//! like either. What it sent before is still read. The one exception is a plugin that was told the remote's end: its own
//! end then says that it has read everything.
//!
//! ```text
//! attached --disconnects--> parked --ATCH--> attached
//!     |                    |
//!     +--- DROP, KEEP over-+--> given up: the relay sees a closed plugin
//! ```

mod replay;
#[cfg(test)]
mod simulation;

pub(crate) use replay::Gap;

use std::io;
use std::time::Instant;

use crate::net::endpoint::{Endpoint, SocketEndpoint, Transfer};
use crate::net::readiness::Readiness;
use crate::net::socket::Stream;
use crate::protocol::framing::Framing;
use crate::relay::memory_budget::MemoryBudget;
use crate::session::outbox::Outbox;
use crate::session::plugin::PluginNews;
use replay::ReplayBuffer;

/// When the oldest datagrams are dropped, this part of the bound is freed: dropping costs less in one go.
const DROPPED_PART: usize = 4;

/// A plugin's side that outlives the plugin's connection.
#[derive(Debug)]
pub(crate) struct KeptPlugin<S> {
    /// The plugin's connection, while there is something to read from it or it may be written to.
    socket: Option<SocketEndpoint<S>>,
    /// What the plugin has sent behind its ATCH.
    sent_ahead: Vec<u8>,
    /// The answer to ATCH, which goes before anything of the remote.
    reply: Outbox,
    buffer: ReplayBuffer,
    remote: RemoteEnd,
    /// What is written is datagrams, one at a time. Each is taken whole or not at all, and while the plugin is disconnected
    /// the oldest are dropped, rather than the remote held back.
    has_datagrams: bool,
    /// Bytes that may wait.
    bound: usize,
    /// Bytes that are kept after they were sent.
    history: usize,
    /// Bytes that wait, as the budget counts them.
    counted_waiting: usize,
    /// Bytes that are kept after they were sent, as the budget counts them.
    counted_history: usize,
    parked: Option<Parked>,
    /// The connection is not kept any longer.
    given_up: bool,
    changes: Changes,
    progress: Instant,
}

/// What the plugin knows of the remote's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RemoteEnd {
    /// The remote has not ended.
    Open,
    /// It has ended; the plugin has yet to be told.
    Ended,
    /// The plugin's connection was told.
    Told,
}

/// A plugin's side without a plugin.
#[derive(Clone, Copy, Debug)]
struct Parked {
    since: Instant,
    /// The plugin was notified of data that came since.
    announced: bool,
}

/// What has happened since the turn began.
#[derive(Clone, Copy, Debug, Default)]
struct Changes {
    /// The remote has sent something.
    arrived: bool,
    /// Bytes that were written to the plugin's connection.
    written: usize,
    /// The plugin's connection was told the remote's end.
    told: bool,
}

impl<S: Stream> KeptPlugin<S> {
    /// The side of a plugin that was just told `OK CONN`. `has_datagrams`: each [`Endpoint::try_write`] has one datagram (UDP).
    pub(crate) fn new(socket: SocketEndpoint<S>, framing: Framing, has_datagrams: bool, now: Instant) -> Self {
        Self {
            socket: Some(socket),
            sent_ahead: Vec::new(),
            reply: Outbox::default(),
            buffer: if has_datagrams { ReplayBuffer::for_datagrams(framing) } else { ReplayBuffer::new(framing) },
            remote: RemoteEnd::Open,
            has_datagrams,
            bound: 0,
            history: 0,
            counted_waiting: 0,
            counted_history: 0,
            parked: None,
            given_up: false,
            changes: Changes::default(),
            progress: now,
        }
    }

    /// Adds what an event of the plugin's connection reports.
    pub(crate) fn handle_event(&mut self, event: Readiness) {
        if let Some(socket) = &mut self.socket {
            socket.handle_event(event);
        }
    }

    /// The plugin's connection, unless there is none.
    pub(crate) fn socket(&self) -> Option<&SocketEndpoint<S>> {
        self.socket.as_ref()
    }

    /// See [`KeptPlugin::socket`].
    pub(crate) fn socket_mut(&mut self) -> Option<&mut SocketEndpoint<S>> {
        self.socket.as_mut()
    }

    /// Keeps the connection no longer: to the relay the plugin is closed, and a plugin that is attached is told the end.
    pub(crate) fn give_up(&mut self) {
        self.given_up = true;
        self.shutdown_write();
    }

    /// True after [`KeptPlugin::give_up`].
    pub(crate) fn is_given_up(&self) -> bool {
        self.given_up
    }

    /// Since when the side has been without a plugin.
    pub(crate) fn parked_since(&self) -> Option<Instant> {
        self.parked.map(|parked| parked.since)
    }

    /// When bytes were last written, or the plugin came.
    pub(crate) fn progress(&self) -> Instant {
        self.progress
    }

    /// True if the plugin has yet to be sent something: bytes, or the remote's end.
    pub(crate) fn is_behind(&self) -> bool {
        self.buffer.waiting() > 0 || self.remote == RemoteEnd::Ended
    }

    /// Bytes that wait, either way.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn waiting(&self) -> usize {
        self.buffer.waiting() + self.sent_ahead.len()
    }

    /// Bytes of memory held, without the history: for bytes that wait, and for the answer to ATCH.
    pub(crate) fn held(&self) -> usize {
        self.buffer.held() + self.sent_ahead.capacity() + self.reply.held()
    }

    /// Begins a turn: looks up the bounds, and writes what can be written. `history`: bytes that may be kept for a plugin
    /// that says what it has read.
    pub(crate) fn begin_turn(&mut self, history: usize, budget: &MemoryBudget) {
        self.bound = budget.available_with(self.counted_waiting);
        self.history = history.min(budget.history_available(self.counted_history));
        self.write();
    }

    /// Ends a turn: counts what is held in the budget.
    ///
    /// Data is news when it was written to the plugin's connection, and for a parked plugin when the first of it arrives.
    /// The end is news when the connection was told, and for a parked plugin at once.
    pub(crate) fn end_turn(&mut self, now: Instant, budget: &mut MemoryBudget) -> PluginNews {
        let Changes { arrived, written, told } = std::mem::take(&mut self.changes);
        let newly_parked = self.parked.is_none() && self.is_disconnected();
        if newly_parked {
            self.buffer.rewind_to_message();
            self.parked = Some(Parked { since: now, announced: false });
        }
        if written > 0 {
            self.progress = now;
            budget.handle_moved(written);
        }
        let mut news = PluginNews { data: written > 0, end: told, parked: newly_parked };
        if let Some(parked) = &mut self.parked {
            news.data |= arrived && !parked.announced;
            parked.announced |= arrived;
            news.end |= self.remote != RemoteEnd::Open;
        }
        self.account(budget);
        news
    }

    /// Goes on behind the first `seen` messages, or without that with what was not sent whole. An error changes nothing.
    /// To be followed by [`KeptPlugin::attach`].
    pub(crate) fn resume(&mut self, seen: Option<u64>) -> Result<(), Gap> {
        match seen {
            Some(seen) => self.buffer.resume(seen)?,
            None => self.buffer.discard_sent(),
        }
        Ok(())
    }

    /// Attaches a plugin. It is sent `reply` before anything else; `sent_ahead` is what it has sent already, for the
    /// remote. The connection before, if there is one, is closed.
    pub(crate) fn attach(&mut self, mut socket: SocketEndpoint<S>, sent_ahead: Vec<u8>, reply: Vec<u8>, now: Instant) {
        socket.handle_event(Readiness::FRESH);
        (self.sent_ahead, self.reply) = (sent_ahead, Outbox::new(reply));
        self.socket = Some(socket);
        self.parked = None;
        self.progress = now;
        if self.remote == RemoteEnd::Told {
            self.remote = RemoteEnd::Ended;
        }
    }

    /// Drops everything that is held.
    pub(crate) fn release(&mut self, budget: &mut MemoryBudget) {
        (self.sent_ahead, self.reply) = (Vec::new(), Outbox::default());
        self.buffer.clear();
        self.account(budget);
    }

    fn account(&mut self, budget: &mut MemoryBudget) {
        let (waiting, history) = (self.held(), self.buffer.history());
        budget.adjust(&mut self.counted_waiting, waiting);
        budget.adjust_history(&mut self.counted_history, history);
    }

    /// True if no connection is left to write to.
    fn is_disconnected(&self) -> bool {
        // To a plugin that was told the end nothing more is written, and reading shows how it ends.
        self.socket
            .as_ref()
            .is_none_or(|socket| self.remote != RemoteEnd::Told && (socket.is_read_closed() || socket.is_closed()))
    }

    /// Writes what can be written.
    fn write(&mut self) {
        if self.is_disconnected() {
            return;
        }
        let Some(socket) = &mut self.socket else { return };
        // After an error the plugin is disconnected; what it sent before is still read.
        let Ok(is_replied) = self.reply.flush(socket) else { return };
        while is_replied && !self.buffer.next().is_empty() {
            match socket.try_write(self.buffer.next()) {
                Transfer::Bytes(sent) => {
                    self.buffer.mark_sent(sent);
                    self.changes.written += sent;
                }
                Transfer::Blocked | Transfer::Eof => break,
                Transfer::Broken(_) => return,
            }
        }
        self.buffer.trim(self.history);
        if self.remote == RemoteEnd::Ended && self.buffer.waiting() == 0 && is_replied {
            socket.shutdown_write();
            self.remote = RemoteEnd::Told;
            self.changes.told = true;
        }
    }

    /// Reads from the plugin's connection. [`Transfer::Eof`] is the end of a plugin that was told the remote's; any other
    /// end leaves the side without a connection.
    fn read_socket(&mut self, buffer: &mut [u8]) -> Transfer {
        let Some(socket) = &mut self.socket else { return Transfer::Blocked };
        match socket.try_read(buffer) {
            Transfer::Eof if self.remote == RemoteEnd::Told => Transfer::Eof,
            Transfer::Eof | Transfer::Broken(_) => {
                self.socket = None;
                Transfer::Blocked
            }
            transfer => transfer,
        }
    }
}

impl<S: Stream> Endpoint for KeptPlugin<S> {
    /// What was sent behind ATCH, then what the plugin's connection has.
    fn try_read(&mut self, buffer: &mut [u8]) -> Transfer {
        if self.given_up {
            return Transfer::Eof;
        }
        if self.sent_ahead.is_empty() {
            return self.read_socket(buffer);
        }
        let length = self.sent_ahead.len().min(buffer.len());
        buffer[..length].copy_from_slice(&self.sent_ahead[..length]);
        self.sent_ahead.drain(..length);
        if self.sent_ahead.is_empty() {
            // What is empty takes no memory.
            self.sent_ahead = Vec::new();
        }
        Transfer::Bytes(length)
    }

    /// Takes bytes for the plugin while there is room, and writes what can be written. A datagram that is larger than the
    /// room is taken if nothing waits. While the plugin is disconnected, every datagram is taken, and the oldest are dropped
    /// for it.
    fn try_write(&mut self, bytes: &[u8]) -> Transfer {
        let room = self.bound.saturating_sub(self.buffer.waiting());
        let taken = if !self.has_datagrams {
            bytes.len().min(room)
        } else if self.is_disconnected() {
            if room < bytes.len() {
                self.buffer.rewind_to_message();
                let left = (self.bound - self.bound / DROPPED_PART).saturating_sub(bytes.len());
                let dropped = self.buffer.drop_oldest(left);
                log::debug!("{dropped} bytes dropped, no plugin reads them");
            }
            bytes.len()
        } else if room < bytes.len() && self.buffer.waiting() > 0 {
            0
        } else {
            bytes.len()
        };
        if taken == 0 {
            return Transfer::Blocked;
        }
        self.buffer.push(&bytes[..taken]);
        self.changes.arrived = true;
        self.write();
        Transfer::Bytes(taken)
    }

    fn flush(&mut self) -> io::Result<bool> {
        Ok(true)
    }

    /// Notes the remote's end, which is passed on behind what waits.
    fn shutdown_write(&mut self) {
        if self.remote == RemoteEnd::Open {
            self.remote = RemoteEnd::Ended;
        }
        self.write();
    }

    fn is_readable(&self) -> bool {
        self.given_up || !self.sent_ahead.is_empty() || self.socket.as_ref().is_some_and(Endpoint::is_readable)
    }

    fn assume_readable(&mut self) {
        if let Some(socket) = &mut self.socket {
            socket.assume_readable();
        }
    }

    /// True if the buffer takes something, whatever the plugin's socket takes.
    fn is_writable(&self) -> bool {
        self.buffer.waiting() < self.bound || (self.has_datagrams && self.is_disconnected())
    }

    /// A connection that is disconnected does not concern the relay, so only the end of a plugin that was told the remote's
    /// end is reported.
    fn is_read_closed(&self) -> bool {
        self.given_up || (self.remote == RemoteEnd::Told && self.socket.as_ref().is_some_and(Endpoint::is_read_closed))
    }

    fn is_closed(&self) -> bool {
        self.given_up
    }
}
