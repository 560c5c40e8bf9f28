//! Limits: too many connections, and too few descriptors.

use std::io::Write;
use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

use socket2::{Domain, Socket, Type};
use testkit::daemon::Daemon;
use testkit::device::{Device, Kind};
use testkit::luup::Luup;
use testkit::plugin::Plugin;

use crate::support::{
    LIMIT, accepted, configured, daemon, echo_mode, emulated, eventually, plugin_from, stays_quiet, with_luup,
};

#[test]
fn connections_beyond_the_limit_are_refused() {
    let daemon = configured("[limits]\nconnections=3\n");
    let mut plugins: Vec<Plugin> = (0..3).map(|_| daemon.plugin()).collect();
    for _ in 0..3 {
        let mut refused = Plugin::connect_raw(daemon.addr()).unwrap();
        assert_eq!(refused.rest(), b"ERR ACCESS Too many connections\n");
    }
    assert!(
        plugins.iter_mut().all(|plugin| plugin.command("CAPA").starts_with("OK CAPA")),
        "the other connections go on"
    );
    assert_eq!(plugins.pop().unwrap().command("QUIT"), "OK QUIT");
    eventually("a connection is accepted again", || {
        let mut plugin = Plugin::connect_raw(daemon.addr()).ok()?;
        plugin.line().starts_with("OK TOGGLEDBITS").then_some(())
    });
}

#[test]
fn loopback_is_exempt_from_the_limit_for_each_address() {
    let daemon = configured("[limits]\nperaddress=1\n");
    let _plugins: Vec<Plugin> = (0..5).map(|_| daemon.plugin()).collect();
    assert!(plugin_from("127.0.0.2", daemon.addr()).line().starts_with("OK "));
}

/// A plugin that sends STAT until the socket is full, and reads nothing.
fn full_of_stat(daemon: &Daemon) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.connect(&daemon.addr().into()).unwrap();
    let mut stream = TcpStream::from(socket);
    stream.set_write_timeout(Some(Duration::from_millis(100))).unwrap();
    let many = b"STAT\n".repeat(2000);
    while stream.write_all(&many).is_ok() {}
    stream
}

#[test]
fn a_plugin_that_does_not_read_stat_times_out() {
    let daemon = configured("[limits]\nsetup=1\n");
    let mut watcher = daemon.plugin();
    watcher.send(b"STAT\nBLKS 1\n");
    while watcher.line() != "OK BLKS" {}
    let _deaf = full_of_stat(&daemon);
    daemon.wait_for_log(LIMIT, |line| line.contains("silent in setup mode"));
    assert_eq!(watcher.command("BLKS 1"), "OK BLKS", "a plugin that reads stays connected");
}

#[test]
fn unread_replies_are_limited() {
    let daemon = configured("[limits]\nbuffers=65536\n");
    // Many connections make the table long, some 25 KB.
    let _idle: Vec<Plugin> = (0..250).map(|_| daemon.plugin()).collect();
    // Each plugin holds up to one table; the kernel's buffers decide how much.
    let mut unread = Vec::new();
    while !daemon.log_text().contains("gets no STAT") {
        assert!(unread.len() < 50, "unread replies are not limited");
        unread.push(full_of_stat(&daemon));
    }
    assert!(daemon.plugin().command("CAPA").starts_with("OK CAPA"));
}

/// Limits the daemon to `more` descriptors beyond those that are open. False if this machine has no prlimit.
fn leave_descriptors(daemon: &Daemon, more: usize) -> bool {
    let limit = daemon.descriptors() + more;
    let mut command = Command::new("prlimit");
    command.args(["--pid", &daemon.pid().to_string(), &format!("--nofile={limit}:{limit}")]);
    let set = command.status().is_ok_and(|status| status.success());
    if !set {
        println!("skipped: no prlimit here");
    }
    set
}

/// Connects until the daemon has no descriptor left to accept with. The last plugin has not been greeted.
fn fill(daemon: &Daemon) -> Vec<Plugin> {
    let mut plugins = Vec::new();
    loop {
        let mut plugin = Plugin::connect_raw(daemon.addr()).unwrap();
        plugin.set_timeout(Duration::from_millis(700));
        let greeting = plugin.try_line();
        plugin.set_timeout(LIMIT);
        plugins.push(plugin);
        match greeting {
            Ok(greeting) => assert!(greeting.starts_with("OK TOGGLEDBITS"), "{greeting}"),
            Err(error) => {
                assert_eq!(
                    error.kind(),
                    std::io::ErrorKind::TimedOut,
                    "the next connection is not left waiting: {error}"
                );
                return plugins;
            }
        }
    }
}

