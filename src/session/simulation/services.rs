//! What the daemon lends to sessions, scripted: a name resolver, TLS handshakes that are computed inline, randomness.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use rustls::ServerConfig;
use testkit::tls::{Identity, Validity};

use crate::client::ClientKey;
use crate::net::resolver::{NameResolver, ResolveResult};
use crate::session::context::{HandshakeQueue, Key, RandomBytes};
use crate::testing::TestEntropy;
use crate::testing::choices::Choices;
use crate::tls::handshake::begin;
use crate::tls::{PendingHandshake, ServerTlsSettings, TlsContext, TlsError, TlsOutcome, TlsSettings, TlsStep};
use crate::websocket::Entropy;

/// When a name's addresses, or a part of a handshake, are there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Delay {
    /// At once: of names before the question returns, of handshakes in the next round.
    None,
    /// After this many rounds.
    Rounds(u32),
    /// Never.
    Forever,
}

/// What waits to be delivered.
#[derive(Debug)]
struct Waiting<T> {
    key: Key,
    delay: Delay,
    result: T,
}

/// Delivers what is due after another round.
fn take_due<T>(waiting: &mut Vec<Waiting<T>>) -> Vec<(Key, T)> {
    let mut due = Vec::new();
    for mut entry in std::mem::take(waiting) {
        match entry.delay {
            Delay::None | Delay::Rounds(0) => {
                due.push((entry.key, entry.result));
                continue;
            }
            Delay::Rounds(rounds) => entry.delay = Delay::Rounds(rounds - 1),
            Delay::Forever => {}
        }
        waiting.push(entry);
    }
    due
}

/// A name resolver with an answer, and a delay, for each name.
#[derive(Debug, Default)]
pub(crate) struct SimResolver {
    pub answers: HashMap<String, (ResolveResult, Delay)>,
    waiting: Vec<Waiting<(String, ResolveResult)>>,
}

impl SimResolver {
    /// The answers that are due after another round.
    pub(crate) fn take_due(&mut self) -> Vec<(Key, (String, ResolveResult))> {
        take_due(&mut self.waiting)
    }

    /// True if a session waits for an answer.
    pub(crate) fn is_asked_by(&self, key: Key) -> bool {
        self.waiting.iter().any(|entry| entry.key == key)
    }
}

impl NameResolver<Key> for SimResolver {
    fn resolve(&mut self, host: &str, key: Key, _: ClientKey) -> Option<ResolveResult> {
        let (answer, delay) = self.answers.get(host).cloned().unwrap_or((Err("host not found"), Delay::None));
        if delay == Delay::None {
            return Some(answer);
        }
        self.waiting.push(Waiting { key, delay, result: (host.to_owned(), answer) });
        None
    }

    fn cancel(&mut self, host: &str, key: Key) {
        self.waiting.retain(|entry| entry.key != key || entry.result.0 != host);
    }
}

/// What all TLS connections here share. Made once: keys cost time.
pub(crate) struct TlsWorld {
    pub context: TlsContext,
    pub server: Arc<ServerConfig>,
    /// The server's certificate, as PINS has it.
    pub pin: String,
    pub untrusted_server: Arc<ServerConfig>,
}

impl TlsWorld {
    /// The one of this process.
    pub(crate) fn get() -> &'static Self {
        static WORLD: OnceLock<TlsWorld> = OnceLock::new();
        WORLD.get_or_init(|| {
            let identity = Identity::self_signed(&["tls.test"], Validity::Now);
            Self {
                context: TlsContext::new(None, None),
                server: Arc::new(identity.any_server()),
                pin: identity.pin(),
                untrusted_server: Arc::new(Identity::self_signed(&["other.test"], Validity::Now).any_server()),
            }
        })
    }
}

/// The name of a certificate's file that does not exist.
pub(crate) const MISSING_CERTIFICATE: &str = "missing.pem";

/// Handshakes that are computed inline and delivered as scripted.
pub(crate) struct SimHandshakes {
    tls: &'static TlsWorld,
    random: Choices,
    /// One in this many steps is never delivered; 0: none.
    pub lost_every: u64,
    waiting: Vec<Waiting<TlsStep>>,
}

