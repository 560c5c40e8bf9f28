//! The server at the other end: what it says, as frames of every make, and what it hears.

use std::collections::VecDeque;
use std::time::Instant;

use flate2::{Compress, Compression, FlushCompress};
use testkit::random::Random;
use testkit::websocket::frame_of as frame;

use super::pick;
use crate::relay::websocket::to_plugin::MAX_ASSEMBLED;
use crate::testing::TestEntropy;
use crate::testing::wire::Wire;
use crate::websocket::{Connection, Control, Deflate, Event, Kind, Leniency, Role, WebSocketSettings, close};

/// What one end has said. The plugin's words and the server's are of one kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Word {
    Message(Kind, Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(u16, String),
    /// What breaks the rules: the code that it is answered with, and what is a message's of it all the same.
    Fault(u16, Vec<u8>),
}

impl Word {
    /// What a message says; with RAW there is nothing else.
    pub(super) fn message(&self) -> &[u8] {
        match self {
            Self::Message(_, payload) => payload,
            other => panic!("{other:?} is no message"),
        }
    }
}

/// A word, and where in the stream it is complete.
#[derive(Clone, Debug)]
pub(super) struct Said {
    pub word: Word,
    pub end: usize,
    /// It is a message in one frame that is not compressed: it may be passed on while it comes.
    pub passes: bool,
}

/// What was agreed on where messages are compressed.
pub(super) const AGREED: Deflate = Deflate {
    peer_window_bits: 11,
    peer_no_context_takeover: false,
    own_window_bits: 9,
    own_no_context_takeover: false,
};

pub(super) struct Server {
    /// Reads what the relay writes, and says what needs no special make.
    connection: Connection,
    /// So much of what the wire has heard was read.
    fed: usize,
    message: Option<(Kind, Vec<u8>)>,
    pub heard: Vec<Word>,
    pub said: Vec<Said>,
    /// Said, and still on its way to the relay.
    pub pending: VecDeque<u8>,
    total: usize,
    /// It has said its last word.
    pub done: bool,
    compress: Option<Compress>,
    /// What the relay lets through, and this server makes use of.
    leniency: Leniency,
    max_message: usize,
    /// Its entropy; a server masks nothing.
    none: TestEntropy,
}

impl Server {
    pub(super) fn new(now: Instant, deflates: bool, client: &WebSocketSettings) -> Self {
        let settings = WebSocketSettings {
            // A server that expects no masks reads as a client does, and sends none either.
            role: if client.mask { Role::Server } else { Role::Client },
            mask: false,
            control: Control::Hand,
            max_message: u64::MAX,
            leniency: Leniency::default(),
            // The other way round: it reads what the relay compresses.
            deflate: deflates.then_some(Deflate {
                peer_window_bits: AGREED.own_window_bits,
                peer_no_context_takeover: AGREED.own_no_context_takeover,
                own_window_bits: AGREED.peer_window_bits,
                own_no_context_takeover: AGREED.peer_no_context_takeover,
            }),
            ping_interval: None,
        };
        let compress =
            deflates.then(|| Compress::new_with_window_bits(Compression::new(6), false, AGREED.peer_window_bits));
        Self {
            connection: Connection::new(settings, now),
            fed: 0,
            message: None,
            heard: Vec::new(),
            said: Vec::new(),
            pending: VecDeque::new(),
            total: 0,
            done: false,
            compress,
            leniency: client.leniency,
            max_message: client.max_message as usize,
            none: TestEntropy::default(),
        }
    }

    fn put(&mut self, bytes: &[u8]) {
        self.pending.extend(bytes);
        self.total += bytes.len();
    }

    fn note(&mut self, word: Word) {
        self.note_message(word, false);
    }

    fn note_message(&mut self, word: Word, passes: bool) {
        self.said.push(Said { word, end: self.total, passes });
    }

    /// What the connection wants to be sent goes behind what was said before.
    fn put_own(&mut self) {
        let bytes = self.connection.poll_transmit(&mut self.none).to_vec();
        self.connection.handle_transmitted(bytes.len());
        self.put(&bytes);
    }

    /// Says one of many things.
    pub(super) fn speak(&mut self, random: &mut Random, faults: bool, now: Instant) {
        if self.done {
            return;
        }
        let number = self.said.len();
        match pick(random, 100) {
            0..=9 => self.say_ping(random),
            10..=14 => {
                let payload = format!("u{number}").into_bytes();
                self.put(&frame(0x8a, &payload));
                self.note(Word::Pong(payload));
            }
            15 if faults => self.break_rules(random),
            16 if faults => self.send_close(random, now),
            _ => {
                let (kind, mut payload) = message(random, number, self.max_message);
                if self.leniency.utf8 {
                    payload.iter_mut().filter(|byte| **byte == 0xc3).for_each(|byte| *byte = 0xff);
                }
                self.say_message(random, kind, payload);
            }
        }
    }

