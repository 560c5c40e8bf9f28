//! Listeners for WebSocket: the opening handshake, its refusals, and messages in the server's role.

use std::io::{Read, Write};
use std::time::Duration;

use testkit::daemon::Daemon;
use testkit::plugin::Plugin;
use testkit::websocket::{BINARY, CLOSE, PING, PONG, TEXT, close_of};

use crate::support::{
    LIMIT, Listener, PID, StatClient, WsClient, accepted_by, attached, client_of, curl, listening, read_close_code,
    read_frame, read_message_text, send_message, started, wait_parked, with_luup,
};

/// FIN and an opcode.
const FIN: u8 = 0x80;

/// A listener, a plugin that has accepted a connection with these options, and its client.
#[track_caller]
fn accepted(daemon: &Daemon, lstn: &str, acpt: &str) -> (Listener, Plugin, WsClient) {
    let mut listener = Listener::new(daemon, &format!("PRTO=ws {lstn}"));
    let (plugin, client) = accept_another(daemon, &mut listener, acpt, &[]);
    (listener, plugin, client)
}

#[track_caller]
fn accept_another(daemon: &Daemon, listener: &mut Listener, acpt: &str, lines: &[&str]) -> (Plugin, WsClient) {
    let mut client = WsClient::request(listener.addr(), "/", lines);
    let words = listener.incoming();
    let plugin = accepted_by(daemon, &words[0], acpt);
    client.upgraded();
    (plugin, client)
}

/// The status line that a request for `path` with further header lines gets.
#[track_caller]
fn refusal(listener: &Listener, path: &str, lines: &[&str]) -> String {
    WsClient::request(listener.addr(), path, lines).response().line
}

#[test]
fn messages_pass_both_ways_in_mesg_framing() {
    let daemon = started();
    let (_listener, mut plugin, mut client) = accepted(&daemon, "", "");
    client.send(FIN | TEXT, b"hello");
    assert_eq!(read_message_text(&mut plugin), "TEXT hello");
    client.send(BINARY, b"in two ");
    client.send(FIN, b"frames");
    assert_eq!(read_message_text(&mut plugin), "BINA in two frames");
    send_message(&mut plugin, "TEXT", b"welcome");
    let frame = client.0.frame().unwrap();
    assert_eq!((frame.opcode, &frame.payload[..], frame.mask), (TEXT, &b"welcome"[..], None), "a server does not mask");
    client.send(FIN | PING, b"there?");
    assert_eq!(read_frame(&mut client.0), (PONG, b"there?".to_vec()));
    let long = vec![b'x'; 60_000];
    client.send(FIN | BINARY, &long);
    assert_eq!(plugin.line(), "BINA 60000");
    assert_eq!(plugin.bytes(60_000), long);
    send_message(&mut plugin, "BINA", &long);
    assert_eq!(read_frame(&mut client.0), (BINARY, long));
}

#[test]
fn line_and_raw_framing_and_mask_without_effect() {
    let daemon = started();
    let (mut listener, mut plugin, mut client) = accepted(&daemon, "", "FRAM=LINE MASK=on");
    client.send(FIN | TEXT, b"a\nb");
    assert_eq!(plugin.line(), "a b");
    plugin.send(b"one\r\ntwo\n");
    for line in ["one", "two"] {
        let frame = client.0.frame().unwrap();
        assert_eq!((frame.opcode, &frame.payload[..], frame.mask), (TEXT, line.as_bytes(), None));
    }
    let (mut plugin, mut client) = accept_another(&daemon, &mut listener, "FRAM=RAW", &[]);
    client.send(FIN | BINARY, b"raw");
    assert_eq!(plugin.bytes(3), b"raw");
    plugin.send(b"back");
    assert_eq!(read_frame(&mut client.0), (BINARY, b"back".to_vec()));
}

