//! Sockets that bytes pass through: what may be asked of them, and those of the kernel with the options that suit.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use mio::Interest;
use mio::net::{TcpStream, UdpSocket};
use socket2::{SockRef, TcpKeepalive};

/// A connected byte stream, non-blocking: a socket, or what is wrapped around one.
pub trait Stream {
    /// Reads what is there; 0 is the end.
    fn recv(&mut self, buffer: &mut [u8]) -> io::Result<usize>;
    /// Writes what there is room for. Less than all of it, or `WouldBlock`, says that the socket below is full.
    fn send(&mut self, bytes: &[u8]) -> io::Result<usize>;
    /// Pushes out what the stream itself still holds, for instance encrypted bytes: true when nothing is left. False,
    /// or `WouldBlock`, says that the socket below is full. The relay calls it in every turn where the socket may be
    /// writable.
    fn flush(&mut self) -> io::Result<bool> {
        Ok(true)
    }
    /// Tells the peer that nothing more comes, once what the stream holds is out.
    fn shutdown_write(&mut self);
    /// The descriptor, where bytes may be spliced.
    fn fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

/// A datagram socket, unconnected and non-blocking.
pub trait Datagrams {
    /// Reads one datagram and its sender.
    fn recv_from(&mut self, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)>;
    /// Sends one datagram.
    fn send_to(&mut self, payload: &[u8], to: SocketAddr) -> io::Result<usize>;
}

/// What every connection is watched for, once and for all: readiness is remembered, not asked for. Urgent data is
/// watched for because a read stops short at its mark, and that is then no sign of there being nothing more.
pub const INTEREST: Interest = Interest::READABLE.add(Interest::WRITABLE).add(Interest::PRIORITY);

/// Probes that go unanswered before the peer counts as gone.
pub(super) const KEEP_ALIVE_PROBES: u32 = 4;
/// Time between two probes.
pub(super) const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(15);

/// A TCP connection.
#[derive(Debug)]
pub struct TcpSocket(pub TcpStream);

impl TcpSocket {
    /// A connection that this machine has made. One that came in has its options already, from its listener.
    pub fn outgoing(stream: TcpStream, keep_alive: Option<Duration>) -> Self {
        set_options(SockRef::from(&stream), keep_alive);
        Self(stream)
    }
}

/// Sets the options of a connection, or of a listener, whose connections inherit them (on Linux): no Nagle, since two
/// small writes would wait 40 ms for each other, keep-alive, since a peer that lost its power says nothing, and urgent
/// bytes (telnet's data mark) in their place among the others. None is vital, so failure is none.
///
/// `keep_alive`: the silence after which the peer is asked whether it is still there.
pub fn set_options(socket: SockRef<'_>, keep_alive: Option<Duration>) {
    let _ = socket.set_tcp_nodelay(true);
    let _ = socket.set_out_of_band_inline(true);
    let _ = match keep_alive {
        Some(silence) => socket.set_tcp_keepalive(
            &TcpKeepalive::new().with_time(silence).with_interval(KEEP_ALIVE_INTERVAL).with_retries(KEEP_ALIVE_PROBES),
        ),
        None => socket.set_keepalive(false),
    };
}

impl Stream for TcpSocket {
    fn recv(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }

    fn send(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn shutdown_write(&mut self) {
        // It fails where the connection has broken meanwhile, and then there is nobody to tell.
        let _ = self.0.shutdown(Shutdown::Write);
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.0.as_fd())
    }
}

/// A datagram socket.
#[derive(Debug)]
pub struct DatagramSocket(pub UdpSocket);

impl DatagramSocket {
    /// A socket that can reach `target`, on a port that the system chooses. It may broadcast, since discovery does.
    pub fn reaching(target: SocketAddr) -> io::Result<Self> {
        let any: SocketAddr = match target {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let socket = UdpSocket::bind(any)?;
        let _ = socket.set_broadcast(true);
        Ok(Self(socket))
    }
}

impl Datagrams for DatagramSocket {
    fn recv_from(&mut self, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        self.0.recv_from(buffer)
    }

    fn send_to(&mut self, payload: &[u8], to: SocketAddr) -> io::Result<usize> {
        self.0.send_to(payload, to)
    }
}
