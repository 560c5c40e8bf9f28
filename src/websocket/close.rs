//! The close frame: which codes it may carry, and how its payload is laid out (RFC 6455 sections 5.5.1 and 7.4).

use super::{CONTROL_LIMIT, Failure};

/// The end goes away.
pub const GOING_AWAY: u16 = 1001;
/// The protocol was broken.
pub const PROTOCOL: u16 = 1002;
/// Never in a frame: the close frame had no code.
pub const NO_CODE: u16 = 1005;
/// Never in a frame: there was no close frame.
pub const ABNORMAL: u16 = 1006;
/// The data does not fit its kind.
pub const BAD_DATA: u16 = 1007;
/// The message is too big.
pub const TOO_BIG: u16 = 1009;

/// The longest reason in bytes: a control frame less the code.
pub const REASON_LIMIT: usize = CONTROL_LIMIT - 2;

/// Whether a frame may carry `code`, either way.
pub fn is_valid(code: u16) -> bool {
    // Sections 7.4.1 and 7.4.2; 1012 to 1014 are in IANA's registry.
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}

/// The payload of a close frame. A code that no frame may carry gives an empty one; a reason that is too long is cut.
pub fn encode(code: u16, reason: &str) -> Vec<u8> {
    if !is_valid(code) {
        return Vec::new();
    }
    let end = (0..=REASON_LIMIT).rev().find(|&at| reason.is_char_boundary(at)).unwrap_or_default();
    [&code.to_be_bytes(), &reason.as_bytes()[..end]].concat()
}

/// The code in the payload of a close frame; the rest is the reason.
pub fn parse(payload: &[u8]) -> Result<u16, Failure> {
    let Some((code, reason)) = payload.split_first_chunk() else {
        // Section 5.5.1: if there is a body, the first two bytes MUST be the code.
        return match payload {
            [] => Ok(NO_CODE),
            _ => Err(Failure { code: PROTOCOL, why: "half a code in a close frame" }),
        };
    };
    let code = u16::from_be_bytes(*code);
    // Section 7.4: some codes MUST NOT be set in a close frame, others nobody may use.
    if !is_valid(code) {
        return Err(Failure { code: PROTOCOL, why: "a close frame with a code that none may have" });
    }
    // Section 5.5.1 with 8.1: the reason is UTF-8.
    match std::str::from_utf8(reason) {
        Ok(_) => Ok(code),
        Err(_) => Err(Failure { code: BAD_DATA, why: "the reason of a close frame is not UTF-8" }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc6455_7_4_codes() {
        let valid = (0..=u16::MAX).filter(|code| parse(&code.to_be_bytes()).is_ok());
        let expected = (1000..=1003).chain(1007..=1014).chain(3000..=4999);
        assert!(valid.eq(expected));
        assert_eq!(parse(&[0x03, 0xed]).map_err(|failure| failure.code), Err(1002));
    }

    #[test]
    fn rfc6455_5_5_1_body() {
        assert_eq!(parse(b""), Ok(1005));
        assert_eq!(parse(b"\x03").map_err(|failure| failure.code), Err(1002));
        assert_eq!(parse(b"\x03\xe8b\xc3\xa4"), Ok(1000));
        assert_eq!(parse(b"\x03\xe8b\xc3").map_err(|failure| failure.code), Err(1007));
    }

    #[test]
    fn reasons_are_cut_between_characters() {
        assert_eq!(encode(1000, "by"), b"\x03\xe8by");
        assert_eq!(encode(1005, "by"), b"");
        assert_eq!(encode(1000, &"ä".repeat(70)).len(), 2 + 122);
        assert_eq!(encode(1000, &"a".repeat(200)).len(), 125);
    }
}
