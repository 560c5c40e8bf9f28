//! [`Sender`]: encodes frames and holds the bytes that wait to be written.

use super::deflater;
use super::frame::{Header, MAX_HEADER, Opcode};
use super::mask::Mask;
use super::{Entropy, Kind, WebSocketSettings};

/// Shorter payloads are copied behind their header, so that frames which follow each other leave at once. Copying costs less
/// than half a microsecond then.
const MIN_UNCOPIED: usize = 16 * 1024;
/// Bytes of memory that an idle connection keeps for its next frame at most. To allocate them each time costs as much as all else
/// that a short frame takes.
const MAX_KEPT: usize = 128;

/// Writes the header and the payload of a frame, and returns how many bytes of both together it has written: 0 if none.
pub(crate) type WriteFrame<'a> = dyn FnMut(&[u8], &[u8]) -> usize + 'a;

/// Encodes frames for the peer. The caller limits how much may wait.
#[derive(Debug)]
pub(super) struct Sender {
    masked: bool,
    /// Window in bits that messages may be compressed for; `None` if they may not.
    window_bits: Option<u8>,
    /// Whole frames. The first may have been written in part.
    out: Vec<u8>,
    /// Bytes of `out` that have been written.
    written: usize,
    /// True if a message has begun and not ended.
    open: bool,
}

impl Sender {
    /// A sender with these settings.
    pub(super) fn new(settings: &WebSocketSettings) -> Self {
        Self {
            // Section 5.1: a client MUST mask its frames, a server MUST NOT. MASK=off violates the former for servers
            // that allow it.
            masked: settings.role == super::Role::Client && settings.mask,
            window_bits: settings.deflate.map(|deflate| deflate.own_window_bits),
            out: Vec::new(),
            written: 0,
            open: false,
        }
    }

    /// Bytes that wait to be written.
    pub(super) fn queued(&self) -> usize {
        self.out.len() - self.written
    }

    /// Bytes of memory in use.
    pub(super) fn held(&self) -> usize {
        crate::buffer_pool::held(&self.out)
    }

    /// Gives back memory that the bytes which wait do not need.
    pub(super) fn shrink(&mut self) {
        if crate::buffer_pool::shrink(&mut self.out, self.written) {
            self.written = 0;
        }
    }

    /// The bytes to write.
    pub(super) fn pending(&self) -> &[u8] {
        &self.out[self.written..]
    }

    /// `bytes` of [`Sender::pending`] have been written. When none is left, the memory goes to the free list, so that an idle
    /// connection holds none but that of a short frame.
    pub(super) fn handle_transmitted(&mut self, bytes: usize) {
        debug_assert!(bytes <= self.queued(), "{bytes} bytes of {} are written", self.queued());
        self.written = (self.written + bytes).min(self.out.len());
        if self.written == self.out.len() {
            self.written = 0;
            if self.out.capacity() > MAX_KEPT {
                crate::buffer_pool::give(std::mem::take(&mut self.out));
            } else {
                self.out.clear();
            }
        }
    }

    /// Queues bytes as they are: the response of the opening handshake, or what is left of a frame.
    pub(super) fn raw(&mut self, bytes: &[u8]) {
        crate::buffer_pool::reserve(&mut self.out, bytes.len());
        self.out.extend_from_slice(bytes);
    }

    /// Sends a data frame. A message in one frame is compressed if that was negotiated and makes it shorter. One in several
    /// frames is not: its length is not known, and a compressor would have to be kept between them.
    ///
    /// If nothing waits, `write` gets the header and the payload of a long frame that leaves as it is. It returns how many of
    /// their bytes it has written. What is not written is queued.
    pub(super) fn data(
        &mut self,
        kind: Kind,
        payload: &[u8],
        fin: bool,
        write: &mut WriteFrame<'_>,
        entropy: &mut dyn Entropy,
    ) {
        // Section 5.4: frames after the first of a message are continuations.
        let opcode = if self.open { Opcode::Continuation } else { kind.into() };
        if fin
            && !self.open
            && let Some(window_bits) = self.window_bits
            && let Some(limit) = deflater::max_output(payload.len())
            && self.compressed_frame(opcode, payload, window_bits, limit, entropy)
        {
            return;
        }
        self.open = !fin;
        let header = Header { fin, compressed: false, opcode, mask: None, length: 0 };
        if payload.len() >= MIN_UNCOPIED && !self.masked && self.queued() == 0 {
            self.uncopied_frame(header, payload, write);
        } else {
            self.frame(header, payload, entropy);
        }
    }

