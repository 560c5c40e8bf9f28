//! A connection as the kernel has it under edge-triggered epoll, and the peer behind it: what has been said once is not
//! said again.

use std::io;

use crate::net::socket::Stream;
use crate::relay::Ready;

/// What is between the relay and the socket, and how it behaves.
#[derive(Clone, Copy, Debug, Default)]
pub struct Manners {
    /// How much the stream takes in beyond what there is room for, as one that encrypts does.
    pub pouch: usize,
    /// A read gives no more than that at once, as one of a record does. 0: whatever is there.
    pub record: usize,
    /// Every so many calls one is interrupted. 0: none.
    pub hiccup: usize,
}

/// The kernel's end of a connection and what the peer has said and heard over it. The relay reads and writes it as a
/// [`Stream`]; the test is the peer.
#[derive(Debug, Default)]
pub struct Wire {
    /// All that the peer has said.
    pub said: Vec<u8>,
    /// So much of it has been read.
    pub read: usize,
    /// All that the peer has heard.
    pub heard: Vec<u8>,
    /// How much may be written now.
    pub room: usize,
    manners: Manners,
    /// What the stream has taken in and not pushed out to the peer.
    withheld: Vec<u8>,
    closed: bool,
    told: bool,
    broken: bool,
    /// Somebody has met a full socket: room is worth an event.
    wants_room: bool,
    news: Ready,
    calls: usize,
    counted_calls: usize,
    /// So much of what was heard has been found right.
    checked: usize,
}

impl Wire {
    /// A connection over which nothing has been said, with no room.
    pub fn new(manners: Manners) -> Self {
        Self { manners, ..Self::default() }
    }

    /// The peer has said something that was read before the relay began.
    pub fn say_ahead(&mut self, bytes: &[u8]) {
        self.said.extend_from_slice(bytes);
        self.read = self.said.len();
    }

    /// The peer says something.
    pub fn say(&mut self, bytes: &[u8]) {
        self.said.extend_from_slice(bytes);
        self.news.readable |= !bytes.is_empty();
    }

    /// The peer has room for so much more.
    pub fn make_room(&mut self, bytes: usize) {
        self.room += bytes;
        if self.wants_room && self.room > 0 {
            (self.wants_room, self.news.writable) = (false, true);
        }
    }

    /// The peer says no more.
    pub fn close(&mut self) {
        self.closed = true;
        self.news = Ready { readable: true, hangup: true, broken: self.told || self.news.broken, ..self.news };
    }

    /// The connection breaks: what has come before can still be read.
    pub fn break_off(&mut self) {
        self.broken = true;
        self.news = Ready { readable: true, writable: true, hangup: true, broken: true, ..self.news };
    }

    /// An event says what has happened since the last one.
    pub fn tell(&mut self, ready: &mut Ready) {
        let news = std::mem::take(&mut self.news);
        ready.readable |= news.readable;
        ready.writable |= news.writable;
        ready.hangup |= news.hangup;
        ready.broken |= news.broken;
    }

    /// True where something has happened that no event has told of.
    pub fn has_news(&self) -> bool {
        self.news != Ready::default()
    }

    /// What has been said and not read.
    pub fn unread(&self) -> usize {
        self.said.len() - self.read
    }

    /// All that was written, heard by the peer or not.
    pub fn written(&self) -> usize {
        self.heard.len() + self.withheld.len()
    }

    /// What the stream has taken in and not pushed out to the peer.
    pub fn withheld(&self) -> &[u8] {
        &self.withheld
    }

    /// The peer says no more.
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// The connection broke.
    pub fn is_broken(&self) -> bool {
        self.broken
    }

    /// The peer has been told that nothing more comes.
    pub fn is_told(&self) -> bool {
        self.told
    }

    /// A reader would get something: bytes, the end, or an error.
    pub fn is_readable(&self) -> bool {
        self.unread() > 0 || self.closed || self.broken
    }

    /// A writer would get something: room or an error.
    pub fn is_writable(&self) -> bool {
        self.room > 0 || self.broken
    }

    /// Calls since this was asked last.
    pub fn take_calls(&mut self) -> usize {
        self.calls - std::mem::replace(&mut self.counted_calls, self.calls)
    }

    /// What was written is what `source` has said, and all of it where the end was told. What has been found right is
    /// not looked at again.
    ///
    /// # Panics
    ///
    /// Where it is not.
    pub fn check_passed(&mut self, source: &Self) {
        let heard = self.heard.len();
        let right = self.written() <= source.said.len()
            && self.heard[self.checked..] == source.said[self.checked..heard]
            && source.said[heard..].starts_with(&self.withheld);
        assert!(right, "other bytes");
        self.checked = heard;
        let whole = !self.told || source.broken || self.written() == source.said.len();
        assert!(whole, "the end was told before all was passed on");
    }

    fn push_out(&mut self) {
        let length = self.withheld.len().min(self.room);
        self.room -= length;
        self.heard.extend(self.withheld.drain(..length));
    }

    fn call(&mut self) -> io::Result<()> {
        self.calls += 1;
        match self.manners.hiccup {
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
        let most = if self.manners.record == 0 { usize::MAX } else { self.manners.record };
        let length = buffer.len().min(self.unread()).min(most);
        if length > 0 {
            buffer[..length].copy_from_slice(&self.said[self.read..self.read + length]);
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
        assert!(!bytes.is_empty() && !self.told, "nothing is said behind the end");
        self.call()?;
        if self.broken {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        self.push_out();
        let length = bytes.len().min((self.room + self.manners.pouch).saturating_sub(self.withheld.len()));
        self.wants_room |= length < bytes.len();
        if length == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.withheld.extend_from_slice(&bytes[..length]);
        self.push_out();
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<bool> {
        self.call()?;
        if self.broken && !self.withheld.is_empty() {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        self.push_out();
        self.wants_room |= !self.withheld.is_empty();
        match self.withheld.is_empty() {
            // Both are allowed.
            false if self.calls.is_multiple_of(2) => Err(io::ErrorKind::WouldBlock.into()),
            empty => Ok(empty),
        }
    }

    fn shutdown_write(&mut self) {
        assert!(!self.told, "the end is told twice");
        self.told = true;
        // Both ways shut: the kernel says so.
        self.news.broken |= self.closed;
    }
}
