//! Tests of requests. Each is passed whole, byte by byte, and in two pieces at every split; the result must be the
//! same.

use super::*;
use crate::testing::pieces::{at_every_split, head_of, head_of_length, read_request};
use crate::websocket::handshake::{
    ClientHandshake, CompressionOffer, HandshakeProgress, MAX_FIELDS, MAX_HEAD, Offer, Url,
};

/// Bytes that follow every request here.
const FRAMES: &[u8] = b"\x81\x82abcd\r\n\r\nGET / HTTP/1.1\r\n\r\n";

fn outcome_of(pieces: &[&[u8]]) -> (RequestProgress, Vec<u8>) {
    let mut handshake = ServerHandshake::new();
    let progress = read_request(&mut handshake, pieces);
    (progress, handshake.transmit().to_vec())
}

fn outcome_of_bytes(request: &[u8]) -> (RequestProgress, Vec<u8>) {
    at_every_split(&[request, FRAMES].concat(), outcome_of)
}

fn outcome_of_lines(lines: &[&str]) -> (RequestProgress, Vec<u8>) {
    let outcome = outcome_of_bytes(&head_of(lines, "\r\n"));
    let (mut bare, response) = outcome_of_bytes(&head_of(lines, "\n"));
    if let (RequestProgress::Received(bare), RequestProgress::Received(request)) = (&mut bare, &outcome.0) {
        bare.head.clone_from(&request.head);
    }
    assert_eq!((bare, response), outcome, "lines may end in a bare LF");
    outcome
}

fn request(lines: &[&str]) -> UpgradeRequest {
    match outcome_of_lines(lines) {
        (RequestProgress::Received(request), response) => {
            assert!(response.is_empty(), "the caller decides on the response");
            assert_eq!(request.rest, FRAMES, "bytes after the request are kept");
            *request
        }
        other => panic!("{other:?}"),
    }
}

/// The code of the refusal and the whole response.
fn refused(lines: &[&str]) -> (u16, String) {
    match outcome_of_lines(lines) {
        (RequestProgress::Refused(refusal), response) => {
            let response = String::from_utf8(response).unwrap();
            assert!(response.starts_with(&format!("HTTP/1.1 {refusal}\r\n")), "{response}");
            let (head, body) = response.split_once("\r\n\r\n").unwrap();
            assert!(head.contains(&format!("\r\nContent-Length: {}", body.len())), "{response}");
            assert!(head.contains("\r\nConnection: close"), "{response}");
            (refusal.code(), response)
        }
        other => panic!("{other:?}"),
    }
}

/// A valid request.
fn valid() -> Vec<&'static str> {
    vec![
        "GET /chat?x=1 HTTP/1.1",
        "Host: server.example.com",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Version: 13",
    ]
}

fn valid_with<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [&valid()[..], more].concat()
}

/// A valid request with another line at this place.
fn valid_except(at: usize, line: &str) -> Vec<&str> {
    let mut lines = valid();
    lines[at] = line;
    lines
}

fn valid_without(at: usize) -> Vec<&'static str> {
    let mut lines = valid();
    lines.remove(at);
    lines
}

fn accepted(request: &UpgradeRequest, options: &AcceptOptions<'_>) -> (String, Option<Deflate>) {
    let mut handshake = ServerHandshake::new();
    let deflate = handshake.accept(request, options).unwrap();
    (String::from_utf8(handshake.transmit().to_vec()).unwrap(), deflate)
}

#[test]
fn rfc_6455_section_1_3_the_example() {
    let mut lines = valid();
    lines.extend(["Origin: http://example.com", "Sec-WebSocket-Protocol: chat, superchat"]);
    let request = request(&lines);
    assert_eq!((&*request.resource, request.path()), ("/chat?x=1", "/chat"));
    assert_eq!((&*request.host, request.origin.as_deref()), ("server.example.com", Some("http://example.com")));
    assert_eq!(request.subprotocols, ["chat".into(), "superchat".into()]);
    let (response, deflate) =
        accepted(&request, &AcceptOptions { subprotocol: Some("chat"), ..AcceptOptions::default() });
    assert_eq!(
        response,
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSec-WebSocket-Protocol: chat\r\n\r\n"
    );
    assert_eq!(deflate, None);
}

