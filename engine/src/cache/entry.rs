//! Entries: finding, copying, and writing them in two halves.
//!
//! An entry's first block is its head: what it is, its key, its expiry and its links. The value follows in the same run
//! and, past its end, in the continuation runs, each after that run's first word.

use super::arena::{RUN, Run, RunKind};
use super::layout::{
    BLOCK_BYTES, BLOCK_WORDS, CLEARED, CLEARED_SLOTS, DELETES, ENTRIES, EPOCH, EVICTIONS, EXPIRATIONS, FREE_BLOCKS,
    MAX_VALUE, NIL, Partition, RESERVED_BLOCKS, SEQUENCE, SETS, VALUE_BYTES, at, high, narrow, pair,
};
use crate::hash::KeyHash;
use crate::words::{Corrupt, Words, part};

/// Chain link, and the value's length in bytes.
pub(super) const CHAIN: usize = RUN + 1;
pub(super) const KEY_HIGH: usize = 2;
pub(super) const KEY_LOW: usize = 3;
/// Microseconds, or [`NEVER`].
pub(super) const EXPIRY: usize = 4;
/// Kind, slot of the clear stamps, use count.
pub(super) const META: usize = 5;
/// Sequence number of the publication.
pub(super) const STAMP: usize = 6;
/// Links of the expiry list.
pub(super) const LINKS: usize = 7;

const KIND_BYTES: u64 = 1;
const SLOT_SHIFT: u32 = 8;
const USE_SHIFT: u32 = 16;
/// Largest use count: an entry in frequent use survives as many passes of the hand.
const USE_MAX: u64 = 3;

/// The expiry of an entry that doesn't expire.
pub const NEVER: u64 = u64::MAX;

/// Runs that one call to [`Partition::reserve`] takes, frees or looks at.
const WORK: u32 = 128;

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
    /// Bytes of the value.
    pub len: usize,
    /// When it is over.
    pub expiry: u64,
    /// What the bytes mean.
    pub kind: Kind,
    /// Which publication it is; no other has the same.
    pub stamp: u64,
}

/// How far [`Partition::reserve`] got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// The memory is there: fill it.
    Ready,
    /// Let others have the lock, then call again.
    More,
    /// It can't be had: the value is larger than the partition, or others have reserved what it would need. Nothing
    /// stays reserved.
    Full,
}

/// Memory for a value that isn't published yet. Ends in [`Partition::publish`] or [`Partition::release`], which leave
/// it void; one that is dropped instead keeps its memory until the partition is formatted.
#[derive(Debug)]
#[must_use]
pub struct Reservation {
    epoch: u64,
    len: usize,
    head: u32,
    tail: u32,
    /// Bytes for which there is no run yet.
    missing: u64,
    /// Blocks of its runs.
    blocks: u64,
    /// Blocks that the CLOCK hand passed for it.
    pub(super) passed: u64,
}

impl Reservation {
    /// Asks for `len` bytes; nothing is reserved yet.
    pub fn new(len: usize) -> Self {
        Self { epoch: 0, len, head: NIL, tail: NIL, missing: len as u64, blocks: 0, passed: 0 }
    }

    /// Bytes asked for.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether the value is empty.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

/// The slot of the clear stamps for a database. Databases that share one are cleared together, which costs them a warm
/// cache and nothing else.
fn cleared_slot(database: u32) -> u64 {
    u64::from(database.wrapping_mul(0x9E37_79B1) >> 24)
}

/// Blocks that `bytes` take.
fn blocks_for(bytes: u64) -> u64 {
    bytes.div_ceil(BLOCK_BYTES)
}

impl<'a> Partition<'a> {
    /// The entry under `key`, if there is one that is neither expired nor cleared. Counts nothing, but marks it used.
    #[inline]
    pub fn find(&self, key: KeyHash, now: u64) -> Result<Option<Found>, Corrupt> {
        let Some((block, _)) = self.lookup(key)? else { return Ok(None) };
        if self.is_dead(block, now)? {
            return Ok(None);
        }
        let meta = self.get(at(block, META))?;
        // Lost updates between readers don't matter, and nobody else changes this word under the shared lock.
        if meta >> USE_SHIFT & USE_MAX < USE_MAX {
            self.set(at(block, META), meta.wrapping_add(1 << USE_SHIFT))?;
        }
        let expiry = self.get(at(block, EXPIRY))?;
        let kind = if meta & KIND_BYTES == 0 { Kind::Json } else { Kind::Bytes };
        Ok(Some(Found { block, len: self.value_len(block)?, expiry, kind, stamp: self.get(at(block, STAMP))? }))
    }

