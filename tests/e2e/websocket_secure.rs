//! WebSocket over TLS: messages, redirects, time limits, backpressure, certificates, and plugins that go away.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use lab::daemon::Daemon;
use lab::device::{Device, Kind};
use lab::plugin::Plugin;
use lab::random::Random;
use lab::tls::{Authority, Identity, TlsDevice, Validity};
use lab::websocket::{BINARY, CLOSE, Peer, Request, Server, TEXT, close_of, frame_of};
use rustls::ServerConfig;

use crate::support::{
    LIMIT, Observer, PID, accepted, attached, daemon, emulated, heard, remote_ends_while_nobody_is_there, said,
    said_text, say, started, wait_parked, with_luup,
};

/// What every CONN here has: a busy machine may take its time for handshakes.
const PATIENT: &str = "VRFY=none CTIM=30000 RQTM=60000";

fn loopback() -> Identity {
    Identity::self_signed(&["localhost", "127.0.0.1"], Validity::Now)
}

fn echo(config: ServerConfig) -> Server {
    Server::start_secure(config, |mut peer| {
        peer.upgrade()?;
        peer.echo()
    })
}

#[track_caller]
fn answer(daemon: &Daemon, url: &str, options: &str) -> String {
    daemon.plugin().command(&format!("CONN {url} {options}"))
}

/// A plugin in echo mode, and its peer.
#[track_caller]
fn bridged(daemon: &Daemon, options: &str) -> (Plugin, Peer) {
    let (come, peers) = channel();
    let server = Server::start_secure(loopback().any_server(), move |mut peer| {
        peer.upgrade()?;
        come.send(peer).ok();
        Ok(())
    });
    let mut plugin = daemon.plugin();
    plugin.conn(server.url("/"), &format!("{PATIENT} {options}"));
    (plugin, peers.recv_timeout(LIMIT).expect("an upgrade"))
}

#[test]
fn messages_pass_in_every_version() {
    let daemon = started();
    for (config, version) in [(loopback().any_server(), "TLSv1.3"), (loopback().old_server(), "TLSv1.2")] {
        let server = echo(config);
        let mut plugin = daemon.plugin();
        plugin.conn(server.url("/"), &format!("{PATIENT} MAXM=1000000"));
        let shown = &Observer::new(daemon.addr()).connections()[0];
        assert_eq!((&shown["protocol"], &shown["tls"]), (&"wss".into(), &version.into()), "{shown}");
        let mut random = Random::new(3);
        for length in [0, 1, 125, 126, 16_384, 65_536, 900_000] {
            let noise = random.bytes(length);
            say(&mut plugin, "BINA", &noise);
            assert!(said(&mut plugin) == ("BINA".into(), noise), "{length}, {version}");
        }
        say(&mut plugin, "CLOS 1000", b"bye");
        assert_eq!(said(&mut plugin).0, "CLOS 1000");
        assert!(plugin.at_end());
    }
}

/// A server that sends everybody to `location`, and what it is asked.
fn redirecting(config: Option<ServerConfig>, location: String) -> (Server, Receiver<Request>) {
    let (heard, requests) = channel();
    let script = move |mut peer: Peer| {
        heard.send(peer.request()?).ok();
        peer.send(format!("HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n").as_bytes())?;
        peer.end()
    };
    let server = match config {
        Some(config) => Server::start_secure(config, script),
        None => Server::start(script),
    };
    (server, requests)
}

#[test]
fn redirects_lead_to_tls_and_never_away_from_it() {
    let daemon = started();
    let options = format!("{PATIENT} AUTH=u:p");
    let end = echo(loopback().any_server());
    for (from, location) in [
        (None, end.url("/there")),
        (None, format!("https://{}/there", end.addr())),
        (Some(loopback().any_server()), end.url("/there")),
    ] {
        let (server, requests) = redirecting(from, location);
        let mut plugin = daemon.plugin();
        plugin.conn(server.url("/"), &options);
        assert_eq!(requests.recv_timeout(LIMIT).unwrap().header("Authorization"), "Basic dTpw");
        say(&mut plugin, "TEXT", b"hi");
        assert_eq!(said_text(&mut plugin), "TEXT hi");
        assert_eq!(Observer::new(daemon.addr()).connections()[0]["protocol"], "wss");
    }
    // A server of its own that keeps what it hears: nothing.
    let (heard, anything) = channel();
    let plain = Server::start(move |mut peer| {
        heard.send(peer.request()).ok();
        Ok(())
    });
    for location in [plain.url("/"), format!("http://{}/", plain.addr())] {
        let (server, _requests) = redirecting(Some(loopback().any_server()), location);
        assert_eq!(answer(&daemon, &server.url("/"), &options), "ERR CONN REDIRECT_MAX redirected from wss to ws");
    }
    // On the way to TLS and back there is no way out either.
    let (back, _requests) = redirecting(Some(loopback().any_server()), plain.url("/"));
    let (server, _asked) = redirecting(None, back.url("/"));
    assert_eq!(answer(&daemon, &server.url("/"), &options), "ERR CONN REDIRECT_MAX redirected from wss to ws");
    assert!(anything.try_recv().is_err(), "it has been asked");
}

