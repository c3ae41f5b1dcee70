//! The version of a sequence lock, by which readers copy from a partition without its lock.
//!
//! Writers exclude each other by the partition's lock. A writer makes the version odd, changes the words and makes the
//! version even again. A reader loads the version, reads the words and loads the version again: what it has read is one
//! state of the words if the version was even and is unchanged. Until then it may be a mixture of several states, and
//! nothing may be written because of it. A version that is odd while nobody holds the lock belongs to a writer that
//! died half way: the words are torn and must be formatted.
//!
//! The fences are those of Boehm, "Can seqlocks get along with programming language memory models?" (2012). The words
//! themselves are `Relaxed` atomics, so a race gives a wrong value, never undefined behaviour.
//!
//! `engine/tests/seqlock.rs` explores all interleavings, and all values that a load may return, with `loom`, whose
//! atomics take the place of the processor's there: the code that is explored is the code that runs.

use std::sync::atomic::{
    AtomicU64,
    Ordering::{self, Acquire, Relaxed, Release},
};

/// The operations on the version, implemented by the processor's atomics and by a model checker's.
pub trait Version {
    /// Loads the version.
    fn load(&self, ordering: Ordering) -> u64;
    /// Stores the version.
    fn store(&self, value: u64, ordering: Ordering);
    /// Orders the loads and stores before it against those after it.
    fn fence(ordering: Ordering);
}

impl Version for AtomicU64 {
    #[inline(always)]
    fn load(&self, ordering: Ordering) -> u64 {
        AtomicU64::load(self, ordering)
    }

    #[inline(always)]
    fn store(&self, value: u64, ordering: Ordering) {
        AtomicU64::store(self, value, ordering);
    }

    #[inline(always)]
    fn fence(ordering: Ordering) {
        std::sync::atomic::fence(ordering);
    }
}

/// A sequence lock's version: even while the words are whole, odd while a writer changes them. It wraps around after
/// 2^63 sections; a reader that sleeps through all of them is not detected.
#[derive(Debug, Default)]
#[repr(transparent)]
pub struct SeqLock<V = AtomicU64>(V);

impl<V: Version> SeqLock<V> {
    /// Takes a version that stands at an even number.
    pub fn new(version: V) -> Self {
        Self(version)
    }

    /// Announces a change of the words. The caller holds the exclusive lock. Returns whether the last writer never came
    /// to [`end_write`](Self::end_write): then the words are torn, and the caller formats them first.
    #[inline(always)]
    #[must_use = "torn words must be formatted before they are used"]
    pub fn begin_write(&self) -> bool {
        let version = self.0.load(Relaxed);
        self.0.store(version | 1, Relaxed);
        // A reader that sees one of the following stores to the words also sees this version, or a later one.
        V::fence(Release);
        version & 1 != 0
    }

    /// Announces that the words are whole again, in a new state. The caller still holds the lock.
    #[inline(always)]
    pub fn end_write(&self) {
        self.0.store((self.0.load(Relaxed) | 1).wrapping_add(1), Release);
    }

    /// Whether the words are torn. Only the answer under the lock means that: without it, a writer may be at work.
    #[inline(always)]
    pub fn is_torn(&self) -> bool {
        self.begin_read().is_none()
    }

    /// The state that the words are in; `None` while a writer changes them, or when they are torn.
    #[inline(always)]
    pub fn begin_read(&self) -> Option<u64> {
        let version = self.0.load(Acquire);
        (version & 1 == 0).then_some(version)
    }

    /// Whether the words have been in `state` since [`begin_read`](Self::begin_read) returned it: then all that was read
    /// in between belongs together.
    #[inline(always)]
    pub fn validate_read(&self, state: u64) -> bool {
        V::fence(Acquire);
        self.0.load(Relaxed) == state
    }

    /// Runs `read` on the words without the lock. `None` where they changed meanwhile, are torn, or `read` returns
    /// `None` for what it can't make sense of. `read` writes nothing and copes with any words.
    #[inline(always)]
    pub fn read_optimistic<R>(&self, read: impl FnOnce() -> Option<R>) -> Option<R> {
        let state = self.begin_read()?;
        let result = read()?;
        self.validate_read(state).then_some(result)
    }
}
