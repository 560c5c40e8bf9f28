//! Deadlines of sessions: a heap in which a deadline that has moved is noticed only when its turn comes.
//!
//! Most deadlines move with every byte and are never reached, so moving one must cost nothing.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Instant;

/// A timer: when, and for whom.
type Entry<K> = Reverse<(Instant, K)>;

/// Timers of `K`.
#[derive(Debug)]
pub struct Timers<K: Ord> {
    heap: BinaryHeap<Entry<K>>,
}

impl<K: Ord + Copy> Timers<K> {
    /// No timers.
    pub fn new() -> Self {
        Self { heap: BinaryHeap::new() }
    }

    /// Sees to it that `key` comes up at `due`. `armed` is what it is armed for, and is kept by the caller.
    pub fn arm(&mut self, key: K, due: Option<Instant>, armed: &mut Option<Instant>) {
        if let Some(due) = due
            && armed.is_none_or(|armed| due < armed)
        {
            *armed = Some(due);
            self.heap.push(Reverse((due, key)));
        }
    }

    /// The next that comes up at `now`. The caller looks whether it is really due, and arms it anew.
    pub fn pop(&mut self, now: Instant) -> Option<(Instant, K)> {
        let &Reverse((due, _)) = self.heap.peek()?;
        if due > now {
            return None;
        }
        self.heap.pop().map(|Reverse(entry)| entry)
    }

    /// When the next comes up.
    pub fn next(&self) -> Option<Instant> {
        self.heap.peek().map(|&Reverse((due, _))| due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn moving_a_deadline_away_costs_nothing() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut timers = Timers::new();
        let mut armed = None;
        timers.arm(1, Some(at(5)), &mut armed);
        for seconds in 6..100 {
            timers.arm(1, Some(at(seconds)), &mut armed);
        }
        assert_eq!(timers.heap.len(), 1);
        timers.arm(1, Some(at(3)), &mut armed);
        assert_eq!((timers.heap.len(), timers.next(), armed), (2, Some(at(3)), Some(at(3))));
        assert_eq!(timers.pop(at(2)), None);
        assert_eq!(timers.pop(at(4)), Some((at(3), 1)));
        assert_eq!(timers.pop(at(4)), None);
        assert_eq!(timers.pop(at(9)), Some((at(5), 1)), "out of date; the caller knows");
    }
}
