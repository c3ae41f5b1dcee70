//! The token bucket, in the form of the generic cell rate algorithm (ITU-T I.371, "continuous-state leaky bucket"): the
//! mirror image of a bucket that tokens flow into is one that consumption fills and time drains.
//!
//! The emission interval, period / `max_requests`, is rarely a whole number of microseconds. So the level is counted in
//! units of 1/period of a token: a token is `period` units, a microsecond drains `max_requests` of them, and nothing is
//! ever rounded. `level` is that number as of `time`; units don't depend on `max_requests` and `burst`, which may thus
//! differ from call to call. A level above the capacity has been booked ahead, see [`Limit::reserve`].

use super::limit::{Decision, LEVEL_BITS, Limit, State, divide, elapsed};

/// The level at `now`.
#[inline]
pub(super) fn level_at(limit: &Limit, time: i64, level: u128, now: i64) -> u128 {
    level.saturating_sub(u128::from(elapsed(time, now)) * u128::from(limit.max_requests))
}

/// `count` tokens in units.
#[inline]
pub(super) fn tokens(limit: &Limit, count: u32) -> u128 {
    u128::from(count) * u128::from(limit.period)
}

#[inline]
pub(super) fn available(limit: &Limit, time: i64, level: u128, now: i64) -> u32 {
    let free = tokens(limit, limit.capacity).saturating_sub(level_at(limit, time, level, now));
    u32::try_from(divide(free, limit.period)).unwrap_or(u32::MAX)
}

#[inline]
pub(super) fn wait(limit: &Limit, time: i64, level: u128, now: i64, cost: u32) -> u64 {
    // Nothing flows into a bucket of 0, which is never any fuller.
    let Some(round_up) = limit.max_requests.checked_sub(1) else { return 0 };
    let target = tokens(limit, limit.capacity.saturating_sub(cost));
    let excess = level_at(limit, time, level, now).saturating_sub(target);
    divide(excess + u128::from(round_up), u64::from(limit.max_requests))
}

#[inline]
pub(super) fn consume(limit: &Limit, state: Option<&State>, now: i64, cost: u32) -> State {
    let level = match state {
        Some(&State::Bucket { time, level }) => level_at(limit, time, level, now),
        _ => 0,
    };
    State::Bucket { time: now, level: (level + tokens(limit, cost)).min((1 << LEVEL_BITS) - 1) }
}

#[inline]
pub(super) fn refund(limit: &Limit, time: i64, level: u128, now: i64, amount: u32) -> State {
    State::Bucket { time: now, level: level_at(limit, time, level, now).saturating_sub(tokens(limit, amount)) }
}

/// What [`Limit::decide`] does for a request of all or nothing, with the level that a grant leaves at `now`.
#[inline(always)]
pub(super) fn decide(limit: &Limit, time: i64, level: u128, now: i64, cost: u32) -> (Decision, Option<u128>) {
    let before = level_at(limit, time, level, now);
    let after = before + tokens(limit, cost);
    if let Some(free) = tokens(limit, limit.capacity).checked_sub(after)
        && limit.capacity > 0
    {
        let remaining = u32::try_from(divide(free, limit.period)).unwrap_or(u32::MAX);
        let reset_after = wait(limit, now, after, now, limit.capacity);
        return (Decision { allowed: true, granted: cost, remaining, retry_after: Some(0), reset_after }, Some(after));
    }
    let decision = Decision {
        allowed: false,
        granted: 0,
        remaining: available(limit, now, before, now),
        retry_after: (cost <= limit.capacity).then(|| wait(limit, now, before, now, cost)),
        reset_after: wait(limit, now, before, now, limit.capacity),
    };
    (decision, None)
}
