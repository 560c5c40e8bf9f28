//! TLS towards remotes: handshakes, verification, bulk, ends, and servers without TLS.

use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use testkit::daemon::Daemon;
use testkit::device::{Device, Kind};
use testkit::plugin::Plugin;
use testkit::random::{Checker, Random};
use testkit::tls::{Authority, Identity, TlsDevice, TlsStream, Validity};

use crate::support::{
    LIMIT, PID, Reader, StatClient, Writer, accepted, attached, daemon, emulated, started, tls_answered, tls_connected,
    wait_parked, with_luup,
};

#[test]
fn bytes_pass_in_both_directions_in_every_version() {
    let daemon = started();
    for config in [Identity::loopback().any_server(), Identity::loopback().tls12_server()] {
        let device = TlsDevice::echo(config);
        let mut plugin = tls_connected(&daemon, device.addr(), "VRFY=none");
        plugin.send(b"hello\n");
        assert_eq!(plugin.line(), "hello");
        // Enough to fill all buffers.
        let mut bytes = vec![0; 3_000_000];
        Random::new(1).fill(&mut bytes);
        let (stream, ahead) = plugin.into_stream();
        assert!(ahead.is_empty());
        let (mut writer, data) = (stream.try_clone().unwrap(), bytes.clone());
        let writing = std::thread::spawn(move || {
            writer.write_all(&data).unwrap();
            writer.shutdown(std::net::Shutdown::Write).unwrap();
        });
        let back = Plugin::from_stream(stream).rest();
        writing.join().unwrap();
        assert!(back == bytes, "{} of {} bytes came back", back.len(), bytes.len());
    }
}

#[test]
fn the_server_is_verified_by_default() {
    let authority = Authority::new("authority");
    let daemon =
        daemon().config("[tls]\nca={dir}/ca.pem\ndirectory={dir}\n").file("ca.pem", authority.pem().as_bytes()).start();
    let good = authority.issue(&["localhost", "127.0.0.1"], Validity::Now);
    let device = TlsDevice::echo(good.any_server());
    tls_connected(&daemon, device.addr(), "");
    tls_connected(&daemon, format!("localhost:{}", device.addr().port()), "");
    let (_, reply) = tls_answered(&daemon, device.addr(), "SNIH=other.example");
    let words = "certificate is not for other.example, but for localhost, 127.0.0.1";
    assert_eq!(reply, format!("ERR CONN SSL_ERROR {words}, certificate is {}", good.pin()));
    let pin = format!("PINS=sha256/{}", "00".repeat(32));
    let (_, reply) = tls_answered(&daemon, device.addr(), &pin);
    assert_eq!(reply, format!("ERR CONN SSL_ERROR pin refused, certificate is {}", good.pin()));
    tls_connected(&daemon, device.addr(), &format!("PINS={}", good.pin()));

    let device = TlsDevice::echo(authority.issue(&["127.0.0.1"], Validity::Past).any_server());
    let (_, reply) = tls_answered(&daemon, device.addr(), "");
    assert!(reply.starts_with("ERR CONN SSL_ERROR certificate expired at 2001-02-03T00:00:00Z"), "{reply}");
    tls_connected(&daemon, device.addr(), "VRFY=none");

    // An authority that only the plugin's CAFL trusts, and an unknown one.
    let other = Authority::new("plugin");
    let identity = other.issue(&["127.0.0.1"], Validity::Now);
    let device = TlsDevice::echo(identity.any_server());
    let (_, reply) = tls_answered(&daemon, device.addr(), "");
    assert_eq!(reply, format!("ERR CONN SSL_ERROR unknown issuer, certificate is {}", identity.pin()));
    std::fs::write(daemon.dir().join("plugin.pem"), other.pem()).unwrap();
    tls_connected(&daemon, device.addr(), "CAFL=plugin.pem");
    let (_, reply) = tls_answered(&daemon, device.addr(), "CAFL=../plugin.pem");
    assert_eq!(reply, "ERR CONN SSL_ERROR CAFL ../plugin.pem: it lies outside of the directory for such files");
}

#[test]
fn a_second_connection_resumes_the_tls_session() {
    let daemon = started();
    let device = TlsDevice::echo(Identity::loopback().any_server());
    for _ in 0..3 {
        let mut plugin = tls_connected(&daemon, device.addr(), "VRFY=none");
        // The ticket has arrived before the answer.
        plugin.send(b"x\n");
        assert_eq!(plugin.line(), "x");
    }
    use rustls::HandshakeKind::{Full, Resumed};
    assert_eq!(device.handshakes(), [Full, Resumed, Resumed]);
}

