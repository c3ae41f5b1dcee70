//! Emptying a queue.

use super::claim::{Claim, give_up, require_consume};
use crate::error::Error;
use crate::pg::memory::PgVec;
use crate::pg::spi::each_row;
use crate::queue::handle::Queue;
use crate::queue::pending::{Action, Ending, remember};
use enough_engine::queue::Aside;

/// Messages set aside under one hold of the lock.
const CHUNK: usize = 256;

/// Deletes all messages that the transaction sees and that the caller may delete; how many.
pub(in crate::queue) fn purge(queue: &Queue) -> Result<i64, Error> {
    require_consume(queue, "queue_purge")?;
    // What the index knows is set aside first, so that nobody reads it meanwhile. What comes in later is checked against
    // its row when it is read, as everything is.
    let held = set_aside(queue)?;
    let (mut rows, mut timed) = (0, 0);
    each_row(
        &format!(
            "WITH gone AS (DELETE FROM {} RETURNING deliver_at) \
             SELECT pg_catalog.count(*), pg_catalog.count(deliver_at) FROM gone",
            queue.relation("q_")
        ),
        &[],
        |row| {
            rows = row.get::<i64>(1)?.unwrap_or(0);
            timed = row.get::<i64>(2)?.unwrap_or(0);
            Ok(())
        },
    )?;
    let table = queue.open_table(false)?;
    for one in &held {
        let claim = Claim { busy: true, tag: Some(one.tag), ..Claim::default() };
        match table.fetch(one.msg_id, one.tid) {
            // Not this transaction's to see, or to delete.
            Some(_) => give_up(queue, &table, one.msg_id, claim, false)?,
            None => timed -= i64::from(one.timed),
        }
    }
    remember(queue.key, Action::Purged { rows, timed: timed.max(0) });
    Ok(rows)
}

/// Sets aside what the index knows.
fn set_aside(queue: &Queue) -> Result<PgVec<Aside>, Error> {
    let mut held = PgVec::new();
    let mut chunk = Vec::with_capacity(CHUNK);
    loop {
        let more = queue.index(|index, slot| {
            chunk.clear();
            index.set_all_aside(slot, &mut chunk)
        })?;
        for one in &chunk {
            let (msg_id, tag) = (one.msg_id, one.tag);
            remember(
                queue.key,
                Action::Finished { msg_id, tag, busy: true, timed: false, group: 0, ending: Ending::Purged },
            );
        }
        held.extend_from_slice(&chunk);
        if !more {
            return Ok(held);
        }
    }
}
