//! WebSocket over TLS: messages, redirects, timeouts, backpressure, and KEEP.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use testkit::daemon::Daemon;
use testkit::device::{Device, Kind};
use testkit::random::Random;
use testkit::tls::Identity;
use testkit::websocket::{BINARY, CLOSE, Peer, Server, TEXT, close_of, frame_of};

use crate::support::{
    LIMIT, LONG_TIMEOUTS, PID, StatClient, accepted, attached, conn_answer, emulated, read_frame, read_message,
    read_message_text, redirecting_server, remote_closes_while_parked, send_message, started, wait_parked, with_luup,
    wss_connected,
};

#[test]
fn messages_pass_in_every_version() {
    let daemon = started();
    for (config, version) in
        [(Identity::loopback().any_server(), "TLSv1.3"), (Identity::loopback().tls12_server(), "TLSv1.2")]
    {
        let server = Server::echo_secure(config);
        let mut plugin = daemon.plugin();
        plugin.conn(server.url("/"), &format!("{LONG_TIMEOUTS} MAXM=1000000"));
        let shown = &StatClient::new(daemon.addr()).connections()[0];
        assert_eq!((&shown["protocol"], &shown["tls"]), (&"wss".into(), &version.into()), "{shown}");
        let mut random = Random::new(3);
        for length in [0, 1, 125, 126, 16_384, 65_536, 900_000] {
            let noise = random.bytes(length);
            send_message(&mut plugin, "BINA", &noise);
            assert!(read_message(&mut plugin) == ("BINA".into(), noise), "{length}, {version}");
        }
        send_message(&mut plugin, "CLOS 1000", b"bye");
        assert_eq!(read_message(&mut plugin).0, "CLOS 1000");
        assert!(plugin.at_end());
    }
}

#[test]
fn redirects_can_lead_to_tls_but_not_away_from_it() {
    let daemon = started();
    let options = format!("{LONG_TIMEOUTS} AUTH=u:p");
    let end = Server::echo_secure(Identity::loopback().any_server());
    for (from, location) in [
        (None, end.url("/there")),
        (None, format!("https://{}/there", end.addr())),
        (Some(Identity::loopback().any_server()), end.url("/there")),
    ] {
        let (server, requests) = redirecting_server(from, "302 Found", location);
        let mut plugin = daemon.plugin();
        plugin.conn(server.url("/"), &options);
        assert_eq!(requests.recv_timeout(LIMIT).unwrap().header("Authorization"), "Basic dTpw");
        send_message(&mut plugin, "TEXT", b"hi");
        assert_eq!(read_message_text(&mut plugin), "TEXT hi");
        assert_eq!(StatClient::new(daemon.addr()).connections()[0]["protocol"], "wss");
    }
    // A server that records its requests, of which there must be none.
    let (sender, anything) = channel();
    let plain = Server::start(move |mut peer| {
        sender.send(peer.request()).ok();
        Ok(())
    });
    for location in [plain.url("/"), format!("http://{}/", plain.addr())] {
        let (server, _requests) = redirecting_server(Some(Identity::loopback().any_server()), "302 Found", location);
        assert_eq!(conn_answer(&daemon, &server.url("/"), &options), "ERR CONN REDIRECT_MAX redirected from wss to ws");
    }
    // The same after a redirect from ws to wss.
    let (back, _requests) = redirecting_server(Some(Identity::loopback().any_server()), "302 Found", plain.url("/"));
    let (server, _asked) = redirecting_server(None, "302 Found", back.url("/"));
    assert_eq!(conn_answer(&daemon, &server.url("/"), &options), "ERR CONN REDIRECT_MAX redirected from wss to ws");
    assert!(anything.try_recv().is_err(), "the server got a request");
}

