//! As much of X.509 as is needed to find a certificate's key where nothing else about it matters.
//!
//! webpki refuses to read version 1 certificates and unknown critical extensions, rightly so where it is to vouch for
//! them. Old devices have such certificates, and who pins one has looked at it.

/// A certificate's key.
#[derive(Debug, PartialEq, Eq)]
pub struct PublicKey<'a> {
    /// The algorithm's identifier: what stands inside of its SEQUENCE.
    pub algorithm: &'a [u8],
    /// The key.
    pub bits: &'a [u8],
}

const SEQUENCE: u8 = 0x30;
const BIT_STRING: u8 = 0x03;
const INTEGER: u8 = 0x02;
const VERSION: u8 = 0xa0;

/// The key of `certificate` (DER). `None`: it is no certificate.
pub fn public_key(certificate: &[u8]) -> Option<PublicKey<'_>> {
    // RFC 5280, 4.1: Certificate, TBSCertificate, and its fields in their order.
    let (certificate, _) = expect(certificate, SEQUENCE)?;
    let (mut fields, _) = expect(certificate, SEQUENCE)?;
    if let Some((_, rest)) = expect(fields, VERSION) {
        fields = rest;
    }
    // Serial number; signature algorithm, issuer, validity, subject.
    for tag in [INTEGER, SEQUENCE, SEQUENCE, SEQUENCE, SEQUENCE] {
        fields = expect(fields, tag)?.1;
    }
    let (info, _) = expect(fields, SEQUENCE)?;
    let (algorithm, info) = expect(info, SEQUENCE)?;
    let (bits, _) = expect(info, BIT_STRING)?;
    // A key is whole bytes: none of the last one's bits is unused.
    let (0, bits) = bits.split_first().map(|(unused, bits)| (*unused, bits))? else { return None };
    Some(PublicKey { algorithm, bits })
}

/// What stands inside of the element at the beginning of `der`, whose tag is `tag`, and what stands behind it.
fn expect(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (&[found, first], rest) = der.split_first_chunk::<2>()?;
    if found != tag {
        return None;
    }
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        // No certificate has more than 64 KiB.
        0x81 | 0x82 => {
            let (length, rest) = rest.split_at_checked(usize::from(first & 0x0f))?;
            (length.iter().fold(0, |sum, &byte| sum << 8 | usize::from(byte)), rest)
        }
        _ => return None,
    };
    rest.split_at_checked(length)
}
