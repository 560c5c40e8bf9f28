//! The remote's stream: the socket, or TLS on top of it.

use std::io;
use std::os::fd::BorrowedFd;

use crate::net::endpoint::Endpoint;
use crate::net::reason;
use crate::net::socket::Stream;
use crate::net::user_timeout::Unacknowledged;
use crate::protocol::connect_error::ConnectError;
use crate::relay::memory_budget::MemoryBudget;
use crate::tls::TlsStream;
use crate::websocket::handshake::{ErrorCode, HandshakeError};

/// Memory that a stream which waits needs: that of the longest record of TLS (RFC 8446 section 5.2).
const RECORD_MEMORY: usize = 17 * 1024;

/// A connected remote's stream over a socket `S`.
#[derive(Debug)]
pub(super) enum RemoteStream<S> {
    /// The bytes are the socket's.
    Plain(S),
    /// The socket's bytes are encrypted.
    Tls(Box<TlsStream<S>>),
}

impl<S: Stream> RemoteStream<S> {
    /// The version of TLS, if that is spoken.
    pub(super) fn tls_version(&self) -> Option<&'static str> {
        match self {
            Self::Plain(_) => None,
            Self::Tls(stream) => Some(stream.version()),
        }
    }

    /// The socket below.
    pub(super) fn socket(&self) -> &S {
        match self {
            Self::Plain(socket) => socket,
            Self::Tls(stream) => stream.get_ref(),
        }
    }

    fn stream(&self) -> &dyn Stream {
        match self {
            Self::Plain(socket) => socket,
            Self::Tls(stream) => stream.as_ref(),
        }
    }

    fn stream_mut(&mut self) -> &mut dyn Stream {
        match self {
            Self::Plain(socket) => socket,
            Self::Tls(stream) => stream.as_mut(),
        }
    }
}

/// Waits for memory if `remote` does.
pub(super) fn wait_if_needed(remote: &dyn Endpoint, budget: &mut MemoryBudget) {
    if remote.waits_for_memory() {
        budget.wait(RECORD_MEMORY);
    }
}

/// A connection that broke before bytes could pass.
pub(super) fn connection_lost(error: &io::Error) -> ConnectError {
    if error.kind() == io::ErrorKind::InvalidData {
        // A TLS error has its own words: a server may refuse the plugin's certificate after the handshake.
        return ConnectError::Tls(reason(error).into());
    }
    HandshakeError::new(ErrorCode::SocketError, reason(error)).into()
}

impl<S: Stream> Stream for RemoteStream<S> {
    fn recv(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream_mut().recv(buffer)
    }

    fn send(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream_mut().send(bytes)
    }

    fn send_both(&mut self, first: &[u8], rest: &[u8]) -> io::Result<usize> {
        self.stream_mut().send_both(first, rest)
    }

    fn flush(&mut self) -> io::Result<bool> {
        self.stream_mut().flush()
    }

    fn shutdown_write(&mut self) {
        self.stream_mut().shutdown_write();
    }

    fn is_layered(&self) -> bool {
        self.stream().is_layered()
    }

    fn unsent(&self) -> usize {
        self.stream().unsent()
    }

    fn held(&self) -> usize {
        self.stream().held()
    }

    fn incomplete(&self) -> usize {
        self.stream().incomplete()
    }

    fn state_memory(&self) -> usize {
        self.stream().state_memory()
    }

    fn set_send_limit(&mut self, bytes: usize) {
        self.stream_mut().set_send_limit(bytes);
    }

    fn set_receive_limit(&mut self, bytes: usize) {
        self.stream_mut().set_receive_limit(bytes);
    }

    fn waits_for_memory(&self) -> bool {
        self.stream().waits_for_memory()
    }

    fn keep_urgent_bytes(&mut self) {
        self.stream_mut().keep_urgent_bytes();
    }

    fn unacknowledged(&self) -> Option<Unacknowledged> {
        self.socket().unacknowledged()
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.stream().fd()
    }
}
