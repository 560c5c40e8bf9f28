//! The kernel's sockets, and the traits through which everything else reads and writes them.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use mio::Interest;
use mio::net::{TcpStream, UdpSocket};
use socket2::{SockRef, TcpKeepalive};

/// A connected byte stream, non-blocking: a socket, or a layer on top of one.
pub(crate) trait Stream {
    /// Reads what is there; 0 is the end.
    fn recv(&mut self, buffer: &mut [u8]) -> io::Result<usize>;
    /// Writes what there is room for. Less than all of it, or `WouldBlock`, says that the socket below is full.
    fn send(&mut self, bytes: &[u8]) -> io::Result<usize>;
    /// Writes what the stream itself holds, for instance encrypted bytes: true if nothing is left. False, or
    /// `WouldBlock`, says that the socket below is full.
    fn flush(&mut self) -> io::Result<bool> {
        Ok(true)
    }
    /// Tells the peer that nothing more comes, once what the stream holds is written.
    fn shutdown_write(&mut self);
    /// True for a layer that may hold received bytes back, so that a short read is no sign of there being no more.
    fn is_layered(&self) -> bool {
        false
    }
    /// Bytes that the stream holds for its peer, and that [`Stream::flush`] writes.
    fn unsent(&self) -> usize {
        0
    }
    /// Bytes that the stream holds, either way.
    fn held(&self) -> usize {
        0
    }
    /// Bounds what the stream may hold for its peer, in bytes.
    fn set_send_limit(&mut self, _bytes: usize) {}
    /// Keeps urgent bytes in their place among the others. Without it the kernel leaves out one that is the first to be
    /// read (tcp(7), SO_OOBINLINE). Best effort: an error is ignored.
    fn keep_urgent_bytes(&mut self) {}
    /// The descriptor, where bytes may be spliced.
    fn fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

/// A datagram socket, unconnected and non-blocking.
pub(crate) trait Datagrams {
    /// Reads one datagram and its sender.
    fn recv_from(&mut self, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)>;
    /// Sends one datagram.
    fn send_to(&mut self, payload: &[u8], to: SocketAddr) -> io::Result<usize>;
}

/// What every connection is registered for, once: interest never changes, and readiness is remembered. Urgent data is
/// watched because a read stops short at its mark.
pub(crate) const INTEREST: Interest = Interest::READABLE.add(Interest::WRITABLE).add(Interest::PRIORITY);

/// Unanswered probes after which a peer counts as gone.
pub(super) const KEEP_ALIVE_PROBES: u32 = 4;
/// Time between two probes.
pub(super) const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(15);

/// A TCP connection.
#[derive(Debug)]
pub(crate) struct TcpSocket(pub TcpStream);

impl TcpSocket {
    /// Turns Nagle's algorithm off. Best effort, as all options: an error is ignored.
    pub(crate) fn set_no_delay(&self) {
        let _ = SockRef::from(&self.0).set_tcp_nodelay(true);
    }

    /// Enables keep-alive probes after `silence`.
    pub(crate) fn set_keep_alive(&self, silence: Duration) {
        set_keep_alive(&SockRef::from(&self.0), silence);
    }
}

/// Sets the options of a listener, whose connections inherit them on Linux: no Nagle, since two small writes would wait
/// 40 ms for each other; urgent bytes (telnet's data mark) in their place among the others; and keep-alive probes, since
/// a peer that lost its power sends nothing. Best effort; errors are ignored.
///
/// `keep_alive`: the silence before the first probe. `None`: no probes.
pub(crate) fn set_options(socket: SockRef<'_>, keep_alive: Option<Duration>) {
    let _ = socket.set_tcp_nodelay(true);
    let _ = socket.set_out_of_band_inline(true);
    match keep_alive {
        Some(silence) => set_keep_alive(&socket, silence),
        None => drop(socket.set_keepalive(false)),
    }
}

fn set_keep_alive(socket: &SockRef<'_>, silence: Duration) {
    let probes =
        TcpKeepalive::new().with_time(silence).with_interval(KEEP_ALIVE_INTERVAL).with_retries(KEEP_ALIVE_PROBES);
    let _ = socket.set_tcp_keepalive(&probes);
}

impl Stream for TcpSocket {
    fn recv(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }

    fn send(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn shutdown_write(&mut self) {
        // Fails only if the connection has broken meanwhile, and then no peer is left to tell.
        let _ = self.0.shutdown(Shutdown::Write);
    }

    fn keep_urgent_bytes(&mut self) {
        let _ = SockRef::from(&self.0).set_out_of_band_inline(true);
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.0.as_fd())
    }
}

/// A UDP socket.
#[derive(Debug)]
pub(crate) struct DatagramSocket(pub UdpSocket);

impl DatagramSocket {
    /// A socket that can reach `target`, on a port that the system chooses. It may broadcast, since discovery does.
    pub(crate) fn reaching(target: SocketAddr) -> io::Result<Self> {
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
