//! The hash table: buckets of chains through the entries' heads.

use super::arena::{RUN, Run, RunKind};
use super::entry::{CHAIN, KEY_HIGH, KEY_LOW};
use super::layout::{BLOCK_WORDS, NIL, Partition, at, high, low, pair};
use crate::hash::KeyHash;
use crate::words::Corrupt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

impl<'a> Partition<'a> {
    /// The key's bucket: the lower half of `high` scaled to the number of buckets.
    #[inline]
    pub(super) fn bucket_of(&self, key: KeyHash) -> usize {
        // The product of two 32-bit numbers, shifted by 32, is below the number of buckets.
        (((key.high & 0xffff_ffff) * u64::from(self.buckets)) >> 32) as usize
    }

    /// First entry of the `index`-th chain.
    #[inline]
    pub(super) fn bucket(&self, index: usize) -> Result<u32, Corrupt> {
        self.half(Self::buckets_at(), index)
    }

    /// The entry after `block` in its chain.
    #[inline]
    pub(super) fn chained(&self, block: u32) -> Result<u32, Corrupt> {
        Ok(low(self.get(at(block, CHAIN))?))
    }

    /// The words of a block of the arena.
    #[inline]
    pub(super) fn head(&self, block: u32) -> Result<&'a [AtomicU64; BLOCK_WORDS], Corrupt> {
        if block < self.first || block >= self.end {
            return Err(Corrupt);
        }
        self.words.get(at(block, 0)..).and_then(|words| words.first_chunk()).ok_or(Corrupt)
    }

    /// The entry under `key`, dead or alive, and the one before it in the chain.
    #[inline]
    pub(super) fn lookup(&self, key: KeyHash) -> Result<Option<(u32, u32)>, Corrupt> {
        let mut before = NIL;
        let mut block = self.bucket(self.bucket_of(key))?;
        // A chain longer than the arena has blocks runs in a circle.
        for _ in self.first..self.end {
            if block == NIL {
                return Ok(None);
            }
            let head = self.head(block)?;
            if Run::decode(head[RUN].load(Relaxed)).kind != RunKind::Entry {
                return Err(Corrupt);
            }
            if head[KEY_HIGH].load(Relaxed) == key.high && head[KEY_LOW].load(Relaxed) == key.low {
                return Ok(Some((block, before)));
            }
            before = block;
            block = low(head[CHAIN].load(Relaxed));
        }
        Err(Corrupt)
    }

    /// Puts an entry at the start of its key's chain.
    pub(super) fn link(&self, block: u32, key: KeyHash) -> Result<(), Corrupt> {
        let bucket = self.bucket_of(key);
        let head = self.bucket(bucket)?;
        self.set_chained(block, head)?;
        self.set_half(Self::buckets_at(), bucket, block)
    }

    /// Takes the entry at `block` out of its chain.
    pub(super) fn unlink(&self, block: u32) -> Result<(), Corrupt> {
        let key = self.key(block)?;
        match self.lookup(key)? {
            Some((found, before)) if found == block => self.unlink_after(block, before, key),
            _ => Err(Corrupt),
        }
    }

    /// The same where the chain has been walked already.
    pub(super) fn unlink_after(&self, block: u32, before: u32, key: KeyHash) -> Result<(), Corrupt> {
        let next = self.chained(block)?;
        if before == NIL {
            self.set_half(Self::buckets_at(), self.bucket_of(key), next)
        } else {
            self.set_chained(before, next)
        }
    }

    fn set_chained(&self, block: u32, next: u32) -> Result<(), Corrupt> {
        let word = self.get(at(block, CHAIN))?;
        self.set(at(block, CHAIN), pair(next, high(word)))
    }

    /// The key of an entry.
    pub(super) fn key(&self, block: u32) -> Result<KeyHash, Corrupt> {
        Ok(KeyHash { high: self.get(at(block, KEY_HIGH))?, low: self.get(at(block, KEY_LOW))? })
    }
}
