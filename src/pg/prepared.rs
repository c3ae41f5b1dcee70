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

/// Who holds an advisory lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Holder {
    /// The number, of 64 bits, of a prepared transaction; `None` for one that isn't prepared.
    pub transaction: Option<u64>,
    /// The database.
    pub database: u32,
}

/// The holders of an advisory lock, as `pg_locks` shows it: `classid`, `objid`, `objsubid`; in all databases.
pub fn holders(lock: [u32; 3]) -> Result<Vec<Holder>, Error> {
    let mut found = Vec::new();
    let [class, object, part] = lock;
    // A prepared transaction's has no process, and its number where others have that of their session's transactions.
    let statement = format!(
        "SELECT CASE WHEN l.pid IS NULL THEN pg_catalog.split_part(l.virtualtransaction, '/', 2) END, l.database::pg_catalog.text, \
         pg_catalog.pg_snapshot_xmax(pg_catalog.pg_current_snapshot())::pg_catalog.text \
         FROM pg_catalog.pg_locks AS l WHERE l.locktype OPERATOR(pg_catalog.=) 'advisory' \
         AND l.classid OPERATOR(pg_catalog.=) {class} AND l.objid OPERATOR(pg_catalog.=) {object} \
         AND l.objsubid OPERATOR(pg_catalog.=) {part} AND l.granted"
    );
    read_rows(&statement, &[], |row| {
        let number = |column| Ok::<_, Error>(text(row, column)?.and_then(|number| number.parse::<u64>().ok()));
        if let (low, Some(database), Some(next)) = (number(1)?, number(2)?, number(3)?) {
            found.push(Holder { transaction: low.map(|low| full(low, next)), database: database as u32 });
        }
        Ok(())
    })?;
    Ok(found)
}

/// The number of 64 bits of which that is the lower half; the next transaction's is greater, or has begun anew since.
fn full(low: u64, next: u64) -> u64 {
    let full = (next & !0xffff_ffff) | low;
    if full < next { full } else { full.saturating_sub(1 << 32) }
}