    /// Whether the entry is expired or cleared.
    #[inline]
    pub(super) fn is_dead(&self, block: u32, now: u64) -> Result<bool, Corrupt> {
        if self.get(at(block, EXPIRY))? <= now {
            return Ok(true);
        }
        let slot = self.get(at(block, META))? >> SLOT_SHIFT & (CLEARED_SLOTS as u64 - 1);
        let slot = usize::try_from(slot).map_err(|_| Corrupt)?;
        Ok(self.get(at(block, STAMP))? <= self.get(CLEARED + slot)?)
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
        self.each_piece(found.block, found.len, |piece, len| {
            let (now, later) = std::mem::take(&mut out).split_at_mut_checked(len).ok_or(Corrupt)?;
            read_bytes(piece, now);
            out = later;
            Ok(())
        })
    }

    /// Calls `each` with the words of every run of a value and the number of its bytes there.
    #[inline]
    fn each_piece(
        &self,
        head: u32,
        len: usize,
        mut each: impl FnMut(Words<'a>, usize) -> Result<(), Corrupt>,
    ) -> Result<(), Corrupt> {
        let mut run = self.run(head)?;
        let mut start = at(head, BLOCK_WORDS);
        let mut end = at(head + run.size, 0);
        let mut missing = len;
        // Every run but the first holds at least 7 words, so a longer chain runs in a circle.
        for _ in 0..len / 56 + 2 {
            let words = part(self.words, start, end.checked_sub(start).ok_or(Corrupt)?)?;
            let here = missing.min(words.len() * 8);
            each(words, here)?;
            missing -= here;
            if missing == 0 {
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

    /// Works on finding the memory, evicting what it must.
    pub fn reserve(&self, request: &mut Reservation, now: u64) -> Result<Progress, Corrupt> {
        let epoch = self.get(EPOCH)?;
        if request.epoch != epoch {
            *request = Self::request(epoch, request.len);
        }
        for _ in 0..WORK {
            if request.head != NIL && request.missing == 0 {
                return Ok(Progress::Ready);
            }
            let overhead = if request.head == NIL { BLOCK_BYTES } else { 8 };
            let wanted = blocks_for(request.missing + overhead);
            // What isn't reserved can be freed, so this is the only way to be full.
            if wanted.saturating_add(self.get(RESERVED_BLOCKS)?) > u64::from(self.end - self.first)
                || request.len > MAX_VALUE
            {
                self.release(request)?;
                *request = Self::request(epoch, request.len);
                return Ok(Progress::Full);
            }
            // Waiting until all of it is free, instead of taking what there is, lets neighbours coalesce first.
            if self.get(FREE_BLOCKS)? >= wanted {
                self.take_into(request, narrow(wanted)?)?;
            } else {
                self.make_room(request, now)?;
            }
        }
        Ok(Progress::More)
    }

    fn request(epoch: u64, len: usize) -> Reservation {
        Reservation { epoch, ..Reservation::new(len) }
    }

    /// Takes a run and appends it to the reservation.
    fn take_into(&self, request: &mut Reservation, wanted: u32) -> Result<(), Corrupt> {
        let (block, size) = self.take(wanted)?.ok_or(Corrupt)?;
        let bytes = u64::from(size) * BLOCK_BYTES;
        if request.head == NIL {
            self.set_run(block, Run { kind: RunKind::Reserved, ..self.run(block)? })?;
            self.set(at(block, CHAIN), pair(NIL, narrow(request.len as u64)?))?;
            request.head = block;
            request.missing = request.missing.saturating_sub(bytes - BLOCK_BYTES);
        } else {
            let tail = self.run(request.tail)?;
            self.set_run(request.tail, Run { next: block, ..tail })?;
            request.missing = request.missing.saturating_sub(bytes - 8);
        }
        request.tail = block;
        request.blocks += u64::from(size);
        self.add(RESERVED_BLOCKS, u64::from(size))
    }

    /// Whether the reservation is of this formatting of the partition and complete.
    fn holds(&self, reservation: &Reservation) -> Result<bool, Corrupt> {
        if reservation.head == NIL || reservation.missing != 0 || self.get(EPOCH)? != reservation.epoch {
            return Ok(false);
        }
        if self.run(reservation.head)?.kind == RunKind::Reserved { Ok(true) } else { Err(Corrupt) }
    }

    /// Copies the value into what was reserved; shared lock is enough. False where the reservation is void or `value`
    /// isn't of its length.
    pub fn fill(&self, reservation: &Reservation, value: &[u8]) -> Result<bool, Corrupt> {
        if value.len() != reservation.len || !self.holds(reservation)? {
            return Ok(false);
        }
        let mut value = value;
        self.each_piece(reservation.head, value.len(), |piece, len| {
            let (now, later) = value.split_at_checked(len).ok_or(Corrupt)?;
            write_bytes(piece, now);
            value = later;
            Ok(())
        })?;
        Ok(true)
    }

    /// Puts the value under its key, in place of what was there. A void reservation leaves the key absent, so that
    /// an older value can't stay, and counts as an eviction. True where it was published. The reservation is void
    /// afterwards.
    pub fn publish(&self, reservation: &mut Reservation, item: &Item) -> Result<bool, Corrupt> {
        let old = self.lookup(item.key)?;
        if let Some((block, before)) = old {
            self.unlink_after(block, before, item.key)?;
            self.free_entry(block)?;
        }
        if !self.holds(reservation)? {
            self.release(reservation)?;
            self.add(EVICTIONS, 1)?;
            return Ok(false);
        }
        self.subtract(RESERVED_BLOCKS, reservation.blocks)?;
        let block = std::mem::replace(&mut reservation.head, NIL);
        let stamp = self.get(SEQUENCE)?.wrapping_add(1);
        self.set(SEQUENCE, stamp)?;
        self.set(at(block, KEY_HIGH), item.key.high)?;
        self.set(at(block, KEY_LOW), item.key.low)?;
        self.set(at(block, EXPIRY), item.expiry)?;
        let kind = match item.kind {
            Kind::Json => 0,
            Kind::Bytes => KIND_BYTES,
        };
        self.set(at(block, META), kind | cleared_slot(item.database) << SLOT_SHIFT)?;
        self.set(at(block, STAMP), stamp)?;
        self.set_run(block, Run { kind: RunKind::Entry, ..self.run(block)? })?;
        self.link(block, item.key)?;
        self.list_expiry(block, item.expiry)?;
        self.add(ENTRIES, 1)?;
        self.add(VALUE_BYTES, reservation.len as u64)?;
        self.add(SETS, 1)?;
        Ok(true)
    }

    /// Gives reserved memory back, also of a reservation that isn't complete. It is void afterwards.
    pub fn release(&self, reservation: &mut Reservation) -> Result<(), Corrupt> {
        let head = std::mem::replace(&mut reservation.head, NIL);
        if head == NIL || self.get(EPOCH)? != reservation.epoch {
            return Ok(());
        }
        if self.run(head)?.kind != RunKind::Reserved {
            return Err(Corrupt);
        }
        self.subtract(RESERVED_BLOCKS, reservation.blocks)?;
        self.give_chain(head)
    }

    /// Removes the entry under `key`. True where it was there, neither expired nor cleared.
    pub fn remove(&self, key: KeyHash, now: u64) -> Result<bool, Corrupt> {
        let Some((block, before)) = self.lookup(key)? else { return Ok(false) };
        let alive = !self.is_dead(block, now)?;
        self.unlink_after(block, before, key)?;
        self.free_entry(block)?;
        self.add(if alive { DELETES } else { EXPIRATIONS }, 1)?;
        Ok(alive)
    }

    /// Changes when the entry under `key` is over. False where there is none.
    pub fn touch(&self, key: KeyHash, now: u64, expiry: u64) -> Result<bool, Corrupt> {
        let Some(found) = self.find(key, now)? else { return Ok(false) };
        self.unlist_expiry(found.block)?;
        self.set(at(found.block, EXPIRY), expiry)?;
        self.list_expiry(found.block, expiry)?;
        Ok(true)
    }

    /// Moves the end of an entry while others may read it; shared lock. False where that takes the exclusive lock, and
    /// [`Self::touch`]: one that never expired isn't listed yet.
    ///
    /// The entry stays listed by its earlier expiry, at which [`super::expiry`] finds the new one and lists it again.
    pub fn slide(&self, found: Found, expiry: u64) -> Result<bool, Corrupt> {
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
        self.set(CLEARED + slot, self.get(SEQUENCE)?)
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
fn read_bytes(words: Words<'_>, out: &mut [u8]) {
    let (chunks, rest) = out.as_chunks_mut::<8>();
    for (chunk, word) in chunks.iter_mut().zip(words) {
        *chunk = word.load(std::sync::atomic::Ordering::Relaxed).to_ne_bytes();
    }
    if let Some(word) = words.get(chunks.len()) {
        let bytes = word.load(std::sync::atomic::Ordering::Relaxed).to_ne_bytes();
        rest.iter_mut().zip(bytes).for_each(|(to, from)| *to = from);
    }
}

/// The other way round; the last word's spare bytes become zero.
#[inline]
fn write_bytes(words: Words<'_>, value: &[u8]) {
    let (chunks, rest) = value.as_chunks::<8>();
    for (chunk, word) in chunks.iter().zip(words) {
        word.store(u64::from_ne_bytes(*chunk), std::sync::atomic::Ordering::Relaxed);
    }
    if let (Some(word), false) = (words.get(chunks.len()), rest.is_empty()) {
        let mut last = [0; 8];
        last.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
        word.store(u64::from_ne_bytes(last), std::sync::atomic::Ordering::Relaxed);
    }
}

const _: () = {
    assert!(LINKS < BLOCK_WORDS);
};
