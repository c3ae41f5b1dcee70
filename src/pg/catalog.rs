//! What the catalogs say of relations: names, owners, privileges, and when to ask again.

use super::unguarded;
use pgrx::pg_sys::SysCacheIdentifier as Cache;
use pgrx::pg_sys::{self, Datum, Oid};
use pgrx::prelude::*;
use std::ffi::CStr;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

/// Counts the invalidations of the server's relation cache: what was read from the catalogs before the current number
/// must be read again.
static GENERATION: AtomicU64 = AtomicU64::new(0);

/// Registers for invalidations; once, when the library is loaded.
pub fn init() {
    // SAFETY: the callback stays as long as the process lives.
    unsafe {
        pg_sys::CacheRegisterRelcacheCallback(Some(invalidated), Datum::from(0));
        // As the server itself keeps what it knows of who is whose member: `acl.c`.
        for cache in [Cache::AUTHMEMROLEMEM, Cache::AUTHOID, Cache::DATABASEOID] {
            pg_sys::CacheRegisterSyscacheCallback(cache as i32, Some(roles_changed), Datum::from(0));
        }
    }
}

/// Counts what may change what a role may do, besides the privileges on a relation.
static ROLES: AtomicU64 = AtomicU64::new(0);

#[pg_guard]
unsafe extern "C-unwind" fn roles_changed(_arg: Datum, _cache: i32, _hash: u32) {
    ROLES.fetch_add(1, Relaxed);
}

/// The current number of changes of roles and their memberships.
pub fn roles_epoch() -> u64 {
    ROLES.load(Relaxed)
}

/// The relation whose invalidations are counted apart, see [`watch`]; 0 for none. And their number.
static WATCHED: AtomicU32 = AtomicU32::new(0);
static WATCHED_EPOCH: AtomicU64 = AtomicU64::new(0);

#[pg_guard]
unsafe extern "C-unwind" fn invalidated(_arg: Datum, relation: Oid) {
    GENERATION.fetch_add(1, Relaxed);
    // An invalid OID stands for all relations.
    if relation == Oid::INVALID || relation.to_u32() == WATCHED.load(Relaxed) {
        WATCHED_EPOCH.fetch_add(1, Relaxed);
    }
}

/// Counts the invalidations of one relation apart from now on, in the place of any other.
pub fn watch(relation: u32) {
    if WATCHED.swap(relation, Relaxed) != relation {
        WATCHED_EPOCH.fetch_add(1, Relaxed);
    }
}

/// The current number of invalidations of the relation that is watched.
pub fn watched_epoch() -> u64 {
    WATCHED_EPOCH.load(Relaxed)
}

/// The current number of invalidations.
pub fn relcache_epoch() -> u64 {
    GENERATION.load(Relaxed)
}

/// Lets all sessions forget what they know of a relation when this transaction commits, and with it what else they know until
/// the next invalidation.
pub fn announce(relation: u32) {
    // SAFETY: any OID may be named; of one that is gone the server raises an ERROR.
    unsafe { pg_sys::CacheInvalidateRelcacheByRelid(Oid::from(relation)) };
}

/// Privileges on a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Privilege {
    /// INSERT
    Send,
    /// SELECT and DELETE
    Consume,
    /// SELECT
    Observe,
}

/// The lock that reading or writing a relation takes.
pub fn lock_mode(write: bool) -> i32 {
    (if write { pg_sys::RowExclusiveLock } else { pg_sys::AccessShareLock }) as i32
}

/// Locks a relation as reading or writing it does, until [`unlock`] or the transaction's end. What the catalogs say of it
/// is known to this process afterwards, and a session that would change what matters to that waits.
pub fn lock(relation: u32, write: bool) {
    // SAFETY: any OID may be locked.
    unsafe { pg_sys::LockRelationOid(Oid::from(relation), lock_mode(write)) };
}

/// Locks a relation as a SELECT does, until the transaction ends, and takes in what other sessions have announced by then, also where this
/// one has had the lock before: privileges may have been revoked, and triggers switched off.
///
/// Without a guard: where it fails, the error passes over the frames of its callers, which hold nothing that has to be dropped.
#[inline(always)]
pub fn lock_to_read(relation: u32) {
    // SAFETY: any OID may be locked; the callers' promise for the rest.
    unsafe {
        unguarded::LockRelationOid(Oid::from(relation), pg_sys::AccessShareLock as i32);
        unguarded::AcceptInvalidationMessages();
    }
}