#[test]
fn a_client_certificate_is_for_the_host_that_the_plugin_named() {
    let clients = Authority::new("clients");
    let (daemon, identity) = with_certificates(&clients);
    // localhost and 127.0.0.1 are two hosts.
    let end = Server::start_secure(identity.server(rustls::ALL_VERSIONS, Some(&clients)), |mut peer| {
        peer.upgrade()?;
        peer.echo()
    });
    let options = format!("{PATIENT} CERT=client.pem");
    let mut plugin = daemon.plugin();
    plugin.conn(end.url("/"), &options);
    let (same, _) = redirecting(Some(loopback().any_server()), format!("wss://127.0.0.1:{}/", end.addr().port()));
    let (other, _) = redirecting(Some(loopback().any_server()), format!("wss://localhost:{}/", end.addr().port()));
    let answers = [answer(&daemon, &same.url("/"), &options), answer(&daemon, &other.url("/"), &options)];
    assert_eq!(answers[1], "ERR CONN SSL_ERROR the server wants a certificate from us");
    // Another port is another server: what is entrusted to one is not for the other.
    assert_eq!(answers[0], "ERR CONN SSL_ERROR the server wants a certificate from us");
}

/// A daemon that has client.pem (of `clients`), other.pem (of somebody else) and house.pem, and a server's identity that
/// it trusts.
#[track_caller]
fn with_certificates(clients: &Authority) -> (Daemon, Identity) {
    let house = Authority::new("house");
    let both = |identity: &Identity| [identity.pem(), identity.key_pem()].concat();
    let client = clients.issue(&["client"], Validity::Now);
    let other = Authority::new("other").issue(&["client"], Validity::Now);
    let expired = clients.issue(&["client"], Validity::Past);
    let daemon = daemon()
        .config("[tls]\nca={dir}/house.pem\ndirectory={dir}\n")
        .file("house.pem", house.pem().as_bytes())
        .file("client.pem", both(&client).as_bytes())
        .file("certificate.pem", client.pem().as_bytes())
        .file("key.pem", client.key_pem().as_bytes())
        .file("other.pem", both(&other).as_bytes())
        .file("expired.pem", both(&expired).as_bytes())
        .start();
    (daemon, house.issue(&["127.0.0.1", "localhost"], Validity::Now))
}

#[test]
fn a_server_that_wants_a_certificate_gets_the_right_one_or_says_why_not() {
    let clients = Authority::new("clients");
    let (daemon, identity) = with_certificates(&clients);
    for versions in [&[&rustls::version::TLS13][..], &[&rustls::version::TLS12]] {
        let server = Server::start_secure(identity.server(versions, Some(&clients)), |mut peer| {
            peer.upgrade()?;
            peer.echo()
        });
        let options = |more: &str| format!("CTIM=30000 RQTM=60000 {more}");
        for certificate in ["CERT=client.pem", "CERT=certificate.pem PKEY=key.pem", "CERT=client.pem PKEY=client.pem"] {
            let mut plugin = daemon.plugin();
            plugin.conn(server.url("/"), &options(certificate));
            say(&mut plugin, "TEXT", b"hi");
            assert_eq!(said_text(&mut plugin), "TEXT hi");
        }
        for (certificate, words) in [
            ("", "the server wants a certificate from us"),
            ("CERT=other.pem", "the server refuses our certificate (UnknownCA)"),
            ("CERT=expired.pem", "the server refuses our certificate (CertificateExpired)"),
            ("CERT=certificate.pem", "CERT certificate.pem: there is no private key in it"),
            ("CERT=certificate.pem PKEY=other.pem", "CERT and PKEY do not belong together"),
            ("CERT=missing.pem", "CERT missing.pem: No such file or directory (os error 2)"),
            ("PKEY=key.pem", "PKEY needs CERT"),
        ] {
            let said = answer(&daemon, &server.url("/"), &options(certificate));
            assert_eq!(said, format!("ERR CONN SSL_ERROR {words}"), "{certificate}");
        }
    }
    // A plain stream over TLS 1.3 is open before the server has looked: the plugin sees an end, the log says why.
    let device = TlsDevice::echo(identity.server(&[&rustls::version::TLS13], Some(&clients)));
    let mut plugin = daemon.plugin();
    plugin.conn(device.addr(), "PRTO=tls CTIM=30000 CERT=client.pem");
    plugin.send(b"hi\n");
    assert_eq!(plugin.line(), "hi");
    let mut plugin = daemon.plugin();
    plugin.conn(device.addr(), "PRTO=tls CTIM=30000");
    assert!(plugin.at_end());
    daemon.wait_for_log(LIMIT, |line| line.contains("SSL_ERROR the server wants a certificate from us"));
    let old = TlsDevice::echo(identity.server(&[&rustls::version::TLS12], Some(&clients)));
    let said = answer(&daemon, &old.addr().to_string(), "PRTO=tls CTIM=30000");
    assert_eq!(said, "ERR CONN SSL_ERROR the server wants a certificate from us");
}

