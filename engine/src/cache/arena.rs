//! The arena: runs of 64-byte blocks, with free lists by size class.
//!
//! Segregated fits in two levels with boundary tags, after Masmano, Ripoll, Crespo and Real, "TLSF: a new dynamic memory
//! allocator for real-time systems" (2004): taking and giving back are O(1) and neighbours coalesce at once. Different
//! from there, a request that no run can satisfy whole takes the largest there is and the caller comes back for the
//! rest: that is what lets every free block serve every value.
//!
//! A run's first word says its size, what it is, whether the run before it is free, and, in a value's run, which run
//! continues it. A free run also holds its list links in the second word and its size in the last.

use super::layout::{
    CLASS_BIT_WORDS, CLASS_BITS, CLASS_HEADS, CLASSES, CLOCK_HAND, FREE_BLOCKS, NIL, PENDING_FREE, Partition, at, high,
    low, narrow, pair,
};
use crate::fingerprint;
use crate::words::Corrupt;

/// First word of every run.
pub(super) const RUN: usize = 0;
/// Links of a free run: next, previous.
const FREE_LINKS: usize = 1;
/// In a pending free run, the next chain of pending free runs.
const PENDING_FREE_LINK: usize = 1;

/// Runs freed in one go when a value goes; the rest waits as pending free.
const RUNS_AT_ONCE: usize = 64;

const SIZE_BITS: u32 = 27;
const SIZE_MASK: u32 = (1 << SIZE_BITS) - 1;
const PREV_FREE: u32 = 1 << 29;

/// What a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RunKind {
    /// In a free list.
    Free,
    /// Part of a value that starts elsewhere.
    Continuation,
    /// Where a published entry starts.
    Entry,
    /// Where a reservation starts.
    Reserved,
}

/// A run's first word, taken apart.
#[derive(Debug, Clone, Copy)]
pub(super) struct Run {
    /// In blocks, at least 1.
    pub(super) size: u32,
    pub(super) kind: RunKind,
    /// Whether the run that ends where this one starts is free.
    pub(super) prev_free: bool,
    /// The run that continues the value.
    pub(super) next: u32,
}

impl Run {
    #[inline]
    pub(super) fn decode(word: u64) -> Self {
        let bits = low(word);
        let kind = match bits >> SIZE_BITS & 3 {
            0 => RunKind::Free,
            1 => RunKind::Continuation,
            2 => RunKind::Entry,
            _ => RunKind::Reserved,
        };
        Self { size: bits & SIZE_MASK, kind, prev_free: bits & PREV_FREE != 0, next: high(word) }
    }

    #[inline]
    fn encode(self) -> u64 {
        let kind = match self.kind {
            RunKind::Free => 0,
            RunKind::Continuation => 1,
            RunKind::Entry => 2,
            RunKind::Reserved => 3,
        };
        pair(self.size & SIZE_MASK | kind << SIZE_BITS | if self.prev_free { PREV_FREE } else { 0 }, self.next)
    }
}

/// The size class that holds runs of `size` blocks: exact below 8, then eight classes to a power of two.
#[inline]
pub(super) fn class_of(size: u32) -> usize {
    if size < 8 {
        return size as usize;
    }
    let magnitude = size.ilog2();
    (magnitude as usize - 2) * 8 + (size >> (magnitude - 3) & 7) as usize
}

/// The first class all of whose runs have at least `size` blocks.
#[inline]
fn class_holding(size: u32) -> usize {
    if size < 8 {
        return size as usize;
    }
    class_of(size.saturating_add((1 << (size.ilog2() - 3)) - 1))
}

