//! Tests of responses. Each is passed whole, byte by byte, and in two pieces at every split; the result must be the
//! same.

use super::*;
use crate::testing::pieces::{at_every_split, head_of, read_response};
use crate::websocket::handshake::CompressionOffer;

mod http;

/// The nonce of RFC 6455 section 1.3.
const NONCE: [u8; 16] = *b"the sample nonce";
/// Its Sec-WebSocket-Accept.
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
/// Bytes that follow every response here.
const FRAMES: &[u8] = b"\x81\x02hi\r\n\r\nHTTP/1.1 500 x\r\n\r\n";

fn begun(offer: &Offer) -> ClientHandshake {
    let url = Url::parse(b"ws://h/x").unwrap();
    let mut handshake = ClientHandshake::new(&url, offer, NONCE, true);
    handshake.handle_transmitted(handshake.transmit().len());
    handshake
}

fn result_of_pieces(offer: &Offer, pieces: &[&[u8]]) -> HandshakeProgress {
    read_response(&mut begun(offer), pieces)
}

/// The result of a response; each line is given without its end.
fn result_of(offer: &Offer, lines: &[&str]) -> HandshakeProgress {
    let outcome = result_of_bytes(offer, &head_of(lines, "\r\n"));
    let mut bare = result_of_bytes(offer, &head_of(lines, "\n"));
    if let (HandshakeProgress::Upgraded(bare), HandshakeProgress::Upgraded(upgraded)) = (&mut bare, &outcome) {
        bare.head.clone_from(&upgraded.head);
    }
    assert_eq!(bare, outcome, "lines may end in a bare LF");
    outcome
}

fn result_of_bytes(offer: &Offer, answer: &[u8]) -> HandshakeProgress {
    at_every_split(&[answer, FRAMES].concat(), |pieces| result_of_pieces(offer, pieces))
}

fn upgraded(progress: HandshakeProgress) -> Upgraded {
    match progress {
        HandshakeProgress::Upgraded(upgraded) => {
            assert_eq!(upgraded.rest, FRAMES, "bytes after the response are kept");
            upgraded
        }
        other => panic!("{other:?}"),
    }
}

fn error_text(progress: HandshakeProgress) -> String {
    match progress {
        HandshakeProgress::Failed(error) => error.to_string(),
        other => panic!("{other:?}"),
    }
}

/// A valid response.
fn valid() -> Vec<&'static str> {
    vec![
        "HTTP/1.1 101 Switching Protocols",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=",
    ]
}

