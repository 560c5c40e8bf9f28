//! What a remote that has ended left for a kept plugin to read: a kept session's last stage.
//!
//! It lasts until the plugin has read everything, which it shows by ending its side after the end it was told, or until
//! KEEP runs out. A plugin that goes away before is parked, and may come back.

use std::time::{Duration, Instant};

use crate::net::endpoint::{Endpoint, Transfer};
use crate::net::socket::Stream;
use crate::protocol::options::Protocol;
use crate::protocol::target::Target;
use crate::relay::RelayTotals;
use crate::relay::memory_budget::MemoryBudget;
use crate::session::TURN_READS;
use crate::session::connect_times::ConnectTimes;
use crate::session::plugin::PluginNews;
use crate::session::plugin::kept::KeptPlugin;

/// Time for a plugin that has ended the connection itself: the unread bytes hold only the close reason.
const READ_TIMEOUT: Duration = Duration::from_secs(2);

/// What is left of a connection.
#[derive(Debug)]
pub(crate) struct UnreadTail {
    /// Where it led.
    pub target: Target,
    /// What was spoken.
    pub protocol: Protocol,
    /// What has passed.
    pub totals: RelayTotals,
    /// When the remote last sent something.
    pub last_heard: Instant,
    /// When the first remote was connected.
    pub first_connected_at: Instant,
    /// How long the steps of connecting have taken.
    pub times: ConnectTimes,
    /// It waits for a plugin that goes away. False if the plugin itself has ended the connection.
    pub kept: bool,
    /// When the remote ended.
    pub since: Instant,
}

/// What a turn leads to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum TailOutcome {
    /// The tail waits for the plugin.
    Wait {
        /// There is more to do at once.
        again: bool,
        /// What the turn has brought.
        news: PluginNews,
    },
    /// The plugin has read everything, or does not come back.
    Done,
    /// Its time is up, and it still sends.
    Expired,
}

impl UnreadTail {
    /// The deadline of an attached plugin. `progress`: when it last took bytes.
    pub(crate) fn deadline(&self, progress: Instant, keep: Option<Duration>) -> Instant {
        self.since.max(progress) + keep.filter(|_| self.kept).unwrap_or(READ_TIMEOUT)
    }

    /// Writes what is left, and looks whether the plugin has read it. Follows [`KeptPlugin::begin_turn`]. `due`: the deadline.
    pub(crate) fn turn<S: Stream>(
        &self,
        plugin: &mut KeptPlugin<S>,
        scratch: &mut [u8],
        budget: &mut MemoryBudget,
        now: Instant,
        due: Option<Instant>,
    ) -> TailOutcome {
        let mut reads = 0;
        while reads < TURN_READS && plugin.is_readable() {
            reads += 1;
            match plugin.try_read(scratch) {
                Transfer::Eof | Transfer::Broken(_) => return TailOutcome::Done,
                // No remote is left to send it to.
                Transfer::Bytes(_) => {}
                Transfer::Blocked => break,
            }
        }
        let again = plugin.is_readable();
        let news = plugin.end_turn(now, budget);
        if !self.kept && plugin.parked_since().is_some() {
            return TailOutcome::Done;
        }
        // A plugin that sends faster than it is read would never be late.
        if again && due.is_some_and(|due| due <= now) {
            return TailOutcome::Expired;
        }
        TailOutcome::Wait { again, news }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::endpoint::SocketEndpoint;
    use crate::net::readiness::Readiness;
    use crate::protocol::framing::Framing;
    use crate::testing::wire::{FaultProfile, Wire};

    const KEEP: Duration = Duration::from_secs(60);

    struct Fixture {
        plugin: KeptPlugin<Wire>,
        tail: UnreadTail,
        budget: MemoryBudget,
        now: Instant,
    }

    impl Fixture {
        /// A plugin with `room` bytes of room, for which a remote has left `left` bytes.
        fn new(room: usize, left: usize, kept: bool) -> Self {
            let (mut budget, now) = (MemoryBudget::new(100_000, 10_000), Instant::now());
            let mut wire = Wire::new(FaultProfile::default());
            wire.make_room(room);
            let mut plugin = KeptPlugin::new(SocketEndpoint::new(wire, Readiness::FRESH), Framing::Raw, false, now);
            plugin.begin_turn(1000, &budget);
            assert!(matches!(plugin.try_write(&vec![7; left]), Transfer::Bytes(taken) if taken == left));
            plugin.shutdown_write();
            plugin.end_turn(now, &mut budget);
            let target = Target::parse_prefix(b"h:1").unwrap().0;
            let tail = UnreadTail {
                target,
                protocol: Protocol::Tcp,
                totals: RelayTotals::default(),
                last_heard: now,
                first_connected_at: now,
                times: ConnectTimes::default(),
                kept,
                since: now,
            };
            Self { plugin, tail, budget, now }
        }

        fn turn(&mut self, event: Readiness) -> TailOutcome {
            self.plugin.handle_event(event);
            self.plugin.begin_turn(1000, &self.budget);
            let due = self.tail.deadline(self.plugin.progress(), Some(KEEP));
            self.tail.turn(&mut self.plugin, &mut [0; 64], &mut self.budget, self.now, Some(due))
        }
    }

    const ENDED: Readiness = Readiness { readable: true, read_closed: true, ..Readiness::ACCEPTED };

    #[test]
    fn a_plugin_that_goes_before_it_has_read_everything_is_parked_if_it_is_kept() {
        for kept in [false, true] {
            let mut fixture = Fixture::new(10, 100, kept);
            assert!(matches!(
                fixture.turn(Readiness::default()),
                TailOutcome::Wait { news: PluginNews { parked: false, .. }, .. }
            ));
            // The plugin's end of its side: the remote's has not been delivered.
            let outcome = fixture.turn(ENDED);
            match kept {
                false => assert_eq!(outcome, TailOutcome::Done),
                true => assert!(
                    matches!(outcome, TailOutcome::Wait { news: PluginNews { parked: true, .. }, .. }),
                    "{outcome:?}"
                ),
            }
        }
    }

    /// Regression: as long as a plugin sent faster than it was read, its time did not pass.
    #[test]
    fn a_plugin_that_sends_without_end_has_no_longer_to_read_the_rest() {
        let mut fixture = Fixture::new(10, 100, true);
        let turn = |fixture: &mut Fixture| {
            fixture.plugin.socket_mut().unwrap().stream_mut().send_bytes(&[0; 64 * (TURN_READS + 1)]);
            fixture.turn(Readiness { readable: true, ..Readiness::default() })
        };
        assert!(matches!(turn(&mut fixture), TailOutcome::Wait { again: true, .. }));
        fixture.now += KEEP;
        assert_eq!(turn(&mut fixture), TailOutcome::Expired);
    }

    #[test]
    fn time_runs_from_the_plugins_progress() {
        let keep = Some(KEEP);
        let fixture = Fixture::new(10, 100, true);
        let later = fixture.now + Duration::from_secs(10);
        assert_eq!(fixture.tail.deadline(fixture.now, keep), fixture.now + Duration::from_secs(60));
        assert_eq!(fixture.tail.deadline(later, keep), later + Duration::from_secs(60));
        let fixture = Fixture::new(10, 100, false);
        assert_eq!(fixture.tail.deadline(fixture.now, keep), fixture.now + READ_TIMEOUT);
    }
}
