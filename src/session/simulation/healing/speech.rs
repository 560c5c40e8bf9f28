//! What the plugin says to the remote, and what remotes have heard of it.

use std::collections::{BTreeSet, VecDeque};

use super::accepted::{Accepted, UNIT, unit};
use crate::protocol::framing::Framing;
use crate::session::simulation::remote::numbered;

/// The number that the plugin's units have.
const PLUGIN: usize = 999;

/// What the plugin has said, over all of its connections.
pub(super) struct Speech {
    framing: Framing,
    /// The texts of HELO.
    openings: Vec<Vec<u8>>,
    /// Its bytes, in its framing, and where each message ends.
    pub said: Vec<u8>,
    ends: Vec<usize>,
    payloads: Vec<Vec<u8>>,
    /// Where later connections of the plugin begin: bytes, and messages.
    starts: Vec<(usize, usize)>,
    /// What the session had read of `said` when the remote was last lost. `None`: it never was.
    pub read_at_loss: Option<usize>,
    /// Where remotes may stand in `said`, and the next message.
    heard: BTreeSet<usize>,
    next_message: usize,
}

impl Speech {
    pub(super) fn new(framing: Framing, openings: Vec<Vec<u8>>) -> Self {
        Self {
            framing,
            openings,
            said: Vec::new(),
            ends: Vec::new(),
            payloads: Vec::new(),
            starts: Vec::new(),
            read_at_loss: None,
            heard: BTreeSet::from([0]),
            next_message: 0,
        }
    }

    /// A connection of the plugin begins, on which nothing of the one before is sent. Returns where.
    pub(super) fn begin(&mut self) -> usize {
        self.starts.push((self.said.len(), self.payloads.len()));
        self.said.len()
    }

    /// The plugin says something of about `amount` bytes. Returns what it sends.
    pub(super) fn say(&mut self, amount: usize) -> Vec<u8> {
        let number = self.payloads.len();
        let mut bytes = Vec::new();
        if self.framing == Framing::Raw {
            let first = self.said.len() / UNIT;
            bytes.extend((first..=first + amount / 3000).flat_map(|number| unit(PLUGIN, number).into_bytes()));
        } else {
            let payload = numbered(number, amount.min(3000));
            if self.framing == Framing::Mesg {
                bytes.extend(format!("BINA {}\n", payload.len()).bytes());
            }
            bytes.extend(&payload);
            bytes.extend((self.framing == Framing::Line).then_some(b'\n'));
            self.payloads.push(payload);
            self.ends.push(self.said.len() + bytes.len());
        }
        self.said.extend(&bytes);
        bytes
    }

    /// Checks what a remote has heard since this was last called: HELO, then what the plugin has said.
    pub(super) fn check_heard(&mut self, accepted: &mut Accepted) {
        let mut bytes = std::mem::take(&mut accepted.remote.heard_bytes);
        let mut messages: VecDeque<Vec<u8>> = std::mem::take(&mut accepted.remote.heard_messages).into();
        if self.framing == Framing::Raw {
            let opening = self.openings.concat();
            let rest = bytes.split_off(bytes.len().min(opening.len() - accepted.opened));
            assert!(opening[accepted.opened..].starts_with(&bytes), "the remote hears other bytes than HELO");
            accepted.opened += bytes.len();
            for byte in rest {
                self.hear_byte(byte, !std::mem::replace(&mut accepted.heard, true));
            }
            return;
        }
        while let (Some(opening), false) = (self.openings.get(accepted.opened), messages.is_empty()) {
            assert_eq!(messages.pop_front().as_ref(), Some(opening), "the remote hears another message than HELO");
            accepted.opened += 1;
        }
        for message in messages {
            self.hear_message(&message, !std::mem::replace(&mut accepted.heard, true));
        }
    }

    /// Takes a byte that a remote hears. What the session had not read when the remote was lost is not lost.
    fn hear_byte(&mut self, byte: u8, is_first: bool) {
        let mut next = BTreeSet::new();
        let starts = |behind: usize| self.starts.iter().map(|&(start, _)| start).filter(move |&start| start > behind);
        let fits = |at: &usize| self.said.get(*at) == Some(&byte);
        if is_first {
            let floor = self.heard.first().copied().unwrap_or(0);
            let latest = self.read_at_loss.unwrap_or(0).max(floor);
            next.extend((floor..=latest).chain(starts(floor)).filter(fits).map(|at| at + 1));
        } else {
            for &place in &self.heard {
                next.extend([place].into_iter().chain(starts(place)).filter(fits).map(|at| at + 1));
            }
        }
        let (byte, loss) = (byte as char, self.read_at_loss);
        assert!(!next.is_empty(), "the remote hears {byte:?} behind {:?} (first: {is_first}, {loss:?})", self.heard);
        self.heard = next;
    }

    fn hear_message(&mut self, message: &[u8], is_first: bool) {
        let text = String::from_utf8_lossy(message);
        let heard = text.split(':').next().and_then(|digits| digits.parse::<usize>().ok());
        let heard = heard.unwrap_or_else(|| panic!("no message is {text:?}"));
        assert_eq!(self.payloads[heard], message);
        let unread = self.read_at_loss.map(|read| self.ends.partition_point(|&end| end <= read));
        let may_skip = is_first && unread.is_some_and(|unread| heard <= unread);
        let is_start = self.starts.iter().any(|&(_, start)| start == heard);
        assert!(
            heard == self.next_message || (heard > self.next_message && (may_skip || is_start)),
            "message {heard} follows {}, {unread:?} was not read at the loss",
            self.next_message
        );
        self.next_message = heard + 1;
    }

    /// Checks that the remote has heard everything.
    pub(super) fn check_complete(&self, accepted: &Accepted) {
        if self.framing == Framing::Raw {
            assert!(self.heard.contains(&self.said.len()), "bytes for the remote stall: {:?}", self.heard);
            assert_eq!(accepted.opened, self.openings.concat().len());
        } else {
            assert_eq!(self.next_message, self.payloads.len(), "messages for the remote stall");
            assert_eq!(accepted.opened, self.openings.len());
        }
    }
}