#[test]
fn an_end_with_or_without_close_notify_reaches_the_plugin() {
    let daemon = started();
    for announced in [true, false] {
        let device = TlsDevice::start(Identity::loopback().any_server(), move |mut stream| {
            stream.write_all(b"last words\n").unwrap();
            if announced {
                stream.conn.send_close_notify();
            }
            let _ = stream.flush();
        });
        let mut plugin = tls_connected(&daemon, device.addr(), "VRFY=none");
        assert_eq!(plugin.rest(), b"last words\n");
        let pid = plugin.pid().to_owned();
        drop(plugin);
        // RFC 8446 section 6.1: without close_notify something may be missing.
        let why = if announced { "both sides ended" } else { "remote's connection lost (closed without close_notify)" };
        daemon.wait_for_log(LIMIT, |line| line.contains(&format!("{pid} closed: {why};")));
        assert_eq!(StatClient::new(daemon.addr()).wait_ended(&pid)["reason"], why);
    }
}

/// A plugin in echo mode over TLS, and the server's end of its connection.
#[track_caller]
fn tls_pair(daemon: &Daemon, options: &str) -> (Plugin, TlsStream) {
    let (come, streams) = channel();
    let device = TlsDevice::start(Identity::loopback().any_server(), move |stream| drop(come.send(stream)));
    let plugin = tls_connected(daemon, device.addr(), &format!("VRFY=none {options}"));
    (plugin, streams.recv_timeout(LIMIT).unwrap())
}

#[test]
fn garbage_after_the_end_of_the_plugin_ends_only_this_connection() {
    // rustls#959: a debug build, as of this test, died of an assertion in rustls.
    let daemon = started();
    let (mut plugin, mut remote) = tls_pair(&daemon, "");
    plugin.finish();
    assert_eq!(remote.read(&mut [0]).expect("close_notify"), 0);
    remote.sock.write_all(b"220 ready\r\n").unwrap();
    assert_eq!(plugin.rest(), b"");
    let why = "remote's connection lost (SSL_ERROR the server sent an invalid TLS message)";
    assert_eq!(StatClient::new(daemon.addr()).wait_ended(plugin.pid())["reason"], why);
}

#[test]
fn a_slow_remote_applies_backpressure_and_gets_everything() {
    let daemon = started();
    let (plugin, mut remote) = tls_pair(&daemon, "");
    let mut writer = Writer::new(plugin.stream(), 7);
    let before = daemon.memory().rss;
    let held = writer.write_until_blocked();
    if !emulated() {
        let grown = daemon.memory().rss.saturating_sub(before);
        assert!(grown < 2048, "{grown} KiB more for {held} bytes");
    }
    // Other connections do not wait.
    let (mut other, mut other_remote) = tls_pair(&daemon, "");
    other_remote.write_all(b"hi\n").unwrap();
    assert_eq!(other.line(), "hi");
    let sender = std::thread::spawn(move || {
        writer.write(1_000_000);
        writer.finish();
    });
    let mut checker = Checker::new(7);
    let (mut received, mut piece) = (0, [0; 3000]);
    loop {
        let read = remote.read(&mut piece).expect("close_notify at the end");
        if read == 0 {
            break;
        }
        assert!(checker.check(&piece[..read]), "behind {received} bytes");
        received += read as u64;
    }
    assert_eq!(received, held + 1_000_000);
    sender.join().unwrap();
}

#[test]
fn a_slow_plugin_applies_backpressure_and_gets_everything() {
    let daemon = started();
    let (plugin, mut remote) = tls_pair(&daemon, "");
    let before = daemon.memory().rss;
    let (progress, steps) = channel();
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let sender = std::thread::spawn(move || {
        let mut random = Random::new(8);
        let mut written = 0;
        while !stopped.load(Ordering::Relaxed) {
            assert!(written < 1 << 28, "no backpressure");
            remote.write_all(&random.bytes(10_000)).unwrap();
            written += 10_000;
            progress.send(()).ok();
        }
        remote.conn.send_close_notify();
        remote.flush().unwrap();
        // Waits until the other end has read everything.
        let _ = remote.read(&mut [0]);
        written
    });
    while steps.recv_timeout(Duration::from_secs(1)).is_ok() {}
    assert!(!sender.is_finished(), "no backpressure");
    if !emulated() {
        let grown = daemon.memory().rss.saturating_sub(before);
        assert!(grown < 2048, "{grown} KiB more");
    }
    stop.store(true, Ordering::Relaxed);
    let received = Reader::new(plugin.stream(), 8).rest();
    drop(plugin);
    assert_eq!(received, sender.join().unwrap());
}

