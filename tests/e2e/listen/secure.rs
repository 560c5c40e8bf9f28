//! Listeners for TLS and for WebSocket over TLS. A second daemon is the client.

use std::io::{Read, Write};
use std::time::Duration;

use testkit::daemon::Daemon;
use testkit::plugin::Plugin;
use testkit::ports::Reserved;
use testkit::tls::Identity;

use crate::support::{
    LIMIT, Listener, StatClient, accepted_by, client_of, curl, daemon, read_message_text, send_message, started,
};

/// A daemon that may listen with CERT=own.pem PKEY=own.key, and the certificate.
fn with_certificate() -> (Daemon, Identity) {
    let identity = Identity::loopback();
    let both = [identity.pem(), identity.key_pem()].concat();
    let daemon = daemon()
        .config("[tls]\ndirectory={dir}\n")
        .file("own.pem", identity.pem().as_bytes())
        .file("own.key", identity.key_pem().as_bytes())
        .file("both.pem", both.as_bytes())
        .file("empty.pem", b"")
        .start();
    (daemon, identity)
}

const FILES: &str = "CERT=own.pem PKEY=own.key";

#[test]
fn messages_pass_over_wss() {
    let ((daemon, identity), client_side) = (with_certificate(), started());
    let mut listener = Listener::new(&daemon, &format!("PRTO=wss {FILES} PATH=/p SUBP=x"));
    for version in ["1.2", "1.3"] {
        let mut client = client_side.plugin();
        let url = format!("wss://{}/p?q", listener.addr());
        client.send(
            format!("CONN {url} PINS={} SUBP=x TLSV={version} CTIM=30000 RQTM=60000\n", identity.pin()).as_bytes(),
        );
        let words = listener.incoming();
        assert_eq!(words[2..], ["/p?q", "x"]);
        let mut plugin = accepted_by(&daemon, &words[0], "");
        assert!(client.line().starts_with("OK CONN "));
        send_message(&mut client, "TEXT", b"hello");
        assert_eq!(read_message_text(&mut plugin), "TEXT hello");
        send_message(&mut plugin, "BINA", &[7; 60_000]);
        assert_eq!(client.line(), "BINA 60000");
        assert_eq!(client.bytes(60_000), [7; 60_000]);
        client.send(b"CLOS 4002 3\nbye");
        assert_eq!(read_message_text(&mut plugin), "CLOS 4002 bye");
        assert!(plugin.at_end() && client.line().starts_with("CLOS 4002 "));
    }
    let mut client = client_side.plugin();
    let answer = client.command(&format!("CONN wss://{}/other PINS={} CTIM=30000", listener.addr(), identity.pin()));
    assert_eq!(answer, "ERR CONN BAD_HTTP_STATUS 404 Not Found");
}

#[test]
fn bytes_pass_over_tls() {
    let ((daemon, identity), client_side) = (with_certificate(), started());
    let mut listener = Listener::new(&daemon, "PRTO=tls CERT=both.pem");
    let mut client = client_side.plugin();
    client.conn(listener.addr(), &format!("PRTO=tls PINS={} CTIM=30000", identity.pin()));
    client.send(b"before");
    let words = listener.incoming();
    assert_eq!(words[2..], ["-", "-"]);
    let mut plugin = accepted_by(&daemon, &words[0], "");
    assert_eq!(plugin.bytes(6), b"before");
    let mut stat = StatClient::new(daemon.addr());
    let shown = stat.connection(&words[0]).unwrap();
    assert_eq!((&shown["protocol"], &shown["tls"]), (&"tls".into(), &"TLSv1.3".into()));
    plugin.send(b"answer");
    plugin.finish();
    assert_eq!(client.rest(), b"answer");
    // Denied and not accepted: closed.
    let mut client = client_side.plugin();
    client.conn(listener.addr(), &format!("PRTO=tls PINS={} CTIM=30000", identity.pin()));
    let id = listener.incoming()[0].clone();
    assert_eq!(listener.owner.command(&format!("DENY {id} 404")), format!("OK DENY {id}"));
    assert!(client.at_end());
}

