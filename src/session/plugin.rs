//! The plugin's side of a session: its connection, or what stands in for one that may go away.

use std::io;
use std::os::fd::BorrowedFd;

use super::kept::KeptPlugin;
use crate::net::socket::{Stream, TcpSocket};
use crate::relay::memory_budget::Buffers;

/// The plugin's side.
#[derive(Debug)]
pub enum PluginSide {
    /// The connection itself: its end is the end.
    Attached(TcpSocket),
    /// A connection that may go away, and another one take its place (KEEP).
    Kept(Box<KeptPlugin>),
    /// None: the connection is another session's now (ATCH).
    Gone,
}

impl PluginSide {
    /// Lets go of everything that is held.
    pub fn release(&mut self, buffers: &mut Buffers) {
        if let Self::Kept(kept) = self {
            kept.release(buffers);
        }
    }
}

impl Stream for PluginSide {
    fn recv(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Attached(socket) => socket.recv(buffer),
            Self::Kept(kept) => kept.recv(buffer),
            Self::Gone => Ok(0),
        }
    }

    fn send(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Attached(socket) => socket.send(bytes),
            Self::Kept(kept) => kept.send(bytes),
            Self::Gone => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    fn flush(&mut self) -> io::Result<bool> {
        match self {
            Self::Attached(socket) => socket.flush(),
            Self::Kept(kept) => kept.flush(),
            Self::Gone => Ok(true),
        }
    }

    fn shutdown_write(&mut self) {
        match self {
            Self::Attached(socket) => socket.shutdown_write(),
            Self::Kept(kept) => kept.shutdown_write(),
            Self::Gone => {}
        }
    }

    /// What may go away is never spliced into: what a pipe holds could not be given again.
    fn fd(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::Attached(socket) => socket.fd(),
            Self::Kept(_) | Self::Gone => None,
        }
    }
}
