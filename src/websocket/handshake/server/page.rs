//! Requests for pages, at ports that have some, and the responses to them.

use super::refusal::Refusal;
use super::request::{resource, text};
use crate::websocket::handshake::fields::Fields;

/// A request for a page: a GET without an upgrade.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PageRequest {
    /// The path, without the query.
    pub path: Box<str>,
    /// The Host header.
    pub host: Box<str>,
    /// The client takes a body that is compressed by gzip.
    pub accepts_gzip: bool,
}

impl PageRequest {
    /// Checks the path and the Host of a parsed request, which has passed all other checks.
    pub(super) fn check(request: &httparse::Request<'_, '_>, host: &[u8]) -> Result<Self, Refusal> {
        let resource = resource(request.path.unwrap_or_default());
        let resource = resource.ok_or_else(|| Refusal::new(400, "The path is not valid."))?;
        let path = resource.split('?').next().unwrap_or_default().into();
        let host = text(host).ok_or_else(|| Refusal::new(400, "The Host is not valid."))?;
        Ok(Self { path, host, accepts_gzip: accepts_gzip(Fields(request.headers)) })
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
            let expected = PageRequest { path: "/a".into(), host: "h:1".into(), accepts_gzip: gzip };
            assert_eq!(*page, expected, "{accepted}");
        }
        let key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==";
        let upgrade = ["Host: h", "Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13", key];
        let lines = [&["GET / HTTP/1.1"], &upgrade[..]].concat();
        assert!(matches!(progress(&lines), RequestProgress::Received(_)));
    }

    #[test]
    fn all_other_requests_are_refused() {
        for (lines, code) in [
            (&["POST / HTTP/1.1", "Host: h"][..], 405),
            (&["HEAD / HTTP/1.1", "Host: h"], 405),
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
