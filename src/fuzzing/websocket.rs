//! An open WebSocket: whatever the peer sends, in whatever pieces, the same comes of it, within the limits; what a plain
//! reading of the RFC makes of it, too; and what we answer can be read, and so can the same messages when we send them.
//!
//! Input: how it is split, the settings, and what the peer sends.

use std::time::Instant;

use crate::testing::TestEntropy;
use crate::websocket::{Connection, Control, Deflate, Event, Kind, Leniency, Role, WebSocketSettings};

use super::input::{Input, expand, pieces};

/// More than that never waits to be written: the pongs to the latest pings and a close frame, all of the longest kind,
/// with headers.
const WAITING: usize = (32 + 1) * (125 + 6);

/// The target's body.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let (split, mode) = (input.byte(), input.byte());
    let text = expand(input.rest());
    let settings = settings(mode);
    let whole = read(&settings, &[&text]);
    assert_eq!(read(&settings, &pieces(&text, split)), whole, "the split matters");
    if settings.deflate.is_none() {
        assert_eq!(plainly(&settings, &text), whole, "the reference differs");
    }
    send_back(&settings, &whole.messages);
}

/// The messages, and all of them as one, can be read by the peer: compressed if that was agreed on.
fn send_back(settings: &WebSocketSettings, messages: &[Vec<u8>]) {
    let now = Instant::now();
    let mut keys = TestEntropy::default();
    let mut connection = Connection::new(settings.clone(), now);
    let messages = [messages, &[messages.concat()]].concat();
    for message in &messages {
        connection.send(Kind::Binary, message, true, &mut keys).expect("it is open");
    }
    let mut sent = connection.poll_transmit(&mut keys).to_vec();
    let mut peer = Connection::new(peer(settings), now);
    let (mut at, mut came, mut open) = (0, Vec::new(), Vec::new());
    loop {
        let (taken, event) = peer.handle_input(&mut sent[at..], now);
        at += taken;
        match event {
            None if taken == 0 => break,
            None | Some(Event::Start { .. }) => {}
            Some(Event::Data(piece)) => open.extend_from_slice(piece),
            Some(Event::End) => came.push(std::mem::take(&mut open)),
            Some(event) => panic!("we send {event:?}"),
        }
    }
    assert!(came == messages, "the peer reads other messages");
}

/// The settings of the other end.
fn peer(settings: &WebSocketSettings) -> WebSocketSettings {
    WebSocketSettings {
        role: if settings.role == Role::Client { Role::Server } else { Role::Client },
        control: Control::Show,
        max_message: u64::MAX,
        deflate: settings.deflate.map(|deflate| Deflate {
            peer_window_bits: deflate.own_window_bits,
            peer_no_context_takeover: deflate.own_no_context_takeover,
            own_window_bits: deflate.peer_window_bits,
            own_no_context_takeover: deflate.peer_no_context_takeover,
        }),
        ..settings.clone()
    }
}

fn settings(mode: u8) -> WebSocketSettings {
    WebSocketSettings {
        role: if mode & 1 == 0 { Role::Client } else { Role::Server },
        mask: true,
        control: if mode & 2 == 0 { Control::Show } else { Control::Hand },
        max_message: [65_536, 10, 300, u64::MAX][usize::from(mode >> 2) % 4],
        leniency: leniency(mode),
        deflate: (mode & 16 != 0).then_some(Deflate {
            peer_window_bits: if mode & 64 == 0 { 15 } else { 9 },
            peer_no_context_takeover: mode & 32 != 0,
            own_window_bits: 8 + (mode >> 5),
            own_no_context_takeover: true,
        }),
        ping_interval: None,
    }
}

/// What the peer may get wrong: all, or nothing.
fn leniency(mode: u8) -> Leniency {
    let is_lenient = mode & 128 != 0;
    Leniency { utf8: is_lenient, mask: is_lenient }
}

