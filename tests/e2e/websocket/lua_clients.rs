//! The Lua client libraries of `luup/client/` and `luup/compat/`, in Lua 5.1 with LuaSocket as on a Vera, and in Lua
//! 5.4 and LuaJIT if they are installed. The scripts in `tests/lua` are the plugins and the Luup that runs them; this file starts the
//! daemon and the servers.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use nix::sys::signal::Signal;
use testkit::ports::Reserved;
use testkit::tls::{Authority, Validity};
use testkit::websocket::Server;

use crate::support::{ScriptedServer, daemon};

/// Faulty responses to an upgrade request, one for each error message of verawebsockets.
const WRONG: &[(&str, &str)] = &[
    ("hung-up", ""),
    ("no-status", "\r\n\r\n"),
    ("no-location", "HTTP/1.1 302 Found\r\n\r\n"),
    ("bad-location", "HTTP/1.1 302 Found\r\nLocation: ws://:x/\r\n\r\n"),
    ("not-101", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
    ("no-accept", "HTTP/1.1 101 X\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"),
    ("wrong-accept", "HTTP/1.1 101 X\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: x\r\n\r\n"),
    ("no-upgrade", "HTTP/1.1 101 X\r\nConnection: Upgrade\r\n%accept\r\n\r\n"),
    ("other-upgrade", "HTTP/1.1 101 X\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n%accept\r\n\r\n"),
    ("no-connection", "HTTP/1.1 101 X\r\nUpgrade: websocket\r\n%accept\r\n\r\n"),
    (
        "subprotocol",
        "HTTP/1.1 101 X\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n%accept\r\nSec-WebSocket-Protocol: b\r\n\r\n",
    ),
    (
        "extension",
        "HTTP/1.1 101 X\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n%accept\r\nSec-WebSocket-Extensions: x-y\r\n\r\n",
    ),
    (
        "parameter",
        "HTTP/1.1 101 X\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n%accept\r\n\
         Sec-WebSocket-Extensions: permessage-deflate; a=b\r\n\r\n",
    ),
    (
        "long",
        // Headers over 8 KiB.
        "HTTP/1.1 101 X\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n%accept\r\nSec-WebSocket-Extensions: %long\r\n\r\n",
    ),
];

/// The Lua interpreters of this machine.
fn interpreters() -> Vec<&'static str> {
    let installed =
        |name: &&str| Command::new(name).args(["-e", "require 'socket'"]).output().is_ok_and(|it| it.status.success());
    assert!(
        installed(&"lua5.1"),
        "lua5.1 with LuaSocket and LuaSec is needed (apt-get install lua5.1 lua-socket lua-sec)"
    );
    for other in ["lua5.4", "luajit"] {
        if !installed(&other) {
            println!("skipped: no {other} with LuaSocket");
        }
    }
    ["lua5.1", "lua5.4", "luajit"].into_iter().filter(installed).collect()
}

/// Runs a script as `lua_in_mode` does, without a mode.
#[track_caller]
fn lua(script: &str) {
    lua_in_mode(script, "-");
}

