//! Dedup keys that stay taken for a while after the send, also when the message is finished (queues with `dedup` window).
//!
//! Each is a row of `enough.queue_key`, written by the transaction that sends. So the row's own lock decides between two senders
//! at once, and savepoints, rollbacks and prepared transactions take the key along. One whose time is over is taken over by
//! the next send, or removed by `maintain()`. A foreign key to `enough.queue` makes keys follow their queue.
//!
//! The rows are the extension's, whichever role sends: they are written with the rights of the table's owner.

use crate::error::Error;
use crate::pg::catalog::{self, TableLock};
use crate::pg::fmgr::Text;
use crate::pg::setting::by_index;
use crate::pg::spi::{Parameter, as_owner_of, each_row, each_row_kept, read_rows, run};
use crate::pg::{own, server};
use crate::queue::handle::Queue;

/// Rows removed by one statement.
const ROWS: i64 = 1000;

/// How often a key is tried to be taken that is neither free nor anybody's.
const TRIES: usize = 10;

/// The table's OID.
fn table() -> Result<u32, Error> {
    own::check(c"queue_key", &own::QUEUE_KEY)?;
    catalog::relation_named(c"queue_key").ok_or(Error::NoExtension)
}

/// Takes a key until `until` for the message of that number, unless it is taken at `now`: then the number of the message that
/// it is taken by. Waits for a transaction that is taking it.
pub(super) fn take(queue: &Queue, key: Text<'_>, msg_id: i64, now: i64, until: i64) -> Result<Option<i64>, Error> {
    let table = table()?;
    let parameters = [
        Parameter::Text(&queue.name),
        Parameter::TextArgument(Some(key)),
        Parameter::I64(msg_id),
        Parameter::Instant(Some(until)),
    ];
    for _ in 0..TRIES {
        let new = as_owner_of(table, || {
            each_row_kept(
                "INSERT INTO enough.queue_key (queue, dedup_key, msg_id, until) VALUES ($1, $2, $3, $4) \
                 ON CONFLICT (queue, dedup_key) DO NOTHING RETURNING msg_id",
                &parameters,
                |_| Ok(()),
            )
        })?;
        if new > 0 {
            return Ok(None);
        }
        // One that is still taken isn't locked: its senders don't wait for one another.
        let over = as_owner_of(table, || {
            run(
                "UPDATE enough.queue_key SET msg_id = $3, until = $4 WHERE queue OPERATOR(pg_catalog.=) $1 \
                 AND dedup_key OPERATOR(pg_catalog.=) $2 AND until OPERATOR(pg_catalog.<=) $5",
                &[parameters.as_slice(), &[Parameter::Instant(Some(now))]].concat(),
            )
        })?;
        if over > 0 {
            return Ok(None);
        }
        if let Some(holder) = holder(queue, key)? {
            return Ok(Some(holder));
        }
        // Its time was over, and maintenance has removed it in between.
        server::check_for_interrupts();
    }
    Err(Error::NotReady {
        problem: format!("a dedup key of queue \"{}\" is neither free nor taken", queue.name),
        hint: "Look for triggers and rules on the table enough.queue_key, and remove them.".into(),
    })
}

/// The number of the message that has last taken a key; `None` where there is no row of it.
pub(super) fn holder(queue: &Queue, key: Text<'_>) -> Result<Option<i64>, Error> {
    let mut found = None;
    as_owner_of(table()?, || {
        read_rows(
            "SELECT msg_id FROM enough.queue_key WHERE queue OPERATOR(pg_catalog.=) $1 AND dedup_key OPERATOR(pg_catalog.=) $2",
            &[Parameter::Text(&queue.name), Parameter::TextArgument(Some(key))],
            |row| {
                found = row.get::<i64>(1)?;
                Ok(())
            },
        )
    })?;
    Ok(found)
}

/// Notes the number of the message that a key has been taken for.
pub(super) fn note(queue: &Queue, key: Text<'_>, msg_id: i64) -> Result<(), Error> {
    let statement = "UPDATE enough.queue_key SET msg_id = $3 \
         WHERE queue OPERATOR(pg_catalog.=) $1 AND dedup_key OPERATOR(pg_catalog.=) $2";
    let parameters = [Parameter::Text(&queue.name), Parameter::TextArgument(Some(key)), Parameter::I64(msg_id)];
    as_owner_of(table()?, || run(statement, &parameters))?;
    Ok(())
}

/// Gives up a key that this transaction has taken for a message that it hasn't sent.
pub(super) fn give_up(queue: &Queue, key: Text<'_>) -> Result<(), Error> {
    let statement = "DELETE FROM enough.queue_key \
         WHERE queue OPERATOR(pg_catalog.=) $1 AND dedup_key OPERATOR(pg_catalog.=) $2";
    let parameters = [Parameter::Text(&queue.name), Parameter::TextArgument(Some(key))];
    as_owner_of(table()?, || run(statement, &parameters))?;
    Ok(())
}

/// Frees all keys of a queue that no other session is taking just now.
pub(super) fn free_all(queue: &Queue) -> Result<(), Error> {
    let statement = "DELETE FROM enough.queue_key WHERE ctid OPERATOR(pg_catalog.=) ANY (ARRAY( \
         SELECT ctid FROM enough.queue_key WHERE queue OPERATOR(pg_catalog.=) $1 FOR UPDATE SKIP LOCKED))";
    as_owner_of(table()?, || run(statement, &[Parameter::Text(&queue.name)]))?;
    Ok(())
}

/// Removes keys whose time is over, until `deadline`; how many, and whether all. Waits for nobody: those that a sender is taking
/// over are left to it.
pub fn expire(deadline: i64) -> Result<(i64, bool), Error> {
    if server::in_parallel_mode() {
        return Err(Error::Parallel { what: "use a queue".into() });
    }
    // The table of a version that hasn't got it holds nothing.
    if !server::may_write() || catalog::relation_named(c"queue_key").is_none() {
        return Ok((0, true));
    }
    let table = table()?;
    if !catalog::try_lock(table, TableLock::Write) {
        return Ok((0, false));
    }
    let mut removed = 0;
    loop {
        let delete = || {
            each_row(
                "DELETE FROM enough.queue_key WHERE ctid OPERATOR(pg_catalog.=) ANY (ARRAY( \
                     SELECT ctid FROM enough.queue_key WHERE until OPERATOR(pg_catalog.<=) $1 \
                      ORDER BY until LIMIT $2 FOR UPDATE SKIP LOCKED)) RETURNING until",
                &[Parameter::Instant(Some(server::now())), Parameter::I64(ROWS)],
                |_| Ok(()),
            )
        };
        let gone = by_index(|| as_owner_of(table, delete))? as i64;
        removed += gone;
        if gone < ROWS {
            return Ok((removed, true));
        }
        if server::now() > deadline {
            return Ok((removed, false));
        }
    }
}
