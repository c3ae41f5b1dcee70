//! Numbers from sequences.

use pgrx::pg_sys::{self, Oid};

/// The next number of a sequence, whatever the role may do with it.
pub fn next(sequence: u32) -> i64 {
    // SAFETY: any OID may be named; errors pass through the guard.
    unsafe { pg_sys::ffi::pg_guard_ffi_boundary(|| super::unguarded::nextval_internal(Oid::from(sequence), false)) }
}
