//! An open WebSocket: any bytes of the peer, in any pieces, have the same result, within the limits. A simple reference
//! implementation of the RFC agrees, and the answers are valid.
//!
//! Input: the split, the settings, and the peer's bytes.

use std::time::Instant;

use sockproxyd::testing::TestEntropy;
use sockproxyd::websocket::{Connection, Control, Deflate, Event, Kind, Role, WebSocketSettings};

use super::input::{Input, expand, pieces};

/// The maximum of unsent bytes: the pongs to the latest pings and a close frame, all of the longest kind, with headers.
const MAX_UNSENT: usize = (32 + 1) * (125 + 6);

/// The body of the target.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let (split, mode) = (input.byte(), input.byte());
    let text = expand(input.rest());
    let settings = settings(mode);
    let whole = read(&settings, &[&text]);
    assert_eq!(read(&settings, &pieces(&text, split)), whole, "the result depends on the split");
    if settings.deflate.is_none() {
        assert_eq!(reference(&settings, &text), whole, "the reference implementation differs");
    }
}

fn settings(mode: u8) -> WebSocketSettings {
    WebSocketSettings {
        role: if mode & 1 == 0 { Role::Client } else { Role::Server },
        mask: true,
        control: if mode & 2 == 0 { Control::Show } else { Control::Hand },
        max_message: [65_536, 10, 300, u64::MAX][usize::from(mode >> 2) % 4],
        deflate: (mode & 16 != 0).then_some(Deflate {
            peer_window_bits: if mode & 64 == 0 { 15 } else { 9 },
            peer_no_context_takeover: mode & 32 != 0,
            own_window_bits: 15,
            own_no_context_takeover: true,
        }),
        ping_interval: None,
    }
}

/// The result of a run, without the data of an incomplete message, whose length depends on the split.
#[derive(Debug, Default, PartialEq, Eq)]
struct Received {
    order: Vec<Step>,
    messages: Vec<Vec<u8>>,
}

#[derive(Debug, PartialEq, Eq)]
enum Step {
    Start(Kind),
    End,
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Closed(u16, Vec<u8>),
    Failed(u16),
}

fn read(settings: &WebSocketSettings, pieces: &[&[u8]]) -> Received {
    let now = Instant::now();
    let mut connection = Connection::new(settings.clone(), now);
    let mut received = Received::default();
    let mut open: Option<(Kind, Vec<u8>)> = None;
    let mut answers = Vec::new();
    let mut keys = TestEntropy::default();
    for piece in pieces {
        let mut bytes = piece.to_vec();
        let mut at = 0;
        loop {
            let (taken, event) = connection.handle_input(&mut bytes[at..], now);
            at += taken;
            assert!(!matches!(received.order.last(), Some(Step::Closed(..) | Step::Failed(_))) || event.is_none());
            match event {
                None if taken == 0 => break,
                None => {}
                Some(Event::Start(kind)) => {
                    assert!(open.replace((kind, Vec::new())).is_none(), "a message begins within a message");
                    received.order.push(Step::Start(kind));
                }
                Some(Event::Data(piece)) => {
                    let (_, data) = open.as_mut().expect("data belongs to a message");
                    assert!(!piece.is_empty(), "an empty piece");
                    data.extend_from_slice(piece);
                    assert!(data.len() as u64 <= settings.max_message, "{} bytes are too long", data.len());
                }
                Some(Event::End) => {
                    let (kind, data) = open.take().expect("an end belongs to a message");
                    assert!(kind == Kind::Binary || std::str::from_utf8(&data).is_ok(), "text is UTF-8");
                    received.messages.push(data);
                    received.order.push(Step::End);
                }
                Some(Event::Ping(payload)) => received.order.push(Step::Ping(payload.to_vec())),
                Some(Event::Pong(payload, answers)) => {
                    assert!(!answers, "a pong event although pongs are consumed");
                    received.order.push(Step::Pong(payload.to_vec()));
                }
                Some(Event::Closed { code, reason }) => received.order.push(Step::Closed(code, reason.into())),
                Some(Event::Failed(failure)) => received.order.push(Step::Failed(failure.code)),
            }
        }
        assert_eq!(at, bytes.len(), "bytes are left over");
        let waiting = connection.poll_transmit(&mut keys).len();
        assert!(waiting <= MAX_UNSENT, "{waiting} bytes are unsent");
    }
    loop {
        let waiting = connection.poll_transmit(&mut keys);
        let count = waiting.len();
        answers.extend_from_slice(waiting);
        if count == 0 {
            break;
        }
        connection.handle_transmitted(count);
    }
    check_answers(settings, &answers, &received);
    received
}

