//! [`KeyKind`]: what kind of key a certificate or a key file has, what it can be used for, and that in words.

use std::fmt;

use rustls::pki_types::PrivateKeyDer;

use super::TlsVersion;
use super::error::STUNNEL;
use super::x509::{INTEGER, OBJECT_IDENTIFIER, OCTET_STRING, PublicKey, SEQUENCE, read, skip};

/// RSA keys of servers: bits of the modulus. ring verifies no signature of shorter or longer ones.
const MIN_SERVER_RSA: usize = 2048;
const MAX_SERVER_RSA: usize = 8192;
/// With TLS 1.2 and PKCS#1 signatures ring takes shorter ones, too, if asked to. There is no PSS for them, which TLS 1.3
/// needs (RFC 8446 section 4.4.3).
const MIN_LEGACY_RSA: usize = 1024;
/// RSA keys that ring signs with: bits of the modulus.
const MIN_CLIENT_RSA: usize = 2048;
const MAX_CLIENT_RSA: usize = 4096;

// Object identifiers: the algorithms of keys (RFC 8017 appendix C, RFC 5480 section 2.1.1, RFC 8410, RFC 3279).
const RSA_ENCRYPTION: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];
const RSASSA_PSS: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0a];
const EC_PUBLIC_KEY: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
const ED25519: &[u8] = &[0x2b, 0x65, 0x70];
const ED448: &[u8] = &[0x2b, 0x65, 0x71];
const DSA: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x38, 0x04, 0x01];
/// Elliptic curves (RFC 5480 section 2.1.1.1, SEC 2).
const SECP256R1: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
const SECP384R1: &[u8] = &[0x2b, 0x81, 0x04, 0x00, 0x22];
const SECP521R1: &[u8] = &[0x2b, 0x81, 0x04, 0x00, 0x23];
const SECP256K1: &[u8] = &[0x2b, 0x81, 0x04, 0x00, 0x0a];
/// ECPrivateKey's parameters (RFC 5915 section 3).
const EC_PARAMETERS: u8 = 0xa0;

/// The kind of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KeyKind {
    /// RSA with a modulus of this many bits.
    Rsa(usize),
    /// One of the other kinds, of which nothing but the name matters.
    Named(&'static str),
    /// ECDSA on P-256.
    P256,
    /// ECDSA on P-384.
    P384,
    /// Ed25519.
    Ed25519,
    /// A kind that is not known here, or no key.
    Unknown,
}

impl KeyKind {
    /// The kind of a certificate's key.
    pub(super) fn of_public(key: &PublicKey<'_>) -> Self {
        // RFC 8017 appendix A.1.1: RSAPublicKey begins with the modulus.
        Self::of_algorithm(key.algorithm, || read(read(key.bits, SEQUENCE)?.0, INTEGER).map(|(modulus, _)| modulus))
    }

    /// The kind of a private key.
    pub(super) fn of_private(key: &PrivateKeyDer<'_>) -> Self {
        let found = match key {
            PrivateKeyDer::Pkcs1(key) => modulus_of_private(key.secret_pkcs1_der()).map(Self::of_modulus),
            PrivateKeyDer::Sec1(key) => curve_of_private(key.secret_sec1_der()).map(Self::of_curve),
            PrivateKeyDer::Pkcs8(key) => algorithm_of_private(key.secret_pkcs8_der())
                .map(|(algorithm, key)| Self::of_algorithm(algorithm, || modulus_of_private(key))),
            _ => None,
        };
        found.unwrap_or(Self::Unknown)
    }

