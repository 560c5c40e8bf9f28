//! The message framings of both ends of a bridge. Simple and fast, because this code runs beside what is measured; it
//! trusts the peer to keep to RFC 6455.

use std::io;

/// The framing of one end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Codec {
    /// Bytes without framing: messages have a fixed size.
    Raw,
    /// One line for each message.
    Line,
    /// `TEXT n` and n bytes: sockproxyd's MESG framing.
    Mesg,
    /// WebSocket as a client: frames are masked.
    Client,
    /// WebSocket as a server.
    Server,
}

/// The masking key of every frame. Unmasking costs the same for every key.
const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// The first byte of a frame that is a whole binary message; websockify accepts no text.
const BINARY: u8 = 0x82;

impl Codec {
    /// Appends a message; its payload is text.
    pub fn encode(self, payload: &[u8], out: &mut Vec<u8>) {
        self.encode_header(BINARY, payload.len(), out);
        let start = out.len();
        out.extend_from_slice(payload);
        if self == Codec::Client {
            unmask(&mut out[start..], &mut KEY.clone());
        }
        if self == Codec::Line {
            out.push(b'\n');
        }
    }

    /// Appends a header; `first` is the first byte of a frame.
    fn encode_header(self, first: u8, length: usize, out: &mut Vec<u8>) {
        let masked = if self == Codec::Client { 0x80 } else { 0 };
        match self {
            Codec::Raw | Codec::Line => return,
            Codec::Mesg => return out.extend_from_slice(format!("TEXT {length}\n").as_bytes()),
            Codec::Client | Codec::Server => {}
        }
        match length {
            0..126 => out.extend_from_slice(&[first, masked | length as u8]),
            126..=0xffff => {
                out.extend_from_slice(&[first, masked | 126]);
                out.extend_from_slice(&(length as u16).to_be_bytes());
            }
            _ => {
                out.extend_from_slice(&[first, masked | 127]);
                out.extend_from_slice(&(length as u64).to_be_bytes());
            }
        }
        if masked != 0 {
            out.extend_from_slice(&KEY);
        }
    }
}

/// Decodes messages from pieces of any size.
#[derive(Debug)]
pub struct Decoder {
    codec: Codec,
    header: Vec<u8>,
    /// The first byte of the frame.
    first: u8,
    /// Bytes of the payload that have not come yet.
    remaining: usize,
    key: Option<[u8; 4]>,
}

impl Decoder {
    /// A decoder of what an end with this codec sends.
    pub fn new(codec: Codec) -> Self {
        Self { codec, header: Vec::new(), first: 0, remaining: 0, key: None }
    }

    /// Decodes `bytes`. Calls `take` with each piece of payload, unmasked; at the beginning of a frame also with its
    /// first byte and its length. A frame that is not data is an error.
    pub fn decode(&mut self, mut bytes: &mut [u8], mut take: impl FnMut(Option<(u8, usize)>, &[u8])) -> io::Result<()> {
        match self.codec {
            Codec::Raw => take(None, bytes),
            Codec::Line => bytes.split(|byte| *byte == b'\n').for_each(|line| take(None, line)),
            _ => {}
        }
        if matches!(self.codec, Codec::Raw | Codec::Line) {
            return Ok(());
        }
        while !bytes.is_empty() {
            let mut start = None;
            if self.remaining == 0 {
                let (byte, rest) = bytes.split_at_mut(1);
                bytes = rest;
                self.header.push(byte[0]);
                if !self.parse_header()? {
                    continue;
                }
                self.header.clear();
                start = Some((self.first, self.remaining));
            }
            let (piece, rest) = bytes.split_at_mut(self.remaining.min(bytes.len()));
            bytes = rest;
            if let Some(key) = &mut self.key {
                unmask(piece, key);
            }
            self.remaining -= piece.len();
            take(start, piece);
        }
        Ok(())
    }

