//! A connection as the kernel has it under edge-triggered epoll, and the peer behind it: readiness is reported once.

use std::io;

use crate::net::endpoint::SocketEndpoint;
use crate::net::readiness::Readiness;
use crate::net::socket::Stream;
use crate::net::user_timeout::Unacknowledged;

/// How the stream between the relay and the socket misbehaves.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct FaultProfile {
    /// Bytes that the stream takes beyond what there is room for, as one that encrypts does.
    pub buffer: usize,
    /// A read returns no more bytes than this, as one of a record does. 0: whatever is there.
    pub record_size: usize,
    /// Every this many calls one is interrupted. 0: none.
    pub eintr_every: usize,
    /// The stream may hold received bytes back, as one that decrypts does.
    pub layered: bool,
}

/// The kernel's end of a connection, and what its peer has sent and received. The relay reads and writes it as a
/// [`Stream`]; the test is the peer.
#[derive(Debug, Default)]
pub(crate) struct Wire {
    /// All that the peer has sent.
    pub sent: Vec<u8>,
    /// How much of it is read.
    pub read: usize,
    /// All that the peer has received.
    pub received: Vec<u8>,
    /// Bytes that may be written now.
    pub room: usize,
    faults: FaultProfile,
    /// What the stream has taken and not written to the peer.
    withheld: Vec<u8>,
    /// What the peer does not receive while it is away.
    in_flight: Vec<u8>,
    away: bool,
    /// What the kernel says of bytes that the peer has not acknowledged.
    pub unacknowledged: Option<Unacknowledged>,
    closed: bool,
    told: bool,
    broken: bool,
    /// A write has met a full socket: room is worth an event.
    wants_room: bool,
    news: Readiness,
    calls: usize,
    counted_calls: usize,
    /// How much of what was received is checked.
    checked: usize,
}

impl Wire {
    /// A connection over which nothing was sent, with no room.
    pub(crate) fn new(faults: FaultProfile) -> Self {
        Self { faults, ..Self::default() }
    }

    /// From now on the stream misbehaves like this.
    pub(crate) fn set_faults(&mut self, faults: FaultProfile) {
        self.faults = faults;
    }

    /// The peer has sent something that was read before the relay began.
    pub(crate) fn send_ahead(&mut self, bytes: &[u8]) {
        self.sent.extend_from_slice(bytes);
        self.read = self.sent.len();
    }

    /// The peer sends something.
    pub(crate) fn send_bytes(&mut self, bytes: &[u8]) {
        self.sent.extend_from_slice(bytes);
        self.news.readable |= !bytes.is_empty();
    }

    /// The peer has room for `bytes` more.
    pub(crate) fn make_room(&mut self, bytes: usize) {
        self.room += bytes;
        if self.wants_room && self.room > 0 {
            (self.wants_room, self.news.writable) = (false, true);
        }
    }

    /// The peer ends its side.
    pub(crate) fn close(&mut self) {
        self.closed = true;
        self.news = Readiness { readable: true, read_closed: true, closed: self.told || self.news.closed, ..self.news };
    }

    /// The connection breaks: what has come before can still be read.
    pub(crate) fn break_off(&mut self) {
        self.broken = true;
        self.news = Readiness { readable: true, writable: true, read_closed: true, closed: true, ..self.news };
    }

    /// The peer receives nothing and says nothing, and no event tells so.
    #[cfg(test)]
    pub(crate) fn go_away(&mut self) {
        self.away = true;
    }

    /// The peer is back, and receives what was sent meanwhile.
    #[cfg(test)]
    pub(crate) fn come_back(&mut self) {
        self.away = false;
        self.received.append(&mut self.in_flight);
    }

    /// The event that reports what has happened since the last one.
    pub(crate) fn take_event(&mut self) -> Readiness {
        std::mem::take(&mut self.news)
    }

    /// Adds to what the next event reports.
    pub(crate) fn report(&mut self, news: Readiness) {
        self.news.merge(news);
    }

    /// True if something has happened that no event has reported.
    pub(crate) fn has_news(&self) -> bool {
        self.news != Readiness::default()
    }

    /// Bytes that were sent and not read.
    pub(crate) fn unread(&self) -> usize {
        self.sent.len() - self.read
    }

    /// Bytes that were written, whether or not the peer has received them.
    pub(crate) fn written(&self) -> usize {
        self.received.len() + self.in_flight.len() + self.withheld.len()
    }

