//! CONN: its targets, its replies, and its errors.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use testkit::daemon::Daemon;
use testkit::device::{Device, Kind};
use testkit::plugin::Plugin;
use testkit::ports::{BlackHole, Reserved};

use crate::support::{LIMIT, StatClient, accepted, configured, started, stays_quiet};

/// The whole reply to a CONN that must fail, up to the end of the stream.
#[track_caller]
fn failure(daemon: &Daemon, conn: &str) -> String {
    let mut plugin = daemon.plugin();
    plugin.send(format!("CONN {conn}\n").as_bytes());
    String::from_utf8(plugin.rest()).unwrap()
}

/// Opens a connection with CONN, and sends bytes in both directions.
#[track_caller]
fn connects(daemon: &Daemon, target: &str, device: &Device) {
    let mut plugin = daemon.plugin();
    assert_eq!(plugin.conn(target, ""), plugin.pid());
    let mut remote = accepted(device);
    plugin.send(b"there");
    let mut there = [0; 5];
    remote.read_exact(&mut there).unwrap();
    remote.write_all(b"back").unwrap();
    assert_eq!((&there, &*plugin.bytes(4)), (b"there", &b"back"[..]), "{target}");
}

#[test]
fn invalid_targets() {
    let daemon = started();
    for target in [
        "",
        "host",
        "host:",
        ":80",
        ":",
        "host:x",
        "host:-1",
        "::1:80",
        "::1",
        "[::1]",
        "[::1]80",
        "[::1]:",
        "[::1:80",
        "[]:80",
        "[host]:80",
        "[127.0.0.1]:80",
        "http://127.0.0.1:80",
    ] {
        assert_eq!(failure(&daemon, target), "ERR CONN Invalid host:port\n", "{target:?}");
    }
}

#[test]
fn invalid_options() {
    let daemon = started();
    for (options, reason) in [
        ("hello", "Invalid option hello"),
        ("RTIM", "Invalid option RTIM"),
        ("XXXX=1", "Invalid option XXXX=1"),
        ("=", "Invalid option ="),
        ("RTIM=5 x=", "Invalid option x="),
        ("rtim=5", "Invalid option rtim=5"),
        ("EVNT=perhaps", "Invalid option EVNT=perhaps"),
        ("FRAM=X PRTO=udp", "Invalid option FRAM=X"),
        ("PRTO=sctp", "Invalid protocol sctp"),
        ("PRTO=", "Invalid protocol "),
    ] {
        assert_eq!(failure(&daemon, &format!("127.0.0.1:9 {options}")), format!("ERR CONN {reason}\n"), "{options}");
    }
}

#[test]
fn a_closed_port_is_reported_as_refused() {
    let daemon = started();
    let closed = Reserved::new().unwrap();
    assert_eq!(failure(&daemon, &closed.addr().to_string()), "ERR CONN connection refused\n");
}

#[test]
fn impossible_ports_are_reported_as_refused() {
    let daemon = started();
    for port in ["0", "00", "65536", "99999", "4294967296", "99999999999999999999999"] {
        assert_eq!(failure(&daemon, &format!("127.0.0.1:{port}")), "ERR CONN connection refused\n", "{port}");
    }
}

#[test]
fn ctim_is_the_connect_timeout() {
    let daemon = started();
    let hole = BlackHole::new().unwrap();
    for ms in [200, 1200] {
        let start = Instant::now();
        assert_eq!(failure(&daemon, &format!("{} CTIM={ms}", hole.addr())), "ERR CONN timeout\n");
        assert!(start.elapsed() >= Duration::from_millis(ms), "{:?} for CTIM={ms}", start.elapsed());
    }
}

#[test]
fn the_default_connect_timeout_is_shorter_than_that_of_plugins() {
    let daemon = started();
    let hole = BlackHole::new().unwrap();
    let start = Instant::now();
    assert_eq!(failure(&daemon, &hole.addr().to_string()), "ERR CONN timeout\n");
    let took = start.elapsed();
    assert!((4400..LIMIT.as_millis()).contains(&took.as_millis()), "{took:?}");
}

#[test]
fn the_default_connect_timeout_is_configurable() {
    let daemon = configured("[limits]\nconnect=300\n");
    let hole = BlackHole::new().unwrap();
    let start = Instant::now();
    assert_eq!(failure(&daemon, &hole.addr().to_string()), "ERR CONN timeout\n");
    assert!((300..4400).contains(&start.elapsed().as_millis()), "{:?}", start.elapsed());
}

#[test]
fn a_target_that_does_not_answer_delays_no_other_connection() {
    let daemon = started();
    let hole = BlackHole::new().unwrap();
    let mut waiting = daemon.plugin();
    waiting.send(format!("CONN {} CTIM=60000\n", hole.addr()).as_bytes());
    // STAT shows when the CONN is in progress.
    let mut stat = StatClient::new(daemon.addr());
    crate::support::eventually("the CONN is in progress", || {
        (stat.connection(waiting.pid())?["state"] == "connecting").then_some(())
    });
    let device = Device::start(Kind::Manual);
    connects(&daemon, &device.addr().to_string(), &device);
    assert!(daemon.plugin().command("CAPA").starts_with("OK CAPA"));
    assert!(waiting.is_quiet());
}

