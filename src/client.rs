//! Clients as they are counted: a client's share of what all clients use is bounded by its address. Sans-IO, and depends
//! on nothing.
//!
//! `docs/architecture.md`, section "Shares", has the table of what is shared, and how it is bounded.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A client's address as it is counted. All addresses that one client can choose from count as one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum ClientKey {
    /// Loopback: the plugins on this machine, which share it. It has larger shares than other clients, and reserves.
    Loopback,
    /// An IPv4 address.
    V4(Ipv4Addr),
    /// The first 64 bits of an IPv6 address: a host chooses the others (RFC 4291 section 2.5.1, RFC 8981).
    V6(u64),
}

impl ClientKey {
    /// The key of `address`. An IPv4-mapped IPv6 address counts as the IPv4 address (RFC 4291 section 2.5.5.2).
    pub(crate) fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            address if address.is_loopback() => Self::Loopback,
            IpAddr::V4(address) => Self::V4(address),
            IpAddr::V6(address) => Self::V6((address.to_bits() >> 64) as u64),
        }
    }

    /// True for loopback.
    pub(crate) fn is_loopback(self) -> bool {
        self == Self::Loopback
    }
}

/// As the log shows it.
impl fmt::Display for ClientKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Loopback => f.write_str("loopback"),
            Self::V4(address) => address.fmt(f),
            Self::V6(network) => write!(f, "{}/64", Ipv6Addr::from_bits(u128::from(*network) << 64)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_one_client_can_choose_from_count_as_one() {
        let key = |text: &str| ClientKey::of(text.parse().unwrap());
        for (address, shown) in [
            ("127.0.0.1", "loopback"),
            ("127.9.9.9", "loopback"),
            ("::1", "loopback"),
            ("::ffff:127.0.0.1", "loopback"),
            ("192.168.0.9", "192.168.0.9"),
            ("::ffff:192.168.0.9", "192.168.0.9"),
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
            ("fe80::1", "fe80::/64"),
        ] {
            assert_eq!(key(address).to_string(), shown, "{address}");
            assert_eq!(key(address).is_loopback(), shown == "loopback");
        }
        assert_eq!(key("2001:db8::1"), key("2001:db8::ffff:0:0:2"));
        assert_ne!(key("2001:db8::1"), key("2001:db8:0:1::1"));
        assert_ne!(key("192.168.0.9"), key("192.168.0.10"));
    }
}
