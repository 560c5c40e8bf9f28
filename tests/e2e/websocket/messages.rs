//! Messages over WebSocket: MESG, LINE and RAW on the plugin's side, and the frames on the remote's side.

use std::collections::HashSet;
use std::io::Read;
use std::thread;

use testkit::plugin::Plugin;
use testkit::random::{Checksum, Random};
use testkit::websocket::{BINARY, CLOSE, CONTINUATION, Frame, PING, PONG, Peer, Server, TEXT, close_of, frame_of};

use crate::support::{
    LIMIT, configured, eventually, expect_ok, read_close_code, read_frame, read_message, read_message_text,
    send_message, started, websocket_connected, websocket_requested, with_luup,
};

/// Reads a message of any number of frames; returns the first opcode and the whole payload.
#[track_caller]
fn message(peer: &mut Peer) -> (u8, Vec<u8>) {
    let Frame { mut fin, opcode, mut payload, .. } = peer.frame().expect("a frame");
    while !fin {
        let more = peer.frame().expect("a frame");
        assert_eq!(more.opcode, CONTINUATION);
        fin = more.fin;
        payload.extend(more.payload);
    }
    (opcode, payload)
}

#[test]
fn text_and_binary_pass_in_both_directions() {
    let daemon = started();
    let (mut plugin, mut peer) = websocket_connected(&daemon, "");
    send_message(&mut plugin, "TEXT", "grüß dich".as_bytes());
    send_message(&mut plugin, "BINA", b"\0\xff\n");
    send_message(&mut plugin, "TEXT", b"");
    assert_eq!(read_frame(&mut peer), (TEXT, "grüß dich".into()));
    assert_eq!(read_frame(&mut peer), (BINARY, b"\0\xff\n".to_vec()));
    assert_eq!(read_frame(&mut peer), (TEXT, vec![]));
    peer.send_frame(TEXT, "grüß dich".as_bytes()).unwrap();
    peer.send_frame(BINARY, b"\0\xff\n").unwrap();
    peer.send_frame(BINARY, b"").unwrap();
    assert_eq!(read_message_text(&mut plugin), "TEXT grüß dich");
    assert_eq!(read_message(&mut plugin), ("BINA".into(), b"\0\xff\n".to_vec()));
    assert_eq!(read_message(&mut plugin), ("BINA".into(), vec![]));
}

#[test]
fn rfc_6455_section_5_3_every_frame_has_a_mask_of_its_own() {
    let daemon = started();
    let (mut plugin, mut peer) = websocket_connected(&daemon, "");
    let mut masks = HashSet::new();
    for _ in 0..100 {
        send_message(&mut plugin, "TEXT", b"hi");
        masks.insert(peer.frame().unwrap().mask.expect("a mask"));
    }
    send_message(&mut plugin, "PING", b"p");
    masks.insert(peer.frame().unwrap().mask.expect("a mask"));
    plugin.finish();
    masks.insert(peer.frame().unwrap().mask.expect("a mask"));
    assert!(masks.len() > 98, "{} different masks", masks.len());
}

#[test]
fn mask_off_sends_unmasked_frames() {
    let daemon = started();
    let (mut plugin, mut peer) = websocket_connected(&daemon, "MASK=off");
    send_message(&mut plugin, "TEXT", b"plain");
    send_message(&mut plugin, "PING", b"p");
    for payload in [&b"plain"[..], b"p"] {
        let frame = peer.frame().unwrap();
        assert_eq!((frame.mask, &frame.payload[..]), (None, payload));
    }
}

#[test]
fn fragments_of_the_plugin_are_one_message() {
    let daemon = started();
    let (mut plugin, mut peer) = websocket_connected(&daemon, "");
    for (verb, opcode) in [("TEXT", TEXT), ("BINA", BINARY)] {
        send_message(&mut plugin, "FRAG", b"ab");
        send_message(&mut plugin, "FRAG", b"");
        send_message(&mut plugin, "PING", b"between");
        send_message(&mut plugin, verb, b"cd");
        let mut pings = 0;
        let mut whole = Vec::new();
        let mut first = None;
        loop {
            let frame = peer.frame().unwrap();
            if frame.opcode == PING {
                pings += 1;
                continue;
            }
            first.get_or_insert(frame.opcode);
            whole.extend(frame.payload);
            if frame.fin {
                break;
            }
        }
        assert_eq!((first, &whole[..], pings), (Some(opcode), &b"abcd"[..], 1));
    }
    // A fragment may split a UTF-8 character.
    send_message(&mut plugin, "FRAG", b"\xc3");
    send_message(&mut plugin, "TEXT", b"\xa4");
    assert_eq!(message(&mut peer), (TEXT, "ä".into()));
}

