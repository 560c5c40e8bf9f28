//! The timeouts of setup mode and of echo mode (RTIM, idle).

use std::io::Write;
use std::time::{Duration, Instant};

use testkit::device::{Device, Kind};
use testkit::plugin::Plugin;
use testkit::ports::BlackHole;

use crate::support::{LIMIT, Reader, StatClient, Writer, accepted, configured, echo_mode, ends, started, stays_quiet};

const SETUP_1S: &str = "[limits]\nsetup=1\n";

/// The plugin's stream ends at least `min` after `start`, and not much later.
#[track_caller]
fn ends_after(plugin: &mut Plugin, start: Instant, min: Duration) {
    assert!(plugin.at_end(), "the stream does not end");
    let took = start.elapsed();
    assert!((min..min + Duration::from_secs(12)).contains(&took), "{took:?} instead of {min:?}");
}

/// The plugin's stream stays open and silent for `time`.
#[track_caller]
fn quiet_for(plugin: &Plugin, time: Duration) {
    assert!(stays_quiet(plugin.stream(), time), "the stream has ended, or a byte has come");
}

#[test]
fn setup_mode_times_out() {
    let daemon = configured(SETUP_1S);
    let start = Instant::now();
    ends_after(&mut daemon.plugin(), start, Duration::from_secs(1));
    let mut plugin = daemon.plugin();
    let start = Instant::now();
    assert_eq!(plugin.command("RTIM 5"), "OK RTIM");
    ends_after(&mut plugin, start, Duration::from_secs(1));
}

#[test]
fn the_default_timeout_of_setup_mode_is_thirty_seconds() {
    let daemon = started();
    let start = Instant::now();
    let mut plugin = daemon.plugin();
    plugin.set_timeout(2 * LIMIT);
    ends_after(&mut plugin, start, Duration::from_secs(30));
}

#[test]
fn each_byte_restarts_the_timeout_of_setup_mode() {
    let daemon = configured("[limits]\nsetup=3\n");
    let mut plugin = daemon.plugin();
    // Four and a half seconds without the end of a line.
    for byte in [b"B", b"I", b"L"] {
        plugin.send(byte);
        quiet_for(&plugin, Duration::from_millis(1500));
    }
    assert!(plugin.command("D").starts_with("OK "));
}

#[test]
fn stat_disables_the_timeout_of_setup_mode() {
    let daemon = configured(SETUP_1S);
    for stat in ["STAT", "STAT JSON", "stat all"] {
        let mut watcher = daemon.plugin();
        watcher.send(format!("{stat}\n").as_bytes());
        // A later, silent connection times out first, more than once.
        for _ in 0..2 {
            assert!(daemon.plugin().at_end());
        }
        watcher.send(b"\nQUIT\n");
        assert!(watcher.rest().ends_with(b"OK QUIT\n"), "{stat}");
    }
}

#[test]
fn the_timeout_of_setup_mode_is_suspended_during_conn() {
    let daemon = configured(SETUP_1S);
    let hole = BlackHole::new().unwrap();
    let mut plugin = daemon.plugin();
    let start = Instant::now();
    assert_eq!(plugin.command(&format!("CONN {} CTIM=2500", hole.addr())), "ERR CONN timeout");
    assert!(start.elapsed() >= Duration::from_millis(2500));
}

#[test]
fn the_timeout_of_setup_mode_does_not_apply_in_echo_mode() {
    let daemon = configured(SETUP_1S);
    let (mut plugin, mut remote) = echo_mode(&daemon, "");
    quiet_for(&plugin, Duration::from_millis(2500));
    remote.write_all(b"still here").unwrap();
    assert_eq!(plugin.bytes(10), b"still here");
}

