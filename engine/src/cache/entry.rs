//! Entries: finding, copying, and writing them in two halves.
//!
//! An entry's first block is its head: what it is, its key, its expiry and its links. The hashes of its tags, its name and
//! the value follow in the same run and, past its end, in the continuation runs, each after that run's first word.

use super::arena::{RUN, RunKind};
use super::layout::MAX_TAGS;
use super::layout::{
    BLOCK_WORDS, CLEARED, CLEARED_SLOTS, DELETES, ENTRIES, EXPIRATIONS, LAST_CLEARED, MAX_VALUE, Partition, SEQUENCE,
    TAGGED_CLEARED, VALUE_BYTES, at, high,
};
use super::tags::Tags;
use crate::fingerprint;
use crate::hash::KeyHash;
use crate::words::{Corrupt, Words, part};

/// Chain link, and the value's length in bytes.
pub(super) const CHAIN: usize = RUN + 1;
pub(super) const KEY_HIGH: usize = 2;
pub(super) const KEY_LOW: usize = 3;
/// Microseconds, or [`NEVER`].
pub(super) const EXPIRY: usize = 4;
/// Kind, slot of the clear stamps, use count, number of tags.
pub(super) const META: usize = 5;
/// Sequence number of the publication.
pub(super) const STAMP: usize = 6;
/// Links of the expiry list.
pub(super) const LINKS: usize = 7;

pub(super) const KIND_BYTES: u64 = 1;
/// The entry is kept for a while after its time is over: the first word behind its head tells when that is, and EXPIRY
/// when it goes.
pub(super) const KEPT: u64 = 2;
pub(super) const SLOT_SHIFT: u32 = 8;
pub(super) const USE_SHIFT: u32 = 16;
pub(super) const TAGS_SHIFT: u32 = 24;
pub(super) const TAGS_MASK: u64 = 0xf;
/// The length of the entry's name and 1 more, or 0 where it isn't kept: [`super::names`].
pub(super) const NAME_SHIFT: u32 = 32;
pub(super) const NAME_MASK: u64 = 0x3ff;
/// Largest use count: an entry in frequent use survives as many passes of the hand.
pub(super) const USE_MAX: u64 = 3;

/// The bits that tell of something between the head and the value.
pub(super) const PREFIX: u64 = KEPT | TAGS_MASK << TAGS_SHIFT | NAME_MASK << NAME_SHIFT;

/// The expiry of an entry that doesn't expire.
pub const NEVER: u64 = u64::MAX;

/// What a value's bytes mean. A key has one entry, whichever kind it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The binary form of a jsonb, without its length word.
    Json,
    /// Raw bytes.
    Bytes,
}

/// What [`Partition::publish`] needs to know beside the value.
#[derive(Debug, Clone, Copy)]
pub struct Item {
    /// The key; the database's OID is hashed into it.
    pub key: KeyHash,
    /// The database, by which [`Partition::clear`] finds its entries.
    pub database: u32,
    /// When it is over, in microseconds of the clock that the caller passes as `now`; [`NEVER`] if never.
    pub expiry: u64,
    /// What the bytes mean.
    pub kind: Kind,
}

/// An entry found, valid as long as the lock is held.
#[derive(Debug, Clone, Copy)]
pub struct Found {
    block: u32,
    /// Of its head: what lies before the value.
    meta: u64,
    /// Bytes of the value.
    pub len: usize,
    /// When it is over.
    pub expiry: u64,
    /// What the bytes mean.
    pub kind: Kind,
    /// Which publication it is; no other has the same.
    pub stamp: u64,
}

/// The slot of the clear stamps for a database. Databases that share one are cleared together, which costs them a warm
/// cache and nothing else.
pub(super) fn cleared_slot(database: u32) -> u64 {
    u64::from(database.wrapping_mul(0x9E37_79B1) >> 24)
}

