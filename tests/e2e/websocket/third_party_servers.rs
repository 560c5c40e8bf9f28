//! Third-party servers: Python's websockets, Node's ws, also behind HAProxy and behind nginx with TLS, and tungstenite;
//! and a plugin in Lua.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};

use testkit::plugin::Plugin;
use testkit::ports::Reserved;
use testkit::random::Random;
use testkit::tls::{Identity, TlsDevice};

use crate::support::{
    Nginx, Scratch, cache, eventually, expect_ok, read_message, read_message_text, send_message, started,
};

/// A server process.
struct Peer {
    child: Child,
    port: u16,
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Starts a server that prints its port.
#[track_caller]
fn start(mut command: Command) -> Peer {
    command.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/peers")).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|e| panic!("{command:?}: {e} (scripts/test installs it)"));
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("a pipe")).read_line(&mut line).expect("a port");
    let port = line.trim().parse().unwrap_or_else(|_| panic!("{command:?} does not run (scripts/test installs it)"));
    Peer { child, port }
}

#[track_caller]
fn python() -> Peer {
    let mut command = Command::new(cache().join("websocket-peer/bin/python"));
    command.arg("websockets_echo.py");
    start(command)
}

#[track_caller]
fn node() -> Peer {
    let mut command = Command::new("node");
    command.arg("ws_echo.js").env("NODE_PATH", cache().join("ws/node_modules"));
    start(command)
}

/// HAProxy in front of a server.
#[track_caller]
fn haproxy(server: &Peer) -> (Peer, (Scratch, Reserved)) {
    let scratch = Scratch::new();
    let reserved = Reserved::new().unwrap();
    let port = reserved.port();
    let config = format!(
        "defaults\n mode http\n timeout connect 20s\n timeout client 60s\n timeout server 60s\n\
         listen l\n bind 127.0.0.1:{port}\n server s 127.0.0.1:{}\n",
        server.port
    );
    let file = scratch.write("haproxy.cfg", config.as_bytes());
    let mut command = Command::new("haproxy");
    command.args(["-db", "-q", "-f", &file.to_string()]).stdout(Stdio::null());
    let child = command.spawn().expect("haproxy is needed (apt-get install haproxy)");
    let peer = Peer { child, port };
    eventually("haproxy listens", || std::net::TcpStream::connect(("127.0.0.1", port)).ok());
    (peer, (scratch, reserved))
}

/// Exchanges messages of every kind, with and without compression, and closes.
#[track_caller]
fn exchange(port: u16) {
    exchange_with_options(&format!("ws://127.0.0.1:{port}/x"), "");
}

/// With an echo server: a fragmented message, a ping, and the closing handshake.
#[track_caller]
fn fragments_ping_and_close(mut plugin: Plugin) {
    send_message(&mut plugin, "FRAG", b"gr\xc3");
    send_message(&mut plugin, "TEXT", b"\xbcn");
    assert_eq!(read_message_text(&mut plugin), "TEXT grün");
    send_message(&mut plugin, "PING", b"hello");
    assert_eq!(read_message_text(&mut plugin), "PONG hello");
    send_message(&mut plugin, "CLOS 1000", b"bye");
    assert_eq!(read_message(&mut plugin).0, "CLOS 1000");
    assert!(plugin.at_end());
}

/// As [`exchange`], with further options.
#[track_caller]
fn exchange_with_options(url: &str, more: &str) {
    let daemon = started();
    for options in ["", "DEFL=on", "DEFL=on SUBP=a,b"] {
        let mut plugin = daemon.plugin();
        plugin.send(format!("CONN {url} MAXM=1000000 RHDR=on {more} {options}\n").as_bytes());
        expect_ok(&mut plugin);
        let (verb, head) = read_message(&mut plugin);
        let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
        assert_eq!(verb, "HEAD");
        assert_eq!(head.contains("sec-websocket-extensions: permessage-deflate"), options.contains("DEFL"), "{head}");
        assert_eq!(head.contains("sec-websocket-protocol: b"), options.contains("SUBP"), "{head}");
        let mut random = Random::new(9);
        for length in [0, 1, 125, 126, 6000, 65535, 65536, 900_000] {
            let noise = random.bytes(length);
            send_message(&mut plugin, "BINA", &noise);
            assert!(read_message(&mut plugin) == ("BINA".into(), noise), "{length} of noise, {options}");
            let text = "grüß dich ".repeat(length / 11);
            send_message(&mut plugin, "TEXT", text.as_bytes());
            assert!(read_message(&mut plugin) == ("TEXT".into(), text.into_bytes()), "{length} of text, {options}");
        }
        fragments_ping_and_close(plugin);
    }
}

