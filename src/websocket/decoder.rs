//! Decodes headers and payloads from pieces of any size. A whole frame is never assembled.

use super::ProtocolError;
use super::frame::{Header, MAX_HEADER, parse};
use super::mask::Mask;

/// Decodes a header that comes in pieces.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct HeaderReader {
    bytes: [u8; MAX_HEADER],
    buffered: u8,
}

impl HeaderReader {
    /// Consumes the header's bytes of `input[*consumed..]`. `None` if all of them belong to the header and more are
    /// needed.
    #[inline]
    pub(super) fn read(&mut self, input: &[u8], consumed: &mut usize) -> Result<Option<Header>, ProtocolError> {
        let input = &input[*consumed..];
        let buffered = usize::from(self.buffered);
        if buffered == 0
            && let Some((header, length)) = parse(input)?
        {
            *consumed += length;
            return Ok(Some(header));
        }
        let more = input.len().min(MAX_HEADER - buffered);
        self.bytes[buffered..buffered + more].copy_from_slice(&input[..more]);
        Ok(match parse(&self.bytes[..buffered + more])? {
            Some((header, length)) => {
                // The bytes before this piece were no whole header, so `length` is larger than `buffered`.
                *consumed += length - buffered;
                self.buffered = 0;
                Some(header)
            }
            None => {
                *consumed += more;
                self.buffered += more as u8;
                None
            }
        })
    }
}

/// The rest of a frame's payload.
#[derive(Clone, Copy, Debug)]
pub(super) struct Payload {
    mask: Option<Mask>,
    remaining: u64,
}

impl Payload {
    /// The whole payload of the frame.
    pub(super) fn new(header: &Header) -> Self {
        Self { mask: header.mask.map(Mask::new), remaining: header.length }
    }

    /// True if the frame is complete.
    pub(super) fn is_complete(&self) -> bool {
        self.remaining == 0
    }

    /// Consumes and unmasks in place the bytes of `input` that belong to the frame, at most `max` bytes.
    #[inline]
    pub(super) fn take<'a>(&mut self, input: &'a mut [u8], max: usize) -> &'a mut [u8] {
        // Converted to usize only once it is no more than the input's length: `remaining` may exceed a 32-bit usize.
        let count = (input.len().min(max) as u64).min(self.remaining) as usize;
        let consumed = &mut input[..count];
        if let Some(mask) = &mut self.mask {
            mask.apply(consumed);
        }
        self.remaining -= count as u64;
        consumed
    }

    /// Reverts all but the first `kept` bytes of `consumed`, which `take` returned for the payload `before`: masks them
    /// again, as if they had not come.
    pub(super) fn give_back(&mut self, before: &Self, consumed: &mut [u8], kept: usize) {
        *self = *before;
        self.remaining -= kept as u64;
        if let Some(mask) = &mut self.mask {
            mask.skip(kept);
            mask.clone().apply(&mut consumed[kept..]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::frame::Opcode;
    use super::*;

    #[test]
    fn a_header_in_pieces_consumes_no_more_than_itself() {
        let header =
            Header { fin: true, compressed: false, opcode: Opcode::Binary, mask: Some([1, 2, 3, 4]), length: 70_000 };
        let mut bytes = Vec::new();
        header.encode(&mut bytes);
        let end = bytes.len();
        bytes.extend_from_slice(&[0xff; 30]);
        for split in 0..bytes.len() {
            let (mut reader, mut consumed) = (HeaderReader::default(), 0);
            let first = reader.read(&bytes[..split], &mut consumed);
            assert_eq!(consumed, split.min(end));
            let read = match first.unwrap() {
                Some(header) => header,
                None => reader.read(&bytes, &mut consumed).unwrap().unwrap(),
            };
            assert_eq!((read, consumed, reader.buffered), (header, end, 0), "split at {split}");
        }
    }

    #[test]
    fn bytes_that_are_given_back_are_unchanged() {
        let header =
            Header { fin: true, compressed: false, opcode: Opcode::Binary, mask: Some([1, 2, 3, 4]), length: 20 };
        let input: Vec<u8> = (100..130).collect();
        let mut plain = input.clone();
        Payload::new(&header).take(&mut plain, usize::MAX);
        for first in 0..=20 {
            for kept in 0..=20 - first {
                let mut bytes = input.clone();
                let mut payload = Payload::new(&header);
                payload.take(&mut bytes, first);
                let before = payload;
                let length = payload.take(&mut bytes[first..], 17).len();
                let kept = kept.min(length);
                payload.give_back(&before, &mut bytes[first..first + length], kept);
                assert_eq!(
                    bytes[first + kept..],
                    input[first + kept..],
                    "bytes from {first} + {kept} on are unchanged"
                );
                payload.take(&mut bytes[first + kept..], usize::MAX);
                assert!(payload.is_complete());
                assert_eq!(bytes, plain);
            }
        }
    }
}