    /// Queues a control frame; `payload` has at most 125 bytes. It may stand between the fragments of a message.
    pub(super) fn control(&mut self, opcode: Opcode, payload: &[u8], entropy: &mut dyn Entropy) {
        debug_assert!(opcode.is_control() && payload.len() <= super::MAX_CONTROL_PAYLOAD);
        self.frame(Header { fin: true, compressed: false, opcode, mask: None, length: 0 }, payload, entropy);
    }

    /// Makes room for a frame.
    #[inline]
    fn reserve(&mut self, payload: usize) {
        if self.written > self.out.len() / 2 {
            self.out.drain(..self.written);
            self.written = 0;
        }
        crate::buffer_pool::reserve(&mut self.out, MAX_HEADER + payload);
    }

    /// Queues a message in one frame, compressed to at most `limit` bytes. False if that is not enough: nothing is queued.
    #[inline(never)]
    fn compressed_frame(
        &mut self,
        opcode: Opcode,
        payload: &[u8],
        window_bits: u8,
        limit: usize,
        entropy: &mut dyn Entropy,
    ) -> bool {
        // As much as for the plain message, which may have to be sent after all.
        self.reserve(payload.len());
        let start = self.out.len();
        let end = start + MAX_HEADER + limit;
        self.out.resize(end, 0);
        let Some(length) = deflater::deflate(payload, window_bits, &mut self.out[end - limit..]) else {
            self.out.truncate(start);
            return false;
        };
        let mask = self.masked.then(|| entropy.mask());
        // RFC 7692 section 6: RSV1 of the first frame says that the message is compressed.
        let header = Header { fin: true, compressed: true, opcode, mask, length: length as u64 };
        let (header, header_length) = header.bytes();
        let compressed = start + header_length;
        self.out[start..compressed].copy_from_slice(&header[..header_length]);
        self.out.copy_within(end - limit..end - limit + length, compressed);
        self.out.truncate(compressed + length);
        if let Some(key) = mask {
            Mask::new(key).apply(&mut self.out[compressed..]);
        }
        true
    }

    /// Has a frame written, and queues what is left of it.
    #[inline(never)]
    fn uncopied_frame(&mut self, header: Header, payload: &[u8], write: &mut WriteFrame<'_>) {
        let (header, length) = Header { length: payload.len() as u64, ..header }.bytes();
        let header = &header[..length];
        let written = write(header, payload);
        let rest_of_header = header.get(written..).unwrap_or_default();
        let rest = payload.get(written.saturating_sub(length)..).unwrap_or_default();
        for rest in [rest_of_header, rest] {
            if !rest.is_empty() {
                self.raw(rest);
            }
        }
    }

    fn frame(&mut self, header: Header, payload: &[u8], entropy: &mut dyn Entropy) {
        self.reserve(payload.len());
        // Section 5.3: each frame MUST have a new masking key.
        let mask = self.masked.then(|| entropy.mask());
        Header { mask, length: payload.len() as u64, ..header }.encode(&mut self.out);
        match mask {
            Some(key) => Mask::new(key).append(payload, &mut self.out),
            None => self.out.extend_from_slice(payload),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::TestEntropy;
    use crate::websocket::Role;

    #[test]
    fn an_idle_sender_keeps_the_memory_of_a_short_frame_at_most() {
        for role in [Role::Client, Role::Server] {
            let mut sender = Sender::new(&crate::websocket::tests::settings(role));
            for (length, keeps) in
                [(20, true), (MAX_KEPT - MAX_HEADER, true), (MAX_KEPT, false), (5000, false), (1, true)]
            {
                sender.data(Kind::Binary, &vec![7; length], true, &mut |_, _| 0, &mut TestEntropy::default());
                assert!(sender.held() >= length);
                sender.handle_transmitted(sender.queued() - 1);
                assert_eq!(sender.pending().len(), 1);
                sender.handle_transmitted(1);
                assert_eq!(
                    (sender.queued(), sender.held(), sender.out.capacity() > 0),
                    (0, 0, keeps),
                    "{length} bytes"
                );
            }
        }
    }
}
