//! Arguments of the SQL functions: their ranges. The defaults stand in the SQL declarations, and here for NULL.

use crate::error::{Error, required};
use crate::pg::fmgr::{Call, Time};
use enough_engine::semaphore::MAX_NAME;

const MILLISECOND: i64 = 1_000;
const SECOND: i64 = 1_000_000;
const HOUR: i64 = 3600 * SECOND;
const YEAR: i64 = 366 * 24 * HOUR;
/// The most that may hold a name.
const MAX_HOLDERS: i32 = 1_000_000;

/// The name, argument `at`.
#[inline]
pub(super) fn name<'c>(call: &Call<'c>, at: usize) -> Result<&'c [u8], Error> {
    let name = required(call.bytes(at), "name")?;
    match name.len() {
        0 => Err(Error::invalid("name", "\"\"", "a text of 1 to 512 bytes")),
        1..=MAX_NAME => Ok(name),
        size => Err(Error::TooLarge {
            what: "the semaphore's name".into(),
            size,
            limit: MAX_NAME,
            unit: "bytes",
            hint: "Use a shorter name, such as a hash of it.",
        }),
    }
}

/// How many may hold it.
#[inline]
pub(super) fn max_holders(call: &Call<'_>, at: usize) -> Result<u32, Error> {
    let most = call.i32(at).unwrap_or(1);
    if (1..=MAX_HOLDERS).contains(&most) {
        return Ok(most.cast_unsigned());
    }
    Err(Error::invalid("max_holders", most, format!("from 1 to {MAX_HOLDERS}")))
}

/// For how long it is held, in microseconds.
#[inline]
pub(super) fn ttl(given: Time) -> Result<i64, Error> {
    duration(given, "ttl", MILLISECOND, YEAR)
}

/// How long a token is held by default.
pub(super) const TTL: Time = Time::Micros(30 * SECOND);

/// How long to wait, in microseconds.
#[inline]
pub(super) fn wait(call: &Call<'_>, at: usize) -> Result<i64, Error> {
    call.interval(at).map_or(Ok(0), |given| duration(given, "wait", 0, HOUR))
}

#[inline]
fn duration(given: Time, argument: &'static str, least: i64, most: i64) -> Result<i64, Error> {
    match given {
        Time::Micros(micros) if (least..=most).contains(&micros) => Ok(micros),
        other => {
            let [least, most] = [least, most].map(|micros| Time::Micros(micros).describe());
            Err(Error::invalid(argument, other.describe(), format!("an interval from {least} to {most}")))
        }
    }
}
