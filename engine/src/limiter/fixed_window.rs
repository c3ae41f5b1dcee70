//! The fixed window: it opens at a key's first request and lasts a period. `time` is when it opened, `level` what was
//! consumed in it.

use super::{Limit, State, elapsed};

/// What was consumed in the window that is open at `now`.
#[inline]
fn used(limit: &Limit, state: State, now: i64) -> u32 {
    if elapsed(state.time, now) < limit.period { u32::try_from(state.level).unwrap_or(u32::MAX) } else { 0 }
}

#[inline]
pub(super) fn available(limit: &Limit, state: State, now: i64) -> u32 {
    limit.max_requests.saturating_sub(used(limit, state, now))
}

#[inline]
pub(super) fn wait(limit: &Limit, state: State, now: i64, cost: u32) -> u64 {
    if cost <= available(limit, state, now) { 0 } else { limit.period - elapsed(state.time, now).min(limit.period) }
}

#[inline]
pub(super) fn consume(limit: &Limit, state: Option<State>, now: i64, cost: u32) -> State {
    match state.map(|state| (state, used(limit, state, now))) {
        Some((state, used)) if used > 0 => State { level: u128::from(used) + u128::from(cost), ..state },
        _ => State { time: now, level: u128::from(cost) },
    }
}

#[inline]
pub(super) fn refund(state: State, amount: u32) -> State {
    State { level: state.level.saturating_sub(u128::from(amount)), ..state }
}
