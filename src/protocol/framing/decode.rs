//! The decoder of messages from a plugin, for input in pieces of any size.

use std::net::SocketAddr;
use std::ops::Range;

use super::mesg::{FramingError, MAX_HEADER_LEN, Verb, parse_header};
use super::{Framing, FramingKind};
use crate::buffer_pool;
use crate::websocket::Kind;

/// A decoded item. It borrows from the decoder until the next one is polled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Item<'a> {
    /// A whole message.
    Message {
        /// Text or binary.
        kind: Kind,
        /// The payload.
        payload: &'a [u8],
        /// The address of a DGRM. `None`: the target.
        to: Option<SocketAddr>,
    },
    /// A ping, its payload at most 125 bytes.
    Ping(&'a [u8]),
    /// A pong, its payload at most 125 bytes.
    Pong(&'a [u8]),
    /// The end of the connection.
    Close {
        /// The close code: one that an endpoint may send, or 1005.
        code: u16,
        /// The reason, at most 123 bytes.
        reason: &'a str,
    },
}

/// Decodes messages in one framing.
///
/// Contract: after [`Decoder::handle_input`], call [`Decoder::poll_item`] until it returns `None`. After an error or an
/// [`Item::Close`], do not call it again.
#[derive(Debug)]
pub(crate) struct Decoder {
    framing: Framing,
    kind: FramingKind,
    /// Longest message in bytes.
    max_len: usize,
    /// Input from the plugin: besides the decoded part at most a header, the longest body and one read.
    input: Vec<u8>,
    /// Bytes of `input` that are decoded.
    decoded: usize,
    /// Bytes after the decoded ones that are known to hold no newline, so that they are not searched again.
    searched: usize,
    /// Fragments of a message that FRAG has begun, at most `max_len` bytes.
    fragments: Vec<u8>,
    /// The fragments were a whole message, which the last poll has returned.
    fragments_done: bool,
}

impl Decoder {
    /// A decoder without input. Messages may be up to `max_len` bytes long.
    pub(crate) fn new(framing: Framing, kind: FramingKind, max_len: usize) -> Self {
        let (input, fragments) = (Vec::new(), Vec::new());
        Self { framing, kind, max_len, input, decoded: 0, searched: 0, fragments, fragments_done: false }
    }

    /// Adds bytes from the plugin.
    pub(crate) fn handle_input(&mut self, bytes: &[u8]) {
        self.handle_input_within(bytes, usize::MAX);
    }

    /// Adds bytes from the plugin. The memory for them grows by no more than `memory` bytes beyond their own length.
    pub(crate) fn handle_input_within(&mut self, bytes: &[u8], memory: usize) {
        self.discard_decoded();
        buffer_pool::append_within(&mut self.input, bytes, memory);
    }

    /// Discards the input, for a plugin that has gone. Another one may follow.
    pub(crate) fn reset(&mut self) {
        *self = Self::new(self.framing, self.kind, self.max_len);
    }

    /// Bytes held in memory.
    pub(crate) fn buffered(&self) -> usize {
        self.input.len() + self.fragments.len()
    }

    /// Bytes of memory in use.
    pub(crate) fn held(&self) -> usize {
        buffer_pool::held(&self.input) + buffer_pool::held(&self.fragments)
    }

    /// Gives back the memory that what is not decoded yet does not need. To be called when nothing more can be decoded.
    pub(crate) fn shrink(&mut self) {
        if self.decoded == self.input.len() {
            self.discard_decoded();
        } else if buffer_pool::shrink(&mut self.input, self.decoded) {
            self.decoded = 0;
        }
        if !self.fragments_done {
            buffer_pool::shrink(&mut self.fragments, 0);
        }
    }

    fn rest(&self) -> &[u8] {
        &self.input[self.decoded..]
    }

    /// Marks the next `length` bytes as decoded, and returns their place in `input`.
    fn take(&mut self, length: usize) -> Range<usize> {
        let start = self.decoded;
        self.decoded += length;
        start..self.decoded
    }

    /// Frees the memory of the decoded input.
    fn discard_decoded(&mut self) {
        if self.decoded == self.input.len() {
            buffer_pool::give(std::mem::take(&mut self.input));
        } else {
            self.input.drain(..self.decoded);
        }
        self.decoded = 0;
    }

    /// The next item, if its input is complete.
    pub(crate) fn poll_item(&mut self) -> Option<Result<Item<'_>, FramingError>> {
        if std::mem::take(&mut self.fragments_done) {
            buffer_pool::give(std::mem::take(&mut self.fragments));
        }
        match self.framing {
            Framing::Raw => self.poll_raw(),
            Framing::Line => self.poll_line().transpose(),
            Framing::Mesg => self.poll_mesg().transpose(),
        }
    }

    /// The whole input is one message.
    fn poll_raw(&mut self) -> Option<Result<Item<'_>, FramingError>> {
        if self.rest().is_empty() {
            self.discard_decoded();
            return None;
        }
        let payload = self.take(self.rest().len());
        Some(Ok(Item::Message { kind: Kind::Binary, payload: &self.input[payload], to: None }))
    }

    /// LF ends a message. One CR before it is removed. Empty lines are skipped.
    fn poll_line(&mut self) -> Result<Option<Item<'_>>, FramingError> {
        let line = loop {
            let searched = std::mem::take(&mut self.searched);
            let Some(end) = self.rest()[searched..].iter().position(|&b| b == b'\n') else {
                self.discard_decoded();
                self.searched = self.input.len();
                // One byte beyond the limit may be the CR before the LF.
                return if self.input.len() > self.max_len + 1 { Err(FramingError::TooLong) } else { Ok(None) };
            };
            let mut line = self.take(searched + end + 1);
            line.end -= 1;
            line.end -= usize::from(self.input[line.clone()].ends_with(b"\r"));
            if !line.is_empty() {
                break line;
            }
        };
        let payload = &self.input[line];
        if payload.len() > self.max_len {
            return Err(FramingError::TooLong);
        }
        // A datagram may hold any bytes. A text message of WebSocket is UTF-8 (RFC 6455 section 5.6).
        if self.kind == FramingKind::WebSocket && std::str::from_utf8(payload).is_err() {
            return Err(FramingError::Utf8);
        }
        Ok(Some(Item::Message { kind: Kind::Text, payload, to: None }))
    }

    fn poll_mesg(&mut self) -> Result<Option<Item<'_>>, FramingError> {
        let (verb, body) = loop {
            let rest = self.rest();
            let header = &rest[..rest.len().min(MAX_HEADER_LEN)];
            let whole = match header.iter().position(|&b| b == b'\n') {
                None if header.len() < MAX_HEADER_LEN => None,
                None => return Err(FramingError::LongHeader),
                Some(end) => {
                    let (verb, length) = parse_header(&header[..end], self.kind, self.max_len - self.fragments.len())?;
                    (rest.len() > end + length).then_some((verb, end + 1, length))
                }
            };
            let Some((verb, header, length)) = whole else {
                self.discard_decoded();
                return Ok(None);
            };
            self.decoded += header;
            let body = self.take(length);
            match verb {
                Verb::Frag => self.fragments.extend_from_slice(&self.input[body]),
                verb => break (verb, body),
            }
        };
        let (kind, to) = match verb {
            // Control messages may come between the fragments of a message.
            Verb::Clos(code) => {
                let reason = std::str::from_utf8(&self.input[body]).map_err(|_| FramingError::Utf8)?;
                return Ok(Some(Item::Close { code, reason }));
            }
            Verb::Ping => return Ok(Some(Item::Ping(&self.input[body]))),
            Verb::Pong => return Ok(Some(Item::Pong(&self.input[body]))),
            Verb::Dgrm(to) => (Kind::Binary, Some(to)),
            Verb::Text => (Kind::Text, None),
            Verb::Bina | Verb::Frag => (Kind::Binary, None),
        };
        let mut payload = &self.input[body];
        if !self.fragments.is_empty() {
            self.fragments.extend_from_slice(payload);
            self.fragments_done = true;
            payload = &self.fragments;
        }
        if kind == Kind::Text && std::str::from_utf8(payload).is_err() {
            return Err(FramingError::Utf8);
        }
        Ok(Some(Item::Message { kind, payload, to }))
    }
}

