//! What is over: archive rows past their time, queues whose tables are gone.

use super::pending::{Action, remember};
use super::{Queue, partition, stats};
use crate::error::Error;
use crate::segment::catalog;
use crate::segment::sql::{Parameter, each_row};
use crate::segment::{Region, segment, server, wait};
use enough_engine::queue::{Partition as Index, QueueKey, Wake};

/// Archive rows deleted by one statement.
const ROWS: i64 = 1000;
/// Records freed under one hold of a lock.
const RECORDS: usize = 1024;

/// Deletes archive rows past `archive_for`, of the queues that the role may clean, until `deadline`.
pub fn expire(deadline: i64) -> Result<(i64, bool), Error> {
    if !server::may_write() {
        return Ok((0, true));
    }
    let mut deleted = 0;
    for name in stats::names()? {
        let Ok(queue) = Queue::open(name.as_bytes()) else { continue };
        let keep = queue.index(|index, slot| index.options(slot))?.archive_for;
        if keep == i64::MAX || !catalog::may_clean(queue.table.archive) {
            continue;
        }
        loop {
            if server::now() > deadline {
                return Ok((deleted, false));
            }
            let archive = queue.relation("a_");
            let before = server::now().saturating_sub(keep);
            let (mut rows, mut dead) = (0, 0);
            each_row(
                &format!(
                    "WITH gone AS (DELETE FROM {archive} WHERE msg_id OPERATOR(pg_catalog.=) ANY (ARRAY( \
                     SELECT msg_id FROM {archive} WHERE finished_at OPERATOR(pg_catalog.<) $1 LIMIT $2 \
                     FOR UPDATE SKIP LOCKED)) RETURNING outcome) \
                     SELECT pg_catalog.count(*), pg_catalog.count(*) FILTER (WHERE outcome OPERATOR(pg_catalog.=) 'dead') \
                     FROM gone"
                ),
                &[Parameter::Instant(Some(before)), Parameter::I64(ROWS)],
                |row| {
                    rows = row.get::<i64>(1)?.unwrap_or(0);
                    dead = row.get::<i64>(2)?.unwrap_or(0);
                    Ok(())
                },
            )?;
            remember(queue.key, Action::Forgotten { done: rows - dead, dead });
            deleted += rows;
            if rows < ROWS {
                break;
            }
        }
    }
    Ok((deleted, true))
}

/// Forgets queues of this database whose tables are gone, and those of databases that are gone.
pub fn forget_dropped(deadline: i64) -> Result<(i64, bool), Error> {
    let mut forgotten = 0;
    for partition in segment()?.partitions(Region::Queue) {
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

/// Takes a queue out of the index, in steps.
pub(super) fn forget(key: QueueKey) -> Result<(), Error> {
    loop {
        let mut wake = Wake::default();
        let gone = partition(key)?.exclusive(|words| {
            wake = Wake::default();
            let index = Index::new(words);
            match index.find(key)? {
                Some(slot) => index.detach(slot, RECORDS, server::now(), &mut wake),
                None => Ok(true),
            }
        })?;
        wait::wake(wake.processes());
        if gone {
            return Ok(());
        }
    }
}