/// Checks that the answers are valid: pongs, and a close frame if one is due.
fn check_answers(settings: &WebSocketSettings, answers: &[u8], received: &Received) {
    let role = if settings.role == Role::Client { Role::Server } else { Role::Client };
    let mut peer =
        Connection::new(WebSocketSettings { role, control: Control::Show, ..settings.clone() }, Instant::now());
    let mut bytes = answers.to_vec();
    let (mut at, mut closed) = (0, None);
    loop {
        let (taken, event) = peer.handle_input(&mut bytes[at..], Instant::now());
        at += taken;
        match event {
            None if taken == 0 => break,
            None => {}
            Some(Event::Pong(payload, _)) => {
                assert!(settings.control != Control::Hand, "the plugin answers pings itself");
                assert!(received.order.contains(&Step::Ping(payload.to_vec())), "a pong answers a ping");
            }
            Some(Event::Closed { code, .. }) => closed = Some(code),
            Some(event) => panic!("the answer is {event:?}"),
        }
    }
    match received.order.last() {
        Some(Step::Closed(code, _) | Step::Failed(code)) => assert_eq!(closed, Some(*code), "a close is answered"),
        _ => assert_eq!(closed, None, "a close frame without a reason"),
    }
}

/// The reference implementation of RFC 6455 sections 5 to 8, without compression, for input in one piece.
fn reference(settings: &WebSocketSettings, mut rest: &[u8]) -> Received {
    let mut received = Received::default();
    let mut open: Option<(Kind, Vec<u8>)> = None;
    let mut announced = 0u64;
    loop {
        let Some((header, payload, after)) = frame(rest) else { return received };
        rest = after;
        let fail = |mut received: Received, code| {
            received.order.push(Step::Failed(code));
            received
        };
        let Header { first, masked, length } = match header {
            Ok(header) => header,
            Err(code) => return fail(received, code),
        };
        if masked != (settings.role == Role::Server) {
            return fail(received, 1002);
        }
        let (fin, opcode) = (first & 0x80 != 0, first & 15);
        let complete = payload.len() as u64 == length;
        if opcode >= 8 {
            if !complete {
                return received;
            }
            match opcode {
                9 => received.order.push(Step::Ping(payload)),
                10 => received.order.push(Step::Pong(payload)),
                _ => match (payload.len(), payload.first_chunk().map(|code| u16::from_be_bytes(*code))) {
                    (0, _) => received.order.push(Step::Closed(1005, Vec::new())),
                    (_, Some(code @ (1000..=1003 | 1007..=1014 | 3000..=4999))) => {
                        let reason = payload[2..].to_vec();
                        let valid = std::str::from_utf8(&reason).is_ok();
                        received.order.push(if valid { Step::Closed(code, reason) } else { Step::Failed(1007) });
                    }
                    _ => received.order.push(Step::Failed(1002)),
                },
            }
            if opcode == 8 {
                return received;
            }
            continue;
        }
        let kind = match opcode {
            0 => None,
            1 => Some(Kind::Text),
            _ => Some(Kind::Binary),
        };
        if kind.is_some() == open.is_some() {
            return fail(received, 1002);
        }
        announced = if kind.is_some() { length } else { announced.saturating_add(length) };
        if announced > settings.max_message {
            return fail(received, 1009);
        }
        if let Some(kind) = kind {
            received.order.push(Step::Start(kind));
            open = Some((kind, Vec::new()));
        }
        let (kind, data) = open.as_mut().expect("a message is open");
        data.extend_from_slice(&payload);
        let ends = fin && complete;
        if let (Kind::Text, Err(error)) = (*kind, std::str::from_utf8(data))
            && (ends || error.error_len().is_some())
        {
            return fail(received, 1007);
        }
        if !complete {
            return received;
        }
        if fin {
            received.order.push(Step::End);
            received.messages.extend(open.take().map(|(_, data)| data));
        }
    }
}

struct Header {
    first: u8,
    masked: bool,
    length: u64,
}

/// The header, or the close code for an invalid one; the available payload, unmasked; and the bytes behind it.
type Frame<'a> = (Result<Header, u16>, Vec<u8>, &'a [u8]);

/// Parses the next frame. None if its header is incomplete.
fn frame(bytes: &[u8]) -> Option<Frame<'_>> {
    let (first, second) = (*bytes.first()?, *bytes.get(1)?);
    let bad = Some((Err(1002), Vec::new(), &[][..]));
    if first & 0x70 != 0 && (first & 0x30 != 0 || first & 15 >= 8) || !matches!(first & 15, 0..=2 | 8..=10) {
        return bad;
    }
    if first & 15 >= 8 && (first & 0x80 == 0 || second & 127 > 125) {
        return bad;
    }
    let mut at = 2;
    let length = match second & 127 {
        126 => {
            at = 4;
            u64::from(u16::from_be_bytes(*bytes.get(2..)?.first_chunk()?))
        }
        127 => {
            at = 10;
            u64::from_be_bytes(*bytes.get(2..)?.first_chunk()?)
        }
        short => u64::from(short),
    };
    if (at == 4 && length < 126) || (at == 10 && length < 65_536) || length >> 63 != 0 {
        return bad;
    }
    let masked = second & 128 != 0;
    let mut key = [0; 4];
    if masked {
        key = *bytes.get(at..)?.first_chunk()?;
        at += 4;
    }
    // Compressed without a negotiated extension.
    if first & 0x40 != 0 {
        return bad;
    }
    let there = bytes.len() - at;
    let end = at + usize::try_from(length).unwrap_or(usize::MAX).min(there);
    let payload = bytes[at..end].iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key).collect();
    Some((Ok(Header { first, masked, length }), payload, &bytes[end..]))
}
