//! What the ends of a bridge say: one message after another in a byte stream, each end in its own way. As plain and as
//! fast as can be, since it stands beside what is measured; it trusts its peer to keep to RFC 6455.

use std::io;

/// What an end speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speech {
    /// Bytes: a message is what has its size.
    Raw,
    /// A message is a line.
    Line,
    /// `TEXT n` and n bytes, as a plugin and sockproxyd do.
    Mesg,
    /// WebSocket, as a client: what it says is masked.
    Client,
    /// WebSocket, as a server.
    Server,
}

/// The key of all that is masked. Who is to unmask does not know it, and pays the same for every key.
const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// The first byte of a frame that is a whole binary message: websockify takes no other.
const BINARY: u8 = 0x82;

impl Speech {
    /// Appends a message, which is text.
    pub fn encode(self, payload: &[u8], out: &mut Vec<u8>) {
        self.encode_header(BINARY, payload.len(), out);
        let start = out.len();
        out.extend_from_slice(payload);
        if self == Speech::Client {
            unmask(&mut out[start..], &mut KEY.clone());
        }
        if self == Speech::Line {
            out.push(b'\n');
        }
    }

    /// `first`: the first byte of a frame.
    fn encode_header(self, first: u8, length: usize, out: &mut Vec<u8>) {
        let masked = if self == Speech::Client { 0x80 } else { 0 };
        match self {
            Speech::Raw | Speech::Line => return,
            Speech::Mesg => return out.extend_from_slice(format!("TEXT {length}\n").as_bytes()),
            Speech::Client | Speech::Server => {}
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

/// Takes messages apart, in pieces of any size.
#[derive(Debug)]
pub struct Listener {
    speech: Speech,
    header: Vec<u8>,
    /// The first byte of the frame.
    first: u8,
    /// Bytes of the payload that are to come.
    remaining: usize,
    key: Option<[u8; 4]>,
}

impl Listener {
    /// Listens to one who speaks like this.
    pub fn new(speech: Speech) -> Self {
        Self { speech, header: Vec::new(), first: 0, remaining: 0, key: None }
    }

    /// Takes what has been read. Of the payload `take` is given each piece, unmasked, and where a frame begins, its first
    /// byte and length. Anything but data is an error.
    pub fn hear(&mut self, mut bytes: &mut [u8], mut take: impl FnMut(Option<(u8, usize)>, &[u8])) -> io::Result<()> {
        match self.speech {
            Speech::Raw => take(None, bytes),
            Speech::Line => bytes.split(|byte| *byte == b'\n').for_each(|line| take(None, line)),
            _ => {}
        }
        if matches!(self.speech, Speech::Raw | Speech::Line) {
            return Ok(());
        }
        while !bytes.is_empty() {
            let mut begun = None;
            if self.remaining == 0 {
                let (byte, rest) = bytes.split_at_mut(1);
                bytes = rest;
                self.header.push(byte[0]);
                if !self.parse_header()? {
                    continue;
                }
                self.header.clear();
                begun = Some((self.first, self.remaining));
            }
            let (piece, rest) = bytes.split_at_mut(self.remaining.min(bytes.len()));
            bytes = rest;
            if let Some(key) = &mut self.key {
                unmask(piece, key);
            }
            self.remaining -= piece.len();
            take(begun, piece);
        }
        Ok(())
    }

    /// True where the header is complete.
    fn parse_header(&mut self) -> io::Result<bool> {
        let wrong = || io::Error::other("no message where one should be");
        if self.speech == Speech::Mesg {
            let [verb @ .., b'\n'] = &self.header[..] else { return Ok(false) };
            let length = verb.strip_prefix(b"TEXT ").ok_or_else(wrong)?;
            let length = std::str::from_utf8(length).ok().and_then(|length| length.parse().ok());
            self.remaining = length.ok_or_else(wrong)?;
            return Ok(true);
        }
        let [first, second, rest @ ..] = &self.header[..] else { return Ok(false) };
        if first & 0x0f > 2 {
            return Err(wrong());
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

/// Sends back what a [`Listener`] hears.
#[derive(Debug)]
pub struct Echo {
    listener: Listener,
    /// Says so.
    speech: Speech,
}

impl Echo {
    /// One who speaks like this himself, and listens to the opposite.
    pub fn new(speech: Speech) -> Self {
        Self { listener: Listener::new(speech), speech }
    }

    /// Appends the answer to `bytes`: every frame, as far as it has come.
    pub fn answer(&mut self, bytes: &mut [u8], out: &mut Vec<u8>) -> io::Result<()> {
        let speech = self.speech;
        self.listener.hear(bytes, |begun, piece| {
            if let Some((first, length)) = begun {
                speech.encode_header(first, length, out);
            }
            out.extend_from_slice(piece);
        })
    }
}

/// Masks or unmasks; `key` is turned on to what follows.
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
    // Of the rest at most seven bytes, so the key may have to begin anew.
    for (byte, key) in rest.iter_mut().skip(4).zip(key.iter()) {
        *byte ^= key;
    }
    key.rotate_left(rest.len() % 4);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_heard_in_any_pieces() {
        for speech in [Speech::Raw, Speech::Line, Speech::Mesg, Speech::Client, Speech::Server] {
            for length in [1, 5, 7, 125, 126, 300, 65_536] {
                let payload: Vec<u8> = (b' '..=b'~').cycle().take(length).collect();
                let mut said = Vec::new();
                speech.encode(&payload, &mut said);
                speech.encode(&payload, &mut said);
                for step in [1, 3, 1000, said.len()] {
                    let (mut listener, mut heard, mut begun) = (Listener::new(speech), Vec::new(), Vec::new());
                    for piece in said.clone().chunks_mut(step) {
                        let take = |begins: Option<(u8, usize)>, bytes: &[u8]| {
                            begun.extend(begins.map(|(_, length)| length));
                            heard.extend_from_slice(bytes);
                        };
                        listener.hear(piece, take).unwrap();
                    }
                    assert_eq!(heard, [&payload[..], &payload].concat(), "{speech:?} {length} in {step}");
                    assert_eq!(
                        begun,
                        if matches!(speech, Speech::Raw | Speech::Line) { vec![] } else { vec![length; 2] }
                    );
                }
            }
        }
    }

    #[test]
    fn a_server_answers_a_client() {
        let (mut said, mut answer, mut heard) = (Vec::new(), Vec::new(), Vec::new());
        Speech::Client.encode(b"Hello", &mut said);
        assert_eq!(said, b"\x82\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58", "RFC 6455 section 5.7, but for the opcode");
        Echo::new(Speech::Server).answer(&mut said, &mut answer).unwrap();
        assert_eq!(answer, b"\x82\x05Hello");
        Listener::new(Speech::Client).hear(&mut answer, |_, piece| heard.extend_from_slice(piece)).unwrap();
        assert_eq!(heard, b"Hello");
    }

    #[test]
    fn a_close_frame_is_an_error() {
        assert!(Listener::new(Speech::Client).hear(&mut [0x88, 0], |_, _| ()).is_err());
        assert!(Listener::new(Speech::Mesg).hear(&mut b"CLOS 1006 0\n".to_vec(), |_, _| ()).is_err());
    }
}
