//! Echo mode: bytes pass in both directions, unmodified and complete.

use std::io::{Read, Write};

use testkit::device::{Device, Kind};
use testkit::random::Random;

use crate::support::{LIMIT, both_ways, echo_mode, started};

/// Sizes around the limits of buffers, pipes and WebSocket lengths.
const SIZES: [usize; 12] = [0, 1, 2, 125, 126, 127, 4096, 65_535, 65_536, 65_537, 200_000, 1_000_000];

#[test]
fn every_size_and_the_end_reach_the_remote() {
    let daemon = started();
    for size in SIZES {
        let (mut plugin, mut remote) = echo_mode(&daemon, "");
        let data = Random::new(size as u64).bytes(size);
        let expected = data.clone();
        let sender = std::thread::spawn(move || {
            plugin.send(&data);
            plugin.finish();
            plugin
        });
        let mut received = Vec::new();
        remote.read_to_end(&mut received).unwrap();
        assert!(received == expected, "{size} bytes sent, {} received", received.len());
        sender.join().unwrap();
    }
}

#[test]
fn every_size_and_the_end_reach_the_plugin() {
    let daemon = started();
    for size in SIZES {
        let device = Device::start(Kind::Source { bytes: size as u64, seed: 5 });
        let mut plugin = daemon.plugin();
        plugin.conn(device.addr(), "");
        let received = plugin.rest();
        assert!(received == Random::new(5).bytes(size), "{size} bytes sent, {} received", received.len());
    }
}

#[test]
fn every_size_comes_back_on_an_open_connection() {
    let daemon = started();
    let device = Device::start(Kind::Echo);
    let mut plugin = daemon.plugin();
    plugin.conn(device.addr(), "");
    for size in SIZES.into_iter().chain(SIZES.into_iter().rev()) {
        let data = Random::new(size as u64).bytes(size);
        let sending = plugin.stream().try_clone().unwrap();
        let (copy, expected) = (data.clone(), data);
        let sender = std::thread::spawn(move || (&sending).write_all(&copy));
        assert!(plugin.bytes(size) == expected, "{size} bytes");
        sender.join().unwrap().unwrap();
    }
    assert!(plugin.is_quiet());
}

#[test]
fn ten_megabytes_pass_in_both_directions_at_once() {
    const MANY: u64 = 10_000_000;
    let daemon = started();
    for options in ["", "BLKS=65536", "BLKS=2048"] {
        let (plugin, remote) = echo_mode(&daemon, options);
        both_ways(plugin.stream(), &remote, MANY);
    }
}

#[test]
fn single_bytes_arrive_without_delay() {
    let daemon = started();
    let device = Device::start(Kind::Echo);
    let mut plugin = daemon.plugin();
    plugin.conn(device.addr(), "");
    for byte in (0..=255u8).cycle().take(1000) {
        plugin.send(&[byte]);
        assert_eq!(plugin.bytes(1), [byte]);
    }
}

#[test]
fn commands_in_echo_mode_are_data() {
    let daemon = started();
    let (mut plugin, mut remote) = echo_mode(&daemon, "");
    let words = b"QUIT\nSTOP\nCONN a:1\n\xff\xf4\0";
    plugin.send(words);
    let mut received = vec![0; words.len()];
    remote.read_exact(&mut received).unwrap();
    assert_eq!(received, words);
    remote.write_all(words).unwrap();
    assert_eq!(plugin.bytes(words.len()), words);
}

#[test]
fn many_connections_do_not_mix_their_bytes() {
    let daemon = started();
    std::thread::scope(|scope| {
        for _ in 0..12 {
            scope.spawn(|| {
                let (plugin, remote) = echo_mode(&daemon, "");
                both_ways(plugin.stream(), &remote, 1_500_000);
            });
        }
    });
}

#[test]
fn two_connections_to_one_device_are_independent() {
    let daemon = started();
    let device = Device::start(Kind::Sink);
    let (mut one, mut two) = (daemon.plugin(), daemon.plugin());
    one.conn(device.addr(), "");
    two.conn(device.addr(), "");
    assert!(device.wait_accepted(2, LIMIT));
    one.send(b"12345");
    one.finish();
    assert!(device.wait_finished(1, LIMIT));
    assert!(one.at_end());
    assert!(two.is_quiet(), "the other connection is still open");
    two.send(b"678");
    assert_eq!(device.wait_received(8, LIMIT).bytes, 8);
}

#[test]
fn urgent_data_passes_in_order_as_ordinary_data() {
    let daemon = started();
    let (mut plugin, mut remote) = echo_mode(&daemon, "");
    plugin.send(b"before");
    assert_eq!(socket2::SockRef::from(plugin.stream()).send_out_of_band(b"!").unwrap(), 1);
    plugin.send(b"after");
    let mut received = [0; 12];
    remote.read_exact(&mut received).unwrap();
    assert_eq!(&received, b"before!after");
    assert_eq!(socket2::SockRef::from(&remote).send_out_of_band(b"?").unwrap(), 1);
    remote.write_all(b"answer").unwrap();
    assert_eq!(plugin.bytes(7), b"?answer");
}
