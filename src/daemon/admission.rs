//! Which connections are admitted: by address, and while there is room. Refusals are logged, with a bound.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::client::ClientKey;
use crate::config::Config;
use crate::protocol::reply;

/// Refusals that are logged in each period.
const MAX_LOGGED: u32 = 10;
/// The period.
const LOG_PERIOD: Duration = Duration::from_secs(60);

/// Counts the connections that are admitted.
#[derive(Debug)]
pub(super) struct Admission {
    per_client: HashMap<ClientKey, usize>,
    /// Connections that may be admitted in all.
    limit: usize,
    /// Refusals since the start.
    refused: u64,
    period: Option<Instant>,
    in_period: u32,
}

impl Admission {
    /// Admits up to `limit` connections.
    pub(super) fn new(limit: usize) -> Self {
        Self { per_client: HashMap::new(), limit, refused: 0, period: None, in_period: 0 }
    }

    /// Changes the limit. Connections that are admitted stay.
    pub(super) fn set_limit(&mut self, limit: usize) {
        self.limit = limit;
    }

    /// Admits a connection from `address`, whose end [`Admission::release`] must be told, or returns the line that refuses
    /// it. `admitted`: connections that are admitted already.
    pub(super) fn admit(
        &mut self,
        address: IpAddr,
        admitted: usize,
        config: &Config,
        now: Instant,
    ) -> Result<(), Vec<u8>> {
        let limits = &config.limits;
        let client = ClientKey::of(address);
        let own = self.per_client.get(&client).copied().unwrap_or(0);
        let (reply, why) = if !config.allow.allows(address) {
            (reply::access_refused(), "its address is not allowed")
        } else if admitted >= self.limit {
            (reply::too_many(""), "there are too many connections")
        } else if own >= limits.per_address && !client.is_loopback() {
            (reply::too_many(" from your address"), "it has too many connections")
        } else {
            *self.per_client.entry(client).or_default() += 1;
            return Ok(());
        };
        self.refused += 1;
        self.log(address, why, now);
        Err(reply)
    }

    /// A connection from `address` has ended.
    pub(super) fn release(&mut self, address: IpAddr) {
        let client = ClientKey::of(address);
        if let Some(count) = self.per_client.get_mut(&client) {
            *count -= 1;
            if *count == 0 {
                self.per_client.remove(&client);
            }
        }
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

    #[test]
    fn admits_by_address_and_while_there_is_room() {
        let mut config = Config::default();
        config.limits.per_address = 2;
        let mut admission = Admission::new(5);
        let now = Instant::now();
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let (home, here, stranger) = (ip("192.168.0.9"), ip("127.0.0.1"), ip("8.8.8.8"));
        assert_eq!(admission.admit(stranger, 0, &config, now), Err(b"ERR ACCESS Not allowed\n".to_vec()));
        assert_eq!(admission.admit(home, 0, &config, now), Ok(()));
        assert_eq!(admission.admit(home, 1, &config, now), Ok(()));
        assert_eq!(
            admission.admit(home, 2, &config, now),
            Err(b"ERR ACCESS Too many connections from your address\n".to_vec())
        );
        for admitted in 2..5 {
            assert_eq!(admission.admit(here, admitted, &config, now), Ok(()), "loopback is exempt");
        }
        assert_eq!(admission.admit(here, 5, &config, now), Err(b"ERR ACCESS Too many connections\n".to_vec()));
        admission.release(home);
        assert_eq!(admission.admit(home, 4, &config, now), Ok(()));
        admission.release(home);
        admission.release(home);
        assert!(!admission.per_client.contains_key(&ClientKey::of(home)));
        assert_eq!(admission.refused(), 3);
    }

    #[test]
    fn the_addresses_of_an_ipv6_network_share_one_limit() {
        let mut config = Config::default();
        config.limits.per_address = 2;
        let mut admission = Admission::new(10);
        let mut admit = |text: &str| admission.admit(text.parse().unwrap(), 0, &config, Instant::now()).is_ok();
        assert!(admit("fd00:0:0:1::1") && admit("fd00:0:0:1::2"));
        assert!(!admit("fd00:0:0:1:ffff::3"), "another address of the same /64");
        assert!(admit("fd00:0:0:2::1"));
    }
}
