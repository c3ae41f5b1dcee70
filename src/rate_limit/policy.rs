//! Policies: limits that have a name, in a table, so that they are changed in one place and dumped with the database.
//!
//! A policy is a name with one or more rules, a row each. Rule 1 is there as long as the policy is; its row has what
//! belongs to the policy as a whole.

use super::arguments::{algorithm, fitting, valid};
use super::calendar::UNITS;
use crate::error::{Error, required};
use crate::pg::catalog;
use crate::pg::encoding::{decode, decode_start, shown};
use crate::pg::fmgr::{Call, Text, Time, Value};
use crate::pg::own;
use crate::pg::server::{self, is_time_zone};
use crate::pg::spi::{Parameter, as_owner_of, column, each_row, read_rows, run};
use crate::rate_limit::REGION;
use crate::shmem::{Segment, segment};
use enough_engine::hash::KeyHash;
use enough_engine::limiter::table::{MAX_RULES, Table};
use enough_engine::limiter::{Algorithm, Limit, MAX_PERIOD, MAX_REQUESTS};

crate::export!(
    enough_rate_limit_policy_set = rate_limit_policy_set,
    enough_rate_limit_policy_add = rate_limit_policy_add,
    enough_rate_limit_policy_override = rate_limit_policy_override,
    enough_rate_limit_policy_override_drop = rate_limit_policy_override_drop,
    enough_rate_limit_policy_drop = rate_limit_policy_drop,
    enough_rate_limit_policies = rate_limit_policies,
);

/// The longest name, in bytes, as of a table.
const LONGEST_NAME: usize = 63;

/// What a rule allows, as its row has it.
struct Definition<'c> {
    max_requests: i32,
    period: Option<i64>,
    algorithm: &'static str,
    burst: Option<i32>,
    calendar: Option<&'c [u8]>,
    time_zone: &'c [u8],
}

/// Where the arguments of a rule are that don't have the same place in all functions.
struct Places {
    calendar: usize,
    time_zone: usize,
}

impl<'c> Definition<'c> {
    /// Arguments 1 to 4, and those at `places`.
    fn of(call: &Call<'c>, places: &Places) -> Result<Self, Error> {
        let max_requests = required(call.i32(1), "max_requests")?;
        let algorithm = algorithm(call.bytes(3))?;
        let burst = call.i32(4);
        let zone = call.bytes(places.time_zone).unwrap_or(b"UTC");
        if !is_time_zone(zone) {
            return Err(Error::invalid(
                "time_zone",
                shown(zone),
                "a name of pg_timezone_names, such as \"Europe/Berlin\"",
            ));
        }
        let period = call.interval(2);
        let Some(calendar) = call.bytes(places.calendar) else {
            let limit = valid(max_requests, required(period, "period")?, algorithm, burst)?;
            let period = Some(limit.period().cast_signed());
            return Ok(Definition {
                max_requests,
                period,
                algorithm: name_of(&limit),
                burst,
                calendar: None,
                time_zone: zone,
            });
        };
        if !UNITS.iter().any(|unit| unit.as_bytes() == calendar) {
            return Err(Error::invalid(
                "calendar",
                shown(calendar),
                "\"hour\", \"day\", \"week\", \"month\" or \"year\"",
            ));
        }
        if let Some(period) = period {
            return Err(Error::invalid("period", period.describe(), "NULL where a calendar is given"));
        }
        if algorithm == Algorithm::TokenBucket {
            return Err(Error::invalid("algorithm", "\"token_bucket\"", "left out where a calendar is given"));
        }
        // For the ranges of the others.
        valid(max_requests, Time::Micros(1_000_000), Algorithm::FixedWindow, burst)?;
        let calendar = Some(calendar);
        Ok(Definition { max_requests, period: None, algorithm: "fixed_window", burst, calendar, time_zone: zone })
    }

    /// As parameters 2 to 7 of a statement.
    fn parameters(&self) -> [Parameter<'_>; 6] {
        [
            Parameter::I32(self.max_requests),
            Parameter::Micros(self.period),
            Parameter::Text(self.algorithm),
            Parameter::OptionalI32(self.burst),
            self.calendar.map_or(Parameter::OptionalText(None), Parameter::Bytes),
            Parameter::Bytes(self.time_zone),
        ]
    }

    /// The longest that what was consumed may count, in microseconds.
    fn longest(&self) -> u64 {
        self.period.map_or(MAX_PERIOD, i64::unsigned_abs)
    }
}

fn name_of(limit: &Limit) -> &'static str {
    match limit.algorithm() {
        Algorithm::SlidingWindow => "sliding_window",
        Algorithm::FixedWindow | Algorithm::Calendar => "fixed_window",
        Algorithm::TokenBucket => "token_bucket",
    }
}

