//! What a queue has seen and holds.

use super::Queue;
use crate::error::Error;
use crate::segment::call::{Rows, Value};
use crate::segment::catalog::Privilege;
use crate::segment::server;
use crate::segment::sql::{as_owner_of, read_rows};
use enough_engine::queue::Counters;

/// The names of all queues.
pub(super) fn names() -> Result<Vec<String>, Error> {
    let mut names = Vec::new();
    read_rows("SELECT name FROM enough.queue ORDER BY name", &[], |row| {
        names.extend(row.get::<String>(1)?);
        Ok(())
    })?;
    Ok(names)
}

/// Adds a queue's row. The counts of rows are exact from the first call on: that one counts, later ones cost nothing.
pub(super) fn describe(queue: &Queue, rows: &mut Rows<'_>) -> Result<(), Error> {
    let counters = counters(queue)?;
    let options = queue.index(|index, slot| index.options(slot))?;
    let live = counters.live.unwrap_or(0);
    rows.push(&[
        Value::Bytes(queue.name.as_bytes()),
        Value::I64((live - counters.leased - counters.delayed).max(0)),
        Value::I64(counters.leased),
        Value::I64(counters.delayed),
        Value::I64(counters.dead),
        Value::I64(counters.archived),
        Value::or_null(oldest_ready(queue)?, Value::Interval),
        Value::I64(counters.sent),
        Value::I64(counters.delivered),
        Value::I64(counters.finished),
        Value::I64(counters.failed),
        Value::Bool(options.paused),
    ])
}

fn counters(queue: &Queue) -> Result<Counters, Error> {
    let known = queue.index(|index, slot| index.counters(slot))?;
    if known.live.is_some() {
        return Ok(known);
    }
    queue.index(|index, slot| index.start_counting(slot))?;
    let [mut live, mut delayed, mut archived, mut dead] = [0; 4];
    // Who may read the queue's table may see its counts, those of the archive among them.
    as_owner_of(queue.table.relation, || {
        read_rows(
            &format!(
                "SELECT l.live, l.delayed, a.done, a.dead FROM \
                 (SELECT pg_catalog.count(*) AS live, pg_catalog.count(*) FILTER (WHERE deliver_at OPERATOR(pg_catalog.>) \
                         pg_catalog.clock_timestamp()) AS delayed FROM {}) AS l, \
                 (SELECT pg_catalog.count(*) FILTER (WHERE outcome OPERATOR(pg_catalog.=) 'done') AS done, \
                         pg_catalog.count(*) FILTER (WHERE outcome OPERATOR(pg_catalog.=) 'dead') AS dead FROM {}) AS a",
                queue.relation("q_"),
                queue.relation("a_"),
            ),
            &[],
            |row| {
                live = row.get::<i64>(1)?.unwrap_or(0);
                delayed = row.get::<i64>(2)?.unwrap_or(0);
                archived = row.get::<i64>(3)?.unwrap_or(0);
                dead = row.get::<i64>(4)?.unwrap_or(0);
                Ok(())
            },
        )
    })?;
    queue.index(|index, slot| {
        index.counted(slot, live, delayed, archived, dead)?;
        let counters = index.counters(slot)?;
        if server::in_recovery() {
            // What the primary sends isn't counted here: each call counts anew, also the first one after a promotion.
            index.start_counting(slot)?;
        }
        Ok(counters)
    })
}

/// How long the oldest ready message has been in the table, in microseconds.
fn oldest_ready(queue: &Queue) -> Result<Option<i64>, Error> {
    let heads = queue.index(|index, slot| index.heads(slot))?;
    let table = queue.open_table(false)?;
    let sent = heads.iter().flatten().filter_map(|&(msg_id, tid)| table.fetch(msg_id, tid)).map(|row| row.enqueued_at);
    Ok(sent.min().map(|oldest| server::now().saturating_sub(oldest).max(0)))
}

/// Whether the current role may see a queue's counters.
pub(super) fn visible(queue: &Queue) -> bool {
    queue.require(Privilege::Observe).is_ok()
}
