//! FRAM for datagrams: LINE and MESG on the plugin's side, and framing errors.

use testkit::daemon::Daemon;
use testkit::device::UdpEcho;
use testkit::plugin::Plugin;

use crate::support::{LIMIT, configured, started, with_luup};

#[track_caller]
fn framed(daemon: &Daemon, device: &UdpEcho, framing: &str) -> Plugin {
    let mut plugin = daemon.plugin();
    plugin.conn(device.addr(), &format!("PRTO=udp FRAM={framing}"));
    plugin
}

/// The payloads that a device has received.
fn payloads(device: &UdpEcho, count: usize) -> Vec<Vec<u8>> {
    device.wait_received(count, LIMIT).into_iter().map(|(payload, _)| payload).collect()
}

#[test]
fn lines_are_datagrams() {
    let daemon = configured("[limits]\nhalfclose=1\n");
    let device = UdpEcho::start();
    let mut plugin = framed(&daemon, &device, "LINE");
    plugin.send(b"one\ntwo\r\n\n\r\nthree\r\r\nf\0ur\xff\nrest");
    let expected: [&[u8]; 4] = [b"one", b"two", b"three\r", b"f\0ur\xff"];
    assert_eq!(payloads(&device, 4), expected);
    // The echo: line ends within a datagram become blanks, those at its end are removed.
    for line in [&b"one\n"[..], b"two\n", b"three\n", b"f\0ur\xff\n"] {
        assert_eq!(plugin.bytes(line.len()), line);
    }
    plugin.finish();
    assert!(plugin.at_end(), "an incomplete line at the end is not sent");
    assert_eq!(device.wait_received(4, LIMIT).len(), 4);
}

#[test]
fn line_ends_in_datagrams_become_blanks() {
    let daemon = started();
    let device = UdpEcho::start();
    let mut plugin = framed(&daemon, &device, "LINE");
    plugin.send(b"hello\n");
    let (_, proxy) = device.wait_received(1, LIMIT).remove(0);
    assert_eq!(plugin.line(), "hello");
    for (datagram, line) in [
        (&b"HTTP/1.1 200 OK\r\nST: x\r\n\r\n"[..], "HTTP/1.1 200 OK ST: x"),
        (b"a\nb\rc\r\nd", "a b c d"),
        (b"a\n\nb", "a  b"),
        (b"", ""),
        (b"\r\n", ""),
        (b" a ", " a "),
    ] {
        device.send_to(datagram, proxy);
        assert_eq!(plugin.line(), line, "{datagram:?}");
    }
}

#[test]
fn mesg_has_text_binary_fragments_and_addresses() {
    let daemon = started();
    let (device, other) = (UdpEcho::start(), UdpEcho::start());
    let mut plugin = framed(&daemon, &device, "MESG");
    plugin.send(b"TEXT 2\nhiBINA 3\n\0\xff\nFRAG 2\nabFRAG 0\nBINA 2\ncdFRAG 1\nxTEXT 0\n");
    plugin.send(format!("DGRM 5 {}\nother", other.addr()).as_bytes());
    let expected: [&[u8]; 4] = [b"hi", b"\0\xff\n", b"abcd", b"x"];
    assert_eq!(payloads(&device, 4), expected);
    assert_eq!(payloads(&other, 1), [b"other"]);
    let mut answers: Vec<String> = (0..5)
        .map(|_| {
            let header = plugin.line();
            let length: usize = header.split(' ').nth(1).unwrap().parse().unwrap();
            header + " " + &String::from_utf8_lossy(&plugin.bytes(length))
        })
        .collect();
    answers.sort();
    let mut wanted = vec![format!("DGRM 5 {} other", other.addr())];
    for text in ["hi", "\0\u{fffd}\n", "abcd", "x"] {
        let length = if text.len() == 5 { 3 } else { text.len() };
        wanted.push(format!("DGRM {length} {} {text}", device.addr()));
    }
    wanted.sort();
    assert_eq!(answers, wanted);
}

