//! Tests of the HTTP part of responses: status lines, interim responses, headers and their limits.

use super::*;
use crate::testing::pieces::head_of_length;
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
fn rfc_9112_section_5_2_folded_lines_are_refused() {
    for fold in [" more", "\tmore"] {
        for lines in [valid_with(&["X: y", fold]), vec!["HTTP/1.1 403 Forbidden", "X: y", fold]] {
            let outcome = error_text(result_of(&Offer::default(), &lines));
            assert!(outcome.starts_with("PARSE_ERROR_HEADERS "), "{outcome}");
        }
    }
}

#[test]
fn other_protocols_are_refused_at_once() {
    for bad in [
        "SSH-2.0-x",
        "http/1.1 101 X",
        "\r\nHTTP/1.1 101 X",
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
    for bad in ["X", "X Y: z", "X : z", ": z", "X: a\0b", "X: a\rb", "Ä: x"] {
        let outcome = error_text(result_of(&Offer::default(), &valid_with(&[bad])));
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
