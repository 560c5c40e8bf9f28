//! The daemon's work for a handshake in the simplest way there is: two threads, each of which lets a plugin in, greets it,
//! reads its CONN, connects, has rustls make the handshake, answers and closes. Whatever the daemon is, it can hardly be
//! faster than that.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustls::ClientConfig;

use super::handshakes::{LIMIT, Server, THREADS, client_config, own_cpu, shake_hands};

/// The threads and the port where they let plugins in.
pub struct SameWork {
    listener: TcpListener,
    /// Processor time of the threads, in nanoseconds.
    cpu: Arc<AtomicU64>,
    threads: Vec<JoinHandle<()>>,
}

impl SameWork {
    /// Connections to `server`.
    pub fn start(server: &Server) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let config = client_config(server)?;
        let cpu = Arc::<AtomicU64>::default();
        let threads = (0..THREADS)
            .map(|_| {
                let (listener, config, cpu) = (listener.try_clone()?, Arc::clone(&config), Arc::clone(&cpu));
                Ok(thread::spawn(move || {
                    let mut before = own_cpu();
                    while let Ok((plugin, _)) = listener.accept() {
                        // Whoever is not served finds his connection closed, and says so.
                        serve(&plugin, &config).ok();
                        drop(plugin);
                        let now = own_cpu();
                        cpu.fetch_add(now.saturating_sub(before).as_nanos() as u64, Ordering::Relaxed);
                        before = now;
                    }
                }))
            })
            .collect::<io::Result<_>>()?;
        Ok(Self { listener, cpu, threads })
    }

    /// The port where plugins come in.
    pub fn port(&self) -> io::Result<u16> {
        self.listener.local_addr().map(|own| own.port())
    }

    /// Processor time for the plugins that have gone.
    pub fn cpu_time(&self) -> Duration {
        Duration::from_nanos(self.cpu.load(Ordering::Relaxed))
    }
}

impl Drop for SameWork {
    fn drop(&mut self) {
        // On Linux this wakes a blocked accept() with EINVAL.
        socket2::SockRef::from(&self.listener).shutdown(Shutdown::Both).ok();
        for thread in self.threads.drain(..) {
            thread.join().ok();
        }
    }
}

/// A plugin, from its greeting to its end.
fn serve(mut plugin: &TcpStream, config: &Arc<ClientConfig>) -> io::Result<()> {
    plugin.set_nodelay(true)?;
    plugin.set_read_timeout(Some(LIMIT))?;
    plugin.write_all(b"OK TOGGLEDBITS-SOCKPROXY 1 same-work\n")?;
    let mut line = String::new();
    BufReader::new(plugin).read_line(&mut line)?;
    let target = line.strip_prefix("CONN ").and_then(|rest| rest.split_whitespace().next()?.parse::<SocketAddr>().ok());
    let target = target.ok_or_else(|| io::Error::other(format!("no CONN: {line}")))?;
    let (mut connection, mut remote) = shake_hands(target, config)?;
    plugin.write_all(b"OK CONN same-work\n")?;
    connection.send_close_notify();
    connection.write_tls(&mut remote)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::dialogues::by_dialogues;
    use super::*;

    #[test]
    fn plugins_are_served() {
        let server = Server::start(4).unwrap();
        let same = SameWork::start(&server).unwrap();
        let made = by_dialogues(same.port().unwrap(), &server.conn(""), 3, Duration::from_millis(50)).unwrap();
        server.wait_made(made.count).unwrap();
        assert_eq!(server.made().unwrap(), made.count);
        assert!(made.count >= 3 && same.cpu_time() > Duration::ZERO);
    }
}
