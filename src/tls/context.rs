//! [`TlsContext`]: the crypto provider, trusted roots and configurations that all TLS connections share.
//!
//! [`TlsContext::config`] may read files and compute for tens of milliseconds: it is for worker threads only.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use rustls::client::Resumption;
use rustls::crypto::ring::sign::{RsaSigningKey, any_ecdsa_type};
use rustls::crypto::{CryptoProvider, KeyProvider};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::ServerSessionMemoryCache;
use rustls::sign::{CertifiedKey, SigningKey, SingleCertAndKey};
use rustls::{
    ClientConfig, Error, RootCertStore, ServerConfig, SupportedCipherSuite, SupportedProtocolVersion, crypto, version,
};

use super::config_cache::{ConfigCache, UsedFile};
use super::files::{PemFile, read_config_file, read_plugin_file};
use super::key_kind::KeyKind;
use super::verify::Verifier;
use super::{ServerTlsSettings, TlsError, TlsRole, TlsSettings, TlsVersion, Verify, x509};
use crate::files::FileStamp;

/// All versions.
const VERSIONS: &[&SupportedProtocolVersion] = &[&version::TLS13, &version::TLS12];
/// Capacity of a configuration's session cache. rustls keeps sessions of an eighth as many servers.
const MAX_SESSIONS: usize = 256;
/// Sessions of clients that a server's configuration keeps, each of some 200 bytes. A client that resumes its session spares the
/// box the signature. rustls gives a client with TLS 1.3 two of them.
const MAX_CLIENT_SESSIONS: usize = 64;
/// True if this machine has no AES instructions: ChaCha20 is several times faster then.
const PREFERS_CHACHA20: bool = cfg!(not(any(target_arch = "x86_64", target_arch = "aarch64")));
/// A first draw of random bytes that takes longer is logged.
const SLOW_RANDOM_DRAW: Duration = Duration::from_secs(1);

/// The state that all TLS connections share.
#[derive(Debug)]
pub(crate) struct TlsContext {
    /// Directory of the files that plugins name; `None`: plugins may name no files.
    directory: Option<PathBuf>,
    /// PEM file of additional roots, from the configuration.
    ca: Option<PathBuf>,
    provider: Arc<CryptoProvider>,
    /// The built-in roots, created on first use.
    built_in: OnceLock<Arc<RootCertStore>>,
    configs: ConfigCache<TlsSettings, ClientConfig>,
    server_configs: ConfigCache<ServerTlsSettings, ServerConfig>,
}

impl TlsContext {
    /// A context for plugins' files below `directory` (`None`: plugins may name no files). It trusts the certificates
    /// in the PEM file `ca` in addition to the built-in roots.
    pub(crate) fn new(directory: Option<PathBuf>, ca: Option<PathBuf>) -> Self {
        Self {
            directory,
            ca,
            provider: Arc::new(provider()),
            built_in: OnceLock::new(),
            configs: ConfigCache::default(),
            server_configs: ConfigCache::default(),
        }
    }

    /// Draws the first random bytes on a thread of its own, and then runs `also`. On a box without entropy the kernel may
    /// block that draw for minutes or without end; later draws happen on worker threads.
    pub(crate) fn warm_up_random(self: &Arc<Self>, also: impl FnOnce() + Send + 'static) {
        let context = Arc::clone(self);
        let warm = move || {
            let started = Instant::now();
            let drawn = context.provider.secure_random.fill(&mut [0; 32]);
            let took = started.elapsed();
            if drawn.is_err() {
                log::error!("no random bytes: TLS is unavailable");
            } else if took > SLOW_RANDOM_DRAW {
                log::warn!("the first random bytes took {} s: this box is short of entropy", took.as_secs());
            }
            also();
        };
        let thread = std::thread::Builder::new().name("random".into()).stack_size(64 * 1024);
        if let Err(error) = thread.spawn(warm) {
            log::warn!("no thread to draw the first random bytes: {error}");
        }
    }

