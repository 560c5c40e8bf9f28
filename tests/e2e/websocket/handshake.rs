//! The opening handshake: the request, errors, and redirects.

use std::io;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use testkit::device::{Device, Kind};
use testkit::ports::Reserved;
use testkit::tls::{Identity, TlsDevice, Validity};
use testkit::websocket::{Peer, Request, Server, TEXT};

use crate::support::{
    LIMIT, daemon, expect_ok, read_message, read_message_text, redirecting_server, scripted_answer, send_message,
    skipped_under_emulation, started, websocket_connected, websocket_requested,
};

/// The request that a CONN with these options sends.
#[track_caller]
fn request_of(options: &str) -> Request {
    let daemon = started();
    let (mut plugin, mut peer) = websocket_requested(&daemon, "/a%20b?c=%41+", options);
    let request = peer.upgrade().expect("a request");
    expect_ok(&mut plugin);
    request
}

/// An echo server, and the requests that it receives.
fn recording_server() -> (Server, mpsc::Receiver<Request>) {
    let (sender, requests) = mpsc::channel();
    let server = Server::start(move |mut peer| {
        sender.send(peer.upgrade()?).ok();
        peer.echo()
    });
    (server, requests)
}

#[test]
fn rfc_6455_section_4_1_the_request() {
    let request = request_of("");
    assert_eq!(request.line, "GET /a%20b?c=%41+ HTTP/1.1", "the URL was decoded");
    assert!(request.header("Host").starts_with("127.0.0.1:"));
    assert_eq!(request.header("Upgrade"), "websocket");
    assert_eq!(request.header("Connection"), "Upgrade");
    assert_eq!(request.header("Sec-WebSocket-Version"), "13");
    assert_eq!(request.header("Sec-WebSocket-Key").len(), 24);
    assert_eq!(request.header("User-Agent"), format!("sockproxyd/{}", env!("CARGO_PKG_VERSION")));
    for name in ["Origin", "Authorization", "Sec-WebSocket-Protocol", "Sec-WebSocket-Extensions"] {
        assert!(request.all(name).is_empty(), "{name}");
    }
    assert_ne!(request.header("Sec-WebSocket-Key"), request_of("").header("Sec-WebSocket-Key"), "the key was reused");
}

