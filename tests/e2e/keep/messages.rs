//! KEEP, ATCH and DROP over UDP and WebSocket, and a Luup that restarts a thousand times.

use std::io::Write;
use std::net::UdpSocket;

use testkit::daemon::Daemon;
use testkit::device::{Device, Kind};
use testkit::plugin::Plugin;
use testkit::websocket::{BINARY, CLOSE, Peer, TEXT, close_of};

use crate::support::{
    LIMIT, PID, StatClient, accepted, attached, configured, eventually, read_frame, read_message_text,
    remote_closes_while_parked, send_last_messages_and_reset, started, wait_parked, websocket_connected, with_luup,
};

/// Reads a message in MESG framing; returns its body.
#[track_caller]
fn body(plugin: &mut Plugin) -> String {
    let header = plugin.line();
    let length = header.split(' ').nth(1).unwrap().parse().unwrap();
    String::from_utf8(plugin.bytes(length)).unwrap()
}

/// A plugin on a kept UDP connection, and its device.
#[track_caller]
fn datagrams(daemon: &Daemon, options: &str) -> (Plugin, UdpSocket) {
    let device = UdpSocket::bind("127.0.0.1:0").unwrap();
    device.set_read_timeout(Some(LIMIT)).unwrap();
    let mut plugin = daemon.plugin();
    let options = format!("PRTO=udp {options} KEEP=300 NTFY=5/s/a/{PID}");
    plugin.conn(device.local_addr().unwrap(), &options);
    plugin.send(b"BINA 2\nhi");
    let (length, proxy) = device.recv_from(&mut [0; 100]).unwrap();
    assert!(length >= 2);
    device.connect(proxy).unwrap();
    (plugin, device)
}

#[test]
fn a_kept_udp_connection_goes_on_and_discards_an_incomplete_message() {
    let daemon = started();
    let (mut plugin, device) = datagrams(&daemon, "FRAM=MESG");
    device.send(b"one").unwrap();
    assert_eq!(body(&mut plugin), "one");
    plugin.send(b"BINA 100\nhalf");
    drop(plugin);
    wait_parked(&daemon);
    device.send(b"two").unwrap();
    device.send(b"three").unwrap();
    let mut plugin = attached(&daemon, "SEEN=1");
    assert_eq!((body(&mut plugin), body(&mut plugin)), ("two".into(), "three".into()));
    plugin.send(b"TEXT 5\nagain");
    let mut received = [0; 100];
    assert_eq!(device.recv(&mut received).unwrap(), 5);
    assert_eq!(&received[..5], b"again");
    let mut plugin = attached(&daemon, "SEEN=2");
    assert_eq!(body(&mut plugin), "three");
    plugin.send(b"CLOS 1000 0\n");
    assert!(plugin.at_end());
    drop(plugin);
    StatClient::new(daemon.addr()).wait_connections(0);
    assert_eq!(
        daemon.plugin().command(&format!("ATCH {PID}")),
        "ERR ATCH No such pid",
        "the plugin's CLOS ends the connection"
    );
}

#[test]
fn a_parked_connection_drops_the_oldest_datagrams() {
    let daemon = configured("[limits]\nbuffer=4096\n");
    let (plugin, device) = datagrams(&daemon, "FRAM=MESG");
    drop(plugin);
    wait_parked(&daemon);
    let mut stat = StatClient::new(daemon.addr());
    // One at a time, so that the kernel drops none.
    let mut bytes = 0;
    for number in 0..100 {
        let payload = format!("{number:03}{}", "x".repeat(100));
        bytes += payload.len();
        device.send(payload.as_bytes()).unwrap();
        eventually("the datagram is received", || (stat.connections().first()?["received"] == bytes).then_some(()));
    }
    let mut plugin = attached(&daemon, "");
    let first: usize = body(&mut plugin)[..3].parse().unwrap();
    assert!((50..90).contains(&first), "{first} is the first datagram left");
    for number in first + 1..100 {
        assert_eq!(body(&mut plugin)[..3], format!("{number:03}"), "one of the newest datagrams is missing");
    }
}

/// A plugin on a kept WebSocket, and its peer.
#[track_caller]
fn kept_websocket(daemon: &Daemon, options: &str) -> (Plugin, Peer) {
    websocket_connected(daemon, &format!("KEEP=300 EVNT=on NTFY=5/s/a/{PID} {options}"))
}

