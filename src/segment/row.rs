//! Result rows of a few columns of fixed size, formed in place: what `heap_form_tuple` does, without the guard that a call
//! which may fail needs, and without its loops over any number of columns of any type.

use super::call::{Call, Short};
use super::value::Value;
use super::{bare, table};
use pgrx::pg_sys::{self, Datum, Oid};
use std::mem::offset_of;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The row type of one function, once this process knows it and that its columns are those of the call.
#[derive(Default)]
pub struct RowKind {
    /// The function's OID and the row type's number; 0 before.
    known: AtomicU64,
}

/// A column of fixed size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Column {
    /// `boolean`
    Bool,
    /// `bigint`
    I64,
    /// `interval`
    Interval,
}

impl Column {
    fn oid(self) -> Oid {
        match self {
            Column::Bool => pg_sys::BOOLOID,
            Column::I64 => pg_sys::INT8OID,
            Column::Interval => pg_sys::INTERVALOID,
        }
    }

    /// Bytes, and a multiple of what it is aligned to.
    const fn size(self) -> usize {
        match self {
            Column::Bool => 1,
            Column::I64 => 8,
            Column::Interval => size_of::<pg_sys::Interval>(),
        }
    }

    const fn alignment(self) -> usize {
        if matches!(self, Column::Bool) { 1 } else { 8 }
    }
}

/// Where the data of a row starts, with a NULL bitmap of one byte or without.
const DATA: usize = (offset_of!(pg_sys::HeapTupleHeaderData, t_bits) + 1).next_multiple_of(8);

/// The columns of a row.
#[derive(Debug, Clone, Copy)]
pub struct Columns<const COLUMNS: usize> {
    columns: [Column; COLUMNS],
    /// Bytes of a row without NULLs.
    size: usize,
}

impl<const COLUMNS: usize> Columns<COLUMNS> {
    /// Columns of those types.
    pub const fn new(columns: [Column; COLUMNS]) -> Self {
        // One byte of bitmap.
        const { assert!(COLUMNS <= 8) };
        let (mut size, mut index) = (DATA, 0);
        while index < COLUMNS {
            size = size.next_multiple_of(columns[index].alignment()) + columns[index].size();
            index += 1;
        }
        Columns { columns, size }
    }
}

/// Memory for a row, which is to be filled.
pub struct Row<const COLUMNS: usize> {
    columns: [Column; COLUMNS],
    /// Of the row type.
    number: u32,
    header: *mut pg_sys::HeapTupleHeaderData,
}

impl RowKind {
    /// Not known yet.
    pub const fn new() -> Self {
        RowKind { known: AtomicU64::new(0) }
    }

    /// Memory for a row of the called function, if this process knows its type.
    #[inline(always)]
    pub fn row<const COLUMNS: usize>(&self, call: &Call<'_>, columns: &Columns<COLUMNS>) -> Option<Row<COLUMNS>> {
        let known = self.known.load(Relaxed);
        if known == 0 || known >> 32 != u64::from(call.function().to_u32()) {
            return None;
        }
        let header: *mut pg_sys::HeapTupleHeaderData = bare::try_palloc(columns.size).cast();
        (!header.is_null()).then_some(Row { columns: columns.columns, number: known as u32, header })
    }

    /// Remembers the row type that the called function has by `descriptor`, if its columns are those.
    ///
    /// # Safety
    /// A valid descriptor, registered for the session.
    pub(super) unsafe fn remember<const COLUMNS: usize>(
        &self,
        call: &Call<'_>,
        columns: &Columns<COLUMNS>,
        descriptor: pg_sys::TupleDesc,
    ) {
        // SAFETY: the caller's promise; the descriptor has as many attributes as it says.
        unsafe {
            let is_it = |index: usize, column: &Column| (*table::column(descriptor, index)).atttypid == column.oid();
            if (*descriptor).tdtypeid == pg_sys::RECORDOID
                && usize::try_from((*descriptor).natts) == Ok(COLUMNS)
                && columns.columns.iter().enumerate().all(|(index, column)| is_it(index, column))
            {
                let number = u64::from((*descriptor).tdtypmod.cast_unsigned());
                self.known.store(u64::from(call.function().to_u32()) << 32 | number, Relaxed);
            }
        }
    }
}

impl<const COLUMNS: usize> Row<COLUMNS> {
    /// The row; NULL where a value isn't of its column's type.
    #[inline(always)]
    pub fn fill(self, values: &[Value<'_>; COLUMNS]) -> Short {
        let (mut at, mut bits) = (DATA, 0_u8);
        // SAFETY: the memory holds a header and all columns, each aligned: palloc aligns to 8.
        unsafe {
            let base: *mut u8 = self.header.cast();
            for (index, (column, value)) in self.columns.iter().zip(values).enumerate() {
                let place = base.add(at.next_multiple_of(column.alignment()));
                match (column, *value) {
                    (Column::Bool, Value::Bool(value)) => place.write(u8::from(value)),
                    (Column::I64, Value::I64(value)) => place.cast::<i64>().write(value),
                    (Column::Interval, Value::Interval(micros)) => {
                        place.cast::<pg_sys::Interval>().write(pg_sys::Interval { time: micros, day: 0, month: 0 });
                    }
                    _ => continue,
                }
                at = at.next_multiple_of(column.alignment()) + column.size();
                bits |= 1 << index;
            }
            let nulls = u32::from(bits) != (1 << COLUMNS) - 1;
            pgrx::varlena::set_varsize_4b(self.header.cast(), at as i32);
            (*self.header).t_choice.t_datum.datum_typmod = self.number.cast_signed();
            (*self.header).t_choice.t_datum.datum_typeid = pg_sys::RECORDOID;
            // InvalidBlockNumber, in two halves, and InvalidOffsetNumber.
            (*self.header).t_ctid = pg_sys::ItemPointerData {
                ip_blkid: pg_sys::BlockIdData { bi_hi: u16::MAX, bi_lo: u16::MAX },
                ip_posid: 0,
            };
            (*self.header).t_infomask2 = COLUMNS as u16;
            (*self.header).t_infomask = if nulls { pg_sys::HEAP_HASNULL as u16 } else { 0 };
            (*self.header).t_hoff = DATA as u8;
            base.add(offset_of!(pg_sys::HeapTupleHeaderData, t_bits)).write(bits);
        }
        Short::raw(Datum::from(self.header))
    }
}
