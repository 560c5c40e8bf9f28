//! Plugins that say CONN at the same time, as after a reload of Luup, and the round trips of somebody else meanwhile.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use super::aside::Aside;
use super::dialogues::{check, come, hear};
use super::handshakes::Server;
use super::lane::Lane;
use super::load::ping_pong_while;

/// What a crowd wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// A connection.
    Connection,
    /// A connection and a handshake of TLS 1.3.
    Handshake,
}

/// A crowd, and a process for the servers of all. One server is for both wishes, so that they differ in nothing else.
pub struct Crowd {
    server: Aside,
    port: u16,
    plugins: usize,
    /// What is said for a connection, and for a handshake.
    said: [String; 2],
    /// Handshakes so far.
    made: usize,
}

impl Crowd {
    /// So many plugins of the daemon on `port`.
    pub fn start(port: u16, plugins: usize) -> io::Result<Self> {
        // Those of the crowd before may just be going.
        let mut server = Aside::start(&["server", &(2 * plugins).to_string()])?;
        let said = [server.line()?, server.line()?];
        Ok(Self { server, port, plugins, said, made: 0 })
    }

    /// Round trips of 64 bytes on `lane`, from when a crowd says what it wishes until all have their answers. Crowds come
    /// until there are `count` round trips.
    pub fn round_trips(&mut self, lane: &mut Lane, wish: Wish, count: usize) -> io::Result<Vec<Duration>> {
        // What the daemon makes for the first is for all.
        self.once(lane, wish)?;
        let mut times = Vec::new();
        while times.len() < count {
            times.extend(self.once(lane, wish)?);
        }
        Ok(times)
    }

    fn once(&mut self, lane: &mut Lane, wish: Wish) -> io::Result<Vec<Duration>> {
        let mut plugins = (0..self.plugins).map(|_| greeted(self.port)).collect::<io::Result<Vec<_>>>()?;
        let said = &self.said[usize::from(wish == Wish::Handshake)];
        let (start, answered) = (Barrier::new(2), AtomicBool::new(false));
        let times = thread::scope(|scope| {
            let asking = scope.spawn(|| {
                start.wait();
                let outcome = ask(&mut plugins, said);
                answered.store(true, Ordering::Relaxed);
                outcome
            });
            start.wait();
            let times = ping_pong_while(lane, 64, |_| !answered.load(Ordering::Relaxed));
            asking.join().map_err(|_| io::Error::other("a crowd panicked"))??;
            times
        })?;
        self.made += if wish == Wish::Handshake { self.plugins } else { 0 };
        Ok(times)
    }

    /// Ends it. An error where the server has counted fewer handshakes, or others than full ones.
    pub fn end(self) -> io::Result<()> {
        self.server.end(&self.made.to_string()).map(drop)
    }
}

/// A plugin that has been greeted.
fn greeted(port: u16) -> io::Result<TcpStream> {
    let mut plugin = come(port)?;
    hear(&mut plugin, 1)?;
    Ok(plugin)
}

/// All say it, and hear the answer.
fn ask(plugins: &mut [TcpStream], said: &str) -> io::Result<()> {
    for plugin in plugins.iter_mut() {
        plugin.write_all(said.as_bytes())?;
    }
    plugins.iter_mut().try_for_each(|plugin| check(&hear(plugin, 1)?))
}

/// What the process of a [`Crowd`]'s servers does: says what is to be said to have a connection, and a handshake. When
/// its standard input ends, it waits for as many handshakes as it was told there, and tells how many there were.
pub fn serve(at_once: usize) -> io::Result<()> {
    let server = Server::start(at_once)?;
    print!("{}{}", server.conn_without_tls(), server.conn(&server.pin()));
    io::stdout().flush()?;
    let mut told = String::new();
    io::stdin().read_to_string(&mut told)?;
    server.wait_made(told.parse().map_err(io::Error::other)?)?;
    println!("{}", server.made()?);
    Ok(())
}
