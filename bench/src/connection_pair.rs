//! Lanes: a client's socket and the remote's socket with the thing under test between them.
//! Both ends are ours, so one process can time, count and compare.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lab::websocket::{Peer, Request};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustls::{ServerConfig, ServerConnection};

/// How long opening a lane may take, and how long a single read may wait.
const LIMIT: Duration = Duration::from_secs(10);

/// What lies between client and remote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    /// Nothing: the client connects to the remote.
    Direct,
    /// A relay on this port, which connects to the remote's fixed port.
    Plain(u16),
    /// sockproxyd on this port: greeting, CONN, OK.
    Conn(u16),
    /// On this port, a relay of bytes to the remote's WebSocket.
    ToWebSocket(u16),
    /// On this port, a relay of a client's WebSocket to the remote's bytes.
    FromWebSocket(u16),
}

/// What the remote of a [`Via::Conn`] speaks.
#[derive(Clone, Debug)]
pub enum Far {
    /// Bytes.
    Plain,
    /// WebSocket.
    WebSocket,
    /// WebSocket over TLS.
    SecureWebSocket(Arc<ServerConfig>),
}

impl FromStr for Via {
    type Err = String;

    fn from_str(text: &str) -> Result<Via, String> {
        let port = |digits: &str| digits.parse().map_err(|_| format!("no port number in {text:?}"));
        match text.split_once(':') {
            None if text == "direct" => Ok(Via::Direct),
            Some(("plain", digits)) => Ok(Via::Plain(port(digits)?)),
            Some(("conn", digits)) => Ok(Via::Conn(port(digits)?)),
            _ => Err(format!("{text:?} is none of direct, plain:PORT, conn:PORT")),
        }
    }
}

/// An open pair. Dropping it resets both ends, so that no TIME_WAIT eats the ports of the next run.
pub struct Lane {
    /// The plugin's end.
    pub client: TcpStream,
    /// The device's end.
    pub remote: TcpStream,
}

impl Drop for Lane {
    fn drop(&mut self) {
        for end in [&self.client, &self.remote] {
            socket2::SockRef::from(end).set_linger(Some(Duration::ZERO)).ok();
        }
    }
}

/// Opens lanes one after another, always with the same way through and the same remote.
pub struct Opener<'a> {
    /// The way through.
    pub via: Via,
    /// The remote's listener.
    pub backend: &'a TcpListener,
}

impl Opener<'_> {
    /// Opens a lane; `options` go behind CONN's target (and nowhere else).
    pub fn open(&self, options: &str) -> io::Result<Lane> {
        self.open_to(&Far::Plain, options)
    }

    /// Opens a lane to a remote that speaks `far`, if that is asked for with CONN. Opening handshakes are over then, and
    /// what TLS needs at the remote's end is forgotten: nothing can be said there.
    pub fn open_to(&self, far: &Far, options: &str) -> io::Result<Lane> {
        let backend = self.backend.local_addr()?;
        let port = match self.via {
            Via::Direct => backend.port(),
            Via::Plain(port) | Via::Conn(port) | Via::ToWebSocket(port) | Via::FromWebSocket(port) => port,
        };
        let target = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let mut client = TcpStream::connect_timeout(&target, LIMIT)?;
        client.set_nodelay(true)?;
        client.set_read_timeout(Some(LIMIT))?;
        let scheme = match (self.via, far) {
            (Via::Conn(_), Far::Plain) => "",
            (Via::Conn(_), Far::WebSocket) => "ws://",
            (Via::Conn(_), Far::SecureWebSocket(_)) => "wss://",
            (Via::FromWebSocket(_), _) => {
                upgrade(&mut client)?;
                return Ok(Lane { client, remote: self.accept()? });
            }
            (Via::ToWebSocket(_), _) => {
                let remote = self.accept()?;
                Peer::new(remote.try_clone()?).upgrade()?;
                return Ok(Lane { client, remote });
            }
            _ => return Ok(Lane { client, remote: self.accept()? }),
        };
        expect_line(&mut client, "OK TOGGLEDBITS-SOCKPROXY 1 ")?;
        client.write_all(format!("CONN {scheme}{backend} {options}").trim_end().as_bytes())?;
        client.write_all(b"\n")?;
        let remote = match far {
            Far::Plain => {
                expect_line(&mut client, "OK CONN")?;
                return Ok(Lane { client, remote: self.accept()? });
            }
            Far::WebSocket => {
                let remote = self.accept()?;
                Peer::new(remote.try_clone()?).upgrade()?;
                remote
            }
            Far::SecureWebSocket(config) => {
                let mut remote = self.accept()?;
                upgrade_secured(&mut remote, config)?;
                remote
            }
        };
        expect_line(&mut client, "OK CONN")?;
        Ok(Lane { client, remote })
    }

    /// The remote's end of a lane.
    fn accept(&self) -> io::Result<TcpStream> {
        let remote = accept(self.backend, LIMIT)?;
        remote.set_nodelay(true)?;
        remote.set_read_timeout(Some(LIMIT))?;
        Ok(remote)
    }

    /// Opens `count` lanes alike.
    pub fn open_many(&self, count: usize, options: &str) -> io::Result<Vec<Lane>> {
        (0..count).map(|_| self.open(options)).collect()
    }

    /// Waits until a lane can be opened, as after the start of a relay.
    pub fn wait_ready(&self) -> io::Result<()> {
        let start = Instant::now();
        loop {
            match self.open("") {
                Ok(_) => return Ok(()),
                Err(e) if start.elapsed() > LIMIT => return Err(e),
                // There is no event to wait for before somebody listens.
                Err(_) => std::thread::sleep(Duration::from_millis(10)),
            }
        }
    }
}

