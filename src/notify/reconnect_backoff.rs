//! [`ReconnectBackoff`]: holds back the closing notices of short-lived connections. A plugin that reconnects from its
//! action would otherwise flood a device that accepts connections and closes them at once.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::time::{Duration, Instant};

use super::Recipient;
use super::subscription::action_of;

/// A connection that lives this long is not short-lived.
pub(super) const SHORT_LIFE: Duration = Duration::from_secs(10);
/// Time between the first two closing notices of short-lived connections, doubled for each further one.
const MIN_INTERVAL: Duration = Duration::from_secs(1);
/// Longest time between two of them, and the longest that one is held back. Longer than this, a device that works again
/// would be found too late; at this rate, 8 connections a minute harm none.
pub(super) const MAX_INTERVAL: Duration = Duration::from_secs(8);
/// Actions remembered at most. Beyond that, the one whose notice is longest ago is forgotten, and its next notice is not
/// held back.
const MAX_ACTIONS: usize = 256;

/// The last closing notice of a short-lived connection, for each action (device, service and action; the pid differs from
/// connection to connection) of a client. Actions are stored as hashes, since their names may be long.
#[derive(Debug, Default)]
pub(super) struct ReconnectBackoff {
    actions: HashMap<u64, LastNotice>,
    hasher: RandomState,
}

#[derive(Clone, Copy, Debug)]
struct LastNotice {
    /// When it was sent, or when it is due.
    at: Instant,
    /// Time from it to the next one.
    interval: Duration,
}

impl LastNotice {
    /// True if a notice at `now` no longer belongs to the series.
    fn is_over(&self, now: Instant) -> bool {
        self.at + 2 * self.interval <= now
    }
}

impl ReconnectBackoff {
    /// The connection with this recipient has ended after `lived`, 0 if it was never established. Returns the
    /// instant before which its closing notice must not be sent, at most [`MAX_INTERVAL`] from now; `None` if it was not
    /// short-lived.
    pub(super) fn handle_closed(&mut self, recipient: &Recipient, lived: Duration, now: Instant) -> Option<Instant> {
        let action = self.action(recipient);
        if lived >= SHORT_LIFE {
            self.actions.remove(&action);
            return None;
        }
        if let Some(last) = self.actions.get_mut(&action).filter(|last| !last.is_over(now)) {
            // Several that wait at once, of several connections, come at the latest together.
            last.at = (last.at + last.interval).max(now).min(now + MAX_INTERVAL);
            last.interval = (2 * last.interval).min(MAX_INTERVAL);
            return Some(last.at);
        }
        self.make_room(now);
        self.actions.insert(action, LastNotice { at: now, interval: MIN_INTERVAL });
        Some(now)
    }

    /// The closing notice of a short-lived connection is sent, perhaps later than it was due.
    pub(super) fn handle_sent(&mut self, recipient: &Recipient, now: Instant) {
        let action = self.action(recipient);
        if let Some(last) = self.actions.get_mut(&action) {
            last.at = last.at.max(now);
        }
    }

    /// The hash of a recipient's client and action.
    fn action(&self, recipient: &Recipient) -> u64 {
        self.hasher.hash_one((recipient.device.client, action_of(&recipient.query)))
    }

    /// Makes room for one more action.
    fn make_room(&mut self, now: Instant) {
        if self.actions.len() < MAX_ACTIONS {
            return;
        }
        self.actions.retain(|_, last| !last.is_over(now));
        if self.actions.len() >= MAX_ACTIONS
            && let Some(oldest) = self.actions.iter().min_by_key(|(_, last)| last.at).map(|(&action, _)| action)
        {
            self.actions.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::ClientKey;
    use crate::notify::DeviceKey;

    const MS: Duration = Duration::from_millis(1);

    fn of_client(client: ClientKey, query: &str) -> Recipient {
        Recipient { device: DeviceKey::new(client, "5"), query: query.into(), events: false, pace: None, secret: false }
    }

    fn loopback(query: &str) -> Recipient {
        of_client(ClientKey::Loopback, query)
    }

    /// When notices come, in seconds, if each connection lives for `lived` and the next one follows its notice at once.
    fn notices(lived: Duration, count: usize) -> Vec<u64> {
        let mut backoff = ReconnectBackoff::default();
        let start = Instant::now();
        let mut now = start;
        let notices = (0..count).map(|_| {
            now += lived;
            let due = backoff.handle_closed(&loopback("/a&Pid=1"), lived, now).unwrap_or(now);
            now = due;
            backoff.handle_sent(&loopback("/a&Pid=1"), now);
            (now - start).as_secs()
        });
        notices.collect()
    }

    #[test]
    fn intervals_double_up_to_8_s() {
        assert_eq!(notices(MS, 9), [0, 1, 3, 7, 15, 23, 31, 39, 47]);
    }

    #[test]
    fn connections_that_come_slowly_are_not_held_back() {
        assert_eq!(notices(5000 * MS, 5), [5, 10, 15, 20, 25], "slower than the first interval");
        assert_eq!(notices(10_000 * MS, 3), [10, 20, 30]);
    }

    #[test]
    fn a_connection_that_lives_sets_it_back() {
        let mut backoff = ReconnectBackoff::default();
        let now = Instant::now();
        for wait in [0, 1000, 3000] {
            assert_eq!(backoff.handle_closed(&loopback("/a&Pid=1"), MS, now), Some(now + wait * MS));
        }
        assert_eq!(backoff.handle_closed(&loopback("/a&Pid=2"), SHORT_LIFE, now), None);
        assert_eq!(backoff.handle_closed(&loopback("/a&Pid=3"), SHORT_LIFE - MS, now), Some(now));
    }

    #[test]
    fn none_is_held_back_for_more_than_8_s() {
        let mut backoff = ReconnectBackoff::default();
        let now = Instant::now();
        let waits: Vec<_> = (0..100)
            .map(|pid| backoff.handle_closed(&loopback(&format!("/a&Pid={pid}")), MS, now).unwrap() - now)
            .collect();
        assert_eq!(waits[..4], [0, 1, 3, 7].map(Duration::from_secs));
        assert!(waits[4..].iter().all(|&wait| wait == MAX_INTERVAL), "{waits:?}");
        assert_eq!(backoff.handle_closed(&loopback("/b&Pid=1"), MS, now), Some(now), "another action");
    }

    #[test]
    fn connections_of_one_client_hold_back_no_notice_of_another() {
        let mut backoff = ReconnectBackoff::default();
        let now = Instant::now();
        let clients =
            [ClientKey::Loopback, ClientKey::V6(1), ClientKey::V6(2)].map(|client| of_client(client, "/a&Pid=1"));
        for wait in [0, 1000, 3000] {
            for client in &clients {
                assert_eq!(backoff.handle_closed(client, MS, now), Some(now + wait * MS));
            }
        }
        assert_eq!(backoff.handle_closed(&clients[1], SHORT_LIFE, now), None);
        assert_eq!(backoff.handle_closed(&clients[0], MS, now), Some(now + 7000 * MS), "set back by its own only");
    }

    #[test]
    fn memory_is_bounded() {
        let mut backoff = ReconnectBackoff::default();
        let start = Instant::now();
        for number in 0..10_000 {
            let now = start + number * MS;
            assert_eq!(backoff.handle_closed(&loopback(&format!("/{number}")), MS, now), Some(now));
        }
        assert!(backoff.actions.len() <= MAX_ACTIONS);
        let now = start + 10_000 * MS;
        assert!(backoff.handle_closed(&loopback("/9999"), MS, now) > Some(now), "the newest are remembered");
    }
}
