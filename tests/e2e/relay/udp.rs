//! UDP: sizes, boundaries, other senders, and the end of a connection.

use std::net::UdpSocket;
use std::time::{Duration, Instant};

use testkit::device::UdpEcho;
use testkit::plugin::Plugin;
use testkit::random::Random;

use crate::support::{LIMIT, StatClient, configured, started, stays_quiet};

/// The largest payload over IPv4: 65535 bytes minus the IP and UDP headers.
const LARGEST: usize = 65_507;
const SIZES: [usize; 10] = [1, 2, 125, 1472, 2047, 2048, 2049, 9000, 65_506, LARGEST];

/// A plugin connected to this address over UDP.
#[track_caller]
fn udp(daemon: &testkit::daemon::Daemon, to: std::net::SocketAddr, options: &str) -> Plugin {
    let mut plugin = daemon.plugin();
    let pid = plugin.conn(to, &format!("PRTO=udp {options}"));
    assert_eq!(pid, plugin.pid());
    plugin
}

/// A device that the test drives.
fn manual() -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(LIMIT)).unwrap();
    socket
}

/// Receives a datagram; returns it and its sender.
#[track_caller]
fn receive(socket: &UdpSocket) -> (Vec<u8>, std::net::SocketAddr) {
    let mut buffer = vec![0; 65_536];
    let (length, from) = socket.recv_from(&mut buffer).expect("a datagram");
    (buffer[..length].to_vec(), from)
}

#[test]
fn datagrams_of_every_size_pass_whole_in_both_directions() {
    let daemon = started();
    let device = manual();
    let mut plugin = udp(&daemon, device.local_addr().unwrap(), "");
    for size in SIZES {
        // RAW: the bytes of one read are one datagram. One send on loopback is one read if the buffer is large enough.
        let data = Random::new(size as u64).bytes(size);
        plugin.send(&data);
        let (mut received, proxy) = receive(&device);
        while received.len() < size {
            received.extend(receive(&device).0);
        }
        assert!(received == data, "{size} bytes to the device");
        device.send_to(&data, proxy).unwrap();
        assert!(plugin.bytes(size) == data, "{size} bytes to the plugin");
    }
}

#[test]
fn mesg_keeps_the_largest_datagrams_whole() {
    let daemon = started();
    let device = manual();
    let address = device.local_addr().unwrap();
    let mut plugin = udp(&daemon, address, "FRAM=MESG");
    for size in SIZES.into_iter().chain([0]) {
        let data = Random::new(size as u64).bytes(size);
        plugin.send(&[format!("BINA {size}\n").as_bytes(), &data].concat());
        let (received, proxy) = receive(&device);
        assert!(received == data, "{size} bytes to the device, {} received", received.len());
        device.send_to(&data, proxy).unwrap();
        assert_eq!(plugin.line(), format!("DGRM {size} {address}"));
        assert!(plugin.bytes(size) == data, "{size} bytes to the plugin");
    }
}

#[test]
fn raw_joins_datagrams_and_mesg_keeps_them_apart() {
    let daemon = started();
    let device = manual();
    let address = device.local_addr().unwrap();
    let mut raw = udp(&daemon, address, "FRAM=RAW");
    let mut mesg = udp(&daemon, address, "FRAM=MESG");
    raw.send(b"raw");
    let (_, raw_proxy) = receive(&device);
    mesg.send(b"TEXT 4\nmesg");
    let (_, mesg_proxy) = receive(&device);
    for word in [&b"m1"[..], b"m2", b"", b"m\n3"] {
        device.send_to(word, raw_proxy).unwrap();
        device.send_to(word, mesg_proxy).unwrap();
    }
    assert_eq!(raw.bytes(7), b"m1m2m\n3");
    for word in ["m1", "m2", "", "m\n3"] {
        assert_eq!(mesg.line(), format!("DGRM {} {address}", word.len()));
        assert_eq!(mesg.bytes(word.len()), word.as_bytes());
    }
    assert!(raw.is_quiet() && mesg.is_quiet());
}

#[test]
fn answers_from_any_sender_are_accepted() {
    let daemon = started();
    let (device, other_sender) = (manual(), manual());
    let mut raw = udp(&daemon, device.local_addr().unwrap(), "");
    let mut mesg = udp(&daemon, device.local_addr().unwrap(), "FRAM=MESG");
    raw.send(b"who is there?");
    let (_, to_raw) = receive(&device);
    mesg.send(b"TEXT 13\nwho is there?");
    let (_, to_mesg) = receive(&device);
    other_sender.send_to(b"me", to_raw).unwrap();
    assert_eq!(raw.bytes(2), b"me");
    other_sender.send_to(b"me", to_mesg).unwrap();
    assert_eq!(mesg.line(), format!("DGRM 2 {}", other_sender.local_addr().unwrap()));
    assert_eq!(mesg.bytes(2), b"me");
}

