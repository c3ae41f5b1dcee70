//! What a queue's options allow to be read now: messages in flight, and deliveries in a time. What they allow of one group is for
//! `lanes.rs` and `rates.rs`.
//!
//! In flight is what is leased, also while an open transaction is finishing it. Deliveries are counted in a strict sliding
//! window (see [`window`](crate::window)): in no trailing period are there more than allowed, over all readers.

use super::layout::{BUSY, LEASED, Partition, Q};
use super::{Options, Wake};
use crate::limiter::{MAX_PERIOD, MIN_PERIOD};
use crate::window::{Steps, Window};
use crate::words::Corrupt;

/// A limit of deliveries.
pub(super) struct Rate {
    /// How many in a period.
    pub most: u64,
    pub steps: Steps,
}

impl Rate {
    /// None where there is no limit.
    fn of(options: &Options) -> Option<Self> {
        (options.max_rate > 0).then(|| Rate { most: u64::from(options.max_rate), steps: steps(options.rate_period) })
    }
}

/// The steps of a period, which an UPDATE of the table of options by hand may have put out of its range.
pub(super) fn steps(period: i64) -> Steps {
    Steps::of(u64::try_from(period).unwrap_or(0).clamp(MIN_PERIOD, MAX_PERIOD))
}

impl Partition<'_> {
    #[inline]
    fn rate(&self, slot: u32) -> Result<Option<Rate>, Corrupt> {
        if self.q(slot, Q::Limits)? as u32 == 0 {
            return Ok(None);
        }
        Ok(Rate::of(&self.options(slot)?))
    }

    /// Counts the deliveries so far by another period. Done while there is no limit, too: one that comes back finds them.
    pub(super) fn change_rate_period(&self, slot: u32, period: i64, now: i64) -> Result<(), Corrupt> {
        let (former, new) = (steps(self.q_i64(slot, Q::RatePeriod)?), steps(period));
        if former != new {
            self.set_rate_window(slot, &self.rate_window(slot)?.divided_by(former, new, now))?;
        }
        Ok(())
    }

    /// How many messages may be read now, were they ready.
    #[inline]
    pub(super) fn allowance(&self, slot: u32, now: i64) -> Result<u64, Corrupt> {
        match self.q(slot, Q::Limits)? {
            0 => Ok(u64::MAX),
            limits => self.allowance_of(slot, limits >> 32, now),
        }
    }

    fn allowance_of(&self, slot: u32, most: u64, now: i64) -> Result<u64, Corrupt> {
        let mut allowance = u64::MAX;
        if most != 0 {
            let busy = self.list(slot, BUSY)?.2.saturating_sub(self.q(slot, Q::BusyUnleased)?);
            let flying = self.list(slot, LEASED)?.2.saturating_add(busy);
            allowance = most.saturating_sub(flying);
        }
        if let Some(rate) = self.rate(slot)? {
            let delivered = self.rate_window(slot)?.at(rate.steps, now).total();
            allowance = allowance.min(rate.most.saturating_sub(delivered));
        }
        Ok(allowance)
    }

    /// When the rate allows another delivery; `None` where it does now.
    pub(super) fn next_allowed(&self, slot: u32, now: i64) -> Result<Option<i64>, Corrupt> {
        let Some(rate) = self.rate(slot)? else { return Ok(None) };
        let wait = self.rate_window(slot)?.at(rate.steps, now).wait(rate.steps, now, rate.most - 1);
        Ok((wait > 0).then(|| now.saturating_add_unsigned(wait)))
    }

    /// Counts deliveries that the allowance has permitted against the rate.
    pub(super) fn spend(&self, slot: u32, deliveries: u32, now: i64) -> Result<(), Corrupt> {
        self.change_deliveries(slot, now, |window| window.consume(deliveries))
    }

    /// Deliveries that did not come about don't count.
    pub(super) fn unspend(&self, slot: u32, deliveries: u32, now: i64) -> Result<(), Corrupt> {
        self.change_deliveries(slot, now, |window| window.refund(deliveries))
    }

    fn change_deliveries(&self, slot: u32, now: i64, change: impl FnOnce(&mut Window)) -> Result<(), Corrupt> {
        let Some(rate) = self.rate(slot)? else { return Ok(()) };
        let mut window = self.rate_window(slot)?.at(rate.steps, now);
        change(&mut window);
        self.set_rate_window(slot, &window)
    }

    pub(super) fn limits_rate(&self, slot: u32) -> Result<bool, Corrupt> {
        Ok(self.q(slot, Q::Limits)? as u32 != 0)
    }

    pub(super) fn limits_flight(&self, slot: u32) -> Result<bool, Corrupt> {
        Ok(self.q(slot, Q::Limits)? >> 32 != 0)
    }

    /// Something has left the flight: where that was what kept others from being read, somebody is woken.
    pub(super) fn in_flight_decreased(&self, slot: u32, wake: &mut Wake) -> Result<(), Corrupt> {
        if self.limits_flight(slot)? {
            self.forward_wakeup(slot, wake)?;
        }
        Ok(())
    }
}
