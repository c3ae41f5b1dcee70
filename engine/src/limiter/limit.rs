//! Limits, what they leave of a key, requests and answers.

use crate::fingerprint;
use crate::window::{Steps, Window};

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
    /// A fixed window that opens when the calendar says so, whenever a request comes; see [`Limit::calendar`].
    Calendar,
}

/// What a caller allows a key: always within the ranges of [`Limit::new`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Limit {
    pub(super) algorithm: Algorithm,
    pub(super) max_requests: u32,
    pub(super) period: u64,
    pub(super) capacity: u32,
    /// When the calendar's window opened; 0 for the other algorithms.
    pub(super) opened: i64,
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
pub(super) const LEVEL_BITS: u32 = 76;

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

    pub(super) fn steps(&self) -> Steps {
        Steps::of(self.period)
    }
}

impl Request {
    /// What it costs, and how much of `available` it consumes.
    #[inline]
    pub(super) fn of(self, available: u32) -> (u32, u32) {
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
pub(super) fn level(upper: u64, lower: u64) -> u128 {
    (u128::from(upper) << 64 | u128::from(lower)) & ((1 << LEVEL_BITS) - 1)
}

/// Microseconds from `then` to `now`; 0 if it lies ahead.
#[inline]
pub(super) fn elapsed(then: i64, now: i64) -> u64 {
    if now > then { now.abs_diff(then) } else { 0 }
}

/// `dividend / divisor`, by the hardware's division where the numbers are small, as they are but in extreme limits;
/// `u64::MAX` where the quotient is larger. `divisor` of 0 counts as 1.
#[inline]
pub(super) fn divide(dividend: u128, divisor: u64) -> u64 {
    match u64::try_from(dividend) {
        Ok(small) => small / divisor.max(1),
        Err(_) => u64::try_from(dividend / u128::from(divisor.max(1))).unwrap_or(u64::MAX),
    }
}

/// The fingerprint of what lies where in the words.
pub(super) const LAYOUT: u64 = fingerprint![LEVEL_BITS];
