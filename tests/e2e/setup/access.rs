//! Access lists: which clients may connect, which may STOP, and which targets CONN may reach.

use std::time::Duration;

use testkit::device::{Device, Kind, UdpEcho};
use testkit::plugin::Plugin;
use testkit::ports::{BlackHole, Reserved};

use crate::support::{
    LIMIT, Listener, StatClient, configured, echo_mode, ends, eventually, plugin_from, read_close_code, started,
    websocket_connected, with_luup,
};

/// Everything that a client from `source` receives, up to the end of the stream.
fn received(source: &str, to: std::net::SocketAddr) -> String {
    String::from_utf8(plugin_from(source, to).rest()).unwrap()
}

#[test]
fn a_client_that_is_not_allowed_gets_one_line_and_no_greeting() {
    let daemon = configured("[host]\nallow=127.0.0.1, 127.0.0.8/30\n");
    for source in ["127.0.0.2", "127.0.0.7", "127.0.0.12", "127.1.0.1"] {
        assert_eq!(received(source, daemon.addr()), "ERR ACCESS Not allowed\n", "{source}");
    }
    for source in ["127.0.0.1", "127.0.0.8", "127.0.0.11"] {
        assert!(plugin_from(source, daemon.addr()).line().starts_with("OK TOGGLEDBITS-SOCKPROXY 1 "), "{source}");
    }
}

#[test]
fn an_ipv4_network_applies_to_ipv4_clients_of_an_ipv6_socket() {
    let daemon =
        crate::support::daemon().bare().config("[host]\nport=0\nvera=http://127.0.0.1:9\nallow=127.0.0.2\n").start();
    let to = ([127, 0, 0, 1], daemon.port()).into();
    assert_eq!(received("127.0.0.1", to), "ERR ACCESS Not allowed\n");
    assert!(plugin_from("127.0.0.2", to).line().starts_with("OK "));
    if daemon.addr().is_ipv6() {
        let mut v6 = Plugin::connect_raw(("::1", daemon.port())).unwrap();
        assert_eq!(v6.rest(), b"ERR ACCESS Not allowed\n");
    }
}

#[test]
fn the_access_list_applies_to_direct_listeners() {
    let device = Device::start(Kind::Silent);
    let port = Reserved::new().unwrap();
    let config = format!("[host]\nallow=127.0.0.1\n[direct]\n{}=CONN {}\n", port.port(), device.addr());
    let _daemon = crate::support::daemon().config(&config).listeners(2).start();
    assert_eq!(received("127.0.0.2", port.addr()), "ERR ACCESS Not allowed\n");
    assert_eq!(device.accepted(), 0);
    let _client = plugin_from("127.0.0.1", port.addr());
    assert!(device.wait_accepted(1, LIMIT));
}

#[test]
fn by_default_loopback_is_allowed() {
    let daemon = started();
    for source in ["127.0.0.1", "127.0.0.2", "127.255.255.254"] {
        assert!(plugin_from(source, daemon.addr()).line().starts_with("OK "), "{source}");
    }
}

#[test]
fn refusals_are_counted_and_logged_at_a_limited_rate() {
    let daemon = configured("[host]\nallow=127.0.0.1\n");
    for _ in 0..300 {
        received("127.0.0.2", daemon.addr());
    }
    let mut stat = StatClient::new(daemon.addr());
    assert_eq!(stat.status()["refused"], 300);
    let lines = daemon.complete_log_text().lines().filter(|line| line.contains("127.0.0.2")).count();
    assert!((1..=30).contains(&lines), "{lines} lines for 300 refusals");
}

#[test]
fn stop_is_refused_to_clients_outside_the_stop_list() {
    let mut daemon = configured("[host]\nstop=127.0.0.2\n");
    let mut other = plugin_from("127.0.0.1", daemon.addr());
    other.send(b"STOP\n");
    let answer = String::from_utf8(other.rest()).unwrap();
    let (_, answer) = answer.split_once('\n').unwrap();
    assert_eq!(answer, "ERR STOP Not allowed\n");
    assert!(daemon.plugin().command("CAPA").starts_with("OK CAPA"), "the daemon goes on");
    let log = daemon.complete_log_text();
    assert!(log.contains("may not STOP from 127.0.0.1"), "the log names the client:\n{log}");
    let mut permitted = plugin_from("127.0.0.2", daemon.addr());
    permitted.line();
    assert_eq!(permitted.command("STOP"), "OK STOP");
    assert_eq!(daemon.wait_exit(LIMIT).unwrap().code(), Some(0));
}

