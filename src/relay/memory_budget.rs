//! The bound on bytes held for slow readers: for one direction, and in all. What is kept for plugins that may come back
//! is counted apart, and has half as much.

/// What a direction may hold even when the memory for all is used up, so that no connection waits for another.
pub const RESERVE: usize = 2048;

/// Counts the bytes held in all.
#[derive(Debug)]
pub struct Buffers {
    held: usize,
    /// Bytes that were handed over, and are kept in case they are asked for again.
    history: usize,
    limit: usize,
    each: usize,
}

impl Buffers {
    /// At most `limit` bytes in all and `each` for one direction; beyond `limit`, [`RESERVE`] for each that has none.
    pub fn new(limit: usize, each: usize) -> Self {
        Self { held: 0, history: 0, limit, each }
    }

    /// Changes the bounds. What is held already stays.
    pub fn set_limits(&mut self, limit: usize, each: usize) {
        (self.limit, self.each) = (limit, each);
    }

    /// How many bytes a direction that holds none may read.
    pub fn room(&self) -> usize {
        self.limit.saturating_sub(self.held).min(self.each).max(RESERVE)
    }

    /// True where all the memory for slow readers is in use.
    pub fn is_full(&self) -> bool {
        self.held >= self.limit
    }

    /// How many bytes may still be held in all.
    pub fn left(&self) -> usize {
        self.limit.saturating_sub(self.held)
    }

    /// What was counted as `counted` is `held` now.
    pub fn recount(&mut self, counted: &mut usize, held: usize) {
        debug_assert!(*counted <= self.held);
        self.held = self.held.saturating_sub(*counted) + held;
        *counted = held;
    }

    /// How many bytes a direction may hold in all that holds `own` now.
    pub fn room_beside(&self, own: usize) -> usize {
        debug_assert!(own <= self.held);
        self.limit.saturating_sub(self.held.saturating_sub(own)).min(self.each).max(RESERVE)
    }

    /// How many bytes of history may be kept by one that keeps `own` now.
    pub fn history_room(&self, own: usize) -> usize {
        debug_assert!(own <= self.history);
        (self.limit / 2).saturating_sub(self.history.saturating_sub(own)).max(RESERVE)
    }

    /// The history that was counted as `counted` has `kept` bytes now.
    pub fn recount_history(&mut self, counted: &mut usize, kept: usize) {
        debug_assert!(*counted <= self.history);
        self.history = self.history.saturating_sub(*counted) + kept;
        *counted = kept;
    }

    /// `bytes` are held from now on.
    pub fn hold(&mut self, bytes: usize) {
        self.held += bytes;
    }

    /// `bytes` are held no longer.
    pub fn release(&mut self, bytes: usize) {
        debug_assert!(bytes <= self.held);
        self.held = self.held.saturating_sub(bytes);
    }

    /// Bytes of history kept in all.
    pub fn history(&self) -> usize {
        self.history
    }

    /// Bytes held in all.
    pub fn held(&self) -> usize {
        self.held
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_waits_for_another() {
        let mut buffers = Buffers::new(100_000, 65_536);
        assert_eq!(buffers.room(), 65_536);
        buffers.hold(65_536);
        assert_eq!(buffers.room(), 34_464);
        buffers.hold(34_464);
        assert_eq!(buffers.room(), RESERVE);
        buffers.release(100_000);
        assert_eq!((buffers.room(), buffers.held()), (65_536, 0));
    }

    #[test]
    fn who_holds_something_may_hold_the_rest_of_its_share() {
        let mut buffers = Buffers::new(100_000, 65_536);
        buffers.hold(70_000);
        assert_eq!((buffers.room_beside(0), buffers.room_beside(10_000)), (30_000, 40_000));
        assert_eq!(buffers.room_beside(70_000), 65_536);
        buffers.hold(100_000);
        assert_eq!(buffers.room_beside(10_000), RESERVE);
    }

    #[test]
    fn history_has_half_and_takes_nothing_from_what_is_held() {
        let mut buffers = Buffers::new(100_000, 65_536);
        let (mut one, mut other) = (0, 0);
        buffers.recount_history(&mut one, 30_000);
        assert_eq!((buffers.history_room(0), buffers.history_room(30_000)), (20_000, 50_000));
        buffers.recount_history(&mut other, 40_000);
        assert_eq!((buffers.history_room(0), buffers.history_room(30_000)), (RESERVE, 10_000));
        assert_eq!((buffers.room(), buffers.history()), (65_536, 70_000));
        buffers.recount_history(&mut one, 0);
        buffers.recount_history(&mut other, 0);
        assert_eq!((buffers.history(), one, other), (0, 0, 0));
    }
}
