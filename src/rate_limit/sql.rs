//! The SQL functions of `sql/rate_limit.sql`: arguments in, rows out.

use super::{MAX_KEY, all};
use crate::error::{Error, required, shown};
use crate::segment::call::{Array, Call, Time, Value};
use crate::segment::row::{Micros, RowKind};
use enough_engine::limiter::{Algorithm, Decision, Limit, MAX_REQUESTS, OutOfRange, Request};

/// The most keys of one call: their partitions are locked at the same time.
const MAX_KEYS: usize = 100;

crate::export!(
    enough_rate_limit = super::short::rate_limit | rate_limit,
    enough_rate_limit_peek = rate_limit_peek,
    enough_rate_limit_refund = rate_limit_refund,
    enough_rate_limit_up_to = rate_limit_up_to,
    enough_rate_limit_all = rate_limit_all,
    enough_rate_limit_reset = rate_limit_reset,
    enough_rate_limit_stats = rate_limit_stats,
);

/// What `rate_limit` returns: allowed, remaining, `retry_after`, `reset_after`.
pub(super) static ROW: RowKind<(bool, i64, Option<Micros>, Micros)> = RowKind::new();

/// `(key, max_requests, period, cost, algorithm, burst)`
fn rate_limit(call: &mut Call<'_>) -> Result<Value<'static>, Error> {
    let (key, limit) = (key(call, 0)?, limit(call, 4)?);
    let cost = amount(call, 3, "cost")?;
    let decision = super::request(key, &limit, Request::All(cost))?;
    call.row_of(&ROW, &row(&decision))
}

/// `(key, max_requests, period, algorithm, burst)`
fn rate_limit_peek(call: &mut Call<'_>) -> Result<Value<'static>, Error> {
    let (key, limit) = (key(call, 0)?, limit(call, 3)?);
    let decision = super::request(key, &limit, Request::Peek(1))?;
    call.row(&row(&decision))
}

/// `(key, max_requests, period, amount, algorithm, burst)`
fn rate_limit_refund(call: &mut Call<'_>) -> Result<Value<'static>, Error> {
    let (key, limit) = (key(call, 0)?, limit(call, 4)?);
    let amount = amount(call, 3, "amount")?;
    let decision = super::refund(key, &limit, amount)?;
    call.row(&row(&decision))
}

/// `(key, max_requests, period, cost, algorithm, burst)`
fn rate_limit_up_to(call: &mut Call<'_>) -> Result<Value<'static>, Error> {
    let (key, limit) = (key(call, 0)?, limit(call, 4)?);
    let cost = amount(call, 3, "cost")?;
    let decision = super::request(key, &limit, Request::UpTo(cost))?;
    let [allowed, remaining, retry_after, reset_after] = row(&decision);
    // At most `cost`, which came as an int.
    let granted = Value::I32(decision.granted.cast_signed());
    call.row(&[granted, allowed, remaining, retry_after, reset_after])
}

/// `(keys, max_requests, periods, cost, algorithm)`
fn rate_limit_all(call: &mut Call<'_>) -> Result<Value<'static>, Error> {
    let keys = required(call.text_array(0), "keys")?;
    let max_requests = required(call.i32_array(1), "max_requests")?;
    let periods = required(call.interval_array(2), "periods")?;
    let cost = amount(call, 3, "cost")?;
    let algorithm = algorithm(required(call.bytes(4), "algorithm")?)?;
    for (name, len) in [("max_requests", max_requests.len()), ("periods", periods.len())] {
        if len != keys.len() {
            let expected = format!("as many as there are keys, {}", keys.len());
            return Err(Error::invalid(name, format!("{len} elements"), expected));
        }
    }
    if keys.len() > MAX_KEYS {
        let hint = "Split the call, or count several things under one key.";
        return Err(Error::TooLarge { what: "number of keys", size: keys.len(), limit: MAX_KEYS, hint });
    }
    let keys = elements(keys, "keys")?;
    let max_requests = elements(max_requests, "max_requests")?;
    let periods = elements(periods, "periods")?;
    keys.iter().try_for_each(|key| fitting(key).map(drop))?;
    let limits = max_requests
        .into_iter()
        .zip(periods)
        .map(|(max_requests, period)| valid(max_requests, "periods", period, algorithm, None))
        .collect::<Result<Vec<_>, _>>()?;
    let (granted, decisions) = all::request(&keys, &limits, cost)?;
    let mut rows = call.rows()?;
    for (key, decision) in keys.into_iter().zip(&decisions) {
        // A key that isn't in the way has nothing to wait for, but isn't allowed either.
        let [_, remaining, retry_after, reset_after] = row(decision);
        rows.push(&[Value::Bytes(key), Value::Bool(granted), remaining, retry_after, reset_after])?;
    }
    Ok(rows.end())
}

/// The elements of an array, none of which may be NULL.
fn elements<'c, T: 'c>(array: Array<'c, T>, name: &'static str) -> Result<Vec<T>, Error> {
    array.iter().map(|element| required(element, name)).collect()
}

/// `(key)`
fn rate_limit_reset(call: &mut Call<'_>) -> Result<Value<'static>, Error> {
    super::reset(key(call, 0)?).map(Value::Bool)
}

/// `()`
fn rate_limit_stats(call: &mut Call<'_>) -> Result<Value<'static>, Error> {
    let stats = super::stats()?;
    let columns = [
        stats.keys,
        stats.bytes_used,
        stats.bytes_max,
        stats.allowed,
        stats.denied,
        stats.evictions,
        stats.evictions_of_active,
    ];
    call.row(&columns.map(|count| Value::I64(i64::try_from(count).unwrap_or(i64::MAX))))
}

/// The columns that every answer has: allowed, remaining, `retry_after`, `reset_after`.
#[inline]
pub(super) fn row(decision: &Decision) -> [Value<'static>; 4] {
    [
        Value::Bool(decision.allowed),
        Value::I64(i64::from(decision.remaining)),
        Value::or_null(decision.retry_after, interval),
        interval(decision.reset_after),
    ]
}

#[inline]
fn interval(micros: u64) -> Value<'static> {
    Value::Interval(bounded(micros))
}

/// What an interval can't hold is some 292,000 years: the longest that it can.
#[inline(always)]
pub(super) fn bounded(micros: u64) -> i64 {
    i64::try_from(micros).unwrap_or(i64::MAX)
}

/// The key, argument `at`.
#[inline]
pub(super) fn key<'c>(call: &Call<'c>, at: usize) -> Result<&'c [u8], Error> {
    fitting(required(call.bytes(at), "key")?)
}

/// Checks a key's size.
#[inline]
fn fitting(key: &[u8]) -> Result<&[u8], Error> {
    if key.len() > MAX_KEY {
        return Err(Error::TooLarge {
            what: "rate limit key",
            size: key.len(),
            limit: MAX_KEY,
            hint: "Limits are in bytes. Hash what identifies the caller, with sha256() or the like, and use that.",
        });
    }
    Ok(key)
}

/// Arguments 1 and 2, `algorithm` at `at` and `burst` after it.
#[inline]
fn limit(call: &Call<'_>, at: usize) -> Result<Limit, Error> {
    let max_requests = required(call.i32(1), "max_requests")?;
    let period = required(call.interval(2), "period")?;
    let algorithm = algorithm(required(call.bytes(at), "algorithm")?)?;
    valid(max_requests, "period", period, algorithm, call.i32(at + 1))
}

/// The limit, if all of it is in range; `name` is that of the argument that holds the period.
#[inline]
pub(super) fn valid(
    max_requests: i32,
    name: &'static str,
    period: Time,
    algorithm: Algorithm,
    burst: Option<i32>,
) -> Result<Limit, Error> {
    // What is negative is out of range, as what is too large is.
    let unsigned = |number: i32| u32::try_from(number).unwrap_or(u32::MAX);
    let micros = if let Time::Micros(micros) = period { u64::try_from(micros).unwrap_or(0) } else { 0 };
    Limit::new(algorithm, unsigned(max_requests), micros, burst.map(unsigned)).map_err(|out| match out {
        OutOfRange::MaxRequests => Error::invalid("max_requests", max_requests, "from 0 to 1000000000"),
        OutOfRange::Period => Error::invalid(name, period.describe(), "from 1 ms to 366 days"),
        OutOfRange::Burst => Error::invalid("burst", burst.unwrap_or(0), "from 1 to 1000000000"),
        OutOfRange::BurstWithoutBucket => {
            Error::invalid("burst", burst.unwrap_or(0), "left out with any algorithm but 'token_bucket'")
        }
    })
}

/// The algorithm of that name.
#[inline(always)]
pub(super) fn algorithm_named(name: &[u8]) -> Option<Algorithm> {
    // Compared as a whole, by words: a match would look at each byte.
    let is = |other: &str| name == other.as_bytes();
    if is("sliding_window") {
        Some(Algorithm::SlidingWindow)
    } else if is("fixed_window") {
        Some(Algorithm::FixedWindow)
    } else {
        is("token_bucket").then_some(Algorithm::TokenBucket)
    }
}

/// The same; an error where there is none.
#[inline]
pub(super) fn algorithm(name: &[u8]) -> Result<Algorithm, Error> {
    algorithm_named(name)
        .ok_or_else(|| Error::invalid("algorithm", shown(name), "'sliding_window', 'fixed_window' or 'token_bucket'"))
}

/// A cost, or an amount to refund.
#[inline]
pub(super) fn amount(call: &Call<'_>, at: usize, name: &'static str) -> Result<u32, Error> {
    let amount = required(call.i32(at), name)?;
    u32::try_from(amount)
        .ok()
        .filter(|amount| *amount <= MAX_REQUESTS)
        .ok_or_else(|| Error::invalid(name, amount, "from 0 to 1000000000"))
}
