//! What a plugin is to read: what is not yet handed over to it, and behind it what was, in case it asks for that again.
//!
//! Sans-IO. One row of bytes holds both, oldest first:
//!
//! ```text
//! | handed over, whole messages | the message in progress    |  not yet handed over |
//! 0                           whole          handed                              end
//! ```
//!
//! A message is what the plugin's framing says it is: in RAW every byte. Messages are counted as they are handed over
//! whole; whoever says how many it has read goes on behind them ([`Outlet::resume`]), whoever does not goes on with
//! what was not handed over, beginning with a whole message ([`Outlet::forget`]).

use std::collections::VecDeque;

use crate::protocol::framing::Framing;

/// Longest header of a message in MESG framing, with a margin. What is longer is none of ours.
const HEADER_LIMIT: usize = 128;

/// The plugin wants to go on where nothing is kept any more, or was never handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap;

/// What a plugin is to read, and what it may ask for again.
#[derive(Debug)]
pub struct Outlet {
    framing: Framing,
    bytes: VecDeque<u8>,
    /// Messages that stood before `bytes`.
    before: u64,
    /// Messages in `bytes` up to `whole`, and those before.
    count: u64,
    /// The most that were ever counted: what no plugin can have read more of.
    most: u64,
    /// Where the message in progress begins.
    whole: usize,
    /// How far was handed over: at or behind `whole`.
    handed: usize,
}

impl Outlet {
    /// An outlet of which nothing was handed over.
    pub fn new(framing: Framing) -> Self {
        Self { framing, bytes: VecDeque::new(), before: 0, count: 0, most: 0, whole: 0, handed: 0 }
    }

    /// Adds bytes to be handed over.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend(bytes);
    }

    /// Bytes that wait to be handed over.
    pub fn waiting(&self) -> usize {
        self.bytes.len() - self.handed
    }

    /// Bytes that were handed over and are kept.
    pub fn history(&self) -> usize {
        self.handed
    }

    /// Messages handed over whole; in RAW, bytes.
    #[cfg(test)]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The next bytes to hand over: as many as lie in one piece. Empty where nothing waits.
    pub fn next(&self) -> &[u8] {
        let (front, back) = self.bytes.as_slices();
        front.get(self.handed..).filter(|rest| !rest.is_empty()).unwrap_or_else(|| &back[self.handed - front.len()..])
    }

    /// The first `length` of [`Outlet::next`] were handed over.
    pub fn hand_over(&mut self, length: usize) {
        let from = self.handed;
        self.handed += length;
        debug_assert!(self.handed <= self.bytes.len());
        match self.framing {
            Framing::Raw => {
                self.count += (self.handed - self.whole) as u64;
                self.whole = self.handed;
            }
            Framing::Line => {
                for (at, &byte) in self.bytes.range(from..self.handed).enumerate() {
                    if byte == b'\n' {
                        self.whole = from + at + 1;
                        self.count += 1;
                    }
                }
            }
            Framing::Mesg => {
                while let Some(end) = self.end_of_message(self.whole).filter(|&end| end <= self.handed) {
                    self.whole = end;
                    self.count += 1;
                }
            }
        }
        self.most = self.most.max(self.count);
    }

    /// Goes back to the beginning of the message of which a part was handed over: nobody will read the rest of it.
    pub fn rewind_half(&mut self) {
        self.handed = self.whole;
    }

    /// Goes on with what was not handed over whole, and counts anew from there: who does not say what it has read has
    /// read nothing that counts.
    pub fn forget(&mut self) {
        self.rewind_half();
        self.drop_front(self.whole);
        (self.before, self.count, self.most) = (0, 0, 0);
    }

    /// Goes on behind the first `seen` messages. An error changes nothing.
    pub fn resume(&mut self, seen: u64) -> Result<(), Gap> {
        if seen < self.before || seen > self.most {
            return Err(Gap);
        }
        let mut end = 0;
        match self.framing {
            // What was handed over fits into memory.
            Framing::Raw => end = (seen - self.before) as usize,
            Framing::Line | Framing::Mesg => {
                for _ in self.before..seen {
                    end = self.end_of_message(end).ok_or(Gap)?;
                }
            }
        }
        if end > self.bytes.len() {
            return Err(Gap);
        }
        (self.whole, self.handed, self.count) = (end, end, seen);
        Ok(())
    }

    /// Drops everything.
    pub fn clear(&mut self) {
        *self = Self::new(self.framing);
    }

    /// Drops the oldest of the messages that were handed over, while more than `limit` bytes of them stay.
    pub fn trim(&mut self, limit: usize) {
        let mut end = 0;
        if self.framing == Framing::Raw {
            end = self.whole.saturating_sub(limit);
            self.before += end as u64;
        } else {
            while self.whole - end > limit {
                let Some(next) = self.end_of_message(end).filter(|&next| self.whole - next >= limit) else { break };
                end = next;
                self.before += 1;
            }
        }
        self.drop_front(end);
        // A burst's memory is given back.
        if self.bytes.capacity() > 4 * (self.bytes.len() + HEADER_LIMIT) {
            self.bytes.shrink_to(2 * self.bytes.len());
        }
    }

    /// Drops the oldest messages that wait, until at most `limit` bytes do; a message that is not there whole stays. To
    /// be used only while nothing of a message was handed over. How many bytes were dropped.
    pub fn drop_oldest(&mut self, limit: usize) -> usize {
        debug_assert_eq!(self.handed, self.whole);
        let mut end = self.handed;
        while self.bytes.len() - end > limit {
            let next = match self.framing {
                // Nothing tells where a datagram ends: half of one would be worse than none.
                Framing::Raw => Some(self.bytes.len()),
                Framing::Line | Framing::Mesg => self.end_of_message(end),
            };
            match next.filter(|&next| next > end && next <= self.bytes.len()) {
                Some(next) => end = next,
                None => break,
            }
        }
        self.bytes.drain(self.handed..end);
        // What has not been handed over again cannot be told apart from what never was.
        self.most = self.count;
        end - self.handed
    }

    fn drop_front(&mut self, length: usize) {
        self.bytes.drain(..length);
        self.whole -= length;
        self.handed -= length;
    }

    /// Where the message that begins at `start` ends. `None` where its header, or in LINE its end, is not there yet.
    fn end_of_message(&self, start: usize) -> Option<usize> {
        let left = self.bytes.len().checked_sub(start)?;
        let found = |limit: usize| self.bytes.range(start..start + left.min(limit)).position(|&byte| byte == b'\n');
        match self.framing {
            Framing::Raw => Some(start + 1),
            Framing::Line => found(usize::MAX).map(|at| start + at + 1),
            Framing::Mesg => {
                let Some(at) = found(HEADER_LIMIT) else {
                    // Nobody of ours writes such a header; a piece of it is as good a message as any.
                    return (left >= HEADER_LIMIT).then_some(start + HEADER_LIMIT);
                };
                let mut header = [0; HEADER_LIMIT];
                for (place, byte) in header.iter_mut().zip(self.bytes.range(start..start + at)) {
                    *place = *byte;
                }
                Some((start + at + 1).saturating_add(body_length(&header[..at])))
            }
        }
    }
}

/// The length of the body that follows a header of ours: its second word, CLOS's third.
fn body_length(header: &[u8]) -> usize {
    let mut words = header.split(|&byte| byte == b' ');
    let verb = words.next();
    let length = if verb == Some(b"CLOS") { words.nth(1) } else { words.next() };
    length.and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests;
