//! What the remote sends, on its way to the plugin: events of the WebSocket in, bytes in the plugin's framing out.

use crate::buffer_pool;
use crate::protocol::framing::{
    Framing, LineEncoder, encode_body, encode_close, encode_message, encode_message_header,
};
use crate::relay::memory_budget::RESERVE;
use crate::websocket::{Event, Kind};

/// Bytes of the longest message that is put together as a rule, so that the plugin finds all of it when it is notified.
/// Longer ones, as far as the remote announces their length, are passed on while they come.
pub(super) const MAX_ASSEMBLED: usize = 64 * 1024;
/// Line ends in a row that are held back in a message that is passed on while it comes (LINE). No text has more at its end.
const MAX_LINE_ENDS: usize = 1024;
/// Bytes of memory kept for the next message.
const MAX_IDLE: usize = 512;
/// Bytes that a framing adds to a message at most.
const MAX_HEADER: usize = 16;

/// The remote's way to the plugin.
#[derive(Debug)]
pub(crate) struct ToPlugin {
    framing: Framing,
    /// Messages are handed over whole, whatever their length.
    whole: bool,
    incoming: Incoming,
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

/// The message that is coming in.
#[derive(Debug, Default)]
enum Incoming {
    /// There is none; or the framing is RAW, in which nothing waits for the rest.
    #[default]
    Nothing,
    /// It is put together.
    Assembled(Assembly),
    /// MESG: its header is in `out`, and its bytes follow as they come.
    PassedBody,
    /// LINE: its bytes go to `out` as they come.
    PassedLine(LineEncoder),
}

/// A message that is put together.
#[derive(Debug)]
struct Assembly {
    kind: Kind,
    /// Its length, if it may be passed on before it is whole.
    length: Option<usize>,
    /// As much of it as has come.
    bytes: Vec<u8>,
}

impl ToPlugin {
    /// An empty encoder. `whole`: messages are handed over whole, whatever their length. `received_ahead` is decoded first.
    pub(crate) fn new(framing: Framing, whole: bool, received_ahead: Vec<u8>) -> Self {
        Self {
            framing,
            whole,
            incoming: Incoming::Nothing,
            out: Vec::new(),
            written: 0,
            discarding: false,
            more: !received_ahead.is_empty(),
            undecoded: received_ahead,
            received: 0,
        }
    }

    /// The header block of the remote's response. Only MESG can tell it from a message.
    pub(crate) fn handle_head(&mut self, head: &[u8]) {
        if self.framing == Framing::Mesg {
            encode_body("HEAD", head, &mut self.out);
        }
    }

    /// Takes an event of messages and control frames; the end is [`ToPlugin::handle_end`]'s. False if it takes more memory
    /// than `left`, besides what is held already.
    pub(crate) fn handle_event(&mut self, event: Event<'_>, left: usize) -> bool {
        if self.discarding {
            return true;
        }
        match event {
            Event::Start { .. } if self.framing == Framing::Raw => {}
            Event::Start { kind, length } => {
                let length = length.and_then(|length| usize::try_from(length).ok()).filter(|_| !self.whole);
                let assembly = Assembly { kind, length, bytes: Vec::new() };
                match length.filter(|&length| length > MAX_ASSEMBLED) {
                    Some(length) => self.pass(length, assembly, left),
                    None => self.incoming = Incoming::Assembled(assembly),
                }
            }
            Event::Data(bytes) => {
                self.received += bytes.len() as u64;
                return self.handle_data(bytes, left);
            }
            Event::End => match std::mem::take(&mut self.incoming) {
                Incoming::Nothing | Incoming::PassedBody => {}
                Incoming::PassedLine(mut encoder) => encoder.finish(&mut self.out),
                Incoming::Assembled(Assembly { kind, bytes, .. }) => {
                    buffer_pool::reserve(&mut self.out, bytes.len() + MAX_HEADER);
                    encode_message(self.framing, kind, &bytes, &mut self.out);
                    buffer_pool::give(bytes);
                }
            },
            Event::Ping(payload) => self.show("PING", payload),
            Event::Pong(payload, _) => self.show("PONG", payload),
            Event::Closed { .. } | Event::InvalidClose { .. } | Event::Failed(_) => {}
        }
        true
    }

    /// Takes a piece of a message. False if there is no memory for it.
    fn handle_data(&mut self, bytes: &[u8], left: usize) -> bool {
        match &mut self.incoming {
            Incoming::Nothing => return append_if_room(&mut self.out, bytes, left),
            Incoming::Assembled(assembly) => {
                return append_if_room(&mut assembly.bytes, bytes, left)
                    || (self.pass_early(left) && self.handle_data(bytes, left));
            }
            // Not checked: these bytes are in memory already, and no more are read before the plugin has taken them.
            Incoming::PassedBody => buffer_pool::append_within(&mut self.out, bytes, left),
            Incoming::PassedLine(encoder) => {
                buffer_pool::reserve_within(&mut self.out, bytes.len(), left);
                encoder.encode(bytes, &mut self.out);
            }
        }
        true
    }

