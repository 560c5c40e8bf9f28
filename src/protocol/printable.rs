//! Characters that control a terminal or the order of text, in what plugins wrote and people read.

use std::borrow::Cow;

/// True for a character that must not reach a terminal as it is: the control characters (C0, DEL, C1), line and paragraph
/// separators, and those that change the order of other characters (Unicode Standard Annex 9 section 2), by which a line
/// shows something else than it says.
pub(crate) fn is_unprintable(character: char) -> bool {
    let is_bidi =
        matches!(character, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    character.is_control() || is_bidi || matches!(character, '\u{2028}' | '\u{2029}')
}

/// `text` with `?` in place of characters that are not printable.
pub(crate) fn printable(text: &str) -> Cow<'_, str> {
    if text.contains(is_unprintable) { text.replace(is_unprintable, "?").into() } else { text.into() }
}

/// `bytes` with `replacement` in place of characters that are not printable. Bytes that are no UTF-8 stay, but for those
/// that are control characters in ISO 8859.
pub(crate) fn printable_bytes(bytes: &[u8], replacement: u8) -> Vec<u8> {
    let mut shown = Vec::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            if is_unprintable(character) {
                shown.push(replacement);
            } else {
                shown.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
            }
        }
        shown.extend(chunk.invalid().iter().map(|&byte| if byte < 0xa0 { replacement } else { byte }));
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_controls_a_terminal_is_replaced() {
        for (text, shown) in [
            ("plain \u{e4} \u{4e2d}\u{1f600}", "plain \u{e4} \u{4e2d}\u{1f600}"),
            ("a\x1b[2Jb\rc\0d\x7f", "a?[2Jb?c?d?"),
            ("\u{80}\u{9b}31m\u{a0}", "??31m\u{a0}"),
            ("gpj.\u{202e}exe\u{2066}x\u{2069}", "gpj.?exe?x?"),
            ("a\u{2028}b\u{200f}", "a?b?"),
        ] {
            assert_eq!(printable(text), shown, "{text:?}");
            assert_eq!(printable_bytes(text.as_bytes(), b'?'), shown.as_bytes(), "{text:?}");
        }
        assert_eq!(printable_bytes(b"\xe4\x9b1m\xff\xc3\xa4\x07", b' '), b"\xe4 1m\xff\xc3\xa4 ");
    }
}