    /// Returns the configuration for `settings`: a cached one if its files are unchanged.
    pub(crate) fn config(&self, settings: &TlsSettings) -> Result<Arc<ClientConfig>, TlsError> {
        // The configuration does not depend on the name, so all servers of a plugin share one.
        let key = TlsSettings { server_name: None, ..settings.clone() };
        if let Some(config) = self.configs.get(&key) {
            return Ok(config);
        }
        let mut files = Vec::new();
        let config = Arc::new(self.make(&key, &mut files)?);
        self.configs.insert(key, Arc::clone(&config), files);
        Ok(config)
    }

    /// Returns the configuration of a server with the certificate of `settings`: a cached one if its files are unchanged.
    pub(crate) fn server_config(&self, settings: &ServerTlsSettings) -> Result<Arc<ServerConfig>, TlsError> {
        if let Some(config) = self.server_configs.get(settings) {
            return Ok(config);
        }
        let mut files = Vec::new();
        let config = Arc::new(self.make_server(settings, &mut files)?);
        self.server_configs.insert(settings.clone(), Arc::clone(&config), files);
        Ok(config)
    }

    /// Drops all configurations and their session caches.
    #[cfg(test)]
    pub(crate) fn clear_configs(&self) {
        self.configs.clear();
    }

    /// The number of cached configurations.
    #[cfg(test)]
    pub(crate) fn config_count(&self) -> usize {
        self.configs.len()
    }

    fn make(&self, settings: &TlsSettings, files: &mut Vec<UsedFile>) -> Result<ClientConfig, TlsError> {
        let verifier = match &settings.verify {
            Verify::Peer => Verifier::chain(self.roots(settings, files)?, &self.provider),
            Verify::None => Verifier::any(&self.provider),
            Verify::Pins(pins) => Verifier::pins(pins, &self.provider),
        };
        let versions: &[&SupportedProtocolVersion] = match settings.min_version {
            TlsVersion::V12 => VERSIONS,
            TlsVersion::V13 => &[&version::TLS13],
        };
        let builder = ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(versions)
            .map_err(|error| TlsError::from_rustls(&error, TlsRole::Client, None))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier));
        let mut config = match (&settings.certificate, &settings.private_key) {
            (None, None) => builder.with_no_client_auth(),
            (None, Some(_)) => return Err(TlsError::new("PKEY needs CERT")),
            (Some(certificate), key) => {
                let identity = self.identity(certificate, key.as_deref(), files)?;
                builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(identity)))
            }
        };
        config.resumption = Resumption::in_memory_sessions(MAX_SESSIONS);
        Ok(config)
    }

    fn make_server(&self, settings: &ServerTlsSettings, files: &mut Vec<UsedFile>) -> Result<ServerConfig, TlsError> {
        let identity = self.identity(&settings.certificate, settings.key.as_deref(), files)?;
        let mut config = ServerConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(VERSIONS)
            .map_err(|error| TlsError::from_rustls(&error, TlsRole::Server, None))?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(identity)));
        config.ignore_client_order = PREFERS_CHACHA20;
        config.session_storage = ServerSessionMemoryCache::new(MAX_CLIENT_SESSIONS);
        Ok(config)
    }

    /// Reads a certificate and its key, which may be in one file (`key` is `None`).
    fn identity(
        &self,
        certificate: &str,
        key: Option<&str>,
        files: &mut Vec<UsedFile>,
    ) -> Result<CertifiedKey, TlsError> {
        let certificate = self.plugin_file("CERT", certificate, files)?;
        let key = key.map(|key| self.plugin_file("PKEY", key, files)).transpose()?;
        certified_key(&certificate, key.as_ref().unwrap_or(&certificate), &self.provider)
    }

    /// Returns the roots that `settings` trust.
    fn roots(&self, settings: &TlsSettings, files: &mut Vec<UsedFile>) -> Result<Arc<RootCertStore>, TlsError> {
        let built_in =
            self.built_in.get_or_init(|| Arc::new(RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() }));
        if self.ca.is_none() && settings.ca_file.is_none() {
            return Ok(Arc::clone(built_in));
        }
        // Those of files come behind the built-in ones, which `Verifier` relies on.
        let mut roots = RootCertStore::clone(built_in);
        let mut add = |file: PemFile| {
            for certificate in file.certificates()? {
                roots.add(certificate).map_err(|_| file.error("a certificate in it cannot be read"))?;
            }
            Ok(())
        };
        if let Some(ca) = &self.ca {
            add(config_file("ca", ca, files)?)?;
        }
        if let Some(name) = &settings.ca_file {
            add(self.plugin_file("CAFL", name, files)?)?;
        }
        Ok(Arc::new(roots))
    }

    fn plugin_file(&self, option: &'static str, name: &str, files: &mut Vec<UsedFile>) -> Result<PemFile, TlsError> {
        let Some(directory) = &self.directory else {
            return Err(TlsError::new(format!("{option} names a file, and there is no directory for any")));
        };
        let path = directory.join(name);
        // Taken before the file is read, so that a write in between makes the entry stale.
        let stamp = FileStamp::of(&path);
        let file = read_plugin_file(option, directory, name)?;
        files.push((path, stamp));
        Ok(file)
    }
}

