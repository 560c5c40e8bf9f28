//! The closing handshake, control frames, and memory limits.

use std::time::Duration;

use testkit::websocket::{BINARY, CLOSE, CONTINUATION, PING, PONG, Server, TEXT, close_of, frame_of};

use crate::support::{
    LIMIT, configured, emulated, read_close_code, read_frame, read_message, read_message_text,
    send_last_messages_and_reset, send_message, started, stays_quiet, websocket_connected, with_luup,
};

#[test]
fn the_plugins_clos_is_answered() {
    let (luup, daemon) = with_luup("");
    for (clos, payload) in [
        (&b"CLOS 1000 3\nbye"[..], close_of(1000, "bye")),
        (b"CLOS 4999 0\n", close_of(4999, "")),
        (b"CLOS 1005 0\n", vec![]),
    ] {
        luup.clear_requests();
        let (mut plugin, mut peer) = websocket_connected(&daemon, "NTFY=5/s/a/p");
        plugin.send(clos);
        assert_eq!(read_frame(&mut peer), (CLOSE, payload.clone()));
        peer.send_frame(TEXT, b"still here").unwrap();
        peer.send_frame(CLOSE, &payload).unwrap();
        assert_eq!(read_message_text(&mut plugin), "TEXT still here");
        let (verb, _) = read_message(&mut plugin);
        assert_eq!(verb.as_bytes(), &clos[..9]);
        assert!(plugin.at_end());
        peer.end().unwrap();
        luup.wait_for(1, LIMIT);
    }
}

#[test]
fn the_remotes_close_is_reported_and_answered() {
    let daemon = started();
    for (payload, expected) in [
        (close_of(1000, "bye"), "CLOS 1000 bye"),
        (close_of(4999, ""), "CLOS 4999 "),
        (close_of(1012, "grüß"), "CLOS 1012 grüß"),
        (vec![], "CLOS 1005 "),
    ] {
        let (mut plugin, mut peer) = websocket_connected(&daemon, "");
        peer.send_frame(CLOSE, &payload).unwrap();
        assert_eq!(read_message_text(&mut plugin), expected);
        assert!(plugin.at_end());
        let (opcode, answer) = read_frame(&mut peer);
        assert_eq!((opcode, answer.get(..2)), (CLOSE, payload.get(..2)), "{expected}");
        peer.end().unwrap();
    }
}

#[test]
fn an_end_without_close_frame_is_1006() {
    let daemon = started();
    let (mut plugin, mut peer) = websocket_connected(&daemon, "");
    peer.send_frame(TEXT, b"last").unwrap();
    peer.send_fragment(TEXT, b"half").unwrap();
    drop(peer);
    assert_eq!(read_message_text(&mut plugin), "TEXT last");
    assert_eq!(read_message(&mut plugin).0, "CLOS 1006");
    assert!(plugin.at_end());
}

#[test]
fn the_plugins_end_is_1001() {
    let daemon = started();
    let (mut plugin, mut peer) = websocket_connected(&daemon, "");
    send_message(&mut plugin, "TEXT", b"last");
    plugin.finish();
    assert_eq!(read_frame(&mut peer), (TEXT, b"last".to_vec()));
    assert_eq!(read_frame(&mut peer), (CLOSE, close_of(1001, "")));
    let (plugin, mut peer) = websocket_connected(&daemon, "");
    plugin.reset();
    assert_eq!(read_frame(&mut peer), (CLOSE, close_of(1001, "")));
}

#[test]
fn messages_before_the_plugins_reset_are_sent() {
    let daemon = started();
    let (plugin, mut peer) = websocket_connected(&daemon, "");
    send_last_messages_and_reset(&daemon, plugin, &mut peer);
}

#[test]
fn an_unanswered_close_times_out() {
    let daemon = started();
    let (mut plugin, mut peer) = websocket_connected(&daemon, "");
    plugin.send(b"CLOS 1000 0\n");
    assert_eq!(read_frame(&mut peer).0, CLOSE);
    assert_eq!(read_message(&mut plugin).0, "CLOS 1006");
    assert!(plugin.at_end());
    assert_eq!(peer.rest().unwrap_or_default(), b"");
}

