//! [`SelfSigned`]: a new key and a certificate for it, signed with the key itself.
//!
//! Written by hand: a crate for it costs more code. Most of the certificate (RFC 5280 section 4.1) is the same for all names and
//! keys, and stands here as bytes. The certificate is no authority (`CA:FALSE`): webpki, which is what CAFL= and `ca=` verify with,
//! and Firefox take no authority's certificate for that of a server, and browsers make an exception for either.

use std::net::IpAddr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::rand::{SecureRandom, SystemRandom};
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};
use rustls::pki_types::{CertificateDer, ServerName};

use super::verify::Fingerprint;
use super::x509::{BIT_STRING, DNS_NAME, EXTENSIONS, IP_ADDRESS, OCTET_STRING, SEQUENCE};

/// Names of a certificate at most. Their lengths add up to less than the 64 KiB that [`der`] can write.
const MAX_NAMES: usize = 100;
/// Length of a commonName at most (RFC 5280 appendix A.1, ub-common-name).
const MAX_COMMON_NAME: usize = 64;
/// Characters in a line of PEM (RFC 7468 section 2).
const PEM_LINE: usize = 64;

/// Version 3, and the beginning of a serial number of 16 bytes.
const VERSION_AND_SERIAL: &[u8] = &[0xa0, 3, 2, 1, 2, 2, 16];
/// AlgorithmIdentifier: ecdsa-with-SHA256 (RFC 5758 section 3.2).
const ECDSA_WITH_SHA256: &[u8] = &[0x30, 10, 6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2];
/// Validity, as two UTCTimes: since 1970, which is the time of a box without a battery-backed clock when it boots, until the end
/// of 2049, the last year that UTCTime can express (RFC 5280 section 4.1.2.5).
const VALIDITY: &[u8] = b"\x30\x1e\x17\x0d700101000000Z\x17\x0d491231235959Z";
/// SubjectPublicKeyInfo (RFC 5480 section 2) up to the point of 65 bytes: id-ecPublicKey, secp256r1, a BIT STRING.
const P256_KEY: &[u8] = &[
    0x30, 89, 0x30, 19, 6, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1, 6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7, 3, 66, 0,
];
/// Two extensions: basicConstraints, critical, which by default is no authority's (RFC 5280 section 4.2.1.9); and extKeyUsage
/// with id-kp-serverAuth (section 4.2.1.12).
const CONSTANT_EXTENSIONS: &[u8] = &[
    0x30, 12, 6, 3, 0x55, 0x1d, 0x13, 1, 1, 0xff, 4, 2, 0x30, 0, //
    0x30, 19, 6, 3, 0x55, 0x1d, 0x25, 4, 12, 0x30, 10, 6, 8, 0x2b, 6, 1, 5, 5, 7, 3, 1,
];
/// The identifier of subjectAltName.
const SUBJECT_ALT_NAME: &[u8] = &[6, 3, 0x55, 0x1d, 0x11];

/// The names of a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CertificateNames {
    first: Box<str>,
    /// GeneralNames (RFC 5280 section 4.2.1.6).
    general_names: Vec<u8>,
}

impl CertificateNames {
    /// Parses names of hosts and addresses, separated by commas. A name may begin with `*.`, except for the first. The error is
    /// a message of one line.
    pub(crate) fn parse(list: &str) -> Result<Self, String> {
        if list.starts_with('*') {
            return Err("the first name also names the files, and cannot begin with '*'".into());
        }
        let mut general_names = Vec::new();
        for (count, name) in list.split(',').enumerate() {
            if count == MAX_NAMES {
                return Err(format!("a certificate has {MAX_NAMES} names at most"));
            }
            general_names.extend(
                general_name(name).ok_or_else(|| format!("'{name}' is neither the name of a host nor an address"))?,
            );
        }
        Ok(Self { first: list.split(',').next().unwrap_or_default().into(), general_names })
    }

    /// The first name. It has letters, digits, dots, colons, hyphens and underscores only.
    pub(crate) fn first(&self) -> &str {
        &self.first
    }
}

