//! What the proxy itself says to a plugin, until the plugin's socket has taken it.

use std::io;

use crate::net::endpoint::{Endpoint, Transfer};

/// Replies that are not written yet. No command is read before it is empty, so it holds one reply at most.
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
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Bytes that are still to be written.
    pub fn unwritten(&self) -> usize {
        self.bytes.len() - self.written
    }

    /// Writes what can be written. True if nothing is left.
    pub fn flush(&mut self, plugin: &mut dyn Endpoint) -> io::Result<bool> {
        while self.written < self.bytes.len() {
            match plugin.try_write(&self.bytes[self.written..]) {
                Transfer::Bytes(sent) => self.written += sent,
                Transfer::Blocked | Transfer::Eof => return Ok(false),
                Transfer::Broken(error) => return Err(error),
            }
        }
        *self = Self::default();
        Ok(true)
    }
}