/// Runs a script with a proxy, scripted servers, a port that refuses, the port of the proxy's Luup, and three ports that
/// it may listen on. The server `private` requires a client certificate.
///
/// # Panics
/// If the script prints anything but `ok`.
#[track_caller]
fn lua_in_mode(script: &str, mode: &str) {
    for interpreter in interpreters() {
        let (luup, closed) = (Reserved::new().unwrap(), Reserved::new().unwrap());
        let [listen, second, third] = [(); 3].map(|()| Reserved::new().unwrap());
        let (authority, other) = (Authority::new("authority"), Authority::new("other"));
        let client = authority.issue(&["client"], Validity::Now);
        let identity = authority.issue(&["localhost", "127.0.0.1"], Validity::Now);
        let server = ScriptedServer::new(WRONG);
        let script_of = |server: &ScriptedServer| {
            let server = server.clone();
            move |peer| server.serve(peer)
        };
        let plain = Server::start(script_of(&server));
        let secure = Server::start_secure(identity.any_server(), script_of(&server));
        let old = Server::start_secure(identity.tls12_server(), script_of(&server));
        let private = identity.server(rustls::ALL_VERSIONS, Some(&authority));
        let private = Server::start_secure(private, script_of(&server));
        let daemon = daemon()
            .config("[tls]\ndirectory={dir}\n")
            .file("ca.pem", authority.pem().as_bytes())
            .file("other-ca.pem", other.pem().as_bytes())
            .file("client.pem", client.pem().as_bytes())
            .file("client.key", client.key_pem().as_bytes())
            .file("server.pem", identity.pem().as_bytes())
            .file("server.key", identity.key_pem().as_bytes())
            .luup(&format!("http://127.0.0.1:{}", luup.port()))
            .start();
        let mut command = Command::new(interpreter);
        command.arg(script).current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/lua"));
        for (name, port) in [
            ("proxy", daemon.port()),
            ("server", plain.addr().port()),
            ("secure", secure.addr().port()),
            ("old", old.addr().port()),
            ("private", private.addr().port()),
            ("closed", closed.port()),
            ("luup", luup.port()),
            ("listen", listen.port()),
            ("second", second.port()),
            ("third", third.port()),
        ] {
            command.arg(format!("{name}={port}"));
        }
        command.arg(format!("pin={}", identity.pin())).arg(format!("mode={mode}"));
        command.arg(format!("directory={}", daemon.dir().display()));
        let output = command.output().expect(interpreter);
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success() && out == "ok\n", "{interpreter} {script}: {out}{err}");
    }
}

#[test]
fn messages_are_assembled_from_any_pieces() {
    lua("client_pieces.lua");
}

#[test]
fn the_library_takes_little_of_luups_memory() {
    lua("memory.lua");
}

#[test]
fn frames_of_rfc_6455_are_coded_in_lua() {
    lua("frames.lua");
}

#[test]
fn the_handshake_of_rfc_6455_is_coded_in_lua() {
    lua("upgrade.lua");
}

#[test]
fn hostile_servers_and_name_servers_do_no_harm() {
    lua("hostile.lua");
}

#[test]
fn the_client_library_covers_the_bridge() {
    lua("client.lua");
}

#[test]
fn what_works_with_the_proxy_works() {
    lua_in_mode("either.lua", "proxy");
}

/// The same script, to the letter.
#[test]
fn what_works_with_the_proxy_works_without_it() {
    lua_in_mode("either.lua", "direct");
}

/// `close()` while much is queued.
#[test]
fn nothing_queued_is_lost_by_a_close() {
    lua_in_mode("closing.lua", "proxy");
}

#[test]
fn nothing_queued_is_lost_by_a_close_without_the_proxy() {
    lua_in_mode("closing.lua", "direct");
}

#[test]
fn a_plugin_for_luws_works() {
    lua_in_mode("luws.lua", "proxy");
}

#[test]
fn a_plugin_for_luws_works_without_the_proxy() {
    lua_in_mode("luws.lua", "direct");
}

#[test]
fn a_plugin_for_verawebsockets_works() {
    lua_in_mode("verawebsockets.lua", "proxy");
}

#[test]
fn a_plugin_for_verawebsockets_works_without_the_proxy() {
    lua_in_mode("verawebsockets.lua", "direct");
}

#[test]
fn a_plugin_for_turbo_works() {
    lua_in_mode("turbo.lua", "proxy");
}

#[test]
fn a_plugin_for_turbo_works_without_the_proxy() {
    lua_in_mode("turbo.lua", "direct");
}

#[test]
fn the_examples_of_the_documents_work() {
    lua("docs_clients.lua");
}

#[test]
fn a_listener_survives_any_pieces_and_a_proxy_that_ends() {
    lua("listener_pieces.lua");
}

#[test]
fn a_plugin_listens() {
    lua("listen.lua");
}

#[test]
fn a_plugin_for_turbos_handler_works() {
    lua("turbo_server.lua");
}

