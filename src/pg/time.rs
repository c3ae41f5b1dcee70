//! Durations and instants, in microseconds where they are any.

use pgrx::pg_sys;

/// A duration or instant that isn't a number of microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Time {
    /// Microseconds; of an instant, since PostgreSQL's epoch.
    Micros(i64),
    /// Beyond what a 64-bit number of microseconds holds.
    TooLong,
    /// `'infinity'`
    Infinite,
    /// `'-infinity'`
    NegativeInfinite,
}

impl Time {
    /// For messages.
    pub fn describe(self) -> String {
        match self {
            Time::Micros(micros) => describe_micros(micros),
            Time::TooLong => "an interval of over 292,000 years".into(),
            Time::Infinite => "infinity".into(),
            Time::NegativeInfinite => "-infinity".into(),
        }
    }
}

/// A number of microseconds in the units of intervals: `1 day 30 minutes`, `-250 ms`, `0 s`.
fn describe_micros(micros: i64) -> String {
    const UNITS: [(u64, &str); 6] = [
        (86_400_000_000, "day"),
        (3_600_000_000, "hour"),
        (60_000_000, "minute"),
        (1_000_000, "s"),
        (1_000, "ms"),
        (1, "us"),
    ];
    let mut rest = micros.unsigned_abs();
    let mut parts = Vec::new();
    for (size, unit) in UNITS {
        let (count, plural) = (rest / size, if unit.len() > 2 && rest / size > 1 { "s" } else { "" });
        if count > 0 {
            parts.push(format!("{count} {unit}{plural}"));
        }
        rest %= size;
    }
    if parts.is_empty() {
        return "0 s".into();
    }
    format!("{}{}", if micros < 0 { "-" } else { "" }, parts.join(" "))
}

/// An interval in microseconds, as `EXTRACT(EPOCH …)` counts: a year has 365.25 days, a month 30.
#[inline]
pub(super) fn interval_micros(interval: pg_sys::Interval) -> Time {
    if interval.month == 0 && interval.day == 0 { Time::Micros(interval.time) } else { long_micros(interval) }
}

fn long_micros(interval: pg_sys::Interval) -> Time {
    const DAY: i128 = 86_400_000_000;
    // Since 17 an interval can be infinite, which is told by its fields' extremes.
    if interval.month == i32::MAX && interval.day == i32::MAX && interval.time == i64::MAX {
        return Time::Infinite;
    }
    if interval.month == i32::MIN && interval.day == i32::MIN && interval.time == i64::MIN {
        return Time::NegativeInfinite;
    }
    let (years, months) = (i128::from(interval.month / 12), i128::from(interval.month % 12));
    let micros = years * (DAY * 1461 / 4) + months * 30 * DAY + i128::from(interval.day) * DAY;
    i64::try_from(micros + i128::from(interval.time)).map_or(Time::TooLong, Time::Micros)
}
