//! Connection pairs: the plugin's socket and the remote's socket, with the relay under test between them. This process
//! holds both ends, so that it can time, count and compare.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustls::{ServerConfig, ServerConnection};
use testkit::websocket::{Peer, Request};

/// Timeout for opening a pair, and for a single read.
const LIMIT: Duration = Duration::from_secs(10);

/// The relay between client and remote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    /// None: the client connects to the remote.
    Direct,
    /// A relay on this port, which connects to the remote's fixed port.
    Plain(u16),
    /// A daemon on this port that speaks sockproxyd's protocol: greeting, CONN, OK.
    Conn(u16),
    /// A relay on this port from bytes to the remote's WebSocket.
    ToWebSocket(u16),
    /// A relay on this port from a client's WebSocket to the remote's bytes.
    FromWebSocket(u16),
}

/// The protocol of the remote of a [`Via::Conn`].
#[derive(Clone, Debug)]
pub enum RemoteKind {
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

/// An open pair. Dropping it resets both ends, so that no port stays in TIME_WAIT.
pub struct ConnectionPair {
    /// The plugin's end.
    pub client: TcpStream,
    /// The device's end.
    pub remote: TcpStream,
}

impl Drop for ConnectionPair {
    fn drop(&mut self) {
        for end in [&self.client, &self.remote] {
            socket2::SockRef::from(end).set_linger(Some(Duration::ZERO)).ok();
        }
    }
}

/// Opens pairs through one relay to one remote.
pub struct PairOpener<'a> {
    /// The relay.
    pub via: Via,
    /// The remote's listener.
    pub backend: &'a TcpListener,
}

impl PairOpener<'_> {
    /// Opens a pair. `options` follow CONN's target; other relays ignore them.
    pub fn open(&self, options: &str) -> io::Result<ConnectionPair> {
        self.open_to(&RemoteKind::Plain, options)
    }

    /// Opens a pair to a remote of this kind, where the relay understands CONN. Opening handshakes are done when this
    /// returns. The remote's TLS state is dropped, so no data can be sent over a [`RemoteKind::SecureWebSocket`].
    pub fn open_to(&self, kind: &RemoteKind, options: &str) -> io::Result<ConnectionPair> {
        let backend = self.backend.local_addr()?;
        let port = match self.via {
            Via::Direct => backend.port(),
            Via::Plain(port) | Via::Conn(port) | Via::ToWebSocket(port) | Via::FromWebSocket(port) => port,
        };
        let target = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let mut client = TcpStream::connect_timeout(&target, LIMIT)?;
        client.set_nodelay(true)?;
        client.set_read_timeout(Some(LIMIT))?;
        let scheme = match (self.via, kind) {
            (Via::Conn(_), RemoteKind::Plain) => "",
            (Via::Conn(_), RemoteKind::WebSocket) => "ws://",
            (Via::Conn(_), RemoteKind::SecureWebSocket(_)) => "wss://",
            (Via::FromWebSocket(_), _) => {
                upgrade(&mut client)?;
                return Ok(ConnectionPair { client, remote: self.accept()? });
            }
            (Via::ToWebSocket(_), _) => {
                let remote = self.accept()?;
                Peer::new(remote.try_clone()?).upgrade()?;
                return Ok(ConnectionPair { client, remote });
            }
            _ => return Ok(ConnectionPair { client, remote: self.accept()? }),
        };
        expect_line(&mut client, "OK TOGGLEDBITS-SOCKPROXY 1 ")?;
        client.write_all(format!("CONN {scheme}{backend} {options}").trim_end().as_bytes())?;
        client.write_all(b"\n")?;
        let remote = match kind {
            RemoteKind::Plain => {
                expect_line(&mut client, "OK CONN")?;
                return Ok(ConnectionPair { client, remote: self.accept()? });
            }
            RemoteKind::WebSocket => {
                let remote = self.accept()?;
                Peer::new(remote.try_clone()?).upgrade()?;
                remote
            }
            RemoteKind::SecureWebSocket(config) => {
                let mut remote = self.accept()?;
                upgrade_secured(&mut remote, config)?;
                remote
            }
        };
        expect_line(&mut client, "OK CONN")?;
        Ok(ConnectionPair { client, remote })
    }

    /// Accepts the remote's end of a pair.
    fn accept(&self) -> io::Result<TcpStream> {
        let remote = accept(self.backend, LIMIT)?;
        remote.set_nodelay(true)?;
        remote.set_read_timeout(Some(LIMIT))?;
        Ok(remote)
    }

    /// Opens `count` pairs.
    pub fn open_many(&self, count: usize, options: &str) -> io::Result<Vec<ConnectionPair>> {
        (0..count).map(|_| self.open(options)).collect()
    }

    /// Waits until a pair can be opened, after a relay was started.
    pub fn wait_ready(&self) -> io::Result<()> {
        let start = Instant::now();
        loop {
            match self.open("") {
                Ok(_) => return Ok(()),
                Err(e) if start.elapsed() > LIMIT => return Err(e),
                // A port without a listener gives no event to wait for.
                Err(_) => std::thread::sleep(Duration::from_millis(10)),
            }
        }
    }
}

