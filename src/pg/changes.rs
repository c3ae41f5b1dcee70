//! What a statement has changed, as its triggers are told: each row as it was and as it is now, as JSON.
//!
//! A trigger that runs for each statement finds all rows in its transition tables; the server writes both of an UPDATE row by
//! row, so that they are in the same order. One that runs for each row is told of that row.

use super::argument::{Jsonb, payload};
use super::row::column;
use super::trigger::Trigger;
use super::value::copied;
use crate::error::Error;
use pgrx::pg_sys::{self, Datum, Oid};
use std::ffi::CStr;
use std::marker::PhantomData;

/// The most rows, and bytes of their messages but for the last one, that are in memory at a time.
const MOST_ROWS: usize = 1_000;
const MOST_BYTES: usize = 1 << 20;

/// What a message says beside the rows, in the database's encoding.
pub struct About<'a> {
    pub event: &'a [u8],
    pub schema: &'a [u8],
    pub table: &'a [u8],
}

/// A row before and after its change, as `jsonb`; `None` where there was none, or is none any more.
type Change = [Option<Datum>; 2];

/// The rows that a trigger is told of.
pub struct Changes<'c> {
    row: Shape,
    message: pg_sys::TupleDesc,
    jsonb: Box<pg_sys::FmgrInfo>,
    source: Source,
    /// Whether the rows that an UPDATE has left as they were, as far as they are looked at, are left out.
    only_changed: bool,
    lifetime: PhantomData<&'c ()>,
}

/// Some of a table's columns, as the type of a row.
struct Shape {
    descriptor: pg_sys::TupleDesc,
    /// Where they are in the table's rows, from 0 on.
    places: Vec<usize>,
}

enum Source {
    /// The rows of the trigger's one change.
    Row { table: pg_sys::TupleDesc, rows: Option<[pg_sys::HeapTuple; 2]> },
    /// Those of its statement.
    Tables([Option<Reader>; 2]),
}

/// Reads a transition table.
struct Reader {
    store: *mut pg_sys::Tuplestorestate,
    pointer: i32,
    slot: *mut pg_sys::TupleTableSlot,
}