#[test]
fn options_set_headers() {
    let request = request_of(
        "SUBP=b,a UAGT=me%20too ORIG=http://here AUTH=u%3a:p:q HDRS=X-A:%201%2c2 HDRS=X-A:+ HDRS=Host:other DEFL=on",
    );
    assert_eq!(request.header("Sec-WebSocket-Protocol"), "b, a");
    assert_eq!(request.header("User-Agent"), "me too");
    assert_eq!(request.header("Origin"), "http://here");
    assert_eq!(request.all("X-A"), ["1,2", "+"]);
    assert_eq!(request.header("Host"), "other");
    assert!(request.header("Sec-WebSocket-Extensions").starts_with("permessage-deflate; "));
    assert_eq!(request_of("AUTH=Aladdin:open%20sesame").header("Authorization"), "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
}

#[test]
fn values_with_line_ends_are_refused_and_not_repeated_in_the_error() {
    let daemon = started();
    for (name, value) in [
        ("HDRS", "X:hidden%0d%0aY:z"),
        ("HDRS", "Upgrade:hidden"),
        ("HDRS", "Sec-WebSocket-Key:hidden"),
        ("HDRS", "hidden"),
        ("AUTH", "hidden"),
        ("AUTH", "u:hidden%00"),
        ("AUTH", "u:hidden%zz"),
        ("UAGT", "x%0a"),
        ("ORIG", "x%0d"),
        ("SUBP", "a%20b"),
        ("SUBP", ""),
        ("CTRL", "maybe"),
    ] {
        let answer = daemon.plugin().command(&format!("CONN ws://127.0.0.1:9/ {name}={value}"));
        assert!(answer.starts_with(&format!("ERR CONN Invalid option {name}")), "{name}={value}: {answer}");
        assert!(!answer.contains("hidden"), "{answer}");
    }
}

#[test]
fn failures_are_reported_by_name() {
    let daemon = started();
    let with = |answer: &'static str| {
        scripted_answer(&daemon, "", move |mut peer: Peer| {
            peer.request()?;
            peer.send(answer.as_bytes())?;
            peer.end()
        })
    };
    for (answer, words) in [
        ("HTTP/1.1 403 Forbidden\r\n\r\n", "BAD_HTTP_STATUS 403 Forbidden"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", "BAD_HTTP_STATUS 200 OK"),
        ("SSH-2.0-device\r\n", "PARSE_ERROR_HEADERS no HTTP"),
        ("HTTP/1.1 101 X\r\nUpgrade : websocket\r\n\r\n", "PARSE_ERROR_HEADERS malformed Upgrade"),
        (
            "HTTP/1.1 101 X\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
            "WEBSOCKET_PROTOCOL_ERROR no Sec-WebSocket-Accept",
        ),
        ("HTTP/1.1 302 Found\r\nLocation: ftp://x/\r\n\r\n", "INVALID_SCHEMA"),
        ("HTTP/1.1 302 Found\r\nLocation: http://u:p@x/\r\n\r\n", "INVALID_URL"),
        ("HTTP/1.1 101", "SOCKET_ERROR "),
        ("", "SOCKET_ERROR "),
    ] {
        let reply = with(answer);
        assert!(reply.starts_with(&format!("ERR CONN {words}")), "{answer:?}: {reply}");
    }
    for (more, words) in [
        ("Sec-WebSocket-Extensions: permessage-deflate", "extension not offered: permessage-deflate"),
        ("Sec-WebSocket-Protocol: mqtt", "subprotocol not offered: mqtt"),
        ("Upgrade: h2c", "Upgrade to something else"),
    ] {
        let reply = scripted_answer(&daemon, "", move |mut peer: Peer| {
            peer.upgrade_with(&[more])?;
            peer.end()
        });
        assert_eq!(reply, format!("ERR CONN WEBSOCKET_PROTOCOL_ERROR {words}"));
    }
    let reply = scripted_answer(&daemon, "", |mut peer: Peer| {
        peer.request()?;
        let other = Request { line: String::new(), headers: vec![("Sec-WebSocket-Key".into(), "x".into())] };
        peer.send(other.upgrade(&[]).as_bytes())?;
        peer.end()
    });
    assert_eq!(reply, "ERR CONN WEBSOCKET_PROTOCOL_ERROR wrong Sec-WebSocket-Accept");
    for (url, words) in [
        ("ws://", "INVALID_URL"),
        ("ws://h/#x", "INVALID_URL"),
        ("ws://u:p@h/", "INVALID_URL"),
        ("ws://h:0/", "INVALID_URL"),
    ] {
        assert_eq!(daemon.plugin().command(&format!("CONN {url}")), format!("ERR CONN {words}"), "{url}");
    }
}

#[test]
fn a_closed_port_is_could_not_connect() {
    if skipped_under_emulation("errors have other numbers") {
        return;
    }
    let closed = Reserved::new().unwrap();
    let answer = started().plugin().command(&format!("CONN ws://127.0.0.1:{}/", closed.port()));
    assert_eq!(answer, "ERR CONN COULD_NOT_CONNECT connection refused");
}

#[test]
fn a_silent_server_times_out_after_rqtm() {
    let daemon = started();
    for begun in ["", "HTTP/1.1 101 Switching"] {
        let device = Device::start(Kind::Silent);
        let mut plugin = daemon.plugin();
        let start = Instant::now();
        plugin.send(format!("CONN ws://{}/ RQTM=300\n", device.addr()).as_bytes());
        device.accept(LIMIT);
        device.push(begun.as_bytes());
        assert!(plugin.line().starts_with("ERR CONN REQUEST_TIMEOUT"));
        assert!(start.elapsed() >= Duration::from_millis(300));
        assert!(plugin.at_end());
    }
}

#[test]
fn redirects_are_followed() {
    let daemon = started();
    for status in ["301 Moved", "302 Found", "303 See Other", "307 Temporary", "308 Permanent"] {
        let (end, requests) = recording_server();
        let port = end.addr().port();
        let (server, _asked) = redirecting_server(None, status, format!("http://127.0.0.1:{port}/there?x#fragment"));
        let mut plugin = daemon.plugin();
        plugin.conn(server.url("/start"), "");
        assert_eq!(requests.recv_timeout(LIMIT).unwrap().line, "GET /there?x HTTP/1.1", "{status}");
        send_message(&mut plugin, "TEXT", b"hi");
        assert_eq!(read_message_text(&mut plugin), "TEXT hi");
    }
}

#[test]
fn redirects_send_credentials_only_to_the_same_host() {
    let daemon = started();
    let (sender, requests) = mpsc::channel();
    let (end, elsewhere) = recording_server();
    let port = end.addr().port();
    let server = Server::start(move |mut peer| {
        let request = peer.request()?;
        let location =
            if request.line.contains("/a/start") { "../b".into() } else { format!("ws://127.0.0.1:{port}/c") };
        sender.send(request).ok();
        peer.send(format!("HTTP/1.1 307 X\r\nLocation: {location}\r\n\r\n").as_bytes())?;
        peer.end()
    });
    let mut plugin = daemon.plugin();
    plugin.conn(server.url("/a/start"), "AUTH=u:p HDRS=X-Key:k UAGT=me");
    for line in ["GET /a/start HTTP/1.1", "GET /b HTTP/1.1"] {
        let request = requests.recv_timeout(LIMIT).unwrap();
        assert_eq!(request.line, line);
        assert_eq!((request.header("Authorization"), request.header("X-Key")), ("Basic dTpw", "k"));
    }
    let request = elsewhere.recv_timeout(LIMIT).unwrap();
    assert_eq!((&*request.line, request.header("User-Agent")), ("GET /c HTTP/1.1", "me"));
    assert!(request.all("Authorization").is_empty() && request.all("X-Key").is_empty(), "{request:?}");
}

#[test]
fn redirects_use_certificate_and_server_name_only_for_the_same_host() {
    let daemon = started();
    let device = TlsDevice::echo(Identity::self_signed(&["a.example"], Validity::Now).any_server());
    let secure = device.addr();
    let (server, _asked) = redirecting_server(None, "302 Found", format!("wss://{secure}/"));
    // No directory for certificate files is configured, so CERT is an error, but only for the plugin's own host.
    let options = "VRFY=none CERT=mine.pem SNIH=not..a..name";
    let answer = |url: &str| daemon.plugin().command(&format!("CONN {url} {options}"));
    assert!(answer(&format!("wss://{secure}/")).starts_with("ERR CONN SSL_ERROR"));
    // This server sends the request back.
    assert_eq!(answer(&server.url("/")), "ERR CONN PARSE_ERROR_HEADERS no HTTP");
}

#[test]
fn the_number_of_redirects_is_limited() {
    let daemon = started();
    for (options, followed) in [("", 4), ("RDIR=1", 1), ("RDIR=0", 0)] {
        let (server, requests) = redirecting_server(None, "302 Found", "/again".into());
        let answer = daemon.plugin().command(&format!("CONN {} {options}", server.url("/")));
        assert!(answer.starts_with("ERR CONN REDIRECT_MAX"), "{answer}");
        assert_eq!(requests.try_iter().count(), followed + 1, "{options}");
    }
}

#[test]
fn rhdr_passes_the_response_head_to_the_plugin() {
    let daemon = started();
    let (mut plugin, mut peer) = websocket_requested(&daemon, "/", "RHDR=on");
    let request = peer.request().unwrap();
    let head = request.upgrade(&["Set-Cookie: a=b"]);
    peer.send(head.as_bytes()).unwrap();
    peer.send_frame(TEXT, b"hi").unwrap();
    expect_ok(&mut plugin);
    assert_eq!(read_message(&mut plugin), ("HEAD".into(), head.into_bytes()));
    assert_eq!(read_message_text(&mut plugin), "TEXT hi");
}

/// Whether a server refuses a request with these extensions.
type Refuses = fn(Option<&str>) -> bool;

/// A server that answers 400 while `refuses` finds something in the request's extensions, else 101 and a text. Also returns
/// the requests that it receives.
fn refusing_server(refuses: Refuses) -> (Server, mpsc::Receiver<Request>) {
    let (sender, requests) = mpsc::channel();
    let server = Server::start(move |mut peer| {
        let request = peer.request()?;
        let extensions = request.all("Sec-WebSocket-Extensions").first().map(|&offer| offer.to_owned());
        sender.send(request.clone()).ok();
        if refuses(extensions.as_deref()) {
            peer.send(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")?;
            return peer.end();
        }
        let chosen = extensions.map(|_| "Sec-WebSocket-Extensions: permessage-deflate");
        peer.send(request.upgrade(&chosen.into_iter().collect::<Vec<_>>()).as_bytes())?;
        peer.send_frame(TEXT, b"hi")?;
        peer.echo()
    });
    (server, requests)
}

/// gun#371, beast#2671: servers that refuse a request whose offer has window bits, or any offer.
#[test]
fn rfc_7692_section_5_1_a_refused_offer_is_followed_by_plainer_ones() {
    let daemon = started();
    let cases: [(Refuses, usize); 3] = [
        (|offer| offer.is_some_and(|offer| offer.contains("server_max_window_bits")), 2),
        (|offer| offer.is_some(), 3),
        (|_| true, 3),
    ];
    for (refuses, expected) in cases {
        let (server, requests) = refusing_server(refuses);
        let mut plugin = daemon.plugin();
        plugin.send(format!("CONN {} DEFL=on AUTH=u:p HDRS=X-Key:k\n", server.url("/")).as_bytes());
        let answer = plugin.line();
        let requests: Vec<Request> = requests.try_iter().collect();
        let offers: Vec<_> = requests.iter().map(|request| request.all("Sec-WebSocket-Extensions")).collect();
        assert!(offers[0][0].starts_with("permessage-deflate; "), "{offers:?}");
        assert_eq!(offers[1..], [&["permessage-deflate"][..], &[]][..expected - 1], "{offers:?}");
        for request in &requests {
            assert_eq!((request.header("Authorization"), request.header("X-Key")), ("Basic dTpw", "k"));
        }
        if refuses(None) {
            assert_eq!(answer, "ERR CONN BAD_HTTP_STATUS 400 Bad Request", "a 400 for another reason");
        } else {
            assert!(answer.starts_with("OK CONN"), "{answer}");
            assert_eq!(read_message_text(&mut plugin), "TEXT hi");
        }
    }
    let (server, requests) = refusing_server(|_| true);
    let answer = daemon.plugin().command(&format!("CONN {}", server.url("/")));
    assert_eq!(answer, "ERR CONN BAD_HTTP_STATUS 400 Bad Request");
    assert_eq!(requests.try_iter().count(), 1, "nothing was offered");
}

#[test]
fn rqtm_limits_all_offers_together() {
    let daemon = started();
    let server = Server::start(|mut peer| {
        if peer.request()?.all("Sec-WebSocket-Extensions") == ["permessage-deflate"] {
            // No answer to the second offer.
            peer.rest()?;
        }
        peer.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")?;
        peer.end()
    });
    let start = Instant::now();
    let answer = daemon.plugin().command(&format!("CONN {} DEFL=on RQTM=700", server.url("/")));
    assert!(answer.starts_with("ERR CONN REQUEST_TIMEOUT"), "{answer}");
    assert!(start.elapsed() >= Duration::from_millis(700));
}

#[test]
fn headers_that_small_devices_write_do_not_matter() {
    let daemon = started();
    let (mut plugin, mut peer) = websocket_requested(&daemon, "/", "RHDR=on");
    let request = peer.request().unwrap();
    let odd = [
        "Set-Cookie: a=b;\r\n path=/",
        "Sec-WebSocket-Protocol:",
        "Server : x",
        "a line without a colon",
        "X-Control: \u{1}\u{7f}",
    ];
    let head = request.upgrade(&odd);
    peer.send(["\r\n", &head].concat().as_bytes()).unwrap();
    peer.send_frame(TEXT, b"hi").unwrap();
    expect_ok(&mut plugin);
    assert_eq!(read_message(&mut plugin), ("HEAD".into(), head.into_bytes()));
    assert_eq!(read_message_text(&mut plugin), "TEXT hi");
}

#[test]
fn neither_log_nor_stat_contains_secrets() {
    let daemon = daemon().config("[host]\ndebug=1\n").start();
    let (_plugin, _peer) = websocket_connected(&daemon, "AUTH=user:hidden1 HDRS=Cookie:hidden2");
    let refused = scripted_answer(&daemon, "AUTH=user:hidden3", |mut peer| -> io::Result<()> {
        peer.request()?;
        peer.send(b"HTTP/1.1 401 Unauthorized\r\n\r\n")?;
        peer.end()
    });
    assert_eq!(refused, "ERR CONN BAD_HTTP_STATUS 401 Unauthorized");
    // An unknown option may be a misspelt secret.
    let misspelt = daemon.plugin().command("CONN ws://127.0.0.1:1/ auth=user:hidden4");
    assert_eq!(misspelt, "ERR CONN Invalid option auth=user:hidden4");
    let mut asker = daemon.plugin();
    asker.send(b"STAT\nSTAT JSON\nQUIT\n");
    let shown = String::from_utf8_lossy(&asker.rest()).into_owned() + &daemon.complete_log_text();
    assert!(shown.contains("ws://127.0.0.1") || shown.contains("127.0.0.1:"), "{shown}");
    assert!(!shown.contains("hidden") && !shown.contains("dXNlc"), "{shown}");
}
