//! The limit on the lines that each client may cause in the log. The log is short, and a client that connects without end
//! would push everything else out of it.

use std::time::{Duration, Instant};

use crate::client::{ClientKey, PerClient};

/// The period for which lines are counted.
const PERIOD: Duration = Duration::from_secs(60);
/// Lines of a client in a period. A connection has three or four. At this rate a client takes most of an hour to fill
/// the default of `logmax`.
const MAX_LINES: u32 = 60;
/// Lines of loopback in a period: after a reload of Luup all plugins connect anew.
const MAX_LOOPBACK_LINES: u32 = 1000;
/// Clients whose lines are counted. Further ones share one count.
const MAX_CLIENTS: usize = 64;

/// Counts the lines of clients in this period.
#[derive(Debug, Default)]
pub(super) struct LineLimiter {
    /// When the period began. `None`: with the next line.
    began: Option<Instant>,
    lines: PerClient<u32>,
    /// Lines of clients for which `lines` has no room.
    rest: u32,
}

/// Lines of a client that were left out. `client` is `None` for those that share a count.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct LeftOut {
    pub client: Option<ClientKey>,
    pub lines: u32,
}

impl LineLimiter {
    /// Counts a line of `client`. True if it is to be written. To be called after [`LineLimiter::poll`].
    pub(super) fn allow(&mut self, client: ClientKey, now: Instant) -> bool {
        self.began.get_or_insert(now);
        let has_room = self.lines.len() < MAX_CLIENTS || client.is_loopback() || self.lines.get(client).is_some();
        let count = if has_room { self.lines.entry(client) } else { &mut self.rest };
        *count = count.saturating_add(1);
        *count <= max_lines(Some(client))
    }

    /// Ends the period if it is over, and returns what was left out in it.
    pub(super) fn poll(&mut self, now: Instant) -> Vec<LeftOut> {
        if self.began.is_none_or(|began| now.saturating_duration_since(began) < PERIOD) {
            return Vec::new();
        }
        let ended = std::mem::take(self);
        ended.left_out().collect()
    }

    /// When [`LineLimiter::poll`] is to be called because it returns something then.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.left_out().next().and(self.began).map(|began| began + PERIOD)
    }

    fn left_out(&self) -> impl Iterator<Item = LeftOut> {
        let counts = self.lines.iter().map(|(client, lines)| (Some(client), *lines)).chain([(None, self.rest)]);
        counts
            .map(|(client, lines)| LeftOut { client, lines: lines.saturating_sub(max_lines(client)) })
            .filter(|left_out| left_out.lines > 0)
    }
}

fn max_lines(client: Option<ClientKey>) -> u32 {
    if client.is_some_and(ClientKey::is_loopback) { MAX_LOOPBACK_LINES } else { MAX_LINES }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lines of `client` that are written, of `lines`.
    fn written(limiter: &mut LineLimiter, client: ClientKey, lines: u32, now: Instant) -> u32 {
        (0..lines).map(|_| u32::from(limiter.allow(client, now))).sum()
    }

    #[test]
    fn each_client_has_lines_of_its_own() {
        let (mut limiter, start) = (LineLimiter::default(), Instant::now());
        let client = ClientKey::V6(1);
        assert_eq!(limiter.deadline(), None);
        assert_eq!(written(&mut limiter, client, MAX_LINES, start), MAX_LINES);
        assert_eq!(limiter.deadline(), None, "nothing was left out");
        assert_eq!(written(&mut limiter, client, 5, start), 0);
        assert_eq!(written(&mut limiter, ClientKey::V6(2), 5, start), 5);
        assert_eq!(written(&mut limiter, ClientKey::Loopback, 2000, start), MAX_LOOPBACK_LINES);
        assert_eq!(limiter.deadline(), Some(start + PERIOD));
        assert_eq!(limiter.poll(start + PERIOD / 2), []);
        let mut left_out = limiter.poll(start + PERIOD);
        left_out.sort_by_key(|left_out| left_out.lines);
        let of = |client, lines| LeftOut { client: Some(client), lines };
        assert_eq!(left_out, [of(client, 5), of(ClientKey::Loopback, 2000 - MAX_LOOPBACK_LINES)]);
        assert_eq!(limiter.deadline(), None);
        assert_eq!(written(&mut limiter, client, 5, start + PERIOD), 5, "the next period");
    }

    #[test]
    fn clients_beyond_the_bound_share_their_lines() {
        let (mut limiter, now) = (LineLimiter::default(), Instant::now());
        for number in 0..MAX_CLIENTS as u64 {
            limiter.allow(ClientKey::V6(number), now);
        }
        for number in 1000..1000 + u64::from(MAX_LINES) {
            assert!(limiter.allow(ClientKey::V6(number), now));
        }
        assert!(!limiter.allow(ClientKey::V6(9999), now));
        assert!(limiter.allow(ClientKey::V6(0), now) && limiter.allow(ClientKey::Loopback, now));
        assert_eq!(limiter.lines.len(), MAX_CLIENTS + 1);
        assert_eq!(limiter.poll(now + PERIOD), [LeftOut { client: None, lines: 1 }]);
    }
}
