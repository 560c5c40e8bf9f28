//! The plugin at the near end: what it says in its framing, and what it makes of what it reads.

use std::collections::VecDeque;

use testkit::random::Random;

use super::pick;
use super::server::{Said, Word, message};
use crate::protocol::framing::{Framing, encode_body, encode_close, encode_message};
use crate::relay::websocket::to_plugin::MAX_ASSEMBLED;
use crate::websocket::{Control, Kind};

pub(super) struct Speaker {
    framing: Framing,
    pub said: Vec<Said>,
    /// Said, and still on its way to the relay.
    pub pending: VecDeque<u8>,
    pub total: usize,
    pub pings: usize,
    /// It has said its last word.
    pub done: bool,
}

impl Speaker {
    pub(super) fn new(framing: Framing) -> Self {
        Self { framing, said: Vec::new(), pending: VecDeque::new(), total: 0, pings: 0, done: false }
    }

    fn put(&mut self, bytes: &[u8], word: Option<Word>) {
        self.pending.extend(bytes);
        self.total += bytes.len();
        self.said.extend(word.map(|word| Said { word, end: self.total, passes: false }));
    }

    /// Says one of many things.
    pub(super) fn speak(&mut self, random: &mut Random, faults: bool) {
        if self.done {
            return;
        }
        let (kind, payload) = message(random, self.said.len(), 60_000);
        match self.framing {
            Framing::Raw => self.put(&payload.clone(), Some(Word::Message(Kind::Binary, payload))),
            Framing::Line if faults && pick(random, 60) == 0 => {
                self.put(b"\xff\n", Some(Word::Fault(1007, Vec::new())));
                self.done = true;
            }
            Framing::Line => {
                let line: Vec<u8> = payload.into_iter().filter(|byte| byte.is_ascii_alphanumeric()).collect();
                let bytes = [&line[..], [&b"\n"[..], b"\r\n"][pick(random, 2)]].concat();
                let word = (!line.is_empty()).then_some(Word::Message(Kind::Text, line));
                self.put(&bytes, word);
            }
            Framing::Mesg => self.speak_mesg(random, faults, kind, payload),
        }
    }

    fn speak_mesg(&mut self, random: &mut Random, faults: bool, kind: Kind, payload: Vec<u8>) {
        let number = self.said.len();
        let body = |verb, payload: &[u8]| {
            let mut bytes = Vec::new();
            encode_body(verb, payload, &mut bytes);
            bytes
        };
        match pick(random, 60) {
            0..=4 => {
                // Four bytes are the relay's own pings.
                let payload = format!("p{number:05}").into_bytes();
                self.pings += 1;
                self.put(&body("PING", &payload), Some(Word::Ping(payload)));
            }
            5..=7 => {
                let payload = format!("o{number:05}").into_bytes();
                self.put(&body("PONG", &payload), Some(Word::Pong(payload)));
            }
            8 if faults => self.send_close(random),
            9 if faults => self.break_rules(random),
            10..=20 => {
                let cut = pick(random, payload.len() + 1);
                self.put(&body("FRAG", &payload[..cut]), None);
                if pick(random, 2) == 0 {
                    self.put(&body("PONG", b"o-between"), Some(Word::Pong(b"o-between".to_vec())));
                }
                let verb = if kind == Kind::Text { "TEXT" } else { "BINA" };
                self.put(&body(verb, &payload[cut..]), Some(Word::Message(kind, payload)));
            }
            _ => {
                let mut bytes = Vec::new();
                encode_message(Framing::Mesg, kind, &payload, &mut bytes);
                self.put(&bytes, Some(Word::Message(kind, payload)));
            }
        }
    }

    /// CLOS, where there is such a word.
    pub(super) fn send_close(&mut self, random: &mut Random) {
        if self.framing != Framing::Mesg || self.done {
            return;
        }
        let (code, reason) = [(1000, "enough"), (1005, ""), (3999, "")][pick(random, 3)];
        let mut bytes = Vec::new();
        encode_close(code, reason.as_bytes(), &mut bytes);
        self.put(&bytes, Some(Word::Close(code, reason.into())));
        self.done = true;
    }

    fn break_rules(&mut self, random: &mut Random) {
        let faults: [(&[u8], u16); 6] = [
            (b"nonsense\n", 1002),
            (b"TEXT 01\n", 1002),
            (b"TEXT 1\n\xff", 1007),
            (b"BINA 99999999\n", 1002),
            (b"PING 126\n", 1002),
            (&[b'x'; 70], 1002),
        ];
        let (bytes, code) = faults[pick(random, faults.len())];
        self.put(bytes, Some(Word::Fault(code, Vec::new())));
        self.done = true;
    }
}

/// How the words of a server look to a plugin.
pub(super) struct Reader {
    pub framing: Framing,
    pub control: Control,
    pub head: Option<&'static [u8]>,
    /// Messages are handed over whole.
    keep: bool,
    /// There is little memory, so that short messages may be passed on while they come.
    little_memory: bool,
    /// A part of a message was read before the rest had come.
    pub read_early: bool,
    /// So many words have been found right, and so many bytes: they are not looked at again.
    right: (usize, usize),
}

/// What a plugin has made of what it has read.
#[derive(Debug)]
pub(super) struct Reading {
    /// So many of the server's words have passed whole, or are not to be shown.
    pub words: usize,
    /// Whether the next has come in part.
    pub partly: bool,
    /// The last word.
    pub close: Option<(u16, String)>,
}

