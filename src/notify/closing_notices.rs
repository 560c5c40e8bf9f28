//! The closing notices that wait for Luup, each of a connection that has gone: what reads the same is said once, and
//! there are not too many.

use std::collections::HashMap;

use super::subscription::{LineId, Subscription};

/// The lines of connections that have gone, by what they say.
#[derive(Debug, Default)]
pub struct Closing {
    waiting: HashMap<Subscription, Waiting>,
    /// Counts connections that have gone, to know the oldest.
    serial: u64,
}

#[derive(Clone, Copy, Debug)]
struct Waiting {
    line: LineId,
    serial: u64,
}

impl Closing {
    /// The connection of `line` has ended. The line that said the same before, for which this one stands now.
    pub fn insert(&mut self, what: Subscription, line: LineId) -> Option<LineId> {
        self.serial += 1;
        let older = self.waiting.insert(what, Waiting { line, serial: self.serial });
        older.map(|older| older.line)
    }

    /// The notice of `line` has failed. True where it has still to be said; false where another line, whose connection
    /// has ended since, says the same.
    pub fn keep(&mut self, what: &Subscription, line: LineId) -> bool {
        match self.waiting.get(what) {
            Some(waiting) => waiting.line == line,
            // The other one has been given up meanwhile. This one is older than all that wait.
            None => {
                self.waiting.insert(what.clone(), Waiting { line, serial: 0 });
                true
            }
        }
    }

    /// The line that waits to say this.
    pub fn find(&self, what: &Subscription) -> Option<LineId> {
        self.waiting.get(what).map(|waiting| waiting.line)
    }

    /// The line has gone.
    pub fn remove(&mut self, what: &Subscription, line: LineId) {
        if self.waiting.get(what).is_some_and(|waiting| waiting.line == line) {
            self.waiting.remove(what);
        }
    }

    /// Where more than `limit` wait: the oldest of those that may go.
    pub fn surplus(&self, limit: usize, may_go: impl Fn(LineId) -> bool) -> Option<LineId> {
        if self.waiting.len() <= limit {
            return None;
        }
        let going = self.waiting.values().filter(|waiting| may_go(waiting.line));
        going.min_by_key(|waiting| waiting.serial).map(|waiting| waiting.line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn saying(query: &str) -> Subscription {
        Subscription { device: "5".into(), query: query.into(), events: false, pace: None, secret: false }
    }

    #[test]
    fn the_newest_stands_for_those_that_say_the_same() {
        let mut closing = Closing::default();
        assert_eq!(closing.insert(saying("a"), LineId(1)), None);
        assert_eq!(closing.insert(saying("a"), LineId(2)), Some(LineId(1)));
        assert!(!closing.keep(&saying("a"), LineId(1)));
        closing.remove(&saying("a"), LineId(1));
        assert!(closing.keep(&saying("a"), LineId(2)), "only its own line takes it out");
    }

    #[test]
    fn one_whose_successor_has_gone_is_the_oldest() {
        let mut closing = Closing::default();
        closing.insert(saying("a"), LineId(1));
        closing.insert(saying("b"), LineId(2));
        closing.insert(saying("a"), LineId(3));
        closing.remove(&saying("a"), LineId(3));
        assert!(closing.keep(&saying("a"), LineId(1)));
        assert_eq!(closing.surplus(2, |_| true), None);
        assert_eq!(closing.surplus(1, |_| true), Some(LineId(1)));
        assert_eq!(closing.surplus(1, |line| line != LineId(1)), Some(LineId(2)));
        assert_eq!(closing.surplus(0, |_| false), None);
    }
}
