//! Servers from the outside world: Python's websockets, Node's ws, either behind HAProxy; and a plugin in Lua.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use lab::ports::Reserved;
use lab::random::Random;

use crate::support::{Scratch, connected, eventually, said, said_text, say, started};

/// A server in a process of its own.
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

/// Where scripts/test has installed them.
fn cache() -> PathBuf {
    let inside = concat!(env!("CARGO_MANIFEST_DIR"), "/.cache");
    std::env::var_os("SOCKPROXYD_CACHE").map_or(inside.into(), PathBuf::from)
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

/// Messages of every kind there and back, with and without compression, to the end.
#[track_caller]
fn talk(port: u16) {
    let daemon = started();
    for options in ["", "DEFL=on", "DEFL=on SUBP=a,b"] {
        let mut plugin = daemon.plugin();
        plugin.send(format!("CONN ws://127.0.0.1:{port}/x MAXM=1000000 RHDR=on {options}\n").as_bytes());
        connected(&mut plugin);
        let (verb, head) = said(&mut plugin);
        let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
        assert_eq!(verb, "HEAD");
        assert_eq!(head.contains("sec-websocket-extensions: permessage-deflate"), options.contains("DEFL"), "{head}");
        assert_eq!(head.contains("sec-websocket-protocol: b"), options.contains("SUBP"), "{head}");
        let mut random = Random::new(9);
        for length in [0, 1, 125, 126, 65535, 65536, 900_000] {
            let noise = random.bytes(length);
            say(&mut plugin, "BINA", &noise);
            assert!(said(&mut plugin) == ("BINA".into(), noise), "{length} of noise, {options}");
            let text = "grüß dich ".repeat(length / 11);
            say(&mut plugin, "TEXT", text.as_bytes());
            assert!(said(&mut plugin) == ("TEXT".into(), text.into_bytes()), "{length} of text, {options}");
        }
        say(&mut plugin, "FRAG", b"gr\xc3");
        say(&mut plugin, "TEXT", b"\xbcn");
        assert_eq!(said_text(&mut plugin), "TEXT grün");
        say(&mut plugin, "PING", b"hello");
        assert_eq!(said_text(&mut plugin), "PONG hello");
        say(&mut plugin, "CLOS 1000", b"bye");
        assert_eq!(said(&mut plugin).0, "CLOS 1000", "{options}");
        assert!(plugin.at_end());
    }
}

#[test]
fn pythons_websockets_understands_us() {
    talk(python().port);
}

#[test]
fn nodes_ws_understands_us() {
    talk(node().port);
}

#[test]
fn haproxy_lets_us_through() {
    let server = node();
    let (front, _kept) = haproxy(&server);
    talk(front.port);
}

#[test]
fn a_plugin_in_lua_reads_messages_as_they_come() {
    let daemon = started();
    let server = lab::websocket::Server::echo();
    let mut command = Command::new("lua5.1");
    command.args(["websocket.lua", &daemon.port().to_string(), &server.addr().port().to_string()]);
    command.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/lua"));
    let output = command.output().expect("lua5.1 is needed (apt-get install lua5.1 lua-socket)");
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && out == "ok\n", "{out}{err}");
}
