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

/// A value for each of some clients, which are few: a list takes less code than a hash table.
#[derive(Debug)]
pub(crate) struct PerClient<T>(Vec<(ClientKey, T)>);

impl<T> Default for PerClient<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T: Default> PerClient<T> {
    /// The value of `client`, if it has one.
    pub(crate) fn get(&self, client: ClientKey) -> Option<&T> {
        self.0.iter().find(|(other, _)| *other == client).map(|(_, value)| value)
    }

    /// The value of `client`, if it has one.
    pub(crate) fn get_mut(&mut self, client: ClientKey) -> Option<&mut T> {
        self.0.iter_mut().find(|(other, _)| *other == client).map(|(_, value)| value)
    }

    /// The value of `client`, which gets the default if it has none.
    pub(crate) fn entry(&mut self, client: ClientKey) -> &mut T {
        let at = self.0.iter().position(|(other, _)| *other == client).unwrap_or_else(|| {
            self.0.push((client, T::default()));
            self.0.len() - 1
        });
        &mut self.0[at].1
    }

    /// Forgets the clients for whose value `keep` returns false.
    pub(crate) fn retain(&mut self, mut keep: impl FnMut(&mut T) -> bool) {
        self.0.retain_mut(|(_, value)| keep(value));
    }

    /// All clients with their values.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (ClientKey, &T)> {
        self.0.iter().map(|(client, value)| (*client, value))
    }

    /// How many clients have a value.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}

impl PerClient<usize> {
    /// The count of `client`.
    pub(crate) fn count(&self, client: ClientKey) -> usize {
        self.get(client).copied().unwrap_or(0)
    }

    /// The counts of all clients together.
    pub(crate) fn total(&self) -> usize {
        self.iter().map(|(_, count)| count).sum()
    }

    /// Takes one off the count of `client`, which is forgotten at 0.
    pub(crate) fn decrement(&mut self, client: ClientKey) {
        if let Some(count) = self.get_mut(client) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.retain(|count| *count > 0);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_by_client() {
        let mut counts = PerClient::<usize>::default();
        *counts.entry(ClientKey::Loopback) += 2;
        *counts.entry(ClientKey::V6(1)) += 1;
        assert_eq!((counts.count(ClientKey::Loopback), counts.count(ClientKey::V6(2)), counts.total()), (2, 0, 3));
        counts.decrement(ClientKey::V6(1));
        counts.decrement(ClientKey::V6(1));
        counts.decrement(ClientKey::Loopback);
        assert_eq!((counts.len(), counts.total()), (1, 1));
    }

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
