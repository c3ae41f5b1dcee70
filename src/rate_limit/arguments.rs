//! Arguments of the SQL functions, and the answers that most of them have.

use super::MAX_KEY;
use crate::error::{Error, required};
use crate::pg::encoding::shown;
use crate::pg::fmgr::{Array, Call, Time, Value};
use crate::pg::row::{Micros, RowKind};
use enough_engine::limiter::{Algorithm, Decision, Limit, MAX_PERIOD, MAX_REQUESTS, OutOfRange};
use std::borrow::Cow;

/// The key, argument `at`.
#[inline]
pub(super) fn key<'c>(call: &Call<'c>, at: usize) -> Result<&'c [u8], Error> {
    fitting(required(call.bytes(at), "key")?)
}

/// Checks a key's size.
#[inline]
pub(super) fn fitting(key: &[u8]) -> Result<&[u8], Error> {
    if key.len() > MAX_KEY {
        return Err(Error::TooLarge {
            what: "the rate limit key".into(),
            size: key.len(),
            limit: MAX_KEY,
            unit: "bytes",
            hint: "Hash what identifies the caller, with sha256() or the like, and use that.",
        });
    }
    Ok(key)
}

/// Arguments 1 and 2, `algorithm` at `at` and `burst` after it.
#[inline]
pub(super) fn limit(call: &Call<'_>, at: usize) -> Result<Limit, Error> {
    let max_requests = required(call.i32(1), "max_requests")?;
    let period = required(call.interval(2), "period")?;
    valid(max_requests, period, algorithm(call.bytes(at))?, call.i32(at + 1))
}

/// The limit, if all of it is in range.
#[inline]
pub(super) fn valid(max_requests: i32, period: Time, algorithm: Algorithm, burst: Option<i32>) -> Result<Limit, Error> {
    valid_named(max_requests, period, algorithm, burst, |name| name.into())
}

/// The same, with what the arguments are called where `max_requests` and `period` aren't it.
pub(super) fn valid_named(
    max_requests: i32,
    period: Time,
    algorithm: Algorithm,
    burst: Option<i32>,
    called: impl Fn(&'static str) -> Cow<'static, str>,
) -> Result<Limit, Error> {
    // What is negative is out of range, as what is too large is.
    let unsigned = |number: i32| u32::try_from(number).unwrap_or(u32::MAX);
    let micros = if let Time::Micros(micros) = period { u64::try_from(micros).unwrap_or(0) } else { 0 };
    Limit::new(algorithm, unsigned(max_requests), micros, burst.map(unsigned)).map_err(|out| match out {
        OutOfRange::MaxRequests => Error::invalid(called("max_requests"), max_requests, "from 0 to 1000000000"),
        OutOfRange::Period => Error::invalid(called("period"), period.describe(), "from 1 ms to 366 days"),
        OutOfRange::Burst => Error::invalid("burst", burst.unwrap_or(0), "from 1 to 1000000000"),
        OutOfRange::BurstWithoutBucket => {
            Error::invalid("burst", burst.unwrap_or(0), "left out with any algorithm but \"token_bucket\"")
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

/// The same, with an error where there is none; NULL is the default.
#[inline]
pub(super) fn algorithm(name: Option<&[u8]>) -> Result<Algorithm, Error> {
    let Some(name) = name else { return Ok(Algorithm::SlidingWindow) };
    algorithm_named(name).ok_or_else(|| {
        Error::invalid("algorithm", shown(name), "\"sliding_window\", \"fixed_window\" or \"token_bucket\"")
    })
}

/// A cost, or an amount to refund; NULL is 1.
#[inline]
pub(super) fn amount(call: &Call<'_>, at: usize, name: &'static str) -> Result<u32, Error> {
    let amount = call.i32(at).unwrap_or(1);
    u32::try_from(amount)
        .ok()
        .filter(|amount| *amount <= MAX_REQUESTS)
        .ok_or_else(|| Error::invalid(name, amount, "from 0 to 1000000000"))
}

/// A duration from `least` (microseconds) to 366 days.
pub(super) fn duration(time: Time, least: u64, name: &'static str) -> Result<u64, Error> {
    match time {
        Time::Micros(micros) => u64::try_from(micros).ok(),
        _ => None,
    }
    .filter(|micros| (least..=MAX_PERIOD).contains(micros))
    .ok_or_else(|| {
        let least = i64::try_from(least).unwrap_or(0);
        Error::invalid(name, time.describe(), format!("from {} to 366 days", Time::Micros(least).describe()))
    })
}

/// The elements of an array, none of which may be NULL: the error names the first that is.
pub(super) fn elements<'c, T: 'c>(array: Array<'c, T>, name: &'static str) -> Result<Vec<T>, Error> {
    let named = array.iter().enumerate();
    named.map(|(at, element)| element.ok_or(Error::NullElement { argument: name, index: at + 1 })).collect()
}

/// What an array's element is called in a message: by its subscript, which counts from 1.
pub(super) fn element_of(name: &'static str, at: usize) -> Cow<'static, str> {
    format!("{name}[{}]", at + 1).into()
}

/// The columns that every answer has: allowed, remaining, `retry_after`, `reset_after`.
#[inline]
pub(super) fn row(decision: &Decision) -> [Value<'static>; 4] {
    [
        Value::Bool(decision.allowed),
        remaining(decision),
        Value::or_null(decision.retry_after, interval),
        interval(decision.reset_after),
    ]
}

/// How many more of cost 1; NULL where nothing limits them.
#[inline]
fn remaining(decision: &Decision) -> Value<'static> {
    if decision.remaining == u32::MAX { Value::Null } else { Value::I64(i64::from(decision.remaining)) }
}

/// So many microseconds.
#[inline]
pub(super) fn interval(micros: u64) -> Value<'static> {
    Value::Interval(bounded(micros))
}

/// What an interval can't hold is some 292,000 years: the longest that it can.
#[inline(always)]
pub(super) fn bounded(micros: u64) -> i64 {
    i64::try_from(micros).unwrap_or(i64::MAX)
}

/// Whole seconds, rounded up.
pub(super) fn seconds(micros: u64) -> u64 {
    micros.div_ceil(1_000_000)
}

/// What `rate_limit` returns: allowed, remaining, `retry_after`, `reset_after`.
pub(super) static ROW: RowKind<(bool, i64, Option<Micros>, Micros)> = RowKind::new();
