//! [`ServerHandshake`]: the server's side of the opening handshake.
//!
//! The caller decides on the response and may take its time, for example to find the listener or to ask a plugin.
//! Requests that cannot be for a WebSocket are refused here.

mod page;
mod refusal;
mod request;
mod rules;

use std::fmt;

use super::head::{self, Head, HeadError};
use super::{accept, extensions};
use crate::websocket::Deflate;

pub(crate) use page::{PageRequest, head_of_response, page_response};
pub(crate) use refusal::Refusal;
use request::ParsedRequest;
pub(crate) use request::UpgradeRequest;
pub(crate) use rules::ServerRules;

/// Progress of a server's handshake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum RequestProgress {
    /// More bytes are needed.
    Pending,
    /// A valid request. The client waits for [`ServerHandshake::accept`] or [`ServerHandshake::refuse`].
    Received(Box<UpgradeRequest>),
    /// A valid request for a page, which only a handshake that takes such returns.
    Page(Box<PageRequest>),
    /// The request is refused. Send what [`ServerHandshake::transmit`] returns, which may be nothing, and close the
    /// connection.
    Refused(Refusal),
}

/// The choices of a 101 response.
#[derive(Clone, Debug, Default)]
pub(crate) struct AcceptOptions<'a> {
    /// The chosen subprotocol, one of the request's.
    pub subprotocol: Option<&'a str>,
    /// Additional headers that [`super::Offer::add_header`] accepts.
    pub headers: &'a [(Box<str>, Box<str>)],
    /// True if compression may be negotiated.
    pub deflate: bool,
}

/// The chosen subprotocol is not one that the client offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SubprotocolError;

impl fmt::Display for SubprotocolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("subprotocol not offered")
    }
}

impl std::error::Error for SubprotocolError {}

/// A server's handshake.
///
/// Call order: [`ServerHandshake::handle_input`] until it is not pending; [`ServerHandshake::accept`] or
/// [`ServerHandshake::refuse`]; then write what [`ServerHandshake::transmit`] returns.
#[derive(Debug, Default)]
pub(crate) struct ServerHandshake {
    /// Requests for pages are taken, too.
    has_pages: bool,
    head: Head,
    response: Vec<u8>,
    transmitted: usize,
}

impl ServerHandshake {
    /// A handshake without input.
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// The same at a port that has pages.
    pub(crate) fn with_pages() -> Self {
        Self { has_pages: true, ..Self::default() }
    }

    /// Bytes of the request so far. Each is held.
    pub(crate) fn received(&self) -> usize {
        self.head.bytes().len()
    }

    /// Takes bytes of the client. After any result but [`RequestProgress::Pending`], no more input may follow.
    pub(crate) fn handle_input(&mut self, bytes: &[u8]) -> RequestProgress {
        match self.read(bytes) {
            Ok(progress) => progress,
            Err(refusal) => {
                self.refuse(refusal.clone());
                RequestProgress::Refused(refusal)
            }
        }
    }

    /// Queues a 101 response and returns the negotiated compression.
    pub(crate) fn accept(
        &mut self,
        request: &UpgradeRequest,
        options: &AcceptOptions<'_>,
    ) -> Result<Option<Deflate>, SubprotocolError> {
        if options.subprotocol.is_some_and(|chosen| !request.offers(chosen)) {
            return Err(SubprotocolError);
        }
        let mut lines =
            String::from("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n");
        let mut line = |name: &str, value: &str| lines.extend([name, ": ", value, "\r\n"]);
        line("Sec-WebSocket-Accept", &accept::accept_value(&request.key));
        if let Some(subprotocol) = options.subprotocol {
            line("Sec-WebSocket-Protocol", subprotocol);
        }
        let deflate = request.deflate.filter(|_| options.deflate);
        if let Some(deflate) = deflate {
            line(extensions::HEADER, &deflate.response());
        }
        for (name, value) in options.headers {
            line(name, value);
        }
        lines.push_str("\r\n");
        self.respond(lines.into_bytes());
        Ok(deflate.map(Into::into))
    }

    /// Queues a refusal. Close the connection once it is written.
    pub(crate) fn refuse(&mut self, refusal: Refusal) {
        self.respond(refusal.response());
    }

    /// The bytes to send next; empty if none are left.
    pub(crate) fn transmit(&self) -> &[u8] {
        &self.response[self.transmitted..]
    }

    /// `count` bytes of [`Self::transmit`] have been sent.
    #[cfg(test)]
    pub(crate) fn handle_transmitted(&mut self, count: usize) {
        self.transmitted = (self.transmitted + count).min(self.response.len());
    }

    fn respond(&mut self, response: Vec<u8>) {
        self.response = response;
        self.transmitted = 0;
    }

    fn read(&mut self, mut bytes: &[u8]) -> Result<RequestProgress, Refusal> {
        // RFC 9112 section 2.2: a server SHOULD ignore empty lines before a request.
        if self.head.bytes().is_empty() {
            let start = bytes.iter().position(|byte| !matches!(byte, b'\r' | b'\n')).unwrap_or(bytes.len());
            bytes = &bytes[start..];
        }
        let taken = self.head.take(bytes);
        // Every HTTP method begins with an upper-case letter: refuse other protocols at the first byte.
        if self.head.bytes().first().is_some_and(|byte| !byte.is_ascii_uppercase()) {
            return Err(Refusal::silent());
        }
        let Some(taken) = taken.map_err(bad_head)? else { return Ok(RequestProgress::Pending) };
        let head = std::mem::take(&mut self.head).into_bytes();
        let check = |request: &httparse::Request<'_, '_>| ParsedRequest::check(request, self.has_pages);
        let mut request = match head::read_request(&head, check).map_err(bad_head)?? {
            ParsedRequest::WebSocket(request) => request,
            ParsedRequest::Page(page) => return Ok(RequestProgress::Page(page)),
        };
        request.head = head;
        request.rest = bytes[taken..].to_vec();
        Ok(RequestProgress::Received(request))
    }
}

fn bad_head(error: HeadError) -> Refusal {
    let code = match error {
        HeadError::TooLong | HeadError::TooManyFields => 431,
        HeadError::NotHttp | HeadError::Malformed(_) => 400,
    };
    Refusal::new(code, &format!("The request is not valid: {error}."))
}

#[cfg(test)]
mod tests;
