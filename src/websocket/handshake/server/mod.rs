//! The server's side, start to end: a request in, an answer out.
//!
//! The answer is the caller's: it may think for as long as it likes which listener takes the request, or whom to ask.
//! What cannot be a WebSocket's request is answered here.

mod refusal;
mod request;

use std::fmt;

use super::head::{self, Head, HeadError};
use super::{accept, extensions};
use crate::websocket::Deflate;

pub use refusal::Refusal;
pub use request::Request;

/// What has come of a handshake so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// More bytes are needed.
    Pending,
    /// A client asks for a WebSocket: it waits for [`ServerHandshake::accept`] or [`ServerHandshake::refuse`].
    Asks(Box<Request>),
    /// The client asked for something else or asked badly. It is to be sent what [`ServerHandshake::transmit`] has,
    /// which may be nothing, and then to be left.
    Refused(Refusal),
}

/// What a client is to be told with the 101.
#[derive(Clone, Debug, Default)]
pub struct Answer<'a> {
    /// The subprotocol chosen, one of the request's.
    pub subprotocol: Option<&'a str>,
    /// More headers, as [`super::Offer::add_header`] lets them pass.
    pub headers: &'a [(Box<str>, Box<str>)],
    /// Compression may be agreed on.
    pub deflate: bool,
}

/// The subprotocol is not among those that the client offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotOffered;

impl fmt::Display for NotOffered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("subprotocol not offered")
    }
}

impl std::error::Error for NotOffered {}

/// A handshake under way.
#[derive(Debug, Default)]
pub struct ServerHandshake {
    head: Head,
    response: Vec<u8>,
    transmitted: usize,
}

impl ServerHandshake {
    /// A handshake of which nothing has come.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes what the client says. Anything but [`Arrival::Pending`] ends the reading.
    pub fn handle_input(&mut self, bytes: &[u8]) -> Arrival {
        match self.read(bytes) {
            Ok(None) => Arrival::Pending,
            Ok(Some(request)) => Arrival::Asks(request),
            Err(refusal) => {
                self.refuse(refusal.clone());
                Arrival::Refused(refusal)
            }
        }
    }

    /// Answers 101. What was agreed on about compression is returned.
    pub fn accept(&mut self, request: &Request, answer: &Answer<'_>) -> Result<Option<Deflate>, NotOffered> {
        if answer.subprotocol.is_some_and(|chosen| !request.offers(chosen)) {
            return Err(NotOffered);
        }
        let mut lines =
            String::from("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n");
        let mut line = |name: &str, value: &str| lines.extend([name, ": ", value, "\r\n"]);
        line("Sec-WebSocket-Accept", &accept::answer(&request.key));
        if let Some(subprotocol) = answer.subprotocol {
            line("Sec-WebSocket-Protocol", subprotocol);
        }
        let deflate = request.deflate.filter(|_| answer.deflate);
        if let Some(deflate) = deflate {
            line(extensions::HEADER, &deflate.answer());
        }
        for (name, value) in answer.headers {
            line(name, value);
        }
        lines.push_str("\r\n");
        self.respond(lines.into_bytes());
        Ok(deflate.map(Into::into))
    }

    /// Answers anything else; the connection is to be closed behind it.
    pub fn refuse(&mut self, refusal: Refusal) {
        self.respond(refusal.response());
    }

    /// What is to be sent next; empty when nothing is left.
    pub fn transmit(&self) -> &[u8] {
        &self.response[self.transmitted..]
    }

    /// `count` bytes of [`Self::transmit`] have been sent.
    pub fn handle_transmitted(&mut self, count: usize) {
        self.transmitted = (self.transmitted + count).min(self.response.len());
    }

    fn respond(&mut self, response: Vec<u8>) {
        self.response = response;
        self.transmitted = 0;
    }

    fn read(&mut self, mut bytes: &[u8]) -> Result<Option<Box<Request>>, Refusal> {
        // Empty lines ahead of a request mean nothing (RFC 9112 section 2.2).
        if self.head.bytes().is_empty() {
            let start = bytes.iter().position(|byte| !matches!(byte, b'\r' | b'\n')).unwrap_or(bytes.len());
            bytes = &bytes[start..];
        }
        let taken = self.head.take(bytes);
        // Every method of HTTP begins with such a letter: whoever begins otherwise need not be waited for.
        if self.head.bytes().first().is_some_and(|byte| !byte.is_ascii_uppercase()) {
            return Err(Refusal::silent());
        }
        let Some(taken) = taken.map_err(bad_head)? else { return Ok(None) };
        let head = std::mem::take(&mut self.head).into_bytes();
        let mut request = head::read_request(&head, Request::read).map_err(bad_head)??;
        request.head = head;
        request.rest = bytes[taken..].to_vec();
        Ok(Some(Box::new(request)))
    }
}

fn bad_head(error: HeadError) -> Refusal {
    let code = match error {
        HeadError::TooLong | HeadError::TooMany => 431,
        HeadError::Foreign | HeadError::Malformed(_) => 400,
    };
    Refusal::new(code, &error.to_string())
}

#[cfg(test)]
mod tests;
