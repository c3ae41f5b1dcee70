//! A query that the user has given: run as the caller, with its privileges, search path and transaction.

use super::argument::{Jsonb, payload};
use super::value::Buffer;
use crate::error::Error;
use pgrx::pg_sys::{self, Datum, Oid};
use std::ffi::CStr;

/// What the query must be, for the error.
const ONE_VALUE: &str = "a query that returns at most one row of one column";

fn refused(found: String) -> Error {
    Error::invalid("query", found, ONE_VALUE)
}

/// A statement of SPI's; the rows are in `SPI_tuptable`.
///
/// # Safety
/// SPI is connected, and the datum is of that type.
unsafe fn execute(query: &CStr, argument: (Oid, Option<Datum>), read_only: bool) -> i32 {
    let (mut types, mut values) = ([argument.0], [argument.1.unwrap_or(Datum::null())]);
    let nulls = if argument.1.is_some() { c" " } else { c"n" };
    // SAFETY: the caller's promise; one argument, as the arrays have. A second row is enough to know of.
    unsafe {
        pg_sys::SPI_execute_with_args(
            query.as_ptr(),
            1,
            types.as_mut_ptr(),
            values.as_mut_ptr(),
            nulls.as_ptr(),
            read_only,
            2,
        )
    }
}

/// The value of the only row and column of what SPI has run; `None`: no row, or NULL. With its type.
///
/// # Safety
/// SPI is connected and has just run something.
unsafe fn only_value() -> Result<Option<(Oid, Datum)>, Error> {
    // SAFETY: the caller's promise; the table is there until SPI is finished, and has as many rows as it says.
    unsafe {
        let table = pg_sys::SPI_tuptable;
        if table.is_null() {
            return Err(refused("a statement without a result".into()));
        }
        let (descriptor, rows) = ((*table).tupdesc, pg_sys::SPI_processed);
        match ((*descriptor).natts, rows) {
            (1, 0) => return Ok(None),
            (1, 1) => {}
            (1, _) => return Err(refused("several rows".into())),
            (columns, _) => return Err(refused(format!("{columns} columns"))),
        }
        let mut null = false;
        let value = pg_sys::SPI_getbinval(*(*table).vals, descriptor, 1, &raw mut null);
        Ok((!null).then(|| (pg_sys::SPI_gettypeid(descriptor, 1), value)))
    }
}

/// A copy of a jsonb in `memory`.
///
/// # Safety
/// `value` is a jsonb, and `memory` a memory context.
unsafe fn kept(value: Datum, memory: pg_sys::MemoryContext) -> Buffer {
    // SAFETY: the caller's promise. An ERROR in between leaves the context to the server, which sets it again.
    unsafe {
        let value = payload(value);
        let before = pg_sys::MemoryContextSwitchTo(memory);
        let buffer = Buffer::holding(value);
        pg_sys::MemoryContextSwitchTo(before);
        buffer
    }
}

/// # Safety
/// SPI is connected, and `memory` is a memory context.
unsafe fn value_as_jsonb(
    query: &CStr,
    argument: Option<Jsonb<'_>>,
    memory: pg_sys::MemoryContext,
) -> Result<Option<Buffer>, Error> {
    // SAFETY: the caller's promise; what has type jsonb is one, and lives until SPI is finished.
    unsafe {
        // Not read-only: where each statement has a snapshot of its own, this one gets it, as in a session.
        let code = execute(query, (pg_sys::JSONBOID, argument.map(Jsonb::datum)), false);
        if code < 0 {
            let code = CStr::from_ptr(pg_sys::SPI_result_code_string(code)).to_string_lossy().into_owned();
            return Err(refused(format!("what can't be run here ({code})")));
        }
        let Some((kind, value)) = only_value()? else { return Ok(None) };
        if kind == pg_sys::JSONBOID {
            return Ok(Some(kept(value, memory)));
        }
        execute(c"SELECT pg_catalog.to_jsonb($1)", (kind, Some(value)), true);
        Ok(only_value()?.map(|(_, value)| kept(value, memory)))
    }
}

/// Runs a query with `$1` = `argument` and gives its one value as the binary form of a jsonb: as `to_jsonb()` has it, if
/// it is of another type, in the call's memory. `None` where there is no row or NULL.
pub fn one_value(query: &[u8], argument: Option<Jsonb<'_>>) -> Result<Option<Buffer>, Error> {
    // A copy that ends with a zero byte; a text has none.
    let text = Buffer::allocate(query.len() + 1);
    if let Some((end, bytes)) = text.bytes().split_last_mut() {
        bytes.copy_from_slice(query);
        *end = 0;
    }
    let query = CStr::from_bytes_until_nul(text.bytes()).unwrap_or_default();
    // SAFETY: reads a variable of this process.
    let memory = unsafe { pg_sys::CurrentMemoryContext };
    // SAFETY: no preconditions.
    if unsafe { pg_sys::SPI_connect() } != pg_sys::SPI_OK_CONNECT as i32 {
        return Err(Error::Internal { problem: "SPI can't be had".into() });
    }
    // SAFETY: connected. Where the query fails so does this call, and the server disconnects.
    unsafe {
        let value = value_as_jsonb(query, argument, memory);
        pg_sys::SPI_finish();
        value
    }
}
