//! What all TLS connections share: the crypto provider, trusted roots, and the configurations made so far.
//!
//! Everything here may read files and compute for long: it is for worker threads.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use rustls::client::Resumption;
use rustls::crypto::ring::sign::{RsaSigningKey, any_ecdsa_type};
use rustls::crypto::{CryptoProvider, KeyProvider};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::SigningKey;
use rustls::{ClientConfig, Error, RootCertStore, SupportedCipherSuite, SupportedProtocolVersion, crypto, version};

use super::files::{File, Stamp, read_owners, read_plugins};
use super::verify::Verifier;
use super::{Failure, error};
use super::{Settings, Verify, Version};
use crate::thread_pool::lock;

/// As many configurations are kept. A house with more kinds of settings than that makes some of them anew.
const MOST_CONFIGS: usize = 32;
/// rustls keeps sessions of an eighth as many servers for each configuration.
const SESSIONS: usize = 256;
/// RandomSource that takes longer is worth a line in the log.
const SLOW_RANDOMNESS: Duration = Duration::from_secs(1);

/// What all TLS connections share.
#[derive(Debug)]
pub struct House {
    /// Where files that plugins name lie.
    directory: Option<PathBuf>,
    /// The owner's further roots.
    ca: Option<PathBuf>,
    provider: Arc<CryptoProvider>,
    /// The built-in roots, made when they are first needed.
    built_in: OnceLock<Arc<RootCertStore>>,
    configs: Mutex<HashMap<Settings, Entry>>,
}

/// A configuration that was made.
#[derive(Clone, Debug)]
struct Entry {
    config: Arc<ClientConfig>,
    /// The files it was made of. Once one of them is another, it is of no use.
    files: Arc<[(PathBuf, Stamp)]>,
    used: Instant,
}

impl House {
    /// A house whose plugins' files lie below `directory` (none: plugins may name none), and which trusts the
    /// certificates in the file `ca` (PEM) in addition to the built-in roots.
    pub fn new(directory: Option<PathBuf>, ca: Option<PathBuf>) -> Self {
        Self { directory, ca, provider: Arc::new(provider()), built_in: OnceLock::new(), configs: Mutex::default() }
    }

    /// Draws the first randomness on a thread of its own, which the kernel of a box without entropy lets wait, for
    /// ever if need be; what is drawn later finds it done, or waits on a worker.
    pub fn warm_up(self: &Arc<Self>) {
        let house = Arc::clone(self);
        let warm = move || {
            let started = Instant::now();
            let drawn = house.provider.secure_random.fill(&mut [0; 32]);
            let took = started.elapsed();
            if drawn.is_err() {
                log::error!("no randomness: there will be no TLS");
            } else if took > SLOW_RANDOMNESS {
                log::warn!("the first randomness took {:.1} s: this box is short of entropy", took.as_secs_f64());
            }
        };
        let thread = std::thread::Builder::new().name("randomness".into()).stack_size(64 * 1024);
        if let Err(error) = thread.spawn(warm) {
            log::warn!("no thread to draw the first randomness: {error}");
        }
    }

    /// The configuration for `settings`: one that was made before, if its files are still the same.
    pub fn config(&self, settings: &Settings) -> Result<Arc<ClientConfig>, Failure> {
        // The name is no part of it, so that all of a plugin's servers share one.
        let key = Settings { server_name: None, ..settings.clone() };
        let found = self.configs().get(&key).cloned();
        if let Some(entry) = found
            && entry.files.iter().all(|(path, stamp)| Stamp::of(path) == *stamp)
        {
            if let Some(entry) = self.configs().get_mut(&key) {
                entry.used = Instant::now();
            }
            return Ok(entry.config);
        }
        let mut files = Vec::new();
        let config = Arc::new(self.make(&key, &mut files)?);
        let entry = Entry { config: Arc::clone(&config), files: files.into(), used: Instant::now() };
        let mut configs = self.configs();
        if configs.len() >= MOST_CONFIGS
            && !configs.contains_key(&key)
            && let Some(oldest) = configs.iter().min_by_key(|(_, entry)| entry.used).map(|(key, _)| key.clone())
        {
            configs.remove(&oldest);
        }
        configs.insert(key, entry);
        Ok(config)
    }

    /// Forgets configurations and, with them, sessions.
    #[cfg(test)]
    pub fn forget(&self) {
        self.configs().clear();
    }

    /// How many configurations are kept.
    #[cfg(test)]
    pub fn kept(&self) -> usize {
        self.configs().len()
    }

