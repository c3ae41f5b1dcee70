//! Up to which version a space has lost changes: rows of keys that were deleted go after a day, and TRUNCATE takes all. A session that watches and has
//! seen less can't be told what happened.

use super::table::{Space, as_owner_of_own};
use crate::error::Error;
use crate::pg::spi::{Parameter, read_rows, run};

/// Notes that changes up to a version are gone, with the transaction.
pub(super) fn gone(space: &Space, version: i64) -> Result<(), Error> {
    as_owner_of_own(c"space", || {
        run(
            "INSERT INTO enough.space AS s (name, gone) VALUES ($1, $2) \
             ON CONFLICT (name) DO UPDATE SET gone = EXCLUDED.gone WHERE s.gone OPERATOR(pg_catalog.<) EXCLUDED.gone",
            &[Parameter::Text(&space.name), Parameter::I64(version)],
        )
    })?;
    Ok(())
}

/// That version, of a space that needn't be there any more; 0 where nothing is gone.
pub(super) fn of(name: &str) -> Result<i64, Error> {
    let mut gone = 0;
    let statement = "SELECT s.gone FROM enough.space AS s WHERE s.name OPERATOR(pg_catalog.=) $1";
    read_rows(statement, &[Parameter::Text(name)], |row| {
        gone = row.get::<i64>(1)?.unwrap_or(0);
        Ok(())
    })?;
    Ok(gone)
}
