//! The daemon's resident memory beside many connections, each of which has it hold as much as it can.

use std::fmt::Write as _;
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustls::ServerConfig;
use socket2::{Domain, SockRef, Socket, Type};
use testkit::daemon::Daemon;
use testkit::process::raise_descriptor_limit;
use testkit::random::Random;
use testkit::tls::{self, Identity};
use testkit::websocket::{BINARY, Peer, Server, frame_of};

use super::memory::{SEGMENT, lock_tcp_memory, without_freed_blocks};
use crate::support::{LIMIT, StatClient, configured, daemon, skipped_under_emulation};

/// Connections in a mix.
const COUNT: usize = 1024;
/// The daemon's bound on what it holds in all, in bytes: the least that is the default on any machine.
const BUFFERS: u64 = 4 << 20;
/// Memory that the daemon may have written at any time, in bytes. The static release build keeps below that with the pages of
/// its program, too; glibc keeps more freed blocks, and the program of a debug build is longer.
const MAX_WRITTEN: u64 = 12_000_000;
/// No socket moves anything for this long: everything is held that can be held.
const QUIET_MS: u16 = 700;
/// A mix that never becomes quiet is measured after this time.
const FILL_LIMIT: Duration = Duration::from_secs(25);
/// Send and receive buffers of the plugins' and the remotes' sockets in bytes: as much as the daemon reads at once.
const SOCKET_BUFFER: usize = 64 * 1024;
/// Bytes of a line in setup mode at most (`line=`).
const MAX_LINE: usize = 16 * 1024;

/// What a connection has the daemon hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Half a message of 64 KiB of the plugin, for a WebSocket.
    HalfMessage,
    /// Messages of the plugin, for a WebSocket that reads nothing.
    UnreadByRemote,
    /// Messages of a WebSocket, for a plugin that reads nothing.
    UnreadByPlugin,
    /// Half a message of 64 KiB of a WebSocket.
    HalfRemoteMessage,
    /// Half a message of a plugin that may be 1 GB long.
    HugeMessage,
    /// The bytes of a TCP remote, for a plugin that reads nothing, and those of the plugin for the remote.
    UnreadStreams,
    /// A TLS server's certificate, whose handshake does not go on.
    HalfHandshake,
    /// A TLS server's list of very many certificates, whose handshake does not go on.
    ManyCertificates,
    /// The plugin's bytes, for a TLS remote that reads nothing.
    UnreadByTlsRemote,
    /// A record of a TLS remote but for its last byte.
    HalfRecord,
    /// A long NTFY.
    LongNotify,
    /// Long HDRS, for a WebSocket server that does not answer.
    LongHeaders,
    /// Very many HDRS, for a WebSocket server that does not answer.
    ManyHeaders,
    /// Very many subprotocols, for a WebSocket server that does not answer.
    ManySubprotocols,
    /// A line in setup mode without its end.
    HalfLine,
    /// Bytes behind a CONN to a WebSocket server that does not answer.
    SentAhead,
    /// A kept connection without a plugin, whose remote sends without end.
    Parked,
    /// Replies that the plugin does not read.
    UnreadReplies,
}

const KINDS: [Kind; 18] = [
    Kind::HalfMessage,
    Kind::UnreadByRemote,
    Kind::UnreadByPlugin,
    Kind::HalfRemoteMessage,
    Kind::HugeMessage,
    Kind::UnreadStreams,
    Kind::HalfHandshake,
    Kind::ManyCertificates,
    Kind::UnreadByTlsRemote,
    Kind::HalfRecord,
    Kind::LongNotify,
    Kind::LongHeaders,
    Kind::ManyHeaders,
    Kind::ManySubprotocols,
    Kind::HalfLine,
    Kind::SentAhead,
    Kind::Parked,
    Kind::UnreadReplies,
];