    /// A frame, masked at times if that is let through.
    fn frame(&self, random: &mut Random, first: u8, payload: &[u8]) -> Vec<u8> {
        let plain = frame(first, payload);
        if !self.leniency.mask || pick(random, 2) == 0 {
            return plain;
        }
        let (header, payload) = plain.split_at(plain.len() - payload.len());
        let key = [1, 2, 3, 0xff];
        let masked = payload.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key);
        [header[0], header[1] | 0x80].iter().chain(&header[2..]).chain(&key).copied().chain(masked).collect()
    }

    fn say_ping(&mut self, random: &mut Random) {
        let length = [2, 20, 120][pick(random, 3)];
        let mut payload = format!("s{}", self.said.len()).into_bytes();
        payload.resize(payload.len().max(length), b'.');
        let frame = self.frame(random, 0x89, &payload);
        self.put(&frame);
        self.note(Word::Ping(payload));
    }

    fn say_message(&mut self, random: &mut Random, kind: Kind, payload: Vec<u8>) {
        let opcode = if kind == Kind::Text { 1 } else { 2 };
        let passes = match pick(random, 4) {
            0 => {
                // It would compress, and `compress` would not know of that.
                let plain = self.compress.is_none();
                if plain && self.connection.send(kind, &payload, true, &mut self.none).is_ok() {
                    self.put_own();
                } else {
                    self.put(&frame(0x80 | opcode, &payload));
                }
                true
            }
            1 if self.compress.is_some() => {
                let squeezed = self.squeeze(&payload);
                self.put_fragments(random, opcode | 0x40, &squeezed);
                false
            }
            _ => self.put_fragments(random, opcode, &payload),
        };
        self.note_message(Word::Message(kind, payload), passes);
    }

    /// A message in some frames, with pings between. True if it is one frame.
    fn put_fragments(&mut self, random: &mut Random, first: u8, payload: &[u8]) -> bool {
        let cuts = pick(random, 4);
        let mut at: Vec<usize> = (0..cuts).map(|_| pick(random, payload.len() + 1)).collect();
        at.extend([0, payload.len()]);
        at.sort_unstable();
        for (index, pair) in at.windows(2).enumerate() {
            if index > 0 && pick(random, 3) == 0 {
                self.say_ping(random);
            }
            let opcode = if index == 0 { first } else { 0 };
            let last = if index == cuts { 0x80 } else { 0 };
            let frame = self.frame(random, opcode | last, &payload[pair[0]..pair[1]]);
            self.put(&frame);
        }
        cuts == 0
    }

    fn squeeze(&mut self, payload: &[u8]) -> Vec<u8> {
        let Some(compress) = &mut self.compress else { return Vec::new() };
        if payload.is_empty() {
            return vec![0];
        }
        let mut out = Vec::with_capacity(payload.len() + 1000);
        compress.compress_vec(payload, &mut out, FlushCompress::Sync).unwrap();
        out.truncate(out.len() - 4);
        out
    }

    /// Closes, with a code and a reason or without.
    pub(super) fn send_close(&mut self, random: &mut Random, now: Instant) {
        let (code, reason) = [(1000, "bye"), (1005, ""), (4000, "why not"), (1011, "")][pick(random, 4)];
        if self.done {
            return;
        }
        if pick(random, 2) == 0 {
            self.connection.close(code, reason, now, &mut self.none);
            self.put_own();
        } else {
            self.put(&frame(0x88, &close::encode(code, reason)));
            if pick(random, 4) == 0 {
                self.put(b"what is not read any more");
            }
        }
        self.note(Word::Close(code, reason.into()));
        self.done = true;
    }

    /// Breaks the rules, and then says nothing more.
    fn break_rules(&mut self, random: &mut Random) {
        if self.max_message > MAX_ASSEMBLED && pick(random, 4) == 0 {
            // A part of it has passed before the last byte shows that it is no text.
            let length = [40, MAX_ASSEMBLED + 1, self.max_message][pick(random, 3)];
            let text = [&vec![b'z'; length - 1][..], b"\xff"].concat();
            self.put(&frame(0x81, &text));
            self.note_message(Word::Fault(1007, text), true);
            self.done = true;
            return;
        }
        let nothing = Vec::new;
        let too_long = self.max_message + 1;
        let (bytes, code, data) = match pick(random, 12) {
            0 => (frame(0x91, b""), 1002, nothing()),
            1 => (frame(0x83, b""), 1002, nothing()),
            2 => (frame(0x80, b"of nothing"), 1002, nothing()),
            3 => ([frame(0x01, b"a"), frame(0x81, b"b")].concat(), 1002, b"a".to_vec()),
            4 => (frame(0x81, b"ok\xff"), 1007, b"ok".to_vec()),
            5 => (frame(0x81, b"\xc3"), 1007, b"\xc3".to_vec()),
            6 => (frame(0x88, &[3]), 1002, nothing()),
            7 => (frame(0x88, &1005u16.to_be_bytes()), 1002, nothing()),
            8 => (frame(0x88, b"\x03\xe8\xff"), 1007, nothing()),
            9 => (frame(0x09, b"in pieces"), 1002, nothing()),
            10 => (vec![0x81, 0x80, 1, 2, 3, 4], 1002, nothing()),
            _ if self.compress.is_some() && pick(random, 2) == 0 => {
                if pick(random, 2) == 0 {
                    (frame(0xc1, b"\xff\xff\xff\xff"), 1007, nothing())
                } else {
                    let data = vec![b'z'; too_long];
                    (frame(0xc2, &self.squeeze(&data)), 1009, data)
                }
            }
            _ => (frame(0x82, &vec![b'z'; too_long]), 1009, nothing()),
        };
        self.put(&bytes);
        self.note(Word::Fault(code, data));
        self.done = true;
    }

    /// Hears what the wire has heard, and answers: pings at once, a close with its last word.
    pub(super) fn listen(&mut self, wire: &Wire, now: Instant) {
        let mut bytes = wire.received[self.fed..].to_vec();
        self.fed = wire.received.len();
        let mut at = 0;
        let mut pings = Vec::new();
        loop {
            let (taken, event) = self.connection.handle_input(&mut bytes[at..], now);
            at += taken;
            match event {
                None if taken == 0 => break,
                None => {}
                Some(Event::Start { kind, .. }) => self.message = Some((kind, Vec::new())),
                Some(Event::Data(piece)) => self.message.as_mut().unwrap().1.extend_from_slice(piece),
                Some(Event::End) => {
                    let (kind, payload) = self.message.take().unwrap();
                    self.heard.push(Word::Message(kind, payload));
                }
                Some(Event::Ping(payload)) => {
                    pings.push(payload.to_vec());
                    self.heard.push(Word::Ping(payload.to_vec()));
                }
                Some(Event::Pong(payload, _)) => self.heard.push(Word::Pong(payload.to_vec())),
                Some(Event::Closed { code, reason }) => {
                    self.heard.push(Word::Close(code, String::from_utf8(reason.to_vec()).unwrap()));
                }
                Some(Event::InvalidClose { error: failure, .. } | Event::Failed(failure)) => {
                    panic!("the relay breaks the protocol: {failure}")
                }
            }
        }
        if self.done {
            return;
        }
        for payload in pings {
            self.put(&frame(0x8a, &payload));
            self.note(Word::Pong(payload));
        }
        if let Some(Word::Close(code, _)) = self.heard.last() {
            let code = *code;
            self.put_own();
            self.note(Word::Close(code, String::new()));
            self.done = true;
        }
    }

    /// Whether it has heard a close frame, and which code that had.
    pub(super) fn close_code(&self) -> Option<u16> {
        match self.heard.last() {
            Some(Word::Close(code, _)) => Some(*code),
            _ => None,
        }
    }
}

/// A message, short as a rule, of at most `limit` bytes.
pub(super) fn message(random: &mut Random, number: usize, limit: usize) -> (Kind, Vec<u8>) {
    let kind = if pick(random, 2) == 0 { Kind::Text } else { Kind::Binary };
    let length = match pick(random, 40) {
        0..=3 => 0,
        4..=29 => pick(random, 40),
        30..=36 => pick(random, 400),
        37 | 38 => pick(random, 9000),
        _ => pick(random, limit.clamp(70_000, 100_000)),
    };
    let words: &[u8] = if kind == Kind::Text { "lino\u{e4}\r\n\n".as_bytes() } else { b"\xff\x00\r\nbi" };
    let mut payload = if length == 0 { Vec::new() } else { number.to_string().into_bytes() };
    while payload.len() + words.len() <= length.min(limit) {
        payload.extend_from_slice(words);
    }
    (kind, payload)
}