impl<'c> Changes<'c> {
    /// The changes that a trigger is told of, with these columns of the rows; with all of them where none are named. `Err` with
    /// a name that is no column's.
    pub fn of(trigger: &Trigger<'c>, columns: &[&'c [u8]]) -> Result<Self, &'c [u8]> {
        let table = trigger.descriptor();
        Ok(Changes {
            row: Shape::of(table, columns)?,
            message: message_descriptor(),
            jsonb: Box::new(to_jsonb()),
            source: match trigger.tuples() {
                Some(rows) => Source::Row { table, rows: Some(rows) },
                None => Source::Tables(trigger.tables().map(|store| store.map(|store| Reader::new(store, table)))),
            },
            only_changed: !columns.is_empty(),
            lifetime: PhantomData,
        })
    }

    /// Gives the messages of all changes to `take`, some at a time.
    pub fn each_batch(
        &mut self,
        about: &About<'_>,
        mut take: impl FnMut(&[Jsonb<'_>]) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let scratch = Scratch::enter();
        loop {
            let (mut messages, mut rows, mut bytes) = (Vec::new(), 0, 0);
            let ended = loop {
                let Some(change) = self.next() else { break true };
                if !(self.only_changed && is_none(change)) {
                    let message = self.message(about, change);
                    bytes += message.size();
                    messages.push(message);
                }
                rows += 1;
                if rows >= MOST_ROWS || bytes >= MOST_BYTES {
                    break false;
                }
            };
            if !messages.is_empty() {
                take(&messages)?;
            }
            if ended {
                return Ok(());
            }
            drop(messages);
            scratch.reset();
        }
    }

    /// The message of a statement that is not told of by its rows.
    pub fn without_rows(&mut self, about: &About<'_>) -> Jsonb<'c> {
        self.message(about, [None, None])
    }

    /// The next one, in the current memory context.
    fn next(&mut self) -> Option<Change> {
        let Changes { row, jsonb, source, .. } = self;
        let change = match source {
            Source::Row { table, rows } => rows.take()?.map(|tuple| {
                // SAFETY: the trigger's row, or NULL, and the descriptor of its table.
                (!tuple.is_null()).then(|| unsafe { row.of_tuple(jsonb, *table, tuple) })
            }),
            Source::Tables(readers) => {
                readers.each_mut().map(|reader| reader.as_mut().and_then(|reader| reader.next(row, jsonb)))
            }
        };
        change.iter().any(Option::is_some).then_some(change)
    }

    fn message(&mut self, about: &About<'_>, [old, new]: Change) -> Jsonb<'c> {
        let [event, schema, table] = [about.event, about.schema, about.table].map(|text| Some(copied(text)));
        // SAFETY: the values are of the descriptor's types.
        unsafe { Jsonb::of(as_jsonb(&mut self.jsonb, self.message, &[event, schema, table, old, new])) }
    }
}

/// A memory context that is the current one meanwhile.
struct Scratch {
    own: pg_sys::MemoryContext,
    before: pg_sys::MemoryContext,
}

impl Scratch {
    fn enter() -> Self {
        // SAFETY: variables of this process; the name is a constant.
        unsafe {
            let before = pg_sys::CurrentMemoryContext;
            let own = pg_sys::AllocSetContextCreateInternal(
                before,
                c"pg_enough changes".as_ptr(),
                pg_sys::ALLOCSET_DEFAULT_MINSIZE as usize,
                pg_sys::ALLOCSET_DEFAULT_INITSIZE as usize,
                pg_sys::ALLOCSET_DEFAULT_MAXSIZE as usize,
            );
            pg_sys::CurrentMemoryContext = own;
            Scratch { own, before }
        }
    }

    /// Gives back what was allocated since.
    fn reset(&self) {
        // SAFETY: made by `enter`; nobody uses what was in it.
        unsafe { pg_sys::MemoryContextReset(self.own) };
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // An ERROR may lie in it, and the server clears it away with the context above.
        if !std::thread::panicking() {
            // SAFETY: as above.
            unsafe {
                pg_sys::CurrentMemoryContext = self.before;
                pg_sys::MemoryContextDelete(self.own);
            }
        }
    }
}

/// Whether an UPDATE has left a row as it was.
fn is_none(change: Change) -> bool {
    let [Some(old), Some(new)] = change else { return false };
    // SAFETY: both are values of jsonb, which live as long as the memory context.
    unsafe { payload(old) == payload(new) }
}

impl Shape {
    fn of<'n>(table: pg_sys::TupleDesc, names: &[&'n [u8]]) -> Result<Self, &'n [u8]> {
        // SAFETY: the table is open, and its columns are numbered below their count.
        unsafe {
            let count = usize::try_from((*table).natts).unwrap_or(0);
            let there = |number: &usize| {
                let column = column(table, *number);
                // A virtual generated column has no value in a row.
                !(*column).attisdropped && (*column).attgenerated.cast_unsigned() != b'v'
            };
            let named = |number: &usize, name: &[u8]| {
                CStr::from_ptr((*column(table, *number)).attname.data.as_ptr()).to_bytes() == name
            };
            let missing = names.iter().find(|name| !(0..count).filter(there).any(|number| named(&number, name)));
            if let Some(name) = missing {
                return Err(name);
            }
            let chosen = |number: &usize| names.is_empty() || names.iter().any(|name| named(number, name));
            let places: Vec<usize> = (0..count).filter(there).filter(chosen).collect();
            let descriptor = pg_sys::CreateTemplateTupleDesc(places.len() as i32);
            for (place, &number) in (1..).zip(&places) {
                pg_sys::TupleDescCopyEntry(descriptor, place, table, number as i16 + 1);
            }
            Ok(Shape { descriptor: pg_sys::BlessTupleDesc(descriptor), places })
        }
    }

    /// # Safety
    /// A row of the table that has this descriptor.
    unsafe fn of_tuple(
        &self,
        jsonb: &mut pg_sys::FmgrInfo,
        table: pg_sys::TupleDesc,
        tuple: pg_sys::HeapTuple,
    ) -> Datum {
        // SAFETY: the caller's promise; there is room for as many values as the table has columns.
        unsafe {
            let count = usize::try_from((*table).natts).unwrap_or(0);
            let (mut values, mut nulls) = (vec![Datum::null(); count], vec![true; count]);
            pg_sys::heap_deform_tuple(tuple, table, values.as_mut_ptr(), nulls.as_mut_ptr());
            self.of_values(jsonb, &values, &nulls)
        }
    }

    /// # Safety
    /// Values of the table's columns.
    unsafe fn of_values(&self, jsonb: &mut pg_sys::FmgrInfo, values: &[Datum], nulls: &[bool]) -> Datum {
        let chosen: Vec<Option<Datum>> =
            self.places.iter().map(|&place| (!nulls[place]).then_some(values[place])).collect();
        // SAFETY: the caller's promise.
        unsafe { as_jsonb(jsonb, self.descriptor, &chosen) }
    }
}

