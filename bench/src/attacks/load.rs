//! The attacks. A helper process in the attacker's network namespace makes them; see [`run`].

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};
use testkit::lan::{BOX_V4, BOX_V6, NEIGHBOUR_V4, NEIGHBOUR_V6};
use testkit::websocket::Peer;

use super::{ATTACKED_DEVICE, DEAD_NAME, FORBIDDEN_ID};
use crate::connection_pair::expect_line;

/// Timeout of the attacker's calls.
const LIMIT: Duration = Duration::from_secs(2);

/// Starts an attack, and returns when it is in place. Its threads go on until the process ends.
type Attack = fn(&Attacker) -> io::Result<()>;

const ATTACKS: [(&str, Attack); 11] = [
    ("none", |_| Ok(())),
    ("stop", stop),
    ("chain", chain),
    ("places", places),
    ("memory", memory),
    ("half messages", half_messages),
    ("notices", notices),
    ("names", names_of_silent_server),
    ("dead addresses", dead_addresses),
    ("pids", pids),
    ("redirect", redirect),
];

/// The names of all attacks.
pub fn names() -> impl Iterator<Item = &'static str> {
    ATTACKS.iter().map(|(name, _)| *name)
}

/// The helper process of an attack: prints `started` when it is in place, goes on until its standard input ends, then
/// prints the number of attempts.
pub fn run(name: &str, port: u16, luup_port: u16) -> io::Result<()> {
    let attack = ATTACKS.iter().find(|(known, _)| *known == name).ok_or(ErrorKind::InvalidInput)?.1;
    let attacker = Attacker { port, luup_port, attempts: Arc::default() };
    attack(&attacker)?;
    println!("started");
    io::stdin().read_to_end(&mut Vec::new())?;
    println!("{}", attacker.attempts.load(Ordering::Relaxed));
    Ok(())
}

/// What an attack knows of the box, and the number of its attempts.
#[derive(Clone)]
struct Attacker {
    port: u16,
    luup_port: u16,
    attempts: Arc<AtomicU64>,
}

impl Attacker {
    /// Connects from an address and reads the greeting.
    fn plugin(&self, source: &str) -> io::Result<TcpStream> {
        self.attempts.fetch_add(1, Ordering::Relaxed);
        let source = parsed(source);
        let target = SocketAddr::new(parsed(if source.is_ipv4() { BOX_V4 } else { BOX_V6 }), self.port);
        let socket = Socket::new(Domain::for_address(target), Type::STREAM, None)?;
        socket.bind(&SocketAddr::new(source, 0).into())?;
        socket.connect_timeout(&target.into(), LIMIT)?;
        let mut stream = TcpStream::from(socket);
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(LIMIT))?;
        stream.set_write_timeout(Some(LIMIT))?;
        expect_line(&mut stream, "OK TOGGLEDBITS-SOCKPROXY 1 ")?;
        Ok(stream)
    }

    /// As [`Attacker::plugin`], and sends a line.
    fn plugin_with(&self, source: &str, line: &str) -> io::Result<TcpStream> {
        let mut stream = self.plugin(source)?;
        stream.write_all(line.as_bytes())?;
        Ok(stream)
    }

    /// As [`Attacker::plugin_with`], with a CONN line that must succeed.
    fn connected(&self, source: &str, conn: &str) -> io::Result<TcpStream> {
        let mut stream = self.plugin_with(source, conn)?;
        expect_line(&mut stream, "OK CONN ")?;
        Ok(stream)
    }

    /// Calls `work` again and again, with this pause, in a thread of its own. Errors are what the daemon's defence causes.
    fn repeat(&self, pause: Duration, mut work: impl FnMut(&Attacker) -> io::Result<()> + Send + 'static) {
        let attacker = self.clone();
        thread::spawn(move || {
            loop {
                work(&attacker).ok();
                thread::sleep(pause);
            }
        });
    }

    /// Opens up to `count` connections from each source at the same time, and holds them: opens new ones in place of those
    /// that end. Returns when each source has them or was refused.
    fn hold(
        &self,
        sources: &[&'static str],
        count: usize,
        reading: Reading,
        open: impl Fn(&Attacker, &str) -> io::Result<TcpStream> + Clone + Send + 'static,
    ) {
        thread::scope(|scope| {
            for &source in sources {
                let open = open.clone();
                scope.spawn(move || {
                    let mut held = Vec::new();
                    fill(&mut held, count, || open(self, source));
                    self.repeat(Duration::from_millis(200), move |attacker| {
                        held.retain(|stream| is_open(stream, reading));
                        fill(&mut held, count, || open(attacker, source));
                        Ok(())
                    });
                });
            }
        });
    }
}

/// Whether the attacker reads what the daemon sends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reading {
    Everything,
    Nothing,
}

/// Opens connections until there are `count`, or one fails.
fn fill(held: &mut Vec<TcpStream>, count: usize, mut open: impl FnMut() -> io::Result<TcpStream>) {
    while held.len() < count {
        let Ok(stream) = open() else { return };
        if stream.set_nonblocking(true).is_ok() {
            held.push(stream);
        }
    }
}

