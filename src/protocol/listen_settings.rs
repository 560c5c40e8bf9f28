//! What a plugin listens for: LSTN. The daemon and the session of an arrival read these settings.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use super::datagram_settings::LocalAddress;
use super::options::Protocol;
use super::tls_settings::ServerTlsSettings;
use crate::websocket::handshake::ServerRules;

/// The settings of one listener. The defaults are those of the options (`options::listen`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ListenSettings {
    /// Where to listen. An unspecified IPv6 address stands for all addresses, those of IPv4 included.
    pub address: SocketAddr,
    /// PRTO: what arrivals speak. Never UDP.
    pub protocol: Protocol,
    /// PATH, ORIG, SUBP and AUTH: which requests of WebSocket are taken.
    pub rules: ServerRules,
    /// RHDR: the owner is shown the header block of each request.
    pub shows_head: bool,
    /// CERT and PKEY. Set if arrivals speak TLS, and then with a certificate.
    pub tls: Option<ServerTlsSettings>,
    /// WAIT: how long an arrival waits to be claimed.
    pub wait: Duration,
}

impl ListenSettings {
    /// Bytes of memory, those of its texts included.
    pub(crate) fn held(&self) -> usize {
        size_of::<Self>() + self.rules.held() + self.tls.as_ref().map_or(0, ServerTlsSettings::held)
    }
}

/// As shown in logs and STAT: the address, or a URL where there is one.
impl fmt::Display for ListenSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.protocol.is_websocket() {
            let path = self.rules.path.as_deref().unwrap_or_default();
            write!(f, "{}://{}{path}", self.protocol.name(), self.address)
        } else {
            self.address.fmt(f)
        }
    }
}

/// The address that LSTN names: `port`, `address:port`, `[address]:port` or `*:port`. Without an address it is loopback.
/// The error is the reason of `ERR LSTN`.
pub(crate) fn parse_address(text: &[u8]) -> Result<SocketAddr, &'static str> {
    let text = std::str::from_utf8(text).unwrap_or_default();
    let (text, default) = match text.strip_prefix("*:") {
        Some(port) => (port, IpAddr::V6(Ipv6Addr::UNSPECIFIED)),
        None => (text, IpAddr::V4(Ipv4Addr::LOCALHOST)),
    };
    let LocalAddress { address, port } = LocalAddress::parse(text).map_err(|_| "Invalid port")?;
    if port == 0 {
        return Err("Invalid port");
    }
    Ok(SocketAddr::new(address.unwrap_or(default), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        for (text, address) in [
            ("8080", "127.0.0.1:8080"),
            ("192.0.2.7:80", "192.0.2.7:80"),
            ("0.0.0.0:80", "0.0.0.0:80"),
            ("[::1]:80", "[::1]:80"),
            ("[::ffff:192.0.2.7]:80", "192.0.2.7:80"),
            ("*:80", "[::]:80"),
        ] {
            assert_eq!(parse_address(text.as_bytes()), Ok(address.parse().unwrap()), "{text}");
        }
        for bad in
            ["", "0", "x", "-1", "+1", "65536", "127.0.0.1:0", "*:0", "*", "name:80", "::1:80", "[::1]", "\u{fc}:1"]
        {
            assert_eq!(parse_address(bad.as_bytes()), Err("Invalid port"), "{bad}");
        }
        assert_eq!(parse_address(b"\xff"), Err("Invalid port"));
    }
}
