//! A connection to a remote, as it passes from stage to stage: what is asked for, and what has come of it.

use std::net::SocketAddr;

use super::connect_times::ConnectTimes;
use super::remote::RemoteStream;
use crate::access::OwnConnection;
use crate::net::endpoint::{DatagramEndpoint, SocketEndpoint};
use crate::net::network::Network;
use crate::protocol::target::Target;
use crate::websocket::handshake::Upgraded;

/// A CONN: where to, and what the plugin has sent behind it for the remote.
#[derive(Debug)]
pub(crate) struct ConnectRequest {
    /// The target.
    pub target: Target,
    /// Bytes for the remote.
    pub sent_ahead: Vec<u8>,
}

impl ConnectRequest {
    /// Bytes held.
    pub(crate) fn held(&self) -> usize {
        self.target.held() + self.sent_ahead.len()
    }
}

/// A CONN that has succeeded.
pub(crate) struct Connected<N: Network> {
    /// What the plugin asked for.
    pub request: ConnectRequest,
    /// The connection.
    pub link: ConnectedLink<N>,
    /// To be kept as long as the connection, if it is one to the proxy itself.
    pub own_connection: Option<Box<OwnConnection>>,
    /// The remote has connected to the proxy (ACPT): the response to its request, which it is sent before anything else.
    pub response: Option<Vec<u8>>,
    /// How long its steps have taken.
    pub times: ConnectTimes,
}

/// The connection to a remote.
pub(crate) enum ConnectedLink<N: Network> {
    /// TCP or TLS.
    Stream(SocketEndpoint<RemoteStream<N::Stream>>),
    /// UDP, and where datagrams go.
    Datagrams(DatagramEndpoint<N::Datagrams>, SocketAddr),
    /// WebSocket, and what its handshake agreed on.
    WebSocket(SocketEndpoint<RemoteStream<N::Stream>>, Upgraded),
}
