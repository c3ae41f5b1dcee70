//! Reading without the lock.
//!
//! Between two looks at the version of its memory, which tell it whether anybody has written in between, a reader may do
//! without the lock. Until the second look nothing that it has read can be relied on: the words may be those of several
//! states, and a chain may lead from one into another. So every step is bounded and checked, nothing is written, and
//! whatever isn't the plain case is left to [`Partition::find`]: a value in several runs, with tags or kept beyond its end, one that a
//! clearing may have ended, a key that isn't there, and an entry that is to be marked as used.

use super::arena::{RUN, Run, RunKind};
use super::entry::name_words;
use super::entry::{
    CHAIN, EXPIRY, KEPT, KEY_HIGH, KEY_LOW, KIND_BYTES, Kind, META, NEVER, STAMP, TAGS_MASK, TAGS_SHIFT, USE_MAX,
    USE_SHIFT, read_bytes,
};
use super::layout::{BLOCK_WORDS, LAST_CLEARED, Partition, at, high, low};
use crate::hash::KeyHash;
use crate::words::Words;
use std::sync::atomic::Ordering::Relaxed;

/// Entries of a chain that are looked at. Few chains are longer.
const LOOKED_AT: usize = 8;

/// A value that was found without the lock.
#[derive(Debug, Clone, Copy)]
pub struct OptimisticRead<'a> {
    words: Words<'a>,
    /// Its length in bytes.
    pub len: usize,
    /// What its bytes mean.
    pub kind: Kind,
}

impl<'a> Partition<'a> {
    /// The word where the search for `key` begins, without a look at the words.
    #[inline(always)]
    pub fn bucket_place(words: Words<'a>, key: KeyHash) -> Option<usize> {
        let partition = Self::geometry(words).ok()?;
        Some(Self::buckets_at() + partition.bucket_of(key) / 2)
    }

    /// The word where the entry under `key` seems to begin: to be fetched before the lock is taken.
    #[inline(always)]
    pub fn entry_place(words: Words<'a>, key: KeyHash) -> Option<usize> {
        let partition = Self::geometry(words).ok()?;
        partition.bucket(partition.bucket_of(key)).ok().map(|block| at(block, 0))
    }

    /// The value under `key`, in the plain case.
    #[inline(always)]
    pub fn read_optimistic(&self, key: KeyHash, now: impl FnOnce() -> u64) -> Option<OptimisticRead<'a>> {
        let mut block = self.bucket(self.bucket_of(key)).ok()?;
        for _ in 0..LOOKED_AT {
            let head = self.head(block).ok()?;
            let word = |index: usize| head[index].load(Relaxed);
            let chain = word(CHAIN);
            if word(KEY_HIGH) != key.high || word(KEY_LOW) != key.low {
                block = low(chain);
                continue;
            }
            let (meta, expiry) = (word(META), word(EXPIRY));
            if meta >> USE_SHIFT & USE_MAX != USE_MAX || meta & (TAGS_MASK << TAGS_SHIFT | KEPT) != 0 {
                return None;
            }
            if word(STAMP) <= self.get(LAST_CLEARED).ok()? || (expiry != NEVER && expiry <= now()) {
                return None;
            }
            let run = Run::decode(word(RUN));
            let (name, len) = (name_words(meta), high(chain) as usize);
            let start = at(block, BLOCK_WORDS + name);
            let room = ((run.size as usize).checked_sub(1)? * BLOCK_WORDS).checked_sub(name)?;
            if run.kind != RunKind::Entry || len > room * 8 {
                return None;
            }
            let kind = if meta & KIND_BYTES == 0 { Kind::Json } else { Kind::Bytes };
            return Some(OptimisticRead { words: self.words.get(start..start + len.div_ceil(8))?, len, kind });
        }
        None
    }
}

impl OptimisticRead<'_> {
    /// Copies the value, as far as `out` has room.
    #[inline(always)]
    pub fn copy(&self, out: &mut [u8]) {
        read_bytes(self.words, out);
    }
}
