//! Reads messages from what a plugin sends, in pieces of any size.

use std::net::SocketAddr;

use super::mesg::{FramingError, HEADER_LIMIT, Verb, parse_header};
use super::{Dialect, Framing};
use crate::spare;
use crate::websocket::Kind;

/// What a plugin said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// A whole message, to the target or to an address that the plugin named.
    Message {
        /// What it holds.
        kind: Kind,
        /// The payload.
        payload: Vec<u8>,
        /// Where to, if not to the target.
        to: Option<SocketAddr>,
    },
    /// A ping, its payload at most 125 bytes.
    Ping(Vec<u8>),
    /// A pong, its payload at most 125 bytes.
    Pong(Vec<u8>),
    /// The end.
    Close {
        /// The code, one that may be sent.
        code: u16,
        /// The reason, at most 123 bytes.
        reason: String,
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
}

impl Decoder {
    /// A decoder that has seen nothing; messages may be `limit` bytes long.
    pub fn new(framing: Framing, dialect: Dialect, limit: usize) -> Self {
        Self { framing, dialect, limit, input: Vec::new(), taken: 0, searched: 0, pieces: Vec::new() }
    }

    /// Takes what the plugin sent.
    pub fn handle_input(&mut self, bytes: &[u8]) {
        self.input.drain(..std::mem::take(&mut self.taken));
        spare::append(&mut self.input, bytes);
    }

    /// Forgets what was sent and not yet taken: somebody else speaks from now on, or nobody.
    pub fn reset(&mut self) {
        *self = Self::new(self.framing, self.dialect, self.limit);
    }

    /// Bytes held, for STAT.
    pub fn buffered(&self) -> usize {
        self.waiting().len() + self.pieces.len()
    }

    fn waiting(&self) -> &[u8] {
        &self.input[self.taken..]
    }

    /// Takes the next `length` bytes. Nothing is held for what has been taken whole.
    fn take(&mut self, length: usize) -> Vec<u8> {
        if self.taken + length == self.input.len() {
            let mut taken = std::mem::take(&mut self.input);
            taken.drain(..std::mem::take(&mut self.taken));
            return taken;
        }
        let taken = self.input[self.taken..self.taken + length].to_vec();
        self.taken += length;
        taken
    }

    /// The next message, if it is there whole.
    pub fn poll_item(&mut self) -> Option<Result<Item, FramingError>> {
        match self.framing {
            Framing::Raw => self.poll_raw(),
            Framing::Line => self.poll_line(),
            Framing::Mesg => self.poll_mesg().transpose(),
        }
    }

    /// Everything that was read at once.
    fn poll_raw(&mut self) -> Option<Result<Item, FramingError>> {
        let payload = self.take(self.waiting().len());
        (!payload.is_empty()).then_some(Ok(Item::Message { kind: Kind::Binary, payload, to: None }))
    }

    /// LF ends a message, one CR before it is dropped, an empty line says nothing.
    fn poll_line(&mut self) -> Option<Result<Item, FramingError>> {
        loop {
            let searched = std::mem::take(&mut self.searched);
            let Some(end) = self.waiting()[searched..].iter().position(|&b| b == b'\n') else {
                self.searched = self.waiting().len();
                // One more than the longest may be the CR before the LF.
                return (self.waiting().len() > self.limit + 1).then_some(Err(FramingError::TooLong));
            };
            let mut payload = self.take(searched + end + 1);
            payload.pop();
            payload.pop_if(|last| *last == b'\r');
            if payload.len() > self.limit {
                return Some(Err(FramingError::TooLong));
            }
            if !payload.is_empty() {
                // Datagrams are anything; a WebSocket's text is UTF-8.
                if self.dialect == Dialect::WebSocket && std::str::from_utf8(&payload).is_err() {
                    return Some(Err(FramingError::Utf8));
                }
                return Some(Ok(Item::Message { kind: Kind::Text, payload, to: None }));
            }
        }
    }

    fn poll_mesg(&mut self) -> Result<Option<Item>, FramingError> {
        loop {
            let waiting = self.waiting();
            let header = &waiting[..waiting.len().min(HEADER_LIMIT)];
            let Some(end) = header.iter().position(|&b| b == b'\n') else {
                return if header.len() < HEADER_LIMIT { Ok(None) } else { Err(FramingError::LongHeader) };
            };
            let (verb, length) = parse_header(&header[..end], self.dialect, self.limit - self.pieces.len())?;
            if waiting.len() < end + 1 + length {
                return Ok(None);
            }
            self.taken += end + 1;
            let body = self.take(length);
            if let Verb::Frag = verb {
                self.pieces.extend_from_slice(&body);
                continue;
            }
            return self.finish(verb, body).map(Some);
        }
    }