impl Kind {
    /// What the plugin sends first.
    fn command(self, remote: SocketAddr, number: usize) -> Vec<u8> {
        let url = format!("ws://{remote}/");
        let ws = format!("CONN {url} RQTM=60000 FRAM=MESG");
        let tls = format!("CONN {remote} PRTO=tls VRFY=none CTIM=60000");
        let filled = |mut line: String, piece: &str| {
            while line.len() + piece.len() < MAX_LINE {
                line.push_str(piece);
            }
            line
        };
        let line = match self {
            Self::HalfMessage | Self::UnreadByRemote | Self::UnreadByPlugin | Self::HalfRemoteMessage => ws,
            Self::HugeMessage => format!("{ws} MAXM=1000000000"),
            Self::UnreadStreams => format!("CONN {remote}"),
            Self::HalfHandshake | Self::ManyCertificates | Self::UnreadByTlsRemote | Self::HalfRecord => tls,
            Self::LongNotify => filled(format!("CONN {remote} NTFY=-1/urn:a/b/"), "p"),
            Self::LongHeaders => filled(format!("{ws} HDRS=X:"), "h"),
            Self::ManyHeaders => filled(ws, " HDRS=a:"),
            Self::ManySubprotocols => {
                let mut line = format!("{ws} SUBP=a");
                for name in 0.. {
                    if line.len() + 8 > MAX_LINE {
                        break;
                    }
                    let _ = write!(line, ",{name}");
                }
                line
            }
            Self::HalfLine => return filled("CONN ".into(), "x").into_bytes(),
            Self::SentAhead => {
                let mut line = format!("{ws}\n").into_bytes();
                line.resize(MAX_LINE, b'x');
                return line;
            }
            Self::Parked => format!("{ws} KEEP=600 NTFY=-1/a/b/parked{number:08}"),
            Self::UnreadReplies => "STAT\n".repeat(4000).trim_end().into(),
        };
        format!("{line}\n").into_bytes()
    }

    /// What the plugin sends after its `OK CONN`, and whether again and again.
    fn payload(self) -> (Vec<u8>, bool) {
        match self {
            Self::HalfMessage => ([&b"BINA 65536\n"[..], &[7; 32 * 1024]].concat(), false),
            Self::UnreadByRemote => ([&b"BINA 60000\n"[..], &[7; 60_000]].concat(), true),
            Self::HugeMessage => ([&b"BINA 900000000\n"[..], &vec![7; 4_180_000]].concat(), false),
            Self::UnreadStreams | Self::UnreadByTlsRemote => (vec![7; 60_000], true),
            _ => (Vec::new(), false),
        }
    }

    /// Plays the remote, and returns what is to be kept open.
    fn serve(self, mut stream: TcpStream) -> Option<Box<dyn Send>> {
        match self {
            Self::HalfMessage | Self::UnreadByRemote | Self::HugeMessage => {
                let mut peer = Peer::new(stream);
                peer.upgrade().ok()?;
                Some(Box::new(peer))
            }
            Self::UnreadByPlugin | Self::HalfRemoteMessage | Self::Parked => {
                let mut peer = Peer::new(stream);
                peer.upgrade().ok()?;
                peer.stream().set_write_timeout(Some(Duration::from_secs(2))).ok()?;
                let frame = frame_of(0x80 | BINARY, &[7; 60_000]);
                if self == Self::HalfRemoteMessage {
                    peer.send(&frame[..frame.len() / 2]).ok();
                } else {
                    while peer.send(&frame).is_ok() {}
                }
                Some(Box::new(peer))
            }
            Self::UnreadStreams => {
                stream.set_write_timeout(Some(Duration::from_secs(2))).ok()?;
                while stream.write_all(&[7; 60_000]).is_ok() {}
                Some(Box::new(stream))
            }
            Self::HalfHandshake | Self::ManyCertificates => {
                let _ = stream.read(&mut [0; 4096]).ok()?;
                stream.set_write_timeout(Some(Duration::from_secs(20))).ok()?;
                stream.write_all(&half_flight(self == Self::ManyCertificates)).ok();
                Some(Box::new(stream))
            }
            Self::UnreadByTlsRemote | Self::HalfRecord => {
                let mut stream = tls::accept(tls_config(), stream).ok()?;
                // What it sends after the handshake.
                stream.flush().ok()?;
                if self == Self::HalfRecord {
                    stream.conn.writer().write_all(&[7; 16_384]).ok()?;
                    let mut record = Vec::new();
                    stream.conn.write_tls(&mut record).ok()?;
                    stream.sock.write_all(&record[..record.len() - 1]).ok();
                }
                Some(Box::new(stream))
            }
            Self::LongNotify
            | Self::LongHeaders
            | Self::ManyHeaders
            | Self::ManySubprotocols
            | Self::HalfLine
            | Self::SentAhead
            | Self::UnreadReplies => Some(Box::new(stream)),
        }
    }
}

