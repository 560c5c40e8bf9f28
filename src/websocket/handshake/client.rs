//! The client's side: a request out, an answer in.

use super::{Failure, Offer, Url, Word};
use crate::websocket::deflate::Deflate;

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
#[derive(Debug)]
pub struct ClientHandshake {
    request: Vec<u8>,
    transmitted: usize,
}

impl ClientHandshake {
    /// Begins a handshake. `key` must be random and new.
    ///
    /// Without `send_credentials` the request has neither the offer's credentials nor its headers: they are for the
    /// host of the URL that the plugin wrote, not for one to which that redirects.
    pub fn new(_url: &Url, _offer: &Offer, _key: [u8; 16], _send_credentials: bool) -> Self {
        Self { request: Vec::new(), transmitted: 0 }
    }

    /// What is to be sent next; empty when nothing is left.
    pub fn transmit(&self) -> &[u8] {
        &self.request[self.transmitted..]
    }

    /// `count` bytes of [`Self::transmit`] have been sent.
    pub fn handle_transmitted(&mut self, count: usize) {
        self.transmitted = (self.transmitted + count).min(self.request.len());
    }

    /// Takes what the server says. Anything but [`Progress::Pending`] ends the handshake.
    pub fn handle_input(&mut self, _bytes: &[u8]) -> Progress {
        Progress::Failed(self.handle_eof())
    }

    /// The failure that the end of the server's bytes makes of a handshake under way.
    pub fn handle_eof(&self) -> Failure {
        Failure::new(Word::SocketError, "closed before the answer")
    }
}
