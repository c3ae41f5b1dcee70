//! The SQL functions of `sql/semaphore.sql`: arguments in, rows out.

use super::acquire::{self, Wish};
use super::arguments::{TTL, max_holders, name, ttl, wait};
use super::{held, look};
use crate::error::{Error, required};
use crate::pg::fmgr::{Call, Value};

crate::export!(
    enough_semaphore_acquire = semaphore_acquire,
    enough_semaphore_extend = semaphore_extend,
    enough_semaphore_release = semaphore_release,
    enough_semaphore_holders = semaphore_holders,
    enough_semaphore_stats = semaphore_stats,
);

/// `(name, max_holders, ttl, wait)`
fn semaphore_acquire(call: &mut Call<'_>) -> Result<Value<'static>, Error> {
    let name = name(call, 0)?;
    let (max, ttl) = (max_holders(call, 1)?, ttl(call.interval(2).unwrap_or(TTL))?);
    let token = acquire::acquire(name, Wish { max, ttl, wait: wait(call, 3)? })?;
    Ok(Value::or_null(token, Value::I64))
}

/// `(name, token, ttl)`
fn semaphore_extend(call: &mut Call<'_>) -> Result<Value<'static>, Error> {
    let (name, token) = (name(call, 0)?, required(call.i64(1), "token")?);
    let ttl = ttl(required(call.interval(2), "ttl")?)?;
    held::extend(name, token, ttl).map(Value::Bool)
}

/// `(name, token)`
fn semaphore_release(call: &mut Call<'_>) -> Result<Value<'static>, Error> {
    let (name, token) = (name(call, 0)?, required(call.i64(1), "token")?);
    held::release(name, token).map(Value::Bool)
}

/// `(name)`
fn semaphore_holders(call: &mut Call<'_>) -> Result<Value<'static>, Error> {
    let only = if call.is_null(0) { None } else { Some(name(call, 0)?) };
    let mut rows = call.rows()?;
    look::holders(only, &mut rows)?;
    Ok(rows.end())
}

/// `()`
fn semaphore_stats(call: &mut Call<'_>) -> Result<Value<'static>, Error> {
    let stats = look::whole()?;
    let counts = [
        stats.names,
        stats.holders,
        stats.waiters,
        stats.bytes_used,
        stats.bytes_max,
        stats.taken,
        stats.denied,
        stats.expired,
    ];
    call.row(&counts.map(|count| Value::I64(i64::try_from(count).unwrap_or(i64::MAX))))
}
