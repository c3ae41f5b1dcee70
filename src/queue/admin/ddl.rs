//! What calls that make, change or drop a queue have in common: one session at a time does so for each name, and the
//! server's errors about catalogs become the extension's.

use crate::error::Error;
use crate::pg::key_lock::KeyLock;
use crate::pg::savepoint::{attempt, with_lock_timeout};
use crate::pg::{catalog, server};
use crate::queue::name::missing;
use enough_engine::hash::key_hash;
use pgrx::PgSqlErrorCode as Code;

/// The name space of the locks below, which no capability's keys share.
const SPACE: u32 = u32::MAX;

/// How often a statement is repeated that met another session's change of the same catalog row.
const TRIES: usize = 10;

/// How long a call waits for a lock that shuts out all others, in milliseconds: senders that come meanwhile wait behind it.
const LOCK_TIMEOUT: u32 = 1000;

/// Waits until no other session's transaction is making, changing or dropping a queue of that name, and keeps others from
/// it until this transaction ends. What was looked up in the catalogs before must be looked up again.
pub(in crate::queue) fn lock_name(name: &str) {
    // A name is no secret, so its hash needs no key.
    KeyLock::acquire(key_hash([0; 2], server::database(), SPACE, name.as_bytes())).end_with_transaction();
    catalog::see_committed();
}

/// Runs `work`, statements that shut all others out of a queue's tables, as [`change`] does. It waits at most
/// [`LOCK_TIMEOUT`] for each lock, or as long as the session's own `lock_timeout` says; 55P03 where that isn't enough.
pub(in crate::queue) fn change_exclusively<R>(queue: &str, work: impl Fn() -> Result<R, Error>) -> Result<R, Error> {
    change(queue, || with_lock_timeout(LOCK_TIMEOUT, &work))
}

/// Runs `work`, statements that change the catalogs, in a savepoint.
///
/// Errors: 42704 where a table is gone meanwhile, 42710 where one has come up meanwhile, 55P03 with a hint where a lock
/// can't be had in time, 40001 where other sessions keep changing the same catalog row.
pub(in crate::queue) fn change<R>(queue: &str, work: impl Fn() -> Result<R, Error>) -> Result<R, Error> {
    for _ in 0..TRIES {
        let failure = match attempt(&work) {
            Ok(done) => return Ok(done),
            Err(failure) => failure,
        };
        return match failure.code() {
            Some(Code::ERRCODE_LOCK_NOT_AVAILABLE) => Err(Error::InUse { queue: queue.into() }),
            Some(Code::ERRCODE_UNDEFINED_TABLE) => Err(missing(queue)),
            Some(Code::ERRCODE_DUPLICATE_TABLE | Code::ERRCODE_DUPLICATE_OBJECT) => Err(taken(queue)),
            _ if failure.is_taken_name() => Err(taken(queue)),
            _ if failure.is_concurrent_catalog_change() => {
                catalog::see_committed();
                continue;
            }
            _ => failure.pass_on(),
        };
    }
    Err(Error::Conflict { what: format!("the catalog entries of queue \"{queue}\"") })
}

fn taken(queue: &str) -> Error {
    Error::Exists {
        what: "queue",
        name: queue.into(),
        hint: "Another session has created it, or a relation of one of its names, at the same time.".into(),
    }
}