    /// The kind by an AlgorithmIdentifier (the content of its SEQUENCE), and the modulus of an RSA key.
    fn of_algorithm<'a>(algorithm: &[u8], modulus: impl FnOnce() -> Option<&'a [u8]>) -> Self {
        let Some((identifier, parameters)) = read(algorithm, OBJECT_IDENTIFIER) else { return Self::Unknown };
        match identifier {
            RSA_ENCRYPTION => modulus().map_or(Self::Unknown, Self::of_modulus),
            RSASSA_PSS => Self::Named("RSA-PSS"),
            EC_PUBLIC_KEY => {
                read(parameters, OBJECT_IDENTIFIER).map_or(OTHER_CURVE, |(curve, _)| Self::of_curve(curve))
            }
            ED25519 => Self::Ed25519,
            ED448 => Self::Named("Ed448"),
            DSA => Self::Named("DSA"),
            _ => Self::Unknown,
        }
    }

    fn of_curve(curve: &[u8]) -> Self {
        match curve {
            SECP256R1 => Self::P256,
            SECP384R1 => Self::P384,
            SECP521R1 => Self::Named("P-521"),
            SECP256K1 => Self::Named("secp256k1"),
            _ => OTHER_CURVE,
        }
    }

    fn of_modulus(modulus: &[u8]) -> Self {
        let leading = modulus.iter().take_while(|&&byte| byte == 0).count();
        let first = modulus.get(leading).map_or(0, |byte| byte.leading_zeros() as usize);
        Self::Rsa((modulus.len() - leading) * 8 - first)
    }

    /// True if a server with such a key can be connected to with PINS or VRFY=none. `None` as version: before one is
    /// negotiated.
    pub(super) fn is_usable(self, version: Option<TlsVersion>) -> bool {
        self.server_problem(version).is_none()
    }

    /// True for an RSA key that only PKCS#1 signatures of TLS 1.2 are taken of, and only where no chain is relied upon.
    pub(super) fn is_legacy_rsa(self) -> bool {
        matches!(self, Self::Rsa(bits) if (MIN_LEGACY_RSA..MIN_SERVER_RSA).contains(&whole_bytes(bits)))
    }

    /// Why a server with such a key cannot be connected to, whatever VRFY and PINS say.
    pub(super) fn server_problem(self, version: Option<TlsVersion>) -> Option<String> {
        match self {
            Self::Rsa(_) if self.is_legacy_rsa() && version != Some(TlsVersion::V13) => None,
            Self::Rsa(_) if self.is_legacy_rsa() => {
                Some(format!("{} for TLS 1.3 ({MIN_SERVER_RSA} are needed)", self.too_short()))
            }
            Self::Rsa(bits) if whole_bytes(bits) < MIN_SERVER_RSA => Some(self.too_short()),
            Self::Rsa(bits) if bits > MAX_SERVER_RSA => Some(format!("the server's {self} is too long")),
            Self::Rsa(_) | Self::P256 | Self::P384 | Self::Ed25519 => None,
            Self::Named(_) | Self::Unknown => {
                Some(format!("the server's {self} is not supported (RSA, P-256, P-384 and Ed25519 are); {STUNNEL}"))
            }
        }
    }

    /// That a server's RSA key is too short.
    pub(super) fn too_short(self) -> String {
        format!("the server's {self} is too short")
    }

    /// Why a private key cannot be loaded.
    pub(super) fn client_problem(self) -> String {
        const SUPPORTED: &str = "RSA of 2048 to 4096 bits, P-256 and P-384 work";
        match self {
            Self::Rsa(bits) if bits < MIN_CLIENT_RSA => format!("its {self} is too short: {SUPPORTED}"),
            Self::Rsa(bits) if bits > MAX_CLIENT_RSA => format!("its {self} is too long: {SUPPORTED}"),
            Self::Rsa(_) => format!("its {self} is broken, or its exponent is below 65537"),
            Self::P256 | Self::P384 => format!("its {self} is broken, or lacks its public key"),
            Self::Ed25519 | Self::Named(_) | Self::Unknown => format!("its {self} is not supported: {SUPPORTED}"),
        }
    }
}

const OTHER_CURVE: KeyKind = KeyKind::Named("other elliptic curve's");

/// ring compares the length in whole bytes with its minimum.
fn whole_bytes(bits: usize) -> usize {
    bits.next_multiple_of(8)
}

/// Displays as the kind and the word "key".
impl fmt::Display for KeyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rsa(bits) => write!(f, "RSA key of {bits} bits"),
            Self::Named(name) => write!(f, "{name} key"),
            Self::P256 => f.write_str("P-256 key"),
            Self::P384 => f.write_str("P-384 key"),
            Self::Ed25519 => f.write_str("Ed25519 key"),
            Self::Unknown => f.write_str("kind of key"),
        }
    }
}

