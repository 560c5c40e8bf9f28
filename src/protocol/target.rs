//! The target of a CONN: `host:port`, `[v6]:port`, or a `ws://` or `wss://` URL.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use super::text_memory;
use crate::websocket::handshake::{HandshakeError, Url};

/// The target of a CONN.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// A host and a port.
    Endpoint(Endpoint),
    /// A WebSocket server's resource.
    WebSocket(Url),
}

/// Why a target cannot be parsed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum TargetError {
    /// Not a `host:port`.
    Endpoint,
    /// Not a valid URL.
    Url(HandshakeError),
}

impl Target {
    /// Parses the target at the beginning of `text`, which follows `CONN`. Returns the target and the rest of the text.
    pub(crate) fn parse_prefix(text: &[u8]) -> Result<(Self, &[u8]), TargetError> {
        let is_url = [&b"ws://"[..], b"wss://"]
            .iter()
            .any(|scheme| text.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme)));
        if !is_url {
            return Endpoint::parse_prefix(text)
                .map(|(endpoint, rest)| (Self::Endpoint(endpoint), rest))
                .ok_or(TargetError::Endpoint);
        }
        let end = text.iter().position(|&b| super::is_blank(b)).unwrap_or(text.len());
        let url = Url::parse(&text[..end]).map_err(|error| TargetError::Url(error.into()))?;
        Ok((Self::WebSocket(url), &text[end..]))
    }

    /// Bytes of memory of its text.
    pub(crate) fn held(&self) -> usize {
        match self {
            Self::Endpoint(endpoint) => text_memory(endpoint.host.as_bytes()),
            Self::WebSocket(url) => text_memory(url.host.as_bytes()) + text_memory(url.resource.as_bytes()),
        }
    }

    /// The host and the port to connect to.
    pub(crate) fn endpoint(&self) -> Endpoint {
        match self {
            Self::Endpoint(endpoint) => endpoint.clone(),
            Self::WebSocket(url) => Endpoint { host: url.host.clone(), port: url.port.into() },
        }
    }
}

/// As shown in logs and STAT: without the query of a URL, which may hold secrets.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Endpoint(endpoint) => endpoint.fmt(f),
            Self::WebSocket(url) => {
                let url = url.to_string();
                f.write_str(url.split('?').next().unwrap_or_default())
            }
        }
    }
}

/// A host and a port, as the plugin wrote them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    /// A name or a literal address, without brackets.
    pub host: Box<str>,
    /// The port as written. 0 and numbers above 65535 are accepted here, as in the Lua daemon, and fail on connect.
    pub port: u32,
}

impl Endpoint {
    /// The endpoint of a literal address.
    pub(crate) fn of(address: SocketAddr) -> Self {
        Self { host: address.ip().to_string().into(), port: address.port().into() }
    }

    /// Parses the endpoint at the beginning of `text`. Returns the endpoint and the rest of the text.
    ///
    /// The rule is the pattern of the Lua daemon: the host ends at the first colon, and the digits after it are the
    /// port. In addition an IPv6 address may stand in brackets. `None`: not a `host:port`.
    pub(crate) fn parse_prefix(text: &[u8]) -> Option<(Self, &[u8])> {
        let (host, rest) = match text.strip_prefix(b"[") {
            Some(inner) => {
                let end = inner.iter().position(|&b| b == b']')?;
                let host = std::str::from_utf8(&inner[..end]).ok()?;
                // The resolver checks the zone (fe80::1%eth0).
                host.split('%').next()?.parse::<Ipv6Addr>().ok()?;
                (host, inner[end + 1..].strip_prefix(b":")?)
            }
            None => {
                let end = text.iter().position(|&b| b == b':')?;
                (std::str::from_utf8(&text[..end]).ok()?, &text[end + 1..])
            }
        };
        let digits = rest.iter().position(|b| !b.is_ascii_digit()).unwrap_or(rest.len());
        if host.is_empty() || digits == 0 {
            return None;
        }
        let port = rest[..digits]
            .iter()
            .fold(0u32, |port, &digit| port.saturating_mul(10).saturating_add(u32::from(digit - b'0')));
        Some((Self { host: host.into(), port }, &rest[digits..]))
    }

    /// The port if it is one that a connection can use (1 to 65535).
    pub(crate) fn reachable_port(&self) -> Option<u16> {
        u16::try_from(self.port).ok().filter(|&port| port != 0)
    }

    /// The address if the host is a literal address.
    pub(crate) fn literal(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(text: &str) -> Option<(String, String)> {
        Endpoint::parse_prefix(text.as_bytes())
            .map(|(endpoint, rest)| (endpoint.to_string(), String::from_utf8(rest.to_vec()).unwrap()))
    }

    #[test]
    fn accepts_what_the_lua_daemon_accepts() {
        assert_eq!(split("host:80"), Some(("host:80".into(), "".into())));
        assert_eq!(split("1.2.3.4:0 RTIM=5"), Some(("1.2.3.4:0".into(), " RTIM=5".into())));
        assert_eq!(split("host:99999"), Some(("host:99999".into(), "".into())));
        assert_eq!(split("host:80x"), Some(("host:80".into(), "x".into())));
        for bad in ["", "host", "host:", ":80", "host:x", "::1:80", "http://1:2"] {
            assert_eq!(split(bad), None, "{bad}");
        }
    }

    #[test]
    fn accepts_ipv6_in_brackets() {
        assert_eq!(split("[::1]:80 x"), Some(("[::1]:80".into(), " x".into())));
        assert_eq!(Endpoint::parse_prefix(b"[::1]:80").unwrap().0.literal(), Some("::1".parse().unwrap()));
        for bad in ["[::1]", "[::1]80", "[host]:80", "[::1", "[]:80", "[1.2.3.4]:80"] {
            assert_eq!(split(bad), None, "{bad}");
        }
    }

    #[test]
    fn reachable_ports() {
        for (port, reachable) in
            [("0", None), ("1", Some(1)), ("65535", Some(65535)), ("65536", None), ("99999999999", None)]
        {
            let (endpoint, _) = Endpoint::parse_prefix(format!("h:{port}").as_bytes()).unwrap();
            assert_eq!(endpoint.reachable_port(), reachable, "{port}");
        }
    }

    #[test]
    fn accepts_urls() {
        let (target, rest) = Target::parse_prefix(b"WSS://host:8443/p/q?token=1 RTIM=5").unwrap();
        assert_eq!(target.to_string(), "wss://host:8443/p/q", "the query is not shown");
        assert_eq!(target.endpoint().to_string(), "host:8443");
        assert_eq!(rest, b" RTIM=5");
        assert_eq!(Target::parse_prefix(b"ws://[::1]/").unwrap().0.endpoint().to_string(), "[::1]:80");
        assert!(matches!(Target::parse_prefix(b"ws://"), Err(TargetError::Url(_))));
        assert_eq!(Target::parse_prefix(b"http://1:2"), Err(TargetError::Endpoint));
        assert_eq!(Target::parse_prefix(b"ws:80").unwrap().0.to_string(), "ws:80", "a host may be called ws");
    }
}