#[test]
fn rfc_6455_violations_by_the_remote_are_1002_1007_or_1009() {
    let daemon = started();
    for (frames, code) in [
        (frame_of(0xc0 | TEXT, b"hi"), 1002),
        (frame_of(0xa0 | TEXT, b"hi"), 1002),
        (frame_of(0x83, b"hi"), 1002),
        (frame_of(PING, b"hi"), 1002),
        (frame_of(0x80 | PING, &[0; 126]), 1002),
        (frame_of(0x80 | CONTINUATION, b"hi"), 1002),
        ([frame_of(TEXT, b"a"), frame_of(0x80 | TEXT, b"b")].concat(), 1002),
        (b"\x81\x82abcd\x00\x00".to_vec(), 1002),
        (b"\x81\x7e\x00\x05hello".to_vec(), 1002),
        (frame_of(0x80 | CLOSE, b"x"), 1002),
        (frame_of(0x80 | CLOSE, &close_of(1006, "")), 1002),
        (frame_of(0x80 | TEXT, b"\xc0\x80"), 1007),
        (frame_of(0x80 | TEXT, b"\xc3"), 1007),
        (frame_of(0x80 | BINARY, &[0; 1001]), 1009),
        ([frame_of(BINARY, &[0; 600]), frame_of(0x80, &[0; 600])].concat(), 1009),
    ] {
        let (mut plugin, mut peer) = websocket_connected(&daemon, "MAXM=1000");
        peer.send(&frames).unwrap();
        assert_eq!(read_message(&mut plugin).0, format!("CLOS {code}"), "{frames:x?}");
        assert!(plugin.at_end());
        assert_eq!(read_close_code(&mut peer), code, "{frames:x?}");
    }
}

/// websockets#1202: a device that closes with a code that no frame may have. The plugin may need what it says.
#[test]
fn an_invalid_close_shows_its_code_and_reason() {
    let daemon = started();
    for (payload, expected) in [
        (close_of(1006, ""), "CLOS 1002 invalid close code: 1006"),
        (close_of(2001, "low battery"), "CLOS 1002 invalid close code: 2001 low battery"),
        (close_of(0, "going to sleep"), "CLOS 1002 invalid close code: 0 going to sleep"),
        (
            [&close_of(1000, "gr")[..], b"\xfc\xdf"].concat(),
            "CLOS 1007 close reason is not UTF-8: 1000 gr\u{fffd}\u{fffd}",
        ),
    ] {
        let (mut plugin, mut peer) = websocket_connected(&daemon, "");
        peer.send_frame(CLOSE, &payload).unwrap();
        assert_eq!(read_message_text(&mut plugin), expected);
        assert!(plugin.at_end());
        assert_eq!(read_close_code(&mut peer).to_string(), expected[5..9]);
    }
    let line = "remote broke the protocol (invalid close code: 2001 low battery)";
    daemon.wait_for_log(LIMIT, |logged| logged.contains(line));
}

#[test]
fn a_message_of_maxm_bytes_passes() {
    let daemon = started();
    let (mut plugin, mut peer) = websocket_connected(&daemon, "MAXM=1000");
    peer.send_frame(BINARY, &[7; 1000]).unwrap();
    assert_eq!(read_message(&mut plugin), ("BINA".into(), vec![7; 1000]));
}

#[test]
fn ctrl_selects_whether_the_proxy_or_the_plugin_answers_pings() {
    let daemon = started();
    for (options, shows, answers) in [("", false, true), ("CTRL=show", true, true), ("CTRL=hand", true, false)] {
        let (mut plugin, mut peer) = websocket_connected(&daemon, options);
        peer.send_frame(PING, b"are you there").unwrap();
        peer.send_frame(PONG, b"unasked").unwrap();
        peer.send_frame(TEXT, b"end").unwrap();
        if shows {
            assert_eq!(read_message_text(&mut plugin), "PING are you there", "{options}");
            assert_eq!(read_message_text(&mut plugin), "PONG unasked", "{options}");
        }
        assert_eq!(read_message_text(&mut plugin), "TEXT end", "{options}");
        if answers {
            assert_eq!(read_frame(&mut peer), (PONG, b"are you there".to_vec()), "{options}");
        } else {
            send_message(&mut plugin, "PONG", b"by hand");
            assert_eq!(read_frame(&mut peer), (PONG, b"by hand".to_vec()));
        }
        // The pong to a plugin's own ping is always passed on.
        send_message(&mut plugin, "PING", b"mine");
        assert_eq!(read_frame(&mut peer), (PING, b"mine".to_vec()));
        peer.send_frame(PONG, b"mine").unwrap();
        assert_eq!(read_message_text(&mut plugin), "PONG mine", "{options}");
    }
}

