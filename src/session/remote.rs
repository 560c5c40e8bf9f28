//! The remote's side of a stream, with whatever stands between the socket and its bytes.

use std::io;
use std::os::fd::BorrowedFd;

use crate::net::socket::{Stream, TcpSocket};
use crate::relay::Ready;
use crate::tls::TlsStream;

/// A connected remote.
#[derive(Debug)]
pub enum Remote {
    /// The bytes are the socket's.
    Plain(TcpSocket),
    /// The socket's bytes are encrypted.
    Tls(Box<TlsStream<TcpSocket>>),
}

impl Remote {
    /// What is to be taken for granted of it, given what events have said of its socket.
    pub fn readiness(&self, heard: Ready) -> Ready {
        Ready { readable: true, writable: true, layered: matches!(self, Self::Tls(_)), ..heard }
    }

    /// The version of TLS, where that is spoken.
    pub fn tls_version(&self) -> Option<&'static str> {
        match self {
            Self::Plain(_) => None,
            Self::Tls(stream) => Some(stream.version()),
        }
    }
}

impl Stream for Remote {
    fn recv(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.recv(buffer),
            Self::Tls(stream) => stream.recv(buffer),
        }
    }

    fn send(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.send(bytes),
            Self::Tls(stream) => stream.send(bytes),
        }
    }

    fn shutdown_write(&mut self) {
        match self {
            Self::Plain(socket) => socket.shutdown_write(),
            Self::Tls(stream) => stream.shutdown_write(),
        }
    }

    fn flush(&mut self) -> io::Result<bool> {
        match self {
            Self::Plain(_) => Ok(true),
            Self::Tls(stream) => Stream::flush(stream.as_mut()),
        }
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::Plain(socket) => socket.fd(),
            Self::Tls(_) => None,
        }
    }
}
