//! UDP.

use std::net::UdpSocket;

use testkit::device::UdpEcho;

use crate::support::{LIMIT, started};

#[test]
fn a_datagram_above_2048_bytes_is_not_truncated() {
    let daemon = started();
    let device = UdpEcho::start();
    let mut plugin = daemon.plugin();
    plugin.conn(device.addr(), "PRTO=udp");
    plugin.send(b"?");
    assert_eq!(plugin.bytes(1), b"?");
    let (_, proxy) = device.wait_received(1, LIMIT).remove(0);
    let data = testkit::random::Random::new(1).bytes(9000);
    UdpSocket::bind("127.0.0.1:0").unwrap().send_to(&data, proxy).unwrap();
    assert!(plugin.bytes(data.len()) == data);
}

#[test]
fn datagram_boundaries_are_kept() {
    let daemon = started();
    let device = UdpEcho::start();
    let mut plugin = daemon.plugin();
    plugin.conn(device.addr(), "PRTO=udp FRAM=MESG");
    plugin.send(b"TEXT 2\nm1TEXT 2\nm2");
    for word in [b"m1", b"m2"] {
        assert_eq!(plugin.line(), format!("DGRM 2 {}", device.addr()));
        assert_eq!(plugin.bytes(2), word);
    }
}
