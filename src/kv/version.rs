//! Where versions come from: a sequence for each space, which the default of the column draws from.

use super::table::Space;
use crate::error::Error;
use crate::pg::catalog::{self, TableLock};
use crate::pg::encoding::decode;
use crate::pg::fmgr::{Call, Value};
use crate::pg::spi::{Parameter, each_row, read_rows, text};
use crate::pg::{sequence, wal};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

/// The sequence that was found to be of a space, and what was known of relations then.
static KNOWN: (AtomicU32, AtomicU64) = (AtomicU32::new(0), AtomicU64::new(0));

/// `_kv_version(sequence)`: a role that may write a space needn't have a right on its sequence, so it draws from no others.
pub(super) fn draw(call: &mut Call<'_>) -> Result<Value<'static>, Error> {
    draw_from(crate::error::required(call.oid(0), "sequence")?).map(Value::I64)
}

/// The next version of a space, by its sequence.
pub(super) fn draw_from(sequence: u32) -> Result<i64, Error> {
    let epoch = catalog::relcache_epoch();
    if KNOWN.0.load(Relaxed) != sequence || KNOWN.1.load(Relaxed) != epoch {
        let of_a_space = catalog::names_of(sequence).is_some_and(|(schema, name)| {
            schema == b"enough" && name.starts_with(b"k_") && name.ends_with(b"_versions")
        });
        if !of_a_space {
            return Err(Error::Denied {
                what: format!("drawing versions from relation {sequence}"),
                hint: "Name the sequence enough.\"k_<space>_versions\" of a space.".into(),
            });
        }
        KNOWN.0.store(sequence, Relaxed);
        KNOWN.1.store(epoch, Relaxed);
    }
    if sequence::drawn_at_once(sequence) > 1 {
        return Err(ahead(sequence));
    }
    // The transaction has its number before it draws: see the fences in `mod.rs`.
    wal::assign_transaction_id();
    Ok(sequence::next(sequence))
}

/// A session that draws several numbers at once gives some that are smaller than what others have given meanwhile.
#[cold]
fn ahead(sequence: u32) -> Error {
    let name = catalog::names_of(sequence).map(|(_, name)| decode(&name).into_owned()).unwrap_or_default();
    Error::NotReady {
        problem: format!(
            "the sequence enough.\"{name}\" gives a session several versions at once, so they would not grow"
        ),
        hint: format!("ALTER SEQUENCE enough.\"{name}\" CACHE 1;"),
    }
}

/// A space's sequence as part of a statement; `None` where somebody has taken it away from the column.
pub(super) fn sequence_of(table: &str) -> Result<Option<String>, Error> {
    let mut found = None;
    read_rows("SELECT pg_catalog.pg_get_serial_sequence($1, 'version')", &[Parameter::Text(table)], |row| {
        found = text(row, 1)?;
        Ok(())
    })?;
    Ok(found)
}

/// The next version of a space, for what isn't a change of a row. The role may draw from the sequence.
pub(super) fn next(space: &Space) -> Result<i64, Error> {
    let mut next = 0;
    if let Some(sequence) = sequence_of(&space.table)? {
        each_row("SELECT pg_catalog.nextval($1::pg_catalog.regclass)", &[Parameter::Text(&sequence)], |row| {
            next = row.get::<i64>(1)?.unwrap_or(0);
            Ok(())
        })?;
    }
    Ok(next)
}

/// The greatest version that a space has given. The role may read the sequence.
pub(super) fn last(space: &Space) -> Result<i64, Error> {
    let mut last = 0;
    if let Some(sequence) = sequence_of(&space.table)? {
        read_rows(&format!("SELECT s.last_value FROM {sequence} AS s"), &[], |row| {
            last = row.get::<i64>(1)?.unwrap_or(0);
            Ok(())
        })?;
    }
    Ok(last)
}

/// The greatest version in a space, as far as the role sees it.
pub(super) fn greatest(space: &Space) -> Result<Option<i64>, Error> {
    let mut greatest = None;
    read_rows(&format!("SELECT pg_catalog.max(e.version) FROM {} AS e", space.table), &[], |row| {
        greatest = row.get(1)?;
        Ok(())
    })?;
    Ok(greatest)
}

/// Moves a space's sequence past all versions that are in use, where it would give one of them again: rows that came by replication, or
/// from a hand, have versions that it doesn't know of. Whether it came to that; it waits for no writer. The role is the
/// space's owner.
pub(super) fn pass_greatest(space: &Space) -> Result<bool, Error> {
    let Some(sequence) = sequence_of(&space.table)? else { return Ok(true) };
    if !gives_again(space, &sequence)? {
        return Ok(true);
    }
    // Nobody draws meanwhile, so that it never goes back.
    if !catalog::try_lock(space.oid, TableLock::NoWrites) {
        return Ok(false);
    }
    let literal = sequence.replace('\'', "''");
    each_row(
        &format!("SELECT pg_catalog.setval('{literal}'::pg_catalog.regclass, g.version) {}", again(space, &sequence)),
        &[Parameter::Text(&space.name)],
        |_| Ok(()),
    )?;
    // What was set stays whatever becomes of the transaction.
    catalog::release(space.oid, TableLock::NoWrites);
    Ok(true)
}

fn gives_again(space: &Space, sequence: &str) -> Result<bool, Error> {
    let statement = format!("SELECT {}", again(space, sequence));
    Ok(read_rows(&statement, &[Parameter::Text(&space.name)], |_| Ok(()))? > 0)
}

/// The greatest version in use, as `g.version`, where the sequence would give it again.
fn again(space: &Space, sequence: &str) -> String {
    format!(
        "FROM (SELECT GREATEST((SELECT pg_catalog.max(e.version) FROM {} AS e), \
                               (SELECT s.gone FROM enough.space AS s WHERE s.name OPERATOR(pg_catalog.=) $1))) AS g(version), \
              {sequence} AS s \
         WHERE g.version OPERATOR(pg_catalog.>=) \
               (s.last_value OPERATOR(pg_catalog.+) CASE WHEN s.is_called THEN 1 ELSE 0 END)",
        space.table
    )
}
