//! What is over: archive rows past their time, queues whose tables are gone.

use crate::error::Error;
use crate::pg::catalog;
use crate::pg::server;
use crate::pg::setting::by_index;
use crate::pg::spi::{Parameter, as_owner_restricted, each_row};
use crate::queue::handle::Queue;
use crate::queue::index::REGION;
use crate::queue::index::forget;
use crate::queue::pending::{Action, remember};
use crate::shmem::segment;
use enough_engine::queue::Partition as Index;

/// Archive rows deleted by one statement.
const ROWS: i64 = 500;
/// Deletes the rows of a queue's archive that are past `archive_for`, the oldest first, until `deadline`; how many. `from` is where
/// an earlier run has stopped, by the time at which rows ended: what lies before may be dead rows by the million, which nobody
/// wants to walk again and again while something holds back VACUUM. `whole` becomes false where there is more to be done.
pub(in crate::queue) fn expire(queue: &Queue, from: &mut i64, deadline: i64, whole: &mut bool) -> Result<i64, Error> {
    let keep = queue.index(|index, slot| index.options(slot))?.archive_for;
    let table = queue.table.archive;
    if keep == i64::MAX || table == 0 {
        return Ok(0);
    }
    let before = server::now().saturating_sub(keep);
    let mut deleted = 0;
    loop {
        // Some of those that are done, and then what died in the same time: dead letters are few.
        let (done, last) = delete_some(queue, "done", *from, before)?;
        let until = if done < ROWS { before } else { last };
        remember(queue.key, Action::Forgotten { done, dead: 0 });
        deleted += done;
        loop {
            let (dead, _) = delete_some(queue, "dead", *from, until)?;
            remember(queue.key, Action::Forgotten { done: 0, dead });
            deleted += dead;
            if dead < ROWS {
                break;
            }
            if server::now() > deadline {
                *whole = false;
                return Ok(deleted);
            }
        }
        if done < ROWS {
            *from = 0;
            return Ok(deleted);
        }
        *from = until;
        if server::now() > deadline {
            *whole = false;
            return Ok(deleted);
        }
    }
}

/// Deletes up to [`ROWS`] rows of one outcome that ended from `from` on until `until`; how many, and when the last of them
/// ended. Rows that another transaction has locked are left.
fn delete_some(queue: &Queue, outcome: &str, from: i64, until: i64) -> Result<(i64, i64), Error> {
    let archive = queue.relation("a_");
    // By their places, which is cheapest; they are locked, so they stay there.
    let statement = format!(
        "WITH gone AS (DELETE FROM {archive} WHERE ctid OPERATOR(pg_catalog.=) ANY (ARRAY( \
            SELECT ctid FROM {archive} WHERE outcome OPERATOR(pg_catalog.=) '{outcome}' \
               AND finished_at OPERATOR(pg_catalog.<=) $1 AND finished_at OPERATOR(pg_catalog.>=) $2 \
             ORDER BY finished_at LIMIT $3 FOR UPDATE SKIP LOCKED)) RETURNING finished_at) \
         SELECT pg_catalog.count(*), pg_catalog.max(finished_at) FROM gone"
    );
    let (mut rows, mut last) = (0, from);
    // With the rights of the owner, which may have put triggers there.
    let mut delete = || {
        as_owner_restricted(queue.table.archive, || {
            each_row(
                &statement,
                // From the beginning of time, where there is nothing to go on from.
                &[
                    Parameter::Instant(Some(until)),
                    Parameter::Instant(Some(if from == 0 { i64::MIN } else { from })),
                    Parameter::I64(ROWS),
                ],
                |row| {
                    rows = row.get::<i64>(1)?.unwrap_or(0);
                    last = row.get::<pgrx::datum::TimestampWithTimeZone>(2)?.map_or(from, i64::from);
                    Ok(())
                },
            )
        })
    };
    if queue.has_quiet_archive() { by_index(delete) } else { delete() }?;
    Ok((rows, last))
}

/// Forgets queues of this database whose tables are gone, and those of databases that are gone.
pub fn forget_dropped(deadline: i64) -> Result<(i64, bool), Error> {
    let mut forgotten = 0;
    for partition in segment()?.partitions(REGION) {
        let mut keys = Vec::new();
        let mut from = 0;
        while let Some((key, next)) = partition.exclusive(|words| Index::new(words).key_from(from))? {
            keys.push(key);
            from = next;
        }
        for key in keys {
            if server::now() > deadline {
                return Ok((forgotten, false));
            }
            let exists = if key.database == server::database() {
                catalog::relation_exists(key.relation)
            } else {
                catalog::database_exists(key.database)
            };
            if !exists {
                forget(key)?;
                forgotten += 1;
            }
        }
    }
    Ok((forgotten, true))
}
