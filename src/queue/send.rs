//! Sending: rows into the table, and at commit into the index.

use super::pending::{Action, remember};
use super::{Queue, missing, require_write};
use crate::error::Error;
use crate::segment::catalog::Privilege;
use crate::segment::segment;
use crate::segment::sql::{Parameter, each_row};
use crate::segment::table::NewRow;
use enough_engine::queue::{Entry, Tid};
use pgrx::pg_sys;

/// Sends messages; their numbers, in their order.
pub(super) fn send(queue: &Queue, function: &'static str, rows: &[NewRow<'_>]) -> Result<Vec<i64>, Error> {
    queue.require(Privilege::Send)?;
    require_write(function)?;
    let mut numbers = Vec::with_capacity(rows.len());
    let mut inserted = |entry: Entry| {
        numbers.push(entry.msg_id);
        remember(queue.key, Action::Sent(entry));
    };
    // A dedup key is the executor's business, also where the table is plain.
    for run in rows.chunk_by(|a, b| a.dedup_key.is_some() == b.dedup_key.is_some()) {
        if queue.table.plain && run.iter().all(|row| row.dedup_key.is_none()) {
            if !queue.table.insert(run, &mut inserted) {
                return Err(missing(&queue.name));
            }
        } else {
            for row in run {
                insert_by_executor(queue, row, &mut inserted)?;
            }
        }
    }
    Ok(numbers)
}

/// For tables with triggers, policies and the like. A trigger may change what the index has to know, so that is read back;
/// one that suppresses the row is an error, because the caller was promised a message.
fn insert_by_executor(queue: &Queue, row: &NewRow<'_>, inserted: &mut impl FnMut(Entry)) -> Result<(), Error> {
    let mut count = 0;
    each_row(
        &format!(
            "INSERT INTO {} (enqueued_at, deliver_at, priority, group_key, dedup_key, headers, message) \
             VALUES ($1, $2, $3, $4, $5, $6, $7) RETURNING msg_id, deliver_at, attempts, priority, ctid, group_key",
            queue.relation("q_")
        ),
        &[
            Parameter::Instant(Some(row.enqueued_at)),
            Parameter::Instant(row.deliver_at),
            Parameter::I16(row.priority),
            Parameter::TextArgument(row.group_key),
            Parameter::TextArgument(row.dedup_key),
            Parameter::Json(row.headers),
            Parameter::Json(Some(row.message)),
        ],
        |answer| {
            let deliver_at = answer.get::<pgrx::datum::TimestampWithTimeZone>(2)?;
            let place = answer.get::<pg_sys::ItemPointerData>(5)?.unwrap_or_default();
            let (block, offset) = pgrx::itemptr::item_pointer_get_both(place);
            count += 1;
            inserted(Entry {
                msg_id: answer.get::<i64>(1)?.unwrap_or(0),
                tid: Tid { block, offset },
                priority: answer.get::<i16>(4)?.unwrap_or(0).clamp(0, 9) as u8,
                attempts: answer.get::<i32>(3)?.unwrap_or(0).max(0) as u32,
                deliver_at: deliver_at.map(i64::from),
                group: segment()?.group(answer.get::<&str>(6)?.map(str::as_bytes)),
            });
            Ok(())
        },
    )?;
    if count == 0 {
        return Err(Error::NotReady {
            problem: format!("a trigger on the table of queue \"{}\" suppressed the message", queue.name),
            hint: "Let the trigger raise an error of its own where a message is unwanted.".into(),
        });
    }
    Ok(())
}
