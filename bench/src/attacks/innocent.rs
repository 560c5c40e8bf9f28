//! The innocent plugin: dialogues, notifications, and a kept connection to which its owner comes back.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use testkit::device::{Device, Kind};
use testkit::luup::{Luup, Request};
use testkit::websocket::{BINARY, Server};

use super::FORBIDDEN_ID;
use crate::connection_pair::{ConnectionPair, PairOpener, Via, expect_line};

/// Time after which a dialogue or a notification has failed: plugins wait that long.
const LIMIT: Duration = Duration::from_secs(5);
/// Time from the start of one dialogue to the next.
const INTERVAL: Duration = Duration::from_millis(10);
/// The length of a remote's WebSocket message: more than a connection may hold when memory is used up.
const MESSAGE: usize = 8192;
/// The Luup device of the plugin's notifications.
const DEVICE: i64 = 1;
/// The pid of the kept connection.
const PID: &str = "innocent-owner";

/// Times and failures.
#[derive(Default)]
pub struct Measured {
    /// From CONN to OK CONN.
    pub conn: Vec<Duration>,
    /// From the remote's byte to the request at Luup.
    pub notification: Vec<Duration>,
    /// From ATCH to OK ATCH.
    pub attach: Vec<Duration>,
    /// Why dialogues, notifications and ATCH failed.
    pub failures: Vec<String>,
    /// Requests that have reached Luup through the attacker.
    pub forbidden: usize,
}

impl Measured {
    /// What has not failed.
    pub fn succeeded(&self) -> usize {
        self.conn.len() + self.notification.len() + self.attach.len()
    }

    /// The reasons of the failures, and how often each occurred.
    pub fn reasons(&self) -> BTreeMap<&str, usize> {
        let mut reasons = BTreeMap::new();
        self.failures.iter().for_each(|reason| *reasons.entry(reason.as_str()).or_default() += 1);
        reasons
    }
}

/// Opens the plugin's lasting connections to the daemon on `port`, calls `start`, which starts the attack, and measures
/// for `time`. Returns what `start` has returned, too.
pub fn measure<T: Send>(
    port: u16,
    luup: &Luup,
    time: Duration,
    start: impl FnOnce() -> io::Result<T>,
) -> io::Result<(Measured, T)> {
    let (device, server) = (Device::start(Kind::Echo), message_server());
    let backend = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let opener = PairOpener { via: Via::Conn(port), backend: &backend };
    let mut notified = Some(opener.open(&notify_option())?);
    let mut owner = open_kept(port, &device)?;
    let plain = format!("CONN {}\n", device.addr());
    // By name, so that it waits for the threads that look names up.
    let bridged = format!("CONN ws://localhost:{}/\n", server.addr().port());
    let attack = start()?;
    luup.clear_requests();
    let measured = Mutex::new(Measured::default());
    let end = Instant::now() + time;
    let repeat = |what: &str, work: &mut dyn FnMut() -> io::Result<()>| {
        while Instant::now() < end {
            let begin = Instant::now();
            if let Err(error) = work() {
                add(&measured, |to| to.failures.push(format!("{what}: {error}")));
            }
            thread::sleep(INTERVAL.saturating_sub(begin.elapsed()));
        }
    };
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut turn = 0usize;
            repeat("dialogue", &mut || {
                turn += 1;
                let (line, message) = if turn.is_multiple_of(2) { (&plain, 0) } else { (&bridged, MESSAGE) };
                let took = dialogue(port, line, message)?;
                add(&measured, |to| to.conn.push(took));
                Ok(())
            });
        });
        scope.spawn(|| {
            repeat("notification", &mut || {
                let outcome = notification(&opener, &mut notified, luup, &measured);
                if outcome.is_err() {
                    // The next one takes a new connection: of a late notification, it is not known whose it is.
                    notified = None;
                }
                let took = outcome?;
                add(&measured, |to| to.notification.push(took));
                Ok(())
            });
        });
        scope.spawn(|| {
            repeat("ATCH", &mut || {
                let took = attach(port, &mut owner)?;
                add(&measured, |to| to.attach.push(took));
                Ok(())
            });
        });
    });
    let mut measured = measured.into_inner().map_err(|_| io::Error::other("a measurement panicked"))?;
    measured.forbidden += count_forbidden(&luup.requests());
    Ok((measured, attack))
}

fn add(measured: &Mutex<Measured>, change: impl FnOnce(&mut Measured)) {
    if let Ok(mut measured) = measured.lock() {
        change(&mut measured);
    }
}

/// A WebSocket server that sends a message to each client, and answers its close frame (RFC 6455 section 5.5.1). Without the
/// answer, the proxy would wait for it for as long as connections may close.
fn message_server() -> Server {
    Server::start(|mut peer| {
        peer.upgrade()?;
        peer.send_frame(BINARY, &[7; MESSAGE])?;
        peer.echo()
    })
}

