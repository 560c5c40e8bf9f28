//! How connections end: each side is told, once.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener};
use std::time::Duration;

use nix::sys::signal::Signal;
use socket2::SockRef;
use testkit::device::{Device, Kind};
use testkit::websocket::{BINARY, CLOSE, PING, PONG, Peer, TEXT, close_of, masked_frame_of};

use super::Served;
use crate::support::{LIMIT, StatClient, accepted, ends, read_close_code, read_frame, stays_quiet};

/// Regression: the client had no turn while the target was lost, so a ping that was due kept the loop from sleeping; and the client was
/// closed with 1011, since EVNT is no frame.
#[test]
fn with_heal_the_end_of_the_target_is_none_for_the_client() {
    let target = TcpListener::bind("127.0.0.1:0").unwrap();
    let served = Served::start(&[format!("/a PNGI=1 CONN ws://{}/ HEAL=60", target.local_addr().unwrap())]);
    let accept = || {
        let (stream, _) = target.accept().unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        let mut remote = Peer::new(stream);
        remote.upgrade().unwrap();
        remote
    };
    let mut client = served.requested("/a", &[]);
    let mut remote = accept();
    assert_eq!(client.request().unwrap().line, "HTTP/1.1 101 Switching Protocols");
    remote.send_frame(TEXT, b"one").unwrap();
    assert_eq!(read_frame(&mut client), (TEXT, b"one".to_vec()));
    drop(remote);
    // Until the target answers, the proxy stays disconnected.
    let (opcode, payload) = read_frame(&mut client);
    assert_eq!(opcode, PING);
    client.send_masked(PONG, &payload).unwrap();
    client.send_masked(TEXT, b"two").unwrap();
    let mut remote = accept();
    assert_eq!(read_frame(&mut remote), (TEXT, b"two".to_vec()));
    remote.send_frame(TEXT, b"three").unwrap();
    let next = std::iter::repeat_with(|| read_frame(&mut client)).find(|(opcode, _)| *opcode != PING);
    assert_eq!(next, Some((TEXT, b"three".to_vec())));
}

#[test]
fn the_end_of_the_target_is_a_close_frame_with_1000_behind_everything() {
    let device = Device::start(Kind::Manual);
    let served = Served::start(&[format!("/a CONN {}", device.addr())]);
    let mut client = served.opened("/a");
    let mut remote = accepted(&device);
    remote.write_all(b"last").unwrap();
    remote.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_frame(&mut client), (BINARY, b"last".to_vec()));
    assert_eq!(read_frame(&mut client), (CLOSE, close_of(1000, "")));
    // What the client sends before it answers still arrives.
    client.send_masked(TEXT, b"answer").unwrap();
    client.send_masked(CLOSE, &close_of(1000, "")).unwrap();
    let mut rest = Vec::new();
    remote.read_to_end(&mut rest).unwrap();
    assert_eq!(rest, b"answer");
    assert_eq!(client.rest().unwrap(), b"", "one close frame, then the end");
    StatClient::new(served.daemon.addr()).wait_connections(0);
}

#[test]
fn a_target_that_breaks_off_is_a_close_frame_with_1011() {
    let device = Device::start(Kind::Manual);
    let served = Served::start(&[format!("/a CONN {}", device.addr()), format!("/b CONN {} RTIM=300", device.addr())]);
    let mut client = served.opened("/a");
    let remote = accepted(&device);
    SockRef::from(&remote).set_linger(Some(Duration::ZERO)).unwrap();
    drop(remote);
    assert_eq!(read_frame(&mut client), (CLOSE, close_of(1011, "the connection to the target was lost")));
    client.send_masked(CLOSE, &close_of(1011, "")).unwrap();
    assert_eq!(client.rest().unwrap(), b"");
    let mut client = served.opened("/b");
    let _remote = accepted(&device);
    assert_eq!(read_frame(&mut client), (CLOSE, close_of(1011, "the target was silent for too long")));
}

