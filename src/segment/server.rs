//! Small safe calls into the server: its clock, who asks, interrupts.

use pgrx::pg_sys;

/// The server's wall clock, in microseconds since PostgreSQL's epoch (2000-01-01).
#[inline]
pub fn now() -> i64 {
    // SAFETY: no preconditions.
    unsafe { super::bare::GetCurrentTimestamp() }
}

/// The OID of this session's database.
#[inline]
pub fn database() -> u32 {
    // SAFETY: set when the session connects and never changed.
    unsafe { pg_sys::MyDatabaseId }.to_u32()
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

/// Whether the current transaction may write.
pub fn may_write() -> bool {
    // SAFETY: reads a variable of this process.
    !unsafe { pg_sys::XactReadOnly } && !in_recovery()
}

/// Whether the current transaction has written anything yet.
pub fn has_written() -> bool {
    // SAFETY: reads a variable of this process.
    unsafe { pg_sys::GetTopTransactionIdIfAny() != pg_sys::TransactionId::from(0) }
}