/// The plugins of `examples/`.
#[test]
fn the_example_plugins_work() {
    lua_in_mode("examples.lua", "proxy");
}

#[test]
fn the_example_plugins_work_without_the_proxy() {
    lua_in_mode("examples.lua", "direct");
}

#[test]
fn the_examples_about_listening_work() {
    lua("docs_listening.lua");
}

/// The plugin's listener asks a proxy that was restarted for its port again, without a notification.
#[test]
fn a_listener_outlives_the_daemon() {
    for interpreter in interpreters() {
        let [port, listen] = [(); 2].map(|()| Reserved::new().unwrap());
        let start = || daemon().port(port.port()).start();
        let first = start();
        let mut script = Command::new(interpreter)
            .args(["listener_restart.lua", &format!("proxy={}", port.port()), &format!("listen={}", listen.port())])
            .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/lua"))
            .stdout(Stdio::piped())
            .spawn()
            .expect(interpreter);
        let mut lines = BufReader::new(script.stdout.take().unwrap()).lines();
        assert_eq!(lines.next().unwrap().unwrap(), "listening");
        drop(first);
        assert_eq!(lines.next().unwrap().unwrap(), "lost");
        let _second = start();
        assert_eq!(lines.next().unwrap().unwrap(), "ok", "{interpreter}");
        assert!(script.wait().unwrap().success());
    }
}

/// With `reconnect`, the library connects without a proxy that has ended or hangs, and goes back to it.
#[test]
fn a_connection_outlives_the_proxy_and_goes_back_to_it() {
    for interpreter in interpreters() {
        let [port, luup] = [(); 2].map(|()| Reserved::new().unwrap());
        let scripted = ScriptedServer::new(WRONG);
        let server = Server::start(move |peer| scripted.serve(peer));
        let start = || daemon().port(port.port()).luup(&format!("http://127.0.0.1:{}", luup.port())).start();
        let first = start();
        let mut script = Command::new(interpreter)
            .arg("proxy_restart.lua")
            .args(
                [("proxy", port.port()), ("luup", luup.port()), ("server", server.addr().port())]
                    .map(|(n, p)| format!("{n}={p}")),
            )
            .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/lua"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect(interpreter);
        let mut lines = BufReader::new(script.stdout.take().unwrap()).lines();
        let mut next = || lines.next().unwrap().unwrap();
        let mut stdin = script.stdin.take().unwrap();
        assert_eq!(next(), "proxy");
        first.signal(Signal::SIGKILL);
        stdin.write_all(b"\n").unwrap();
        assert_eq!(next(), "direct", "{interpreter}");
        let second = start();
        stdin.write_all(b"\n").unwrap();
        assert_eq!(next(), "silent", "{interpreter}");
        second.signal(Signal::SIGSTOP);
        stdin.write_all(b"\n").unwrap();
        assert_eq!(next(), "direct", "{interpreter}");
        second.signal(Signal::SIGCONT);
        stdin.write_all(b"\n").unwrap();
        assert_eq!(next(), "ok", "{interpreter}");
        assert!(script.wait().unwrap().success());
    }
}

/// The proxy `stopped` accepts connections, by its kernel alone.
#[test]
fn no_call_of_the_libraries_blocks_luup() {
    for interpreter in interpreters() {
        let [luup, closed] = [(); 2].map(|()| Reserved::new().unwrap());
        let (proxy, stopped) = (daemon().start(), daemon().start());
        stopped.signal(Signal::SIGSTOP);
        let ports =
            [("proxy", proxy.port()), ("stopped", stopped.port()), ("closed", closed.port()), ("luup", luup.port())];
        let output = Command::new(interpreter)
            .arg("blocking.lua")
            .args(ports.map(|(name, port)| format!("{name}={port}")))
            .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/lua"))
            .output()
            .expect(interpreter);
        stopped.signal(Signal::SIGCONT);
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success() && out == "ok\n", "{interpreter}: {out}{err}");
    }
}
