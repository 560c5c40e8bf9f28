//! Half-close: the end of one stream is passed on after all bytes before it, and the other direction can go on.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::time::{Duration, Instant};

use testkit::device::{Device, Kind, reset};

use crate::support::{
    LIMIT, Reader, StatClient, Writer, accepted, configured, echo_mode, ends, started, stays_quiet, wait_quietly,
};

/// Reads everything up to the end of the stream.
fn all(mut remote: &std::net::TcpStream) -> Vec<u8> {
    let mut all = Vec::new();
    remote.read_to_end(&mut all).unwrap();
    all
}

#[test]
fn a_late_answer_reaches_a_plugin_that_has_sent_fin() {
    let daemon = started();
    let (mut plugin, mut remote) = echo_mode(&daemon, "");
    plugin.send(b"GET / HTTP/1.0\r\n\r\n");
    plugin.finish();
    assert_eq!(all(&remote), b"GET / HTTP/1.0\r\n\r\n", "the end is passed on");
    assert!(stays_quiet(plugin.stream(), Duration::from_millis(300)));
    remote.write_all(b"HTTP/1.0 200 OK\r\n\r\n").unwrap();
    assert_eq!(plugin.bytes(19), b"HTTP/1.0 200 OK\r\n\r\n");
    remote.write_all(b"late body").unwrap();
    drop(remote);
    assert_eq!(plugin.rest(), b"late body");
}

#[test]
fn a_plugin_can_send_after_the_remote_has_sent_fin() {
    let daemon = started();
    let (mut plugin, mut remote) = echo_mode(&daemon, "");
    remote.write_all(b"bye").unwrap();
    remote.shutdown(Shutdown::Write).unwrap();
    assert_eq!(plugin.rest(), b"bye");
    plugin.send(b"one more thing");
    let mut received = [0; 14];
    remote.read_exact(&mut received).unwrap();
    assert_eq!(&received, b"one more thing");
    plugin.send(b", and that is it");
    plugin.finish();
    assert_eq!(all(&remote), b", and that is it");
}

#[test]
fn the_end_follows_all_bytes_for_a_slow_reader() {
    let daemon = started();
    for to_remote in [true, false] {
        let (plugin, remote) = echo_mode(&daemon, "");
        let (from, to) = if to_remote { (plugin.stream(), &remote) } else { (&remote, plugin.stream()) };
        let mut writer = Writer::new(from, 4);
        let written = writer.write_until_blocked();
        writer.finish();
        assert_eq!(Reader::new(to, 4).slow().rest(), written, "to the remote: {to_remote}");
    }
}

#[test]
fn a_connection_is_closed_when_both_sides_have_ended() {
    let daemon = configured("[limits]\nhalfclose=600\n");
    let mut stat = StatClient::new(daemon.addr());
    for plugin_first in [true, false] {
        let (mut plugin, remote) = echo_mode(&daemon, "");
        if plugin_first {
            plugin.finish();
            assert!(ends(&remote));
            assert_eq!(stat.connections().len(), 1, "one end does not close the connection");
            remote.shutdown(Shutdown::Write).unwrap();
        } else {
            remote.shutdown(Shutdown::Write).unwrap();
            assert!(plugin.at_end());
            assert_eq!(stat.connections().len(), 1, "one end does not close the connection");
            plugin.finish();
        }
        stat.wait_connections(0);
    }
}

#[test]
fn a_stall_after_half_close_ends_the_connection() {
    let daemon = configured("[limits]\nhalfclose=1\n");
    let mut stat = StatClient::new(daemon.addr());

    let (mut plugin, remote) = echo_mode(&daemon, "");
    let start = Instant::now();
    plugin.finish();
    assert!(ends(&remote));
    assert!(plugin.at_end());
    assert!(start.elapsed() >= Duration::from_secs(1), "{:?}", start.elapsed());

    let (mut plugin, remote) = echo_mode(&daemon, "");
    let start = Instant::now();
    remote.shutdown(Shutdown::Write).unwrap();
    assert!(plugin.at_end());
    assert!(ends(&remote));
    assert!(start.elapsed() >= Duration::from_secs(1), "{:?}", start.elapsed());
    stat.wait_connections(0);
}

