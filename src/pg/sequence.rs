//! Numbers from sequences.

use pgrx::pg_sys::{self, Oid};

/// The next number of a sequence, whatever the role may do with it.
pub fn next(sequence: u32) -> i64 {
    // SAFETY: any OID may be named; errors pass through the guard.
    unsafe { pg_sys::ffi::pg_guard_ffi_boundary(|| super::unguarded::nextval_internal(Oid::from(sequence), false)) }
}

/// The number of the column `pg_sequence.seqcache` (`pg_sequence.h`).
const CACHE: i16 = 7;

/// How many numbers a session draws from a sequence at once (`CACHE`).
pub fn drawn_at_once(sequence: u32) -> i64 {
    let cache = pg_sys::SysCacheIdentifier::SEQRELID as i32;
    // SAFETY: a column of a catalog row is read while that is held; it is a bigint that is never NULL.
    unsafe {
        let tuple = pg_sys::SearchSysCache1(cache, Oid::from(sequence).into());
        if tuple.is_null() {
            return 1;
        }
        let mut null = false;
        let drawn = pg_sys::SysCacheGetAttr(cache, tuple, CACHE, &raw mut null).value().cast_signed() as i64;
        pg_sys::ReleaseSysCache(tuple);
        drawn
    }
}
