//! The header line of MESG framing: `VERB SP n LF`.

use std::net::SocketAddr;

use super::Dialect;
use crate::websocket::{MAX_CONTROL_PAYLOAD, close};

/// Longest header, its newline included. The longest legal one is a DGRM to an IPv6 address.
pub const HEADER_LIMIT: usize = 64;

/// A message's header, as a plugin may send it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// A whole text message, UTF-8.
    Text,
    /// A whole binary message.
    Bina,
    /// A piece of a message that the following TEXT or BINA ends.
    Frag,
    /// A datagram to an address of the plugin's choice.
    Dgrm(SocketAddr),
    /// A ping with a payload.
    Ping,
    /// A pong with a payload.
    Pong,
    /// The end of the conversation, with its code.
    Clos(u16),
}

/// What is wrong with what a plugin sent; displays as what follows `PARSE`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FramingError {
    /// No newline within 64 bytes.
    LongHeader,
    /// A word that is no verb here.
    Verb,
    /// A length that is no plain decimal number.
    Length,
    /// More bytes than a message may have.
    TooLong,
    /// DGRM without a usable address.
    Address,
    /// CLOS with a code that may not be sent.
    Code,
    /// TEXT that is no UTF-8.
    Utf8,
    /// The proxy has no memory left for the rest of a message.
    NoMemory,
}

impl std::fmt::Display for FramingError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::LongHeader => "header too long",
            Self::Verb => "unknown verb",
            Self::Length => "bad length",
            Self::TooLong => "message too long",
            Self::Address => "bad address",
            Self::Code => "bad close code",
            Self::Utf8 => "text is not UTF-8",
            Self::NoMemory => "no memory for the message",
        })
    }
}

impl FramingError {
    /// The message that tells the plugin: the last one it reads.
    pub fn close_message(self) -> Vec<u8> {
        let mut message = Vec::new();
        encode_close(1002, &self.reason(), &mut message);
        message
    }

    /// The reason that goes with it.
    pub fn reason(self) -> String {
        format!("PARSE {self}")
    }

    /// What a WebSocket's remote is told (RFC 6455 section 7.4.1).
    pub fn close_code(self) -> u16 {
        if self == Self::Utf8 { 1007 } else { 1002 }
    }
}

/// Reads a header, without its newline: the verb and the length of the body in bytes, which a message may have up to
/// `limit`.
pub fn parse_header(line: &[u8], dialect: Dialect, limit: usize) -> Result<(Verb, usize), FramingError> {
    let line = std::str::from_utf8(line).map_err(|_| FramingError::Verb)?;
    let (word, rest) = line.split_once(' ').ok_or(FramingError::Verb)?;
    let (verb, length) = match word {
        "TEXT" => (Verb::Text, rest),
        "BINA" => (Verb::Bina, rest),
        "FRAG" => (Verb::Frag, rest),
        "PING" if dialect == Dialect::WebSocket => (Verb::Ping, rest),
        "PONG" if dialect == Dialect::WebSocket => (Verb::Pong, rest),
        "DGRM" if dialect == Dialect::Datagrams => {
            let (length, address) = rest.split_once(' ').ok_or(FramingError::Address)?;
            (Verb::Dgrm(address.parse().map_err(|_| FramingError::Address)?), length)
        }
        "CLOS" => {
            let (code, length) = rest.split_once(' ').ok_or(FramingError::Length)?;
            (Verb::Clos(parse_code(code)?), length)
        }
        _ => return Err(FramingError::Verb),
    };
    let limit = match verb {
        Verb::Clos(_) => close::MAX_CLOSE_REASON,
        Verb::Ping | Verb::Pong => MAX_CONTROL_PAYLOAD,
        _ => limit,
    };
    Ok((verb, parse_length(length, limit)?))
}

/// Appends a close message to what the plugin is to read.
pub fn encode_close(code: u16, reason: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(format!("CLOS {code} {}\n{reason}", reason.len()).as_bytes());
}

/// The codes that a plugin may send: what a close frame may carry, and 1005 for none.
fn parse_code(text: &str) -> Result<u16, FramingError> {
    let code = parse_length(text, 4999).map_err(|_| FramingError::Code)? as u16;
    if close::is_valid(code) || code == close::NO_STATUS { Ok(code) } else { Err(FramingError::Code) }
}

/// Decimal, without sign and without leading zero.
fn parse_length(text: &str, limit: usize) -> Result<usize, FramingError> {
    let plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    if !plain {
        return Err(FramingError::Length);
    }
    text.parse().ok().filter(|&length| length <= limit).ok_or(FramingError::TooLong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers() {
        let header = |line: &str| parse_header(line.as_bytes(), Dialect::Datagrams, 1000);
        assert_eq!(header("TEXT 5"), Ok((Verb::Text, 5)));
        assert_eq!(header("BINA 0"), Ok((Verb::Bina, 0)));
        assert_eq!(header("FRAG 1000"), Ok((Verb::Frag, 1000)));
        assert_eq!(header("DGRM 3 1.2.3.4:5"), Ok((Verb::Dgrm("1.2.3.4:5".parse().unwrap()), 3)));
        assert_eq!(header("DGRM 3 [::1]:5"), Ok((Verb::Dgrm("[::1]:5".parse().unwrap()), 3)));
        assert_eq!(header("CLOS 1000 0"), Ok((Verb::Clos(1000), 0)));
        for (line, error) in [
            ("TEXT", FramingError::Verb),
            ("", FramingError::Verb),
            ("text 5", FramingError::Verb),
            ("PING 0", FramingError::Verb),
            ("TEXT ", FramingError::Length),
            ("TEXT  5", FramingError::Length),
            ("TEXT +5", FramingError::Length),
            ("TEXT -5", FramingError::Length),
            ("TEXT 05", FramingError::Length),
            ("TEXT 5 ", FramingError::Length),
            ("TEXT 5\r", FramingError::Length),
            ("TEXT 1001", FramingError::TooLong),
            ("TEXT 99999999999999999999999", FramingError::TooLong),
            ("DGRM 3", FramingError::Address),
            ("DGRM 3 host:5", FramingError::Address),
            ("CLOS 1000", FramingError::Length),
            ("CLOS 1006 0", FramingError::Code),
            ("CLOS 999 0", FramingError::Code),
            ("CLOS 5000 0", FramingError::Code),
            ("CLOS 1000 124", FramingError::TooLong),
        ] {
            assert_eq!(header(line), Err(error), "{line}");
        }
        assert_eq!(parse_header(b"\xff 5", Dialect::Datagrams, 10), Err(FramingError::Verb));
        let header = |line: &str| parse_header(line.as_bytes(), Dialect::WebSocket, 1000);
        assert_eq!(header("PING 125"), Ok((Verb::Ping, 125)));
        assert_eq!(header("PONG 0"), Ok((Verb::Pong, 0)));
        assert_eq!(header("PING 126"), Err(FramingError::TooLong));
        assert_eq!(header("DGRM 3 1.2.3.4:5"), Err(FramingError::Verb));
    }

    #[test]
    fn tells_the_plugin() {
        assert_eq!(FramingError::Verb.close_message(), b"CLOS 1002 18\nPARSE unknown verb");
    }
}
