//! Policies: limits that have a name, in a table, so that they are changed in one place and dumped with the database.
//!
//! A policy's keys are its own: a key under a policy and the same key without one, or under another, are known by
//! different hashes.

use super::sql::{amount, key, row, valid};
use crate::error::{Error, required, shown};
use crate::segment::call::{Call, Text, Time, Value};
use crate::segment::encoding::{decode, decode_start};
use crate::segment::server;
use crate::segment::sql::{Parameter, run, text_bytes, text_parameter};
use enough_engine::limiter::{Algorithm, Limit, Request};
use pgrx::pg_sys::{PgBuiltInOids, PgOid};
use pgrx::spi::{OwnedPreparedStatement, Spi};
use std::cell::RefCell;

crate::export!(
    enough_rate_limit_policy_set = rate_limit_policy_set,
    enough_rate_limit_policy_drop = rate_limit_policy_drop,
    enough_rate_limit_by = rate_limit_by,
);

/// The longest name, in bytes, as of a table.
const LONGEST_NAME: usize = 63;

/// A row of the table.
struct Policy {
    limit: Limit,
    /// Whatever it finds it allows, and counts as if it didn't.
    shadow: bool,
}

const FIND: &str = "SELECT max_requests, \
            (EXTRACT(epoch FROM period) OPERATOR(pg_catalog.*) 1000000)::pg_catalog.int8, algorithm, burst, shadow \
       FROM enough.rate_limit_policy WHERE name OPERATOR(pg_catalog.=) $1";

thread_local! {
    /// The plan of [`FIND`], made at a session's first call. The server makes it anew when the table has changed.
    static PLAN: RefCell<Option<OwnedPreparedStatement>> = const { RefCell::new(None) };
}

/// `(name, max_requests, period, algorithm, burst, shadow)`
fn rate_limit_policy_set(call: &mut Call<'_>) -> Result<Value<'static>, Error> {
    let name = valid_name(call, "name")?;
    let max_requests = required(call.i32(1), "max_requests")?;
    let period = required(call.interval(2), "period")?;
    let algorithm = required(call.raw_text(3), "algorithm")?;
    let burst = call.i32(4);
    let shadow = required(call.bool(5), "shadow")?;
    let limit = valid(max_requests, "period", period, super::sql::algorithm(algorithm.payload())?, burst)?;
    writable("rate_limit_policy_set")?;
    run(
        "INSERT INTO enough.rate_limit_policy (name, max_requests, period, algorithm, burst, shadow) \
         VALUES ($1, $2, $3 OPERATOR(pg_catalog.*) '1 microsecond'::pg_catalog.interval, $4, \
                 NULLIF($5, 0), $6 OPERATOR(pg_catalog.<>) 0) \
         ON CONFLICT (name) DO UPDATE SET max_requests = EXCLUDED.max_requests, period = EXCLUDED.period, \
                 algorithm = EXCLUDED.algorithm, burst = EXCLUDED.burst, shadow = EXCLUDED.shadow",
        &[
            Parameter::TextArgument(Some(name)),
            Parameter::I32(max_requests),
            Parameter::Micros(Some(limit.period().cast_signed())),
            Parameter::TextArgument(Some(algorithm)),
            Parameter::I32(burst.unwrap_or(0)),
            Parameter::I32(i32::from(shadow)),
        ],
    )?;
    Ok(Value::Null)
}

/// `(name)`
fn rate_limit_policy_drop(call: &mut Call<'_>) -> Result<Value<'static>, Error> {
    let name = valid_name(call, "name")?;
    writable("rate_limit_policy_drop")?;
    let dropped = run(
        "DELETE FROM enough.rate_limit_policy WHERE name OPERATOR(pg_catalog.=) $1 RETURNING 1",
        &[Parameter::TextArgument(Some(name))],
    )?;
    Ok(Value::Bool(dropped > 0))
}

/// `(policy, key, cost)`
fn rate_limit_by(call: &mut Call<'_>) -> Result<Value<'static>, Error> {
    let name = valid_name(call, "policy")?;
    let key = key(call, 1)?;
    let cost = amount(call, 2, "cost")?;
    let policy = find(name)?.ok_or_else(|| Error::Missing {
        what: "rate limit policy",
        name: decode(name.payload()).into_owned(),
        hint: "Define it with enough.rate_limit_policy_set().",
    })?;
    // No text holds a zero byte: no key without a policy looks like this.
    let key = [name.payload(), &[0], key].concat();
    let mut decision = super::request(&key, &policy.limit, Request::All(cost))?;
    if policy.shadow {
        (decision.allowed, decision.retry_after) = (true, Some(0));
    }
    call.row(&row(&decision))
}

fn writable(function: &'static str) -> Result<(), Error> {
    if server::may_write() { Ok(()) } else { Err(Error::ReadOnly { function }) }
}

/// Argument 0 of the functions that define policies and of the one that uses them.
fn valid_name<'c>(call: &Call<'c>, argument: &'static str) -> Result<Text<'c>, Error> {
    let name = required(call.raw_text(0), argument)?;
    if (1..=LONGEST_NAME).contains(&name.payload().len()) {
        return Ok(name);
    }
    let name = decode_start(name.payload(), LONGEST_NAME);
    Err(Error::Name { what: "rate limit policy", name, expected: "from 1 to 63 bytes long" })
}

/// The policy as the calling statement's snapshot has it.
fn find(name: Text<'_>) -> Result<Option<Policy>, Error> {
    PLAN.with_borrow_mut(|plan| {
        Spi::connect(|client| {
            let plan = match plan {
                Some(plan) => plan,
                None => plan.insert(client.prepare(FIND, &[PgOid::from(PgBuiltInOids::TEXTOID.value())])?.keep()),
            };
            let Some(found) = client.select(&*plan, Some(1), &[text_parameter(name)])?.next() else { return Ok(None) };
            let unreadable =
                || Error::Internal { problem: format!("rate limit policy {} holds a NULL", shown(name.payload())) };
            let max_requests = found.get::<i32>(1)?.ok_or_else(unreadable)?;
            let period = Time::Micros(found.get::<i64>(2)?.ok_or_else(unreadable)?);
            let algorithm: Algorithm = super::sql::algorithm(text_bytes(&found, 3)?.ok_or_else(unreadable)?)?;
            let limit = valid(max_requests, "period", period, algorithm, found.get::<i32>(4)?)?;
            Ok(Some(Policy { limit, shadow: found.get::<bool>(5)?.ok_or_else(unreadable)? }))
        })
    })
}
