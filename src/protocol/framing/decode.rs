//! Reads messages from what a plugin sends, in pieces of any size.

use std::net::SocketAddr;
use std::ops::Range;

use super::mesg::{FramingError, HEADER_LIMIT, Verb, parse_header};
use super::{Dialect, Framing};
use crate::buffer_pool;
use crate::websocket::Kind;

/// What a plugin said. It lies in the decoder until that is asked for the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Item<'a> {
    /// A whole message, to the target or to an address that the plugin named.
    Message {
        /// What it holds.
        kind: Kind,
        /// The payload.
        payload: &'a [u8],
        /// Where to, if not to the target.
        to: Option<SocketAddr>,
    },
    /// A ping, its payload at most 125 bytes.
    Ping(&'a [u8]),
    /// A pong, its payload at most 125 bytes.
    Pong(&'a [u8]),
    /// The end.
    Close {
        /// The code, one that may be sent.
        code: u16,
        /// The reason, at most 123 bytes.
        reason: &'a str,
    },
}

/// Reads messages in one framing.
///
/// Contract: after [`Decoder::handle_input`], call [`Decoder::poll_item`] until it answers `None`. After an error or
/// a [`Item::Close`] there is nothing more to ask.
#[derive(Debug)]
pub struct Decoder {
    framing: Framing,
    dialect: Dialect,
    /// Longest message in bytes.
    limit: usize,
    /// What was sent. At most a header, the longest body and one read are not yet taken.
    input: Vec<u8>,
    /// How much of `input` has been taken.
    taken: usize,
    /// How much of what is not taken holds no newline: it is not searched again.
    searched: usize,
    /// Pieces of a message that FRAG has begun, at most `limit` bytes.
    pieces: Vec<u8>,
    /// They were a whole message, which has been given out.
    pieces_taken: bool,
}

impl Decoder {
    /// A decoder that has seen nothing; messages may be `limit` bytes long.
    pub fn new(framing: Framing, dialect: Dialect, limit: usize) -> Self {
        let (input, pieces) = (Vec::new(), Vec::new());
        Self { framing, dialect, limit, input, taken: 0, searched: 0, pieces, pieces_taken: false }
    }

    /// Takes what the plugin sent.
    pub fn handle_input(&mut self, bytes: &[u8]) {
        self.let_go();
        buffer_pool::append(&mut self.input, bytes);
    }

    /// Forgets what was sent and not yet taken: somebody else speaks from now on, or nobody.
    pub fn reset(&mut self) {
        *self = Self::new(self.framing, self.dialect, self.limit);
    }

    /// Bytes held, for STAT.
    pub fn buffered(&self) -> usize {
        self.input.len() + self.pieces.len()
    }

    fn waiting(&self) -> &[u8] {
        &self.input[self.taken..]
    }

    /// Takes the next `length` bytes: where in `input` they are.
    fn take(&mut self, length: usize) -> Range<usize> {
        let start = self.taken;
        self.taken += length;
        start..self.taken
    }

    /// Nothing is held of what has been taken.
    fn let_go(&mut self) {
        if self.taken == self.input.len() {
            buffer_pool::give(std::mem::take(&mut self.input));
        } else {
            self.input.drain(..self.taken);
        }
        self.taken = 0;
    }

    /// The next message, if it is there whole.
    pub fn poll_item(&mut self) -> Option<Result<Item<'_>, FramingError>> {
        if std::mem::take(&mut self.pieces_taken) {
            buffer_pool::give(std::mem::take(&mut self.pieces));
        }
        match self.framing {
            Framing::Raw => self.poll_raw(),
            Framing::Line => self.poll_line().transpose(),
            Framing::Mesg => self.poll_mesg().transpose(),
        }
    }

    /// Everything that was read at once.
    fn poll_raw(&mut self) -> Option<Result<Item<'_>, FramingError>> {
        if self.waiting().is_empty() {
            self.let_go();
            return None;
        }
        let payload = self.take(self.waiting().len());
        Some(Ok(Item::Message { kind: Kind::Binary, payload: &self.input[payload], to: None }))
    }

    /// LF ends a message, one CR before it is dropped, an empty line says nothing.
    fn poll_line(&mut self) -> Result<Option<Item<'_>>, FramingError> {
        let line = loop {
            let searched = std::mem::take(&mut self.searched);
            let Some(end) = self.waiting()[searched..].iter().position(|&b| b == b'\n') else {
                self.let_go();
                self.searched = self.input.len();
                // One more than the longest may be the CR before the LF.
                return if self.input.len() > self.limit + 1 { Err(FramingError::TooLong) } else { Ok(None) };
            };
            let mut line = self.take(searched + end + 1);
            line.end -= 1;
            line.end -= usize::from(self.input[line.clone()].ends_with(b"\r"));
            if !line.is_empty() {
                break line;
            }
        };
        let payload = &self.input[line];
        if payload.len() > self.limit {
            return Err(FramingError::TooLong);
        }
        // Datagrams are anything; a WebSocket's text is UTF-8.
        if self.dialect == Dialect::WebSocket && std::str::from_utf8(payload).is_err() {
            return Err(FramingError::Utf8);
        }
        Ok(Some(Item::Message { kind: Kind::Text, payload, to: None }))
    }

    fn poll_mesg(&mut self) -> Result<Option<Item<'_>>, FramingError> {
        let (verb, body) = loop {
            let waiting = self.waiting();
            let header = &waiting[..waiting.len().min(HEADER_LIMIT)];
            let whole = match header.iter().position(|&b| b == b'\n') {
                None if header.len() < HEADER_LIMIT => None,
                None => return Err(FramingError::LongHeader),
                Some(end) => {
                    let (verb, length) = parse_header(&header[..end], self.dialect, self.limit - self.pieces.len())?;
                    (waiting.len() > end + length).then_some((verb, end + 1, length))
                }
            };
            let Some((verb, header, length)) = whole else {
                self.let_go();
                return Ok(None);
            };
            self.taken += header;
            let body = self.take(length);
            match verb {
                Verb::Frag => self.pieces.extend_from_slice(&self.input[body]),
                verb => break (verb, body),
            }
        };
        let (kind, to) = match verb {
            // Control messages do not wait for the message that FRAG has begun.
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
        if !self.pieces.is_empty() {
            self.pieces.extend_from_slice(payload);
            self.pieces_taken = true;
            payload = &self.pieces;
        }
        if kind == Kind::Text && std::str::from_utf8(payload).is_err() {
            return Err(FramingError::Utf8);
        }
        Ok(Some(Item::Message { kind, payload, to }))
    }
}

