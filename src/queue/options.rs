//! The rows of `enough.queue`: which queues there are, and their options.

use super::name::missing;
use crate::error::Error;
use crate::pg::catalog;
use crate::pg::own;
use crate::pg::spi::as_owner_of;
use crate::pg::spi::{Parameter, read_rows, read_rows_kept, run, text};
use enough_engine::queue::Options;

/// The columns of `enough.queue` that [`options_of`] reads; times in microseconds. Those from `durable_attempts` on
/// are NULL where the table is of a version that hasn't got them.
pub(in crate::queue) const OPTIONS: &str = "\
    (EXTRACT(EPOCH FROM visibility_timeout) OPERATOR(pg_catalog.*) 1000000)::pg_catalog.int8, max_attempts, \
    (EXTRACT(EPOCH FROM retry_backoff) OPERATOR(pg_catalog.*) 1000000)::pg_catalog.int8, \
    (EXTRACT(EPOCH FROM retry_backoff_max) OPERATOR(pg_catalog.*) 1000000)::pg_catalog.int8, \
    (EXTRACT(EPOCH FROM archive_for) OPERATOR(pg_catalog.*) 1000000)::pg_catalog.int8, paused, max_in_flight, max_rate, \
    (EXTRACT(EPOCH FROM rate_period) OPERATOR(pg_catalog.*) 1000000)::pg_catalog.int8, \
    (pg_catalog.to_jsonb(queue.*) OPERATOR(pg_catalog.->>) 'durable_attempts')::pg_catalog.bool, \
    (pg_catalog.to_jsonb(queue.*) OPERATOR(pg_catalog.->>) 'ack') OPERATOR(pg_catalog.=) 'async', \
    (pg_catalog.to_jsonb(queue.*) OPERATOR(pg_catalog.->>) 'group_limit')::pg_catalog.int4, \
    (pg_catalog.to_jsonb(queue.*) OPERATOR(pg_catalog.->>) 'group_rate')::pg_catalog.int4, \
    (EXTRACT(EPOCH FROM (pg_catalog.to_jsonb(queue.*) OPERATOR(pg_catalog.->>) 'group_rate_period')::pg_catalog.interval) \
        OPERATOR(pg_catalog.*) 1000000)::pg_catalog.int8";

pub(in crate::queue) fn options_of(row: &pgrx::spi::SpiHeapTupleData<'_>) -> Result<Options, Error> {
    let limit = |column| Ok::<_, Error>(row.get::<i32>(column)?.map_or(0, |most| most.max(0).cast_unsigned()));
    Ok(Options {
        visibility_timeout: row.get::<i64>(1)?.unwrap_or(0),
        // 0: as often as it takes.
        max_attempts: row.get::<i32>(2)?.filter(|&most| most > 0).map_or(u32::MAX, i32::cast_unsigned),
        retry_backoff: row.get::<i64>(3)?.unwrap_or(0),
        retry_backoff_max: row.get::<i64>(4)?.unwrap_or(0),
        archive_for: row.get::<i64>(5)?.unwrap_or(i64::MAX),
        paused: row.get::<bool>(6)?.unwrap_or(false),
        max_in_flight: limit(7)?,
        max_rate: limit(8)?,
        rate_period: row.get::<i64>(9)?.unwrap_or(0),
        durable_attempts: row.get::<bool>(10)?.unwrap_or(false),
        ack_async: row.get::<bool>(11)?.unwrap_or(false),
        // 0: as many as there are.
        group_limit: match row.get::<i32>(12)?.unwrap_or(1).max(0) {
            0 => u32::MAX,
            most => most.cast_unsigned(),
        },
        group_rate: limit(13)?,
        group_rate_period: row.get::<i64>(14)?.unwrap_or(0),
    })
}

/// A queue's options from `enough.queue`.
pub(in crate::queue) fn load_options(name: &str) -> Result<Options, Error> {
    own::check(c"queue", &own::QUEUE_READ)?;
    let mut found = None;
    read_rows(
        &format!("SELECT {OPTIONS} FROM enough.queue WHERE name OPERATOR(pg_catalog.=) $1"),
        &[Parameter::Text(name)],
        |row| {
            found = Some(options_of(row)?);
            Ok(())
        },
    )?;
    found.ok_or_else(|| missing(name))
}