#[test]
fn mesg_can_arrive_in_any_pieces() {
    let daemon = started();
    let device = UdpEcho::start();
    let script = b"TEXT 11\nhello worldBINA 0\nFRAG 4\none BINA 3\ntwo";
    for size in [1, 2, 5, 100] {
        let mut plugin = framed(&daemon, &device, "MESG");
        let before = device.wait_received(0, LIMIT).len();
        for piece in script.chunks(size) {
            plugin.send(piece);
        }
        let received = payloads(&device, before + 3);
        let expected: [&[u8]; 3] = [b"hello world", b"", b"one two"];
        assert_eq!(received[before..], expected, "in pieces of {size}");
    }
}

#[test]
fn framing_errors_are_reported_and_end_the_connection() {
    let daemon = started();
    let device = UdpEcho::start();
    for (broken, what) in [
        (&b"HELLO 5\nworld"[..], "unknown verb"),
        (b"text 5\nhello", "unknown verb"),
        (b"\n", "unknown verb"),
        (b"TEXT 05\nhello", "bad length"),
        (b"TEXT +5\nhello", "bad length"),
        (b"TEXT\n", ""),
        (b"TEXT 5 \nhello", "bad length"),
        (b"TEXT 5\r\nhello", "bad length"),
        (b"TEXT 65508\n", "too long"),
        (b"TEXT 99999999999999999999999999\n", "too long"),
        (b"TEXT 2\n\xff\xfe", "UTF-8"),
        (b"DGRM 2\nhi", "address"),
        (b"DGRM 2 nowhere:5\nhi", "address"),
        (b"CLOS 999 0\n", "code"),
        (b"CLOS 1006 0\n", "code"),
        (b"0123456789012345678901234567890123456789012345678901234567890123456789", "header too long"),
    ] {
        let mut plugin = framed(&daemon, &device, "MESG");
        plugin.send(b"TEXT 4\ngood");
        assert_eq!(plugin.line(), format!("DGRM 4 {}", device.addr()));
        assert_eq!(plugin.bytes(4), b"good");
        plugin.send(broken);
        let header = plugin.line();
        let length = header.strip_prefix("CLOS 1002 ").unwrap_or_else(|| panic!("{header:?} to {broken:?}"));
        let reason = String::from_utf8(plugin.rest()).unwrap();
        assert_eq!(length, reason.len().to_string(), "{reason:?} to {broken:?}");
        assert!(reason.starts_with("PARSE ") && reason.contains(what), "{reason:?} to {broken:?}");
    }
}

#[test]
fn messages_before_a_framing_error_are_sent() {
    let daemon = started();
    let device = UdpEcho::start();
    let mut plugin = framed(&daemon, &device, "MESG");
    plugin.send(b"TEXT 3\noneTEXT 3\ntwonot a headerTEXT 5\nthree");
    plugin.rest();
    assert_eq!(payloads(&device, 2), [b"one", b"two"]);
}

#[test]
fn clos_ends_the_connection() {
    let (luup, daemon) = with_luup("");
    let device = UdpEcho::start();
    for clos in [&b"CLOS 1000 0\n"[..], b"CLOS 1001 4\nbye!", b"CLOS 4999 0\n", b"CLOS 1005 0\n"] {
        luup.clear_requests();
        let mut plugin = daemon.plugin();
        plugin.conn(device.addr(), "PRTO=udp FRAM=MESG NTFY=5/s/a/p");
        plugin.send(clos);
        assert!(plugin.at_end());
        luup.wait_for(1, LIMIT);
    }
}

#[test]
fn framing_options_are_refused_for_tcp() {
    let daemon = started();
    for framing in ["MESG", "LINE"] {
        let answer = daemon.plugin().command(&format!("CONN 127.0.0.1:9 FRAM={framing}"));
        assert_eq!(answer, format!("ERR CONN Invalid option FRAM={framing}"));
    }
}

#[test]
fn unfinished_messages_are_limited() {
    let daemon = configured("[limits]\nhalfclose=1\n");
    let device = UdpEcho::start();
    let mut plugin = framed(&daemon, &device, "LINE");
    for _ in 0..40 {
        if plugin.try_send(&[b'x'; 64 * 1024]).is_err() {
            break;
        }
    }
    assert!(plugin.at_end());
    let mut plugin = framed(&daemon, &device, "MESG");
    for _ in 0..40 {
        if plugin.try_send(&[&b"FRAG 65000\n"[..], &[b'x'; 65_000]].concat()).is_err() {
            break;
        }
    }
    assert!(plugin.try_line().is_ok_and(|line| line.starts_with("CLOS 1002 ")));
}
