//! How long each step of a CONN has taken, for STAT JSON and the log.

use std::fmt;
use std::num::NonZeroU32;
use std::time::Duration;

use crate::seconds::Seconds;

/// A step of a CONN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ConnectStep {
    /// Looking up the addresses of a name.
    Name,
    /// Connecting by TCP to the first address that answers.
    Connect,
    /// The TLS handshake.
    Tls,
    /// The opening handshake of WebSocket: from the request to the response.
    Upgrade,
}

impl ConnectStep {
    /// All steps, in their order.
    pub(crate) const ALL: [Self; 4] = [Self::Name, Self::Connect, Self::Tls, Self::Upgrade];

    /// The word of STAT JSON and of the log.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Name => "name",
            Self::Connect => "connect",
            Self::Tls => "tls",
            Self::Upgrade => "upgrade",
        }
    }
}

/// The time that each step has taken, those of redirects included. Displays as the end of a log line has it: nothing, or
/// `; name 0.012 s, connect 0.003 s`.
///
/// A time is held in microseconds plus one, up to 71 minutes: 16 bytes in all, since each connection has them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ConnectTimes([Option<NonZeroU32>; 4]);

impl ConnectTimes {
    /// `step` has taken `time`, in addition to what it took before a redirect.
    pub(super) fn add(&mut self, step: ConnectStep, time: Duration) {
        let sum = self.get(step).unwrap_or_default() + time;
        let micros = u32::try_from(sum.as_micros()).unwrap_or(u32::MAX);
        self.0[step as usize] = Some(NonZeroU32::MIN.saturating_add(micros));
    }

    /// How long `step` has taken. `None`: it was not needed, or is not over.
    pub(crate) fn get(&self, step: ConnectStep) -> Option<Duration> {
        self.0[step as usize].map(|micros| Duration::from_micros(u64::from(micros.get() - 1)))
    }
}

impl fmt::Display for ConnectTimes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "; ";
        for step in ConnectStep::ALL {
            if let Some(time) = self.get(step) {
                write!(f, "{separator}{} {} s", step.name(), Seconds(time, 3))?;
                separator = ", ";
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_redirects_are_added_and_what_was_not_needed_has_none() {
        let mut times = ConnectTimes::default();
        assert_eq!(times.to_string(), "");
        times.add(ConnectStep::Connect, Duration::ZERO);
        assert_eq!(times.get(ConnectStep::Connect), Some(Duration::ZERO));
        times.add(ConnectStep::Connect, Duration::from_micros(1500));
        times.add(ConnectStep::Connect, Duration::from_micros(2600));
        times.add(ConnectStep::Upgrade, Duration::from_secs(3));
        assert_eq!(times.get(ConnectStep::Connect), Some(Duration::from_micros(4100)));
        assert_eq!(times.get(ConnectStep::Name), None);
        assert_eq!(times.to_string(), "; connect 0.004 s, upgrade 3.000 s");
        times.add(ConnectStep::Tls, Duration::MAX / 2);
        assert_eq!(times.get(ConnectStep::Tls).unwrap().as_secs(), 4294, "the longest time");
    }
}
