//! Compression of messages that are sent (RFC 7692 section 7.2.1), by the fixed codes of DEFLATE (RFC 1951).
//!
//! Each message is compressed by itself, and while it lies in memory as a whole. So the message is the window, nothing is
//! kept between messages, and the only memory is a table of 4 KiB on the stack. General compressors need 250 kB and more
//! for each stream, which a router has not got, and do not keep to small windows.

/// Shortest message in bytes that is compressed. A shorter one fits in one packet in any case, and shrinks little without a
/// context (docs/performance.md).
const MIN_LENGTH: usize = 512;
/// Longest message in bytes that is compressed. It is compressed in one turn of the loop, for which other connections wait: 12
/// to 28 ms at 580 million instructions a second.
const MAX_LENGTH: usize = 256 * 1024;

/// Shortest match in bytes. One of three bytes is hardly shorter than its literals.
const MIN_MATCH: usize = 4;
/// Longest match in bytes (RFC 1951 section 3.2.5).
const MAX_MATCH: usize = 258;
/// Entries of the hash table, as a power of 2.
const HASH_BITS: u32 = 11;
/// Bytes after which the output is compared with [`worthwhile`]: what does not shrink costs no more than these.
const PROBE: usize = 1024;
/// After this many bytes without a match, as a power of 2, each second byte is looked up, then each third, and so on.
const SKIP_BITS: u32 = 5;

/// The fixed codes of literals, in the order in which their bits are sent (RFC 1951 section 3.2.6).
static LITERALS: [u16; 256] = {
    let mut codes = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let code = byte as u16;
        codes[byte] =
            if byte < 144 { (0x30 + code).reverse_bits() >> 8 } else { (0x190 + code - 144).reverse_bits() >> 7 };
        byte += 1;
    }
    codes
};

/// How many bytes of output a message of `length` bytes may have; `None` if it is not to be compressed.
pub(super) fn max_output(length: usize) -> Option<usize> {
    (MIN_LENGTH..=MAX_LENGTH).contains(&length).then(|| worthwhile(length))
}

/// The longest output in bytes for `length` bytes that is worth its cost to both ends: an eighth shorter.
fn worthwhile(length: usize) -> usize {
    length - length / 8
}

/// Compresses `payload` into `out`, for a peer whose window has `window_bits`, 8 to 15. Returns the length of the result without
/// the four bytes that section 7.2.1 removes; `None` if it does not fit in `out`, or if the beginning of `payload` does not shrink.
#[inline(never)]
pub(crate) fn deflate(payload: &[u8], window_bits: u8, out: &mut [u8]) -> Option<usize> {
    let mut bits = BitWriter { out, at: 0, pending: 0, count: 0 };
    // A block that is not the last, with fixed codes.
    bits.put(0b010, 3);
    // Where the four bytes of this hash were last seen, modulo 2^16. What is stored need not be right: each match is checked.
    let mut table = [0u16; 1 << HASH_BITS];
    let window = 1usize << window_bits.clamp(8, 15);
    let (mut at, mut literals, mut probe) = (0, 0, PROBE);
    while let Some(next) = word(payload, at) {
        if at >= probe {
            if bits.at + (at - literals) > worthwhile(at) {
                return None;
            }
            probe = at + PROBE;
        }
        let entry = &mut table[hash(next)];
        let distance = usize::from((at as u16).wrapping_sub(*entry));
        *entry = at as u16;
        if distance == 0 || distance > window.min(at) || word(payload, at - distance) != Some(next) {
            at += 1 + ((at - literals) >> SKIP_BITS);
            continue;
        }
        bits.literals(&payload[literals..at])?;
        let length = MIN_MATCH + common(&payload[at - distance + MIN_MATCH..], &payload[at + MIN_MATCH..]);
        bits.length(length as u32)?;
        bits.distance(distance as u32)?;
        at += length;
        literals = at;
        // What follows a match is often what followed the earlier one.
        if let Some(last) = word(payload, at - 2) {
            table[hash(last)] = (at - 2) as u16;
        }
    }
    bits.literals(&payload[literals..])?;
    bits.end()
}

