//! Statistics: of the whole server, and of each policy of this database.

use super::policy::{is_there, note_of, tables_fit, valid_name};
use crate::error::Error;
use crate::pg::fmgr::{Call, Rows, Value};
use crate::pg::spi::{read_rows, text_bytes};
use crate::rate_limit::{REGION, whole};
use crate::shmem::segment;
use enough_engine::limiter::table::{PolicyStats, Table};

crate::export!(enough_rate_limit_stats = rate_limit_stats);

/// The policies of this database by name.
const NAMES: &str = "SELECT name FROM enough.rate_limit_policy WHERE rule OPERATOR(pg_catalog.=) 1 ORDER BY name";

/// `(policy)`
fn rate_limit_stats(call: &mut Call<'_>) -> Result<Value<'static>, Error> {
    if !call.is_null(0) {
        let name = valid_name(call, "policy")?;
        is_there(name)?;
        let mut rows = call.rows()?;
        push(&mut rows, name.payload())?;
        return Ok(rows.end());
    }
    tables_fit()?;
    let mut rows = call.rows()?;
    let stats = whole()?;
    let columns = [
        stats.allowed,
        stats.denied,
        stats.would_have_denied,
        stats.keys,
        stats.bytes_used,
        stats.bytes_max,
        stats.evictions,
        stats.evictions_of_active,
        stats.evictions_of_exhausted,
    ]
    .map(count);
    let [allowed, denied, would, keys, used, max, evictions, active, exhausted] = columns;
    rows.push(&[Value::Null, allowed, denied, would, keys, used, max, evictions, active, exhausted])?;
    read_rows(NAMES, &[], |row| match text_bytes(row, 1)? {
        Some(name) => push(&mut rows, name),
        None => Ok(()),
    })?;
    Ok(rows.end())
}

/// The row of a policy.
fn push(rows: &mut Rows<'_>, policy: &[u8]) -> Result<(), Error> {
    let stats = of_policy(policy)?;
    let PolicyStats { allowed, denied, would_have_denied, keys, evictions_of_active } = stats;
    rows.push(&[
        Value::Bytes(policy),
        count(allowed),
        count(denied),
        count(would_have_denied),
        count(keys),
        Value::Null,
        Value::Null,
        Value::Null,
        count(evictions_of_active),
        Value::Null,
    ])
}

fn count(number: u64) -> Value<'static> {
    Value::I64(i64::try_from(number).unwrap_or(i64::MAX))
}

/// What was counted for a policy.
fn of_policy(policy: &[u8]) -> Result<PolicyStats, Error> {
    let segment = segment()?;
    let note = note_of(segment, policy);
    let mut sum = PolicyStats::default();
    for partition in segment.partitions(REGION) {
        sum = sum + partition.shared(|words| Table::open(words)?.policy_stats(note))?;
    }
    Ok(sum)
}