    /// Parses the header. True if it is complete.
    fn parse_header(&mut self) -> io::Result<bool> {
        let unexpected = || io::Error::other("a message was expected");
        if self.codec == Codec::Mesg {
            let [verb @ .., b'\n'] = &self.header[..] else { return Ok(false) };
            let length = verb.strip_prefix(b"TEXT ").ok_or_else(unexpected)?;
            let length = std::str::from_utf8(length).ok().and_then(|length| length.parse().ok());
            self.remaining = length.ok_or_else(unexpected)?;
            return Ok(true);
        }
        let [first, second, rest @ ..] = &self.header[..] else { return Ok(false) };
        if first & 0x0f > 2 {
            return Err(unexpected());
        }
        let width = match second & 0x7f {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let masked = second & 0x80 != 0;
        if rest.len() < width + if masked { 4 } else { 0 } {
            return Ok(false);
        }
        let number = rest[..width].iter().fold(0, |number, byte| number << 8 | usize::from(*byte));
        self.first = *first;
        self.remaining = if width == 0 { usize::from(second & 0x7f) } else { number };
        self.key = masked.then(|| [rest[width], rest[width + 1], rest[width + 2], rest[width + 3]]);
        Ok(true)
    }
}

/// Decodes with a [`Decoder`] and encodes the same for the way back.
#[derive(Debug)]
pub struct Echo {
    decoder: Decoder,
    /// The codec of the answer.
    codec: Codec,
}

impl Echo {
    /// An echo that sends with `codec`, and receives from an end with the opposite one.
    pub fn new(codec: Codec) -> Self {
        Self { decoder: Decoder::new(codec), codec }
    }

    /// Appends the answer to `bytes`: every frame, as far as it has been received.
    pub fn answer(&mut self, bytes: &mut [u8], out: &mut Vec<u8>) -> io::Result<()> {
        let codec = self.codec;
        self.decoder.decode(bytes, |start, piece| {
            if let Some((first, length)) = start {
                codec.encode_header(first, length, out);
            }
            out.extend_from_slice(piece);
        })
    }
}

/// Masks or unmasks `bytes`, and rotates `key` for the bytes that follow.
fn unmask(bytes: &mut [u8], key: &mut [u8; 4]) {
    let [a, b, c, d] = *key;
    let word = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (words, rest) = bytes.as_chunks_mut::<8>();
    for bytes in words {
        *bytes = (u64::from_ne_bytes(*bytes) ^ word).to_ne_bytes();
    }
    for (byte, key) in rest.iter_mut().zip(key.iter()) {
        *byte ^= key;
    }
    // The rest has at most seven bytes, so the key repeats at most once.
    for (byte, key) in rest.iter_mut().skip(4).zip(key.iter()) {
        *byte ^= key;
    }
    key.rotate_left(rest.len() % 4);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_is_decoded_in_any_pieces() {
        for codec in [Codec::Raw, Codec::Line, Codec::Mesg, Codec::Client, Codec::Server] {
            for length in [1, 5, 7, 125, 126, 300, 65_536] {
                let payload: Vec<u8> = (b' '..=b'~').cycle().take(length).collect();
                let mut said = Vec::new();
                codec.encode(&payload, &mut said);
                codec.encode(&payload, &mut said);
                for step in [1, 3, 1000, said.len()] {
                    let (mut decoder, mut heard, mut start) = (Decoder::new(codec), Vec::new(), Vec::new());
                    for piece in said.clone().chunks_mut(step) {
                        let take = |begins: Option<(u8, usize)>, bytes: &[u8]| {
                            start.extend(begins.map(|(_, length)| length));
                            heard.extend_from_slice(bytes);
                        };
                        decoder.decode(piece, take).unwrap();
                    }
                    assert_eq!(heard, [&payload[..], &payload].concat(), "{codec:?} {length} in {step}");
                    assert_eq!(start, if matches!(codec, Codec::Raw | Codec::Line) { vec![] } else { vec![length; 2] });
                }
            }
        }
    }

    #[test]
    fn a_server_decodes_and_answers_a_client() {
        let (mut said, mut answer, mut heard) = (Vec::new(), Vec::new(), Vec::new());
        Codec::Client.encode(b"Hello", &mut said);
        assert_eq!(said, b"\x82\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58", "RFC 6455 section 5.7, but for the opcode");
        Echo::new(Codec::Server).answer(&mut said, &mut answer).unwrap();
        assert_eq!(answer, b"\x82\x05Hello");
        Decoder::new(Codec::Client).decode(&mut answer, |_, piece| heard.extend_from_slice(piece)).unwrap();
        assert_eq!(heard, b"Hello");
    }

    #[test]
    fn a_close_frame_is_an_error() {
        assert!(Decoder::new(Codec::Client).decode(&mut [0x88, 0], |_, _| ()).is_err());
        assert!(Decoder::new(Codec::Mesg).decode(&mut b"CLOS 1006 0\n".to_vec(), |_, _| ()).is_err());
    }
}