impl Partition<'_> {
    /// The run that starts at `block`; `Corrupt` where no run can.
    #[inline]
    pub(super) fn run(&self, block: u32) -> Result<Run, Corrupt> {
        if block < self.first || block >= self.end {
            return Err(Corrupt);
        }
        let run = Run::decode(self.get(at(block, RUN))?);
        if run.size == 0 || run.size > self.end - block { Err(Corrupt) } else { Ok(run) }
    }

    #[inline]
    pub(super) fn set_run(&self, block: u32, run: Run) -> Result<(), Corrupt> {
        self.set(at(block, RUN), run.encode())
    }

    /// Tells the run at `block`, if there is one, whether the run before it is free.
    fn set_prev_free(&self, block: u32, prev_free: bool) -> Result<(), Corrupt> {
        if block >= self.end {
            return Ok(());
        }
        let run = self.run(block)?;
        self.set_run(block, Run { prev_free, ..run })
    }

    fn set_class_bit(&self, class: usize, on: bool) -> Result<(), Corrupt> {
        let index = CLASS_BITS + class / 64;
        let bit = 1 << (class % 64);
        let word = self.get(index)?;
        self.set(index, if on { word | bit } else { word & !bit })
    }

    /// The first run of a size class.
    pub(super) fn class_head(&self, class: usize) -> Result<u32, Corrupt> {
        if class >= CLASSES { Err(Corrupt) } else { self.half(CLASS_HEADS, class) }
    }

    /// The run that follows in a free list, and the one before.
    pub(super) fn free_links(&self, block: u32) -> Result<(u32, u32), Corrupt> {
        let links = self.get(at(block, FREE_LINKS))?;
        Ok((low(links), high(links)))
    }

    fn set_free_links(&self, block: u32, next: u32, prev: u32) -> Result<(), Corrupt> {
        self.set(at(block, FREE_LINKS), pair(next, prev))
    }

    /// The size that a free run ending just before `block` states at its end.
    pub(super) fn size_before(&self, block: u32) -> Result<u32, Corrupt> {
        narrow(self.get(at(block, 0).checked_sub(1).ok_or(Corrupt)?)?)
    }

    /// Makes `size` blocks from `block` on a free run, without looking at its neighbours. Doesn't count.
    pub(super) fn insert_free(&self, block: u32, size: u32) -> Result<(), Corrupt> {
        self.set_run(block, Run { size, kind: RunKind::Free, prev_free: false, next: NIL })?;
        self.set(at(block + size, 0) - 1, u64::from(size))?;
        let class = class_of(size);
        let head = self.class_head(class)?;
        self.set_free_links(block, head, NIL)?;
        if head == NIL {
            self.set_class_bit(class, true)?;
        } else {
            self.run(head)?;
            let (next, _) = self.free_links(head)?;
            self.set_free_links(head, next, block)?;
        }
        self.set_half(CLASS_HEADS, class, block)?;
        self.set_prev_free(block + size, true)
    }

    fn unlink_free(&self, block: u32, size: u32) -> Result<(), Corrupt> {
        let class = class_of(size);
        let (next, prev) = self.free_links(block)?;
        if next != NIL {
            self.run(next)?;
            let (after, _) = self.free_links(next)?;
            self.set_free_links(next, after, prev)?;
        }
        if prev != NIL {
            self.run(prev)?;
            let (_, before) = self.free_links(prev)?;
            return self.set_free_links(prev, next, before);
        }
        if self.class_head(class)? != block {
            return Err(Corrupt);
        }
        self.set_half(CLASS_HEADS, class, next)?;
        if next == NIL { self.set_class_bit(class, false) } else { Ok(()) }
    }

    /// The first class from `from` on that has a run.
    fn class_from(&self, from: usize) -> Result<Option<usize>, Corrupt> {
        for index in from / 64..CLASS_BIT_WORDS {
            let mut word = self.get(CLASS_BITS + index)?;
            if index == from / 64 {
                word &= u64::MAX << (from % 64);
            }
            if word != 0 {
                return Ok(Some(index * 64 + word.trailing_zeros() as usize));
            }
        }
        Ok(None)
    }

    fn largest_class(&self) -> Result<Option<usize>, Corrupt> {
        for index in (0..CLASS_BIT_WORDS).rev() {
            let word = self.get(CLASS_BITS + index)?;
            if word != 0 {
                return Ok(Some(index * 64 + word.ilog2() as usize));
            }
        }
        Ok(None)
    }

    /// A free run of at least `wanted` blocks, else about the largest there is, else `None`.
    fn choose_free(&self, wanted: u32) -> Result<Option<(u32, u32)>, Corrupt> {
        let near = self.class_head(class_of(wanted))?;
        if near != NIL {
            let run = self.run(near)?;
            if run.size >= wanted {
                return Ok(Some((near, run.size)));
            }
        }
        let class = match self.class_from(class_holding(wanted))? {
            Some(class) => class,
            None => match self.largest_class()? {
                Some(class) => class,
                None => return Ok(None),
            },
        };
        let block = self.class_head(class)?;
        Ok(Some((block, self.run(block)?.size)))
    }

    /// Takes up to `wanted` blocks in one run, which becomes a continuation that nothing continues. Fewer where there
    /// is no such run, `None` where nothing is free.
    pub(super) fn take(&self, wanted: u32) -> Result<Option<(u32, u32)>, Corrupt> {
        let wanted = wanted.clamp(1, SIZE_MASK);
        let Some((block, size)) = self.choose_free(wanted)? else { return Ok(None) };
        if self.run(block)?.kind != RunKind::Free {
            return Err(Corrupt);
        }
        self.unlink_free(block, size)?;
        let taken = size.min(wanted);
        if size > taken {
            self.insert_free(block + taken, size - taken)?;
        } else {
            self.set_prev_free(block + size, false)?;
        }
        self.set_run(block, Run { size: taken, kind: RunKind::Continuation, prev_free: false, next: NIL })?;
        self.subtract(FREE_BLOCKS, u64::from(taken))?;
        Ok(Some((block, taken)))
    }

    /// Gives a run back and merges it with free neighbours. Returns the run that continued it.
    fn give(&self, block: u32) -> Result<u32, Corrupt> {
        let run = self.run(block)?;
        if run.kind == RunKind::Free {
            return Err(Corrupt);
        }
        let (mut start, mut size) = (block, run.size);
        let after = block + size;
        if after < self.end {
            let neighbour = self.run(after)?;
            if neighbour.kind == RunKind::Free {
                self.unlink_free(after, neighbour.size)?;
                size += neighbour.size;
            }
        }
        if run.prev_free {
            let before = self.size_before(block)?;
            start = block.checked_sub(before).ok_or(Corrupt)?;
            let neighbour = self.run(start)?;
            if neighbour.kind != RunKind::Free || neighbour.size != before {
                return Err(Corrupt);
            }
            self.unlink_free(start, before)?;
            size += before;
        }
        let hand = self.get(CLOCK_HAND)?;
        if hand > u64::from(start) && hand < u64::from(start + size) {
            self.set(CLOCK_HAND, u64::from(start))?;
        }
        self.insert_free(start, size)?;
        self.add(FREE_BLOCKS, u64::from(run.size))?;
        Ok(run.next)
    }

    /// Gives back a value's runs from `block` on, at most [`RUNS_AT_ONCE`] now; the rest becomes pending free.
    pub(super) fn give_chain(&self, mut block: u32) -> Result<(), Corrupt> {
        for _ in 0..RUNS_AT_ONCE {
            if block == NIL {
                return Ok(());
            }
            block = self.give(block)?;
        }
        if block == NIL { Ok(()) } else { self.doom(block) }
    }

    fn doom(&self, block: u32) -> Result<(), Corrupt> {
        if self.run(block)?.kind != RunKind::Continuation {
            return Err(Corrupt);
        }
        self.set(at(block, PENDING_FREE_LINK), self.get(PENDING_FREE)?)?;
        self.set(PENDING_FREE, u64::from(block))
    }

    /// The chain of pending free runs after the one that starts at `block`.
    pub(super) fn doomed_after(&self, block: u32) -> Result<u32, Corrupt> {
        narrow(self.get(at(block, PENDING_FREE_LINK))?)
    }

    /// Frees some pending free runs; false where there are none.
    pub(super) fn free_pending_free(&self) -> Result<bool, Corrupt> {
        let block = narrow(self.get(PENDING_FREE)?)?;
        if block == NIL {
            return Ok(false);
        }
        self.run(block)?;
        let rest = self.doomed_after(block)?;
        self.set(PENDING_FREE, u64::from(rest))?;
        self.give_chain(block)?;
        Ok(true)
    }
}

/// What of this file the layout version depends on.
pub(super) const LAYOUT: u64 = fingerprint![RUN, FREE_LINKS, PENDING_FREE_LINK, SIZE_BITS, SIZE_MASK, PREV_FREE];