#[test]
fn what_is_wrong_with_a_server_has_a_word_and_a_reason() {
    let clients = Authority::new("unused");
    let (daemon, identity) = with_certificates(&clients);
    let house = Authority::new("another house");
    let issued = |names: &[&str], validity| house.issue(names, validity);
    let directory = daemon.dir().to_owned();
    std::fs::write(directory.join("another.pem"), house.pem()).unwrap();
    let unknown = issued(&["127.0.0.1"], Validity::Now);
    let own = Identity::self_signed_authority(&["127.0.0.1"]);
    let no_name = Identity::self_signed(&[], Validity::Now);
    let pin = |identity: &Identity| format!("PINS={}", identity.pin());
    let refused = |identity: &Identity, why: &str| format!("{why}, certificate is {}", identity.pin());
    for (config, options, words) in [
        (identity.any_server(), String::new(), None),
        (identity.any_server(), "TLSV=1.3".into(), None),
        (identity.any_server(), pin(&identity), None),
        (identity.any_server(), format!("{},{}", pin(&own), identity.pin()), None),
        (unknown.any_server(), "CAFL=another.pem".into(), None),
        (unknown.any_server(), String::new(), Some(refused(&unknown, "unknown issuer"))),
        (own.any_server(), String::new(), Some(refused(&own, "unknown issuer (self-signed)"))),
        (own.any_server(), pin(&own), None),
        (no_name.any_server(), pin(&no_name), None),
        (unknown.any_server(), pin(&own), Some(refused(&unknown, "pin refused"))),
        (
            issued(&["127.0.0.1"], Validity::Past).any_server(),
            "CAFL=another.pem".into(),
            Some("certificate expired at 2001-02-03T00:00:00Z, the clock says ".into()),
        ),
        (
            issued(&["127.0.0.1"], Validity::Future).any_server(),
            "CAFL=another.pem".into(),
            Some("certificate not valid before 2199-01-01T00:00:00Z, the clock says ".into()),
        ),
        (
            issued(&["a.example", "b.example"], Validity::Now).any_server(),
            "CAFL=another.pem".into(),
            Some("certificate is not for 127.0.0.1, but for a.example, b.example".into()),
        ),
        (issued(&["a.example"], Validity::Now).any_server(), "CAFL=another.pem SNIH=a.example".into(), None),
        (identity.old_server(), "TLSV=1.3".into(), Some("no common version of TLS: the server refuses ours".into())),
    ] {
        // The same words over either protocol.
        let server = echo(config.clone());
        let device = TlsDevice::echo(config);
        let plain = format!("{} PRTO=tls", device.addr());
        for target in [format!("{} RQTM=60000", server.url("/")), plain] {
            let said = answer(&daemon, &target, &format!("CTIM=30000 {options}"));
            match &words {
                None => assert!(said.starts_with("OK CONN "), "{target} {options}: {said}"),
                Some(words) => {
                    assert!(said.starts_with(&format!("ERR CONN SSL_ERROR {words}")), "{target} {options}: {said}");
                }
            }
        }
    }
}

