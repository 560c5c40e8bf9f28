//! Frame headers (RFC 6455 section 5.2), and the checks that do not depend on the connection's state.

use super::{Kind, MAX_CONTROL_PAYLOAD, ProtocolError, protocol_error};

/// Header in bytes at most.
pub(super) const MAX_HEADER: usize = 14;

const FIN: u8 = 0x80;
const RSV1: u8 = 0x40;
const RSV2_AND_3: u8 = 0x30;
const OPCODE: u8 = 0x0f;
const MASKED: u8 = 0x80;
const LENGTH: u8 = 0x7f;
/// Length field for lengths of two bytes.
const LENGTH_16: u8 = 126;
/// Length field for lengths of eight bytes.
const LENGTH_64: u8 = 127;

/// The opcode of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Opcode {
    /// A further fragment of the message.
    Continuation = 0,
    /// A text message, or its first fragment.
    Text = 1,
    /// A binary message, or its first fragment.
    Binary = 2,
    /// A close frame.
    Close = 8,
    /// A ping.
    Ping = 9,
    /// A pong.
    Pong = 10,
}

impl Opcode {
    fn from_bits(bits: u8) -> Option<Self> {
        Some(match bits {
            0 => Self::Continuation,
            1 => Self::Text,
            2 => Self::Binary,
            8 => Self::Close,
            9 => Self::Ping,
            10 => Self::Pong,
            _ => return None,
        })
    }

    /// True for control frames, which may stand between the fragments of a message.
    pub(super) fn is_control(self) -> bool {
        self as u8 >= Self::Close as u8
    }
}

impl From<Kind> for Opcode {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Text => Self::Text,
            Kind::Binary => Self::Binary,
        }
    }
}

/// The header of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// FIN: the last fragment of its message.
    pub fin: bool,
    /// RSV1: the message is compressed.
    pub compressed: bool,
    /// The opcode.
    pub opcode: Opcode,
    /// The masking key, if the payload is masked.
    pub mask: Option<[u8; 4]>,
    /// Length of the payload in bytes, below 2^63.
    pub length: u64,
}

/// Parses the header at the start of `bytes` and returns it with its length; `None` if it is incomplete.
#[inline]
pub(super) fn parse(bytes: &[u8]) -> Result<Option<(Header, usize)>, ProtocolError> {
    let [first, second, rest @ ..] = bytes else { return Ok(None) };
    // Section 5.2: a receiver MUST fail the connection if a reserved bit is set that no extension defines.
    if first & RSV2_AND_3 != 0 {
        return protocol_error("a reserved bit is set");
    }
    // Section 5.2: a receiver MUST fail the connection on an unknown opcode.
    let Some(opcode) = Opcode::from_bits(first & OPCODE) else { return protocol_error("unknown opcode") };
    let (fin, compressed) = (first & FIN != 0, first & RSV1 != 0);
    if opcode.is_control() {
        // Section 5.5: control frames MUST NOT be fragmented.
        if !fin {
            return protocol_error("a fragmented control frame");
        }
        // Section 5.5: control frames MUST have a payload of 125 bytes or less.
        if second & LENGTH > MAX_CONTROL_PAYLOAD as u8 {
            return protocol_error("a control frame that is too long");
        }
        // RFC 7692 section 6: RSV1 MUST NOT be set on control frames.
        if compressed {
            return protocol_error("a compressed control frame");
        }
    }
    let (length, rest) = match second & LENGTH {
        LENGTH_16 => {
            let Some((length, rest)) = rest.split_first_chunk() else { return Ok(None) };
            let length = u16::from_be_bytes(*length).into();
            // Section 5.2: the minimal number of bytes MUST be used to encode the length.
            if length < u64::from(LENGTH_16) {
                return protocol_error("a length that is not minimal");
            }
            (length, rest)
        }
        LENGTH_64 => {
            let Some((length, rest)) = rest.split_first_chunk() else { return Ok(None) };
            let length = u64::from_be_bytes(*length);
            if length <= u16::MAX.into() {
                return protocol_error("a length that is not minimal");
            }
            // Section 5.2: the most significant bit MUST be 0.
            if length > i64::MAX as u64 {
                return protocol_error("a length above 2^63");
            }
            (length, rest)
        }
        short => (short.into(), rest),
    };
    let (mask, rest) = match second & MASKED {
        0 => (None, rest),
        _ => match rest.split_first_chunk() {
            Some((key, rest)) => (Some(*key), rest),
            None => return Ok(None),
        },
    };
    Ok(Some((Header { fin, compressed, opcode, mask, length }, bytes.len() - rest.len())))
}

