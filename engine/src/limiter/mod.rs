//! Rate limiting: the arithmetic of the algorithms, and the [`table`] that keeps a state per key.
//!
//! The arithmetic is pure: a [`Limit`], the [`State`] that earlier grants left (or none) and the time go in, a decision
//! and the new state come out. Integers only, so every answer is exact to the microsecond.
//!
//! All algorithms are one question, "how much may be consumed now?" ([`Limit::available`]), and its inverse, "how
//! long until so much may be?" ([`Limit::wait`]); a request of cost `n` is allowed if and only if `n` is available.
//! Hence `retry_after` is the wait for the request's cost, and `reset_after` the wait for the whole capacity.
//!
//! **What changes a state.** Only grants and refunds do, and nothing that was denied leaves a trace. So the limits of a
//! call apply to all that was consumed so far, whatever the limits were then.
//!
//! **A clock that steps back.** A state never lies in the future: a state whose time is after `now` is moved to `now`
//! ([`State::rebase`]). What was consumed stays consumed, and ages from then on, so that the key gets no fresh
//! limit, and waits no longer than if it had consumed all of it just now. The caller therefore has to read the clock
//! *after* it has locked the table: an older reading would look like a step back.

pub mod all;
pub mod table;

mod convert;
mod entries;
mod evict;
mod fixed_window;
mod notes;
mod sliding_window;
mod stored;
#[cfg(test)]
mod tests;
mod token_bucket;

use crate::fingerprint;
use crate::window::{Steps, Window};
use crate::words::{Words, zero};

/// The fingerprint of what lies where in the words: where it changes, so does the layout version.
pub const LAYOUT: u64 =
    fingerprint![entries::LAYOUT, notes::LAYOUT, sliding_window::LAYOUT, crate::window::LAYOUT, LEVEL_BITS];

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
    /// In any trailing period at most `max_requests`; what was consumed is given back at most a 16th of the period late,
    /// see [`window`](crate::window).
    SlidingWindow,
    /// A bucket of `burst` tokens, full at first, that is refilled at `max_requests` per period.
    TokenBucket,
    /// A fixed window that opens when the calendar says so, whoever asks when; see [`Limit::calendar`].
    Calendar,
}

/// What a caller allows a key: always within the ranges of [`Limit::new`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Limit {
    algorithm: Algorithm,
    max_requests: u32,
    period: u64,
    capacity: u32,
    /// When the calendar's window opened; 0 for the other algorithms.
    opened: i64,
}

/// Which argument of [`Limit::new`] is out of its range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutOfRange {
    /// `max_requests` is above [`MAX_REQUESTS`].
    MaxRequests,
    /// `period` is not from [`MIN_PERIOD`] to [`MAX_PERIOD`].
    Period,
    /// `burst` is not from 1 to [`MAX_REQUESTS`].
    Burst,
    /// `burst` was given with another algorithm than the token bucket.
    BurstWithoutBucket,
}

/// What the grants to a key have left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Of a fixed window, or one of the calendar.
    Fixed {
        /// When the window opened, in microseconds.
        opened: i64,
        /// What was consumed in it.
        used: u32,
    },
    /// Of a sliding window.
    Sliding(Window),
    /// Of a token bucket.
    Bucket {
        /// When `level` was computed, in microseconds.
        time: i64,
        /// What was consumed and has not been refilled, in units of a token's 1/period; below 2^[`LEVEL_BITS`].
        level: u128,
    },
}