fn connect(port: u16) -> io::Result<TcpStream> {
    let mut plugin = TcpStream::connect_timeout(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)), LIMIT)?;
    plugin.set_nodelay(true)?;
    plugin.set_read_timeout(Some(LIMIT))?;
    expect_line(&mut plugin, "OK TOGGLEDBITS-SOCKPROXY 1 ")?;
    Ok(plugin)
}

/// Connects, sends CONN, reads a message of this length and disconnects. Returns the time from CONN to OK CONN.
fn dialogue(port: u16, conn: &str, message: usize) -> io::Result<Duration> {
    let mut plugin = connect(port)?;
    let start = Instant::now();
    plugin.write_all(conn.as_bytes())?;
    expect_line(&mut plugin, "OK CONN ")?;
    let took = start.elapsed();
    if message > 0 {
        expect_line(&mut plugin, &format!("BINA {message}\n"))?;
        plugin.read_exact(&mut vec![0; message])?;
    }
    Ok(took)
}

fn notify_option() -> String {
    format!("NTFY={DEVICE}/urn:example-com:serviceId:Bench1/HandleReceive/innocent")
}

/// Sends a byte from the remote, and returns the time until the notification. Opens the connection if there is none.
fn notification(
    opener: &PairOpener,
    pair: &mut Option<ConnectionPair>,
    luup: &Luup,
    measured: &Mutex<Measured>,
) -> io::Result<Duration> {
    let pair = match pair {
        Some(pair) => pair,
        None => pair.insert(opener.open(&notify_option())?),
    };
    let start = Instant::now();
    pair.remote.write_all(b"!")?;
    pair.client.read_exact(&mut [0])?;
    let is_ours = |request: &&Request| request.device() == Some(DEVICE);
    let outcome = luup.wait_until(LIMIT, |all| all.iter().any(|request| is_ours(&request)));
    let requests = outcome.as_ref().unwrap_or_else(|requests| requests);
    add(measured, |to| to.forbidden += count_forbidden(requests));
    let arrival = requests.iter().find(is_ours).map(|request| request.arrival);
    luup.clear_requests();
    arrival
        .map(|arrival| arrival.saturating_duration_since(start))
        .ok_or_else(|| io::Error::other(format!("none within {} s", LIMIT.as_secs())))
}

fn count_forbidden(requests: &[Request]) -> usize {
    requests.iter().filter(|request| request.param("id") == Some(FORBIDDEN_ID)).count()
}

/// Opens the kept connection.
fn open_kept(port: u16, device: &Device) -> io::Result<TcpStream> {
    let mut plugin = connect(port)?;
    plugin.write_all(format!("CONN {} KEEP=300 NTFY=-1/s/a/{PID}\n", device.addr()).as_bytes())?;
    expect_line(&mut plugin, "OK CONN ")?;
    Ok(plugin)
}

/// Leaves the kept connection and comes back to it. Returns the time from ATCH to OK ATCH.
fn attach(port: u16, owner: &mut TcpStream) -> io::Result<Duration> {
    owner.shutdown(std::net::Shutdown::Both).ok();
    let mut plugin = connect(port)?;
    let start = Instant::now();
    plugin.write_all(format!("ATCH {PID}\n").as_bytes())?;
    expect_line(&mut plugin, "OK ATCH ")?;
    let took = start.elapsed();
    *owner = plugin;
    Ok(took)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Makes a dialogue with a server that says this at once.
    fn dialogue_with(said: &'static [u8], message: usize) -> io::Result<Duration> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let port = listener.local_addr()?.port();
        thread::scope(|scope| {
            scope.spawn(|| {
                let mut plugin = listener.accept().unwrap().0;
                plugin.write_all(said).unwrap();
                let mut line = [0; 7];
                plugin.read_exact(&mut line).ok();
            });
            dialogue(port, "CONN x\n", message)
        })
    }

    #[test]
    fn a_refusal_and_a_missing_message_fail_a_dialogue() {
        assert!(dialogue_with(b"OK TOGGLEDBITS-SOCKPROXY 1 1f\nOK CONN 1f\n", 0).unwrap() < LIMIT);
        assert!(dialogue_with(b"OK TOGGLEDBITS-SOCKPROXY 1 1f\nOK CONN 1f\nBINA 4\ndata", 4).is_ok());
        let error = dialogue_with(b"ERR ACCESS Too many connections\n", 0).unwrap_err().to_string();
        assert!(error.contains("Too many connections"), "{error}");
        let said = b"OK TOGGLEDBITS-SOCKPROXY 1 1f\nOK CONN 1f\nCLOS 1009 9\nno memory";
        let error = dialogue_with(said, 4).unwrap_err().to_string();
        assert!(error.contains("CLOS 1009"), "{error}");
    }
}
