//! The baseline for handshakes a second: two threads, each of which accepts a plugin, greets it, reads its CONN,
//! connects, has rustls make the handshake, answers and closes. A daemon can hardly be faster than this loop.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustls::ClientConfig;

use crate::tls_handshakes::{LIMIT, Server, THREADS, client_config, connect_tls, thread_cpu_time};

/// The threads, and the listener that plugins connect to.
pub struct RustlsBaseline {
    listener: TcpListener,
    /// Processor time of the threads, in nanoseconds.
    cpu: Arc<AtomicU64>,
    threads: Vec<JoinHandle<()>>,
}

impl RustlsBaseline {
    /// Starts the threads; they trust the authority of `server`.
    pub fn start(server: &Server) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let config = client_config(server)?;
        let cpu = Arc::<AtomicU64>::default();
        let threads = (0..THREADS)
            .map(|_| {
                let (listener, config, cpu) = (listener.try_clone()?, Arc::clone(&config), Arc::clone(&cpu));
                Ok(thread::spawn(move || {
                    let mut before = thread_cpu_time();
                    while let Ok((plugin, _)) = listener.accept() {
                        // A plugin that is not served finds its connection closed and reports that.
                        serve(&plugin, &config).ok();
                        drop(plugin);
                        let now = thread_cpu_time();
                        cpu.fetch_add(now.saturating_sub(before).as_nanos() as u64, Ordering::Relaxed);
                        before = now;
                    }
                }))
            })
            .collect::<io::Result<_>>()?;
        Ok(Self { listener, cpu, threads })
    }

    /// The port that plugins connect to.
    pub fn port(&self) -> io::Result<u16> {
        self.listener.local_addr().map(|own| own.port())
    }

    /// Processor time for the plugins that have been served.
    pub fn cpu_time(&self) -> Duration {
        Duration::from_nanos(self.cpu.load(Ordering::Relaxed))
    }
}

impl Drop for RustlsBaseline {
    fn drop(&mut self) {
        // On Linux this wakes a blocked accept() with EINVAL.
        socket2::SockRef::from(&self.listener).shutdown(Shutdown::Both).ok();
        for thread in self.threads.drain(..) {
            thread.join().ok();
        }
    }
}

/// Serves one plugin, from the greeting to the close.
fn serve(mut plugin: &TcpStream, config: &Arc<ClientConfig>) -> io::Result<()> {
    plugin.set_nodelay(true)?;
    plugin.set_read_timeout(Some(LIMIT))?;
    plugin.write_all(b"OK TOGGLEDBITS-SOCKPROXY 1 baseline\n")?;
    let mut line = String::new();
    BufReader::new(plugin).read_line(&mut line)?;
    let target = line.strip_prefix("CONN ").and_then(|rest| rest.split_whitespace().next()?.parse::<SocketAddr>().ok());
    let target = target.ok_or_else(|| io::Error::other(format!("no CONN: {line}")))?;
    let (mut connection, mut remote) = connect_tls(target, config)?;
    plugin.write_all(b"OK CONN baseline\n")?;
    connection.send_close_notify();
    connection.write_tls(&mut remote)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::setup_exchange::exchange_many;

    #[test]
    fn plugins_are_served() {
        let server = Server::start(4).unwrap();
        let baseline = RustlsBaseline::start(&server).unwrap();
        let port = baseline.port().unwrap();
        let stats = exchange_many(port, &server.conn(""), 3, Duration::from_millis(50)).unwrap();
        server.wait_full_handshakes(stats.count).unwrap();
        assert_eq!(server.full_handshakes().unwrap(), stats.count);
        assert!(stats.count >= 3 && baseline.cpu_time() > Duration::ZERO);
    }
}
