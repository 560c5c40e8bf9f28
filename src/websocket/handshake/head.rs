//! Header blocks: collected until their empty line is there, whatever the pieces, and never more than the limit.

use std::fmt;

use httparse::{Request, Response, Status};

/// The longest header block in bytes, interim answers included.
pub const HEAD_LIMIT: usize = 8 * 1024;
/// The most fields in a header block.
pub const FIELDS_LIMIT: usize = 64;

/// Why a header block is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadError {
    /// It does not begin as one does.
    Foreign,
    /// It is longer than [`HEAD_LIMIT`].
    TooLong,
    /// It has more than [`FIELDS_LIMIT`] fields.
    TooMany,
    /// It is not HTTP's form; folded lines are among that.
    Malformed(httparse::Error),
}

impl fmt::Display for HeadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Foreign => f.write_str("no HTTP"),
            Self::TooLong => write!(f, "header block over {HEAD_LIMIT} bytes"),
            Self::TooMany => write!(f, "more than {FIELDS_LIMIT} headers"),
            Self::Malformed(error) => error.fmt(f),
        }
    }
}

impl From<httparse::Error> for HeadError {
    fn from(error: httparse::Error) -> Self {
        match error {
            httparse::Error::TooManyHeaders => Self::TooMany,
            error => Self::Malformed(error),
        }
    }
}

/// A header block that is on its way.
#[derive(Debug, Default)]
pub struct Head {
    bytes: Vec<u8>,
    /// Where the line under way begins.
    line: usize,
    /// Bytes of interim answers before this one.
    before: usize,
}

impl Head {
    /// Takes of `bytes` what belongs to the block. `Some(n)`: it is complete, with the first `n` of them. Lines may end
    /// in a bare LF.
    pub fn take(&mut self, bytes: &[u8]) -> Result<Option<usize>, HeadError> {
        let room = HEAD_LIMIT.saturating_sub(self.before + self.bytes.len());
        let known = self.bytes.len();
        let bytes = &bytes[..bytes.len().min(room + 1)];
        self.bytes.extend_from_slice(bytes);
        // The line under way has no LF among the bytes that were known.
        let mut from = known;
        while let Some(found) = self.bytes[from..].iter().position(|&byte| byte == b'\n') {
            let end = from + found + 1;
            if end > known + room {
                break;
            }
            if matches!(self.bytes[self.line..end], [b'\n'] | [b'\r', b'\n']) {
                self.bytes.truncate(end);
                return Ok(Some(end - known));
            }
            self.line = end;
            from = end;
        }
        if bytes.len() > room { Err(HeadError::TooLong) } else { Ok(None) }
    }

    /// What is there so far.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The block, when it is complete.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// Forgets a block that is not the last. It counts.
    pub fn skip(&mut self) {
        self.before += self.bytes.len();
        self.bytes.clear();
        self.line = 0;
    }
}

/// Reads an answer's complete header block and gives it to `read`.
pub fn read_response<T>(bytes: &[u8], read: impl FnOnce(&Response<'_, '_>) -> T) -> Result<T, HeadError> {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_LIMIT];
    let mut response = Response::new(&mut fields);
    complete(response.parse(bytes)?, bytes)?;
    Ok(read(&response))
}

/// Reads a request's complete header block and gives it to `read`.
pub fn read_request<T>(bytes: &[u8], read: impl FnOnce(&Request<'_, '_>) -> T) -> Result<T, HeadError> {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_LIMIT];
    let mut request = Request::new(&mut fields);
    complete(request.parse(bytes)?, bytes)?;
    Ok(read(&request))
}

/// The parser must see the end where we see it: else somebody's bytes would be read twice or not at all.
fn complete(status: Status<usize>, bytes: &[u8]) -> Result<(), HeadError> {
    match status {
        Status::Complete(end) if end == bytes.len() => Ok(()),
        _ => Err(HeadError::Malformed(httparse::Error::NewLine)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_end_whatever_the_pieces() {
        for text in ["A\r\nB: c\r\n\r\n", "A\nB: c\n\n", "A\r\nB: c\n\r\n", "A\nB: \r\r\n\n", "A\nB: \n\n"] {
            for tail in ["", "\n", "\r\n\r\n", "frames"] {
                let all = [text, tail].concat();
                for split in 0..all.len() {
                    let mut head = Head::default();
                    let (first, second) = all.as_bytes().split_at(split);
                    let taken = match head.take(first).unwrap() {
                        Some(taken) => taken,
                        None => split + head.take(second).unwrap().unwrap(),
                    };
                    assert_eq!((taken, head.bytes()), (text.len(), text.as_bytes()), "{all:?} at {split}");
                }
            }
        }
    }

    #[test]
    fn is_never_longer_than_the_limit() {
        let fits = [&b"A\n"[..], &vec![b'x'; HEAD_LIMIT - 4], b"\n\n"].concat();
        assert_eq!(Head::default().take(&fits), Ok(Some(HEAD_LIMIT)));
        assert_eq!(Head::default().take(&[&fits[..], b"more"].concat()), Ok(Some(HEAD_LIMIT)));
        let over = [&b"A\nx"[..], &fits[2..]].concat();
        assert_eq!(Head::default().take(&over), Err(HeadError::TooLong));
        let mut head = Head::default();
        assert_eq!(head.take(&over[..HEAD_LIMIT]), Ok(None));
        assert_eq!(head.take(b""), Ok(None));
        assert_eq!(head.take(&over[HEAD_LIMIT..]), Err(HeadError::TooLong));
    }

    #[test]
    fn what_was_skipped_counts() {
        let mut head = Head::default();
        let interim = b"HTTP/1.1 103 x\n\n";
        for _ in 0..HEAD_LIMIT / interim.len() {
            assert_eq!(head.take(interim), Ok(Some(interim.len())));
            head.skip();
        }
        assert_eq!(head.take(b""), Ok(None));
        assert_eq!(head.take(interim), Err(HeadError::TooLong));
    }
}
