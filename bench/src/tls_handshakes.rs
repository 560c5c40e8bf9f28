//! Full TLS 1.3 handshakes as fast as possible: the server, and a client loop over rustls alone. Plugins that have the
//! daemon make handshakes are in [`crate::setup_exchange`].

use std::io::{self, Read};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::time::{ClockId, clock_gettime};
use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::NoServerSessionStorage;
use rustls::{ClientConfig, ClientConnection, HandshakeKind, RootCertStore, ServerConfig, ServerConnection, version};
use testkit::tls::{Authority, Identity, Validity, provider};

/// Threads of the daemon and of the loop that make handshakes.
pub const THREADS: usize = 2;

/// Timeout of one handshake; an emulated daemon that makes many at once needs some seconds.
pub const LIMIT: Duration = Duration::from_secs(30);

/// A TLS 1.3 server without tickets, so that every handshake is a full one (P-256, X25519).
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
    /// Starts a server for `concurrent` connections at once.
    pub fn start(concurrent: usize) -> io::Result<Self> {
        let authority = Authority::new("bench");
        let identity = authority.issue(&["127.0.0.1"], Validity::Now);
        let config = server_config(&identity);
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let counts = Arc::<Counts>::default();
        let threads = (0..concurrent)
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

    /// The certificate of its authority, as PEM.
    pub fn authority(&self) -> String {
        self.authority.pem()
    }

    /// The CONN line for it; `options` select what the daemon trusts.
    pub fn conn(&self, options: &str) -> String {
        format!("CONN {} PRTO=tls TLSV=1.3 {options}\n", self.addr)
    }

    /// The CONN line for a TCP connection to it without TLS.
    pub fn conn_without_tls(&self) -> String {
        format!("CONN {}\n", self.addr)
    }

    /// The CONN option that trusts this server's certificate alone.
    pub fn pin(&self) -> String {
        format!("PINS={}", self.identity.pin())
    }

    /// Waits until the server has counted `count` full handshakes.
    pub fn wait_full_handshakes(&self, count: u64) -> io::Result<()> {
        let start = Instant::now();
        while self.full_handshakes()? < count {
            if start.elapsed() > LIMIT {
                return Err(io::Error::other(format!(
                    "{} of {count} handshakes were full ones",
                    self.full_handshakes()?
                )));
            }
            thread::yield_now();
        }
        Ok(())
    }

    /// The number of full handshakes so far; an error if any handshake failed or was resumed.
    pub fn full_handshakes(&self) -> io::Result<u64> {
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

/// A server configuration without resumption.
pub fn server_config(identity: &Identity) -> Arc<ServerConfig> {
    let mut config = identity.server(&[&version::TLS13], None);
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Arc::new(config)
}

/// Serves one connection: the handshake, then until the client closes.
fn serve(mut stream: TcpStream, config: &Arc<ServerConfig>, counts: &Counts) {
    stream.set_nodelay(true).ok();
    stream.set_read_timeout(Some(LIMIT)).ok();
    // The close resets the connection, so that no port stays in TIME_WAIT.
    socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).ok();
    let Ok(mut connection) = ServerConnection::new(Arc::clone(config)) else { return };
    let mut received = false;
    while connection.is_handshaking() {
        match connection.complete_io(&mut stream) {
            Ok(_) => received = true,
            // A client that has closed before it sent anything was ended by its benchmark.
            Err(_) if !received && connection.handshake_kind().is_none() => return,
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

/// The result of a loop of handshakes.
#[derive(Clone, Copy, Debug)]
pub struct HandshakeStats {
    /// The number of handshakes.
    pub count: u64,
    /// The duration.
    pub time: Duration,
    /// Processor time of the loop's threads.
    pub cpu: Duration,
}

/// Makes handshakes with rustls alone, on [`THREADS`] threads, for `time`.
pub fn rustls_handshakes(server: &Server, time: Duration) -> io::Result<HandshakeStats> {
    let config = client_config(server)?;
    repeat(THREADS, time, || connect_tls(server.addr, &config).map(drop))
}

/// A client configuration that trusts `server`, without resumption.
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

/// Connects and makes a full handshake.
pub fn connect_tls(addr: SocketAddr, config: &Arc<ClientConfig>) -> io::Result<(ClientConnection, TcpStream)> {
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

/// Repeats `work` on `threads` threads for `time`.
fn repeat(threads: usize, time: Duration, work: impl Fn() -> io::Result<()> + Sync) -> io::Result<HandshakeStats> {
    let start = Instant::now();
    let each = || {
        let cpu = thread_cpu_time();
        let mut count = 0;
        while start.elapsed() < time {
            work()?;
            count += 1;
        }
        io::Result::Ok((count, thread_cpu_time().saturating_sub(cpu)))
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(each)).collect();
        let mut stats = HandshakeStats { count: 0, time: Duration::ZERO, cpu: Duration::ZERO };
        for thread in threads {
            let (count, cpu) = thread.join().map_err(|_| io::Error::other("a loop panicked"))??;
            stats.count += count;
            stats.cpu += cpu;
        }
        stats.time = start.elapsed();
        Ok(stats)
    })
}

/// Processor time of this thread.
pub fn thread_cpu_time() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map_or(Duration::ZERO, Duration::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rustls_makes_full_handshakes() {
        let server = Server::start(4).unwrap();
        let stats = rustls_handshakes(&server, Duration::from_millis(50)).unwrap();
        assert!(stats.count >= THREADS as u64 && stats.cpu > Duration::ZERO, "{stats:?}");
        server.wait_full_handshakes(stats.count).unwrap();
        assert_eq!(server.full_handshakes().unwrap(), stats.count);
    }
}