#[test]
fn rfc_6455_section_5_4_fragments_of_the_remote_are_one_message() {
    let daemon = started();
    let (mut plugin, mut peer) = websocket_connected(&daemon, "");
    peer.send_fragment(TEXT, b"gr\xc3").unwrap();
    peer.send_frame(PING, b"between").unwrap();
    peer.send_fragment(CONTINUATION, b"").unwrap();
    peer.send_frame(CONTINUATION, b"\xbcn").unwrap();
    assert_eq!(read_message_text(&mut plugin), "TEXT grün");
    assert_eq!(read_frame(&mut peer), (PONG, b"between".to_vec()));
    peer.send_fragment(BINARY, b"").unwrap();
    peer.send_frame(CONTINUATION, b"").unwrap();
    assert_eq!(read_message_text(&mut plugin), "BINA ");
}

#[test]
fn every_length_encoding_works() {
    let daemon = started();
    let (mut plugin, mut peer) = websocket_connected(&daemon, "MAXM=200000");
    let mut random = Random::new(5);
    for length in [0, 1, 124, 125, 126, 127, 255, 256, 65534, 65535, 65536, 65537, 200_000] {
        let data = random.bytes(length);
        send_message(&mut plugin, "BINA", &data);
        assert!(message(&mut peer) == (BINARY, data.clone()), "{length} up");
        peer.send_frame(BINARY, &data).unwrap();
        assert!(read_message(&mut plugin) == ("BINA".into(), data), "{length} down");
    }
}

#[test]
fn frames_together_with_the_101_are_not_lost() {
    let (luup, daemon) = with_luup("");
    let (mut plugin, mut peer) = websocket_requested(&daemon, "/", "NTFY=7/s/a/p");
    let request = peer.request().unwrap();
    let first = frame_of(0x80 | TEXT, b"first");
    peer.send(&[request.upgrade(&[]).as_bytes(), &first].concat()).unwrap();
    expect_ok(&mut plugin);
    assert_eq!(read_message_text(&mut plugin), "TEXT first");
    assert_eq!(luup.wait_for(1, LIMIT)[0].device(), Some(7));
}

#[test]
fn a_close_frame_together_with_the_101_is_reported() {
    let daemon = started();
    let (mut plugin, mut peer) = websocket_requested(&daemon, "/", "");
    let request = peer.request().unwrap();
    let frames = [frame_of(0x80 | TEXT, b"last"), frame_of(0x80 | CLOSE, &close_of(1013, "later"))].concat();
    peer.send(&[request.upgrade(&[]).as_bytes(), &frames].concat()).unwrap();
    drop(peer);
    expect_ok(&mut plugin);
    assert_eq!(read_message_text(&mut plugin), "TEXT last");
    assert_eq!(read_message_text(&mut plugin), "CLOS 1013 later");
    assert!(plugin.at_end());
}

#[test]
fn messages_sent_before_ok_are_not_lost() {
    let daemon = started();
    let (mut plugin, mut peer) = websocket_requested(&daemon, "/", "");
    send_message(&mut plugin, "TEXT", b"ahead");
    peer.request().map(|request| peer.send(request.upgrade(&[]).as_bytes()).unwrap()).unwrap();
    expect_ok(&mut plugin);
    assert_eq!(read_frame(&mut peer), (TEXT, b"ahead".to_vec()));
}