/// `(name, max_requests, period, algorithm, burst, shadow, calendar, time_zone)`
fn rate_limit_policy_set(call: &mut Call<'_>) -> Result<Value<'static>, Error> {
    let name = valid_name(call, "name")?;
    let definition = Definition::of(call, &Places { calendar: 6, time_zone: 7 })?;
    let shadow = call.bool(5).unwrap_or(false);
    writable("rate_limit_policy_set")?;
    let mut parameters = vec![Parameter::TextArgument(Some(name))];
    parameters.extend(definition.parameters());
    parameters.push(Parameter::OptionalBool(Some(shadow)));
    // `since` is when it last got another algorithm or period: what was consumed before is converted.
    run(
        "INSERT INTO enough.rate_limit_policy AS p \
                (name, rule, max_requests, period, algorithm, burst, calendar, time_zone, shadow) \
         VALUES ($1, 1, $2, $3 OPERATOR(pg_catalog.*) '1 microsecond'::pg_catalog.interval, $4, $5, $6, $7, $8) \
         ON CONFLICT (name, rule) DO UPDATE SET max_requests = EXCLUDED.max_requests, period = EXCLUDED.period, \
                algorithm = EXCLUDED.algorithm, burst = EXCLUDED.burst, calendar = EXCLUDED.calendar, \
                time_zone = EXCLUDED.time_zone, shadow = EXCLUDED.shadow, \
                since = CASE WHEN (p.algorithm, p.period, p.calendar, p.time_zone) IS NOT DISTINCT FROM \
                        (EXCLUDED.algorithm, EXCLUDED.period, EXCLUDED.calendar, EXCLUDED.time_zone) \
                        THEN p.since ELSE EXCLUDED.since END",
        &parameters,
    )?;
    // The others are deleted after that: it waits for a session that adds one.
    run(
        "DELETE FROM enough.rate_limit_policy \
         WHERE name OPERATOR(pg_catalog.=) $1 AND rule OPERATOR(pg_catalog.>) 1",
        &[Parameter::TextArgument(Some(name))],
    )?;
    hold(name.payload(), definition.longest())?;
    Ok(Value::VOID)
}

/// `(name, max_requests, period, algorithm, burst, calendar, time_zone)`
fn rate_limit_policy_add(call: &mut Call<'_>) -> Result<Value<'static>, Error> {
    let name = valid_name(call, "name")?;
    let definition = Definition::of(call, &Places { calendar: 5, time_zone: 6 })?;
    writable("rate_limit_policy_add")?;
    // Of two that add at a time one waits here, and then sees the other's rule.
    let there = run(
        "UPDATE enough.rate_limit_policy SET since = since \
         WHERE name OPERATOR(pg_catalog.=) $1 AND rule OPERATOR(pg_catalog.=) 1",
        &[Parameter::TextArgument(Some(name))],
    )?;
    if there == 0 {
        return Err(missing(name.payload()));
    }
    let mut parameters = vec![Parameter::TextArgument(Some(name))];
    parameters.extend(definition.parameters());
    let mut rule = None;
    each_row(
        "INSERT INTO enough.rate_limit_policy \
                (name, rule, max_requests, period, algorithm, burst, calendar, time_zone, shadow) \
         SELECT $1, pg_catalog.max(rule) OPERATOR(pg_catalog.+) 1, $2, \
                $3 OPERATOR(pg_catalog.*) '1 microsecond'::pg_catalog.interval, $4, $5, $6, $7, pg_catalog.bool_or(shadow) \
         FROM enough.rate_limit_policy WHERE name OPERATOR(pg_catalog.=) $1 RETURNING rule::pg_catalog.int4",
        &parameters,
        |row| {
            rule = row.get::<i32>(1)?;
            Ok(())
        },
    )?;
    let rule = rule.map_or(0, i32::unsigned_abs);
    if rule > MAX_RULES {
        return Err(Error::TooLarge {
            what: "the rate limit policy".into(),
            size: rule as usize,
            limit: MAX_RULES as usize,
            unit: "rules",
            hint: "Define the policy again, with fewer rules.",
        });
    }
    hold(name.payload(), definition.longest())?;
    Ok(Value::VOID)
}

/// `(name, key, max_requests)`
fn rate_limit_policy_override(call: &mut Call<'_>) -> Result<Value<'static>, Error> {
    let name = valid_name(call, "name")?;
    let key = required(call.raw_text(1), "key")?;
    fitting(key.payload())?;
    let max_requests = call.i32(2);
    if let Some(most) = max_requests.filter(|most| !u32::try_from(*most).is_ok_and(|most| most <= MAX_REQUESTS)) {
        return Err(Error::invalid("max_requests", most, "from 0 to 1000000000, or NULL for no limit"));
    }
    writable("rate_limit_policy_override")?;
    is_there(name)?;
    run(
        "INSERT INTO enough.rate_limit_override (policy, key, max_requests) VALUES ($1, $2, $3) \
         ON CONFLICT (policy, key) DO UPDATE SET max_requests = EXCLUDED.max_requests",
        &[
            Parameter::TextArgument(Some(name)),
            Parameter::TextArgument(Some(key)),
            Parameter::OptionalI32(max_requests),
        ],
    )?;
    Ok(Value::VOID)
}

/// `(name, key)`
fn rate_limit_policy_override_drop(call: &mut Call<'_>) -> Result<Value<'static>, Error> {
    let name = valid_name(call, "name")?;
    let key = required(call.raw_text(1), "key")?;
    fitting(key.payload())?;
    writable("rate_limit_policy_override_drop")?;
    let dropped = run(
        "DELETE FROM enough.rate_limit_override \
         WHERE policy OPERATOR(pg_catalog.=) $1 AND key OPERATOR(pg_catalog.=) $2",
        &[Parameter::TextArgument(Some(name)), Parameter::TextArgument(Some(key))],
    )?;
    Ok(Value::Bool(dropped > 0))
}

/// `(name)`
fn rate_limit_policy_drop(call: &mut Call<'_>) -> Result<Value<'static>, Error> {
    let name = valid_name(call, "name")?;
    writable("rate_limit_policy_drop")?;
    let dropped = run(
        "DELETE FROM enough.rate_limit_policy WHERE name OPERATOR(pg_catalog.=) $1",
        &[Parameter::TextArgument(Some(name))],
    )?;
    // A role that may drop the policy may drop what belongs to it.
    if dropped > 0
        && let Some(overrides) = catalog::relation_named(c"rate_limit_override")
    {
        as_owner_of(overrides, || {
            run(
                "DELETE FROM enough.rate_limit_override WHERE policy OPERATOR(pg_catalog.=) $1",
                &[Parameter::TextArgument(Some(name))],
            )
        })?;
    }
    Ok(Value::Bool(dropped > 0))
}

/// `()`
fn rate_limit_policies(call: &mut Call<'_>) -> Result<Value<'static>, Error> {
    tables_fit()?;
    let mut rows = call.rows()?;
    read_rows(
        "SELECT p.name::pg_catalog.text, p.rule::pg_catalog.int4, p.max_requests::pg_catalog.int4, p.period, \
                p.algorithm::pg_catalog.text, p.burst::pg_catalog.int4, p.calendar::pg_catalog.text, \
                p.time_zone::pg_catalog.text, p.shadow::pg_catalog.bool, \
                CASE WHEN p.rule OPERATOR(pg_catalog.=) 1 \
                     THEN (SELECT pg_catalog.count(*) FROM enough.rate_limit_override AS o \
                           WHERE o.policy OPERATOR(pg_catalog.=) p.name) ELSE 0 END \
         FROM enough.rate_limit_policy AS p ORDER BY p.name, p.rule",
        &[],
        |row| {
            let mut columns = [Value::Null; 10];
            for (at, place) in columns.iter_mut().enumerate() {
                *place = column(row, at + 1)?;
            }
            rows.push(&columns)
        },
    )?;
    Ok(rows.end())
}

fn writable(function: &'static str) -> Result<(), Error> {
    if server::may_write() { tables_fit() } else { Err(Error::ReadOnly { function }) }
}

/// Fails where the tables of policies lack a column that is used here.
pub(super) fn tables_fit() -> Result<(), Error> {
    own::check(c"rate_limit_policy", &own::POLICY)?;
    own::check(c"rate_limit_override", &own::OVERRIDE)
}

/// What a policy's counters are known by.
pub(super) fn note_of(segment: &Segment, policy: &[u8]) -> KeyHash {
    segment.hash(REGION, &[&[0], policy].concat())
}

/// Keeps what was consumed under a policy for as long as a rule of `period` microseconds, which it gets now, may want it.
pub(super) fn hold(policy: &[u8], period: u64) -> Result<(), Error> {
    let segment = segment()?;
    let note = note_of(segment, policy);
    let until = server::now().saturating_add_unsigned(period);
    for partition in segment.partitions(REGION) {
        partition.exclusive(|words| Table::open(words)?.hold(note, until))?;
    }
    Ok(())
}

/// Argument 0 of the functions that define policies and of those that use them.
pub(super) fn valid_name<'c>(call: &Call<'c>, argument: &'static str) -> Result<Text<'c>, Error> {
    let name = required(call.raw_text(0), argument)?;
    if (1..=LONGEST_NAME).contains(&name.payload().len()) {
        return Ok(name);
    }
    let name = decode_start(name.payload(), LONGEST_NAME);
    Err(Error::Name { what: "rate limit policy", name, expected: "from 1 to 63 bytes long" })
}

/// Fails where there is no policy of that name.
pub(super) fn is_there(name: Text<'_>) -> Result<(), Error> {
    tables_fit()?;
    let found = read_rows(
        "SELECT FROM enough.rate_limit_policy \
         WHERE name OPERATOR(pg_catalog.=) $1 AND rule OPERATOR(pg_catalog.=) 1",
        &[Parameter::TextArgument(Some(name))],
        |_| Ok(()),
    )?;
    if found == 0 { Err(missing(name.payload())) } else { Ok(()) }
}

/// There is no policy of that name.
pub(super) fn missing(name: &[u8]) -> Error {
    Error::Missing {
        what: "rate limit policy",
        name: decode(name).into_owned(),
        hint: "Define it with enough.rate_limit_policy_set().",
    }
}
