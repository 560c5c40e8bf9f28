//! The two parts of an X.509 certificate that TLS needs and rustls does not give out: its key and its names.
//!
//! webpki refuses version 1 certificates and unknown critical extensions, as it must when it verifies a chain. Old
//! devices have such certificates, and with PINS or VRFY=none only their key matters.

use std::net::{Ipv4Addr, Ipv6Addr};

/// A certificate's public key.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct PublicKey<'a> {
    /// The AlgorithmIdentifier: the content of its SEQUENCE.
    pub algorithm: &'a [u8],
    /// The key: the content of its BIT STRING.
    pub bits: &'a [u8],
}

const BOOLEAN: u8 = 0x01;
/// A tag of DER (X.690 section 8).
pub(super) const INTEGER: u8 = 0x02;
/// A tag of DER (X.690 section 8).
pub(super) const BIT_STRING: u8 = 0x03;
/// A tag of DER (X.690 section 8).
pub(super) const OCTET_STRING: u8 = 0x04;
/// A tag of DER (X.690 section 8).
pub(super) const OBJECT_IDENTIFIER: u8 = 0x06;
/// A tag of DER (X.690 section 8).
pub(super) const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xa0;
const ISSUER_UNIQUE_ID: u8 = 0x81;
const SUBJECT_UNIQUE_ID: u8 = 0x82;
/// The field `extensions` (RFC 5280 section 4.1).
pub(super) const EXTENSIONS: u8 = 0xa3;
/// A choice of GeneralName (RFC 5280 section 4.2.1.6).
pub(super) const DNS_NAME: u8 = 0x82;
/// A choice of GeneralName (RFC 5280 section 4.2.1.6).
pub(super) const IP_ADDRESS: u8 = 0x87;
/// id-ce-subjectAltName, 2.5.29.17.
const SUBJECT_ALT_NAME: &[u8] = &[0x55, 0x1d, 0x11];

/// Returns the key of `certificate` (DER), or `None` if it is not a certificate.
pub(super) fn public_key(certificate: &[u8]) -> Option<PublicKey<'_>> {
    key_of_info(public_key_info(certificate)?)
}

/// Returns the content of the SubjectPublicKeyInfo of `certificate` (DER), or `None` if it is not a certificate.
pub(super) fn public_key_info(certificate: &[u8]) -> Option<&[u8]> {
    split_at_key(certificate).map(|(info, _)| info)
}

/// Returns the key of a SubjectPublicKeyInfo (DER), or `None` if it is not one.
pub(super) fn public_key_of_info(info: &[u8]) -> Option<PublicKey<'_>> {
    key_of_info(read(info, SEQUENCE)?.0)
}

/// The key in the content of a SubjectPublicKeyInfo.
fn key_of_info(info: &[u8]) -> Option<PublicKey<'_>> {
    let (algorithm, info) = read(info, SEQUENCE)?;
    let (bits, _) = read(info, BIT_STRING)?;
    // The first byte counts the unused bits of the last byte. A key consists of whole bytes.
    let (0, bits) = bits.split_first().map(|(unused, bits)| (*unused, bits))? else { return None };
    Some(PublicKey { algorithm, bits })
}

/// Returns the DNS names and addresses of `certificate` (DER), in its order. Empty if it has none.
pub(super) fn subject_alt_names(certificate: &[u8]) -> Vec<String> {
    let mut names = Vec::new();
    let mut rest = alt_name_extension(certificate).unwrap_or_default();
    while let Some((tag, content, behind)) = read_any(rest) {
        rest = behind;
        match tag {
            DNS_NAME => names.push(String::from_utf8_lossy(content).into_owned()),
            IP_ADDRESS => {
                if let Ok(bytes) = <[u8; 4]>::try_from(content) {
                    names.push(Ipv4Addr::from(bytes).to_string());
                } else if let Ok(bytes) = <[u8; 16]>::try_from(content) {
                    names.push(Ipv6Addr::from(bytes).to_string());
                }
            }
            _ => {}
        }
    }
    names
}