/// Does `work` with the rights of the owner of `enough.queue`: a role that may make or drop a queue's tables may do so, and the list of
/// queues follows.
pub(in crate::queue) fn in_registry<R>(work: impl FnOnce() -> Result<R, Error>) -> Result<R, Error> {
    own::check(c"queue", &own::QUEUE_READ)?;
    // Afterwards: to look at the table takes in what others have committed, and it may be another one by then.
    let registry = catalog::relation_named(c"queue").ok_or(Error::NoExtension)?;
    as_owner_of(registry, work)
}

/// Options that each session goes by itself, beside those in the index. A change of them is announced ([`announce`]).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(in crate::queue) struct SessionOptions {
    /// Dead letters are sent to the queue of that name, too.
    pub dead_letter_queue: Option<String>,
    /// Listeners are told when an empty queue becomes ready.
    pub notify: bool,
    /// A message that is leased has no dedup key: another may be sent with it.
    pub dedup_waiting: bool,
    /// So long after the send a dedup key is taken, also where the message is finished; in microseconds. `None` where only live
    /// messages have one.
    pub dedup_for: Option<i64>,
}

/// A queue's options for sessions; `None` where `enough.queue` has no row of that name.
pub(in crate::queue) fn session_options(name: &str) -> Result<Option<SessionOptions>, Error> {
    // NULL where the table is of a version that hasn't got the column.
    let option = |column: &str| format!("pg_catalog.to_jsonb(queue.*) OPERATOR(pg_catalog.->>) '{column}'");
    let statement = format!(
        "SELECT {}, ({})::pg_catalog.bool, ({dedup}) OPERATOR(pg_catalog.=) 'waiting', \
                CASE WHEN ({dedup}) OPERATOR(pg_catalog.=) 'window' THEN \
                    (EXTRACT(EPOCH FROM ({})::pg_catalog.interval) OPERATOR(pg_catalog.*) 1000000)::pg_catalog.int8 END \
           FROM enough.queue WHERE name OPERATOR(pg_catalog.=) $1",
        option("dead_letter_queue"),
        option("notify"),
        option("dedup_for"),
        dedup = option("dedup"),
    );
    let mut found = None;
    in_registry(|| {
        read_rows_kept(&statement, &[Parameter::Text(name)], |row| {
            found = Some(SessionOptions {
                dead_letter_queue: text(row, 1)?,
                notify: row.get::<bool>(2)?.unwrap_or(false),
                dedup_waiting: row.get::<bool>(3)?.unwrap_or(false),
                dedup_for: row.get::<i64>(4)?,
            });
            Ok(())
        })
    })?;
    Ok(found)
}

/// Lets all sessions look at the options for sessions when this transaction commits.
pub(in crate::queue) fn announce() -> Result<(), Error> {
    catalog::announce(catalog::relation_named(c"queue").ok_or(Error::NoExtension)?);
    Ok(())
}

/// Lets the queues whose dead letters go to one queue have another, or none.
pub(in crate::queue) fn redirect_dead_letters(from: &str, to: Option<&str>) -> Result<(), Error> {
    if own::check(c"queue", &own::QUEUE).is_err() {
        // The table is of a version that doesn't know of them.
        return Ok(());
    }
    let changed = in_registry(|| {
        run(
            "UPDATE enough.queue SET dead_letter_queue = $2 WHERE dead_letter_queue OPERATOR(pg_catalog.=) $1",
            &[Parameter::Text(from), Parameter::OptionalText(to)],
        )
    })?;
    if changed > 0 { announce() } else { Ok(()) }
}

/// Whether `enough.queue` has a row of that name.
pub(in crate::queue) fn has_row(name: &str) -> Result<bool, Error> {
    let statement = "SELECT FROM enough.queue WHERE name OPERATOR(pg_catalog.=) $1";
    in_registry(|| Ok(read_rows_kept(statement, &[Parameter::Text(name)], |_| Ok(()))? > 0))
}
