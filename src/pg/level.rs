//! What the current role may do beyond what everybody may: the levels of `grant_to` (`sql/access.sql`), as far as the library asks
//! for them itself, and the rights of other roles.

use super::catalog;
use super::spi::read_rows_kept;
use super::unguarded;
use crate::error::Error;
use pgrx::pg_sys::{self, Oid};

/// Whether the current role is an operator: one that may change the options of all queues, and maintain them all.
pub fn is_operator() -> bool {
    catalog::relation_named(c"queue").is_some_and(catalog::may_update)
}

/// Whether the current role is a monitor: one that may see the statistics.
pub fn is_monitor() -> Result<bool, Error> {
    let statement = "SELECT WHERE pg_catalog.has_function_privilege('enough.cache_stats()', 'EXECUTE')";
    Ok(read_rows_kept(statement, &[], |_| Ok(()))? > 0)
}

/// The OID of the current role, whose privileges count.
#[inline(always)]
pub fn current_role() -> u32 {
    // SAFETY: reads a variable of this process.
    unsafe { unguarded::GetUserId() }.to_u32()
}

/// Whether the current role has the rights of another: it is that role, or a member of it that inherits them, or a superuser.
pub fn has_rights_of(role: u32) -> bool {
    // SAFETY: plain catalog look-up; a role that is gone has no members.
    unsafe { pg_sys::has_privs_of_role(pg_sys::GetUserId(), Oid::from(role)) }
}