#[test]
fn pngi_pings_a_silent_remote_and_then_ends_the_connection() {
    let daemon = started();
    let (mut plugin, mut peer) = websocket_connected(&daemon, "PNGI=1");
    for _ in 0..3 {
        let (opcode, payload) = read_frame(&mut peer);
        assert_eq!(opcode, PING);
        peer.send_frame(PONG, &payload).unwrap();
    }
    peer.send_frame(TEXT, b"alive").unwrap();
    assert_eq!(read_message_text(&mut plugin), "TEXT alive", "pongs to these pings are not passed on");
    assert_eq!(read_message(&mut plugin).0, "CLOS 1006");
    assert!(plugin.at_end());
}

#[test]
fn rtim_ends_a_connection_with_a_silent_remote() {
    let daemon = started();
    let (mut plugin, mut peer) = websocket_connected(&daemon, "RTIM=2000");
    // Longer than RTIM in total.
    for _ in 0..3 {
        assert!(stays_quiet(plugin.stream(), Duration::from_millis(700)));
        peer.send_frame(PONG, b"").unwrap();
    }
    assert_eq!(read_message(&mut plugin).0, "CLOS 1006");
    assert!(plugin.at_end());
}

/// A decompression bomb: 1 MiB of zeros in one message of about 1 KiB.
fn bomb() -> Vec<u8> {
    // One fixed block (RFC 1951): a literal 0, then 4064 copies of 258 bytes at distance 1, then its end. Bits are
    // packed from the lowest on, Huffman codes from their highest.
    let mut bits: Vec<bool> = vec![false, true, false];
    let mut code = |value: u32, length: u32| bits.extend((0..length).rev().map(|at| value >> at & 1 == 1));
    code(0b0011_0000, 8);
    for _ in 0..4064 {
        code(0b1100_0101, 8);
        code(0, 5);
    }
    code(0, 7);
    // An empty stored block follows, of which only the header is sent.
    bits.extend([false; 3]);
    bits.chunks(8).map(|byte| byte.iter().enumerate().fold(0, |sum, (at, bit)| sum | u8::from(*bit) << at)).collect()
}

#[test]
fn rfc_7692_a_decompression_bomb_is_inflated_up_to_maxm() {
    let daemon = started();
    for (options, fits) in [("DEFL=on MAXM=2000000", true), ("DEFL=on MAXM=100000", false)] {
        let server = Server::start(|mut peer| {
            peer.upgrade_with(&["Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover"])?;
            peer.send(&frame_of(0xc0 | BINARY, &bomb()))?;
            peer.echo()
        });
        let mut plugin = daemon.plugin();
        plugin.conn(server.url("/"), options);
        let (verb, body) = read_message(&mut plugin);
        if fits {
            assert_eq!((&*verb, body.len()), ("BINA", 1 + 4064 * 258));
            assert!(body.iter().all(|byte| *byte == 0));
        } else {
            assert_eq!(verb, "CLOS 1009");
        }
    }
}

#[test]
fn a_plugin_that_does_not_read_applies_backpressure() {
    let daemon = configured("");
    let server = Server::start(|mut peer| {
        peer.upgrade()?;
        let frame = frame_of(0x80 | BINARY, &vec![1; 60_000]);
        // A gigabyte, or as much as the sockets take.
        for _ in 0..1_000_000_000 / 60_000 {
            peer.send(&frame)?;
        }
        peer.end()
    });
    let mut plugin = daemon.plugin();
    plugin.conn(server.url("/"), "");
    let (verb, _) = read_message(&mut plugin);
    assert_eq!(verb, "BINA");
    let before = daemon.memory().rss;
    crate::support::wait_quietly(&daemon, Duration::from_secs(1));
    if !emulated() {
        let grown = daemon.memory().rss.saturating_sub(before);
        assert!(grown < 4096, "{grown} KiB more");
    }
    // Other connections do not wait.
    let (mut other, mut peer) = websocket_connected(&daemon, "");
    peer.send_frame(TEXT, b"hi").unwrap();
    assert_eq!(read_message_text(&mut other), "TEXT hi");
    for _ in 0..100 {
        assert_eq!(read_message(&mut plugin), ("BINA".into(), vec![1; 60_000]));
    }
}
