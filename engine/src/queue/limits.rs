//! What a queue's options allow to be read now: messages in flight, and deliveries in a time.
//!
//! In flight is what is leased, also while an open transaction is finishing it. The rate is a token bucket that holds a
//! period's deliveries (see [`limiter`](crate::limiter)): exact to the microsecond, whoever reads.

use super::layout::{BUSY, LEASED, Partition, Q};
use super::{Options, Wake};
use crate::limiter::{Algorithm, Limit, Request, State};
use crate::words::Corrupt;

impl Options {
    /// The limit of deliveries; none where there is none.
    fn rate(&self) -> Option<Limit> {
        let period = u64::try_from(self.rate_period).ok()?;
        Limit::new(Algorithm::TokenBucket, self.max_rate, period, None).ok()
    }
}

impl Partition<'_> {
    #[inline]
    fn rate(&self, slot: u32) -> Result<Option<Limit>, Corrupt> {
        if self.q(slot, Q::Limits)? as u32 == 0 {
            return Ok(None);
        }
        Ok(self.options(slot)?.rate())
    }

    fn rate_state(&self, slot: u32) -> Result<Option<State>, Corrupt> {
        let words = [self.q(slot, Q::RateTime)?, self.q(slot, Q::RateLevel)?, self.q(slot, Q::RateLevelHigh)?];
        Ok(State::from_words(words))
    }

    fn set_rate_state(&self, slot: u32, state: State) -> Result<(), Corrupt> {
        let [time, level, high] = state.to_words();
        self.set_q(slot, Q::RateTime, time)?;
        self.set_q(slot, Q::RateLevel, level)?;
        self.set_q(slot, Q::RateLevelHigh, high)
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
        if let Some(limit) = self.rate(slot)? {
            let state = self.rate_state(slot)?.map(|state| state.rebase(now));
            allowance = allowance.min(u64::from(limit.available(state.as_ref(), now)));
        }
        Ok(allowance)
    }

    /// When the rate allows another delivery; `None` where it does now.
    pub(super) fn next_allowed(&self, slot: u32, now: i64) -> Result<Option<i64>, Corrupt> {
        let Some(limit) = self.rate(slot)? else { return Ok(None) };
        let state = self.rate_state(slot)?.map(|state| state.rebase(now));
        let wait = limit.wait(state.as_ref(), now, 1).unwrap_or(0);
        Ok((wait > 0).then(|| now.saturating_add_unsigned(wait)))
    }

    /// Counts deliveries that the allowance has permitted against the rate.
    pub(super) fn spend(&self, slot: u32, deliveries: u32, now: i64) -> Result<(), Corrupt> {
        if deliveries == 0 {
            return Ok(());
        }
        let Some(limit) = self.rate(slot)? else { return Ok(()) };
        let (_, state) = limit.decide(self.rate_state(slot)?.as_ref(), now, Request::UpTo(deliveries));
        state.map_or(Ok(()), |state| self.set_rate_state(slot, state))
    }

    /// Deliveries that did not come about don't count.
    pub(super) fn unspend(&self, slot: u32, deliveries: u32, now: i64) -> Result<(), Corrupt> {
        let Some(limit) = self.rate(slot)? else { return Ok(()) };
        match self.rate_state(slot)? {
            Some(state) => self.set_rate_state(slot, limit.refund(state, now, deliveries)),
            None => Ok(()),
        }
    }

    pub(super) fn limits_flight(&self, slot: u32) -> Result<bool, Corrupt> {
        Ok(self.q(slot, Q::Limits)? >> 32 != 0)
    }

    /// Something has left the flight: where that was what kept others from being read, somebody is woken.
    pub(super) fn landed(&self, slot: u32, wake: &mut Wake) -> Result<(), Corrupt> {
        if self.limits_flight(slot)? {
            self.pass_on(slot, wake)?;
        }
        Ok(())
    }
}
