//! What the plugin reads of the remote, over all of its connections and the remote's.

use std::collections::BTreeSet;

use super::accepted::{Accepted, payload};
use crate::protocol::framing::Framing;

/// What the plugin knows of the remote, as MESG tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Known {
    /// It is there, and this message of this connection is the next one. `None`: nothing has come of it yet.
    Up(Option<(usize, usize)>),
    Lost,
}

/// A reader that checks what it reads.
pub(super) struct Reader {
    framing: Framing,
    /// What was read of messages since the last whole one.
    partial: Vec<u8>,
    /// Messages, or bytes, read since `OK CONN`. `None`: that is not known any more.
    pub seen: Option<usize>,
    /// Bytes or messages may be missing here.
    gap: bool,
    /// Where in a byte stream it may stand: a connection, and a place of its bytes.
    pub places: BTreeSet<(usize, usize)>,
    pub known: Known,
    /// Losses and returns that were announced.
    pub announced: (usize, usize),
    /// Reasons of losses, without digits.
    pub reasons: BTreeSet<String>,
    /// CLOS has come.
    pub is_told_end: bool,
}

impl Reader {
    pub(super) fn new(framing: Framing) -> Self {
        Self {
            framing,
            partial: Vec::new(),
            seen: Some(0),
            gap: false,
            places: BTreeSet::from([(0, 0)]),
            known: Known::Up(None),
            announced: (0, 0),
            reasons: BTreeSet::new(),
            is_told_end: false,
        }
    }

    /// It begins anew behind the last whole message.
    pub(super) fn reconnect(&mut self) {
        self.partial.clear();
    }

    /// What was written and not read is lost.
    pub(super) fn lose(&mut self) {
        (self.seen, self.gap) = (None, true);
    }

    /// Takes bytes.
    pub(super) fn take(&mut self, bytes: &[u8], accepted: &[Accepted]) {
        if self.framing == Framing::Raw {
            return self.take_bytes(bytes, accepted);
        }
        self.partial.extend_from_slice(bytes);
        while let Some((verb, body, length)) = next_message(self.framing, &self.partial) {
            self.partial.drain(..length);
            self.seen = self.seen.map(|seen| seen + 1);
            let text = String::from_utf8_lossy(&body).into_owned();
            match &*verb {
                "EVNT" => self.take_event(&text, accepted),
                "CLOS" => self.is_told_end = true,
                "TEXT" | "BINA" | "" => self.take_message(&text, accepted),
                other => panic!("the plugin reads {other} {text}"),
            }
        }
    }

    fn take_bytes(&mut self, bytes: &[u8], accepted: &[Accepted]) {
        self.seen = self.seen.map(|seen| seen + bytes.len());
        for &byte in bytes {
            let mut next = BTreeSet::new();
            if std::mem::take(&mut self.gap) {
                // Anything that is not before what was read.
                let first = self.places.first().copied().unwrap_or_default();
                for (number, accepted) in accepted.iter().enumerate().skip(first.0) {
                    let from = if number == first.0 { first.1 } else { 0 };
                    let fits = |at: &usize| accepted.bytes[*at] == byte;
                    next.extend((from..accepted.bytes.len()).filter(fits).map(|at| (number, at + 1)));
                }
            } else {
                for &(number, place) in &self.places {
                    let mut at = place;
                    for (later, accepted) in accepted.iter().enumerate().skip(number) {
                        if accepted.bytes.get(at) == Some(&byte) {
                            next.insert((later, at + 1));
                        }
                        if accepted.is_whole() && at < accepted.bytes.len() {
                            break;
                        }
                        at = 0;
                    }
                }
            }
            assert!(!next.is_empty(), "the plugin reads {:?} behind {:?}", byte as char, self.places);
            self.places = next;
        }
    }

    fn take_event(&mut self, text: &str, accepted: &[Accepted]) {
        let gap = std::mem::take(&mut self.gap);
        if !text.starts_with("lost ") {
            assert_eq!(text, "back");
            assert!(self.known == Known::Lost || gap, "a return is announced twice");
            self.announced.1 += 1;
            self.known = Known::Up(None);
            return;
        }
        assert!(self.known != Known::Lost || gap, "a loss is announced twice");
        if let (Known::Up(Some((number, next))), false) = (self.known, gap) {
            let is_last = !accepted[number].is_whole() || accepted[number].messages == next;
            assert!(is_last, "the loss comes before message {next} of {number}");
        }
        self.announced.0 += 1;
        self.known = Known::Lost;
        self.reasons.insert(text.chars().filter(|character| !character.is_ascii_digit()).collect());
    }

    fn take_message(&mut self, text: &str, accepted: &[Accepted]) {
        let mut parts = text.split(':').map(str::parse::<usize>);
        let (Some(Ok(number)), Some(Ok(message))) = (parts.next(), parts.next()) else {
            panic!("no message is {text:?}");
        };
        assert_eq!(payload(number, message, text.len()), text.as_bytes(), "a message is mixed up");
        let gap = std::mem::take(&mut self.gap);
        match self.known {
            _ if gap => {}
            // LINE tells no loss.
            Known::Up(Some((before, next))) if self.framing == Framing::Line && number > before => {
                assert_eq!(message, 0, "the first of {number}");
                let is_last = !accepted[before].is_whole() || accepted[before].messages == next;
                assert!(is_last, "messages of {before} are missing");
            }
            Known::Lost => panic!("message {message} of {number} comes while the remote is lost"),
            Known::Up(None) => assert_eq!(message, 0, "the first of {number}"),
            Known::Up(Some(expected)) => assert_eq!((number, message), expected),
        }
        self.known = Known::Up(Some((number, message + 1)));
    }
}

/// The first message of `bytes`: verb, body, and length with its framing. `None`: it is not whole.
fn next_message(framing: Framing, bytes: &[u8]) -> Option<(String, Vec<u8>, usize)> {
    let end = bytes.iter().position(|&byte| byte == b'\n')?;
    let line = String::from_utf8_lossy(&bytes[..end]).into_owned();
    if framing == Framing::Line {
        return Some((String::new(), bytes[..end].to_vec(), end + 1));
    }
    let (verb, rest) = line.split_once(' ').unwrap_or_else(|| panic!("no header is {line:?}"));
    let length = rest.rsplit(' ').next().and_then(|digits| digits.parse::<usize>().ok());
    let length = end + 1 + length.unwrap_or_else(|| panic!("no header is {line:?}"));
    (bytes.len() >= length).then(|| (verb.to_owned(), bytes[end + 1..length].to_vec(), length))
}