/// The GeneralName for the name of a host or an address.
fn general_name(name: &str) -> Option<Vec<u8>> {
    match name.parse() {
        Ok(IpAddr::V4(address)) => Some(der(IP_ADDRESS, &[&address.octets()])),
        Ok(IpAddr::V6(address)) => Some(der(IP_ADDRESS, &[&address.octets()])),
        Err(_) => {
            let parsed = ServerName::try_from(name.strip_prefix("*.").unwrap_or(name));
            let is_name = matches!(parsed, Ok(ServerName::DnsName(_))) && !name.ends_with('.');
            is_name.then(|| der(DNS_NAME, &[name.as_bytes()]))
        }
    }
}

/// A certificate and its key.
pub(crate) struct SelfSigned {
    certificate: CertificateDer<'static>,
    /// PKCS#8.
    key: Vec<u8>,
}

impl SelfSigned {
    /// Makes a P-256 key and a certificate for `names`. Draws random bytes: the kernel of a box that has just booted may let it
    /// wait. An error: there are no random bytes.
    pub(crate) fn new(names: &CertificateNames) -> Result<Self, ring::error::Unspecified> {
        let random = SystemRandom::new();
        let key = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &random)?;
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, key.as_ref(), &random)?;
        // RFC 5280 section 4.1.2.2: the serial number is positive, and has 20 bytes at most.
        let mut serial = [0; 16];
        random.fill(&mut serial)?;
        serial[0] = serial[0] & 0x7f | 0x40;
        let common_name = if names.first.len() <= MAX_COMMON_NAME { &names.first } else { "sockproxyd" };
        let name = common_name_only(common_name);
        let alt_names = der(OCTET_STRING, &[&der(SEQUENCE, &[&names.general_names])]);
        let alt_names = der(SEQUENCE, &[SUBJECT_ALT_NAME, &alt_names]);
        let extensions = der(EXTENSIONS, &[&der(SEQUENCE, &[CONSTANT_EXTENSIONS, &alt_names])]);
        // RFC 5280 section 4.1: TBSCertificate, with issuer and subject around the validity.
        let body = der(
            SEQUENCE,
            &[
                VERSION_AND_SERIAL,
                &serial,
                ECDSA_WITH_SHA256,
                &name,
                VALIDITY,
                &name,
                P256_KEY,
                pair.public_key().as_ref(),
                &extensions,
            ],
        );
        let signature = pair.sign(&random, &body)?;
        let signature = der(BIT_STRING, &[&[0], signature.as_ref()]);
        let certificate = der(SEQUENCE, &[&body, ECDSA_WITH_SHA256, &signature]);
        Ok(Self { certificate: certificate.into(), key: key.as_ref().to_vec() })
    }

    /// The certificate as PEM.
    pub(crate) fn certificate_pem(&self) -> String {
        pem("CERTIFICATE", &self.certificate)
    }

    /// The key as PEM.
    pub(crate) fn key_pem(&self) -> String {
        pem("PRIVATE KEY", &self.key)
    }

    /// The certificate's fingerprint as PINS takes it.
    pub(crate) fn pin(&self) -> String {
        Fingerprint::of(&self.certificate).to_string()
    }
}

/// A Name (RFC 5280 section 4.1.2.4) of a commonName alone, which has [`MAX_COMMON_NAME`] bytes at most.
fn common_name_only(name: &str) -> Vec<u8> {
    let length = name.len() as u8;
    // RDNSequence, RelativeDistinguishedName, AttributeTypeAndValue, id-at-commonName, UTF8String.
    let header = [0x30, length + 11, 0x31, length + 9, 0x30, length + 7, 6, 3, 0x55, 4, 3, 0x0c, length];
    [&header, name.as_bytes()].concat()
}

/// An element with this tag and content, which has less than 64 KiB.
fn der(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let content = parts.concat();
    let [.., high, low] = content.len().to_be_bytes();
    // X.690 section 8.1.3: a length has the fewest bytes that it needs.
    let header = match content.len() {
        0..=0x7f => vec![tag, low],
        0x80..=0xff => vec![tag, 0x81, low],
        _ => vec![tag, 0x82, high, low],
    };
    [header, content].concat()
}

