//! [`Head`]: collects a header block from pieces, up to a limit.

use std::fmt;

use httparse::{Request, Response, Status};

/// Header block in bytes at most, interim responses included.
pub(crate) const MAX_HEAD: usize = 8 * 1024;
/// Fields in a header block at most.
pub(crate) const MAX_FIELDS: usize = 64;

/// Why a header block is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HeadError {
    /// It does not begin like HTTP.
    NotHttp,
    /// It is longer than [`MAX_HEAD`].
    TooLong,
    /// It has more than [`MAX_FIELDS`] fields.
    TooManyFields,
    /// It violates HTTP's syntax.
    Malformed(httparse::Error),
}

impl fmt::Display for HeadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotHttp => f.write_str("no HTTP"),
            Self::TooLong => write!(f, "header block over {MAX_HEAD} bytes"),
            Self::TooManyFields => write!(f, "more than {MAX_FIELDS} headers"),
            Self::Malformed(error) => error.fmt(f),
        }
    }
}

impl From<httparse::Error> for HeadError {
    fn from(error: httparse::Error) -> Self {
        match error {
            httparse::Error::TooManyHeaders => Self::TooManyFields,
            error => Self::Malformed(error),
        }
    }
}

/// A header block that is being received.
#[derive(Debug, Default)]
pub(super) struct Head {
    bytes: Vec<u8>,
    /// Start of the current line.
    line: usize,
    /// Bytes of interim responses and of empty lines before this block.
    before: usize,
    empty_line: EmptyLine,
}

/// The empty line that may stand before a block.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum EmptyLine {
    /// It may come.
    #[default]
    Possible,
    /// Its CR has come.
    AfterCr,
    /// It has come, or will not.
    Over,
}

impl Head {
    /// Skips one empty line at the start of the block, and returns the bytes behind it. It counts towards the limit.
    pub(super) fn skip_empty_line<'b>(&mut self, bytes: &'b [u8]) -> Result<&'b [u8], HeadError> {
        let mut rest = bytes;
        while self.empty_line != EmptyLine::Over
            && let Some((&byte, behind)) = rest.split_first()
        {
            self.empty_line = match (self.empty_line, byte) {
                (EmptyLine::Possible, b'\r') => EmptyLine::AfterCr,
                (_, b'\n') => EmptyLine::Over,
                (EmptyLine::AfterCr, _) => return Err(HeadError::NotHttp),
                (EmptyLine::Possible | EmptyLine::Over, _) => {
                    self.empty_line = EmptyLine::Over;
                    break;
                }
            };
            self.before += 1;
            rest = behind;
        }
        Ok(rest)
    }

    /// Consumes the bytes that belong to the block. `Some(n)`: the block is complete with the first `n` of them. Lines
    /// may end in a bare LF (RFC 9112 section 2.2).
    pub(super) fn take(&mut self, bytes: &[u8]) -> Result<Option<usize>, HeadError> {
        let available = MAX_HEAD.saturating_sub(self.before + self.bytes.len());
        let known = self.bytes.len();
        let bytes = &bytes[..bytes.len().min(available + 1)];
        self.bytes.extend_from_slice(bytes);
        // The known part of the current line has no LF.
        let mut from = known;
        while let Some(found) = self.bytes[from..].iter().position(|&byte| byte == b'\n') {
            let end = from + found + 1;
            if end > known + available {
                break;
            }
            if matches!(self.bytes[self.line..end], [b'\n'] | [b'\r', b'\n']) {
                self.bytes.truncate(end);
                return Ok(Some(end - known));
            }
            self.line = end;
            from = end;
        }
        if bytes.len() > available { Err(HeadError::TooLong) } else { Ok(None) }
    }

    /// The bytes received so far.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Returns the bytes of the complete block.
    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// Drops an interim response. It still counts towards the limit.
    pub(super) fn skip(&mut self) {
        self.before += self.bytes.len();
        self.bytes.clear();
        self.line = 0;
        self.empty_line = EmptyLine::Possible;
    }
}

/// Parses a response's complete header block and passes it to `read`.
pub(super) fn read_response<T>(bytes: &[u8], read: impl FnOnce(&Response<'_, '_>) -> T) -> Result<T, HeadError> {
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut response = Response::new(&mut fields);
    complete(response.parse(bytes)?, bytes)?;
    Ok(read(&response))
}

/// Parses a request's complete header block and passes it to `read`.
pub(super) fn read_request<T>(bytes: &[u8], read: impl FnOnce(&Request<'_, '_>) -> T) -> Result<T, HeadError> {
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut request = Request::new(&mut fields);
    complete(request.parse(bytes)?, bytes)?;
    Ok(read(&request))
}

/// The parser must end where [`Head::take`] did; otherwise bytes would be read twice or not at all.
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
    fn the_end_is_found_at_every_split() {
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
    fn a_block_is_limited_to_8_kib() {
        let fits = [&b"A\n"[..], &vec![b'x'; MAX_HEAD - 4], b"\n\n"].concat();
        assert_eq!(Head::default().take(&fits), Ok(Some(MAX_HEAD)));
        assert_eq!(Head::default().take(&[&fits[..], b"more"].concat()), Ok(Some(MAX_HEAD)));
        let over = [&b"A\nx"[..], &fits[2..]].concat();
        assert_eq!(Head::default().take(&over), Err(HeadError::TooLong));
        let mut head = Head::default();
        assert_eq!(head.take(&over[..MAX_HEAD]), Ok(None));
        assert_eq!(head.take(b""), Ok(None));
        assert_eq!(head.take(&over[MAX_HEAD..]), Err(HeadError::TooLong));
    }

    #[test]
    fn one_empty_line_may_stand_before_a_block() {
        for (text, rest) in
            [("\r\nA\r\n", "A\r\n"), ("\nA", "A"), ("A\n", "A\n"), ("\r\n\r\nA", "\r\nA"), ("\n\n", "\n")]
        {
            for split in 0..=text.len() {
                let mut head = Head::default();
                let (first, second) = text.as_bytes().split_at(split);
                let left = [head.skip_empty_line(first).unwrap(), head.skip_empty_line(second).unwrap()].concat();
                assert_eq!((&left[..], head.before), (rest.as_bytes(), text.len() - rest.len()), "{text:?} at {split}");
            }
        }
        let mut head = Head::default();
        assert_eq!(head.skip_empty_line(b"\rA"), Err(HeadError::NotHttp));
        let mut head = Head::default();
        let interim = b"HTTP/1.1 103 x\n\n";
        for _ in 0..MAX_HEAD / (2 + interim.len()) {
            assert_eq!(head.skip_empty_line(b"\r\n"), Ok(&[][..]));
            assert_eq!(head.take(interim), Ok(Some(interim.len())));
            head.skip();
        }
        assert_eq!(head.skip_empty_line(b"\r\n"), Ok(&[][..]));
        assert_eq!(head.take(interim), Err(HeadError::TooLong), "empty lines count");
    }

    #[test]
    fn skipped_blocks_count_towards_the_limit() {
        let mut head = Head::default();
        let interim = b"HTTP/1.1 103 x\n\n";
        for _ in 0..MAX_HEAD / interim.len() {
            assert_eq!(head.take(interim), Ok(Some(interim.len())));
            head.skip();
        }
        assert_eq!(head.take(b""), Ok(None));
        assert_eq!(head.take(interim), Err(HeadError::TooLong));
    }
}
