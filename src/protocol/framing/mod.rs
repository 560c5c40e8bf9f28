//! Framing: how messages are delimited in the byte stream between plugin and proxy. Sans-IO.
//!
//! [`Decoder`] decodes the messages of the plugin. The `encode_` functions encode the messages of the remote, and
//! [`message_len`] finds the end of an encoded message.

mod decode;
mod mesg;

pub(crate) use decode::{Decoder, Item};
pub(crate) use mesg::{FramingError, MAX_HEADER_LEN, encode_close};

use std::io::Write;
use std::net::SocketAddr;

use crate::websocket::Kind;

/// Largest payload of a UDP datagram over IPv4, in bytes: 65535 without the headers of IP and UDP.
pub(crate) const MAX_DATAGRAM_LEN: usize = 65507;

/// FRAM: how messages are delimited on the plugin's side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    /// Not delimited: a byte stream. The bytes of one read are one message.
    Raw,
    /// A message is a line.
    Line,
    /// A message is the header line `VERB n` and n bytes. Messages pass unchanged, with their kind.
    Mesg,
}

impl Framing {
    /// Parses the value of FRAM, in any case.
    pub(crate) fn from_name(name: &[u8]) -> Option<Self> {
        [Self::Raw, Self::Line, Self::Mesg]
            .into_iter()
            .find(|framing| name.eq_ignore_ascii_case(framing.name().as_bytes()))
    }

    /// The value of FRAM.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Raw => "RAW",
            Self::Line => "LINE",
            Self::Mesg => "MESG",
        }
    }
}

/// The kind of remote, which determines the verbs of MESG.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FramingKind {
    /// DGRM besides TEXT and BINA.
    Datagrams,
    /// PING and PONG besides TEXT and BINA.
    WebSocket,
}

/// The length in bytes, header included, of the encoded message that begins at the first of `bytes`. `None`: its header,
/// or in LINE its end, is not among `bytes` yet. The message itself may end after `bytes`.
///
/// In RAW every byte counts as a message. In MESG, [`MAX_HEADER_LEN`] bytes without a newline, which no `encode_`
/// function writes, count as a message.
pub(crate) fn message_len<'a>(framing: Framing, bytes: impl IntoIterator<Item = &'a u8>) -> Option<usize> {
    let mut bytes = bytes.into_iter();
    match framing {
        Framing::Raw => bytes.next().map(|_| 1),
        Framing::Line => bytes.position(|&byte| byte == b'\n').map(|at| at + 1),
        Framing::Mesg => mesg::message_len(bytes.copied()),
    }
}

/// Appends a whole message of `kind` to the bytes for the plugin.
pub(crate) fn encode_message(framing: Framing, kind: Kind, payload: &[u8], out: &mut Vec<u8>) {
    match framing {
        Framing::Raw => out.extend_from_slice(payload),
        Framing::Line => encode_line(payload, out),
        Framing::Mesg => encode_body(message_verb(kind), payload, out),
    }
}

/// Appends the header of a message of `kind` in MESG. `length` bytes of payload must follow.
pub(crate) fn encode_message_header(kind: Kind, length: usize, out: &mut Vec<u8>) {
    encode_header(message_verb(kind), length, out);
}

/// Appends a message that has only a verb and a body: TEXT, BINA, PING, PONG, HEAD.
pub(crate) fn encode_body(verb: &str, payload: &[u8], out: &mut Vec<u8>) {
    encode_header(verb, payload.len(), out);
    out.extend_from_slice(payload);
}

fn encode_header(verb: &str, length: usize, out: &mut Vec<u8>) {
    // Writing to memory cannot fail.
    let _ = writeln!(out, "{verb} {length}");
}

fn message_verb(kind: Kind) -> &'static str {
    match kind {
        Kind::Text => "TEXT",
        Kind::Binary => "BINA",
    }
}

