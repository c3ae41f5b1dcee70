//! Statements of the extension's own, for what isn't on a hot path: making and dropping tables, options, archives.

use super::argument::{Jsonb, Text, payload};
use super::encoding::{decode, encode, encode_c};
use super::table::relation::{JSONB, TIMESTAMPTZ};
use super::trigger::TriggerRow;
use super::value::{Value, copied};
use super::{catalog, server};
use crate::error::Error;
use pgrx::datum::DatumWithOid;
use pgrx::pg_sys::{self, Datum, Oid};
use pgrx::prelude::*;
use pgrx::spi;
use pgrx::spi::OwnedPreparedStatement;
use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::{CStr, CString, c_char};
use std::rc::Rc;

/// A parameter of a statement.
#[derive(Clone, Copy)]
pub enum Parameter<'p> {
    /// `bigint`
    I64(i64),
    /// `bigint`, or NULL
    OptionalI64(Option<i64>),
    /// `int`
    I32(i32),
    /// `int`, or NULL
    OptionalI32(Option<i32>),
    /// `boolean`, or NULL
    OptionalBool(Option<bool>),
    /// `smallint`
    I16(i16),
    /// `text`
    Text(&'p str),
    /// `text`, or NULL
    OptionalText(Option<&'p str>),
    /// `text` as it came, or NULL
    TextArgument(Option<Text<'p>>),
    /// `text`, by its bytes in the database's encoding
    Bytes(&'p [u8]),
    /// `text` of a row, or NULL
    TextOfRow(Option<Datum>),
    /// `jsonb` of a row, or NULL
    JsonOfRow(Option<Datum>),
    /// `bigint[]`
    Numbers(&'p [i64]),
    /// An array of a column's values in rows, whose type has that OID: `timestamptz`, `text` or `jsonb`
    Column(&'p [Option<Datum>], u32),
    /// `jsonb[]`
    Jsons(&'p [Option<Jsonb<'p>>]),
    /// `timestamptz`, in microseconds since PostgreSQL's epoch
    Instant(Option<i64>),
    /// `double precision`: a number of microseconds to multiply an interval with
    Micros(Option<i64>),
    /// `jsonb`
    Json(Option<Jsonb<'p>>),
    /// A row of a trigger's table, of the table's type
    Row(TriggerRow<'p>),
}

impl<'p> Parameter<'p> {
    #[allow(clippy::cast_precision_loss, reason = "exact up to 285 years, which is more than any option takes")]
    fn datum(&self) -> DatumWithOid<'p> {
        match *self {
            // SAFETY: as the row's columns are.
            Parameter::TextOfRow(value) => unsafe { DatumWithOid::new(value, pg_sys::TEXTOID) },
            // SAFETY: as the row's columns are.
            Parameter::JsonOfRow(value) => unsafe { DatumWithOid::new(value, pg_sys::JSONBOID) },
            Parameter::Bytes(bytes) => text_datum(Some(copied(bytes))),
            Parameter::Numbers(numbers) => numbers.to_vec().into(),
            Parameter::Column(values, element) => array(values.iter().copied(), element),
            Parameter::Jsons(values) => array(values.iter().map(|value| value.map(Jsonb::datum)), JSONB),
            Parameter::I64(value) => value.into(),
            Parameter::OptionalI64(value) => value.into(),
            Parameter::I32(value) => value.into(),
            Parameter::OptionalI32(value) => value.into(),
            Parameter::OptionalBool(value) => value.into(),
            Parameter::I16(value) => value.into(),
            Parameter::Text(value) => text_datum(Some(copied(&encode(value)))),
            Parameter::OptionalText(value) => text_datum(value.map(|value| copied(&encode(value)))),
            // SAFETY: the type belongs to the value: a number of microseconds is what a timestamptz is.
            Parameter::Instant(value) => unsafe { DatumWithOid::new(value, pg_sys::TIMESTAMPTZOID) },
            Parameter::Micros(value) => value.map(|micros| micros as f64).into(),
            Parameter::TextArgument(value) => text_datum(value.map(Text::datum)),
            // SAFETY: as above.
            Parameter::Json(value) => unsafe { DatumWithOid::new(value.map(Jsonb::datum), pg_sys::JSONBOID) },
            Parameter::Row(row) => {
                let (value, kind) = row.datum();
                // SAFETY: as above.
                unsafe { DatumWithOid::new(Some(value), kind) }
            }
        }
    }
}

/// A `text`, which lives as long as the call.
fn text_datum<'p>(value: Option<Datum>) -> DatumWithOid<'p> {
    // SAFETY: the callers pass a text.
    unsafe { DatumWithOid::new(value, pg_sys::TEXTOID) }
}

/// An array of values of a type that is as wide as a word, `timestamptz`, or a varlena.
fn array<'p>(values: impl ExactSizeIterator<Item = Option<Datum>>, element: u32) -> DatumWithOid<'p> {
    let count = values.len() as i32;
    let (mut items, mut nulls) = (Vec::with_capacity(values.len()), Vec::with_capacity(values.len()));
    for value in values {
        items.push(value.unwrap_or(Datum::null()));
        nulls.push(value.is_none());
    }
    let (wide, align) = if element == TIMESTAMPTZ { (8, b'd') } else { (-1, b'i') };
    let element = Oid::from(element);
    // SAFETY: as many values as are said, of that type, which the callers pass; the server copies them.
    unsafe {
        let array = pg_sys::construct_md_array(
            items.as_mut_ptr(),
            nulls.as_mut_ptr(),
            1,
            [count].as_mut_ptr(),
            [1].as_mut_ptr(),
            element,
            wide,
            wide > 0,
            align as std::ffi::c_char,
        );
        DatumWithOid::new(Some(Datum::from(array)), pg_sys::get_array_type(element))
    }
}

impl From<spi::Error> for Error {
    fn from(error: spi::Error) -> Self {
        match error {
            // Its own statements are about its own tables alone, and fit those.
            spi::Error::DatumError(_) => Error::altered(),
            error => Error::Internal { problem: format!("a statement of its own failed: {error}") },
        }
    }
}

/// Runs a statement that may write, and gives each row to `each`.
pub fn each_row(
    statement: &str,
    parameters: &[Parameter<'_>],
    each: impl FnMut(&spi::SpiHeapTupleData<'_>) -> Result<(), Error>,
) -> Result<usize, Error> {
    Spi::connect_mut(|client| {
        let parameters: Vec<_> = parameters.iter().map(Parameter::datum).collect();
        all(client.update(&*encode_c(statement), None, &parameters)?, each)
    })
}

/// The most plans that a session keeps.
const MOST_KEPT: usize = 64;

thread_local! {
    static KEPT: RefCell<HashMap<String, Rc<OwnedPreparedStatement>>> = RefCell::default();
}

/// The same with a plan that is kept for the session: for an INSERT of values, which has one plan whatever the tables
/// hold. One that searches a table would be kept with a plan for how large the table was.
pub fn each_row_kept(
    statement: &str,
    parameters: &[Parameter<'_>],
    each: impl FnMut(&spi::SpiHeapTupleData<'_>) -> Result<(), Error>,
) -> Result<usize, Error> {
    Spi::connect_mut(|client| {
        let parameters: Vec<_> = parameters.iter().map(Parameter::datum).collect();
        let plan = kept(client, statement, &parameters)?;
        all(client.update(&*plan, None, &parameters)?, each)
    })
}

/// A statement's plan, kept for the session.
fn kept(
    client: &spi::SpiClient<'_>,
    statement: &str,
    parameters: &[DatumWithOid<'_>],
) -> Result<Rc<OwnedPreparedStatement>, Error> {
    let known = KEPT.with_borrow(|kept| kept.get(statement).cloned());
    if let Some(plan) = known {
        return Ok(plan);
    }
    let types: Vec<PgOid> = parameters.iter().map(|parameter| parameter.oid().into()).collect();
    let plan = Rc::new(client.prepare_mut(&*encode_c(statement), &types)?.keep());
    KEPT.with_borrow_mut(|kept| {
        if kept.len() >= MOST_KEPT {
            kept.clear();
        }
        kept.insert(statement.into(), Rc::clone(&plan));
    });
    Ok(plan)
}

/// Runs a statement that only reads, and gives each row to `each`. It takes no transaction number, so that it runs on a
/// standby too, and sees everything that is committed by now, at every isolation level, and what this transaction has done.
pub fn read_rows(
    statement: &str,
    parameters: &[Parameter<'_>],
    each: impl FnMut(&spi::SpiHeapTupleData<'_>) -> Result<(), Error>,
) -> Result<usize, Error> {
    let statement = encode_c(statement);
    read(parameters, each, |count, types, values, nulls| {
        // SAFETY: SPI is connected; as many types, values and flags as are said.
        Ok(unsafe { pg_sys::SPI_execute_with_args(statement.as_ptr(), count, types, values, nulls, true, 0) })
    })
}

thread_local! {
    /// Plans of statements that only read, kept for the session.
    static KEPT_READS: RefCell<HashMap<String, pg_sys::SPIPlanPtr>> = RefCell::default();
}

/// The same with a plan that is kept for the session: for a look-up by a primary key.
pub fn read_rows_kept(
    statement: &str,
    parameters: &[Parameter<'_>],
    each: impl FnMut(&spi::SpiHeapTupleData<'_>) -> Result<(), Error>,
) -> Result<usize, Error> {
    let known = KEPT_READS.with_borrow(|kept| kept.get(statement).copied());
    read(parameters, each, |count, types, values, nulls| {
        let plan = if let Some(plan) = known { plan } else { plan(statement, count, types)? };
        // SAFETY: SPI is connected; the plan is of this statement, and so of parameters of these types.
        Ok(unsafe { pg_sys::SPI_execute_plan(plan, values, nulls, true, 0) })
    })
}

/// Runs a statement that only reads, and gives each row to `each`. It takes no transaction number, and sees what a statement of
/// the user's own would see here: the transaction's snapshot above READ COMMITTED, else what is committed by now.
pub fn rows_as_user(
    statement: &str,
    parameters: &[Parameter<'_>],
    each: impl FnMut(&spi::SpiHeapTupleData<'_>) -> Result<(), Error>,
) -> Result<usize, Error> {
    let statement = encode_c(statement);
    as_user(parameters, each, |count, types, values, nulls| {
        // SAFETY: SPI is connected; as many types, values and flags as are said.
        Ok(unsafe { pg_sys::SPI_execute_with_args(statement.as_ptr(), count, types, values, nulls, false, 0) })
    })
}

/// The same with a plan that is kept for the session: for a look-up by a primary key.
pub fn rows_as_user_kept(
    statement: &str,
    parameters: &[Parameter<'_>],
    each: impl FnMut(&spi::SpiHeapTupleData<'_>) -> Result<(), Error>,
) -> Result<usize, Error> {
    let known = KEPT_READS.with_borrow(|kept| kept.get(statement).copied());
    as_user(parameters, each, |count, types, values, nulls| {
        let plan = if let Some(plan) = known { plan } else { plan(statement, count, types)? };
        // SAFETY: SPI is connected; the plan is of this statement, and so of parameters of these types.
        Ok(unsafe { pg_sys::SPI_execute_plan(plan, values, nulls, false, 0) })
    })
}

/// The most rows of a statement's answer that are in memory at a time.
const PART: std::ffi::c_long = 500;

/// The same as [`read_rows`] for answers that may be large: they are in memory in parts.
pub fn read_rows_in_parts(
    statement: &str,
    parameters: &[Parameter<'_>],
    mut each: impl FnMut(&spi::SpiHeapTupleData<'_>) -> Result<(), Error>,
) -> Result<(), Error> {
    let statement = encode_c(statement);
    with_latest_snapshot(|| {
        let Given { mut types, mut values, nulls } = Given::of(parameters);
        // SAFETY: SPI is connected; as many types, values and flags as are said. The cursor is this function's own, and goes with the
        // transaction where an error passes through. Rows of a part aren't used beyond it.
        unsafe {
            let cursor = pg_sys::SPI_cursor_open_with_args(
                std::ptr::null(),
                statement.as_ptr(),
                parameters.len() as i32,
                types.as_mut_ptr(),
                values.as_mut_ptr(),
                nulls.as_ptr(),
                true,
                0,
            );
            loop {
                pg_sys::SPI_cursor_fetch(cursor, true, PART);
                let count = found(&mut each)?;
                pg_sys::SPI_freetuptable(pg_sys::SPI_tuptable);
                if count == 0 {
                    break;
                }
            }
            pg_sys::SPI_cursor_close(cursor);
        }
        Ok(())
    })
}

/// Runs a statement by `execute` as one that may write, for which SPI itself takes the snapshot.
fn as_user(
    parameters: &[Parameter<'_>],
    each: impl FnMut(&spi::SpiHeapTupleData<'_>) -> Result<(), Error>,
    execute: impl FnOnce(i32, *mut Oid, *mut Datum, *const c_char) -> Result<i32, Error>,
) -> Result<usize, Error> {
    if server::in_parallel_mode() {
        return Err(Error::Parallel { what: "look into a table of pg_enough".into() });
    }
    Spi::connect(|_| answered(parameters, each, execute))
}

/// Plans a statement of `count` parameters of these types, and keeps the plan. SPI is connected.
#[cold]
fn plan(statement: &str, count: i32, types: *mut Oid) -> Result<pg_sys::SPIPlanPtr, Error> {
    // SAFETY: SPI is connected; as many types as are said. A plan that is kept is never freed.
    let plan = unsafe {
        let plan = pg_sys::SPI_prepare(encode_c(statement).as_ptr(), count, types);
        if plan.is_null() || pg_sys::SPI_keepplan(plan) != 0 {
            return Err(failed(pg_sys::SPI_result));
        }
        plan
    };
    KEPT_READS.with_borrow_mut(|kept| kept.insert(statement.into(), plan));
    Ok(plan)
}

#[cold]
fn failed(code: i32) -> Error {
    // SAFETY: the server answers any number with a constant.
    let said = unsafe { CStr::from_ptr(pg_sys::SPI_result_code_string(code)) };
    Error::Internal { problem: format!("a statement of its own failed: {}", said.to_string_lossy()) }
}

/// Runs a statement by `execute` as read-only with the latest snapshot, and gives each row to `each`; how many there were.
///
/// Not by pgrx's `select`: once the transaction has written through pgrx, that takes the transaction's snapshot, which may be
/// hours old above READ COMMITTED.
fn read(
    parameters: &[Parameter<'_>],
    each: impl FnMut(&spi::SpiHeapTupleData<'_>) -> Result<(), Error>,
    execute: impl FnOnce(i32, *mut Oid, *mut Datum, *const c_char) -> Result<i32, Error>,
) -> Result<usize, Error> {
    with_latest_snapshot(|| answered(parameters, each, execute))
}

/// Runs a statement by `execute`, and gives each row to `each`. SPI is connected.
fn answered(
    parameters: &[Parameter<'_>],
    mut each: impl FnMut(&spi::SpiHeapTupleData<'_>) -> Result<(), Error>,
    execute: impl FnOnce(i32, *mut Oid, *mut Datum, *const c_char) -> Result<i32, Error>,
) -> Result<usize, Error> {
    let Given { mut types, mut values, nulls } = Given::of(parameters);
    let code = execute(parameters.len() as i32, types.as_mut_ptr(), values.as_mut_ptr(), nulls.as_ptr())?;
    if code < 0 {
        return Err(failed(code));
    }
    // SAFETY: SPI has just run a statement.
    unsafe { found(&mut each) }
}

/// Gives each row of what SPI has found last to `each`; how many there were.
///
/// # Safety
/// SPI is connected, and has just run a statement. What that found, if anything, is there until it is freed or SPI is finished: statements
/// that `each` runs have a connection of their own.
unsafe fn found(each: &mut impl FnMut(&spi::SpiHeapTupleData<'_>) -> Result<(), Error>) -> Result<usize, Error> {
    // SAFETY: the caller's promise.
    unsafe {
        let table = pg_sys::SPI_tuptable;
        let count = if table.is_null() { 0 } else { (*table).numvals as usize };
        for number in 0..count {
            if let Some(row) = spi::SpiHeapTupleData::new((*table).tupdesc, *(*table).vals.add(number))? {
                each(&row)?;
            }
        }
        Ok(count)
    }
}

/// Parameters as SPI takes them.
struct Given {
    types: Vec<Oid>,
    values: Vec<Datum>,
    nulls: Vec<c_char>,
}

impl Given {
    fn of(parameters: &[Parameter<'_>]) -> Self {
        let mut given = Given { types: Vec::new(), values: Vec::new(), nulls: Vec::new() };
        for parameter in parameters.iter().map(Parameter::datum) {
            given.types.push(parameter.oid());
            given.values.push(parameter.datum().map_or(Datum::null(), |datum| datum.sans_lifetime()));
            given.nulls.push(if parameter.datum().is_some() { b' ' } else { b'n' } as c_char);
        }
        given
    }
}

fn with_latest_snapshot<R>(work: impl FnOnce() -> Result<R, Error>) -> Result<R, Error> {
    struct Active;
    impl Drop for Active {
        fn drop(&mut self) {
            // SAFETY: pushed below. After an ERROR the server clears away what is left, whichever that is.
            unsafe { pg_sys::PopActiveSnapshot() };
        }
    }
    if server::in_parallel_mode() {
        // The server allows no new snapshot then.
        return Err(Error::Parallel { what: "look into a table of pg_enough".into() });
    }
    // A statement that only reads takes the snapshot that is active, which may be as old as the call's own statement.
    // SAFETY: no preconditions.
    unsafe { pg_sys::PushActiveSnapshot(pg_sys::GetLatestSnapshot()) };
    let _active = Active;
    Spi::connect(|_| work())
}

/// A column of an answer's row, from 1 on, as it is; to be copied before the next statement.
pub fn column(row: &spi::SpiHeapTupleData<'_>, number: usize) -> Result<Value<'static>, Error> {
    struct Raw(Datum, Oid);
    impl FromDatum for Raw {
        unsafe fn from_polymorphic_datum(datum: Datum, is_null: bool, kind: Oid) -> Option<Self> {
            (!is_null).then_some(Raw(datum, kind))
        }
    }
    impl IntoDatum for Raw {
        fn into_datum(self) -> Option<Datum> {
            Some(self.0)
        }

        fn type_oid() -> Oid {
            Oid::INVALID
        }

        fn is_compatible_with(_other: Oid) -> bool {
            true
        }
    }
    Ok(row.get::<Raw>(number)?.map_or(Value::Null, |raw| Value::Typed(raw.0, raw.1)))
}

/// A text of an answer's row, for people.
pub fn text(row: &spi::SpiHeapTupleData<'_>, number: usize) -> Result<Option<String>, Error> {
    Ok(text_bytes(row, number)?.map(|bytes| decode(bytes).into_owned()))
}

/// A text of an answer's row, in the database's encoding.
pub fn text_bytes<'r>(row: &'r spi::SpiHeapTupleData<'_>, number: usize) -> Result<Option<&'r [u8]>, Error> {
    bytes_of(row, number, |kind| matches!(kind, pg_sys::TEXTOID | pg_sys::VARCHAROID))
}

/// A `jsonb` of an answer's row, without its header.
pub fn jsonb_bytes<'r>(row: &'r spi::SpiHeapTupleData<'_>, number: usize) -> Result<Option<&'r [u8]>, Error> {
    bytes_of(row, number, |kind| kind == pg_sys::JSONBOID)
}

fn bytes_of<'r>(
    row: &'r spi::SpiHeapTupleData<'_>,
    number: usize,
    fits: impl Fn(Oid) -> bool,
) -> Result<Option<&'r [u8]>, Error> {
    match column(row, number)? {
        // SAFETY: the types that callers take are varlenas; the value lives as long as the answer.
        Value::Typed(datum, kind) if fits(kind) => Ok(Some(unsafe { payload(datum) })),
        Value::Typed(..) => Err(Error::altered()),
        _ => Ok(None),
    }
}

fn all(
    table: spi::SpiTupleTable<'_>,
    mut each: impl FnMut(&spi::SpiHeapTupleData<'_>) -> Result<(), Error>,
) -> Result<usize, Error> {
    let count = table.len();
    for row in table {
        each(&row)?;
    }
    Ok(count)
}

/// Runs a statement for its effect; the answer is how many rows it returned or changed.
pub fn run(statement: &str, parameters: &[Parameter<'_>]) -> Result<usize, Error> {
    each_row(statement, parameters, |_| Ok(()))
}

/// Runs a statement whose parts are in the database's encoding, because they name what may have any name.
pub fn run_bytes(statement: &[&[u8]]) -> Result<usize, Error> {
    let statement =
        CString::new(statement.concat()).map_err(|_| Error::Internal { problem: "a name with a zero byte".into() })?;
    Spi::connect_mut(|client| all(client.update(&*statement, None, &[])?, |_| Ok(())))
}

/// Does `work` with the rights of a relation's owner, as the server does for foreign keys. Only statements of the
/// extension's own run in it, by names that are qualified.
pub fn as_owner_of<R>(relation: u32, work: impl FnOnce() -> Result<R, Error>) -> Result<R, Error> {
    as_owner(relation, 0, work)
}

/// The same for work that nobody has asked for on this very relation, such as maintenance: nothing of the owner's is put off
/// to where the caller's rights are back, as the server has it for VACUUM.
pub fn as_owner_restricted<R>(relation: u32, work: impl FnOnce() -> Result<R, Error>) -> Result<R, Error> {
    as_owner(relation, pg_sys::SECURITY_RESTRICTED_OPERATION, work)
}

fn as_owner<R>(relation: u32, restricted: u32, work: impl FnOnce() -> Result<R, Error>) -> Result<R, Error> {
    struct Restore(Oid, i32);
    impl Drop for Restore {
        fn drop(&mut self) {
            // SAFETY: what `GetUserIdAndSecContext` answered.
            unsafe { pg_sys::SetUserIdAndSecContext(self.0, self.1) };
        }
    }
    let owner = catalog::owner_of(relation).ok_or_else(|| Error::NotReady {
        problem: "a table of pg_enough was dropped by another session".into(),
        hint: "Call again: the next call says which.".into(),
    })?;
    let (mut user, mut context) = (Oid::INVALID, 0);
    // SAFETY: both are variables of this process; an ERROR restores them too, with the transaction or savepoint.
    let _restore = unsafe {
        pg_sys::GetUserIdAndSecContext(&raw mut user, &raw mut context);
        let within =
            context | (pg_sys::SECURITY_LOCAL_USERID_CHANGE | pg_sys::SECURITY_NOFORCE_RLS | restricted) as i32;
        pg_sys::SetUserIdAndSecContext(owner, within);
        Restore(user, context)
    };
    work()
}
