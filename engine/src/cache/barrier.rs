//! Invalidation barriers: what keeps a value that was computed before a removal from being stored after it.
//!
//! A transaction that removes a key, a tag or everything [raises](Partition::raise) a barrier before others can see what it has
//! changed, and [lowers](Partition::lower) it after the commit; the barrier then keeps the logical time of the removal. A value is
//! [refused](Partition::refuses) while a barrier is raised that it is behind, and where it was computed before the time that the
//! barrier keeps. So there is no instant at which an older value could come back.
//!
//! A barrier is a slot of a table that keys and tags are hashed into. Two that share a slot cost a miss: a value is refused that
//! need not be. The last group of slots is for whole databases.

use super::entry::cleared_slot;
use super::layout::{
    BARRIER_SLOTS_PER_GROUP, BARRIER_WORDS, BARRIERS_ENDED, BARRIERS_RAISED, BARRIERS_TIME, DISTRUST, EPOCH, Partition,
};
use super::logical_time::LogicalTime;
use super::tags::Tags;
use crate::fingerprint;
use crate::hash::KeyHash;
use crate::words::Corrupt;

/// What is removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removal {
    /// One key.
    Key(KeyHash),
    /// All entries with a tag.
    Tag(u64),
    /// All entries of a database.
    Everything(u32),
}

/// Words of a barrier: the logical time that it keeps, in two words.
const ENDED: usize = 0;
const TIME: usize = 1;
/// How many sessions have raised it.
const RAISED_BY: usize = 2;
/// In [`DISTRUST`]: no value is taken, as if by a barrier (`undecided.rs`).
pub(super) const DISTRUSTED: u64 = 1;
/// A session raises a barrier once, and a server has no more sessions than this.
const MOST_SESSIONS: u64 = 1 << 24;

impl Partition<'_> {
    /// The barrier of a removal: the same in every partition of one size.
    #[inline]
    pub fn barrier_of(&self, removal: Removal) -> u32 {
        let shared = (self.barrier_groups - 1) * BARRIER_SLOTS_PER_GROUP;
        // The product of two 32-bit numbers, shifted by 32, is below the number of slots.
        let scaled = |hash: u64| ((hash * u64::from(shared)) >> 32) as u32;
        match removal {
            Removal::Key(key) => scaled(key.low >> 32),
            Removal::Tag(tag) => scaled(tag & 0xffff_ffff),
            Removal::Everything(database) => shared + cleared_slot(database) as u32 % BARRIER_SLOTS_PER_GROUP,
        }
    }

    /// The same for the partition that lies in so many words, without a look into it.
    pub fn barrier_in(words: usize, removal: Removal) -> Result<u32, Corrupt> {
        Ok(Partition::geometry_of(words, &[])?.barrier_of(removal))
    }

    #[inline]
    fn barrier(&self, slot: u32, word: usize) -> usize {
        self.barriers_at() + slot as usize * BARRIER_WORDS + word
    }

    pub(super) fn format_barriers(&self, floor: LogicalTime) -> Result<(), Corrupt> {
        self.set(BARRIERS_RAISED, 0)?;
        self.raise_floor(floor)
    }

    /// Refuses whatever was computed before `floor`.
    pub(super) fn raise_floor(&self, floor: LogicalTime) -> Result<(), Corrupt> {
        let keep = |word, value| self.set(word, self.get(word)?.max(value));
        keep(BARRIERS_ENDED, floor.ended)?;
        keep(BARRIERS_TIME, floor.time)?;
        (0..self.barrier_groups * BARRIER_SLOTS_PER_GROUP).try_for_each(|slot| {
            keep(self.barrier(slot, ENDED), floor.ended)?;
            keep(self.barrier(slot, TIME), floor.time)
        })
    }

    /// Whether anything was removed since the partition was formatted, or may have been before.
    pub fn has_removed(&self) -> Result<bool, Corrupt> {
        Ok(self.get(BARRIERS_TIME)? != 0)
    }

    /// Whether there is a barrier of that number.
    pub(super) fn is_barrier(&self, barrier: u32) -> bool {
        barrier < self.barrier_groups * BARRIER_SLOTS_PER_GROUP
    }

    /// Refuses every value behind a barrier until [`Self::lower`], which needs the answer. Exclusive lock.
    pub fn raise(&self, barrier: u32) -> Result<u64, Corrupt> {
        self.add(self.barrier(barrier, RAISED_BY), 1)?;
        self.add(BARRIERS_RAISED, 1)?;
        self.get(EPOCH)
    }

    /// Ends a [`Self::raise`]. `removed_at`: the removal's time, which the barrier keeps from now on; `None` where it was rolled back.
    /// False where the partition has been formatted since: it holds nothing of what was there, but what has come since may have
    /// to be removed. Exclusive lock.
    pub fn lower(&self, barrier: u32, epoch: u64, removed_at: Option<LogicalTime>) -> Result<bool, Corrupt> {
        if let Some(at) = removed_at {
            let (ended, time) = (self.barrier(barrier, ENDED), self.barrier(barrier, TIME));
            let words = [(ended, at.ended), (time, at.time), (BARRIERS_ENDED, at.ended), (BARRIERS_TIME, at.time)];
            for (word, value) in words {
                self.set(word, self.get(word)?.max(value))?;
            }
        }
        if self.get(EPOCH)? != epoch {
            return Ok(false);
        }
        self.subtract(self.barrier(barrier, RAISED_BY), 1)?;
        self.subtract(BARRIERS_RAISED, 1)?;
        Ok(true)
    }

    /// Whether a value that was computed at `since` or later must not be published: then the answer is the time that its barrier
    /// keeps, or 0 where the clock does not decide. `own`: whether the caller itself has raised a barrier. Exclusive lock.
    #[inline(always)]
    pub fn refuses(
        &self,
        key: KeyHash,
        database: u32,
        tags: &Tags,
        since: LogicalTime,
        own: impl Fn(u32) -> bool,
    ) -> Result<Option<u64>, Corrupt> {
        // Mostly nothing is being removed, and what was is older: then no barrier has to be looked at.
        if self.get(BARRIERS_RAISED)? == 0
            && since.ended >= self.get(BARRIERS_ENDED)?
            && since.time > self.get(BARRIERS_TIME)?
        {
            return Ok(None);
        }
        self.refuses_by_barriers(key, database, tags, since, own)
    }

    #[cold]
    fn refuses_by_barriers(
        &self,
        key: KeyHash,
        database: u32,
        tags: &Tags,
        since: LogicalTime,
        own: impl Fn(u32) -> bool,
    ) -> Result<Option<u64>, Corrupt> {
        if self.get(DISTRUST)? == DISTRUSTED {
            return Ok(Some(0));
        }
        let whole = [Removal::Key(key), Removal::Everything(database)];
        for removal in whole.into_iter().chain(tags.hashes().iter().map(|&tag| Removal::Tag(tag))) {
            let barrier = self.barrier_of(removal);
            let raised_by = self.get(self.barrier(barrier, RAISED_BY))?;
            if raised_by > MOST_SESSIONS {
                return Err(Corrupt);
            }
            if raised_by > u64::from(raised_by > 0 && own(barrier))
                || since.ended < self.get(self.barrier(barrier, ENDED))?
            {
                return Ok(Some(0));
            }
            let kept = self.get(self.barrier(barrier, TIME))?;
            if since.time <= kept {
                return Ok(Some(kept));
            }
        }
        Ok(None)
    }
}

/// What of this file the layout version depends on.
pub(super) const LAYOUT: u64 = fingerprint![ENDED, TIME, RAISED_BY, DISTRUSTED];
