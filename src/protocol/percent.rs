//! Percent-encoding and decoding (RFC 3986 section 2.1).

/// Appends `bytes` to `out`. All bytes except the unreserved ones (`A-Za-z0-9_.~-`) become `%xx` in lower-case
/// hexadecimal, as in the Lua daemon.
pub(crate) fn encode(bytes: &[u8], out: &mut String) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    for &byte in bytes {
        if byte.is_ascii_alphanumeric() || b"_.~-".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push('%');
            out.push(char::from(HEX[usize::from(byte >> 4)]));
            out.push(char::from(HEX[usize::from(byte & 15)]));
        }
    }
}

/// Decodes percent-encoding; `+` stays `+`. `None`: a `%` is not followed by two hexadecimal digits.
pub(crate) fn decode(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((&byte, tail)) = rest.split_first() {
        if byte != b'%' {
            out.push(byte);
            rest = tail;
            continue;
        }
        let [high, low, tail @ ..] = tail else { return None };
        let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
        out.push(digit(*high)? << 4 | digit(*low)?);
        rest = tail;
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encodes_as_the_lua_daemon_does() {
        let mut out = String::new();
        encode(b"urn:x-com:serviceId:A_b.c~d/ \xff", &mut out);
        assert_eq!(out, "urn%3ax-com%3aserviceId%3aA_b.c~d%2f%20%ff");
    }

    #[test]
    fn decodes_what_was_encoded() {
        let all: Vec<u8> = (0..=255).collect();
        let mut text = String::new();
        encode(&all, &mut text);
        assert_eq!(decode(text.as_bytes()), Some(all));
        assert_eq!(decode(b"a+b%2C%2c"), Some(b"a+b,,".to_vec()));
        for bad in ["%", "%1", "%g0", "x%0"] {
            assert_eq!(decode(bad.as_bytes()), None, "{bad}");
        }
    }
}