/// The four bytes at `at`; `None` if there are fewer.
#[inline]
fn word(payload: &[u8], at: usize) -> Option<u32> {
    payload.get(at..)?.first_chunk().map(|bytes| u32::from_le_bytes(*bytes))
}

#[inline]
fn hash(word: u32) -> usize {
    // The golden ratio: its upper bits depend on all bytes.
    (word.wrapping_mul(0x9e37_79b1) >> (32 - HASH_BITS)) as usize
}

/// The length of what both begin with, as far as a match may extend.
#[inline]
fn common(earlier: &[u8], now: &[u8]) -> usize {
    earlier.iter().zip(now).take(MAX_MATCH - MIN_MATCH).take_while(|(a, b)| a == b).count()
}

/// Writes codes, whose first bit is the lowest (RFC 1951 section 3.1.1).
struct BitWriter<'a> {
    out: &'a mut [u8],
    at: usize,
    /// Bits that make no pair of bytes yet.
    pending: u32,
    /// How many they are, 0 to 15.
    count: u32,
}

impl BitWriter<'_> {
    /// Writes `count` bits, at most 16. `None` if `out` is full.
    #[inline]
    fn put(&mut self, bits: u32, count: u32) -> Option<()> {
        self.pending |= bits << self.count;
        self.count += count;
        if self.count >= 16 {
            *self.out.get_mut(self.at..)?.first_chunk_mut()? = (self.pending as u16).to_le_bytes();
            self.at += 2;
            self.pending >>= 16;
            self.count -= 16;
        }
        Some(())
    }

    #[inline]
    fn literals(&mut self, bytes: &[u8]) -> Option<()> {
        for byte in bytes {
            self.put(LITERALS[usize::from(*byte)].into(), if *byte < 144 { 8 } else { 9 })?;
        }
        Some(())
    }

    /// Writes the length of a match, 3 to 258 (RFC 1951 section 3.2.5).
    #[inline]
    fn length(&mut self, length: u32) -> Option<()> {
        let value = length - 3;
        let (symbol, extra) = match value {
            0..8 => (1 + value, 0),
            255 => (29, 0),
            _ => {
                let extra = value.ilog2() - 2;
                (5 + 4 * extra + (value >> extra & 3), extra)
            }
        };
        // Symbols from 280 on have a code of eight bits.
        match symbol {
            0..24 => self.put(u32::from((symbol as u8).reverse_bits()) >> 1, 7)?,
            _ => self.put(((0xc0 + symbol - 24) as u8).reverse_bits().into(), 8)?,
        }
        self.put(value & ((1 << extra) - 1), extra)
    }

    /// Writes the distance of a match, 1 to 32768.
    #[inline]
    fn distance(&mut self, distance: u32) -> Option<()> {
        let value = distance - 1;
        let (symbol, extra) = match value {
            0..4 => (value, 0),
            _ => {
                let extra = value.ilog2() - 1;
                (2 + 2 * extra + (value >> extra & 1), extra)
            }
        };
        self.put(u32::from((symbol as u8).reverse_bits() >> 3), 5)?;
        self.put(value & ((1 << extra) - 1), extra)
    }

    /// Ends the block, and the message: an empty block without compression, without its lengths.
    fn end(mut self) -> Option<usize> {
        // The end of the block is symbol 256.
        self.put(0, 7)?;
        self.put(0, 3)?;
        for byte in self.pending.to_le_bytes().iter().take(self.count.div_ceil(8) as usize) {
            *self.out.get_mut(self.at)? = *byte;
            self.at += 1;
        }
        Some(self.at)
    }
}

#[cfg(test)]
mod tests {
    use flate2::{Decompress, FlushDecompress};
    use miniz_oxide::inflate::TINFLStatus;
    use miniz_oxide::inflate::core::inflate_flags::TINFL_FLAG_HAS_MORE_INPUT;
    use miniz_oxide::inflate::core::{DecompressorOxide, decompress};
    use testkit::random::Random;

