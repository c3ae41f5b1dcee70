//! Unlogged spaces that a crash may have emptied. Each has a row in an unlogged table, which a crash empties with them: so one without a
//! row has lost all that it had, and nobody was told.

use super::table::{Space, as_owner_of_own};
use super::{mark, version};
use crate::error::Error;
use crate::pg::catalog::{self, TableLock};
use crate::pg::server;
use crate::pg::spi::{Parameter, as_owner_of, read_rows, run};
use std::ffi::CStr;

/// That table.
const TABLE: &CStr = c"unlogged_space";

/// Notes that a space is as it is known to be, where it is an unlogged one.
pub(super) fn note(space: &Space) -> Result<(), Error> {
    if catalog::is_unlogged(space.oid) {
        let statement = "INSERT INTO enough.unlogged_space (name) VALUES ($1) ON CONFLICT DO NOTHING";
        as_owner_of_own(TABLE, || run(statement, &[Parameter::Text(&space.name)]))?;
    }
    Ok(())
}

/// Whether it is known what a space has lost: sees to that first, where it isn't and may be. False where the transaction can't write, or
/// somebody else is just writing to the space.
pub(super) fn settle(space: &Space) -> Result<bool, Error> {
    if !catalog::is_unlogged(space.oid) {
        return Ok(true);
    }
    let statement = "SELECT FROM enough.unlogged_space AS u WHERE u.name OPERATOR(pg_catalog.=) $1";
    if as_owner_of_own(TABLE, || read_rows(statement, &[Parameter::Text(&space.name)], |_| Ok(())))? > 0 {
        return Ok(true);
    }
    // All versions that are drawn by now are decided then.
    if !server::may_write() || !catalog::try_lock(space.oid, TableLock::NoWrites) {
        return Ok(false);
    }
    let version = as_owner_of(space.oid, || version::next(space))?;
    catalog::release(space.oid, TableLock::NoWrites);
    mark::gone(space, version)?;
    note(space)?;
    Ok(true)
}