fn tls_config() -> &'static Arc<ServerConfig> {
    static CONFIG: OnceLock<Arc<ServerConfig>> = OnceLock::new();
    CONFIG.get_or_init(|| Arc::new(Identity::loopback().any_server()))
}

/// A TLS 1.2 server's ServerHello and Certificate (RFC 5246 sections 7.4.1.3 and 7.4.2), of the largest length that a
/// client takes. The certificates themselves are no certificates: nothing looks at them before the flight is complete.
fn half_flight(many: bool) -> Vec<u8> {
    let length = |bytes: usize| [(bytes >> 16) as u8, (bytes >> 8) as u8, bytes as u8];
    let message = |kind: u8, body: &[u8]| [&[kind][..], &length(body.len()), body].concat();
    // Version, random bytes, no session, TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, no compression.
    let hello = message(2, &[&[3, 3][..], &[7; 32], &[0, 0xc0, 0x2b, 0]].concat());
    let one = if many { vec![0, 0, 1, 7] } else { [&length(65_000)[..], &[7; 65_000]].concat() };
    let list = one.repeat(65_100 / one.len());
    let certificate = message(11, &[&length(list.len())[..], &list].concat());
    let messages = [hello, certificate].concat();
    let record = |bytes: &[u8]| [&[22, 3, 3, (bytes.len() >> 8) as u8, bytes.len() as u8][..], bytes].concat();
    messages.chunks(16_000).flat_map(record).collect()
}

/// A socket with buffers of a bounded size, and segments as on Ethernet. With the system's, which grow up to megabytes, all
/// connections of a mix together use up the kernel's memory for TCP, and it resets connections of other tests.
fn bounded_socket() -> Socket {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_send_buffer_size(SOCKET_BUFFER).unwrap();
    socket.set_recv_buffer_size(SOCKET_BUFFER).unwrap();
    socket.set_tcp_mss(SEGMENT).unwrap();
    socket
}

/// Remotes of one kind. Each connection has a thread until its part is played.
struct Remotes {
    addr: SocketAddr,
    listener: TcpListener,
    acceptor: Option<JoinHandle<()>>,
}

impl Remotes {
    fn start(kind: Kind) -> Self {
        // Accepted sockets inherit the sizes.
        let socket = bounded_socket();
        socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
        socket.listen(1024).unwrap();
        let listener = TcpListener::from(socket);
        let (addr, accepting) = (listener.local_addr().unwrap(), listener.try_clone().unwrap());
        let open = Arc::<Mutex<Vec<Box<dyn Send>>>>::default();
        let acceptor = thread::spawn(move || {
            let mut threads = Vec::new();
            let mut sockets = Vec::new();
            while let Ok((stream, _)) = accepting.accept() {
                sockets.push(stream.try_clone().unwrap());
                let open = Arc::clone(&open);
                let part = move || {
                    let kept = kind.serve(stream);
                    open.lock().unwrap().extend(kept);
                };
                threads.push(thread::Builder::new().stack_size(256 * 1024).spawn(part).unwrap());
            }
            sockets.iter().for_each(|socket| drop(socket.shutdown(Shutdown::Both)));
            threads.into_iter().for_each(|thread| drop(thread.join()));
        });
        Self { addr, listener, acceptor: Some(acceptor) }
    }
}