    /// What the stream has taken and not written to the peer.
    pub(crate) fn withheld(&self) -> &[u8] {
        &self.withheld
    }

    /// The peer has ended its side.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed
    }

    /// The connection is broken.
    pub(crate) fn is_broken(&self) -> bool {
        self.broken
    }

    /// The peer was told that nothing more comes.
    pub(crate) fn is_told(&self) -> bool {
        self.told
    }

    /// True if a read returns something: bytes, the end, or an error.
    pub(crate) fn is_readable(&self) -> bool {
        self.unread() > 0 || self.closed || self.broken
    }

    /// True if a write returns something: room or an error.
    pub(crate) fn is_writable(&self) -> bool {
        self.room > 0 || self.broken
    }

    /// Calls since this was last called.
    pub(crate) fn take_calls(&mut self) -> usize {
        self.calls - std::mem::replace(&mut self.counted_calls, self.calls)
    }

    /// Checks that what was written is what `source` has sent, and all of it if the end was told. What is checked is not
    /// checked again.
    ///
    /// # Panics
    ///
    /// If it is not.
    pub(crate) fn check_passed(&mut self, source: &Self) {
        let received = self.received.len();
        let right = self.written() <= source.sent.len()
            && self.received[self.checked..] == source.sent[self.checked..received]
            && source.sent[received..].starts_with(&self.withheld);
        assert!(right, "other bytes");
        self.checked = received;
        let whole = !self.told || source.broken || self.written() == source.sent.len();
        assert!(whole, "the end was told before all was passed on");
    }

    fn write_out(&mut self) {
        let length = self.withheld.len().min(self.room);
        self.room -= length;
        let arrived = if self.away { &mut self.in_flight } else { &mut self.received };
        arrived.extend(self.withheld.drain(..length));
    }

    fn call(&mut self) -> io::Result<()> {
        self.calls += 1;
        match self.faults.eintr_every {
            0 => Ok(()),
            every if self.calls.is_multiple_of(every) => Err(io::ErrorKind::Interrupted.into()),
            _ => Ok(()),
        }
    }
}

impl Stream for Wire {
    fn recv(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        assert!(!buffer.is_empty(), "a read of nothing looks like the end");
        self.call()?;
        let most = if self.faults.record_size == 0 { usize::MAX } else { self.faults.record_size };
        let length = buffer.len().min(self.unread()).min(most);
        if length > 0 {
            buffer[..length].copy_from_slice(&self.sent[self.read..self.read + length]);
            self.read += length;
            return Ok(length);
        }
        match self {
            Self { broken: true, .. } => Err(io::ErrorKind::ConnectionReset.into()),
            Self { closed: true, .. } => Ok(0),
            _ => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    fn send(&mut self, bytes: &[u8]) -> io::Result<usize> {
        assert!(!bytes.is_empty() && !self.told, "nothing is written behind the end");
        self.call()?;
        if self.broken {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        self.write_out();
        let length = bytes.len().min((self.room + self.faults.buffer).saturating_sub(self.withheld.len()));
        self.wants_room |= length < bytes.len();
        if length == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.withheld.extend_from_slice(&bytes[..length]);
        self.write_out();
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<bool> {
        self.call()?;
        if self.broken && !self.withheld.is_empty() {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        self.write_out();
        self.wants_room |= !self.withheld.is_empty();
        match self.withheld.is_empty() {
            // Both are allowed.
            false if self.calls.is_multiple_of(2) => Err(io::ErrorKind::WouldBlock.into()),
            empty => Ok(empty),
        }
    }

    fn is_layered(&self) -> bool {
        self.faults.layered
    }

    fn unacknowledged(&self) -> Option<Unacknowledged> {
        self.unacknowledged
    }

    fn unsent(&self) -> usize {
        self.withheld.len()
    }

    fn shutdown_write(&mut self) {
        assert!(!self.told, "the end is told twice");
        self.told = true;
        // Both ways shut: the kernel says so.
        self.news.closed |= self.closed;
    }
}

/// An endpoint over a [`Wire`], as a simulation drives it.
pub(crate) type WireEndpoint = SocketEndpoint<Wire>;

/// Reports to `endpoint` what has happened to its wire.
pub(crate) fn deliver_event(endpoint: &mut WireEndpoint) {
    let event = endpoint.stream_mut().take_event();
    endpoint.handle_event(event);
}