#[test]
fn an_empty_stop_list_permits_no_client() {
    let mut daemon = configured("[host]\nstop=\n");
    assert_eq!(daemon.plugin().command("STOP"), "ERR STOP Not allowed");
    assert!(daemon.wait_exit(Duration::from_millis(300)).is_none());
}

#[test]
fn conn_reaches_only_allowed_targets() {
    let (allowed, refused) = (Device::start(Kind::Silent), Device::start(Kind::Silent));
    let anywhere_else = std::net::SocketAddr::from(([127, 0, 0, 5], refused.port()));
    let fifth = Device::start_at(anywhere_else, Kind::Silent).unwrap();
    let daemon = configured(&format!("[host]\ntargets={}, 127.0.0.4/31, localhost:{}\n", allowed.addr(), fifth.port()));
    for (target, may) in [
        (allowed.addr().to_string(), true),
        (refused.addr().to_string(), false),
        (fifth.addr().to_string(), true),
        (format!("127.0.0.6:{}", fifth.port()), false),
        (format!("localhost:{}", refused.port()), true),
        (format!("LocalHost:{}", refused.port()), true),
        (format!("localhost:{}", allowed.port()), true),
        ("localhost:1".to_owned(), false),
        (format!("[::ffff:127.0.0.1]:{}", refused.port()), false),
        (format!("[::ffff:127.0.0.1]:{}", allowed.port()), true),
        (format!("{} PRTO=udp", refused.addr()), false),
    ] {
        let answer = daemon.plugin().command(&format!("CONN {target}"));
        if may {
            assert!(answer.starts_with("OK CONN "), "{target}: {answer}");
        } else {
            assert_eq!(answer, "ERR CONN Target not allowed", "{target}");
        }
    }
}

#[test]
fn datagrams_reach_only_allowed_targets() {
    let (allowed, refused) = (UdpEcho::start(), UdpEcho::start());
    let daemon = configured(&format!("[host]\ntargets={}\n", allowed.addr()));
    let mut plugin = daemon.plugin();
    plugin.conn(allowed.addr(), "PRTO=udp FRAM=MESG");
    plugin.send(format!("DGRM 2 {}\nno", refused.addr()).as_bytes());
    plugin.send(format!("DGRM 3 {}\nyes", allowed.addr()).as_bytes());
    let datagrams = allowed.wait_received(1, LIMIT);
    assert_eq!(datagrams[0].0, b"yes");
    // The datagram of another sender comes first only if the refused one was never sent.
    let other_sender = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    other_sender.send_to(b"after", refused.addr()).unwrap();
    assert_eq!(refused.wait_received(1, LIMIT)[0].0, b"after");
}

#[test]
fn drop_of_an_id_ends_any_connection_for_addresses_of_stop_alone() {
    let (luup, daemon) = with_luup("[host]\nstop=127.0.0.2\nallow=loopback\nlisten=loopback\n");
    let mut operator = plugin_from("127.0.0.2", daemon.addr());
    let own = operator.line().rsplit(' ').next().unwrap().to_owned();
    let mut stat = StatClient::new(daemon.addr());
    let setup = daemon.plugin();
    let (tcp, remote) = echo_mode(&daemon, "NTFY=5/s/a EVNT=on");
    let (websocket, mut peer) = websocket_connected(&daemon, "");
    let owner = Listener::new(&daemon, "PRTO=tcp").owner;
    let black_hole = BlackHole::new().unwrap();
    let mut connecting = daemon.plugin();
    connecting.send(format!("CONN {} CTIM=60000\n", black_hole.addr()).as_bytes());
    eventually("it connects", || stat.connection(connecting.pid()).filter(|shown| shown["state"] == "connecting"));
    let others = [setup.pid(), tcp.pid(), websocket.pid(), owner.pid(), connecting.pid()].map(str::to_owned);
    for pid in &others {
        assert_eq!(daemon.plugin().command(&format!("DROP {pid}")), "ERR DROP No such pid");
        assert!(stat.connection(pid).is_some());
    }
    for pid in &others {
        assert_eq!(operator.command(&format!("DROP {pid}")), "OK DROP");
        eventually("it is gone", || stat.connection(pid).is_none().then_some(()));
        assert_eq!(operator.command(&format!("DROP {pid}")), "ERR DROP No such pid");
    }
    assert!(ends(&remote));
    for mut plugin in [setup, tcp, websocket, owner, connecting] {
        assert!(plugin.at_end());
    }
    assert_eq!(read_close_code(&mut peer), 1001, "the remote of a WebSocket is told");
    assert_eq!(stat.wait_ended(&others[1])["reason"], "DROP");
    luup.wait_for(2, LIMIT);
    assert_eq!(operator.command(&format!("DROP {own}")), "OK DROP");
    assert!(operator.at_end());
}
