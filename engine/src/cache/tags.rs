//! Tags: an entry may carry a few, and invalidating one ends all entries that carry it, however many there are.
//!
//! A tag has no list of its entries. An invalidation leaves a record, the tag's hash and the sequence number of the
//! moment, and an entry is dead where one of its tags has a record that is no older than the entry. Records lie in a
//! table of small sets; where a set is full its oldest record gives way to a *floor*, under which every tag of that set
//! counts as invalidated: too many entries may end then, never too few.

use super::layout::{BLOCK_WORDS, MAX_TAGS, Partition, SEQUENCE};
use crate::fingerprint;
use crate::words::Corrupt;

/// Words of a set: its floor, a spare one, and records of two words each.
const SET_WORDS: usize = 2 * BLOCK_WORDS;
const FLOOR: usize = 0;
const RECORDS: usize = 2;

/// The hashes of an entry's tags.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tags {
    hashes: [u64; MAX_TAGS],
    count: usize,
}

impl Tags {
    /// Adds a tag by its hash; false where there are [`MAX_TAGS`] already.
    pub fn push(&mut self, hash: u64) -> bool {
        let Some(slot) = self.hashes.get_mut(self.count) else { return false };
        *slot = hash;
        self.count += 1;
        true
    }

    /// The hashes.
    pub fn hashes(&self) -> &[u64] {
        self.hashes.get(..self.count).unwrap_or_default()
    }

    /// Whether any of them is among `others`.
    pub fn any_of(&self, others: &[u64]) -> bool {
        self.hashes().iter().any(|hash| others.contains(hash))
    }
}

impl Partition<'_> {
    /// Where a tag's set of records starts.
    fn set_of(&self, tag: u64) -> usize {
        // The product of two 32-bit numbers, shifted by 32, is below the number of sets.
        let set = ((tag >> 32) * u64::from(self.tag_sets)) >> 32;
        self.tags_at() + set as usize * SET_WORDS
    }

    /// How many invalidated tags a partition of so many words remembers: beyond that, which entries end depends on what set a
    /// tag falls into.
    pub fn tag_records(words: usize) -> usize {
        Partition::geometry_of(words, &[])
            .map_or(0, |partition| partition.tag_sets as usize * (SET_WORDS - RECORDS) / 2)
    }

    /// The sequence number up to which entries with `tag` are dead.
    pub(super) fn invalidated(&self, tag: u64) -> Result<u64, Corrupt> {
        let set = self.set_of(tag);
        for record in (RECORDS..SET_WORDS).step_by(2) {
            if self.get(set + record)? == tag {
                return self.get(set + record + 1);
            }
        }
        self.get(set + FLOOR)
    }

    /// Ends every entry with `tag` that has been published so far, in O(1): their memory returns as the hand or
    /// [`Self::sweep`] comes by. Exclusive lock.
    pub fn invalidate(&self, tag: u64) -> Result<(), Corrupt> {
        let set = self.set_of(tag);
        let mut oldest = RECORDS;
        for record in (RECORDS..SET_WORDS).step_by(2) {
            if self.get(set + record)? == tag {
                oldest = record;
                break;
            }
            // An empty record is as old as can be.
            if self.get(set + record + 1)? < self.get(set + oldest + 1)? {
                oldest = record;
            }
        }
        if self.get(set + oldest)? != tag {
            let floor = self.get(set + FLOOR)?.max(self.get(set + oldest + 1)?);
            self.set(set + FLOOR, floor)?;
        }
        self.set(set + oldest, tag)?;
        self.set(set + oldest + 1, self.get(SEQUENCE)?)
    }
}

/// What of this file the layout version depends on.
pub(super) const LAYOUT: u64 = fingerprint![SET_WORDS, FLOOR, RECORDS];
