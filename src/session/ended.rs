//! The last ends of connections, for STAT JSON.

use std::collections::VecDeque;
use std::time::Instant;

use super::connect_times::ConnectTimes;
use super::pid::Pid;
use crate::protocol::options::Protocol;
use crate::protocol::target::Target;

/// Ends that are remembered. With the lengths below, all of them take 24 KiB at most: too little to be counted.
const MAX_ENDED: usize = 32;
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

/// The last ends, up to [`MAX_ENDED`].
#[derive(Debug, Default)]
pub(crate) struct EndedConnections(VecDeque<EndedConnection>);

impl EndedConnections {
    /// Adds an end. The oldest makes room.
    pub(crate) fn push(&mut self, ended: EndedConnection) {
        self.0.truncate(MAX_ENDED - 1);
        self.0.push_front(ended);
    }

    /// The ends, the last one first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &EndedConnection> {
        self.0.iter()
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
            ended.push(EndedConnection::new(
                pid,
                &target,
                Protocol::Ws,
                &reason,
                ConnectTimes::default(),
                Instant::now(),
            ));
        }
        let reasons: Vec<&str> = ended.iter().map(|end| end.reason.split(' ').next().unwrap()).collect();
        let newest_first = (3..MAX_ENDED + 3).rev().map(|number| number.to_string());
        assert_eq!(reasons, newest_first.collect::<Vec<_>>());
        for end in ended.iter() {
            assert!(end.reason.len() <= MAX_REASON && end.target.len() <= MAX_TARGET);
        }
    }
}