#[test]
fn a_closed_port_does_not_end_the_connection() {
    let daemon = started();
    let device = manual();
    let address = device.local_addr().unwrap();
    drop(device);
    let mut plugin = udp(&daemon, address, "FRAM=MESG");
    for _ in 0..3 {
        plugin.send(b"TEXT 5\nhello");
    }
    assert!(stays_quiet(plugin.stream(), Duration::from_millis(300)), "an ICMP refusal has ended the connection");
    let device = UdpSocket::bind(address).unwrap();
    device.set_read_timeout(Some(LIMIT)).unwrap();
    plugin.send(b"TEXT 5\nhello");
    assert_eq!(receive(&device).0, b"hello");
}

#[test]
fn ipv6_and_names() {
    let daemon = started();
    let device = manual();
    let mut plugin = daemon.plugin();
    plugin.conn(format!("localhost:{}", device.local_addr().unwrap().port()), "PRTO=UDP");
    plugin.send(b"by name");
    assert_eq!(receive(&device).0, b"by name");
    let Ok(v6) = UdpSocket::bind("[::1]:0") else {
        println!("skipped: this machine has no IPv6");
        return;
    };
    v6.set_read_timeout(Some(LIMIT)).unwrap();
    let address = v6.local_addr().unwrap();
    let mut plugin = udp(&daemon, address, "FRAM=MESG");
    plugin.send(b"BINA 2\nv6");
    let (received, proxy) = receive(&v6);
    assert_eq!(received, b"v6");
    v6.send_to(b"back", proxy).unwrap();
    assert_eq!(plugin.line(), format!("DGRM 4 {address}"));
    assert_eq!(plugin.bytes(4), b"back");
}

#[test]
fn impossible_ports_are_reported_as_refused() {
    let daemon = started();
    for port in ["0", "99999"] {
        let answer = daemon.plugin().command(&format!("CONN 127.0.0.1:{port} PRTO=udp"));
        assert_eq!(answer, "ERR CONN connection refused");
    }
}

#[test]
fn the_end_of_the_plugin_ends_the_connection() {
    let daemon = configured("[limits]\nhalfclose=1\n");
    let device = UdpEcho::start();
    let mut stat = StatClient::new(daemon.addr());
    drop(udp(&daemon, device.addr(), ""));
    stat.wait_connections(0);
    udp(&daemon, device.addr(), "").reset();
    stat.wait_connections(0);
}

#[test]
fn answers_reach_a_plugin_that_has_sent_fin() {
    let daemon = configured("[limits]\nhalfclose=2\n");
    let device = manual();
    let mut plugin = udp(&daemon, device.local_addr().unwrap(), "FRAM=LINE");
    plugin.send(b"M-SEARCH\n");
    plugin.finish();
    let (received, proxy) = receive(&device);
    assert_eq!(received, b"M-SEARCH");
    for _ in 0..2 {
        device.send_to(b"found", proxy).unwrap();
        assert_eq!(plugin.line(), "found");
    }
    let start = Instant::now();
    assert!(plugin.at_end());
    assert!(start.elapsed() >= Duration::from_millis(1900), "{:?}", start.elapsed());
}

#[test]
fn a_flood_takes_bounded_memory_and_delays_no_other_connection() {
    let daemon = started();
    let device = manual();
    let plugin = {
        let mut plugin = udp(&daemon, device.local_addr().unwrap(), "FRAM=MESG");
        plugin.send(b"BINA 1\nx");
        plugin
    };
    let (_, proxy) = receive(&device);
    let before = if crate::support::emulated() { 0 } else { daemon.memory().rss };
    // The plugin reads nothing, so datagrams that do not fit are dropped.
    let datagram = vec![7; 60_000];
    for at in 0..2000 {
        device.send_to(&datagram, proxy).unwrap();
        if at % 500 == 0 {
            assert!(daemon.plugin().command("CAPA").starts_with("OK CAPA"));
        }
    }
    let shown = StatClient::new(daemon.addr()).connection(plugin.pid()).unwrap();
    assert!(shown["buffered"].as_u64().unwrap() <= 70_000, "{shown}");
    if !crate::support::emulated() {
        let grown = daemon.memory().rss.saturating_sub(before);
        assert!(grown < 2048, "120 MB of datagrams took {grown} kB");
    }
}
