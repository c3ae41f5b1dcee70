//! Leases for which the index in memory has no room: written to the rows, as delays.
//!
//! A reader that finds the index nearly full of leases writes those that it takes into the rows: when they end, their
//! number, and the attempt. When its transaction commits, their records in the index are free for other messages. Such
//! a lease is known by the row alone, survives a crash, and ends as a delay does.

use super::pending::{Action, remember};
use super::{Queue, require_write};
use crate::error::Error;
use crate::segment::call::Value;
use crate::segment::rows::{Missed, OpenTable, Row};
use crate::segment::server;
use crate::segment::sql::{Parameter, as_owner_of, run};
use crate::segment::table::{ATTEMPTS, DELIVER_AT, LEASE};
use enough_engine::queue::{Taken, Tid};

/// Writes a lease to its row.
pub(super) fn spill(queue: &Queue, table: &OpenTable<'_>, taken: &Taken) -> Result<(), Error> {
    let (msg_id, lease, until) = (taken.msg_id, taken.lease, taken.until);
    let attempts = i32::try_from(taken.attempts).unwrap_or(i32::MAX);
    let written = set(queue, table, msg_id, taken.tid, &Lease { until, number: lease, attempts })?;
    if written {
        remember(queue.key, Action::Spilled { msg_id, lease, until });
    }
    Ok(())
}

/// Whether the row has that lease, and it runs.
pub(super) fn leases(row: &Row, lease: u64) -> bool {
    row.lease == Some(lease.cast_signed()) && row.deliver_at.is_some_and(|until| until > server::now())
}

/// Lets a lease that is in a row end at another time; `None` where the row has none, or another. Like everything that is
/// written to a table, it holds when the transaction commits.
pub(super) fn extend(
    queue: &Queue,
    table: &OpenTable<'_>,
    msg_id: i64,
    until: i64,
    lease: Option<u64>,
) -> Result<Option<i64>, Error> {
    let Some(row) = table.fetch(msg_id, Tid::default()) else { return Ok(None) };
    let current = row.lease.filter(|current| leases(&row, lease.unwrap_or(current.cast_unsigned())));
    let Some(current) = current else { return Ok(None) };
    require_write("queue_extend")?;
    let new = Lease { until, number: current.cast_unsigned(), attempts: row.attempts };
    if !set(queue, table, msg_id, row.tid, &new)? {
        return Ok(None);
    }
    let mut entry = row.entry();
    (entry.deliver_at, entry.tid) = (Some(until), Tid::default());
    remember(queue.key, Action::Moved(entry));
    Ok(Some(until))
}

/// A lease as its row has it.
struct Lease {
    until: i64,
    number: u64,
    attempts: i32,
}

/// Writes a lease. A reader needs no rights of its own for that; the executor works with those of the table's owner.
fn set(queue: &Queue, table: &OpenTable<'_>, msg_id: i64, tid: Tid, new: &Lease) -> Result<bool, Error> {
    if queue.table.plain {
        let changes = [
            (ATTEMPTS, Value::I32(new.attempts)),
            (DELIVER_AT, Value::Instant(new.until)),
            (LEASE, Value::I64(new.number.cast_signed())),
        ];
        return match table.update(msg_id, tid, &changes) {
            Ok(_) => Ok(true),
            Err(Missed::Gone) => Ok(false),
            Err(Missed::Conflict) => Err(Error::Serialization { queue: queue.name.clone(), msg_id }),
        };
    }
    let rows = as_owner_of(queue.table.relation, || {
        run(
            &format!(
                "UPDATE {} SET deliver_at = $2, lease = $3, attempts = $4 WHERE msg_id OPERATOR(pg_catalog.=) $1",
                queue.relation("q_"),
            ),
            &[
                Parameter::I64(msg_id),
                Parameter::Instant(Some(new.until)),
                Parameter::I64(new.number.cast_signed()),
                Parameter::I32(new.attempts),
            ],
        )
    })?;
    Ok(rows > 0)
}
