//! The proxy's names for connections.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// 2020-01-01T05:00Z, where the classic numbering begins.
const CLASSIC_EPOCH: Duration = Duration::from_secs(1_577_854_800);
/// The classic unit.
const UNIT: u64 = 10;

/// A connection's name: at most eight hexadecimal digits in lower case, with an `L` in front for direct listeners.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pid {
    number: u32,
    direct: bool,
}

impl Pid {
    /// The name that is shown as `text`.
    pub(crate) fn parse(text: &[u8]) -> Option<Self> {
        let digits = text.strip_prefix(b"L");
        let number = u32::from_str_radix(str::from_utf8(digits.unwrap_or(text)).ok()?, 16).ok()?;
        let pid = Self { number, direct: digits.is_some() };
        // A number can be written in more than one way.
        (pid.to_string().as_bytes() == text).then_some(pid)
    }

    /// True for a client of a direct listener.
    pub(crate) fn is_direct(self) -> bool {
        self.direct
    }
}

impl fmt::Display for Pid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{:x}", if self.direct { "L" } else { "" }, self.number)
    }
}

/// Gives out names: units of ten seconds since the classic epoch, plus one if that is taken.
#[derive(Debug, Default)]
pub(crate) struct PidSource {
    last: u32,
}

impl PidSource {
    /// The next name. `direct` marks a direct listener's client.
    pub(crate) fn next(&mut self, clock: SystemTime, direct: bool) -> Pid {
        let units = clock.duration_since(UNIX_EPOCH + CLASSIC_EPOCH).map_or(0, |since| since.as_secs() / UNIT);
        let units = u32::try_from(units).unwrap_or(u32::MAX);
        // A clock that stands before the epoch, or is set back, makes no name twice.
        let next = units.max(self.last.wrapping_add(1)).max(1);
        self.last = next;
        Pid { number: next, direct }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds_since_epoch: u64) -> SystemTime {
        UNIX_EPOCH + CLASSIC_EPOCH + Duration::from_secs(seconds_since_epoch)
    }

    #[test]
    fn names_are_classic_and_unique() {
        let mut source = PidSource::default();
        let mut next = |clock| source.next(clock, false).to_string();
        assert_eq!(next(UNIX_EPOCH), "1", "a box without a clock");
        assert_eq!(next(UNIX_EPOCH), "2");
        assert_eq!(next(at(0x171_6058 * 10)), "1716058");
        assert_eq!(next(at(0x171_6058 * 10)), "1716059");
        assert_eq!(next(at(5)), "171605a", "the clock went back");
        assert_eq!(next(at(u64::from(u32::MAX) * 10)), "ffffffff");
        assert_eq!(source.next(at(0), true).to_string(), "L1", "after the last comes the first");
    }

    #[test]
    fn names_are_found_as_they_are_shown_alone() {
        let mut source = PidSource::default();
        for direct in [false, true] {
            let pid = source.next(UNIX_EPOCH, direct);
            assert_eq!(Pid::parse(pid.to_string().as_bytes()), Some(pid));
        }
        assert!(Pid::parse(b"ffffffff").is_some());
        for text in ["", "L", "+1", "01", "FF", "l1", "LL1", "1 ", "100000000", "\u{e4}"] {
            assert_eq!(Pid::parse(text.as_bytes()), None, "{text}");
        }
    }
}
