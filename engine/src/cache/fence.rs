//! Fences: what keeps a value that was computed before a removal from being put back after it.
//!
//! A transaction that removes a key, a tag or everything [holds](Partition::hold) its fence before others can see what it has
//! changed, and [lets go](Partition::let_go) of it afterwards, which raises the fence to that moment. While a fence is
//! held, and where a value was computed before the moment it was raised to, [`Partition::refuses`] says so, and the
//! value isn't published. So there is no instant at which an older value could come back.
//!
//! A fence is a slot in a table that keys and tags are hashed into, and they may share one: then a value is refused
//! that need not be, which is a miss more. The last group of slots is for whole databases.

use super::entry::cleared_slot;
use super::layout::{EPOCH, FENCE_SLOTS_PER_GROUP, FENCE_WORDS, FENCES_ENDED, FENCES_HELD, FENCES_TIME, Partition};
use super::moment::Moment;
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

/// Words of a fence.
const ENDED: usize = 0;
const TIME: usize = 1;
/// How many hold it.
const HOLDERS: usize = 2;
/// A session holds a fence once, and a server has no more sessions than this.
const MOST_HOLDERS: u64 = 1 << 24;

impl Partition<'_> {
    /// The fence of a removal: the same in every partition of one size.
    #[inline]
    pub fn fence_of(&self, removal: Removal) -> u32 {
        let shared = (self.fence_groups - 1) * FENCE_SLOTS_PER_GROUP;
        // The product of two 32-bit numbers, shifted by 32, is below the number of slots.
        let scaled = |hash: u64| ((hash * u64::from(shared)) >> 32) as u32;
        match removal {
            Removal::Key(key) => scaled(key.low >> 32),
            Removal::Tag(tag) => scaled(tag & 0xffff_ffff),
            Removal::Everything(database) => shared + cleared_slot(database) as u32 % FENCE_SLOTS_PER_GROUP,
        }
    }

    /// The same for the partition that lies in so many words, without a look into it.
    pub fn fence_in(words: usize, removal: Removal) -> Result<u32, Corrupt> {
        Ok(Partition::geometry_of(words, &[])?.fence_of(removal))
    }

    #[inline]
    fn fence(&self, slot: u32, word: usize) -> usize {
        self.fences_at() + slot as usize * FENCE_WORDS + word
    }

    pub(super) fn format_fences(&self, floor: Moment) -> Result<(), Corrupt> {
        self.set(FENCES_HELD, 0)?;
        self.set(FENCES_ENDED, floor.ended)?;
        self.set(FENCES_TIME, floor.time)?;
        (0..self.fence_groups * FENCE_SLOTS_PER_GROUP).try_for_each(|slot| {
            self.set(self.fence(slot, ENDED), floor.ended)?;
            self.set(self.fence(slot, TIME), floor.time)
        })
    }

    /// Refuses every value behind a fence until [`Self::let_go`], which wants the answer. Exclusive lock.
    pub fn hold(&self, fence: u32) -> Result<u64, Corrupt> {
        self.add(self.fence(fence, HOLDERS), 1)?;
        self.add(FENCES_HELD, 1)?;
        self.get(EPOCH)
    }

    /// Ends a [`Self::hold`]; `raised`: to this moment the fence is raised, if the removal came to be. False where the
    /// partition has been formatted since: then it holds nothing of what was there, but what has come since may have to
    /// be removed. Exclusive lock.
    pub fn let_go(&self, fence: u32, epoch: u64, raised: Option<Moment>) -> Result<bool, Corrupt> {
        if let Some(moment) = raised {
            let (ended, time) = (self.fence(fence, ENDED), self.fence(fence, TIME));
            for (at, value) in
                [(ended, moment.ended), (time, moment.time), (FENCES_ENDED, moment.ended), (FENCES_TIME, moment.time)]
            {
                self.set(at, self.get(at)?.max(value))?;
            }
        }
        if self.get(EPOCH)? != epoch {
            return Ok(false);
        }
        self.subtract(self.fence(fence, HOLDERS), 1)?;
        self.subtract(FENCES_HELD, 1)?;
        Ok(true)
    }

    /// Whether a value that was computed at `since` or later must not be published: then the answer is the time that
    /// its fence has been raised to (0 where the clock has no say in it). `own`: whether the caller itself holds a
    /// fence, once. Exclusive lock.
    #[inline(always)]
    pub fn refuses(
        &self,
        key: KeyHash,
        database: u32,
        tags: &Tags,
        since: Moment,
        own: impl Fn(u32) -> bool,
    ) -> Result<Option<u64>, Corrupt> {
        // Mostly nothing is being removed, and what was is older: then no fence has to be looked at.
        if self.get(FENCES_HELD)? == 0
            && since.ended >= self.get(FENCES_ENDED)?
            && since.time > self.get(FENCES_TIME)?
        {
            return Ok(None);
        }
        self.refuses_by_fences(key, database, tags, since, own)
    }

    #[cold]
    fn refuses_by_fences(
        &self,
        key: KeyHash,
        database: u32,
        tags: &Tags,
        since: Moment,
        own: impl Fn(u32) -> bool,
    ) -> Result<Option<u64>, Corrupt> {
        let whole = [Removal::Key(key), Removal::Everything(database)];
        for removal in whole.into_iter().chain(tags.hashes().iter().map(|&tag| Removal::Tag(tag))) {
            let fence = self.fence_of(removal);
            let holders = self.get(self.fence(fence, HOLDERS))?;
            if holders > MOST_HOLDERS {
                return Err(Corrupt);
            }
            if holders > u64::from(holders > 0 && own(fence)) || since.ended < self.get(self.fence(fence, ENDED))? {
                return Ok(Some(0));
            }
            let raised = self.get(self.fence(fence, TIME))?;
            if since.time <= raised {
                return Ok(Some(raised));
            }
        }
        Ok(None)
    }
}

/// What of this file the layout version depends on.
pub(super) const LAYOUT: u64 = fingerprint![ENDED, TIME, HOLDERS];
