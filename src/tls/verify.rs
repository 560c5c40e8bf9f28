//! Who the server is: by chain, time and name; by its certificate's fingerprint; or whoever it says.
//!
//! Whatever is asked of the certificate, the server must prove that it has the key: it signs the handshake.

use std::fmt;
use std::sync::Arc;

use ring::digest::{SHA256, digest};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, DigitallySignedStruct, Error, OtherError, PeerMisbehaved, RootCertStore, SignatureScheme,
};

use super::x509;

/// The judge of certificates.
pub struct Verifier {
    judge: Judge,
    algorithms: WebPkiSupportedAlgorithms,
}

/// rustls wants it, and nobody prints it: the roots and algorithms inside would cost more than a word.
impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Verifier")
    }
}

enum Judge {
    Peer(Arc<RootCertStore>),
    None,
    Pins(Box<[[u8; 32]]>),
}

/// Why a certificate is refused that another setting would accept. Tells its fingerprint to who may want to pin it.
#[derive(Debug)]
pub struct Refusal {
    why: Box<str>,
    fingerprint: Fingerprint,
}

/// SHA-256 of a certificate (DER).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// The fingerprint of `certificate`.
    pub fn of(certificate: &CertificateDer<'_>) -> Self {
        let mut fingerprint = [0; 32];
        fingerprint.copy_from_slice(digest(&SHA256, certificate).as_ref());
        Self(fingerprint)
    }
}

/// As PINS writes it.
impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sha256/")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, certificate is {}", self.why, self.fingerprint)
    }
}

impl std::error::Error for Refusal {}

impl Verifier {
    /// Accepts what `roots` vouch for, in time and in the server's name.
    pub fn peer(roots: Arc<RootCertStore>, provider: &CryptoProvider) -> Self {
        Self::new(Judge::Peer(roots), provider)
    }

    /// Accepts every certificate.
    pub fn none(provider: &CryptoProvider) -> Self {
        Self::new(Judge::None, provider)
    }

    /// Accepts the certificates with these fingerprints.
    pub fn pins(pins: &[[u8; 32]], provider: &CryptoProvider) -> Self {
        Self::new(Judge::Pins(pins.into()), provider)
    }

    fn new(judge: Judge, provider: &CryptoProvider) -> Self {
        Self { judge, algorithms: provider.signature_verification_algorithms }
    }

    /// Checks chain, time, purpose and name, as rustls' own verifier does. That one brings along revocation lists, of
    /// which we have none.
    fn vouched_for(
        &self,
        roots: &RootCertStore,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<(), Error> {
        let parsed = ParsedCertificate::try_from(certificate)?;
        verify_server_cert_signed_by_trust_anchor(&parsed, roots, intermediates, now, self.algorithms.all)?;
        verify_server_name(&parsed, name)
    }

    /// Checks a signature by the key of a certificate of which nothing else need be right, or even readable.
    fn check(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
        candidates: usize,
    ) -> Result<HandshakeSignatureValid, Error> {
        let key = x509::public_key(certificate).ok_or(CertificateError::BadEncoding)?;
        let mapped = self.algorithms.mapping.iter().find(|(scheme, _)| *scheme == signed.scheme);
        let (_, algorithms) = mapped.ok_or(PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme)?;
        let mut fitting = algorithms.iter().take(candidates);
        let algorithm = fitting
            .find(|algorithm| algorithm.public_key_alg_id().as_ref() == key.algorithm)
            .ok_or_else(|| Error::General("the signature does not fit the certificate's kind of key".into()))?;
        let valid = algorithm.verify_signature(key.bits, message, signed.signature());
        valid.map(|()| HandshakeSignatureValid::assertion()).map_err(|_| CertificateError::BadSignature.into())
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let fingerprint = Fingerprint::of(certificate);
        let why = match &self.judge {
            Judge::Peer(roots) => match self.vouched_for(roots, certificate, intermediates, name, now) {
                Err(Error::InvalidCertificate(error)) => why_not_known(error)?,
                verdict => return verdict.map(|()| ServerCertVerified::assertion()),
            },
            Judge::Pins(pins) if !pins.contains(&fingerprint.0) => "pin refused".into(),
            Judge::Pins(_) | Judge::None => return Ok(ServerCertVerified::assertion()),
        };
        Err(CertificateError::Other(OtherError(Arc::new(Refusal { why, fingerprint }))).into())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        match &self.judge {
            Judge::Peer(_) => verify_tls12_signature(message, certificate, signed, &self.algorithms),
            // TLS 1.2 does not say which curve goes with a hash: any that is supported will do.
            _ => self.check(message, certificate, signed, usize::MAX),
        }
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        use SignatureScheme as Scheme;
        match (&self.judge, signed.scheme) {
            (Judge::Peer(_), _) => verify_tls13_signature(message, certificate, signed, &self.algorithms),
            (_, Scheme::RSA_PKCS1_SHA256 | Scheme::RSA_PKCS1_SHA384 | Scheme::RSA_PKCS1_SHA512) => {
                Err(PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme.into())
            }
            _ => self.check(message, certificate, signed, 1),
        }
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// Why nobody whom we trust vouches for a certificate that may be fine all the same. Other errors stay what they are.
fn why_not_known(error: CertificateError) -> Result<Box<str>, Error> {
    match error {
        CertificateError::UnknownIssuer => Ok("unknown issuer".into()),
        CertificateError::Other(OtherError(error)) => Ok(match error.to_string().as_str() {
            // A self-signed one that calls itself an authority, as openssl(1) makes them.
            "CaUsedAsEndEntity" => "unknown issuer (self-signed)".into(),
            other => format!("certificate refused ({other})").into(),
        }),
        error => Err(error.into()),
    }
}
