//! Arguments of the SQL functions: their ranges. The defaults stand in the SQL declarations, and here for NULL.

use super::table::Space;
use crate::error::{Error, required, required_elements};
use crate::pg::fmgr::{Call, Jsonb, Text, Time};
use crate::pg::value::Value;

/// The longest key, in bytes.
pub(super) const LONGEST_KEY: usize = 512;
/// The most rows that a call lists.
const MOST: i32 = 10_000;

/// The most versions of a key beside the current one.
const LONGEST_HISTORY: i32 = 100;

const MILLISECOND: i64 = 1_000;
/// An hour.
const LONGEST_WAIT: i64 = 3600 * 1_000_000;
/// 100 years of 365.25 days.
const LONGEST_TTL: i64 = 36_525 * 86_400 * 1_000_000;

/// The space that is argument `at`.
pub(super) fn space(call: &Call<'_>, at: usize) -> Result<Space, Error> {
    Space::open(call.bytes(at).unwrap_or(b"default"))
}

/// The key, argument `at`.
pub(super) fn key<'c>(call: &Call<'c>, at: usize) -> Result<Text<'c>, Error> {
    let key = required(call.raw_text(at), "key")?;
    fits("key", key.payload().len())?;
    Ok(key)
}

/// The keys, argument `at`; none for NULL.
pub(super) fn keys<'c>(call: &Call<'c>, at: usize) -> Result<Vec<Text<'c>>, Error> {
    let Some(keys) = call.raw_text_array(at) else { return Ok(Vec::new()) };
    let mut all = Vec::with_capacity(keys.len());
    for (place, key) in required_elements(keys.iter(), "keys").enumerate() {
        let key = key?;
        fits("key", key.payload().len()).map_err(|error| error.of_element("keys", place))?;
        all.push(key);
    }
    Ok(all)
}

/// Fails where a key of that many bytes is none.
pub(super) fn fits(argument: &'static str, size: usize) -> Result<(), Error> {
    match size {
        0 => Err(Error::invalid(argument, "\"\"", "a text of 1 to 512 bytes")),
        1..=LONGEST_KEY => Ok(()),
        size => Err(Error::TooLarge {
            what: "the key".into(),
            size,
            limit: LONGEST_KEY,
            unit: "bytes",
            hint: "Use a shorter key, such as a hash of it.",
        }),
    }
}

/// The value, argument `at`.
pub(super) fn json<'c>(call: &Call<'c>, at: usize, name: &'static str) -> Result<Jsonb<'c>, Error> {
    required(call.jsonb(at), name)
}

/// The time to live, in microseconds; `None` for ever.
pub(super) fn ttl(call: &Call<'_>, at: usize) -> Result<Option<i64>, Error> {
    match call.interval(at) {
        None => Ok(None),
        Some(Time::Micros(micros)) if (MILLISECOND..=LONGEST_TTL).contains(&micros) => Ok(Some(micros)),
        Some(other) => Err(Error::invalid("ttl", other.describe(), "an interval from 1 ms to 100 years")),
    }
}

/// The version that the entry must have, 0 for none; `None` for any.
pub(super) fn if_version(call: &Call<'_>, at: usize) -> Result<Option<i64>, Error> {
    match call.i64(at) {
        Some(version) if version < 0 => {
            Err(Error::invalid("if_version", version, "an entry's version, or 0 where there must be none"))
        }
        version => Ok(version),
    }
}

/// The version behind which changes are asked for; 0 for all.
pub(super) fn since(call: &Call<'_>, at: usize) -> Result<i64, Error> {
    match call.i64(at) {
        Some(version) if version < 0 => Err(Error::invalid("since", version, "a version that was seen, or 0 for none")),
        version => Ok(version.unwrap_or(0)),
    }
}

/// How long to wait, in microseconds.
pub(super) fn wait(call: &Call<'_>, at: usize) -> Result<i64, Error> {
    match call.interval(at) {
        None => Ok(0),
        Some(Time::Micros(micros)) if (0..=LONGEST_WAIT).contains(&micros) => Ok(micros),
        Some(other) => Err(Error::invalid("wait", other.describe(), "an interval from 0 to 1 hour")),
    }
}

/// How many versions of each key a space keeps beside the current one.
pub(super) fn history(call: &Call<'_>, at: usize) -> Result<i32, Error> {
    match call.i32(at).unwrap_or(0) {
        history if (0..=LONGEST_HISTORY).contains(&history) => Ok(history),
        history => Err(Error::invalid("history", history, format!("from 0 to {LONGEST_HISTORY}"))),
    }
}

/// How many rows to list.
pub(super) fn max(call: &Call<'_>, at: usize, default: i32) -> Result<i32, Error> {
    match call.i32(at).unwrap_or(default) {
        max if (1..=MOST).contains(&max) => Ok(max),
        max => Err(Error::invalid("max", max, format!("from 1 to {MOST}"))),
    }
}

/// A `jsonb` that was copied out of a row.
pub(super) fn json_value(value: Option<&Vec<u8>>) -> Value<'_> {
    Value::or_null(value, |bytes| Value::Bytes(bytes))
}
