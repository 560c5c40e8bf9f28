//! What a session holds, counted.

use super::plugin::kept::KeptPlugin;
use super::{Session, Stage};
use crate::net::network::Network;
use crate::relay::memory_budget::{HeldKinds, MemoryBudget};

impl<N: Network> Session<N> {
    /// Bytes held for this session, whatever for.
    pub(super) fn held(&self) -> usize {
        let relay = if let Stage::Relaying(relaying) = &self.stage { relaying.relay().held() } else { 0 };
        self.counted as usize + relay + self.plugin.kept().map_or(0, KeptPlugin::held)
    }

    /// Bytes of replies in setup mode, or of pages, that the client has yet to read.
    pub(crate) fn unread(&self) -> usize {
        match &self.stage {
            Stage::Setup(setup) => setup.unread(),
            Stage::Opening => self.plugin.unread(),
            _ => 0,
        }
    }

    /// Counts in the budget what the stage holds.
    pub(super) fn account(&mut self, budget: &mut MemoryBudget) {
        let held = match &self.stage {
            Stage::Setup(setup) => setup.held(),
            Stage::Opening | Stage::Watching(_) => 0,
            Stage::Checking(checking) => checking.setup.held(),
            Stage::Listening(listening) => listening.held(),
            Stage::Arriving(arriving) => arriving.held(),
            Stage::Claiming(request) => request.held(),
            Stage::Connecting(connecting) => connecting.held(),
            Stage::Relaying(relaying) => relaying.held(),
            Stage::Healing(healing) => healing.held(),
            Stage::Draining(draining) => draining.held(),
            Stage::UnreadTail(tail) => tail.target.held(),
            Stage::Closed => 0,
        };
        // A session that is over is dropped next, with its options.
        let rest = if let Stage::Closed = self.stage { 0 } else { self.plugin.held() + self.parameters.held() };
        let mut counted = self.counted as usize;
        budget.adjust(&mut counted, (held + rest).min(u32::MAX as usize));
        self.counted = counted as u32;
        budget.set_kinds(self.held_kinds());
    }

    /// Of what kinds are the bytes that the session holds.
    pub(super) fn held_kinds(&self) -> HeldKinds {
        match &self.stage {
            Stage::Setup(setup) => HeldKinds { incomplete: setup.incomplete(), ..HeldKinds::default() },
            Stage::Checking(checking) => HeldKinds { incomplete: checking.setup.incomplete(), ..HeldKinds::default() },
            // A connection that is not established has passed no byte yet.
            Stage::Connecting(connecting) => HeldKinds { incomplete: connecting.held(), ..HeldKinds::default() },
            Stage::Arriving(arriving) => HeldKinds { incomplete: arriving.held(), ..HeldKinds::default() },
            // A request that has come in part, or the handshake of TLS before it.
            Stage::Opening => {
                let incomplete = self.plugin.held() - self.plugin.unread();
                HeldKinds { incomplete, ..HeldKinds::default() }
            }
            Stage::Relaying(relaying) => relaying.held_kinds(),
            Stage::Watching(_)
            | Stage::Listening(_)
            | Stage::Claiming(_)
            | Stage::Healing(_)
            | Stage::UnreadTail(_)
            | Stage::Draining(_)
            | Stage::Closed => HeldKinds::default(),
        }
    }
}
