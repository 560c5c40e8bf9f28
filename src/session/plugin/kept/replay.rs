//! Bytes to send to a plugin, preceded by bytes that were sent already and are kept for replay.
//!
//! Sans-IO. One queue holds both, oldest first:
//!
//! ```text
//! | sent, whole messages | the message in progress |  not yet sent |
//! 0                message_start    sent                          end
//! ```
//!
//! A message is what the plugin's framing says it is: in RAW every byte, and over UDP each datagram. Messages are counted
//! when they are sent whole, but RAW counts bytes. A plugin that says how many it has read goes on behind them
//! ([`ReplayBuffer::resume`]); any other goes on with what was not sent, beginning with a whole message
//! ([`ReplayBuffer::discard_sent`]).

use std::collections::VecDeque;

use crate::protocol::framing::{Framing, MAX_HEADER_LEN, message_len};

/// The plugin wants to go on where nothing is kept any more, or where nothing was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Gap;

/// What a plugin is to read, and what it may ask for again.
#[derive(Debug)]
pub(super) struct ReplayBuffer {
    boundaries: Boundaries,
    bytes: VecDeque<u8>,
    /// Messages that stood before `bytes`; in RAW, bytes.
    dropped: u64,
    /// Messages in `bytes` up to `message_start`, and those before; in RAW, bytes.
    count: u64,
    /// The most that a plugin can have read.
    max_count: u64,
    /// Where the message in progress begins.
    message_start: usize,
    /// How much of `bytes` was sent: `message_start` or more.
    sent: usize,
}

/// How the buffer knows where a message ends.
#[derive(Debug)]
enum Boundaries {
    /// Every byte is a message: RAW.
    Bytes,
    /// The bytes show it: LINE and MESG.
    Framed(Framing),
    /// The bytes do not show it: RAW over UDP.
    Datagrams {
        /// The lengths of those before `message_start`, oldest first.
        sent: VecDeque<u16>,
        /// The lengths of those from there on.
        waiting: VecDeque<u16>,
    },
}

/// Bytes that the length of a datagram takes.
const LENGTH_SIZE: usize = size_of::<u16>();

impl ReplayBuffer {
    /// An empty buffer for a byte stream or framed messages.
    pub(super) fn new(framing: Framing) -> Self {
        Self::with(match framing {
            Framing::Raw => Boundaries::Bytes,
            Framing::Line | Framing::Mesg => Boundaries::Framed(framing),
        })
    }

    /// An empty buffer for datagrams, each of which is added by a [`ReplayBuffer::push`] of its own.
    pub(super) fn for_datagrams(framing: Framing) -> Self {
        match framing {
            Framing::Raw => Self::with(Boundaries::Datagrams { sent: VecDeque::new(), waiting: VecDeque::new() }),
            Framing::Line | Framing::Mesg => Self::new(framing),
        }
    }

    fn with(boundaries: Boundaries) -> Self {
        Self { boundaries, bytes: VecDeque::new(), dropped: 0, count: 0, max_count: 0, message_start: 0, sent: 0 }
    }

