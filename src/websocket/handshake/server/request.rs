//! The client's request, judged as RFC 6455 section 4.2.1 asks of a server.

use ring::digest::{SHA256, digest};

use super::refusal::Refusal;
use crate::websocket::handshake::extensions::{self, Proposal};
use crate::websocket::handshake::fields::{Fields, Single, is_token};
use crate::websocket::handshake::{accept, url};

/// A request for a WebSocket.
#[derive(Clone, PartialEq, Eq)]
pub struct Request {
    /// Path and query, as the client wrote them.
    pub resource: Box<str>,
    /// The Host header.
    pub host: Box<str>,
    /// The Origin header: browsers send it.
    pub origin: Option<Box<str>>,
    /// Subprotocols offered, the client's dearest first.
    pub subprotocols: Vec<Box<str>>,
    /// The header block as it came, with its request line and the empty line at its end.
    pub head: Vec<u8>,
    /// What came behind it. A client should wait (RFC 6455 section 4.1), and some do not.
    pub rest: Vec<u8>,
    pub(super) key: Box<str>,
    pub(super) deflate: Option<Proposal>,
    /// User and password, `user:password`.
    credentials: Option<Vec<u8>>,
}

impl Request {
    /// Reads a request; head and rest are the caller's.
    pub(super) fn read(request: &httparse::Request<'_, '_>) -> Result<Self, Refusal> {
        let bad = |reason: &str| Refusal::new(400, reason);
        let fields = Fields(request.headers);
        if request.method != Some("GET") {
            return Err(Refusal::new(405, "this port speaks WebSocket"));
        }
        if request.version != Some(1) {
            return Err(Refusal::new(505, "HTTP/1.1 is needed"));
        }
        let Single::One(host) = fields.single("Host") else { return Err(bad("one Host is needed")) };
        if fields.all("Transfer-Encoding").next().is_some() || fields.all("Content-Length").any(|length| length != b"0")
        {
            return Err(bad("no body is taken"));
        }
        if !fields.list_has("Upgrade", "websocket") {
            return Err(Refusal::new(426, "this port speaks WebSocket"));
        }
        if !fields.list_has("Connection", "Upgrade") {
            return Err(bad("no Connection: Upgrade"));
        }
        if fields.single("Sec-WebSocket-Version") != Single::One(b"13") {
            return Err(Refusal::new(426, "version 13 is needed"));
        }
        let key = match fields.single("Sec-WebSocket-Key") {
            Single::One(key) => text(key).filter(|key| accept::is_key(key)),
            _ => None,
        };
        let origin = match fields.single("Origin") {
            Single::None => None,
            Single::One(origin) => Some(text(origin).ok_or_else(|| bad("bad Origin"))?),
            Single::Many => return Err(bad("more than one Origin")),
        };
        let credentials = match fields.single("Authorization") {
            Single::One(value) => accept::read_basic(value),
            _ => None,
        };
        Ok(Self {
            resource: resource(request.path.unwrap_or_default()).ok_or_else(|| bad("bad request target"))?,
            host: text(host).filter(|host| !host.is_empty()).ok_or_else(|| bad("bad Host"))?,
            origin,
            subprotocols: subprotocols(fields).ok_or_else(|| bad("bad Sec-WebSocket-Protocol"))?,
            head: Vec::new(),
            rest: Vec::new(),
            key: key.ok_or_else(|| bad("bad Sec-WebSocket-Key"))?,
            deflate: extensions::read_offer(fields).map_err(|error| bad(&error.to_string()))?,
            credentials,
        })
    }

    /// The resource without its query.
    pub fn path(&self) -> &str {
        self.resource.split('?').next().unwrap_or_default()
    }

    /// True where the client offers that subprotocol.
    pub fn offers(&self, subprotocol: &str) -> bool {
        self.subprotocols.iter().any(|offered| **offered == *subprotocol)
    }