#[test]
fn all_bytes_can_arrive_one_by_one() {
    let daemon = started();
    let (mut plugin, mut peer) = websocket_requested(&daemon, "/", "");
    let request = peer.request().unwrap();
    let frames = [
        frame_of(TEXT, b"gr\xc3"),
        frame_of(0x80 | PING, b"?"),
        frame_of(0x80, b"\xbc\xc3\x9f"),
        frame_of(0x80 | BINARY, &[7; 200]),
    ];
    for byte in [request.upgrade(&[]).as_bytes(), &frames.concat()].concat() {
        peer.send(&[byte]).unwrap();
    }
    expect_ok(&mut plugin);
    assert_eq!(read_message_text(&mut plugin), "TEXT grüß");
    assert_eq!(read_message(&mut plugin), ("BINA".into(), vec![7; 200]));
    assert_eq!(read_frame(&mut peer), (PONG, b"?".to_vec()));
    for byte in b"TEXT 2\nhiFRAG 1\naBINA 1\nb" {
        plugin.send(&[*byte]);
    }
    assert_eq!(read_frame(&mut peer), (TEXT, b"hi".to_vec()));
    assert_eq!(message(&mut peer), (BINARY, b"ab".to_vec()));
}

#[test]
fn framing_errors_of_the_plugin_are_reported_and_end_the_connection() {
    let daemon = started();
    for (broken, code) in [
        (&b"HELLO 5\nworld"[..], 1002),
        (b"TEXT 05\nhello", 1002),
        (b"TEXT 2\n\xff\xfe", 1007),
        (b"DGRM 2 1.2.3.4:5\nhi", 1002),
        (b"HEAD 2\nhi", 1002),
        (b"CLOS 1006 0\n", 1002),
        (b"CLOS 1000 124\n", 1002),
        (b"PING 126\n", 1002),
    ] {
        let (mut plugin, mut peer) = websocket_connected(&daemon, "");
        send_message(&mut plugin, "TEXT", b"good");
        plugin.send(broken);
        let (verb, reason) = read_message(&mut plugin);
        assert_eq!(verb, "CLOS 1002", "{broken:?}");
        assert!(reason.starts_with(b"PARSE "), "{broken:?}: {}", String::from_utf8_lossy(&reason));
        assert!(plugin.at_end());
        assert_eq!(read_frame(&mut peer), (TEXT, b"good".to_vec()), "the message before the error was not sent");
        assert_eq!(read_close_code(&mut peer), code, "{broken:?}");
    }
}

#[test]
fn line_framing_maps_lines_to_text_messages() {
    let daemon = started();
    let (mut plugin, mut peer) = websocket_connected(&daemon, "FRAM=LINE");
    plugin.send("one\ntwo\r\n\n\r\ngrün\nrest".as_bytes());
    for line in ["one", "two", "grün"] {
        assert_eq!(read_frame(&mut peer), (TEXT, line.into()));
    }
    for (message, line) in [
        (&b"hello"[..], "hello"),
        (b"a\r\nb\rc\nd", "a b c d"),
        (b"{\"x\":\r\n 1}\r\n\n", "{\"x\":  1}"),
        (b"", ""),
        (b"\n", ""),
    ] {
        peer.send_frame(TEXT, message).unwrap();
        assert_eq!(plugin.line(), line);
        peer.send_frame(BINARY, message).unwrap();
        assert_eq!(plugin.line(), line, "the same for binary");
    }
    plugin.finish();
    assert_eq!(read_frame(&mut peer), (CLOSE, close_of(1001, "")), "an incomplete line is not sent");
    peer.send_frame(CLOSE, &close_of(1001, "")).unwrap();
    peer.end().unwrap();
    assert!(plugin.at_end(), "no CLOS in LINE framing");
}

/// remote_homeassistant#226, core#36583: the states of a large installation, in one frame that is longer than `buffers`.
#[test]
fn a_message_longer_than_the_buffers_passes_while_it_comes() {
    const LENGTH: usize = 4_449_457;
    let (luup, daemon) = with_luup("[limits]\nbuffers=4194304\n");
    let text: String = "{\"state\": \"gr\u{fc}n\"},\r\n".chars().cycle().take(LENGTH).collect();
    let text = text[..text.floor_char_boundary(LENGTH - 1)].to_owned();
    let text = text.clone() + &"}".repeat(LENGTH - text.len());
    for framing in ["MESG", "LINE"] {
        let (mut plugin, mut peer) =
            websocket_connected(&daemon, &format!("FRAM={framing} MAXM=10000000 NTFY=7/s/a/p{framing}"));
        let sent = text.clone();
        let server = thread::spawn(move || {
            peer.send_frame(TEXT, sent.as_bytes())?;
            peer.send_frame(TEXT, b"next").map(|()| peer)
        });
        if framing == "MESG" {
            assert!(read_message(&mut plugin) == ("TEXT".into(), text.clone().into_bytes()), "other bytes");
            assert_eq!(read_message_text(&mut plugin), "TEXT next");
        } else {
            assert!(plugin.line() == text.replace("\r\n", " "), "another line");
            assert_eq!(plugin.line(), "next");
        }
        drop(server.join().unwrap().unwrap());
        assert!(luup.wait_for(1, LIMIT).iter().all(|request| request.device() == Some(7)));
    }
}

