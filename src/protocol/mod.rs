//! What plugins say, and what they are told: the text protocol of port 2504.
//!
//! Sans-IO: bytes in, values and bytes out. Nothing here knows a socket, a clock or the rest of the daemon.
//!
//! | room | holds |
//! | --- | --- |
//! | [`number`] | numbers as Lua's `tonumber` reads and prints them |
//! | [`percent`] | percent-encoding, both ways |
//! | [`target`] | `host:port`, `[v6]:port`, `ws://` and `wss://` URLs |
//! | [`notify_target`] | the four parts of `NTFY` |
//! | [`options`] | the options of CONN, each declared once |
//! | [`tls_settings`] | what a plugin asks of TLS |
//! | [`command`] | the commands, each declared once |
//! | [`setup`] | setup mode: lines in, actions out |
//! | [`framing`] | messages on the plugin's side |
//! | [`reply`] | every line that the proxy says |

pub mod command;
pub mod framing;
pub mod notify_target;
pub mod number;
pub mod options;
pub mod percent;
pub mod reply;
pub mod setup;
pub mod target;
pub mod tls_settings;

use std::time::Duration;

/// The default of the `line` limit, in bytes: longest line in setup mode, without its newline.
///
/// The longest sensible CONN (long URL, headers, a list of pins) is a few KiB.
pub const LINE_LIMIT: usize = 16384;

/// Ten years: as good as for ever, and still safe to add to an instant.
pub const FOR_EVER: Duration = Duration::from_secs(10 * 365 * 86400);

/// True for the two characters that separate words: blank and tab.
pub(crate) fn is_blank(byte: u8) -> bool {
    byte == b' ' || byte == b'\t'
}

/// `bytes` without blanks, tabs and carriage returns at its end, and without blanks and tabs in front.
pub(crate) fn trim(bytes: &[u8]) -> &[u8] {
    let start = bytes.iter().position(|&b| !is_blank(b)).unwrap_or(bytes.len());
    let end = bytes.iter().rposition(|&b| !is_blank(b) && b != b'\r').map_or(start, |at| at + 1);
    &bytes[start..end.max(start)]
}

/// Splits off the first word: `(word, rest)`, the rest without leading blanks.
pub(crate) fn first_word(bytes: &[u8]) -> (&[u8], &[u8]) {
    let end = bytes.iter().position(|&b| is_blank(b)).unwrap_or(bytes.len());
    let (word, rest) = bytes.split_at(end);
    let start = rest.iter().position(|&b| !is_blank(b)).unwrap_or(rest.len());
    (word, &rest[start..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trims_blanks_and_carriage_returns() {
        assert_eq!(trim(b" \t CAPA x \r"), b"CAPA x");
        assert_eq!(trim(b" \t\r\r"), b"");
        assert_eq!(trim(b""), b"");
    }

    #[test]
    fn splits_words() {
        assert_eq!(first_word(b"CONN  a:1 b"), (&b"CONN"[..], &b"a:1 b"[..]));
        assert_eq!(first_word(b"CAPA"), (&b"CAPA"[..], &b""[..]));
    }
}