    /// Adds bytes to be sent.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        if self.bytes.capacity() - self.bytes.len() < bytes.len() {
            // To double would take twice the memory that is counted.
            self.bytes.reserve_exact(bytes.len().max(self.bytes.len() / 8));
        }
        self.bytes.extend(bytes);
        if let Boundaries::Datagrams { waiting, .. } = &mut self.boundaries {
            // No datagram is longer than a chunk. An empty one leaves nothing to read.
            for chunk in bytes.chunks(usize::from(u16::MAX)) {
                waiting.push_back(chunk.len() as u16);
            }
        }
    }

    /// Bytes of memory for those that wait, with those that their boundaries take.
    pub(super) fn held(&self) -> usize {
        let boundaries = match &self.boundaries {
            Boundaries::Datagrams { sent, waiting } => {
                (sent.capacity() + waiting.capacity() - sent.len()) * LENGTH_SIZE
            }
            Boundaries::Bytes | Boundaries::Framed(_) => 0,
        };
        self.bytes.capacity() - self.sent + boundaries
    }

    /// Bytes that wait to be sent, with those that their boundaries take.
    pub(super) fn waiting(&self) -> usize {
        let boundaries = match &self.boundaries {
            Boundaries::Datagrams { waiting, .. } => waiting.len() * LENGTH_SIZE,
            Boundaries::Bytes | Boundaries::Framed(_) => 0,
        };
        self.bytes.len() - self.sent + boundaries
    }

    /// Bytes that were sent and are kept, with those that their boundaries take.
    pub(super) fn history(&self) -> usize {
        let boundaries = match &self.boundaries {
            Boundaries::Datagrams { sent, .. } => sent.len() * LENGTH_SIZE,
            Boundaries::Bytes | Boundaries::Framed(_) => 0,
        };
        self.sent + boundaries
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
        let mut read = 0;
        match &mut self.boundaries {
            Boundaries::Bytes => {
                self.count += (self.sent - self.message_start) as u64;
                self.message_start = self.sent;
            }
            Boundaries::Datagrams { .. } => {
                self.find_datagram();
                // RAW counts bytes: the plugin may have read a part of a datagram.
                read = self.dropped + self.sent as u64;
            }
            Boundaries::Framed(Framing::Line) => {
                for (at, &byte) in self.bytes.range(from..self.sent).enumerate() {
                    if byte == b'\n' {
                        self.message_start = from + at + 1;
                        self.count += 1;
                    }
                }
            }
            Boundaries::Framed(_) => {
                while let Some(end) = self.end_of_message(self.message_start).filter(|&end| end <= self.sent) {
                    self.message_start = end;
                    self.count += 1;
                }
            }
        }
        self.max_count = self.max_count.max(self.count).max(read);
    }

    /// Goes back to the beginning of the message of which a part was sent: its reader is gone.
    pub(super) fn rewind_to_message(&mut self) {
        self.sent = self.message_start;
    }

    /// Drops what was sent whole, and counts anew from there: without SEEN the proxy does not know what the plugin has read.
    pub(super) fn discard_sent(&mut self) {
        self.rewind_to_message();
        self.drop_front(self.message_start);
        (self.dropped, self.count, self.max_count) = (0, 0, 0);
    }

    /// Goes on behind the first `seen` messages. An error changes nothing.
    pub(super) fn resume(&mut self, seen: u64) -> Result<(), Gap> {
        if seen < self.dropped || seen > self.max_count {
            return Err(Gap);
        }
        let mut end = 0;
        match self.boundaries {
            // What was sent fits into memory.
            Boundaries::Bytes | Boundaries::Datagrams { .. } => end = (seen - self.dropped) as usize,
            Boundaries::Framed(_) => {
                for _ in self.dropped..seen {
                    end = self.end_of_message(end).ok_or(Gap)?;
                }
            }
        }
        if end > self.bytes.len() {
            return Err(Gap);
        }
        (self.message_start, self.sent, self.count) = (end, end, seen);
        if let Boundaries::Datagrams { sent, waiting } = &mut self.boundaries {
            while let Some(length) = sent.pop_back() {
                waiting.push_front(length);
            }
            self.message_start = 0;
            self.find_datagram();
        }
        Ok(())
    }

    /// Moves `message_start` on to the datagram in progress, if the messages are datagrams.
    fn find_datagram(&mut self) {
        let Boundaries::Datagrams { sent, waiting } = &mut self.boundaries else { return };
        while let Some(&length) = waiting.front()
            && self.message_start + usize::from(length) <= self.sent
        {
            self.message_start += usize::from(length);
            waiting.pop_front();
            sent.push_back(length);
        }
        self.count = self.dropped + self.message_start as u64;
    }

    /// Drops everything.
    pub(super) fn clear(&mut self) {
        let boundaries = match self.boundaries {
            Boundaries::Bytes => Boundaries::Bytes,
            Boundaries::Framed(framing) => Boundaries::Framed(framing),
            Boundaries::Datagrams { .. } => Boundaries::Datagrams { sent: VecDeque::new(), waiting: VecDeque::new() },
        };
        *self = Self::with(boundaries);
    }

    /// Drops the oldest of the messages that were sent, while more than `limit` bytes of them stay.
    pub(super) fn trim(&mut self, limit: usize) {
        let mut end = 0;
        match &self.boundaries {
            Boundaries::Bytes => {
                end = self.message_start.saturating_sub(limit);
                self.dropped += end as u64;
            }
            Boundaries::Datagrams { sent, .. } => {
                let mut kept = self.message_start + sent.len() * LENGTH_SIZE;
                for &length in sent {
                    let size = usize::from(length) + LENGTH_SIZE;
                    if kept <= limit || kept - size < limit {
                        break;
                    }
                    kept -= size;
                    end += usize::from(length);
                }
                self.dropped += end as u64;
            }
            Boundaries::Framed(_) => {
                while self.message_start - end > limit {
                    let Some(next) = self.end_of_message(end).filter(|&next| self.message_start - next >= limit) else {
                        break;
                    };
                    end = next;
                    self.dropped += 1;
                }
            }
        }
        self.drop_front(end);
        // The memory of a burst is freed.
        if self.bytes.capacity() > 4 * (self.bytes.len() + MAX_HEADER_LEN) {
            self.bytes.shrink_to(self.bytes.len());
        }
        if let Boundaries::Datagrams { sent, waiting } = &mut self.boundaries {
            for lengths in [sent, waiting] {
                if lengths.capacity() > 4 * (lengths.len() + MAX_HEADER_LEN) {
                    lengths.shrink_to(2 * lengths.len());
                }
            }
        }
    }

    /// Drops the oldest messages that wait, until at most `limit` bytes do; a message that is not there whole stays. Only
    /// to be called while no part of a message was sent. Returns how many bytes it dropped.
    pub(super) fn drop_oldest(&mut self, limit: usize) -> usize {
        debug_assert_eq!(self.sent, self.message_start);
        let mut end = self.sent;
        match &mut self.boundaries {
            Boundaries::Bytes => end = end.max(self.bytes.len().saturating_sub(limit)),
            Boundaries::Datagrams { waiting, .. } => {
                while self.bytes.len() - end + waiting.len() * LENGTH_SIZE > limit
                    && let Some(length) = waiting.pop_front()
                {
                    end += usize::from(length);
                }
            }
            Boundaries::Framed(_) => {
                while self.bytes.len() - end > limit {
                    match self.end_of_message(end).filter(|&next| next > end && next <= self.bytes.len()) {
                        Some(next) => end = next,
                        None => break,
                    }
                }
            }
        }
        self.bytes.drain(self.sent..end);
        // Bytes that are to be sent again cannot be told from bytes that were never sent.
        self.max_count = self.count;
        end - self.sent
    }

    /// Drops `length` bytes that were sent: whole messages.
    fn drop_front(&mut self, length: usize) {
        self.bytes.drain(..length);
        self.message_start -= length;
        self.sent -= length;
        if let Boundaries::Datagrams { sent, .. } = &mut self.boundaries {
            let mut left = length;
            while left > 0
                && let Some(first) = sent.pop_front()
            {
                left -= usize::from(first);
            }
        }
    }

    /// Where the framed message that begins at `start` ends. `None` if its header, or in LINE its end, is not there yet.
    fn end_of_message(&self, start: usize) -> Option<usize> {
        let Boundaries::Framed(framing) = self.boundaries else { return None };
        let bytes = self.bytes.range(self.bytes.len().min(start)..);
        message_len(framing, bytes).map(|length| start.saturating_add(length))
    }
}

#[cfg(test)]
mod tests;
