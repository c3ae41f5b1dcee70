//! Reading messages by their numbers.

use super::layout::{Partition, Q, R, READY};
use super::{Delivery, Wake};
use crate::words::Corrupt;

/// What came of the wish to read a message by its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Picked {
    /// It is leased to the caller.
    Leased(Delivery),
    /// It is there and not ready: leased, delayed, used up, or in the hands of an open transaction; or the queue delivers
    /// nothing now.
    NotReady,
    /// The index doesn't know it.
    Unknown,
}

impl Partition<'_> {
    /// Leases the message of that number to `process`, if it is ready. What has run out counts once
    /// [`expire`](Self::expire) has been told; `now` is the time by the clock at this moment, under the lock.
    pub fn pick(
        &self,
        slot: u32,
        msg_id: i64,
        process: u32,
        now: i64,
        timeout: i64,
        wake: &mut Wake,
    ) -> Result<Picked, Corrupt> {
        self.follow_clock(now)?;
        let Some(record) = self.lookup(slot, msg_id)? else { return Ok(Picked::Unknown) };
        if self.kind(record)?.list >= READY || self.paused(slot)? || self.allowance(slot, now)? == 0 {
            return Ok(Picked::NotReady);
        }
        self.unlink(slot, record)?;
        let attempts = self.half(record, R::Attempts, true)?;
        if attempts >= self.q(slot, Q::MaxAttempts)? as u32 {
            self.put_with_used_up(slot, record, now, wake)?;
            return Ok(Picked::NotReady);
        }
        if self.kind(record)?.owner != 0 && self.park(slot, record, now, wake)? {
            return Ok(Picked::NotReady);
        }
        let (lease, until) = (self.first_lease_at(now)?, now.saturating_add(timeout));
        let taken = self.lease(slot, record, lease, attempts + 1, now, until, process, wake)?;
        self.spend(slot, 1, now)?;
        Ok(Picked::Leased(taken))
    }
}
