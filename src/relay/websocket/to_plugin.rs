//! What the remote sends, on its way to the plugin: events of the WebSocket in, bytes in the plugin's framing out.

use crate::buffer_pool;
use crate::protocol::framing::{Framing, encode_body, encode_close, encode_message};
use crate::websocket::{Event, Kind};

/// The remote's way to the plugin.
#[derive(Debug)]
pub(super) struct ToPlugin {
    framing: Framing,
    /// The kind of the message that is coming in.
    kind: Kind,
    /// As much of it as has come. In RAW nothing waits for the rest.
    message: Vec<u8>,
    /// What the plugin is to read.
    out: Vec<u8>,
    /// How much of it is written.
    written: usize,
    /// The plugin has gone: what comes is dropped.
    discarding: bool,
    /// Bytes of the remote that are not decoded yet, because the plugin is slow.
    pub undecoded: Vec<u8>,
    /// The connection may have more events even without input.
    pub more: bool,
    received: u64,
}

impl ToPlugin {
    /// An empty encoder. `received_ahead` is decoded first.
    pub(super) fn new(framing: Framing, received_ahead: Vec<u8>) -> Self {
        Self {
            framing,
            kind: Kind::Binary,
            message: Vec::new(),
            out: Vec::new(),
            written: 0,
            discarding: false,
            more: !received_ahead.is_empty(),
            undecoded: received_ahead,
            received: 0,
        }
    }

    /// The header block of the remote's response. Only MESG can tell it from a message.
    pub(super) fn handle_head(&mut self, head: &[u8]) {
        if self.framing == Framing::Mesg {
            encode_body("HEAD", head, &mut self.out);
        }
    }

    /// Takes an event of messages and control frames; the end is [`ToPlugin::handle_end`]'s. False if there is no memory
    /// for it, of which `left` bytes are left.
    pub(super) fn handle_event(&mut self, event: Event<'_>, left: usize) -> bool {
        if self.discarding {
            return true;
        }
        match event {
            Event::Start(kind) => self.kind = kind,
            Event::Data(bytes) => {
                self.received += bytes.len() as u64;
                let into = if self.framing == Framing::Raw { &mut self.out } else { &mut self.message };
                if into.capacity() - into.len() < bytes.len() && into.len() + bytes.len() > left {
                    return false;
                }
                buffer_pool::append(into, bytes);
            }
            Event::End if self.framing == Framing::Raw => {}
            Event::End => {
                let message = std::mem::take(&mut self.message);
                if self.out.capacity() == 0 {
                    self.out = buffer_pool::take(message.len() + MAX_HEADER);
                }
                encode_message(self.framing, self.kind, &message, &mut self.out);
                buffer_pool::give(message);
            }
            Event::Ping(payload) => self.show("PING", payload),
            Event::Pong(payload, _) => self.show("PONG", payload),
            Event::Closed { .. } | Event::InvalidClose { .. } | Event::Failed(_) => {}
        }
        true
    }

    /// The remote sends nothing more, for this reason.
    pub(super) fn handle_end(&mut self, code: u16, reason: &[u8]) {
        self.message = Vec::new();
        self.undecoded = Vec::new();
        self.more = false;
        if self.framing == Framing::Mesg && !self.discarding {
            encode_close(code, reason, &mut self.out);
        }
    }

    fn show(&mut self, verb: &str, payload: &[u8]) {
        if self.framing == Framing::Mesg {
            encode_body(verb, payload, &mut self.out);
        }
    }

    /// The plugin has gone: what waits is dropped, and what comes is dropped, too.
    pub(super) fn discard(&mut self) {
        self.discarding = true;
        self.message = Vec::new();
        self.out = Vec::new();
        self.written = 0;
    }

    /// Drops everything.
    pub(super) fn clear(&mut self) {
        self.discard();
        self.undecoded = Vec::new();
    }

    /// Bytes for the plugin, in its framing.
    pub(super) fn waiting(&self) -> &[u8] {
        &self.out[self.written..]
    }

    /// `bytes` of [`ToPlugin::waiting`] are written.
    pub(super) fn handle_written(&mut self, bytes: usize) {
        self.written += bytes;
        if self.written == self.out.len() {
            // An idle connection holds no large buffer; small messages find a small one.
            if self.out.capacity() > MAX_IDLE {
                buffer_pool::give(std::mem::take(&mut self.out));
            } else {
                self.out.clear();
            }
            self.written = 0;
        }
    }

    /// Bytes of memory held, messages that are coming in included.
    pub(super) fn held(&self) -> usize {
        [&self.out, &self.message, &self.undecoded].into_iter().map(buffer_pool::held).sum()
    }

    /// Gives back memory that what waits does not need.
    pub(super) fn shrink(&mut self) {
        if buffer_pool::shrink(&mut self.out, self.written) {
            self.written = 0;
        }
        buffer_pool::shrink(&mut self.message, 0);
        buffer_pool::shrink(&mut self.undecoded, 0);
    }

    /// Bytes of messages received.
    pub(super) fn received(&self) -> u64 {
        self.received
    }
}

/// Bytes of memory kept for the next message.
const MAX_IDLE: usize = 512;
/// Bytes that a framing adds to a message at most.
const MAX_HEADER: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(framing: Framing, events: &[Event<'_>]) -> String {
        let mut way = ToPlugin::new(framing, Vec::new());
        for event in events {
            assert!(way.handle_event(*event, 1000));
        }
        way.handle_end(1000, b"bye");
        String::from_utf8(way.waiting().to_vec()).unwrap()
    }

    #[test]
    fn encodes_events_in_every_framing() {
        let events = [
            Event::Start(Kind::Text),
            Event::Data(b"a\n"),
            Event::Ping(b"p"),
            Event::Data(b"b"),
            Event::End,
            Event::Start(Kind::Binary),
            Event::End,
            Event::Pong(b"", true),
        ];
        assert_eq!(encoded(Framing::Raw, &events), "a\nb");
        assert_eq!(encoded(Framing::Line, &events), "a b\n\n");
        assert_eq!(encoded(Framing::Mesg, &events), "PING 1\npTEXT 3\na\nbBINA 0\nPONG 0\nCLOS 1000 3\nbye");
    }

    #[test]
    fn a_message_without_memory_for_it_is_refused() {
        let mut way = ToPlugin::new(Framing::Mesg, Vec::new());
        way.handle_event(Event::Start(Kind::Text), 0);
        assert!(!way.handle_event(Event::Data(&[0; 100]), 99));
        assert!(way.handle_event(Event::Data(&[0; 100]), 100));
    }

    #[test]
    fn nothing_is_held_for_a_plugin_that_has_gone() {
        let mut way = ToPlugin::new(Framing::Mesg, Vec::new());
        way.handle_event(Event::Ping(b"x"), 1000);
        way.discard();
        way.handle_event(Event::Ping(b"x"), 1000);
        way.handle_end(1000, b"");
        assert_eq!(way.held(), 0);
    }
}
