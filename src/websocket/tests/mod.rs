//! Tests of [`Connection`] from outside. Each sequence of events is also checked byte by byte and at every split.

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

/// An owned [`Event`]. Adjacent pieces of data are joined.
#[derive(Clone, Debug, PartialEq, Eq)]
enum OwnedEvent {
    Start(Kind),
    Data(Vec<u8>),
    End,
    Ping(Vec<u8>),
    Pong(Vec<u8>, bool),
    Closed(u16, String),
    InvalidClose(u16, u16, Vec<u8>),
    Failed(u16),
}

fn record(seen: &mut Vec<OwnedEvent>, event: Event<'_>) {
    match event {
        Event::Start { kind, .. } => seen.push(OwnedEvent::Start(kind)),
        Event::Data(piece) => {
            assert!(!piece.is_empty(), "an empty piece");
            match seen.last_mut() {
                Some(OwnedEvent::Data(data)) => data.extend_from_slice(piece),
                _ => seen.push(OwnedEvent::Data(piece.to_vec())),
            }
        }
        Event::End => seen.push(OwnedEvent::End),
        Event::Ping(payload) => seen.push(OwnedEvent::Ping(payload.to_vec())),
        Event::Pong(payload, answers) => seen.push(OwnedEvent::Pong(payload.to_vec(), answers)),
        Event::Closed { code, reason } => {
            seen.push(OwnedEvent::Closed(code, String::from_utf8_lossy(reason).into_owned()));
        }
        Event::InvalidClose { error, code, reason } => {
            seen.push(OwnedEvent::InvalidClose(error.code, code, reason.to_vec()));
        }
        Event::Failed(error) => {
            assert!(error.reason.len() <= close::MAX_CLOSE_REASON);
            // How much of the message was reported before depends on the pieces.
            if let Some(OwnedEvent::Data(_)) = seen.last() {
                seen.pop();
            }
            seen.push(OwnedEvent::Failed(error.code));
        }
    }
}

/// Feeds a copy of `input`. Checks that each call consumes a prefix and leaves the rest unchanged.
fn feed(connection: &mut Connection, input: &[u8], now: Instant, seen: &mut Vec<OwnedEvent>) {
    let mut bytes = input.to_vec();
    let mut at = 0;
    loop {
        let (taken, event) = connection.handle_input(&mut bytes[at..], now);
        at += taken;
        let end = event.is_none();
        if let Some(event) = event {
            record(seen, event);
        }
        assert_eq!(bytes[at..], input[at..], "bytes that were not consumed are unchanged");
        if end && taken == 0 {
            assert_eq!(at, input.len(), "all input is consumed");
            return;
        }
    }
}

/// Writes all that waits to be written, and returns it.
fn drain(connection: &mut Connection) -> Vec<u8> {
    let mut out = Vec::new();
    loop {
        let pending = connection.poll_transmit(&mut Counting::default());
        let count = pending.len();
        out.extend_from_slice(pending);
        if count == 0 {
            assert_eq!(connection.queued(), 0);
            return out;
        }
        connection.handle_transmitted(count);
    }
}

/// Masking keys that differ and are the same in every run.
#[derive(Default)]
struct Counting(u32);

impl Entropy for Counting {
    fn mask(&mut self) -> [u8; 4] {
        self.0 += 1;
        self.0.wrapping_mul(0x9e37_79b9).to_be_bytes()
    }
}

pub(super) fn settings(role: Role) -> WebSocketSettings {
    WebSocketSettings {
        role,
        mask: true,
        control: Control::Show,
        max_message: 65_536,
        leniency: Leniency::default(),
        deflate: None,
        ping_interval: None,
    }
}

fn client() -> WebSocketSettings {
    settings(Role::Client)
}

fn server() -> WebSocketSettings {
    settings(Role::Server)
}

fn events<'a>(settings: &WebSocketSettings, pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<OwnedEvent> {
    let now = Instant::now();
    let mut connection = Connection::new(settings.clone(), now);
    let mut seen = Vec::new();
    for piece in pieces {
        feed(&mut connection, piece, now, &mut seen);
    }
    seen
}

/// The events of the whole `input`, after checking that no split changes them.
fn at_every_split(settings: &WebSocketSettings, input: &[u8]) -> Vec<OwnedEvent> {
    pieces::at_every_split(input, |pieces| events(settings, pieces.iter().copied()))
}

/// A frame as a client sends it. `first`: FIN, reserved bits and opcode. `frame` makes a server's.
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

fn text(payload: &str) -> Vec<OwnedEvent> {
    message(Kind::Text, payload.as_bytes())
}

fn message(kind: Kind, payload: &[u8]) -> Vec<OwnedEvent> {
    let mut seen = vec![OwnedEvent::Start(kind), OwnedEvent::Data(payload.to_vec()), OwnedEvent::End];
    seen.retain(|seen| *seen != OwnedEvent::Data(Vec::new()));
    seen
}

/// Asserts that `input` ends in a protocol error with `code`.
fn assert_fails(settings: &WebSocketSettings, input: &[u8], code: u16) {
    let seen = at_every_split(settings, input);
    assert_eq!(seen.last(), Some(&OwnedEvent::Failed(code)), "{input:x?}");
}
