//! Whether tables of the extension's own still have the columns that its statements use: their owner may have altered, renamed
//! or dropped one, and a new library may meet the tables of an old version.

use super::catalog;
use super::row::column;
use super::table::relation::{INT2, INT4, INT8, JSONB, Relation, TEXT, TIMESTAMPTZ};
use crate::error::Error;
use pgrx::pg_sys;
use std::cell::RefCell;
use std::ffi::CStr;

const INTERVAL: u32 = pg_sys::INTERVALOID.to_u32();
const BOOL: u32 = pg_sys::BOOLOID.to_u32();

/// A column's name and the OID of its type.
pub type Column = (&'static CStr, u32);

/// The columns of `enough.queue` in every version: what is read by must do, so that a new library serves queues before the
/// extension is upgraded.
pub static QUEUE_READ: [Column; 11] = [
    (c"name", TEXT),
    (c"created_at", TIMESTAMPTZ),
    (c"visibility_timeout", INTERVAL),
    (c"max_attempts", INT4),
    (c"retry_backoff", INTERVAL),
    (c"retry_backoff_max", INTERVAL),
    (c"max_in_flight", INT4),
    (c"max_rate", INT4),
    (c"rate_period", INTERVAL),
    (c"archive_for", INTERVAL),
    (c"paused", BOOL),
];

/// All of them, for sessions that write.
pub static QUEUE: [Column; 20] = [
    (c"name", TEXT),
    (c"created_at", TIMESTAMPTZ),
    (c"visibility_timeout", INTERVAL),
    (c"max_attempts", INT4),
    (c"retry_backoff", INTERVAL),
    (c"retry_backoff_max", INTERVAL),
    (c"max_in_flight", INT4),
    (c"max_rate", INT4),
    (c"rate_period", INTERVAL),
    (c"archive_for", INTERVAL),
    (c"paused", BOOL),
    (c"durable_attempts", BOOL),
    (c"ack", TEXT),
    (c"group_limit", INT4),
    (c"dead_letter_queue", TEXT),
    (c"notify", BOOL),
    (c"dedup", TEXT),
    (c"dedup_for", INTERVAL),
    (c"group_rate", INT4),
    (c"group_rate_period", INTERVAL),
];

/// The columns of `enough.queue_key`.
pub static QUEUE_KEY: [Column; 4] =
    [(c"queue", TEXT), (c"dedup_key", TEXT), (c"msg_id", INT8), (c"until", TIMESTAMPTZ)];

/// The columns of `enough.topic_subscription`.
pub static TOPIC_SUBSCRIPTION: [Column; 3] = [(c"queue", TEXT), (c"topic_pattern", TEXT), (c"created_at", TIMESTAMPTZ)];

/// The columns of `enough.rate_limit_policy`.
pub static POLICY: [Column; 10] = [
    (c"name", TEXT),
    (c"max_requests", INT4),
    (c"period", INTERVAL),
    (c"algorithm", TEXT),
    (c"burst", INT4),
    (c"shadow", BOOL),
    (c"rule", INT2),
    (c"calendar", TEXT),
    (c"time_zone", TEXT),
    (c"since", TIMESTAMPTZ),
];

/// The columns of `enough.rate_limit_override`.
pub static OVERRIDE: [Column; 3] = [(c"policy", TEXT), (c"key", TEXT), (c"max_requests", INT4)];

/// The columns of a queue's archive.
static ARCHIVE: [Column; 12] = [
    (c"msg_id", INT8),
    (c"enqueued_at", TIMESTAMPTZ),
    (c"attempts", INT4),
    (c"priority", INT2),
    (c"group_key", TEXT),
    (c"dedup_key", TEXT),
    (c"headers", JSONB),
    (c"message", JSONB),
    (c"outcome", TEXT),
    (c"error", TEXT),
    (c"result", JSONB),
    (c"finished_at", TIMESTAMPTZ),
];

thread_local! {
    /// Tables that were found to fit, by the address of their columns' list and, of archives, by their OID; and how far the
    /// invalidations were by then.
    static FIT: RefCell<(u64, Vec<(usize, u32)>)> = const { RefCell::new((u64::MAX, Vec::new())) };
}

/// Fails with 55000 where the table `enough.<name>` has lost one of the columns, or one has another type.
pub fn check(name: &CStr, columns: &'static [Column]) -> Result<(), Error> {
    once(0, columns, || match catalog::relation_named(name) {
        Some(relation) => compare(relation, columns),
        None if catalog::relation_named(c"queue").is_none() => Err(Error::NoExtension),
        None => Err(Error::NotReady {
            problem: format!("the table enough.\"{}\" is missing", name.to_str().unwrap_or_default()),
            hint: "Where only the library has been upgraded so far: ALTER EXTENSION pg_enough UPDATE;".into(),
        }),
    })
}

/// The same of a queue's archive, by its OID. One that is gone fits.
pub fn check_archive(relation: u32) -> Result<(), Error> {
    once(relation, &ARCHIVE, || compare(relation, &ARCHIVE))
}

/// Does a check unless it has been done since the server last announced a change of some relation.
fn once(relation: u32, columns: &'static [Column], check: impl FnOnce() -> Result<(), Error>) -> Result<(), Error> {
    let (now, key) = (catalog::relcache_epoch(), (columns.as_ptr() as usize, relation));
    let known = FIT.with_borrow_mut(|(relcache_epoch, fit)| {
        if *relcache_epoch != now {
            fit.clear();
            *relcache_epoch = now;
        }
        fit.contains(&key)
    });
    if known {
        return Ok(());
    }
    check()?;
    FIT.with_borrow_mut(|(relcache_epoch, fit)| {
        // Looking may itself have taken in an announcement.
        if *relcache_epoch == catalog::relcache_epoch() {
            fit.push(key);
        }
    });
    Ok(())
}

fn compare(relation: u32, columns: &[Column]) -> Result<(), Error> {
    let Some(table) = Relation::facts_of_table(relation) else { return Ok(()) };
    for &(name, kind) in columns {
        match type_of(&table, name) {
            Some(found) if found == kind => {}
            found => return Err(differs(&table.name(), name, kind, found.is_some())),
        }
    }
    Ok(())
}

/// The OID of a column's type.
fn type_of(table: &Relation, name: &CStr) -> Option<u32> {
    let columns = table.descriptor();
    // SAFETY: the table is open; the numbers are below the count of its columns, whose names are C strings.
    unsafe {
        let count = usize::try_from((*columns).natts).unwrap_or(0);
        let found = (0..count)
            .map(|number| column(columns, number))
            .find(|column| !(**column).attisdropped && CStr::from_ptr((**column).attname.data.as_ptr()) == name)?;
        Some((*found).atttypid.to_u32())
    }
}

#[cold]
fn differs(table: &str, name: &CStr, kind: u32, there: bool) -> Error {
    let name = name.to_str().unwrap_or_default();
    let kind = match kind {
        INT2 => "smallint",
        INT4 => "integer",
        INT8 => "bigint",
        TEXT => "text",
        JSONB => "jsonb",
        INTERVAL => "interval",
        BOOL => "boolean",
        _ => "timestamptz",
    };
    let newer = "Where only the library has been upgraded so far: ALTER EXTENSION pg_enough UPDATE;";
    if there {
        return Error::NotReady {
            problem: format!("the column \"{name}\" of enough.\"{table}\" isn't of the type {kind} any more"),
            hint: format!("Give it back: ALTER TABLE enough.\"{table}\" ALTER \"{name}\" TYPE {kind}; {newer}"),
        };
    }
    Error::NotReady {
        problem: format!("the table enough.\"{table}\" has no column \"{name}\" any more"),
        hint: format!(
            "Rename it back where it was renamed, else add it: ALTER TABLE enough.\"{table}\" ADD \"{name}\" {kind}; {newer}"
        ),
    }
}