/// The number of words before the value that an entry's META tells: one where it is kept, its tags, its name.
#[inline]
pub(super) fn prefix_words(meta: u64) -> Result<usize, Corrupt> {
    if meta & PREFIX == 0 { Ok(0) } else { Ok(usize::from(meta & KEPT != 0) + tag_count(meta)? + name_words(meta)) }
}

/// The number of tags that an entry's META tells.
#[inline]
pub(super) fn tag_count(meta: u64) -> Result<usize, Corrupt> {
    let count = (meta >> TAGS_SHIFT & TAGS_MASK) as usize;
    if count > MAX_TAGS { Err(Corrupt) } else { Ok(count) }
}

impl<'a> Partition<'a> {
    /// The entry under `key`, if there is one that is neither expired nor cleared. Counts nothing, but marks it used.
    #[inline]
    pub fn find(&self, key: KeyHash, now: u64) -> Result<Option<Found>, Corrupt> {
        Ok(self.find_kept(key, now)?.filter(|found| found.expiry > now))
    }

    /// The same, also where its time is over and it is only kept. Counts nothing, but marks it used.
    #[inline]
    pub fn find_kept(&self, key: KeyHash, now: u64) -> Result<Option<Found>, Corrupt> {
        let Some((block, _)) = self.lookup(key)? else { return Ok(None) };
        if self.is_gone(block, now)? {
            return Ok(None);
        }
        let meta = self.get(at(block, META))?;
        // Lost updates between readers don't matter, and nobody else changes this word under the shared lock.
        if meta >> USE_SHIFT & USE_MAX < USE_MAX {
            self.set(at(block, META), meta.wrapping_add(1 << USE_SHIFT))?;
        }
        let mut expiry = self.get(at(block, EXPIRY))?;
        if meta & KEPT != 0 {
            expiry = expiry.min(self.over_at(block)?);
        }
        let kind = if meta & KIND_BYTES == 0 { Kind::Json } else { Kind::Bytes };
        let (len, stamp) = (self.value_len(block)?, self.get(at(block, STAMP))?);
        Ok(Some(Found { block, meta, len, expiry, kind, stamp }))
    }

    /// When the time of an entry that is kept is over.
    #[cold]
    pub(super) fn over_at(&self, block: u32) -> Result<u64, Corrupt> {
        let mut over = 0;
        self.each_piece(block, 0, 8, |piece, len| {
            if len > 0 {
                over = piece.first().ok_or(Corrupt)?.load(std::sync::atomic::Ordering::Relaxed);
            }
            Ok(())
        })?;
        Ok(over)
    }

    /// Changes that, so that the entry isn't kept longer than it lives.
    #[cold]
    fn keep_no_longer(&self, block: u32) -> Result<(), Corrupt> {
        self.each_piece(block, 0, 8, |piece, len| {
            if len > 0 {
                piece.first().ok_or(Corrupt)?.store(NEVER, std::sync::atomic::Ordering::Relaxed);
            }
            Ok(())
        })
    }

    /// Whether the entry has expired, and isn't kept any longer, or been cleared.
    #[inline]
    pub(super) fn is_gone(&self, block: u32, now: u64) -> Result<bool, Corrupt> {
        if self.get(at(block, EXPIRY))? <= now {
            return Ok(true);
        }
        let meta = self.get(at(block, META))?;
        let slot = usize::try_from(meta >> SLOT_SHIFT & (CLEARED_SLOTS as u64 - 1)).map_err(|_| Corrupt)?;
        let stamp = self.get(at(block, STAMP))?;
        if stamp <= self.get(CLEARED + slot)? {
            return Ok(true);
        }
        let tags = tag_count(meta)?;
        Ok(tags > 0 && (stamp <= self.get(TAGGED_CLEARED + slot)? || self.is_invalidated(block, meta, stamp)?))
    }

