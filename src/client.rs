//! Clients as they are counted: a client's share of what all clients use is bounded by its address. Sans-IO, and depends
//! on nothing.
//!
//! `docs/architecture.md`, section "Shares", has the table of what is shared, and how it is bounded.

use std::collections::HashMap;
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

/// A value for each of some clients, whose number the caller bounds: a short list takes less code than a hash table.
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

/// How much of something clients use, each and together: how many connections, or how many bytes.
#[derive(Debug, Default)]
pub(crate) struct ClientUsage {
    loopback: usize,
    /// What each other client uses. None is 0.
    others: HashMap<ClientKey, usize>,
    others_total: usize,
}

/// How much of something clients may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ClientLimits {
    /// All clients together. Loopback alone may use as much.
    pub all: usize,
    /// All clients other than loopback together.
    pub others: usize,
    /// Each client other than loopback.
    pub each: usize,
}

/// Which of the [`ClientLimits`] is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReachedLimit {
    /// That of all clients, or of all other than loopback.
    Common,
    /// That of the client itself.
    Own,
}

impl ClientUsage {
    /// What `client` uses.
    pub(crate) fn of(&self, client: ClientKey) -> usize {
        match client {
            ClientKey::Loopback => self.loopback,
            ClientKey::V4(_) | ClientKey::V6(_) => self.others.get(&client).copied().unwrap_or(0),
        }
    }

    /// What all clients use together.
    pub(crate) fn total(&self) -> usize {
        self.loopback + self.others_total
    }

    /// What all clients other than loopback use together.
    pub(crate) fn others_total(&self) -> usize {
        self.others_total
    }

    /// Checks that `client` may use 1 more.
    pub(crate) fn check(&self, client: ClientKey, limits: ClientLimits) -> Result<(), ReachedLimit> {
        if self.total() >= limits.all || !client.is_loopback() && self.others_total >= limits.others {
            Err(ReachedLimit::Common)
        } else if !client.is_loopback() && self.of(client) >= limits.each {
            Err(ReachedLimit::Own)
        } else {
            Ok(())
        }
    }

    /// `client` uses `amount` more.
    pub(crate) fn add(&mut self, client: ClientKey, amount: usize) {
        match client {
            ClientKey::Loopback => self.loopback += amount,
            ClientKey::V4(_) | ClientKey::V6(_) if amount > 0 => {
                *self.others.entry(client).or_default() += amount;
                self.others_total += amount;
            }
            ClientKey::V4(_) | ClientKey::V6(_) => {}
        }
    }

    /// `client` uses `amount` less, or nothing if it does not use as much.
    pub(crate) fn subtract(&mut self, client: ClientKey, amount: usize) {
        if client.is_loopback() {
            self.loopback = self.loopback.saturating_sub(amount);
        } else if let Some(used) = self.others.get_mut(&client) {
            self.others_total -= amount.min(*used);
            *used = used.saturating_sub(amount);
            if *used == 0 {
                self.others.remove(&client);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usage_is_by_client() {
        let mut usage = ClientUsage::default();
        usage.add(ClientKey::Loopback, 1);
        usage.add(ClientKey::Loopback, 1);
        usage.add(ClientKey::V6(1), 1);
        assert_eq!((usage.of(ClientKey::Loopback), usage.of(ClientKey::V6(1))), (2, 1));
        assert_eq!((usage.of(ClientKey::V6(2)), usage.total()), (0, 3));
        usage.subtract(ClientKey::V6(1), 1);
        usage.subtract(ClientKey::V6(1), 1);
        usage.subtract(ClientKey::Loopback, 1);
        assert_eq!((usage.of(ClientKey::Loopback), usage.others.len(), usage.total()), (1, 0, 1));
    }

    #[test]
    fn limits_are_for_one_client_and_for_all() {
        let limits = ClientLimits { all: 5, others: 3, each: 2 };
        let mut usage = ClientUsage::default();
        let mut add = |client| usage.check(client, limits).map(|()| usage.add(client, 1));
        let (one, other) = (ClientKey::V6(1), ClientKey::V6(2));
        assert_eq!((add(one), add(one), add(one)), (Ok(()), Ok(()), Err(ReachedLimit::Own)));
        assert_eq!((add(other), add(other)), (Ok(()), Err(ReachedLimit::Common)), "the rest is for loopback");
        assert_eq!((add(ClientKey::Loopback), add(ClientKey::Loopback)), (Ok(()), Ok(())));
        assert_eq!(add(ClientKey::Loopback), Err(ReachedLimit::Common));
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