/// A valid response with more lines.
fn valid_with(more: &[&'static str]) -> Vec<&'static str> {
    [valid(), more.to_vec()].concat()
}

/// A valid response with another value for the header of `line`.
fn valid_except(line: &'static str) -> Vec<&'static str> {
    let name = |line: &str| line.split(':').next().unwrap().to_ascii_lowercase();
    let mut lines = valid();
    let at = lines.iter().position(|known| name(known) == name(line)).unwrap();
    lines[at] = line;
    lines
}

/// A valid response without one of its headers.
fn valid_without(name: &str) -> Vec<&'static str> {
    let lines: Vec<_> = valid().into_iter().filter(|line| !line.starts_with(name)).collect();
    assert_eq!(lines.len(), valid().len() - 1);
    lines
}

fn offering(subprotocols: &[&str]) -> Offer {
    let mut offer = Offer::default();
    offer.set_subprotocols(subprotocols.iter().map(|name| name.as_bytes())).unwrap();
    offer
}

#[test]
fn rfc_6455_section_1_3_the_example() {
    assert!(valid().contains(&&*format!("Sec-WebSocket-Accept: {ACCEPT}")));
    let outcome = upgraded(result_of(&Offer::default(), &valid()));
    assert_eq!(outcome, Upgraded { rest: FRAMES.to_vec(), subprotocol: None, deflate: None, head: None });
}

#[test]
fn rfc_6455_section_4_1_1_a_status_other_than_101_is_an_http_error() {
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
        assert_eq!(error_text(result_of(&Offer::default(), &[status])), reason);
        let dressed = [&[status], &valid()[1..]].concat();
        assert_eq!(error_text(result_of(&Offer::default(), &dressed)), reason, "its headers do not matter");
    }
}

#[test]
fn rfc_6455_section_4_1_1_redirects_are_reported() {
    for code in [301, 302, 303, 307, 308] {
        let status = format!("HTTP/1.1 {code} Elsewhere");
        let outcome = result_of(&Offer::default(), &[&status, "LOCATION: \thttps://x/y ", "Content-Length: 0"]);
        assert_eq!(outcome, HandshakeProgress::Redirect { location: "https://x/y".into() });
        let nowhere = format!("BAD_HTTP_STATUS {code} Elsewhere");
        assert_eq!(error_text(result_of(&Offer::default(), &[&status])), nowhere);
        assert_eq!(error_text(result_of(&Offer::default(), &[&status, "Location: /a", "Location: /b"])), nowhere);
    }
    for code in [300, 304, 305, 306, 309] {
        let outcome = result_of(&Offer::default(), &[&format!("HTTP/1.1 {code} X"), "Location: /x"]);
        assert_eq!(error_text(outcome), format!("BAD_HTTP_STATUS {code} X"));
    }
    let outcome = result_of_bytes(&Offer::default(), b"HTTP/1.1 302 Found\r\nLocation: /\xff\r\n\r\n");
    assert_eq!(error_text(outcome), "INVALID_URL in the redirect");
}

#[test]
fn rfc_6455_section_4_1_2_upgrade_is_websocket() {
    for header in ["Upgrade: WebSocket", "UPGRADE:websocket", "upgrade:  \tWEBSOCKET\t "] {
        upgraded(result_of(&Offer::default(), &valid_except(header)));
    }
    let missing = result_of(&Offer::default(), &valid_without("Upgrade"));
    assert_eq!(error_text(missing), "WEBSOCKET_PROTOCOL_ERROR no Upgrade");
    for bad in ["Upgrade: h2c", "Upgrade:", "Upgrade: websocket/13", "Upgrade: web socket", "Upgrade: websocket, h2c"] {
        let outcome = result_of(&Offer::default(), &valid_except(bad));
        assert_eq!(error_text(outcome), "WEBSOCKET_PROTOCOL_ERROR Upgrade to something else", "{bad}");
    }
    let twice = result_of(&Offer::default(), &valid_with(&["Upgrade: h2c"]));
    assert_eq!(error_text(twice), "WEBSOCKET_PROTOCOL_ERROR Upgrade to something else");
}

#[test]
fn rfc_6455_section_4_1_3_connection_contains_upgrade() {
    for header in [
        "Connection: upgrade",
        "connection:UPGRADE",
        "Connection: keep-alive, Upgrade",
        "Connection: Upgrade,keep-alive",
        "Connection: ,\tUpgrade\t,",
    ] {
        upgraded(result_of(&Offer::default(), &valid_except(header)));
    }
    let spread = [valid_except("Connection: keep-alive"), vec!["connection: Upgrade"]].concat();
    upgraded(result_of(&Offer::default(), &spread));
    for bad in ["Connection: keep-alive", "Connection:", "Connection: Upgraded", "Connection: keep-alive Upgrade"] {
        let outcome = result_of(&Offer::default(), &valid_except(bad));
        assert_eq!(error_text(outcome), "WEBSOCKET_PROTOCOL_ERROR no Connection: Upgrade", "{bad}");
    }
    let missing = result_of(&Offer::default(), &valid_without("Connection"));
    assert_eq!(error_text(missing), "WEBSOCKET_PROTOCOL_ERROR no Connection: Upgrade");
}

#[test]
fn rfc_6455_section_4_1_4_accept_matches_the_key() {
    upgraded(result_of(&Offer::default(), &valid_except("SEC-WEBSOCKET-ACCEPT:\t s3pPLMBiTxaQ9kYGzzhZRbK+xOo= \t")));
    let missing = result_of(&Offer::default(), &valid_without("Sec-WebSocket-Accept"));
    assert_eq!(error_text(missing), "WEBSOCKET_PROTOCOL_ERROR no Sec-WebSocket-Accept");
    for bad in [
        "Sec-WebSocket-Accept:",
        "Sec-WebSocket-Accept: dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Accept: S3PPLMBITXAQ9KYGZZHZRBK+XOO=",
        "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo",
        "Sec-WebSocket-Accept: \"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\"",
    ] {
        let outcome = result_of(&Offer::default(), &valid_except(bad));
        assert_eq!(error_text(outcome), "WEBSOCKET_PROTOCOL_ERROR wrong Sec-WebSocket-Accept", "{bad}");
    }
}

#[test]
fn rfc_6455_section_4_1_5_extensions_must_have_been_offered() {
    let deflate = Offer { deflate: CompressionOffer::SmallWindows, ..Offer::default() };
    let taken = valid_with(&["Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=10"]);
    let negotiated = upgraded(result_of(&deflate, &taken)).deflate.unwrap();
    assert_eq!((negotiated.peer_window_bits, negotiated.peer_no_context_takeover), (10, false));
    assert_eq!((negotiated.own_window_bits, negotiated.own_no_context_takeover), (15, false));
    assert_eq!(upgraded(result_of(&deflate, &valid())).deflate, None, "a server may decline");
    assert_eq!(
        error_text(result_of(&Offer::default(), &taken)),
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
        let outcome = result_of(&deflate, &valid_with(&[bad]));
        assert_eq!(error_text(outcome), format!("WEBSOCKET_PROTOCOL_ERROR {reason}"));
    }
    let plain = Offer { deflate: CompressionOffer::Plain, ..Offer::default() };
    let large = valid_with(&["Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=15"]);
    assert_eq!(upgraded(result_of(&plain, &large)).deflate.unwrap().peer_window_bits, 15);
    let unasked = valid_with(&["Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits=10"]);
    let reason = "WEBSOCKET_PROTOCOL_ERROR bad extension parameter: client_max_window_bits";
    assert_eq!(error_text(result_of(&plain, &unasked)), reason, "RFC 7692 section 7.1.2.2");
    let twice = ["Sec-WebSocket-Extensions: permessage-deflate", "sec-websocket-extensions: permessage-deflate"];
    let outcome = result_of(&deflate, &valid_with(&twice));
    assert_eq!(error_text(outcome), "WEBSOCKET_PROTOCOL_ERROR extension not offered: permessage-deflate");
}

#[test]
fn rfc_7692_section_5_1_a_refused_offer_may_be_followed_by_a_plainer_one() {
    let mut offer = Offer { deflate: CompressionOffer::SmallWindows, ..Offer::default() };
    let mut offers = 0;
    loop {
        let refused = result_of(&offer, &["HTTP/1.1 400 Bad Request"]);
        match (refused, offer.deflate.plainer()) {
            (HandshakeProgress::OfferRefused(error), Some(plainer)) => {
                assert_eq!(error.to_string(), "BAD_HTTP_STATUS 400 Bad Request");
                offer.deflate = plainer;
                offers += 1;
            }
            (refused, None) => break assert_eq!(error_text(refused), "BAD_HTTP_STATUS 400 Bad Request"),
            (other, Some(_)) => panic!("{other:?}"),
        }
    }
    assert_eq!(offers, 2);
    let offer = Offer { deflate: CompressionOffer::SmallWindows, ..Offer::default() };
    assert_eq!(error_text(result_of(&offer, &["HTTP/1.1 403 Forbidden"])), "BAD_HTTP_STATUS 403 Forbidden");
}

#[test]
fn rfc_6455_section_4_1_6_the_subprotocol_must_have_been_offered() {
    let offer = offering(&["chat", "superchat"]);
    let chosen = upgraded(result_of(&offer, &valid_with(&["sec-websocket-protocol: superchat\t"])));
    assert_eq!(chosen.subprotocol.as_deref(), Some("superchat"));
    assert_eq!(upgraded(result_of(&offer, &valid())).subprotocol, None, "a server may choose none");
    let empty = valid_with(&["Sec-WebSocket-Protocol: "]);
    assert_eq!(upgraded(result_of(&offer, &empty)).subprotocol, None, "an empty value chooses none");
    assert_eq!(upgraded(result_of(&Offer::default(), &empty)).subprotocol, None);
    for bad in ["mqtt", "Chat", "chat, superchat", "chat/superchat"] {
        let line: &str = Box::leak(format!("Sec-WebSocket-Protocol: {bad}").into_boxed_str());
        let reason = format!("WEBSOCKET_PROTOCOL_ERROR subprotocol not offered: {bad}");
        assert_eq!(error_text(result_of(&offer, &valid_with(&[line]))), reason);
        assert_eq!(error_text(result_of(&Offer::default(), &valid_with(&[line]))), reason, "none was offered");
    }
}

#[test]
fn rfc_6455_section_11_3_repeated_fields_are_refused() {
    let accepts = valid_with(&["Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo="]);
    let outcome = result_of(&Offer::default(), &accepts);
    assert_eq!(error_text(outcome), "WEBSOCKET_PROTOCOL_ERROR wrong Sec-WebSocket-Accept");
    let subprotocols = valid_with(&["Sec-WebSocket-Protocol: a", "Sec-WebSocket-Protocol: b"]);
    let outcome = result_of(&offering(&["a", "b"]), &subprotocols);
    assert_eq!(error_text(outcome), "WEBSOCKET_PROTOCOL_ERROR more than one subprotocol");
}

#[test]
fn rfc_6455_section_4_2_2_the_101_is_http_1_1() {
    let old = [&["HTTP/1.0 101 Switching Protocols"], &valid()[1..]].concat();
    assert_eq!(error_text(result_of(&Offer::default(), &old)), "WEBSOCKET_PROTOCOL_ERROR 101 in HTTP/1.0");
}

#[test]
fn the_header_block_is_kept_on_request() {
    let offer = Offer { keep_head: true, ..Offer::default() };
    let lines = valid_with(&["Set-Cookie: a=b", "X-Odd:\t"]);
    let head = head_of(&lines, "\r\n");
    assert_eq!(upgraded(result_of(&offer, &lines)).head.as_deref(), Some(&head[..]));
    let after_interim = [&b"HTTP/1.1 100 Continue\r\n\r\n"[..], &head].concat();
    let outcome = upgraded(result_of_bytes(&offer, &after_interim));
    assert_eq!(outcome.head.as_deref(), Some(&head[..]), "the interim response is dropped");
}

#[test]
fn the_request_may_be_sent_in_any_pieces() {
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
fn an_early_response_may_refuse_but_not_upgrade() {
    let url = Url::parse(b"ws://h/x").unwrap();
    let answer = head_of(&valid(), "\r\n");
    let mut handshake = ClientHandshake::new(&url, &Offer::default(), NONCE, true);
    handshake.handle_transmitted(handshake.transmit().len() - 1);
    let outcome = handshake.handle_input(&answer);
    assert_eq!(error_text(outcome), "WEBSOCKET_PROTOCOL_ERROR answered before it was asked");
    let mut handshake = ClientHandshake::new(&url, &Offer::default(), NONCE, true);
    let outcome = handshake.handle_input(b"HTTP/1.1 431 Request Header Fields Too Large\r\n\r\n");
    assert_eq!(error_text(outcome), "BAD_HTTP_STATUS 431 Request Header Fields Too Large");
}

#[test]
fn eof_during_the_handshake_is_a_socket_error() {
    let mut handshake = begun(&Offer::default());
    assert_eq!(handshake.handle_eof().to_string(), "SOCKET_ERROR closed without an answer");
    assert_eq!(handshake.handle_input(b"HTTP/1.1 101"), HandshakeProgress::Pending);
    assert_eq!(handshake.handle_eof().to_string(), "SOCKET_ERROR closed during its answer");
}

#[test]
fn a_reason_is_one_short_line() {
    let outcome = result_of_bytes(&Offer::default(), b"HTTP/1.1 403 \xe4\x1b[2J\r\n\r\n");
    assert!(!error_text(outcome).contains(|c: char| c.is_control()));
    let long = format!("HTTP/1.1 403 {}", "x".repeat(1000));
    assert_eq!(error_text(result_of(&Offer::default(), &[&long])).len(), "BAD_HTTP_STATUS 403 ".len() + 64);
}

#[test]
fn debug_shows_no_secrets() {
    let mut offer = Offer::default();
    offer.set_auth(b"hidden1:hidden2").unwrap();
    offer.add_header(b"X-Key:hidden3").unwrap();
    let shown = format!("{:?}", begun(&offer));
    assert!(!shown.contains("hidden") && !shown.contains("Basic"), "{shown}");
}
