//! [`UpgradeRequest`]: the client's request, checked as RFC 6455 section 4.2.1 asks of a server.

use std::net::Ipv4Addr;

use ring::digest::{SHA256, digest};

use super::page::PageRequest;
use super::refusal::Refusal;
use crate::websocket::handshake::extensions::{self, DeflateOffer};
use crate::websocket::handshake::fields::{Fields, Single, is_token};
use crate::websocket::handshake::{accept, url};

/// What a browser shows that opens the port as a page.
const NO_PAGES: &str = "This is a WebSocket port of sockproxyd. It has no pages: a script connects to it by new WebSocket(\"ws://HOST:PORT/PATH\").";

/// A valid request.
pub(super) enum ParsedRequest {
    /// For a WebSocket.
    WebSocket(Box<UpgradeRequest>),
    /// For a page.
    Page(Box<PageRequest>),
}

/// A valid request for a WebSocket.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct UpgradeRequest {
    /// Path and query, as the client wrote them.
    pub resource: Box<str>,
    /// The Host header.
    pub host: Box<str>,
    /// The Origin header, which browsers send.
    pub origin: Option<Box<str>>,
    /// The offered subprotocols, in the client's order of preference.
    pub subprotocols: Vec<Box<str>>,
    /// The header block as received, from the request line to the blank line.
    pub head: Vec<u8>,
    /// Bytes after the header block. RFC 6455 section 4.1: a client MUST wait for the response; some do not.
    pub rest: Vec<u8>,
    pub(super) key: Box<str>,
    pub(super) deflate: Option<DeflateOffer>,
    /// Credentials, `user:password`.
    credentials: Option<Vec<u8>>,
}

impl ParsedRequest {
    /// Checks a parsed request, which may be for a page if `has_pages`. The caller sets `head` and `rest` of one for a WebSocket.
    pub(super) fn check(request: &httparse::Request<'_, '_>, has_pages: bool) -> Result<Self, Refusal> {
        let checked = Self::check_rules(request, has_pages);
        checked.map_err(|refusal| if request.method == Some("HEAD") { refusal.without_body() } else { refusal })
    }

    fn check_rules(request: &httparse::Request<'_, '_>, has_pages: bool) -> Result<Self, Refusal> {
        let bad_request = |reason: &str| Refusal::new(400, reason);
        let fields = Fields(request.headers);
        // RFC 6455 section 4.2.1, items 1 to 6: the parts that a client's handshake MUST have. A server MUST refuse one
        // without them with an HTTP error. Item 1: a GET of HTTP/1.1 or higher; HTTP/2 comes in another form.
        // RFC 9110 section 9.1: a server of pages MUST support HEAD, too.
        let is_head = request.method == Some("HEAD");
        if request.method != Some("GET") && !(is_head && has_pages) {
            return Err(Refusal::of_method(has_pages));
        }
        if request.version != Some(1) {
            return Err(Refusal::new(505, "This port takes only HTTP/1.1."));
        }
        // Item 2: Host.
        let Single::One(host) = fields.single("Host") else {
            return Err(bad_request("The request has not exactly one Host."));
        };
        // A body could hold frames, so its end must not be ambiguous: none is accepted.
        if fields.all("Transfer-Encoding").next().is_some() || fields.all("Content-Length").any(|length| length != b"0")
        {
            return Err(bad_request("The request has a body."));
        }
        // RFC 9110 section 7.8: an upgrade to another protocol, such as h2c, MAY be ignored.
        if has_pages && (is_head || !fields.list_has("Upgrade", "websocket")) {
            return PageRequest::check(request, host, is_head).map(Box::new).map(Self::Page);
        }
        // Item 3: Upgrade contains `websocket`.
        if !fields.list_has("Upgrade", "websocket") {
            return Err(Refusal::new(426, NO_PAGES));
        }
        // Item 4: Connection contains `Upgrade`.
        if !fields.list_has("Connection", "Upgrade") {
            return Err(bad_request("The request has no Connection: Upgrade."));
        }
        // Item 6: the version is 13. Section 4.4: otherwise the response MUST name the supported version.
        if fields.single("Sec-WebSocket-Version") != Single::One(b"13") {
            return Err(Refusal::new(426, "Version 13 of WebSocket is needed."));
        }
        // Item 5: the key has 16 bytes in base64.
        let key = match fields.single("Sec-WebSocket-Key") {
            Single::One(key) => text(key).filter(|key| accept::is_valid_key(key)),
            _ => None,
        };
        let origin = match fields.single("Origin") {
            Single::None => None,
            Single::One(origin) => Some(text(origin).ok_or_else(|| bad_request("The Origin is not valid."))?),
            Single::Many => return Err(bad_request("The request has more than one Origin.")),
        };
        let credentials = match fields.single("Authorization") {
            Single::One(value) => accept::parse_basic_auth(value),
            _ => None,
        };
        Ok(Self::WebSocket(Box::new(UpgradeRequest {
            resource: resource(request.path.unwrap_or_default())
                .ok_or_else(|| bad_request("The path is not valid."))?,
            host: text(host).filter(|host| !host.is_empty()).ok_or_else(|| bad_request("The Host is not valid."))?,
            origin,
            subprotocols: subprotocols(fields)
                .ok_or_else(|| bad_request("The Sec-WebSocket-Protocol is not valid."))?,
            head: Vec::new(),
            rest: Vec::new(),
            key: key.ok_or_else(|| bad_request("The Sec-WebSocket-Key is not valid."))?,
            deflate: extensions::read_offer(fields)
                .map_err(|error| bad_request(&format!("The request is not valid: {error}.")))?,
            credentials,
        })))
    }
}

