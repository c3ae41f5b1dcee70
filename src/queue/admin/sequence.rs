//! Where a queue's message numbers come from: the identity sequence of its table. What a restore, replication or a hand has
//! put into the tables may have numbers that the sequence would give again.

use crate::error::Error;
use crate::pg::encoding::decode;
use crate::pg::spi::{Parameter, each_row, read_rows, text_bytes};
use crate::queue::name::relation;

/// The identity sequence of a queue's table: its OID, and its name without the schema, as part of a statement, in the
/// database's encoding. `None` where
/// the table has none in the schema `enough`.
pub(in crate::queue) fn of(name: &str) -> Result<Option<(u32, Vec<u8>)>, Error> {
    let Some(table) = relation("q_", name) else { return Ok(None) };
    let mut found = None;
    read_rows(
        "SELECT s.oid::pg_catalog.int8, pg_catalog.quote_ident(s.relname::pg_catalog.text) \
         FROM pg_catalog.pg_depend AS d JOIN pg_catalog.pg_class AS s ON s.oid OPERATOR(pg_catalog.=) d.objid \
         JOIN pg_catalog.pg_class AS t ON t.oid OPERATOR(pg_catalog.=) d.refobjid \
          AND t.relnamespace OPERATOR(pg_catalog.=) s.relnamespace \
         JOIN pg_catalog.pg_attribute AS a ON a.attrelid OPERATOR(pg_catalog.=) t.oid \
          AND a.attnum OPERATOR(pg_catalog.=) d.refobjsubid AND a.attname OPERATOR(pg_catalog.=) 'msg_id' \
         WHERE d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass \
           AND d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass \
           AND d.refobjid OPERATOR(pg_catalog.=) $1::pg_catalog.oid \
           AND d.deptype OPERATOR(pg_catalog.=) 'i' AND s.relkind OPERATOR(pg_catalog.=) 'S'",
        &[Parameter::I64(i64::from(table))],
        |row| {
            let oid = row.get::<i64>(1)?.and_then(|oid| u32::try_from(oid).ok());
            found = oid.zip(text_bytes(row, 2)?.map(<[u8]>::to_vec));
            Ok(())
        },
    )?;
    Ok(found)
}

/// The greatest number in a table, which is part of the statement.
pub(in crate::queue) fn greatest(table: &str) -> Result<Option<i64>, Error> {
    let mut greatest = None;
    read_rows(&format!("SELECT pg_catalog.max(msg_id) FROM {table}"), &[], |row| {
        greatest = row.get(1)?;
        Ok(())
    })?;
    Ok(greatest)
}

/// A condition on a sequence `s`, of the greatest number `$1`: it would be given again.
const AGAIN: &str = "$1 OPERATOR(pg_catalog.>=) \
    (s.last_value OPERATOR(pg_catalog.+) CASE WHEN s.is_called THEN 1 ELSE 0 END)";

/// Whether a queue's sequence would give a number again that is in use; `greatest` is the greatest one that is.
pub(in crate::queue) fn gives_again(name: &str, greatest: i64) -> Result<bool, Error> {
    let Some((_, sequence)) = of(name)? else { return Ok(false) };
    let statement = format!("SELECT FROM enough.{} AS s WHERE {AGAIN}", decode(&sequence));
    Ok(read_rows(&statement, &[Parameter::I64(greatest)], |_| Ok(()))? > 0)
}

/// Moves a queue's sequence past `greatest`, never back; whether it had to be moved. Nobody else may take numbers meanwhile, and
/// the role may set the sequence.
pub(in crate::queue) fn pass(name: &str, greatest: i64) -> Result<bool, Error> {
    let Some((_, sequence)) = of(name)? else { return Ok(false) };
    let sequence = decode(&sequence);
    let literal = sequence.replace('\'', "''");
    let moved = each_row(
        &format!(
            "SELECT pg_catalog.setval('enough.{literal}'::pg_catalog.regclass, $1) FROM enough.{sequence} AS s WHERE {AGAIN}"
        ),
        &[Parameter::I64(greatest)],
        |_| Ok(()),
    )?;
    Ok(moved > 0)
}

/// The same for both tables of a queue whose owner calls.
pub(in crate::queue) fn pass_greatest(name: &str) -> Result<(), Error> {
    let mut known = None;
    for prefix in ["q_", "a_"] {
        if relation(prefix, name).is_some() {
            known = known.max(greatest(&format!("enough.\"{prefix}{name}\""))?);
        }
    }
    known.map_or(Ok(()), |known| pass(name, known).map(drop))
}
