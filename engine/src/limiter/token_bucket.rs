//! The token bucket, in the form of the generic cell rate algorithm (ITU-T I.371, "continuous-state leaky bucket"): the
//! mirror image of a bucket that tokens flow into is one that consumption fills and time drains.
//!
//! The emission interval, period / `max_requests`, is rarely a whole number of microseconds. So the level is counted in
//! units of 1/period of a token: a token is `period` units, a microsecond drains `max_requests` of them, and nothing is
//! ever rounded. `level` is that number as of `time`; units don't depend on `max_requests` and `burst`, which may thus
//! differ from call to call.

use super::{Limit, State, divide, elapsed};

/// The level at `now`.
#[inline]
fn level(limit: &Limit, state: State, now: i64) -> u128 {
    state.level.saturating_sub(u128::from(elapsed(state.time, now)) * u128::from(limit.max_requests))
}

/// `count` tokens in units.
#[inline]
fn tokens(limit: &Limit, count: u32) -> u128 {
    u128::from(count) * u128::from(limit.period)
}

#[inline]
pub(super) fn available(limit: &Limit, state: State, now: i64) -> u32 {
    let free = tokens(limit, limit.capacity).saturating_sub(level(limit, state, now));
    u32::try_from(divide(free, limit.period)).unwrap_or(u32::MAX)
}

#[inline]
pub(super) fn wait(limit: &Limit, state: State, now: i64, cost: u32) -> u64 {
    let target = tokens(limit, limit.capacity.saturating_sub(cost));
    let excess = level(limit, state, now).saturating_sub(target);
    divide(excess + u128::from(limit.max_requests - 1), u64::from(limit.max_requests))
}

#[inline]
pub(super) fn consume(limit: &Limit, state: Option<State>, now: i64, cost: u32) -> State {
    let level = state.map_or(0, |state| level(limit, state, now));
    State { time: now, level: level + tokens(limit, cost) }
}

#[inline]
pub(super) fn refund(limit: &Limit, state: State, now: i64, amount: u32) -> State {
    State { time: now, level: level(limit, state, now).saturating_sub(tokens(limit, amount)) }
}