#[test]
fn a_server_that_does_not_come_to_the_point_has_its_time() {
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
            let server =
                if secure { Server::start_secure(loopback().any_server(), script) } else { Server::start(script) };
            let start = Instant::now();
            // The time for all holds the handshake, too, which may take long on a busy machine: then it is the same word.
            let said = answer(&daemon, &server.url("/"), "VRFY=none CTIM=30000 RQTM=700");
            assert_eq!(said, "ERR CONN REQUEST_TIMEOUT timeout", "{secure} {trickle}");
            assert!(start.elapsed() >= Duration::from_millis(700));
        }
    }
    // A server that takes the connection, and then nothing, or half of its hello, ever so slowly.
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
                // It may have lost patience already.
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
    // Each hop takes a while; none of them too long, all of them together are.
    let server = Server::start(|mut peer| {
        peer.request()?;
        std::thread::sleep(Duration::from_millis(300));
        peer.send(b"HTTP/1.1 302 Found\r\nLocation: /on\r\n\r\n")?;
        peer.end()
    });
    let said = answer(&daemon, &server.url("/"), "RDIR=100 CTIM=30000 RQTM=1000");
    assert_eq!(said, "ERR CONN REQUEST_TIMEOUT timeout");
    // What has been connected to is not measured by CTIM.
    let server = Server::start(|mut peer| {
        peer.request()?;
        std::thread::sleep(Duration::from_millis(2200));
        peer.send(b"HTTP/1.1 302 Found\r\nLocation: /on\r\n\r\n")?;
        peer.end()
    });
    let said = answer(&daemon, &server.url("/"), "RDIR=0 CTIM=2000 RQTM=60000");
    assert_eq!(said, "ERR CONN REDIRECT_MAX redirected too often");
}

/// Runs `write`, a message of some 25 KB a call, until it has stood still for a second; `open` lets it go on then, and ends
/// it after that message. How many messages there are.
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
                assert!(written < 10_000, "nothing holds it back");
                write(written);
                written += 1;
                progress.send(()).ok();
            }
            written
        });
        while steps.recv_timeout(Duration::from_secs(1)).is_ok() {}
        assert!(!writing.is_finished(), "nothing holds it back");
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
fn a_remote_that_reads_nothing_holds_the_plugin_back_and_gets_everything_then() {
    let daemon = started();
    let (plugin, mut peer) = bridged(&daemon, "");
    let (mut stream, _) = plugin.into_stream();
    let before = daemon.memory().rss;
    let blocked = Blocked::new(move |number| {
        let body = body(number);
        stream.write_all(&[format!("BINA {}\n", body.len()).as_bytes(), &body].concat()).unwrap();
    });
    has_not_grown(&daemon, before);
    // The others do not wait.
    let (mut other, mut other_peer) = bridged(&daemon, "");
    other_peer.send_frame(TEXT, b"hi").unwrap();
    assert_eq!(said_text(&mut other), "TEXT hi");
    blocked.open();
    let mut number = 0;
    loop {
        let (opcode, payload) = heard(&mut peer);
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
fn a_plugin_that_reads_nothing_holds_the_remote_back_and_gets_everything_then() {
    let daemon = started();
    let (mut plugin, mut peer) = bridged(&daemon, "");
    peer.stream().set_write_timeout(Some(2 * LIMIT)).unwrap();
    let before = daemon.memory().rss;
    // It vanishes when it has written the last.
    let blocked = Blocked::new(move |number| peer.send(&frame_of(0x80 | BINARY, &body(number))).unwrap());
    has_not_grown(&daemon, before);
    blocked.open();
    let mut number = 0;
    loop {
        let (verb, payload) = said(&mut plugin);
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
    let (mut plugin, mut peer) = bridged(&daemon, &format!("KEEP=300 EVNT=on NTFY=5/s/a/{PID}"));
    peer.send_frame(TEXT, b"one").unwrap();
    assert_eq!(said_text(&mut plugin), "TEXT one");
    plugin.send(b"TEXT 100\nhalf");
    drop(plugin);
    wait_parked(&daemon);
    // Several records, more than a record, and half a frame in each.
    let long = Random::new(5).bytes(50_000);
    let frames = [frame_of(0x80 | TEXT, b"two"), frame_of(0x80 | BINARY, &long)].concat();
    for piece in frames.chunks(7_777) {
        peer.send(piece).unwrap();
    }
    let mut plugin = attached(&daemon, "SEEN=0");
    assert_eq!(said_text(&mut plugin), "TEXT one");
    assert_eq!(said_text(&mut plugin), "TEXT two");
    assert!(said(&mut plugin) == ("BINA".into(), long.clone()));
    // Taken over while the old one is attached.
    let mut newer = attached(&daemon, "SEEN=2");
    assert!(said(&mut newer) == ("BINA".into(), long));
    assert!(plugin.at_end());
    newer.send(b"TEXT 5\nagain");
    assert_eq!(heard(&mut peer), (TEXT, b"again".to_vec()));
    drop(newer);
    remote_ends_while_nobody_is_there(&luup, &daemon, peer, 3);
}
