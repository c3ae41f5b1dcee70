//! Rows that are over, and sequences that are behind: what `maintain()` does with them.

use super::changed::for_good;
use super::table::Space;
use super::write::{KEPT, STAMP};
use super::{crash, mark, version};
use crate::error::Error;
use crate::pg::catalog::{self, Privilege, TableLock};
use crate::pg::fmgr::Text;
use crate::pg::key_lock::KeyLock;
use crate::pg::level::is_operator;
use crate::pg::savepoint::attempt;
use crate::pg::server;
use crate::pg::setting::by_index;
use crate::pg::spi::{Parameter, as_owner_restricted, each_row, read_rows, text_bytes};
use crate::pg::table::relation::TEXT;
use enough_engine::hash::KeyHash;
use pgrx::pg_sys::Datum;
use pgrx::spi::SpiHeapTupleData;

/// The most rows at a time.
const BATCH: i32 = 1000;

/// Whether a row of `e` is over.
const OVER: &str = "e.expires_at OPERATOR(pg_catalog.<=) pg_catalog.clock_timestamp()";

/// Ends entries that have expired, and removes rows of keys that were deleted a day ago, until `deadline`; how many, and
/// whether it came to the end. Of the spaces that the role owns or may delete from; an operator's are all.
pub fn expire(deadline: i64) -> Result<(i64, bool), Error> {
    let (mut items, mut whole) = (0, true);
    if !server::may_write() {
        return Ok((0, true));
    }
    for table in tables()? {
        if !(catalog::is_owner(table) || catalog::has_privilege(table, Privilege::Consume) || is_operator()) {
            continue;
        }
        // It waits for no lock, nor for another session that does the same.
        let (true, Some(turn)) = (catalog::try_lock(table, TableLock::Write), KeyLock::try_acquire(turn(table))) else {
            whole = false;
            continue;
        };
        turn.end_with_transaction();
        // What fails on one, in a trigger of its owner's, say, doesn't keep the others from being done.
        let passed = attempt(|| {
            let space = Space::of_table(table)?;
            Ok(crash::settle(&space)? & as_owner_restricted(table, || version::pass_greatest(&space))?)
        });
        whole &= matches!(passed, Ok(true));
        loop {
            if server::now() >= deadline {
                return Ok((items, false));
            }
            let Ok(ended) = attempt(|| end(&Space::of_table(table)?, BATCH)) else {
                whole = false;
                break;
            };
            items += i64::try_from(ended).unwrap_or(i64::MAX);
            server::check_for_interrupts();
            if ended < BATCH as usize {
                break;
            }
        }
    }
    Ok((items, whole))
}

/// The lock of the session that maintains a space.
fn turn(table: u32) -> KeyHash {
    KeyHash { high: u64::from(u32::from_be_bytes(*b"kv  ")) << 32 | u64::from(table), low: 0 }
}

/// Up to `most` rows that are over: entries become keys that are deleted, and the rows of those go after a day. How many.
fn end(space: &Space, most: i32) -> Result<usize, Error> {
    let table = &space.table;
    let expire = format!(
        "UPDATE {table} AS e SET value = NULL, expires_at = pg_catalog.clock_timestamp() OPERATOR(pg_catalog.+) {KEPT}, {STAMP} \
          WHERE e.key OPERATOR(pg_catalog.=) ANY ($1) AND {OVER}"
    );
    let expired = change_over(space, "e.value IS NOT NULL", most, &expire, |_| Ok(()))?;
    // Those alone of which no version is still undecided that is smaller. A fence that is ahead of the server was restored from another.
    let decided = "e.value IS NULL \
        AND (e.fence OPERATOR(pg_catalog.<=) pg_catalog.pg_snapshot_xmin(pg_catalog.pg_current_snapshot()) \
             OR e.fence OPERATOR(pg_catalog.>) enough._kv_fence())";
    let delete =
        format!("DELETE FROM {table} AS e WHERE e.key OPERATOR(pg_catalog.=) ANY ($1) AND {OVER} RETURNING e.version");
    let mut greatest = None;
    let deleted = for_good(|| {
        change_over(space, decided, most, &delete, |row| {
            greatest = greatest.max(row.get::<i64>(1)?);
            Ok(())
        })
    })?;
    if let Some(greatest) = greatest {
        mark::gone(space, greatest)?;
    }
    Ok(expired + deleted)
}

/// Runs a statement on the keys, `$1`, of up to `most` rows that are over and meet a condition, and gives each row of its answer to `each`; how
/// many there were. Rows that another transaction has locked are left.
fn change_over(
    space: &Space,
    condition: &str,
    most: i32,
    statement: &str,
    each: impl FnMut(&SpiHeapTupleData<'_>) -> Result<(), Error>,
) -> Result<usize, Error> {
    let look =
        format!("SELECT e.key FROM {} AS e WHERE {OVER} AND {condition} LIMIT $1 FOR UPDATE SKIP LOCKED", space.table);
    let mut keys: Vec<Vec<u8>> = Vec::new();
    // By itself, so that triggers of the owner's aren't planned by the index as well.
    by_index(|| {
        as_owner_restricted(space.oid, || {
            each_row(&look, &[Parameter::I32(most)], |row| {
                keys.extend(text_bytes(row, 1)?.map(<[u8]>::to_vec));
                Ok(())
            })
        })
    })?;
    if keys.is_empty() {
        return Ok(0);
    }
    let keys: Vec<Option<Datum>> = keys.iter().map(|key| Some(Text::copied(key).datum())).collect();
    as_owner_restricted(space.oid, || each_row(statement, &[Parameter::Column(&keys, TEXT)], each))
}

/// The tables of all spaces.
fn tables() -> Result<Vec<u32>, Error> {
    let mut tables = Vec::new();
    read_rows(
        "SELECT c.oid::pg_catalog.int8 FROM pg_catalog.pg_class AS c \
          WHERE c.relnamespace OPERATOR(pg_catalog.=) 'enough'::pg_catalog.regnamespace AND c.relkind OPERATOR(pg_catalog.=) 'r' \
            AND pg_catalog.starts_with(c.relname::text, 'kv_') \
          ORDER BY c.oid",
        &[],
        |row| {
            tables.extend(row.get::<i64>(1)?.and_then(|table| u32::try_from(table).ok()));
            Ok(())
        },
    )?;
    Ok(tables)
}
