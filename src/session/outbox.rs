//! What the proxy itself says to a peer, until the peer's socket has taken it.

use std::io;

use crate::net::endpoint::{Endpoint, Transfer};

/// Bytes that are not written yet: replies to a plugin (no command is read before they are written, so it holds one reply
/// at most), or those of a TLS handshake.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    bytes: Vec<u8>,
    written: usize,
}

impl Outbox {
    /// An outbox with `bytes` in it.
    pub(super) fn new(bytes: Vec<u8>) -> Self {
        Self { bytes, written: 0 }
    }

    /// Adds bytes.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.bytes.reserve_exact(bytes.len());
        self.bytes.extend_from_slice(bytes);
    }

    /// Bytes that are still to be written.
    pub(super) fn unwritten(&self) -> usize {
        self.bytes.len() - self.written
    }

    /// Bytes of memory held.
    pub(super) fn held(&self) -> usize {
        self.bytes.capacity()
    }

    /// The bytes that are still to be written.
    pub(super) fn into_unwritten(mut self) -> Vec<u8> {
        self.bytes.drain(..self.written);
        self.bytes.shrink_to_fit();
        self.bytes
    }

    /// Writes what can be written. True if nothing is left.
    pub(super) fn flush(&mut self, peer: &mut dyn Endpoint) -> io::Result<bool> {
        while self.written < self.bytes.len() {
            match peer.try_write(&self.bytes[self.written..]) {
                Transfer::Bytes(sent) => self.written += sent,
                Transfer::Blocked | Transfer::Eof => return Ok(false),
                Transfer::Broken(error) => return Err(error),
            }
        }
        *self = Self::default();
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::endpoint::SocketEndpoint;
    use crate::net::readiness::Readiness;
    use crate::testing::wire::{FaultProfile, Wire, deliver_event};

    #[test]
    fn what_the_socket_does_not_take_is_written_later() {
        let mut plugin = SocketEndpoint::new(Wire::new(FaultProfile::default()), Readiness::ACCEPTED);
        plugin.stream_mut().make_room(4);
        let mut outbox = Outbox::new(b"OK ".to_vec());
        outbox.push(b"CONN\n");
        assert!(!outbox.flush(&mut plugin).unwrap());
        assert_eq!(outbox.unwritten(), 4);
        plugin.stream_mut().make_room(4);
        deliver_event(&mut plugin);
        assert!(outbox.flush(&mut plugin).unwrap());
        assert_eq!((&plugin.stream().received[..], outbox.unwritten()), (&b"OK CONN\n"[..], 0));
    }
}
