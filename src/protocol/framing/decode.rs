//! Reads messages from what a plugin sends, in pieces of any size.

use std::net::SocketAddr;

use super::mesg::{FramingError, HEADER_LIMIT, Verb, parse_header};
use super::{DATAGRAM_LIMIT, Framing};

/// What a plugin said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// A whole message, to the target or to an address that the plugin named.
    Message {
        /// The payload.
        payload: Vec<u8>,
        /// Where to, if not to the target.
        to: Option<SocketAddr>,
    },
    /// The end.
    Close {
        /// The code, one that may be sent.
        code: u16,
        /// The reason, at most 123 bytes.
        reason: Vec<u8>,
    },
}

/// Reads messages in one framing.
///
/// Contract: after [`Decoder::handle_input`], call [`Decoder::poll_item`] until it answers `None`. After an error or
/// a [`Item::Close`] there is nothing more to ask.
#[derive(Debug)]
pub struct Decoder {
    framing: Framing,
    /// What was sent. At most a header, the longest body and one read are not yet taken.
    input: Vec<u8>,
    /// How much of `input` has been taken.
    taken: usize,
    /// How much of what is not taken holds no newline: it is not searched again.
    searched: usize,
    /// Pieces of a message that FRAG has begun, at most [`DATAGRAM_LIMIT`] bytes.
    pieces: Vec<u8>,
}

impl Decoder {
    /// A decoder that has seen nothing.
    pub fn new(framing: Framing) -> Self {
        Self { framing, input: Vec::new(), taken: 0, searched: 0, pieces: Vec::new() }
    }

    /// Takes what the plugin sent.
    pub fn handle_input(&mut self, bytes: &[u8]) {
        self.input.drain(..std::mem::take(&mut self.taken));
        self.input.extend_from_slice(bytes);
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
        let taken = self.input[self.taken..self.taken + length].to_vec();
        self.taken += length;
        if self.taken == self.input.len() {
            self.input = Vec::new();
            self.taken = 0;
        }
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
        (!payload.is_empty()).then_some(Ok(Item::Message { payload, to: None }))
    }

    /// LF ends a message, one CR before it is dropped, an empty line says nothing.
    fn poll_line(&mut self) -> Option<Result<Item, FramingError>> {
        loop {
            let searched = std::mem::take(&mut self.searched);
            let Some(end) = self.waiting()[searched..].iter().position(|&b| b == b'\n') else {
                self.searched = self.waiting().len();
                // One more than the longest may be the CR before the LF.
                return (self.waiting().len() > DATAGRAM_LIMIT + 1).then_some(Err(FramingError::TooLong));
            };
            let mut payload = self.take(searched + end + 1);
            payload.pop();
            payload.pop_if(|last| *last == b'\r');
            if payload.len() > DATAGRAM_LIMIT {
                return Some(Err(FramingError::TooLong));
            }
            if !payload.is_empty() {
                return Some(Ok(Item::Message { payload, to: None }));
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
            let (verb, length) = parse_header(&header[..end], DATAGRAM_LIMIT - self.pieces.len())?;
            if waiting.len() < end + 1 + length {
                return Ok(None);
            }
            self.take(end + 1);
            let body = self.take(length);
            if let Verb::Frag = verb {
                self.pieces.extend_from_slice(&body);
                continue;
            }
            return self.finish(verb, body).map(Some);
        }
    }

    fn finish(&mut self, verb: Verb, body: Vec<u8>) -> Result<Item, FramingError> {
        let to = match verb {
            // A close does not wait for the message that FRAG has begun.
            Verb::Clos(code) => {
                return match std::str::from_utf8(&body) {
                    Ok(_) => Ok(Item::Close { code, reason: body }),
                    Err(_) => Err(FramingError::Utf8),
                };
            }
            Verb::Dgrm(to) => Some(to),
            _ => None,
        };
        let mut payload = std::mem::take(&mut self.pieces);
        if payload.is_empty() {
            payload = body;
        } else {
            payload.extend_from_slice(&body);
        }
        if verb == Verb::Text && std::str::from_utf8(&payload).is_err() {
            return Err(FramingError::Utf8);
        }
        Ok(Item::Message { payload, to })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Items = Vec<Result<Item, FramingError>>;

    fn decoded<'a>(framing: Framing, pieces: impl IntoIterator<Item = &'a [u8]>) -> Items {
        let mut decoder = Decoder::new(framing);
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

    /// The items of `input` as a whole, after checking that no split changes them.
    fn at_every_split(framing: Framing, input: &[u8]) -> Items {
        let whole = decoded(framing, [input]);
        assert_eq!(decoded(framing, input.chunks(1)), whole, "byte by byte");
        for split in 0..input.len() {
            let (a, b) = input.split_at(split);
            assert_eq!(decoded(framing, [a, b]), whole, "split at {split}");
        }
        whole
    }

    fn message(payload: &[u8]) -> Result<Item, FramingError> {
        Ok(Item::Message { payload: payload.to_vec(), to: None })
    }

    #[test]
    fn raw_is_what_is_read_at_once() {
        assert_eq!(decoded(Framing::Raw, [&b"ab"[..], b"c"]), [message(b"ab"), message(b"c")]);
    }

    #[test]
    fn lines() {
        let items = at_every_split(Framing::Line, b"one\r\n\n\r\ntwo\r\r\nrest");
        assert_eq!(items, [message(b"one"), message(b"two\r")]);
        let longest = [&vec![b'x'; DATAGRAM_LIMIT][..], b"\r\n"].concat();
        let (most, newline) = longest.split_at(longest.len() - 1);
        assert_eq!(decoded(Framing::Line, [most, newline]), decoded(Framing::Line, [&longest[..]]));
        let long = vec![b'x'; DATAGRAM_LIMIT + 2];
        assert_eq!(decoded(Framing::Line, [&long[..]]), [Err(FramingError::TooLong)]);
    }

    #[test]
    fn a_line_in_drips_is_searched_once() {
        let mut decoder = Decoder::new(Framing::Line);
        for _ in 0..DATAGRAM_LIMIT {
            decoder.handle_input(b"x");
            assert_eq!(decoder.poll_item(), None);
            assert_eq!(decoder.searched, decoder.buffered(), "the next drip costs no search of these");
        }
        decoder.handle_input(b"\nnext\n");
        assert_eq!(decoder.poll_item(), Some(message(&vec![b'x'; DATAGRAM_LIMIT])));
        assert_eq!(decoder.poll_item(), Some(message(b"next")));
    }

    #[test]
    fn messages() {
        let input = b"TEXT 3\na\nbBINA 0\nDGRM 2 1.2.3.4:5\nxyFRAG 2\n\xc3\xa4FRAG 1\n\xc3TEXT 1\n\xa4CLOS 1000 2\nby";
        assert_eq!(
            at_every_split(Framing::Mesg, input),
            [
                message(b"a\nb"),
                message(b""),
                Ok(Item::Message { payload: b"xy".to_vec(), to: Some("1.2.3.4:5".parse().unwrap()) }),
                message("ää".as_bytes()),
                Ok(Item::Close { code: 1000, reason: b"by".to_vec() }),
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
}
