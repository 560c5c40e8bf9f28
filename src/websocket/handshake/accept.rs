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

/// True for a key that RFC 6455 lets a client send: 16 bytes in base64.
pub fn is_key(text: &str) -> bool {
    STANDARD.decode(text).is_ok_and(|bytes| bytes.len() == 16)
}

/// The value of an Authorization header (RFC 7617).
pub fn basic(user: &str, password: &str) -> String {
    ["Basic ", &STANDARD.encode([user, ":", password].concat())].concat()
}

/// What [`basic`] was made of, `user:password`.
pub fn read_basic(value: &[u8]) -> Option<Vec<u8>> {
    let (scheme, encoded) = value.split_at_checked("Basic ".len())?;
    let is_basic = scheme.eq_ignore_ascii_case(b"Basic ");
    is_basic.then(|| STANDARD.decode(encoded.trim_ascii()).ok()).flatten()
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
    fn knows_keys() {
        assert!(is_key(&key([255; 16])));
        for bad in ["", "AQIDBAUGBwgJCgsMDQ4P", "AQIDBAUGBwgJCgsMDQ4PEBE=", "dGhlIHNhbXBsZSBub25jZQ", "!", " "] {
            assert!(!is_key(bad), "{bad}");
        }
    }

    #[test]
    fn reads_credentials() {
        assert_eq!(read_basic(basic("u", "p:q").as_bytes()).as_deref(), Some(&b"u:p:q"[..]));
        assert_eq!(read_basic(b"bAsIc  dTpw").as_deref(), Some(&b"u:p"[..]));
        for bad in ["", "Basic", "Basic !", "Bearer dTpw", "BasicdTpw"] {
            assert_eq!(read_basic(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn says_credentials_as_rfc_7617_section_2() {
        assert_eq!(basic("Aladdin", "open sesame"), "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
        assert_eq!(basic("test", "123£"), "Basic dGVzdDoxMjPCow==");
    }
}