#[test]
fn slow_servers_time_out() {
    let daemon = started();
    for secure in [false, true] {
        for trickle in [false, true] {
            let script = move |mut peer: Peer| {
                peer.request()?;
                let head = b"HTTP/1.1 101 Switching Protocols\r\nX-Endless: ".iter().chain(std::iter::repeat(&b'x'));
                for byte in head {
                    if trickle {
                        peer.send(&[*byte])?;
                    }
                    std::thread::sleep(Duration::from_millis(20));
                }
                Ok(())
            };
            let server = if secure {
                Server::start_secure(Identity::loopback().any_server(), script)
            } else {
                Server::start(script)
            };
            let start = Instant::now();
            // The total timeout includes the TLS handshake, which may take long on a busy machine; the error is the
            // same then.
            let reply = conn_answer(&daemon, &server.url("/"), "VRFY=none CTIM=30000 RQTM=700");
            assert_eq!(reply, "ERR CONN REQUEST_TIMEOUT timeout", "{secure} {trickle}");
            assert!(start.elapsed() >= Duration::from_millis(700));
        }
    }
    // A server that accepts and sends nothing, or half a ServerHello very slowly.
    for trickle in [false, true] {
        for (options, word) in [("CTIM=400 RQTM=60000", "CONNECT_TIMEOUT"), ("CTIM=30000 RQTM=400", "REQUEST_TIMEOUT")]
        {
            let device = Device::start(Kind::Manual);
            let mut plugin = daemon.plugin();
            let start = Instant::now();
            plugin.send(format!("CONN wss://{}/ VRFY=none {options}\n", device.addr()).as_bytes());
            let mut remote = accepted(&device);
            let hello = b"\x16\x03\x03\x00\x7a\x02\x00\x00\x76\x03\x03";
            for byte in hello.iter().filter(|_| trickle) {
                // The connection may have timed out already.
                let _ = remote.write_all(&[*byte]);
                std::thread::sleep(Duration::from_millis(10));
            }
            assert_eq!(plugin.line(), format!("ERR CONN {word} timeout"), "{trickle}");
            assert!(start.elapsed() >= Duration::from_millis(400));
            assert!(plugin.at_end());
        }
    }
}

#[test]
fn redirects_share_rqtm_and_each_has_ctim() {
    let daemon = started();
    // Each hop is within CTIM; all together exceed RQTM.
    let server = Server::start(|mut peer| {
        peer.request()?;
        std::thread::sleep(Duration::from_millis(300));
        peer.send(b"HTTP/1.1 302 Found\r\nLocation: /on\r\n\r\n")?;
        peer.end()
    });
    let reply = conn_answer(&daemon, &server.url("/"), "RDIR=100 CTIM=30000 RQTM=1000");
    assert_eq!(reply, "ERR CONN REQUEST_TIMEOUT timeout");
    // CTIM does not apply after the connection is established.
    let server = Server::start(|mut peer| {
        peer.request()?;
        std::thread::sleep(Duration::from_millis(2200));
        peer.send(b"HTTP/1.1 302 Found\r\nLocation: /on\r\n\r\n")?;
        peer.end()
    });
    let reply = conn_answer(&daemon, &server.url("/"), "RDIR=0 CTIM=2000 RQTM=60000");
    assert_eq!(reply, "ERR CONN REDIRECT_MAX redirected too often");
}

/// Calls `write`, which sends a message of some 25 KB, until it has blocked for a second. `open` then waits for that
/// last message. Counts the messages.
struct Blocked {
    stop: Arc<AtomicBool>,
    writing: JoinHandle<u32>,
}

impl Blocked {
    #[track_caller]
    fn new(mut write: impl FnMut(u32) + Send + 'static) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let (progress, steps) = channel();
        let writing = std::thread::spawn(move || {
            let mut written = 0;
            while !stopped.load(Ordering::Relaxed) {
                assert!(written < 10_000, "no backpressure");
                write(written);
                written += 1;
                progress.send(()).ok();
            }
            written
        });
        while steps.recv_timeout(Duration::from_secs(1)).is_ok() {}
        assert!(!writing.is_finished(), "no backpressure");
        Self { stop, writing }
    }

