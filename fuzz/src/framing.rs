//! Framing on the plugin's side: whatever a plugin sends, in whatever pieces, the same messages come of it, and what
//! is written is read again as it was.
//!
//! Input: how it is split, the framing, and what the plugin sends.

use sockproxyd::protocol::framing::{DATAGRAM_LIMIT, Decoder, Dialect, Framing, FramingError, Item, encode_datagram};
use sockproxyd::websocket::Kind;

use super::input::{Input, expand, pieces};

/// Longest header of MESG framing.
const HEADER: usize = 64;

/// The target's body.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let (split, kind) = (input.byte(), input.byte());
    let text = expand(input.rest());
    match kind % 4 {
        0 => {
            let items = decode(Framing::Raw, &pieces(&text, split));
            assert_eq!(items.iter().flat_map(payload).copied().collect::<Vec<u8>>(), text, "a byte stream");
        }
        1 => {
            let whole = decode(Framing::Line, &[&text]);
            assert_eq!(whole, lines(&text), "the reference differs");
            assert_eq!(decode(Framing::Line, &pieces(&text, split)), whole, "the split matters");
        }
        2 => {
            let whole = decode(Framing::Mesg, &[&text]);
            assert_eq!(decode(Framing::Mesg, &pieces(&text, split)), whole, "the split matters");
        }
        _ => to_plugin(&text),
    }
}

type Items = Vec<Result<Item, FramingError>>;

fn decode(framing: Framing, pieces: &[&[u8]]) -> Items {
    let mut decoder = Decoder::new(framing, Dialect::Datagrams, DATAGRAM_LIMIT);
    let mut items = Items::new();
    for piece in pieces {
        decoder.handle_input(piece);
        while !matches!(items.last(), Some(Err(_) | Ok(Item::Close { .. }))) {
            match decoder.poll_item() {
                Some(item) => items.push(item),
                None => {
                    let most = 2 * DATAGRAM_LIMIT + HEADER;
                    assert!(decoder.buffered() <= most, "{} bytes are held", decoder.buffered());
                    break;
                }
            }
        }
    }
    for item in items.iter().flatten() {
        match item {
            Item::Message { payload, .. } => assert!(framing == Framing::Raw || payload.len() <= DATAGRAM_LIMIT),
            Item::Ping(_) | Item::Pong(_) => panic!("datagrams have neither"),
            Item::Close { code, reason } => {
                assert!(matches!(code, 1000..=1003 | 1005 | 1007..=1014 | 3000..=4999) && reason.len() <= 123);
            }
        }
    }
    items
}

fn payload(item: &Result<Item, FramingError>) -> &[u8] {
    match item {
        Ok(Item::Message { payload, to: None, .. }) => payload,
        other => panic!("a byte stream holds {other:?}"),
    }
}

/// LINE as the protocol has it, in the plainest way.
fn lines(text: &[u8]) -> Items {
    let mut items = Items::new();
    let mut rest = text;
    while let Some(end) = rest.iter().position(|&byte| byte == b'\n') {
        let line = rest[..end].strip_suffix(b"\r").unwrap_or(&rest[..end]);
        rest = &rest[end + 1..];
        if line.len() > DATAGRAM_LIMIT {
            items.push(Err(FramingError::TooLong));
            return items;
        }
        if !line.is_empty() {
            items.push(Ok(Item::Message { kind: Kind::Text, payload: line.to_vec(), to: None }));
        }
    }
    // Longer than any line with its CR, so that no newline can save it.
    if rest.len() > DATAGRAM_LIMIT + 1 {
        items.push(Err(FramingError::TooLong));
    }
    items
}

/// A datagram, as the plugin reads it.
fn to_plugin(text: &[u8]) {
    let datagram = &text[..text.len().min(DATAGRAM_LIMIT)];
    let sender = "192.0.2.1:1900".parse().expect("an address");
    let encoded = |framing| {
        let mut out = Vec::new();
        encode_datagram(framing, datagram, sender, &mut out);
        out
    };
    assert_eq!(encoded(Framing::Raw), datagram);
    let line = encoded(Framing::Line);
    let Some((b'\n', inside)) = line.split_last() else { panic!("a line ends") };
    assert!(!inside.iter().any(|&byte| byte == b'\n' || byte == b'\r'), "a line is one");
    assert!(inside.len() <= datagram.len());
    let message = encoded(Framing::Mesg);
    let items = decode(Framing::Mesg, &[&message]);
    assert_eq!(
        items,
        [Ok(Item::Message { kind: Kind::Binary, payload: datagram.to_vec(), to: Some(sender) })],
        "written and read"
    );
}
