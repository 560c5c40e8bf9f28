//! Full handshakes of TLS 1.3 as fast as they go: a server for them, a loop over rustls alone, and plugins that have the
//! daemon make them.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use lab::tls::{Authority, Identity, Validity, provider};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::time::{ClockId, clock_gettime};
use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::NoServerSessionStorage;
use rustls::{ClientConfig, ClientConnection, HandshakeKind, RootCertStore, ServerConfig, ServerConnection, version};

/// Both the daemon and the loop make so many at once.
pub const THREADS: usize = 2;

/// How long a single handshake may take, an emulated one beside many others included.
const LIMIT: Duration = Duration::from_secs(30);

/// A server that speaks TLS 1.3 and gives no tickets, so that every handshake is a full one (P-256, X25519).
pub struct Server {
    addr: SocketAddr,
    authority: Authority,
    identity: Identity,
    listener: TcpListener,
    counts: Arc<Counts>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Counts {
    full: AtomicU64,
    other: AtomicU64,
}

impl Server {
    /// A server for so many at once.
    pub fn start(at_once: usize) -> io::Result<Self> {
        let authority = Authority::new("bench");
        let identity = authority.issue(&["127.0.0.1"], Validity::Now);
        let config = server_config(&identity);
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let counts = Arc::<Counts>::default();
        let threads = (0..at_once)
            .map(|_| {
                let (listener, config, counts) = (listener.try_clone()?, Arc::clone(&config), Arc::clone(&counts));
                Ok(thread::spawn(move || {
                    while let Ok((stream, _)) = listener.accept() {
                        serve(stream, &config, &counts);
                    }
                }))
            })
            .collect::<io::Result<_>>()?;
        Ok(Self { addr: listener.local_addr()?, authority, identity, listener, counts, threads })
    }

    /// Its authority, as PEM.
    pub fn authority(&self) -> String {
        self.authority.pem()
    }

    /// CONN's line for it; `options` say whom to trust.
    pub fn conn(&self, options: &str) -> String {
        format!("CONN {} PRTO=tls TLSV=1.3 {options}\n", self.addr)
    }

    /// The option that trusts it and nobody else.
    pub fn pin(&self) -> String {
        format!("PINS={}", self.identity.pin())
    }

    /// Waits until it, too, has counted so many.
    pub fn wait_made(&self, count: u64) -> io::Result<()> {
        let start = Instant::now();
        while self.made()? < count {
            if start.elapsed() > LIMIT {
                return Err(io::Error::other(format!("{} of {count} handshakes were full ones", self.made()?)));
            }
            thread::yield_now();
        }
        Ok(())
    }

