//! Who is let in: by address, and while there is room. Refusals are logged, but not without end.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::config::Config;
use crate::protocol::reply;

/// So many refusals are logged in each period.
const LOGGED: u32 = 10;
/// The period.
const PERIOD: Duration = Duration::from_secs(60);

/// Counts who is in.
#[derive(Debug)]
pub struct Admission {
    per_address: HashMap<IpAddr, usize>,
    /// Connections there may be in all.
    most: usize,
    /// Refusals since the start.
    refused: u64,
    period: Option<Instant>,
    in_period: u32,
}

impl Admission {
    /// Nobody is in; there is room for `most`.
    pub fn new(most: usize) -> Self {
        Self { per_address: HashMap::new(), most, refused: 0, period: None, in_period: 0 }
    }

    /// Changes the room there is. Who is in stays.
    pub fn set_most(&mut self, most: usize) {
        self.most = most;
    }

    /// Lets `address` in, of which [`Admission::leave`] must tell the end; or answers the line that refuses it.
    pub fn enter(&mut self, address: IpAddr, in_all: usize, config: &Config, now: Instant) -> Result<(), Vec<u8>> {
        let limits = &config.limits;
        let own = self.per_address.get(&address).copied().unwrap_or(0);
        let (reply, why) = if !config.allow.allows(address) {
            (reply::access_refused(), "its address is not allowed")
        } else if in_all >= self.most {
            (reply::too_many(""), "there are too many connections")
        } else if own >= limits.per_address && !address.is_loopback() {
            (reply::too_many(" from your address"), "it has too many connections")
        } else {
            *self.per_address.entry(address).or_default() += 1;
            return Ok(());
        };
        self.refused += 1;
        self.log(address, why, now);
        Err(reply)
    }

    /// `address` has one connection less.
    pub fn leave(&mut self, address: IpAddr) {
        if let Some(count) = self.per_address.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                self.per_address.remove(&address);
            }
        }
    }

    /// Refusals since the start.
    pub fn refused(&self) -> u64 {
        self.refused
    }

    fn log(&mut self, address: IpAddr, why: &str, now: Instant) {
        if self.period.is_none_or(|start| now - start >= PERIOD) {
            let unlogged = self.in_period.saturating_sub(LOGGED);
            if unlogged > 0 {
                log::warn!("{unlogged} more refused");
            }
            (self.period, self.in_period) = (Some(now), 0);
        }
        self.in_period += 1;
        if self.in_period <= LOGGED {
            log::warn!("{address} refused: {why}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lets_in_whom_it_may() {
        let mut config = Config::default();
        config.limits.per_address = 2;
        let mut admission = Admission::new(5);
        let now = Instant::now();
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let (home, here, stranger) = (ip("192.168.0.9"), ip("127.0.0.1"), ip("8.8.8.8"));
        assert_eq!(admission.enter(stranger, 0, &config, now), Err(b"ERR ACCESS Not allowed\n".to_vec()));
        assert_eq!(admission.enter(home, 0, &config, now), Ok(()));
        assert_eq!(admission.enter(home, 1, &config, now), Ok(()));
        assert_eq!(
            admission.enter(home, 2, &config, now),
            Err(b"ERR ACCESS Too many connections from your address\n".to_vec())
        );
        for in_all in 2..5 {
            assert_eq!(admission.enter(here, in_all, &config, now), Ok(()), "loopback is exempt");
        }
        assert_eq!(admission.enter(here, 5, &config, now), Err(b"ERR ACCESS Too many connections\n".to_vec()));
        admission.leave(home);
        assert_eq!(admission.enter(home, 4, &config, now), Ok(()));
        admission.leave(home);
        admission.leave(home);
        assert!(!admission.per_address.contains_key(&home));
        assert_eq!(admission.refused(), 3);
    }
}
