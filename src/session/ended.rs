//! The last ends of connections, for STAT JSON.

use std::collections::VecDeque;
use std::time::Instant;

use super::connect_times::ConnectTimes;
use super::pid::Pid;
use crate::client::ClientKey;
use crate::protocol::options::Protocol;
use crate::protocol::target::Target;

/// Ends that are remembered. With the lengths below, all of them take 24 KiB at most: too little to be counted.
const MAX_ENDED: usize = 32;
/// Of these, ends of loopback that make no room for those of others.
const MAX_RESERVED: usize = MAX_ENDED / 2;
/// Length of a target and of a reason in bytes at most. A plugin may name a target of 16 KiB.
const MAX_TARGET: usize = 200;
const MAX_REASON: usize = 400;

/// A connection that was in echo mode, and why it ended. Has no secret: neither a kept pid nor the query of a URL.
#[derive(Clone, Debug)]
pub(crate) struct EndedConnection {
    /// The proxy's name for it.
    pub pid: Pid,
    /// The target, as STAT shows it.
    pub target: Box<str>,
    /// What was spoken with the remote.
    pub protocol: Protocol,
    /// Why it ended, as the log has it.
    pub reason: Box<str>,
    /// How long the steps of connecting have taken.
    pub times: ConnectTimes,
    /// When it ended.
    pub at: Instant,
}

impl EndedConnection {
    /// An end at `at`.
    pub(crate) fn new(
        pid: Pid,
        target: &Target,
        protocol: Protocol,
        reason: &str,
        times: ConnectTimes,
        at: Instant,
    ) -> Self {
        let cut = |text: &str, length: usize| {
            let end = (0..=length.min(text.len())).rev().find(|&end| text.is_char_boundary(end));
            text[..end.unwrap_or_default()].into()
        };
        let target = cut(&target.to_string(), MAX_TARGET);
        Self { pid, target, protocol, reason: cut(reason, MAX_REASON), times, at }
    }
}

/// The last ends, up to [`MAX_ENDED`], each with its client.
#[derive(Debug, Default)]
pub(crate) struct EndedConnections(VecDeque<(ClientKey, EndedConnection)>);

impl EndedConnections {
    /// Adds an end of `client`. The oldest of the client that has most of them makes room.
    pub(crate) fn push(&mut self, client: ClientKey, ended: EndedConnection) {
        self.0.push_front((client, ended));
        if self.0.len() > MAX_ENDED {
            let count = |client| self.0.iter().filter(|(other, _)| *other == client).count();
            // The last of several maxima is the oldest.
            let oldest = (0..self.0.len()).max_by_key(|&at| match self.0[at].0 {
                ClientKey::Loopback if count(ClientKey::Loopback) <= MAX_RESERVED => 0,
                client => count(client),
            });
            if let Some(at) = oldest {
                self.0.remove(at);
            }
        }
    }

    /// The ends, the last one first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &EndedConnection> {
        self.0.iter().map(|(_, ended)| ended)
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::session::PidSource;

    #[test]
    fn only_the_last_ends_are_kept_and_long_texts_are_cut() {
        let mut pids = PidSource::default();
        let mut ended = EndedConnections::default();
        let url = format!("ws://h/{}?token=secret", "a".repeat(1000));
        let (target, _) = Target::parse_prefix(url.as_bytes()).unwrap();
        for number in 0..MAX_ENDED + 3 {
            let reason = format!("{number} {}", "\u{e4}x".repeat(1000));
            let pid = pids.next(SystemTime::UNIX_EPOCH, false);
            let end =
                EndedConnection::new(pid, &target, Protocol::Ws, &reason, ConnectTimes::default(), Instant::now());
            ended.push(ClientKey::Loopback, end);
        }
        let reasons: Vec<&str> = ended.iter().map(|end| end.reason.split(' ').next().unwrap()).collect();
        let newest_first = (3..MAX_ENDED + 3).rev().map(|number| number.to_string());
        assert_eq!(reasons, newest_first.collect::<Vec<_>>());
        for end in ended.iter() {
            assert!(end.reason.len() <= MAX_REASON && end.target.len() <= MAX_TARGET);
        }
    }

    /// `count` ends of `client`. Returns how many there are then of the clients in turn.
    fn add<const N: usize>(
        ended: &mut EndedConnections,
        (client, count): (ClientKey, usize),
        clients: [ClientKey; N],
    ) -> [usize; N] {
        let (target, _) = Target::parse_prefix(b"h:1").unwrap();
        for number in 0..count {
            let pid = PidSource::default().next(SystemTime::UNIX_EPOCH, false);
            let (reason, times) = (number.to_string(), ConnectTimes::default());
            ended.push(client, EndedConnection::new(pid, &target, Protocol::Tcp, &reason, times, Instant::now()));
        }
        clients.map(|client| ended.0.iter().filter(|(other, _)| *other == client).count())
    }

    #[test]
    fn a_client_with_many_ends_does_not_push_those_of_others_out() {
        let (here, one, other) = (ClientKey::Loopback, ClientKey::V6(1), ClientKey::V6(2));
        let mut ended = EndedConnections::default();
        let mut add = |client, count| add(&mut ended, (client, count), [here, one, other]);
        assert_eq!(add(here, 40), [32, 0, 0]);
        assert_eq!(add(one, 1), [31, 1, 0]);
        assert_eq!(add(one, 100), [16, 16, 0]);
        assert_eq!(add(other, 3), [16, 13, 3]);
        assert_eq!(add(other, 100), [16, 8, 8]);
        assert_eq!(add(here, 100), [16, 8, 8]);
        let reasons: Vec<&str> = ended.iter().take(3).map(|end| &*end.reason).collect();
        assert_eq!(reasons, ["99", "98", "97"], "the last ones stay");
    }
}
