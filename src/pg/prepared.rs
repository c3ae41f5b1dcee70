//! Transactions that are prepared (two-phase commit), and what becomes of them.

use super::spi::{Parameter, read_rows, read_rows_kept, text};
use crate::error::Error;
use pgrx::pg_sys;

/// What has become of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// It isn't decided.
    Open,
    /// What it has written is visible.
    Committed,
    /// It has written nothing.
    RolledBack,
    /// The server doesn't know any more; it has been decided long ago.
    Forgotten,
}

/// Whether a transaction of not long ago has committed; `None` while it isn't decided. For the end of transactions, where
/// no statement can be run.
pub fn has_committed(transaction: u64) -> Option<bool> {
    let transaction = pg_sys::TransactionId::from(transaction as u32);
    // SAFETY: looks at shared memory, and at the log of commits.
    unsafe {
        let open = pg_sys::TransactionIdIsInProgress(transaction);
        (!open).then(|| pg_sys::TransactionIdDidCommit(transaction))
    }
}

/// What has become of a transaction, however long ago.
pub fn status(transaction: u64) -> Result<Status, Error> {
    let mut status = Status::Forgotten;
    read_rows_kept(
        "SELECT pg_catalog.pg_xact_status($1::pg_catalog.xid8)",
        &[Parameter::Text(&transaction.to_string())],
        |row| {
            status = match text(row, 1)?.as_deref() {
                Some("in progress") => Status::Open,
                Some("committed") => Status::Committed,
                Some("aborted") => Status::RolledBack,
                _ => Status::Forgotten,
            };
            Ok(())
        },
    )?;
    Ok(status)
}

/// The transactions of this database that are prepared now, by their numbers of 64 bits.
pub fn transactions() -> Result<Vec<u64>, Error> {
    let mut found = Vec::new();
    // The view has the lower half of a number.
    read_rows(
        "SELECT p.transaction::pg_catalog.text, pg_catalog.pg_snapshot_xmax(pg_catalog.pg_current_snapshot())::pg_catalog.text \
         FROM pg_catalog.pg_prepared_xacts AS p WHERE p.database OPERATOR(pg_catalog.=) pg_catalog.current_database()",
        &[],
        |row| {
            let number = |column| Ok::<_, Error>(text(row, column)?.and_then(|number| number.parse::<u64>().ok()));
            if let (Some(low), Some(next)) = (number(1)?, number(2)?) {
                found.push(full(low, next));
            }
            Ok(())
        },
    )?;
    Ok(found)
}

/// Whether no transaction can have been decided that was prepared before the server's start. Each of those has a file by then, written
/// by the checkpoint at the server's end, which goes with the decision (twophase.c). So the directory would have changed. False where that
/// can't be told, as after a recovery, which may end without a checkpoint.
pub fn none_since_the_start() -> bool {
    /// The clock that directories have may be behind the server's by so much, in microseconds.
    const BEHIND: i64 = 20_000;
    /// The server counts from 2000 on, in microseconds.
    const POSTGRES_EPOCH: i64 = 946_684_800_000_000;
    let changed = || {
        // The server's processes work in its data directory.
        let changed = std::fs::metadata("pg_twophase").ok()?.modified().ok()?;
        let since = changed.duration_since(std::time::UNIX_EPOCH).ok()?;
        Some(i64::try_from(since.as_micros()).ok()? - POSTGRES_EPOCH)
    };
    let empty = || std::fs::read_dir("pg_twophase").is_ok_and(|mut files| files.next().is_none());
    // SAFETY: a variable of this process, set when the server starts; and one in shared memory, which stays 0 without a recovery.
    let (started, recovered) = unsafe { (pg_sys::PgStartTime, pg_sys::GetXLogReplayRecPtr(std::ptr::null_mut()) != 0) };
    !recovered && changed().is_some_and(|changed| changed.saturating_add(BEHIND) < started) && empty()
}

/// The holder of an advisory lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Holder {
    /// The number, of 64 bits, of a prepared transaction; `None` for one that isn't prepared.
    pub transaction: Option<u64>,
    /// Its database; 0 where it isn't prepared.
    pub database: u32,
}

/// The holders of an advisory lock of the whole server, as `pg_locks` shows it: `classid`, `objid`, `objsubid`.
pub fn holders(lock: [u32; 3]) -> Result<Vec<Holder>, Error> {
    let mut found = Vec::new();
    let [class, object, part] = lock;
    // A prepared transaction has no process, and its number where others have that of their session's transactions.
    let statement = format!(
        "SELECT p.transaction::pg_catalog.text, d.oid::pg_catalog.text, \
         pg_catalog.pg_snapshot_xmax(pg_catalog.pg_current_snapshot())::pg_catalog.text \
         FROM pg_catalog.pg_locks AS l LEFT JOIN (pg_catalog.pg_prepared_xacts AS p \
            JOIN pg_catalog.pg_database AS d ON d.datname OPERATOR(pg_catalog.=) p.database) \
            ON l.pid IS NULL AND p.transaction::pg_catalog.text OPERATOR(pg_catalog.=) pg_catalog.split_part(l.virtualtransaction, '/', 2) \
         WHERE l.locktype OPERATOR(pg_catalog.=) 'advisory' \
         AND l.classid OPERATOR(pg_catalog.=) {class} AND l.objid OPERATOR(pg_catalog.=) {object} \
         AND l.objsubid OPERATOR(pg_catalog.=) {part} AND l.granted"
    );
    read_rows(&statement, &[], |row| {
        let number = |column| Ok::<_, Error>(text(row, column)?.and_then(|number| number.parse::<u64>().ok()));
        if let (low, database, Some(next)) = (number(1)?, number(2)?, number(3)?) {
            let database = database.unwrap_or_default() as u32;
            found.push(Holder { transaction: low.map(|low| full(low, next)), database });
        }
        Ok(())
    })?;
    Ok(found)
}

/// The number of 64 bits of which that is the lower half; the next transaction's is greater, or has begun anew since.
pub(super) fn full(low: u64, next: u64) -> u64 {
    let full = (next & !0xffff_ffff) | low;
    if full < next { full } else { full.saturating_sub(1 << 32) }
}
