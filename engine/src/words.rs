//! The memory that every structure of this crate lives in: a slice of 64-bit words, each an atomic.
//!
//! Why atomics, when a lock guards every partition: the memory is shared by processes, not threads, and a process may
//! die anywhere. With plain memory a broken lock protocol would be undefined behaviour; with relaxed atomics it is at
//! worst a wrong value, which the bounds checks catch. On the machines that PostgreSQL runs on, a relaxed load or
//! store of a word compiles to the same instruction as a plain one.
//!
//! Ordering between processes comes from the lock, so everything here is `Relaxed`.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// One partition of the segment, or a part of one.
pub type Words<'a> = &'a [AtomicU64];

/// A word pointed outside of its structure: the partition's content can't be trusted and must be formatted again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Corrupt;

/// The word at `index`.
#[inline]
pub fn load(words: Words<'_>, index: usize) -> Result<u64, Corrupt> {
    words.get(index).map(|word| word.load(Relaxed)).ok_or(Corrupt)
}

/// Sets the word at `index`.
#[inline]
pub fn store(words: Words<'_>, index: usize, value: u64) -> Result<(), Corrupt> {
    words.get(index).map(|word| word.store(value, Relaxed)).ok_or(Corrupt)
}

/// The `len` words from `start` on.
#[inline]
pub fn part(words: Words<'_>, start: usize, len: usize) -> Result<Words<'_>, Corrupt> {
    words.get(start..start.checked_add(len).ok_or(Corrupt)?).ok_or(Corrupt)
}

/// Sets every word to zero.
pub fn zero(words: Words<'_>) {
    for word in words {
        word.store(0, Relaxed);
    }
}

/// Fresh zeroed memory for tests and tools that run outside of a server.
pub fn allocate(len: usize) -> Vec<AtomicU64> {
    std::iter::repeat_with(|| AtomicU64::new(0)).take(len).collect()
}