/// Takes in what other sessions have committed to the catalogs: look-ups from here on see it.
pub fn see_committed() {
    // SAFETY: called inside a transaction, as every SQL function is; errors pass through pgrx's guard.
    unsafe { pg_sys::AcceptInvalidationMessages() };
}

/// Releases a lock before the transaction ends; for a caller that has changed nothing.
pub fn unlock(relation: u32, write: bool) {
    // SAFETY: taken with this mode.
    unsafe { pg_sys::UnlockRelationOid(Oid::from(relation), lock_mode(write)) };
}

/// Locks that are taken only where nobody has to be waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TableLock {
    /// As reading takes it.
    Read,
    /// As writing takes it.
    Write,
    /// Keeps out all writers.
    NoWrites,
}

impl TableLock {
    fn mode(self) -> i32 {
        match self {
            TableLock::Read => lock_mode(false),
            TableLock::Write => lock_mode(true),
            TableLock::NoWrites => pg_sys::ShareRowExclusiveLock as i32,
        }
    }
}

/// Takes a lock on a relation, if no other session has one that it would have to wait for; until [`release`] or the
/// transaction's end. What the catalogs say of the relation is known to this process afterwards.
pub fn try_lock(relation: u32, lock: TableLock) -> bool {
    // SAFETY: any OID may be locked.
    unsafe { pg_sys::ConditionalLockRelationOid(Oid::from(relation), lock.mode()) }
}

/// Releases a lock that [`try_lock`] has taken.
pub fn release(relation: u32, lock: TableLock) {
    // SAFETY: taken with this mode.
    unsafe { pg_sys::UnlockRelationOid(Oid::from(relation), lock.mode()) };
}

/// The OID of a relation in the schema `enough`.
pub fn relation_named(name: &CStr) -> Option<u32> {
    // SAFETY: plain catalog look-ups by C strings.
    unsafe {
        let schema = pg_sys::get_namespace_oid(c"enough".as_ptr(), true);
        let relation = pg_sys::get_relname_relid(name.as_ptr(), schema);
        (relation != Oid::INVALID).then(|| relation.to_u32())
    }
}

/// Whether the current role has a privilege on a relation; column privileges don't count. False where the relation is gone.
#[allow(clippy::useless_conversion, reason = "privileges became wider with 16")]
pub fn has_privilege(relation: u32, privilege: Privilege) -> bool {
    let modes: &[u32] = match privilege {
        Privilege::Send => &[pg_sys::ACL_INSERT],
        Privilege::Observe => &[pg_sys::ACL_SELECT],
        Privilege::Consume => &[pg_sys::ACL_SELECT, pg_sys::ACL_DELETE],
    };
    // One by one: asked for several, the server answers whether there is any of them.
    modes.iter().all(|mode| {
        let mut gone = false;
        // SAFETY: plain catalog look-up, which says by `gone` that there is no such relation, instead of failing.
        let answer = unsafe {
            pg_sys::pg_class_aclcheck_ext(
                Oid::from(relation),
                pg_sys::GetUserId(),
                pg_sys::AclMode::from(*mode),
                &raw mut gone,
            )
        };
        answer == pg_sys::AclResult::ACLCHECK_OK
    })
}

/// Whether the current role may change every row of a relation. False where it is gone.
#[allow(clippy::useless_conversion, reason = "privileges became wider with 16")]
pub fn may_update(relation: u32) -> bool {
    let mode = pg_sys::ACL_UPDATE.into();
    let mut gone = false;
    // SAFETY: plain catalog look-up.
    let answer =
        unsafe { pg_sys::pg_class_aclcheck_ext(Oid::from(relation), pg_sys::GetUserId(), mode, &raw mut gone) };
    answer == pg_sys::AclResult::ACLCHECK_OK
}

/// A role's name in the database's encoding, quoted where a statement needs it; `None` where there is no such role.
pub fn role_name(role: u32) -> Option<Vec<u8>> {
    // SAFETY: plain catalog look-up; both answers are C strings in the call's memory context.
    unsafe {
        let name = pg_sys::GetUserNameFromId(Oid::from(role), true);
        if name.is_null() {
            return None;
        }
        Some(CStr::from_ptr(pg_sys::quote_identifier(name)).to_bytes().to_vec())
    }
}

/// Whether the policies of a relation decide which of its rows the current role sees.
pub fn row_security(relation: u32) -> bool {
    // SAFETY: plain catalog look-up; a relation that is gone has none.
    unsafe {
        pg_sys::check_enable_rls(Oid::from(relation), Oid::INVALID, true)
            == pg_sys::CheckEnableRlsResult::RLS_ENABLED as i32
    }
}

