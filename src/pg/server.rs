//! Small safe calls into the server: its clock, the role and the database, interrupts.

use super::unguarded;
use enough_engine::cache::LogicalTime;
use pgrx::pg_sys;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// The server's wall clock, in microseconds since PostgreSQL's epoch (2000-01-01).
#[inline]
pub fn now() -> i64 {
    // SAFETY: no preconditions.
    unsafe { unguarded::GetCurrentTimestamp() }
}

/// Whether the session may look at the catalogs: a transaction has begun and is not about to end.
pub fn is_in_transaction() -> bool {
    // SAFETY: reads a variable of this process.
    unsafe { pg_sys::IsTransactionState() }
}

/// When the current statement began, as far as the client knows of it.
#[inline]
pub fn statement_began() -> i64 {
    // SAFETY: reads a variable of this process.
    unsafe { unguarded::GetCurrentStatementStartTimestamp() }
}

/// The OID of this session's database.
#[inline]
pub fn database() -> u32 {
    // SAFETY: set when the session connects and never changed.
    unsafe { pg_sys::MyDatabaseId }.to_u32()
}

/// The process ID of this session.
pub fn process_id() -> u32 {
    // SAFETY: set when the process starts and never changed.
    unsafe { pg_sys::MyProcPid }.cast_unsigned()
}

/// Ends the call with an error where the user or the server has asked for it.
#[inline]
pub fn check_for_interrupts() {
    pgrx::check_for_interrupts!();
}

/// Whether this server is a standby, or still recovering.
pub fn in_recovery() -> bool {
    // SAFETY: no preconditions.
    unsafe { pg_sys::RecoveryInProgress() }
}

/// Whether the server takes prepared transactions at all.
#[inline]
pub fn takes_prepared_transactions() -> bool {
    // SAFETY: a variable of this process, which is set when the server starts.
    unsafe { unguarded::max_prepared_xacts > 0 }
}

/// Whether the current transaction is read-only, as all are that began on a standby.
#[inline(always)]
pub fn is_read_only() -> bool {
    // SAFETY: reads a variable of this process.
    unsafe { pg_sys::XactReadOnly }
}

/// Whether the current transaction may write.
pub fn may_write() -> bool {
    // SAFETY: reads a variable of this process.
    !unsafe { pg_sys::XactReadOnly } && !in_recovery()
}

/// The number that the next transaction gets that writes: those with smaller ones have begun to.
pub fn next_transaction() -> u64 {
    // SAFETY: reads a counter under its lock.
    unsafe { pg_sys::ReadNextFullTransactionId() }.value
}

/// Whether the statement at hand is one of several of a transaction: between BEGIN and COMMIT, or sent with others.
pub fn in_transaction_block() -> bool {
    // SAFETY: reads a variable of this process.
    unsafe { pg_sys::IsTransactionBlock() }
}

/// Lets what this transaction has done so far be seen by what it does next.
pub fn next_command() {
    // SAFETY: within a transaction that isn't in parallel mode; errors pass through pgrx's guard.
    unsafe { pg_sys::CommandCounterIncrement() };
}

/// Whether the current transaction has written anything yet.
#[inline(always)]
pub fn has_written() -> bool {
    // SAFETY: reads a variable of this process.
    unsafe { unguarded::GetTopTransactionIdIfAny() != pg_sys::TransactionId::from(0) }
}

/// One past the newest transaction number that has ended. What this process has seen the end of counts.
#[inline]
fn ended() -> u64 {
    // SAFETY: the server's shared memory is there as long as this process is; an aligned word is read as a whole.
    #[cfg(any(feature = "pg15", feature = "pg16"))]
    let newest = unsafe { (&raw const (*pg_sys::ShmemVariableCache).latestCompletedXid.value).read_volatile() };
    // SAFETY: as above.
    #[cfg(not(any(feature = "pg15", feature = "pg16")))]
    let newest = unsafe { (&raw const (*pg_sys::TransamVariables).latestCompletedXid.value).read_volatile() };
    newest + 1
}

/// This moment, which no snapshot taken from now on is older than.
pub fn logical_time() -> LogicalTime {
    // The transactions first: they must not be newer than the time.
    let ended = ended();
    LogicalTime { time: u64::try_from(now()).unwrap_or(0), ended }
}

/// A moment that no snapshot of the current transaction is older than: by the clock its start, which comes before all
/// of them; by ended transactions the snapshot in use, which is the only one where the isolation level has one. Also
/// one that was imported from another transaction and is older than this one's start.
#[inline]
pub fn transaction_began() -> LogicalTime {
    let mut ended = ended();
    // SAFETY: variables of this process; the snapshot is read only where there is one.
    let began = unsafe {
        if unguarded::ActiveSnapshotSet() {
            // Numbers in a snapshot have 32 bits, and are at most 2^31 behind.
            let behind = (ended as u32).wrapping_sub(u32::from((*unguarded::GetActiveSnapshot()).xmax));
            if behind < 1 << 31 {
                ended -= u64::from(behind);
            }
        }
        unguarded::GetCurrentTransactionStartTimestamp()
    };
    LogicalTime { time: u64::try_from(began).unwrap_or(0), ended }
}

/// Whether the statement at hand is a transaction of its own, and no transaction was open that had a number when its snapshot was
/// taken: then all that has ended by now had ended by then, or has begun since.
pub fn is_alone_in_its_snapshot() -> bool {
    // SAFETY: variables of this process; the snapshot is read only where there is one.
    !in_transaction_block()
        && unsafe {
            unguarded::ActiveSnapshotSet() && {
                let snapshot = &*unguarded::GetActiveSnapshot();
                snapshot.xmin == snapshot.xmax
            }
        }
}

/// Whether all statements of the current transaction see the same snapshot.
#[inline(always)]
pub fn has_one_snapshot() -> bool {
    // SAFETY: reads a variable of this process.
    unsafe { pg_sys::XactIsoLevel >= pg_sys::XACT_REPEATABLE_READ as i32 }
}

/// Whether this process is a parallel worker.
#[inline(always)]
pub fn is_parallel_worker() -> bool {
    // SAFETY: reads a variable of this process.
    unsafe { pg_sys::ParallelWorkerNumber >= 0 }
}

/// Whether this process is a parallel worker, or runs a statement together with such ones.
#[inline]
pub fn in_parallel_mode() -> bool {
    // SAFETY: reads variables of this process.
    unsafe { unguarded::IsInParallelMode() }
}

/// Whether the server knows a time zone of that name.
pub fn is_time_zone(name: &[u8]) -> bool {
    let name = super::unguarded::c_string(name);
    // SAFETY: the name ends with a zero byte; the answer is kept by the server, or null.
    unsafe { !pg_sys::pg_tzset(name).is_null() }
}

/// Does `work` with a memory context of its own, and frees what it has allocated there: copies of rows must not be in what
/// it returns.
pub fn with_own_memory<R>(work: impl FnOnce() -> R) -> R {
    let mut own = pgrx::PgMemoryContexts::new("pg_enough rows");
    // SAFETY: the caller keeps nothing of what is allocated in it.
    unsafe { own.switch_to(|_| work()) }
}

/// Which of the counters' stripes this process uses.
#[inline]
pub fn stripe() -> usize {
    static STRIPE: AtomicUsize = AtomicUsize::new(0);
    let known = STRIPE.load(Relaxed);
    if known != 0 {
        return known;
    }
    let own = std::process::id() as usize;
    STRIPE.store(own, Relaxed);
    own
}