impl Reader {
    pub(super) fn new(
        framing: Framing,
        control: Control,
        head: Option<&'static [u8]>,
        keep: bool,
        little_memory: bool,
    ) -> Self {
        Self { framing, control, head, keep, little_memory, read_early: false, right: (0, 0) }
    }

    /// Whether the plugin may have read a part of this message before the rest has come.
    pub(super) fn may_pass(&self, said: &Said) -> bool {
        let (Word::Message(_, payload) | Word::Fault(_, payload)) = &said.word else { return false };
        said.passes && !self.keep && (self.little_memory || payload.len() > MAX_ASSEMBLED)
    }

    /// Reads `bytes`: the server's words in order, of which those that end at or before `complete` may have passed. With
    /// `lenient` the answers to the plugin's pings may be missing.
    ///
    /// # Panics
    ///
    /// Where it reads anything else.
    pub(super) fn read(&mut self, bytes: &[u8], said: &[Said], complete: usize, lenient: bool) -> Reading {
        let mut reading = Reading { words: 0, partly: false, close: None };
        if self.framing == Framing::Raw {
            Self::read_raw(bytes, said, &mut reading);
            return reading;
        }
        let (first, offset) = self.right;
        let mut rest = &bytes[offset..];
        reading.words = first;
        if let (Some(head), Framing::Mesg, 0) = (self.head, self.framing, offset)
            && !rest.is_empty()
        {
            let mut shown = Vec::new();
            encode_body("HEAD", head, &mut shown);
            let length = shown.len().min(rest.len());
            assert_eq!(rest[..length], shown[..length], "the head comes first");
            if length < shown.len() {
                return Reading { words: 0, partly: true, close: None };
            }
            rest = &rest[length..];
            self.right = (0, length);
        }
        for (at, said) in said.iter().enumerate().skip(first) {
            let (shown, must) = self.shown(said, lenient);
            let length = shown.len().min(rest.len());
            let fits = length > 0 && rest[..length] == shown[..length];
            if fits {
                let passes = self.may_pass(said);
                assert!(passes || said.end <= complete, "a part of a message is handed over before it is whole");
                self.read_early |= said.end > complete;
                rest = &rest[length..];
                reading.partly = length < shown.len();
            }
            if reading.partly || (must && !fits) {
                break;
            }
            reading.words = at + 1;
            if fits {
                self.right = (at + 1, bytes.len() - rest.len());
            }
        }
        if !rest.is_empty() {
            let (length, next) = (rest.len().min(5), said.get(reading.words).map(|said| &said.word));
            let shown = rest[..rest.len().min(100)].escape_ascii();
            let closes = self.framing == Framing::Mesg && rest[..length] == b"CLOS "[..length];
            assert!(closes, "instead of {next:?} the plugin reads {shown}");
            reading.close = read_close(rest);
        }
        reading
    }

    /// How a word looks, and whether it may not be missing.
    fn shown(&self, said: &Said, lenient: bool) -> (Vec<u8>, bool) {
        let mut out = Vec::new();
        let mesg = self.framing == Framing::Mesg;
        let shows = self.control != Control::Auto;
        match &said.word {
            Word::Fault(_, payload) if self.may_pass(said) => {
                encode_message(self.framing, Kind::Text, payload, &mut out);
                return (out, false);
            }
            Word::Message(kind, payload) => encode_message(self.framing, *kind, payload, &mut out),
            Word::Ping(payload) if mesg && shows => encode_body("PING", payload, &mut out),
            Word::Pong(payload) if mesg => {
                encode_body("PONG", payload, &mut out);
                let must = match payload.first() {
                    // The plugin's own question.
                    Some(b'p') if payload.len() > 4 => !lenient,
                    Some(b'u') => shows,
                    _ => false,
                };
                if payload.first() == Some(&b'u') && !shows {
                    return (Vec::new(), false);
                }
                return (out, must);
            }
            _ => return (out, false),
        }
        (out, true)
    }

    fn read_raw(bytes: &[u8], said: &[Said], reading: &mut Reading) {
        let mut rest = bytes;
        for (at, Said { word, .. }) in said.iter().enumerate() {
            if let Word::Message(_, payload) | Word::Fault(_, payload) = word {
                let length = payload.len().min(rest.len());
                assert_eq!(rest[..length], payload[..length], "other bytes");
                rest = &rest[length..];
                // What breaks the rules need not pass, and nothing comes behind it.
                if length < payload.len() && matches!(word, Word::Message(..)) {
                    reading.partly = length > 0;
                    break;
                }
            }
            reading.words = at + 1;
        }
        assert!(rest.is_empty(), "more than was said: {}", rest.len());
    }
}

/// CLOS, as far as it is there.
fn read_close(bytes: &[u8]) -> Option<(u16, String)> {
    let end = bytes.iter().position(|&byte| byte == b'\n')?;
    let header = std::str::from_utf8(&bytes[5..end]).unwrap();
    let (code, length) = header.split_once(' ').unwrap();
    let (length, reason): (usize, _) = (length.parse().unwrap(), &bytes[end + 1..]);
    assert!(reason.len() <= length, "words behind CLOS: {}", bytes.escape_ascii());
    (reason.len() == length).then(|| (code.parse().unwrap(), String::from_utf8(reason.to_vec()).unwrap()))
}
