//! The text protocol between plugins and the proxy, on port 2504.
//!
//! Sans-IO: bytes in, values and bytes out. Nothing here knows a socket or a clock. It depends on `websocket` for URLs
//! and message types, and on `buffer_pool`.
//!
//! Start with [`command`] for the commands, with [`options`] for the options of CONN and LSTN, with [`reply`] for the answers.
//!
//! | module | contents |
//! | --- | --- |
//! | [`number`] | numbers as Lua's `tonumber` parses them and `%.14g` formats them |
//! | [`percent`] | percent-encoding and decoding |
//! | [`printable`] | replacing what controls a terminal |
//! | [`target`] | `host:port`, `[v6]:port`, `ws://` and `wss://` URLs |
//! | [`notify_target`] | the four parts of `NTFY` |
//! | [`options`] | the options of CONN, ACPT and LSTN, each declared once with its default |
//! | [`datagram_settings`] | how a UDP socket is opened: own address, multicast groups |
//! | [`listen_settings`] | what a plugin listens for |
//! | [`serve_settings`] | what a line of `[serve]` says of the browser's side |
//! | [`tls_settings`] | how a connection uses TLS: verification, versions, files |
//! | [`command`] | the commands, each declared once |
//! | [`setup`] | parser of setup mode: lines in, actions out |
//! | [`framing`] | delimiting messages on the plugin's side |
//! | [`reply`] | every reply of the proxy |

pub(crate) mod command;
pub(crate) mod connect_error;
pub(crate) mod datagram_settings;
pub(crate) mod framing;
pub(crate) mod heal_settings;
pub(crate) mod listen_settings;
pub(crate) mod notify_target;
pub(crate) mod number;
pub(crate) mod options;
pub(crate) mod percent;
pub(crate) mod printable;
pub(crate) mod reply;
pub(crate) mod serve_settings;
pub(crate) mod setup;
pub(crate) mod target;
pub(crate) mod tls_settings;

/// Bytes of memory of a text in a block of its own. Allocators add two words to a block, or round it up.
pub(crate) fn text_memory(text: &[u8]) -> usize {
    text.len() + 2 * size_of::<usize>()
}

/// True for the bytes that separate words: blank and tab.
pub(crate) fn is_blank(byte: u8) -> bool {
    byte == b' ' || byte == b'\t'
}

/// Removes blanks and tabs at both ends, and carriage returns at the end.
pub(crate) fn trim(bytes: &[u8]) -> &[u8] {
    let start = bytes.iter().position(|&b| !is_blank(b)).unwrap_or(bytes.len());
    let end = bytes.iter().rposition(|&b| !is_blank(b) && b != b'\r').map_or(start, |at| at + 1);
    &bytes[start..end.max(start)]
}

/// Returns the first word and the rest without leading blanks and tabs.
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
    fn trim_removes_blanks_and_carriage_returns() {
        assert_eq!(trim(b" \t CAPA x \r"), b"CAPA x");
        assert_eq!(trim(b" \t\r\r"), b"");
        assert_eq!(trim(b""), b"");
    }

    #[test]
    fn first_word_splits_at_blanks() {
        assert_eq!(first_word(b"CONN  a:1 b"), (&b"CONN"[..], &b"a:1 b"[..]));
        assert_eq!(first_word(b"CAPA"), (&b"CAPA"[..], &b""[..]));
    }
}
