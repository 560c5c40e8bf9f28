//! The bound on bytes held for slow readers: for one direction, and in all. History, which is kept for plugins that may
//! come back, is counted apart, and has half as much.

/// Bytes that a direction may hold even when the memory for all is used up, so that no connection waits for another.
pub(crate) const RESERVE: usize = 2048;

/// Counts the bytes held in all.
#[derive(Debug)]
pub(crate) struct MemoryBudget {
    held: usize,
    /// Bytes that were written, and are kept in case the plugin asks for them again.
    history: usize,
    limit: usize,
    each: usize,
}

impl MemoryBudget {
    /// At most `limit` bytes in all and `each` for one direction; beyond `limit`, [`RESERVE`] for each that holds none.
    pub(crate) fn new(limit: usize, each: usize) -> Self {
        Self { held: 0, history: 0, limit, each }
    }

    /// Changes the bounds. What is held already stays.
    pub(crate) fn set_limits(&mut self, limit: usize, each: usize) {
        (self.limit, self.each) = (limit, each);
    }

    /// How many bytes a direction may read that holds none.
    pub(crate) fn available(&self) -> usize {
        self.available_with(0)
    }

    /// How many bytes a direction may hold in total. `own`: bytes that it holds now.
    pub(crate) fn available_with(&self, own: usize) -> usize {
        debug_assert!(own <= self.held);
        self.limit.saturating_sub(self.held.saturating_sub(own)).min(self.each).max(RESERVE)
    }

    /// True if all the memory for slow readers is in use.
    pub(crate) fn is_full(&self) -> bool {
        self.held >= self.limit
    }

    /// Bytes that may still be held in all.
    pub(crate) fn left(&self) -> usize {
        self.limit.saturating_sub(self.held)
    }

    /// Replaces the caller's count `counted` by `held`.
    pub(crate) fn adjust(&mut self, counted: &mut usize, held: usize) {
        debug_assert!(*counted <= self.held);
        self.held = self.held.saturating_sub(*counted) + held;
        *counted = held;
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
    }

    /// `bytes` less are held.
    pub(crate) fn release(&mut self, bytes: usize) {
        debug_assert!(bytes <= self.held);
        self.held = self.held.saturating_sub(bytes);
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
        assert_eq!(budget.available(), 65_536);
        budget.hold(65_536);
        assert_eq!(budget.available(), 34_464);
        budget.hold(34_464);
        assert_eq!(budget.available(), RESERVE);
        budget.release(100_000);
        assert_eq!((budget.available(), budget.held()), (65_536, 0));
    }

    #[test]
    fn a_holder_may_hold_the_rest_of_its_share() {
        let mut budget = MemoryBudget::new(100_000, 65_536);
        budget.hold(70_000);
        assert_eq!((budget.available_with(0), budget.available_with(10_000)), (30_000, 40_000));
        assert_eq!(budget.available_with(70_000), 65_536);
        budget.hold(100_000);
        assert_eq!(budget.available_with(10_000), RESERVE);
    }

    #[test]
    fn history_has_half_and_takes_nothing_from_what_is_held() {
        let mut budget = MemoryBudget::new(100_000, 65_536);
        let (mut one, mut other) = (0, 0);
        budget.adjust_history(&mut one, 30_000);
        assert_eq!((budget.history_available(0), budget.history_available(30_000)), (20_000, 50_000));
        budget.adjust_history(&mut other, 40_000);
        assert_eq!((budget.history_available(0), budget.history_available(30_000)), (RESERVE, 10_000));
        assert_eq!((budget.available(), budget.history()), (65_536, 70_000));
        budget.adjust_history(&mut one, 0);
        budget.adjust_history(&mut other, 0);
        assert_eq!((budget.history(), one, other), (0, 0, 0));
    }
}
