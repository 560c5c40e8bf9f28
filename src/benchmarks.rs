//! What benchmarks measure: the WebSocket codec over bytes in memory.

use std::time::Instant;

use crate::websocket::{Connection, Control, Deflate, Entropy, Event, Kind, Leniency, Role, WebSocketSettings};

pub use crate::websocket::unmask;

/// Masks as fast as they come: drawing them is not what is measured.
struct FastMasks(u32);

impl Entropy for FastMasks {
    fn mask(&mut self) -> [u8; 4] {
        self.0 = self.0.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        self.0.to_be_bytes()
    }
}

/// Writes messages: masked, as a client does, or plain, as a server does.
pub struct FrameWriter {
    connection: Connection,
    masks: FastMasks,
}

/// Reads masked messages, as a server does.
pub struct FrameReader {
    connection: Connection,
    now: Instant,
}

/// What a frame decodes to.
pub enum Decoded<'a> {
    /// A piece of a message.
    Data(&'a [u8]),
    /// The end of a message.
    End,
}

fn connection(role: Role, deflate: Option<Deflate>) -> Connection {
    let settings = WebSocketSettings {
        role,
        mask: true,
        control: Control::Auto,
        max_message: 1 << 20,
        leniency: Leniency::default(),
        deflate,
        ping_interval: None,
    };
    Connection::new(settings, Instant::now())
}

impl FrameWriter {
    /// A writer of frames that are `masked`, or plain.
    pub fn new(masked: bool) -> Self {
        Self { connection: connection(if masked { Role::Client } else { Role::Server }, None), masks: FastMasks(1) }
    }

    /// A writer of plain frames whose messages are compressed, for a peer that inflates in a window of 32 KiB.
    pub fn compressing() -> Self {
        let deflate = Deflate {
            peer_window_bits: 15,
            peer_no_context_takeover: true,
            own_window_bits: 15,
            own_no_context_takeover: true,
        };
        Self { connection: connection(Role::Server, Some(deflate)), masks: FastMasks(1) }
    }

    /// Encodes a message behind those that wait, as text or as binary.
    ///
    /// # Panics
    ///
    /// If the connection does not take it, which only a closed one does not.
    pub fn write(&mut self, payload: &[u8], is_text: bool) {
        self.write_uncopied(payload, is_text, &mut |_, _| 0);
    }

    /// The same for a message that `write` may take from where it lies: see `Connection::send_uncopied`.
    ///
    /// # Panics
    ///
    /// As [`FrameWriter::write`].
    #[inline]
    pub fn write_uncopied(&mut self, payload: &[u8], is_text: bool, write: &mut dyn FnMut(&[u8], &[u8]) -> usize) {
        let kind = if is_text { Kind::Text } else { Kind::Binary };
        self.connection.send_uncopied(kind, payload, true, write, &mut self.masks).expect("it is open");
    }

    /// The frames that wait to be sent.
    pub fn frames(&mut self) -> &[u8] {
        self.connection.poll_transmit(&mut self.masks)
    }

    /// `bytes` of [`FrameWriter::frames`] are sent.
    pub fn handle_sent(&mut self, bytes: usize) {
        self.connection.handle_transmitted(bytes);
    }
}

impl Default for FrameReader {
    fn default() -> Self {
        Self { connection: connection(Role::Server, None), now: Instant::now() }
    }
}

impl FrameReader {
    /// Decodes `frames`, which may begin and end within one, and are unmasked in place.
    #[inline]
    pub fn read(&mut self, frames: &mut [u8], mut handle: impl FnMut(Decoded<'_>)) {
        let mut at = 0;
        loop {
            let (taken, event) = self.connection.handle_input(&mut frames[at..], self.now);
            at += taken;
            match event {
                Some(Event::Data(piece)) => handle(Decoded::Data(piece)),
                Some(Event::End) => handle(Decoded::End),
                Some(_) => {}
                None if taken == 0 => return,
                None => {}
            }
        }
    }
}
