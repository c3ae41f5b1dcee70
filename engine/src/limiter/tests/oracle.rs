//! The definitions of the algorithms, evaluated naively over the log of all grants: slow, and written without a state.

use crate::limiter::{Algorithm, Limit};

/// Every grant to one key: its time and cost.
pub(super) type Log = [(i64, u32)];

/// Whether `cost` may be granted at `now` (not before the last grant) by the definition of the limit's algorithm.
pub(super) fn allows(limit: &Limit, log: &Log, now: i64, cost: u32) -> bool {
    match limit.algorithm() {
        Algorithm::FixedWindow | Algorithm::Calendar => fixed_window(limit, log, now) + u128::from(cost) <= max(limit),
        Algorithm::SlidingWindow => sliding_window(limit, log, now) + u128::from(cost) <= max(limit),
        Algorithm::TokenBucket => token_bucket(limit, log, now, cost),
    }
}

fn max(limit: &Limit) -> u128 {
    u128::from(limit.max_requests())
}

fn period(limit: &Limit) -> i64 {
    limit.period().cast_signed()
}

/// What was consumed in the window that is open at `now`. Windows are cut out of the log one after another.
fn fixed_window(limit: &Limit, log: &Log, now: i64) -> u128 {
    let mut rest = log;
    while let Some(&(opened, _)) = rest.first() {
        let inside = rest.iter().take_while(|(time, _)| time - opened < period(limit)).count();
        if now - opened < period(limit) {
            return rest[..inside].iter().map(|(_, cost)| u128::from(*cost)).sum();
        }
        rest = &rest[inside..];
    }
    0
}

/// What was consumed in steps that aren't wholly a period old at `now`; steps start anew with the first grant at which
/// nothing counted.
fn sliding_window(limit: &Limit, log: &Log, now: i64) -> u128 {
    let mut origin = 0;
    for at in 1..log.len() {
        if sum_of_steps(limit, &log[origin..at], log[at].0) == 0 {
            origin = at;
        }
    }
    sum_of_steps(limit, &log[origin..], now)
}

fn sum_of_steps(limit: &Limit, log: &Log, now: i64) -> u128 {
    let Some(&(origin, _)) = log.first() else { return 0 };
    let step = i128::from(limit.period().div_ceil(16));
    // The first grant is its step's last microsecond.
    let last = |time: i64| i128::from(origin) + (i128::from(time - origin) + step - 1) / step * step;
    let inside = log.iter().filter(|(time, _)| i128::from(now) - last(*time) < i128::from(limit.period()));
    inside.map(|(_, cost)| u128::from(*cost)).sum()
}

/// No interval that ends now holds more than the capacity and what the rate adds in it.
fn token_bucket(limit: &Limit, log: &Log, now: i64, cost: u32) -> bool {
    let fits = |consumed: u128, since: i64| {
        let tokens = consumed * u128::from(limit.period());
        let capacity = u128::from(limit.capacity()) * u128::from(limit.period());
        tokens <= capacity + max(limit) * u128::from((now - since).cast_unsigned())
    };
    let mut consumed = u128::from(cost);
    fits(consumed, now)
        && log.iter().rev().all(|&(time, cost)| {
            consumed += u128::from(cost);
            fits(consumed, time)
        })
}

/// The generic cell rate algorithm by its usual variable, the theoretical arrival time, in units of 1/`max_requests`
/// of a microsecond. Gives the new one where the request conforms.
pub(super) fn gcra(limit: &Limit, arrival: i128, now: i64, cost: u32) -> Option<i128> {
    let rate = i128::from(limit.max_requests());
    let (now, emission) = (i128::from(now) * rate, i128::from(limit.period()));
    let next = arrival.max(now) + i128::from(cost) * emission;
    (next - i128::from(limit.capacity()) * emission <= now).then_some(next)
}
