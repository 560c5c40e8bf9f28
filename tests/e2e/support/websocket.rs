//! Plugins at WebSockets, in MESG framing.

use std::io;
use std::sync::mpsc::{Receiver, channel};

use rustls::ServerConfig;
use testkit::daemon::Daemon;
use testkit::device::{Device, Kind};
use testkit::plugin::Plugin;
use testkit::tls::Identity;
use testkit::websocket::{CLOSE, Frame, Peer, Request, Server, TEXT, close_of};

use super::{LIMIT, accepted, all_at_once, wait_until_taken};

/// A plugin whose CONN is under way, and the server's end of its connection, on which nothing was said.
#[track_caller]
pub fn asking(daemon: &Daemon, path: &str, options: &str) -> (Plugin, Peer) {
    let device = Device::start(Kind::Manual);
    let mut plugin = daemon.plugin();
    plugin.send(format!("CONN ws://{}{path} {options}\n", device.addr()).as_bytes());
    (plugin, Peer::new(accepted(&device)))
}

/// A plugin that has read its OK, and the server's end of its WebSocket.
#[track_caller]
pub fn bridged(daemon: &Daemon, options: &str) -> (Plugin, Peer) {
    let (mut plugin, mut peer) = asking(daemon, "/", options);
    peer.upgrade().expect("a request");
    connected(&mut plugin);
    (plugin, peer)
}

/// What a CONN over TLS has: a busy machine may take its time for handshakes. The server vouches for itself.
pub const PATIENT: &str = "VRFY=none CTIM=30000 RQTM=60000";

/// As [`bridged`], over TLS.
#[track_caller]
pub fn secured(daemon: &Daemon, options: &str) -> (Plugin, Peer) {
    let (come, peers) = channel();
    let server = Server::start_secure(Identity::loopback().any_server(), move |mut peer| {
        peer.upgrade()?;
        come.send(peer).ok();
        Ok(())
    });
    let mut plugin = daemon.plugin();
    plugin.conn(server.url("/"), &format!("{PATIENT} {options}"));
    (plugin, peers.recv_timeout(LIMIT).expect("an upgrade"))
}

/// Reads the OK of a CONN.
#[track_caller]
pub fn connected(plugin: &mut Plugin) {
    let answer = plugin.line();
    assert!(answer.starts_with("OK CONN "), "{answer}");
}

/// What a CONN to `target` is answered.
#[track_caller]
pub fn answer(daemon: &Daemon, target: &str, options: &str) -> String {
    daemon.plugin().command(&format!("CONN {target} {options}"))
}

/// What a CONN to a server with this script is answered.
#[track_caller]
pub fn answered(
    daemon: &Daemon,
    options: &str,
    script: impl Fn(Peer) -> io::Result<()> + Send + Sync + 'static,
) -> String {
    let server = Server::start(script);
    answer(daemon, &server.url("/start"), options)
}

/// A server, over TLS where that is configured, that sends everybody to `location`, and what it is asked.
pub fn redirecting(
    config: Option<ServerConfig>,
    status: &'static str,
    location: String,
) -> (Server, Receiver<Request>) {
    let (heard, requests) = channel();
    let script = move |mut peer: Peer| {
        heard.send(peer.request()?).ok();
        peer.send(format!("HTTP/1.1 {status}\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n").as_bytes())?;
        peer.end()
    };
    let server = match config {
        Some(config) => Server::start_secure(config, script),
        None => Server::start(script),
    };
    (server, requests)
}

/// The next message: its verb (of CLOS, with the code) and its body.
#[track_caller]
pub fn said(plugin: &mut Plugin) -> (String, Vec<u8>) {
    let header = plugin.line();
    let (verb, length) = header.rsplit_once(' ').unwrap_or_else(|| panic!("no header: {header:?}"));
    let length = length.parse().unwrap_or_else(|_| panic!("no header: {header:?}"));
    (verb.to_owned(), plugin.bytes(length))
}

/// As [`said`], as text.
#[track_caller]
pub fn said_text(plugin: &mut Plugin) -> String {
    let (verb, body) = said(plugin);
    format!("{verb} {}", String::from_utf8_lossy(&body))
}

/// Says a message.
#[track_caller]
pub fn say(plugin: &mut Plugin, verb: &str, body: &[u8]) {
    plugin.send(&[format!("{verb} {}\n", body.len()).as_bytes(), body].concat());
}

/// Reads a frame, of which its opcode and payload.
#[track_caller]
pub fn heard(peer: &mut Peer) -> (u8, Vec<u8>) {
    let Frame { fin, opcode, payload, .. } = peer.frame().expect("a frame");
    assert!(fin, "a piece");
    (opcode, payload)
}

/// The plugin says a text and goodbye, and its connection breaks behind them, as that of one does which closes its socket
/// and has not read everything; the daemon finds all at once. The server hears what was said.
#[track_caller]
pub fn last_words(daemon: &Daemon, mut plugin: Plugin, peer: &mut Peer) {
    all_at_once(daemon, || {
        plugin.send(b"TEXT 4\nlastCLOS 4001 3\nbye");
        wait_until_taken(plugin.stream());
        plugin.reset();
    });
    assert_eq!(heard(peer), (TEXT, b"last".to_vec()));
    assert_eq!(heard(peer), (CLOSE, close_of(4001, "bye")));
}

/// Reads a close frame, of which its code.
#[track_caller]
pub fn heard_close(peer: &mut Peer) -> u16 {
    let (opcode, payload) = heard(peer);
    assert_eq!(opcode, CLOSE);
    u16::from_be_bytes([payload[0], payload[1]])
}
