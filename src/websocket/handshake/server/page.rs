//! Requests for pages, at ports that have some, and the responses to them.

use super::refusal::Refusal;
use super::request::{resource, text};
use crate::websocket::handshake::fields::Fields;

/// A request for a page: a GET without an upgrade to WebSocket, or a HEAD.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PageRequest {
    /// The path, without the query.
    pub path: Box<str>,
    /// The Host header.
    pub host: Box<str>,
    /// The client takes a body that is compressed by gzip.
    pub accepts_gzip: bool,
    /// The response is to have no body (RFC 9110 section 9.3.2).
    pub is_head: bool,
}

impl PageRequest {
    /// Checks the path and the Host of a parsed request, which has passed all other checks.
    pub(super) fn check(request: &httparse::Request<'_, '_>, host: &[u8], is_head: bool) -> Result<Self, Refusal> {
        let resource = resource(request.path.unwrap_or_default());
        let resource = resource.ok_or_else(|| Refusal::new(400, "The path is not valid."))?;
        let path = resource.split('?').next().unwrap_or_default().into();
        let host = text(host).ok_or_else(|| Refusal::new(400, "The Host is not valid."))?;
        Ok(Self { path, host, accepts_gzip: accepts_gzip(Fields(request.headers)), is_head })
    }

    /// Bytes of memory held.
    pub(crate) fn held(&self) -> usize {
        self.path.len() + self.host.len()
    }
}

/// RFC 9110 section 12.5.3: a coding is accepted if it is listed, unless its weight is 0.
fn accepts_gzip(fields: Fields<'_>) -> bool {
    fields.list("Accept-Encoding").any(|member| {
        let mut parts = member.split(|&byte| byte == b';').map(<[u8]>::trim_ascii);
        let is_gzip = parts.next().is_some_and(|coding| coding.eq_ignore_ascii_case(b"gzip"));
        let is_zero = |weight: &[u8]| {
            let value = weight.strip_prefix(b"q=").or_else(|| weight.strip_prefix(b"Q="));
            value.is_some_and(|value| value.iter().all(|byte| matches!(byte, b'0' | b'.')))
        };
        is_gzip && !parts.any(is_zero)
    })
}

/// What a browser is told of every page: it loads nothing from elsewhere, stands in no frame, is kept in no cache, and no other
/// site may read it.
const PROTECTION: &str = "Cache-Control: no-store\r\n\
    Content-Security-Policy: default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:; \
    connect-src 'self' ws: wss:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'\r\n\
    Cross-Origin-Resource-Policy: same-origin\r\n\
    Referrer-Policy: no-referrer\r\n\
    X-Content-Type-Options: nosniff\r\n";

/// The response with a page. `is_gzip`: the body is compressed.
pub(crate) fn page_response(content_type: &str, is_gzip: bool, body: &[u8]) -> Vec<u8> {
    let encoding = if is_gzip { "Content-Encoding: gzip\r\n" } else { "" };
    let head = format!(
        "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Type: {content_type}\r\n{encoding}Content-Length: {}\r\n{PROTECTION}\r\n",
        body.len(),
    );
    [head.as_bytes(), body].concat()
}