impl Drop for Remotes {
    fn drop(&mut self) {
        // On Linux this wakes a blocked accept() with EINVAL.
        SockRef::from(&self.listener).shutdown(Shutdown::Both).ok();
        if let Some(acceptor) = self.acceptor.take() {
            acceptor.join().ok();
        }
    }
}

/// A plugin.
struct Client {
    kind: Kind,
    stream: Option<TcpStream>,
    /// What it has read before its `OK CONN`.
    answers: Vec<u8>,
    is_connected: bool,
    payload: Vec<u8>,
    repeats: bool,
    sent: usize,
}

impl Client {
    fn connect(daemon: SocketAddr, kind: Kind, remote: SocketAddr, number: usize) -> Self {
        let socket = bounded_socket();
        socket.connect(&daemon.into()).unwrap();
        let stream = TcpStream::from(socket);
        stream.set_nonblocking(true).unwrap();
        let payload = kind.command(remote, number);
        Self { kind, stream: Some(stream), answers: Vec::new(), is_connected: false, payload, repeats: false, sent: 0 }
    }

    /// What it waits for.
    fn interest(&self) -> PollFlags {
        let wants_write = self.sent < self.payload.len();
        let wants_read = !self.is_connected && self.kind != Kind::UnreadReplies;
        let mut flags = PollFlags::empty();
        flags.set(PollFlags::POLLOUT, wants_write);
        flags.set(PollFlags::POLLIN, wants_read);
        flags
    }

    /// Does what it can.
    fn act(&mut self) {
        if !self.is_connected && self.kind != Kind::UnreadReplies {
            self.read();
        }
        while let Some(stream) = &mut self.stream
            && self.sent < self.payload.len()
        {
            match stream.write(&self.payload[self.sent..]) {
                Ok(sent) => self.sent += sent,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(_) => return self.stream = None,
            }
            if self.repeats && self.sent == self.payload.len() {
                self.sent = 0;
            }
        }
    }

    fn read(&mut self) {
        let Some(stream) = &mut self.stream else { return };
        let mut buffer = [0; 256];
        match stream.read(&mut buffer) {
            Ok(0) => self.stream = None,
            Ok(read) => {
                self.answers.extend_from_slice(&buffer[..read]);
                if self.answers.windows(8).any(|part| part == b"OK CONN ") {
                    self.is_connected = true;
                    (self.payload, self.repeats) = self.kind.payload();
                    self.sent = 0;
                    if self.kind == Kind::Parked {
                        self.stream = None;
                    }
                }
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(_) => self.stream = None,
        }
    }

    fn is_closed(&self) -> bool {
        self.stream.as_ref().is_none_or(|stream| SockRef::from(stream).take_error().is_ok_and(|error| error.is_some()))
    }
}

/// Has all clients do what they can, until nothing moves.
fn fill(clients: &mut [Client]) {
    let start = Instant::now();
    while start.elapsed() < FILL_LIMIT {
        let ready: Vec<usize> = {
            let open: Vec<usize> = (0..clients.len()).filter(|&at| clients[at].stream.is_some()).collect();
            let mut sockets: Vec<PollFd<'_>> = open
                .iter()
                .filter_map(|&at| Some(PollFd::new(clients[at].stream.as_ref()?.as_fd(), clients[at].interest())))
                .collect();
            if poll(&mut sockets, PollTimeout::from(QUIET_MS)).unwrap() == 0 {
                return;
            }
            let is_ready = |socket: &PollFd<'_>| socket.revents().is_some_and(|flags| !flags.is_empty());
            open.iter().zip(&sockets).filter(|(_, socket)| is_ready(socket)).map(|(&at, _)| at).collect()
        };
        for at in ready {
            let client = &mut clients[at];
            client.act();
            // One that the daemon has closed is not looked at any more, or it would be ready for ever.
            if client.interest().is_empty() && client.is_closed() {
                client.stream = None;
            }
        }
    }
}

/// Memory in bytes: what was written, and all that is resident.
#[derive(Clone, Copy, Debug, Default)]
struct Resident {
    written: u64,
    all: u64,
}

fn resident(pid: u32) -> Resident {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        line.split_whitespace().next().and_then(|kilobytes| kilobytes.parse::<u64>().ok()).unwrap_or(0) * 1024
    };
    Resident { written: field("RssAnon:"), all: field("VmRSS:") }
}

