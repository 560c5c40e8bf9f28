//! Deadlines of sessions: a heap in which a deadline that has moved is noticed only when its turn comes.
//!
//! Most deadlines move with every byte and are never reached, so moving one must cost nothing.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Instant;

/// Entries that may be out of date before the heap is pruned.
const MAX_STALE: usize = 256;

/// A timer: when it is due, and its key.
type Entry<K> = Reverse<(Instant, K)>;

/// Timers of `K`.
#[derive(Debug)]
pub(super) struct Timers<K: Ord> {
    heap: BinaryHeap<Entry<K>>,
}

impl<K: Ord + Copy> Timers<K> {
    /// No timers.
    pub(super) fn new() -> Self {
        Self { heap: BinaryHeap::new() }
    }

    /// Arms a timer so that `key` comes up at `due`. The caller keeps `armed`: what the key's timer is armed for.
    pub(super) fn arm(&mut self, key: K, due: Option<Instant>, armed: &mut Option<Instant>) {
        if let Some(due) = due
            && armed.is_none_or(|armed| due < armed)
        {
            *armed = Some(due);
            self.heap.push(Reverse((due, key)));
        }
    }

    /// The next key whose timer is due at `now`. The caller checks whether it is really due, and arms it anew.
    pub(super) fn pop(&mut self, now: Instant) -> Option<(Instant, K)> {
        let &Reverse((due, _)) = self.heap.peek()?;
        if due > now {
            return None;
        }
        self.heap.pop().map(|Reverse(entry)| entry)
    }

    /// Removes entries that are out of date, if they are most of the heap. `live`: how many keys there are. `is_armed`: true
    /// if a key is armed for that instant.
    pub(super) fn prune(&mut self, live: usize, is_armed: impl Fn(K, Instant) -> bool) {
        if self.heap.len() > 4 * live + MAX_STALE {
            self.heap.retain(|&Reverse((due, key))| is_armed(key, due));
            self.heap.shrink_to_fit();
        }
    }

    /// The next timer: when it is due, and its key.
    pub(super) fn next(&self) -> Option<(Instant, K)> {
        self.heap.peek().map(|&Reverse(entry)| entry)
    }

    /// Removes [`Timers::next`].
    pub(super) fn remove_next(&mut self) {
        self.heap.pop();
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
        assert_eq!((timers.heap.len(), timers.next(), armed), (2, Some((at(3), 1)), Some(at(3))));
        assert_eq!(timers.pop(at(2)), None);
        assert_eq!(timers.pop(at(4)), Some((at(3), 1)));
        assert_eq!(timers.pop(at(4)), None);
        assert_eq!(timers.pop(at(9)), Some((at(5), 1)), "out of date; the caller checks");
    }

    #[test]
    fn what_is_out_of_date_does_not_pile_up() {
        let due = Instant::now() + Duration::from_secs(30);
        let mut timers = Timers::new();
        for key in 0..100_000 {
            timers.arm(key, Some(due), &mut None);
            timers.prune(10, |key, _| key % 10_000 == 0);
        }
        assert!(timers.heap.len() <= 4 * 10 + MAX_STALE + 1, "{}", timers.heap.len());
    }
}
