//! The sliding window of two buckets: floor(previous × share of it still inside) + current + cost ≤ `max_requests`.
//!
//! Buckets last a period each and follow one another from the key's first request on, not from multiples of the
//! period: so a key's first `max_requests` requests are granted whenever they come, and a clock that steps back has no
//! boundary to jump over. Once the sum is 0 the key is as good as new, and its next request opens a new first bucket.
//!
//! Time is in whole microseconds, and the window that ends now holds a period of them, the present one included. So of
//! a previous bucket (which is as many) none is inside when the current bucket's last microsecond has come, and what
//! was consumed just when a bucket opened starts to slide out when the next one does, one period later.
//!
//! `time` is when the current bucket opened; `level` holds what was consumed in the previous one (upper 32 bits) and in
//! the current one (lower 32).

use super::{Decision, Limit, State, divide, elapsed};

/// A state brought forward to some moment.
struct Window {
    /// When the current bucket opened.
    opened: i64,
    previous: u32,
    current: u32,
    /// How many microseconds of the previous bucket are still inside, which is also how many of the current one are
    /// to come: from 0 to the period less 1.
    left: u64,
}

/// What `pack` put into a state's level.
#[inline]
fn unpack(state: State) -> (u32, u32) {
    ((state.level >> 32) as u32, state.level as u32)
}

impl Window {
    /// That of a key's first request.
    #[inline(always)]
    fn opened_at(limit: &Limit, now: i64) -> Self {
        Window { opened: now, previous: 0, current: 0, left: limit.period - 1 }
    }

    #[inline(always)]
    fn at(limit: &Limit, state: State, now: i64) -> Self {
        let (previous, current) = unpack(state);
        let (period, since) = (limit.period, elapsed(state.time, now));
        if since < period {
            Window { opened: state.time, previous, current, left: period - 1 - since }
        } else if since < 2 * period {
            let opened = state.time.saturating_add_unsigned(period);
            Window { opened, previous: current, current: 0, left: 2 * period - 1 - since }
        } else {
            Window::opened_at(limit, now)
        }
    }

    #[inline]
    fn used(&self, limit: &Limit) -> u64 {
        u64::from(self.current) + divide(u128::from(self.previous) * u128::from(self.left), limit.period)
    }

    fn pack(&self) -> State {
        State { time: self.opened, level: u128::from(self.previous) << 32 | u128::from(self.current) }
    }
}

/// The most of a bucket of `count` that may still be inside for its weight to be at most `weight`: the largest `left`
/// with floor(count × left / period) ≤ weight.
#[inline]
fn longest_left(limit: &Limit, count: u32, weight: u32) -> u64 {
    if count <= weight {
        return limit.period - 1;
    }
    divide((u128::from(weight) + 1) * u128::from(limit.period) - 1, u64::from(count))
}

/// What [`Limit::decide`] does, for a request of all or nothing that is granted, looking at the state once. None where
/// it isn't.
#[inline(always)]
pub(super) fn grant(limit: &Limit, state: Option<State>, now: i64, cost: u32) -> Option<(Decision, State)> {
    let mut window = match state {
        Some(state) => Window::at(limit, state, now),
        None => Window::opened_at(limit, now),
    };
    let used = window.used(limit);
    if used == 0 {
        window = Window::opened_at(limit, now);
    }
    let available = limit.max_requests.saturating_sub(u32::try_from(used).unwrap_or(u32::MAX));
    let remaining = available.checked_sub(cost)?;
    window.current = window.current.checked_add(cost)?;
    if cost == 0 {
        return None;
    }
    let reset_after = window.left + (limit.period - longest_left(limit, window.current, 0));
    let decision = Decision { allowed: true, granted: cost, remaining, retry_after: Some(0), reset_after };
    Some((decision, window.pack()))
}

#[inline]
pub(super) fn available(limit: &Limit, state: State, now: i64) -> u32 {
    let used = Window::at(limit, state, now).used(limit);
    limit.max_requests.saturating_sub(u32::try_from(used).unwrap_or(u32::MAX))
}

/// The sum never grows with time alone, so the first moment at which `cost` fits is either in the current bucket, while
/// the previous one slides out, or in the next one, while the current one does.
#[inline]
pub(super) fn wait(limit: &Limit, state: State, now: i64, cost: u32) -> u64 {
    let window = Window::at(limit, state, now);
    let Some(room) = limit.max_requests.checked_sub(cost) else { return u64::MAX };
    if let Some(weight) = room.checked_sub(window.current) {
        return window.left.saturating_sub(longest_left(limit, window.previous, weight));
    }
    window.left + (limit.period - longest_left(limit, window.current, room))
}

#[inline]
pub(super) fn consume(limit: &Limit, state: Option<State>, now: i64, cost: u32) -> State {
    match state.map(|state| Window::at(limit, state, now)) {
        Some(window) if window.used(limit) > 0 => {
            Window { current: window.current.saturating_add(cost), ..window }.pack()
        }
        _ => State { time: now, level: u128::from(cost) },
    }
}

/// Takes from the current bucket first: what was consumed last counts in full.
#[inline]
pub(super) fn refund(limit: &Limit, state: State, now: i64, amount: u32) -> State {
    let window = Window::at(limit, state, now);
    let rest = amount.saturating_sub(window.current);
    let (current, previous) = (window.current.saturating_sub(amount), window.previous.saturating_sub(rest));
    Window { previous, current, ..window }.pack()
}
