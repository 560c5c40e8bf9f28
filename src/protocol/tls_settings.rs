//! What a plugin asks of TLS.

/// What a plugin asks of TLS for one connection. Equal ones share a configuration, and resume each other's sessions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct TlsSettings {
    /// How the server proves who it is.
    pub verify: TlsVerify,
    /// The lowest version that is spoken.
    pub min_version: TlsVersion,
    /// The server's name, where it is not the host.
    pub server_name: Option<Box<str>>,
    /// File of certificates (PEM) that are trusted in addition, below the directory of `[tls]`.
    pub ca_file: Option<Box<str>>,
    /// File of the client's certificate and what leads to its root (PEM), below the directory of `[tls]`.
    pub certificate: Option<Box<str>>,
    /// File of the client's private key (PEM), below the directory of `[tls]`.
    pub private_key: Option<Box<str>>,
}

/// How the server proves who it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum TlsVerify {
    /// By a chain to a trusted root, in time, and in its name.
    #[default]
    Peer,
    /// Not at all. What it signs in the handshake is still checked against its certificate.
    None,
    /// By being one of these: SHA-256 of its certificate (DER). Stands in for chain, time and name.
    Pins(Vec<[u8; 32]>),
}

impl TlsVerify {
    /// By being one of `pins`, as PINS writes them. `None`: one of them is none, or there are none.
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

/// Reads `sha256/` and 64 hexadecimal digits, between which colons may stand as openssl(1) prints them.
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
    fn fingerprints() {
        let plain = format!("sha256/{}ff", "0a".repeat(31));
        let mut expected = [10; 32];
        expected[31] = 255;
        assert_eq!(fingerprint(&plain), Some(expected));
        assert_eq!(fingerprint(&format!("sha256/{}FF", "0A:".repeat(31))), Some(expected));
        for bad in ["", "sha256/", "sha1/00", &plain[..plain.len() - 1], &format!("{plain}00"), "sha256/zz"] {
            assert_eq!(fingerprint(bad), None, "{bad}");
        }
        assert_eq!(TlsVerify::pinned([&*plain, &*plain].into_iter()), Some(TlsVerify::Pins(vec![expected; 2])));
        assert_eq!(TlsVerify::pinned([&*plain, "x"].into_iter()), None);
        assert_eq!(TlsVerify::pinned([].into_iter()), None);
    }
}
