//! Frames, read in pieces of any size: never does a whole frame have to be there.

use super::Failure;
use super::frame::{HEADER_LIMIT, Header, parse};
use super::mask::Mask;

/// Collects a header that comes in pieces.
#[derive(Clone, Copy, Debug, Default)]
pub struct HeaderReader {
    bytes: [u8; HEADER_LIMIT],
    have: u8,
}

impl HeaderReader {
    /// Takes what belongs to the header off `input[*taken..]`; `None`: all of it did, and there is more to come.
    #[inline]
    pub fn read(&mut self, input: &[u8], taken: &mut usize) -> Result<Option<Header>, Failure> {
        let input = &input[*taken..];
        let have = usize::from(self.have);
        if have == 0
            && let Some((header, length)) = parse(input)?
        {
            *taken += length;
            return Ok(Some(header));
        }
        let more = input.len().min(HEADER_LIMIT - have);
        self.bytes[have..have + more].copy_from_slice(&input[..more]);
        Ok(match parse(&self.bytes[..have + more])? {
            Some((header, length)) => {
                // What was there before was not enough for a header.
                *taken += length - have;
                self.have = 0;
                Some(header)
            }
            None => {
                *taken += more;
                self.have += more as u8;
                None
            }
        })
    }
}

/// What is to come of a frame.
#[derive(Clone, Copy, Debug)]
pub struct Payload {
    mask: Option<Mask>,
    remaining: u64,
}

impl Payload {
    /// All of the frame's payload.
    pub fn new(header: &Header) -> Self {
        Self { mask: header.mask.map(Mask::new), remaining: header.length }
    }

    /// Whether the frame is complete.
    pub fn is_complete(&self) -> bool {
        self.remaining == 0
    }

    /// Takes what of `input` belongs to the frame, at most `most` bytes, and unmasks it in place.
    #[inline]
    pub fn take<'a>(&mut self, input: &'a mut [u8], most: usize) -> &'a mut [u8] {
        // As usize only what is no more than the input.
        let count = (input.len().min(most) as u64).min(self.remaining) as usize;
        let taken = &mut input[..count];
        if let Some(mask) = &mut self.mask {
            mask.apply(taken);
        }
        self.remaining -= count as u64;
        taken
    }

    /// Takes all but the first `kept` bytes back that `before.take` had given as `taken`, as if they had not come.
    pub fn give_back(&mut self, before: &Self, taken: &mut [u8], kept: usize) {
        *self = *before;
        self.remaining -= kept as u64;
        if let Some(mask) = &mut self.mask {
            mask.skip(kept);
            mask.clone().apply(&mut taken[kept..]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::frame::Opcode;
    use super::*;

    #[test]
    fn a_header_in_pieces_takes_no_more_than_itself() {
        let header =
            Header { fin: true, compressed: false, opcode: Opcode::Binary, mask: Some([1, 2, 3, 4]), length: 70_000 };
        let mut bytes = Vec::new();
        header.encode(&mut bytes);
        let end = bytes.len();
        bytes.extend_from_slice(&[0xff; 30]);
        for split in 0..bytes.len() {
            let (mut reader, mut taken) = (HeaderReader::default(), 0);
            let first = reader.read(&bytes[..split], &mut taken);
            assert_eq!(taken, split.min(end));
            let read = match first.unwrap() {
                Some(header) => header,
                None => reader.read(&bytes, &mut taken).unwrap().unwrap(),
            };
            assert_eq!((read, taken, reader.have), (header, end, 0), "split at {split}");
        }
    }

    #[test]
    fn what_is_given_back_is_as_it_was() {
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
                assert_eq!(bytes[first + kept..], input[first + kept..], "untouched from {first} + {kept} on");
                payload.take(&mut bytes[first + kept..], usize::MAX);
                assert!(payload.is_complete());
                assert_eq!(bytes, plain);
            }
        }
    }
}