#[test]
fn close_codes_pass_both_ways() {
    let daemon = started();
    let (mut listener, mut plugin, mut client) = accepted(&daemon, "", "");
    client.send(FIN | CLOSE, &close_of(4001, "bye"));
    assert_eq!(read_message_text(&mut plugin), "CLOS 4001 bye");
    assert!(plugin.at_end());
    assert_eq!(read_close_code(&mut client.0), 4001);
    assert_eq!(client.0.rest().unwrap(), b"", "the server ends the connection");

    let (mut plugin, mut client) = accept_another(&daemon, &mut listener, "", &[]);
    plugin.send(b"CLOS 3005 5\nenoug");
    assert_eq!(read_frame(&mut client.0), (CLOSE, close_of(3005, "enoug")));
    client.send(FIN | CLOSE, &close_of(3005, ""));
    assert_eq!(read_message_text(&mut plugin), "CLOS 3005 ");

    let (plugin, mut client) = accept_another(&daemon, &mut listener, "", &[]);
    drop(plugin);
    assert_eq!(read_close_code(&mut client.0), 1001);

    // An unmasked frame from a client: RFC 6455 section 5.1.
    let (mut plugin, mut client) = accept_another(&daemon, &mut listener, "", &[]);
    client.0.send_frame(TEXT, b"x").unwrap();
    assert_eq!(read_close_code(&mut client.0), 1002);
    assert!(read_message_text(&mut plugin).starts_with("CLOS 1002 "));

    let (mut plugin, mut client) = accept_another(&daemon, &mut listener, "MAXM=10", &[]);
    client.send(FIN | TEXT, b"too long a text");
    assert_eq!(read_close_code(&mut client.0), 1009);
    assert!(read_message_text(&mut plugin).starts_with("CLOS 1009 "));
}

#[test]
fn control_frames_pings_and_silence() {
    let daemon = started();
    let (mut listener, mut plugin, mut client) = accepted(&daemon, "", "CTRL=show");
    client.send(FIN | PING, b"p");
    assert_eq!(read_message_text(&mut plugin), "PING p");
    assert_eq!(read_frame(&mut client.0), (PONG, b"p".to_vec()));
    let (mut plugin, mut client) = accept_another(&daemon, &mut listener, "PNGI=0.2", &[]);
    assert_eq!(read_frame(&mut client.0).0, PING);
    // It does not answer.
    assert!(read_message_text(&mut plugin).starts_with("CLOS 1006 "));
    let (mut plugin, _client) = accept_another(&daemon, &mut listener, "RTIM=200", &[]);
    assert!(read_message_text(&mut plugin).starts_with("CLOS "));
    assert!(plugin.at_end());
}

#[test]
fn the_101_has_what_acpt_says() {
    let daemon = started();
    let mut listener = Listener::new(&daemon, "PRTO=ws SUBP=json,text");
    let request = |listener: &mut Listener| {
        let client = WsClient::request(listener.addr(), "/a?b", &["Sec-WebSocket-Protocol: text, xml, json"]);
        let words = listener.incoming();
        assert_eq!(words[2..], ["/a?b", "text,xml,json"]);
        (client, words[0].clone())
    };
    let (mut client, id) = request(&mut listener);
    let _plugin = accepted_by(&daemon, &id, "HDRS=X-Panel:1%202 HDRS=Set-Cookie:a=b");
    let response = client.upgraded();
    assert_eq!(response.header("Sec-WebSocket-Protocol"), "json", "the first of the listener's");
    assert_eq!((response.header("X-Panel"), response.header("Set-Cookie")), ("1 2", "a=b"));
    assert_eq!(StatClient::new(daemon.addr()).connection(&id).unwrap()["subprotocol"], "json");
    let (mut client, id) = request(&mut listener);
    for bad in ["SUBP=other", "SUBP=text,json"] {
        assert_eq!(daemon.plugin().command(&format!("ACPT {id} {bad}")), format!("ERR ACPT Invalid option {bad}"));
    }
    let _plugin = accepted_by(&daemon, &id, "SUBP=xml");
    assert_eq!(client.upgraded().header("Sec-WebSocket-Protocol"), "xml");
}