    use super::*;
    use crate::websocket::deflate::Inflater;

    /// Compresses with room for any result.
    fn deflated(payload: &[u8], window_bits: u8) -> Option<Vec<u8>> {
        let mut out = vec![0; payload.len() * 9 / 8 + 100];
        let length = deflate(payload, window_bits, &mut out)?;
        out.truncate(length);
        Some(out)
    }

    /// Inflates with zlib-rs.
    fn inflated_by_zlib(deflated: &[u8], length: usize) -> Vec<u8> {
        let mut out = Vec::with_capacity(length + 1);
        let input = [deflated, &[0, 0, 0xff, 0xff]].concat();
        let mut inflate = Decompress::new(false);
        inflate.decompress_vec(&input, &mut out, FlushDecompress::Sync).unwrap();
        assert_eq!(inflate.total_in(), input.len() as u64, "all of it is read");
        out
    }

    /// Inflates in a window of exactly `window_bits`, which fails if the input refers further back.
    fn inflated_in_window(deflated: &[u8], window_bits: u8) -> Vec<u8> {
        let mut core = DecompressorOxide::new();
        let mut window = vec![0; 1 << window_bits];
        let (mut out, mut rest, mut at) = (Vec::new(), deflated, 0);
        loop {
            let (status, consumed, produced) = decompress(&mut core, rest, &mut window, at, TINFL_FLAG_HAS_MORE_INPUT);
            out.extend_from_slice(&window[at..at + produced]);
            rest = &rest[consumed..];
            at = (at + produced) % window.len();
            match status {
                TINFLStatus::HasMoreOutput => {}
                TINFLStatus::NeedsMoreInput => break,
                other => panic!("{other:?}"),
            }
        }
        assert!(rest.is_empty());
        out
    }

    /// Inflates as a message that comes in these pieces.
    fn inflated_in_pieces(pieces: &[&[u8]], window_bits: u8) -> Vec<u8> {
        let mut inflater = Inflater::new(window_bits);
        let mut out = Vec::new();
        for piece in pieces {
            let mut rest = *piece;
            loop {
                let step = inflater.inflate(rest).unwrap();
                out.extend_from_slice(&inflater.window()[step.output]);
                rest = &rest[step.consumed..];
                if step.needs_input {
                    break;
                }
            }
        }
        loop {
            let step = inflater.finish().unwrap();
            out.extend_from_slice(&inflater.window()[step.output]);
            if step.needs_input {
                return out;
            }
        }
    }

    #[track_caller]
    fn round_trip(payload: &[u8], window_bits: u8) -> usize {
        let deflated = deflated(payload, window_bits).unwrap();
        assert!(inflated_by_zlib(&deflated, payload.len()) == payload, "zlib-rs inflates something else");
        assert!(inflated_in_window(&deflated, window_bits) == payload, "miniz_oxide inflates something else");
        deflated.len()
    }

    /// Sensors of a home, as a plugin sends them.
    fn sensors(length: usize) -> Vec<u8> {
        let mut random = Random::new(5);
        let mut out = Vec::new();
        while out.len() < length {
            let (id, value) = (random.below(40), random.below(1000));
            out.extend_from_slice(
                format!("{{\"id\":\"sensor.room_{id}\",\"value\":{value},\"unit\":\"°C\"}},").as_bytes(),
            );
        }
        out.truncate(length);
        out
    }

    #[test]
    fn rfc7692_7_2_3_examples() {
        // 7.2.3.1: one block with fixed codes. 7.2.3.6 leaves the encoding of an empty message open.
        assert_eq!(deflated(b"Hello", 15).unwrap(), [0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00]);
        for bits in 8..=15 {
            round_trip(b"", bits);
        }
    }

