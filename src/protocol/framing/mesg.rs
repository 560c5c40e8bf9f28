//! The header line of MESG framing: `VERB SP n LF`.

use std::net::SocketAddr;

use super::FramingKind;
use crate::websocket::{MAX_CONTROL_PAYLOAD, close};

/// Longest header in bytes, its newline included. The longest is that of a DGRM with an IPv6 address of 39 characters and
/// a scope ID of 4 digits, which is the number of a network interface.
pub(crate) const MAX_HEADER_LEN: usize = 64;

/// The verb of a message from a plugin, with its arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verb {
    /// A whole text message, UTF-8.
    Text,
    /// A whole binary message.
    Bina,
    /// A fragment of a message. The next TEXT or BINA is the last fragment.
    Frag,
    /// A datagram to this address.
    Dgrm(SocketAddr),
    /// A ping with a payload.
    Ping,
    /// A pong with a payload.
    Pong,
    /// The end of the connection, with the close code.
    Clos(u16),
}

/// Why the input from a plugin cannot be decoded. Displayed after the word `PARSE`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FramingError {
    /// No newline within 64 bytes.
    LongHeader,
    /// A word that is not a verb for this kind of remote.
    Verb,
    /// A length that is not a plain decimal number.
    Length,
    /// A message longer than the limit.
    TooLong,
    /// DGRM without a valid address.
    Address,
    /// CLOS with a code that an endpoint must not send.
    Code,
    /// A text or a reason that is not UTF-8.
    Utf8,
    /// The memory limit leaves no room for the rest of the message.
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
    /// The CLOS message to the plugin, the last one on the connection.
    pub(crate) fn close_message(self) -> Vec<u8> {
        let mut message = Vec::new();
        encode_close(1002, self.reason().as_bytes(), &mut message);
        message
    }

    /// The reason in the CLOS message: `PARSE <error>`.
    pub(crate) fn reason(self) -> String {
        format!("PARSE {self}")
    }

    /// The close code for a WebSocket remote (RFC 6455 section 7.4.1).
    pub(crate) fn close_code(self) -> u16 {
        if self == Self::Utf8 { 1007 } else { 1002 }
    }
}

/// Parses a header without its newline. Returns the verb and the length of the body in bytes, at most `max_len`.
pub(super) fn parse_header(line: &[u8], kind: FramingKind, max_len: usize) -> Result<(Verb, usize), FramingError> {
    let line = std::str::from_utf8(line).map_err(|_| FramingError::Verb)?;
    let (word, rest) = line.split_once(' ').ok_or(FramingError::Verb)?;
    let (verb, length) = match word {
        "TEXT" => (Verb::Text, rest),
        "BINA" => (Verb::Bina, rest),
        "FRAG" => (Verb::Frag, rest),
        "PING" if kind == FramingKind::WebSocket => (Verb::Ping, rest),
        "PONG" if kind == FramingKind::WebSocket => (Verb::Pong, rest),
        "DGRM" if kind == FramingKind::Datagrams => {
            let (length, address) = rest.split_once(' ').ok_or(FramingError::Address)?;
            (Verb::Dgrm(address.parse().map_err(|_| FramingError::Address)?), length)
        }
        "CLOS" => {
            let (code, length) = rest.split_once(' ').ok_or(FramingError::Length)?;
            (Verb::Clos(parse_code(code)?), length)
        }
        _ => return Err(FramingError::Verb),
    };
    let max_len = match verb {
        Verb::Clos(_) => close::MAX_CLOSE_REASON,
        Verb::Ping | Verb::Pong => MAX_CONTROL_PAYLOAD,
        _ => max_len,
    };
    Ok((verb, parse_length(length, max_len)?))
}

/// See [`super::message_len`]. The length of the body is the second word of the header, in CLOS the third.
pub(super) fn message_len(bytes: impl Iterator<Item = u8>) -> Option<usize> {
    let mut header = [0; MAX_HEADER_LEN];
    let mut len = 0;
    for byte in bytes.take(MAX_HEADER_LEN) {
        if byte == b'\n' {
            let mut words = header[..len].split(|&byte| byte == b' ');
            let digits = if words.next() == Some(b"CLOS") { words.nth(1) } else { words.next() };
            let body = digits.and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok()).unwrap_or(0);
            return Some((len + 1).saturating_add(body));
        }
        header[len] = byte;
        len += 1;
    }
    (len == MAX_HEADER_LEN).then_some(len)
}

/// Appends a CLOS message to the bytes for the plugin.
pub(crate) fn encode_close(code: u16, reason: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(format!("CLOS {code} {}\n", reason.len()).as_bytes());
    out.extend_from_slice(reason);
}

/// Parses a close code that a plugin may send: one that a close frame may carry, or 1005 for a frame without a code.
fn parse_code(text: &str) -> Result<u16, FramingError> {
    let code = parse_length(text, 4999).map_err(|_| FramingError::Code)? as u16;
    if close::is_valid(code) || code == close::NO_STATUS { Ok(code) } else { Err(FramingError::Code) }
}

/// Parses a decimal number up to `max`, without sign and leading zeros.
fn parse_length(text: &str, max: usize) -> Result<usize, FramingError> {
    let plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    if !plain {
        return Err(FramingError::Length);
    }
    text.parse().ok().filter(|&length| length <= max).ok_or(FramingError::TooLong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers() {
        let header = |line: &str| parse_header(line.as_bytes(), FramingKind::Datagrams, 1000);
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
        assert_eq!(parse_header(b"\xff 5", FramingKind::Datagrams, 10), Err(FramingError::Verb));
        let header = |line: &str| parse_header(line.as_bytes(), FramingKind::WebSocket, 1000);
        assert_eq!(header("PING 125"), Ok((Verb::Ping, 125)));
        assert_eq!(header("PONG 0"), Ok((Verb::Pong, 0)));
        assert_eq!(header("PING 126"), Err(FramingError::TooLong));
        assert_eq!(header("DGRM 3 1.2.3.4:5"), Err(FramingError::Verb));
    }

    #[test]
    fn an_error_becomes_a_close_message() {
        assert_eq!(FramingError::Verb.close_message(), b"CLOS 1002 18\nPARSE unknown verb");
    }
}
