//! What has become of a connection with HEAL, and when the next attempt to connect begins.

use std::time::{Duration, Instant};

use crate::relay::RelayTotals;
use crate::websocket::Entropy;

/// The first delay before an attempt to connect again, which is doubled after each failure.
const MIN_DELAY: Duration = Duration::from_secs(1);
/// A connection that has lasted this long sets the delay back.
const LASTING: Duration = Duration::from_secs(10);
/// A delay is chosen within a fifth of its length, so that many plugins do not connect at the same moment.
const JITTER: f64 = 0.2;

/// What has become of a connection with HEAL, over all its remotes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Outages {
    /// When the first remote was connected.
    pub first_connected_at: Instant,
    /// How often the remote was lost.
    pub losses: u32,
    /// The delay before the last attempt. Zero: none was needed, or the last connection has lasted.
    delay: Duration,
    /// What has passed from and to remotes that were lost.
    pub totals: RelayTotals,
}

impl Outages {
    /// None so far of a connection that was made at `first_connected_at`.
    pub(crate) fn none(first_connected_at: Instant) -> Self {
        Self { first_connected_at, losses: 0, delay: Duration::ZERO, totals: RelayTotals::default() }
    }

    /// A remote is lost that was connected for `lasted`. `totals`: what has passed in all by now.
    pub(crate) fn handle_lost(&mut self, lasted: Duration, totals: RelayTotals) {
        self.losses = self.losses.saturating_add(1);
        self.totals = totals;
        if lasted >= LASTING {
            self.delay = Duration::ZERO;
        }
    }

    /// The delay before the next attempt, at most `max`.
    pub(crate) fn next_delay(&mut self, max: Duration, entropy: &mut dyn Entropy) -> Duration {
        self.delay = (self.delay * 2).clamp(MIN_DELAY, max.max(MIN_DELAY));
        let [byte, ..] = entropy.mask();
        let factor = 1.0 - JITTER + 2.0 * JITTER * f64::from(byte) / 255.0;
        self.delay.mul_f64(factor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::TestEntropy;

    #[test]
    fn delays_grow_up_to_the_limit_and_a_lasting_connection_sets_them_back() {
        let (mut outages, mut entropy) = (Outages::none(Instant::now()), TestEntropy::default());
        let max = Duration::from_secs(5);
        for expected in [1.0, 2.0, 4.0, 5.0, 5.0] {
            let delay = outages.next_delay(max, &mut entropy).as_secs_f64();
            assert!((0.8 * expected..=1.2 * expected).contains(&delay), "{delay}, not about {expected}");
        }
        outages.handle_lost(LASTING - Duration::from_millis(1), RelayTotals::default());
        assert!(outages.next_delay(max, &mut entropy) >= Duration::from_secs(4));
        outages.handle_lost(LASTING, RelayTotals::default());
        assert!(outages.next_delay(max, &mut entropy) <= Duration::from_millis(1200));
        assert_eq!(outages.losses, 2);
        // A limit below the first delay does not make it shorter: a remote is not asked several times a second.
        let mut outages = Outages::none(Instant::now());
        assert!(outages.next_delay(Duration::from_millis(10), &mut entropy) >= Duration::from_millis(800));
    }
}
