//! The client's side, start to end: a request out, an answer in.

use super::head::{self, Head, HeadError};
use super::response::{Asked, Verdict};
use super::{Failure, Offer, Url, Word, accept, request};
use crate::websocket::Deflate;

/// How every answer begins: whoever begins otherwise need not be waited for.
const ANSWER_BEGINS: &[u8] = b"HTTP/1.";

/// What has come of a handshake so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// More bytes are needed.
    Pending,
    /// The connection speaks WebSocket now.
    Upgraded(Upgraded),
    /// The server says to go elsewhere; see [`Url::join`].
    Redirect {
        /// Where, as the server has it.
        location: Box<str>,
    },
    /// There will be no connection.
    Failed(Failure),
}

/// What both sides have agreed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upgraded {
    /// What came behind the answer: the first frames.
    pub rest: Vec<u8>,
    /// The subprotocol, where one was offered and chosen.
    pub subprotocol: Option<Box<str>>,
    /// Compression, where it was offered and taken.
    pub deflate: Option<Deflate>,
    /// The header block as it came, with its status line and the empty line at its end, where it was to be kept.
    pub head: Option<Vec<u8>>,
}

/// A handshake under way.
pub struct ClientHandshake {
    request: Vec<u8>,
    transmitted: usize,
    asked: Asked,
    keep_head: bool,
    head: Head,
}

impl ClientHandshake {
    /// Begins a handshake. `key` must be random and new.
    ///
    /// Without `send_credentials` the request has neither the offer's credentials nor its headers: they are for the
    /// host of the URL that the plugin wrote, not for one to which that redirects (see [`Url::same_host`]).
    pub fn new(url: &Url, offer: &Offer, key: [u8; 16], send_credentials: bool) -> Self {
        let key = accept::key(key);
        Self {
            request: request::build(url, offer, &key, send_credentials),
            transmitted: 0,
            asked: Asked::new(&key, &offer.subprotocols, offer.deflate),
            keep_head: offer.keep_head,
            head: Head::default(),
        }
    }

    /// What is to be sent next; empty when nothing is left.
    pub fn transmit(&self) -> &[u8] {
        &self.request[self.transmitted..]
    }

    /// `count` bytes of [`Self::transmit`] have been sent.
    pub fn handle_transmitted(&mut self, count: usize) {
        self.transmitted = (self.transmitted + count).min(self.request.len());
    }

    /// Bytes held: what is left to be sent, and what has come of the response.
    pub fn held(&self) -> usize {
        self.transmit().len() + self.head.bytes().len()
    }

    /// Takes what the server says. Anything but [`Progress::Pending`] ends the handshake; bytes after that are nobody's.
    pub fn handle_input(&mut self, bytes: &[u8]) -> Progress {
        self.read(bytes).unwrap_or_else(Progress::Failed)
    }

    /// The failure that the end of the server's bytes makes of a handshake under way.
    pub fn handle_eof(&self) -> Failure {
        let reason = if self.head.bytes().is_empty() { "closed without an answer" } else { "closed amid its answer" };
        Failure::new(Word::SocketError, reason)
    }

    fn read(&mut self, mut bytes: &[u8]) -> Result<Progress, Failure> {
        loop {
            let taken = self.head.take(bytes);
            if !self.head.bytes().iter().zip(ANSWER_BEGINS).all(|(is, should)| is == should) {
                return Err(bad_head(HeadError::Foreign));
            }
            let Some(taken) = taken.map_err(bad_head)? else { return Ok(Progress::Pending) };
            bytes = &bytes[taken..];
            let asked = &self.asked;
            let verdict =
                head::read_response(self.head.bytes(), |response| asked.judge(response)).map_err(bad_head)??;
            match verdict {
                Verdict::Interim => self.head.skip(),
                Verdict::Redirect(location) => return Ok(Progress::Redirect { location }),
                // It cannot know our key yet, or has not heard all: what follows would be taken for the request's rest.
                Verdict::Upgraded { .. } if !self.transmit().is_empty() => {
                    return Err(Failure::new(Word::WebsocketProtocolError, "answered before it was asked"));
                }
                Verdict::Upgraded { subprotocol, deflate } => {
                    let head = std::mem::take(&mut self.head).into_bytes();
                    let head = self.keep_head.then_some(head);
                    return Ok(Progress::Upgraded(Upgraded { rest: bytes.to_vec(), subprotocol, deflate, head }));
                }
            }
        }
    }
}

impl std::fmt::Debug for ClientHandshake {
    /// Without the request, which has secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let left = self.transmit().len();
        f.debug_struct("ClientHandshake").field("to_transmit", &left).field("head", &self.head).finish_non_exhaustive()
    }
}

fn bad_head(error: HeadError) -> Failure {
    Failure::new(Word::ParseErrorHeaders, error.to_string())
}

#[cfg(test)]
mod tests;