impl SimHandshakes {
    pub(crate) fn new(seed: u64) -> Self {
        Self { tls: TlsWorld::get(), random: Choices::seeded(seed), lost_every: 0, waiting: Vec::new() }
    }

    /// The steps that are due after another round.
    pub(crate) fn take_due(&mut self) -> Vec<(Key, TlsStep)> {
        take_due(&mut self.waiting)
    }

    /// True if a session waits for a step.
    pub(crate) fn is_asked_by(&self, key: Key) -> bool {
        self.waiting.iter().any(|entry| entry.key == key)
    }

    fn push(&mut self, key: Key, result: TlsStep) {
        let lost = self.lost_every > 0 && self.random.below(self.lost_every) == 0;
        let delay = if lost { Delay::Forever } else { Delay::Rounds(self.random.below(4) as u32) };
        self.waiting.push(Waiting { key, delay, result });
    }
}

impl HandshakeQueue for SimHandshakes {
    fn begin(&mut self, key: Key, _: ClientKey, host: &str, settings: &TlsSettings) {
        self.cancel(key);
        let step = match begin(&self.tls.context, host, settings) {
            Ok((pending, to_send)) => TlsStep { to_send, outcome: TlsOutcome::Pending(pending) },
            Err(failure) => TlsStep { to_send: Vec::new(), outcome: TlsOutcome::Failed(failure) },
        };
        self.push(key, step);
    }

    /// The certificate is that of [`TlsWorld::server`], whatever it is called. Except for [`MISSING_CERTIFICATE`].
    fn begin_server(&mut self, key: Key, _: ClientKey, settings: &ServerTlsSettings) {
        self.cancel(key);
        let begun = if &*settings.certificate == MISSING_CERTIFICATE {
            Err(TlsError::new("CERT missing.pem: No such file or directory (os error 2)"))
        } else {
            PendingHandshake::of_server(Arc::clone(&self.tls.server))
        };
        let outcome = begun.map_or_else(TlsOutcome::Failed, TlsOutcome::Pending);
        self.push(key, TlsStep { to_send: Vec::new(), outcome });
    }

    fn advance(&mut self, key: Key, _: ClientKey, pending: PendingHandshake, received: Vec<u8>) {
        self.cancel(key);
        let step = pending.advance(&received);
        self.push(key, step);
    }

    fn cancel(&mut self, key: Key) {
        self.waiting.retain(|entry| entry.key != key);
    }
}

/// Randomness that repeats with every run.
#[derive(Debug, Default)]
pub(crate) struct SimRandom(TestEntropy);

impl Entropy for SimRandom {
    fn mask(&mut self) -> [u8; 4] {
        self.0.mask()
    }
}

impl RandomBytes for SimRandom {
    fn nonce(&mut self) -> [u8; 16] {
        [self.mask(), self.mask(), self.mask(), self.mask()].concat().try_into().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::{Verify, begin};

    /// The next step.
    fn next(handshakes: &mut SimHandshakes) -> TlsStep {
        loop {
            if let Some((_, step)) = handshakes.take_due().pop() {
                return step;
            }
        }
    }

    #[test]
    fn handshakes_as_a_server_are_computed() {
        let mut handshakes = SimHandshakes::new(0);
        handshakes.begin_server(
            1,
            ClientKey::Loopback,
            &ServerTlsSettings { certificate: MISSING_CERTIFICATE.into(), key: None },
        );
        assert!(matches!(next(&mut handshakes).outcome, TlsOutcome::Failed(_)));
        handshakes.begin_server(
            1,
            ClientKey::Loopback,
            &ServerTlsSettings { certificate: "own.pem".into(), key: None },
        );
        let TlsOutcome::Pending(pending) = next(&mut handshakes).outcome else { panic!() };
        let settings = TlsSettings { verify: Verify::None, ..TlsSettings::default() };
        let (_, hello) = begin(&TlsWorld::get().context, "tls.test", &settings).unwrap();
        handshakes.advance(1, ClientKey::Loopback, pending, hello);
        assert!(
            matches!(next(&mut handshakes), TlsStep { outcome: TlsOutcome::Pending(_), to_send } if !to_send.is_empty())
        );
    }
}