    fn finish(&mut self, verb: Verb, body: Vec<u8>) -> Result<Item, FramingError> {
        let (kind, to) = match verb {
            // Control messages do not wait for the message that FRAG has begun.
            Verb::Clos(code) => {
                let reason = String::from_utf8(body).map_err(|_| FramingError::Utf8)?;
                return Ok(Item::Close { code, reason });
            }
            Verb::Ping => return Ok(Item::Ping(body)),
            Verb::Pong => return Ok(Item::Pong(body)),
            Verb::Dgrm(to) => (Kind::Binary, Some(to)),
            Verb::Text => (Kind::Text, None),
            Verb::Bina | Verb::Frag => (Kind::Binary, None),
        };
        let mut payload = std::mem::take(&mut self.pieces);
        if payload.is_empty() {
            payload = body;
        } else {
            payload.extend_from_slice(&body);
        }
        if kind == Kind::Text && std::str::from_utf8(&payload).is_err() {
            return Err(FramingError::Utf8);
        }
        Ok(Item::Message { kind, payload, to })
    }
}

#[cfg(test)]
mod tests {
    use super::super::DATAGRAM_LIMIT;
    use super::*;
    use crate::testing::pieces;

    type Items = Vec<Result<Item, FramingError>>;

    fn decoded<'a>(framing: Framing, pieces: impl IntoIterator<Item = &'a [u8]>) -> Items {
        decoded_of(Dialect::Datagrams, framing, pieces)
    }

    fn decoded_of<'a>(dialect: Dialect, framing: Framing, pieces: impl IntoIterator<Item = &'a [u8]>) -> Items {
        let mut decoder = Decoder::new(framing, dialect, DATAGRAM_LIMIT);
        let mut items = Vec::new();
        for piece in pieces {
            decoder.handle_input(piece);
            while !matches!(items.last(), Some(Err(_) | Ok(Item::Close { .. }))) {
                let Some(item) = decoder.poll_item() else { break };
                items.push(item);
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

    fn message(kind: Kind, payload: &[u8]) -> Result<Item, FramingError> {
        Ok(Item::Message { kind, payload: payload.to_vec(), to: None })
    }

    fn text(payload: &str) -> Result<Item, FramingError> {
        message(Kind::Text, payload.as_bytes())
    }

    fn binary(payload: &[u8]) -> Result<Item, FramingError> {
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
        assert_eq!(decoded(Framing::Line, [&long[..]]), [Err(FramingError::TooLong)]);
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
        assert_eq!(decoder.poll_item(), Some(message(Kind::Text, &vec![b'x'; DATAGRAM_LIMIT])));
        assert_eq!(decoder.poll_item(), Some(message(Kind::Text, b"next")));
    }

    #[test]
    fn messages() {
        let input = b"TEXT 3\na\nbBINA 0\nDGRM 2 1.2.3.4:5\nxyFRAG 2\n\xc3\xa4FRAG 1\n\xc3TEXT 1\n\xa4CLOS 1000 2\nby";
        assert_eq!(
            at_every_split(Framing::Mesg, input),
            [
                text("a\nb"),
                binary(b""),
                Ok(Item::Message {
                    kind: Kind::Binary,
                    payload: b"xy".to_vec(),
                    to: Some("1.2.3.4:5".parse().unwrap())
                }),
                text("ää"),
                Ok(Item::Close { code: 1000, reason: "by".into() }),
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
            assert_eq!(decoded(Framing::Mesg, [&input[..]]), [Err(error)]);
        }
    }

    #[test]
    fn messages_for_a_websocket() {
        let input = b"FRAG 1\naPING 2\nhiPONG 0\nTEXT 1\nbBINA 1\n\xffCLOS 1005 0\n";
        assert_eq!(
            at_every_split_of(Dialect::WebSocket, Framing::Mesg, input),
            [
                Ok(Item::Ping(b"hi".to_vec())),
                Ok(Item::Pong(Vec::new())),
                text("ab"),
                binary(b"\xff"),
                Ok(Item::Close { code: 1005, reason: String::new() }),
            ]
        );
        let items = at_every_split_of(Dialect::WebSocket, Framing::Line, b"one\n\xff\n");
        assert_eq!(items, [text("one"), Err(FramingError::Utf8)]);
    }
}
