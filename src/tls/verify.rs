//! Verification of the server's certificate: by chain, time and name; by fingerprint; or not at all.
//!
//! In every case the server must prove that it holds the certificate's key, by its signature in the handshake.

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

/// Verifies the certificates of servers.
pub(super) struct Verifier {
    policy: CertificatePolicy,
    algorithms: WebPkiSupportedAlgorithms,
}

/// rustls requires `Debug` and the crate never prints it. A derived one would add the roots' and algorithms' code.
impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Verifier")
    }
}

/// Which certificates are accepted.
enum CertificatePolicy {
    /// Those with a chain to one of these roots, valid now and for the server's name.
    Chain(Arc<RootCertStore>),
    /// All.
    Any,
    /// Those with one of these SHA-256 fingerprints.
    Pins(Box<[[u8; 32]]>),
}

/// The error for a certificate that another setting would accept. Its text has the fingerprint, so that the plugin's
/// author can pin the certificate.
#[derive(Debug)]
pub(super) struct UntrustedCertificateError {
    reason: Box<str>,
    fingerprint: Fingerprint,
}

/// SHA-256 of a certificate (DER).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// Computes the fingerprint of `certificate`.
    pub(super) fn of(certificate: &CertificateDer<'_>) -> Self {
        let mut fingerprint = [0; 32];
        fingerprint.copy_from_slice(digest(&SHA256, certificate).as_ref());
        Self(fingerprint)
    }
}

/// Displays as the PINS option writes it: `sha256/` and 64 hexadecimal digits.
impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sha256/")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Display for UntrustedCertificateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, certificate is {}", self.reason, self.fingerprint)
    }
}

impl std::error::Error for UntrustedCertificateError {}

impl Verifier {
    /// Accepts certificates with a chain to `roots`, valid now and for the server's name.
    pub(super) fn chain(roots: Arc<RootCertStore>, provider: &CryptoProvider) -> Self {
        Self::new(CertificatePolicy::Chain(roots), provider)
    }

    /// Accepts every certificate.
    pub(super) fn any(provider: &CryptoProvider) -> Self {
        Self::new(CertificatePolicy::Any, provider)
    }

    /// Accepts certificates with one of these SHA-256 fingerprints.
    pub(super) fn pins(pins: &[[u8; 32]], provider: &CryptoProvider) -> Self {
        Self::new(CertificatePolicy::Pins(pins.into()), provider)
    }

    fn new(policy: CertificatePolicy, provider: &CryptoProvider) -> Self {
        Self { policy, algorithms: provider.signature_verification_algorithms }
    }

    /// Checks chain, time, purpose and name, as rustls' `WebPkiServerVerifier` does. That type also links in the code for
    /// revocation lists, which are not used here.
    fn verify_chain(
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

    /// Checks a handshake signature with the key of a certificate that webpki might not be able to read. Tries at most
    /// `max_candidates` algorithms of the signature scheme.
    fn verify_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
        max_candidates: usize,
    ) -> Result<HandshakeSignatureValid, Error> {
        let key = x509::public_key(certificate).ok_or(CertificateError::BadEncoding)?;
        let mapped = self.algorithms.mapping.iter().find(|(scheme, _)| *scheme == signed.scheme);
        let (_, algorithms) = mapped.ok_or(PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme)?;
        let mut candidates = algorithms.iter().take(max_candidates);
        let algorithm = candidates
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
        let reason = match &self.policy {
            CertificatePolicy::Chain(roots) => match self.verify_chain(roots, certificate, intermediates, name, now) {
                Err(Error::InvalidCertificate(error)) => untrusted_reason(error, certificate)?,
                result => return result.map(|()| ServerCertVerified::assertion()),
            },
            CertificatePolicy::Pins(pins) if !pins.contains(&fingerprint.0) => "pin refused".into(),
            CertificatePolicy::Pins(_) | CertificatePolicy::Any => return Ok(ServerCertVerified::assertion()),
        };
        Err(CertificateError::Other(OtherError(Arc::new(UntrustedCertificateError { reason, fingerprint }))).into())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        match &self.policy {
            CertificatePolicy::Chain(_) => verify_tls12_signature(message, certificate, signed, &self.algorithms),
            // RFC 5246 section 7.4.1.4.1: in TLS 1.2 a scheme names the hash and not the curve, so any supported curve fits.
            _ => self.verify_signature(message, certificate, signed, usize::MAX),
        }
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        use SignatureScheme as Scheme;
        match (&self.policy, signed.scheme) {
            (CertificatePolicy::Chain(_), _) => verify_tls13_signature(message, certificate, signed, &self.algorithms),
            // RFC 8446 section 4.4.3: RSA signatures in TLS 1.3 handshakes MUST use RSASSA-PSS.
            (_, Scheme::RSA_PKCS1_SHA256 | Scheme::RSA_PKCS1_SHA384 | Scheme::RSA_PKCS1_SHA512) => {
                Err(PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme.into())
            }
            // RFC 8446 section 4.2.3: a scheme names exactly one algorithm and curve.
            _ => self.verify_signature(message, certificate, signed, 1),
        }
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// Returns the reason for an [`UntrustedCertificateError`] if another setting could accept the certificate. Otherwise the
/// result is the error that ends the handshake.
fn untrusted_reason(error: CertificateError, certificate: &CertificateDer<'_>) -> Result<Box<str>, Error> {
    match error {
        CertificateError::UnknownIssuer => Ok("unknown issuer".into()),
        CertificateError::Other(OtherError(error)) => Ok(match error.downcast_ref::<webpki::Error>() {
            // A self-signed certificate that claims to be an authority, as `openssl req -x509` makes them.
            Some(webpki::Error::CaUsedAsEndEntity) => "unknown issuer (self-signed)".into(),
            Some(error) => format!("certificate refused ({})", webpki_error_name(error)).into(),
            None => format!("certificate refused ({error})").into(),
        }),
        // webpki prints the names through `Debug`, which a build with `-Zfmt-debug=none` leaves empty.
        CertificateError::NotValidForNameContext { expected, .. } => {
            let presented = x509::subject_alt_names(certificate);
            Err(CertificateError::NotValidForNameContext { expected, presented }.into())
        }
        error => Err(error.into()),
    }
}

/// Returns the name of a webpki error that rustls passes on in [`CertificateError::Other`]. webpki itself displays errors
/// through `Debug`, which a build with `-Zfmt-debug=none` leaves empty.
fn webpki_error_name(error: &webpki::Error) -> &'static str {
    macro_rules! name_of {
        ($($variant:ident)*) => {
            match error {
                $(webpki::Error::$variant => stringify!($variant),)*
                _ => "other reason",
            }
        };
    }
    name_of! {
        CaUsedAsEndEntity CertDistrusted EmptyEkuExtension EndEntityUsedAsCa ExtensionValueInvalid
        InvalidNetworkMaskConstraint InvalidSerialNumber MalformedDnsIdentifier MalformedExtensions
        MalformedNameConstraint MaximumNameConstraintComparisonsExceeded MaximumPathBuildCallsExceeded
        MaximumPathDepthExceeded MaximumSignatureChecksExceeded NameConstraintViolation PathLenConstraintViolated
        SignatureAlgorithmMismatch UnsupportedCertVersion UnsupportedCriticalExtension UnsupportedNameType
    }
}