#[test]
fn rtim_ends_a_connection_with_a_silent_remote_in_time() {
    let daemon = started();
    for (before, options) in [("", "RTIM=800"), ("RTIM 800\n", ""), ("RTIM 99999\n", "RTIM=99999 RTIM=800")] {
        let device = Device::start(Kind::Manual);
        let mut plugin = daemon.plugin();
        let start = Instant::now();
        plugin.send(format!("{before}CONN {} {options}\n", device.addr()).as_bytes());
        let remote = accepted(&device);
        assert!(ends(&remote));
        let took = start.elapsed();
        assert!((800..4000).contains(&took.as_millis()), "{options:?}: {took:?}");
        assert!(plugin.rest().ends_with(format!("OK CONN {}\n", plugin.pid()).as_bytes()));
    }
}

#[test]
fn bytes_from_the_plugin_do_not_restart_rtim() {
    let daemon = started();
    let start = Instant::now();
    let (mut plugin, _remote) = echo_mode(&daemon, "RTIM=1000");
    plugin.set_timeout(Duration::from_millis(200));
    while plugin.try_line().is_err_and(|error| error.kind() == std::io::ErrorKind::TimedOut) {
        assert!(start.elapsed() < LIMIT, "the connection stays although the remote is silent");
        plugin.try_send(b"are you there?").ok();
    }
    assert!((1.0..5.0).contains(&start.elapsed().as_secs_f64()), "{:?}", start.elapsed());
}

#[test]
fn bytes_from_the_remote_restart_rtim() {
    let daemon = started();
    let (mut plugin, mut remote) = echo_mode(&daemon, "RTIM=3000");
    let mut start = Instant::now();
    for _ in 0..4 {
        quiet_for(&plugin, Duration::from_millis(1200));
        start = Instant::now();
        remote.write_all(b".").unwrap();
        assert_eq!(plugin.bytes(1), b".");
    }
    ends_after(&mut plugin, start, Duration::from_secs(3));
}

#[test]
fn rtim_0_disables_the_timeout() {
    let daemon = started();
    let (plugin, _remote) = echo_mode(&daemon, "RTIM=500 RTIM=0");
    quiet_for(&plugin, Duration::from_millis(1500));
}

#[test]
fn rtim_is_suspended_while_backpressure_blocks_the_remote() {
    let daemon = started();
    let (plugin, remote) = echo_mode(&daemon, "RTIM=1500");
    let mut writer = Writer::new(&remote, 6);
    let written = writer.write_until_blocked();
    // The remote is blocked for longer than RTIM.
    assert!(stays_quiet(&remote, Duration::from_millis(3500)));
    // RTIM restarts when the plugin has read everything, which is after this instant.
    let start = Instant::now();
    let mut reader = Reader::new(plugin.stream(), 6);
    reader.read(written);
    assert_eq!(reader.rest(), written);
    assert!((1.4..60.0).contains(&start.elapsed().as_secs_f64()), "{:?}", start.elapsed());
}

#[test]
fn rtim_applies_to_datagrams() {
    let daemon = started();
    let mut plugin = daemon.plugin();
    let device = testkit::device::UdpEcho::start();
    plugin.conn(device.addr(), "PRTO=udp RTIM=1500");
    let start = Instant::now();
    plugin.send(b"one");
    assert_eq!(plugin.bytes(3), b"one");
    ends_after(&mut plugin, start, Duration::from_millis(1500));
}

#[test]
fn the_idle_limit_ends_a_connection_silent_in_both_directions() {
    let daemon = configured("[limits]\nidle=3\n");
    let mut stat = StatClient::new(daemon.addr());
    let (mut plugin, mut remote) = echo_mode(&daemon, "");
    let mut start = Instant::now();
    for side in 0..4 {
        quiet_for(&plugin, Duration::from_millis(1000));
        start = Instant::now();
        if side % 2 == 0 {
            plugin.send(b".");
        } else {
            remote.write_all(b".").unwrap();
            assert_eq!(plugin.bytes(1), b".");
        }
    }
    ends_after(&mut plugin, start, Duration::from_secs(3));
    stat.wait_connections(0);
}

#[test]
fn by_default_a_silent_connection_stays_open() {
    let daemon = configured("[limits]\nsetup=0.2\nhalfclose=0.2\nstall=0.2\nconnect=200\nanswer=200\n");
    let (plugin, _remote) = echo_mode(&daemon, "");
    quiet_for(&plugin, Duration::from_secs(2));
}
