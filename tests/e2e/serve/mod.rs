//! `[serve]`: WebSocket ports in front of targets.

mod closing;
mod requests;
mod streams;

use std::io::Read;
use std::net::{SocketAddr, TcpStream};

use testkit::daemon::Daemon;
use testkit::ports::Reserved;
use testkit::websocket::Peer;

use crate::support::{LIMIT, daemon};

/// A daemon with one WebSocket port.
struct Served {
    daemon: Daemon,
    port: Reserved,
}

impl Served {
    /// Starts a daemon whose port has these lines.
    #[track_caller]
    fn start(lines: &[String]) -> Self {
        Self::configured("", lines)
    }

    /// As [`Served::start`], with further sections.
    #[track_caller]
    fn configured(more: &str, lines: &[String]) -> Self {
        let port = Reserved::new().unwrap();
        let lines: String = lines.iter().map(|line| format!("{}={line}\n", port.port())).collect();
        let listeners = 1 + lines.lines().count();
        let daemon = daemon().config(&format!("{more}[serve]\n{lines}")).listeners(listeners).start();
        Self { daemon, port }
    }

    fn addr(&self) -> SocketAddr {
        self.port.addr()
    }

    /// A new connection.
    #[track_caller]
    fn connect(&self) -> Peer {
        Peer::new(TcpStream::connect(self.addr()).unwrap())
    }

    /// A client that has sent a request for `path`, with further lines.
    #[track_caller]
    fn requested(&self, path: &str, more: &[&str]) -> Peer {
        let mut client = self.connect();
        client.send(&request(path, more)).unwrap();
        client
    }

    /// A client whose WebSocket is open.
    #[track_caller]
    fn opened(&self, path: &str) -> Peer {
        self.opened_with(path, &[]).0
    }

    /// As [`Served::opened`], with further lines. Returns the lines of the response, too.
    #[track_caller]
    fn opened_with(&self, path: &str, more: &[&str]) -> (Peer, testkit::websocket::Request) {
        let mut client = self.requested(path, more);
        let response = client.request().unwrap_or_else(|error| panic!("{error}: {}", self.daemon.log_text()));
        assert_eq!(response.line, "HTTP/1.1 101 Switching Protocols");
        assert_eq!(response.header("Sec-WebSocket-Accept"), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        (client, response)
    }

    /// The whole response to these bytes.
    #[track_caller]
    fn response(&self, bytes: &[u8]) -> String {
        let mut stream = TcpStream::connect(self.addr()).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        std::io::Write::write_all(&mut stream, bytes).unwrap();
        let mut response = String::new();
        stream.read_to_string(&mut response).expect("the end of the response");
        response
    }
}

/// A request for `path`, with further lines.
fn request(path: &str, more: &[&str]) -> Vec<u8> {
    let more: String = more.iter().flat_map(|line| [line, "\r\n"]).collect();
    format!(
        "GET {path} HTTP/1.1\r\nHost: box:80\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n{more}\r\n"
    )
    .into_bytes()
}