/// Whether the current role may make relations in the schema `enough`.
#[allow(clippy::useless_conversion, reason = "privileges became wider with 16")]
pub fn may_create() -> bool {
    let mode = pg_sys::ACL_CREATE.into();
    // SAFETY: plain catalog look-ups by a C string.
    unsafe {
        let schema = pg_sys::get_namespace_oid(c"enough".as_ptr(), true);
        #[cfg(feature = "pg15")]
        let answer = pg_sys::pg_namespace_aclcheck(schema, pg_sys::GetUserId(), mode);
        #[cfg(not(feature = "pg15"))]
        let answer = pg_sys::object_aclcheck(pg_sys::NamespaceRelationId, schema, pg_sys::GetUserId(), mode);
        schema != Oid::INVALID && answer == pg_sys::AclResult::ACLCHECK_OK
    }
}

/// Whether the current role owns a relation, or is a member of the role that does. False where it is gone.
pub fn is_owner(relation: u32) -> bool {
    // SAFETY: plain catalog look-up.
    owner_of(relation).is_some_and(|owner| unsafe { pg_sys::has_privs_of_role(pg_sys::GetUserId(), owner) })
}

/// The owner of a relation; `None` where it is gone.
pub(super) fn owner_of(relation: u32) -> Option<Oid> {
    // SAFETY: a catalog row is read while it is held.
    unsafe {
        let tuple = pg_sys::SearchSysCache1(pg_sys::SysCacheIdentifier::RELOID as i32, Oid::from(relation).into());
        if tuple.is_null() {
            return None;
        }
        let form = pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_class>();
        let owner = (*form).relowner;
        pg_sys::ReleaseSysCache(tuple);
        Some(owner)
    }
}

/// Names of a relation and of its schema, in the database's encoding; `None` where it is gone.
pub fn names_of(relation: u32) -> Option<(Vec<u8>, Vec<u8>)> {
    // SAFETY: plain catalog look-ups, whose answers are C strings in the call's memory context, or NULL.
    unsafe {
        let name = pg_sys::get_rel_name(Oid::from(relation));
        let schema = pg_sys::get_namespace_name(pg_sys::get_rel_namespace(Oid::from(relation)));
        let text = |name| CStr::from_ptr(name).to_bytes().to_vec();
        (!name.is_null() && !schema.is_null()).then(|| (text(schema), text(name)))
    }
}

/// Whether a crash empties a relation.
pub fn is_unlogged(relation: u32) -> bool {
    // SAFETY: plain catalog look-up.
    unsafe { pg_sys::get_rel_persistence(Oid::from(relation)).cast_unsigned() == pg_sys::RELPERSISTENCE_UNLOGGED }
}

/// Whether a relation has a column of that name.
pub fn has_column(relation: u32, name: &CStr) -> bool {
    // SAFETY: plain catalog look-up by a C string.
    unsafe { pg_sys::get_attnum(Oid::from(relation), name.as_ptr()) > 0 }
}

/// Whether that is a function of the schema `enough` with that name.
pub fn is_own_function(function: Oid, name: &CStr) -> bool {
    // SAFETY: plain catalog look-ups, whose answers are C strings in the call's memory context, or NULL.
    unsafe {
        let found = pg_sys::get_func_name(function);
        !found.is_null()
            && CStr::from_ptr(found) == name
            && pg_sys::get_func_namespace(function) == pg_sys::get_namespace_oid(c"enough".as_ptr(), true)
    }
}

/// Whether two relations are there and have the same owner.
pub fn same_owner(one: u32, other: u32) -> bool {
    owner_of(one).is_some_and(|owner| owner_of(other) == Some(owner))
}

/// Whether this database has a relation with that OID.
pub fn relation_exists(relation: u32) -> bool {
    // SAFETY: plain catalog look-up.
    unsafe { !pg_sys::get_rel_name(Oid::from(relation)).is_null() }
}

/// Whether the server has a database with that OID.
pub fn database_exists(database: u32) -> bool {
    // SAFETY: plain catalog look-up.
    unsafe { !pg_sys::get_database_name(Oid::from(database)).is_null() }
}

/// Whether this database has an extension of that name.
pub fn extension_exists(name: &CStr) -> bool {
    // SAFETY: plain catalog look-up by a C string.
    unsafe { pg_sys::get_extension_oid(name.as_ptr(), true) != Oid::INVALID }
}