#[test]
fn without_descriptors_accepting_pauses_without_a_busy_loop() {
    let daemon = crate::support::started();
    let (mut echo, mut remote) = echo_mode(&daemon, "");
    if !leave_descriptors(&daemon, 10) {
        return;
    }
    let mut plugins = fill(&daemon);
    let mut waiting = plugins.pop().unwrap();
    assert!(plugins.len() >= 4, "{} were accepted", plugins.len());
    if !emulated() {
        let before = daemon.cpu_time();
        assert!(stays_quiet(echo.stream(), Duration::from_secs(2)));
        let used = daemon.cpu_time() - before;
        assert!(used < Duration::from_millis(400), "{used:?} of processor time in two seconds");
    }
    // Accepted connections are served meanwhile.
    remote.write_all(b"still here").unwrap();
    assert_eq!(echo.bytes(10), b"still here");
    assert!(plugins[0].command("CAPA").starts_with("OK CAPA"));
    assert!(waiting.is_quiet());
    let warnings = daemon.log_lines().iter().filter(|line| line.contains("cannot accept")).count();
    assert!((1..=3).contains(&warnings), "{}", daemon.log_text());
    plugins.truncate(2);
    assert!(waiting.line().starts_with("OK TOGGLEDBITS"), "the waiting connection is accepted");
}

#[test]
fn without_descriptors_conn_fails_with_a_reason() {
    let daemon = crate::support::started();
    let device = Device::start(Kind::Silent);
    if !leave_descriptors(&daemon, 8) {
        return;
    }
    let mut plugins = fill(&daemon);
    let answer = plugins[0].command(&format!("CONN {}", device.addr()));
    assert!(answer.starts_with("ERR CONN ") && answer.len() > 9, "{answer:?}");
    assert!(plugins[0].at_end());
    drop(plugins);
    // With descriptors it works again.
    assert!(daemon.plugin().command(&format!("CONN {}", device.addr())).starts_with("OK CONN "));
}

#[test]
fn without_descriptors_notifications_are_late_but_not_lost() {
    let (luup, daemon): (Luup, Daemon) = with_luup("");
    let device = Device::start(Kind::Manual);
    let mut plugin = daemon.plugin();
    plugin.conn(device.addr(), "NTFY=5/s/a/p");
    let mut remote = accepted(&device);
    if !leave_descriptors(&daemon, 3) {
        return;
    }
    let plugins = fill(&daemon);
    remote.write_all(b"news").unwrap();
    assert_eq!(plugin.bytes(4), b"news");
    assert!(luup.wait_until(Duration::from_millis(500), |requests| !requests.is_empty()).is_err());
    drop(plugins);
    luup.wait_for(1, LIMIT);
}

#[test]
fn the_descriptor_limit_is_raised_for_the_configured_connections() {
    let daemon = daemon().config("[limits]\nconnections=300\n").within("ulimit -Sn 64; exec \"$@\"").start();
    let device = Device::start(Kind::Silent);
    let mut plugins: Vec<Plugin> = (0..300).map(|_| daemon.plugin()).collect();
    for plugin in &mut plugins {
        plugin.conn(device.addr(), "");
    }
    assert!(device.wait_accepted(300, LIMIT));
}

/// A script that starts the daemon with at most this many descriptors.
fn with_descriptors(limit: usize) -> String {
    // Without the capability not even root can raise the hard limit.
    let no_capability = "setpriv --bounding-set -sys_resource --inh-caps -sys_resource";
    let may = Command::new("setpriv").args(no_capability.split(' ').skip(1)).arg("true").output();
    if may.is_ok_and(|output| output.status.success()) {
        format!("ulimit -n {limit}; exec {no_capability} \"$@\"")
    } else {
        format!("ulimit -n {limit}; exec \"$@\"")
    }
}

#[test]
fn a_fixed_descriptor_limit_reduces_the_connections() {
    for (limit, connections) in [(64, 15), (128, 39), (160, 51)] {
        let luup = Luup::start();
        let daemon = daemon().luup(&luup.url()).within(&with_descriptors(limit)).start();
        if !daemon.log_text().contains("are enough for") {
            println!("skipped: the limit of descriptors could be raised");
            return;
        }
        let device = Device::start(Kind::Manual);
        let mut plugins = Vec::new();
        loop {
            let mut plugin = Plugin::connect_raw(daemon.addr()).unwrap();
            let greeting = plugin.line();
            if !greeting.starts_with("OK ") {
                assert_eq!(greeting, "ERR ACCESS Too many connections");
                break;
            }
            plugin.conn(device.addr(), "NTFY=5/s/a/p");
            let remote = accepted(&device);
            plugins.push((plugin, remote));
        }
        assert_eq!(plugins.len(), connections, "with {limit} descriptors");
        // All connections together do not take the descriptors that a notification needs.
        for (plugin, remote) in &mut plugins {
            luup.clear_requests();
            remote.write_all(b"news").unwrap();
            assert_eq!(plugin.bytes(4), b"news");
            luup.wait_for(1, LIMIT);
        }
        assert_eq!(Plugin::connect_raw(daemon.addr()).unwrap().line(), "ERR ACCESS Too many connections");
        drop(plugins);
        eventually("a connection is accepted again", || {
            let mut plugin = Plugin::connect_raw(daemon.addr()).ok()?;
            plugin.line().starts_with("OK TOGGLEDBITS").then_some(())
        });
    }
}
