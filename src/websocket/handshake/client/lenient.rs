//! [`StrictHead`]: a response's header block without what has no meaning for the handshake.
//!
//! Small devices write headers that violate HTTP, in fields that no client needs. The client is strict in the fields on which
//! the handshake rests, and lenient in all others. httparse's own relaxed modes hold for all fields alike.
//!
//! The server's side stays strict. Where a server and a proxy before it read one request differently, the one may see two
//! requests where the other sees one (request smuggling, RFC 9112 section 11.2). A response to an upgrade has no body, its
//! connection serves no other request, and no other party reads it.

use crate::websocket::handshake::fields::is_token;

/// The fields on which an upgrade rests.
pub(super) const UPGRADE_FIELDS: [&str; 5] =
    ["Upgrade", "Connection", "Sec-WebSocket-Accept", "Sec-WebSocket-Protocol", "Sec-WebSocket-Extensions"];
/// The field on which a redirect rests. Each hop is a connection of its own, so the length of the body does not matter.
pub(super) const LOCATION: &str = "Location";

/// A header block in strict HTTP/1.1.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct StrictHead {
    /// The status line as received, and the fields that are well-formed, each on one line that ends in CRLF. At most twice
    /// as long as what was received.
    pub bytes: Vec<u8>,
    /// The fields of the handshake that are malformed, and are not in `bytes`.
    pub malformed: Vec<&'static str>,
}

impl StrictHead {
    /// Reads the complete block `head`, with its empty line.
    pub(super) fn of(head: &[u8]) -> Self {
        let mut lines = head.split(|&byte| byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
        let mut strict = Self { bytes: Vec::with_capacity(head.len()), malformed: Vec::new() };
        strict.push_line(lines.next().unwrap_or_default());
        let mut field: Option<Vec<u8>> = None;
        for line in lines.take_while(|line| !line.is_empty()) {
            match (&mut field, line.first()) {
                // RFC 9112 section 5.2: a user agent MUST replace each folded line end by blanks.
                (Some(field), Some(b' ' | b'\t')) => {
                    field.push(b' ');
                    field.extend_from_slice(line.trim_ascii_start());
                }
                // RFC 9112 section 2.2: a recipient MUST reject a message with such a line behind the status line, or ignore
                // the line.
                (None, Some(b' ' | b'\t')) => {}
                _ => {
                    if let Some(complete) = field.replace(line.to_vec()) {
                        strict.push_field(&complete);
                    }
                }
            }
        }
        if let Some(complete) = field {
            strict.push_field(&complete);
        }
        strict.push_line(b"");
        strict
    }

    fn push_line(&mut self, line: &[u8]) {
        self.bytes.extend_from_slice(line);
        self.bytes.extend_from_slice(b"\r\n");
    }

    /// Takes a field on one line. One that is malformed is dropped, or noted if the handshake rests on it.
    fn push_field(&mut self, line: &[u8]) {
        let colon = line.iter().position(|&byte| byte == b':').unwrap_or(line.len());
        let (name, value) = line.split_at(colon);
        // RFC 9110 sections 5.1 and 5.5: the name is a token, and the value has no control characters but the tab.
        let is_control = |byte: &u8| byte.is_ascii_control() && *byte != b'\t';
        if is_token(name) && !value.is_empty() && !value.iter().any(is_control) {
            return self.push_line(line);
        }
        let is_name = |known: &&&str| known.as_bytes().eq_ignore_ascii_case(name.trim_ascii());
        self.malformed.extend(UPGRADE_FIELDS.iter().chain([&LOCATION]).find(is_name));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strict(head: &str) -> (String, Vec<&'static str>) {
        let StrictHead { bytes, malformed } = StrictHead::of(head.as_bytes());
        (String::from_utf8(bytes).unwrap(), malformed)
    }

    #[test]
    fn rfc_9112_section_5_2_folded_lines_are_joined() {
        let (bytes, malformed) = strict("S\r\nSet-Cookie: a=b;\r\n \tpath=/\r\n\tx\r\nX: y\r\n\r\n");
        assert_eq!(bytes, "S\r\nSet-Cookie: a=b; path=/ x\r\nX: y\r\n\r\n");
        assert!(malformed.is_empty());
        assert_eq!(strict("S\nX:\n \n y\n\n").0, "S\r\nX:  y\r\n\r\n");
        assert_eq!(strict("S\r\n X: y\r\nZ: z\r\n\r\n").0, "S\r\nZ: z\r\n\r\n", "behind the status line");
        assert_eq!(strict("S\r\nno colon\r\n X: y\r\n\r\n").0, "S\r\n\r\n", "it belongs to the line before");
    }

    #[test]
    fn malformed_fields_are_dropped_or_noted() {
        for bad in ["X", "X Y: z", "X : z", ": z", "X: a\0b", "X: a\rb", "X: \u{7f}", "Ä: x", "X: y\r"] {
            assert_eq!(strict(&format!("S\r\n{bad}\r\nY: z\r\n\r\n")), ("S\r\nY: z\r\n\r\n".into(), vec![]), "{bad:?}");
        }
        for name in UPGRADE_FIELDS.iter().chain([&LOCATION]) {
            for bad in [" : x", "\t: x", ": x\0", ": \u{1b}", ""] {
                let field = format!("{}{bad}", name.to_ascii_uppercase());
                assert_eq!(strict(&format!("S\r\n{field}\r\n\r\n")), ("S\r\n\r\n".into(), vec![*name]), "{field:?}");
            }
        }
    }

    #[test]
    fn what_is_strict_stays() {
        let head = "HTTP/1.1 101 Switching Protocols\r\nUpgrade:websocket\r\nX:\ty \r\nE:\r\nU: ü\r\n\r\n";
        assert_eq!(strict(head), (head.into(), vec![]));
        assert_eq!(strict(&head.replace("\r\n", "\n")).0, head);
    }
}