    /// Whether one of an entry's tags has been invalidated since it was published.
    #[cold]
    fn is_invalidated(&self, block: u32, meta: u64, stamp: u64) -> Result<bool, Corrupt> {
        for &tag in self.read_tags(block, usize::from(meta & KEPT != 0), tag_count(meta)?)?.hashes() {
            if stamp <= self.invalidated(tag)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn read_tags(&self, block: u32, skip: usize, count: usize) -> Result<Tags, Corrupt> {
        let mut tags = Tags::default();
        self.each_piece(block, skip, count * 8, |piece, len| {
            piece.iter().take(len / 8).for_each(|word| {
                tags.push(word.load(std::sync::atomic::Ordering::Relaxed));
            });
            Ok(())
        })?;
        Ok(tags)
    }

    /// An entry's tags.
    pub fn tags(&self, found: Found) -> Result<Tags, Corrupt> {
        match tag_count(found.meta)? {
            0 => Ok(Tags::default()),
            count => self.read_tags(found.block, usize::from(found.meta & KEPT != 0), count),
        }
    }

    /// Bytes that an entry takes beside its head.
    pub(super) fn body_len(&self, block: u32) -> Result<usize, Corrupt> {
        Ok(self.value_len(block)? + prefix_words(self.get(at(block, META))?)? * 8)
    }

    /// Bytes of the value whose head is `block`.
    pub(super) fn value_len(&self, block: u32) -> Result<usize, Corrupt> {
        let len = high(self.get(at(block, CHAIN))?) as usize;
        if len > MAX_VALUE { Err(Corrupt) } else { Ok(len) }
    }

    /// Takes one use from an entry; false where it has none left.
    pub(super) fn unuse(&self, block: u32) -> Result<bool, Corrupt> {
        let meta = self.get(at(block, META))?;
        if meta >> USE_SHIFT & USE_MAX == 0 {
            return Ok(false);
        }
        self.set(at(block, META), meta.wrapping_sub(1 << USE_SHIFT))?;
        Ok(true)
    }

    /// Copies the value, whose length is `out`'s.
    #[inline]
    pub fn copy(&self, found: Found, out: &mut [u8]) -> Result<(), Corrupt> {
        if out.len() != found.len {
            return Err(Corrupt);
        }
        let mut out = out;
        self.each_piece(found.block, prefix_words(found.meta)?, found.len, |piece, len| {
            let (now, later) = std::mem::take(&mut out).split_at_mut_checked(len).ok_or(Corrupt)?;
            read_bytes(piece, now);
            out = later;
            Ok(())
        })
    }

    /// Calls `each` with the words of every run that a value lies in and the number of its bytes there. The value starts
    /// `skip` words after the head.
    #[inline]
    pub(super) fn each_piece(
        &self,
        head: u32,
        mut skip: usize,
        len: usize,
        mut each: impl FnMut(Words<'a>, usize) -> Result<(), Corrupt>,
    ) -> Result<(), Corrupt> {
        let mut run = self.run(head)?;
        let mut start = at(head, BLOCK_WORDS);
        let mut end = at(head + run.size, 0);
        let mut missing = len;
        // Every run but the first holds at least 7 words, so a longer chain runs in a circle.
        for _ in 0..len / 56 + skip / 7 + 3 {
            let words = part(self.words, start, end.checked_sub(start).ok_or(Corrupt)?)?;
            let skipped = skip.min(words.len());
            skip -= skipped;
            let words = words.get(skipped..).unwrap_or_default();
            let here = missing.min(words.len() * 8);
            each(words, here)?;
            missing -= here;
            if missing == 0 && skip == 0 {
                return Ok(());
            }
            let next = run.next;
            run = self.run(next)?;
            if run.kind != RunKind::Continuation {
                return Err(Corrupt);
            }
            start = at(next, 1);
            end = at(next + run.size, 0);
        }
        Err(Corrupt)
    }

    /// Removes the entry under `key`. True where it was there, neither expired nor cleared.
    pub fn remove(&self, key: KeyHash, now: u64) -> Result<bool, Corrupt> {
        let Some((block, before)) = self.lookup(key)? else { return Ok(false) };
        let alive = !self.is_gone(block, now)?;
        self.unlink_after(block, before, key)?;
        self.free_entry(block)?;
        self.add(if alive { DELETES } else { EXPIRATIONS }, 1)?;
        Ok(alive)
    }

    /// Changes when the entry under `key` is over. False where there is none.
    pub fn touch(&self, key: KeyHash, now: u64, expiry: u64) -> Result<bool, Corrupt> {
        let Some(found) = self.find(key, now)? else { return Ok(false) };
        self.move_expiry(found.block, expiry)?;
        if found.meta & KEPT != 0 {
            self.keep_no_longer(found.block)?;
        }
        Ok(true)
    }

    /// Moves the end of an entry while others may read it; shared lock. False where that takes the exclusive lock, and
    /// [`Self::touch`]: one that never expired isn't listed yet, one that is kept has two ends.
    pub fn slide(&self, found: Found, expiry: u64) -> Result<bool, Corrupt> {
        if found.meta & KEPT != 0 {
            return Ok(false);
        }
        if found.expiry == NEVER || expiry == NEVER {
            return Ok(found.expiry == expiry);
        }
        self.set(at(found.block, EXPIRY), expiry)?;
        Ok(true)
    }

    /// Ends every entry that the database has published so far, in O(1): their memory returns as the hand or
    /// [`Self::sweep`] comes by.
    pub fn clear(&self, database: u32) -> Result<(), Corrupt> {
        let slot = usize::try_from(cleared_slot(database)).map_err(|_| Corrupt)?;
        let stamp = self.get(SEQUENCE)?;
        self.set(CLEARED + slot, stamp)?;
        self.set(LAST_CLEARED, stamp)
    }

    /// The same for every entry with any tags.
    pub fn clear_tagged(&self, database: u32) -> Result<(), Corrupt> {
        let slot = usize::try_from(cleared_slot(database)).map_err(|_| Corrupt)?;
        self.set(TAGGED_CLEARED + slot, self.get(SEQUENCE)?)
    }

    /// Frees an entry that is out of its chain already.
    pub(super) fn free_entry(&self, block: u32) -> Result<(), Corrupt> {
        self.unlist_expiry(block)?;
        let len = self.value_len(block)?;
        self.subtract(ENTRIES, 1)?;
        self.subtract(VALUE_BYTES, len as u64)?;
        self.give_chain(block)
    }

    /// The run that continues a value, for walks over all of it.
    pub(super) fn continued_by(&self, block: u32) -> Result<u32, Corrupt> {
        Ok(self.run(block)?.next)
    }
}

/// Copies `out.len()` bytes from words that hold at least as many.
#[inline]
pub(super) fn read_bytes(words: Words<'_>, out: &mut [u8]) {
    let (chunks, rest) = out.as_chunks_mut::<8>();
    for (chunk, word) in chunks.iter_mut().zip(words) {
        *chunk = word.load(std::sync::atomic::Ordering::Relaxed).to_ne_bytes();
    }
    if let Some(word) = words.get(chunks.len()) {
        let bytes = word.load(std::sync::atomic::Ordering::Relaxed).to_ne_bytes();
        rest.iter_mut().zip(bytes).for_each(|(to, from)| *to = from);
    }
}

const _: () = {
    assert!(LINKS < BLOCK_WORDS);
};

/// What of this file the layout version depends on.
pub(super) const LAYOUT: u64 = fingerprint![
    CHAIN, KEY_HIGH, KEY_LOW, EXPIRY, META, STAMP, LINKS, KIND_BYTES, KEPT, SLOT_SHIFT, USE_SHIFT, TAGS_SHIFT,
    TAGS_MASK, NAME_SHIFT, NAME_MASK, PREFIX, USE_MAX, NEVER
];

/// Words of the name that an entry's META tells of.
#[inline]
pub(super) fn name_words(meta: u64) -> usize {
    // One more than the length, or 0: both round to the same for no name.
    ((meta >> NAME_SHIFT & NAME_MASK) as usize + 6) / 8
}
