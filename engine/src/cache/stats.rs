//! Counters.
//!
//! Hits, misses and the like are counted under the shared lock, by many at once: each caller names a stripe, a cache line of its
//! own, so that they don't wait for one another.

use super::layout::{
    BLOCK_BYTES, BLOCK_WORDS, DELETES, ENTRIES, EVICTIONS, EXPIRATIONS, FREE_BLOCKS, Partition, SETS, STRIPE_COUNT,
    STRIPES, VALUE_BYTES,
};
use crate::fingerprint;
use crate::words::{Corrupt, Words};
use std::ops::AddAssign;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

const HITS: usize = 0;
const MISSES: usize = 1;
const REFUSED: usize = 2;
const WAITS: usize = 3;
const UNCACHED: usize = 4;

/// What a partition holds and has done since it was formatted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Entries, including those that are over but not yet removed.
    pub entries: u64,
    /// Bytes taken by entries and reservations, heads included.
    pub bytes_used: u64,
    /// Bytes that could be taken.
    pub bytes_max: u64,
    /// Bytes of the entries' values alone.
    pub value_bytes: u64,
    /// Lookups that found a live entry.
    pub hits: u64,
    /// Lookups that didn't.
    pub misses: u64,
    /// Values published.
    pub sets: u64,
    /// Live entries removed by their key.
    pub deletes: u64,
    /// Live entries that gave way to others.
    pub evictions: u64,
    /// Entries removed because they had expired or been cleared.
    pub expirations: u64,
    /// Values that weren't published because they had been computed before a removal.
    pub stale_fills_refused: u64,
    /// Callers that waited for the value that another computed.
    pub fetch_waits: u64,
    /// Values that were computed but can't be stored.
    pub fetch_uncached: u64,
}

/// Where a counter is.
fn counter_at(stripe: usize, counter: usize) -> usize {
    STRIPES + stripe % STRIPE_COUNT * BLOCK_WORDS + counter
}

impl AddAssign for Stats {
    fn add_assign(&mut self, other: Self) {
        for (sum, more) in [
            (&mut self.entries, other.entries),
            (&mut self.bytes_used, other.bytes_used),
            (&mut self.bytes_max, other.bytes_max),
            (&mut self.value_bytes, other.value_bytes),
            (&mut self.hits, other.hits),
            (&mut self.misses, other.misses),
            (&mut self.sets, other.sets),
            (&mut self.deletes, other.deletes),
            (&mut self.evictions, other.evictions),
            (&mut self.expirations, other.expirations),
            (&mut self.stale_fills_refused, other.stale_fills_refused),
            (&mut self.fetch_waits, other.fetch_waits),
            (&mut self.fetch_uncached, other.fetch_uncached),
        ] {
            *sum = sum.wrapping_add(more);
        }
    }
}

impl Partition<'_> {
    fn count(&self, stripe: usize, counter: usize) {
        if let Some(word) = self.words.get(counter_at(stripe, counter)) {
            word.fetch_add(1, Relaxed);
        }
    }

    /// The caller's counter of hits, for callers that count without the lock. Whatever is added to it, the partition stays
    /// sound.
    pub fn hits(words: Words<'_>, stripe: usize) -> Option<&AtomicU64> {
        words.get(counter_at(stripe, HITS))
    }

    /// Counts a hit in the caller's stripe (any number, such as its process id).
    #[inline]
    pub fn count_hit(&self, stripe: usize) {
        self.count(stripe, HITS);
    }

    /// Counts a miss.
    #[inline]
    pub fn count_miss(&self, stripe: usize) {
        self.count(stripe, MISSES);
    }

    /// Counts a value that [`Self::refuses`] kept out.
    pub fn count_refused(&self, stripe: usize) {
        self.count(stripe, REFUSED);
    }

    /// Counts a caller that waits for the value that another computes.
    pub fn count_wait(&self, stripe: usize) {
        self.count(stripe, WAITS);
    }

    /// Counts a value that was computed but can't be stored.
    pub fn count_uncached(&self, stripe: usize) {
        self.count(stripe, UNCACHED);
    }

    fn sum(&self, counter: usize) -> Result<u64, Corrupt> {
        (0..STRIPE_COUNT)
            .try_fold(0_u64, |sum, stripe| Ok(sum.wrapping_add(self.get(STRIPES + stripe * BLOCK_WORDS + counter)?)))
    }

    /// The counters; shared lock.
    pub fn stats(&self) -> Result<Stats, Corrupt> {
        let free = self.get(FREE_BLOCKS)?.checked_mul(BLOCK_BYTES).ok_or(Corrupt)?;
        Ok(Stats {
            entries: self.get(ENTRIES)?,
            bytes_used: self.capacity().checked_sub(free).ok_or(Corrupt)?,
            bytes_max: self.capacity(),
            value_bytes: self.get(VALUE_BYTES)?,
            hits: self.sum(HITS)?,
            misses: self.sum(MISSES)?,
            sets: self.get(SETS)?,
            deletes: self.get(DELETES)?,
            evictions: self.get(EVICTIONS)?,
            expirations: self.get(EXPIRATIONS)?,
            stale_fills_refused: self.sum(REFUSED)?,
            fetch_waits: self.sum(WAITS)?,
            fetch_uncached: self.sum(UNCACHED)?,
        })
    }
}

/// What of this file the layout version depends on.
pub(super) const LAYOUT: u64 = fingerprint![HITS, MISSES, REFUSED, WAITS, UNCACHED];
