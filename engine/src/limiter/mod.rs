//! Rate limiting: the arithmetic of the three algorithms, and the [`table`] that keeps a state per key.
//!
//! The arithmetic is pure: a [`Limit`], the [`State`] that earlier grants left (or none) and the time go in, a decision
//! and the new state come out. Integers only, so every answer is exact to the microsecond.
//!
//! All three algorithms are one question, "how much may be consumed now?" ([`Limit::available`]), and its inverse, "how
//! long until so much may be?" ([`Limit::wait`]); a request of cost `n` is allowed if and only if `n` is available.
//! Hence `retry_after` is the wait for the request's cost, and `reset_after` the wait for the whole capacity.
//!
//! **What changes a state.** Only grants and refunds do, and nothing that was denied leaves a trace. So the limits of a
//! call apply to all that was consumed so far, whatever the limits were then.
//!
//! **A clock that steps back.** A state never lies in the future: whoever meets one whose time is after `now` moves it
//! to `now` ([`State::rebase`]). What was consumed stays consumed, and ages from then on, so that the key gets no fresh
//! limit, and waits no longer than if it had consumed all of it just now. The caller therefore has to read the clock
//! *after* it has locked the table: an older reading would look like a step back.

pub mod all;
pub mod table;

mod entries;
mod evict;
mod fixed_window;
mod sliding_window;
#[cfg(test)]
mod tests;
mod token_bucket;

use crate::words::{Words, zero};

/// The largest `max_requests`, `burst` and cost.
pub const MAX_REQUESTS: u32 = 1_000_000_000;
/// The shortest period: a millisecond, in microseconds.
pub const MIN_PERIOD: u64 = 1_000;
/// The longest period: 366 days, in microseconds.
pub const MAX_PERIOD: u64 = 366 * 86_400 * 1_000_000;

/// The rule by which requests are granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// The window opens at a key's first request and lasts a period; at most `max_requests` in it.
    FixedWindow,
    /// Two adjacent buckets of a period each, the earlier one weighted by the share of it still inside the period
    /// that ends now.
    SlidingWindow,
    /// A bucket of `burst` tokens, full at first, that is refilled at `max_requests` per period.
    TokenBucket,
}

/// What a caller allows a key: always within the ranges of [`Limit::new`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Limit {
    algorithm: Algorithm,
    max_requests: u32,
    period: u64,
    capacity: u32,
}

/// Which argument of [`Limit::new`] is out of its range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutOfRange {
    /// `max_requests` is not from 1 to [`MAX_REQUESTS`].
    MaxRequests,
    /// `period` is not from [`MIN_PERIOD`] to [`MAX_PERIOD`].
    Period,
    /// `burst` is not from 1 to [`MAX_REQUESTS`].
    Burst,
    /// `burst` was given with another algorithm than the token bucket.
    BurstWithoutBucket,
}

/// What the grants to a key have left. What the numbers mean is the algorithm's business.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct State {
    /// Microseconds: when the (current) window opened, or when `level` was last computed.
    time: i64,
    /// What was consumed; below 2^[`LEVEL_BITS`].
    level: u128,
}

/// How many bits [`State`]'s level takes: a billion tokens of 366 days each, in units of a token's 1/period.
const LEVEL_BITS: u32 = 75;

/// The answer to a request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Decision {
    /// Whether the request was (or, for a peek, would be) granted.
    pub allowed: bool,
    /// How much was consumed by this request.
    pub granted: u32,
    /// How many more requests of cost 1 would be granted now.
    pub remaining: u32,
    /// Microseconds until the same request would be granted, nothing else consuming: 0 where it was, none where it
    /// never can be because it costs more than the capacity.
    pub retry_after: Option<u64>,
    /// Microseconds until the key is as good as new.
    pub reset_after: u64,
}

/// A request: how much, and what to do when there is less.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    /// Consumes this much or nothing.
    All(u32),
    /// Consumes as much of this as there is.
    UpTo(u32),
    /// Consumes nothing and answers as [`Request::All`] would find.
    Peek(u32),
}

impl Limit {
    /// A limit of `max_requests` per `period` (microseconds). `burst`, the capacity, belongs to the token bucket alone
    /// and defaults to `max_requests`.
    pub fn new(algorithm: Algorithm, max_requests: u32, period: u64, burst: Option<u32>) -> Result<Self, OutOfRange> {
        if !(1..=MAX_REQUESTS).contains(&max_requests) {
            return Err(OutOfRange::MaxRequests);
        }
        if !(MIN_PERIOD..=MAX_PERIOD).contains(&period) {
            return Err(OutOfRange::Period);
        }
        if burst.is_some() && algorithm != Algorithm::TokenBucket {
            return Err(OutOfRange::BurstWithoutBucket);
        }
        let capacity = burst.unwrap_or(max_requests);
        if !(1..=MAX_REQUESTS).contains(&capacity) {
            return Err(OutOfRange::Burst);
        }
        Ok(Limit { algorithm, max_requests, period, capacity })
    }

    /// The algorithm.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Requests per period.
    pub fn max_requests(&self) -> u32 {
        self.max_requests
    }

    /// The period in microseconds.
    pub fn period(&self) -> u64 {
        self.period
    }

    /// The most that can be consumed at once: `burst` of a token bucket, `max_requests` otherwise.
    pub fn capacity(&self) -> u32 {
        self.capacity
    }

