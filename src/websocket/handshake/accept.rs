//! Sec-WebSocket-Key and Sec-WebSocket-Accept (RFC 6455 sections 4.1 and 4.2.2), and basic authentication (RFC 7617):
//! the parts of the handshake that are base64.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};

/// The string that RFC 6455 section 1.3 appends to the key.
const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// Returns the value of Sec-WebSocket-Key for a random nonce.
pub(super) fn key(random: [u8; 16]) -> String {
    STANDARD.encode(random)
}

/// Returns the value of Sec-WebSocket-Accept for a received key. The key need not be valid.
pub(super) fn accept_value(key: &str) -> String {
    STANDARD.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, [key, GUID].concat().as_bytes()))
}

/// True if `text` is a valid key (RFC 6455 section 4.1): 16 bytes in base64.
pub(super) fn is_valid_key(text: &str) -> bool {
    STANDARD.decode(text).is_ok_and(|bytes| bytes.len() == 16)
}

/// Returns the value of the Authorization header (RFC 7617).
pub(super) fn basic_auth(user: &str, password: &str) -> String {
    ["Basic ", &STANDARD.encode([user, ":", password].concat())].concat()
}

/// Returns the credentials `user:password` of an Authorization header; `None` if it is not basic authentication.
pub(super) fn parse_basic_auth(value: &[u8]) -> Option<Vec<u8>> {
    let (scheme, encoded) = value.split_at_checked("Basic ".len())?;
    let is_basic = scheme.eq_ignore_ascii_case(b"Basic ");
    is_basic.then(|| STANDARD.decode(encoded.trim_ascii()).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc_6455_section_1_3_the_example() {
        assert_eq!(key(*b"the sample nonce"), "dGhlIHNhbXBsZSBub25jZQ==");
        assert_eq!(accept_value("dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn keys_are_16_bytes_in_base64() {
        assert!(is_valid_key(&key([255; 16])));
        for bad in ["", "AQIDBAUGBwgJCgsMDQ4P", "AQIDBAUGBwgJCgsMDQ4PEBE=", "dGhlIHNhbXBsZSBub25jZQ", "!", " "] {
            assert!(!is_valid_key(bad), "{bad}");
        }
    }

    #[test]
    fn credentials_are_parsed() {
        assert_eq!(parse_basic_auth(basic_auth("u", "p:q").as_bytes()).as_deref(), Some(&b"u:p:q"[..]));
        assert_eq!(parse_basic_auth(b"bAsIc  dTpw").as_deref(), Some(&b"u:p"[..]));
        for bad in ["", "Basic", "Basic !", "Bearer dTpw", "BasicdTpw"] {
            assert_eq!(parse_basic_auth(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn rfc_7617_section_2_examples() {
        assert_eq!(basic_auth("Aladdin", "open sesame"), "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
        assert_eq!(basic_auth("test", "123£"), "Basic dGVzdDoxMjPCow==");
    }
}
