//! Functions of the server that can't raise an error as they are called here, without the guard that pgrx puts around
//! each call (a sigsetjmp and a check of the thread, some 8 ns): they are most of what a get or a check consists of.
//!
//! * `LWLockAcquire` fails where 200 locks are held already: nobody here holds more than one partition's, or those of the
//!   64 partitions that a region may have. `LWLockRelease` fails where the lock isn't held: [`crate::shmem::Held`] exists only
//!   for one that is.
//! * `palloc_extended` and `MemoryContextAllocExtended` with [`NO_OOM`] answer NULL instead of failing, for any size below
//!   [`MAX_ALLOC`], or with [`HUGE`] below [`MAX_ALLOC_HUGE`].
//! * `pfree` fails where the memory isn't the server's, or was given back already: only [`super::memory::PgVec`] calls it,
//!   once for what it owns.
//! * `LockRelationOid` and `AcceptInvalidationMessages` may fail: for callers that hold nothing that has to be dropped, so that an error
//!   may pass over their frames as over those of C.
//! * The others read variables of this process, or the clock.

#![cfg_attr(test, allow(dead_code, reason = "tests run without a server"))]

use pgrx::pg_sys;
use std::ffi::{c_char, c_int, c_void};

/// `MCXT_ALLOC_NO_OOM`
const NO_OOM: c_int = 2;
/// `MCXT_ALLOC_HUGE`
const HUGE: c_int = 1;
/// `MaxAllocSize`
const MAX_ALLOC: usize = 0x3fff_ffff;
/// `MaxAllocHugeSize`
const MAX_ALLOC_HUGE: usize = usize::MAX / 2;

unsafe extern "C-unwind" {
    // For `guard.rs` alone, which is the outermost frame or within the server's own error handling.
    pub fn ThrowErrorData(error: *mut pg_sys::ErrorData);
    pub fn CopyErrorData() -> *mut pg_sys::ErrorData;
    pub fn FreeErrorData(error: *mut pg_sys::ErrorData);
    pub fn geterrcode() -> c_int;
    // `libpq/libpq.h` isn't among pgrx's headers. For `wait.rs`, which puts a guard around the call.
    pub fn pq_check_connection() -> bool;
    // Nor is `commands/async.h`. For `notify.rs`, which does the same.
    pub fn Async_Notify(channel: *const c_char, payload: *const c_char);
    pub static FeBeWaitSet: *mut pg_sys::WaitEventSet;
    // Nor is `access/twophase.h`.
    pub static max_prepared_xacts: c_int;
    // Nor is `commands/sequence.h`. For `sequence.rs`, which puts a guard around the call.
    pub fn nextval_internal(sequence: pg_sys::Oid, check_permissions: bool) -> i64;
}

unsafe extern "C-unwind" {
    pub fn LockRelationOid(relation: pg_sys::Oid, mode: c_int);
    pub fn AcceptInvalidationMessages();
}

unsafe extern "C" {
    pub fn LWLockAcquire(lock: *mut pg_sys::LWLock, mode: pg_sys::LWLockMode::Type) -> bool;
    pub fn LWLockRelease(lock: *mut pg_sys::LWLock);
    pub fn GetCurrentTimestamp() -> pg_sys::TimestampTz;
    pub fn GetCurrentStatementStartTimestamp() -> pg_sys::TimestampTz;
    pub fn GetCurrentTransactionStartTimestamp() -> pg_sys::TimestampTz;
    pub fn ActiveSnapshotSet() -> bool;
    pub fn GetActiveSnapshot() -> pg_sys::Snapshot;
    pub fn IsInParallelMode() -> bool;
    pub fn GetTopTransactionIdIfAny() -> pg_sys::TransactionId;
    pub fn GetUserId() -> pg_sys::Oid;
    pub fn GetCurrentSubTransactionId() -> pg_sys::SubTransactionId;
    // `storage/sinvaladt.h` isn't among pgrx's headers.
    #[cfg(any(feature = "pg15", feature = "pg16"))]
    pub fn BackendIdGetProc(session: c_int) -> *mut pg_sys::PGPROC;
    pub fn pfree(memory: *mut c_void);
    fn palloc_extended(size: usize, flags: c_int) -> *mut c_void;
    fn MemoryContextAllocExtended(context: pg_sys::MemoryContext, size: usize, flags: c_int) -> *mut c_void;
}

/// `palloc` that answers NULL where there is no memory.
#[inline]
pub fn try_palloc(size: usize) -> *mut c_void {
    if size >= MAX_ALLOC {
        return std::ptr::null_mut();
    }
    // SAFETY: with this flag and size it doesn't fail but answers NULL.
    unsafe { palloc_extended(size, NO_OOM) }
}

/// `MemoryContextAllocHuge` that answers NULL where there is no memory.
#[inline]
pub fn try_alloc_huge(context: pg_sys::MemoryContext, size: usize) -> *mut c_void {
    if size > MAX_ALLOC_HUGE {
        return std::ptr::null_mut();
    }
    // SAFETY: the context is the caller's; with these flags and that size it doesn't fail but answers NULL.
    unsafe { MemoryContextAllocExtended(context, size, HUGE | NO_OOM) }
}

/// `palloc`, whose errors still pass through the guard.
#[inline]
pub fn palloc(size: usize) -> *mut c_void {
    let memory = try_palloc(size);
    if !memory.is_null() {
        return memory;
    }
    // SAFETY: guarded; it raises the error that the caller's caller gets.
    unsafe { pg_sys::palloc(size) }
}
/// A copy in the call's memory context that ends with a zero byte, which no text of the server holds otherwise.
pub fn c_string(text: &[u8]) -> *const c_char {
    let memory = palloc(text.len() + 1).cast::<u8>();
    // SAFETY: there is room for the text and a byte, and both are written.
    unsafe {
        memory.copy_from_nonoverlapping(text.as_ptr(), text.len());
        memory.add(text.len()).write(0);
    }
    memory.cast()
}