impl UpgradeRequest {
    /// Bytes of memory held.
    pub(crate) fn held(&self) -> usize {
        let subprotocols: usize = self.subprotocols.iter().map(|name| name.len() + size_of::<Box<str>>()).sum();
        let texts = self.resource.len() + self.host.len() + self.origin.as_deref().map_or(0, str::len) + self.key.len();
        let credentials = self.credentials.as_ref().map_or(0, Vec::capacity);
        self.head.capacity() + self.rest.capacity() + subprotocols + texts + credentials
    }

    /// The resource without its query.
    pub(crate) fn path(&self) -> &str {
        self.resource.split('?').next().unwrap_or_default()
    }

    /// True if the client offers this subprotocol.
    pub(crate) fn offers(&self, subprotocol: &str) -> bool {
        self.subprotocols.iter().any(|offered| **offered == *subprotocol)
    }

    /// Returns the first of `ours` that the client offers.
    pub(crate) fn choose<'o>(&self, ours: &'o [Box<str>]) -> Option<&'o str> {
        ours.iter().map(|ours| &**ours).find(|ours| self.offers(ours))
    }

    /// True if a page of the request's origin is allowed: one of `patterns` matches it, without case; `*` matches any
    /// characters but `/`, and a pattern `*` alone matches every origin. A request without an origin does not come from
    /// a browser and is allowed (RFC 6455 section 10.2).
    pub(crate) fn is_origin_allowed(&self, patterns: &[Box<str>]) -> bool {
        let Some(origin) = &self.origin else { return true };
        patterns.iter().any(|pattern| &**pattern == "*" || matches_pattern(pattern.as_bytes(), origin.as_bytes()))
    }

    /// True if the request comes from a page of the same host and port, or has no origin. A page's origin leaves out the
    /// default port of its scheme (RFC 6454 section 6.2).
    ///
    /// A stranger's page is of the same host, too, once its name resolves to this machine (DNS rebinding). So the host of a page
    /// without TLS must be an address or a [local name](is_local); with TLS the stranger lacks the certificate.
    pub(crate) fn is_same_origin(&self) -> bool {
        self.origin_of_host().is_some_and(|(is_secure, host)| is_secure || host.is_none_or(|host| is_local(&host)))
    }

    /// True if the request comes from a page of the same host and port, or has no origin. For a port that has checked the Host.
    pub(crate) fn is_origin_of_host(&self) -> bool {
        self.origin_of_host().is_some()
    }

    /// Whether the page came over TLS, and its host without a default port. `None`: it is of another host or port. Without a host if
    /// there is no origin.
    fn origin_of_host(&self) -> Option<(bool, Option<String>)> {
        let Some(origin) = &self.origin else { return Some((false, None)) };
        let (scheme, authority) = origin.split_once("://")?;
        let is_secure = scheme.eq_ignore_ascii_case("https");
        let default_port = if is_secure { ":443" } else { ":80" };
        let without_default = |text: &'_ str| text.strip_suffix(default_port).unwrap_or(text).to_ascii_lowercase();
        let host = without_default(authority);
        (host == without_default(&self.host)).then_some((is_secure, Some(host)))
    }

    /// True if the request has these credentials. The comparison takes the same time for every wrong value.
    pub(crate) fn has_credentials(&self, user: &str, password: &str) -> bool {
        let received = self.credentials.as_deref().unwrap_or_default();
        let expected = [user, ":", password].concat();
        self.credentials.is_some()
            && digest(&SHA256, received).as_ref() == digest(&SHA256, expected.as_bytes()).as_ref()
    }
}

