//! Making room: what is pending free first, then what has expired, then what the CLOCK hand finds unused.
//!
//! CLOCK with a use count of two bits (Corbató, "A paging experiment with the Multics system", 1968; Smith's generalized
//! CLOCK, 1978). The hand moves through the arena in address order instead of through a list: it needs no links, and
//! neighbours that go together become one run.

use super::arena::RunKind;
use super::expiry::Step;
use super::layout::{CLOCK_HAND, EVICTIONS, EXPIRATIONS, Partition, narrow};
use super::write::Reservation;
use crate::words::Corrupt;

/// Times the hand may go around for one reservation. By the fourth every use count is zero; others may take what it
/// frees in between, but not so often.
const ROUNDS: u64 = 64;

impl Partition<'_> {
    /// Frees something or gets closer to it.
    pub(super) fn make_room(&self, request: &mut Reservation, now: u64) -> Result<(), Corrupt> {
        if self.free_pending_free()? || self.expire_one(now)? {
            return Ok(());
        }
        if request.passed > ROUNDS * u64::from(self.end - self.first) {
            return Err(Corrupt);
        }
        let (block, size) = self.advance_hand()?;
        request.passed += u64::from(size);
        if self.run(block)?.kind != RunKind::Entry {
            return Ok(());
        }
        if self.is_gone(block, now)? {
            return self.drop_passed(block, EXPIRATIONS, &mut request.passed);
        }
        if self.unuse(block)? { Ok(()) } else { self.drop_passed(block, EVICTIONS, &mut request.passed) }
    }

    /// Removes the next entry whose time is over, or gets closer to it; false where there is none.
    pub(super) fn expire_one(&self, now: u64) -> Result<bool, Corrupt> {
        match self.expire_step(now)? {
            Step::Idle => Ok(false),
            Step::Worked => Ok(true),
            Step::Expired(block) => {
                self.drop_entry(block, EXPIRATIONS)?;
                Ok(true)
            }
        }
    }

    /// Frees what is pending free or expired, at most `limit` pieces of work. False where nothing is left to do.
    pub fn expire(&self, now: u64, limit: u32) -> Result<bool, Corrupt> {
        for _ in 0..limit {
            if !self.free_pending_free()? && !self.expire_one(now)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Frees what has been cleared, which no list tells: at most `limit` runs are looked at. `passed` starts at 0 and
    /// keeps the place between calls. False where the whole partition has been looked at.
    pub fn sweep(&self, passed: &mut u64, now: u64, limit: u32) -> Result<bool, Corrupt> {
        // The hand walks, for it always stands at a run's start; a full round leaves it where it was.
        for _ in 0..limit {
            if *passed >= u64::from(self.end - self.first) {
                return Ok(false);
            }
            let (block, size) = self.advance_hand()?;
            *passed += u64::from(size);
            if self.run(block)?.kind == RunKind::Entry && self.is_gone(block, now)? {
                self.drop_passed(block, EXPIRATIONS, passed)?;
            }
        }
        Ok(true)
    }

    /// Drops an entry that the hand has just passed. Where the hand's new place becomes part of a larger free run, it
    /// goes back to that run's start, and over those blocks once more.
    fn drop_passed(&self, block: u32, counter: usize, passed: &mut u64) -> Result<(), Corrupt> {
        let before = self.get(CLOCK_HAND)?;
        self.drop_entry(block, counter)?;
        *passed = passed.saturating_sub(before.saturating_sub(self.get(CLOCK_HAND)?));
        Ok(())
    }

    fn drop_entry(&self, block: u32, counter: usize) -> Result<(), Corrupt> {
        self.unlink(block)?;
        self.free_entry(block)?;
        self.add(counter, 1)
    }

    /// Moves the hand past one run, which it returns with its size.
    fn advance_hand(&self) -> Result<(u32, u32), Corrupt> {
        let block = narrow(self.get(CLOCK_HAND)?)?;
        let size = self.run(block)?.size;
        let next = block + size;
        self.set(CLOCK_HAND, u64::from(if next >= self.end { self.first } else { next }))?;
        Ok((block, size))
    }
}
