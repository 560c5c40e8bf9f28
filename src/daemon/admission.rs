//! Which connections are admitted: by address, and while there is room. Refusals are logged, with a bound.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::access::AccessList;
use crate::client::{ClientKey, ClientLimits, ClientUsage, ReachedLimit};
use crate::config::Config;
use crate::protocol::reply;
use crate::websocket::handshake;

/// Refusals that are logged in each period.
const MAX_LOGGED: u32 = 10;
/// The period.
const LOG_PERIOD: Duration = Duration::from_secs(60);
/// Places that only loopback gets, unless these are more than half of all: as many plugins as a box usually has.
const MIN_LOOPBACK_PLACES: usize = 16;

/// Counts the connections that are admitted.
#[derive(Debug)]
pub(super) struct Admission {
    usage: ClientUsage,
    /// Connections that may be admitted in all.
    limit: usize,
    /// Refusals since the start.
    refused: u64,
    period: Option<Instant>,
    in_period: u32,
}

/// Why a connection is not admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// Its address is not in the list.
    NotAllowed,
    /// There are too many connections, or too many of clients other than loopback.
    Full,
    /// The client has too many connections.
    TooManyOfClient,
}

impl From<ReachedLimit> for Refusal {
    fn from(limit: ReachedLimit) -> Self {
        match limit {
            ReachedLimit::Common => Self::Full,
            ReachedLimit::Own => Self::TooManyOfClient,
        }
    }
}

impl Refusal {
    /// What a client of HTTP is told.
    pub(super) fn response(self) -> Vec<u8> {
        let (code, reason) = match self {
            Self::NotAllowed => (403, "Your address is not allowed."),
            Self::Full => (503, "There are too many connections."),
            Self::TooManyOfClient => (503, "There are too many connections from your address."),
        };
        handshake::server::Refusal::new(code, reason).response()
    }
}

/// How many of `limit` places only loopback gets: an eighth, and at least [`MIN_LOOPBACK_PLACES`] of more than twice as
/// many.
fn loopback_places(limit: usize) -> usize {
    (limit / 8).max(MIN_LOOPBACK_PLACES).min(limit / 2)
}

impl Admission {
    /// Admits up to `limit` connections.
    pub(super) fn new(limit: usize) -> Self {
        Self { usage: ClientUsage::default(), limit, refused: 0, period: None, in_period: 0 }
    }

    /// Changes the limit. Connections that are admitted stay.
    pub(super) fn set_limit(&mut self, limit: usize) {
        self.limit = limit;
    }

    /// Admits a connection from `address`, which `allow` must have, and whose end [`Admission::release`] must be told, or returns why not.
    pub(super) fn admit(&mut self, address: IpAddr, allow: &AccessList, config: &Config) -> Result<(), Refusal> {
        if !allow.allows(address) {
            return Err(Refusal::NotAllowed);
        }
        let client = ClientKey::of(address);
        let limits = ClientLimits {
            all: self.limit,
            others: self.limit - loopback_places(self.limit),
            each: config.limits.per_address,
        };
        self.usage.check(client, limits)?;
        self.usage.add(client, 1);
        Ok(())
    }

    /// Counts and logs that a connection from `address` is refused, and returns the line that says so.
    pub(super) fn refuse(&mut self, address: IpAddr, refusal: Refusal, now: Instant) -> Vec<u8> {
        let (reply, why) = match refusal {
            Refusal::NotAllowed => (reply::access_refused(), "its address is not allowed"),
            Refusal::Full => (reply::too_many(""), "there are too many connections"),
            Refusal::TooManyOfClient => (reply::too_many(" from your address"), "it has too many connections"),
        };
        self.refused += 1;
        self.log(address, why, now);
        reply
    }

    /// A connection from `address` has ended.
    pub(super) fn release(&mut self, address: IpAddr) {
        self.usage.subtract(ClientKey::of(address), 1);
    }