    /// Passes the message that is coming in on from now on, so that it need not wait for memory, of which `left` bytes are
    /// left. False if its length is not known, or if the plugin must have it whole.
    pub(crate) fn pass_early(&mut self, left: usize) -> bool {
        match std::mem::take(&mut self.incoming) {
            Incoming::Assembled(assembly @ Assembly { length: Some(length), .. }) => {
                self.pass(length, assembly, left);
                true
            }
            incoming => {
                self.incoming = incoming;
                false
            }
        }
    }

    /// Passes a message of `length` bytes on from now on. A part of it may have come. The buffer grows by no more than it needs
    /// if fewer than `left` bytes of memory are left.
    fn pass(&mut self, length: usize, Assembly { kind, bytes, .. }: Assembly, left: usize) {
        buffer_pool::reserve_within(&mut self.out, bytes.len() + MAX_HEADER, left);
        self.incoming = match self.framing {
            Framing::Raw => Incoming::Nothing,
            Framing::Mesg => {
                encode_message_header(kind, length, &mut self.out);
                self.out.extend_from_slice(&bytes);
                Incoming::PassedBody
            }
            Framing::Line => {
                let mut encoder = LineEncoder::new(MAX_LINE_ENDS);
                encoder.encode(&bytes, &mut self.out);
                Incoming::PassedLine(encoder)
            }
        };
        buffer_pool::give(bytes);
    }

    /// The remote sends nothing more, for this reason. True if a message was passed on in part: its body cannot be
    /// interrupted, so the plugin's stream ends within it.
    pub(crate) fn handle_end(&mut self, code: u16, reason: &[u8]) -> bool {
        let incoming = std::mem::take(&mut self.incoming);
        self.undecoded = Vec::new();
        self.more = false;
        let is_passed = matches!(incoming, Incoming::PassedBody | Incoming::PassedLine(_)) && !self.discarding;
        if self.framing == Framing::Mesg && !self.discarding && !is_passed {
            encode_close(code, reason, &mut self.out);
        }
        is_passed
    }

    /// The remote is lost, and another connection takes its place: what has come of a message is dropped. False if the plugin
    /// has a part of it already, which cannot be taken back.
    pub(crate) fn handle_loss(&mut self) -> bool {
        if matches!(self.incoming, Incoming::PassedBody | Incoming::PassedLine(_)) {
            return false;
        }
        self.incoming = Incoming::Nothing;
        (self.undecoded, self.more) = (Vec::new(), false);
        true
    }

    /// What the plugin is still to be told from before, in its framing. To be called before any event.
    pub(crate) fn handle_resumed(&mut self, mut bytes: Vec<u8>) {
        bytes.extend_from_slice(&self.out);
        self.out = bytes;
    }

    fn show(&mut self, verb: &str, payload: &[u8]) {
        if self.framing == Framing::Mesg {
            encode_body(verb, payload, &mut self.out);
        }
    }

    /// The plugin has gone: what waits is dropped, and what comes is dropped, too.
    pub(crate) fn discard(&mut self) {
        self.discarding = true;
        self.incoming = Incoming::Nothing;
        self.out = Vec::new();
        self.written = 0;
    }

    /// Drops everything.
    pub(crate) fn clear(&mut self) {
        self.discard();
        self.undecoded = Vec::new();
    }

    /// Bytes held of a message that has come in part.
    pub(crate) fn incomplete(&self) -> usize {
        if let Incoming::Assembled(assembly) = &self.incoming { assembly.bytes.len() } else { 0 }
    }

    /// Bytes for the plugin, in its framing.
    pub(crate) fn waiting(&self) -> &[u8] {
        &self.out[self.written..]
    }

