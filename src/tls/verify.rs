//! Verification of the server's certificate: by chain, time and name; by fingerprint; or not at all.
//!
//! In every case the server must prove that it holds the certificate's key, by its signature in the handshake.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use ring::digest::{SHA256, digest};
use ring::signature::{
    RSA_PKCS1_1024_8192_SHA256_FOR_LEGACY_USE_ONLY, RSA_PKCS1_1024_8192_SHA512_FOR_LEGACY_USE_ONLY, UnparsedPublicKey,
};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, DigitallySignedStruct, Error, OtherError, PeerMisbehaved, RootCertStore, SignatureScheme,
};

use super::error::certificate_message;
use super::key_kind::KeyKind;
use super::{TlsVersion, x509};

/// Length of [`CertificateRefusal`]'s reason in characters at most. Names in it come from the server, and what follows
/// must not be cut.
const MAX_REASON: usize = 180;

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

/// Why a certificate, or a signature by its key, is refused.
#[derive(Debug)]
pub(super) struct CertificateRefusal {
    /// `None`: the key is the only reason.
    reason: Option<Box<str>>,
    key: KeyKind,
    /// `None` if no pin helps.
    fingerprint: Option<Fingerprint>,
}

impl CertificateRefusal {
    /// The reason in words. Has the pin if PINS would accept the certificate in this version of TLS.
    pub(super) fn message(&self, version: Option<TlsVersion>) -> String {
        let reason = self.reason.as_deref();
        match (self.key.server_problem(version), self.fingerprint) {
            (Some(problem), _) => reason.map_or_else(|| problem.clone(), |reason| format!("{reason}, and {problem}")),
            (None, fingerprint) => {
                let reason = reason.map_or_else(|| self.key.too_short(), Into::into);
                fingerprint.map_or_else(|| reason.clone(), |pin| format!("{reason}, certificate is {pin}"))
            }
        }
    }
}

impl fmt::Display for CertificateRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message(None))
    }
}

impl std::error::Error for CertificateRefusal {}

impl From<CertificateRefusal> for Error {
    fn from(refusal: CertificateRefusal) -> Self {
        CertificateError::Other(OtherError(Arc::new(refusal))).into()
    }
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
    ///
    /// A device's self-signed certificate may claim to be an authority, as those of `openssl req -x509` do. webpki refuses
    /// that after the time is checked. Such a certificate is accepted if a file of roots has its key, as by openssl and curl.
    fn verify_chain(
        &self,
        roots: &RootCertStore,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<(), Error> {
        let parsed = ParsedCertificate::try_from(certificate)?;
        match verify_server_cert_signed_by_trust_anchor(&parsed, roots, intermediates, now, self.algorithms.all) {
            Err(error) if claims_authority(&error) && is_from_file(roots, certificate) => {}
            verified => verified?,
        }
        verify_server_name(&parsed, name)
    }

    /// Checks a handshake signature with the key of a certificate that webpki might not be able to read.
    fn verify_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
        version: TlsVersion,
    ) -> Result<HandshakeSignatureValid, Error> {
        let key = x509::public_key(certificate).ok_or(CertificateError::BadEncoding)?;
        let kind = KeyKind::of_public(&key);
        let refuse =
            |reason: Option<&str>| CertificateRefusal { reason: reason.map(Into::into), key: kind, fingerprint: None };
        if !kind.is_usable(Some(version)) {
            return Err(refuse(None).into());
        }
        if kind.is_legacy_rsa() {
            let algorithm = match signed.scheme {
                SignatureScheme::RSA_PKCS1_SHA256 => &RSA_PKCS1_1024_8192_SHA256_FOR_LEGACY_USE_ONLY,
                SignatureScheme::RSA_PKCS1_SHA512 => &RSA_PKCS1_1024_8192_SHA512_FOR_LEGACY_USE_ONLY,
                _ => return Err(refuse(Some(&format!("{} for its kind of signature", kind.too_short()))).into()),
            };
            let valid = UnparsedPublicKey::new(algorithm, key.bits).verify(message, signed.signature());
            return valid
                .map(|()| HandshakeSignatureValid::assertion())
                .map_err(|_| CertificateError::BadSignature.into());
        }
        let mapped = self.algorithms.mapping.iter().find(|(scheme, _)| *scheme == signed.scheme);
        let (_, algorithms) = mapped.ok_or(PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme)?;
        let mut candidates = algorithms.iter().take(match version {
            // RFC 5246 section 7.4.1.4.1: in TLS 1.2 a scheme names the hash and not the curve, so any supported curve fits.
            TlsVersion::V12 => usize::MAX,
            // RFC 8446 section 4.2.3: a scheme names exactly one algorithm and curve.
            TlsVersion::V13 => 1,
        });
        let algorithm = candidates
            .find(|algorithm| algorithm.public_key_alg_id().as_ref() == key.algorithm)
            .ok_or_else(|| refuse(Some("the server's signature does not fit its certificate's kind of key")))?;
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
        let key = x509::public_key(certificate).map_or(KeyKind::Unknown, |key| KeyKind::of_public(&key));
        let reason = match &self.policy {
            CertificatePolicy::Chain(roots) => match self.verify_chain(roots, certificate, intermediates, name, now) {
                Err(Error::InvalidCertificate(error)) => Some(chain_reason(error, certificate)),
                Err(error) => return Err(error),
                // A chain that is relied upon takes a key that is long enough for every version.
                Ok(()) if !key.is_usable(None) || key.is_legacy_rsa() => None,
                Ok(()) => return Ok(ServerCertVerified::assertion()),
            },
            CertificatePolicy::Pins(pins) if !pins.contains(&fingerprint.0) => Some("pin refused".into()),
            CertificatePolicy::Pins(_) | CertificatePolicy::Any if !key.is_usable(None) => None,
            CertificatePolicy::Pins(_) | CertificatePolicy::Any => return Ok(ServerCertVerified::assertion()),
        };
        Err(CertificateRefusal { reason, key, fingerprint: Some(fingerprint) }.into())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        match &self.policy {
            CertificatePolicy::Chain(_) => verify_tls12_signature(message, certificate, signed, &self.algorithms),
            _ => self.verify_signature(message, certificate, signed, TlsVersion::V12),
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
            _ => self.verify_signature(message, certificate, signed, TlsVersion::V13),
        }
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        use SignatureScheme as Scheme;
        let mut schemes = self.algorithms.supported_schemes();
        if !matches!(self.policy, CertificatePolicy::Chain(_)) {
            // Servers with TLS 1.2 take the first that they know. RSA keys below 2048 bits are taken with the first two of
            // these only; PSS is for TLS 1.3, where PKCS#1 is not allowed in handshakes.
            schemes.sort_by_key(|scheme| match scheme {
                Scheme::RSA_PKCS1_SHA256 => 1,
                Scheme::RSA_PKCS1_SHA512 => 2,
                Scheme::RSA_PKCS1_SHA384 => 3,
                Scheme::RSA_PSS_SHA256 | Scheme::RSA_PSS_SHA384 | Scheme::RSA_PSS_SHA512 => 4,
                _ => 0,
            });
        }
        schemes
    }
}