#[test]
fn a_websocket_outlives_its_plugin() {
    let (luup, daemon) = with_luup("");
    let (mut plugin, mut peer) = kept_websocket(&daemon, "");
    peer.send_frame(TEXT, b"one").unwrap();
    assert_eq!(read_message_text(&mut plugin), "TEXT one");
    plugin.send(b"TEXT 100\nhalf");
    drop(plugin);
    wait_parked(&daemon);
    peer.send_frame(TEXT, b"two").unwrap();
    peer.send_frame(TEXT, b"three").unwrap();
    let mut plugin = attached(&daemon, "SEEN=0");
    for text in ["TEXT one", "TEXT two", "TEXT three"] {
        assert_eq!(read_message_text(&mut plugin), text);
    }
    plugin.send(b"TEXT 5\nagain");
    assert_eq!(
        read_frame(&mut peer),
        (TEXT, b"again".to_vec()),
        "the incomplete message of the old plugin is discarded"
    );
    drop(plugin);
    remote_closes_while_parked(&luup, &daemon, peer, 3);
    StatClient::new(daemon.addr()).wait_connections(0);
}

/// The bytes that a plugin with `framing` reads for `count` binary messages of `length` bytes without line ends.
fn framed(framing: &str, count: usize, length: usize) -> Vec<u8> {
    let message = match framing {
        "RAW" => vec![b'x'; length],
        "LINE" => [vec![b'x'; length], b"\n".to_vec()].concat(),
        _ => [format!("BINA {length}\n").into_bytes(), vec![b'x'; length]].concat(),
    };
    message.repeat(count)
}

#[test]
fn a_kept_plugin_that_reads_at_once_gets_more_than_is_buffered_for_it() {
    let daemon = started();
    for framing in ["RAW", "LINE", "MESG"] {
        for (count, length) in [(1, 66_000), (1, 200_000), (1000, 1000)] {
            let (mut plugin, mut peer) = kept_websocket(&daemon, &format!("MAXM=1000000 FRAM={framing}"));
            let sender = std::thread::spawn(move || {
                for _ in 0..count {
                    peer.send_frame(BINARY, &vec![b'x'; length]).unwrap();
                }
                peer
            });
            let expected = framed(framing, count, length);
            assert!(plugin.bytes(expected.len()) == expected, "{framing}, {count} messages of {length} bytes");
            assert_eq!(daemon.plugin().command(&format!("DROP {PID}")), "OK DROP");
            drop((plugin, sender.join().unwrap()));
            StatClient::new(daemon.addr()).wait_connections(0);
        }
    }
}

#[test]
fn a_kept_websocket_without_a_plugin_closes_with_a_reason() {
    let daemon = started();
    for command in [Some("DROP"), None] {
        let keep = if command.is_some() { "" } else { "KEEP=0.2" };
        let (plugin, mut peer) = kept_websocket(&daemon, keep);
        drop(plugin);
        if command.is_some() {
            wait_parked(&daemon);
            assert_eq!(daemon.plugin().command(&format!("DROP {PID}")), "OK DROP");
        }
        assert_eq!(read_frame(&mut peer), (CLOSE, close_of(1001, "")));
        peer.send_frame(CLOSE, &close_of(1001, "")).unwrap();
        peer.end().unwrap();
        StatClient::new(daemon.addr()).wait_connections(0);
    }
}

#[test]
fn the_plugins_clos_ends_a_kept_websocket() {
    let daemon = started();
    let (mut plugin, mut peer) = kept_websocket(&daemon, "");
    plugin.send(b"CLOS 1000 3\nbye");
    assert_eq!(read_frame(&mut peer), (CLOSE, close_of(1000, "bye")));
    peer.send_frame(CLOSE, &close_of(1000, "bye")).unwrap();
    assert_eq!(read_message_text(&mut plugin), "CLOS 1000 bye");
    assert!(plugin.at_end());
    drop(plugin);
    peer.end().unwrap();
    StatClient::new(daemon.addr()).wait_connections(0);
    assert_eq!(daemon.plugin().command(&format!("ATCH {PID}")), "ERR ATCH No such pid");
}

#[test]
fn the_plugins_clos_ends_a_kept_websocket_despite_a_reset() {
    let daemon = started();
    let (plugin, mut peer) = kept_websocket(&daemon, "");
    send_last_messages_and_reset(&daemon, plugin, &mut peer);
    peer.send_frame(CLOSE, &close_of(4001, "bye")).unwrap();
    peer.end().unwrap();
    StatClient::new(daemon.addr()).wait_connections(0);
    assert_eq!(daemon.plugin().command(&format!("ATCH {PID}")), "ERR ATCH No such pid");
}

