//! The devices, with direct connections.

use super::*;
use std::net::UdpSocket;

const LONG: Duration = Duration::from_secs(20);

fn connect(device: &Device) -> TcpStream {
    let stream = TcpStream::connect(device.addr()).unwrap();
    stream.set_read_timeout(Some(LONG)).unwrap();
    stream
}

fn read_all(mut stream: &TcpStream) -> Vec<u8> {
    let mut out = Vec::new();
    stream.read_to_end(&mut out).unwrap();
    out
}

#[test]
fn echo_sends_back_everything_and_ends_its_stream() {
    let device = Device::start(Kind::Echo);
    let stream = connect(&device);
    let data = Random::new(1).bytes(300_000);
    let sending = stream.try_clone().unwrap();
    let copy = data.clone();
    let sender = thread::spawn(move || {
        (&sending).write_all(&copy).unwrap();
        sending.shutdown(Shutdown::Write).unwrap();
    });
    assert!(read_all(&stream) == data);
    sender.join().unwrap();
    assert!(device.wait_finished(1, LONG));
    assert_eq!(device.received(), Checksum::of(&data));
}

#[test]
fn source_sends_its_bytes_and_sink_checksums_them() {
    let source = Device::start(Kind::Source { bytes: 200_001, seed: 9 });
    let sink = Device::start(Kind::Sink);
    let data = read_all(&connect(&source));
    assert!(data == Random::new(9).bytes(200_001));
    connect(&sink).write_all(&data).unwrap();
    assert_eq!(sink.wait_received(200_001, LONG), Checksum::of(&data));
}

#[test]
fn silent_sends_only_what_is_pushed() {
    let device = Device::start(Kind::Silent);
    let mut stream = connect(&device);
    assert!(device.wait_accepted(1, LONG));
    stream.set_nonblocking(true).unwrap();
    let mut buf = [0u8; 8];
    assert_eq!(stream.read(&mut buf).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    stream.set_nonblocking(false).unwrap();
    assert_eq!(device.push(b"now"), 1);
    assert_eq!(stream.read(&mut buf).unwrap(), 3);
    device.close_all();
    assert_eq!(stream.read(&mut buf).unwrap(), 0);
}

#[test]
fn ticking_sends_lines() {
    let device = Device::start(Kind::Ticking(Duration::from_millis(5)));
    let mut stream = connect(&device);
    let mut got = [0u8; 14];
    stream.read_exact(&mut got).unwrap();
    assert_eq!(&got, b"tick 1\ntick 2\n");
}

#[test]
fn a_manual_connection_belongs_to_the_test() {
    let device = Device::start(Kind::Manual);
    let mut stream = connect(&device);
    let mut remote = device.accept(LONG);
    remote.write_all(b"hello").unwrap();
    drop(remote);
    assert_eq!(read_all(&stream), b"hello");
    assert!(device.try_accept(Duration::from_millis(1)).is_none());

    stream = connect(&device);
    let remote = device.accept(LONG);
    reset(&remote);
    drop(remote);
    let error = stream.read(&mut [0u8; 1]).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
}

#[test]
fn reset_all_resets_connections_that_are_being_read() {
    for kind in [Kind::Silent, Kind::Sink] {
        let device = Device::start(kind.clone());
        let mut stream = connect(&device);
        assert!(device.wait_accepted(1, LONG));
        device.reset_all();
        let error = stream.read(&mut [0u8; 1]).expect_err("an end instead of a reset");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "{kind:?}");
    }
}

#[test]
fn udp_echo_keeps_datagram_boundaries() {
    let device = UdpEcho::start();
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.set_read_timeout(Some(LONG)).unwrap();
    let mut buf = [0u8; 100];
    for data in [&b"one"[..], b"", b"three"] {
        client.send_to(data, device.addr()).unwrap();
        let (n, from) = client.recv_from(&mut buf).unwrap();
        assert_eq!((&buf[..n], from), (data, device.addr()));
    }
    let seen = device.wait_received(3, LONG);
    assert_eq!(seen[2], (b"three".to_vec(), client.local_addr().unwrap()));
    device.send_to(b"own", client.local_addr().unwrap());
    assert_eq!(client.recv_from(&mut buf).unwrap().0, 3);
}
