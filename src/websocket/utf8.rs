//! [`Utf8`]: checks UTF-8 that comes in pieces of any size.

use std::str;

/// Checks a text. An error is detected at the first byte that cannot belong to any character.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Utf8 {
    /// The first bytes of a character that is not complete.
    carry: [u8; 4],
    /// Number of bytes in `carry`, 0 to 3.
    carried: u8,
}

impl Utf8 {
    /// Checks the next piece. False if the text is not UTF-8.
    #[must_use]
    #[inline]
    pub(super) fn check(&mut self, mut piece: &[u8]) -> bool {
        while self.carried > 0 {
            let Some((&byte, rest)) = piece.split_first() else { return true };
            piece = rest;
            let carried = usize::from(self.carried);
            self.carry[carried] = byte;
            match str::from_utf8(&self.carry[..=carried]) {
                Ok(_) => self.carried = 0,
                // A character of four bytes is either complete or invalid.
                Err(error) if error.error_len().is_none() => self.carried += 1,
                Err(_) => return false,
            }
        }
        match str::from_utf8(piece) {
            Ok(_) => true,
            Err(error) if error.error_len().is_none() => {
                let begun = &piece[error.valid_up_to()..];
                self.carry[..begun.len()].copy_from_slice(begun);
                self.carried = begun.len() as u8;
                true
            }
            Err(_) => false,
        }
    }

    /// True if the text may end here.
    pub(super) fn is_complete(&self) -> bool {
        self.carried == 0
    }
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
    fn an_unfinished_character_is_incomplete() {
        for text in [&b"\xc3"[..], b"a\xe2\x82", b"\xf0\x9f\xa7"] {
            assert_eq!(checked(text), (text.len(), false), "{text:x?}");
        }
    }
}
