//! What makes an answer HTTP, whatever it says of WebSocket: status lines, interim answers, headers and their limits.

use super::*;
use crate::testing::pieces::head_of_length;
use crate::websocket::handshake::{FIELDS_LIMIT, HEAD_LIMIT};

#[test]
fn a_body_that_cannot_be_is_not_waited_for() {
    upgraded(answered(&Offer::default(), &good_and(&["Transfer-Encoding: chunked", "Content-Length: 5"])));
}

#[test]
fn rfc_9110_section_15_2_interim_answers_are_skipped() {
    let all = [&["HTTP/1.1 100 Continue", "", "HTTP/1.1 103 Early Hints", "Link: </x>", ""], &good()[..]].concat();
    upgraded(answered(&Offer::default(), &all));
    let all = ["HTTP/1.1 100 Continue", "", "HTTP/1.1 503 Busy"];
    assert_eq!(failure(answered(&Offer::default(), &all)), "BAD_HTTP_STATUS 503 Busy");
}

#[test]
fn rfc_9112_section_5_2_folded_lines_are_refused() {
    for fold in [" more", "\tmore"] {
        for lines in [good_and(&["X: y", fold]), vec!["HTTP/1.1 403 Forbidden", "X: y", fold]] {
            let outcome = failure(answered(&Offer::default(), &lines));
            assert!(outcome.starts_with("PARSE_ERROR_HEADERS "), "{outcome}");
        }
    }
}

#[test]
fn what_is_no_http_is_refused_at_once() {
    for bad in [
        "SSH-2.0-x",
        "http/1.1 101 X",
        "\r\nHTTP/1.1 101 X",
        "HTTP/2.0 101 X",
        "\x15\x03\x01",
        "HTTP 101",
        "ICY 200 OK",
    ] {
        let mut handshake = began(&Offer::default());
        let outcome =
            bad.as_bytes().chunks(1).map(|byte| handshake.handle_input(byte)).find(|p| *p != Progress::Pending);
        assert_eq!(outcome.map(failure).as_deref(), Some("PARSE_ERROR_HEADERS no HTTP"), "{bad:?}");
        let long = [bad.as_bytes(), &[b'x'; 2 * HEAD_LIMIT]].concat();
        assert_eq!(failure(given(&Offer::default(), &[&long])), "PARSE_ERROR_HEADERS no HTTP", "{bad:?}");
    }
    for bad in ["HTTP/1.1 1x1 X", "HTTP/1.7 101 X", "HTTP/1.1", "HTTP/1.1 101 a\0b"] {
        let outcome = failure(answered(&Offer::default(), &[bad]));
        assert!(outcome.starts_with("PARSE_ERROR_HEADERS "), "{bad}: {outcome}");
    }
    for bad in ["X", "X Y: z", "X : z", ": z", "X: a\0b", "X: a\rb", "Ä: x"] {
        let outcome = failure(answered(&Offer::default(), &good_and(&[bad])));
        assert!(outcome.starts_with("PARSE_ERROR_HEADERS "), "{bad}: {outcome}");
    }
}

#[test]
fn the_longest_header_block_fits_and_one_byte_more_does_not() {
    for (size, fits) in [(HEAD_LIMIT, true), (HEAD_LIMIT + 1, false)] {
        let all = [&head_of_length(&good(), size), FRAMES].concat();
        for pieces in [vec![&all[..]], all.chunks(1).collect(), all.chunks(1000).collect()] {
            let outcome = given(&Offer::default(), &pieces);
            if fits {
                upgraded(outcome);
            } else {
                assert_eq!(failure(outcome), "PARSE_ERROR_HEADERS header block over 8192 bytes");
            }
        }
    }
}

#[test]
fn interim_answers_do_not_go_on_for_ever() {
    let interim = b"HTTP/1.1 100 Continue\r\n\r\n".repeat(HEAD_LIMIT);
    let reason = "PARSE_ERROR_HEADERS header block over 8192 bytes";
    assert_eq!(failure(given(&Offer::default(), &[&interim])), reason);
    assert_eq!(failure(given(&Offer::default(), &interim.chunks(7).collect::<Vec<_>>())), reason);
}

#[test]
fn as_many_headers_as_may_be_and_one_more() {
    for (more, fits) in [(FIELDS_LIMIT - 3, true), (FIELDS_LIMIT - 2, false)] {
        let lines = good_and(&vec!["X: y"; more]);
        let outcome = answered(&Offer::default(), &lines);
        if fits {
            upgraded(outcome);
        } else {
            assert_eq!(failure(outcome), "PARSE_ERROR_HEADERS more than 64 headers");
        }
    }
}
