//! The kernel's sockets, and the traits through which everything else reads and writes them.

use std::io::{self, IoSlice, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::Duration;

use mio::Interest;
use mio::net::TcpStream;
use nix::libc;
use socket2::{SockRef, TcpKeepalive};

use super::user_timeout::{Unacknowledged, keep_alive_share};

/// A connected byte stream, non-blocking: a socket, or a layer on top of one.
pub(crate) trait Stream {
    /// Reads what is there; 0 is the end.
    fn recv(&mut self, buffer: &mut [u8]) -> io::Result<usize>;
    /// Writes what there is room for. Less than all of it, or `WouldBlock`, says that the socket below is full.
    fn send(&mut self, bytes: &[u8]) -> io::Result<usize>;
    /// The same for `first` and then `rest`, in one call where the stream can do so.
    fn send_both(&mut self, first: &[u8], rest: &[u8]) -> io::Result<usize> {
        let sent = self.send(first)?;
        if sent < first.len() {
            return Ok(sent);
        }
        loop {
            match self.send(rest) {
                Ok(more) => return Ok(sent + more),
                // Less than all of it would say that the socket is full.
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // The next call reports the error.
                Err(_) => return Ok(sent),
            }
        }
    }
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
    /// Bytes of [`Stream::held`] that wait for the rest of theirs, and cannot be returned before: a part of a record of TLS.
    fn incomplete(&self) -> usize {
        0
    }
    /// Bytes of [`Stream::held`] for the state of the layer itself.
    fn state_memory(&self) -> usize {
        0
    }
    /// Bounds what the stream may hold for its peer, in bytes.
    fn set_send_limit(&mut self, _bytes: usize) {}
    /// Bounds what the stream may hold of what it receives before it can return it, in bytes beyond what it holds: a record of
    /// TLS, say.
    fn set_receive_limit(&mut self, _bytes: usize) {}
    /// True if the stream receives nothing before [`Stream::set_receive_limit`] allows it more.
    fn waits_for_memory(&self) -> bool {
        false
    }
    /// Keeps urgent bytes in their place among the others. Without it the kernel leaves out one that is the first to be
    /// read (tcp(7), SO_OOBINLINE). Best effort: an error is ignored.
    fn keep_urgent_bytes(&mut self) {}
    /// What the peer has not acknowledged. `None`: it has acknowledged everything, or the kernel does not say.
    fn unacknowledged(&self) -> Option<Unacknowledged> {
        None
    }
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

/// Unanswered keep-alive probes after which a peer is lost, at least.
const KEEP_ALIVE_PROBES: u64 = 4;
/// Seconds between two keep-alive probes, if no user timeout bounds them.
const KEEP_ALIVE_INTERVAL: u64 = 15;

/// Keep-alive probes (RFC 9293 section 3.8.4), in whole seconds, as the kernel takes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KeepAlive {
    /// The silence before the first probe.
    pub idle: u64,
    /// Time between two probes.
    pub interval: u64,
    /// Unanswered probes after which the peer is lost.
    pub probes: u64,
}

impl KeepAlive {
    /// Probes after `silence`, which find a peer that has vanished within three quarters of the user timeout, if there is
    /// one: the kernel's timers may be an eighth late, and a write may follow. The first comes after a quarter of it at
    /// most, so that outages of a third of it are survived.
    pub(crate) fn new(silence: Duration, user_timeout: Option<Duration>) -> Self {
        let Some(timeout) = user_timeout else {
            return Self { idle: silence.as_secs().max(1), interval: KEEP_ALIVE_INTERVAL, probes: KEEP_ALIVE_PROBES };
        };
        let idle = silence.min(timeout / 4).as_secs().max(1);
        let rest = keep_alive_share(timeout).as_secs().saturating_sub(idle).max(1);
        let interval = (rest / KEEP_ALIVE_PROBES).max(1);
        Self { idle, interval, probes: rest / interval }
    }
}

/// A TCP connection.
#[derive(Debug)]
pub(crate) struct TcpSocket(pub TcpStream);

impl TcpSocket {
    /// Turns Nagle's algorithm off. Best effort, as all options: an error is ignored.
    pub(crate) fn set_no_delay(&self) {
        let _ = SockRef::from(&self.0).set_tcp_nodelay(true);
    }

    /// Enables keep-alive probes.
    pub(crate) fn set_keep_alive(&self, keep_alive: KeepAlive) {
        set_keep_alive(&SockRef::from(&self.0), keep_alive);
    }

    /// Bytes that the peer has not acknowledged, or that wait to be sent (SIOCOUTQ in tcp(7)).
    fn output_queue(&self) -> usize {
        let mut bytes: libc::c_int = 0;
        // SAFETY: the descriptor is open, and the kernel writes an int.
        let result = unsafe { libc::ioctl(self.0.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
        if result == 0 { bytes.try_into().unwrap_or(0) } else { 0 }
    }

    /// The first part of `struct tcp_info`, which is the same in all kernels. `None` if the kernel does not say.
    fn info(&self) -> Option<TcpInfo> {
        let mut info = TcpInfo::default();
        let mut length = size_of::<TcpInfo>() as libc::socklen_t;
        // SAFETY: the descriptor is open, and the kernel writes `length` bytes at most. Any bytes are a `TcpInfo`.
        let result = unsafe {
            libc::getsockopt(
                self.0.as_raw_fd(),
                libc::IPPROTO_TCP,
                libc::TCP_INFO,
                (&raw mut info).cast(),
                &raw mut length,
            )
        };
        (result == 0 && length as usize == size_of::<TcpInfo>()).then_some(info)
    }
}

/// The first part of `struct tcp_info` (linux/tcp.h). Times are in milliseconds.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
struct TcpInfo {
    state: u8,
    ca_state: u8,
    retransmits: u8,
    /// Probes of a closed window that are not answered.
    probes: u8,
    others: [u8; 4],
    timers: [u32; 4],
    /// Segments that are not acknowledged.
    unacked: u32,
    segments: [u32; 4],
    /// Since bytes were last sent, for the first time or again.
    last_data_sent: u32,
    last_ack_sent: u32,
    last_data_recv: u32,
    /// Since an acknowledgement last came, of nothing new, too.
    last_ack_recv: u32,
}

/// Sets the options of a listener, whose connections inherit them on Linux: no Nagle, since two small writes would wait
/// 40 ms for each other; urgent bytes (telnet's data mark) in their place among the others; and keep-alive probes, since
/// a peer that lost its power sends nothing. Best effort; errors are ignored.
///
/// `keep_alive`: `None` for no probes.
pub(crate) fn set_options(socket: SockRef<'_>, keep_alive: Option<KeepAlive>) {
    let _ = socket.set_tcp_nodelay(true);
    let _ = socket.set_out_of_band_inline(true);
    match keep_alive {
        Some(keep_alive) => set_keep_alive(&socket, keep_alive),
        None => drop(socket.set_keepalive(false)),
    }
}

fn set_keep_alive(socket: &SockRef<'_>, keep_alive: KeepAlive) {
    let KeepAlive { idle, interval, probes } = keep_alive;
    let options = TcpKeepalive::new()
        .with_time(Duration::from_secs(idle))
        .with_interval(Duration::from_secs(interval))
        .with_retries(probes as u32);
    let _ = socket.set_tcp_keepalive(&options);
}

impl Stream for TcpSocket {
    fn recv(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }

    fn send(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn send_both(&mut self, first: &[u8], rest: &[u8]) -> io::Result<usize> {
        self.0.write_vectored(&[IoSlice::new(first), IoSlice::new(rest)])
    }

    fn shutdown_write(&mut self) {
        // Fails only if the connection has broken meanwhile, and then no peer is left to tell.
        let _ = self.0.shutdown(Shutdown::Write);
    }

    fn keep_urgent_bytes(&mut self) {
        let _ = SockRef::from(&self.0).set_out_of_band_inline(true);
    }

    fn unacknowledged(&self) -> Option<Unacknowledged> {
        if self.output_queue() == 0 {
            return None;
        }
        let info = self.info()?;
        let silent = info.last_ack_recv.min(info.last_data_recv);
        // With no segment under way the window is closed, and the kernel sends probes. An answer sets their number to 0.
        let awaits_answer = if info.unacked > 0 { info.last_data_sent < silent } else { info.probes > 0 };
        Some(Unacknowledged { silent: Duration::from_millis(silent.into()), awaits_answer })
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.0.as_fd())
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener, TcpStream as PeerStream};

    use super::*;

    fn pair() -> (TcpSocket, PeerStream) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        SockRef::from(&listener).set_recv_buffer_size(4096).unwrap();
        let stream = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (peer, _) = listener.accept().unwrap();
        stream.set_nonblocking(true).unwrap();
        (TcpSocket(TcpStream::from_std(stream)), peer)
    }

    #[test]
    fn keep_alive_finds_a_lost_peer_within_three_quarters_of_the_user_timeout() {
        let new = |silence: u64, timeout: u64| {
            let KeepAlive { idle, interval, probes } =
                KeepAlive::new(Duration::from_secs(silence), (timeout > 0).then(|| Duration::from_secs(timeout)));
            (idle, interval, probes)
        };
        assert_eq!(new(30, 120), (30, 15, 4), "the defaults");
        assert_eq!(new(60, 0), (60, 15, 4));
        assert_eq!(new(30, 10), (2, 1, 5));
        assert_eq!(new(7200, 900), (225, 112, 4));
        for timeout in 10..=900 {
            for silence in [1, 5, 30, 60, 7200] {
                let (idle, interval, probes) = new(silence, timeout);
                let found = idle + interval * probes;
                assert!(found * 4 <= timeout * 3 && found * 2 >= timeout, "{silence} {timeout}: {found}");
                // The last probe finds a peer that is back from an outage which began with the first.
                assert!(idle <= timeout / 4 && interval * (probes - 1) + 1 >= timeout / 3, "{silence} {timeout}");
            }
        }
        assert_eq!(KeepAlive::new(Duration::from_millis(500), None).idle, 1, "the kernel takes whole seconds");
    }

    /// Waits for `check`.
    fn wait(what: &str, mut check: impl FnMut() -> bool) {
        let start = std::time::Instant::now();
        while !check() {
            assert!(start.elapsed() < Duration::from_secs(30), "{what}");
            std::thread::yield_now();
        }
    }

    #[test]
    fn the_kernel_says_what_is_unacknowledged() {
        let (mut socket, mut peer) = pair();
        assert_eq!(socket.unacknowledged(), None, "nothing was sent");
        assert_eq!(socket.send(b"x").unwrap(), 1);
        wait("the peer acknowledges a byte", || socket.unacknowledged().is_none());
        wait("the peer's window closes", || {
            socket.send(&[0; 65_536]).is_err() && socket.info().is_some_and(|info| info.unacked == 0)
        });
        wait("it answers", || {
            let state = socket.unacknowledged().expect("bytes wait");
            !state.awaits_answer && state.silent < Duration::from_secs(20)
        });
        let mut buffer = [0; 65_536];
        peer.set_nonblocking(true).unwrap();
        wait("it reads everything", || peer.read(&mut buffer).is_err() && socket.unacknowledged().is_none());
    }
}
