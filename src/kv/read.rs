//! Reading entries: as a SELECT of the caller's would see them, at every isolation level.

use super::table::Space;
use crate::error::Error;
use crate::pg::fmgr::{Jsonb, Rows, Text};
use crate::pg::spi::{Parameter, column, jsonb_bytes, rows_as_user, rows_as_user_kept};
use crate::pg::table::relation::TEXT;
use crate::pg::value::Value;
use pgrx::pg_sys::Datum;

/// Whether a row of `e` is an entry: it is neither deleted nor over.
pub(super) const LIVE: &str = "(e.value IS NOT NULL AND (e.expires_at IS NULL \
                               OR e.expires_at OPERATOR(pg_catalog.>) pg_catalog.clock_timestamp()))";

/// An entry.
pub(super) struct Entry {
    /// Its binary form.
    pub value: Vec<u8>,
    pub version: i64,
    /// In microseconds since PostgreSQL's epoch.
    pub updated_at: i64,
    /// `None` for ever.
    pub expires_at: Option<i64>,
}

/// The value of a key, in its binary form.
pub(super) fn value(space: &Space, key: Text<'_>) -> Result<Option<Vec<u8>>, Error> {
    let mut found = None;
    rows_as_user_kept(
        &format!("SELECT e.value FROM {} AS e WHERE e.key OPERATOR(pg_catalog.=) $1 AND {LIVE}", space.table),
        &[Parameter::TextArgument(Some(key))],
        |row| {
            found = jsonb_bytes(row, 1)?.map(<[u8]>::to_vec);
            Ok(())
        },
    )?;
    Ok(found)
}

/// Whether a key has an entry.
pub(super) fn has(space: &Space, key: Text<'_>) -> Result<bool, Error> {
    let statement = format!("SELECT FROM {} AS e WHERE e.key OPERATOR(pg_catalog.=) $1 AND {LIVE}", space.table);
    Ok(rows_as_user_kept(&statement, &[Parameter::TextArgument(Some(key))], |_| Ok(()))? > 0)
}

/// A key's entry.
pub(super) fn entry(space: &Space, key: Text<'_>) -> Result<Option<Entry>, Error> {
    let mut found = None;
    let micros = |value| match value {
        Value::Typed(datum, _) => Some(datum.value().cast_signed() as i64),
        _ => None,
    };
    rows_as_user_kept(
        &format!(
            "SELECT e.value, e.version, e.updated_at, e.expires_at FROM {} AS e \
              WHERE e.key OPERATOR(pg_catalog.=) $1 AND {LIVE}",
            space.table
        ),
        &[Parameter::TextArgument(Some(key))],
        |row| {
            let (Some(value), Some(version)) = (jsonb_bytes(row, 1)?, row.get::<i64>(2)?) else { return Ok(()) };
            found = Some(Entry {
                value: value.to_vec(),
                version,
                updated_at: micros(column(row, 3)?).unwrap_or(0),
                expires_at: micros(column(row, 4)?),
            });
            Ok(())
        },
    )?;
    Ok(found)
}

/// The entries of keys, in the order of the keys.
pub(super) fn entries(space: &Space, keys: &[Text<'_>], rows: &mut Rows<'_>) -> Result<(), Error> {
    let keys: Vec<Option<Datum>> = keys.iter().map(|key| Some(key.datum())).collect();
    let statement = format!(
        "SELECT e.key, e.value, e.version FROM pg_catalog.unnest($1) WITH ORDINALITY AS u(key, place) \
           JOIN {} AS e ON e.key OPERATOR(pg_catalog.=) u.key WHERE {LIVE} ORDER BY u.place",
        space.table
    );
    rows_as_user(&statement, &[Parameter::Column(&keys, TEXT)], |row| {
        rows.push(&[column(row, 1)?, column(row, 2)?, column(row, 3)?])
    })?;
    Ok(())
}

/// What begins with `prefix`, as a pattern, which the server turns into a range of the index. In its encodings no part of a character is
/// one of these bytes.
pub(super) fn pattern(prefix: &[u8]) -> Vec<u8> {
    let mut pattern = Vec::with_capacity(prefix.len() + 1);
    for &byte in prefix {
        if matches!(byte, b'\\' | b'%' | b'_') {
            pattern.push(b'\\');
        }
        pattern.push(byte);
    }
    pattern.push(b'%');
    pattern
}

/// Up to `max` keys that begin with `prefix`, in byte order, behind `after`.
pub(super) fn keys(
    space: &Space,
    prefix: &[u8],
    after: Option<Text<'_>>,
    max: i32,
    rows: &mut Rows<'_>,
) -> Result<(), Error> {
    let pattern = pattern(prefix);
    let statement = format!(
        "SELECT e.key FROM {} AS e WHERE e.key OPERATOR(pg_catalog.~~) $1 \
            AND ($2 IS NULL OR e.key OPERATOR(pg_catalog.>) $2) AND {LIVE} ORDER BY e.key LIMIT $3",
        space.table
    );
    let parameters = [Parameter::Bytes(&pattern), Parameter::TextArgument(after), Parameter::I32(max)];
    rows_as_user(&statement, &parameters, |row| rows.push(&[column(row, 1)?]))?;
    Ok(())
}

/// Up to `max` entries whose values contain `matching`, in the order of their keys, behind `after`.
pub(super) fn find(
    space: &Space,
    matching: Jsonb<'_>,
    after: Option<Text<'_>>,
    max: i32,
    rows: &mut Rows<'_>,
) -> Result<(), Error> {
    let statement = format!(
        "SELECT e.key, e.value, e.version FROM {} AS e WHERE e.value OPERATOR(pg_catalog.@>) $1 \
            AND ($2 IS NULL OR e.key OPERATOR(pg_catalog.>) $2) AND {LIVE} ORDER BY e.key LIMIT $3",
        space.table
    );
    let parameters = [Parameter::Json(Some(matching)), Parameter::TextArgument(after), Parameter::I32(max)];
    rows_as_user(&statement, &parameters, |row| rows.push(&[column(row, 1)?, column(row, 2)?, column(row, 3)?]))?;
    Ok(())
}