    /// `bytes` of [`ToPlugin::waiting`] are written.
    pub(crate) fn handle_written(&mut self, bytes: usize) {
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
    pub(crate) fn held(&self) -> usize {
        buffer_pool::held(&self.out) + self.incomplete_held() + buffer_pool::held(&self.undecoded)
    }

    /// Bytes of [`ToPlugin::held`] for a message that has come in part.
    pub(super) fn incomplete_held(&self) -> usize {
        if let Incoming::Assembled(assembly) = &self.incoming { buffer_pool::held(&assembly.bytes) } else { 0 }
    }

    /// Gives back memory that what waits does not need.
    pub(crate) fn shrink(&mut self) {
        if buffer_pool::shrink(&mut self.out, self.written) {
            self.written = 0;
        }
        if let Incoming::Assembled(assembly) = &mut self.incoming {
            buffer_pool::shrink(&mut assembly.bytes, 0);
        }
        buffer_pool::shrink(&mut self.undecoded, 0);
    }

    /// Bytes of messages received.
    pub(crate) fn received(&self) -> u64 {
        self.received
    }
}

/// Appends `bytes`, unless that takes more than the `left` bytes of memory. [`RESERVE`] bytes are always there.
fn append_if_room(buffer: &mut Vec<u8>, bytes: &[u8], left: usize) -> bool {
    let needed = buffer.len() + bytes.len();
    let grows = needed.saturating_sub(buffer.capacity());
    if grows > left && needed > RESERVE {
        return false;
    }
    buffer_pool::append_within(buffer, bytes, left);
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(framing: Framing, events: &[Event<'_>]) -> String {
        let mut way = ToPlugin::new(framing, false, Vec::new());
        for event in events {
            assert!(way.handle_event(*event, 1000));
        }
        way.handle_end(1000, b"bye");
        String::from_utf8(way.waiting().to_vec()).unwrap()
    }

    #[test]
    fn encodes_events_in_every_framing() {
        let events = [
            Event::Start { kind: Kind::Text, length: None },
            Event::Data(b"a\n"),
            Event::Ping(b"p"),
            Event::Data(b"b"),
            Event::End,
            Event::Start { kind: Kind::Binary, length: Some(0) },
            Event::End,
            Event::Pong(b"", true),
        ];
        assert_eq!(encoded(Framing::Raw, &events), "a\nb");
        assert_eq!(encoded(Framing::Line, &events), "a b\n\n");
        assert_eq!(encoded(Framing::Mesg, &events), "PING 1\npTEXT 3\na\nbBINA 0\nPONG 0\nCLOS 1000 3\nbye");
    }

    #[test]
    fn a_message_without_memory_for_it_is_refused() {
        let (start, piece) = (Event::Start { kind: Kind::Text, length: None }, [b'x'; RESERVE]);
        for framing in [Framing::Mesg, Framing::Line] {
            let mut way = ToPlugin::new(framing, false, Vec::new());
            way.handle_event(start, 0);
            assert!(way.handle_event(Event::Data(&piece), 0), "the reserve");
            assert!(!way.handle_event(Event::Data(&piece), RESERVE - 1));
            assert!(way.handle_event(Event::Data(&piece), RESERVE));
            assert!(way.held() <= 2 * RESERVE, "{} bytes", way.held());
            assert!(way.waiting().is_empty());
        }
    }

    #[test]
    fn a_message_of_known_length_is_passed_on_where_memory_is_short() {
        for (framing, whole) in [(Framing::Mesg, "TEXT 3000\n"), (Framing::Line, "")] {
            let mut way = ToPlugin::new(framing, false, Vec::new());
            way.handle_event(Event::Start { kind: Kind::Text, length: Some(3000) }, 0);
            assert!(way.handle_event(Event::Data(&[b'x'; 1000]), 0) && way.waiting().is_empty());
            assert!(way.handle_event(Event::Data(&[b'y'; 1999]), 0));
            let begun = [whole.as_bytes(), &[b'x'; 1000], &[b'y'; 1999]].concat();
            assert_eq!(way.waiting(), begun);
            assert!(way.handle_event(Event::Data(b"\n"), 0) && way.handle_event(Event::End, 0));
            assert_eq!(way.waiting()[begun.len()..], *b"\n", "in LINE the end of the message, not its last byte");
            way.handle_end(1000, b"");
            assert_eq!(way.waiting().ends_with(b"CLOS 1000 0\n"), framing == Framing::Mesg);
        }
        let mut way = ToPlugin::new(Framing::Mesg, true, Vec::new());
        way.handle_event(Event::Start { kind: Kind::Text, length: Some(3000) }, 0);
        assert!(!way.handle_event(Event::Data(&[b'x'; 3000]), 2999), "a plugin that may come back needs all of it");
    }

    #[test]
    fn a_long_message_is_passed_on_while_it_comes() {
        let length = MAX_ASSEMBLED as u64 + 1;
        for (framing, header) in [(Framing::Mesg, format!("BINA {length}\n")), (Framing::Line, String::new())] {
            let mut way = ToPlugin::new(framing, false, Vec::new());
            way.handle_event(Event::Start { kind: Kind::Binary, length: Some(length) }, 0);
            assert_eq!(way.waiting(), header.as_bytes());
            assert!(way.handle_event(Event::Data(b"a\r"), 0) && way.handle_event(Event::Data(b"\nb"), 0));
            let body = if framing == Framing::Mesg { "a\r\nb" } else { "a b" };
            assert_eq!(way.waiting(), [&header, body].concat().as_bytes());
            assert!(way.handle_end(1007, b"not UTF-8"), "the end comes within it");
            assert_eq!(way.waiting(), [&header, body].concat().as_bytes(), "no CLOS inside a body");
        }
        for (length, whole) in [(Some(length), true), (Some(length - 1), false), (None, false)] {
            let mut way = ToPlugin::new(Framing::Mesg, whole, Vec::new());
            way.handle_event(Event::Start { kind: Kind::Binary, length }, 0);
            assert!(way.handle_event(Event::Data(b"a"), 0) && way.waiting().is_empty(), "{length:?}, {whole}");
            assert!(!way.handle_end(1000, b"") && way.waiting() == b"CLOS 1000 0\n");
        }
    }

    #[test]
    fn nothing_is_held_for_a_plugin_that_has_gone() {
        let mut way = ToPlugin::new(Framing::Mesg, true, Vec::new());
        way.handle_event(Event::Ping(b"x"), 1000);
        way.discard();
        way.handle_event(Event::Ping(b"x"), 1000);
        way.handle_end(1000, b"");
        assert_eq!(way.held(), 0);
    }
}
