//! Where a CONN goes: `host:port` or `[v6]:port`.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

/// A host and a port, as a plugin wrote them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// A name or a literal address, without brackets.
    pub host: Box<str>,
    /// The port as written: 0 and numbers above 65535 are legal to say and impossible to reach.
    pub port: u32,
}

impl Target {
    /// Splits a target off the front of what follows `CONN`: `(target, rest)`.
    ///
    /// As the Lua daemon's pattern has it, the host is what stands before the first colon and the digits behind it
    /// are the port; in addition an IPv6 address may stand in brackets. `None`: "Invalid host:port".
    pub fn split_off(text: &[u8]) -> Option<(Self, &[u8])> {
        let (host, rest) = match text.strip_prefix(b"[") {
            Some(inner) => {
                let end = inner.iter().position(|&b| b == b']')?;
                let host = std::str::from_utf8(&inner[..end]).ok()?;
                // A zone (fe80::1%eth0) is left for the resolver to judge.
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

    /// The port, where it is one that can be connected to (1 to 65535).
    pub fn reachable_port(&self) -> Option<u16> {
        u16::try_from(self.port).ok().filter(|&port| port != 0)
    }

    /// The address, where the host is a literal one.
    pub fn literal(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }
}

impl fmt::Display for Target {
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
        Target::split_off(text.as_bytes())
            .map(|(target, rest)| (target.to_string(), String::from_utf8(rest.to_vec()).unwrap()))
    }

    #[test]
    fn takes_what_the_lua_daemon_takes() {
        assert_eq!(split("host:80"), Some(("host:80".into(), "".into())));
        assert_eq!(split("1.2.3.4:0 RTIM=5"), Some(("1.2.3.4:0".into(), " RTIM=5".into())));
        assert_eq!(split("host:99999"), Some(("host:99999".into(), "".into())));
        assert_eq!(split("host:80x"), Some(("host:80".into(), "x".into())));
        for bad in ["", "host", "host:", ":80", "host:x", "ws://host:80", "::1:80", "http://1:2"] {
            assert_eq!(split(bad), None, "{bad}");
        }
    }

    #[test]
    fn takes_v6_in_brackets() {
        assert_eq!(split("[::1]:80 x"), Some(("[::1]:80".into(), " x".into())));
        assert_eq!(Target::split_off(b"[::1]:80").unwrap().0.literal(), Some("::1".parse().unwrap()));
        for bad in ["[::1]", "[::1]80", "[host]:80", "[::1", "[]:80", "[1.2.3.4]:80"] {
            assert_eq!(split(bad), None, "{bad}");
        }
    }

    #[test]
    fn knows_reachable_ports() {
        for (port, reachable) in
            [("0", None), ("1", Some(1)), ("65535", Some(65535)), ("65536", None), ("99999999999", None)]
        {
            let (target, _) = Target::split_off(format!("h:{port}").as_bytes()).unwrap();
            assert_eq!(target.reachable_port(), reachable, "{port}");
        }
    }
}