#[test]
fn where_memory_is_short_the_end_names_buffers() {
    let daemon = configured("[limits]\nbuffers=65536\n");
    for options in ["MAXM=1000000", "MAXM=1000000 FRAM=LINE"] {
        let (mut plugin, mut peer) = websocket_connected(&daemon, options);
        // Fragments do not say how long the message is.
        peer.send_fragment(BINARY, &[7; 60_000]).unwrap();
        peer.send_fragment(CONTINUATION, &[7; 60_000]).unwrap();
        if options.contains("LINE") {
            assert!(plugin.at_end());
        } else {
            assert_eq!(read_message_text(&mut plugin), "CLOS 1009 no memory for the message, buffers= is used up");
        }
        assert_eq!(read_close_code(&mut peer), 1009);
    }
    // With KEEP the plugin needs whole messages.
    let (mut plugin, mut peer) = websocket_connected(&daemon, "MAXM=1000000 KEEP=60 NTFY=-1/s/a/abcdefgh");
    peer.send_frame(BINARY, &[7; 100_000]).unwrap();
    assert_eq!(read_message_text(&mut plugin), "CLOS 1009 no memory for the message, buffers= is used up");
    drop((plugin, peer));
    let why = "closed: no memory, buffers= is used up";
    eventually("three connections are closed", || (daemon.log_text().matches(why).count() == 3).then_some(()));
}

#[test]
fn a_long_text_that_is_not_utf_8_ends_the_plugins_stream_in_its_body() {
    let daemon = started();
    let (mut plugin, mut peer) = websocket_connected(&daemon, "MAXM=1000000");
    peer.send_frame(TEXT, &[&[b'x'; 100_000][..], b"\xff"].concat()).unwrap();
    let rest = plugin.rest();
    let length = rest.len() - "TEXT 100001\n".len();
    assert!(rest.starts_with(b"TEXT 100001\nxxx") && length <= 100_000, "{length} bytes");
    assert_eq!(read_close_code(&mut peer), 1007);
    drop(peer);
    let why = "(a text is not UTF-8, within a message that the plugin has in part)";
    daemon.wait_for_log(LIMIT, |line| line.contains(why));
}

/// PyISY#124, aiohttp#4963, arduinoWebSockets#208: text in Latin-1, masked frames from a server.
#[test]
fn leni_lets_through_what_servers_get_wrong() {
    let daemon = started();
    let masked = b"\x8a\x81\x01\x02\x03\x04p\x81\x82\x01\x02\x03\x04ik";
    for (framing, expected) in [
        ("MESG", &b"TEXT 5\nGr\xfc\xdfeTEXT 2\nhiTEXT 1\n\xffCLOS 1000 2\n\xfc\xdf"[..]),
        ("LINE", b"Gr\xfc\xdfe\nhi\n\xff\n"),
        ("RAW", b"Gr\xfc\xdfehi\xff"),
    ] {
        let (mut plugin, mut peer) = websocket_connected(&daemon, &format!("FRAM={framing} LENI=utf8,mask"));
        peer.send_frame(TEXT, b"Gr\xfc\xdfe").unwrap();
        peer.send(masked).unwrap();
        peer.send_fragment(TEXT, b"").unwrap();
        peer.send_frame(CONTINUATION, b"\xff").unwrap();
        peer.send_frame(CLOSE, b"\x03\xe8\xfc\xdf").unwrap();
        assert_eq!(plugin.rest(), expected, "{framing}");
    }
    for (options, bytes, code) in [
        ("", &b"\x81\x05Gr\xfc\xdfe"[..], 1007),
        ("", masked, 1002),
        ("LENI=mask", b"\x81\x05Gr\xfc\xdfe", 1007),
        ("LENI=utf8", masked, 1002),
    ] {
        let (mut plugin, mut peer) = websocket_connected(&daemon, options);
        peer.send(bytes).unwrap();
        assert_eq!(read_message(&mut plugin).0, format!("CLOS {code}"), "{options}");
        assert_eq!(read_close_code(&mut peer), code, "{options}");
    }
    let answer = daemon.plugin().command("CONN ws://127.0.0.1:9/ LENI=utf8,typos");
    assert_eq!(answer, "ERR CONN Invalid option LENI=utf8,typos");
}

