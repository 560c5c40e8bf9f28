//! What a session asks of the network. A simulation stands in for it in tests.

use std::fmt::Debug;
use std::io;
use std::net::SocketAddr;
use std::ops::RangeInclusive;

use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use socket2::SockRef;

use super::attempts::ExtraAttempts;
use super::datagrams::{DatagramSocket, OpenDatagramsError};
use super::own_address::is_own_address;
use super::socket::{Datagrams, INTEREST, KeepAlive, Stream, TcpSocket};
use crate::protocol::datagram_settings::DatagramSettings;

/// Makes sockets and registers them for events.
pub(crate) trait Network {
    /// A connection.
    type Stream: Stream + Debug;
    /// A socket for datagrams.
    type Datagrams: Datagrams + Debug;

    /// Begins to connect to `to`. Events come for `token`.
    fn connect(&mut self, to: SocketAddr, token: Token) -> io::Result<Self::Stream>;

    /// True if the connection to `to` is established; false if it is still being made. Events may be spurious, so the socket
    /// itself is asked.
    fn poll_connected(&mut self, stream: &Self::Stream, to: SocketAddr) -> io::Result<bool>;

    /// Sets TCP_NODELAY: small writes are sent at once, even while earlier ones are not acknowledged.
    fn set_no_delay(&mut self, stream: &Self::Stream);

    /// Enables keep-alive probes.
    fn set_keep_alive(&mut self, stream: &Self::Stream, keep_alive: KeepAlive);

    /// Opens a socket for datagrams that can reach `target`, whose family is that of `settings`. Events come for `token`.
    fn open_datagrams(
        &mut self,
        target: SocketAddr,
        settings: &DatagramSettings,
        token: Token,
    ) -> Result<Self::Datagrams, OpenDatagramsError>;

    /// Has the events of a registered connection come for another token.
    fn reregister(&mut self, stream: &mut Self::Stream, token: Token) -> io::Result<()>;

    /// The address of this end of a connection.
    fn local_address(&self, stream: &Self::Stream) -> io::Result<SocketAddr>;

    /// True if a connection to `address` ends on this machine. Takes system calls.
    fn is_own_address(&self, address: SocketAddr) -> bool;

    /// Attempts to connect beyond the first of each connection.
    fn extra_attempts(&self) -> &ExtraAttempts;
}

/// The kernel's sockets under mio.
#[derive(Debug)]
pub(crate) struct MioNetwork {
    registry: Registry,
    local_ports: RangeInclusive<u16>,
    extra_attempts: ExtraAttempts,
}

impl MioNetwork {
    /// Registers sockets with `registry`. `extra_attempts`: attempts to connect at once beyond the first of each connection.
    pub(crate) fn new(registry: Registry, extra_attempts: usize) -> Self {
        Self { registry, local_ports: local_port_range(), extra_attempts: ExtraAttempts::new(extra_attempts) }
    }

    /// Changes the limit of extra attempts.
    pub(crate) fn set_extra_attempts(&mut self, limit: usize) {
        self.extra_attempts.set_limit(limit);
    }
}

/// The ports that the system chooses from for outgoing connections (ip(7)). All unprivileged ones if that is unknown.
fn local_port_range() -> RangeInclusive<u16> {
    let text = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let mut ports = text.split_whitespace().map_while(|port| port.parse().ok());
    match (ports.next(), ports.next()) {
        (Some(first), Some(last)) => first..=last,
        _ => 1024..=u16::MAX,
    }
}

impl Network for MioNetwork {
    type Stream = TcpSocket;
    type Datagrams = DatagramSocket;

    fn connect(&mut self, to: SocketAddr, token: Token) -> io::Result<TcpSocket> {
        let mut stream = TcpStream::connect(to)?;
        self.registry.register(&mut stream, token, INTEREST)?;
        Ok(TcpSocket(stream))
    }

    /// connect(2) a second time answers for both SO_ERROR and getpeername(2): success, EALREADY, or the error.
    fn poll_connected(&mut self, TcpSocket(stream): &TcpSocket, to: SocketAddr) -> io::Result<bool> {
        match SockRef::from(stream).connect(&to.into()) {
            Ok(()) => {}
            Err(error) => match error.raw_os_error() {
                Some(nix::libc::EALREADY | nix::libc::EINPROGRESS) => return Ok(false),
                Some(nix::libc::EISCONN) => {}
                _ if error.kind() == io::ErrorKind::Interrupted => return Ok(false),
                _ => return Err(error),
            },
        }
        // If no socket listens on a local port of the ephemeral range, TCP may connect to itself (RFC 9293, simultaneous
        // open): the plugin would read what it wrote, and the service that belongs there could not start.
        if self.local_ports.contains(&to.port()) && stream.local_addr().is_ok_and(|own| own == to) {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        Ok(true)
    }

    fn set_no_delay(&mut self, stream: &TcpSocket) {
        stream.set_no_delay();
    }

    fn set_keep_alive(&mut self, stream: &TcpSocket, keep_alive: KeepAlive) {
        stream.set_keep_alive(keep_alive);
    }

    fn open_datagrams(
        &mut self,
        target: SocketAddr,
        settings: &DatagramSettings,
        token: Token,
    ) -> Result<DatagramSocket, OpenDatagramsError> {
        let mut socket = DatagramSocket::open(target, settings)?;
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.registry.register(&mut socket.0, token, interest).map_err(OpenDatagramsError::Socket)?;
        Ok(socket)
    }

    fn reregister(&mut self, stream: &mut TcpSocket, token: Token) -> io::Result<()> {
        self.registry.reregister(&mut stream.0, token, INTEREST)
    }

    fn local_address(&self, stream: &TcpSocket) -> io::Result<SocketAddr> {
        stream.0.local_addr()
    }

    fn is_own_address(&self, address: SocketAddr) -> bool {
        is_own_address(address)
    }

    fn extra_attempts(&self) -> &ExtraAttempts {
        &self.extra_attempts
    }
}