impl Reader {
    fn new(store: *mut pg_sys::Tuplestorestate, table: pg_sys::TupleDesc) -> Self {
        // SAFETY: the store is there while the trigger runs, and other triggers have places of their own in it.
        unsafe {
            let pointer = pg_sys::tuplestore_alloc_read_pointer(store, pg_sys::EXEC_FLAG_REWIND as i32);
            pg_sys::tuplestore_select_read_pointer(store, pointer);
            pg_sys::tuplestore_rescan(store);
            // A copy, which nobody counts the users of, with what rows have in columns that came after them.
            let columns = pg_sys::CreateTupleDescCopyConstr(table);
            let slot = pg_sys::MakeSingleTupleTableSlot(columns, &raw const pg_sys::TTSOpsMinimalTuple);
            Reader { store, pointer, slot }
        }
    }

    fn next(&mut self, row: &Shape, jsonb: &mut pg_sys::FmgrInfo) -> Option<Datum> {
        // SAFETY: as above. The slot has as many values as the table has columns, until it is cleared: before the memory
        // context that the row may lie in is.
        unsafe {
            pg_sys::tuplestore_select_read_pointer(self.store, self.pointer);
            if !pg_sys::tuplestore_gettupleslot(self.store, true, false, self.slot) {
                return None;
            }
            pg_sys::slot_getallattrs(self.slot);
            let count = usize::try_from((*self.slot).tts_nvalid).unwrap_or(0);
            let values = std::slice::from_raw_parts((*self.slot).tts_values, count);
            let nulls = std::slice::from_raw_parts((*self.slot).tts_isnull, count);
            let made = row.of_values(jsonb, values, nulls);
            pg_sys::ExecClearTuple(self.slot);
            Some(made)
        }
    }
}

/// The type of a message.
fn message_descriptor() -> pg_sys::TupleDesc {
    let columns = [
        (c"event", pg_sys::TEXTOID),
        (c"schema", pg_sys::TEXTOID),
        (c"table", pg_sys::TEXTOID),
        (c"old", pg_sys::JSONBOID),
        (c"new", pg_sys::JSONBOID),
    ];
    // SAFETY: the server copies the names. It knows a type of the same columns from before.
    unsafe {
        let descriptor = pg_sys::CreateTemplateTupleDesc(columns.len() as i32);
        for (number, (name, kind)) in (1..).zip(columns) {
            pg_sys::TupleDescInitEntry(descriptor, number, name.as_ptr(), kind, -1, 0);
        }
        pg_sys::BlessTupleDesc(descriptor)
    }
}

/// The server's `to_jsonb` for rows of any type.
fn to_jsonb() -> pg_sys::FmgrInfo {
    let mut function = pg_sys::FmgrInfo::default();
    // SAFETY: a function of the server's. It asks the expression that it is called by for its argument's type.
    unsafe {
        let function_id = Oid::from(pg_sys::F_TO_JSONB);
        pg_sys::fmgr_info(function_id, &raw mut function);
        let argument = pg_sys::makeNullConst(pg_sys::RECORDOID, -1, Oid::INVALID);
        let arguments = pg_sys::lappend(std::ptr::null_mut(), argument.cast());
        function.fn_expr = pg_sys::makeFuncExpr(
            function_id,
            pg_sys::JSONBOID,
            arguments,
            Oid::INVALID,
            Oid::INVALID,
            pg_sys::CoercionForm::COERCE_EXPLICIT_CALL,
        )
        .cast();
    }
    function
}

/// # Safety
/// Values of the descriptor's columns.
unsafe fn as_jsonb(jsonb: &mut pg_sys::FmgrInfo, descriptor: pg_sys::TupleDesc, values: &[Option<Datum>]) -> Datum {
    let mut nulls: Vec<bool> = values.iter().map(Option::is_none).collect();
    let mut values: Vec<Datum> = values.iter().map(|value| value.unwrap_or(Datum::null())).collect();
    // SAFETY: the caller's promise. The row has its type in its header; what the function answers is new.
    unsafe {
        let tuple = pg_sys::heap_form_tuple(descriptor, values.as_mut_ptr(), nulls.as_mut_ptr());
        let header = Datum::from((*tuple).t_data);
        pg_sys::FunctionCall1Coll(jsonb, Oid::INVALID, header)
    }
}
