//! Bytes to send to a plugin, preceded by bytes that were sent already and are kept for replay.
//!
//! Sans-IO. One queue holds both, oldest first:
//!
//! ```text
//! | sent, whole messages | the message in progress |  not yet sent |
//! 0                message_start    sent                          end
//! ```
//!
//! A message is what the plugin's framing says it is: in RAW every byte. Messages are counted when they are sent whole. A
//! plugin that says how many it has read goes on behind them ([`ReplayBuffer::resume`]); any other goes on with what was
//! not sent, beginning with a whole message ([`ReplayBuffer::discard_sent`]).

use std::collections::VecDeque;

use crate::protocol::framing::{Framing, MAX_HEADER_LEN, message_len};

/// The plugin wants to go on where nothing is kept any more, or where nothing was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Gap;

/// What a plugin is to read, and what it may ask for again.
#[derive(Debug)]
pub(super) struct ReplayBuffer {
    framing: Framing,
    bytes: VecDeque<u8>,
    /// Messages that stood before `bytes`.
    dropped_messages: u64,
    /// Messages in `bytes` up to `message_start`, and those before.
    count: u64,
    /// The most that were ever counted: no plugin can have read more.
    max_count: u64,
    /// Where the message in progress begins.
    message_start: usize,
    /// How much of `bytes` was sent: `message_start` or more.
    sent: usize,
}

impl ReplayBuffer {
    /// An empty buffer.
    pub(super) fn new(framing: Framing) -> Self {
        Self { framing, bytes: VecDeque::new(), dropped_messages: 0, count: 0, max_count: 0, message_start: 0, sent: 0 }
    }

    /// Adds bytes to be sent.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend(bytes);
    }

    /// Bytes that wait to be sent.
    pub(super) fn waiting(&self) -> usize {
        self.bytes.len() - self.sent
    }

    /// Bytes that were sent and are kept.
    pub(super) fn history(&self) -> usize {
        self.sent
    }

    /// Messages sent whole; in RAW, bytes.
    #[cfg(test)]
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// The next bytes to send: as many as lie in one piece. Empty if nothing waits.
    pub(super) fn next(&self) -> &[u8] {
        let (front, back) = self.bytes.as_slices();
        front.get(self.sent..).filter(|rest| !rest.is_empty()).unwrap_or_else(|| &back[self.sent - front.len()..])
    }

    /// The first `length` bytes of [`ReplayBuffer::next`] were sent.
    pub(super) fn mark_sent(&mut self, length: usize) {
        let from = self.sent;
        self.sent += length;
        debug_assert!(self.sent <= self.bytes.len());
        match self.framing {
            Framing::Raw => {
                self.count += (self.sent - self.message_start) as u64;
                self.message_start = self.sent;
            }
            Framing::Line => {
                for (at, &byte) in self.bytes.range(from..self.sent).enumerate() {
                    if byte == b'\n' {
                        self.message_start = from + at + 1;
                        self.count += 1;
                    }
                }
            }
            Framing::Mesg => {
                while let Some(end) = self.end_of_message(self.message_start).filter(|&end| end <= self.sent) {
                    self.message_start = end;
                    self.count += 1;
                }
            }
        }
        self.max_count = self.max_count.max(self.count);
    }

    /// Goes back to the beginning of the message of which a part was sent: its reader is gone.
    pub(super) fn rewind_to_message(&mut self) {
        self.sent = self.message_start;
    }

    /// Drops what was sent whole, and counts anew from there: without SEEN the proxy does not know what the plugin has read.
    pub(super) fn discard_sent(&mut self) {
        self.rewind_to_message();
        self.drop_front(self.message_start);
        (self.dropped_messages, self.count, self.max_count) = (0, 0, 0);
    }

    /// Goes on behind the first `seen` messages. An error changes nothing.
    pub(super) fn resume(&mut self, seen: u64) -> Result<(), Gap> {
        if seen < self.dropped_messages || seen > self.max_count {
            return Err(Gap);
        }
        let mut end = 0;
        match self.framing {
            // What was sent fits into memory.
            Framing::Raw => end = (seen - self.dropped_messages) as usize,
            Framing::Line | Framing::Mesg => {
                for _ in self.dropped_messages..seen {
                    end = self.end_of_message(end).ok_or(Gap)?;
                }
            }
        }
        if end > self.bytes.len() {
            return Err(Gap);
        }
        (self.message_start, self.sent, self.count) = (end, end, seen);
        Ok(())
    }

    /// Drops everything.
    pub(super) fn clear(&mut self) {
        *self = Self::new(self.framing);
    }

    /// Drops the oldest of the messages that were sent, while more than `limit` bytes of them stay.
    pub(super) fn trim(&mut self, limit: usize) {
        let mut end = 0;
        if self.framing == Framing::Raw {
            end = self.message_start.saturating_sub(limit);
            self.dropped_messages += end as u64;
        } else {
            while self.message_start - end > limit {
                let Some(next) = self.end_of_message(end).filter(|&next| self.message_start - next >= limit) else {
                    break;
                };
                end = next;
                self.dropped_messages += 1;
            }
        }
        self.drop_front(end);
        // The memory of a burst is freed.
        if self.bytes.capacity() > 4 * (self.bytes.len() + MAX_HEADER_LEN) {
            self.bytes.shrink_to(2 * self.bytes.len());
        }
    }

    /// Drops the oldest messages that wait, until at most `limit` bytes do; a message that is not there whole stays. Only
    /// to be called while no part of a message was sent. Returns how many bytes it dropped.
    pub(super) fn drop_oldest(&mut self, limit: usize) -> usize {
        debug_assert_eq!(self.sent, self.message_start);
        let mut end = self.sent;
        while self.bytes.len() - end > limit {
            let next = match self.framing {
                // RAW does not show where a datagram ends, and half of one would be worse than none.
                Framing::Raw => Some(self.bytes.len()),
                Framing::Line | Framing::Mesg => self.end_of_message(end),
            };
            match next.filter(|&next| next > end && next <= self.bytes.len()) {
                Some(next) => end = next,
                None => break,
            }
        }
        self.bytes.drain(self.sent..end);
        // Bytes that are to be sent again cannot be told from bytes that were never sent.
        self.max_count = self.count;
        end - self.sent
    }

    fn drop_front(&mut self, length: usize) {
        self.bytes.drain(..length);
        self.message_start -= length;
        self.sent -= length;
    }

    /// Where the message that begins at `start` ends. `None` if its header, or in LINE its end, is not there yet.
    fn end_of_message(&self, start: usize) -> Option<usize> {
        let bytes = self.bytes.range(self.bytes.len().min(start)..);
        message_len(self.framing, bytes).map(|length| start.saturating_add(length))
    }
}

#[cfg(test)]
mod tests;
