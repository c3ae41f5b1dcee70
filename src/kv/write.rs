//! Writing entries. Every write gives its row a new version, greater than the row's.

use super::arguments::fits;
use super::direct::{self, Live, New, Outcome};
use super::read::LIVE;
use super::table::Space;
use crate::error::Error;
use crate::pg::fmgr::{Jsonb, Text};
use crate::pg::server;
use crate::pg::spi::{Parameter, each_row_kept, jsonb_bytes, rows_as_user};

/// What every change of a row sets beside its value.
pub(super) const STAMP: &str = "version = DEFAULT, fence = DEFAULT, updated_at = DEFAULT";
/// How long the row of a key that was deleted stays.
pub(super) const KEPT: &str = "interval '1 day'";
/// The same in microseconds.
const KEPT_MICROS: i64 = 86_400 * 1_000_000;
/// When something that lives so many microseconds, or for ever, is over.
const EXPIRY: &str =
    "pg_catalog.clock_timestamp() OPERATOR(pg_catalog.+) ($3 OPERATOR(pg_catalog.*) interval '1 microsecond')";

/// Sets a key; the new version, or `None` where it hasn't the version that it must have, 0 for none at all.
pub(super) fn set(
    space: &Space,
    key: Text<'_>,
    value: Jsonb<'_>,
    ttl: Option<i64>,
    if_version: Option<i64>,
) -> Result<Option<i64>, Error> {
    let new = |live: Option<Live>| {
        is_wanted(live.as_ref(), if_version)
            .then(|| New { value: Some(value), expires_at: ttl.map(|ttl| server::now().saturating_add(ttl)) })
    };
    match direct::change(space, key, new)? {
        Outcome::Written(version) => return Ok(Some(version)),
        // Somebody may be about to delete the entry where none may be: the statement waits for that.
        Outcome::Kept if if_version != Some(0) => return Ok(None),
        Outcome::Kept | Outcome::Left => {}
    }
    let table = &space.table;
    let upsert = format!(
        "INSERT INTO {table} AS e (key, value, expires_at) VALUES ($1, $2, {EXPIRY}) \
         ON CONFLICT (key) DO UPDATE SET value = EXCLUDED.value, expires_at = EXCLUDED.expires_at, {STAMP}"
    );
    let parameters = [Parameter::TextArgument(Some(key)), Parameter::Json(Some(value)), Parameter::Micros(ttl)];
    match if_version {
        None => version_of(&format!("{upsert} RETURNING e.version"), &parameters),
        Some(0) => version_of(&format!("{upsert} WHERE NOT {LIVE} RETURNING e.version"), &parameters),
        Some(version) => {
            let [key, value, ttl] = parameters;
            version_of(
                &format!(
                    "UPDATE {table} AS e SET value = $2, expires_at = {EXPIRY}, {STAMP} \
                      WHERE e.key OPERATOR(pg_catalog.=) $1 AND e.version OPERATOR(pg_catalog.=) $4 AND {LIVE} \
                     RETURNING e.version"
                ),
                &[key, value, ttl, Parameter::I64(version)],
            )
        }
    }
}

/// Whether an entry, or none, has the version that it must have: 0 for none.
fn is_wanted(live: Option<&Live>, if_version: Option<i64>) -> bool {
    if_version.is_none_or(|version| live.map_or(0, |live| live.version) == version)
}

/// Sets all keys of an object; how many.
pub(super) fn set_all(space: &Space, entries: Jsonb<'_>, ttl: Option<i64>) -> Result<i32, Error> {
    let mut checked = Ok(());
    let mut is_object = false;
    rows_as_user(
        "SELECT pg_catalog.max(pg_catalog.octet_length(m.key)), pg_catalog.min(pg_catalog.octet_length(m.key)) \
           FROM pg_catalog.jsonb_object_keys(CASE pg_catalog.jsonb_typeof($1) WHEN 'object' THEN $1 ELSE '{}' END) AS m(key) \
         HAVING pg_catalog.jsonb_typeof($1) OPERATOR(pg_catalog.=) 'object'",
        &[Parameter::Json(Some(entries))],
        |row| {
            is_object = true;
            for size in [row.get::<i32>(1)?, row.get::<i32>(2)?].into_iter().flatten() {
                checked = checked.clone().and(fits("entries", usize::try_from(size).unwrap_or(usize::MAX)));
            }
            Ok(())
        },
    )?;
    if !is_object {
        return Err(Error::invalid("entries", "not an object", "a jsonb object: its members are the entries"));
    }
    checked?;
    // In the order of the keys, so that two of them never deadlock.
    let statement = format!(
        "INSERT INTO {} AS e (key, value, expires_at) \
         SELECT m.key, m.value, {EXPIRY} FROM pg_catalog.jsonb_each($2) AS m(key, value) \
          WHERE $1 IS NULL ORDER BY m.key COLLATE pg_catalog.\"C\" \
         ON CONFLICT (key) DO UPDATE SET value = EXCLUDED.value, expires_at = EXCLUDED.expires_at, {STAMP}",
        space.table
    );
    // The first is there so that the others have the numbers that they have above.
    let parameters = [Parameter::OptionalText(None), Parameter::Json(Some(entries)), Parameter::Micros(ttl)];
    let mut count = 0;
    each_row_kept(&format!("{statement} RETURNING 1"), &parameters, |_| {
        count += 1;
        Ok(())
    })?;
    Ok(count)
}