#[test]
fn rfc_6455_section_4_2_1_1_a_get_of_http_1_1() {
    for method in ["POST", "PUT", "CONNECT", "OPTIONS", "Get"] {
        let (code, response) = refused(&valid_except(0, &format!("{method} / HTTP/1.1")));
        assert_eq!(code, 405, "{method}");
        assert!(response.contains("\r\nAllow: GET\r\n"), "{response}");
    }
    assert_eq!(refused(&valid_except(0, "GET / HTTP/1.0")).0, 505);
    for bad in ["GET / HTTP/2.0", "GET /", "GET", "GET  / HTTP/1.1 x"] {
        assert_eq!(refused(&valid_except(0, bad)).0, 400, "{bad}");
    }
}

#[test]
fn rfc_6455_section_4_2_1_1_the_target_may_be_an_absolute_url() {
    for (target, resource) in [
        ("/", "/"),
        ("/a%2Fb?c=d?e", "/a%2Fb?c=d?e"),
        ("http://h:1/x?y", "/x?y"),
        ("HTTPS://h", "/"),
        ("ws://h/x", "/x"),
        ("//a/b", "//a/b"),
    ] {
        let line = format!("GET {target} HTTP/1.1");
        assert_eq!(&*request(&valid_except(0, &line)).resource, resource, "{target}");
    }
    for bad in ["x", "*", "h:80", "ftp://h/x", "http://u@h/", "/x#y", "http://h/#y", "http:/x"] {
        assert_eq!(refused(&valid_except(0, &format!("GET {bad} HTTP/1.1"))).0, 400, "{bad}");
    }
}

#[test]
fn rfc_6455_section_4_2_1_2_there_is_exactly_one_host() {
    assert_eq!(refused(&valid_without(1)).0, 400);
    assert_eq!(refused(&valid_with(&["host: other"])).0, 400);
    assert_eq!(refused(&valid_except(1, "Host:")).0, 400);
}

#[test]
fn rfc_6455_section_4_2_1_3_upgrade_has_websocket() {
    for good in ["UPGRADE: WebSocket", "upgrade: h2c, websocket", "Upgrade:websocket\t"] {
        request(&valid_except(2, good));
    }
    for bad in ["Upgrade: h2c", "Upgrade:", "Upgrade: websockets"] {
        assert_eq!(refused(&valid_except(2, bad)).0, 426, "{bad}");
    }
}

#[test]
fn a_plain_get_gets_426() {
    let (code, response) = refused(&["GET / HTTP/1.1", "Host: h", "Accept: text/html"]);
    assert_eq!(code, 426);
    assert!(response.contains("\r\nUpgrade: websocket\r\n"), "{response}");
    assert!(response.contains("\r\nSec-WebSocket-Version: 13\r\n"), "{response}");
    assert!(response.contains("\r\n\r\nThis is a WebSocket port of sockproxyd. "), "{response}");
    assert!(response.ends_with("by new WebSocket(\"ws://HOST:PORT/PATH\").\n"), "{response}");
}

#[test]
fn rfc_6455_section_4_2_1_4_connection_has_upgrade() {
    request(&valid_except(3, "connection: keep-alive, UPGRADE"));
    request(&valid_with(&["Connection: close"]));
    assert_eq!(refused(&valid_except(3, "Connection: keep-alive")).0, 400);
    assert_eq!(refused(&valid_without(3)).0, 400);
}

#[test]
fn rfc_6455_section_4_2_1_5_the_key_has_16_bytes() {
    request(&valid_except(4, "SEC-WEBSOCKET-KEY:\tdGhlIHNhbXBsZSBub25jZQ== "));
    assert_eq!(refused(&valid_without(4)).0, 400);
    for bad in ["", "x", "dGhlIHNhbXBsZSBub25jZQ", "dGhlIHNhbXBsZSBub25jZTE=", "dGhlIHNhbXBsZSBub25jZT09"] {
        assert_eq!(refused(&valid_except(4, &format!("Sec-WebSocket-Key: {bad}"))).0, 400, "{bad}");
    }
    assert_eq!(refused(&valid_with(&["Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="])).0, 400, "twice");
}

#[test]
fn rfc_6455_section_4_2_1_6_and_4_4_the_version_is_13() {
    for bad in ["Sec-WebSocket-Version: 8", "Sec-WebSocket-Version: 13, 8", "Sec-WebSocket-Version:", "X: y"] {
        let (code, response) = refused(&valid_except(5, bad));
        assert_eq!(code, 426, "{bad}");
        assert!(response.contains("\r\nSec-WebSocket-Version: 13\r\n"), "{response}");
    }
}

