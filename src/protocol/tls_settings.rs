//! How a connection uses TLS. The module `tls` reads these settings.

use super::text_memory;

/// The TLS settings of one connection. Connections with equal settings share a rustls configuration, and resume each
/// other's sessions. The defaults are those of the options (`options::tls`).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct TlsSettings {
    /// How the server's certificate is verified.
    pub verify: TlsVerify,
    /// The lowest version that is negotiated.
    pub min_version: TlsVersion,
    /// The server name to request (SNI) and to verify. `None`: the host.
    pub server_name: Option<Box<str>>,
    /// File of additional trusted certificates (PEM), in the directory of `[tls]`.
    pub ca_file: Option<Box<str>>,
    /// File of the client certificate and its intermediates (PEM), in the directory of `[tls]`.
    pub certificate: Option<Box<str>>,
    /// File of the client's private key (PEM), in the directory of `[tls]`.
    pub private_key: Option<Box<str>>,
}

/// How connections are accepted with TLS: the certificate and its key. Connections with equal settings share a rustls
/// configuration.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ServerTlsSettings {
    /// File of the certificate and its intermediates (PEM), in the directory of `[tls]`.
    pub certificate: Box<str>,
    /// File of the private key (PEM), in the directory of `[tls]`. `None`: it is in the file of the certificate.
    pub key: Option<Box<str>>,
}

impl ServerTlsSettings {
    /// Bytes of memory, those of its texts included.
    pub(crate) fn held(&self) -> usize {
        let key = self.key.as_ref().map_or(0, |key| text_memory(key.as_bytes()));
        size_of::<Self>() + text_memory(self.certificate.as_bytes()) + key
    }
}

/// How a server's certificate is verified.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum TlsVerify {
    /// Its chain to a trusted root, its name and its validity period.
    Peer,
    /// Not at all. The handshake's signature is still checked against the certificate.
    None,
    /// It must have one of these SHA-256 fingerprints (of its DER encoding). Replaces the checks of [`TlsVerify::Peer`].
    Pins(Vec<[u8; 32]>),
}

impl TlsSettings {
    /// Bytes of memory, those of its texts included.
    pub(crate) fn held(&self) -> usize {
        let texts = [&self.server_name, &self.ca_file, &self.certificate, &self.private_key];
        let pins = if let TlsVerify::Pins(pins) = &self.verify { size_of_val(&pins[..]) } else { 0 };
        size_of::<Self>() + pins + texts.into_iter().flatten().map(|text| text_memory(text.as_bytes())).sum::<usize>()
    }
}

impl TlsVerify {
    /// [`TlsVerify::Pins`] with `pins` in the syntax of PINS. `None`: a pin is malformed, or there are none.
    pub(crate) fn pinned<'a>(pins: impl Iterator<Item = &'a str>) -> Option<Self> {
        let pins: Vec<_> = pins.map(fingerprint).collect::<Option<_>>()?;
        (!pins.is_empty()).then_some(Self::Pins(pins))
    }
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum TlsVersion {
    /// TLS 1.2.
    V12,
    /// TLS 1.3.
    V13,
}

/// Parses `sha256/` and 64 hexadecimal digits, which may be separated by colons as openssl(1) prints them.
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
