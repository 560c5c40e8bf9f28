//! The bound on bytes held for slow readers: for one direction, and in all.

/// What a direction may hold even when the memory for all is used up, so that no connection waits for another.
pub const RESERVE: usize = 2048;

/// Counts the bytes held in all.
#[derive(Debug)]
pub struct Buffers {
    held: usize,
    limit: usize,
    each: usize,
}

impl Buffers {
    /// At most `limit` bytes in all and `each` for one direction; beyond `limit`, [`RESERVE`] for each that has none.
    pub fn new(limit: usize, each: usize) -> Self {
        Self { held: 0, limit, each }
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
        self.held = (self.held + held).saturating_sub(*counted);
        *counted = held;
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
}