#[test]
fn rfc_6455_section_4_2_1_8_subprotocols_are_distinct_tokens() {
    let spread = request(&valid_with(&["Sec-WebSocket-Protocol: b,a", "sec-websocket-protocol: c"]));
    assert_eq!(spread.subprotocols, ["b".into(), "a".into(), "c".into()], "the client's order is kept");
    let ours: Vec<Box<str>> = ["x", "c", "b"].map(Into::into).to_vec();
    assert_eq!(spread.choose(&ours), Some("c"), "our order decides");
    assert_eq!(spread.choose(&ours[..1]), None);
    assert!(spread.offers("a") && !spread.offers("A"));
    for bad in ["a, a", "a b", "a/b", "\u{e4}"] {
        assert_eq!(refused(&valid_with(&[&format!("Sec-WebSocket-Protocol: {bad}")])).0, 400, "{bad}");
    }
    assert_eq!(
        ServerHandshake::new().accept(&spread, &AcceptOptions { subprotocol: Some("x"), ..AcceptOptions::default() }),
        Err(SubprotocolError)
    );
}

#[test]
fn rfc_6455_section_4_2_1_9_extensions_are_negotiated_if_both_ends_want_them() {
    let offer = "Sec-WebSocket-Extensions: mux, permessage-deflate; client_max_window_bits";
    let request = request(&valid_with(&[offer]));
    let (response, deflate) = accepted(&request, &AcceptOptions::default());
    assert!(!response.contains("Extensions") && deflate.is_none(), "{response}");
    let (response, deflate) = accepted(&request, &AcceptOptions { deflate: true, ..AcceptOptions::default() });
    assert!(response.contains(
        "\r\nSec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover; client_no_context_takeover; \
         client_max_window_bits=12\r\n"
    ));
    assert_eq!(deflate.unwrap().peer_window_bits, 12);
    assert_eq!(refused(&valid_with(&["Sec-WebSocket-Extensions: a;;"])).0, 400);
}

#[test]
fn rfc_6455_section_10_2_origins_are_checked() {
    let patterns: Vec<Box<str>> = vec!["https://*.example".into(), "http://localhost:*".into()];
    let from = |origin: &str| request(&valid_with(&[&format!("Origin: {origin}")]));
    assert!(from("https://A.Example").is_origin_allowed(&patterns));
    assert!(from("http://localhost:8080").is_origin_allowed(&patterns));
    assert!(!from("https://evil").is_origin_allowed(&patterns));
    assert!(!from("null").is_origin_allowed(&patterns));
    assert!(!from("").is_origin_allowed(&patterns));
    assert!(from("null").is_origin_allowed(&["*".into()]));
    assert!(!from("https://a.example").is_origin_allowed(&[]));
    assert!(request(&valid()).is_origin_allowed(&patterns), "a request without an origin is allowed");
    assert_eq!(refused(&valid_with(&["Origin: a", "Origin: b"])).0, 400);
}

#[test]
fn rfc_6455_section_10_5_credentials_are_compared() {
    let known = request(&valid_with(&["Authorization: Basic dTpwOnE="]));
    assert!(known.has_credentials("u", "p:q"));
    for (user, password) in [("u", "p"), ("", ""), ("u:p", "x"), ("U", "p:q")] {
        assert!(!known.has_credentials(user, password), "{user} {password}");
    }
    for other in ["Authorization: Bearer dTpwOnE=", "Authorization: Basic !", "Authorization:", "X: y"] {
        let unknown = request(&valid_with(&[other]));
        assert!(!unknown.has_credentials("u", "p:q") && !unknown.has_credentials("", ""), "{other}");
    }
    let shown = format!("{known:?}");
    assert!(!shown.contains("dTpwOnE") && !shown.contains("x=1") && !shown.contains("Authorization"), "{shown}");
}

#[test]
fn a_body_is_refused_because_it_could_hold_frames() {
    request(&valid_with(&["Content-Length: 0"]));
    for bad in ["Content-Length: 5", "Content-Length: x", "Transfer-Encoding: chunked"] {
        assert_eq!(refused(&valid_with(&[bad])).0, 400, "{bad}");
    }
}

#[test]
fn other_protocols_get_no_response() {
    for bad in ["\x16\x03\x01\x02", "ssh-2.0", "\0", " GET / HTTP/1.1", "get / HTTP/1.1"] {
        let mut handshake = ServerHandshake::new();
        let progress = handshake.handle_input(bad.as_bytes());
        assert_eq!(progress, RequestProgress::Refused(Refusal::silent()), "{bad:?}");
        assert!(handshake.transmit().is_empty());
    }
    for bad in ["X", "X Y: z", "X : z", ": z", "X: a\0b", " folded"] {
        assert_eq!(refused(&valid_with(&[bad])).0, 400, "{bad}");
    }
}