/// Watches a process, and remembers the most memory that it had.
struct Watch {
    most: Arc<[AtomicU64; 2]>,
    ends: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    fn start(pid: u32) -> Self {
        let (most, ends) = (Arc::<[AtomicU64; 2]>::default(), Arc::<AtomicBool>::default());
        let thread = thread::spawn({
            let (most, ends) = (Arc::clone(&most), Arc::clone(&ends));
            move || {
                while !ends.load(Ordering::Relaxed) {
                    let now = resident(pid);
                    most[0].fetch_max(now.written, Ordering::Relaxed);
                    most[1].fetch_max(now.all, Ordering::Relaxed);
                    thread::sleep(Duration::from_millis(5));
                }
            }
        });
        Self { most, ends, thread: Some(thread) }
    }

    fn end(mut self) -> Resident {
        self.ends.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap();
        self.most()
    }

    fn most(&self) -> Resident {
        Resident { written: self.most[0].load(Ordering::Relaxed), all: self.most[1].load(Ordering::Relaxed) }
    }
}

/// Opens a connection of each of `kinds`, and returns the most memory that the daemon had written. Prints what it was.
fn measure(name: &str, kinds: &[Kind]) -> u64 {
    let _lock = lock_tcp_memory();
    raise_descriptor_limit();
    let config = format!("[limits]\nconnections=1100\nkept=1100\nbuffers={BUFFERS}\n");
    let daemon = without_freed_blocks(daemon().config(&config)).start();
    let mut stat = StatClient::new(daemon.addr());
    // STAT lifts the limit on silence.
    stat.status();
    let start = resident(daemon.pid());
    let watch = Watch::start(daemon.pid());
    let remotes: Vec<(Kind, Remotes)> =
        KINDS.into_iter().filter(|kind| kinds.contains(kind)).map(|kind| (kind, Remotes::start(kind))).collect();
    let mut clients = Vec::new();
    for (number, &kind) in kinds.iter().enumerate() {
        let remote = remotes.iter().find(|(known, _)| *known == kind).unwrap().1.addr;
        clients.push(Client::connect(daemon.addr(), kind, remote, number));
    }
    fill(&mut clients);
    let status = stat.status();
    let end = resident(daemon.pid());
    let (connections, buffered) =
        (status["connections"].as_array().unwrap().len(), status["buffered"].as_u64().unwrap());
    let filled = watch.most();
    drop(clients);
    drop(remotes);
    let after = rest(&mut stat, daemon.pid());
    let most = watch.end();
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    println!(
        "{name}: at most {:.1} MiB resident, {:.1} MiB written (while filling {:.1}, at the end {:.1}, after all \
         {:.1}, at the start {:.1} and {:.1}); \
         {connections} connections, {buffered} bytes buffered",
        mib(most.all),
        mib(most.written),
        mib(filled.written),
        mib(end.written),
        mib(after.written),
        mib(start.all),
        mib(start.written),
    );
    most.written
}

/// What is left when all connections have ended that end with their plugins.
fn rest(stat: &mut StatClient, pid: u32) -> Resident {
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(5) && !stat.connections().is_empty() {
        thread::sleep(Duration::from_millis(50));
    }
    resident(pid)
}

fn check(name: &str, kinds: &[Kind]) {
    if skipped_under_emulation("memory is the emulator's") {
        return;
    }
    let written = measure(name, kinds);
    assert!(written <= MAX_WRITTEN, "{name}: {written} bytes");
}

/// A mix of `COUNT` connections from a seed, in which each kind has its own weight.
fn mix(seed: u64) -> Vec<Kind> {
    let mut random = Random::new(seed);
    let mut weighted = Vec::new();
    for kind in KINDS {
        let weight = random.below(4) * random.below(10);
        // Where replies wait that are not read, STAT is refused, which shows what is buffered.
        if kind != Kind::UnreadReplies {
            weighted.extend((0..weight).map(|_| kind));
        }
    }
    (0..COUNT).map(|_| weighted[random.below(weighted.len() as u64) as usize]).collect()
}