/// What came, but for the data of a message that is not complete: how much of it there is depends on the pieces.
#[derive(Debug, Default, PartialEq, Eq)]
struct Came {
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

fn read(settings: &WebSocketSettings, pieces: &[&[u8]]) -> Came {
    let now = Instant::now();
    let mut connection = Connection::new(settings.clone(), now);
    let mut came = Came::default();
    let mut open: Option<(Kind, Vec<u8>)> = None;
    let mut announced = None;
    let mut answers = Vec::new();
    let mut keys = TestEntropy::default();
    for piece in pieces {
        let mut bytes = piece.to_vec();
        let mut at = 0;
        loop {
            let (taken, event) = connection.handle_input(&mut bytes[at..], now);
            at += taken;
            assert!(!matches!(came.order.last(), Some(Step::Closed(..) | Step::Failed(_))) || event.is_none());
            match event {
                None if taken == 0 => break,
                None => {}
                Some(Event::Start { kind, length }) => {
                    assert!(open.replace((kind, Vec::new())).is_none(), "a message inside a message");
                    assert!(length.is_none_or(|length| length <= settings.max_message), "{length:?} is too long");
                    announced = length;
                    came.order.push(Step::Start(kind));
                }
                Some(Event::Data(piece)) => {
                    let (_, data) = open.as_mut().expect("data is a message's");
                    assert!(!piece.is_empty(), "a piece of nothing");
                    data.extend_from_slice(piece);
                    let limit = announced.unwrap_or(settings.max_message);
                    assert!(data.len() as u64 <= limit, "{} bytes are too long", data.len());
                }
                Some(Event::End) => {
                    let (kind, data) = open.take().expect("an end is a message's");
                    assert!(announced.is_none_or(|length| length == data.len() as u64), "another length was announced");
                    let is_free = kind == Kind::Binary || settings.leniency.utf8;
                    assert!(is_free || std::str::from_utf8(&data).is_ok(), "text is UTF-8");
                    came.messages.push(data);
                    came.order.push(Step::End);
                }
                Some(Event::Ping(payload)) => came.order.push(Step::Ping(payload.to_vec())),
                Some(Event::Pong(payload, answers)) => {
                    assert!(!answers, "nobody asked");
                    came.order.push(Step::Pong(payload.to_vec()));
                }
                Some(Event::Closed { code, reason }) => came.order.push(Step::Closed(code, reason.into())),
                Some(Event::InvalidClose { error, reason, .. }) => {
                    assert!(reason.len() <= 123);
                    came.order.push(Step::Failed(error.code));
                }
                Some(Event::Failed(failure)) => came.order.push(Step::Failed(failure.code)),
            }
        }
        assert_eq!(at, bytes.len(), "something is left over");
        let waiting = connection.poll_transmit(&mut keys).len();
        assert!(waiting <= WAITING, "{waiting} bytes wait");
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
    check_answers(settings, &answers, &came);
    came
}

/// The peer can read what we answer: pongs, and a close frame where it is due.
fn check_answers(settings: &WebSocketSettings, answers: &[u8], came: &Came) {
    let mut peer = Connection::new(peer(settings), Instant::now());
    let mut bytes = answers.to_vec();
    let (mut at, mut closed) = (0, None);
    loop {
        let (taken, event) = peer.handle_input(&mut bytes[at..], Instant::now());
        at += taken;
        match event {
            None if taken == 0 => break,
            None => {}
            Some(Event::Pong(payload, _)) => {
                assert!(settings.control != Control::Hand, "the plugin answers");
                assert!(came.order.contains(&Step::Ping(payload.to_vec())), "a pong answers a ping");
            }
            Some(Event::Closed { code, .. }) => closed = Some(code),
            Some(event) => panic!("we answer {event:?}"),
        }
    }
    match came.order.last() {
        Some(Step::Closed(code, _) | Step::Failed(code)) => assert_eq!(closed, Some(*code), "a close is answered"),
        _ => assert_eq!(closed, None, "nothing to answer"),
    }
}

/// RFC 6455 sections 5 to 8 in the plainest way, without compression, for all that came at once.
fn plainly(settings: &WebSocketSettings, mut rest: &[u8]) -> Came {
    let mut came = Came::default();
    let mut open: Option<(Kind, Vec<u8>)> = None;
    let mut announced = 0u64;
    loop {
        let Some((header, payload, after)) = frame(rest) else { return came };
        rest = after;
        let fail = |mut came: Came, code| {
            came.order.push(Step::Failed(code));
            came
        };
        let Header { first, masked, length } = match header {
            Ok(header) => header,
            Err(code) => return fail(came, code),
        };
        if masked != (settings.role == Role::Server) && !(masked && settings.leniency.mask) {
            return fail(came, 1002);
        }
        let (fin, opcode) = (first & 0x80 != 0, first & 15);
        let complete = payload.len() as u64 == length;
        if opcode >= 8 {
            if !complete {
                return came;
            }
            match opcode {
                9 => came.order.push(Step::Ping(payload)),
                10 => came.order.push(Step::Pong(payload)),
                _ => match (payload.len(), payload.first_chunk().map(|code| u16::from_be_bytes(*code))) {
                    (0, _) => came.order.push(Step::Closed(1005, Vec::new())),
                    (_, Some(code @ (1000..=1003 | 1007..=1014 | 3000..=4999))) => {
                        let reason = payload[2..].to_vec();
                        let valid = settings.leniency.utf8 || std::str::from_utf8(&reason).is_ok();
                        came.order.push(if valid { Step::Closed(code, reason) } else { Step::Failed(1007) });
                    }
                    _ => came.order.push(Step::Failed(1002)),
                },
            }
            if opcode == 8 {
                return came;
            }
            continue;
        }
        let kind = match opcode {
            0 => None,
            1 => Some(Kind::Text),
            _ => Some(Kind::Binary),
        };
        if kind.is_some() == open.is_some() {
            return fail(came, 1002);
        }
        announced = if kind.is_some() { length } else { announced.saturating_add(length) };
        if announced > settings.max_message {
            return fail(came, 1009);
        }
        if let Some(kind) = kind {
            came.order.push(Step::Start(kind));
            open = Some((kind, Vec::new()));
        }
        let (kind, data) = open.as_mut().expect("it is open");
        data.extend_from_slice(&payload);
        let ends = fin && complete;
        if let (Kind::Text, Err(error)) = (*kind, std::str::from_utf8(data))
            && (ends || error.error_len().is_some())
            && !settings.leniency.utf8
        {
            return fail(came, 1007);
        }
        if !complete {
            return came;
        }
        if fin {
            came.order.push(Step::End);
            came.messages.extend(open.take().map(|(_, data)| data));
        }
    }
}

struct Header {
    first: u8,
    masked: bool,
    length: u64,
}

/// The header (or the code that a bad one fails with), what is there of the payload, unmasked, and what comes behind it.
type Frame<'a> = (Result<Header, u16>, Vec<u8>, &'a [u8]);

/// The next frame; `None`: its header is not there whole.
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
    // Compressed where nothing was agreed on.
    if first & 0x40 != 0 {
        return bad;
    }
    let there = bytes.len() - at;
    let end = at + usize::try_from(length).unwrap_or(usize::MAX).min(there);
    let payload = bytes[at..end].iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key).collect();
    Some((Ok(Header { first, masked, length }), payload, &bytes[end..]))
}
