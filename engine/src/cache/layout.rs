//! Where everything lies in a partition, and how it is formatted.
//!
//! The geometry follows from the number of words alone, so that no stored word can lead it astray. Block numbers count
//! from the start of the partition; block 0 is the header's, so 0 serves as "none".

use super::logical_time::LogicalTime;
use crate::fingerprint;
use crate::words::{Corrupt, Words, load, store, zero};

/// Most tags that an entry can carry.
pub const MAX_TAGS: usize = 8;
/// Words of a block. A block is a cache line.
pub(super) const BLOCK_WORDS: usize = 8;
/// Bytes of a block.
pub(super) const BLOCK_BYTES: u64 = 64;
/// A run stores its size in 27 bits, which limits a partition to 8 GiB.
const MAX_BLOCKS: usize = (1 << 27) - 1;
/// Largest value in bytes: its length is stored in 31 bits, and a varlena's in 30.
pub const MAX_VALUE: usize = (1 << 30) - 1;

/// "None" in a link.
pub(super) const NIL: u32 = 0;

/// First word of a formatted partition. Changes with the layout.
const MAGIC_VALUE: u64 = 0x656e_6f75_6763_6833;
const MAGIC: usize = 0;
// The first line of the header: what a get reads, and a set that finds room where it writes.
/// Which formatting this is.
pub(super) const EPOCH: usize = 1;
/// Counts publications; the source of stamps.
pub(super) const SEQUENCE: usize = 2;
/// Publications.
pub(super) const SETS: usize = 3;
/// The newest of the stamps at [`CLEARED`].
pub(super) const LAST_CLEARED: usize = 4;
/// How many times barriers are raised.
pub(super) const BARRIERS_RAISED: usize = 5;
/// The latest logical time that any barrier keeps: by ended transactions, by the clock.
pub(super) const BARRIERS_ENDED: usize = 6;
pub(super) const BARRIERS_TIME: usize = 7;
// The others.
/// Where the CLOCK hand points: always the first block of a run.
pub(super) const CLOCK_HAND: usize = 8;
/// Blocks in free runs.
pub(super) const FREE_BLOCKS: usize = 9;
/// First of the continuation runs that belong to nobody any more but aren't freed yet.
pub(super) const PENDING_FREE: usize = 10;
/// The tick up to which [`super::expiry`] has looked.
pub(super) const LAST_TICK: usize = 11;
/// Blocks in reservations.
pub(super) const RESERVED_BLOCKS: usize = 12;
/// Entries that are linked.
pub(super) const ENTRIES: usize = 13;
/// Bytes of their values.
pub(super) const VALUE_BYTES: usize = 14;
/// Entries removed by their key or replaced by nothing.
pub(super) const DELETES: usize = 15;
/// Entries that gave way to others.
pub(super) const EVICTIONS: usize = 16;
/// Entries removed because their time was over.
pub(super) const EXPIRATIONS: usize = 17;
/// One bit a size class: whether its free list has a run.
pub(super) const CLASS_BITS: usize = 18;
/// Words of [`CLASS_BITS`].
pub(super) const CLASS_BIT_WORDS: usize = 4;
/// How far the partition is trusted ([`super::undecided`]).
pub(super) const DISTRUST: usize = 22;
/// Records of prepared transactions.
pub(super) const UNDECIDED_COUNT: usize = 23;
/// First runs of the free lists, two to a word.
pub(super) const CLASS_HEADS: usize = 24;
/// Number of size classes.
pub(super) const CLASSES: usize = 208;
/// The expiry lists' anchors.
pub(super) const ANCHORS: usize = 128;
/// Room for anchors.
pub(super) const ANCHORS_MAX: usize = 64;
/// Stamps of the last clearing, by a hash of the database.
pub(super) const CLEARED: usize = 192;
/// Number of clear stamps, of either kind.
pub(super) const CLEARED_SLOTS: usize = 256;
/// Hit and miss counters, a cache line to a stripe.
pub(super) const STRIPES: usize = 448;
/// Number of stripes.
pub(super) const STRIPE_COUNT: usize = 8;
/// Stamps of the last removal of all that has tags, by a hash of the database.
pub(super) const TAGGED_CLEARED: usize = 512;
/// Records of prepared transactions ([`super::undecided`]).
pub(super) const UNDECIDED: usize = 768;
/// How many there are.
pub(super) const RECORDS: usize = 32;
/// Words of each.
pub(super) const RECORD_WORDS: usize = 2;
/// Where the buckets start.
const BUCKETS: usize = 832;
const HEADER_BLOCKS: usize = BUCKETS / BLOCK_WORDS;
/// Words of a barrier.
pub(super) const BARRIER_WORDS: usize = 3;
/// Barriers in a group, which takes as many blocks as a barrier has words.
pub(super) const BARRIER_SLOTS_PER_GROUP: u32 = BLOCK_WORDS as u32;
/// Buckets in a block.
const BUCKETS_PER_BLOCK: usize = BLOCK_WORDS * 2;

