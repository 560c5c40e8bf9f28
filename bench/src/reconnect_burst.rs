//! Plugins that all send CONN at the same time, as after a reload of Luup, and the round trips of another connection
//! meanwhile.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crate::connection_pair::ConnectionPair;
use crate::helper_process::HelperProcess;
use crate::load::ping_pong_while;
use crate::setup_exchange::{check_connected, connect, read_lines};
use crate::tls_handshakes::Server;

/// What the plugins of a burst ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BurstKind {
    /// A TCP connection.
    Connection,
    /// A TCP connection and a TLS 1.3 handshake.
    Handshake,
}

/// The plugins of the bursts, and the process of the server that they connect to. One server does for both kinds, so
/// that they differ in nothing else.
pub struct ReconnectBurst {
    server: HelperProcess,
    port: u16,
    plugins: usize,
    /// The CONN lines for a connection and for a handshake.
    conn: [String; 2],
    /// Handshakes so far.
    handshakes: usize,
}

impl ReconnectBurst {
    /// Prepares bursts of `plugins` plugins of the daemon on `port`.
    pub fn start(port: u16, plugins: usize) -> io::Result<Self> {
        // Twice as many: connections of the burst before may not have ended yet.
        let mut server = HelperProcess::start(&["server", &(2 * plugins).to_string()])?;
        let conn = [server.line()?, server.line()?];
        Ok(Self { server, port, plugins, conn, handshakes: 0 })
    }

    /// Times round trips of 64 bytes on `pair`, each burst from its CONN lines until the last answer. Bursts repeat
    /// until there are `count` round trips.
    pub fn round_trips(
        &mut self,
        pair: &mut ConnectionPair,
        kind: BurstKind,
        count: usize,
    ) -> io::Result<Vec<Duration>> {
        // The first burst makes the daemon set up what later ones reuse.
        self.burst(pair, kind)?;
        let mut times = Vec::new();
        while times.len() < count {
            times.extend(self.burst(pair, kind)?);
        }
        Ok(times)
    }

    fn burst(&mut self, pair: &mut ConnectionPair, kind: BurstKind) -> io::Result<Vec<Duration>> {
        let mut plugins = (0..self.plugins).map(|_| greeted(self.port)).collect::<io::Result<Vec<_>>>()?;
        let conn = &self.conn[usize::from(kind == BurstKind::Handshake)];
        let (start, answered) = (Barrier::new(2), AtomicBool::new(false));
        let times = thread::scope(|scope| {
            let asking = scope.spawn(|| {
                start.wait();
                let outcome = connect_all(&mut plugins, conn);
                answered.store(true, Ordering::Relaxed);
                outcome
            });
            start.wait();
            let times = ping_pong_while(pair, 64, |_| !answered.load(Ordering::Relaxed));
            asking.join().map_err(|_| io::Error::other("the burst panicked"))??;
            times
        })?;
        self.handshakes += if kind == BurstKind::Handshake { self.plugins } else { 0 };
        Ok(times)
    }

    /// Ends the server. An error if it has counted fewer handshakes than were asked for, or any that was not full.
    pub fn finish(self) -> io::Result<()> {
        self.server.finish(&self.handshakes.to_string()).map(drop)
    }
}

/// Connects a plugin and reads the greeting.
fn greeted(port: u16) -> io::Result<TcpStream> {
    let mut plugin = connect(port)?;
    read_lines(&mut plugin, 1)?;
    Ok(plugin)
}

/// Sends the CONN line on every connection, then reads all answers.
fn connect_all(plugins: &mut [TcpStream], conn: &str) -> io::Result<()> {
    for plugin in plugins.iter_mut() {
        plugin.write_all(conn.as_bytes())?;
    }
    plugins.iter_mut().try_for_each(|plugin| check_connected(&read_lines(plugin, 1)?))
}

/// The helper process of a [`ReconnectBurst`]: prints the CONN lines for a connection and for a handshake. When its
/// standard input ends, it waits for the number of handshakes that it has read there, and prints how many there were.
pub fn run_server(concurrent: usize) -> io::Result<()> {
    let server = Server::start(concurrent)?;
    print!("{}{}", server.conn_without_tls(), server.conn(&server.pin()));
    io::stdout().flush()?;
    let mut expected = String::new();
    io::stdin().read_to_string(&mut expected)?;
    server.wait_full_handshakes(expected.parse().map_err(io::Error::other)?)?;
    println!("{}", server.full_handshakes()?);
    Ok(())
}