/// The AlgorithmIdentifier and the key of a PrivateKeyInfo (RFC 5208 section 5).
fn algorithm_of_private(der: &[u8]) -> Option<(&[u8], &[u8])> {
    let (_version, fields) = read(read(der, SEQUENCE)?.0, INTEGER)?;
    let (algorithm, fields) = read(fields, SEQUENCE)?;
    Some((algorithm, read(fields, OCTET_STRING)?.0))
}

/// The modulus of an RSAPrivateKey (RFC 8017 appendix A.1.2).
fn modulus_of_private(der: &[u8]) -> Option<&[u8]> {
    let (_version, fields) = read(read(der, SEQUENCE)?.0, INTEGER)?;
    read(fields, INTEGER).map(|(modulus, _)| modulus)
}

/// The curve of an ECPrivateKey (RFC 5915 section 3).
fn curve_of_private(der: &[u8]) -> Option<&[u8]> {
    let (_version, fields) = read(read(der, SEQUENCE)?.0, INTEGER)?;
    let parameters = read(skip(fields, OCTET_STRING), EC_PARAMETERS)?.0;
    read(parameters, OBJECT_IDENTIFIER).map(|(curve, _)| curve)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::pki_types::pem::PemObject;

    #[test]
    fn lengths_of_rsa_keys_are_those_of_the_modulus() {
        for (modulus, bits) in
            [(&[0x80][..], 8), (&[0, 0x80], 8), (&[0x01, 0], 9), (&[0, 0, 0x7f, 0xff], 15), (&[0], 0), (&[], 0)]
        {
            assert_eq!(KeyKind::of_modulus(modulus), KeyKind::Rsa(bits), "{modulus:?}");
        }
    }

    #[test]
    fn servers_rsa_keys_need_2048_bits_or_1024_in_tls_1_2() {
        use TlsVersion::{V12, V13};
        for (bits, in_12, in_13) in [
            (512, false, false),
            (1016, false, false),
            (1017, true, false),
            (1024, true, false),
            (2040, true, false),
            (2041, true, true),
            (2048, true, true),
            (8192, true, true),
            (8193, false, false),
        ] {
            let kind = KeyKind::Rsa(bits);
            assert_eq!((kind.is_usable(Some(V12)), kind.is_usable(Some(V13))), (in_12, in_13), "{bits} bits");
        }
        for (kind, usable) in [(KeyKind::P256, true), (KeyKind::Ed25519, true), (KeyKind::Named("P-521"), false)] {
            assert_eq!((kind.is_usable(Some(V12)), kind.is_usable(None)), (usable, usable));
        }
    }

    #[test]
    fn private_keys_of_each_form_are_told_apart() {
        for (pem, kind) in [
            (include_str!("tests/version1.key"), KeyKind::P256),
            (include_str!("tests/version1.sec1.key"), KeyKind::P256),
            (include_str!("tests/rsa.pkcs1.key"), KeyKind::Rsa(2048)),
            (include_str!("tests/rsa1024.pkcs1.key"), KeyKind::Rsa(1024)),
            (include_str!("tests/rsa-pss.key"), KeyKind::Named("RSA-PSS")),
            (include_str!("tests/p521.key"), KeyKind::Named("P-521")),
            (include_str!("tests/p521.sec1.key"), KeyKind::Named("P-521")),
            (include_str!("tests/secp256k1.key"), KeyKind::Named("secp256k1")),
            (include_str!("tests/ed25519.key"), KeyKind::Ed25519),
        ] {
            let key = PrivateKeyDer::from_pem_slice(pem.as_bytes()).unwrap();
            assert_eq!(KeyKind::of_private(&key), kind);
            // Truncated keys are read without panic.
            let der = key.secret_der();
            for end in 0..der.len() {
                algorithm_of_private(&der[..end]);
                modulus_of_private(&der[..end]);
                curve_of_private(&der[..end]);
            }
        }
    }
}