    fn open(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn body(number: u32) -> Vec<u8> {
    [&number.to_be_bytes()[..], &vec![number as u8; 25_000]].concat()
}

#[track_caller]
fn has_not_grown(daemon: &Daemon, before: u64) {
    if !emulated() {
        let grown = daemon.memory().rss.saturating_sub(before);
        assert!(grown < 2048, "{grown} KiB more");
    }
}

#[test]
fn a_remote_that_pauses_applies_backpressure_and_gets_everything() {
    let daemon = started();
    let (plugin, mut peer) = wss_connected(&daemon, "");
    let (mut stream, _) = plugin.into_stream();
    let before = daemon.memory().rss;
    let blocked = Blocked::new(move |number| {
        let body = body(number);
        stream.write_all(&[format!("BINA {}\n", body.len()).as_bytes(), &body].concat()).unwrap();
    });
    has_not_grown(&daemon, before);
    // Other connections do not wait.
    let (mut other, mut other_peer) = wss_connected(&daemon, "");
    other_peer.send_frame(TEXT, b"hi").unwrap();
    assert_eq!(read_message_text(&mut other), "TEXT hi");
    blocked.open();
    let mut number = 0;
    loop {
        let (opcode, payload) = read_frame(&mut peer);
        if opcode == CLOSE {
            assert_eq!(payload, close_of(1001, ""));
            break;
        }
        assert!(opcode == BINARY && payload == body(number), "{number}");
        number += 1;
    }
    assert_eq!(number, blocked.writing.join().unwrap());
}

#[test]
fn a_plugin_that_pauses_applies_backpressure_and_gets_everything() {
    let daemon = started();
    let (mut plugin, mut peer) = wss_connected(&daemon, "");
    peer.stream().set_write_timeout(Some(2 * LIMIT)).unwrap();
    let before = daemon.memory().rss;
    // The remote closes TCP after the last message.
    let blocked = Blocked::new(move |number| peer.send(&frame_of(0x80 | BINARY, &body(number))).unwrap());
    has_not_grown(&daemon, before);
    blocked.open();
    let mut number = 0;
    loop {
        let (verb, payload) = read_message(&mut plugin);
        if verb != "BINA" {
            assert_eq!(verb, "CLOS 1006");
            break;
        }
        assert!(payload == body(number), "{number}");
        number += 1;
    }
    assert_eq!(number, blocked.writing.join().unwrap());
}

#[test]
fn a_secure_websocket_outlives_its_plugin() {
    let (luup, daemon) = with_luup("");
    let (mut plugin, mut peer) = wss_connected(&daemon, &format!("KEEP=300 EVNT=on NTFY=5/s/a/{PID}"));
    peer.send_frame(TEXT, b"one").unwrap();
    assert_eq!(read_message_text(&mut plugin), "TEXT one");
    plugin.send(b"TEXT 100\nhalf");
    drop(plugin);
    wait_parked(&daemon);
    // Several TLS records; each ends within a frame.
    let long = Random::new(5).bytes(50_000);
    let frames = [frame_of(0x80 | TEXT, b"two"), frame_of(0x80 | BINARY, &long)].concat();
    for piece in frames.chunks(7_777) {
        peer.send(piece).unwrap();
    }
    let mut plugin = attached(&daemon, "SEEN=0");
    assert_eq!(read_message_text(&mut plugin), "TEXT one");
    assert_eq!(read_message_text(&mut plugin), "TEXT two");
    assert!(read_message(&mut plugin) == ("BINA".into(), long.clone()));
    // Taken over while the old plugin is attached.
    let mut newer = attached(&daemon, "SEEN=2");
    assert!(read_message(&mut newer) == ("BINA".into(), long));
    assert!(plugin.at_end());
    newer.send(b"TEXT 5\nagain");
    assert_eq!(read_frame(&mut peer), (TEXT, b"again".to_vec()));
    drop(newer);
    remote_closes_while_parked(&luup, &daemon, peer, 3);
}

#[test]
fn a_failure_of_tls_reaches_the_plugin_as_clos() {
    let (luup, daemon) = with_luup("");
    for (what_comes, why) in [
        // RFC 8446 section 6.1: TCP ends without close_notify.
        (&b""[..], "closed without close_notify"),
        // A fatal alert that is not encrypted, as of a server that has lost its keys.
        (&[0x15, 3, 3, 0, 2, 2, 20], "SSL_ERROR "),
        (b"220 ready\r\n", "SSL_ERROR the server sent an invalid TLS message"),
    ] {
        luup.clear_requests();
        let (mut plugin, peer) = wss_connected(&daemon, "EVNT=on NTFY=5/s/a");
        peer.stream().write_all(what_comes).unwrap();
        drop(peer);
        let text = read_message_text(&mut plugin);
        assert!(text.starts_with(&format!("CLOS 1006 {why}")), "{text}");
        assert!(plugin.at_end());
        let reason = text.strip_prefix("CLOS 1006 ").unwrap();
        let line = format!("{} closed: remote's connection lost ({reason});", plugin.pid());
        daemon.wait_for_log(LIMIT, |logged| logged.contains(&line));
        let ended = StatClient::new(daemon.addr()).wait_ended(plugin.pid());
        assert_eq!(ended["reason"], format!("remote's connection lost ({reason})"));
        let closed = |query: &str| query.ends_with("Event=closed");
        luup.wait_until(LIMIT, |requests| requests.iter().any(|request| closed(&request.query))).unwrap();
    }
}
