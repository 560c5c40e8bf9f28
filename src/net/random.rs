//! Unpredictable bytes for WebSocket's keys and masks.
//!
//! They need not be secret for ever, but no page, proxy or server may foretell them (RFC 6455 sections 5.3 and 10.3), and
//! drawing them may never hold up the loop: on an old kernel that has gathered no entropy yet, a box at boot, asking
//! the system for strong bytes can wait for minutes. The standard library seeds its hashes without waiting; a keyed
//! SipHash of a counter is a pseudo-random function, and costs no system call.

use std::hash::{BuildHasher, RandomState};

use crate::websocket::Entropy;

/// A source of unpredictable bytes.
#[derive(Debug, Default)]
pub struct Randomness {
    keys: RandomState,
    drawn: u64,
}

impl Randomness {
    fn draw(&mut self) -> [u8; 8] {
        self.drawn = self.drawn.wrapping_add(1);
        self.keys.hash_one(self.drawn).to_ne_bytes()
    }

    /// The nonce of an opening handshake (RFC 6455 section 4.1): no two are equal but by chance.
    pub fn nonce(&mut self) -> [u8; 16] {
        let mut nonce = [0; 16];
        nonce[..8].copy_from_slice(&self.draw());
        nonce[8..].copy_from_slice(&self.draw());
        nonce
    }
}

impl Entropy for Randomness {
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
    fn what_is_drawn_differs() {
        let (mut one, mut other) = (Randomness::default(), Randomness::default());
        let nonces: HashSet<_> = (0..1000).flat_map(|_| [one.nonce(), other.nonce()]).collect();
        assert_eq!(nonces.len(), 2000);
        // Of 1000 masks of 32 bits, two are equal once in 8600 runs; three never.
        let masks: HashSet<_> = (0..1000).map(|_| one.mask()).collect();
        assert!(masks.len() > 997);
    }
}
