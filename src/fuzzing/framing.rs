//! Framing on the plugin's side: whatever a plugin sends, in whatever pieces, the same messages come of it, and what
//! is written is read again as it was.
//!
//! Input: how it is split, the framing, and what the plugin sends.

use std::net::SocketAddr;

use crate::protocol::framing::{
    Decoder, Framing, FramingError, FramingKind, Item, LineEncoder, MAX_DATAGRAM_LEN, MAX_HEADER_LEN, encode_datagram,
};
use crate::websocket::Kind;

use super::input::{Input, expand, pieces};

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

/// What was said, kept.
#[derive(Debug, PartialEq, Eq)]
enum Said {
    Message(Kind, Vec<u8>, Option<SocketAddr>),
    Close(u16, String),
    Wrong(FramingError),
}

type Items = Vec<Said>;

fn decode(framing: Framing, pieces: &[&[u8]]) -> Items {
    let mut decoder = Decoder::new(framing, FramingKind::Datagrams, MAX_DATAGRAM_LEN);
    let mut items = Items::new();
    for piece in pieces {
        decoder.handle_input(piece);
        while !matches!(items.last(), Some(Said::Wrong(_) | Said::Close(..))) {
            let Some(item) = decoder.poll_item() else {
                let most = 2 * MAX_DATAGRAM_LEN + MAX_HEADER_LEN;
                assert!(decoder.buffered() <= most, "{} bytes are held", decoder.buffered());
                break;
            };
            items.push(match item {
                Ok(Item::Message { kind, payload, to }) => {
                    assert!(framing == Framing::Raw || payload.len() <= MAX_DATAGRAM_LEN);
                    Said::Message(kind, payload.to_vec(), to)
                }
                Ok(Item::Ping(_) | Item::Pong(_)) => panic!("datagrams have neither"),
                Ok(Item::Close { code, reason }) => {
                    assert!(matches!(code, 1000..=1003 | 1005 | 1007..=1014 | 3000..=4999) && reason.len() <= 123);
                    Said::Close(code, reason.to_owned())
                }
                Err(error) => Said::Wrong(error),
            });
        }
    }
    items
}

fn payload(said: &Said) -> &[u8] {
    match said {
        Said::Message(_, payload, None) => payload,
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
        if line.len() > MAX_DATAGRAM_LEN {
            items.push(Said::Wrong(FramingError::TooLong));
            return items;
        }
        if !line.is_empty() {
            items.push(Said::Message(Kind::Text, line.to_vec(), None));
        }
    }
    // Longer than any line with its CR, so that no newline can save it.
    if rest.len() > MAX_DATAGRAM_LEN + 1 {
        items.push(Said::Wrong(FramingError::TooLong));
    }
    items
}

/// A datagram, as the plugin reads it.
fn to_plugin(text: &[u8]) {
    let datagram = &text[..text.len().min(MAX_DATAGRAM_LEN)];
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
    for split in [1, text.len() as u8] {
        let (mut encoder, mut pieced) = (LineEncoder::new(usize::MAX), Vec::new());
        pieces(datagram, split).iter().for_each(|piece| encoder.encode(piece, &mut pieced));
        encoder.finish(&mut pieced);
        assert_eq!(pieced, line, "the split matters");
    }
    let message = encoded(Framing::Mesg);
    let items = decode(Framing::Mesg, &[&message]);
    assert_eq!(items, [Said::Message(Kind::Binary, datagram.to_vec(), Some(sender))], "written and read");
}
