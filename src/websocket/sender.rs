//! Frames, out of messages; and what waits to be written.

use super::frame::{Header, Opcode};
use super::mask::Mask;
use super::{Entropy, Kind, Settings};

/// Writes what the peer is to read. Holds what the caller has not been able to write; how much that may be is the
/// caller's to bound.
#[derive(Debug)]
pub struct Sender {
    masked: bool,
    /// Whole frames, of which the first has been written in part.
    out: Vec<u8>,
    /// So much of `out` has been written.
    written: usize,
    /// A message has begun and not ended.
    open: bool,
}

impl Sender {
    /// Writes as `settings` say.
    pub fn new(settings: &Settings) -> Self {
        Self {
            // Section 5.1: a client MUST mask (unless its server is known not to care), a server MUST NOT.
            masked: settings.role == super::Role::Client && settings.mask,
            out: Vec::new(),
            written: 0,
            open: false,
        }
    }

    /// Bytes waiting to be written.
    pub fn queued(&self) -> usize {
        self.out.len() - self.written
    }

    /// What is to be written.
    pub fn waiting(&self) -> &[u8] {
        &self.out[self.written..]
    }

    /// So many bytes of [`Sender::waiting`] have been written. An idle connection holds no memory for that.
    pub fn handle_transmitted(&mut self, bytes: usize) {
        debug_assert!(bytes <= self.queued(), "{bytes} bytes of {} are written", self.queued());
        self.written = (self.written + bytes).min(self.out.len());
        if self.written == self.out.len() {
            crate::buffer_pool::give(std::mem::take(&mut self.out));
            self.written = 0;
        }
    }

    /// A data frame.
    pub fn data(&mut self, kind: Kind, payload: &[u8], fin: bool, entropy: &mut dyn Entropy) {
        // Section 5.4: what follows the first frame of a message is a continuation.
        let opcode = if self.open { Opcode::Continuation } else { kind.into() };
        self.open = !fin;
        self.frame(Header { fin, compressed: false, opcode, mask: None, length: 0 }, payload, entropy);
    }

    /// A control frame; `payload` has at most 125 bytes. It may stand inside a message.
    pub fn control(&mut self, opcode: Opcode, payload: &[u8], entropy: &mut dyn Entropy) {
        debug_assert!(opcode.is_control() && payload.len() <= super::CONTROL_LIMIT);
        self.frame(Header { fin: true, compressed: false, opcode, mask: None, length: 0 }, payload, entropy);
    }

    fn frame(&mut self, header: Header, payload: &[u8], entropy: &mut dyn Entropy) {
        if self.written > self.out.len() / 2 {
            self.out.drain(..self.written);
            self.written = 0;
        }
        // Section 5.3: a key of its own for each frame.
        let mask = self.masked.then(|| entropy.mask());
        let length = super::frame::HEADER_LIMIT + payload.len();
        match self.out.capacity() {
            0 => self.out = crate::buffer_pool::take(length),
            _ => self.out.reserve(length),
        }
        Header { mask, length: payload.len() as u64, ..header }.encode(&mut self.out);
        match mask {
            Some(key) => Mask::new(key).append(payload, &mut self.out),
            None => self.out.extend_from_slice(payload),
        }
    }
}
