//! A thread-local free list of buffers. Depends on nothing.
//!
//! A long message needs a buffer in the framing, in the WebSocket codec and in the relay, each for a short time. To
//! allocate it each time, with pages that the kernel fills with zeros, costs more than the rest of the work on the
//! message. An idle connection holds no buffer.

use std::cell::RefCell;

/// Smallest pooled capacity in bytes. The allocator is as fast for smaller buffers.
const MIN_CAPACITY: usize = 4 * 1024;
/// Largest pooled capacity in bytes: a message of the default MAXM (64 KiB) in a buffer that has doubled beyond it. The pool
/// must suit a router with little memory.
const MAX_CAPACITY: usize = 128 * 1024;
/// Pooled buffers: a relay holds a message twice, in each of two directions.
const MAX_POOLED: usize = 4;

thread_local! {
    static POOL: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// Returns an empty buffer with a capacity of at least `capacity` bytes.
pub(crate) fn take(capacity: usize) -> Vec<u8> {
    if capacity >= MIN_CAPACITY {
        let found = POOL.with_borrow_mut(|pool| {
            let at = pool.iter().position(|buffer| buffer.capacity() >= capacity);
            at.map(|at| pool.swap_remove(at))
        });
        if let Some(buffer) = found {
            return buffer;
        }
    }
    Vec::with_capacity(capacity)
}

/// Returns a buffer to the pool, whatever it contains. If the pool is full, the buffer replaces a smaller one or is freed.
pub(crate) fn give(mut buffer: Vec<u8>) {
    if (MIN_CAPACITY..=MAX_CAPACITY).contains(&buffer.capacity()) {
        buffer.clear();
        POOL.with_borrow_mut(|pool| {
            if pool.len() < MAX_POOLED {
                pool.push(buffer);
            } else if let Some(smallest) = pool.iter_mut().min_by_key(|buffer| buffer.capacity())
                && smallest.capacity() < buffer.capacity()
            {
                *smallest = buffer;
            }
        });
    }
}

/// Bytes of memory of a buffer that is in use. An empty one counts as none: its owner keeps a small one at most.
pub(crate) fn held(buffer: &Vec<u8>) -> usize {
    if buffer.is_empty() { 0 } else { buffer.capacity() }
}

/// Drops the first `taken` bytes. What is left moves to a buffer of its own length if it fills a quarter of the memory or
/// less, so that a few bytes for a slow reader do not keep the buffer of a long message. True if the bytes were dropped;
/// otherwise the buffer is as before.
pub(crate) fn shrink(buffer: &mut Vec<u8>, taken: usize) -> bool {
    let shrinks = buffer.capacity() >= MIN_CAPACITY && buffer.len() - taken <= buffer.capacity() / 4;
    if shrinks {
        let rest = buffer[taken..].to_vec();
        give(std::mem::replace(buffer, rest));
    }
    shrinks
}

/// Frees the pooled buffers of this thread.
pub(crate) fn clear() {
    POOL.take();
}

/// Makes room for `additional` more bytes. A buffer without capacity is replaced by one from the pool.
pub(crate) fn reserve(buffer: &mut Vec<u8>, additional: usize) {
    if buffer.capacity() == 0 {
        *buffer = take(additional);
    }
    buffer.reserve(additional);
}

/// Appends `bytes` to `buffer`, after [`reserve`] if `memory` bytes of spare memory are enough for that. Otherwise the buffer
/// grows by `bytes` alone: it is not replaced by one from the pool, and does not double.
pub(crate) fn append_within(buffer: &mut Vec<u8>, bytes: &[u8], memory: usize) {
    reserve_within(buffer, bytes.len(), memory);
    buffer.extend_from_slice(bytes);
}

/// Makes room for `additional` bytes in `buffer` as [`append_within`] does.
pub(crate) fn reserve_within(buffer: &mut Vec<u8>, additional: usize, memory: usize) {
    if memory >= MAX_CAPACITY.max(2 * (buffer.len() + additional)) {
        reserve(buffer, additional);
    } else {
        buffer.reserve_exact(additional);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_used_again_and_empty() {
        clear();
        let mut buffer = take(MIN_CAPACITY);
        buffer.push(1);
        let at = buffer.as_ptr();
        give(buffer);
        let (larger, again, other) = (take(2 * MIN_CAPACITY), take(MIN_CAPACITY), take(MIN_CAPACITY));
        assert_eq!((again.as_ptr(), again.len()), (at, 0));
        assert!(larger.as_ptr() != at && other.as_ptr() != at, "a buffer that is too small, or in use, was returned");
    }

    #[test]
    fn a_few_bytes_keep_no_large_buffer() {
        clear();
        let mut buffer = Vec::with_capacity(MIN_CAPACITY);
        buffer.extend_from_slice(&[7; MIN_CAPACITY / 2]);
        assert!(!shrink(&mut buffer, MIN_CAPACITY / 4 - 1), "more than a quarter is in use");
        assert_eq!((buffer.len(), held(&buffer)), (MIN_CAPACITY / 2, MIN_CAPACITY));
        assert!(shrink(&mut buffer, MIN_CAPACITY / 2 - 3));
        assert_eq!((&buffer[..], held(&buffer)), (&[7; 3][..], 3));
        assert!(!shrink(&mut buffer, 2), "small buffers stay");
        buffer.clear();
        assert_eq!((held(&buffer), take(MIN_CAPACITY).capacity()), (0, MIN_CAPACITY), "the large one is pooled");
    }

    #[test]
    fn a_buffer_that_grows_takes_no_spare_memory_if_there_is_none() {
        clear();
        give(Vec::with_capacity(MAX_CAPACITY));
        let mut buffer = Vec::new();
        append_within(&mut buffer, &[7; 100], 1000);
        append_within(&mut buffer, &[7; 5000], 10_000);
        assert_eq!((buffer.len(), held(&buffer)), (5100, 5100));
        append_within(&mut buffer, &[7], usize::MAX);
        assert!(held(&buffer) >= 2 * 5100, "it doubles");
    }

    #[test]
    fn few_buffers_are_pooled() {
        clear();
        let count = || POOL.with_borrow(Vec::len);
        for length in [0, 1, MIN_CAPACITY - 1, MAX_CAPACITY + 1] {
            give(Vec::with_capacity(length));
        }
        assert_eq!(count(), 0);
        (0..10).for_each(|_| give(Vec::with_capacity(MIN_CAPACITY)));
        assert_eq!(count(), MAX_POOLED);
        give(Vec::with_capacity(MAX_CAPACITY));
        assert_eq!(
            (count(), take(MAX_CAPACITY).capacity(), count()),
            (MAX_POOLED, MAX_CAPACITY, MAX_POOLED - 1),
            "a larger buffer replaces a smaller one"
        );
        clear();
        assert_eq!(count(), 0);
    }
}