#[test]
fn a_thousand_restarts_of_luup_lose_no_byte_over_tcp() {
    const RESTARTS: u64 = 1000;
    // No more in total than is kept, since the old socket may hold all of it.
    const EACH: usize = 60;
    let daemon = started();
    let device = Device::start(Kind::Manual);
    let mut plugin = daemon.plugin();
    plugin.conn(device.addr(), &format!("KEEP=300 NTFY=-1/s/a/{PID}"));
    let mut remote = accepted(&device);
    let mut random = testkit::random::Random::new(11);
    let talker = std::thread::spawn(move || {
        let mut random = testkit::random::Random::new(12);
        for _ in 0..RESTARTS {
            remote.write_all(&random.bytes(EACH)).unwrap();
        }
        remote
    });
    let (all, mut seen) = (RESTARTS as usize * EACH, 0);
    let mut checker = testkit::random::Checker::new(12);
    for restart in 0..RESTARTS {
        // The plugin reads a part, then closes, resets, or leaves its socket open.
        let max = (all - seen) / (RESTARTS - restart) as usize;
        let wanted = random.below(max as u64 + 1) as usize;
        let read = plugin.bytes(wanted);
        assert!(checker.check(&read), "after {seen} bytes");
        seen += read.len();
        let old = plugin;
        plugin = daemon.plugin();
        let mut kept_open = None;
        match random.below(3) {
            0 => drop(old),
            1 => old.reset(),
            _ => kept_open = Some(old),
        }
        assert_eq!(plugin.command(&format!("ATCH {PID} SEEN={seen}")), format!("OK ATCH {PID}"), "{restart}");
        drop(kept_open);
    }
    let rest = plugin.bytes(all - seen);
    assert!(checker.check(&rest));
    let mut remote = talker.join().unwrap();
    plugin.send(b"done");
    let mut received = [0; 4];
    std::io::Read::read_exact(&mut remote, &mut received).unwrap();
    assert_eq!(&received, b"done");
    StatClient::new(daemon.addr()).wait_connections(1);
}

#[test]
fn a_thousand_restarts_of_luup_lose_no_message_over_websocket() {
    const RESTARTS: u64 = 1000;
    let daemon = started();
    let (mut plugin, mut peer) = kept_websocket(&daemon, "");
    let talker = std::thread::spawn(move || {
        for number in 0..RESTARTS {
            peer.send_frame(TEXT, format!("message {number}").as_bytes()).unwrap();
        }
        peer
    });
    let mut random = testkit::random::Random::new(21);
    let mut seen = 0;
    for restart in 0..RESTARTS {
        for _ in 0..random.below(3) {
            if seen < RESTARTS {
                assert_eq!(read_message_text(&mut plugin), format!("TEXT message {seen}"), "restart {restart}");
                seen += 1;
            }
        }
        plugin = attached(&daemon, &format!("SEEN={seen}"));
    }
    while seen < RESTARTS {
        assert_eq!(read_message_text(&mut plugin), format!("TEXT message {seen}"));
        seen += 1;
    }
    plugin.send(b"TEXT 4\ndone");
    assert_eq!(read_frame(&mut talker.join().unwrap()), (TEXT, b"done".to_vec()));
}

/// RAW shows no boundaries, so a plugin that reads from the middle of a datagram on cannot know it.
#[test]
fn a_raw_udp_plugin_that_comes_back_begins_with_a_whole_datagram() {
    let daemon = started();
    let (mut plugin, device) = datagrams(&daemon, "FRAM=RAW");
    let mut stat = StatClient::new(daemon.addr());
    let mut received = || stat.connections().first().and_then(|shown| shown["received"].as_u64()).unwrap_or(0);
    let datagram = |number: usize| format!("<{number:06}>{}", "x".repeat(20_000));
    device.send(datagram(0).as_bytes()).unwrap();
    assert_eq!(plugin.bytes(datagram(0).len()), datagram(0).as_bytes());
    // The plugin's socket fills up, until it holds a part of a datagram and the proxy takes no further ones.
    let (mut number, mut before, mut unchanged) = (1, 0, 0);
    eventually("the plugin's socket is full", || {
        device.send(datagram(number).as_bytes()).unwrap();
        number += 1;
        let now = received();
        unchanged = if now == before { unchanged + 1 } else { 0 };
        before = now;
        (unchanged == 20).then_some(())
    });
    drop(plugin);
    wait_parked(&daemon);
    let mut plugin = attached(&daemon, "");
    let first = String::from_utf8(plugin.bytes(8)).unwrap();
    let number: usize = first.trim_matches(['<', '>']).parse().unwrap_or_else(|_| panic!("half a datagram: {first}"));
    assert!(number > 1, "{number}");
    let rest = datagram(number)[8..].to_owned();
    assert!(plugin.bytes(rest.len()) == rest.as_bytes(), "the rest of {number}");
    // A plugin that counts its bytes goes on where it has stopped, in the middle of a datagram.
    drop(plugin);
    wait_parked(&daemon);
    let mut plugin = attached(&daemon, "SEEN=8");
    assert!(plugin.bytes(rest.len()) == rest.as_bytes(), "the rest of {number}");
}
