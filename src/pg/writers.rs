//! Open transactions that may have written to a table: they hold its lock in the mode of writers, until they end.

use super::prepared::full;
use super::savepoint::{attempt, with_lock_timeout};
use super::server;
use super::spi::{Parameter, read_rows, text};
use crate::error::Error;
use pgrx::{PgSqlErrorCode, pg_sys};

/// An open transaction that has a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Writer {
    /// Its number, of 64 bits.
    pub number: u64,
    /// Whether it is this session's.
    pub own: bool,
}

/// Of those that may have written to a table the one with the least number; `None` where there is none. Prepared ones count.
pub fn oldest(table: u32) -> Result<Option<Writer>, Error> {
    let mut oldest: Option<Writer> = None;
    read_rows(
        "WITH l AS MATERIALIZED (SELECT * FROM pg_catalog.pg_locks AS l WHERE l.granted) \
         SELECT n.transactionid::pg_catalog.text, n.pid OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid() \
           FROM l AS w JOIN l AS n ON n.virtualtransaction OPERATOR(pg_catalog.=) w.virtualtransaction \
            AND n.pid IS NOT DISTINCT FROM w.pid \
          WHERE w.locktype OPERATOR(pg_catalog.=) 'relation' AND w.mode OPERATOR(pg_catalog.=) 'RowExclusiveLock' \
            AND w.database OPERATOR(pg_catalog.=) $1::pg_catalog.oid AND w.relation OPERATOR(pg_catalog.=) $2::pg_catalog.oid \
            AND n.locktype OPERATOR(pg_catalog.=) 'transactionid' AND n.mode OPERATOR(pg_catalog.=) 'ExclusiveLock'",
        &[Parameter::I64(server::database().into()), Parameter::I64(table.into())],
        |row| {
            // Savepoints have numbers of their own, which are greater.
            let number = text(row, 1)?.and_then(|number| number.parse().ok());
            let number = number.map(|low| full(low, server::next_transaction()));
            if let Some(number) = number.filter(|&number| oldest.is_none_or(|oldest| number < oldest.number)) {
                oldest = Some(Writer { number, own: row.get::<bool>(2)?.unwrap_or(false) });
            }
            Ok(())
        },
    )?;
    Ok(oldest)
}

/// Waits until another session's transaction has ended, for `micros` microseconds at the most. Not on a standby.
pub fn wait_for_end(transaction: u64, micros: i64) -> Result<(), Error> {
    /// Longer waits than a week come to their end there, and the caller looks again.
    const MOST: u32 = 7 * 86_400 * 1000;
    let until = server::now().saturating_add(micros);
    let millis = u32::try_from(micros.div_euclid(1000).saturating_add(1)).unwrap_or(MOST).min(MOST);
    let transaction = pg_sys::TransactionId::from(transaction as u32);
    let wait = || {
        // SAFETY: any number may be named; errors pass through pgrx's guard.
        unsafe {
            pg_sys::XactLockTableWait(
                transaction,
                std::ptr::null_mut(),
                std::ptr::null_mut(),
                pg_sys::XLTW_Oper::XLTW_None,
            );
        }
        Ok(())
    };
    match attempt(|| with_lock_timeout(millis, wait)) {
        Ok(()) => Ok(()),
        // The session's own `lock_timeout` may be shorter.
        Err(failure)
            if failure.code() == Some(PgSqlErrorCode::ERRCODE_LOCK_NOT_AVAILABLE) && server::now() >= until =>
        {
            Ok(())
        }
        Err(failure) => failure.pass_on(),
    }
}