#[test]
fn a_kept_connection_resumes_at_seen() {
    let (luup, daemon) = with_luup("");
    let (mut plugin, mut remote) = tls_pair(&daemon, &format!("KEEP=300 EVNT=on NTFY=5/s/a/{PID}"));
    let hear = |remote: &mut TlsStream, expected: &[u8]| {
        let mut received = vec![0; expected.len()];
        remote.read_exact(&mut received).unwrap();
        assert_eq!(received, expected);
    };
    plugin.send(b"hello");
    hear(&mut remote, b"hello");
    // More than one TLS record.
    let bytes = Random::new(4).bytes(40_000);
    remote.write_all(&bytes[..20_000]).unwrap();
    assert!(plugin.bytes(10_000) == bytes[..10_000]);
    drop(plugin);
    wait_parked(&daemon);
    remote.write_all(&bytes[20_000..]).unwrap();
    let mut plugin = attached(&daemon, "SEEN=10000");
    assert!(plugin.bytes(20_000) == bytes[10_000..30_000]);
    let mut newer = attached(&daemon, "SEEN=15000");
    assert!(plugin.rest().len() <= 10_000);
    assert!(newer.bytes(25_000) == bytes[15_000..]);
    newer.send(b"again");
    hear(&mut remote, b"again");
    let shown = &StatClient::new(daemon.addr()).connections()[0];
    assert_eq!((&shown["protocol"], &shown["tls"]), (&"tls".into(), &"TLSv1.3".into()), "{shown}");
    drop(newer);
    wait_parked(&daemon);
    luup.clear_requests();
    remote.write_all(b"last").unwrap();
    remote.conn.send_close_notify();
    remote.flush().unwrap();
    luup.wait_until(LIMIT, |requests| requests.iter().any(|request| request.query.ends_with("Event=closed"))).unwrap();
    let mut plugin = attached(&daemon, "SEEN=40000");
    assert_eq!(plugin.rest(), b"last");
    drop(plugin);
    StatClient::new(daemon.addr()).wait_connections(0);
    // DROP sends close_notify.
    let (plugin, mut remote) = tls_pair(&daemon, &format!("KEEP=300 NTFY=5/s/a/{PID}"));
    drop(plugin);
    wait_parked(&daemon);
    assert_eq!(daemon.plugin().command(&format!("DROP {PID}")), "OK DROP");
    assert_eq!(remote.read(&mut [0]).expect("close_notify"), 0);
}

#[test]
fn servers_without_tls_are_reported_as_such() {
    let daemon = started();
    for (answer, words) in [
        (&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], "the server speaks plain HTTP on this port"),
        (b"220 mail.example.com ESMTP\r\n", "the server does not speak TLS on this port"),
        (b"", "closed by the server during the handshake"),
    ] {
        let device = Device::start(Kind::Manual);
        let mut plugin = daemon.plugin();
        plugin.send(format!("CONN {} PRTO=tls\n", device.addr()).as_bytes());
        let mut remote = accepted(&device);
        // Reads the ClientHello, since close(2) with unread data would reset the connection.
        std::io::Read::read(&mut remote, &mut [0; 4096]).unwrap();
        remote.write_all(answer).unwrap();
        drop(remote);
        assert_eq!(plugin.line(), format!("ERR CONN SSL_ERROR {words}"));
    }
}

#[test]
fn a_stalling_server_delays_no_other_connection() {
    let daemon = started();
    let silent = Device::start(Kind::Silent);
    let device = TlsDevice::echo(Identity::loopback().any_server());
    let began = Instant::now();
    let mut waiting: Vec<Plugin> = (0..20).map(|_| daemon.plugin()).collect();
    for plugin in &mut waiting {
        plugin.send(format!("CONN {} PRTO=tls CTIM=1000\n", silent.addr()).as_bytes());
    }
    let mut plugin = tls_connected(&daemon, device.addr(), "VRFY=none");
    plugin.send(b"through\n");
    assert_eq!(plugin.line(), "through");
    for plugin in &mut waiting {
        let reply = plugin.line();
        assert!(reply.starts_with("ERR CONN "), "{reply}");
    }
    assert!(began.elapsed() >= Duration::from_millis(1000) && began.elapsed() < LIMIT);
}