    fn configs(&self) -> std::sync::MutexGuard<'_, HashMap<Settings, Entry>> {
        lock(&self.configs)
    }

    fn make(&self, settings: &Settings, files: &mut Vec<(PathBuf, Stamp)>) -> Result<ClientConfig, Failure> {
        let verifier = match &settings.verify {
            Verify::Peer => Verifier::peer(self.roots(settings, files)?, &self.provider),
            Verify::None => Verifier::none(&self.provider),
            Verify::Pins(pins) => Verifier::pins(pins, &self.provider),
        };
        let versions: &[&SupportedProtocolVersion] = match settings.min_version {
            Version::V12 => &[&version::TLS13, &version::TLS12],
            Version::V13 => &[&version::TLS13],
        };
        let builder = ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(versions)
            .map_err(|error| Failure::of(&error))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier));
        let mut config = match (&settings.certificate, &settings.private_key) {
            (None, None) => builder.with_no_client_auth(),
            (None, Some(_)) => return Err(Failure::new("PKEY needs CERT")),
            (Some(certificate), key) => {
                let file = self.plugins_file("CERT", certificate, files)?;
                let chain: Vec<CertificateDer<'static>> = file.certificates()?;
                let key: PrivateKeyDer<'static> = match key {
                    Some(key) => self.plugins_file("PKEY", key, files)?.private_key()?,
                    // Both may stand in one file.
                    None => file.private_key()?,
                };
                let config = builder.with_client_auth_cert(chain, key);
                config.map_err(|error| error::of_client_certificate(&error))?
            }
        };
        config.resumption = Resumption::in_memory_sessions(SESSIONS);
        Ok(config)
    }

    /// The roots that are trusted under `settings`.
    fn roots(&self, settings: &Settings, files: &mut Vec<(PathBuf, Stamp)>) -> Result<Arc<RootCertStore>, Failure> {
        let built_in =
            self.built_in.get_or_init(|| Arc::new(RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() }));
        if self.ca.is_none() && settings.ca_file.is_none() {
            return Ok(Arc::clone(built_in));
        }
        let mut roots = RootCertStore::clone(built_in);
        let mut add = |file: File| {
            for certificate in file.certificates()? {
                roots.add(certificate).map_err(|_| file.failure("a certificate in it cannot be read"))?;
            }
            Ok(())
        };
        if let Some(ca) = &self.ca {
            add(self.owners_file("ca", ca, files)?)?;
        }
        if let Some(name) = &settings.ca_file {
            add(self.plugins_file("CAFL", name, files)?)?;
        }
        Ok(Arc::new(roots))
    }

    fn owners_file(&self, key: &'static str, path: &Path, files: &mut Vec<(PathBuf, Stamp)>) -> Result<File, Failure> {
        files.push((path.to_owned(), Stamp::of(path)));
        read_owners(key, path)
    }

    fn plugins_file(
        &self,
        option: &'static str,
        name: &str,
        files: &mut Vec<(PathBuf, Stamp)>,
    ) -> Result<File, Failure> {
        let Some(directory) = &self.directory else {
            return Err(Failure::new(format!("{option} names a file, and there is no directory for any")));
        };
        let path = directory.join(name);
        // Before it is read: what is written meanwhile makes it another.
        let stamp = Stamp::of(&path);
        let file = read_plugins(option, directory, name)?;
        files.push((path, stamp));
        Ok(file)
    }
}

/// ring, with the cipher suites in the order of this machine's liking.
fn provider() -> CryptoProvider {
    let mut provider = CryptoProvider { key_provider: &Keys, ..crypto::ring::default_provider() };
    if cfg!(not(any(target_arch = "x86_64", target_arch = "aarch64"))) {
        // Without instructions for AES, ChaCha20 takes a fraction of the time. Many servers go by the client's order.
        provider.cipher_suites.sort_by_key(|suite| !is_chacha(suite));
        provider.cipher_suites.sort_by_key(|suite| suite.tls13().is_none());
    }
    provider
}

/// Reads the clients' keys, RSA and ECDSA. Signing with Ed25519 would cost 24 KiB on MIPS for what no device asks for.
#[derive(Debug)]
struct Keys;

impl KeyProvider for Keys {
    fn load_private_key(&self, key: PrivateKeyDer<'static>) -> Result<Arc<dyn SigningKey>, Error> {
        match RsaSigningKey::new(&key) {
            Ok(rsa) => Ok(Arc::new(rsa)),
            Err(_) => any_ecdsa_type(&key).map_err(|_| Error::General("neither an RSA nor an ECDSA key".into())),
        }
    }
}

fn is_chacha(suite: &SupportedCipherSuite) -> bool {
    use rustls::CipherSuite as Suite;
    matches!(
        suite.suite(),
        Suite::TLS13_CHACHA20_POLY1305_SHA256
            | Suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256
            | Suite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256
    )
}