#[test]
fn pythons_websockets_works() {
    exchange(python().port);
}

#[test]
fn nodes_ws_works() {
    exchange(node().port);
}

#[test]
fn a_server_behind_haproxy_works() {
    let server = node();
    let (front, _kept) = haproxy(&server);
    exchange(front.port);
}

#[test]
fn a_server_behind_nginx_with_tls_works() {
    let server = node();
    let identity = Identity::self_signed_authority(&["localhost"]);
    let nginx = Nginx::start(&identity, |secure| {
        format!(
            "server {{ listen 127.0.0.1:{secure} ssl; location / {{ proxy_pass http://127.0.0.1:{}; \
             proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection upgrade; \
             proxy_read_timeout 60s; }} location /denied {{ return 403; }} \
             location /moved {{ return 302 http://127.0.0.1:{}/; }} }}",
            server.port, server.port
        )
    });
    let patient = format!("CTIM=30000 RQTM=60000 PINS={}", identity.pin());
    for version in ["TLSV=1.2", "TLSV=1.3"] {
        exchange_with_options(&format!("wss://127.0.0.1:{}/x", nginx.secure.port()), &format!("{patient} {version}"));
    }
    // The plain port redirects to TLS, as is usual today.
    exchange_with_options(&format!("ws://localhost:{}/x", nginx.plain.port()), &patient);
    let daemon = started();
    let url = format!("wss://127.0.0.1:{}", nginx.secure.port());
    for (path, words) in
        [("/denied", "BAD_HTTP_STATUS 403 Forbidden"), ("/moved", "REDIRECT_MAX redirected from wss to ws")]
    {
        let reply = daemon.plugin().command(&format!("CONN {url}{path} {patient}"));
        assert_eq!(reply, format!("ERR CONN {words}"));
    }
    let reply = daemon.plugin().command(&format!("CONN ws://127.0.0.1:{}/ {patient}", nginx.secure.port()));
    assert_eq!(reply, "ERR CONN BAD_HTTP_STATUS 400 Bad Request");
    let reply = daemon.plugin().command(&format!("CONN wss://127.0.0.1:{}/ {patient}", nginx.plain.port()));
    assert_eq!(reply, "ERR CONN SSL_ERROR the server speaks plain HTTP on this port");
}

/// Serves a connection with tungstenite.
fn echo(stream: impl Read + Write) {
    let Ok(mut socket) = tungstenite::accept(stream) else { return };
    while let Ok(message) = socket.read() {
        if (message.is_text() || message.is_binary()) && socket.send(message).is_err() {
            return;
        }
    }
}

#[test]
fn tungstenite_works() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let plain = format!("ws://{}/x", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        listener.incoming().flatten().for_each(|stream| drop(std::thread::spawn(|| echo(stream))));
    });
    let device = TlsDevice::start(Identity::loopback().any_server(), echo);
    let secure = format!("wss://{}/x", device.addr());
    let daemon = started();
    for url in [plain, secure] {
        let mut plugin = daemon.plugin();
        // tungstenite has no compression, so it declines it.
        plugin.send(format!("CONN {url} CTIM=30000 RQTM=60000 MAXM=1000000 DEFL=on {}\n", vrfy(&url)).as_bytes());
        expect_ok(&mut plugin);
        let mut random = Random::new(9);
        for length in [0, 1, 125, 126, 65535, 65536, 900_000] {
            let noise = random.bytes(length);
            send_message(&mut plugin, "BINA", &noise);
            assert!(read_message(&mut plugin) == ("BINA".into(), noise), "{length} of noise, {url}");
        }
        fragments_ping_and_close(plugin);
    }
}

/// The options for a URL.
fn vrfy(url: &str) -> &'static str {
    if url.starts_with("wss") { "VRFY=none" } else { "" }
}

#[test]
fn a_plugin_in_lua_reads_messages() {
    let daemon = started();
    let server = testkit::websocket::Server::echo();
    let mut command = Command::new("lua5.1");
    command.args(["websocket.lua", &daemon.port().to_string(), &server.addr().port().to_string()]);
    command.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/lua"));
    let output = command.output().expect("lua5.1 is needed (apt-get install lua5.1 lua-socket)");
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && out == "ok\n", "{out}{err}");
}