fn is_open(mut stream: &TcpStream, reading: Reading) -> bool {
    let mut buffer = [0; 64 * 1024];
    let read = match reading {
        Reading::Everything => stream.read(&mut buffer),
        Reading::Nothing => stream.peek(&mut buffer[..1]),
    };
    read.map_or_else(|error| error.kind() == ErrorKind::WouldBlock, |length| length > 0)
}

fn parsed(address: &str) -> IpAddr {
    address.parse().unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED))
}

/// Reads to the end, for `time` at most.
fn read_to_end(stream: &mut TcpStream, time: Duration) -> io::Result<()> {
    let deadline = Instant::now() + time;
    let mut buffer = [0; 4096];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left))?;
        if stream.read(&mut buffer)? == 0 {
            return Ok(());
        }
    }
}

/// Listens on the attacker's first address, and serves each connection in a thread of its own.
fn serve(serve: impl Fn(TcpStream) -> io::Result<()> + Clone + Send + 'static) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind((parsed(NEIGHBOUR_V4[0]), 0))?;
    let addr = listener.local_addr()?;
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let serve = serve.clone();
            thread::spawn(move || serve(stream));
        }
    });
    Ok(addr)
}

/// A WebSocket server that sends these bytes after the upgrade, then nothing, and ends when its client does.
fn websocket_server(bytes: Vec<u8>) -> io::Result<SocketAddr> {
    serve(move |stream| {
        let mut peer = Peer::new(stream);
        peer.upgrade()?;
        peer.send(&bytes)?;
        peer.stream().set_read_timeout(None)?;
        peer.rest().map(drop)
    })
}

/// STOP, which only loopback may send, through a connection of the daemon to itself.
fn stop(attacker: &Attacker) -> io::Result<()> {
    for host in ["127.0.0.1", BOX_V4] {
        attacker.repeat(Duration::from_millis(100), move |attacker| {
            let line = format!("CONN {host}:{}\nSTOP\n", attacker.port);
            read_to_end(&mut attacker.plugin_with(NEIGHBOUR_V4[0], &line)?, LIMIT)
        });
    }
    Ok(())
}

/// Lines that make the daemon connect to itself, and the next line go through that connection.
fn chain(attacker: &Attacker) -> io::Result<()> {
    let lines = format!("CONN 127.0.0.1:{}\n", attacker.port).repeat(1022);
    // Without a defence, it takes this long until there are too many connections.
    const FULL: Duration = Duration::from_secs(9);
    let mut first = attacker.plugin_with(NEIGHBOUR_V4[0], &lines)?;
    read_to_end(&mut first, FULL).ok();
    let mut held = Some(first);
    attacker.repeat(Duration::from_millis(100), move |attacker| {
        let stream = held.take().map_or_else(|| attacker.plugin_with(NEIGHBOUR_V4[0], &lines), Ok);
        read_to_end(&mut stream?, Duration::from_secs(60))
    });
    Ok(())
}

/// All the places that one machine gets with several IPv6 addresses. STAT lifts the limit of silence.
fn places(attacker: &Attacker) -> io::Result<()> {
    attacker.hold(&NEIGHBOUR_V6, 256, Reading::Everything, |attacker, source| attacker.plugin_with(source, "STAT\n"));
    Ok(())
}

/// Floods that their plugins do not read, and a message of which only the first 4.18 MB come.
fn memory(attacker: &Attacker) -> io::Result<()> {
    let flood = serve(|mut stream| {
        loop {
            stream.write_all(&[7; 64 * 1024])?;
        }
    })?;
    attacker.hold(&NEIGHBOUR_V4[..1], 200, Reading::Nothing, move |attacker, source| {
        attacker.connected(source, &format!("CONN {flood}\n"))
    });
    let server = websocket_server(Vec::new())?;
    attacker.hold(&NEIGHBOUR_V4[..1], 1, Reading::Everything, move |attacker, source| {
        let mut stream = attacker.connected(source, &format!("CONN ws://{server}/ MAXM=1000000000\n"))?;
        stream.write_all(b"BINA 900000000\n")?;
        // The daemon may stop reading.
        stream.write_all(&vec![7; 4_180_000]).ok();
        Ok(stream)
    });
    Ok(())
}

/// WebSocket messages of 64 KiB of which only the first half comes.
fn half_messages(attacker: &Attacker) -> io::Result<()> {
    // A binary message with a length of 65536.
    let mut half = vec![0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0];
    half.resize(half.len() + 32 * 1024, 7);
    let server = websocket_server(half)?;
    attacker.hold(&NEIGHBOUR_V4[..4], 250, Reading::Everything, move |attacker, source| {
        attacker.connected(source, &format!("CONN ws://{server}/\n"))
    });
    Ok(())
}

