//! Plugins that listen, and the clients that connect to them.

use std::net::{SocketAddr, TcpStream};

use testkit::daemon::Daemon;
use testkit::plugin::Plugin;
use testkit::ports::Reserved;
use testkit::websocket::{Peer, Request, frame_of};

use super::LIMIT;

/// A plugin that listens on a port of loopback.
pub(crate) struct Listener {
    /// The connection that has said LSTN.
    pub owner: Plugin,
    port: Reserved,
}

impl Listener {
    /// A plugin that listens with these options.
    #[track_caller]
    pub(crate) fn new(daemon: &Daemon, options: &str) -> Self {
        Self::on(daemon, Reserved::new().unwrap(), options)
    }

    /// A plugin that listens on `port`.
    #[track_caller]
    pub(crate) fn on(daemon: &Daemon, port: Reserved, options: &str) -> Self {
        let owner = listening(daemon.plugin(), port.port(), options);
        Self { owner, port }
    }

    /// The address of the port.
    pub(crate) fn addr(&self) -> SocketAddr {
        self.port.addr()
    }

    /// The number of the port.
    pub(crate) fn port(&self) -> u16 {
        self.port.port()
    }

    /// A client that has connected, and the words of INCO behind the verb.
    #[track_caller]
    pub(crate) fn arrival(&mut self) -> (TcpStream, Vec<String>) {
        let client = client_of(self.addr());
        let words = self.incoming();
        assert_eq!(words[1], client.local_addr().unwrap().to_string());
        (client, words)
    }

    /// The words of the next INCO behind the verb.
    #[track_caller]
    pub(crate) fn incoming(&mut self) -> Vec<String> {
        let line = self.owner.line();
        let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        assert_eq!((&*words[0], words.len()), ("INCO", 5), "{line}");
        words[1..].to_vec()
    }
}

/// Has `plugin` listen on `port`.
#[track_caller]
pub(crate) fn listening(mut plugin: Plugin, port: u16, options: &str) -> Plugin {
    let answer = plugin.command(format!("LSTN {port} {options}").trim_end());
    assert!(answer.starts_with("OK LSTN "), "{answer}");
    plugin
}

/// A client of `addr`. Reads from it have a timeout.
pub(crate) fn client_of(addr: SocketAddr) -> TcpStream {
    let client = TcpStream::connect(addr).expect("the port is open");
    client.set_read_timeout(Some(LIMIT)).unwrap();
    client.set_nodelay(true).unwrap();
    client
}

/// A plugin that has accepted the arrival `id`.
#[track_caller]
pub(crate) fn accepted_by(daemon: &Daemon, id: &str, options: &str) -> Plugin {
    let mut plugin = daemon.plugin();
    let answer = plugin.command(format!("ACPT {id} {options}").trim_end());
    assert_eq!(answer, format!("OK ACPT {id}"));
    plugin
}

/// A WebSocket's client: what it sends is masked.
pub(crate) struct WsClient(pub Peer);

impl WsClient {
    /// Connects and sends a request for `path` with further header lines.
    pub(crate) fn request(addr: SocketAddr, path: &str, lines: &[&str]) -> Self {
        let mut client = Self(Peer::new(client_of(addr)));
        client.send_request(addr, path, lines);
        client
    }

    /// Sends a request for `path` with further header lines.
    pub(crate) fn send_request(&mut self, addr: SocketAddr, path: &str, lines: &[&str]) {
        let more: String = lines.iter().flat_map(|line| [line, "\r\n"]).collect();
        let head = format!(
            "GET {path} HTTP/1.1\r\nHost: {addr}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n{more}\r\n"
        );
        self.0.send(head.as_bytes()).expect("a request is sent");
    }

    /// Reads the head of the response.
    #[track_caller]
    pub(crate) fn response(&mut self) -> Request {
        self.0.request().expect("a response")
    }

    /// Reads the head of a response, which must be 101.
    #[track_caller]
    pub(crate) fn upgraded(&mut self) -> Request {
        let response = self.response();
        assert_eq!(response.line, "HTTP/1.1 101 Switching Protocols");
        assert_eq!(response.header("Sec-WebSocket-Accept"), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        response
    }

    /// Sends a masked frame; `first` is its whole first byte.
    pub(crate) fn send(&mut self, first: u8, payload: &[u8]) {
        let mask = [0x37, 0xfa, 0x21, 0x3d];
        let mut frame = frame_of(first, payload);
        frame[1] |= 0x80;
        let at = frame.len() - payload.len();
        frame[at..].iter_mut().zip(mask.iter().cycle()).for_each(|(byte, mask)| *byte ^= mask);
        frame.splice(at..at, mask);
        self.0.send(&frame).expect("a frame is sent");
    }
}
