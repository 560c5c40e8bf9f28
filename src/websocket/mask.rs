//! Masking (RFC 6455 section 5.3): a key of four bytes, over and over, exclusive-or'ed with the payload.

/// Bytes masked at once.
const WORD: usize = size_of::<u64>();
/// Bytes masked on their way from one place to the other: so many that adding them costs less than masking them.
const BLOCK: usize = 256;

/// A key, and how far into it we are: pieces of a payload may have any length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mask {
    /// The key, rotated so that its first byte is next.
    key: [u8; 4],
}

impl Mask {
    /// A mask at the beginning of a payload.
    pub fn new(key: [u8; 4]) -> Self {
        Self { key }
    }

    /// Masks or unmasks the next bytes of the payload in place.
    #[inline]
    pub fn apply(&mut self, bytes: &mut [u8]) {
        let [a, b, c, d] = self.key;
        // As bytes lie in memory, so that the order of bytes in a word does not matter. Words need not be aligned: that
        // costs nothing on x86 and ARM and one instruction a word on MIPS.
        let word = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
        let (words, rest) = bytes.as_chunks_mut::<WORD>();
        for bytes in words {
            *bytes = (u64::from_ne_bytes(*bytes) ^ word).to_ne_bytes();
        }
        for (byte, key) in rest.iter_mut().zip(self.key.iter().cycle()) {
            *byte ^= key;
        }
        // A word holds the key twice, so what counts is the rest.
        self.skip(rest.len());
    }

    /// Passes over `count` bytes.
    pub fn skip(&mut self, count: usize) {
        self.key.rotate_left(count % 4);
    }

    /// Appends the next bytes of the payload, masked, to `out`.
    pub fn append(&mut self, payload: &[u8], out: &mut Vec<u8>) {
        out.reserve(payload.len());
        let (blocks, rest) = payload.as_chunks::<BLOCK>();
        for block in blocks {
            let mut block = *block;
            self.apply(&mut block);
            out.extend_from_slice(&block);
        }
        let start = out.len();
        out.extend_from_slice(rest);
        self.apply(&mut out[start..]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

    fn plainly(payload: &[u8]) -> Vec<u8> {
        payload.iter().zip(KEY.iter().cycle()).map(|(byte, key)| byte ^ key).collect()
    }

    #[test]
    fn rfc6455_5_3_masks_as_the_plainest_way() {
        // Section 5.7's example.
        let mut hello = *b"Hello";
        Mask::new(KEY).apply(&mut hello);
        assert_eq!(hello, [0x7f, 0x9f, 0x4d, 0x51, 0x58]);
        let payload: Vec<u8> = (0..=255).cycle().take(2 * BLOCK + 13).collect();
        for length in (0..70).chain([BLOCK - 1, BLOCK, BLOCK + 1, payload.len()]) {
            let mut masked = payload[..length].to_vec();
            Mask::new(KEY).apply(&mut masked);
            assert_eq!(masked, plainly(&payload[..length]), "{length} bytes");
            let mut out = b"before".to_vec();
            Mask::new(KEY).append(&payload[..length], &mut out);
            assert_eq!(out, [&b"before"[..], &masked].concat(), "{length} bytes");
        }
    }

    #[test]
    fn pieces_do_not_matter() {
        let payload: Vec<u8> = (0..100).collect();
        let masked = plainly(&payload);
        for first in 0..payload.len() {
            for second in [0, 1, 2, 3, 7, 9] {
                let mut bytes = payload.clone();
                let (a, rest) = bytes.split_at_mut(first);
                let (b, c) = rest.split_at_mut(rest.len().min(second));
                let mut mask = Mask::new(KEY);
                mask.apply(a);
                mask.apply(b);
                mask.apply(c);
                assert_eq!(bytes, masked, "{first}, {second}");
            }
        }
    }
}
