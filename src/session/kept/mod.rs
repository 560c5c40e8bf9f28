//! A plugin's side that outlives the plugin's connection (`KEEP=`).
//!
//! [`KeptPlugin`] stands between a relay and the plugin's socket, and is itself a [`Stream`], so that no relay knows of
//! it: it takes what the remote sends while there is room, whoever may be there to read it, and a plugin that goes away
//! is for the relay one that says nothing. What must be decided about time, notices and the session's end is decided
//! by the session, from what [`KeptPlugin::settle`] tells.
//!
//! A plugin is *cut off* when its connection has broken, or when it has ended its side: who restarts cannot tell the
//! one from the other. What it has sent before is still read. The one exception is a plugin that was told the remote's
//! end: its own end says that it has read everything.

mod lifecycle;
mod replay;
#[cfg(test)]
mod simulation;
pub mod unread;

pub use lifecycle::Keeping;
pub use replay::Gap;

use std::io;
use std::time::Instant;

use crate::net::socket::{Stream, TcpSocket};
use crate::protocol::framing::Framing;
use crate::relay::memory_budget::Buffers;
use crate::relay::{Ready, Turn};
use replay::Outlet;

/// When the oldest are dropped, so much of the bound is left to those that wait: dropping costs less in one go.
const LEFT_AFTER_DROPPING: usize = 4;

/// A plugin's side that outlives the plugin's connection.
#[derive(Debug)]
pub struct KeptPlugin<S = TcpSocket> {
    /// The plugin's connection, while there is something to read from it or somebody to write to.
    socket: Option<S>,
    /// What is known of that connection. The relay is told only what concerns it.
    ready: Ready,
    /// What the plugin has sent behind its ATCH.
    ahead: Vec<u8>,
    /// What is to be said before anything of the remote.
    reply: Vec<u8>,
    outlet: Outlet,
    remote: RemoteSide,
    /// Nobody is held back for a plugin that is not there: the oldest are dropped (UDP).
    lossy: bool,
    /// Bytes that may wait.
    bound: usize,
    /// Bytes that are kept after they were handed over.
    history: usize,
    /// What stands in the books: bytes that wait, and bytes that are kept.
    counted: (usize, usize),
    parked: Option<Parked>,
    /// Nobody comes back any more.
    given_up: bool,
    news: News,
    progress: Instant,
}

/// What a plugin is to know of the remote's side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RemoteSide {
    /// More may come.
    Open,
    /// It has ended; the plugin has yet to be told.
    Ended,
    /// The plugin's connection was told.
    Told,
}

/// Nobody reads.
#[derive(Clone, Copy, Debug)]
struct Parked {
    since: Instant,
    /// The plugin was notified of data that came since.
    announced: bool,
}

/// What has happened since somebody asked.
#[derive(Clone, Copy, Debug, Default)]
struct News {
    /// The remote has sent something.
    arrived: bool,
    /// Something was written to the plugin's connection.
    written: bool,
    /// The plugin's connection was told the remote's end.
    told: bool,
}

impl<S: Stream> KeptPlugin<S> {
    /// The side of a plugin that has just been told `OK CONN`. `ready` is what is known of its connection.
    pub fn new(socket: S, ready: Ready, framing: Framing, lossy: bool, now: Instant) -> Self {
        Self {
            socket: Some(socket),
            ready,
            ahead: Vec::new(),
            reply: Vec::new(),
            outlet: Outlet::new(framing),
            remote: RemoteSide::Open,
            lossy,
            bound: 0,
            history: 0,
            counted: (0, 0),
            parked: None,
            given_up: false,
            news: News::default(),
            progress: now,
        }
    }

    /// What is known of the plugin's connection, to be told of its events.
    pub fn ready_mut(&mut self) -> &mut Ready {
        &mut self.ready
    }

    /// What the relay may know of the plugin's connection. A connection that is cut off is none of its business, and
    /// so only the end of a plugin that was told the remote's is one.
    pub fn relay_ready(&self) -> Ready {
        let hangup = self.given_up || (self.remote == RemoteSide::Told && self.ready.hangup);
        Ready { hangup, urgent: self.ready.urgent, broken: self.given_up, ..Ready::fresh() }
    }