#[test]
fn lstn_checks_the_certificate() {
    let (daemon, _) = with_certificate();
    let port = Reserved::new().unwrap();
    for (options, answer) in [
        ("PRTO=tls", "ERR LSTN CERT is needed"),
        ("PRTO=wss PKEY=own.key", "ERR LSTN CERT is needed"),
        ("PRTO=wss CERT=none.pem", "ERR LSTN SSL_ERROR CERT none.pem: "),
        ("PRTO=wss CERT=../own.pem", "ERR LSTN SSL_ERROR CERT ../own.pem: "),
        ("PRTO=wss CERT=empty.pem", "ERR LSTN SSL_ERROR CERT empty.pem: "),
        ("PRTO=wss CERT=own.pem", "ERR LSTN SSL_ERROR "),
        ("PRTO=ws CERT=own.pem", "ERR LSTN Invalid option CERT=own.pem"),
    ] {
        let mut plugin = daemon.plugin();
        let got = plugin.command(&format!("LSTN {} {options}", port.port()));
        assert!(got.starts_with(answer), "{options}: {got}");
        assert!(plugin.at_end());
    }
    Listener::on(&daemon, port, &format!("PRTO=wss {FILES}"));
    assert!(StatClient::new(daemon.addr()).connections().iter().all(|shown| shown["state"] != "listening"));
}

#[test]
fn curl_is_told_over_https_what_the_port_is() {
    let (daemon, _) = with_certificate();
    let listener = Listener::new(&daemon, &format!("PRTO=wss {FILES}"));
    let url = format!("https://{}/", listener.addr());
    let run = curl(&["-k", "-i", &url]);
    assert!(run.status == Some(0) && run.out.starts_with("HTTP/1.1 426 "), "{run:?}");
}

#[test]
fn slow_and_foreign_clients_of_a_secure_port_end_in_time() {
    let (daemon, _) = with_certificate();
    let mut listener = Listener::new(&daemon, &format!("PRTO=wss {FILES}"));
    let start = std::time::Instant::now();
    let mut silent = client_of(listener.addr());
    let mut slow = client_of(listener.addr());
    slow.write_all(&[22, 3, 1, 1, 0, 1, 0]).unwrap();
    let mut foreign = client_of(listener.addr());
    foreign.write_all(b"SSH-2.0-x\r\n").unwrap();
    foreign.read_to_end(&mut Vec::new()).ok();
    assert!(start.elapsed() < Duration::from_secs(9), "it is refused at once");
    for client in [&mut silent, &mut slow] {
        client.read_to_end(&mut Vec::new()).ok();
    }
    assert!((Duration::from_secs(9)..LIMIT).contains(&start.elapsed()), "{:?}", start.elapsed());
    assert!(listener.owner.is_quiet());
    StatClient::new(daemon.addr()).wait_connections(1);
}

#[test]
fn an_idle_accepted_connection_takes_little_memory() {
    const COUNT: usize = 100;
    if crate::support::skipped_under_emulation("memory is the emulator's") {
        return;
    }
    // The session, its relay and TLS's state, what the allocator adds, and what glibc leaves between.
    for (protocol, most) in [("ws", 3 * 1024), ("wss", 14 * 1024)] {
        let identity = Identity::loopback();
        let builder = daemon()
            .config("[tls]\ndirectory={dir}\n")
            .file("own.pem", identity.pem().as_bytes())
            .file("own.key", identity.key_pem().as_bytes());
        let daemon = crate::process::without_freed_blocks(builder).start();
        let client_side = started();
        let options = if protocol == "wss" { FILES } else { "" };
        let mut listener = Listener::new(&daemon, &format!("PRTO={protocol} {options}"));
        let url = format!("{protocol}://{}/", listener.addr());
        let pin = identity.pin();
        let mut connect = || {
            let mut client = client_side.plugin();
            client.send(format!("CONN {url} PINS={pin} CTIM=30000 RQTM=60000\n").as_bytes());
            let id = listener.incoming()[0].clone();
            let plugin = accepted_by(&daemon, &id, "");
            assert!(client.line().starts_with("OK CONN "));
            (client, plugin)
        };
        let _first: Vec<(Plugin, Plugin)> = (0..10).map(|_| connect()).collect();
        let before = daemon.memory().private_dirty * 1024;
        let _all: Vec<(Plugin, Plugin)> = (0..COUNT).map(|_| connect()).collect();
        let each = (daemon.memory().private_dirty * 1024).saturating_sub(before) as usize / COUNT;
        println!("{protocol}: an idle accepted connection takes {each} bytes");
        assert!(each <= most, "{protocol}: {each} bytes");
    }
}
