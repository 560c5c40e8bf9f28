//! What went wrong with a connection to a `ws`, `wss` or `tls` target: a word for programs, a reason for people. What
//! TLS itself has to say is [`crate::tls::Failure`].

use std::fmt;

/// The word with which the reason of an `ERR CONN` begins: turbo.websocket's table of errors, but for `SSL_ERROR`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    /// The URL could not be read.
    InvalidUrl,
    /// The URL is neither `ws` nor `wss`.
    InvalidSchema,
    /// No connection: no such name, refused, unreachable.
    CouldNotConnect,
    /// Connecting took too long.
    ConnectTimeout,
    /// The answer took too long.
    RequestTimeout,
    /// The answer is no HTTP, or too large.
    ParseErrorHeaders,
    /// The answer is no 101.
    BadHttpStatus,
    /// Redirected too often, or to where one must not go.
    RedirectMax,
    /// A 101, but not as RFC 6455 has it.
    WebsocketProtocolError,
    /// The connection was lost.
    SocketError,
}

impl Word {
    /// The word as it is said.
    pub fn name(self) -> &'static str {
        match self {
            Self::InvalidUrl => "INVALID_URL",
            Self::InvalidSchema => "INVALID_SCHEMA",
            Self::CouldNotConnect => "COULD_NOT_CONNECT",
            Self::ConnectTimeout => "CONNECT_TIMEOUT",
            Self::RequestTimeout => "REQUEST_TIMEOUT",
            Self::ParseErrorHeaders => "PARSE_ERROR_HEADERS",
            Self::BadHttpStatus => "BAD_HTTP_STATUS",
            Self::RedirectMax => "REDIRECT_MAX",
            Self::WebsocketProtocolError => "WEBSOCKET_PROTOCOL_ERROR",
            Self::SocketError => "SOCKET_ERROR",
        }
    }
}

impl fmt::Display for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why there is no connection; displays as the reason of an `ERR CONN`: `BAD_HTTP_STATUS 403 Forbidden`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// For programs.
    pub word: Word,
    /// For people: one line, may be empty.
    pub reason: Box<str>,
}

impl Failure {
    /// A failure; `reason` must be one line.
    pub fn new(word: Word, reason: impl Into<Box<str>>) -> Self {
        Self { word, reason: reason.into() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.word.fmt(f)?;
        if self.reason.is_empty() { Ok(()) } else { write!(f, " {}", self.reason) }
    }
}

impl std::error::Error for Failure {}
