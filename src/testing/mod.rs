//! What stands in for the kernel in simulations and fuzz targets: [`wire`] is a connection and the peer behind it,
//! [`TestContext`] what a relay's turn needs from outside, [`pieces`] splits what is read. The daemon uses none of it, so
//! none of it is in the binary.

pub(crate) mod choices;
#[cfg(test)]
pub(crate) mod log_recorder;
pub(crate) mod network;
pub(crate) mod pieces;
#[cfg(test)]
pub(crate) mod seeds;
pub(crate) mod wire;

use std::time::{Duration, Instant};

use crate::net::endpoint::{Endpoint, SocketEndpoint};
use crate::relay::memory_budget::MemoryBudget;
use crate::relay::pipe_pool::PipePool;
use crate::relay::stream::StreamRelay;
use crate::relay::{Relay, RelayContext, RelayTurn, Timing};
use crate::websocket::Entropy;
use wire::Wire;

/// Turns that follow each other at once, before that counts as an endless loop.
const MAX_TURNS: usize = 100_000;

/// The time limits of a relay, unless a test says otherwise.
pub(crate) const TIMING: Timing = Timing {
    receive: None,
    idle: None,
    half_close: Duration::from_secs(5),
    stall: Duration::from_secs(300),
    plugin_read_closed: false,
    remote_read_closed: false,
};

/// `limits`, with what events have reported of both ends.
pub(crate) fn timing_of(limits: Timing, plugin: &SocketEndpoint<Wire>, remote: &SocketEndpoint<Wire>) -> Timing {
    Timing { plugin_read_closed: plugin.is_read_closed(), remote_read_closed: remote.is_read_closed(), ..limits }
}

/// Masks that differ, and repeat with every run. Their first byte is never ASCII, so that none is taken for text.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct TestEntropy(u32);

impl Entropy for TestEntropy {
    fn mask(&mut self) -> [u8; 4] {
        self.0 += 1;
        (self.0.wrapping_mul(0x9e37_79b9) | 0x8000_0000).to_be_bytes()
    }
}

/// What a turn needs from outside: the time stands still unless the test moves it, and the bounds are the test's.
#[derive(Debug)]
pub(crate) struct TestContext {
    /// The time.
    pub now: Instant,
    /// The bound on bytes held in all.
    pub budget: MemoryBudget,
    /// No pipes: nothing can be spliced here.
    pub pipes: PipePool,
    /// Most bytes that are read for the plugin at once.
    pub block: Option<usize>,
    entropy: TestEntropy,
    scratch: Vec<u8>,
}

impl TestContext {
    /// A context whose shared buffer for reading has `scratch` bytes.
    pub(crate) fn new(budget: MemoryBudget, scratch: usize) -> Self {
        Self {
            now: Instant::now(),
            budget,
            pipes: PipePool::new(0),
            block: None,
            entropy: TestEntropy::default(),
            scratch: vec![0; scratch],
        }
    }

    /// What one turn gets of it.
    pub(crate) fn relay(&mut self) -> RelayContext<'_> {
        RelayContext {
            now: self.now,
            scratch: &mut self.scratch,
            budget: &mut self.budget,
            pipes: &mut self.pipes,
            entropy: &mut self.entropy,
            block: self.block,
            heals: false,
            trace: None,
        }
    }

    /// What holds for a relay of streams at any time: bytes arrive as they were sent, and no more than `limit` bytes are
    /// held.
    ///
    /// # Panics
    ///
    /// If it does not hold.
    pub(crate) fn check_streams(
        &self,
        relay: &StreamRelay,
        plugin: &mut SocketEndpoint<Wire>,
        remote: &mut SocketEndpoint<Wire>,
        limit: usize,
    ) {
        plugin.stream_mut().check_passed(remote.stream());
        remote.stream_mut().check_passed(plugin.stream());
        assert_eq!(relay.held(), self.budget.held());
        assert!(relay.held() <= limit, "{} bytes are held", relay.held());
        let written = (remote.stream().written() as u64, plugin.stream().written() as u64);
        assert_eq!((relay.sent(), relay.received()), written);
    }

    /// Runs a turn, and those that it asks for. Returns what they did together.
    ///
    /// # Panics
    ///
    /// If they have no end, or the end is delivered twice.
    pub(crate) fn turns(&mut self, mut run: impl FnMut(&mut RelayContext<'_>) -> RelayTurn) -> RelayTurn {
        let mut all = RelayTurn::default();
        for _ in 0..MAX_TURNS {
            let turn = run(&mut self.relay());
            assert!(!(all.end_delivered && turn.end_delivered), "the end is delivered twice");
            all.delivered |= turn.delivered;
            all.end_delivered |= turn.end_delivered;
            all.end = turn.end;
            if !turn.again || turn.end.is_some() {
                return all;
            }
        }
        panic!("turns without end");
    }
}