#[cfg(test)]
mod tests {
    use super::super::MAX_DATAGRAM_LEN;
    use super::*;
    use crate::testing::pieces;

    /// Items as debug text, since an item is valid only until the next one is polled.
    type Items = Vec<String>;

    fn shown(item: Result<Item<'_>, FramingError>) -> String {
        format!("{item:?}")
    }

    fn decoded<'a>(framing: Framing, pieces: impl IntoIterator<Item = &'a [u8]>) -> Items {
        decoded_of(FramingKind::Datagrams, framing, pieces)
    }

    fn decoded_of<'a>(kind: FramingKind, framing: Framing, pieces: impl IntoIterator<Item = &'a [u8]>) -> Items {
        let mut decoder = Decoder::new(framing, kind, MAX_DATAGRAM_LEN);
        let (mut items, mut ended) = (Vec::new(), false);
        for piece in pieces {
            decoder.handle_input(piece);
            while !ended {
                let Some(item) = decoder.poll_item() else { break };
                ended = matches!(item, Err(_) | Ok(Item::Close { .. }));
                items.push(shown(item));
            }
        }
        items
    }

    fn at_every_split(framing: Framing, input: &[u8]) -> Items {
        at_every_split_of(FramingKind::Datagrams, framing, input)
    }

    /// The items of `input` as a whole, after checking that no split changes them.
    fn at_every_split_of(kind: FramingKind, framing: Framing, input: &[u8]) -> Items {
        pieces::at_every_split(input, |pieces| decoded_of(kind, framing, pieces.iter().copied()))
    }

    fn message(kind: Kind, payload: &[u8]) -> String {
        shown(Ok(Item::Message { kind, payload, to: None }))
    }

    fn text(payload: &str) -> String {
        message(Kind::Text, payload.as_bytes())
    }

    fn binary(payload: &[u8]) -> String {
        message(Kind::Binary, payload)
    }

    #[test]
    fn in_raw_each_input_is_a_message() {
        assert_eq!(decoded(Framing::Raw, [&b"ab"[..], b"c"]), [binary(b"ab"), binary(b"c")]);
    }

    #[test]
    fn lines() {
        let items = at_every_split(Framing::Line, b"one\r\n\n\r\ntwo\r\r\nrest");
        assert_eq!(items, [text("one"), text("two\r")]);
        let longest = [&vec![b'x'; MAX_DATAGRAM_LEN][..], b"\r\n"].concat();
        let (line, newline) = longest.split_at(longest.len() - 1);
        assert_eq!(decoded(Framing::Line, [line, newline]), decoded(Framing::Line, [&longest[..]]));
        let long = vec![b'x'; MAX_DATAGRAM_LEN + 2];
        assert_eq!(decoded(Framing::Line, [&long[..]]), [shown(Err(FramingError::TooLong))]);
    }

    #[test]
    fn input_is_searched_for_a_newline_once() {
        let mut decoder = Decoder::new(Framing::Line, FramingKind::Datagrams, MAX_DATAGRAM_LEN);
        for _ in 0..MAX_DATAGRAM_LEN {
            decoder.handle_input(b"x");
            assert_eq!(decoder.poll_item(), None);
            assert_eq!(decoder.searched, decoder.buffered(), "these bytes are searched again");
        }
        decoder.handle_input(b"\nnext\n");
        assert_eq!(decoder.poll_item().map(shown), Some(message(Kind::Text, &vec![b'x'; MAX_DATAGRAM_LEN])));
        assert_eq!(decoder.poll_item().map(shown), Some(message(Kind::Text, b"next")));
        assert_eq!(decoder.poll_item(), None);
        assert_eq!((decoder.buffered(), decoder.input.capacity()), (0, 0), "decoded input is still held");
    }

    #[test]
    fn messages() {
        let input = b"TEXT 3\na\nbBINA 0\nDGRM 2 1.2.3.4:5\nxyFRAG 2\n\xc3\xa4FRAG 1\n\xc3TEXT 1\n\xa4CLOS 1000 2\nby";
        assert_eq!(
            at_every_split(Framing::Mesg, input),
            [
                text("a\nb"),
                binary(b""),
                shown(Ok(Item::Message { kind: Kind::Binary, payload: b"xy", to: Some("1.2.3.4:5".parse().unwrap()) })),
                text("ää"),
                shown(Ok(Item::Close { code: 1000, reason: "by" })),
            ]
        );
    }

    #[test]
    fn malformed_messages() {
        for (input, error) in [
            (&b"TEXT 1\n\xff"[..], FramingError::Utf8),
            (b"CLOS 1000 1\n\xff", FramingError::Utf8),
            (b"NOPE 1\n", FramingError::Verb),
            (b"BINA 65508\n", FramingError::TooLong),
            (b"FRAG 65507\n", FramingError::TooLong),
            (&[b'x'; 64], FramingError::LongHeader),
        ] {
            let mut input = input.to_vec();
            if error == FramingError::TooLong && input.starts_with(b"FRAG") {
                input.extend_from_slice(&vec![0; MAX_DATAGRAM_LEN]);
                input.extend_from_slice(b"BINA 1\n");
            }
            assert_eq!(decoded(Framing::Mesg, [&input[..]]), [shown(Err(error))]);
        }
    }

    #[test]
    fn messages_for_a_websocket() {
        let input = b"FRAG 1\naPING 2\nhiPONG 0\nTEXT 1\nbBINA 1\n\xffCLOS 1005 0\n";
        assert_eq!(
            at_every_split_of(FramingKind::WebSocket, Framing::Mesg, input),
            [
                shown(Ok(Item::Ping(b"hi"))),
                shown(Ok(Item::Pong(b""))),
                text("ab"),
                binary(b"\xff"),
                shown(Ok(Item::Close { code: 1005, reason: "" })),
            ]
        );
        let items = at_every_split_of(FramingKind::WebSocket, Framing::Line, b"one\n\xff\n");
        assert_eq!(items, [text("one"), shown(Err(FramingError::Utf8))]);
    }
}