/// Returns the GeneralNames of the subjectAltName extension (RFC 5280 section 4.2.1.6).
fn alt_name_extension(certificate: &[u8]) -> Option<&[u8]> {
    let (_, mut fields) = split_at_key(certificate)?;
    for optional in [ISSUER_UNIQUE_ID, SUBJECT_UNIQUE_ID] {
        fields = skip(fields, optional);
    }
    let (extensions, _) = read(fields, EXTENSIONS)?;
    let (mut extensions, _) = read(extensions, SEQUENCE)?;
    while let Some((extension, behind)) = read(extensions, SEQUENCE) {
        extensions = behind;
        let (identifier, extension) = read(extension, OBJECT_IDENTIFIER)?;
        // Whether it is critical.
        let extension = skip(extension, BOOLEAN);
        if identifier == SUBJECT_ALT_NAME {
            let (value, _) = read(extension, OCTET_STRING)?;
            return read(value, SEQUENCE).map(|(names, _)| names);
        }
    }
    None
}

/// Splits a certificate's fields: the content of SubjectPublicKeyInfo, and the fields after it.
fn split_at_key(certificate: &[u8]) -> Option<(&[u8], &[u8])> {
    // RFC 5280 section 4.1: Certificate, TBSCertificate, and its fields in their order.
    let (certificate, _) = read(certificate, SEQUENCE)?;
    let (fields, _) = read(certificate, SEQUENCE)?;
    let mut fields = skip(fields, VERSION);
    // Serial number; signature algorithm, issuer, validity, subject.
    for tag in [INTEGER, SEQUENCE, SEQUENCE, SEQUENCE, SEQUENCE] {
        fields = read(fields, tag)?.1;
    }
    read(fields, SEQUENCE)
}

/// Skips the element at the start of `der` if it has this tag.
pub(super) fn skip(der: &[u8], tag: u8) -> &[u8] {
    read(der, tag).map_or(der, |(_, rest)| rest)
}

/// Reads the element at the start of `der` if it has this tag. Returns its content and the bytes after it.
pub(super) fn read(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (found, content, rest) = read_any(der)?;
    (found == tag).then_some((content, rest))
}

/// Reads the element at the start of `der`. Returns its tag, its content and the bytes after it.
fn read_any(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&[tag, first], rest) = der.split_first_chunk::<2>()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        // A length of two bytes is enough: no certificate has more than 64 KiB.
        0x81 | 0x82 => {
            let (length, rest) = rest.split_at_checked(usize::from(first & 0x0f))?;
            (length.iter().fold(0, |sum, &byte| sum << 8 | usize::from(byte)), rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use testkit::tls::{Authority, Identity, Validity};

    #[test]
    fn names_are_read_in_their_order() {
        let names = ["a.example", "192.168.0.9", "*.wild.example", "fe80::1"];
        let issued = Authority::new("us").issue(&names, Validity::Now);
        assert_eq!(subject_alt_names(issued.der()), names);
    }

    #[test]
    fn a_certificate_without_names_has_none() {
        let version1 = Identity::from_pem(include_str!("tests/version1.pem"), include_str!("tests/version1.key"));
        assert_eq!(subject_alt_names(version1.der()), [""; 0]);
        assert!(public_key(version1.der()).is_some());
    }

    #[test]
    fn truncated_and_altered_certificates_are_read_without_panic() {
        let issued = Authority::new("us").issue(&["a.example", "10.0.0.1"], Validity::Now);
        let der: &[u8] = issued.der();
        for end in 0..der.len() {
            subject_alt_names(&der[..end]);
            public_key(&der[..end]);
            for value in [0, 0x7f, 0x80, 0x82, 0xff] {
                let mut altered = der.to_vec();
                altered[end] = value;
                subject_alt_names(&altered);
                public_key(&altered);
            }
        }
    }
}
