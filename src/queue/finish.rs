//! Finishing a message: deleting its row, extending or ending its lease, burying it.

use super::pending::{Action, doubt, forget_finished, remember};
use super::{Queue, require_write, spill};
use crate::error::Error;
use crate::segment::catalog::Privilege;
use crate::segment::rows::{Deleted, OpenTable};
use crate::segment::sql::{Parameter, as_owner_of, run};
use crate::segment::{server, wait};
use enough_engine::queue::{Busy, Tid, Wake};

/// Deletes a message; false where there is none, or where `lease` isn't the current one.
pub(super) fn delete(queue: &Queue, table: &OpenTable<'_>, msg_id: i64, lease: Option<u64>) -> Result<bool, Error> {
    let now = server::now();
    let mut state = queue.index(|index, slot| index.start_busy(slot, msg_id, lease, now))?;
    if state == Busy::Unknown {
        // Not read from the table yet: without a place in the index it would be, while this transaction is open.
        let Some(row) = table.fetch(msg_id, Tid::default()) else { return Ok(false) };
        if lease.is_some_and(|lease| !spill::leases(&row, lease)) {
            return Ok(false);
        }
        let entry = row.entry();
        state = queue.index(|index, slot| index.set_aside(slot, &entry, now))?;
    }
    let (busy, tid) = match state {
        Busy::Stale => return Ok(false),
        Busy::Yours(tid) => (true, tid),
        Busy::Others | Busy::Unknown => (false, Tid::default()),
    };
    if busy {
        // Before the row is touched: should that fail, the rollback gives the message free again.
        remember(queue.key, Action::Finished { msg_id, busy });
    }
    let deleted = if queue.table.plain { table.delete(msg_id, tid) } else { delete_by_executor(queue, msg_id)? };
    match deleted {
        Deleted::Yes => {
            if !busy {
                remember(queue.key, Action::Finished { msg_id, busy });
            }
            Ok(true)
        }
        Deleted::Gone => {
            if busy {
                forget_finished(queue.key, msg_id);
                // The executor also finds nothing where a policy or a trigger keeps the row from this role: then the
                // message stays whose it is.
                let gone = queue.table.plain;
                let mut wake = Wake::default();
                queue.index(|index, slot| {
                    wake = Wake::default();
                    index.end_busy(slot, msg_id, gone, now, &mut wake)
                })?;
                wait::wake(wake.processes());
                doubt(queue.key, false);
            }
            Ok(false)
        }
        Deleted::Conflict => Err(Error::Serialization { queue: queue.name.clone(), msg_id }),
    }
}

fn delete_by_executor(queue: &Queue, msg_id: i64) -> Result<Deleted, Error> {
    let statement = format!("DELETE FROM {} WHERE msg_id OPERATOR(pg_catalog.=) $1", queue.relation("q_"));
    Ok(if run(&statement, &[Parameter::I64(msg_id)])? == 0 { Deleted::Gone } else { Deleted::Yes })
}

/// Checks that the caller may delete from the queue at all.
pub(super) fn require_delete(queue: &Queue, function: &'static str) -> Result<(), Error> {
    queue.require(Privilege::Consume)?;
    require_write(function)
}

/// Lets a lease end `timeout` microseconds from now; with 0 the message is ready at once. When it ends, or `None` where
/// the message isn't leased, or not by that lease.
pub(super) fn extend(queue: &Queue, msg_id: i64, timeout: i64, lease: Option<u64>) -> Result<Option<i64>, Error> {
    queue.require(Privilege::Consume)?;
    if server::in_recovery() {
        return Err(Error::ReadOnly { function: "queue_extend" });
    }
    let now = server::now();
    let mut wake = Wake::default();
    let until = queue.index(|index, slot| {
        wake = Wake::default();
        index.extend(slot, msg_id, lease, now, now.saturating_add(timeout), &mut wake)
    })?;
    wait::wake(wake.processes());
    if until.is_some() || queue.index(|index, slot| index.knows(slot, msg_id))? {
        return Ok(until);
    }
    spill::extend(queue, &queue.open_table(false)?, msg_id, now.saturating_add(timeout), lease)
}

/// Moves a message that has been delivered as often as it may be to the archive, in the reader's transaction. The reader
/// may do that with its rights on the queue's table alone.
pub(super) fn bury(queue: &Queue, msg_id: i64, attempts: u32) -> Result<(), Error> {
    let moved = as_owner_of(queue.table.relation, || {
        run(
            &format!(
                "WITH gone AS (DELETE FROM {} WHERE msg_id OPERATOR(pg_catalog.=) $1 RETURNING *) \
                 INSERT INTO {} (msg_id, enqueued_at, attempts, priority, group_key, dedup_key, headers, message, outcome, error, finished_at) \
                 SELECT msg_id, enqueued_at, $2, priority, group_key, dedup_key, headers, message, 'dead', \
                        coalesce(last_error, 'its last lease ran out'), pg_catalog.clock_timestamp() FROM gone",
                queue.relation("q_"),
                queue.relation("a_"),
            ),
            &[Parameter::I64(msg_id), Parameter::I32(i32::try_from(attempts).unwrap_or(i32::MAX))],
        )
    })?;
    if moved > 0 {
        remember(queue.key, Action::Buried { msg_id });
    } else {
        queue.drop_message(msg_id)?;
        doubt(queue.key, false);
    }
    Ok(())
}