#[test]
fn rfc_9112_section_2_2_empty_lines_before_a_request_are_ignored() {
    assert_eq!(request(&[&["", "\r"], &valid()[..]].concat()), request(&valid()));
    // Their number is not limited, since they are not kept.
    let mut handshake = ServerHandshake::new();
    for _ in 0..MAX_HEAD {
        assert_eq!(handshake.handle_input(b"\r\n"), RequestProgress::Pending);
    }
    assert!(handshake.head.bytes().is_empty());
}

#[test]
fn requests_that_are_too_large_are_refused() {
    for (size, fits) in [(MAX_HEAD, true), (MAX_HEAD + 1, false)] {
        let all = [&head_of_length(&valid(), size), FRAMES].concat();
        for pieces in [vec![&all[..]], all.chunks(1).collect(), all.chunks(1000).collect()] {
            match outcome_of(&pieces).0 {
                RequestProgress::Received(request) => {
                    assert!(fits && request.head.len() == MAX_HEAD && request.rest == FRAMES);
                }
                RequestProgress::Refused(refusal) => assert_eq!((fits, refusal.code()), (false, 431)),
                RequestProgress::Page(_) | RequestProgress::Pending => panic!("the end of the request was not found"),
            }
        }
    }
    request(&valid_with(&vec!["X: y"; MAX_FIELDS - 5]));
    assert_eq!(refused(&valid_with(&vec!["X: y"; MAX_FIELDS - 4])).0, 431);
}

#[test]
fn the_caller_may_refuse_with_any_code_and_phrase() {
    let mut handshake = ServerHandshake::new();
    for (refusal, status) in [
        (Refusal::new(404, ""), "404 Not Found"),
        (Refusal::with_phrase(403, b"Go\r\naway: x"), "403 Go??away: x"),
        (Refusal::with_phrase(503, b" "), "503 Service Unavailable"),
        (Refusal::new(499, ""), "499 Refused"),
        (Refusal::new(599, ""), "599 Failed"),
        (Refusal::new(101, ""), "500 Internal Server Error"),
        (Refusal::new(0, ""), "500 Internal Server Error"),
    ] {
        assert_eq!(refusal.to_string(), status);
        handshake.refuse(refusal);
        let response = String::from_utf8(handshake.transmit().to_vec()).unwrap();
        assert!(response.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{response}");
        assert!(response.ends_with(&format!("\r\n\r\n{status}\n")), "{response}");
        handshake.handle_transmitted(response.len() - 1);
        assert_eq!(handshake.transmit(), b"\n");
        handshake.handle_transmitted(2);
        assert!(handshake.transmit().is_empty());
    }
    handshake.refuse(Refusal::new(401, ""));
    let response = String::from_utf8(handshake.transmit().to_vec()).unwrap();
    assert!(response.contains("\r\nWWW-Authenticate: Basic realm="), "{response}");
}

#[test]
fn our_client_and_our_server_complete_a_handshake() {
    let url = Url::parse(b"wss://h:8443/p?q").unwrap();
    let mut offer = Offer { deflate: CompressionOffer::SmallWindows, keep_head: true, ..Offer::default() };
    offer.set_subprotocols([&b"a"[..], b"b"]).unwrap();
    offer.set_auth(b"u:p").unwrap();
    offer.set_origin(b"http://o").unwrap();
    let mut client = ClientHandshake::new(&url, &offer, [7; 16], true);
    let mut server = ServerHandshake::new();
    let RequestProgress::Received(request) = server.handle_input(client.transmit()) else { panic!("refused") };
    client.handle_transmitted(client.transmit().len());
    assert_eq!((&*request.resource, &*request.host), ("/p?q", "h:8443"));
    assert!(request.has_credentials("u", "p") && request.is_origin_allowed(&["http://o".into()]));
    let headers = [("Set-Cookie".into(), "c=d".into())];
    let ours: [Box<str>; 1] = ["b".into()];
    let options = AcceptOptions { subprotocol: request.choose(&ours), headers: &headers, deflate: true };
    let ours = server.accept(&request, &options).unwrap().unwrap();
    let HandshakeProgress::Upgraded(upgraded) = client.handle_input(server.transmit()) else { panic!("refused") };
    let theirs = upgraded.deflate.unwrap();
    assert_eq!(upgraded.subprotocol.as_deref(), Some("b"));
    assert_eq!((ours.own_window_bits, ours.peer_window_bits), (theirs.peer_window_bits, theirs.own_window_bits));
    assert!(String::from_utf8(upgraded.head.unwrap()).unwrap().contains("Set-Cookie: c=d\r\n"));
}
