//! The table of sessions: which session a key names, and what the loop remembers of it.

use std::time::Instant;

use mio::Token;
use slab::Slab;

use super::run_queue::{Precedence, RunQueue};
use super::tokens::{self, Side, TokenKind};
use crate::session::{Key, Pid, Session};

/// A session, and what the loop remembers of it.
#[derive(Debug)]
pub(super) struct Slot {
    /// The session.
    pub session: Box<Session>,
    /// It waits in the run queue.
    pub queued: bool,
    /// What its timer is armed for.
    pub armed: Option<Instant>,
    key: Key,
}

impl Slot {
    /// Queues the session for a turn.
    pub(super) fn enqueue(&mut self, queue: &mut RunQueue<Key>) {
        let Self { session, queued, key, .. } = self;
        let precedence = Precedence { relays: session.is_relaying(), is_loopback: session.client().is_loopback() };
        queue.add(*key, precedence, queued);
    }
}

/// All sessions. A slot that is used again has another generation, and so another key: a late event or result for the
/// session before finds nothing.
#[derive(Debug, Default)]
pub(super) struct SessionTable {
    slots: Slab<Slot>,
    /// The generation that the next session in a slot gets.
    generations: Vec<u16>,
}

impl SessionTable {
    /// How many sessions there are.
    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    /// True if there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// The key that the next session gets.
    pub(super) fn next_key(&mut self) -> Key {
        let slot = self.slots.vacant_key();
        if self.generations.len() <= slot {
            self.generations.resize(slot + 1, 0);
        }
        key(slot, self.generations[slot])
    }

    /// Adds `session`, which gets [`SessionTable::next_key`].
    pub(super) fn insert(&mut self, session: Box<Session>) {
        let key = self.next_key();
        self.slots.insert(Slot { session, queued: false, armed: None, key });
    }

    /// The session that `key` names, if it is still there.
    pub(super) fn get(&self, key: Key) -> Option<&Slot> {
        self.slots.get(slot_of(key)).filter(|found| found.key == key)
    }

    /// The session that `key` names, if it is still there.
    pub(super) fn get_mut(&mut self, key: Key) -> Option<&mut Slot> {
        self.slots.get_mut(slot_of(key)).filter(|found| found.key == key)
    }

    /// Removes the session that `key` names.
    pub(super) fn remove(&mut self, key: Key) -> Option<Box<Session>> {
        let TokenKind::Session(slot, generation, _) = tokens::decode(Token(key)) else { return None };
        self.get(key)?;
        self.generations[slot] = tokens::next_generation(generation);
        Some(self.slots.remove(slot).session)
    }

    /// The key of the session in `slot`.
    pub(super) fn key_of(&self, slot: usize) -> Option<Key> {
        self.slots.get(slot).map(|found| found.key)
    }

    /// The key of the session whose pid is shown as `id`.
    pub(super) fn find(&self, id: &[u8]) -> Option<Key> {
        let pid = Pid::parse(id)?;
        self.iter().find(|(_, slot)| slot.session.pid() == pid).map(|(key, _)| key)
    }

    /// All sessions with their keys.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Key, &Slot)> {
        self.slots.iter().map(|(_, slot)| (slot.key, slot))
    }

    /// Frees memory that many sessions have needed.
    pub(super) fn shrink(&mut self) {
        self.slots.shrink_to_fit();
    }
}

/// The token of the remote's sockets of the session that `key` names.
pub(super) fn remote_token(key: Key) -> Token {
    match tokens::decode(Token(key)) {
        TokenKind::Session(slot, generation, _) => tokens::session(slot, generation, Side::Remote),
        _ => Token(key),
    }
}

/// A session's key is its plugin socket's token.
pub(super) fn key(slot: usize, generation: u16) -> Key {
    tokens::session(slot, generation, Side::Plugin).0
}

/// The slot of a session's key.
pub(super) fn slot_of(key: Key) -> usize {
    match tokens::decode(Token(key)) {
        TokenKind::Session(slot, _, _) => slot,
        // No session has such a key, nor this slot.
        _ => usize::MAX,
    }
}