#[test]
fn compression_is_negotiated_if_both_want_it() {
    let daemon = started();
    let mut listener = Listener::new(&daemon, "PRTO=ws");
    let offer = ["Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits"];
    for (options, lines, negotiated) in
        [("DEFL=on", &offer[..], true), ("DEFL=off", &offer[..], false), ("DEFL=on", &[][..], false)]
    {
        let mut client = WsClient::request(listener.addr(), "/", lines);
        let words = listener.incoming();
        let mut plugin = accepted_by(&daemon, &words[0], options);
        let extensions = client.upgraded().all("Sec-WebSocket-Extensions").concat();
        assert_eq!(extensions.starts_with("permessage-deflate"), negotiated, "{options}: {extensions}");
        if negotiated {
            // "Hello", deflated (RFC 7692 section 7.2.3.1).
            client.send(0xc1, b"\xf2\x48\xcd\xc9\xc9\x07\x00");
            assert_eq!(read_message_text(&mut plugin), "TEXT Hello");
            send_message(&mut plugin, "TEXT", b"back");
            assert_eq!(
                read_frame(&mut client.0),
                (TEXT, b"back".to_vec()),
                "RFC 7692 section 6 lets the sender choose"
            );
        }
    }
}

#[test]
fn paths_share_a_port() {
    let daemon = started();
    let mut listener = Listener::new(&daemon, "PRTO=ws PATH=/a");
    assert_eq!(refusal(&listener, "/b", &[]), "HTTP/1.1 404 Not Found");
    let mut other = listening(daemon.plugin(), listener.port(), "PRTO=ws");
    for (path, is_first) in [("/a", true), ("/a?x=/b", true), ("/b", false), ("/a/", false), ("/", false)] {
        let _client = WsClient::request(listener.addr(), path, &[]);
        let line = if is_first { listener.owner.line() } else { other.line() };
        assert_eq!(line.split(' ').nth(3), Some(path));
    }
    drop(listener.owner);
    let mut again = listening(daemon.plugin(), other_port(&daemon), "PRTO=ws PATH=/a");
    let _client = WsClient::request(([127, 0, 0, 1], other_port(&daemon)).into(), "/a", &[]);
    assert!(again.line().starts_with("INCO "));
}

/// The port of the only listener of a plugin.
fn other_port(daemon: &Daemon) -> u16 {
    let status = StatClient::new(daemon.addr()).status();
    let address = status["listeners"][1]["address"].as_str().unwrap().to_owned();
    address.rsplit_once(':').unwrap().1.parse().unwrap()
}

#[test]
fn requests_are_refused_in_words() {
    let daemon = started();
    let listener = Listener::new(&daemon, "PRTO=ws AUTH=me:pass%20word SUBP=x PATH=/p");
    let auth = "Authorization: Basic bWU6cGFzcyB3b3Jk";
    let host = format!("Origin: http://{}", listener.addr());
    for (path, lines, status) in [
        ("/q", &[auth][..], "404 Not Found"),
        ("/p", &["Origin: http://evil.example", auth][..], "403 Forbidden"),
        ("/p", &[][..], "401 Unauthorized"),
        ("/p", &["Authorization: Basic bWU6eA=="][..], "401 Unauthorized"),
        ("/p", &[auth][..], "400 Bad Request"),
        ("/p", &[auth, &host, "Sec-WebSocket-Protocol: y"][..], "400 Bad Request"),
    ] {
        assert_eq!(refusal(&listener, path, lines), format!("HTTP/1.1 {status}"), "{path} {lines:?}");
    }
    let mut listener = listener;
    let _client = WsClient::request(listener.addr(), "/p", &[auth, &host, "Sec-WebSocket-Protocol: y, x"]);
    assert_eq!(listener.incoming()[2..], ["/p", "y,x"]);
    let mut client = WsClient::request(listener.addr(), "/p", &[]);
    let response = client.response();
    assert!(response.header("WWW-Authenticate").starts_with("Basic realm="));
    let log = daemon.complete_log_text();
    assert!(!log.contains("pass word") && !log.contains("pass%20"), "{log}");
}

