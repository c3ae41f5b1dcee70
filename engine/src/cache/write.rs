//! Writing in two halves: memory is reserved and filled first, and published under its key later.

use super::arena::{RUN, Run, RunKind};
use super::entry::{
    CHAIN, EXPIRY, Item, KEPT, KEY_HIGH, KEY_LOW, KIND_BYTES, Kind, META, NAME_SHIFT, PREFIX, SLOT_SHIFT, STAMP,
    TAGS_SHIFT, USE_MAX, USE_SHIFT, cleared_slot,
};
use super::layout::MAX_TAGS;
use super::layout::{
    BLOCK_BYTES, BLOCK_WORDS, ENTRIES, EPOCH, EVICTIONS, FREE_BLOCKS, MAX_VALUE, NIL, Partition, RESERVED_BLOCKS,
    SEQUENCE, SETS, VALUE_BYTES, at, high, low, narrow, pair,
};
use super::names::name_bits;
use super::tags::Tags;
use crate::words::{Corrupt, Words, part};
use std::sync::atomic::Ordering::Relaxed;

/// Runs that one call to [`Partition::reserve`] takes, frees or looks at.
const WORK: u32 = 128;

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
    tags: Tags,
    /// When its time is over, if it is to be kept longer.
    over: Option<u64>,
    /// Bytes of its name and 1 more, or 0 where that isn't to be kept.
    name: u32,
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
        Self::tagged(len, Tags::default())
    }

    /// The same for a value with tags.
    pub fn tagged(len: usize, tags: Tags) -> Self {
        Self::kept(len, tags, None)
    }

    /// The same for a value whose time is over at `over`, but that is kept until the expiry with which it is published:
    /// [`Partition::find_kept`] finds it until then.
    pub fn kept(len: usize, tags: Tags, over: Option<u64>) -> Self {
        let missing = (len + (tags.hashes().len() + usize::from(over.is_some())) * 8) as u64;
        Self { epoch: 0, len, tags, over, name: 0, head: NIL, tail: NIL, missing, blocks: 0, passed: 0 }
    }

    /// Asks for room for the value's name, if it is to be kept: [`Partition::names`] tells it. Before anything is reserved.
    #[inline]
    pub fn keep_name(&mut self, name: Option<&[u8]>) {
        if let Some(name) = name {
            self.name = name.len() as u32 + 1;
            self.missing += padded(name.len() as u64);
        }
    }

    /// The value's tags.
    pub fn tags(&self) -> &Tags {
        &self.tags
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

/// Bytes of the words that `bytes` take.
fn padded(bytes: u64) -> u64 {
    bytes.next_multiple_of(8)
}

/// Blocks that `bytes` take.
fn blocks_for(bytes: u64) -> u64 {
    bytes.div_ceil(BLOCK_BYTES)
}

impl Partition<'_> {
    /// Works on finding the memory, evicting what it must.
    pub fn reserve(&self, request: &mut Reservation, now: u64) -> Result<Progress, Corrupt> {
        let epoch = self.get(EPOCH)?;
        if request.epoch != epoch {
            *request = Self::request(epoch, request);
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
                *request = Self::request(epoch, request);
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

    fn request(epoch: u64, request: &Reservation) -> Reservation {
        let anew = Reservation::kept(request.len, request.tags, request.over);
        let name = padded(u64::from(request.name).saturating_sub(1));
        Reservation { epoch, name: request.name, missing: anew.missing + name, ..anew }
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
        self.fill_named(reservation, None, value)
    }

    /// The same with a name, which the reservation must be for.
    #[inline]
    pub fn fill_named(&self, reservation: &Reservation, name: Option<&[u8]>, value: &[u8]) -> Result<bool, Corrupt> {
        let of_name = name.map_or(0, |name| name.len() as u32 + 1);
        if value.len() != reservation.len || of_name != reservation.name || !self.holds(reservation)? {
            return Ok(false);
        }
        let mut prefix = [0; MAX_TAGS + 1];
        let words = reservation.over.iter().chain(reservation.tags.hashes());
        let count = prefix.iter_mut().zip(words).map(|(to, &from)| *to = from).count();
        let mut rest = prefix.get(..count).ok_or(Corrupt)?;
        if count > 0 {
            self.each_piece(reservation.head, 0, count * 8, |piece, len| {
                let (now, later) = rest.split_at_checked(len / 8).ok_or(Corrupt)?;
                piece.iter().zip(now).for_each(|(word, &from)| word.store(from, Relaxed));
                rest = later;
                Ok(())
            })?;
        }
        let mut skip = count;
        if let Some(name) = name {
            self.write_behind(reservation.head, skip, name)?;
            skip += name.len().div_ceil(8);
        }
        self.write_behind(reservation.head, skip, value)?;
        Ok(true)
    }

    /// Copies bytes to where they lie `skip` words behind a head.
    #[inline(always)]
    fn write_behind(&self, head: u32, skip: usize, bytes: &[u8]) -> Result<(), Corrupt> {
        let mut bytes = bytes;
        self.each_piece(head, skip, bytes.len(), |piece, len| {
            let (now, later) = bytes.split_at_checked(len).ok_or(Corrupt)?;
            write_bytes(piece, now);
            bytes = later;
            Ok(())
        })
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
        let tags = reservation.tags.hashes().len() as u64;
        let kept = if reservation.over.is_some() { KEPT } else { 0 };
        let name = u64::from(reservation.name) << NAME_SHIFT;
        let slot = cleared_slot(item.database) << SLOT_SHIFT;
        self.set(at(block, META), kind | kept | slot | tags << TAGS_SHIFT | name)?;
        self.set(at(block, STAMP), stamp)?;
        self.set_run(block, Run { kind: RunKind::Entry, ..self.run(block)? })?;
        self.link(block, item.key)?;
        self.list_expiry(block, item.expiry)?;
        self.add(ENTRIES, 1)?;
        self.add(VALUE_BYTES, reservation.len as u64)?;
        self.add(SETS, 1)?;
        Ok(true)
    }

    /// Puts a value with nothing before it but its name, if it has one, over the entry under its key, where that has no more
    /// either and lies in one run of just the size that the value takes: the chain and the free lists stay as they are, so
    /// that only the entry's own lines are touched. False where there is no such entry; then nothing was done.
    #[inline(always)]
    pub fn overwrite(&self, item: &Item, name: Option<&[u8]>, value: &[u8]) -> Result<bool, Corrupt> {
        let Some((block, _)) = self.lookup(item.key)? else { return Ok(false) };
        let head = self.head(block)?;
        let (run, meta) = (Run::decode(head[RUN].load(Relaxed)), head[META].load(Relaxed));
        // The same key has the same name.
        let (before, skip) = (name_bits(name), name.map_or(0, |name| name.len().div_ceil(8)));
        if run.next != NIL
            || u64::from(run.size) != blocks_for((value.len() + skip * 8) as u64 + BLOCK_BYTES)
            || meta & PREFIX != before
        {
            return Ok(false);
        }
        write_bytes(part(self.words, at(block, BLOCK_WORDS + skip), value.len().div_ceil(8))?, value);
        let stamp = self.get(SEQUENCE)?.wrapping_add(1);
        self.set(SEQUENCE, stamp)?;
        self.add(SETS, 1)?;
        if head[EXPIRY].load(Relaxed) != item.expiry {
            self.move_expiry(block, item.expiry)?;
        }
        let chain = head[CHAIN].load(Relaxed);
        if u64::from(high(chain)) != value.len() as u64 {
            self.change_len(block, chain, narrow(value.len() as u64)?)?;
        }
        let kind = match item.kind {
            Kind::Json => 0,
            Kind::Bytes => KIND_BYTES,
        };
        // A session that writes an entry uses it: what it was used before counts on.
        let used = meta & USE_MAX << USE_SHIFT;
        head[META].store(kind | used | before | cleared_slot(item.database) << SLOT_SHIFT, Relaxed);
        head[STAMP].store(stamp, Relaxed);
        Ok(true)
    }

    fn change_len(&self, block: u32, chain: u64, len: u32) -> Result<(), Corrupt> {
        self.subtract(VALUE_BYTES, u64::from(high(chain)))?;
        self.add(VALUE_BYTES, u64::from(len))?;
        self.set(at(block, CHAIN), pair(low(chain), len))
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
}

/// Copies bytes into words that have room for them; the last word's spare bytes become zero.
#[inline]
fn write_bytes(words: Words<'_>, value: &[u8]) {
    let (chunks, rest) = value.as_chunks::<8>();
    for (chunk, word) in chunks.iter().zip(words) {
        word.store(u64::from_ne_bytes(*chunk), Relaxed);
    }
    if let (Some(word), false) = (words.get(chunks.len()), rest.is_empty()) {
        let mut last = [0; 8];
        last.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
        word.store(u64::from_ne_bytes(last), Relaxed);
    }
}
