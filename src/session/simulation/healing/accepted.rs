//! A connection that a remote has accepted, and what it has said on it.

use std::time::Instant;

use testkit::websocket::frame_of;

use crate::protocol::framing::Framing;
use crate::session::simulation::remote::{Behaviour, Remote};

/// Bytes of a unit of a byte stream: [`unit`].
pub(super) const UNIT: usize = 10;

/// A connection that a remote has accepted.
pub(super) struct Accepted {
    pub remote: Remote,
    /// Its place among all.
    number: usize,
    framing: Framing,
    /// What the plugin is to read of it: bytes, or how many messages.
    pub bytes: Vec<u8>,
    pub messages: usize,
    /// It has ended in a way that loses nothing of what it has said before.
    ends_whole: bool,
    /// The session was seen to relay it.
    pub relayed: bool,
    /// It has ended, or says nothing any more.
    pub over: bool,
    /// Bytes, or messages, of HELO that it has heard.
    pub opened: usize,
    /// It has heard something of the plugin.
    pub heard: bool,
}

/// A number of a byte stream; `whose` is below 1000.
pub(super) fn unit(whose: usize, number: usize) -> String {
    format!("{whose:03}.{number:05};")
}

/// Message `message` of the connection `number`, of about `length` bytes.
pub(super) fn payload(number: usize, message: usize, length: usize) -> Vec<u8> {
    let mut payload = format!("{number}:{message}:").into_bytes();
    while payload.len() < length {
        payload.push(b'a' + (payload.len() % 23) as u8);
    }
    payload
}

impl Accepted {
    pub(super) fn new(remote: Remote, number: usize, framing: Framing) -> Self {
        Self {
            remote,
            number,
            framing,
            bytes: Vec::new(),
            messages: 0,
            ends_whole: false,
            relayed: false,
            over: false,
            opened: 0,
            heard: false,
        }
    }

    /// The plugin is to read all that it has said.
    pub(super) fn is_whole(&self) -> bool {
        self.ends_whole && self.relayed
    }

    /// It can say something.
    pub(super) fn stands(&self) -> bool {
        let is_kept = self.remote.peer.as_ref().is_some_and(|peer| !peer.is_dropped());
        !self.over && is_kept && self.remote.is_open() && !self.remote.is_handshaking()
    }

    /// Says something of about `amount` bytes. `cut`: over WebSocket in two frames, the first with so many percent of it.
    pub(super) fn speak(&mut self, amount: usize, cut: Option<usize>) {
        if self.remote.behaviour == Behaviour::Stall {
            return;
        }
        let payload = match self.framing {
            Framing::Raw => {
                let first = self.bytes.len() / UNIT;
                (first..=first + amount / 100).map(|at| unit(self.number, at)).collect::<String>().into_bytes()
            }
            _ => payload(self.number, self.messages, amount.min(3000)),
        };
        self.messages += 1;
        self.bytes.extend(&payload);
        match cut {
            _ if !self.remote.kind.is_websocket() => self.remote.write(&payload),
            Some(percent) => {
                let (begin, rest) = payload.split_at(payload.len() * percent / 100);
                self.remote.write(&frame_of(0x02, begin));
                self.remote.write(&frame_of(0x80, rest));
            }
            None => self.remote.write(&frame_of(0x81, &payload)),
        }
    }

    /// Ends in one of eight ways, over WebSocket after a part of a message if `within_message`. False if it has only fallen
    /// silent.
    pub(super) fn end(&mut self, how: usize, within_message: bool, now: Instant) -> bool {
        let mut how = how;
        if within_message && self.remote.kind.is_websocket() && self.remote.behaviour != Behaviour::Stall {
            let is_raw = self.framing == Framing::Raw;
            let text = if is_raw { unit(self.number, self.bytes.len() / UNIT) } else { "half".into() };
            self.bytes.extend(text.bytes());
            if how.is_multiple_of(2) {
                self.remote.write(&frame_of(0x01, text.as_bytes()));
            } else {
                let frame = frame_of(0x81, &[text.as_bytes(), b"more"].concat());
                self.remote.write(&frame[..2 + text.len()]);
                // What follows would belong to the frame.
                how = if how < 5 { 3 } else { 7 };
            }
        }
        match how {
            0 | 1 => self.remote.end(true, now),
            2 | 3 => self.remote.end(false, now),
            4 => self.remote.violate(now),
            5 => {
                // It says nothing more, and answers nothing.
                self.remote.behaviour = Behaviour::Stall;
                return false;
            }
            _ => self.remote.reset(),
        }
        self.over = true;
        self.ends_whole = how < 5 && !(within_message && self.framing == Framing::Raw);
        true
    }
}
