//! A wall clock that is set back. What was to last a while from some moment on, a lease or the rest after a rollback, doesn't
//! last longer for that. What was to begin at a time does begin at that time by the clock: a delivery time in a row, which
//! may have been given as such.
//!
//! Each read notes the time, under the partition's lock. So does whatever else begins something that lasts a while: the next
//! read would cut that short where the clock has been set back since the last one. Where a later one finds an earlier time
//! the clock was set back in between, and what runs is brought forward by as much. How long nobody had read before isn't
//! known: by so much what runs may last longer.

use super::layout::{BUSY, DELAYED, HELD, Head, LEASED, Partition, Q, R, RATED, w};
use crate::words::Corrupt;

/// A clock that is back by less, in microseconds, is left alone.
pub(super) const TOLERANCE: i64 = 10_000;

impl Partition<'_> {
    /// Notes the time.
    #[inline]
    pub(super) fn follow_clock(&self, now: i64) -> Result<(), Corrupt> {
        let before = self.head(Head::Clock)?.cast_signed();
        if now < before || before == 0 {
            return self.clock_jumped(before, now);
        }
        self.set_head(Head::Clock, now.cast_unsigned())
    }

    /// The clock was set back, or is looked at for the first time.
    #[cold]
    fn clock_jumped(&self, before: i64, now: i64) -> Result<(), Corrupt> {
        let back = before.saturating_sub(now);
        if before != 0 && back < TOLERANCE {
            return Ok(());
        }
        self.set_head(Head::Clock, now.cast_unsigned())?;
        self.start_lease_clock(now)?;
        if before == 0 {
            return Ok(());
        }
        for slot in 1..=self.queues as u32 {
            if self.q(slot, Q::Key)? == 0 {
                continue;
            }
            for list in [LEASED, DELAYED, HELD, BUSY] {
                let (mut record, _, len) = self.list(slot, list)?;
                for _ in 0..len.min(self.records as u64) {
                    let kind = self.kind(record)?;
                    // One that is delayed and has no delivery time, or was given back since that came.
                    let rests = !kind.timed || self.r(record, R::Lease)? != 0;
                    let runs = match list {
                        DELAYED => rests,
                        // Leases and rests that stand still.
                        BUSY => kind.origin == LEASED || (kind.origin == DELAYED && rests),
                        _ => true,
                    };
                    if runs {
                        self.bring_forward(slot, record, back)?;
                    }
                    record = self.half(record, R::Links, true)?;
                }
            }
            self.age_deliveries(slot, back)?;
        }
        Ok(())
    }

    /// What was delivered, by the queue and of its groups, was so long before the time to which the clock has been set back.
    fn age_deliveries(&self, slot: u32, by: i64) -> Result<(), Corrupt> {
        let mut window = self.rate_window(slot)?;
        window.start = window.start.saturating_sub(by);
        self.set_rate_window(slot, &window)?;
        let (mut counts, _, len) = self.list(slot, RATED)?;
        for _ in 0..len.min(self.records as u64) {
            let start = self.r(counts, w::START)?.cast_signed().saturating_sub(by);
            self.set_r(counts, w::START, start.cast_unsigned())?;
            counts = self.half(counts, R::Links, true)?;
        }
        Ok(())
    }

    fn bring_forward(&self, slot: u32, record: u32, by: i64) -> Result<(), Corrupt> {
        let list = self.kind(record)?.list;
        self.clear_timer(slot, record)?;
        let due = self.r(record, R::Due)?.cast_signed().saturating_sub(by);
        self.set_r(record, R::Due, due.cast_unsigned())?;
        if list == BUSY { Ok(()) } else { self.set_timer(slot, record) }
    }
}