    /// Full handshakes so far; any other is an error.
    pub fn made(&self) -> io::Result<u64> {
        match self.counts.other.load(Ordering::Relaxed) {
            0 => Ok(self.counts.full.load(Ordering::Relaxed)),
            other => Err(io::Error::other(format!("{other} handshakes failed or were not full ones of TLS 1.3"))),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // On Linux this wakes a blocked accept() with EINVAL.
        socket2::SockRef::from(&self.listener).shutdown(Shutdown::Both).ok();
        for thread in self.threads.drain(..) {
            thread.join().ok();
        }
    }
}

/// A configuration that resumes nothing.
pub fn server_config(identity: &Identity) -> Arc<ServerConfig> {
    let mut config = identity.server(&[&version::TLS13], None);
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Arc::new(config)
}

/// One connection: the handshake, and then until the client goes.
fn serve(mut stream: TcpStream, config: &Arc<ServerConfig>, counts: &Counts) {
    stream.set_nodelay(true).ok();
    stream.set_read_timeout(Some(LIMIT)).ok();
    // No port is kept for what comes too late.
    socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).ok();
    let Ok(mut connection) = ServerConnection::new(Arc::clone(config)) else { return };
    let mut heard = false;
    while connection.is_handshaking() {
        match connection.complete_io(&mut stream) {
            Ok(_) => heard = true,
            // Who has gone before it said anything was told to stop.
            Err(_) if !heard && connection.handshake_kind().is_none() => return,
            Err(_) => {
                counts.other.fetch_add(1, Ordering::Relaxed);
                return;
            }
        }
    }
    let full = connection.handshake_kind() == Some(HandshakeKind::Full);
    let count = if full { &counts.full } else { &counts.other };
    count.fetch_add(1, Ordering::Relaxed);
    while stream.read(&mut [0; 1024]).is_ok_and(|read| read > 0) {}
}

/// What a loop has come to.
#[derive(Clone, Copy, Debug)]
pub struct Made {
    /// Handshakes.
    pub count: u64,
    /// How long it took.
    pub time: Duration,
    /// Processor time of the loop's threads.
    pub cpu: Duration,
}

/// Handshakes with rustls alone, on [`THREADS`] threads, for `time`.
pub fn by_rustls(server: &Server, time: Duration) -> io::Result<Made> {
    let mut roots = RootCertStore::empty();
    let authority = CertificateDer::from_pem_slice(server.authority().as_bytes()).map_err(io::Error::other)?;
    roots.add(authority).map_err(io::Error::other)?;
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&version::TLS13])
        .map_err(io::Error::other)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    let config = Arc::new(config);
    let name = ServerName::from(server.addr.ip());
    repeat(THREADS, time, || {
        let mut stream = TcpStream::connect(server.addr)?;
        stream.set_nodelay(true)?;
        let mut connection = ClientConnection::new(Arc::clone(&config), name.clone()).map_err(io::Error::other)?;
        while connection.is_handshaking() || connection.wants_write() {
            connection.complete_io(&mut stream)?;
        }
        match connection.handshake_kind() {
            Some(HandshakeKind::Full) => Ok(()),
            other => Err(io::Error::other(format!("no full handshake: {other:?}"))),
        }
    })
}

/// Handshakes that the daemon on `port` makes for so many plugins at once, for `time`. `conn`: what they say. One thread
/// is all the plugins, so that it takes as little as can be from what is measured.
pub fn by_daemon(port: u16, conn: &str, plugins: usize, time: Duration) -> io::Result<Made> {
    let epoll = Epoll::new(EpollCreateFlags::empty())?;
    let come = |at: usize| {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        stream.set_nodelay(true)?;
        // No port is kept for what comes too late.
        socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
        // What a plugin says need not wait for the greeting.
        stream.write_all(conn.as_bytes())?;
        epoll.add(&stream, EpollEvent::new(EpollFlags::EPOLLIN, at as u64))?;
        Ok((stream, Vec::new()))
    };
    let (start, cpu) = (Instant::now(), own_cpu());
    let mut there = (0..plugins).map(|at| come(at).map(Some)).collect::<io::Result<Vec<_>>>()?;
    let mut count = 0;
    let mut events = [EpollEvent::empty(); 64];
    while there.iter().any(Option::is_some) {
        let ready = epoll.wait(&mut events, EpollTimeout::from(10_000u16))?;
        if ready == 0 {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "a plugin gets no answer"));
        }
        for event in &events[..ready] {
            let at = event.data() as usize;
            let Some((stream, heard)) = &mut there[at] else { continue };
            let mut buffer = [0; 256];
            let read = stream.read(&mut buffer)?;
            heard.extend_from_slice(&buffer[..read]);
            if read > 0 && lines(heard) < 2 {
                continue;
            }
            check(heard)?;
            count += 1;
            // Before another comes, since both would be the same descriptor.
            there[at] = None;
            if start.elapsed() < time {
                there[at] = Some(come(at)?);
            }
        }
    }
    Ok(Made { count, time: start.elapsed(), cpu: own_cpu().saturating_sub(cpu) })
}

/// What the daemon has said: a greeting, and that the connection stands.
fn check(heard: &[u8]) -> io::Result<()> {
    let said = String::from_utf8_lossy(heard);
    if said.contains("\nOK CONN ") { Ok(()) } else { Err(io::Error::other(said.into_owned())) }
}

fn lines(heard: &[u8]) -> usize {
    heard.iter().filter(|byte| **byte == b'\n').count()
}

