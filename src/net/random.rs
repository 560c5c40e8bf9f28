//! Unpredictable bytes for the keys and masks of WebSocket.
//!
//! No page, proxy or server may predict them (RFC 6455 sections 5.3 and 10.3); they need not stay secret. Drawing them must
//! not block: at boot, an old kernel without enough entropy can let a request for strong bytes wait for minutes. The
//! standard library seeds its hash keys without blocking. A keyed SipHash of a counter is a pseudo-random function, and
//! takes no system call.

use std::hash::{BuildHasher, RandomState};

use crate::websocket::Entropy;

/// A source of unpredictable bytes.
#[derive(Debug, Default)]
pub(crate) struct RandomSource {
    keys: RandomState,
    counter: u64,
}

impl RandomSource {
    fn draw(&mut self) -> [u8; 8] {
        self.counter = self.counter.wrapping_add(1);
        self.keys.hash_one(self.counter).to_ne_bytes()
    }

    /// The nonce of an opening handshake (RFC 6455 section 4.1).
    pub(crate) fn nonce(&mut self) -> [u8; 16] {
        let mut nonce = [0; 16];
        nonce[..8].copy_from_slice(&self.draw());
        nonce[8..].copy_from_slice(&self.draw());
        nonce
    }
}

impl Entropy for RandomSource {
    fn mask(&mut self) -> [u8; 4] {
        let [a, b, c, d, ..] = self.draw();
        [a, b, c, d]
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn nonces_and_masks_differ() {
        let (mut one, mut other) = (RandomSource::default(), RandomSource::default());
        let nonces: HashSet<_> = (0..1000).flat_map(|_| [one.nonce(), other.nonce()]).collect();
        assert_eq!(nonces.len(), 2000);
        // Of 1000 masks of 32 bits, two are equal in one of 8600 runs.
        let masks: HashSet<_> = (0..1000).map(|_| one.mask()).collect();
        assert!(masks.len() > 997);
    }
}