    /// Nobody comes back any more. For the relay, the plugin has gone: the remote is to be told. A plugin that is
    /// attached is told the end.
    pub fn give_up(&mut self) {
        self.given_up = true;
        self.shutdown_write();
    }

    /// True where nobody comes back any more.
    pub fn is_given_up(&self) -> bool {
        self.given_up
    }

    /// Since when nobody has read.
    pub fn parked_since(&self) -> Option<Instant> {
        self.parked.map(|parked| parked.since)
    }

    /// When bytes were last handed over, or the plugin came.
    pub fn progress(&self) -> Instant {
        self.progress
    }

    /// True where the plugin has yet to be told something: bytes, or the remote's end.
    pub fn is_behind(&self) -> bool {
        self.outlet.waiting() > 0 || self.remote == RemoteSide::Ended
    }

    /// Bytes that wait for somebody.
    pub fn held(&self) -> usize {
        self.outlet.waiting() + self.ahead.len()
    }

    /// Begins a turn: looks up the bounds, and writes what can be written. `history` is how much may be kept for a
    /// plugin that says what it has read.
    pub fn begin(&mut self, history: usize, buffers: &Buffers) {
        self.bound = buffers.room_beside(self.counted.0);
        self.history = history.min(buffers.history_room(self.counted.1));
        self.write();
    }

    /// True where the outlet takes something.
    pub fn has_room(&self) -> bool {
        self.outlet.waiting() < self.bound || (self.lossy && self.is_cut_off())
    }

    /// Ends a turn: brings the books in order, and says in `turn` what the plugin should know. True where the plugin
    /// was cut off in this turn.
    ///
    /// Data is news when it was written to the plugin's connection, and for a parked plugin the first time that some
    /// arrives. The end is news when the connection was told, and for a parked plugin at once.
    pub fn settle(&mut self, turn: &mut Turn, now: Instant, buffers: &mut Buffers) -> bool {
        let News { arrived, written, told } = std::mem::take(&mut self.news);
        let newly_parked = self.parked.is_none() && self.is_cut_off();
        if newly_parked {
            self.outlet.rewind_half();
            self.parked = Some(Parked { since: now, announced: false });
        }
        if written {
            self.progress = now;
        }
        turn.handed_over = written;
        turn.told_end = told;
        if let Some(parked) = &mut self.parked {
            turn.handed_over |= arrived && !parked.announced;
            parked.announced |= arrived;
            turn.told_end |= self.remote != RemoteSide::Open;
        }
        self.count(buffers);
        newly_parked
    }

    /// Goes on behind the first `seen` messages, or without that with what was not handed over whole. An error changes
    /// nothing. To be followed by [`KeptPlugin::attach`].
    pub fn resume(&mut self, seen: Option<u64>) -> Result<(), Gap> {
        match seen {
            Some(seen) => self.outlet.resume(seen)?,
            None => self.outlet.forget(),
        }
        Ok(())
    }

    /// A plugin has come. It is told `reply` before anything else; `ahead` is what it has sent already, for the remote.
    /// The connection before, if there is one still, is closed.
    pub fn attach(&mut self, socket: S, ready: Ready, ahead: Vec<u8>, reply: Vec<u8>, now: Instant) {
        (self.ahead, self.reply) = (ahead, reply);
        self.socket = Some(socket);
        self.ready = Ready { readable: true, writable: true, ..ready };
        self.parked = None;
        self.progress = now;
        if self.remote == RemoteSide::Told {
            self.remote = RemoteSide::Ended;
        }
    }

    /// Lets go of everything that is held.
    pub fn release(&mut self, buffers: &mut Buffers) {
        (self.ahead, self.reply) = (Vec::new(), Vec::new());
        self.outlet.clear();
        self.count(buffers);
    }