const _: () = {
    assert!(BARRIERS_TIME < BLOCK_WORDS && EXPIRATIONS < CLASS_BITS);
    assert!(CLASS_BIT_WORDS * 64 >= CLASSES && CLASS_BITS + CLASS_BIT_WORDS <= DISTRUST);
    assert!(DISTRUST < UNDECIDED_COUNT && UNDECIDED_COUNT < CLASS_HEADS);
    assert!(CLASS_HEADS + CLASSES / 2 <= ANCHORS && ANCHORS + ANCHORS_MAX <= CLEARED);
    assert!(CLEARED + CLEARED_SLOTS <= STRIPES && STRIPES + STRIPE_COUNT * BLOCK_WORDS <= TAGGED_CLEARED);
    assert!(TAGGED_CLEARED + CLEARED_SLOTS <= UNDECIDED && UNDECIDED + RECORDS * RECORD_WORDS <= BUCKETS);
    assert!(STRIPES.is_multiple_of(BLOCK_WORDS) && BUCKETS.is_multiple_of(BLOCK_WORDS));
};

/// A view over one partition. Cheap to make: the geometry is a few shifts.
#[derive(Debug, Clone, Copy)]
pub struct Partition<'a> {
    pub(super) words: Words<'a>,
    pub(super) buckets: u32,
    /// Sets of the tags' records.
    pub(super) tag_sets: u32,
    /// Groups of barriers.
    pub(super) barrier_groups: u32,
    /// First block of the arena.
    pub(super) first: u32,
    /// One past its last.
    pub(super) end: u32,
}

impl<'a> Partition<'a> {
    /// Fewest words that make a partition.
    pub const MIN_WORDS: usize = (HEADER_BLOCKS + 16) * BLOCK_WORDS;

    #[inline(always)]
    pub(super) fn geometry(words: Words<'a>) -> Result<Self, Corrupt> {
        Self::geometry_of(words.len(), words)
    }

    /// What lies where in a partition of so many words.
    #[inline(always)]
    pub(super) fn geometry_of(len: usize, words: Words<'a>) -> Result<Self, Corrupt> {
        if len < Self::MIN_WORDS {
            return Err(Corrupt);
        }
        let blocks = (len / BLOCK_WORDS).min(MAX_BLOCKS);
        let bucket_blocks = (blocks - HEADER_BLOCKS) / 3 / BUCKETS_PER_BLOCK + 1;
        // A set of records takes two blocks.
        let tag_sets = (blocks - HEADER_BLOCKS) / 256 + 1;
        // One barrier to 4 KiB, and a group for databases.
        let barrier_groups = (blocks - HEADER_BLOCKS) / 512 + 2;
        let tables = bucket_blocks + 2 * tag_sets + BARRIER_WORDS * barrier_groups;
        Ok(Self {
            words,
            buckets: narrow((bucket_blocks * BUCKETS_PER_BLOCK) as u64)?,
            tag_sets: narrow(tag_sets as u64)?,
            barrier_groups: narrow(barrier_groups as u64)?,
            first: narrow((HEADER_BLOCKS + tables) as u64)?,
            end: narrow(blocks as u64)?,
        })
    }

    /// The partition in `words`; `Corrupt` where there is none, or not of this layout: then [`Self::format`] it.
    #[inline(always)]
    pub fn open(words: Words<'a>) -> Result<Self, Corrupt> {
        let partition = Self::geometry(words)?;
        if load(words, MAGIC)? == MAGIC_VALUE { Ok(partition) } else { Err(Corrupt) }
    }

    /// Makes `words` an empty partition, whatever they held. Values computed before `floor` will be refused, since
    /// nobody knows any more what was removed until then. Exclusive lock. `Corrupt` only where the words are fewer than
    /// [`Self::MIN_WORDS`].
    pub fn format(words: Words<'a>, floor: LogicalTime) -> Result<Self, Corrupt> {
        let partition = Self::geometry(words)?;
        // A session that holds a reservation from before must not take it for one of this epoch.
        let epoch = load(words, EPOCH)?.wrapping_add(1);
        zero(words.get(..partition.first as usize * BLOCK_WORDS).ok_or(Corrupt)?);
        store(words, EPOCH, epoch)?;
        store(words, SEQUENCE, 1)?;
        store(words, CLOCK_HAND, u64::from(partition.first))?;
        partition.format_anchors()?;
        partition.format_barriers(floor)?;
        partition.insert_free(partition.first, partition.end - partition.first)?;
        store(words, FREE_BLOCKS, u64::from(partition.end - partition.first))?;
        store(words, MAGIC, MAGIC_VALUE)?;
        Ok(partition)
    }

