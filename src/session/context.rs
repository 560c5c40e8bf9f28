//! What a session's turn needs from outside, and what it asks of the daemon.

use std::time::Instant;

use mio::Token;

use super::ended::EndedConnections;
use super::send_failures::SendFailures;
use super::status_port::StatusPage;
use super::traces::Traces;
use crate::access::OwnServices;
use crate::client::ClientKey;
use crate::config::Config;
use crate::net::network::Network;
use crate::net::random::RandomSource;
use crate::net::resolver::NameResolver;
use crate::notify::Schedule;
use crate::protocol::command::{ArrivalRequest, KeptRequest, StatFormat, TraceRequest};
use crate::relay::memory_budget::MemoryBudget;
use crate::relay::pipe_pool::PipePool;
use crate::tls::{Handshakes, PendingHandshake, ServerTlsSettings, TlsSettings};
use crate::websocket::Entropy;

/// Names a session to the daemon, and back in results from elsewhere.
pub(crate) type Key = usize;

/// What a session needs from the daemon for a turn.
pub(crate) struct SessionContext<'a, N: Network> {
    /// When this turn of the loop began.
    pub now: Instant,
    /// The session's own key.
    pub key: Key,
    /// Its client when the turn began.
    pub client: ClientKey,
    /// The token of the remote's sockets.
    pub remote_token: Token,
    /// Makes and registers sockets.
    pub network: &'a mut N,
    /// The configuration in force.
    pub config: &'a Config,
    /// What the proxy and Luup serve on this machine.
    pub own: &'a OwnServices,
    /// The buffer that all connections share for reading.
    pub scratch: &'a mut [u8],
    /// The bound on bytes held in all.
    pub budget: &'a mut MemoryBudget,
    /// Pipes to splice through.
    pub pipes: &'a mut PipePool,
    /// Finds addresses.
    pub resolver: &'a mut dyn NameResolver<Key>,
    /// Computes TLS handshakes.
    pub handshakes: &'a mut dyn HandshakeQueue,
    /// Unpredictable bytes.
    pub random: &'a mut dyn RandomBytes,
    /// Notifies plugins.
    pub schedule: &'a mut Schedule,
    /// The last ends of connections.
    pub ended: &'a mut EndedConnections,
    /// Limits the log of datagrams that are not sent.
    pub send_failures: &'a mut SendFailures,
    /// Traces that are under way.
    pub traces: &'a mut Traces,
}

/// Computes TLS handshakes off the loop; results come as [`super::Session::handle_tls_step`].
pub(crate) trait HandshakeQueue {
    /// Begins a handshake for `client` with `host`. A session has one at a time.
    fn begin(&mut self, key: Key, client: ClientKey, host: &str, settings: &TlsSettings);
    /// Begins a handshake with `client` as the server. The first step has no bytes to send, and tells whether the certificate can be used:
    /// to check a certificate, begin a handshake and drop it when it is pending.
    fn begin_server(&mut self, key: Key, client: ClientKey, settings: &ServerTlsSettings);
    /// Goes on with what the peer has sent. Nothing means that it has ended.
    fn advance(&mut self, key: Key, client: ClientKey, pending: PendingHandshake, received: Vec<u8>);
    /// Drops what was asked for `key`.
    fn cancel(&mut self, key: Key);
}

impl HandshakeQueue for Handshakes<Key> {
    fn begin(&mut self, key: Key, client: ClientKey, host: &str, settings: &TlsSettings) {
        Self::begin(self, key, client, host, settings);
    }

    fn begin_server(&mut self, key: Key, client: ClientKey, settings: &ServerTlsSettings) {
        Self::begin_server(self, key, client, settings);
    }

    fn advance(&mut self, key: Key, client: ClientKey, pending: PendingHandshake, received: Vec<u8>) {
        Self::advance(self, key, client, pending, received);
    }

    fn cancel(&mut self, key: Key) {
        Handshakes::cancel(self, &key);
    }
}

/// Unpredictable bytes for WebSocket.
pub(crate) trait RandomBytes: Entropy {
    /// The nonce of an opening handshake (RFC 6455 section 4.1).
    fn nonce(&mut self) -> [u8; 16];
}

impl RandomBytes for RandomSource {
    fn nonce(&mut self) -> [u8; 16] {
        Self::nonce(self)
    }
}

/// What a session asks of the daemon, since it concerns more than this session.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum DaemonRequest {
    /// The status, by [`super::Session::reply`].
    Stat(Option<StatFormat>),
    /// A page of the status port. The answer is [`super::Session::respond`].
    StatusPage(StatusPage),
    /// The status for a client of the status port that has a WebSocket. The answer is [`super::Session::send_status`].
    StatusUpdate,
    /// The end of the daemon, if this client may ask for it.
    Stop,
    /// TRAC.
    Trace(TraceRequest),
    /// Something about kept connections.
    Kept(KeptRequest),
    /// LSTN, with the settings in the session's parameters. The answer is [`super::Session::listen`] or
    /// [`super::Session::handle_not_listening`].
    Listen,
    /// The session's connection has arrived at a plugin's listener, and can be accepted. The answer is
    /// [`super::Session::handle_announced`] or [`super::Session::refuse_arrival`].
    Arrived,
    /// ACPT or DENY. ACPT takes the session's connection, or is answered by [`super::Session::handle_not_accepted`]; the answer to
    /// DENY is [`super::Session::reply`].
    Arrival(ArrivalRequest),
}

/// What a turn of a session came to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum TurnResult {
    /// Nothing more to do until something happens.
    Wait,
    /// There is more to do at once, when other sessions have had their turn.
    Again,
    /// The session asks something of the daemon, and goes on when that has answered.
    Request(DaemonRequest),
    /// The session is over and may be dropped.
    Closed,
}