/// With DEFL text is checked after inflation, or not at all. With KEEP it waits for the plugin as it is.
#[test]
fn leni_holds_with_compression_and_for_kept_connections() {
    let daemon = started();
    let server = Server::start(|mut peer| {
        peer.upgrade_with(&["Sec-WebSocket-Extensions: permessage-deflate"])?;
        // A stored block (RFC 1951 section 3.2.4) of two bytes, masked with zeros, and the start of an empty one.
        peer.send(b"\xc1\x88\0\0\0\0\0\x02\0\xfd\xff\xfc\xdf\0")?;
        peer.echo()
    });
    let mut plugin = daemon.plugin();
    plugin.conn(server.url("/"), "DEFL=on LENI=utf8,mask KEEP=60 NTFY=-1/s/a/abcdefgh");
    assert_eq!(read_message(&mut plugin), ("TEXT".into(), b"\xfc\xdf".to_vec()));
    drop(plugin);
    let mut plugin = daemon.plugin();
    assert_eq!(plugin.command("ATCH abcdefgh SEEN=0"), "OK ATCH abcdefgh");
    assert_eq!(read_message(&mut plugin), ("TEXT".into(), b"\xfc\xdf".to_vec()));
}

/// A message from the plugin is compressed for the window that the server asks for. The server sends it back, and the
/// proxy inflates it.
#[test]
fn rfc_7692_messages_of_the_plugin_are_compressed() {
    let daemon = started();
    let text = "{\"device\":12,\"state\":\"grün\"},".repeat(100);
    for parameters in ["", "; client_max_window_bits=8", "; client_max_window_bits=12; client_no_context_takeover"] {
        let (daemon, text) = (&daemon, text.as_bytes());
        let chosen = format!("Sec-WebSocket-Extensions: permessage-deflate{parameters}");
        let server = Server::start(move |mut peer| {
            peer.upgrade_with(&[&chosen])?;
            peer.echo()
        });
        for framing in ["MESG", "LINE", "RAW"] {
            let mut plugin = daemon.plugin();
            plugin.conn(server.url("/"), &format!("DEFL=on FRAM={framing}"));
            match framing {
                "MESG" => {
                    send_message(&mut plugin, "TEXT", text);
                    assert!(read_message(&mut plugin) == ("TEXT".into(), text.to_vec()), "{parameters}");
                    send_message(&mut plugin, "FRAG", &text[..1000]);
                    send_message(&mut plugin, "BINA", &text[1000..]);
                    assert!(read_message(&mut plugin) == ("BINA".into(), text.to_vec()), "{parameters}");
                }
                "LINE" => {
                    let line = [text, b"\n"].concat();
                    plugin.send(&line);
                    assert!(plugin.bytes(line.len()) == line, "{parameters}");
                }
                _ => {
                    plugin.send(text);
                    assert!(plugin.bytes(text.len()) == text, "{parameters}");
                }
            }
        }
    }
    // RSV1, FIN, and whether it is shorter than it was: only what shrinks is compressed, and nothing without DEFL.
    for (options, expected) in
        [("", "0 true true, 0 true false, 0 true false"), ("DEFL=on", "0 true true, 64 true true, 0 true false")]
    {
        let server = Server::start(|mut peer| {
            let agreed = peer.request()?;
            let offered = !agreed.all("Sec-WebSocket-Extensions").is_empty();
            let chosen = if offered { &["Sec-WebSocket-Extensions: permessage-deflate"][..] } else { &[] };
            peer.send(agreed.upgrade(chosen).as_bytes())?;
            let frames = [peer.frame()?, peer.frame()?, peer.frame()?];
            let summary = frames.map(|frame| format!("{} {} {}", frame.reserved, frame.fin, frame.payload.len() < 500));
            peer.send_frame(TEXT, summary.join(", ").as_bytes())
        });
        let mut plugin = daemon.plugin();
        plugin.conn(server.url("/"), options);
        send_message(&mut plugin, "TEXT", b"short");
        send_message(&mut plugin, "TEXT", text.as_bytes());
        send_message(&mut plugin, "BINA", &Random::new(1).bytes(4000));
        assert_eq!(read_message_text(&mut plugin), format!("TEXT {expected}"), "{options}");
    }
}

