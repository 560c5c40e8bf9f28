//! [`HandshakeError`]: why a connection to a `ws`, `wss` or `tls` target failed. It has a code for programs and a
//! reason for people. Errors of TLS are `TlsError` of the module `tls`.

use std::fmt;

/// The first word of the reason in `ERR CONN`: turbo.websocket's table of errors without `SSL_ERROR`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ErrorCode {
    /// The URL is malformed.
    InvalidUrl,
    /// The URL is neither `ws` nor `wss`.
    InvalidSchema,
    /// The TCP connection failed: unknown name, refused, unreachable.
    CouldNotConnect,
    /// Connecting took too long.
    ConnectTimeout,
    /// The response took too long.
    RequestTimeout,
    /// The response is not HTTP, or too large.
    ParseErrorHeaders,
    /// The status is not 101.
    BadHttpStatus,
    /// Too many redirects, or a redirect from `wss` to `ws`.
    RedirectMax,
    /// The response has status 101 and violates RFC 6455.
    WebsocketProtocolError,
    /// The connection was lost.
    SocketError,
}

impl ErrorCode {
    /// The code as plugins see it.
    pub(crate) fn name(self) -> &'static str {
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

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why there is no connection. Displays as the reason of `ERR CONN`, for example `BAD_HTTP_STATUS 403 Forbidden`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HandshakeError {
    /// For programs.
    pub code: ErrorCode,
    /// For people: one line, may be empty.
    pub reason: Box<str>,
}

impl HandshakeError {
    /// An error. `reason` must be one line.
    pub(crate) fn new(code: ErrorCode, reason: impl Into<Box<str>>) -> Self {
        Self { code, reason: reason.into() }
    }
}

impl fmt::Display for HandshakeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.code.fmt(f)?;
        if self.reason.is_empty() { Ok(()) } else { write!(f, " {}", self.reason) }
    }
}

impl std::error::Error for HandshakeError {}
