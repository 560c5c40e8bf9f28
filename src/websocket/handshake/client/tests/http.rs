//! Tests of the HTTP part of responses: status lines, interim responses, headers and their limits.

use super::*;
use crate::testing::pieces::head_of_length;
use crate::websocket::handshake::client::lenient::UPGRADE_FIELDS;
use crate::websocket::handshake::{MAX_FIELDS, MAX_HEAD};

#[test]
fn headers_of_a_body_are_ignored_in_a_101() {
    upgraded(result_of(&Offer::default(), &valid_with(&["Transfer-Encoding: chunked", "Content-Length: 5"])));
}

#[test]
fn rfc_9110_section_15_2_interim_responses_are_skipped() {
    let all = [&["HTTP/1.1 100 Continue", "", "HTTP/1.1 103 Early Hints", "Link: </x>", ""], &valid()[..]].concat();
    upgraded(result_of(&Offer::default(), &all));
    let all = ["HTTP/1.1 100 Continue", "", "HTTP/1.1 503 Busy"];
    assert_eq!(error_text(result_of(&Offer::default(), &all)), "BAD_HTTP_STATUS 503 Busy");
}

#[test]
fn rfc_9112_section_5_2_folded_lines_are_joined() {
    for fold in [" path=/", "\tpath=/", " ", "  a: b"] {
        upgraded(result_of(&Offer::default(), &valid_with(&["Set-Cookie: a=b;", fold, "X: y"])));
        let refused = result_of(&Offer::default(), &["HTTP/1.1 403 Forbidden", "X: y", fold]);
        assert_eq!(error_text(refused), "BAD_HTTP_STATUS 403 Forbidden");
    }
    let folded = valid_except("Connection: keep-alive,");
    let folded = [&folded[..3], &[" Upgrade"], &folded[3..]].concat();
    upgraded(result_of(&Offer::default(), &folded));
    let accept = [&valid()[..3], &["Sec-WebSocket-Accept: s3pPLMBiTxaQ9", " kYGzzhZRbK+xOo="]].concat();
    let outcome = error_text(result_of(&Offer::default(), &accept));
    assert_eq!(outcome, "WEBSOCKET_PROTOCOL_ERROR wrong Sec-WebSocket-Accept", "a line end becomes a blank");
    let redirect = result_of(&Offer::default(), &["HTTP/1.1 302 Found", "Location:", " /there"]);
    assert_eq!(redirect, HandshakeProgress::Redirect { location: "/there".into() });
}

/// The headers of small devices, none of which the handshake needs.
const ODD: [&str; 9] =
    ["Server : x", "no colon", "X Y: z", ": z", "X: a\x01b", "X: a\0b", "X: a\rb", "X: \x7f", "Ä: x"];

#[test]
fn malformed_headers_do_not_matter_unless_the_handshake_rests_on_them() {
    let offer = Offer { keep_head: true, deflate: CompressionOffer::SmallWindows, ..offering(&["chat"]) };
    for odd in ODD {
        let lines = [&valid()[..1], &[odd], &valid()[1..], &["Sec-WebSocket-Protocol: chat"]].concat();
        let head = head_of(&lines, "\r\n");
        let outcome = upgraded(result_of(&offer, &lines));
        assert_eq!(outcome.subprotocol.as_deref(), Some("chat"), "{odd:?}");
        assert_eq!(outcome.head.as_deref(), Some(&head[..]), "{odd:?}: RHDR shows what came");
        let refused = result_of(&offer, &["HTTP/1.1 403 Forbidden", odd, "Upgrade : x"]);
        assert_eq!(error_text(refused), "BAD_HTTP_STATUS 403 Forbidden", "{odd:?}");
        let redirect = result_of(&offer, &["HTTP/1.1 302 Found", odd, "Location: /x", "Content-Length : 0"]);
        assert_eq!(redirect, HandshakeProgress::Redirect { location: "/x".into() }, "{odd:?}");
    }
    for bad in [
        "Upgrade : websocket",
        "connection\t: Upgrade",
        "SEC-WEBSOCKET-ACCEPT : x",
        "Sec-WebSocket-Accept: x\0",
        "Sec-WebSocket-Protocol: ch\x01at",
        "Sec-WebSocket-Extensions : permessage-deflate",
        "Connection",
    ] {
        let name =
            UPGRADE_FIELDS.iter().find(|name| bad[..name.len().min(bad.len())].eq_ignore_ascii_case(name)).unwrap();
        let outcome = error_text(result_of(&offer, &valid_with(&[bad])));
        assert_eq!(outcome, format!("PARSE_ERROR_HEADERS malformed {name}"), "{bad:?}");
    }
    for bad in ["Location : /x", "Location: /\0"] {
        let outcome = error_text(result_of(&offer, &["HTTP/1.1 302 Found", bad]));
        assert_eq!(outcome, "PARSE_ERROR_HEADERS malformed Location", "{bad:?}");
    }
}