/// Closing notices with a long action, for a device for which Luup answers 503. The shorter ones fit into a request, so that
/// the daemon tries again.
fn notices(attacker: &Attacker) -> io::Result<()> {
    let notice = |attacker: &Attacker, source: &str, number: usize| {
        let length = if number.is_multiple_of(2) { 3000 } else { 16_280 };
        let line = format!("NTFY {ATTACKED_DEVICE} s {number}{}\nQUIT\n", "x".repeat(length));
        read_to_end(&mut attacker.plugin_with(source, &line)?, LIMIT)
    };
    thread::scope(|scope| {
        for source in &NEIGHBOUR_V4[..4] {
            scope.spawn(move || (0..275).for_each(|number| drop(notice(attacker, source, number))));
        }
    });
    let mut number = 0;
    attacker.repeat(Duration::from_millis(10), move |attacker| {
        number += 1;
        notice(attacker, NEIGHBOUR_V4[4], number)
    });
    Ok(())
}

/// Eight clients, each with one name after another that a silent name server should resolve.
fn names_of_silent_server(attacker: &Attacker) -> io::Result<()> {
    let server = UdpSocket::bind((parsed(NEIGHBOUR_V4[0]), 53))?;
    for client in 0..8 {
        let mut number = 0;
        attacker.repeat(Duration::from_millis(10), move |attacker| {
            number += 1;
            let line = format!("CONN host{number}.client{client}.example:80\n");
            read_to_end(&mut attacker.plugin_with(NEIGHBOUR_V4[0], &line)?, Duration::from_millis(500))
        });
    }
    // One query for each thread of the daemon that looks names up, if it lets the attacker have all of them.
    server.set_read_timeout(Some(LIMIT))?;
    (0..8).take_while(|_| server.recv(&mut [0; 512]).is_ok()).for_each(drop);
    attacker.repeat(Duration::ZERO, move |_| server.recv(&mut [0; 512]).map(drop));
    Ok(())
}

/// Clients that ask for a name whose 16 addresses do not answer, and leave.
fn dead_addresses(attacker: &Attacker) -> io::Result<()> {
    for _ in 0..130 {
        attacker.plugin_with(NEIGHBOUR_V4[0], &format!("CONN {DEAD_NAME}:80 CTIM=60000\n")).ok();
    }
    // The daemon does not try all the addresses of a name at once.
    thread::sleep(Duration::from_secs(5));
    Ok(())
}

/// Wrong pids, one each 2 ms, on several connections.
fn pids(attacker: &Attacker) -> io::Result<()> {
    let mut streams: [Option<TcpStream>; 8] = Default::default();
    let mut number = 0usize;
    attacker.repeat(Duration::from_millis(2), move |attacker| {
        number += 1;
        let slot = &mut streams[number % 8];
        if slot.as_ref().is_none_or(|stream| !is_open(stream, Reading::Everything)) {
            let stream = attacker.plugin(NEIGHBOUR_V4[0])?;
            stream.set_nonblocking(true)?;
            *slot = Some(stream);
        }
        attacker.attempts.fetch_add(1, Ordering::Relaxed);
        let Some(stream) = slot else { return Ok(()) };
        stream.write_all(format!("ATCH wrong-pid-{number}\n").as_bytes())
    });
    Ok(())
}

/// A WebSocket server that redirects to Luup by the box's own addresses.
fn redirect(attacker: &Attacker) -> io::Result<()> {
    let luup_port = attacker.luup_port;
    for host in [BOX_V4.to_owned(), format!("[{BOX_V6}]")] {
        let server = serve(move |stream| {
            let mut peer = Peer::new(stream);
            peer.request()?;
            let location = format!("ws://{host}:{luup_port}/data_request?id={FORBIDDEN_ID}");
            peer.send(format!("HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n").as_bytes())?;
            peer.end()
        })?;
        attacker.repeat(Duration::from_millis(20), move |attacker| {
            let mut stream = attacker.plugin_with(NEIGHBOUR_V4[0], &format!("CONN ws://{server}/\n"))?;
            read_to_end(&mut stream, LIMIT)
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_that_have_ended_are_noticed_without_reading() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let mut server = listener.accept().unwrap().0;
        client.set_nonblocking(true).unwrap();
        assert!(is_open(&client, Reading::Nothing) && is_open(&client, Reading::Everything));
        server.write_all(b"data").unwrap();
        client.set_nonblocking(false).unwrap();
        assert!(is_open(&client, Reading::Nothing) && is_open(&client, Reading::Nothing), "the data stays unread");
        assert!(is_open(&client, Reading::Everything));
        drop(server);
        assert!(!is_open(&client, Reading::Nothing) && !is_open(&client, Reading::Everything));
    }

    #[test]
    fn connections_are_opened_until_one_is_refused() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let mut places = 3;
        let mut open = || {
            places -= 1;
            if places < 0 {
                Err(ErrorKind::ConnectionRefused.into())
            } else {
                TcpStream::connect(listener.local_addr()?)
            }
        };
        let mut held = Vec::new();
        fill(&mut held, 2, &mut open);
        assert_eq!(held.len(), 2);
        fill(&mut held, 5, &mut open);
        assert_eq!(held.len(), 3);
    }
}