    #[test]
    fn every_length_and_distance_of_a_match() {
        let unique = Random::new(4).bytes(2 * MAX_MATCH + 9);
        for length in MIN_MATCH..unique.len() {
            let text = [&[0; 600][..], &unique[..length], b"|", &unique[..length], b">"].concat();
            round_trip(&text, 15);
            round_trip(&vec![b'a'; length], 8);
        }
        let mut random = Random::new(1);
        for period in 1..16 {
            round_trip(&random.bytes(period).repeat(40), 15);
        }
        let (here, there) = (random.bytes(16), random.bytes(16));
        for distance in (5..=15).flat_map(|bits| [(1 << bits) - 1, 1 << bits, (1 << bits) + 1]) {
            // Zeros, which a match does not look up one by one, lie between.
            let zeros = vec![0; distance - 16];
            let twice = round_trip(&[&here[..], &zeros, &here].concat(), 15);
            let once = round_trip(&[&here[..], &zeros, &there].concat(), 15);
            assert_eq!(twice < once - 8, distance <= 32_768, "{distance}: {twice}, {once} bytes");
        }
    }

    #[test]
    fn rfc7692_7_1_2_every_window() {
        for bits in 8..=15 {
            for length in [1, 3, 4, 5, 100, 255, 256, 257, 1000, 4096, 40_000, 70_000, 200_000] {
                round_trip(&sensors(length), bits);
            }
        }
        assert!(round_trip(&sensors(40_000), 15) < round_trip(&sensors(40_000), 8));
        assert!(round_trip(&sensors(4000), 12) < 1000, "JSON shrinks to a quarter");
    }

    #[test]
    fn at_every_split() {
        let text = sensors(900);
        let deflated = deflated(&text, 9).unwrap();
        for split in 0..=deflated.len() {
            let (a, b) = deflated.split_at(split);
            assert!(inflated_in_pieces(&[a, b], 9) == text, "split at {split}");
        }
        let bytes: Vec<&[u8]> = deflated.chunks(1).collect();
        assert!(inflated_in_pieces(&bytes, 9) == text);
    }

    #[test]
    fn any_bytes_come_back_or_are_given_up() {
        let mut random = Random::new(2);
        for _ in 0..2000 {
            let symbols = 1 + random.below(255) as u8;
            let most = [10, 300, 3000][random.below(3) as usize];
            let length = random.below(most) as usize;
            let payload: Vec<u8> = random.bytes(length).iter().map(|byte| byte % symbols).collect();
            let bits = 8 + random.below(8) as u8;
            if let Some(deflated) = deflated(&payload, bits) {
                assert!(inflated_by_zlib(&deflated, payload.len()) == payload);
                assert!(inflated_in_window(&deflated, bits) == payload);
            }
        }
    }

    #[test]
    fn what_does_not_shrink_is_given_up_early() {
        let noise = Random::new(3).bytes(MAX_LENGTH);
        let mut out = vec![0; MAX_LENGTH * 2];
        assert_eq!(deflate(&noise, 15, &mut out), None);
        assert!(out[2 * PROBE..].iter().all(|byte| *byte == 0), "it went on");
        // Text that is followed by noise.
        let text = [&sensors(2000)[..], &noise].concat();
        assert_eq!(deflate(&text, 15, &mut out), None);
        assert!(out[20_000..].iter().all(|byte| *byte == 0), "it went on");
    }

    #[test]
    fn no_more_is_written_than_there_is_room_for() {
        let text = sensors(1000);
        let whole = deflated(&text, 15).unwrap();
        for room in 0..=whole.len() {
            let mut out = vec![0; room];
            assert_eq!(deflate(&text, 15, &mut out), (room == whole.len()).then_some(room), "{room} bytes");
        }
    }

    #[test]
    fn short_and_long_messages_are_not_compressed() {
        let lengths = [0, MIN_LENGTH - 1, MIN_LENGTH, MAX_LENGTH, MAX_LENGTH + 1];
        assert_eq!(lengths.map(max_output), [None, None, Some(448), Some(229_376), None]);
    }
}