/// A plugin that connects, and goes as soon as it knows that the handshake is done.
fn dialogue(port: u16, conn: &str) -> io::Result<()> {
    let mut plugin = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    plugin.set_nodelay(true)?;
    plugin.set_read_timeout(Some(LIMIT))?;
    // What a plugin says need not wait for the greeting.
    plugin.write_all(conn.as_bytes())?;
    let mut heard = Vec::new();
    while lines(&heard) < 2 {
        let mut buffer = [0; 256];
        match plugin.read(&mut buffer)? {
            0 => break,
            read => heard.extend_from_slice(&buffer[..read]),
        }
    }
    // No port is kept for what comes too late.
    socket2::SockRef::from(&plugin).set_linger(Some(Duration::ZERO))?;
    check(&heard)
}

/// Does `work` over and over on so many threads.
fn repeat(threads: usize, time: Duration, work: impl Fn() -> io::Result<()> + Sync) -> io::Result<Made> {
    let start = Instant::now();
    let each = || {
        let cpu = own_cpu();
        let mut count = 0;
        while start.elapsed() < time {
            work()?;
            count += 1;
        }
        io::Result::Ok((count, own_cpu().saturating_sub(cpu)))
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(each)).collect();
        let mut made = Made { count: 0, time: Duration::ZERO, cpu: Duration::ZERO };
        for thread in threads {
            let (count, cpu) = thread.join().map_err(|_| io::Error::other("a loop panicked"))??;
            made.count += count;
            made.cpu += cpu;
        }
        made.time = start.elapsed();
        Ok(made)
    })
}

/// Processor time of this thread.
fn own_cpu() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map_or(Duration::ZERO, Duration::from)
}

/// Handshakes without end that a daemon makes. Plugins and server are a process of the lowest class there is: what is
/// watched meanwhile shall suffer from the daemon alone.
pub struct Storm {
    child: Child,
    start: Instant,
}

impl Storm {
    /// So many at once through the daemon on `port`; the first is done.
    pub fn start(port: u16, at_once: usize) -> io::Result<Self> {
        let mut command = Command::new("chrt");
        command.args(["--idle", "0"]).arg(std::env::current_exe()?).arg("storm");
        command.arg(port.to_string()).arg(at_once.to_string()).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn()?;
        let mut begun = [0; 6];
        if let Some(stdout) = &mut child.stdout {
            stdout.read_exact(&mut begun)?;
        }
        Ok(Self { child, start: Instant::now() })
    }

    /// Ends it; handshakes a second.
    pub fn end(mut self) -> io::Result<f64> {
        let time = self.start.elapsed();
        drop(self.child.stdin.take());
        let mut said = String::new();
        if let Some(stdout) = &mut self.child.stdout {
            stdout.read_to_string(&mut said)?;
        }
        let made: f64 = said.trim().parse().map_err(|_| io::Error::other("handshakes failed"))?;
        Ok(made / time.as_secs_f64())
    }
}

impl Drop for Storm {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// What the process of a [`Storm`] does, until its standard input ends; then it tells how many there were.
pub fn storm(port: u16, at_once: usize) -> io::Result<()> {
    let server = Server::start(at_once + 1)?;
    let conn = server.conn(&server.pin());
    dialogue(port, &conn)?;
    println!("begun");
    let begun = server.made()?;
    let ended = AtomicBool::new(false);
    let made = thread::scope(|scope| {
        let work = || {
            while !ended.load(Ordering::Relaxed) {
                dialogue(port, &conn)?;
            }
            io::Result::Ok(())
        };
        let plugins: Vec<_> = (0..at_once).map(|_| scope.spawn(work)).collect();
        io::stdin().read_to_end(&mut Vec::new())?;
        let made = server.made()?;
        ended.store(true, Ordering::Relaxed);
        plugins
            .into_iter()
            .try_for_each(|plugin| plugin.join().map_err(|_| io::Error::other("a plugin panicked"))?)?;
        io::Result::Ok(made - begun)
    })?;
    println!("{made}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rustls_makes_full_ones() {
        let server = Server::start(4).unwrap();
        let made = by_rustls(&server, Duration::from_millis(50)).unwrap();
        assert!(made.count >= THREADS as u64 && made.cpu > Duration::ZERO, "{made:?}");
        server.wait_made(made.count).unwrap();
        assert_eq!(server.made().unwrap(), made.count);
    }
}
