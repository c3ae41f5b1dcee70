//! Turns: one session does something for a key while others wait for it, by the server's own locks.
//!
//! They wake a waiting session whatever becomes of the one at work (an error, a cancel, its end: each releases its locks),
//! notice when sessions wait for one another in a circle, also by way of rows and tables, and show in `pg_locks` who
//! waits for whom. They are advisory locks of a class of their own, so that a user's can't be meant.

use super::server;
use enough_engine::hash::KeyHash;
use pgrx::pg_sys;

/// Tells these locks from the users' advisory ones, which have 1 and 2 there: `objsubid` 25966 in `pg_locks`.
const CLASS: u16 = u16::from_be_bytes(*b"en");

/// This session's turn. It ends with the transaction, or savepoint, if not before: not when it is dropped, because an
/// error may pass through while the server can't release locks.
#[must_use]
pub struct KeyLock {
    tag: pg_sys::LOCKTAG,
}

/// `database` 0: of the whole server.
fn tag(database: u32, key: KeyHash) -> pg_sys::LOCKTAG {
    pg_sys::LOCKTAG {
        locktag_field1: database,
        locktag_field2: (key.high >> 32) as u32,
        locktag_field3: key.high as u32,
        locktag_field4: CLASS,
        locktag_type: pg_sys::LockTagType::LOCKTAG_ADVISORY as u8,
        locktag_lockmethodid: pg_sys::USER_LOCKMETHOD as u8,
    }
}

fn lock(tag: &pg_sys::LOCKTAG, mode: u32, at_once: bool) -> bool {
    // SAFETY: a complete tag of the users' lock method; errors pass through pgrx's guard.
    unsafe { pg_sys::LockAcquire(tag, mode as _, false, at_once) != pg_sys::LockAcquireResult::LOCKACQUIRE_NOT_AVAIL }
}

fn release(tag: &pg_sys::LOCKTAG, mode: u32) {
    // SAFETY: as above; it was acquired.
    unsafe { pg_sys::LockRelease(tag, mode as _, false) };
}

fn is_held(tag: &pg_sys::LOCKTAG, mode: u32) -> bool {
    // SAFETY: a complete tag.
    #[cfg(any(feature = "pg15", feature = "pg16"))]
    unsafe {
        pg_sys::LockHeldByMe(tag, mode as _)
    }
    // SAFETY: as above.
    #[cfg(not(any(feature = "pg15", feature = "pg16")))]
    unsafe {
        pg_sys::LockHeldByMe(tag, mode as _, false)
    }
}

impl KeyLock {
    /// The turn for a key, if no other session has it.
    pub fn try_acquire(key: KeyHash) -> Option<Self> {
        let tag = tag(server::database(), key);
        lock(&tag, pg_sys::ExclusiveLock, true).then_some(Self { tag })
    }

    /// Waits until no other session has it: all that wait so wake at once.
    pub fn wait_for_others(key: KeyHash) {
        let tag = tag(server::database(), key);
        lock(&tag, pg_sys::ShareLock, false);
        release(&tag, pg_sys::ShareLock);
    }

    /// The turn for a key, after waiting for it: first come, first served.
    pub fn acquire(key: KeyHash) -> Self {
        let tag = tag(server::database(), key);
        lock(&tag, pg_sys::ExclusiveLock, false);
        Self { tag }
    }

    /// The turn to make what there is one of in the whole server, after waiting for it.
    pub fn of_the_server() -> Self {
        let tag = tag(0, KeyHash { high: 0, low: 0 });
        lock(&tag, pg_sys::ExclusiveLock, false);
        Self { tag }
    }

    /// Lets the next one have it.
    pub fn end(self) {
        release(&self.tag, pg_sys::ExclusiveLock);
    }

    /// Lets the next one have the turn for a key, where this session has it still.
    pub fn end_if_held(key: KeyHash) {
        let tag = tag(server::database(), key);
        if is_held(&tag, pg_sys::ExclusiveLock) {
            release(&tag, pg_sys::ExclusiveLock);
        }
    }

    /// Shares a lock of the whole server with others that share it, until the transaction ends; one that is prepared keeps it.
    pub fn share_with_transaction(key: KeyHash) {
        lock(&tag(0, key), pg_sys::ShareLock, false);
    }

    /// Whether nobody shares it.
    pub fn is_shared_by_nobody(key: KeyHash) -> bool {
        let tag = tag(0, key);
        let free = lock(&tag, pg_sys::ExclusiveLock, true);
        if free {
            release(&tag, pg_sys::ExclusiveLock);
        }
        free
    }

    /// How `pg_locks` shows it: `classid`, `objid` and `objsubid`.
    pub fn shown_as(key: KeyHash) -> [u32; 3] {
        let tag = tag(0, key);
        [tag.locktag_field2, tag.locktag_field3, u32::from(tag.locktag_field4)]
    }

    /// Keeps it until the transaction ends, be it by a commit, after which others see what it has done, or not.
    pub fn end_with_transaction(self) {
        let Self { tag: _ } = self;
    }
}
