//! Echo mode over TCP.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::time::{Duration, Instant};

use testkit::device::{Device, Kind, reset};

use crate::support::{LIMIT, Reader, Writer, echo_mode, eventually, keep_alive_is_on, started};

#[test]
fn a_send_to_a_closed_remote_ends_the_connection_and_is_logged() {
    let daemon = started();
    let (mut other, mut other_remote) = echo_mode(&daemon, "");
    let (mut plugin, remote) = echo_mode(&daemon, "");
    let writer = remote.try_clone().unwrap();
    Writer::new(plugin.stream(), 1).write_until_blocked();
    reset(&remote);
    drop((remote, writer));
    plugin.try_send(b"more").ok();
    assert!(plugin.at_end());
    daemon.wait_for_log(LIMIT, |line| line.contains(plugin.pid()) && line.contains("remote's connection lost"));
    other_remote.write_all(b"fine").unwrap();
    assert_eq!(other.bytes(4), b"fine");
}

#[test]
fn a_slow_plugin_loses_no_byte() {
    let daemon = started();
    let (plugin, remote) = echo_mode(&daemon, "");
    let mut writer = Writer::new(&remote, 1);
    let written = writer.write_until_blocked();
    assert!(written > 100_000);
    writer.finish();
    assert_eq!(Reader::new(plugin.stream(), 1).slow().rest(), written);
}

#[test]
fn a_slow_remote_does_not_end_the_connection() {
    let daemon = started();
    let (plugin, remote) = echo_mode(&daemon, "");
    let mut writer = Writer::new(plugin.stream(), 1);
    let written = writer.write_until_blocked();
    writer.finish();
    assert_eq!(Reader::new(&remote, 1).slow().rest(), written);
}

#[test]
fn a_late_answer_after_half_close_arrives() {
    let daemon = started();
    let (mut plugin, mut remote) = echo_mode(&daemon, "");
    plugin.send(b"question");
    plugin.finish();
    let mut question = Vec::new();
    remote.read_to_end(&mut question).unwrap();
    assert_eq!(question, b"question");
    remote.write_all(b"answer").unwrap();
    remote.shutdown(Shutdown::Write).unwrap();
    assert_eq!(plugin.rest(), b"answer");
}

#[test]
fn two_small_writes_do_not_wait_for_each_other() {
    const ROUNDS: u32 = 100;
    let daemon = started();
    let (mut plugin, mut remote) = echo_mode(&daemon, "");
    let start = Instant::now();
    let mut byte = [0];
    for _ in 0..ROUNDS {
        plugin.send(b"a");
        remote.read_exact(&mut byte).unwrap();
        // The remote has not answered, so its kernel has not acknowledged the first byte yet.
        plugin.send(b"b");
        remote.read_exact(&mut byte).unwrap();
        remote.write_all(b"c").unwrap();
        assert_eq!(plugin.bytes(1), b"c");
    }
    // Nagle's algorithm would wait for a delayed acknowledgement, 40 ms, in most of the rounds.
    assert!(start.elapsed() < ROUNDS * Duration::from_millis(20), "{:?}", start.elapsed());
}

#[test]
fn keep_alive_is_enabled_on_both_sides() {
    let daemon = started();
    let device = Device::start(Kind::Silent);
    let mut plugin = daemon.plugin();
    plugin.conn(device.addr(), "");
    let remote = device.accept(LIMIT);
    for (own, of) in [(plugin.stream(), "plugin"), (&remote, "remote")] {
        // The daemon's socket has the same two addresses, swapped.
        let (own_addr, peer_addr) = (own.local_addr().unwrap(), own.peer_addr().unwrap());
        eventually(of, || keep_alive_is_on(peer_addr, own_addr).then_some(()));
    }
}