/// Accepts within `limit`.
fn accept(listener: &TcpListener, limit: Duration) -> io::Result<TcpStream> {
    let timeout = PollTimeout::try_from(limit).unwrap_or(PollTimeout::MAX);
    if poll(&mut [PollFd::new(listener.as_fd(), PollFlags::POLLIN)], timeout)? == 0 {
        return Err(io::Error::new(io::ErrorKind::TimedOut, "nobody connects to the remote"));
    }
    Ok(listener.accept()?.0)
}

/// A client's opening handshake.
fn upgrade(client: &mut TcpStream) -> io::Result<()> {
    client.write_all(
        b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
          Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    )?;
    let answer = Peer::new(client.try_clone()?).request()?.line;
    if answer.contains(" 101 ") { Ok(()) } else { Err(io::Error::other(answer)) }
}

/// A server's opening handshakes, of TLS and of WebSocket.
fn upgrade_secured(remote: &mut TcpStream, config: &Arc<ServerConfig>) -> io::Result<()> {
    let connection = ServerConnection::new(Arc::clone(config)).map_err(io::Error::other)?;
    let mut stream = rustls::StreamOwned::new(connection, remote);
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut buffer = [0; 1024];
        match stream.read(&mut buffer)? {
            0 => return Err(ErrorKind::UnexpectedEof.into()),
            read => head.extend_from_slice(&buffer[..read]),
        }
    }
    let answer = Request::parse(&head).upgrade(&[]);
    stream.write_all(answer.as_bytes())?;
    stream.flush()
}

/// Reads a line byte by byte (what follows it is the remote's) and checks its beginning.
fn expect_line(stream: &mut TcpStream, start: &str) -> io::Result<()> {
    // The line is short and comes in one piece: look at it first, then take just that.
    let mut line = Vec::new();
    let mut buf = [0u8; 128];
    while line.last() != Some(&b'\n') {
        let seen = stream.peek(&mut buf)?;
        let take = buf[..seen].iter().position(|&b| b == b'\n').map_or(seen, |at| at + 1);
        if take == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        stream.read_exact(&mut buf[..take])?;
        line.extend_from_slice(&buf[..take]);
    }
    if line.starts_with(start.as_bytes()) {
        return Ok(());
    }
    let line = String::from_utf8_lossy(&line).trim_end().to_string();
    Err(io::Error::other(format!("{line:?} instead of {start:?}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ways_are_read() {
        assert_eq!("direct".parse(), Ok(Via::Direct));
        assert_eq!("plain:80".parse(), Ok(Via::Plain(80)));
        assert_eq!("conn:2504".parse(), Ok(Via::Conn(2504)));
        for bad in ["", "plain", "plain:x", "conn:70000", "direct:1"] {
            assert!(bad.parse::<Via>().is_err(), "{bad}");
        }
    }

    #[test]
    fn the_dialogue_leaves_what_follows() {
        let proxy = TcpListener::bind("127.0.0.1:0").unwrap();
        let backend = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = proxy.local_addr().unwrap().port();
        let to = backend.local_addr().unwrap();
        let daemon = std::thread::spawn(move || {
            let (mut plugin, _) = proxy.accept().unwrap();
            plugin.write_all(b"OK TOGGLEDBITS-SOCKPROXY 1 1\n").unwrap();
            let mut line = vec![0u8; format!("CONN {to} A=1\n").len()];
            plugin.read_exact(&mut line).unwrap();
            let remote = TcpStream::connect(to).unwrap();
            plugin.write_all(b"OK CONN 1\nearly").unwrap();
            (String::from_utf8(line).unwrap(), plugin, remote)
        });
        let opener = Opener { via: Via::Conn(port), backend: &backend };
        let mut lane = opener.open("A=1").unwrap();
        let mut early = [0u8; 5];
        lane.client.read_exact(&mut early).unwrap();
        assert_eq!(&early, b"early");
        assert_eq!(daemon.join().unwrap().0, format!("CONN {to} A=1\n"));
    }

    #[test]
    fn a_refusal_is_told() {
        let proxy = TcpListener::bind("127.0.0.1:0").unwrap();
        let backend = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = proxy.local_addr().unwrap().port();
        let daemon = std::thread::spawn(move || {
            let (mut plugin, _) = proxy.accept().unwrap();
            plugin.write_all(b"ERR too many\n").unwrap();
            plugin
        });
        let error = Opener { via: Via::Conn(port), backend: &backend }.open("").err().unwrap();
        assert!(error.to_string().contains("ERR too many"), "{error}");
        daemon.join().unwrap();
    }
}
