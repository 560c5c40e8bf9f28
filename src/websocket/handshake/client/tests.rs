//! Answers, good and bad. Each is given whole, byte by byte, and in two pieces at every place: the outcome is the same.

use super::*;
use crate::testing::pieces::{at_every_split, head_of, read_answer};

mod http;

/// The nonce of RFC 6455 section 1.3.
const NONCE: [u8; 16] = *b"the sample nonce";
/// The answer to it.
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
/// What stands behind every answer here.
const FRAMES: &[u8] = b"\x81\x02hi\r\n\r\nHTTP/1.1 500 x\r\n\r\n";

fn began(offer: &Offer) -> ClientHandshake {
    let url = Url::parse(b"ws://h/x").unwrap();
    let mut handshake = ClientHandshake::new(&url, offer, NONCE, true);
    handshake.handle_transmitted(handshake.transmit().len());
    handshake
}

fn given(offer: &Offer, pieces: &[&[u8]]) -> Progress {
    read_answer(&mut began(offer), pieces)
}

/// The outcome of an answer of which every line is given without its end.
fn answered(offer: &Offer, lines: &[&str]) -> Progress {
    let outcome = answered_with(offer, &head_of(lines, "\r\n"));
    let mut bare = answered_with(offer, &head_of(lines, "\n"));
    if let (Progress::Upgraded(bare), Progress::Upgraded(upgraded)) = (&mut bare, &outcome) {
        bare.head.clone_from(&upgraded.head);
    }
    assert_eq!(bare, outcome, "lines may end in a bare LF");
    outcome
}

fn answered_with(offer: &Offer, answer: &[u8]) -> Progress {
    at_every_split(&[answer, FRAMES].concat(), |pieces| given(offer, pieces))
}

fn upgraded(progress: Progress) -> Upgraded {
    match progress {
        Progress::Upgraded(upgraded) => {
            assert_eq!(upgraded.rest, FRAMES, "what follows the answer is kept, byte for byte");
            upgraded
        }
        other => panic!("{other:?}"),
    }
}

fn failure(progress: Progress) -> String {
    match progress {
        Progress::Failed(failure) => failure.to_string(),
        other => panic!("{other:?}"),
    }
}

/// A good answer.
fn good() -> Vec<&'static str> {
    vec![
        "HTTP/1.1 101 Switching Protocols",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=",
    ]
}

