//! The opening handshake of WebSocket under way.

use std::io;

use crate::net::endpoint::{Endpoint, SocketEndpoint, Transfer};
use crate::net::socket::Stream;
use crate::protocol::connect_error::ConnectError;
use crate::relay::memory_budget::{MemoryBudget, RESERVE};
use crate::session::TURN_READS;
use crate::session::remote::{RemoteStream, connection_lost, wait_if_needed};
use crate::websocket::handshake::{ClientHandshake, HandshakeError, HandshakeProgress, Upgraded};

/// Most bytes that are read at once: what comes behind the response waits in the kernel.
const MAX_READ: usize = 4 * 1024;

/// An opening handshake under way.
#[derive(Debug)]
pub(super) struct WsHandshake<S> {
    remote: SocketEndpoint<RemoteStream<S>>,
    handshake: ClientHandshake,
    /// The rest of the response waits for memory.
    waits_for_memory: bool,
}

/// How far an opening handshake has come.
pub(super) enum WsProgress<S> {
    /// Not yet done.
    Pending(WsHandshake<S>),
    /// The connection is a WebSocket.
    Upgraded(SocketEndpoint<RemoteStream<S>>, Upgraded),
    /// The server redirects to this location.
    Redirect(Box<str>),
    /// The server may refuse what the request offers. The connection is closed.
    OfferRefused(HandshakeError),
    /// There is no connection.
    Failed(ConnectError),
}

impl<S: Stream> WsHandshake<S> {
    /// Begins `handshake` with `remote`.
    pub(super) fn begin(remote: SocketEndpoint<RemoteStream<S>>, handshake: ClientHandshake) -> Self {
        Self { remote, handshake, waits_for_memory: false }
    }

    /// The socket, to be told of its events.
    pub(super) fn remote_mut(&mut self) -> &mut SocketEndpoint<RemoteStream<S>> {
        &mut self.remote
    }

    /// True if there may be more to read at once.
    pub(super) fn is_readable(&self) -> bool {
        self.remote.is_readable() && !self.waits_for_memory
    }

    /// Bytes held.
    pub(super) fn held(&self) -> usize {
        self.remote.held() + self.handshake.held()
    }

    /// Sends and receives what can be sent and received.
    pub(super) fn turn(mut self, scratch: &mut [u8], budget: &mut MemoryBudget) -> WsProgress<S> {
        self.remote.set_receive_limit(budget.left().max(RESERVE));
        self.waits_for_memory = false;
        let before = self.handshake.received();
        if let Err(error) = self.send() {
            return WsProgress::Failed(connection_lost(&error));
        }
        for _ in 0..TURN_READS {
            if !self.remote.is_readable() {
                break;
            }
            let grown = self.handshake.received() - before;
            let allowed = budget.left().saturating_sub(grown).max(RESERVE.saturating_sub(self.handshake.received()));
            if allowed == 0 {
                self.waits_for_memory = true;
                budget.wait(RESERVE);
                break;
            }
            let room = MAX_READ.min(scratch.len()).min(allowed);
            let progress = match self.remote.try_read(&mut scratch[..room]) {
                Transfer::Bytes(0) => continue,
                Transfer::Bytes(read) => self.handshake.handle_input(&scratch[..read]),
                Transfer::Blocked => break,
                Transfer::Eof => HandshakeProgress::Failed(self.handshake.handle_eof()),
                // TLS without close_notify.
                Transfer::Broken(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    HandshakeProgress::Failed(self.handshake.handle_eof())
                }
                Transfer::Broken(error) => return WsProgress::Failed(connection_lost(&error)),
            };
            match progress {
                HandshakeProgress::Pending => {}
                HandshakeProgress::Upgraded(upgraded) => return WsProgress::Upgraded(self.remote, upgraded),
                HandshakeProgress::Redirect { location } => return WsProgress::Redirect(location),
                HandshakeProgress::OfferRefused(error) => return WsProgress::OfferRefused(error),
                HandshakeProgress::Failed(failure) => return WsProgress::Failed(failure.into()),
            }
        }
        wait_if_needed(&self.remote, budget);
        WsProgress::Pending(self)
    }

    fn send(&mut self) -> io::Result<()> {
        while !self.handshake.transmit().is_empty() {
            match self.remote.try_write(self.handshake.transmit()) {
                Transfer::Bytes(sent) => self.handshake.handle_transmitted(sent),
                Transfer::Blocked | Transfer::Eof => break,
                // A server that refuses may end before it has read everything: its response counts, or reading fails too.
                Transfer::Broken(_) => return Ok(()),
            }
        }
        self.remote.flush().map(drop)
    }
}
