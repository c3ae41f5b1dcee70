//! What this transaction has written to the WAL, and whether its commit waits for the disk.

use pgrx::pg_sys;
use std::ffi::c_int;
use std::sync::atomic::{AtomicI32, Ordering::Relaxed};

/// The setting that a commit doesn't wait (`SYNCHRONOUS_COMMIT_OFF`).
const OFF: c_int = 0;
/// For [`SUSPENDED`]: nothing is suspended.
const NONE: c_int = -1;

/// The session's `synchronous_commit`, while it is replaced for one commit.
static SUSPENDED: AtomicI32 = AtomicI32::new(NONE);

/// How many WAL records this process has written so far.
#[inline]
pub fn records() -> i64 {
    // SAFETY: reads a variable of this process.
    unsafe { pg_sys::pgWalUsage.wal_records }
}

/// The number of this transaction, of 64 bits; `None` where it has none.
pub fn transaction_id() -> Option<u64> {
    // SAFETY: reads variables of this process.
    Some(unsafe { pg_sys::GetTopFullTransactionIdIfAny() }.value).filter(|&id| id & 0xffff_ffff != 0)
}

/// The same, which it gets where it has none.
pub fn assign_transaction_id() -> u64 {
    // SAFETY: within a transaction; errors pass through pgrx's guard.
    unsafe { pg_sys::GetTopFullTransactionId() }.value
}

/// Lets the commit that is about to be made not wait for the disk, nor for standbys; as `synchronous_commit = off` does.
/// Until [`restore`].
pub fn let_commit_not_wait() {
    // SAFETY: a variable of this process, which the server reads when it commits. What it decides when the setting is
    // assigned (how to wait for standbys) isn't asked for where this is off.
    unsafe {
        if pg_sys::synchronous_commit > OFF {
            SUSPENDED.store(pg_sys::synchronous_commit, Relaxed);
            pg_sys::synchronous_commit = OFF;
        }
    }
}

/// Gives `synchronous_commit` its value back; after the end of a transaction.
#[inline]
pub fn restore() {
    let suspended = SUSPENDED.swap(NONE, Relaxed);
    if suspended != NONE {
        // SAFETY: a variable of this process.
        unsafe { pg_sys::synchronous_commit = suspended };
    }
}
