//! The key and its answer (RFC 6455 sections 4.1 and 4.2.2): what shows that the other side means WebSocket.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};

/// What RFC 6455 appends to the key.
const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// The key as it is sent.
pub fn key(random: [u8; 16]) -> String {
    STANDARD.encode(random)
}

/// The answer to a key as it was received, which need not be a good one.
pub fn answer(key: &str) -> String {
    STANDARD.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, [key, GUID].concat().as_bytes()))
}

/// The value of an Authorization header (RFC 7617).
pub fn basic(user: &str, password: &str) -> String {
    ["Basic ", &STANDARD.encode([user, ":", password].concat())].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_as_the_example_of_rfc_6455_section_1_3() {
        assert_eq!(key(*b"the sample nonce"), "dGhlIHNhbXBsZSBub25jZQ==");
        assert_eq!(answer("dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn says_credentials_as_rfc_7617_section_2() {
        assert_eq!(basic("Aladdin", "open sesame"), "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
        assert_eq!(basic("test", "123£"), "Basic dGVzdDoxMjPCow==");
    }
}