    /// The first of `ours` that the client offers.
    pub fn choose<'o>(&self, ours: &'o [Box<str>]) -> Option<&'o str> {
        ours.iter().map(|ours| &**ours).find(|ours| self.offers(ours))
    }

    /// True where a page of that origin may come in: one of `patterns` fits, in any case, with `*` for any characters but
    /// `/`; `*` alone is everybody. So may who has no origin, since that is no browser (RFC 6455 section 10.2).
    pub fn origin_fits(&self, patterns: &[Box<str>]) -> bool {
        let Some(origin) = &self.origin else { return true };
        patterns.iter().any(|pattern| &**pattern == "*" || fits(pattern.as_bytes(), origin.as_bytes()))
    }

    /// True where the client has given this user and password. How long it takes says nothing of how much was right.
    pub fn is_from(&self, user: &str, password: &str) -> bool {
        let given = self.credentials.as_deref().unwrap_or_default();
        let wanted = [user, ":", password].concat();
        self.credentials.is_some() && digest(&SHA256, given).as_ref() == digest(&SHA256, wanted.as_bytes()).as_ref()
    }
}

impl std::fmt::Debug for Request {
    /// Without head and credentials, which are secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Request")
            .field("path", &self.path())
            .field("host", &self.host)
            .field("origin", &self.origin)
            .field("subprotocols", &self.subprotocols)
            .field("deflate", &self.deflate)
            .finish_non_exhaustive()
    }
}

fn text(value: &[u8]) -> Option<Box<str>> {
    std::str::from_utf8(value).ok().map(Into::into)
}

/// Path and query of a request's target, which may be a whole URL (RFC 6455 section 4.2.1).
fn resource(target: &str) -> Option<Box<str>> {
    if target.starts_with('/') {
        return url::is_visible(target).then(|| target.into()).filter(|_| !target.contains('#'));
    }
    url::read_any(target.as_bytes()).map(|url| url.resource)
}

/// Tokens, each once (RFC 6455 section 4.1).
fn subprotocols(fields: Fields<'_>) -> Option<Vec<Box<str>>> {
    let mut subprotocols: Vec<Box<str>> = Vec::new();
    for name in fields.list("Sec-WebSocket-Protocol") {
        let new = text(name).filter(|text| is_token(name) && !subprotocols.contains(text))?;
        subprotocols.push(new);
    }
    Some(subprotocols)
}

/// True where `text` is `pattern`, in any case, with any characters but `/` for each `*`.
fn fits(pattern: &[u8], text: &[u8]) -> bool {
    let (mut at, mut from) = (0, 0);
    // Where to go on when what follows the last star does not fit: with one character more for the star.
    let mut again: Option<(usize, usize)> = None;
    while from < text.len() {
        match pattern.get(at) {
            Some(b'*') => {
                at += 1;
                again = Some((at, from));
            }
            Some(byte) if byte.eq_ignore_ascii_case(&text[from]) => {
                at += 1;
                from += 1;
            }
            _ => {
                let Some((star, start)) = again.filter(|&(_, start)| text[start] != b'/') else { return false };
                again = Some((star, start + 1));
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
    fn patterns_of_origins() {
        let fits = |pattern: &str, text: &str| fits(pattern.as_bytes(), text.as_bytes());
        for (pattern, origin) in [
            ("https://a.example", "HTTPS://A.Example"),
            ("https://*.example", "https://a.b.example"),
            ("http://localhost:*", "http://localhost:8080"),
            ("*://a", "https://a"),
            ("*.lan*", "x.lan.lan"),
            ("null", "null"),
            ("**", "x"),
        ] {
            assert!(fits(pattern, origin), "{pattern} {origin}");
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
            assert!(!fits(pattern, origin), "{pattern} {origin}");
        }
        // No pattern takes for ever.
        assert!(!fits(&"*a".repeat(500), &"a".repeat(499)));
    }
}
