//! Times as log lines and traces show them.

use std::fmt;
use std::time::Duration;

/// A time that displays in seconds, rounded, with this many digits after the point, 1 to 6.
///
/// The standard library's formatting of doubles would do, but is 1 % of the binary for firmware.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seconds(pub Duration, pub u32);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let &Self(time, digits) = self;
        let micros = time.as_secs().saturating_mul(1_000_000).saturating_add(time.subsec_micros().into());
        let unit = 10u64.pow(6 - digits);
        let (units, second) = (micros.saturating_add(unit / 2) / unit, 10u64.pow(digits));
        write!(f, "{}.{:0width$}", units / second, units % second, width = digits as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_rounded_to_their_digits() {
        let shown = |micros, digits| Seconds(Duration::from_micros(micros), digits).to_string();
        assert_eq!(shown(0, 1), "0.0");
        assert_eq!(shown(49_999, 1), "0.0");
        assert_eq!(shown(50_000, 1), "0.1");
        assert_eq!(shown(999_950, 3), "1.000");
        assert_eq!(shown(4_100, 3), "0.004");
        assert_eq!(shown(1_500_001, 6), "1.500001");
        assert_eq!(shown(7, 6), "0.000007");
        assert_eq!(Seconds(Duration::MAX, 6).to_string(), "18446744073709.551615");
    }
}
