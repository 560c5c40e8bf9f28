//! What the proxy itself has to say to a plugin, and the plugin has not taken yet.

use std::io;

use crate::net::socket::Stream;
use crate::relay::Ready;

/// Replies on their way. Nothing new is asked for before it is empty, so it holds one reply at most.
#[derive(Debug, Default)]
pub struct Outbox {
    bytes: Vec<u8>,
    written: usize,
}

impl Outbox {
    /// An outbox with a reply in it.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self { bytes, written: 0 }
    }

    /// Adds a reply.
    pub fn say(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Bytes that are still to be written.
    pub fn left(&self) -> usize {
        self.bytes.len() - self.written
    }

    /// Writes what can be written. True where all has been said.
    pub fn flush(&mut self, socket: &mut impl Stream, ready: &mut Ready) -> io::Result<bool> {
        while self.written < self.bytes.len() && ready.writable {
            match socket.send(&self.bytes[self.written..]) {
                Ok(sent) => self.written += sent,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready.writable = false,
                Err(error) => return Err(error),
            }
        }
        let done = self.written == self.bytes.len();
        if done {
            *self = Self::default();
        }
        Ok(done)
    }
}
