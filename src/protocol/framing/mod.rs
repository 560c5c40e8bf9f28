//! Framing on the plugin's side: how messages are told apart in the byte stream between plugin and proxy.
//!
//! Sans-IO. [`Decoder`] reads what the plugin sends, the `encode_` functions write what the remote sent.

mod decode;
mod mesg;

pub use decode::{Decoder, Item};
pub use mesg::{FramingError, encode_close};

use std::io::Write;
use std::net::SocketAddr;

use crate::websocket::Kind;

/// The largest payload of a UDP datagram over IPv4 (65535 less the headers of IP and UDP).
pub const DATAGRAM_LIMIT: usize = 65507;

/// How messages are told apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Framing {
    /// Not at all: a byte stream; what is read at once is one message.
    #[default]
    Raw,
    /// A line is a message.
    Line,
    /// `VERB n` and n bytes are a message; nothing is lost.
    Mesg,
}

impl Framing {
    /// Reads the value of FRAM, in any case.
    pub fn from_name(name: &[u8]) -> Option<Self> {
        [Self::Raw, Self::Line, Self::Mesg]
            .into_iter()
            .find(|framing| name.eq_ignore_ascii_case(framing.name().as_bytes()))
    }

    /// The value of FRAM.
    pub fn name(self) -> &'static str {
        match self {
            Self::Raw => "RAW",
            Self::Line => "LINE",
            Self::Mesg => "MESG",
        }
    }
}

/// With whom a plugin speaks: what MESG's verbs are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// DGRM besides TEXT and BINA.
    Datagrams,
    /// PING and PONG besides TEXT and BINA.
    WebSocket,
}

/// Appends a whole message of `kind` to what the plugin is to read.
pub fn encode_message(framing: Framing, kind: Kind, payload: &[u8], out: &mut Vec<u8>) {
    match framing {
        Framing::Raw => out.extend_from_slice(payload),
        Framing::Line => encode_line(payload, out),
        Framing::Mesg => encode_body(if kind == Kind::Text { "TEXT" } else { "BINA" }, payload, out),
    }
}

/// Appends what has a verb and a body only: TEXT, BINA, PING, PONG, HEAD.
pub fn encode_body(verb: &str, payload: &[u8], out: &mut Vec<u8>) {
    // To memory that cannot fail.
    let _ = writeln!(out, "{verb} {}", payload.len());
    out.extend_from_slice(payload);
}

/// Appends a datagram from `sender` to what the plugin is to read.
pub fn encode_datagram(framing: Framing, payload: &[u8], sender: SocketAddr, out: &mut Vec<u8>) {
    match framing {
        Framing::Raw => out.extend_from_slice(payload),
        Framing::Line => encode_line(payload, out),
        Framing::Mesg => {
            let _ = writeln!(out, "DGRM {} {sender}", payload.len());
            out.extend_from_slice(payload);
        }
    }
}

/// A message as one line: each CRLF, CR and LF inside becomes one space, those at the end go.
fn encode_line(payload: &[u8], out: &mut Vec<u8>) {
    let end = payload.iter().rposition(|&b| b != b'\r' && b != b'\n').map_or(0, |at| at + 1);
    let mut bytes = payload[..end].iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        match byte {
            b'\r' => {
                bytes.next_if_eq(&b'\n');
                out.push(b' ');
            }
            b'\n' => out.push(b' '),
            other => out.push(other),
        }
    }
    out.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(framing: Framing, payload: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        encode_datagram(framing, payload, "192.0.2.1:1900".parse().unwrap(), &mut out);
        out
    }

    #[test]
    fn datagrams_in_every_framing() {
        assert_eq!(encoded(Framing::Raw, b"a\nb"), b"a\nb");
        assert_eq!(encoded(Framing::Line, b"a\r\nb\rc\nd\n\r\n"), b"a b c d\n");
        assert_eq!(encoded(Framing::Line, b"\n"), b"\n");
        assert_eq!(encoded(Framing::Line, b"a\n\rb"), b"a  b\n", "LF and CR are two line ends");
        assert_eq!(encoded(Framing::Mesg, b"a\nb"), b"DGRM 3 192.0.2.1:1900\na\nb");
        assert_eq!(encoded(Framing::Mesg, b""), b"DGRM 0 192.0.2.1:1900\n");
        let mut out = Vec::new();
        encode_datagram(Framing::Mesg, b"x", "[2001:db8::1]:53".parse().unwrap(), &mut out);
        assert_eq!(out, b"DGRM 1 [2001:db8::1]:53\nx");
    }

    #[test]
    fn messages_in_every_framing() {
        let encoded = |framing, kind| {
            let mut out = Vec::new();
            encode_message(framing, kind, b"a\nb", &mut out);
            out
        };
        assert_eq!(encoded(Framing::Raw, Kind::Text), b"a\nb");
        assert_eq!(encoded(Framing::Line, Kind::Binary), b"a b\n");
        assert_eq!(encoded(Framing::Mesg, Kind::Text), b"TEXT 3\na\nb");
        assert_eq!(encoded(Framing::Mesg, Kind::Binary), b"BINA 3\na\nb");
    }

    #[test]
    fn names() {
        for framing in [Framing::Raw, Framing::Line, Framing::Mesg] {
            assert_eq!(Framing::from_name(framing.name().to_lowercase().as_bytes()), Some(framing));
        }
        assert_eq!(Framing::from_name(b"JSON"), None);
    }
}
