//! [`ClientHandshake`]: the client's side of the opening handshake. Bytes of the request out, bytes of the response in.

mod lenient;
mod offer;
mod request;
mod response;

use super::head::{self, Head, HeadError};
use super::{ErrorCode, HandshakeError, Url, accept};
use crate::websocket::Deflate;
use lenient::StrictHead;
use response::{ExpectedResponse, ResponseOutcome};

pub(crate) use offer::{MAX_TEXTS, Offer, OfferError};

/// The start of every response. Other protocols are refused at the first byte that differs.
const RESPONSE_START: &[u8] = b"HTTP/1.";

/// Progress of a client's handshake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum HandshakeProgress {
    /// More bytes are needed.
    Pending,
    /// The handshake is done.
    Upgraded(Upgraded),
    /// The server redirects; see [`Url::join`].
    Redirect {
        /// The Location header as received.
        location: Box<str>,
    },
    /// The server answers 400 to a request that offers compression, perhaps because of that: some servers refuse parameters
    /// that they do not know. A new handshake on a new connection may have a plainer offer; see
    /// [`super::CompressionOffer::plainer`].
    OfferRefused(HandshakeError),
    /// The handshake failed.
    Failed(HandshakeError),
}

/// The result of a handshake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Upgraded {
    /// Bytes after the response: the first frames.
    pub rest: Vec<u8>,
    /// The subprotocol, if one was offered and chosen.
    pub subprotocol: Option<Box<str>>,
    /// The compression parameters, if compression was offered and accepted.
    pub deflate: Option<Deflate>,
    /// The header block as received, from the status line to the empty line, if [`Offer::keep_head`] is set.
    pub head: Option<Vec<u8>>,
}

/// A client's handshake.
///
/// Call order: write what [`ClientHandshake::transmit`] returns and pass input to [`ClientHandshake::handle_input`], in
/// any order, until it is not pending.
pub(crate) struct ClientHandshake {
    request: Vec<u8>,
    transmitted: usize,
    expected: ExpectedResponse,
    keep_head: bool,
    head: Head,
}

impl ClientHandshake {
    /// Begins a handshake. `key` must be random and new for each handshake (RFC 6455 section 4.1).
    ///
    /// If `send_credentials` is false, the request has neither the offer's credentials nor its headers. They are for
    /// the host of the URL that the plugin wrote, not for the host of a redirect (see [`Url::same_host`]).
    pub(crate) fn new(url: &Url, offer: &Offer, key: [u8; 16], send_credentials: bool) -> Self {
        let key = accept::key(key);
        Self {
            request: request::build(url, offer, &key, send_credentials),
            transmitted: 0,
            expected: ExpectedResponse::new(&key, &offer.subprotocols, offer.deflate),
            keep_head: offer.keep_head,
            head: Head::default(),
        }
    }

    /// The bytes to send next; empty if none are left.
    pub(crate) fn transmit(&self) -> &[u8] {
        &self.request[self.transmitted..]
    }

    /// `count` bytes of [`Self::transmit`] have been sent.
    pub(crate) fn handle_transmitted(&mut self, count: usize) {
        self.transmitted = (self.transmitted + count).min(self.request.len());
        if self.transmitted == self.request.len() {
            (self.request, self.transmitted) = (Vec::new(), 0);
        }
    }

    /// Bytes held: the request while some of it is left to send, and what has come of the response.
    pub(crate) fn held(&self) -> usize {
        self.request.capacity() + self.received() + self.expected.held()
    }

    /// Bytes that have come of the response.
    pub(crate) fn received(&self) -> usize {
        self.head.bytes().len()
    }

    /// Takes bytes of the server. After any result but [`HandshakeProgress::Pending`], no more input may follow.
    pub(crate) fn handle_input(&mut self, bytes: &[u8]) -> HandshakeProgress {
        self.read(bytes).unwrap_or_else(HandshakeProgress::Failed)
    }

    /// Returns the error for a transport that ends during the handshake.
    pub(crate) fn handle_eof(&self) -> HandshakeError {
        let reason = if self.head.bytes().is_empty() { "closed without an answer" } else { "closed during its answer" };
        HandshakeError::new(ErrorCode::SocketError, reason)
    }

    fn read(&mut self, mut bytes: &[u8]) -> Result<HandshakeProgress, HandshakeError> {
        loop {
            // Some devices end the body of an earlier response with an empty line too many. RFC 9112 section 2.2 lets a server
            // ignore one before a request for such peers.
            bytes = self.head.skip_empty_line(bytes).map_err(bad_head)?;
            let taken = self.head.take(bytes);
            if !self.head.bytes().iter().zip(RESPONSE_START).all(|(is, should)| is == should) {
                return Err(bad_head(HeadError::NotHttp));
            }
            let Some(taken) = taken.map_err(bad_head)? else { return Ok(HandshakeProgress::Pending) };
            bytes = &bytes[taken..];
            let StrictHead { bytes: strict, malformed } = StrictHead::of(self.head.bytes());
            let expected = &self.expected;
            let outcome =
                head::read_response(&strict, |response| expected.check(response, &malformed)).map_err(bad_head)??;
            match outcome {
                ResponseOutcome::Interim => self.head.skip(),
                ResponseOutcome::Redirect(location) => return Ok(HandshakeProgress::Redirect { location }),
                ResponseOutcome::OfferRefused(error) => return Ok(HandshakeProgress::OfferRefused(error)),
                // The server cannot have seen the whole request, so bytes after its response might be meant for
                // something else.
                ResponseOutcome::Upgraded { .. } if !self.transmit().is_empty() => {
                    return Err(HandshakeError::new(ErrorCode::WebsocketProtocolError, "answered before it was asked"));
                }
                ResponseOutcome::Upgraded { subprotocol, deflate } => {
                    let head = std::mem::take(&mut self.head).into_bytes();
                    let head = self.keep_head.then_some(head);
                    return Ok(HandshakeProgress::Upgraded(Upgraded {
                        rest: bytes.to_vec(),
                        subprotocol,
                        deflate,
                        head,
                    }));
                }
            }
        }
    }
}

impl std::fmt::Debug for ClientHandshake {
    /// Without the request, which may have credentials.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let left = self.transmit().len();
        f.debug_struct("ClientHandshake").field("to_transmit", &left).field("head", &self.head).finish_non_exhaustive()
    }
}

fn bad_head(error: HeadError) -> HandshakeError {
    HandshakeError::new(ErrorCode::ParseErrorHeaders, error.to_string())
}

#[cfg(test)]
mod tests;