#[test]
fn origins_match_the_patterns_of_orig() {
    let daemon = started();
    let mut listener = Listener::new(&daemon, "PRTO=ws ORIG=http://*.lan,https://a.example:8443");
    for (origin, allowed) in
        [("http://x.lan", true), ("https://a.example:8443", true), ("https://a.example", false), ("null", false)]
    {
        let mut client = WsClient::request(listener.addr(), "/", &[&format!("Origin: {origin}")]);
        match allowed {
            true => drop(listener.incoming()),
            false => assert_eq!(client.response().line, "HTTP/1.1 403 Forbidden", "{origin}"),
        }
    }
}

#[test]
fn deny_says_why() {
    let daemon = started();
    let mut listener = Listener::new(&daemon, "PRTO=ws");
    for (words, status) in [
        ("", "403 Forbidden"),
        (" 503", "503 Service Unavailable"),
        (" 418 I am  a teapot", "418 I am  a teapot"),
        (" 302", "302 Refused"),
    ] {
        let mut client = WsClient::request(listener.addr(), "/", &[]);
        let id = listener.incoming()[0].clone();
        assert_eq!(listener.owner.command(&format!("DENY {id}{words}")), format!("OK DENY {id}"));
        assert_eq!(client.response().line, format!("HTTP/1.1 {status}"));
    }
}

#[test]
fn no_answer_in_time_and_no_owner_are_503() {
    let daemon = started();
    let mut listener = Listener::new(&daemon, "PRTO=ws WAIT=0.2");
    assert_eq!(refusal(&listener, "/", &[]), "HTTP/1.1 503 Service Unavailable");
    listener.incoming();
    let mut waiting = Listener::new(&daemon, "PRTO=ws");
    let mut client = WsClient::request(waiting.addr(), "/", &[]);
    waiting.incoming();
    drop(waiting.owner);
    assert_eq!(client.response().line, "HTTP/1.1 503 Service Unavailable");
}

#[test]
fn a_client_that_leaves_is_no_longer_there() {
    let daemon = started();
    let mut listener = Listener::new(&daemon, "PRTO=ws");
    let client = WsClient::request(listener.addr(), "/", &[]);
    let id = listener.incoming()[0].clone();
    drop(client);
    StatClient::new(daemon.addr()).wait_connections(1);
    assert_eq!(daemon.plugin().command(&format!("ACPT {id}")), "ERR ACPT No such id");
}

#[test]
fn rhdr_shows_the_head_to_the_owner_or_to_the_plugin() {
    let daemon = started();
    let mut listener = Listener::new(&daemon, "PRTO=ws RHDR=on");
    let mut client = WsClient::request(listener.addr(), "/x", &["Cookie: session=7"]);
    let line = listener.owner.line();
    let words: Vec<&str> = line.split(' ').collect();
    let head = String::from_utf8(listener.owner.bytes(words[5].parse().unwrap())).unwrap();
    assert!(head.starts_with("GET /x HTTP/1.1\r\n") && head.ends_with("Cookie: session=7\r\n\r\n"), "{head}");
    let mut plugin = accepted_by(&daemon, words[1], "RHDR=on");
    client.upgraded();
    assert_eq!(read_message_text(&mut plugin), format!("HEAD {head}"));
}