/// True if webpki refuses a certificate only because it claims to be an authority.
fn claims_authority(error: &Error) -> bool {
    let Error::InvalidCertificate(CertificateError::Other(OtherError(error))) = error else { return false };
    matches!(error.downcast_ref(), Some(webpki::Error::CaUsedAsEndEntity))
}

/// True if `roots` have the key of `certificate` from a file, behind the built-in ones.
fn is_from_file(roots: &RootCertStore, certificate: &CertificateDer<'_>) -> bool {
    let info = x509::public_key_info(certificate);
    let from_files = roots.roots.get(webpki_roots::TLS_SERVER_ROOTS.len()..).unwrap_or_default();
    from_files.iter().any(|root| info == Some(&root.subject_public_key_info))
}

/// Returns why the chain of `certificate` is refused, in words.
fn chain_reason(error: CertificateError, certificate: &CertificateDer<'_>) -> Box<str> {
    let reason = match error {
        CertificateError::UnknownIssuer => "unknown issuer".into(),
        CertificateError::Other(OtherError(error)) => match error.downcast_ref::<webpki::Error>() {
            // A self-signed certificate that claims to be an authority, as `openssl req -x509` makes them.
            Some(webpki::Error::CaUsedAsEndEntity) => "unknown issuer (self-signed)".into(),
            Some(error) => format!("certificate refused ({})", webpki_error_name(error)),
            None => format!("certificate refused ({error})"),
        },
        CertificateError::BadSignature => {
            "a signature in the certificate's chain is bad, or its key is too short".into()
        }
        // webpki prints the names through `Debug`, which a build with `-Zfmt-debug=none` leaves empty.
        CertificateError::NotValidForNameContext { expected, .. } => {
            let presented = x509::subject_alt_names(certificate);
            certificate_message(&CertificateError::NotValidForNameContext { expected, presented }, SystemTime::now())
        }
        error => certificate_message(&error, SystemTime::now()),
    };
    reason.chars().take(MAX_REASON).collect::<String>().into()
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
