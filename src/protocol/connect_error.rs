//! Why a CONN failed. The reason of every `ERR CONN` is made here.

use std::borrow::Cow;

use super::options::{OptionError, Protocol};
use super::target::TargetError;
use crate::websocket::handshake::{ErrorCode, HandshakeError};

/// Why a CONN failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ConnectError {
    /// The target cannot be read.
    Target(TargetError),
    /// An option cannot be read, or does not fit the target.
    Option(OptionError),
    /// KEEP: why the pid is refused.
    Pid(&'static str),
    /// There is no connection. The reason is in LuaSocket's words. For `tls`, `ws` and `wss` the name of the
    /// [`ErrorCode`] goes before it.
    Connection(ErrorCode, Cow<'static, str>),
    /// The opening handshake of WebSocket failed, or the connection was lost while it was made.
    Handshake(HandshakeError),
    /// TLS failed. The text begins with `SSL_ERROR`.
    Tls(Box<str>),
}

impl ConnectError {
    /// Connecting to one host took too long (CTIM).
    pub(crate) const CONNECT_TIMEOUT: Self = Self::Connection(ErrorCode::ConnectTimeout, Cow::Borrowed("timeout"));
    /// There is no memory for what the plugin wrote, or for the server's part of a handshake.
    pub(crate) const NO_MEMORY: Self = Self::Connection(ErrorCode::CouldNotConnect, Cow::Borrowed("no memory"));
    /// Everything up to the answer took too long (RQTM).
    pub(crate) const REQUEST_TIMEOUT: Self = Self::Connection(ErrorCode::RequestTimeout, Cow::Borrowed("timeout"));

    /// No connection can be made, for a reason in LuaSocket's words.
    pub(crate) fn could_not_connect(reason: impl Into<Cow<'static, str>>) -> Self {
        Self::Connection(ErrorCode::CouldNotConnect, reason.into())
    }

    /// The status of the HTTP response to a client that waits for the connection.
    pub(crate) fn http_status(&self) -> u16 {
        match self {
            Self::Connection(ErrorCode::ConnectTimeout | ErrorCode::RequestTimeout, _) => 504,
            error if *error == Self::NO_MEMORY => 503,
            _ => 502,
        }
    }

    /// The reason of `ERR CONN`. Bytes, since it may repeat what the plugin wrote. `protocol`: what is spoken with the
    /// target.
    pub(crate) fn reason(&self, protocol: Protocol) -> Vec<u8> {
        match self {
            Self::Target(TargetError::Endpoint) => b"Invalid host:port".to_vec(),
            Self::Target(TargetError::Url(error)) | Self::Handshake(error) => error.to_string().into_bytes(),
            Self::Option(error) => error.reason(),
            Self::Pid(reason) => reason.as_bytes().to_vec(),
            Self::Connection(_, reason) if matches!(protocol, Protocol::Tcp | Protocol::Udp) => {
                reason.as_bytes().to_vec()
            }
            Self::Connection(code, reason) => HandshakeError::new(*code, reason.as_ref()).to_string().into_bytes(),
            Self::Tls(text) => text.as_bytes().to_vec(),
        }
    }
}

impl From<HandshakeError> for ConnectError {
    fn from(error: HandshakeError) -> Self {
        Self::Handshake(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_protocols_of_ours_put_a_word_in_front() {
        let refused = ConnectError::could_not_connect("connection refused");
        for (protocol, reason) in [
            (Protocol::Tcp, "connection refused"),
            (Protocol::Udp, "connection refused"),
            (Protocol::Tls, "COULD_NOT_CONNECT connection refused"),
            (Protocol::Ws, "COULD_NOT_CONNECT connection refused"),
            (Protocol::Wss, "COULD_NOT_CONNECT connection refused"),
        ] {
            assert_eq!(refused.reason(protocol), reason.as_bytes());
        }
        assert_eq!(ConnectError::CONNECT_TIMEOUT.reason(Protocol::Tcp), b"timeout");
        assert_eq!(ConnectError::REQUEST_TIMEOUT.reason(Protocol::Ws), b"REQUEST_TIMEOUT timeout");
        for (error, status) in [
            (ConnectError::REQUEST_TIMEOUT, 504),
            (ConnectError::CONNECT_TIMEOUT, 504),
            (ConnectError::NO_MEMORY, 503),
            (refused, 502),
        ] {
            assert_eq!(error.http_status(), status, "{error:?}");
        }
        assert_eq!(ConnectError::Tls("SSL_ERROR expired".into()).reason(Protocol::Tls), b"SSL_ERROR expired");
    }
}
