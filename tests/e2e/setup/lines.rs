//! Lines in setup mode: accepted spellings, arrival in pieces, and the maximum length.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};

use testkit::daemon::Daemon;
use testkit::device::{Device, Kind};
use testkit::plugin::Plugin;
use testkit::ports::BlackHole;
use testkit::random::Random;

use crate::support::{Reader, accepted, configured, skipped_under_emulation, started};

#[test]
fn accepted_spellings() {
    let daemon = started();
    let mut plugin = daemon.plugin();
    let (capa, bild) = (plugin.command("CAPA"), plugin.command("BILD"));
    for (line, reply) in [
        ("CAPA\r", &*capa),
        (" CAPA", &capa),
        ("\t CAPA", &capa),
        ("capa", &capa),
        ("CaPa", &capa),
        ("CAPA with words behind", &capa),
        ("CAPA ", &capa),
        ("BILD 1 2 3", &bild),
        ("bild\t\r", &bild),
        ("\n\n\r\n \t\nBILD", &bild),
        ("rtim 5\r", "OK RTIM"),
        ("  blks   17", "OK BLKS"),
        ("Pace\t1", "OK PACE"),
        ("ntfy 3 s a p q r\r", "OK NTFY"),
    ] {
        assert_eq!(plugin.command(line), reply, "{line:?}");
    }
    assert_eq!(plugin.command("quit this\r"), "OK QUIT");
}

#[test]
fn accepted_spellings_of_conn() {
    let daemon = started();
    let device = Device::start(Kind::Echo);
    let port = device.port();
    for line in [
        format!("CONN 127.0.0.1:{port}"),
        format!("CONN 127.0.0.1:{port}\r"),
        format!("  conn 127.0.0.1:{port}"),
        format!("CONN   127.0.0.1:{port}   RTIM=0    BLKS=100  "),
        format!("CONN\t127.0.0.1:{port}\tRTIM=0\t\tPACE=0\r"),
        format!("\n\nCONN 127.0.0.1:{port}  NTFY=-1/a/b/c "),
    ] {
        let mut plugin = daemon.plugin();
        let answer = plugin.command(&line);
        assert!(answer.starts_with("OK CONN "), "{line:?}: {answer:?}");
        plugin.send(b"ping");
        assert_eq!(plugin.bytes(4), b"ping", "{line:?}");
    }
}

/// Sends `pieces` one after another, and returns all replies up to the end of the stream.
fn answers<'a>(daemon: &Daemon, pieces: impl Iterator<Item = &'a [u8]>) -> String {
    let mut plugin = daemon.plugin();
    for piece in pieces {
        plugin.send(piece);
    }
    String::from_utf8(plugin.rest()).unwrap()
}

#[test]
fn lines_can_arrive_in_any_pieces_and_several_at_once() {
    let daemon = started();
    let script = b"capa\r\n\n BILD\nNTFY 3 s a p\nRTIM 5\nPACE 1\nBLKS 7\nHELP\nCAPA\nQUIT\n";
    let whole = answers(&daemon, std::iter::once(&script[..]));
    let commands: Vec<&str> = whole.lines().filter_map(|line| line.strip_prefix("OK ")).collect();
    assert!(commands[0].starts_with("CAPA ") && commands[6] == commands[0], "{commands:?}");
    assert_eq!(commands[2..6], ["NTFY", "RTIM", "PACE", "BLKS"]);
    assert_eq!(commands[7..], ["QUIT"]);
    for size in [1, 2, 3, 7, 20] {
        assert_eq!(answers(&daemon, script.chunks(size)), whole, "in pieces of {size}");
    }
}

/// Sends CONN and `behind` in one write. Returns the plugin and the device's end of the connection.
fn conn_with(daemon: &Daemon, behind: &[u8]) -> (Plugin, TcpStream) {
    let device = Device::start(Kind::Manual);
    let mut plugin = daemon.plugin();
    let line = format!("RTIM 0\nCONN {}\n", device.addr());
    plugin.send(&[line.as_bytes(), behind].concat());
    assert_eq!(plugin.line(), "OK RTIM");
    assert_eq!(plugin.line(), format!("OK CONN {}", plugin.pid()));
    (plugin, accepted(&device))
}

#[test]
fn bytes_behind_conn_belong_to_the_remote() {
    let daemon = started();
    for behind in [&b"hello"[..], b"hello\n", b"CAPA\nQUIT\n", b"\n", b"\r\n\0\xff"] {
        let (plugin, mut remote) = conn_with(&daemon, behind);
        plugin.stream().shutdown(Shutdown::Write).unwrap();
        let mut received = Vec::new();
        remote.read_to_end(&mut received).unwrap();
        assert_eq!(received, behind);
    }
}