#[test]
fn ipv4_ipv6_and_names() {
    let daemon = started();
    let v4 = Device::start(Kind::Manual);
    connects(&daemon, &format!("127.0.0.1:{}", v4.port()), &v4);
    connects(&daemon, &format!("localhost:{}", v4.port()), &v4);
    connects(&daemon, &format!("LOCALHOST:{}", v4.port()), &v4);
    connects(&daemon, &format!("[::ffff:127.0.0.1]:{}", v4.port()), &v4);
    match Device::start_v6(Kind::Manual) {
        Some(v6) => connects(&daemon, &format!("[::1]:{}", v6.port()), &v6),
        None => println!("skipped: this machine has no IPv6"),
    }
}

#[test]
fn a_closed_ipv6_port_is_reported_as_refused() {
    let daemon = started();
    let Some(device) = Device::start_v6(Kind::Silent) else {
        println!("skipped: this machine has no IPv6");
        return;
    };
    let addr = device.addr();
    drop(device);
    assert_eq!(failure(&daemon, &addr.to_string()), "ERR CONN connection refused\n");
}

#[test]
fn text_directly_after_the_port_is_an_option() {
    let daemon = started();
    let device = Device::start(Kind::Manual);
    assert_eq!(failure(&daemon, &format!("{}x", device.addr())), "ERR CONN Invalid option x\n");
}

#[test]
fn a_failed_conn_closes_without_a_reset() {
    let daemon = started();
    let closed = Reserved::new().unwrap();
    let mut plugin = daemon.plugin();
    // With unread bytes: an immediate close would reset the connection and lose the reply.
    plugin.send(format!("CONN {}\n", closed.addr()).as_bytes());
    plugin.send(&[b'x'; 100_000]);
    assert_eq!(String::from_utf8(plugin.rest()).unwrap(), "ERR CONN connection refused\n");
    drop(plugin);
    StatClient::new(daemon.addr()).wait_connections(0);
}

#[test]
fn a_plugin_that_disconnects_during_conn_leaves_nothing_behind() {
    let daemon = started();
    let hole = BlackHole::new().unwrap();
    let mut stat = StatClient::new(daemon.addr());
    let mut plugins: Vec<_> = (0..20).map(|_| daemon.plugin()).collect();
    for (at, plugin) in plugins.iter_mut().enumerate() {
        // A plugin that sends FIN may still read the reply; one that resets cannot.
        let time = if at % 2 == 0 { 2000 } else { 600_000 };
        plugin.send(format!("CONN {} CTIM={time}\n", hole.addr()).as_bytes());
    }
    crate::support::eventually("all are connecting", || {
        stat.connections().iter().all(|shown| shown["state"] == "connecting").then_some(())
    });
    for (at, plugin) in plugins.into_iter().enumerate() {
        if at % 2 == 0 { drop(plugin) } else { plugin.reset() }
    }
    stat.wait_connections(0);
}

#[test]
fn a_device_that_closes_at_once_gives_ok_and_then_the_end() {
    let daemon = started();
    let device = Device::start(Kind::Manual);
    let mut plugin = daemon.plugin();
    plugin.conn(device.addr(), "");
    drop(accepted(&device));
    assert!(plugin.at_end());
}

#[test]
fn bytes_of_a_device_that_sends_first_follow_the_reply() {
    let daemon = started();
    let device = Device::start(Kind::Source { bytes: 100_000, seed: 3 });
    for _ in 0..20 {
        let mut plugin = daemon.plugin();
        plugin.conn(device.addr(), "");
        assert_eq!(plugin.rest(), testkit::random::Random::new(3).bytes(100_000));
    }
}

#[test]
fn connections_do_not_receive_each_others_bytes() {
    let daemon = started();
    let device = Device::start(Kind::Echo);
    let mut plugins: Vec<_> = (0..50).map(|_| daemon.plugin()).collect();
    for plugin in &mut plugins {
        plugin.conn(device.addr(), "");
    }
    for _ in 0..5 {
        for (number, plugin) in plugins.iter_mut().enumerate() {
            plugin.send(format!("I am {number:>4}\n").as_bytes());
        }
        for (number, plugin) in plugins.iter_mut().enumerate() {
            assert_eq!(plugin.line(), format!("I am {number:>4}"));
        }
    }
    assert!(plugins.iter_mut().all(Plugin::is_quiet));
}

#[test]
fn a_plugin_that_has_ended_its_side_still_gets_its_connection() {
    let daemon = started();
    let device = Device::start(Kind::Echo);
    let mut plugin = daemon.plugin();
    plugin.send(format!("CONN {}\nhello", device.addr()).as_bytes());
    plugin.finish();
    assert!(plugin.line().starts_with("OK CONN "));
    assert_eq!(plugin.rest(), b"hello");
}

/// A client that leaves ends its side, too, and must not hold its attempts for ten minutes.
#[test]
fn a_plugin_that_has_ended_its_side_does_not_wait_for_a_long_ctim() {
    let daemon = configured("[limits]\nconnect=300\n");
    let hole = BlackHole::new().unwrap();
    for target in [hole.addr().to_string(), format!("ws://{}/", hole.addr())] {
        let mut plugin = daemon.plugin();
        plugin.send(format!("CONN {target} CTIM=600000\n").as_bytes());
        assert!(stays_quiet(plugin.stream(), Duration::from_millis(500)));
        plugin.finish();
        assert!(plugin.line().ends_with("timeout"));
        assert!(plugin.at_end());
    }
}
