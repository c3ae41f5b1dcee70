//! Which entry's time is over, without looking at the others.
//!
//! A radix heap (Ahuja, Mehlhorn, Orlin and Tarjan, "Faster algorithms for the shortest path problem", 1990) over time in
//! ticks of 65.536 ms: list `i` holds the entries whose tick first differs from the last tick looked at in bit `i`. When
//! time moves on by a change in bit `d`, every list below `d` is due as a whole, list `d` is sorted again, entry by
//! entry and as work allows, and the lists above stay as they are. An entry moves only downward, so it moves a few
//! times in its life, however long it is.
//!
//! The lists are doubly linked and circular through anchors in the header, so that an entry leaves its list in O(1)
//! without knowing which it is in. An entry that never expires is in none.
//!
//! An entry whose expiry moves on stays listed by the earlier one: when that is due, the entry is found not to be over
//! and listed by what it has by then. So whatever is set or touched again and again is listed once per time to live, and
//! a set changes no lines but the entry's own, instead of those of its neighbours in two lists.

use super::entry::{EXPIRY, LINKS, NEVER};
use super::layout::{ANCHORS, ANCHORS_MAX, LAST_TICK, Partition, at, high, low, pair};
use crate::fingerprint;
use crate::words::Corrupt;

/// Microseconds of a tick, as a shift.
const TICK_SHIFT: u32 = 16;
/// Bits in a tick, and thus lists.
const LISTS: u32 = 64 - TICK_SHIFT;
/// The list of entries that are due.
const DUE: u32 = LISTS;
/// The list that is being sorted again.
const PENDING: u32 = LISTS + 1;
/// Number of anchors in use.
pub(super) const ANCHOR_COUNT: u32 = LISTS + 2;
/// A link with this bit names an anchor, not a block.
const ANCHOR: u32 = 1 << 31;
/// The links of an entry that is in no list: block 0 is never an entry.
const UNLISTED: u64 = 0;

const _: () = assert!(ANCHOR_COUNT as usize <= ANCHORS_MAX);

/// What [`Partition::expire_step`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Sorted, or moved the time on.
    Worked,
    /// This entry's time is over: it's still listed and linked.
    Expired(u32),
    /// Nothing is due.
    Idle,
}

/// The first tick at which an entry with this expiry is over.
fn tick_of(expiry: u64) -> u64 {
    (expiry >> TICK_SHIFT) + u64::from(expiry & ((1 << TICK_SHIFT) - 1) != 0)
}