    /// Bytes of the largest value that fits when nothing else is there, with as many tags as there may be.
    pub fn largest_value(&self) -> usize {
        let bytes = self.capacity().saturating_sub(BLOCK_BYTES + MAX_TAGS as u64 * 8);
        usize::try_from(bytes).unwrap_or(MAX_VALUE).min(MAX_VALUE)
    }

    /// Bytes that values and their headers can take.
    pub fn capacity(&self) -> u64 {
        u64::from(self.end - self.first) * BLOCK_BYTES
    }

    #[inline]
    pub(super) fn get(&self, index: usize) -> Result<u64, Corrupt> {
        load(self.words, index)
    }

    #[inline]
    pub(super) fn set(&self, index: usize, value: u64) -> Result<(), Corrupt> {
        store(self.words, index, value)
    }

    /// Adds to a counter that only the holder of the exclusive lock changes.
    #[inline]
    pub(super) fn add(&self, index: usize, by: u64) -> Result<(), Corrupt> {
        self.set(index, self.get(index)?.wrapping_add(by))
    }

    /// Takes from such a counter; one that would fall below zero was wrong.
    #[inline]
    pub(super) fn subtract(&self, index: usize, by: u64) -> Result<(), Corrupt> {
        self.set(index, self.get(index)?.checked_sub(by).ok_or(Corrupt)?)
    }

    /// The `index`-th 32-bit half counted from word `base`.
    #[inline]
    pub(super) fn half(&self, base: usize, index: usize) -> Result<u32, Corrupt> {
        let word = self.get(base + index / 2)?;
        Ok(if index.is_multiple_of(2) { low(word) } else { high(word) })
    }

    /// Sets it.
    #[inline]
    pub(super) fn set_half(&self, base: usize, index: usize, value: u32) -> Result<(), Corrupt> {
        let at = base + index / 2;
        let word = self.get(at)?;
        self.set(at, if index.is_multiple_of(2) { pair(value, high(word)) } else { pair(low(word), value) })
    }

    /// Word of the tag records' start.
    pub(super) fn tags_at(&self) -> usize {
        self.barriers_at() - 2 * self.tag_sets as usize * BLOCK_WORDS
    }

    /// Word of the barriers' start.
    #[inline]
    pub(super) fn barriers_at(&self) -> usize {
        (self.first as usize - BARRIER_WORDS * self.barrier_groups as usize) * BLOCK_WORDS
    }

    /// Word of the bucket array's start, for [`Self::half`].
    pub(super) const fn buckets_at() -> usize {
        BUCKETS
    }
}

/// The word `offset` of `block`.
#[inline]
pub(super) fn at(block: u32, offset: usize) -> usize {
    block as usize * BLOCK_WORDS + offset
}

/// The lower half of a word.
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "the lower half is what is asked for")]
pub(super) fn low(word: u64) -> u32 {
    word as u32
}

/// Its upper half.
#[inline]
pub(super) fn high(word: u64) -> u32 {
    low(word >> 32)
}

/// A word of two halves.
#[inline]
pub(super) fn pair(low: u32, high: u32) -> u64 {
    u64::from(high) << 32 | u64::from(low)
}

/// A number that must fit 32 bits.
#[inline]
pub(super) fn narrow(value: u64) -> Result<u32, Corrupt> {
    u32::try_from(value).map_err(|_| Corrupt)
}

/// What of this file the layout version depends on.
pub(super) const LAYOUT: u64 = fingerprint![
    MAX_TAGS,
    BLOCK_WORDS,
    BLOCK_BYTES,
    MAX_BLOCKS,
    NIL,
    MAGIC_VALUE,
    MAGIC,
    EPOCH,
    SEQUENCE,
    SETS,
    LAST_CLEARED,
    BARRIERS_RAISED,
    BARRIERS_ENDED,
    BARRIERS_TIME,
    CLOCK_HAND,
    FREE_BLOCKS,
    PENDING_FREE,
    LAST_TICK,
    RESERVED_BLOCKS,
    ENTRIES,
    VALUE_BYTES,
    DELETES,
    EVICTIONS,
    EXPIRATIONS,
    CLASS_BITS,
    CLASS_BIT_WORDS,
    CLASS_HEADS,
    CLASSES,
    ANCHORS,
    ANCHORS_MAX,
    CLEARED,
    CLEARED_SLOTS,
    STRIPES,
    STRIPE_COUNT,
    TAGGED_CLEARED,
    DISTRUST,
    UNDECIDED_COUNT,
    UNDECIDED,
    RECORDS,
    RECORD_WORDS,
    BUCKETS,
    HEADER_BLOCKS,
    BARRIER_WORDS,
    BARRIER_SLOTS_PER_GROUP,
    BUCKETS_PER_BLOCK
];
