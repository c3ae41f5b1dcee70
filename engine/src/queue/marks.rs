//! How far the table has been read: which of its rows may be outside of the index. What holds of the marks is said at the
//! head of `mod.rs`.

use super::Wake;
use super::layout::{Partition, Q};
use crate::words::Corrupt;

/// Which rows may be outside of the index, by their number or by their delivery time: those above `mark`, up to `end`.
#[derive(Clone, Copy)]
pub(super) struct Marks {
    pub(super) mark: Q,
    /// While a refill runs: all that was left out since it began is above.
    pub(super) floor: Q,
    pub(super) end: Q,
}

/// Of the rows without a delivery time.
pub(super) const NUMBERS: Marks = Marks { mark: Q::Frontier, floor: Q::FrontierFloor, end: Q::FrontierEnd };
/// Of those with one.
pub(super) const TIMES: Marks = Marks { mark: Q::Horizon, floor: Q::HorizonFloor, end: Q::HorizonEnd };

/// Numbers or delivery times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// Not in it any more; `i64::MIN` for the very beginning, which is in it.
    pub after: i64,
    /// The last in it.
    pub end: i64,
}

impl Range {
    /// Makes one of `range` and a number, or time.
    pub fn with(range: Option<Range>, place: i64) -> Range {
        let (after, end) = range.map_or((i64::MAX, i64::MIN), |range| (range.after, range.end));
        Range { after: after.min(place.saturating_sub(1)), end: end.max(place) }
    }

    /// Whether it has that number or time.
    pub fn has(self, place: i64) -> bool {
        (self.after < place || self.after == i64::MIN) && place <= self.end
    }
}

impl Partition<'_> {
    /// Rows above `to`, up to `end`, may be outside from now on.
    pub(super) fn lower(&self, slot: u32, marks: Marks, to: i64, end: i64) -> Result<(), Corrupt> {
        self.extend_end(slot, marks, end)?;
        self.set_q_i64(slot, marks.mark, self.q_i64(slot, marks.mark)?.min(to))?;
        self.set_q_i64(slot, marks.floor, self.q_i64(slot, marks.floor)?.min(to))
    }

    /// Rows above the mark, up to `end`, may be outside from now on.
    pub(super) fn extend_end(&self, slot: u32, marks: Marks, end: i64) -> Result<(), Corrupt> {
        let whole = self.q_i64(slot, marks.mark)? == i64::MAX;
        let before = if whole { i64::MIN } else { self.q_i64(slot, marks.end)? };
        self.set_q_i64(slot, marks.end, before.max(end))
    }

    /// Whether the table may hold messages, due or not, that aren't in the index.
    pub(super) fn outside(&self, slot: u32) -> Result<bool, Corrupt> {
        Ok(self.q_i64(slot, Q::Frontier)? != i64::MAX || self.q_i64(slot, Q::Horizon)? != i64::MAX)
    }

    /// How far the table has been read: by number, and by delivery time.
    pub fn reach(&self, slot: u32) -> Result<(i64, i64), Corrupt> {
        Ok((self.q_i64(slot, Q::Frontier)?, self.q_i64(slot, Q::Horizon)?))
    }

    /// Which rows may be outside of the index: by number those without a delivery time, by their time the others.
    pub fn outlying(&self, slot: u32) -> Result<[Option<Range>; 2], Corrupt> {
        let outlying = |marks: Marks| {
            let (after, end) = (self.q_i64(slot, marks.mark)?, self.q_i64(slot, marks.end)?);
            Ok((after != i64::MAX).then_some(Range { after, end }))
        };
        Ok([outlying(NUMBERS)?, outlying(TIMES)?])
    }

    /// Rows in these ranges may be outside, because a scan has passed them over: those of a transaction that had deleted them
    /// and was rolled back.
    pub fn passed_over(&self, slot: u32, ranges: [Option<Range>; 2], wake: &mut Wake) -> Result<(), Corrupt> {
        for (marks, range) in [NUMBERS, TIMES].into_iter().zip(ranges) {
            if let Some(range) = range {
                self.lower(slot, marks, range.after, range.end)?;
            }
        }
        self.forward_wakeup(slot, wake)
    }

    /// Forgets how far the table has been read, so that the next read scans all of it: after COPY, restore or
    /// replication has put rows into the table behind the index's back.
    pub fn invalidate_watermark(&self, slot: u32) -> Result<(), Corrupt> {
        self.lower(slot, NUMBERS, i64::MIN, i64::MAX)?;
        self.lower(slot, TIMES, i64::MIN, i64::MAX)
    }
}