impl Partition<'_> {
    pub(super) fn format_anchors(&self) -> Result<(), Corrupt> {
        (0..ANCHOR_COUNT).try_for_each(|list| self.set_links(ANCHOR | list, ANCHOR | list, ANCHOR | list))
    }

    /// Word of the links of a block or an anchor.
    fn links_at(&self, node: u32) -> Result<usize, Corrupt> {
        if node & ANCHOR == 0 {
            self.run(node)?;
            return Ok(at(node, LINKS));
        }
        let list = node & !ANCHOR;
        if list < ANCHOR_COUNT { Ok(ANCHORS + list as usize) } else { Err(Corrupt) }
    }

    fn links(&self, node: u32) -> Result<(u32, u32), Corrupt> {
        let word = self.get(self.links_at(node)?)?;
        Ok((low(word), high(word)))
    }

    fn set_links(&self, node: u32, next: u32, prev: u32) -> Result<(), Corrupt> {
        self.set(self.links_at(node)?, pair(next, prev))
    }

    /// The node after `node`; `None` at the list's end.
    fn listed_after(&self, node: u32) -> Result<Option<u32>, Corrupt> {
        let (next, _) = self.links(node)?;
        Ok((next & ANCHOR == 0).then_some(next))
    }

    /// First entry of a list.
    pub(super) fn listed_first(&self, list: u32) -> Result<Option<u32>, Corrupt> {
        self.listed_after(ANCHOR | list)
    }

    /// The entry after another in its list.
    pub(super) fn listed_next(&self, block: u32) -> Result<Option<u32>, Corrupt> {
        self.listed_after(block)
    }

    fn push(&self, list: u32, block: u32) -> Result<(), Corrupt> {
        let anchor = ANCHOR | list;
        let (head, tail) = self.links(anchor)?;
        self.set_links(block, head, anchor)?;
        if head == anchor {
            return self.set_links(anchor, block, block);
        }
        self.set_links(anchor, block, tail)?;
        let (next, _) = self.links(head)?;
        self.set_links(head, next, block)
    }

    /// Lists an entry by its expiry.
    pub(super) fn list_expiry(&self, block: u32, expiry: u64) -> Result<(), Corrupt> {
        if expiry == NEVER {
            return self.set(at(block, LINKS), UNLISTED);
        }
        let (tick, last) = (tick_of(expiry), self.get(LAST_TICK)?);
        self.push(if tick <= last { DUE } else { (tick ^ last).ilog2().min(LISTS - 1) }, block)
    }

    /// Changes when an entry is over.
    #[inline]
    pub(super) fn move_expiry(&self, block: u32, expiry: u64) -> Result<(), Corrupt> {
        let old = self.get(at(block, EXPIRY))?;
        self.set(at(block, EXPIRY), expiry)?;
        if expiry >= old {
            return Ok(());
        }
        self.unlist_expiry(block)?;
        self.list_expiry(block, expiry)
    }

    /// Takes an entry out of its list, if it's in one.
    pub(super) fn unlist_expiry(&self, block: u32) -> Result<(), Corrupt> {
        if !self.is_listed(block)? {
            return Ok(());
        }
        let (next, prev) = self.links(block)?;
        let (before_next, before_prev) = (self.links(next)?, self.links(prev)?);
        if before_next.1 != block || before_prev.0 != block {
            return Err(Corrupt);
        }
        self.set_links(next, before_next.0, prev)?;
        // Read again: both neighbours may be the same anchor.
        let (_, prev_prev) = self.links(prev)?;
        self.set_links(prev, next, prev_prev)?;
        self.set(at(block, LINKS), UNLISTED)
    }

    /// Whether an entry is in a list.
    pub(super) fn is_listed(&self, block: u32) -> Result<bool, Corrupt> {
        Ok(self.get(at(block, LINKS))? != UNLISTED)
    }

    /// Appends all of one list to another.
    fn splice(&self, from: u32, to: u32) -> Result<(), Corrupt> {
        let (from, to) = (ANCHOR | from, ANCHOR | to);
        let (first, last) = self.links(from)?;
        if first == from {
            return Ok(());
        }
        let (to_first, to_last) = self.links(to)?;
        let (first_next, _) = self.links(first)?;
        self.set_links(first, first_next, to_last)?;
        let (_, last_prev) = self.links(last)?;
        self.set_links(last, to, last_prev)?;
        if to_last == to {
            self.set_links(to, first, last)?;
        } else {
            let (_, before) = self.links(to_last)?;
            self.set_links(to_last, first, before)?;
            self.set_links(to, to_first, last)?;
        }
        self.set_links(from, from, from)
    }

    /// Does one piece of the work up to `now` (microseconds).
    pub(super) fn expire_step(&self, now: u64) -> Result<Step, Corrupt> {
        let last = self.get(LAST_TICK)?;
        if let Some(block) = self.listed_first(DUE)? {
            let expiry = self.get(at(block, EXPIRY))?;
            if expiry > now && tick_of(expiry) > last {
                // Its expiry was moved while it was listed.
                self.unlist_expiry(block)?;
                self.list_expiry(block, expiry)?;
                return Ok(Step::Worked);
            }
            // Where it isn't over though due, the clock was set back: giving it up early beats holding up the others.
            return Ok(Step::Expired(block));
        }
        if let Some(block) = self.listed_first(PENDING)? {
            self.unlist_expiry(block)?;
            self.list_expiry(block, self.get(at(block, EXPIRY))?)?;
            return Ok(Step::Worked);
        }
        let tick = now >> TICK_SHIFT;
        if tick <= last {
            return Ok(Step::Idle);
        }
        let changed = (tick ^ last).ilog2().min(LISTS - 1);
        self.set(LAST_TICK, tick)?;
        for list in 0..changed {
            self.splice(list, DUE)?;
        }
        self.splice(changed, PENDING)?;
        Ok(Step::Worked)
    }
}

/// What of this file the layout version depends on.
pub(super) const LAYOUT: u64 = fingerprint![TICK_SHIFT, LISTS, DUE, PENDING, ANCHOR_COUNT, ANCHOR, UNLISTED];