#[test]
fn a_browser_that_closes_or_vanishes_ends_the_target_s_stream() {
    let device = Device::start(Kind::Manual);
    let served = Served::start(&[format!("/a CONN {}", device.addr())]);
    for way in 0..3 {
        let mut client = served.opened("/a");
        let mut remote = accepted(&device);
        client.send_masked(BINARY, b"last").unwrap();
        match way {
            0 => client.send_masked(CLOSE, b"").unwrap(),
            1 => client.stream().shutdown(Shutdown::Write).unwrap(),
            _ => {
                crate::support::wait_until_acknowledged(client.stream());
                SockRef::from(client.stream()).set_linger(Some(Duration::ZERO)).unwrap();
            }
        }
        if way == 0 {
            assert_eq!(read_frame(&mut client), (CLOSE, Vec::new()));
            assert_eq!(client.rest().unwrap(), b"", "the server ends the connection first");
        }
        if way < 2 {
            let mut last = [0; 4];
            remote.read_exact(&mut last).unwrap();
            assert_eq!(&last, b"last");
        } else {
            drop(client);
            remote.read_exact(&mut [0; 4]).ok();
        }
        assert!(ends(&remote), "way {way}");
        drop(remote);
        StatClient::new(served.daemon.addr()).wait_connections(0);
    }
}

#[test]
fn violations_of_the_protocol_have_their_codes() {
    let device = Device::start(Kind::Manual);
    let served = Served::start(&[format!("/a CONN {}", device.addr())]);
    let unmasked = testkit::websocket::frame_of(0x82, b"x");
    for (bytes, code) in [
        (unmasked, 1002),
        (masked_frame_of(0x83, b"x"), 1002),
        (masked_frame_of(0xc2, b"x"), 1002),
        (masked_frame_of(0x81, b"\xff"), 1007),
        (masked_frame_of(0x88, &close_of(1005, "")), 1002),
        (masked_frame_of(0x88, &close_of(1000, "")[..1]), 1002),
    ] {
        let mut client = served.opened("/a");
        let mut remote = accepted(&device);
        client.send_masked(BINARY, b"before").unwrap();
        client.send(&bytes).unwrap();
        assert_eq!(read_close_code(&mut client), code);
        assert_eq!(client.rest().unwrap(), b"", "{code}: told once, and the connection ends");
        let mut received = Vec::new();
        remote.read_to_end(&mut received).unwrap();
        assert_eq!(received, b"before", "{code}");
    }
}

#[test]
fn pings_are_answered_and_a_browser_that_answers_none_is_lost() {
    let device = Device::start(Kind::Manual);
    let served = Served::start(&[format!("/a PNGI=0.3 CONN {}", device.addr()), format!("/b CONN {}", device.addr())]);
    let mut client = served.opened("/a");
    let remote = accepted(&device);
    client.send_masked(PING, b"there?").unwrap();
    assert_eq!(read_frame(&mut client), (PONG, b"there?".to_vec()));
    for _ in 0..3 {
        let (opcode, payload) = read_frame(&mut client);
        assert_eq!(opcode, PING);
        assert!(!ends_now(&remote));
        client.send_masked(PONG, &payload).unwrap();
    }
    assert_eq!(read_frame(&mut client).0, PING);
    assert!(ends(&remote), "the browser is lost");
    assert_eq!(client.rest().unwrap(), b"");
    let client = served.opened("/b");
    assert!(stays_quiet(client.stream(), Duration::from_millis(800)), "no ping before half a minute");
}

/// True if the stream has ended by now.
fn ends_now(stream: &std::net::TcpStream) -> bool {
    !stays_quiet(stream, Duration::from_millis(1))
}

#[test]
fn the_end_of_the_daemon_is_a_close_frame_with_1001() {
    let device = Device::start(Kind::Manual);
    let server = testkit::websocket::Server::echo();
    let served = Served::start(&[format!("/a CONN {}", device.addr()), format!("/b CONN {}", server.url("/"))]);
    let (mut client, mut other) = (served.opened("/a"), served.opened("/b"));
    let remote = accepted(&device);
    served.daemon.signal(Signal::SIGTERM);
    assert_eq!(read_frame(&mut client), (CLOSE, close_of(1001, "")));
    client.send_masked(CLOSE, &close_of(1001, "")).unwrap();
    assert_eq!(client.rest().unwrap(), b"");
    assert_eq!(read_frame(&mut other), (CLOSE, close_of(1001, "")));
    assert!(ends(&remote));
}
