//! [`TlsSettings`]: the TLS options of one connection.

/// The TLS options of one connection. Connections with equal settings share a configuration and resume each other's
/// sessions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct TlsSettings {
    /// How the server's certificate is verified (VRFY, PINS).
    pub verify: Verify,
    /// The lowest accepted version (TLSV).
    pub min_version: TlsVersion,
    /// The name to send and to verify, if it is not the host (SNIH).
    pub server_name: Option<Box<str>>,
    /// PEM file of additional trusted certificates, below the directory of `[tls]` (CAFL).
    pub ca_file: Option<Box<str>>,
    /// PEM file of the client's certificate and its intermediates, below the directory of `[tls]` (CERT).
    pub certificate: Option<Box<str>>,
    /// PEM file of the client's private key, below the directory of `[tls]` (PKEY).
    pub private_key: Option<Box<str>>,
}

/// How the server's certificate is verified.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum Verify {
    /// A chain to a trusted root, valid now and for the server's name.
    #[default]
    Peer,
    /// Not at all. The server's signature in the handshake is still checked with its certificate's key.
    None,
    /// The SHA-256 of the certificate (DER) must be one of these. Replaces chain, time and name.
    Pins(Vec<[u8; 32]>),
}

impl Verify {
    /// Parses `pins`, each in the form of the PINS option: `sha256/` and 64 hexadecimal digits. `None` if one is
    /// malformed or there are none.
    pub fn pinned<'a>(pins: impl Iterator<Item = &'a str>) -> Option<Self> {
        let pins: Vec<_> = pins.map(fingerprint).collect::<Option<_>>()?;
        (!pins.is_empty()).then_some(Self::Pins(pins))
    }
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum TlsVersion {
    /// TLS 1.2.
    #[default]
    V12,
    /// TLS 1.3.
    V13,
}

/// Parses `sha256/` and 64 hexadecimal digits. Colons may stand between digits, as openssl(1) prints them.
fn fingerprint(text: &str) -> Option<[u8; 32]> {
    let digits: Vec<u8> = text
        .strip_prefix("sha256/")?
        .chars()
        .filter(|&c| c != ':')
        .map(|c| c.to_digit(16).map(|digit| digit as u8))
        .collect::<Option<_>>()?;
    let bytes: Vec<u8> = digits.chunks(2).map(|pair| pair.iter().fold(0, |byte, digit| byte << 4 | digit)).collect();
    (digits.len() == 64).then_some(bytes)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fingerprints_are_sha256_with_or_without_colons() {
        let plain = format!("sha256/{}ff", "0a".repeat(31));
        let mut expected = [10; 32];
        expected[31] = 255;
        assert_eq!(fingerprint(&plain), Some(expected));
        assert_eq!(fingerprint(&format!("sha256/{}FF", "0A:".repeat(31))), Some(expected));
        for bad in ["", "sha256/", "sha1/00", &plain[..plain.len() - 1], &format!("{plain}00"), "sha256/zz"] {
            assert_eq!(fingerprint(bad), None, "{bad}");
        }
        assert_eq!(Verify::pinned([&*plain, &*plain].into_iter()), Some(Verify::Pins(vec![expected; 2])));
        assert_eq!(Verify::pinned([&*plain, "x"].into_iter()), None);
        assert_eq!(Verify::pinned([].into_iter()), None);
    }
}
