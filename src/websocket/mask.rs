//! Masking (RFC 6455 section 5.3): the payload is XORed with a repeated key of four bytes.

/// Bytes masked at once.
const WORD: usize = size_of::<u64>();
/// Bytes masked in a block, which the compiler makes vectors of.
const BLOCK: usize = 8 * WORD;
/// Bytes masked at once after they were copied, while they are in the processor's first cache.
const PIECE: usize = 1024;

/// A key and the position in it, since pieces of a payload may have any length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mask {
    /// The key, rotated so that its first byte is next.
    key: [u8; 4],
}

impl Mask {
    /// A mask at the start of a payload.
    pub(super) fn new(key: [u8; 4]) -> Self {
        Self { key }
    }

    /// Masks or unmasks the next bytes of the payload in place.
    #[inline]
    pub(super) fn apply(&mut self, bytes: &mut [u8]) {
        let [a, b, c, d] = self.key;
        // Native byte order, so that the bytes keep their places in memory. Unaligned words cost nothing on x86 and ARM
        // and one instruction a word on MIPS.
        let word = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
        let (blocks, rest) = bytes.as_chunks_mut::<BLOCK>();
        for block in blocks {
            *block = xor(*block, word);
        }
        let (words, rest) = rest.as_chunks_mut::<WORD>();
        for bytes in words {
            *bytes = xor(*bytes, word);
        }
        for (byte, key) in rest.iter_mut().zip(self.key.iter().cycle()) {
            *byte ^= key;
        }
        // A word holds the key twice, so only the remainder moves the position.
        self.skip(rest.len());
    }

    /// Advances the position by `count` bytes.
    pub(super) fn skip(&mut self, count: usize) {
        self.key.rotate_left(count % 4);
    }

    /// Appends the next bytes of the payload, masked, to `out`.
    pub(super) fn append(&mut self, payload: &[u8], out: &mut Vec<u8>) {
        out.reserve(payload.len());
        for piece in payload.chunks(PIECE) {
            let start = out.len();
            out.extend_from_slice(piece);
            self.apply(&mut out[start..]);
        }
    }
}

/// `block`, each word of it XORed with `word`. `N` is a multiple of [`WORD`].
#[inline]
fn xor<const N: usize>(mut block: [u8; N], word: u64) -> [u8; N] {
    for bytes in block.as_chunks_mut::<WORD>().0 {
        *bytes = (u64::from_ne_bytes(*bytes) ^ word).to_ne_bytes();
    }
    block
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

    fn masked_bytewise(payload: &[u8]) -> Vec<u8> {
        payload.iter().zip(KEY.iter().cycle()).map(|(byte, key)| byte ^ key).collect()
    }

    #[test]
    fn rfc6455_5_3_masks_like_a_bytewise_xor() {
        // The example of section 5.7.
        let mut hello = *b"Hello";
        Mask::new(KEY).apply(&mut hello);
        assert_eq!(hello, [0x7f, 0x9f, 0x4d, 0x51, 0x58]);
        let payload: Vec<u8> = (0..=255).cycle().take(2 * PIECE + 13).collect();
        for length in (0..70).chain([BLOCK - 1, BLOCK, BLOCK + 1, PIECE - 1, PIECE, PIECE + 1, payload.len()]) {
            let mut masked = payload[..length].to_vec();
            Mask::new(KEY).apply(&mut masked);
            assert_eq!(masked, masked_bytewise(&payload[..length]), "{length} bytes");
            let mut out = b"before".to_vec();
            Mask::new(KEY).append(&payload[..length], &mut out);
            assert_eq!(out, [&b"before"[..], &masked].concat(), "{length} bytes");
        }
    }

    #[test]
    fn pieces_of_any_length_are_masked_as_a_whole() {
        let payload: Vec<u8> = (0..100).collect();
        let masked = masked_bytewise(&payload);
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
