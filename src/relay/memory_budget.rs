//! The bound on bytes held in memory: for one direction, and in all. `memory_shares` says how much of it a session may
//! have. History, which is kept for plugins that may come back, is counted apart, and has half as much.

use std::time::Instant;

use super::memory_shares::MemoryShares;
pub(crate) use super::memory_shares::{HeldKinds, ShortageActions};
use crate::client::ClientKey;

/// Bytes that a direction may hold even when the memory for all is used up, so that no connection waits for another.
pub(crate) const RESERVE: usize = 1024;

/// Memory of a session itself in bytes at most, without TLS. Measured on x86-64: 0.7 KiB with tcp, 1.5 KiB with ws, more when it
/// is kept.
const SESSION_MEMORY: usize = 2048;

/// Counts the bytes held in all.
#[derive(Debug)]
pub(crate) struct MemoryBudget {
    held: usize,
    /// Bytes that were written, and are kept in case the plugin asks for them again.
    history: usize,
    limit: usize,
    each: usize,
    shares: MemoryShares,
}

impl MemoryBudget {
    /// At most `limit` bytes in all and `each` for one direction; beyond `limit`, [`RESERVE`] for each that holds none.
    pub(crate) fn new(limit: usize, each: usize) -> Self {
        Self { held: 0, history: 0, limit, each, shares: MemoryShares::default() }
    }

    /// Changes the bounds. What is held already stays.
    pub(crate) fn set_limits(&mut self, limit: usize, each: usize) {
        (self.limit, self.each) = (limit, each);
    }

    /// The session of `slot` begins. Slots are indices: they are small, and used again.
    pub(crate) fn add_session(&mut self, slot: usize) {
        self.shares.add_session(slot);
    }

    /// The session of `slot` has ended. It holds nothing any more.
    pub(crate) fn remove_session(&mut self, slot: usize) {
        self.shares.remove_session(slot);
    }

    /// The session of `slot`, which is one of the client `from`, is one of `to` from now on.
    pub(crate) fn set_client(&mut self, slot: usize, from: ClientKey, to: ClientKey) {
        self.shares.set_client(slot, from, to);
    }

    /// What is counted and asked from now on is that of the session of `slot`, which is one of `client`.
    pub(crate) fn begin_turn(&mut self, slot: usize, client: ClientKey, now: Instant) {
        self.shares.begin_turn(slot, client, now);
    }

    /// What is counted from now on is that of no session.
    pub(crate) fn end_turn(&mut self) {
        self.shares.end_turn();
    }

    /// How many bytes a direction of a byte stream may read that holds none.
    pub(crate) fn available_for_stream(&self) -> usize {
        self.left_for_stream().min(self.each).max(RESERVE)
    }

    /// Bytes of a byte stream that the session may hold more.
    pub(crate) fn left_for_stream(&self) -> usize {
        self.shares.stream_share(self.left_in_all(), self.bound())
    }

    /// How many bytes a direction may hold in total. `own`: bytes that it holds now.
    pub(crate) fn available_with(&self, own: usize) -> usize {
        debug_assert!(own <= self.held);
        (own + self.left()).min(self.each).max(RESERVE)
    }

    /// True if the session may not hold more.
    pub(crate) fn is_full(&self) -> bool {
        self.left() == 0
    }

    /// Bytes that the session may hold more.
    pub(crate) fn left(&self) -> usize {
        let left = self.left_in_all();
        if self.held == 0 { left } else { self.shares.share(left, self.bound()) }
    }

    /// Bytes that may be held more in all.
    pub(crate) fn left_in_all(&self) -> usize {
        self.bound().saturating_sub(self.held)
    }

    /// The bound on bytes held. The memory of the sessions themselves is taken from the limit, up to half of it: for 1024
    /// sessions by default.
    fn bound(&self) -> usize {
        self.limit - (self.shares.sessions() * SESSION_MEMORY).min(self.limit / 2)
    }

    /// True if the session may not hold more, and could not if no other held anything. What it waits for would never come.
    pub(crate) fn is_exhausted(&self) -> bool {
        self.is_full() && self.shares.is_exhausted(self.bound())
    }

    /// The session cannot go on before it may hold `needed` bytes more.
    pub(crate) fn wait(&mut self, needed: usize) {
        self.shares.wait(needed);
    }