/// Appends a datagram from `sender` to the bytes for the plugin.
pub(crate) fn encode_datagram(framing: Framing, payload: &[u8], sender: SocketAddr, out: &mut Vec<u8>) {
    match framing {
        Framing::Raw => out.extend_from_slice(payload),
        Framing::Line => encode_line(payload, out),
        Framing::Mesg => {
            let _ = writeln!(out, "DGRM {} {sender}", payload.len());
            out.extend_from_slice(payload);
        }
    }
}

/// Appends a message as one line.
fn encode_line(payload: &[u8], out: &mut Vec<u8>) {
    let mut encoder = LineEncoder::new(usize::MAX);
    encoder.encode(payload, out);
    encoder.finish(out);
}

/// Encodes messages as lines, each in pieces of any size: each CRLF, CR or LF inside becomes a space, those at the end are
/// removed.
#[derive(Debug)]
pub(crate) struct LineEncoder {
    /// Line ends since the last other byte. They are not written before it is known whether they are at the end.
    line_ends: usize,
    max_line_ends: usize,
    /// The last byte is a CR, so that a LF belongs to it.
    after_cr: bool,
}

impl LineEncoder {
    /// An encoder at the start of a message. It holds back at most `max_line_ends` line ends: when another follows, those become
    /// spaces even at the end of the message, so that a few bytes never cause any number of spaces at once.
    pub(crate) fn new(max_line_ends: usize) -> Self {
        Self { line_ends: 0, max_line_ends, after_cr: false }
    }

    /// Appends the next piece of the message.
    pub(crate) fn encode(&mut self, piece: &[u8], out: &mut Vec<u8>) {
        let mut rest = piece;
        while !rest.is_empty() {
            let text = rest.iter().position(|byte| matches!(byte, b'\r' | b'\n')).unwrap_or(rest.len());
            if text > 0 {
                self.flush(out);
                self.after_cr = false;
                out.extend_from_slice(&rest[..text]);
            }
            let Some((&line_end, behind)) = rest[text..].split_first() else { return };
            if line_end == b'\r' || !self.after_cr {
                if self.line_ends == self.max_line_ends {
                    self.flush(out);
                }
                self.line_ends += 1;
            }
            self.after_cr = line_end == b'\r';
            rest = behind;
        }
    }

    /// Appends the end of the line. Another message may follow.
    pub(crate) fn finish(&mut self, out: &mut Vec<u8>) {
        (self.line_ends, self.after_cr) = (0, false);
        out.push(b'\n');
    }

