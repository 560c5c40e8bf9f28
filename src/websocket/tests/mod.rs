//! What a connection does, seen from outside: every sequence of events also byte by byte and at every split.

mod against;
mod closing;
mod compressed;
mod control;
mod messages;
mod sending;

use std::time::{Duration, Instant};

use testkit::websocket::frame_of as frame;

use super::*;
use crate::testing::pieces;

/// An event that outlives its connection. Neighbouring pieces of data are one.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Seen {
    Start(Kind),
    Data(Vec<u8>),
    End,
    Ping(Vec<u8>),
    Pong(Vec<u8>, bool),
    Closed(u16, String),
    Failed(u16),
}

fn note(seen: &mut Vec<Seen>, event: Event<'_>) {
    match event {
        Event::Start(kind) => seen.push(Seen::Start(kind)),
        Event::Data(piece) => {
            assert!(!piece.is_empty(), "a piece of nothing");
            match seen.last_mut() {
                Some(Seen::Data(data)) => data.extend_from_slice(piece),
                _ => seen.push(Seen::Data(piece.to_vec())),
            }
        }
        Event::End => seen.push(Seen::End),
        Event::Ping(payload) => seen.push(Seen::Ping(payload.to_vec())),
        Event::Pong(payload, answers) => seen.push(Seen::Pong(payload.to_vec(), answers)),
        Event::Closed { code, reason } => seen.push(Seen::Closed(code, reason.to_owned())),
        Event::Failed(failure) => {
            assert!(failure.why.len() <= close::REASON_LIMIT);
            // How much of the message came before depends on the pieces.
            if let Some(Seen::Data(_)) = seen.last() {
                seen.pop();
            }
            seen.push(Seen::Failed(failure.code));
        }
    }
}

/// Feeds a copy of `input`, and checks that each call takes a prefix and leaves the rest alone.
fn feed(connection: &mut Connection, input: &[u8], now: Instant, seen: &mut Vec<Seen>) {
    let mut bytes = input.to_vec();
    let mut at = 0;
    loop {
        let (taken, event) = connection.handle_input(&mut bytes[at..], now);
        at += taken;
        let end = event.is_none();
        if let Some(event) = event {
            note(seen, event);
        }
        assert_eq!(bytes[at..], input[at..], "what was not taken is as it was");
        if end && taken == 0 {
            assert_eq!(at, input.len(), "nothing is left over");
            return;
        }
    }
}

/// Everything that waits to be written, written.
fn drain(connection: &mut Connection) -> Vec<u8> {
    let mut out = Vec::new();
    loop {
        let waiting = connection.poll_transmit(&mut Counting::default());
        let count = waiting.len();
        out.extend_from_slice(waiting);
        if count == 0 {
            assert_eq!(connection.queued(), 0);
            return out;
        }
        connection.handle_transmitted(count);
    }
}

/// Keys that differ, and repeat with every run.
#[derive(Default)]
struct Counting(u32);

impl Entropy for Counting {
    fn mask(&mut self) -> [u8; 4] {
        self.0 += 1;
        self.0.wrapping_mul(0x9e37_79b9).to_be_bytes()
    }
}

fn settings(role: Role) -> Settings {
    Settings { role, mask: true, control: Control::Show, max_message: 65_536, deflate: None, ping_interval: None }
}

fn client() -> Settings {
    settings(Role::Client)
}

fn server() -> Settings {
    settings(Role::Server)
}

fn events<'a>(settings: &Settings, pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<Seen> {
    let now = Instant::now();
    let mut connection = Connection::new(settings.clone(), now);
    let mut seen = Vec::new();
    for piece in pieces {
        feed(&mut connection, piece, now, &mut seen);
    }
    seen
}

/// The events of `input` as a whole, after checking that no split changes them.
fn at_every_split(settings: &Settings, input: &[u8]) -> Vec<Seen> {
    pieces::at_every_split(input, |pieces| events(settings, pieces.iter().copied()))
}

/// A frame as a client sends it; `first`: FIN, reserved bits and opcode. A server's is `frame`.
fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    const KEY: [u8; 4] = [0x12, 0x34, 0x56, 0x78];
    let mut out = frame(first, payload);
    let header = out.len() - payload.len();
    out[1] |= 0x80;
    out.truncate(header);
    out.extend_from_slice(&KEY);
    out.extend(payload.iter().zip(KEY.iter().cycle()).map(|(byte, key)| byte ^ key));
    out
}

fn text(payload: &str) -> Vec<Seen> {
    message(Kind::Text, payload.as_bytes())
}

fn message(kind: Kind, payload: &[u8]) -> Vec<Seen> {
    let mut seen = vec![Seen::Start(kind), Seen::Data(payload.to_vec()), Seen::End];
    seen.retain(|seen| *seen != Seen::Data(Vec::new()));
    seen
}

/// A protocol failure with `code`, whatever comes before it.
fn assert_fails(settings: &Settings, input: &[u8], code: u16) {
    let seen = at_every_split(settings, input);
    assert_eq!(seen.last(), Some(&Seen::Failed(code)), "{input:x?}");
}
