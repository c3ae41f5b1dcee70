//! Versions of before: in a space with a history each row has them in its column `past`, the newest first. A trigger puts what it was
//! there, however a row is changed; so they have the row's privileges and policies, are dumped with it and go with it.

use super::read::LIVE;
use super::table::Space;
use crate::error::Error;
use crate::pg::fmgr::{Rows, Text};
use crate::pg::spi::{Parameter, column, rows_as_user};

/// All versions of the row `e` that are kept, its own among them: `value`, `version`, `updated_at`, `deleted`.
pub(super) fn versions(space: &Space) -> String {
    let current = format!("SELECT CASE WHEN {LIVE} THEN e.value END, e.version, e.updated_at, NOT {LIVE}");
    if space.has_history() {
        format!(
            "{current} UNION ALL SELECT p.value, p.version, p.updated_at, p.value IS NULL FROM pg_catalog.unnest(e.past) AS p"
        )
    } else {
        current
    }
}

/// The versions of a key that are kept, the newest first.
pub(super) fn of(space: &Space, key: Text<'_>, rows: &mut Rows<'_>) -> Result<(), Error> {
    let statement = format!(
        "SELECT c.version, c.value, c.updated_at, c.deleted \
           FROM {} AS e CROSS JOIN LATERAL ({}) AS c(value, version, updated_at, deleted) \
          WHERE e.key OPERATOR(pg_catalog.=) $1 ORDER BY c.version DESC",
        space.table,
        versions(space)
    );
    rows_as_user(&statement, &[Parameter::TextArgument(Some(key))], |row| {
        rows.push(&[column(row, 1)?, column(row, 2)?, column(row, 3)?, column(row, 4)?])
    })?;
    Ok(())
}