/// Cuts the body off a response, for a HEAD.
pub(crate) fn head_of_response(mut response: Vec<u8>) -> Vec<u8> {
    if let Some(blank_line) = response.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
        response.truncate(blank_line + 4);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::pieces::{head_of, read_request};
    use crate::websocket::handshake::{RequestProgress, ServerHandshake};

    /// What a port with pages says to a request, whose bytes come one by one.
    fn progress(lines: &[&str]) -> RequestProgress {
        let head = head_of(lines, "\r\n");
        let pieces: Vec<&[u8]> = head.chunks(1).collect();
        read_request(&mut ServerHandshake::with_pages(), &pieces)
    }

    #[test]
    fn a_get_without_an_upgrade_asks_for_a_page() {
        for (accepted, gzip) in [
            ("gzip", true),
            ("deflate, GZIP;q=0.5", true),
            ("br", false),
            ("gzip;q=0", false),
            ("gzip; q=0.000", false),
            ("*", false),
        ] {
            let accepted = format!("Accept-Encoding: {accepted}");
            let RequestProgress::Page(page) = progress(&["GET /a?b HTTP/1.1", "Host: h:1", &accepted]) else {
                panic!()
            };
            let expected = PageRequest { path: "/a".into(), host: "h:1".into(), accepts_gzip: gzip, is_head: false };
            assert_eq!(*page, expected, "{accepted}");
        }
        let key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==";
        let upgrade = ["Host: h", "Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13", key];
        let lines = [&["GET / HTTP/1.1"], &upgrade[..]].concat();
        assert!(matches!(progress(&lines), RequestProgress::Received(_)));
    }

    /// Regression: a port with pages refused HEAD, and told clients that asked for another upgrade that it has no pages.
    #[test]
    fn rfc_9110_sections_7_8_and_9_1_head_and_upgrades_to_other_protocols() {
        let h2c = ["Upgrade: h2c", "Connection: Upgrade, HTTP2-Settings", "HTTP2-Settings: AAMAAABk"];
        let websocket = ["Upgrade: websocket", "Connection: Upgrade"];
        for (line, upgrade, expected) in [
            ("HEAD / HTTP/1.1", &[][..], true),
            ("HEAD / HTTP/1.1", &h2c, true),
            ("HEAD / HTTP/1.1", &websocket, true),
            ("GET / HTTP/1.1", &h2c, false),
        ] {
            let RequestProgress::Page(page) = progress(&[&[line, "Host: h"], upgrade].concat()) else {
                panic!("{line}")
            };
            assert_eq!((&*page.path, page.is_head), ("/", expected), "{line} {upgrade:?}");
        }
    }

    #[test]
    fn rfc_9110_section_9_3_2_the_response_to_a_head_has_no_body() {
        let response = page_response("text/plain", false, b"a\r\n\r\nb");
        let head = head_of_response(response.clone());
        assert!(head.ends_with(b"\r\n\r\n") && response == [&head[..], b"a\r\n\r\nb"].concat());
        for (mut handshake, line, allowed) in [
            (ServerHandshake::with_pages(), "HEAD / HTTP/1.0", None),
            (ServerHandshake::with_pages(), "POST / HTTP/1.1", Some("GET, HEAD")),
            (ServerHandshake::new(), "HEAD / HTTP/1.1", Some("GET")),
            (ServerHandshake::new(), "POST / HTTP/1.1", Some("GET")),
        ] {
            let request = head_of(&[line, "Host: h"], "\r\n");
            assert!(matches!(handshake.handle_input(&request), RequestProgress::Refused(_)), "{line}");
            let response = String::from_utf8_lossy(handshake.transmit()).into_owned();
            assert_eq!(response.ends_with("\r\n\r\n"), line.starts_with("HEAD"), "{response}");
            assert!(!response.contains("Content-Length: 0\r\n"), "the length is that of the body of a GET: {response}");
            if let Some(methods) = allowed {
                assert!(response.contains(&format!("\r\nAllow: {methods}\r\n")), "{response}");
            }
            assert!(!response.contains("WebSocket") || allowed == Some("GET"), "{response}");
        }
    }

    #[test]
    fn all_other_requests_are_refused() {
        for (lines, code) in [
            (&["POST / HTTP/1.1", "Host: h"][..], 405),
            (&["OPTIONS / HTTP/1.1", "Host: h"], 405),
            (&["GET / HTTP/1.0", "Host: h"], 505),
            (&["GET / HTTP/1.1"], 400),
            (&["GET / HTTP/1.1", "Host: h", "Host: h"], 400),
            (&["GET / HTTP/1.1", "Host: \u{fffd}\u{e4}"], 0),
            (&["GET a HTTP/1.1", "Host: h"], 400),
            (&["GET / HTTP/1.1", "Host: h", "Content-Length: 1"], 400),
            (&["GET / HTTP/1.1", "Host: h", "Upgrade: websocket"], 400),
        ] {
            match progress(lines) {
                RequestProgress::Refused(refusal) => assert_eq!(refusal.code(), code, "{lines:?}"),
                // A Host in UTF-8 is a text, and none that a port is called by.
                RequestProgress::Page(_) => assert_eq!(code, 0, "{lines:?}"),
                other => panic!("{lines:?}: {other:?}"),
            }
        }
    }
}
