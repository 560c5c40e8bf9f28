//! [`Utf8`]: checks UTF-8 that comes in pieces of any size.

/// Bytes of a machine word, which are checked for ASCII at once.
const WORD: usize = size_of::<usize>();
/// The highest bit of each byte of a word. No ASCII character has it.
const HIGH_BITS: usize = usize::MAX / 0xff * 0x80;

/// Checks a text. An error is detected at the first byte that cannot belong to any character.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Utf8 {
    /// Bytes that the character which has begun still needs, 0 to 3.
    needed: u8,
    /// The range of the next of them.
    lower: u8,
    upper: u8,
}

impl Utf8 {
    /// Checks the next piece. False if the text is not UTF-8.
    #[must_use]
    #[inline]
    pub(super) fn check(&mut self, mut piece: &[u8]) -> bool {
        loop {
            if self.needed == 0 {
                piece = match skip_characters(piece) {
                    [] => return true,
                    [0..=0x7f, ..] => skip_ascii(piece),
                    // The most frequent characters of two and three bytes, whole.
                    [0xc2..=0xdf, 0x80..=0xbf, rest @ ..]
                    | [0xe1..=0xec | 0xee..=0xef, 0x80..=0xbf, 0x80..=0xbf, rest @ ..] => rest,
                    [first, rest @ ..] => {
                        // RFC 3629 section 4: no overlong forms, no surrogates, nothing above U+10FFFF.
                        (self.needed, self.lower, self.upper) = match first {
                            0xc2..=0xdf => (1, 0x80, 0xbf),
                            0xe0 => (2, 0xa0, 0xbf),
                            0xed => (2, 0x80, 0x9f),
                            0xe1..=0xef => (2, 0x80, 0xbf),
                            0xf0 => (3, 0x90, 0xbf),
                            0xf1..=0xf3 => (3, 0x80, 0xbf),
                            0xf4 => (3, 0x80, 0x8f),
                            _ => return false,
                        };
                        rest
                    }
                };
            } else {
                let [next, rest @ ..] = piece else { return true };
                if !(self.lower..=self.upper).contains(next) {
                    return false;
                }
                (self.needed, self.lower, self.upper) = (self.needed - 1, 0x80, 0xbf);
                piece = rest;
            }
        }
    }

    /// True if the text may end here.
    pub(super) fn is_complete(&self) -> bool {
        self.needed == 0
    }
}

/// The highest bits of the bytes of a word, the first byte's lowest.
#[inline]
fn high_bits(word: &[u8; WORD]) -> usize {
    usize::from_le_bytes(*word) & HIGH_BITS
}

/// `text` without whole characters at its beginning, if it is so long that vector instructions find them fastest; else `text`.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
#[inline]
fn skip_characters(text: &[u8]) -> &[u8] {
    /// Shorter texts take longer to begin with than to check.
    const MIN_LEN: usize = 128;
    if text.len() < MIN_LEN {
        return text;
    }
    match simdutf8::compat::from_utf8(text) {
        Ok(_) => &[],
        Err(error) => &text[error.valid_up_to()..],
    }
}

/// `text`: there are no vector instructions for more.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
#[inline]
fn skip_characters(text: &[u8]) -> &[u8] {
    text
}

/// `text` from its first byte on that is not ASCII.
#[inline]
fn skip_ascii(mut text: &[u8]) -> &[u8] {
    // Four words at once, which the compiler makes vectors of. Without a loop, since the firmware's build unrolls none.
    while let Some((words, rest)) = text.split_first_chunk::<{ 4 * WORD }>()
        && let [a, b, c, d] = words.as_chunks::<WORD>().0
        && (high_bits(a) | high_bits(b) | high_bits(c) | high_bits(d)) == 0
    {
        text = rest;
    }
    while let Some((word, rest)) = text.split_first_chunk() {
        let high = high_bits(word);
        if high != 0 {
            return &text[high.trailing_zeros() as usize / 8..];
        }
        text = rest;
    }
    while let [0..=0x7f, rest @ ..] = text {
        text = rest;
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The number of bytes before the error, and whether the text is complete there.
    fn checked(text: &[u8]) -> (usize, bool) {
        let mut utf8 = Utf8::default();
        let good = text.iter().take_while(|byte| utf8.check(&[**byte])).count();
        (good, good == text.len() && utf8.is_complete())
    }

    #[test]
    fn every_character_in_every_split() {
        for character in
            ["a", "\u{80}", "ä", "\u{7ff}", "\u{800}", "€", "\u{d7ff}", "\u{e000}", "\u{ffff}", "🧦", "\u{10ffff}"]
        {
            let text = format!("{character}-{character}");
            assert_eq!(checked(text.as_bytes()), (text.len(), true), "{text}");
            for split in 0..=text.len() {
                let (a, b) = text.as_bytes().split_at(split);
                let mut utf8 = Utf8::default();
                assert!(utf8.check(a));
                assert_eq!(utf8.is_complete(), text.is_char_boundary(split));
                assert!(utf8.check(b) && utf8.is_complete(), "{text} at {split}");
            }
        }
    }

    #[test]
    fn rfc6455_8_1_errors_are_detected_at_the_first_wrong_byte() {
        for (text, good) in [
            (&b"\x80"[..], 0),        // a continuation byte at the start
            (b"\xc0\x80", 0),         // overlong
            (b"\xc1\xbf", 0),         // overlong
            (b"ab\xe0\x80\x80", 3),   // overlong
            (b"\xf0\x80\x80\x80", 1), // overlong
            (b"\xed\xa0\x80", 1),     // a surrogate
            (b"\xf4\x90\x80\x80", 1), // above U+10FFFF
            (b"\xf5\x80\x80\x80", 0), // above U+10FFFF
            (b"\xff", 0),
            (b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80edited", 12),
            (b"\xc3a", 1),
            (b"\xf0\x9f\xa7a", 3),
        ] {
            assert_eq!(checked(text), (good, false), "{text:x?}");
            assert!(!Utf8::default().check(text), "{text:x?}");
        }
    }

    #[test]
    fn whole_and_in_pieces_as_the_standard_library_finds_it() {
        let mut random = testkit::random::Random::new(7);
        let parts =
            ["a", "0123456789", "ASCII that is longer than four words of a machine", "ä", "°", "€", "\u{fffd}", "🧦"];
        for _ in 0..20_000 {
            let mut text: Vec<u8> =
                (0..random.below(8)).flat_map(|_| parts[random.below(8) as usize].bytes()).collect();
            if !text.is_empty() && random.below(2) == 0 {
                let at = random.below(text.len() as u64) as usize;
                text[at] = random.below(256) as u8;
            }
            let expected = match std::str::from_utf8(&text) {
                Ok(_) => Some(true),
                Err(error) => error.error_len().is_none().then_some(false),
            };
            let (a, b) = text.split_at(random.below(text.len() as u64 + 1) as usize);
            for pieces in [&[&text[..]][..], &[a, b]] {
                let mut utf8 = Utf8::default();
                let valid = pieces.iter().all(|piece| utf8.check(piece));
                assert_eq!(valid.then(|| utf8.is_complete()), expected, "{text:x?}");
            }
        }
    }

    #[test]
    fn an_unfinished_character_is_incomplete() {
        for text in [&b"\xc3"[..], b"a\xe2\x82", b"\xf0\x9f\xa7"] {
            assert_eq!(checked(text), (text.len(), false), "{text:x?}");
        }
    }
}
