//! Work in a savepoint of its own, so that an error of the server can be answered instead of passed on; and work with a
//! bound on how long it waits for locks.

use super::encoding::decode;
use super::guard;
use super::setting::with_setting;
use crate::error::Error;
use pgrx::PgSqlErrorCode;
use pgrx::pg_sys::panic::{CaughtError, ErrorReportWithLevel};
use pgrx::pg_sys::{self, PgTryBuilder};
use std::borrow::Cow;
use std::panic::AssertUnwindSafe;

/// Why [`attempt`] came to nothing. All that the work has done is undone.
pub enum Failure {
    /// The work's own error.
    Own(Error),
    /// The server raised an error, whose message was this, in the database's encoding.
    Server(Box<CaughtError>, Option<Vec<u8>>),
}

impl Failure {
    /// The server's error; `None` for the work's own and for a panic.
    fn report(&self) -> Option<&ErrorReportWithLevel> {
        match self {
            Failure::Server(caught, _) => match &**caught {
                CaughtError::PostgresError(report) => Some(report),
                _ => None,
            },
            Failure::Own(_) => None,
        }
    }

    /// The SQLSTATE of the server's error; `None` for the work's own and for a panic.
    pub fn code(&self) -> Option<PgSqlErrorCode> {
        self.report().map(ErrorReportWithLevel::sql_error_code)
    }

    /// Whether another session changed or removed the same catalog row at the same time. The server has no SQLSTATE of
    /// its own for that, but the message is a constant that isn't translated.
    pub fn is_concurrent_catalog_change(&self) -> bool {
        self.report().is_some_and(|report| {
            report.sql_error_code() == PgSqlErrorCode::ERRCODE_INTERNAL_ERROR
                && matches!(report.message(), "tuple concurrently updated" | "tuple concurrently deleted")
        })
    }

    /// Whether it is a second row of the same key in one of the catalogs' own indexes, whose names begin with `pg_`: two
    /// sessions have given the same name at the same time.
    pub fn is_taken_name(&self) -> bool {
        self.report().is_some_and(|report| {
            report.sql_error_code() == PgSqlErrorCode::ERRCODE_UNIQUE_VIOLATION && report.message().contains("\"pg_")
        })
    }

    /// Whether it may be answered by something else than an error: as for PL/pgSQL's OTHERS, unless somebody wanted the work
    /// to end.
    pub fn may_be_answered(&self) -> bool {
        use PgSqlErrorCode as Code;
        self.code().is_some_and(|code| {
            !matches!(
                code,
                Code::ERRCODE_QUERY_CANCELED
                    | Code::ERRCODE_ASSERT_FAILURE
                    | Code::ERRCODE_ADMIN_SHUTDOWN
                    | Code::ERRCODE_CRASH_SHUTDOWN
                    | Code::ERRCODE_DATABASE_DROPPED
            )
        })
    }

    /// Tells the client, and the log, that something was done in spite of it: a WARNING with its SQLSTATE.
    pub fn warn(&self, what: &str) {
        if let Some(report) = self.report() {
            let message = format!("{what}: {}", self.message().unwrap_or_default());
            guard::warn(report.sql_error_code(), message);
        }
    }

    /// What the server's error says; `None` for the work's own and for a panic.
    pub fn message(&self) -> Option<Cow<'_, str>> {
        match self {
            Failure::Server(_, Some(said)) => self.report().map(|_| decode(said)),
            _ => self.report().map(|report| report.message().into()),
        }
    }

    /// Its SQLSTATE and what it says, where it [may be answered](Self::may_be_answered); all others are passed on. The work's
    /// own error always may.
    pub fn answered(self) -> Result<(PgSqlErrorCode, String), Error> {
        match self {
            Failure::Own(error) => {
                let report = error.report();
                Ok((report.code, report.message))
            }
            failure @ Failure::Server(..) => match (failure.code(), failure.message()) {
                (Some(code), Some(message)) if failure.may_be_answered() => Ok((code, message.into_owned())),
                _ => failure.pass_on(),
            },
        }
    }

    /// Passes it on as it came.
    pub fn pass_on<R>(self) -> Result<R, Error> {
        match self {
            Failure::Own(error) => Err(error),
            Failure::Server(caught, _) => caught.rethrow(),
        }
    }
}

/// Tells the client, and the log, of something that didn't keep the call from its work.
pub fn warn(code: PgSqlErrorCode, message: String) {
    guard::warn(code, message);
}

/// Does `work` in a savepoint, which is released when it succeeds and rolled back when it fails or raises an error. Costs a
/// transaction number where the work writes: not for hot paths.
pub fn attempt<R>(work: impl FnOnce() -> Result<R, Error>) -> Result<R, Failure> {
    // SAFETY: the same steps as PL/pgSQL's for a block with an EXCEPTION clause. The memory context and the resource
    // owner are variables of this process; both outlive the savepoint.
    unsafe {
        let (context, owner) = (pg_sys::CurrentMemoryContext, pg_sys::CurrentResourceOwner);
        pg_sys::BeginInternalSubTransaction(std::ptr::null());
        pg_sys::CurrentMemoryContext = context;
        let outcome = PgTryBuilder::new(AssertUnwindSafe(|| work().map_err(Failure::Own)))
            .catch_others(|caught| Err(Failure::Server(Box::new(caught), guard::last_message())))
            .execute();
        if outcome.is_ok() {
            pg_sys::ReleaseCurrentSubTransaction();
        } else {
            // Also sets back the role and the settings that the work has changed.
            pg_sys::RollbackAndReleaseCurrentSubTransaction();
        }
        pg_sys::CurrentMemoryContext = context;
        pg_sys::CurrentResourceOwner = owner;
        outcome
    }
}

/// Does `work`, which only reads, in a savepoint that is rolled back unless `keep` says that this was all: so the locks on what it has
/// read are let go before the transaction ends. Errors are passed on.
pub fn look<R>(keep: impl FnOnce(&R) -> bool, work: impl FnOnce() -> Result<R, Error>) -> Result<R, Error> {
    let mut found = None;
    let outcome = attempt(|| {
        let result = work()?;
        let kept = keep(&result);
        found = Some(result);
        if kept { Ok(()) } else { Err(Error::Internal { problem: "a look was not rolled back".into() }) }
    });
    match (outcome, found) {
        (Ok(()) | Err(Failure::Own(_)), Some(found)) => Ok(found),
        (Ok(()), None) => Err(Error::Internal { problem: "a look without an answer".into() }),
        (Err(failure), _) => failure.pass_on(),
    }
}

/// Does `work` with a `lock_timeout` of `millis`, unless the session has set one, which then counts.
pub fn with_lock_timeout<R>(millis: u32, work: impl FnOnce() -> Result<R, Error>) -> Result<R, Error> {
    // SAFETY: reads a variable of this process.
    if unsafe { pg_sys::LockTimeout } > 0 {
        return work();
    }
    let value = std::ffi::CString::new(millis.to_string()).unwrap_or_default();
    with_setting(c"lock_timeout", &value, work)
}