    /// How much may be consumed at `now`.
    #[inline]
    pub fn available(&self, state: Option<State>, now: i64) -> u32 {
        let Some(state) = state else { return self.capacity };
        match self.algorithm {
            Algorithm::FixedWindow => fixed_window::available(self, state, now),
            Algorithm::SlidingWindow => sliding_window::available(self, state, now),
            Algorithm::TokenBucket => token_bucket::available(self, state, now),
        }
    }

    /// Microseconds after `now` until `cost` may be consumed; none if `cost` is above the capacity.
    #[inline]
    pub fn wait(&self, state: Option<State>, now: i64, cost: u32) -> Option<u64> {
        if cost > self.capacity {
            return None;
        }
        let Some(state) = state else { return Some(0) };
        Some(match self.algorithm {
            Algorithm::FixedWindow => fixed_window::wait(self, state, now, cost),
            Algorithm::SlidingWindow => sliding_window::wait(self, state, now, cost),
            Algorithm::TokenBucket => token_bucket::wait(self, state, now, cost),
        })
    }

    /// Microseconds after `now` until the key is as good as new: all of the capacity may be consumed.
    #[inline]
    pub fn reset_after(&self, state: Option<State>, now: i64) -> u64 {
        self.wait(state, now, self.capacity).unwrap_or(0)
    }

    /// The state after `cost`, which must be available, has been consumed.
    #[inline]
    fn consume(&self, state: Option<State>, now: i64, cost: u32) -> State {
        match self.algorithm {
            Algorithm::FixedWindow => fixed_window::consume(self, state, now, cost),
            Algorithm::SlidingWindow => sliding_window::consume(self, state, now, cost),
            Algorithm::TokenBucket => token_bucket::consume(self, state, now, cost),
        }
    }

    /// Answers `request` at `now`. The new state is given where it differs from the old one.
    #[inline]
    pub fn decide(&self, state: Option<State>, now: i64, request: Request) -> (Decision, Option<State>) {
        let state = state.map(|state| state.rebase(now));
        if let (Algorithm::SlidingWindow, Request::All(cost)) = (self.algorithm, request)
            && let Some((decision, changed)) = sliding_window::grant(self, state, now, cost)
        {
            return (decision, Some(changed));
        }
        self.decide_any(state, now, request)
    }

    fn decide_any(&self, state: Option<State>, now: i64, request: Request) -> (Decision, Option<State>) {
        let available = self.available(state, now);
        let (cost, granted) = match request {
            Request::All(cost) => (cost, if cost <= available { cost } else { 0 }),
            Request::UpTo(cost) => (cost, cost.min(available)),
            Request::Peek(cost) => (cost, 0),
        };
        let allowed = cost <= available;
        let retry_after = if allowed { Some(0) } else { self.wait(state, now, cost) };
        let changed = (granted > 0).then(|| self.consume(state, now, granted));
        let reset_after = self.reset_after(changed.or(state), now);
        (Decision { allowed, granted, remaining: available - granted, retry_after, reset_after }, changed)
    }

    /// Gives back `amount`, or all that is left of what was consumed if that is less.
    #[inline]
    pub fn refund(&self, state: State, now: i64, amount: u32) -> State {
        let state = state.rebase(now);
        match self.algorithm {
            Algorithm::FixedWindow => fixed_window::refund(state, amount),
            Algorithm::SlidingWindow => sliding_window::refund(self, state, now, amount),
            Algorithm::TokenBucket => token_bucket::refund(self, state, now, amount),
        }
    }
}

impl State {
    /// The state as words, of which one at least isn't zero.
    pub fn to_words(self) -> [u64; 3] {
        [self.time.cast_unsigned(), self.level as u64, (self.level >> 64) as u64]
    }

    /// The state that [`to_words`](Self::to_words) gave; `None` for words that are all zero.
    pub fn from_words(words: [u64; 3]) -> Option<Self> {
        let [time, level, high] = words;
        // No state is larger, so nothing overflows whatever the words hold.
        let level = (u128::from(high) << 64 | u128::from(level)) & ((1 << LEVEL_BITS) - 1);
        (words != [0; 3]).then_some(State { time: time.cast_signed(), level })
    }

    /// This state, moved to `now` if it lies in the future because the clock has stepped back.
    #[inline]
    #[must_use]
    pub fn rebase(self, now: i64) -> Self {
        State { time: self.time.min(now), ..self }
    }
}

/// Makes an empty table of `words`, whatever they held. Where a table doesn't fit it stays without one, and every
/// attempt to open it is answered by [`Corrupt`](crate::words::Corrupt).
pub fn format(words: Words<'_>) {
    if table::Table::format(words).is_err() {
        zero(words);
    }
}

/// Microseconds from `then` to `now`; 0 if it lies ahead.
#[inline]
fn elapsed(then: i64, now: i64) -> u64 {
    if now > then { now.abs_diff(then) } else { 0 }
}

/// `dividend / divisor`, by the hardware's division where the numbers are small, as they are but in extreme limits;
/// `u64::MAX` where the quotient is larger. `divisor` of 0 counts as 1.
#[inline]
fn divide(dividend: u128, divisor: u64) -> u64 {
    match u64::try_from(dividend) {
        Ok(small) => small / divisor.max(1),
        Err(_) => u64::try_from(dividend / u128::from(divisor.max(1))).unwrap_or(u64::MAX),
    }
}