#[test]
fn an_empty_line_may_stand_before_the_status_line() {
    let offer = Offer { keep_head: true, ..Offer::default() };
    let head = head_of(&valid(), "\r\n");
    for empty in ["\r\n", "\n"] {
        for interim in ["", "HTTP/1.1 100 Continue\r\n\r\n\r\n"] {
            let outcome = upgraded(result_of_bytes(&offer, &[empty.as_bytes(), interim.as_bytes(), &head].concat()));
            assert_eq!(outcome.head.as_deref(), Some(&head[..]));
        }
    }
}

#[test]
fn other_protocols_are_refused_at_once() {
    for bad in [
        "SSH-2.0-x",
        "http/1.1 101 X",
        "\r\n\r\nHTTP/1.1 101 X",
        "\n\n",
        "\rHTTP/1.1 101 X",
        "\r\nSSH-2.0-x",
        "HTTP/2.0 101 X",
        "\x15\x03\x01",
        "HTTP 101",
        "ICY 200 OK",
    ] {
        let mut handshake = begun(&Offer::default());
        let outcome = bad
            .as_bytes()
            .chunks(1)
            .map(|byte| handshake.handle_input(byte))
            .find(|p| *p != HandshakeProgress::Pending);
        assert_eq!(outcome.map(error_text).as_deref(), Some("PARSE_ERROR_HEADERS no HTTP"), "{bad:?}");
        let long = [bad.as_bytes(), &[b'x'; 2 * MAX_HEAD]].concat();
        assert_eq!(error_text(result_of_pieces(&Offer::default(), &[&long])), "PARSE_ERROR_HEADERS no HTTP", "{bad:?}");
    }
    for bad in ["HTTP/1.1 1x1 X", "HTTP/1.7 101 X", "HTTP/1.1", "HTTP/1.1 101 a\0b"] {
        let outcome = error_text(result_of(&Offer::default(), &[bad]));
        assert!(outcome.starts_with("PARSE_ERROR_HEADERS "), "{bad}: {outcome}");
    }
}

#[test]
fn a_header_block_has_at_most_8192_bytes() {
    for (size, fits) in [(MAX_HEAD, true), (MAX_HEAD + 1, false)] {
        let all = [&head_of_length(&valid(), size), FRAMES].concat();
        for pieces in [vec![&all[..]], all.chunks(1).collect(), all.chunks(1000).collect()] {
            let outcome = result_of_pieces(&Offer::default(), &pieces);
            if fits {
                upgraded(outcome);
            } else {
                assert_eq!(error_text(outcome), "PARSE_ERROR_HEADERS header block over 8192 bytes");
            }
        }
    }
}

#[test]
fn interim_responses_count_towards_the_limit() {
    let interim = b"HTTP/1.1 100 Continue\r\n\r\n".repeat(MAX_HEAD);
    let reason = "PARSE_ERROR_HEADERS header block over 8192 bytes";
    assert_eq!(error_text(result_of_pieces(&Offer::default(), &[&interim])), reason);
    assert_eq!(error_text(result_of_pieces(&Offer::default(), &interim.chunks(7).collect::<Vec<_>>())), reason);
}

#[test]
fn a_response_has_at_most_64_headers() {
    for (more, fits) in [(MAX_FIELDS - 3, true), (MAX_FIELDS - 2, false)] {
        let lines = valid_with(&vec!["X: y"; more]);
        let outcome = result_of(&Offer::default(), &lines);
        if fits {
            upgraded(outcome);
        } else {
            assert_eq!(error_text(outcome), "PARSE_ERROR_HEADERS more than 64 headers");
        }
    }
}
