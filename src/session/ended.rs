//! The last ends of connections, for STAT JSON.

use std::collections::VecDeque;
use std::time::Instant;

use super::pid::Pid;
use crate::protocol::options::Protocol;
use crate::protocol::target::Target;

/// Ends that are remembered. With the lengths below, all of them take 5 KiB at most, or 20 KiB if no character is ASCII: too
/// little to be counted.
const MAX_ENDED: usize = 8;
/// Length of a target and of a reason in characters at most. A plugin may name a target of 16 KiB.
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
    /// When it ended.
    pub at: Instant,
}

impl EndedConnection {
    /// An end at `at`.
    pub(crate) fn new(pid: Pid, target: &Target, protocol: Protocol, reason: &str, at: Instant) -> Self {
        let cut = |text: &str, length| text.chars().take(length).collect::<String>().into();
        Self { pid, target: cut(&target.to_string(), MAX_TARGET), protocol, reason: cut(reason, MAX_REASON), at }
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
            let reason = format!("{number} {}", "x".repeat(1000));
            let pid = pids.next(SystemTime::UNIX_EPOCH, false);
            ended.push(EndedConnection::new(pid, &target, Protocol::Ws, &reason, Instant::now()));
        }
        let reasons: Vec<&str> = ended.iter().map(|end| end.reason.split(' ').next().unwrap()).collect();
        assert_eq!(reasons, ["10", "9", "8", "7", "6", "5", "4", "3"]);
        for end in ended.iter() {
            assert!(end.reason.len() <= MAX_REASON && end.target.chars().count() <= MAX_TARGET);
        }
    }
}
