//! What stands in for the kernel in simulations and fuzz targets: [`wire`] is a connection and the peer behind it,
//! [`Surroundings`] what a relay's turn needs from outside, [`pieces`] cuts what is read in pieces, [`seeds`] replays a simulation. The daemon uses none
//! of it, so none of it is in the binary.

pub mod pieces;
pub mod seeds;
pub mod wire;

use std::time::Instant;

use crate::relay::buffers::Buffers;
use crate::relay::pipes::Pipes;
use crate::relay::stream::StreamRelay;
use crate::relay::{Env, Relay, Turn};
use crate::websocket::Entropy;
use wire::Wire;

/// Turns that follow each other at once, before that counts as a loop without end.
const MOST_TURNS: usize = 100_000;

/// Keys that differ, and repeat with every run. Their first byte is never ASCII, so that nobody takes one for words.
#[derive(Clone, Copy, Debug, Default)]
pub struct Keys(u32);

impl Entropy for Keys {
    fn mask(&mut self) -> [u8; 4] {
        self.0 += 1;
        (self.0.wrapping_mul(0x9e37_79b9) | 0x8000_0000).to_be_bytes()
    }
}

/// What a turn needs from outside: the time stands still unless it is moved, and the bounds are the test's.
#[derive(Debug)]
pub struct Surroundings {
    /// When it is.
    pub now: Instant,
    /// The bound on bytes held in all.
    pub buffers: Buffers,
    /// No pipes: nothing can be spliced here.
    pub pipes: Pipes,
    /// Most that is read for the plugin at once.
    pub block: Option<usize>,
    keys: Keys,
    scratch: Vec<u8>,
}

impl Surroundings {
    /// Surroundings whose shared buffer for reading has `scratch` bytes.
    pub fn new(buffers: Buffers, scratch: usize) -> Self {
        Self {
            now: Instant::now(),
            buffers,
            pipes: Pipes::new(0),
            block: None,
            keys: Keys::default(),
            scratch: vec![0; scratch],
        }
    }

    /// What one turn gets of it.
    pub fn env(&mut self) -> Env<'_> {
        Env {
            now: self.now,
            scratch: &mut self.scratch,
            buffers: &mut self.buffers,
            pipes: &mut self.pipes,
            entropy: &mut self.keys,
            block: self.block,
        }
    }

    /// What holds for a relay of streams at any time: what arrives is what was said, and no more than `most` bytes are
    /// held.
    ///
    /// # Panics
    ///
    /// Where it does not.
    pub fn check_streams(&self, relay: &StreamRelay, plugin: &mut Wire, remote: &mut Wire, most: usize) {
        plugin.check_passed(remote);
        remote.check_passed(plugin);
        assert_eq!(relay.held(), self.buffers.held());
        assert!(relay.held() <= most, "{} bytes are held", relay.held());
        assert_eq!((relay.sent(), relay.received()), (remote.written() as u64, plugin.written() as u64));
    }

    /// A turn, and those that it asks for. Gives what they have done together.
    ///
    /// # Panics
    ///
    /// Where they have no end, or something is said twice.
    pub fn turns(&mut self, mut run: impl FnMut(&mut Env<'_>) -> Turn) -> Turn {
        let mut all = Turn::default();
        for _ in 0..MOST_TURNS {
            let turn = run(&mut self.env());
            assert!(!(all.told_end && turn.told_end), "the end is told twice");
            all.handed_over |= turn.handed_over;
            all.told_end |= turn.told_end;
            all.end = turn.end;
            if !turn.again || turn.end.is_some() {
                return all;
            }
        }
        panic!("turns without end");
    }
}
