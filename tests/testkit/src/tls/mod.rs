//! Certificates of every kind, and TLS server configurations with them.

mod server;

pub use server::{TlsDevice, TlsStream, accept};

use std::net::IpAddr;
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, SanType,
    date_time_ymd,
};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{RootCertStore, ServerConfig, SupportedProtocolVersion};

/// A certificate authority.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key.
#[derive(Clone)]
pub struct Identity {
    certificate: CertificateDer<'static>,
    certificate_pem: String,
    key_pem: String,
}

/// The validity period of a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Validity {
    /// From 2000-01-01 until 2199-01-01.
    Now,
    /// Until 2001-02-03.
    Past,
    /// From 2199-01-01.
    Future,
}

impl Authority {
    /// Makes an authority called `name`.
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        Self(CertifiedIssuer::self_signed(params, key).expect("an authority"))
    }

    /// Its certificate, as PEM.
    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// Issues a certificate for `names` that is meant for clients, not for servers.
    pub fn issue_for_clients(&self, names: &[&str]) -> Identity {
        let key = KeyPair::generate().expect("a key");
        let mut params = params(names, Validity::Now);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        Identity::new(&params.signed_by(&key, &self.0).expect("a certificate"), &key)
    }

    /// Issues a certificate for `names`, which may be addresses.
    pub fn issue(&self, names: &[&str], validity: Validity) -> Identity {
        let key = KeyPair::generate().expect("a key");
        let certificate = params(names, validity).signed_by(&key, &self.0).expect("a certificate");
        Identity::new(&certificate, &key)
    }
}

impl Identity {
    /// Makes a self-signed certificate for `names`.
    pub fn self_signed(names: &[&str], validity: Validity) -> Self {
        let key = KeyPair::generate().expect("a key");
        Self::new(&params(names, validity).self_signed(&key).expect("a certificate"), &key)
    }

    /// Makes a self-signed certificate for localhost and 127.0.0.1.
    pub fn loopback() -> Self {
        Self::self_signed(&["localhost", "127.0.0.1"], Validity::Now)
    }

    /// Makes a certificate as openssl(1) does: self-signed and marked as an authority.
    pub fn self_signed_authority(names: &[&str]) -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = params(names, Validity::Now);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self::new(&params.self_signed(&key).expect("a certificate"), &key)
    }

    /// Reads a certificate and its key from PEM.
    pub fn from_pem(certificate: &str, key: &str) -> Self {
        Self {
            certificate: CertificateDer::from_pem_slice(certificate.as_bytes()).expect("a certificate"),
            certificate_pem: certificate.to_owned(),
            key_pem: key.to_owned(),
        }
    }

    fn new(certificate: &rcgen::Certificate, key: &KeyPair) -> Self {
        Self {
            certificate: certificate.der().clone(),
            certificate_pem: certificate.pem(),
            key_pem: key.serialize_pem(),
        }
    }

    /// A server configuration for TLS 1.2 and 1.3.
    pub fn any_server(&self) -> ServerConfig {
        self.server(rustls::ALL_VERSIONS, None)
    }

    /// A server configuration for TLS 1.2 alone.
    pub fn tls12_server(&self) -> ServerConfig {
        self.server(&[&rustls::version::TLS12], None)
    }

    /// The certificate, as DER.
    pub fn der(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// The certificate, as PEM.
    pub fn pem(&self) -> &str {
        &self.certificate_pem
    }

    /// The key, as PEM.
    pub fn key_pem(&self) -> &str {
        &self.key_pem
    }

    /// SHA-256 of the certificate.
    pub fn fingerprint(&self) -> [u8; 32] {
        let suite = ring::cipher_suite::TLS13_AES_128_GCM_SHA256;
        let hash = suite.tls13().expect("a suite of 1.3").common.hash_provider.hash(&self.certificate);
        hash.as_ref().try_into().expect("32 bytes")
    }

    /// The fingerprint in PINS's notation.
    pub fn pin(&self) -> String {
        self.fingerprint().iter().fold("sha256/".into(), |pin, byte| format!("{pin}{byte:02x}"))
    }

    /// A server configuration with this certificate for `versions`. With `clients`, clients need a certificate of that
    /// authority.
    pub fn server(&self, versions: &[&'static SupportedProtocolVersion], clients: Option<&Authority>) -> ServerConfig {
        let provider = provider();
        let key = PrivateKeyDer::from_pem_slice(self.key_pem.as_bytes()).expect("a key");
        let key = provider.key_provider.load_private_key(key).expect("a key that is supported");
        // No check of the certificate, since some tests use bad ones.
        let certified = CertifiedKey::new(vec![self.certificate.clone()], key);
        let resolver: Arc<dyn ResolvesServerCert> = Arc::new(SingleCertAndKey::from(certified));
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider));
        let builder = builder.with_protocol_versions(versions).expect("versions");
        match clients {
            None => builder.with_no_client_auth().with_cert_resolver(resolver),
            Some(authority) => {
                let mut roots = RootCertStore::empty();
                roots.add(authority.0.der().clone()).expect("an authority");
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
                builder.with_client_cert_verifier(verifier.expect("a verifier")).with_cert_resolver(resolver)
            }
        }
    }
}

/// The crypto provider of all servers here.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

fn params(names: &[&str], validity: Validity) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.subject_alt_names = names
        .iter()
        .map(|name| match name.parse::<IpAddr>() {
            Ok(address) => SanType::IpAddress(address),
            Err(_) => SanType::DnsName((*name).try_into().expect("a name")),
        })
        .collect();
    (params.not_before, params.not_after) = match validity {
        Validity::Now => (date_time_ymd(2000, 1, 1), date_time_ymd(2199, 1, 1)),
        Validity::Past => (date_time_ymd(2000, 1, 1), date_time_ymd(2001, 2, 3)),
        Validity::Future => (date_time_ymd(2199, 1, 1), date_time_ymd(2200, 1, 1)),
    };
    params
}
