//! When the windows of the calendar open: with the hour, day, week, month or year of a time zone.
//!
//! The server computes it, because it knows the time zones. A session asks it once a window.

use crate::error::Error;
use crate::pg::backend_local::BackendLocal;
use crate::pg::server;
use crate::pg::spi::{Parameter, read_rows};
use enough_engine::limiter::{Limit, MAX_PERIOD, MIN_PERIOD};

/// What a window may be.
pub(super) const UNITS: [&str; 5] = ["hour", "day", "week", "month", "year"];

/// A window: its unit and zone, when it opens and when it closes, in microseconds.
type Window = (Vec<u8>, Vec<u8>, i64, i64);

/// Windows that this session has asked for.
static KNOWN: BackendLocal<Vec<Window>> = BackendLocal::new(Vec::new());

/// The most that a session remembers.
const MOST_KNOWN: usize = 16;

/// Both ends in microseconds since the server's epoch.
const WINDOW: &str = "SELECT ((EXTRACT(epoch FROM opens) OPERATOR(pg_catalog.-) 946684800) \
            OPERATOR(pg_catalog.*) 1000000)::pg_catalog.int8, \
        ((EXTRACT(epoch FROM closes) OPERATOR(pg_catalog.-) 946684800) \
            OPERATOR(pg_catalog.*) 1000000)::pg_catalog.int8 \
    FROM enough._rate_limit_window($1, $2, pg_catalog.clock_timestamp())";

/// The limit of `max_requests` in the window that is open now.
pub(super) fn limit(max_requests: u32, unit: &[u8], zone: &[u8]) -> Result<Limit, Error> {
    let (opens, closes) = window(unit, zone)?;
    let length = closes.abs_diff(opens).clamp(MIN_PERIOD, MAX_PERIOD);
    Limit::calendar(max_requests, opens, length)
        .map_err(|_| Error::Internal { problem: "a window of the calendar is out of range".into() })
}

fn window(unit: &[u8], zone: &[u8]) -> Result<(i64, i64), Error> {
    let now = server::now();
    if let Some(known) = KNOWN.get() {
        let open = |window: &&Window| window.0 == unit && window.1 == zone && (window.2..window.3).contains(&now);
        if let Some(window) = known.iter().find(open) {
            return Ok((window.2, window.3));
        }
    }
    let mut found = None;
    read_rows(WINDOW, &[Parameter::Bytes(unit), Parameter::Bytes(zone)], |row| {
        found = row.get::<i64>(1)?.zip(row.get::<i64>(2)?);
        Ok(())
    })?;
    let (opens, closes) = found.ok_or_else(|| Error::Internal { problem: "the calendar has no such window".into() })?;
    if let Some(mut known) = KNOWN.get() {
        known.retain(|window| !(window.0 == unit && window.1 == zone));
        if known.len() >= MOST_KNOWN {
            known.clear();
        }
        known.push((unit.to_vec(), zone.to_vec(), opens, closes));
    }
    Ok((opens, closes))
}