#[test]
fn a_websocket_may_be_kept() {
    let (luup, daemon) = with_luup("");
    let options = format!("KEEP=60 EVNT=on NTFY=5/s/a/{PID}");
    let (_listener, mut plugin, mut client) = accepted(&daemon, "", &options);
    client.send(FIN | TEXT, b"one");
    assert_eq!(read_message_text(&mut plugin), "TEXT one");
    drop(plugin);
    wait_parked(&daemon);
    client.send(FIN | TEXT, b"two");
    let mut plugin = attached(&daemon, "SEEN=1");
    assert_eq!(read_message_text(&mut plugin), "TEXT two");
    send_message(&mut plugin, "TEXT", b"back");
    assert_eq!(read_frame(&mut client.0), (TEXT, b"back".to_vec()));
    luup.wait_until(LIMIT, |requests| requests.iter().any(|request| request.event() == Some("connected"))).unwrap();
}

#[test]
fn what_a_client_sends_before_the_101_is_not_lost() {
    let daemon = started();
    let mut listener = Listener::new(&daemon, "PRTO=ws");
    let mut client = WsClient::request(listener.addr(), "/", &[]);
    client.send(FIN | TEXT, b"eager");
    let id = listener.incoming()[0].clone();
    client.send(FIN | TEXT, b"still eager");
    let mut plugin = daemon.plugin();
    // Nor what the plugin sends behind ACPT.
    plugin.send(format!("ACPT {id} FRAM=LINE\nahead\n").as_bytes());
    assert_eq!(plugin.line(), format!("OK ACPT {id}"));
    assert_eq!((plugin.line(), plugin.line()), ("eager".into(), "still eager".into()));
    client.upgraded();
    assert_eq!(read_frame(&mut client.0), (TEXT, b"ahead".to_vec()));
}

#[test]
fn curl_is_told_what_the_port_is() {
    let daemon = started();
    let listener = Listener::new(&daemon, "PRTO=ws");
    let url = format!("http://{}/", listener.addr());
    let run = curl(&["-i", &url]);
    assert!(run.status == Some(0) && run.out.starts_with("HTTP/1.1 426 Upgrade Required\r\n"), "{run:?}");
    assert!(run.out.contains("This is a WebSocket port of sockproxyd."), "{run:?}");
}

#[test]
fn tungstenite_talks_to_a_plugin() {
    let daemon = started();
    let mut listener = Listener::new(&daemon, "PRTO=ws");
    let (addr, daemon_addr) = (listener.addr(), daemon.addr());
    let plugin = std::thread::spawn(move || {
        let id = listener.incoming()[0].clone();
        let mut plugin = Plugin::connect(daemon_addr);
        assert_eq!(plugin.command(&format!("ACPT {id} FRAM=LINE DEFL=on")), format!("OK ACPT {id}"));
        while let Ok(line) = plugin.try_line() {
            plugin.send(format!("{line}!\n").as_bytes());
        }
        listener
    });
    let (mut socket, _) = tungstenite::client(format!("ws://{addr}/"), client_of(addr)).unwrap();
    for number in 0..100 {
        socket.send(tungstenite::Message::text(format!("{number}"))).unwrap();
        assert_eq!(socket.read().unwrap().into_text().unwrap().as_str(), format!("{number}!"));
    }
    socket.close(None).unwrap();
    while socket.read().is_ok() {}
    plugin.join().unwrap();
}

#[test]
fn slow_requests_end_in_time() {
    let daemon = started();
    let listener = Listener::new(&daemon, "PRTO=ws");
    // Nothing, a part of the header, a part of the request line.
    let start = std::time::Instant::now();
    let mut clients: Vec<_> = (0..3).map(|_| client_of(listener.addr())).collect();
    clients[1].write_all(b"GET / HTTP/1.1\r\nHost: x\r\n").unwrap();
    clients[2].write_all(b"GET ").unwrap();
    let mut answers = clients.into_iter().map(|mut client| {
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).map(|_| String::from_utf8(answer).unwrap())
    });
    assert!(answers.all(|answer| answer.unwrap().starts_with("HTTP/1.1 408 ")));
    assert!((Duration::from_secs(9)..LIMIT).contains(&start.elapsed()));
}
