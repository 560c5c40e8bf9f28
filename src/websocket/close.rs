//! The close frame: its status codes and its payload (RFC 6455 sections 5.5.1 and 7.4).

use super::{MAX_CONTROL_PAYLOAD, ProtocolError, protocol_error};

/// The connection has done what it was for.
pub(crate) const NORMAL: u16 = 1000;
/// The endpoint is going away.
pub(crate) const GOING_AWAY: u16 = 1001;
/// The peer violated the protocol.
pub(crate) const PROTOCOL_ERROR: u16 = 1002;
/// The close frame has no code. Never sent in a frame.
pub(crate) const NO_STATUS: u16 = 1005;
/// The connection ended without a close frame. Never sent in a frame.
pub(crate) const ABNORMAL: u16 = 1006;
/// The payload does not fit the message type: text that is not UTF-8.
pub(crate) const INVALID_PAYLOAD: u16 = 1007;
/// The message exceeds the limit.
pub(crate) const MESSAGE_TOO_BIG: u16 = 1009;
/// The server cannot go on: what it serves has failed.
pub(crate) const INTERNAL_ERROR: u16 = 1011;
/// The server is overloaded.
pub(crate) const TRY_AGAIN_LATER: u16 = 1013;

/// Reason in bytes at most: a control frame's payload without the code.
pub(crate) const MAX_CLOSE_REASON: usize = MAX_CONTROL_PAYLOAD - 2;

/// True if a close frame may have this code, sent or received.
pub(crate) fn is_valid(code: u16) -> bool {
    // Sections 7.4.1 and 7.4.2. 1012 to 1014 are in IANA's registry.
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}

/// Returns the payload of a close frame. It is empty for a code that no frame may have. A reason longer than
/// [`MAX_CLOSE_REASON`] is cut between characters.
pub(crate) fn encode(code: u16, reason: &str) -> Vec<u8> {
    if !is_valid(code) {
        return Vec::new();
    }
    [&code.to_be_bytes(), cut(reason).as_bytes()].concat()
}

/// The first [`MAX_CLOSE_REASON`] bytes of `reason`, cut between characters.
fn cut(reason: &str) -> &str {
    let mut end = reason.len().min(MAX_CLOSE_REASON);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    &reason[..end]
}

/// What the plugin is told of a close frame that fails with `error`: what is wrong, and the code and reason that the frame
/// has. At most [`MAX_CLOSE_REASON`] bytes.
pub(crate) fn describe_invalid(error: ProtocolError, code: u16, reason: &[u8]) -> String {
    let text = format!("{}: {code} {}", error.reason, String::from_utf8_lossy(reason));
    cut(text.trim_end()).to_owned()
}

/// Parses the payload of a close frame and returns its code, or [`NO_STATUS`] if the payload is empty. The bytes after
/// the code are the reason. `any_reason`: it need not be UTF-8.
pub(crate) fn parse(payload: &[u8], any_reason: bool) -> Result<u16, ProtocolError> {
    let Some((code, reason)) = payload.split_first_chunk() else {
        // Section 5.5.1: if there is a body, the first two bytes MUST be the code.
        return match payload {
            [] => Ok(NO_STATUS),
            _ => protocol_error("a close frame with one byte of payload"),
        };
    };
    let code = u16::from_be_bytes(*code);
    // Section 7.4.1: 1004, 1005, 1006 and 1015 MUST NOT be set in a close frame. Section 7.4.2: other codes are
    // unassigned.
    if !is_valid(code) {
        return protocol_error("invalid close code");
    }
    // Section 5.5.1: the reason is UTF-8. Section 8.1: invalid UTF-8 MUST fail the connection.
    match std::str::from_utf8(reason) {
        Ok(_) => Ok(code),
        Err(_) if any_reason => Ok(code),
        Err(_) => Err(ProtocolError { code: INVALID_PAYLOAD, reason: "close reason is not UTF-8" }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc6455_7_4_valid_codes() {
        let valid = (0..=u16::MAX).filter(|code| parse(&code.to_be_bytes(), false).is_ok());
        let expected = (1000..=1003).chain(1007..=1014).chain(3000..=4999);
        assert!(valid.eq(expected));
        assert_eq!(parse(&[0x03, 0xed], false).map_err(|error| error.code), Err(1002));
    }

    #[test]
    fn rfc6455_5_5_1_payload_of_a_close_frame() {
        assert_eq!(parse(b"", false), Ok(1005));
        assert_eq!(parse(b"\x03", false).map_err(|error| error.code), Err(1002));
        assert_eq!(parse(b"\x03\xe8b\xc3\xa4", false), Ok(1000));
        assert_eq!(parse(b"\x03\xe8b\xc3", false).map_err(|error| error.code), Err(1007));
        assert_eq!(parse(b"\x03\xe8b\xc3", true), Ok(1000));
        assert_eq!(parse(b"\x03\xedb\xc3", true).map_err(|error| error.code), Err(1002));
    }

    #[test]
    fn a_description_has_the_code_and_the_reason() {
        let error = parse(&1006u16.to_be_bytes(), false).unwrap_err();
        assert_eq!(describe_invalid(error, 1006, b""), "invalid close code: 1006");
        assert_eq!(describe_invalid(error, 2001, b"low battery"), "invalid close code: 2001 low battery");
        let error = parse(b"\x03\xe8gr\xfc\xdf", false).unwrap_err();
        assert_eq!(describe_invalid(error, 1000, b"gr\xfc\xdf"), "close reason is not UTF-8: 1000 gr\u{fffd}\u{fffd}");
        assert_eq!(describe_invalid(error, 1000, &[0xff; 123]).len(), 123 - (123 - 32) % 3);
    }

    #[test]
    fn reasons_are_cut_between_characters() {
        assert_eq!(encode(1000, "by"), b"\x03\xe8by");
        assert_eq!(encode(1005, "by"), b"");
        assert_eq!(encode(1000, &"ä".repeat(70)).len(), 2 + 122);
        assert_eq!(encode(1000, &"a".repeat(200)).len(), 125);
    }
}