#[test]
fn many_bytes_behind_conn_belong_to_the_remote() {
    const MANY: usize = 1_000_000;
    let daemon = started();
    let device = Device::start(Kind::Manual);
    let mut plugin = daemon.plugin();
    let line = format!("CONN {}\n", device.addr());
    let stream = plugin.stream().try_clone().unwrap();
    // Everything in one write, before the reply.
    let sender = std::thread::spawn(move || {
        let all = [line.into_bytes(), Random::new(9).bytes(MANY)].concat();
        (&stream).write_all(&all).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
    });
    assert!(plugin.line().starts_with("OK CONN "));
    assert_eq!(Reader::new(&accepted(&device), 9).rest(), MANY as u64);
    sender.join().unwrap();
}

#[test]
fn bytes_sent_during_conn_belong_to_the_remote() {
    let daemon = started();
    let hole = BlackHole::new().unwrap();
    // Two CONNs that take time: one to an address that does not answer, one with a name to look up.
    let mut slow = daemon.plugin();
    slow.send(format!("CONN {} CTIM=1000\n", hole.addr()).as_bytes());
    slow.send(b"QUIT\nCAPA\n");
    assert_eq!(slow.rest(), b"ERR CONN timeout\n", "the bytes are not commands");
    let device = Device::start(Kind::Manual);
    let mut plugin = daemon.plugin();
    for byte in format!("CONN localhost:{}\nQUIT\n", device.port()).bytes() {
        plugin.send(&[byte]);
    }
    assert!(plugin.line().starts_with("OK CONN "));
    let mut received = [0; 5];
    accepted(&device).read_exact(&mut received).unwrap();
    assert_eq!(&received, b"QUIT\n");
}

#[test]
fn a_line_has_at_most_16384_bytes() {
    let daemon = started();
    let mut plugin = daemon.plugin();
    let capa = plugin.command("CAPA");
    let line = |length: usize| format!("CAPA {}", "x".repeat(length - 5));
    assert_eq!(plugin.command(&line(16_000)), capa);
    assert_eq!(plugin.command(&line(16_383)), capa);
    for pieces in [16_385, 1000, 1] {
        let long = line(16_385);
        let lines = answers(&daemon, long.as_bytes().chunks(pieces).chain([&b"\n"[..]]));
        assert_eq!(lines, "ERR INVALID COMMAND\n");
    }
}

#[test]
fn a_line_without_end_is_refused_and_not_buffered() {
    let daemon = started();
    let mut plugin = daemon.plugin();
    let memory = daemon.memory();
    // The kernel decides how much is sent before the refusal, which must arrive in any case.
    for _ in 0..64 {
        if plugin.try_send(&[b'x'; 64 * 1024]).is_err() {
            break;
        }
    }
    assert_eq!(plugin.rest(), b"ERR INVALID COMMAND\n");
    if !skipped_under_emulation("memory is the emulator's") {
        let grown = daemon.memory().rss.saturating_sub(memory.rss);
        assert!(grown < 1024, "4 MB without a newline took {grown} kB");
    }
}

#[test]
fn the_maximum_length_of_a_line_is_configurable() {
    let daemon = configured("[limits]\nline=600\n");
    let mut plugin = daemon.plugin();
    let capa = plugin.command("CAPA");
    assert_eq!(plugin.command(&format!("CAPA {}", "x".repeat(500))), capa);
    assert_eq!(plugin.command(&format!("CAPA {}", "x".repeat(700))), "ERR INVALID COMMAND");
    assert!(plugin.at_end());
}

#[test]
fn replies_wait_for_a_plugin_that_does_not_read() {
    let daemon = started();
    let mut plugin = daemon.plugin();
    let capa = plugin.command("CAPA");
    const COMMANDS: usize = 200_000;
    let mut sending = plugin.stream().try_clone().unwrap();
    // More replies than the socket buffers hold: the writer blocks until the test reads.
    let sender = std::thread::spawn(move || {
        sending.write_all(&b"CAPA\n".repeat(COMMANDS)).unwrap();
        sending.shutdown(Shutdown::Write).unwrap();
    });
    for at in 0..COMMANDS {
        assert_eq!(plugin.line(), capa, "number {at}");
    }
    sender.join().unwrap();
}

/// A page in a browser on the box may have it send requests with methods of its choice to the proxy (DNS rebinding).
#[test]
fn requests_of_a_browser_are_refused_at_once() {
    let mut daemon = started();
    for request in [
        "STOP / HTTP/1.1\r\nHost: rebound.example\r\n\r\nSTOP\n",
        "POST /STOP HTTP/1.1\r\nHost: rebound.example\r\nContent-Length: 5\r\n\r\nSTOP\n",
        "GET / HTTP/1.1\r\n\r\nSTOP\n",
        "OPTIONS / HTTP/1.1\r\nSTOP\n",
    ] {
        let mut plugin = daemon.plugin();
        plugin.send(request.as_bytes());
        assert_eq!(plugin.line(), "ERR INVALID COMMAND", "{request:?}");
        assert!(plugin.at_end());
    }
    assert!(daemon.wait_exit(std::time::Duration::ZERO).is_none());
}