/// Deletes a key; whether there was an entry, with that version if one is given.
pub(super) fn delete(space: &Space, key: Text<'_>, if_version: Option<i64>) -> Result<bool, Error> {
    let new = |live: Option<Live>| {
        let wanted = live.is_some() && is_wanted(live.as_ref(), if_version);
        wanted.then(|| New { value: None, expires_at: Some(server::now().saturating_add(KEPT_MICROS)) })
    };
    match direct::change(space, key, new)? {
        Outcome::Written(_) => return Ok(true),
        Outcome::Kept => return Ok(false),
        Outcome::Left => {}
    }
    let statement = format!(
        "UPDATE {} AS e SET value = NULL, expires_at = pg_catalog.clock_timestamp() OPERATOR(pg_catalog.+) {KEPT}, {STAMP} \
          WHERE e.key OPERATOR(pg_catalog.=) $1 AND {LIVE} AND ($2 IS NULL OR e.version OPERATOR(pg_catalog.=) $2) \
         RETURNING e.version",
        space.table
    );
    let parameters = [Parameter::TextArgument(Some(key)), Parameter::OptionalI64(if_version)];
    Ok(version_of(&statement, &parameters)?.is_some())
}

/// Adds to the whole number that a key has, 0 where it has none; the sum.
pub(super) fn add(space: &Space, key: Text<'_>, by: i64) -> Result<i64, Error> {
    let number = "CASE WHEN pg_catalog.jsonb_typeof(e.value) OPERATOR(pg_catalog.=) 'number' THEN e.value::pg_catalog.numeric END";
    let sum = format!("({number} OPERATOR(pg_catalog.+) $2)");
    let statement = format!(
        "INSERT INTO {} AS e (key, value) VALUES ($1, pg_catalog.to_jsonb($2)) \
         ON CONFLICT (key) DO UPDATE SET {STAMP}, \
            value = CASE WHEN {LIVE} THEN pg_catalog.to_jsonb({sum}::pg_catalog.int8) ELSE EXCLUDED.value END, \
            expires_at = CASE WHEN {LIVE} THEN e.expires_at END \
          WHERE NOT {LIVE} OR ({number} OPERATOR(pg_catalog.=) pg_catalog.trunc({number}) \
            AND {sum} OPERATOR(pg_catalog.>=) -9223372036854775808 AND {sum} OPERATOR(pg_catalog.<=) 9223372036854775807) \
         RETURNING e.value::pg_catalog.int8",
        space.table
    );
    version_of(&statement, &[Parameter::TextArgument(Some(key)), Parameter::I64(by)])?.ok_or_else(|| {
        Error::invalid(
            "key",
            "its value is not a whole number, or too large for the sum to fit a bigint",
            "the key of a whole number, or of nothing yet",
        )
    })
}

/// Merges a patch into the value that a key has, as RFC 7396 has it; the new value, in its binary form.
pub(super) fn merge(space: &Space, key: Text<'_>, patch: Jsonb<'_>) -> Result<Option<Vec<u8>>, Error> {
    let statement = format!(
        "INSERT INTO {} AS e (key, value) VALUES ($1, enough._kv_merged(NULL, $2)) \
         ON CONFLICT (key) DO UPDATE SET {STAMP}, \
            value = enough._kv_merged(CASE WHEN {LIVE} THEN e.value END, $2), \
            expires_at = CASE WHEN {LIVE} THEN e.expires_at END \
         RETURNING e.value",
        space.table
    );
    let mut merged = None;
    each_row_kept(&statement, &[Parameter::TextArgument(Some(key)), Parameter::Json(Some(patch))], |row| {
        merged = jsonb_bytes(row, 1)?.map(<[u8]>::to_vec);
        Ok(())
    })?;
    Ok(merged)
}

/// The number that a statement answers with, if it does.
fn version_of(statement: &str, parameters: &[Parameter<'_>]) -> Result<Option<i64>, Error> {
    let mut version = None;
    each_row_kept(statement, parameters, |row| {
        version = row.get::<i64>(1)?;
        Ok(())
    })?;
    Ok(version)
}