/// Sends a message of `length` bytes to a WebSocket that sends it back.
fn exchange_message(daemon: &Daemon, echo: &Server, length: usize) {
    let mut plugin = daemon.plugin();
    plugin.conn(echo.url("/"), "");
    plugin.send(&[format!("BINA {length}\n").as_bytes(), &vec![7; length]].concat());
    assert_eq!((plugin.line(), plugin.bytes(length)), (format!("BINA {length}"), vec![7; length]));
}

#[test]
fn a_message_that_never_ends_is_refused_and_others_go_on() {
    let daemon = configured(&format!("[limits]\nbuffers={BUFFERS}\n"));
    let (echo, remotes) = (Server::echo(), Remotes::start(Kind::HugeMessage));
    let mut hog = daemon.plugin();
    hog.conn(format!("ws://{}/", remotes.addr), "MAXM=1000000000");
    // The proxy stops reading before all of it is sent.
    let _ = hog.try_send(&Kind::HugeMessage.payload().0);
    exchange_message(&daemon, &echo, 60_000);
    assert_eq!(hog.line(), "CLOS 1009 46");
}

#[test]
fn the_largest_holders_that_stand_still_end_for_others() {
    let daemon = configured("[limits]\nbuffers=262144\n");
    let (echo, remotes) = (Server::echo(), Remotes::start(Kind::HalfMessage));
    let mut holders: Vec<Client> =
        (0..20).map(|number| Client::connect(daemon.addr(), Kind::HalfMessage, remotes.addr, number)).collect();
    fill(&mut holders);
    exchange_message(&daemon, &echo, 30_000);
    let line = daemon.wait_for_log(LIMIT, |line| line.contains("which others need"));
    let (pid, _) = line[30..].split_once(' ').unwrap();
    daemon.wait_for_log(LIMIT, |line| line[30..].starts_with(&format!("{pid} closed: no memory")));
}

#[test]
fn memory_is_bounded_for_connections_that_hold_parts_of_messages() {
    for kind in [Kind::HalfMessage, Kind::HalfRemoteMessage, Kind::HugeMessage, Kind::HalfLine, Kind::SentAhead] {
        check(&format!("{kind:?}"), &[kind; COUNT]);
    }
}

#[test]
fn memory_is_bounded_for_readers_that_do_not_read() {
    for kind in [Kind::UnreadByRemote, Kind::UnreadByPlugin, Kind::UnreadStreams, Kind::Parked, Kind::UnreadReplies] {
        check(&format!("{kind:?}"), &[kind; COUNT]);
    }
}

#[test]
fn memory_is_bounded_for_options() {
    for kind in [Kind::LongNotify, Kind::LongHeaders, Kind::ManyHeaders, Kind::ManySubprotocols] {
        check(&format!("{kind:?}"), &[kind; COUNT]);
    }
}

#[test]
fn memory_is_bounded_for_tls() {
    for kind in [Kind::HalfHandshake, Kind::ManyCertificates, Kind::UnreadByTlsRemote, Kind::HalfRecord] {
        check(&format!("{kind:?}"), &[kind; COUNT]);
    }
}

#[test]
fn memory_is_bounded_for_mixes() {
    for seed in 1..=3 {
        check(&format!("mix {seed}"), &mix(seed));
    }
}

/// Prints what each kind takes: `cargo test --test e2e memory_of_each_kind -- --ignored --nocapture`. `KIND` names one.
#[test]
#[ignore = "a measurement"]
fn memory_of_each_kind() {
    let wanted = std::env::var("KIND").ok();
    for kind in KINDS {
        let name = format!("{kind:?}");
        if wanted.as_ref().is_none_or(|wanted| *wanted == name) {
            measure(&name, &[kind; COUNT]);
        }
    }
    if wanted.is_none() {
        for seed in 1..=4 {
            measure(&format!("mix {seed}"), &mix(seed));
        }
    }
}