#[cfg(test)]
mod tests {
    use super::super::DATAGRAM_LIMIT;
    use super::*;
    use crate::testing::pieces;

    /// Each as it is shown, since an item lives no longer than until the next.
    type Items = Vec<String>;

    fn shown(item: Result<Item<'_>, FramingError>) -> String {
        format!("{item:?}")
    }

    fn decoded<'a>(framing: Framing, pieces: impl IntoIterator<Item = &'a [u8]>) -> Items {
        decoded_of(Dialect::Datagrams, framing, pieces)
    }

    fn decoded_of<'a>(dialect: Dialect, framing: Framing, pieces: impl IntoIterator<Item = &'a [u8]>) -> Items {
        let mut decoder = Decoder::new(framing, dialect, DATAGRAM_LIMIT);
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
        at_every_split_of(Dialect::Datagrams, framing, input)
    }

    /// The items of `input` as a whole, after checking that no split changes them.
    fn at_every_split_of(dialect: Dialect, framing: Framing, input: &[u8]) -> Items {
        pieces::at_every_split(input, |pieces| decoded_of(dialect, framing, pieces.iter().copied()))
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
    fn raw_is_what_is_read_at_once() {
        assert_eq!(decoded(Framing::Raw, [&b"ab"[..], b"c"]), [binary(b"ab"), binary(b"c")]);
    }

    #[test]
    fn lines() {
        let items = at_every_split(Framing::Line, b"one\r\n\n\r\ntwo\r\r\nrest");
        assert_eq!(items, [text("one"), text("two\r")]);
        let longest = [&vec![b'x'; DATAGRAM_LIMIT][..], b"\r\n"].concat();
        let (most, newline) = longest.split_at(longest.len() - 1);
        assert_eq!(decoded(Framing::Line, [most, newline]), decoded(Framing::Line, [&longest[..]]));
        let long = vec![b'x'; DATAGRAM_LIMIT + 2];
        assert_eq!(decoded(Framing::Line, [&long[..]]), [shown(Err(FramingError::TooLong))]);
    }

    #[test]
    fn a_line_in_drips_is_searched_once() {
        let mut decoder = Decoder::new(Framing::Line, Dialect::Datagrams, DATAGRAM_LIMIT);
        for _ in 0..DATAGRAM_LIMIT {
            decoder.handle_input(b"x");
            assert_eq!(decoder.poll_item(), None);
            assert_eq!(decoder.searched, decoder.buffered(), "the next drip costs no search of these");
        }
        decoder.handle_input(b"\nnext\n");
        assert_eq!(decoder.poll_item().map(shown), Some(message(Kind::Text, &vec![b'x'; DATAGRAM_LIMIT])));
        assert_eq!(decoder.poll_item().map(shown), Some(message(Kind::Text, b"next")));
        assert_eq!(decoder.poll_item(), None);
        assert_eq!((decoder.buffered(), decoder.input.capacity()), (0, 0), "nothing is held of what has been taken");
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
    fn broken_messages() {
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
                input.extend_from_slice(&vec![0; DATAGRAM_LIMIT]);
                input.extend_from_slice(b"BINA 1\n");
            }
            assert_eq!(decoded(Framing::Mesg, [&input[..]]), [shown(Err(error))]);
        }
    }

    #[test]
    fn messages_for_a_websocket() {
        let input = b"FRAG 1\naPING 2\nhiPONG 0\nTEXT 1\nbBINA 1\n\xffCLOS 1005 0\n";
        assert_eq!(
            at_every_split_of(Dialect::WebSocket, Framing::Mesg, input),
            [
                shown(Ok(Item::Ping(b"hi"))),
                shown(Ok(Item::Pong(b""))),
                text("ab"),
                binary(b"\xff"),
                shown(Ok(Item::Close { code: 1005, reason: "" })),
            ]
        );
        let items = at_every_split_of(Dialect::WebSocket, Framing::Line, b"one\n\xff\n");
        assert_eq!(items, [text("one"), shown(Err(FramingError::Utf8))]);
    }
}