    /// The session has written `bytes` of what it holds, and may hold others in their place.
    pub(crate) fn handle_moved(&mut self, bytes: usize) {
        if bytes > 0 && self.held > 0 {
            self.shares.handle_moved(bytes);
        }
    }

    /// What the session holds at the end of its turn is of these kinds.
    pub(crate) fn set_kinds(&mut self, kinds: HeldKinds) {
        self.shares.set_kinds(kinds);
    }

    /// True if the session of `slot` waits for memory.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn is_waiting(&self, slot: usize) -> bool {
        self.shares.is_waiting(slot)
    }

    /// When to call [`MemoryBudget::poll_shortage`].
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.shares.poll_timeout()
    }

    /// The sessions that are to be ended, or to have a turn, because memory is short.
    pub(crate) fn poll_shortage(&mut self, now: Instant) -> ShortageActions {
        let (left, bound) = (self.left_in_all(), self.bound());
        self.shares.poll(now, left, bound)
    }

    /// Replaces the caller's count `counted` by `held`.
    pub(crate) fn adjust(&mut self, counted: &mut usize, held: usize) {
        debug_assert!(*counted <= self.held);
        let before = std::mem::replace(counted, held);
        if held > before {
            self.hold(held - before);
        } else if held < before {
            self.release(before - held);
        }
    }

    /// How many bytes of history a plugin's side may keep in total. `own`: bytes that it keeps now.
    pub(crate) fn history_available(&self, own: usize) -> usize {
        debug_assert!(own <= self.history);
        (self.limit / 2).saturating_sub(self.history.saturating_sub(own)).max(RESERVE)
    }

    /// Replaces the caller's count `counted` of history by `kept`.
    pub(crate) fn adjust_history(&mut self, counted: &mut usize, kept: usize) {
        debug_assert!(*counted <= self.history);
        self.history = self.history.saturating_sub(*counted) + kept;
        *counted = kept;
    }

    /// `bytes` more are held.
    pub(crate) fn hold(&mut self, bytes: usize) {
        self.held += bytes;
        self.shares.hold(bytes);
    }

    /// `bytes` less are held.
    pub(crate) fn release(&mut self, bytes: usize) {
        debug_assert!(bytes <= self.held);
        self.held = self.held.saturating_sub(bytes);
        self.shares.release(bytes);
    }

    /// Bytes of history kept in all.
    pub(crate) fn history(&self) -> usize {
        self.history
    }

    /// Bytes held in all.
    pub(crate) fn held(&self) -> usize {
        self.held
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_direction_never_waits_for_another() {
        let mut budget = MemoryBudget::new(100_000, 65_536);
        assert_eq!(budget.available_for_stream(), 65_536);
        budget.hold(65_536);
        assert_eq!(budget.available_for_stream(), 34_464);
        budget.hold(34_464);
        assert_eq!(budget.available_for_stream(), RESERVE);
        budget.release(100_000);
        assert_eq!((budget.available_for_stream(), budget.held()), (65_536, 0));
    }

    #[test]
    fn a_holder_may_hold_the_rest_of_its_share() {
        let mut budget = MemoryBudget::new(100_000, 65_536);
        budget.hold(70_000);
        assert_eq!((budget.available_with(0), budget.available_with(10_000)), (30_000, 40_000));
        assert_eq!(budget.available_with(70_000), 65_536);
        budget.hold(100_000);
        assert_eq!(budget.available_with(10_000), 10_000, "nothing more");
        assert_eq!(budget.available_with(0), RESERVE);
    }

    #[test]
    fn history_has_half_and_takes_nothing_from_what_is_held() {
        let mut budget = MemoryBudget::new(100_000, 65_536);
        let (mut one, mut other) = (0, 0);
        budget.adjust_history(&mut one, 30_000);
        assert_eq!((budget.history_available(0), budget.history_available(30_000)), (20_000, 50_000));
        budget.adjust_history(&mut other, 40_000);
        assert_eq!((budget.history_available(0), budget.history_available(30_000)), (RESERVE, 10_000));
        assert_eq!((budget.available_for_stream(), budget.history()), (65_536, 70_000));
        budget.adjust_history(&mut one, 0);
        budget.adjust_history(&mut other, 0);
        assert_eq!((budget.history(), one, other), (0, 0, 0));
    }
}