impl std::fmt::Debug for UpgradeRequest {
    /// Without header block, query and credentials, which may be secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("UpgradeRequest")
            .field("path", &self.path())
            .field("host", &self.host)
            .field("origin", &self.origin)
            .field("subprotocols", &self.subprotocols)
            .field("deflate", &self.deflate)
            .finish_non_exhaustive()
    }
}

/// True if no stranger can have `host[:port]`, in lower case, resolve to an address of their choice: it is an address,
/// has no dot, or is of a domain that local networks use (RFC 6762, RFC 8375, and habits of routers).
fn is_local(host: &str) -> bool {
    // Of an IPv6 address this leaves a bracket.
    let name = host.split_once(':').map_or(host, |(name, _)| name);
    let name = name.strip_suffix('.').unwrap_or(name);
    let Some((_, domain)) = name.rsplit_once('.') else { return true };
    name.parse::<Ipv4Addr>().is_ok()
        || ["local", "lan", "home", "internal", "localdomain", "localhost"].contains(&domain)
        || name.ends_with(".home.arpa")
}

pub(super) fn text(value: &[u8]) -> Option<Box<str>> {
    std::str::from_utf8(value).ok().map(Into::into)
}

/// Returns path and query of a request target, which may be an absolute URL (RFC 6455 section 4.2.1).
pub(super) fn resource(target: &str) -> Option<Box<str>> {
    if target.starts_with('/') {
        return url::is_visible(target).then(|| target.into()).filter(|_| !target.contains('#'));
    }
    url::parse_any_scheme(target.as_bytes()).map(|url| url.resource)
}

/// Parses the offered subprotocols: tokens, each once (RFC 6455 section 4.1).
fn subprotocols(fields: Fields<'_>) -> Option<Vec<Box<str>>> {
    let mut subprotocols: Vec<Box<str>> = Vec::new();
    for name in fields.list("Sec-WebSocket-Protocol") {
        let new = text(name).filter(|text| is_token(name) && !subprotocols.contains(text))?;
        subprotocols.push(new);
    }
    Some(subprotocols)
}

/// True if `text` matches `pattern` without case; each `*` matches any characters but `/`.
fn matches_pattern(pattern: &[u8], text: &[u8]) -> bool {
    let (mut at, mut from) = (0, 0);
    // Position after the last `*` and the start of the text after it: on a mismatch the `*` takes one character more.
    let mut backtrack: Option<(usize, usize)> = None;
    while from < text.len() {
        match pattern.get(at) {
            Some(b'*') => {
                at += 1;
                backtrack = Some((at, from));
            }
            Some(byte) if byte.eq_ignore_ascii_case(&text[from]) => {
                at += 1;
                from += 1;
            }
            _ => {
                let Some((star, start)) = backtrack.filter(|&(_, start)| text[start] != b'/') else { return false };
                backtrack = Some((star, start + 1));
                (at, from) = (star, start + 1);
            }
        }
    }
    pattern[at..].iter().all(|&byte| byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_origins() {
        let matches_pattern = |pattern: &str, text: &str| matches_pattern(pattern.as_bytes(), text.as_bytes());
        for (pattern, origin) in [
            ("https://a.example", "HTTPS://A.Example"),
            ("https://*.example", "https://a.b.example"),
            ("http://localhost:*", "http://localhost:8080"),
            ("*://a", "https://a"),
            ("*.lan*", "x.lan.lan"),
            ("null", "null"),
            ("**", "x"),
        ] {
            assert!(matches_pattern(pattern, origin), "{pattern} {origin}");
        }
        for (pattern, origin) in [
            ("https://a.example", "http://a.example"),
            ("https://a.example", "https://a.example.evil"),
            ("https://*.example", "https://example"),
            ("https://*.example", "https://evil/.example"),
            ("*a", "https://a"),
            ("", "x"),
            ("a*", ""),
        ] {
            assert!(!matches_pattern(pattern, origin), "{pattern} {origin}");
        }
        // A pattern with many stars is matched in quadratic time at most.
        assert!(!matches_pattern(&"*a".repeat(500), &"a".repeat(499)));
    }
}