/// Accepts a connection within `limit`.
fn accept(listener: &TcpListener, limit: Duration) -> io::Result<TcpStream> {
    let timeout = PollTimeout::try_from(limit).unwrap_or(PollTimeout::MAX);
    if poll(&mut [PollFd::new(listener.as_fd(), PollFlags::POLLIN)], timeout)? == 0 {
        return Err(io::Error::new(io::ErrorKind::TimedOut, "no connection to the remote"));
    }
    Ok(listener.accept()?.0)
}

/// Makes a client's WebSocket handshake.
fn upgrade(client: &mut TcpStream) -> io::Result<()> {
    client.write_all(
        b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
          Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    )?;
    let answer = Peer::new(client.try_clone()?).request()?.line;
    if answer.contains(" 101 ") { Ok(()) } else { Err(io::Error::other(answer)) }
}

/// Makes a server's TLS and WebSocket handshakes.
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

/// Reads one line, and nothing behind it, and checks its beginning.
pub fn expect_line(stream: &mut TcpStream, start: &str) -> io::Result<()> {
    // Bytes behind the line belong to the remote: peek first, then read the line alone.
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
    fn relays_are_parsed() {
        assert_eq!("direct".parse(), Ok(Via::Direct));
        assert_eq!("plain:80".parse(), Ok(Via::Plain(80)));
        assert_eq!("conn:2504".parse(), Ok(Via::Conn(2504)));
        for bad in ["", "plain", "plain:x", "conn:70000", "direct:1"] {
            assert!(bad.parse::<Via>().is_err(), "{bad}");
        }
    }

    #[test]
    fn the_setup_exchange_leaves_the_bytes_behind_it() {
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
        let opener = PairOpener { via: Via::Conn(port), backend: &backend };
        let mut pair = opener.open("A=1").unwrap();
        let mut early = [0u8; 5];
        pair.client.read_exact(&mut early).unwrap();
        assert_eq!(&early, b"early");
        assert_eq!(daemon.join().unwrap().0, format!("CONN {to} A=1\n"));
    }

    #[test]
    fn a_refusal_is_reported() {
        let proxy = TcpListener::bind("127.0.0.1:0").unwrap();
        let backend = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = proxy.local_addr().unwrap().port();
        let daemon = std::thread::spawn(move || {
            let (mut plugin, _) = proxy.accept().unwrap();
            plugin.write_all(b"ERR too many\n").unwrap();
            plugin
        });
        let error = PairOpener { via: Via::Conn(port), backend: &backend }.open("").err().unwrap();
        assert!(error.to_string().contains("ERR too many"), "{error}");
        daemon.join().unwrap();
    }
}