/// Reads a file that the configuration names, and adds it to `files`.
fn config_file(key: &'static str, path: &Path, files: &mut Vec<UsedFile>) -> Result<PemFile, TlsError> {
    files.push((path.to_owned(), FileStamp::of(path)));
    read_config_file(key, path)
}

/// Our certificates and key. rustls' own way to load them parses the first certificate by webpki, which refuses version 1.
/// `openssl x509 -req` makes that version by default, and servers take it.
fn certified_key(certificates: &PemFile, key: &PemFile, provider: &CryptoProvider) -> Result<CertifiedKey, TlsError> {
    let chain: Vec<CertificateDer<'static>> = certificates.certificates()?;
    let private: PrivateKeyDer<'static> = key.private_key()?;
    let kind = KeyKind::of_private(&private);
    let private = provider.key_provider.load_private_key(private).map_err(|_| key.error(&kind.client_problem()))?;
    let of_certificate = chain.first().and_then(|certificate| x509::public_key(certificate));
    let of_certificate = of_certificate.ok_or_else(|| certificates.error("a certificate in it cannot be read"))?;
    let info = private.public_key();
    match info.as_ref().and_then(|info| x509::public_key_of_info(info)) {
        Some(of_key) if of_key.bits != of_certificate.bits => {
            Err(TlsError::new("CERT and PKEY do not belong together"))
        }
        _ => Ok(CertifiedKey::new(chain, private)),
    }
}

/// The ring provider, with the cipher suites ordered for this machine.
fn provider() -> CryptoProvider {
    let mut provider = CryptoProvider { key_provider: &OwnKeys, ..crypto::ring::default_provider() };
    if PREFERS_CHACHA20 {
        // Many servers follow the client's order.
        provider.cipher_suites.sort_by_key(|suite| !is_chacha20(suite));
        provider.cipher_suites.sort_by_key(|suite| suite.tls13().is_none());
    }
    provider
}

/// Loads our RSA and ECDSA keys. Ed25519 would cost 24 KiB of code on MIPS, and no known device needs it.
#[derive(Debug)]
struct OwnKeys;

impl KeyProvider for OwnKeys {
    fn load_private_key(&self, key: PrivateKeyDer<'static>) -> Result<Arc<dyn SigningKey>, Error> {
        match RsaSigningKey::new(&key) {
            Ok(rsa) => Ok(Arc::new(rsa)),
            Err(_) => any_ecdsa_type(&key).map_err(|_| Error::General("neither an RSA nor an ECDSA key".into())),
        }
    }
}

fn is_chacha20(suite: &SupportedCipherSuite) -> bool {
    use rustls::CipherSuite as Suite;
    matches!(
        suite.suite(),
        Suite::TLS13_CHACHA20_POLY1305_SHA256
            | Suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256
            | Suite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256
    )
}