    /// Appends the line ends that were held back, as spaces.
    fn flush(&mut self, out: &mut Vec<u8>) {
        out.resize(out.len() + std::mem::take(&mut self.line_ends), b' ');
    }
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
        assert_eq!(encoded(Framing::Line, b"a\n\rb"), b"a  b\n", "LF CR are two line ends");
        assert_eq!(encoded(Framing::Mesg, b"a\nb"), b"DGRM 3 192.0.2.1:1900\na\nb");
        assert_eq!(encoded(Framing::Mesg, b""), b"DGRM 0 192.0.2.1:1900\n");
        let mut out = Vec::new();
        encode_datagram(Framing::Mesg, b"x", "[2001:db8::1]:53".parse().unwrap(), &mut out);
        assert_eq!(out, b"DGRM 1 [2001:db8::1]:53\nx");
    }

    #[test]
    fn a_line_may_be_encoded_in_pieces() {
        use crate::testing::pieces::at_every_split;
        let encoded = |max_line_ends, message: &[u8]| {
            at_every_split(message, |pieces| {
                let (mut encoder, mut out) = (LineEncoder::new(max_line_ends), Vec::new());
                for piece in pieces {
                    encoder.encode(piece, &mut out);
                    let written = out.iter().rev().take_while(|&&byte| byte == b' ').count();
                    assert!(max_line_ends < 100 || written == 0, "line ends are held back");
                }
                encoder.finish(&mut out);
                String::from_utf8(out).unwrap()
            })
        };
        for (message, line) in [
            (&b"a\r\nb\rc\nd\n\r\n"[..], "a b c d\n"),
            (b"", "\n"),
            (b"\r\n\r", "\n"),
            (b"\n\ra", "  a\n"),
            (b"a\r\r\n\n\nb", "a    b\n"),
            (b"\r\na\n", " a\n"),
        ] {
            assert_eq!(encoded(usize::MAX, message), line);
        }
        assert_eq!(encoded(3, b"a\n\n\nb\n\n\n"), "a   b\n");
        assert_eq!(encoded(3, b"a\n\n\n\n\n"), "a   \n", "the first three of five");
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

    /// Checks the length of the first message of `bytes`, given 0, 1, 2 and more of them: `known` is the number of bytes
    /// from which on it is known.
    fn check_message_len(framing: Framing, bytes: &[u8], len: usize, known: usize) {
        for given in 0..=bytes.len() {
            let found = message_len(framing, &bytes[..given]);
            assert_eq!(found, (given >= known).then_some(len), "{framing:?}: {given} bytes");
        }
    }

    #[test]
    fn the_length_of_a_message_is_known_from_its_header_on() {
        check_message_len(Framing::Raw, b"abc", 1, 1);
        check_message_len(Framing::Line, b"abc\nd\n", 4, 4);
        check_message_len(Framing::Line, b"\n\n", 1, 1);
        check_message_len(Framing::Mesg, b"TEXT 3\na\nbTEXT 1\nx", 10, 7);
        check_message_len(Framing::Mesg, b"BINA 0\nrest", 7, 7);
        check_message_len(Framing::Mesg, b"CLOS 1000 2\nbyTEXT 1\n", 14, 12);
        check_message_len(Framing::Mesg, b"DGRM 2 192.0.2.1:1900\nxyz", 24, 22);
        check_message_len(Framing::Mesg, b"PING 65535\nxyz", 65546, 11);
        // Headers that the proxy does not write: without a length, with one that overflows, and one that is too long.
        check_message_len(Framing::Mesg, b"TEXT\n3\n", 5, 5);
        check_message_len(Framing::Mesg, b"TEXT 99999999999999999999\nx", 26, 26);
        check_message_len(Framing::Mesg, &[b'x'; 2 * MAX_HEADER_LEN], MAX_HEADER_LEN, MAX_HEADER_LEN);
        let longest = [&[b'x'; MAX_HEADER_LEN - 3][..], b" 5\nmore"].concat();
        check_message_len(Framing::Mesg, &longest, MAX_HEADER_LEN + 5, MAX_HEADER_LEN);
    }

    #[test]
    fn every_encoded_message_has_its_length() {
        for framing in [Framing::Line, Framing::Mesg] {
            let mut messages: Vec<Vec<u8>> = vec![Vec::new(); 5];
            encode_message(framing, Kind::Text, b"text", &mut messages[0]);
            encode_message(framing, Kind::Binary, &[7; 300], &mut messages[1]);
            encode_datagram(framing, b"", "192.0.2.1:9".parse().unwrap(), &mut messages[2]);
            let address = "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff%9999]:65535".parse().unwrap();
            encode_datagram(framing, &[7; MAX_DATAGRAM_LEN], address, &mut messages[3]);
            encode_message(framing, Kind::Text, b"", &mut messages[4]);
            if framing == Framing::Mesg {
                messages.push(Vec::new());
                encode_body("HEAD", b"a: b\r\n", &mut messages[5]);
                messages.push(Vec::new());
                encode_close(1000, b"by", &mut messages[6]);
            }
            let stream: std::collections::VecDeque<u8> = messages.concat().into();
            let mut start = 0;
            for message in &messages {
                assert_eq!(message_len(framing, stream.range(start..)), Some(message.len()));
                start += message.len();
            }
            assert_eq!(start, stream.len());
        }
    }

    #[test]
    fn names() {
        for framing in [Framing::Raw, Framing::Line, Framing::Mesg] {
            assert_eq!(Framing::from_name(framing.name().to_lowercase().as_bytes()), Some(framing));
        }
        assert_eq!(Framing::from_name(b"JSON"), None);
    }
}
