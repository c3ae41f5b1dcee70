//! Sessions that wait for changes of a table, and how they are woken.
//!
//! A session that waits holds one of the server's own locks, as a sign: no other session is ever kept waiting by it. It ends with the wait, whatever
//! becomes of the session, and is in `pg_locks`. A session whose changes have become visible asks which hold it, and sets their latches.
//!
//! *Nothing is missed:* a session takes the lock, then looks at the table, then sleeps. Where a commit isn't seen by that look, it comes
//! after the lock was taken, and finds its holder.

use super::{latch, server};
use pgrx::pg_sys;

/// Tells these locks from all others of the users' lock method: `objsubid` 25975 in `pg_locks`.
const CLASS: u16 = u16::from_be_bytes(*b"ew");

/// This session waits for changes of a table. Not over when it is dropped, because an error may pass through while the server can't
/// release locks; but with the transaction, or savepoint.
#[must_use]
pub struct Watching {
    tag: pg_sys::LOCKTAG,
}

fn tag(table: u32) -> pg_sys::LOCKTAG {
    pg_sys::LOCKTAG {
        locktag_field1: server::database(),
        locktag_field2: table,
        locktag_field3: 0,
        locktag_field4: CLASS,
        locktag_type: pg_sys::LockTagType::LOCKTAG_ADVISORY as u8,
        locktag_lockmethodid: pg_sys::USER_LOCKMETHOD as u8,
    }
}

impl Watching {
    /// From now on this session is woken by sessions that change the table.
    pub fn begin(table: u32) -> Self {
        let tag = tag(table);
        // SAFETY: a complete tag of the users' lock method; errors pass through pgrx's guard. Nobody holds it in a mode that conflicts.
        unsafe { pg_sys::LockAcquire(&raw const tag, pg_sys::ShareLock as _, false, false) };
        Watching { tag }
    }

    /// It isn't any more.
    pub fn end(self) {
        // SAFETY: as above; it was acquired.
        unsafe { pg_sys::LockRelease(&raw const self.tag, pg_sys::ShareLock as _, false) };
    }
}

/// Wakes the sessions that wait for changes of a table: for the end of a transaction, when its changes are visible. It fails where there is no
/// memory for a list of all sessions.
pub fn wake(table: u32) {
    let (tag, mut count) = (tag(table), 0);
    // SAFETY: a complete tag; as many entries are there as it says, until the memory context ends.
    let holders = unsafe {
        let first = pg_sys::GetLockConflicts(&raw const tag, pg_sys::ExclusiveLock as _, &raw mut count);
        std::slice::from_raw_parts(first, usize::try_from(count).unwrap_or(0))
    };
    for &holder in holders {
        if let Some(process) = process_of(holder) {
            latch::wake(&[process]);
        }
    }
}

/// The process number of the session that runs a transaction; `None` where it has ended.
#[cfg(any(feature = "pg15", feature = "pg16"))]
fn process_of(transaction: pg_sys::VirtualTransactionId) -> Option<u32> {
    if transaction.backendId < 1 {
        return None;
    }
    // SAFETY: an entry of the server's array, or NULL where there is no such session.
    unsafe {
        let session = super::unguarded::BackendIdGetProc(transaction.backendId);
        (!session.is_null()).then(|| (*session).pgprocno as u32)
    }
}

/// The process number of the session that runs a transaction; `None` where it has none.
#[cfg(not(any(feature = "pg15", feature = "pg16")))]
fn process_of(transaction: pg_sys::VirtualTransactionId) -> Option<u32> {
    u32::try_from(transaction.procNumber).ok()
}