#[test]
fn raw_framing_is_a_byte_stream() {
    let daemon = started();
    let (mut plugin, mut peer) = websocket_connected(&daemon, "FRAM=RAW");
    peer.send_frame(TEXT, b"one").unwrap();
    peer.send_fragment(BINARY, b"two").unwrap();
    assert_eq!(plugin.bytes(6), b"onetwo", "a fragment is passed on at once");
    peer.send_frame(CONTINUATION, b"").unwrap();
    peer.send_frame(BINARY, b"\xffthree").unwrap();
    assert_eq!(plugin.bytes(6), b"\xffthree");
    plugin.send(b"TEXT 2\nhi");
    assert_eq!(read_frame(&mut peer), (BINARY, b"TEXT 2\nhi".to_vec()));
    peer.send_frame(CLOSE, &close_of(1000, "bye")).unwrap();
    assert!(plugin.at_end(), "no CLOS in RAW framing");
}

/// Echoes `messages` messages of up to `longest` bytes as fast as possible.
#[track_caller]
fn bulk(options: &str, messages: usize, longest: u64) {
    let daemon = started();
    let server = Server::echo();
    let mut plugin = daemon.plugin();
    plugin.conn(server.url("/"), options);
    let writing = plugin.stream().try_clone().unwrap();
    let writer = thread::spawn(move || {
        let mut plugin = Plugin::from_stream(writing);
        let (mut random, mut sum) = (Random::new(11), Checksum::new());
        for _ in 0..messages {
            let length = random.below(longest) as usize;
            let data = random.bytes(length);
            sum.update(&data);
            send_message(&mut plugin, "BINA", &data);
        }
        sum
    });
    let mut sum = Checksum::new();
    for _ in 0..messages {
        let (verb, body) = read_message(&mut plugin);
        assert_eq!(verb, "BINA");
        sum.update(&body);
    }
    assert_eq!(sum, writer.join().unwrap());
    send_message(&mut plugin, "CLOS 1000", b"done");
    assert_eq!(read_message_text(&mut plugin), "CLOS 1000 done");
    assert!(plugin.at_end());
}

#[test]
fn ten_thousand_small_messages_come_back_unchanged() {
    bulk("", 10_000, 300);
}

#[test]
fn thirty_megabytes_of_large_messages_come_back_unchanged() {
    bulk("MAXM=1000000", 60, 1_000_000);
}

#[test]
fn thirty_megabytes_of_raw_stream_come_back_unchanged() {
    const BYTES: u64 = 30_000_000;
    let daemon = started();
    let server = Server::echo();
    let mut plugin = daemon.plugin();
    plugin.conn(server.url("/"), "FRAM=RAW MAXM=0");
    let (mut reading, ahead) = plugin.into_stream();
    assert!(ahead.is_empty());
    let mut writing = Plugin::from_stream(reading.try_clone().unwrap());
    let writer = thread::spawn(move || {
        let mut random = Random::new(3);
        for _ in 0..BYTES / 10_000 {
            writing.send(&random.bytes(10_000));
        }
    });
    let mut sum = Checksum::new();
    let mut buffer = vec![0; 64 * 1024];
    while sum.bytes < BYTES {
        let read = reading.read(&mut buffer).unwrap();
        assert!(read > 0, "ended after {} bytes", sum.bytes);
        sum.update(&buffer[..read]);
    }
    writer.join().unwrap();
    let mut random = Random::new(3);
    let mut wanted = Checksum::new();
    for _ in 0..BYTES / 10_000 {
        wanted.update(&random.bytes(10_000));
    }
    assert_eq!(sum, wanted);
}
