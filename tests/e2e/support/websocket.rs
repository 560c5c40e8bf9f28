//! Plugins connected to WebSocket servers, in MESG framing.

use std::io;
use std::sync::mpsc::{Receiver, channel};

use rustls::ServerConfig;
use testkit::daemon::Daemon;
use testkit::device::{Device, Kind};
use testkit::plugin::Plugin;
use testkit::tls::Identity;
use testkit::websocket::{CLOSE, Frame, Peer, Request, Server, TEXT, close_of};

use super::{LIMIT, accepted, wait_until_acknowledged, while_stopped};

/// A plugin that waits for the answer to CONN, and the server's end of its connection before the upgrade.
#[track_caller]
pub(crate) fn websocket_requested(daemon: &Daemon, path: &str, options: &str) -> (Plugin, Peer) {
    let device = Device::start(Kind::Manual);
    let mut plugin = daemon.plugin();
    plugin.send(format!("CONN ws://{}{path} {options}\n", device.addr()).as_bytes());
    (plugin, Peer::new(accepted(&device)))
}

/// A plugin that has read OK, and the server's end of its WebSocket.
#[track_caller]
pub(crate) fn websocket_connected(daemon: &Daemon, options: &str) -> (Plugin, Peer) {
    let (mut plugin, mut peer) = websocket_requested(daemon, "/", options);
    peer.upgrade().expect("a request");
    expect_ok(&mut plugin);
    (plugin, peer)
}

/// Options of a CONN over TLS: long timeouts for handshakes on a busy machine, and no verification of the self-signed
/// server.
pub(crate) const LONG_TIMEOUTS: &str = "VRFY=none CTIM=30000 RQTM=60000";

/// As [`websocket_connected`], over TLS.
#[track_caller]
pub(crate) fn wss_connected(daemon: &Daemon, options: &str) -> (Plugin, Peer) {
    let (sender, peers) = channel();
    let server = Server::start_secure(Identity::loopback().any_server(), move |mut peer| {
        peer.upgrade()?;
        sender.send(peer).ok();
        Ok(())
    });
    let mut plugin = daemon.plugin();
    plugin.conn(server.url("/"), &format!("{LONG_TIMEOUTS} {options}"));
    (plugin, peers.recv_timeout(LIMIT).expect("an upgrade"))
}

/// Reads the answer to CONN, which must be OK.
#[track_caller]
pub(crate) fn expect_ok(plugin: &mut Plugin) {
    let answer = plugin.line();
    assert!(answer.starts_with("OK CONN "), "{answer}");
}

/// The answer to a CONN to `target`.
#[track_caller]
pub(crate) fn conn_answer(daemon: &Daemon, target: &str, options: &str) -> String {
    daemon.plugin().command(&format!("CONN {target} {options}"))
}

/// The answer to a CONN to a server with this script.
#[track_caller]
pub(crate) fn scripted_answer(
    daemon: &Daemon,
    options: &str,
    script: impl Fn(Peer) -> io::Result<()> + Send + Sync + 'static,
) -> String {
    let server = Server::start(script);
    conn_answer(daemon, &server.url("/start"), options)
}

/// A server that redirects every request to `location`, over TLS if configured. Returns the requests, too.
pub(crate) fn redirecting_server(
    config: Option<ServerConfig>,
    status: &'static str,
    location: String,
) -> (Server, Receiver<Request>) {
    let (sender, requests) = channel();
    let script = move |mut peer: Peer| {
        sender.send(peer.request()?).ok();
        peer.send(format!("HTTP/1.1 {status}\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n").as_bytes())?;
        peer.end()
    };
    let server = match config {
        Some(config) => Server::start_secure(config, script),
        None => Server::start(script),
    };
    (server, requests)
}

/// Reads a message: its verb (with the code of CLOS) and its body.
#[track_caller]
pub(crate) fn read_message(plugin: &mut Plugin) -> (String, Vec<u8>) {
    let header = plugin.line();
    let (verb, length) = header.rsplit_once(' ').unwrap_or_else(|| panic!("no header: {header:?}"));
    let length = length.parse().unwrap_or_else(|_| panic!("no header: {header:?}"));
    (verb.to_owned(), plugin.bytes(length))
}

/// As [`read_message`], as text.
#[track_caller]
pub(crate) fn read_message_text(plugin: &mut Plugin) -> String {
    let (verb, body) = read_message(plugin);
    format!("{verb} {}", String::from_utf8_lossy(&body))
}

/// Sends a message.
#[track_caller]
pub(crate) fn send_message(plugin: &mut Plugin, verb: &str, body: &[u8]) {
    plugin.send(&[format!("{verb} {}\n", body.len()).as_bytes(), body].concat());
}

/// Reads an unfragmented frame: its opcode and payload.
#[track_caller]
pub(crate) fn read_frame(peer: &mut Peer) -> (u8, Vec<u8>) {
    let Frame { fin, opcode, payload, .. } = peer.frame().expect("a frame");
    assert!(fin, "a fragment");
    (opcode, payload)
}

/// The plugin sends a text and CLOS, then resets its connection, as close(2) does with unread data. The daemon finds
/// all of this at once; the server must receive the text and the close frame.
#[track_caller]
pub(crate) fn send_last_messages_and_reset(daemon: &Daemon, mut plugin: Plugin, peer: &mut Peer) {
    while_stopped(daemon, || {
        plugin.send(b"TEXT 4\nlastCLOS 4001 3\nbye");
        wait_until_acknowledged(plugin.stream());
        plugin.reset();
    });
    assert_eq!(read_frame(peer), (TEXT, b"last".to_vec()));
    assert_eq!(read_frame(peer), (CLOSE, close_of(4001, "bye")));
}

/// Reads a close frame and returns its code.
#[track_caller]
pub(crate) fn read_close_code(peer: &mut Peer) -> u16 {
    let (opcode, payload) = read_frame(peer);
    assert_eq!(opcode, CLOSE);
    u16::from_be_bytes([payload[0], payload[1]])
}