    fn count(&mut self, buffers: &mut Buffers) {
        let (held, history) = (self.held(), self.outlet.history());
        buffers.recount(&mut self.counted.0, held);
        buffers.recount_history(&mut self.counted.1, history);
    }

    /// True where nobody reads what is written.
    fn is_cut_off(&self) -> bool {
        // Who was told the end is written nothing more, and reading shows how it ends.
        let gone = self.remote != RemoteSide::Told && (self.ready.hangup || self.ready.broken);
        self.socket.is_none() || gone
    }

    /// Writes what can be written.
    fn write(&mut self) {
        if self.is_cut_off() {
            return;
        }
        let Some(socket) = &mut self.socket else { return };
        while self.ready.writable {
            let next = if self.reply.is_empty() { self.outlet.next() } else { &self.reply[..] };
            if next.is_empty() {
                break;
            }
            match socket.send(next) {
                Ok(sent) => {
                    self.ready.writable = sent == next.len();
                    if self.reply.is_empty() {
                        self.outlet.hand_over(sent);
                        self.news.written = true;
                    } else {
                        self.reply.drain(..sent);
                    }
                }
                Err(error) => match error.kind() {
                    io::ErrorKind::Interrupted => {}
                    io::ErrorKind::WouldBlock => self.ready.writable = false,
                    _ => {
                        // What it has sent before is still read.
                        self.ready.broken = true;
                        self.ready.readable = true;
                        return;
                    }
                },
            }
        }
        self.outlet.trim(self.history);
        if self.remote == RemoteSide::Ended && self.outlet.waiting() == 0 && self.reply.is_empty() {
            socket.shutdown_write();
            self.remote = RemoteSide::Told;
            self.news.told = true;
        }
    }

    /// Reads what the plugin says, in place of a relay. `Ok(0)` is the end of a plugin that was told the remote's.
    pub fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            let Some(socket) = &mut self.socket else { break };
            match socket.recv(&mut buffer[filled..]) {
                Ok(0) if self.remote == RemoteSide::Told => return Ok(filled),
                Ok(0) => self.socket = None,
                Ok(read) => {
                    filled += read;
                    // The relay takes a short read for a sign of there being nothing more: then it must be one.
                    if filled < buffer.len() && !self.ready.insists() {
                        break;
                    }
                }
                Err(error) => match error.kind() {
                    io::ErrorKind::Interrupted => {}
                    io::ErrorKind::WouldBlock => break,
                    _ => self.socket = None,
                },
            }
        }
        if filled == 0 { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(filled) }
    }
}

impl<S: Stream> Stream for KeptPlugin<S> {
    /// What was sent ahead, then what the plugin's connection gives. 0 is the end of a plugin that was told the
    /// remote's; any other end is no end.
    fn recv(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.given_up {
            return Ok(0);
        }
        let ahead = self.ahead.len().min(buffer.len());
        if ahead == 0 {
            return self.read(buffer);
        }
        buffer[..ahead].copy_from_slice(&self.ahead[..ahead]);
        self.ahead.drain(..ahead);
        match self.read(&mut buffer[ahead..]) {
            Ok(read) => Ok(ahead + read),
            Err(_) => Ok(ahead),
        }
    }

    /// Takes bytes for the plugin while there is room, and writes what can be written.
    fn send(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = self.bound.saturating_sub(self.outlet.waiting());
        let taken = if self.lossy && self.is_cut_off() {
            if room < bytes.len() {
                self.outlet.rewind_half();
                let left = (self.bound - self.bound / LEFT_AFTER_DROPPING).saturating_sub(bytes.len());
                let dropped = self.outlet.drop_oldest(left);
                log::debug!("{dropped} bytes dropped, nobody reads them");
            }
            bytes.len()
        } else {
            bytes.len().min(room)
        };
        if taken == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.outlet.push(&bytes[..taken]);
        self.news.arrived = true;
        self.write();
        Ok(taken)
    }

    /// Notes the remote's end, which is passed on behind what waits.
    fn shutdown_write(&mut self) {
        if self.remote == RemoteSide::Open {
            self.remote = RemoteSide::Ended;
        }
        self.write();
    }
}
