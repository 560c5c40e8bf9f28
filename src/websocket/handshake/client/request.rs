//! The client's request (RFC 6455 section 4.1).

use super::Offer;
use crate::websocket::handshake::{Url, accept, extensions};

/// The default User-Agent.
const USER_AGENT: &str = concat!("sockproxyd/", env!("CARGO_PKG_VERSION"));

/// Returns the bytes of the request. `key` is in base64.
///
/// If `send_credentials` is false, the request goes to another host than the plugin named, and has neither credentials nor the
/// plugin's headers.
pub(super) fn build(url: &Url, offer: &Offer, key: &str, send_credentials: bool) -> Vec<u8> {
    let plugin_headers: &[(Box<str>, Box<str>)] = if send_credentials { &offer.headers } else { &[] };
    let mut request = RequestBuilder { lines: format!("GET {} HTTP/1.1\r\n", url.resource), plugin_headers };
    // RFC 9110 section 7.2: Host SHOULD be the first field, also if the plugin sets it.
    match plugin_headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("Host")) {
        Some((name, value)) => request.line(name, value),
        None => request.line("Host", &url.host_header()),
    }
    request.line("Upgrade", "websocket");
    request.line("Connection", "Upgrade");
    request.line("Sec-WebSocket-Key", key);
    request.line("Sec-WebSocket-Version", "13");
    if !offer.subprotocols.is_empty() {
        request.line("Sec-WebSocket-Protocol", &offer.subprotocols.join(", "));
    }
    if let Some(extension) = offer.deflate.header() {
        request.line(extensions::HEADER, &extension);
    }
    if let Some(origin) = &offer.origin {
        request.default_line("Origin", origin);
    }
    request.default_line("User-Agent", offer.user_agent.as_deref().unwrap_or(USER_AGENT));
    if let Some((user, password)) = offer.auth.as_ref().filter(|_| send_credentials) {
        request.default_line("Authorization", &accept::basic_auth(user, password));
    }
    for (name, value) in plugin_headers.iter().filter(|(name, _)| !name.eq_ignore_ascii_case("Host")) {
        request.line(name, value);
    }
    request.lines.push_str("\r\n");
    request.lines.shrink_to_fit();
    request.lines.into_bytes()
}

struct RequestBuilder<'o> {
    lines: String,
    plugin_headers: &'o [(Box<str>, Box<str>)],
}

impl RequestBuilder<'_> {
    fn line(&mut self, name: &str, value: &str) {
        self.lines.extend([name, ": ", value, "\r\n"]);
    }

    /// Adds a line unless the plugin has a header of this name.
    fn default_line(&mut self, name: &str, value: &str) {
        if !self.plugin_headers.iter().any(|(header, _)| header.eq_ignore_ascii_case(name)) {
            self.line(name, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::websocket::handshake::CompressionOffer;

    const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

    fn built(url: &str, offer: &Offer, send_credentials: bool) -> String {
        let url = Url::parse(url.as_bytes()).unwrap();
        String::from_utf8(build(&url, offer, KEY, send_credentials)).unwrap()
    }

    /// The values of a header, in order.
    fn values<'r>(request: &'r str, name: &str) -> Vec<&'r str> {
        let lines = request.lines().filter_map(|line| line.split_once(": "));
        lines.filter(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value).collect()
    }

    fn with_headers(headers: &[&str]) -> Offer {
        let mut offer = Offer::default();
        for header in headers {
            offer.add_header(header.as_bytes()).unwrap();
        }
        offer
    }

    #[test]
    fn the_request_without_options() {
        let version = env!("CARGO_PKG_VERSION");
        assert_eq!(
            built("ws://example.com/chat?x=1", &Offer::default(), true),
            format!(
                "GET /chat?x=1 HTTP/1.1\r\nHost: example.com\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                 Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\nUser-Agent: sockproxyd/{version}\r\n\r\n"
            )
        );
    }

    #[test]
    fn the_request_with_all_options() {
        let mut offer = with_headers(&["X-A: 1", "X-A:2"]);
        offer.set_subprotocols([&b"chat"[..], b"superchat"]).unwrap();
        offer.set_auth(b"Aladdin:open sesame").unwrap();
        offer.set_user_agent(b"me").unwrap();
        offer.set_origin(b"http://here").unwrap();
        offer.deflate = CompressionOffer::SmallWindows;
        let request = built("ws://h/", &offer, true);
        let extension = "permessage-deflate; client_max_window_bits; server_max_window_bits=12; \
                         server_no_context_takeover; client_no_context_takeover";
        assert_eq!(values(&request, "Sec-WebSocket-Protocol"), ["chat, superchat"]);
        assert_eq!(values(&request, "Sec-WebSocket-Extensions"), [extension]);
        assert_eq!(values(&request, "Authorization"), ["Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="]);
        assert_eq!(values(&request, "User-Agent"), ["me"]);
        assert_eq!(values(&request, "Origin"), ["http://here"]);
        assert_eq!(values(&request, "X-A"), ["1", "2"]);
        assert!(request.ends_with("\r\n\r\n"));
    }

    #[test]
    fn rfc_6455_section_4_1_host_has_a_port_unless_it_is_the_default() {
        for (url, host) in [
            ("ws://h:80/", "h"),
            ("ws://h:443/", "h:443"),
            ("wss://h:443/", "h"),
            ("wss://h:80/", "h:80"),
            ("ws://[::1]:81/", "[::1]:81"),
            ("ws://[fe80::1%25eth0]/", "[fe80::1]"),
        ] {
            assert_eq!(values(&built(url, &Offer::default(), true), "Host"), [host], "{url}");
        }
    }

    #[test]
    fn headers_replace_ours() {
        let mut offer = with_headers(&["host:other:1", "USER-AGENT:x", "origin:y", "authorization:Bearer z"]);
        offer.set_auth(b"u:p").unwrap();
        offer.set_origin(b"o").unwrap();
        let request = built("ws://h/", &offer, true);
        assert_eq!(request.lines().nth(1), Some("host: other:1"), "Host stays the first field");
        for (name, value) in [("Host", "other:1"), ("User-Agent", "x"), ("Origin", "y"), ("Authorization", "Bearer z")]
        {
            assert_eq!(values(&request, name), [value]);
        }
    }

    #[test]
    fn another_host_gets_neither_credentials_nor_headers() {
        let mut offer = with_headers(&["Authorization:Bearer z", "Cookie:a=b", "X-Api-Key:k", "Host:h"]);
        offer.set_auth(b"u:p").unwrap();
        offer.set_user_agent(b"me").unwrap();
        let request = built("ws://elsewhere/", &offer, false);
        for name in ["Authorization", "Cookie", "X-Api-Key"] {
            assert!(values(&request, name).is_empty(), "{name}");
        }
        assert_eq!(values(&request, "Host"), ["elsewhere"]);
        assert_eq!(values(&request, "User-Agent"), ["me"]);
        offer.headers.clear();
        assert!(values(&built("ws://elsewhere/", &offer, false), "Authorization").is_empty());
    }
}