/// A good answer with more lines.
fn good_and(more: &[&'static str]) -> Vec<&'static str> {
    [good(), more.to_vec()].concat()
}

/// A good answer with another line for the header that `line` is.
fn good_but(line: &'static str) -> Vec<&'static str> {
    let name = |line: &str| line.split(':').next().unwrap().to_ascii_lowercase();
    let mut lines = good();
    let at = lines.iter().position(|known| name(known) == name(line)).unwrap();
    lines[at] = line;
    lines
}

/// A good answer without one of its headers.
fn good_without(name: &str) -> Vec<&'static str> {
    let lines: Vec<_> = good().into_iter().filter(|line| !line.starts_with(name)).collect();
    assert_eq!(lines.len(), good().len() - 1);
    lines
}

fn offering(subprotocols: &[&str]) -> Offer {
    let mut offer = Offer::default();
    offer.set_subprotocols(subprotocols.iter().map(|name| name.as_bytes())).unwrap();
    offer
}

#[test]
fn rfc_6455_section_1_3_the_example() {
    assert!(good().contains(&&*format!("Sec-WebSocket-Accept: {ACCEPT}")));
    let outcome = upgraded(answered(&Offer::default(), &good()));
    assert_eq!(outcome, Upgraded { rest: FRAMES.to_vec(), subprotocol: None, deflate: None, head: None });
}

#[test]
fn rfc_6455_section_4_1_1_what_is_no_101_is_http() {
    for (status, reason) in [
        ("HTTP/1.1 403 Forbidden", "BAD_HTTP_STATUS 403 Forbidden"),
        ("HTTP/1.0 404 Not Found", "BAD_HTTP_STATUS 404 Not Found"),
        ("HTTP/1.1 401 Unauthorized", "BAD_HTTP_STATUS 401 Unauthorized"),
        ("HTTP/1.1 426 Upgrade Required", "BAD_HTTP_STATUS 426 Upgrade Required"),
        ("HTTP/1.1 200", "BAD_HTTP_STATUS 200"),
        ("HTTP/1.1 204 ", "BAD_HTTP_STATUS 204"),
        ("HTTP/1.1 304 Not Modified", "BAD_HTTP_STATUS 304 Not Modified"),
        ("HTTP/1.1 999 \tOdd\tone", "BAD_HTTP_STATUS 999 Odd one"),
    ] {
        assert_eq!(failure(answered(&Offer::default(), &[status])), reason);
        let dressed = [&[status], &good()[1..]].concat();
        assert_eq!(failure(answered(&Offer::default(), &dressed)), reason, "whatever its headers");
    }
}

#[test]
fn rfc_6455_section_4_1_1_redirects_are_told() {
    for code in [301, 302, 303, 307, 308] {
        let status = format!("HTTP/1.1 {code} Elsewhere");
        let outcome = answered(&Offer::default(), &[&status, "LOCATION: \thttps://x/y ", "Content-Length: 0"]);
        assert_eq!(outcome, Progress::Redirect { location: "https://x/y".into() });
        let nowhere = format!("BAD_HTTP_STATUS {code} Elsewhere");
        assert_eq!(failure(answered(&Offer::default(), &[&status])), nowhere);
        assert_eq!(failure(answered(&Offer::default(), &[&status, "Location: /a", "Location: /b"])), nowhere);
    }
    for code in [300, 304, 305, 306, 309] {
        let outcome = answered(&Offer::default(), &[&format!("HTTP/1.1 {code} X"), "Location: /x"]);
        assert_eq!(failure(outcome), format!("BAD_HTTP_STATUS {code} X"));
    }
    let outcome = answered_with(&Offer::default(), b"HTTP/1.1 302 Found\r\nLocation: /\xff\r\n\r\n");
    assert_eq!(failure(outcome), "INVALID_URL in the redirect");
}

#[test]
fn rfc_6455_section_4_1_2_upgrade_is_websocket() {
    for good in ["Upgrade: WebSocket", "UPGRADE:websocket", "upgrade:  \tWEBSOCKET\t "] {
        upgraded(answered(&Offer::default(), &good_but(good)));
    }
    let missing = answered(&Offer::default(), &good_without("Upgrade"));
    assert_eq!(failure(missing), "WEBSOCKET_PROTOCOL_ERROR no Upgrade");
    for bad in ["Upgrade: h2c", "Upgrade:", "Upgrade: websocket/13", "Upgrade: web socket", "Upgrade: websocket, h2c"] {
        let outcome = answered(&Offer::default(), &good_but(bad));
        assert_eq!(failure(outcome), "WEBSOCKET_PROTOCOL_ERROR Upgrade to something else", "{bad}");
    }
    let twice = answered(&Offer::default(), &good_and(&["Upgrade: h2c"]));
    assert_eq!(failure(twice), "WEBSOCKET_PROTOCOL_ERROR Upgrade to something else");
}

#[test]
fn rfc_6455_section_4_1_3_connection_has_upgrade_among_others() {
    for good in [
        "Connection: upgrade",
        "connection:UPGRADE",
        "Connection: keep-alive, Upgrade",
        "Connection: Upgrade,keep-alive",
        "Connection: ,\tUpgrade\t,",
    ] {
        upgraded(answered(&Offer::default(), &good_but(good)));
    }
    let spread = [good_but("Connection: keep-alive"), vec!["connection: Upgrade"]].concat();
    upgraded(answered(&Offer::default(), &spread));
    for bad in ["Connection: keep-alive", "Connection:", "Connection: Upgraded", "Connection: keep-alive Upgrade"] {
        let outcome = answered(&Offer::default(), &good_but(bad));
        assert_eq!(failure(outcome), "WEBSOCKET_PROTOCOL_ERROR no Connection: Upgrade", "{bad}");
    }
    let missing = answered(&Offer::default(), &good_without("Connection"));
    assert_eq!(failure(missing), "WEBSOCKET_PROTOCOL_ERROR no Connection: Upgrade");
}

#[test]
fn rfc_6455_section_4_1_4_accept_answers_the_key() {
    upgraded(answered(&Offer::default(), &good_but("SEC-WEBSOCKET-ACCEPT:\t s3pPLMBiTxaQ9kYGzzhZRbK+xOo= \t")));
    let missing = answered(&Offer::default(), &good_without("Sec-WebSocket-Accept"));
    assert_eq!(failure(missing), "WEBSOCKET_PROTOCOL_ERROR no Sec-WebSocket-Accept");
    for bad in [
        "Sec-WebSocket-Accept:",
        "Sec-WebSocket-Accept: dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Accept: S3PPLMBITXAQ9KYGZZHZRBK+XOO=",
        "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo",
        "Sec-WebSocket-Accept: \"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\"",
    ] {
        let outcome = answered(&Offer::default(), &good_but(bad));
        assert_eq!(failure(outcome), "WEBSOCKET_PROTOCOL_ERROR wrong Sec-WebSocket-Accept", "{bad}");
    }
}

#[test]
fn rfc_6455_section_4_1_5_extensions_were_offered() {
    let deflate = Offer { deflate: true, ..Offer::default() };
    let taken = good_and(&["Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=10"]);
    let agreed = upgraded(answered(&deflate, &taken)).deflate.unwrap();
    assert_eq!((agreed.peer_window_bits, agreed.peer_no_context_takeover), (10, false));
    assert_eq!((agreed.own_window_bits, agreed.own_no_context_takeover), (15, false));
    assert_eq!(upgraded(answered(&deflate, &good())).deflate, None, "a server may decline");
    assert_eq!(
        failure(answered(&Offer::default(), &taken)),
        "WEBSOCKET_PROTOCOL_ERROR extension not offered: permessage-deflate"
    );
    for (bad, reason) in [
        ("Sec-WebSocket-Extensions: mux", "extension not offered: mux"),
        ("Sec-WebSocket-Extensions: permessage-deflate; x", "bad extension parameter: x"),
        (
            "Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=15",
            "bad extension parameter: server_max_window_bits",
        ),
        ("Sec-WebSocket-Extensions: permessage-deflate;;", "malformed Sec-WebSocket-Extensions"),
    ] {
        let outcome = answered(&deflate, &good_and(&[bad]));
        assert_eq!(failure(outcome), format!("WEBSOCKET_PROTOCOL_ERROR {reason}"));
    }
    let twice = ["Sec-WebSocket-Extensions: permessage-deflate", "sec-websocket-extensions: permessage-deflate"];
    let outcome = answered(&deflate, &good_and(&twice));
    assert_eq!(failure(outcome), "WEBSOCKET_PROTOCOL_ERROR extension not offered: permessage-deflate");
}

#[test]
fn rfc_6455_section_4_1_6_the_subprotocol_was_offered() {
    let offer = offering(&["chat", "superchat"]);
    let chosen = upgraded(answered(&offer, &good_and(&["sec-websocket-protocol: superchat\t"])));
    assert_eq!(chosen.subprotocol.as_deref(), Some("superchat"));
    assert_eq!(upgraded(answered(&offer, &good())).subprotocol, None, "a server may choose none");
    for bad in ["mqtt", "Chat", "chat, superchat", "chat/superchat", ""] {
        let line: &str = Box::leak(format!("Sec-WebSocket-Protocol: {bad}").into_boxed_str());
        let reason = format!("WEBSOCKET_PROTOCOL_ERROR subprotocol not offered: {bad}");
        assert_eq!(failure(answered(&offer, &good_and(&[line]))), reason);
        assert_eq!(failure(answered(&Offer::default(), &good_and(&[line]))), reason, "none was offered");
    }
}

#[test]
fn rfc_6455_section_11_3_what_must_stand_once_stands_once() {
    let accepts = good_and(&["Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo="]);
    let outcome = answered(&Offer::default(), &accepts);
    assert_eq!(failure(outcome), "WEBSOCKET_PROTOCOL_ERROR wrong Sec-WebSocket-Accept");
    let subprotocols = good_and(&["Sec-WebSocket-Protocol: a", "Sec-WebSocket-Protocol: b"]);
    let outcome = answered(&offering(&["a", "b"]), &subprotocols);
    assert_eq!(failure(outcome), "WEBSOCKET_PROTOCOL_ERROR more than one subprotocol");
}

#[test]
fn rfc_6455_section_4_2_2_the_upgrade_is_http_1_1() {
    let old = [&["HTTP/1.0 101 Switching Protocols"], &good()[1..]].concat();
    assert_eq!(failure(answered(&Offer::default(), &old)), "WEBSOCKET_PROTOCOL_ERROR 101 in HTTP/1.0");
}

#[test]
fn the_head_is_kept_where_asked_for() {
    let offer = Offer { keep_head: true, ..Offer::default() };
    let lines = good_and(&["Set-Cookie: a=b", "X-Odd:\t"]);
    let head = head_of(&lines, "\r\n");
    assert_eq!(upgraded(answered(&offer, &lines)).head.as_deref(), Some(&head[..]));
    let after_interim = [&b"HTTP/1.1 100 Continue\r\n\r\n"[..], &head].concat();
    let outcome = upgraded(answered_with(&offer, &after_interim));
    assert_eq!(outcome.head.as_deref(), Some(&head[..]), "the last answer's only");
}

#[test]
fn the_request_goes_out_in_whatever_pieces() {
    let url = Url::parse(b"ws://h/x").unwrap();
    let mut handshake = ClientHandshake::new(&url, &Offer::default(), NONCE, true);
    let whole = handshake.transmit().to_vec();
    assert!(whole.starts_with(b"GET /x HTTP/1.1\r\nHost: h\r\n"));
    let mut sent = Vec::new();
    while !handshake.transmit().is_empty() {
        let piece = handshake.transmit().len().min(7);
        sent.extend_from_slice(&handshake.transmit()[..piece]);
        handshake.handle_transmitted(piece);
    }
    assert_eq!(sent, whole);
    handshake.handle_transmitted(1);
    assert!(handshake.transmit().is_empty());
}

#[test]
fn who_answers_early_may_refuse_but_not_upgrade() {
    let url = Url::parse(b"ws://h/x").unwrap();
    let answer = head_of(&good(), "\r\n");
    let mut handshake = ClientHandshake::new(&url, &Offer::default(), NONCE, true);
    handshake.handle_transmitted(handshake.transmit().len() - 1);
    let outcome = handshake.handle_input(&answer);
    assert_eq!(failure(outcome), "WEBSOCKET_PROTOCOL_ERROR answered before it was asked");
    let mut handshake = ClientHandshake::new(&url, &Offer::default(), NONCE, true);
    let outcome = handshake.handle_input(b"HTTP/1.1 431 Request Header Fields Too Large\r\n\r\n");
    assert_eq!(failure(outcome), "BAD_HTTP_STATUS 431 Request Header Fields Too Large");
}

#[test]
fn an_end_is_a_lost_connection() {
    let mut handshake = began(&Offer::default());
    assert_eq!(handshake.handle_eof().to_string(), "SOCKET_ERROR closed without an answer");
    assert_eq!(handshake.handle_input(b"HTTP/1.1 101"), Progress::Pending);
    assert_eq!(handshake.handle_eof().to_string(), "SOCKET_ERROR closed amid its answer");
}

#[test]
fn a_reason_cannot_leave_its_line() {
    let outcome = answered_with(&Offer::default(), b"HTTP/1.1 403 \xe4\x1b[2J\r\n\r\n");
    assert!(!failure(outcome).contains(|c: char| c.is_control()));
    let long = format!("HTTP/1.1 403 {}", "x".repeat(1000));
    assert_eq!(failure(answered(&Offer::default(), &[&long])).len(), "BAD_HTTP_STATUS 403 ".len() + 64);
}

#[test]
fn debug_shows_no_secrets() {
    let mut offer = Offer::default();
    offer.set_auth(b"hidden1:hidden2").unwrap();
    offer.add_header(b"X-Key:hidden3").unwrap();
    let shown = format!("{:?}", began(&offer));
    assert!(!shown.contains("hidden") && !shown.contains("Basic"), "{shown}");
}
