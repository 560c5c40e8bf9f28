//! RTIM.

use std::io::Write;
use std::time::{Duration, Instant};

use testkit::device::{Device, Kind};

use crate::support::{LIMIT, echo_mode, ends, started, stays_quiet};

#[test]
fn rtim_is_not_late() {
    let daemon = started();
    let start = Instant::now();
    let (mut plugin, remote) = echo_mode(&daemon, "RTIM=1000");
    assert!(plugin.at_end() && ends(&remote));
    let took = start.elapsed();
    assert!((1.0..3.5).contains(&took.as_secs_f64()), "{took:?}");
}

#[test]
fn rtim_applies_while_the_plugin_sends() {
    let daemon = started();
    let start = Instant::now();
    let (mut plugin, _remote) = echo_mode(&daemon, "RTIM=1000");
    plugin.set_timeout(Duration::from_millis(300));
    while plugin.try_line().is_err_and(|error| error.kind() == std::io::ErrorKind::TimedOut) {
        plugin.try_send(b"x").ok();
        assert!(start.elapsed() < LIMIT, "the connection does not end");
    }
    assert!((1.0..5.0).contains(&start.elapsed().as_secs_f64()), "{:?}", start.elapsed());
}

#[test]
fn rtim_does_not_close_for_a_silent_plugin() {
    let daemon = started();
    // Traffic of another connection made the Lua daemon check its timers.
    let device = Device::start(Kind::Ticking(Duration::from_millis(50)));
    let mut other = daemon.plugin();
    other.conn(device.addr(), "");
    let reading = std::thread::spawn(move || while other.try_line().is_ok() {});
    let (mut plugin, mut remote) = echo_mode(&daemon, "RTIM=2000");
    // The plugin was silent for twice that time, the remote was not.
    for _ in 0..8 {
        assert!(stays_quiet(plugin.stream(), Duration::from_millis(500)));
        remote.write_all(b"x").unwrap();
        assert_eq!(plugin.bytes(1), b"x");
    }
    drop(device);
    reading.join().unwrap();
}