#[test]
fn progress_after_half_close_keeps_the_other_direction_open() {
    let daemon = configured("[limits]\nhalfclose=3\n");
    let (mut plugin, mut remote) = echo_mode(&daemon, "");
    plugin.finish();
    assert!(ends(&remote));
    // Longer than the limit in total, with a byte more often than the limit.
    for _ in 0..5 {
        plugin.set_timeout(Duration::from_secs(1));
        assert!(plugin.try_line().is_err_and(|error| error.kind() == std::io::ErrorKind::TimedOut));
        remote.write_all(b".").unwrap();
        plugin.set_timeout(LIMIT);
        assert_eq!(plugin.bytes(1), b".");
    }
    drop(remote);
    assert!(plugin.at_end());
}

#[test]
fn the_default_stall_limit_is_five_seconds() {
    let daemon = started();
    let (mut plugin, remote) = echo_mode(&daemon, "");
    let start = Instant::now();
    plugin.finish();
    assert!(ends(&remote));
    assert!(plugin.at_end());
    assert!((4.9..20.0).contains(&start.elapsed().as_secs_f64()), "{:?}", start.elapsed());
}

#[test]
fn a_device_with_one_connection_is_released_after_a_plugin_disconnects() {
    let daemon = configured("[limits]\nhalfclose=1\n");
    let device = Device::start(Kind::Manual);
    let mut first = daemon.plugin();
    first.conn(device.addr(), "");
    let mut remote = accepted(&device);
    drop(first);
    // The device gets the FIN at once, and loses the connection soon after, although it does not close.
    assert!(ends(&remote));
    let mut stat = StatClient::new(daemon.addr());
    stat.wait_connections(0);
    crate::support::eventually("writing fails", || remote.write_all(b"status\n").err());
}

#[test]
fn a_sending_device_is_released_after_a_plugin_disconnects() {
    // A closed plugin and one that has only sent FIN look alike until the device sends something.
    let daemon = configured("[limits]\nhalfclose=600\n");
    let device = Device::start(Kind::Ticking(Duration::from_millis(20)));
    let mut plugin = daemon.plugin();
    plugin.conn(device.addr(), "");
    plugin.line();
    drop(plugin);
    StatClient::new(daemon.addr()).wait_connections(0);
    assert!(device.wait_finished(1, LIMIT));
}

#[test]
fn bytes_of_a_closed_sender_wait_for_a_reader_up_to_the_stall_limit() {
    let daemon = configured("[limits]\nstall=1\nhalfclose=1\n");
    let mut stat = StatClient::new(daemon.addr());
    for to_remote in [true, false] {
        let (plugin, remote) = echo_mode(&daemon, "");
        let (from, to) = if to_remote { (plugin.stream(), &remote) } else { (&remote, plugin.stream()) };
        Writer::new(from, 1).write_until_blocked();
        reset(from);
        let kept = to.try_clone().unwrap();
        drop((plugin, remote));
        stat.wait_connections(0);
        drop(kept);
    }
}

#[test]
fn a_devices_last_bytes_wait_for_a_busy_plugin_beyond_the_stall_limit() {
    let daemon = configured("[limits]\nhalfclose=0.5\n");
    let (plugin, remote) = echo_mode(&daemon, "");
    let pid = plugin.pid().to_owned();
    let mut writer = Writer::new(&remote, 1);
    let written = writer.write_until_blocked();
    writer.finish();
    drop(remote);
    // Luup can be busy for minutes; here, for three times the stall limit of a half-closed connection.
    let mut stat = StatClient::new(daemon.addr());
    wait_quietly(&daemon, Duration::from_millis(1500));
    assert_eq!(stat.connection(&pid).expect("the connection still exists")["state"], "echo");
    assert_eq!(Reader::new(plugin.stream(), 1).rest(), written);
}