impl Header {
    /// Appends the header to `out`.
    #[inline]
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        // Built on the stack and appended at once, in a length that the compiler knows: the header is most of a short message's
        // cost.
        let (bytes, length) = self.bytes();
        let end = out.len() + length;
        out.extend_from_slice(&bytes);
        out.truncate(end);
    }

    /// The header, and its length in bytes.
    #[inline]
    pub(super) fn bytes(&self) -> ([u8; MAX_HEADER], usize) {
        let mut bytes = [0; MAX_HEADER];
        bytes[0] = self.opcode as u8 | if self.fin { FIN } else { 0 } | if self.compressed { RSV1 } else { 0 };
        let mut end = 2;
        bytes[1] = match self.length {
            0..126 => self.length as u8,
            126..=0xffff => {
                bytes[2..4].copy_from_slice(&(self.length as u16).to_be_bytes());
                end = 4;
                LENGTH_16
            }
            _ => {
                bytes[2..10].copy_from_slice(&self.length.to_be_bytes());
                end = 10;
                LENGTH_64
            }
        };
        if let Some(key) = self.mask {
            bytes[1] |= MASKED;
            bytes[end..end + 4].copy_from_slice(&key);
            end += 4;
        }
        (bytes, end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(header: &Header) -> Vec<u8> {
        let mut out = Vec::new();
        header.encode(&mut out);
        out
    }

    #[test]
    fn encoded_headers_are_parsed_and_incomplete_ones_are_not() {
        let opcodes = [Opcode::Continuation, Opcode::Text, Opcode::Binary, Opcode::Close, Opcode::Ping, Opcode::Pong];
        for opcode in opcodes {
            for length in [0, 1, 125, 126, 127, 65_535, 65_536, 1 << 32, i64::MAX as u64] {
                for mask in [None, Some([1, 2, 3, 4])] {
                    for (fin, compressed) in [(true, false), (false, false), (true, true), (false, true)] {
                        if opcode.is_control() && (length > 125 || !fin || compressed) {
                            continue;
                        }
                        let header = Header { fin, compressed, opcode, mask, length };
                        let mut bytes = encoded(&header);
                        let end = bytes.len();
                        bytes.extend_from_slice(b"payload");
                        assert_eq!(parse(&bytes), Ok(Some((header, end))));
                        for short in 0..end {
                            assert_eq!(parse(&bytes[..short]), Ok(None), "{header:?}, {short} bytes");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn rfc6455_5_7_examples() {
        let header = |fin, opcode, mask, length| Header { fin, compressed: false, opcode, mask, length };
        for (bytes, expected) in [
            (&[0x81, 0x05][..], header(true, Opcode::Text, None, 5)),
            (&[0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d], header(true, Opcode::Text, Some([0x37, 0xfa, 0x21, 0x3d]), 5)),
            (&[0x01, 0x03], header(false, Opcode::Text, None, 3)),
            (&[0x80, 0x02], header(true, Opcode::Continuation, None, 2)),
            (&[0x82, 0x7e, 0x01, 0x00], header(true, Opcode::Binary, None, 256)),
            (&[0x82, 0x7f, 0, 0, 0, 0, 0, 1, 0, 0], header(true, Opcode::Binary, None, 65_536)),
        ] {
            assert_eq!(parse(bytes), Ok(Some((expected, bytes.len()))));
            assert_eq!(encoded(&expected), bytes);
        }
    }

    fn fails(bytes: &[u8], reason: &str) {
        match parse(bytes) {
            Err(error) => assert!(error.code == 1002 && error.reason.contains(reason), "{error:?}, {reason}"),
            other => panic!("{bytes:x?} is parsed as {other:?}"),
        }
    }

    #[test]
    fn rfc6455_5_2_reserved_bits() {
        fails(&[0x91, 0], "reserved");
        fails(&[0xa1, 0], "reserved");
    }

    #[test]
    fn rfc6455_5_2_unknown_opcodes() {
        for opcode in [3, 4, 5, 6, 7, 11, 12, 13, 14, 15] {
            fails(&[0x80 | opcode, 0], "opcode");
        }
    }

    #[test]
    fn rfc6455_5_5_control_frames() {
        for opcode in [8, 9, 10] {
            fails(&[opcode, 0], "fragmented");
            fails(&[0x80 | opcode, 126], "too long");
            fails(&[0x80 | opcode, 127], "too long");
            fails(&[0xc0 | opcode, 0], "compressed");
        }
    }

    #[test]
    fn rfc6455_5_2_lengths_are_minimal_and_below_2_to_the_63() {
        fails(&[0x82, 126, 0, 125], "minimal");
        fails(&[0x82, 127, 0, 0, 0, 0, 0, 0, 0xff, 0xff], "minimal");
        fails(&[0x82, 127, 0x80, 0, 0, 0, 0, 0, 0, 0], "2^63");
    }
}
