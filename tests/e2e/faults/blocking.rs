//! A target, name server or Luup that hangs blocks no other connection.

use std::io::Write;
use std::time::{Duration, Instant};

use testkit::daemon::Daemon;
use testkit::luup::Behaviour;
use testkit::ports::BlackHole;

use crate::support::{Answer, LIMIT, NameServer, daemon, echo_mode, started, stays_quiet, with_luup};

/// Checks that other connections are served. The Lua daemon was blocked for 5 s.
#[track_caller]
fn others_are_served(daemon: &Daemon) {
    let start = Instant::now();
    for _ in 0..3 {
        assert!(daemon.plugin().command("CAPA").starts_with("OK CAPA"));
    }
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
}

#[test]
fn a_hanging_connect_blocks_no_other_connection() {
    let daemon = started();
    let hole = BlackHole::new().unwrap();
    let mut plugins: Vec<_> = (0..3).map(|_| daemon.plugin()).collect();
    for plugin in &mut plugins {
        plugin.send(format!("CONN {}\n", hole.addr()).as_bytes());
    }
    others_are_served(&daemon);
    assert!(plugins.iter_mut().all(testkit::plugin::Plugin::is_quiet), "the CONNs are still in progress");
}

#[test]
fn a_hanging_lookup_blocks_no_other_connection() {
    let Some(server) = NameServer::start() else { return };
    server.set("silent.example", Answer::Silence);
    let daemon = server.daemon().start();
    let mut plugin = daemon.plugin();
    plugin.send(b"CONN silent.example:80\n");
    server.wait_asked("silent.example");
    others_are_served(&daemon);
    assert!(plugin.is_quiet(), "the lookup is still in progress");
}

#[test]
fn a_hanging_luup_blocks_no_connection() {
    let (luup, daemon) = with_luup("");
    luup.set_behaviour(Behaviour::Hang);
    let (mut plugin, mut remote) = echo_mode(&daemon, "NTFY=5/s/a/p");
    remote.write_all(b"x").unwrap();
    assert_eq!(plugin.bytes(1), b"x");
    assert!(luup.wait_in_flight(1, LIMIT));
    others_are_served(&daemon);
}

#[test]
fn a_luup_that_does_not_accept_blocks_no_connection() {
    let hole = BlackHole::new().unwrap();
    let daemon = daemon().luup(&format!("http://{}", hole.addr())).start();
    let (mut plugin, mut remote) = echo_mode(&daemon, "NTFY=5/s/a/p");
    remote.write_all(b"x").unwrap();
    assert_eq!(plugin.bytes(1), b"x");
    // No event reports a pending connect. The Lua daemon takes a second to try one.
    assert!(stays_quiet(&remote, Duration::from_millis(1500)));
    others_are_served(&daemon);
}
