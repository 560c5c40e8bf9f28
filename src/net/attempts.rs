//! The bound on attempts to connect that all connections together make beyond one each.
//!
//! The limit of connections counts one descriptor for each remote. Attempts at further addresses of a name take more, and
//! a name with many addresses that do not answer must not take those of others.

use std::cell::Cell;
use std::rc::Rc;

/// Counts attempts beyond the first of each connection.
#[derive(Debug)]
pub(crate) struct ExtraAttempts {
    limit: usize,
    used: Rc<Cell<usize>>,
}

/// An attempt that is counted while it lives.
#[derive(Debug)]
pub(crate) struct ExtraAttempt(Rc<Cell<usize>>);

impl ExtraAttempts {
    /// Up to `limit` at once.
    pub(crate) fn new(limit: usize) -> Self {
        Self { limit, used: Rc::default() }
    }

    /// Changes the limit. Attempts under way go on.
    pub(crate) fn set_limit(&mut self, limit: usize) {
        self.limit = limit;
    }

    /// True if there may be one more.
    pub(crate) fn has_room(&self) -> bool {
        self.used.get() < self.limit
    }

    /// One more, if there is room.
    pub(crate) fn take(&self) -> Option<ExtraAttempt> {
        self.has_room().then(|| {
            self.used.set(self.used.get() + 1);
            ExtraAttempt(Rc::clone(&self.used))
        })
    }
}

impl Drop for ExtraAttempt {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}
