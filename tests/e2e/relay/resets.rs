//! Resets: a reset ends both sides, and bytes before it are not lost.

use std::io::Write;
use std::net::TcpStream;

use testkit::device::{Device, Kind, reset};
use testkit::plugin::Plugin;
use testkit::random::Random;

use crate::support::{
    LIMIT, Reader, StatClient, Writer, accepted, configured, echo_mode, ends, read_to_end, unacknowledged,
    wait_until_acknowledged,
};

/// A daemon with a stall limit that never ends a half-closed connection.
fn without_stall_limit() -> testkit::daemon::Daemon {
    configured("[limits]\nhalfclose=3600\nstall=3600\n")
}

/// Closes with a reset.
fn close_with_reset(remote: TcpStream) {
    reset(&remote);
}

#[test]
fn a_reset_by_the_plugin_ends_the_remote() {
    let daemon = without_stall_limit();
    let (plugin, remote) = echo_mode(&daemon, "");
    plugin.reset();
    assert!(ends(&remote));
    StatClient::new(daemon.addr()).wait_connections(0);
}

#[test]
fn a_reset_by_the_remote_ends_the_plugin() {
    let daemon = without_stall_limit();
    let (mut plugin, remote) = echo_mode(&daemon, "");
    close_with_reset(remote);
    assert!(plugin.at_end());
    StatClient::new(daemon.addr()).wait_connections(0);
}

#[test]
fn a_plugins_last_bytes_before_its_reset_arrive() {
    let daemon = without_stall_limit();
    for size in [1, 5000, 100_000] {
        let (mut plugin, remote) = echo_mode(&daemon, "");
        plugin.send(&Random::new(1).bytes(size));
        let mut reader = Reader::new(&remote, 1);
        // Acknowledged bytes only: a reset discards what the kernel has not sent.
        wait_until_acknowledged(plugin.stream());
        plugin.reset();
        reader.read(size as u64);
        assert!(ends(&remote), "{size} bytes");
    }
}

#[test]
fn a_remotes_last_bytes_before_its_reset_arrive() {
    let daemon = without_stall_limit();
    for size in [1, 5000, 100_000] {
        for _ in 0..10 {
            let (mut plugin, mut remote) = echo_mode(&daemon, "");
            let data = Random::new(2).bytes(size);
            remote.write_all(&data).unwrap();
            wait_until_acknowledged(&remote);
            close_with_reset(remote);
            assert!(plugin.bytes(size) == data);
            assert!(plugin.at_end(), "{size} bytes");
        }
    }
}

#[test]
fn a_remotes_last_bytes_arrive_although_the_plugin_writes_into_the_reset() {
    let daemon = without_stall_limit();
    for _ in 0..20 {
        let (mut plugin, mut remote) = echo_mode(&daemon, "");
        remote.write_all(b"goodbye, wrong password").unwrap();
        // close(2) with unread data makes the kernel reset the connection.
        plugin.send(b"more");
        let mut peeked = [0; 4];
        while remote.peek(&mut peeked).unwrap() < 4 {}
        drop(remote);
        assert_eq!(plugin.bytes(23), b"goodbye, wrong password");
        assert!(plugin.at_end());
    }
}

#[test]
fn a_slow_plugin_reads_all_bytes_before_the_remotes_reset() {
    let daemon = without_stall_limit();
    let (plugin, remote) = echo_mode(&daemon, "");
    let written = Writer::new(&remote, 3).write_until_blocked();
    // All buffers are full. Only acknowledged bytes can arrive, so wait until all are.
    let mut reader = Reader::new(plugin.stream(), 3).slow();
    let mut read = 0;
    while unacknowledged(&remote) > 0 {
        reader.read(100_000);
        read += 100_000;
    }
    assert!(read < written, "all bytes were read before the reset");
    close_with_reset(remote);
    assert_eq!(reader.rest(), written);
}

#[test]
fn a_reset_after_half_close_ends_both_sides() {
    let daemon = without_stall_limit();
    let mut stat = StatClient::new(daemon.addr());
    let (mut plugin, remote) = echo_mode(&daemon, "");
    plugin.finish();
    assert!(ends(&remote));
    close_with_reset(remote);
    assert!(plugin.at_end());
    drop(plugin);
    stat.wait_connections(0);

    let (mut plugin, remote) = echo_mode(&daemon, "");
    remote.shutdown(std::net::Shutdown::Write).unwrap();
    assert!(plugin.at_end());
    plugin.reset();
    assert!(ends(&remote));
    stat.wait_connections(0);
}

#[test]
fn resets_during_a_transfer_end_both_sides() {
    let daemon = without_stall_limit();
    let mut stat = StatClient::new(daemon.addr());
    for to_remote in [true, false] {
        for plugin_breaks in [true, false] {
            let (plugin, remote) = echo_mode(&daemon, "");
            let (from, to) = if to_remote { (plugin.stream(), &remote) } else { (&remote, plugin.stream()) };
            Writer::new(from, 1).write_until_blocked();
            Reader::new(to, 1).read(50_000);
            if plugin_breaks {
                plugin.reset();
                read_to_end(&remote);
            } else {
                close_with_reset(remote);
                read_to_end(plugin.stream());
            }
            stat.wait_connections(0);
        }
    }
}

#[test]
fn a_device_that_resets_everything_ends_all_its_plugins() {
    let daemon = without_stall_limit();
    let device = Device::start(Kind::Silent);
    let mut plugins: Vec<Plugin> = (0..10).map(|_| daemon.plugin()).collect();
    plugins.iter_mut().for_each(|plugin| {
        plugin.conn(device.addr(), "");
    });
    assert!(device.wait_accepted(10, LIMIT));
    device.reset_all();
    assert!(plugins.iter_mut().all(testkit::plugin::Plugin::at_end));
    StatClient::new(daemon.addr()).wait_connections(0);
}

#[test]
fn a_reset_in_setup_mode_closes_the_connection() {
    let daemon = without_stall_limit();
    let mut stat = StatClient::new(daemon.addr());
    let plugins: Vec<Plugin> = (0..10).map(|_| daemon.plugin()).collect();
    assert_eq!(stat.connections().len(), 10);
    plugins.into_iter().for_each(Plugin::reset);
    stat.wait_connections(0);
    let device = Device::start(Kind::Manual);
    let mut plugin = daemon.plugin();
    plugin.send(format!("CONN {}\n", device.addr()).as_bytes());
    let remote = accepted(&device);
    plugin.reset();
    assert!(ends(&remote));
    stat.wait_connections(0);
}