/// How many bits the level of a token bucket takes. A billion tokens of 366 days each take 75, in units of a token's
/// 1/period; what is booked ahead for 366 days at most doubles that.
const LEVEL_BITS: u32 = 76;

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
    /// A limit of `max_requests` per `period` (microseconds); of 0, it denies everything. `burst`, the capacity, belongs
    /// to the token bucket alone and defaults to `max_requests`.
    pub fn new(algorithm: Algorithm, max_requests: u32, period: u64, burst: Option<u32>) -> Result<Self, OutOfRange> {
        if max_requests > MAX_REQUESTS {
            return Err(OutOfRange::MaxRequests);
        }
        if !(MIN_PERIOD..=MAX_PERIOD).contains(&period) {
            return Err(OutOfRange::Period);
        }
        if burst.is_some() && algorithm != Algorithm::TokenBucket {
            return Err(OutOfRange::BurstWithoutBucket);
        }
        if burst.is_some_and(|burst| !(1..=MAX_REQUESTS).contains(&burst)) {
            return Err(OutOfRange::Burst);
        }
        // A bucket that nothing flows into isn't full at first either: 0 is none at all.
        let capacity = if max_requests == 0 { 0 } else { burst.unwrap_or(max_requests) };
        Ok(Limit { algorithm, max_requests, period, capacity, opened: 0 })
    }

    /// A limit of `max_requests` in the calendar's window that opened at `opened` and lasts `length` microseconds.
    pub fn calendar(max_requests: u32, opened: i64, length: u64) -> Result<Self, OutOfRange> {
        let limit = Limit::new(Algorithm::FixedWindow, max_requests, length, None)?;
        Ok(Limit { algorithm: Algorithm::Calendar, opened, ..limit })
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

    /// The same with another `max_requests`, and so another capacity where it isn't a token bucket's burst.
    #[must_use]
    pub fn with_max_requests(&self, max_requests: u32) -> Self {
        let max_requests = max_requests.min(MAX_REQUESTS);
        let is_burst = self.algorithm == Algorithm::TokenBucket && self.capacity != self.max_requests;
        let capacity = if is_burst && max_requests > 0 { self.capacity } else { max_requests };
        Limit { max_requests, capacity, ..*self }
    }

    fn steps(&self) -> Steps {
        Steps::of(self.period)
    }

    /// How much may be consumed at `now`. A state of another kind than the algorithm's counts as none.
    #[inline]
    pub fn available(&self, state: Option<&State>, now: i64) -> u32 {
        match state {
            Some(&State::Fixed { opened, used }) => fixed_window::available(self, opened, used, now),
            Some(State::Sliding(window)) => sliding_window::available(self, window, now),
            Some(&State::Bucket { time, level }) => token_bucket::available(self, time, level, now),
            None => self.capacity,
        }
    }

    /// Microseconds after `now` until `cost` may be consumed; none if `cost` is above the capacity.
    #[inline]
    pub fn wait(&self, state: Option<&State>, now: i64, cost: u32) -> Option<u64> {
        if cost > self.capacity {
            return None;
        }
        Some(match state {
            Some(&State::Fixed { opened, used }) => fixed_window::wait(self, opened, used, now, cost),
            Some(State::Sliding(window)) => sliding_window::wait(self, window, now, cost),
            Some(&State::Bucket { time, level }) => token_bucket::wait(self, time, level, now, cost),
            None => 0,
        })
    }

    /// Microseconds after `now` until the key is as good as new: all of the capacity may be consumed.
    #[inline]
    pub fn reset_after(&self, state: Option<&State>, now: i64) -> u64 {
        self.wait(state, now, self.capacity).unwrap_or(0)
    }

    /// The state after `cost` has been consumed.
    #[inline]
    fn consume(&self, state: Option<&State>, now: i64, cost: u32) -> State {
        match self.algorithm {
            Algorithm::FixedWindow | Algorithm::Calendar => fixed_window::consume(self, state, now, cost),
            Algorithm::SlidingWindow => sliding_window::consume(self, state, now, cost),
            Algorithm::TokenBucket => token_bucket::consume(self, state, now, cost),
        }
    }

    /// Answers `request` at `now`. The new state is given where it differs from the old one.
    #[inline]
    pub fn decide(&self, state: Option<&State>, now: i64, request: Request) -> (Decision, Option<State>) {
        if let Some(State::Sliding(window)) = state {
            return sliding_window::decide(self, window, now, request);
        }
        let moved;
        let state = match state {
            Some(ahead) if ahead.time() > now => {
                moved = ahead.rebase(now);
                Some(&moved)
            }
            state => state,
        };
        let available = self.available(state, now);
        let (cost, granted) = request.of(available);
        let changed = (granted > 0).then(|| self.consume(state, now, granted));
        let left = changed.as_ref().or(state);
        let retry_after = if cost <= available { Some(0) } else { self.wait(left, now, cost) };
        let reset_after = self.reset_after(left, now);
        let remaining = available - granted;
        (Decision { allowed: cost <= available, granted, remaining, retry_after, reset_after }, changed)
    }

    /// Books `cost` ahead: consumes it although there is less, if it will be there within `max_wait` microseconds. The
    /// answer's `retry_after` is how long the caller has to wait before it acts or, where nothing was booked, before the
    /// same call would book; none where it never would. For the token bucket alone.
    pub fn reserve(&self, state: Option<&State>, now: i64, cost: u32, max_wait: u64) -> (Decision, Option<State>) {
        let state = state.map(|state| state.rebase(now));
        let state = state.as_ref();
        let wait = self.wait(state, now, cost);
        let booked = wait.is_some_and(|wait| wait <= max_wait.min(MAX_PERIOD)) && cost > 0;
        let changed = booked.then(|| self.consume(state, now, cost));
        let left = changed.as_ref().or(state);
        let decision = Decision {
            allowed: booked,
            granted: if booked { cost } else { 0 },
            remaining: self.available(left, now),
            retry_after: if booked { wait } else { wait.map(|wait| wait.saturating_sub(max_wait)) },
            reset_after: self.reset_after(left, now),
        };
        (decision, changed)
    }

    /// Gives back `amount`, or all that is left of what was consumed if that is less.
    #[inline]
    pub fn refund(&self, state: State, now: i64, amount: u32) -> State {
        match state.rebase(now) {
            State::Fixed { opened, used } => State::Fixed { opened, used: used.saturating_sub(amount) },
            State::Sliding(window) => sliding_window::refund(self, &window, now, amount),
            State::Bucket { time, level } => token_bucket::refund(self, time, level, now, amount),
        }
    }
}

impl Request {
    /// What it costs, and how much of `available` it consumes.
    #[inline]
    fn of(self, available: u32) -> (u32, u32) {
        match self {
            Request::All(cost) => (cost, if cost <= available { cost } else { 0 }),
            Request::UpTo(cost) => (cost, cost.min(available)),
            Request::Peek(cost) => (cost, 0),
        }
    }
}

impl State {
    /// When it was kept: when the window or its running step opened, or the level was computed.
    #[inline]
    pub(crate) fn time(&self) -> i64 {
        match *self {
            State::Fixed { opened, .. } => opened,
            State::Sliding(ref window) => window.start,
            State::Bucket { time, .. } => time,
        }
    }

    /// This state, moved to `now` if it lies in the future because the clock has stepped back.
    #[inline]
    #[must_use]
    pub fn rebase(self, now: i64) -> Self {
        match self {
            State::Fixed { opened, used } => State::Fixed { opened: opened.min(now), used },
            State::Sliding(window) => State::Sliding(Window { start: window.start.min(now), ..window }),
            State::Bucket { time, level } => State::Bucket { time: time.min(now), level },
        }
    }
}

/// A level from its upper and lower word. No level is larger, so nothing overflows whatever the words hold.
#[inline]
fn level(upper: u64, lower: u64) -> u128 {
    (u128::from(upper) << 64 | u128::from(lower)) & ((1 << LEVEL_BITS) - 1)
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
