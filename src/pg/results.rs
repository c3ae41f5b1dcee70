//! Rows as results: one, or a set.

use super::fmgr::Call;
use super::row::{Fields, RowKind, column};
use super::value::{Value, split};
use crate::error::Error;
use pgrx::pg_sys::{self, Datum, Oid};
use std::marker::PhantomData;

impl<'c> Call<'c> {
    /// [`Self::row`], and from the next call on [`RowKind::row`] works.
    pub fn row_of<F: Fields, const COLUMNS: usize>(
        &mut self,
        kind: &RowKind<F>,
        values: &[Value<'_>; COLUMNS],
    ) -> Result<Value<'static>, Error> {
        let row = self.row(values)?;
        // SAFETY: `row` has put it there.
        unsafe { kind.remember(self.function(), (*(*self.info).flinfo).fn_extra.cast()) };
        Ok(row)
    }

    /// The result row of a function that returns one row.
    pub fn row<const COLUMNS: usize>(&mut self, values: &[Value<'_>; COLUMNS]) -> Result<Value<'static>, Error> {
        // SAFETY: `flinfo` belongs to this call's statement, which keeps `fn_extra` for its function alone; the
        // descriptor is copied into the memory that lives as long.
        unsafe {
            let function = (*self.info).flinfo;
            let mut descriptor: pg_sys::TupleDesc = (*function).fn_extra.cast();
            if descriptor.is_null() {
                descriptor = self.known_row()?;
                (*function).fn_extra = descriptor.cast();
            }
            check_width(COLUMNS, (*descriptor).natts)?;
            let (mut datums, mut nulls) = split(values);
            let tuple = pg_sys::heap_form_tuple(descriptor, datums.as_mut_ptr(), nulls.as_mut_ptr());
            // As HeapTupleGetDatum does where nothing is toasted; a value that is goes through the server's call.
            if u32::from((*(*tuple).t_data).t_infomask) & pg_sys::HEAP_HASEXTERNAL == 0 {
                return Ok(Value::Raw(Datum::from((*tuple).t_data)));
            }
            Ok(Value::Raw(pg_sys::HeapTupleHeaderGetDatum((*tuple).t_data)))
        }
    }

    /// The descriptor of the function's row. A statement that is executed again starts with an empty `fn_extra`, so
    /// what was found is kept for the session: a function's row type never changes while it has the same OID.
    ///
    /// # Safety
    /// The call is valid.
    unsafe fn known_row(&self) -> Result<pg_sys::TupleDesc, Error> {
        thread_local! {
            static KNOWN: std::cell::RefCell<Vec<(pg_sys::Oid, pg_sys::TupleDesc)>> = const { std::cell::RefCell::new(Vec::new()) };
        }
        let function = self.function();
        let known = KNOWN.with_borrow(|known| known.iter().find(|known| known.0 == function).map(|known| known.1));
        if let Some(known) = known {
            return Ok(known);
        }
        // SAFETY: the caller's promise.
        let descriptor = unsafe { self.describe_row()? };
        KNOWN.with_borrow_mut(|known| known.push((function, descriptor)));
        Ok(descriptor)
    }

    /// # Safety
    /// To be called once a session: what it allocates stays.
    #[cold]
    unsafe fn describe_row(&self) -> Result<pg_sys::TupleDesc, Error> {
        // SAFETY: the call is valid; the memory context outlives the statement's calls.
        unsafe {
            let mut descriptor = std::ptr::null_mut();
            let kind = pg_sys::get_call_result_type(self.info, std::ptr::null_mut(), &raw mut descriptor);
            if kind != pg_sys::TypeFuncClass::TYPEFUNC_COMPOSITE {
                return Err(Error::Internal { problem: "a function is not declared to return a row".into() });
            }
            let caller = pg_sys::CurrentMemoryContext;
            pg_sys::CurrentMemoryContext = pg_sys::TopMemoryContext;
            let descriptor = pg_sys::BlessTupleDesc(pg_sys::CreateTupleDescCopy(descriptor));
            pg_sys::CurrentMemoryContext = caller;
            Ok(descriptor)
        }
    }

    /// Starts the result of a function that returns a set of rows, or of single values.
    pub fn rows(&mut self) -> Result<Rows<'c>, Error> {
        // SAFETY: the call is valid; the server checks that the caller takes a set, and makes the store.
        unsafe {
            let result: *mut pg_sys::ReturnSetInfo = (*self.info).resultinfo.cast();
            if result.is_null() || (*result).type_ != pg_sys::NodeTag::T_ReturnSetInfo {
                return Err(Error::Internal { problem: "called where a set of rows can't be taken".into() });
            }
            // What the executor expects is what the function is declared to return, looked up once a statement.
            pg_sys::InitMaterializedSRF(self.info, pg_sys::MAT_SRF_USE_EXPECTED_DESC);
            Ok(Rows { result, lifetime: PhantomData })
        }
    }
}

fn check_width(values: usize, columns: i32) -> Result<(), Error> {
    if usize::try_from(columns) == Ok(values) {
        return Ok(());
    }
    Err(Error::NotReady {
        problem: format!("the library of pg_enough answers with {values} columns, and its function has {columns}"),
        hint: "The library is of another version than the extension: run ALTER EXTENSION pg_enough UPDATE in this \
               database, and reconnect."
            .into(),
    })
}

/// Whether a value of that type may stand where the other is expected: an owner may have altered a table so far that it still
/// works.
fn fits(kind: Oid, expected: Oid) -> bool {
    let is_integer = |kind| matches!(kind, pg_sys::INT2OID | pg_sys::INT4OID | pg_sys::INT8OID);
    kind == expected
        || (is_integer(kind) && is_integer(expected))
        || (kind == pg_sys::VARCHAROID && expected == pg_sys::TEXTOID)
}

/// The rows of a set, as they are added.
pub struct Rows<'c> {
    result: *mut pg_sys::ReturnSetInfo,
    lifetime: PhantomData<&'c ()>,
}

impl Rows<'_> {
    /// Adds a row.
    #[inline]
    pub fn push<const COLUMNS: usize>(&mut self, values: &[Value<'_>; COLUMNS]) -> Result<(), Error> {
        // SAFETY: `rows` made the store and its descriptor, which live as long as the call; the store copies.
        unsafe {
            let descriptor = (*self.result).setDesc;
            check_width(values.len(), (*descriptor).natts)?;
            for (number, value) in values.iter().enumerate() {
                if let Value::Typed(_, kind) = *value
                    && !fits(kind, (*column(descriptor, number)).atttypid)
                {
                    return Err(Error::altered());
                }
            }
            let (mut datums, mut nulls) = split(values);
            pg_sys::tuplestore_putvalues((*self.result).setResult, descriptor, datums.as_mut_ptr(), nulls.as_mut_ptr());
        }
        Ok(())
    }

    /// What the function returns when all rows are added.
    #[allow(clippy::unused_self, reason = "nothing can be added after it")]
    pub fn end(self) -> Value<'static> {
        Value::Null
    }
}
