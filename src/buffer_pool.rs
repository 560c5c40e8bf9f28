//! Memory that nobody uses just now. A long message needs some at every station of its way, for a moment: to ask the
//! system anew each time, and to have every page of it filled with zeros, costs more than all that is done with the
//! message. So a few buffers go from hand to hand, and an idle connection still holds none.

use std::cell::RefCell;

/// Less is had from the allocator as fast.
const LEAST: usize = 4 * 1024;
/// More is given back to the system: what is kept in all is to suit a small box. The longest message that is common,
/// with what a buffer that grows takes too much.
const MOST: usize = 128 * 1024;
/// So many are kept: a message is held twice on its way through a bridge, and there are two ways.
const KEPT: usize = 4;

thread_local! {
    static SPARE: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// An empty buffer for `length` bytes at least.
pub fn take(length: usize) -> Vec<u8> {
    if length >= LEAST {
        let found = SPARE.with_borrow_mut(|spare| {
            let at = spare.iter().position(|buffer| buffer.capacity() >= length);
            at.map(|at| spare.swap_remove(at))
        });
        if let Some(buffer) = found {
            return buffer;
        }
    }
    Vec::with_capacity(length)
}

/// Gives back a buffer that is not needed any more, whatever it holds.
pub fn give(mut buffer: Vec<u8>) {
    if (LEAST..=MOST).contains(&buffer.capacity()) {
        buffer.clear();
        SPARE.with_borrow_mut(|spare| {
            if spare.len() < KEPT {
                spare.push(buffer);
            } else if let Some(smallest) = spare.iter_mut().min_by_key(|buffer| buffer.capacity())
                && smallest.capacity() < buffer.capacity()
            {
                *smallest = buffer;
            }
        });
    }
}

/// Gives everything back to the system: there is nobody who could need it soon.
pub fn clear() {
    SPARE.take();
}

/// Appends `bytes` to `buffer`, whose first memory may be a spare one.
pub fn append(buffer: &mut Vec<u8>, bytes: &[u8]) {
    if buffer.capacity() == 0 {
        *buffer = take(bytes.len());
    }
    buffer.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_is_taken_again_and_empty() {
        clear();
        let mut buffer = take(LEAST);
        buffer.push(1);
        let at = buffer.as_ptr();
        give(buffer);
        let (larger, again, other) = (take(2 * LEAST), take(LEAST), take(LEAST));
        assert_eq!((again.as_ptr(), again.len()), (at, 0));
        assert!(larger.as_ptr() != at && other.as_ptr() != at, "it is too small, and then taken");
    }

    #[test]
    fn little_is_kept() {
        clear();
        let count = || SPARE.with_borrow(Vec::len);
        for length in [0, 1, LEAST - 1, MOST + 1] {
            give(Vec::with_capacity(length));
        }
        assert_eq!(count(), 0);
        (0..10).for_each(|_| give(Vec::with_capacity(LEAST)));
        assert_eq!(count(), KEPT);
        give(Vec::with_capacity(MOST));
        assert_eq!((count(), take(MOST).capacity(), count()), (KEPT, MOST, KEPT - 1), "the largest is of most use");
        clear();
        assert_eq!(count(), 0);
    }
}
