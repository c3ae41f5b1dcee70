//! Arguments of the queue's functions: ranges, defaults and arrays.
//!
//! NULL means the default for every argument that has one, because drivers pass `undefined` and `None` so. The defaults
//! stand in the SQL declarations, where people look for them, and here; a test compares the two. An empty array is no
//! error: a batch of nothing answers nothing.

use crate::error::{Error, required_elements};
use crate::pg::fmgr::{Array, Text, Time};
use crate::pg::memory::PgVec;

pub(super) const MILLISECOND: i64 = 1_000;
pub(super) const SECOND: i64 = 1_000_000;
pub(super) const MINUTE: i64 = 60 * SECOND;
pub(super) const HOUR: i64 = 3600 * SECOND;
pub(super) const DAY: i64 = 24 * HOUR;
pub(super) const YEAR: i64 = 366 * DAY;
/// As `EXTRACT(EPOCH …)` counts ten years.
pub(super) const TEN_YEARS: i64 = 3652 * DAY + 12 * HOUR;
/// The longest group or dedup key, in bytes.
const LONGEST_KEY: usize = 512;
/// The most messages that one call sends, reads or finishes.
pub(super) const MOST: i32 = 10_000;

/// A duration between `least` and `most` microseconds.
pub(super) fn duration(value: Time, argument: &'static str, least: i64, most: i64) -> Result<i64, Error> {
    match value {
        Time::Micros(micros) if (least..=most).contains(&micros) => Ok(micros),
        other => {
            let least = Time::Micros(least).describe();
            let expected = match most {
                TEN_YEARS => format!("an interval from {least} to 10 years"),
                i64::MAX => format!("an interval of {least} or more"),
                _ => format!("an interval from {least} to {}", Time::Micros(most).describe()),
            };
            Err(Error::invalid(argument, other.describe(), expected))
        }
    }
}

/// A duration where one is given.
pub(super) fn optional_duration(
    value: Option<Time>,
    argument: &'static str,
    least: i64,
    most: i64,
) -> Result<Option<i64>, Error> {
    value.map(|value| duration(value, argument, least, most)).transpose()
}

/// A number between `least` and `most`.
pub(super) fn whole(value: i32, argument: &'static str, least: i32, most: i32) -> Result<i32, Error> {
    if (least..=most).contains(&value) {
        return Ok(value);
    }
    Err(Error::invalid(argument, value, format!("from {least} to {most}")))
}

/// How many messages a call is to read or show.
pub(super) fn quantity(value: Option<i32>, default: i32) -> Result<usize, Error> {
    whole(value.unwrap_or(default), "qty", 1, MOST).map(|qty| qty as usize)
}

/// A limit, where one is given; 0 for none.
pub(super) fn limit(value: Option<i32>, argument: &'static str) -> Result<Option<i32>, Error> {
    value.map(|value| whole(value, argument, 0, i32::MAX)).transpose()
}

/// A message's priority.
pub(super) fn priority(value: Option<i32>) -> Result<i16, Error> {
    whole(value.unwrap_or(0), "priority", 0, 9).map(|priority| priority as i16)
}

/// A group or dedup key that isn't too long.
pub(super) fn key<'c>(value: Option<Text<'c>>, what: &'static str) -> Result<Option<Text<'c>>, Error> {
    match value.map(|key| key.payload().len()) {
        Some(size) if size > LONGEST_KEY => {
            let hint = "Use a shorter key, such as a hash of it.";
            Err(Error::TooLarge { what: what.into(), size, limit: LONGEST_KEY, unit: "bytes", hint })
        }
        _ => Ok(value),
    }
}

/// A message's delay.
pub(super) fn delay(value: Option<Time>) -> Result<i64, Error> {
    duration(value.unwrap_or(Time::Micros(0)), "delay", 0, TEN_YEARS)
}

/// When a message is to be delivered, in microseconds; `None` for at once.
pub(super) fn delivery(given: Option<Time>, deliver_at: Option<Time>, now: i64) -> Result<Option<i64>, Error> {
    let delay = delay(given)?;
    let at = match deliver_at {
        None => return Ok((delay > 0).then(|| now.saturating_add(delay))),
        Some(_) if delay > 0 => {
            return Err(Error::invalid("deliver_at", "given together with a delay", "left out where delay is given"));
        }
        Some(given) => moment(given, now)?,
    };
    Ok((at > now).then_some(at))
}

/// A moment, in microseconds, that isn't too far away.
pub(super) fn moment(given: Time, now: i64) -> Result<i64, Error> {
    let at = finite(given, "deliver_at")?;
    if at > now.saturating_add(TEN_YEARS) {
        let ahead = Time::Micros(at.saturating_sub(now)).describe() + " ahead";
        return Err(Error::invalid("deliver_at", ahead, "within 10 years"));
    }
    Ok(at)
}

/// A time that isn't infinite, in microseconds.
pub(super) fn finite(value: Time, argument: &'static str) -> Result<i64, Error> {
    match value {
        Time::Micros(at) => Ok(at),
        other => Err(Error::invalid(argument, other.describe(), "a finite time")),
    }
}

/// Fails where a batch has more elements than a call takes.
pub(super) fn check_batch(len: usize) -> Result<(), Error> {
    let limit = MOST as usize;
    if len <= limit {
        return Ok(());
    }
    let hint = "Split it into several calls.";
    Err(Error::TooLarge { what: "the batch".into(), size: len, limit, unit: "messages", hint })
}

/// The numbers of a batch of messages. NULL is a batch of nothing: it is what `array_agg` makes of no rows.
pub(super) fn msg_ids(given: Option<Array<'_, i64>>) -> Result<PgVec<i64>, Error> {
    let Some(numbers) = given else { return Ok(PgVec::new()) };
    check_batch(numbers.len())?;
    required_elements(numbers.iter(), "msg_ids").collect()
}

/// An array argument with an element for each message of a batch, where it is given.
pub(super) struct OnePerMessage<'c, T>(Option<Array<'c, T>>);

impl<'c, T: Copy + 'c> OnePerMessage<'c, T> {
    /// Fails where the array is there and has another length.
    pub(super) fn new(given: Option<Array<'c, T>>, argument: &'static str, messages: usize) -> Result<Self, Error> {
        match given {
            Some(items) if items.len() != messages => Err(Error::length(argument, items.len(), messages, "message")),
            given => Ok(OnePerMessage(given)),
        }
    }

    /// The element of a message, counted from 0; `None` where it is NULL or no array is given.
    pub(super) fn get(&self, place: usize) -> Option<T> {
        self.0.as_ref().and_then(|items| items.get(place))
    }
}
