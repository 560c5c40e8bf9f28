//! What the plugin sends, on its way to the remote: bytes in the plugin's framing in, frames out.

use std::time::Instant;

use super::{BATCH, MESSAGE_COST};
use crate::protocol::framing::{Decoder, Framing, FramingError, FramingKind, Item};
use crate::websocket::{Connection, Entropy, Kind, WriteFrame};

/// The plugin's way to the remote.
#[derive(Debug)]
pub(crate) struct ToRemote {
    framing: Framing,
    decoder: Decoder,
    sent: u64,
}

/// How the plugin ends its side.
#[derive(Debug)]
pub(crate) enum PluginEnd {
    /// With CLOS.
    Closed,
    /// By violating its framing.
    Violation(FramingError),
}

impl ToRemote {
    /// An empty encoder, for messages of `kind` and at most `limit` bytes. `sent_ahead` is encoded first.
    pub(crate) fn new(framing: Framing, kind: FramingKind, limit: usize, sent_ahead: &[u8]) -> Self {
        let mut decoder = Decoder::new(framing, kind, limit);
        decoder.handle_input(sent_ahead);
        Self { framing, decoder, sent: 0 }
    }

    /// Counts what is sent anew.
    pub(crate) fn restart_count(&mut self) {
        self.sent = 0;
    }

    /// The framing on the plugin's side.
    pub(crate) fn framing(&self) -> Framing {
        self.framing
    }

    /// Takes bytes that were just read from the plugin. Their memory grows by no more than `memory` bytes beyond them.
    /// `write`: see [`Connection::send_uncopied`].
    pub(crate) fn decode(
        &mut self,
        bytes: &[u8],
        memory: usize,
        connection: &mut Connection,
        write: &mut WriteFrame<'_>,
        entropy: &mut dyn Entropy,
    ) {
        if bytes.is_empty() {
            // The read was interrupted. In RAW an empty message would be sent.
        } else if self.framing != Framing::Raw {
            self.decoder.handle_input_within(bytes, memory);
        } else if connection.send_uncopied(Kind::Binary, bytes, true, write, entropy).is_ok() {
            // In RAW what is read at once is a message: it is encoded from where it lies.
            self.sent += bytes.len() as u64;
        }
    }

    /// Encodes what the plugin has sent, until enough waits for the remote or the turn's `allowance` is used up. Once a
    /// close is under way the connection takes nothing more (RFC 6455 section 5.5.1), and drops it.
    /// `write`: see [`Connection::send_uncopied`].
    pub(crate) fn encode(
        &mut self,
        connection: &mut Connection,
        allowance: &mut usize,
        now: Instant,
        write: &mut WriteFrame<'_>,
        entropy: &mut dyn Entropy,
    ) -> Option<PluginEnd> {
        while connection.queued() < BATCH && *allowance > 0 {
            let item = self.decoder.poll_item()?;
            *allowance = allowance.saturating_sub(MESSAGE_COST);
            match item {
                Ok(Item::Message { kind, payload, .. }) => {
                    if connection.send_uncopied(kind, payload, true, write, entropy).is_ok() {
                        self.sent += payload.len() as u64;
                    }
                }
                Ok(Item::Ping(payload)) => drop(connection.send_ping(payload, entropy)),
                Ok(Item::Pong(payload)) => drop(connection.send_pong(payload, entropy)),
                Ok(Item::Close { code, reason }) => {
                    connection.close(code, reason, now, entropy);
                    return Some(PluginEnd::Closed);
                }
                Err(error) => return Some(PluginEnd::Violation(error)),
            }
        }
        None
    }

    /// Drops what is not encoded yet.
    pub(crate) fn reset(&mut self) {
        self.decoder.reset();
    }

    /// Bytes of messages that are not encoded yet.
    pub(crate) fn buffered(&self) -> usize {
        self.decoder.buffered()
    }

    /// Bytes of memory held.
    pub(crate) fn held(&self) -> usize {
        self.decoder.held()
    }

    /// Gives back memory that is not needed; see [`Decoder::shrink`].
    pub(crate) fn shrink(&mut self) {
        self.decoder.shrink();
    }

    /// Bytes of messages sent.
    pub(crate) fn sent(&self) -> u64 {
        self.sent
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::TestEntropy;
    use crate::websocket::{Control, Leniency, Role, WebSocketSettings};

    #[test]
    fn an_interrupted_read_makes_no_message() {
        let settings = WebSocketSettings {
            role: Role::Client,
            mask: true,
            control: Control::Auto,
            max_message: 1000,
            leniency: Leniency::default(),
            deflate: None,
            ping_interval: None,
        };
        let mut connection = Connection::new(settings, Instant::now());
        let mut way = ToRemote::new(Framing::Raw, FramingKind::WebSocket, 1000, b"");
        way.decode(b"", 1000, &mut connection, &mut |_, _| 0, &mut TestEntropy::default());
        assert_eq!((connection.queued(), way.sent()), (0, 0));
        way.decode(b"x", 1000, &mut connection, &mut |_, _| 0, &mut TestEntropy::default());
        assert_eq!((connection.queued() > 0, way.sent()), (true, 1));
    }
}
