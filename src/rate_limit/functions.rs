//! The SQL functions of `sql/rate_limit.sql` that say by their arguments what is allowed: arguments in, rows out.

use super::all;
use super::arguments::{
    ROW, algorithm, amount, duration, element_of, elements, fitting, interval, key, limit, row, valid, valid_named,
};
use crate::error::{Error, required};
use crate::pg::fmgr::{Call, Value};
use enough_engine::limiter::{Algorithm, MIN_PERIOD, Request};

/// The most keys of one call: their partitions are locked at the same time.
const MAX_KEYS: usize = 100;
/// How long a reservation is made ahead by default.
const MAX_WAIT: u64 = 60_000_000;

crate::export!(
    enough_rate_limit = super::fast_path::rate_limit | rate_limit,
    enough_rate_limit_peek = rate_limit_peek,
    enough_rate_limit_refund = rate_limit_refund,
    enough_rate_limit_up_to = rate_limit_up_to,
    enough_rate_limit_all = rate_limit_all,
    enough_rate_limit_reserve = rate_limit_reserve,
    enough_rate_limit_reset = rate_limit_reset,
    enough_rate_limit_block = rate_limit_block,
    enough_rate_limit_unblock = rate_limit_unblock,
);

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
    let algorithm = algorithm(call.bytes(4))?;
    for (name, len) in [("max_requests", max_requests.len()), ("periods", periods.len())] {
        if len != keys.len() {
            return Err(Error::length(name, len, keys.len(), "key"));
        }
    }
    if keys.len() > MAX_KEYS {
        let hint = "Split the call, or count several things under one key.";
        return Err(Error::TooLarge {
            what: "the array of keys".into(),
            size: keys.len(),
            limit: MAX_KEYS,
            unit: "elements",
            hint,
        });
    }
    let keys = elements(keys, "keys")?;
    let max_requests = elements(max_requests, "max_requests")?;
    let periods = elements(periods, "periods")?;
    for (place, key) in keys.iter().enumerate() {
        fitting(key).map_err(|error| error.of_element("keys", place))?;
    }
    let mut limits = Vec::with_capacity(keys.len());
    for (at, (max_requests, period)) in max_requests.into_iter().zip(periods).enumerate() {
        let called = |name| element_of(if name == "period" { "periods" } else { "max_requests" }, at);
        limits.push(valid_named(max_requests, period, algorithm, None, called)?);
    }
    let (granted, decisions) = all::request(&keys, &limits, cost)?;
    let mut rows = call.rows()?;
    for (key, decision) in keys.into_iter().zip(&decisions) {
        // A key that isn't in the way has nothing to wait for, but isn't allowed either.
        let [_, remaining, retry_after, reset_after] = row(decision);
        rows.push(&[Value::Bytes(key), Value::Bool(granted), remaining, retry_after, reset_after])?;
    }
    Ok(rows.end())
}

/// `(key, max_requests, period, cost, burst, max_wait)`
fn rate_limit_reserve(call: &mut Call<'_>) -> Result<Value<'static>, Error> {
    let key = key(call, 0)?;
    let max_requests = required(call.i32(1), "max_requests")?;
    let period = required(call.interval(2), "period")?;
    let cost = amount(call, 3, "cost")?;
    let limit = valid(max_requests, period, Algorithm::TokenBucket, call.i32(4))?;
    let max_wait = call.interval(5).map_or(Ok(MAX_WAIT), |time| duration(time, 0, "max_wait"))?;
    let decision = super::reserve(key, &limit, cost, max_wait)?;
    let wait = decision.retry_after.filter(|_| decision.allowed);
    Ok(Value::or_null(wait, interval))
}

/// `(key)`
fn rate_limit_reset(call: &mut Call<'_>) -> Result<Value<'static>, Error> {
    super::reset(key(call, 0)?).map(Value::Bool)
}

/// `(key, duration)`
fn rate_limit_block(call: &mut Call<'_>) -> Result<Value<'static>, Error> {
    let key = key(call, 0)?;
    let length = duration(required(call.interval(1), "duration")?, MIN_PERIOD, "duration")?;
    super::block(key, length)?;
    Ok(Value::VOID)
}

/// `(key)`
fn rate_limit_unblock(call: &mut Call<'_>) -> Result<Value<'static>, Error> {
    super::unblock(key(call, 0)?).map(Value::Bool)
}