/// Encodes `der` with this label (RFC 7468 section 2).
fn pem(label: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let mut pem = format!("-----BEGIN {label}-----\n");
    // base64 is ASCII, so that every index is a boundary.
    for start in (0..text.len()).step_by(PEM_LINE) {
        pem.push_str(&text[start..text.len().min(start + PEM_LINE)]);
        pem.push('\n');
    }
    pem + "-----END " + label + "-----\n"
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{PrivateKeyDer, UnixTime};

    use super::*;
    use crate::tls::key_kind::KeyKind;
    use crate::tls::x509;

    fn made(names: &str) -> SelfSigned {
        SelfSigned::new(&CertificateNames::parse(names).unwrap()).unwrap()
    }

    #[test]
    fn it_is_what_clients_of_this_crate_and_of_webpki_read() {
        let long = ["a"; 60].join(".");
        for names in
            ["vera", "my_vera.local,*.b.example,192.168.0.5,fd00::1", &format!("{long}.{long}.example,127.0.0.1")]
        {
            let made = made(names);
            let read = CertificateDer::from_pem_slice(made.certificate_pem().as_bytes()).unwrap();
            assert_eq!(read, made.certificate);
            assert_eq!(x509::subject_alt_names(&read).join(","), names);
            let key = PrivateKeyDer::from_pem_slice(made.key_pem().as_bytes()).unwrap();
            assert_eq!(KeyKind::of_private(&key), KeyKind::P256);
            let anchor = webpki::anchor_from_trusted_cert(&read).unwrap();
            let leaf = webpki::EndEntityCert::try_from(&read).unwrap();
            // 1970-01-01, and the end of 2049.
            for seconds in [0, 2_524_607_999] {
                leaf.verify_for_usage(
                    rustls::crypto::ring::default_provider().signature_verification_algorithms.all,
                    std::slice::from_ref(&anchor),
                    &[],
                    UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds)),
                    webpki::KeyUsage::server_auth(),
                    None,
                    None,
                )
                .unwrap();
            }
            for name in names.split(',') {
                let name = name.replace('*', "x");
                leaf.verify_is_valid_for_subject_name(&ServerName::try_from(name).unwrap()).unwrap();
            }
        }
    }

    #[test]
    fn keys_and_serial_numbers_differ() {
        let (one, other) = (made("vera"), made("vera"));
        assert_ne!(one.key, other.key);
        assert_ne!(one.pin(), other.pin());
    }

    #[test]
    fn lengths_take_the_fewest_bytes() {
        for (length, header) in [
            (0, &[4, 0][..]),
            (0x7f, &[4, 0x7f]),
            (0x80, &[4, 0x81, 0x80]),
            (0xff, &[4, 0x81, 0xff]),
            (0x100, &[4, 0x82, 1, 0]),
            (0xffff, &[4, 0x82, 0xff, 0xff]),
        ] {
            let element = der(4, &[&vec![7; length]]);
            assert_eq!((&element[..header.len()], element.len()), (header, header.len() + length));
        }
    }

    #[test]
    fn names_are_parsed() {
        assert_eq!(CertificateNames::parse("vera,::1").unwrap().first(), "vera");
        assert_eq!(CertificateNames::parse("10.0.0.1").unwrap().first(), "10.0.0.1");
        let most = vec!["a"; MAX_NAMES].join(",");
        assert!(CertificateNames::parse(&most).is_ok() && CertificateNames::parse(&(most + ",a")).is_err());
        for (list, words) in [
            ("", "'' is neither"),
            ("a,", "'' is neither"),
            ("a/b", "'a/b' is neither"),
            ("a,../b", "'../b' is neither"),
            (".a", "'.a' is neither"),
            ("a.", "'a.' is neither"),
            ("10.0.0.256", "'10.0.0.256' is neither"),
            ("a,*.10.0.0.1", "'*.10.0.0.1' is neither"),
            ("v\u{e9}ra", "is neither"),
            ("*.a", "the first name"),
        ] {
            let error = CertificateNames::parse(list).unwrap_err();
            assert!(error.contains(words), "{list}: {error}");
        }
    }
}
