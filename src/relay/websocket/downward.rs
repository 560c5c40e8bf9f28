//! What a WebSocket's remote has said, on its way to the plugin: events in, bytes in the plugin's framing out.

use crate::buffer_pool;
use crate::protocol::framing::{Framing, encode_body, encode_close, encode_message};
use crate::websocket::{Event, Kind};

/// What the remote has said.
#[derive(Debug)]
pub struct Downward {
    framing: Framing,
    /// What the message that is coming in holds.
    kind: Kind,
    /// As much of it as has come. With RAW nothing waits for the rest.
    message: Vec<u8>,
    /// What the plugin is to read.
    out: Vec<u8>,
    /// How much of it has been written.
    written: usize,
    /// Nobody listens any more.
    deaf: bool,
    received: u64,
}

impl Downward {
    /// A way through which nothing has passed.
    pub fn new(framing: Framing) -> Self {
        Self { framing, kind: Kind::Binary, message: Vec::new(), out: Vec::new(), written: 0, deaf: false, received: 0 }
    }

    /// The header block of the remote's answer, for those who can tell it from a message.
    pub fn handle_head(&mut self, head: &[u8]) {
        if self.framing == Framing::Mesg {
            encode_body("HEAD", head, &mut self.out);
        }
    }

    /// Takes what the remote says of messages and control frames; its end is [`Downward::handle_end`]'s. False where
    /// there is no memory for it, of which `left` bytes are left.
    pub fn handle_event(&mut self, event: Event<'_>, left: usize) -> bool {
        if self.deaf {
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
                    self.out = buffer_pool::take(message.len() + HEADER);
                }
                encode_message(self.framing, self.kind, &message, &mut self.out);
                buffer_pool::give(message);
            }
            Event::Ping(payload) => self.show("PING", payload),
            Event::Pong(payload, _) => self.show("PONG", payload),
            Event::Closed { .. } | Event::Failed(_) => {}
        }
        true
    }

    /// The remote says nothing more, for this reason.
    pub fn handle_end(&mut self, code: u16, reason: &str) {
        self.message = Vec::new();
        if self.framing == Framing::Mesg && !self.deaf {
            encode_close(code, reason, &mut self.out);
        }
    }

    fn show(&mut self, verb: &str, payload: &[u8]) {
        if self.framing == Framing::Mesg {
            encode_body(verb, payload, &mut self.out);
        }
    }

    /// Nobody listens any more: what waits is dropped, and what comes is, too.
    pub fn forget(&mut self) {
        self.deaf = true;
        self.message = Vec::new();
        self.out = Vec::new();
        self.written = 0;
    }

    /// What the plugin is to read next.
    pub fn waiting(&self) -> &[u8] {
        &self.out[self.written..]
    }

    /// So much of it has been written.
    pub fn handle_written(&mut self, bytes: usize) {
        self.written += bytes;
        if self.written == self.out.len() {
            // Nothing is held for a connection through which nothing passes; what passes often keeps a little.
            if self.out.capacity() > KEPT {
                buffer_pool::give(std::mem::take(&mut self.out));
            } else {
                self.out.clear();
            }
            self.written = 0;
        }
    }

    /// Bytes held, messages that are coming in included.
    pub fn held(&self) -> usize {
        self.waiting().len() + self.message.len()
    }

    /// Bytes of messages received.
    pub fn received(&self) -> u64 {
        self.received
    }
}

/// So much memory is kept for the next message.
const KEPT: usize = 512;
/// What a framing adds to a message at most.
const HEADER: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(framing: Framing, events: &[Event<'_>]) -> String {
        let mut way = Downward::new(framing);
        for event in events {
            assert!(way.handle_event(*event, 1000));
        }
        way.handle_end(1000, "bye");
        String::from_utf8(way.waiting().to_vec()).unwrap()
    }

    #[test]
    fn says_it_in_every_framing() {
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
        assert_eq!(heard(Framing::Raw, &events), "a\nb");
        assert_eq!(heard(Framing::Line, &events), "a b\n\n");
        assert_eq!(heard(Framing::Mesg, &events), "PING 1\npTEXT 3\na\nbBINA 0\nPONG 0\nCLOS 1000 3\nbye");
    }

    #[test]
    fn a_message_without_memory_for_it_is_refused() {
        let mut way = Downward::new(Framing::Mesg);
        way.handle_event(Event::Start(Kind::Text), 0);
        assert!(!way.handle_event(Event::Data(&[0; 100]), 99));
        assert!(way.handle_event(Event::Data(&[0; 100]), 100));
    }

    #[test]
    fn nothing_is_held_for_who_is_gone() {
        let mut way = Downward::new(Framing::Mesg);
        way.handle_event(Event::Ping(b"x"), 1000);
        way.forget();
        way.handle_event(Event::Ping(b"x"), 1000);
        way.handle_end(1000, "");
        assert_eq!(way.held(), 0);
    }
}
