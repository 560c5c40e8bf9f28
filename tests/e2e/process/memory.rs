//! The daemon's memory, compared with what `STAT JSON` says of it: remotes that read nothing must not cost more than
//! `buffered`, which `buffers=` bounds.

use std::io::{ErrorKind, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustls::ServerConfig;
use socket2::{Domain, SockRef, Socket, Type};
use testkit::daemon::{Builder, Daemon};
use testkit::plugin::Plugin;
use testkit::process::raise_descriptor_limit;
use testkit::tls::{self, Identity};
use testkit::websocket::Peer;

use crate::support::{StatClient, daemon, skipped_under_emulation, while_stopped};

/// Connections.
const COUNT: u64 = 200;
/// What each layer of a direction may hold when `buffers=` is used up: 1 KiB, and TLS 3 KiB for its state.
const RESERVE: u64 = 4 * 1024;
/// What one turn may hold beyond the bound, and memory that belongs to no connection.
const SLACK: u64 = 128 * 1024;
/// The daemon's free list of buffers, which long messages fill: four of 128 KiB.
const FREE_LIST: u64 = 512 * 1024;
/// No socket of a plugin takes anything for this long: all buffers up to its remote are full.
const BLOCKED_AFTER: u16 = 500;
/// Segments as on Ethernet. Loopback's, of 64 KiB, make the kernel's send buffers grow to megabytes.
pub(crate) const SEGMENT: u32 = 1460;

/// Held by tests that fill the buffers of very many sockets: together they would use up the kernel's memory for TCP, and it
/// resets connections of other tests then.
static TCP_MEMORY: Mutex<()> = Mutex::new(());

/// Waits until no other test fills the buffers of very many sockets.
pub(crate) fn lock_tcp_memory() -> MutexGuard<'static, ()> {
    TCP_MEMORY.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The allocator keeps freed blocks between those in use. How many depends on which threads ran when. Memory that is not
/// accounted for is there every time.
const ATTEMPTS: usize = 3;

/// A protocol, and what it may cost.
struct Case {
    protocol: &'static str,
    /// Options of CONN.
    options: &'static str,
    /// Memory of an idle connection in bytes, at most: the session, TLS's state, what the allocator adds.
    idle: u64,
    /// Layers that may hold bytes for the remote: the relay, the WebSocket codec, TLS.
    layers: u64,
}

/// Remotes that accept, make their handshakes, and then read nothing.
struct DeafRemotes {
    addr: SocketAddr,
    listener: TcpListener,
    acceptor: Option<JoinHandle<()>>,
}

impl DeafRemotes {
    fn start(protocol: &'static str) -> Self {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        // Accepted sockets inherit both.
        socket.set_recv_buffer_size(16 * 1024).unwrap();
        socket.set_tcp_mss(SEGMENT).unwrap();
        socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
        socket.listen(1024).unwrap();
        let listener = TcpListener::from(socket);
        let (addr, accepting) = (listener.local_addr().unwrap(), listener.try_clone().unwrap());
        let config = Arc::new(Identity::loopback().any_server());
        let acceptor = thread::spawn(move || {
            let mut connections = Vec::new();
            while let Ok((stream, _)) = accepting.accept() {
                // A failed handshake shows in the answer to CONN.
                connections.extend(connected(protocol, stream, &config));
            }
        });
        Self { addr, listener, acceptor: Some(acceptor) }
    }

    fn target(&self, protocol: &str) -> String {
        let scheme = if protocol.starts_with("ws") { format!("{protocol}://") } else { String::new() };
        format!("{scheme}{}", self.addr)
    }
}

impl Drop for DeafRemotes {
    fn drop(&mut self) {
        // On Linux this wakes a blocked accept() with EINVAL.
        SockRef::from(&self.listener).shutdown(Shutdown::Both).ok();
        if let Some(acceptor) = self.acceptor.take() {
            acceptor.join().ok();
        }
    }
}

/// The remote's end of a connection after its handshakes, to be kept open.
fn connected(protocol: &str, stream: TcpStream, config: &Arc<ServerConfig>) -> Option<Box<dyn Send>> {
    if protocol == "tcp" {
        return Some(Box::new(stream));
    }
    if protocol == "ws" {
        let mut peer = Peer::new(stream);
        peer.upgrade().ok()?;
        return Some(Box::new(peer));
    }
    let stream = tls::accept(config, stream).ok()?;
    if protocol == "tls" {
        return Some(Box::new(stream));
    }
    let mut peer = Peer::secure(stream);
    peer.upgrade().ok()?;
    Some(Box::new(peer))
}

/// A plugin that sends messages in MESG framing, of which any other protocol takes the bytes.
struct Sender {
    stream: TcpStream,
    /// Bytes sent of the current message.
    at: usize,
}

impl Sender {
    fn connect(daemon: &Daemon, case: &Case, target: &str) -> Self {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.set_send_buffer_size(16 * 1024).unwrap();
        socket.set_tcp_mss(SEGMENT).unwrap();
        socket.connect(&daemon.addr().into()).unwrap();
        let mut plugin = Plugin::from_stream(socket.into());
        assert!(plugin.line().starts_with("OK "));
        plugin.conn(target, case.options);
        let (stream, _) = plugin.into_stream();
        stream.set_nonblocking(true).unwrap();
        Self { stream, at: 0 }
    }

    /// Sends until the socket takes nothing more. True if it has taken something.
    fn send(&mut self, message: &[u8]) -> bool {
        let mut has_sent = false;
        loop {
            match self.stream.write(&message[self.at..]) {
                Ok(sent) => (self.at, has_sent) = ((self.at + sent) % message.len(), true),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return has_sent,
                Err(error) => panic!("send: {error}"),
            }
        }
    }
}

/// Connects `count` plugins.
fn connect(daemon: &Daemon, case: &Case, remotes: &DeafRemotes, count: usize) -> Vec<Sender> {
    let target = remotes.target(case.protocol);
    (0..count).map(|_| Sender::connect(daemon, case, &target)).collect()
}

/// Has all plugins send until none can send more. True if one could.
fn send_until_blocked(senders: &mut [Sender]) -> bool {
    let message = [&b"BINA 1000\n"[..], &[b'x'; 1000]].concat();
    let mut has_sent = false;
    loop {
        for sender in &mut *senders {
            has_sent |= sender.send(&message);
        }
        let mut sockets: Vec<PollFd<'_>> =
            senders.iter().map(|sender| PollFd::new(sender.stream.as_fd(), PollFlags::POLLOUT)).collect();
        if poll(&mut sockets, PollTimeout::from(BLOCKED_AFTER)).unwrap() == 0 {
            return has_sent;
        }
    }
}

/// Memory that the daemon has written, in bytes.
fn written(daemon: &Daemon) -> u64 {
    daemon.memory().private_dirty * 1024
}

/// Has all plugins send until nothing moves any more, and returns `buffered` then.
///
/// A connection holds what its last read has found and its remote does not take. The plugins send while the daemon is stopped, so
/// that each read finds much, however fast the daemon is.
fn fill(daemon: &Daemon, stat: &mut StatClient, senders: &mut [Sender]) -> u64 {
    let mut before = None;
    loop {
        let mut has_sent = false;
        while_stopped(daemon, || has_sent = send_until_blocked(senders));
        // Its answer shows that the daemon has run meanwhile.
        let buffered = stat.status()["buffered"].as_u64().unwrap();
        if before.replace(buffered) == Some(buffered) && !has_sent {
            return buffered;
        }
    }
}

/// Settings of glibc's allocator with which the daemon's memory is what it uses, as far as possible. musl has none.
pub(crate) fn without_freed_blocks(daemon: Builder) -> Builder {
    // The threads that compute handshakes allocate what connections keep. In arenas of their own, each of which glibc
    // maps and trims by itself, unused memory would count as that of connections.
    let daemon = daemon.env("MALLOC_ARENA_MAX", "1");
    // Freed blocks of this length go back to the kernel at once, instead of staying between those in use: `buffered` may
    // have been larger before.
    daemon.env("MALLOC_MMAP_THRESHOLD_", "8192").env("MALLOC_TRIM_THRESHOLD_", "8192")
}

/// Compares memory with `buffered`, for a daemon with the bound `buffers`. Returns what was found if it is too much.
fn check(case: &Case, buffers: u64) -> Result<(), String> {
    let _lock = lock_tcp_memory();
    let config = format!("[limits]\nconnections={}\nbuffers={buffers}\n", 2 * COUNT);
    let daemon = without_freed_blocks(daemon().config(&config)).start();
    let mut stat = StatClient::new(daemon.addr());
    // Memory that all connections share: temporary buffers, stacks of threads, the free list.
    let remotes = DeafRemotes::start(case.protocol);
    send_until_blocked(&mut connect(&daemon, case, &remotes, 8));
    drop(remotes);
    stat.wait_connections(0);
    let unconnected = written(&daemon);

    let remotes = DeafRemotes::start(case.protocol);
    let mut senders = connect(&daemon, case, &remotes, COUNT as usize);
    stat.wait_connections(COUNT as usize);
    let connected = written(&daemon);
    let buffered = fill(&daemon, &mut stat, &mut senders);
    let full = written(&daemon);
    let (idle, grown) = (connected.saturating_sub(unconnected) / COUNT, full.saturating_sub(connected));
    let shown = format!(
        "{}, buffers={buffers}: an idle connection takes {idle} bytes; {COUNT} remotes that read nothing take {grown}, \
         STAT shows {buffered}",
        case.protocol
    );
    println!("{shown}");
    // Byte streams have half of it together. A part of what they may have is left free for the next one.
    let is_byte_stream = matches!(case.protocol, "tcp" | "tls");
    let full = if is_byte_stream { buffers / 4 } else { buffers / 2 };
    assert!(buffered >= full, "the buffers are not full: {shown}");
    assert!(buffered <= buffers + COUNT * case.layers * RESERVE + SLACK, "{shown}");
    // The allocator rounds up, and leaves gaps where buffers grow.
    let is_accounted_for = grown <= buffered + buffered / 8 + SLACK + buffers.min(FREE_LIST);
    if idle <= case.idle && is_accounted_for { Ok(()) } else { Err(shown) }
}

/// Checks a protocol with the smallest bound and with the default.
fn check_bounds(case: &Case) {
    if skipped_under_emulation("memory is the emulator's") {
        return;
    }
    raise_descriptor_limit();
    for buffers in [65_536, 4 << 20] {
        let results: Vec<_> = (0..ATTEMPTS).map(|_| check(case, buffers)).take_while(Result::is_err).collect();
        assert!(results.len() < ATTEMPTS, "{results:#?}");
    }
}

#[test]
fn memory_for_tcp_remotes_that_read_nothing_is_accounted_for() {
    check_bounds(&Case { protocol: "tcp", options: "", idle: 1792, layers: 1 });
}

#[test]
fn memory_for_tls_remotes_that_read_nothing_is_accounted_for() {
    check_bounds(&Case { protocol: "tls", options: "VRFY=none CTIM=30000 PRTO=tls", idle: 7 * 1024, layers: 2 });
}

#[test]
fn memory_for_websocket_remotes_that_read_nothing_is_accounted_for() {
    check_bounds(&Case { protocol: "ws", options: "FRAM=MESG", idle: 2560, layers: 2 });
}

#[test]
fn memory_for_secure_websocket_remotes_that_read_nothing_is_accounted_for() {
    let options = "VRFY=none CTIM=30000 RQTM=60000 FRAM=MESG";
    check_bounds(&Case { protocol: "wss", options, idle: 8 * 1024, layers: 3 });
}
