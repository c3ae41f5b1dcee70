//! Rows that are over: what `maintain()` does with them.

use super::write;
use crate::error::Error;
use crate::pg::catalog::{self, Privilege, TableLock};
use crate::pg::level::is_operator;
use crate::pg::savepoint::attempt;
use crate::pg::server;
use crate::pg::spi::{as_owner_restricted, read_rows};

/// The most rows at a time.
const BATCH: i32 = 1000;

/// Ends entries that have expired, and removes rows of keys that were deleted a day ago, until `deadline`; how many, and
/// whether it came to the end. Of the spaces that the role owns or may delete from; an operator's are all.
pub fn expire(deadline: i64) -> Result<(i64, bool), Error> {
    let (mut items, mut whole) = (0, true);
    if !server::may_write() {
        return Ok((0, true));
    }
    for (table, name) in spaces()? {
        if !(catalog::is_owner(table) || catalog::has_privilege(table, Privilege::Consume) || is_operator()) {
            continue;
        }
        // It waits for no lock.
        if !catalog::try_lock(table, TableLock::Write) {
            whole = false;
            continue;
        }
        loop {
            if server::now() >= deadline {
                return Ok((items, false));
            }
            // What fails on one, in a trigger of its owner's, say, doesn't keep the others from being done.
            let Ok(ended) = attempt(|| as_owner_restricted(table, || write::end(&name, BATCH))) else {
                whole = false;
                break;
            };
            items += i64::try_from(ended).unwrap_or(i64::MAX);
            server::check_for_interrupts();
            if ended == 0 {
                break;
            }
        }
    }
    Ok((items, whole))
}

/// The tables of all spaces, each by its OID and as part of a statement.
fn spaces() -> Result<Vec<(u32, String)>, Error> {
    let mut spaces = Vec::new();
    read_rows(
        "SELECT c.oid::pg_catalog.int8, pg_catalog.format('enough.%I', c.relname) FROM pg_catalog.pg_class AS c \
          WHERE c.relnamespace OPERATOR(pg_catalog.=) 'enough'::pg_catalog.regnamespace AND c.relkind OPERATOR(pg_catalog.=) 'r' \
            AND pg_catalog.starts_with(c.relname::text, 'kv_') \
          ORDER BY c.oid",
        &[],
        |row| {
            if let (Some(table), Some(name)) = (row.get::<i64>(1)?, crate::pg::spi::text(row, 2)?) {
                spaces.push((u32::try_from(table).unwrap_or(0), name));
            }
            Ok(())
        },
    )?;
    Ok(spaces)
}