    /// Refusals since the start.
    pub(super) fn refused(&self) -> u64 {
        self.refused
    }

    fn log(&mut self, address: IpAddr, why: &str, now: Instant) {
        if self.period.is_none_or(|start| now - start >= LOG_PERIOD) {
            let unlogged = self.in_period.saturating_sub(MAX_LOGGED);
            if unlogged > 0 {
                log::warn!("{unlogged} more refused");
            }
            (self.period, self.in_period) = (Some(now), 0);
        }
        self.in_period += 1;
        if self.in_period <= MAX_LOGGED {
            log::warn!("{address} refused: {why}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn admits_by_address_and_while_there_is_room() {
        let mut config = Config::default();
        config.limits.per_address = 2;
        let mut admission = Admission::new(5);
        let (home, here, stranger) = (ip("192.168.0.9"), ip("127.0.0.1"), ip("8.8.8.8"));
        assert_eq!(admission.admit(stranger, &config.allow, &config), Err(Refusal::NotAllowed));
        assert_eq!(admission.admit(home, &config.allow, &config), Ok(()));
        assert_eq!(admission.admit(home, &config.allow, &config), Ok(()));
        assert_eq!(admission.admit(home, &config.allow, &config), Err(Refusal::TooManyOfClient));
        for _ in 2..5 {
            assert_eq!(admission.admit(here, &config.allow, &config), Ok(()), "loopback is exempt");
        }
        assert_eq!(admission.admit(here, &config.allow, &config), Err(Refusal::Full));
        admission.release(home);
        assert_eq!(admission.admit(home, &config.allow, &config), Ok(()));
        admission.release(home);
        admission.release(home);
        assert_eq!(admission.usage.of(ClientKey::of(home)), 0);
    }

    #[test]
    fn a_refusal_is_counted_and_answered() {
        let mut admission = Admission::new(5);
        for (refusal, line) in [
            (Refusal::NotAllowed, "ERR ACCESS Not allowed\n"),
            (Refusal::Full, "ERR ACCESS Too many connections\n"),
            (Refusal::TooManyOfClient, "ERR ACCESS Too many connections from your address\n"),
        ] {
            assert_eq!(admission.refuse(ip("10.0.0.1"), refusal, Instant::now()), line.as_bytes());
        }
        assert_eq!(admission.refused(), 3);
    }

    #[test]
    fn loopback_has_places_of_its_own() {
        let config = Config::default();
        for (limit, others) in [(1, 1), (3, 2), (20, 10), (32, 16), (64, 48), (1024, 896)] {
            let mut admission = Admission::new(limit);
            // Ten addresses, so that the limit for each does not count.
            let admitted = (0..10 * limit).filter(|number| {
                let address = IpAddr::from([10, 0, 0, (number % 10) as u8]);
                admission.admit(address, &config.allow, &config).is_ok()
            });
            assert_eq!(admitted.count(), others, "of {limit}");
            let here = (0..2 * limit).filter(|_| admission.admit(ip("127.0.0.1"), &config.allow, &config).is_ok());
            assert_eq!(here.count(), limit - others, "of {limit}");
        }
        let mut admission = Admission::new(64);
        let here = (0..100).filter(|_| admission.admit(ip("127.0.0.1"), &config.allow, &config).is_ok());
        assert_eq!(here.count(), 64, "loopback may take all");
    }

    #[test]
    fn the_addresses_of_an_ipv6_network_share_one_limit() {
        let mut config = Config::default();
        config.limits.per_address = 2;
        let mut admission = Admission::new(10);
        let mut admit = |text: &str| admission.admit(ip(text), &config.allow, &config).is_ok();
        assert!(admit("fd00:0:0:1::1") && admit("fd00:0:0:1::2"));
        assert!(!admit("fd00:0:0:1:ffff::3"), "another address of the same /64");
        assert!(admit("fd00:0:0:2::1"));
    }
}
