//! Full handshakes of TLS 1.3 as fast as they go: a server for them, and a loop over rustls alone. Plugins that have them
//! made are [`super::dialogues`].

use std::io::{self, Read};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use lab::tls::{Authority, Identity, Validity, provider};
use nix::time::{ClockId, clock_gettime};
use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::NoServerSessionStorage;
use rustls::{ClientConfig, ClientConnection, HandshakeKind, RootCertStore, ServerConfig, ServerConnection, version};

/// Both the daemon and the loop make so many at once.
pub const THREADS: usize = 2;

/// How long a single handshake may take, an emulated one beside many others included.
pub const LIMIT: Duration = Duration::from_secs(30);

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

    /// CONN's line for a connection to it over which nothing is said.
    pub fn conn_without_tls(&self) -> String {
        format!("CONN {}\n", self.addr)
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
    let config = client_config(server)?;
    repeat(THREADS, time, || shake_hands(server.addr, &config).map(drop))
}

/// A configuration that trusts `server` and resumes nothing.
pub fn client_config(server: &Server) -> io::Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    let authority = CertificateDer::from_pem_slice(server.authority().as_bytes()).map_err(io::Error::other)?;
    roots.add(authority).map_err(io::Error::other)?;
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&version::TLS13])
        .map_err(io::Error::other)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

/// Connects, and has rustls make a full handshake.
pub fn shake_hands(addr: SocketAddr, config: &Arc<ClientConfig>) -> io::Result<(ClientConnection, TcpStream)> {
    let mut stream = TcpStream::connect(addr)?;
    stream.set_nodelay(true)?;
    let name = ServerName::from(addr.ip());
    let mut connection = ClientConnection::new(Arc::clone(config), name).map_err(io::Error::other)?;
    while connection.is_handshaking() || connection.wants_write() {
        connection.complete_io(&mut stream)?;
    }
    match connection.handshake_kind() {
        Some(HandshakeKind::Full) => Ok((connection, stream)),
        other => Err(io::Error::other(format!("no full handshake: {other:?}"))),
    }
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
pub fn own_cpu() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map_or(Duration::ZERO, Duration::from)
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
