//! Result rows of a few columns of fixed size, formed in place: what `heap_form_tuple` does, without the guard that a call
//! which may fail needs, and without its loops over any number of columns of any type.

use super::unguarded;
use pgrx::pg_sys::{self, Datum, Oid};
use std::marker::PhantomData;
use std::mem::offset_of;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Microseconds, as an `interval` without days or months.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Micros(pub i64);

/// The value of a column of fixed size.
pub trait Field: Copy {
    /// The column's type.
    const TYPE: Oid;
    /// Bytes.
    const SIZE: usize;
    /// What its place is a multiple of.
    const ALIGNMENT: usize;

    /// Writes the value; false where it is NULL and nothing was written.
    ///
    /// # Safety
    /// At `place` there is room for it, aligned.
    unsafe fn write(self, place: *mut u8) -> bool;
}

impl Field for bool {
    const TYPE: Oid = pg_sys::BOOLOID;
    const SIZE: usize = 1;
    const ALIGNMENT: usize = 1;

    #[inline(always)]
    unsafe fn write(self, place: *mut u8) -> bool {
        // SAFETY: the caller's promise.
        unsafe { place.write(u8::from(self)) };
        true
    }
}

impl Field for i64 {
    const TYPE: Oid = pg_sys::INT8OID;
    const SIZE: usize = 8;
    const ALIGNMENT: usize = 8;

    #[inline(always)]
    unsafe fn write(self, place: *mut u8) -> bool {
        // SAFETY: the caller's promise.
        unsafe { place.cast::<i64>().write(self) };
        true
    }
}

impl Field for Micros {
    const TYPE: Oid = pg_sys::INTERVALOID;
    const SIZE: usize = size_of::<pg_sys::Interval>();
    const ALIGNMENT: usize = 8;

    #[inline(always)]
    unsafe fn write(self, place: *mut u8) -> bool {
        // SAFETY: the caller's promise.
        unsafe { place.cast::<pg_sys::Interval>().write(pg_sys::Interval { time: self.0, day: 0, month: 0 }) };
        true
    }
}

impl<F: Field> Field for Option<F> {
    const TYPE: Oid = F::TYPE;
    const SIZE: usize = F::SIZE;
    const ALIGNMENT: usize = F::ALIGNMENT;

    #[inline(always)]
    unsafe fn write(self, place: *mut u8) -> bool {
        // SAFETY: the caller's promise.
        self.is_some_and(|field| unsafe { field.write(place) })
    }
}

/// Where the data of a row starts, with a NULL bitmap of one byte or without.
const DATA: usize = (offset_of!(pg_sys::HeapTupleHeaderData, t_bits) + 1).next_multiple_of(8);

/// The values of a row.
pub trait Fields {
    /// Their types.
    const TYPES: &'static [Oid];
    /// Bytes of a row without NULLs.
    const SIZE: usize;

    /// Writes the values from [`DATA`] on; where they end, and the bits of those that aren't NULL.
    ///
    /// # Safety
    /// At `row` there is room for [`Self::SIZE`] bytes, aligned to 8.
    unsafe fn write(self, row: *mut u8) -> (usize, u8);
}

impl<A: Field, B: Field, C: Field, D: Field> Fields for (A, B, C, D) {
    const TYPES: &'static [Oid] = &[A::TYPE, B::TYPE, C::TYPE, D::TYPE];
    const SIZE: usize = {
        let first = DATA.next_multiple_of(A::ALIGNMENT) + A::SIZE;
        let second = first.next_multiple_of(B::ALIGNMENT) + B::SIZE;
        let third = second.next_multiple_of(C::ALIGNMENT) + C::SIZE;
        third.next_multiple_of(D::ALIGNMENT) + D::SIZE
    };

    #[inline(always)]
    unsafe fn write(self, row: *mut u8) -> (usize, u8) {
        #[inline(always)]
        unsafe fn next<F: Field>(field: F, row: *mut u8, (end, bits): (usize, u8), bit: u8) -> (usize, u8) {
            let start = end.next_multiple_of(F::ALIGNMENT);
            // SAFETY: no field starts later than where it would if none before it were NULL.
            if unsafe { field.write(row.add(start)) } { (start + F::SIZE, bits | bit) } else { (end, bits) }
        }
        // SAFETY: the caller's promise.
        unsafe {
            let end = next(self.0, row, (DATA, 0), 1);
            let end = next(self.1, row, end, 2);
            let end = next(self.2, row, end, 4);
            next(self.3, row, end, 8)
        }
    }
}

/// The row type of one function, once this process knows it and that its columns are those of `F`.
pub struct RowKind<F> {
    /// The function's OID and the row type's number; 0 before.
    known: AtomicU64,
    fields: PhantomData<fn(F)>,
}

/// Memory for a row, which is to be filled.
pub struct Row<F> {
    /// Of the row type.
    number: u32,
    header: *mut pg_sys::HeapTupleHeaderData,
    fields: PhantomData<fn(F)>,
}

impl<F: Fields> RowKind<F> {
    /// Not known yet.
    #[allow(clippy::new_without_default, reason = "for statics, which a default can't make")]
    pub const fn new() -> Self {
        RowKind { known: AtomicU64::new(0), fields: PhantomData }
    }

    /// Memory for a row of that function, if this process knows its type.
    #[inline(always)]
    pub fn row(&self, function: Oid) -> Option<Row<F>> {
        let known = self.known.load(Relaxed);
        if known == 0 || known >> 32 != u64::from(function.to_u32()) {
            return None;
        }
        let header: *mut pg_sys::HeapTupleHeaderData = unguarded::try_palloc(F::SIZE).cast();
        (!header.is_null()).then_some(Row { number: known as u32, header, fields: PhantomData })
    }

    /// Remembers the row type that the function has by `descriptor`, if its columns are those.
    ///
    /// # Safety
    /// A valid descriptor, registered for the session.
    pub(super) unsafe fn remember(&self, function: Oid, descriptor: pg_sys::TupleDesc) {
        // SAFETY: the caller's promise; the descriptor has as many attributes as it says.
        unsafe {
            let is_it = |index: usize, kind: &Oid| (*column(descriptor, index)).atttypid == *kind;
            if (*descriptor).tdtypeid == pg_sys::RECORDOID
                && usize::try_from((*descriptor).natts) == Ok(F::TYPES.len())
                && F::TYPES.iter().enumerate().all(|(index, kind)| is_it(index, kind))
            {
                let number = u64::from((*descriptor).tdtypmod.cast_unsigned());
                self.known.store(u64::from(function.to_u32()) << 32 | number, Relaxed);
            }
        }
    }
}

impl<F: Fields> Row<F> {
    /// The row.
    #[inline(always)]
    pub fn fill(self, fields: F) -> Datum {
        // SAFETY: the memory holds a header and all columns, each aligned: palloc aligns to 8.
        unsafe {
            let (end, bits) = fields.write(self.header.cast());
            let all = (1_u8 << F::TYPES.len()) - 1;
            pgrx::varlena::set_varsize_4b(self.header.cast(), end as i32);
            (*self.header).t_choice.t_datum.datum_typmod = self.number.cast_signed();
            (*self.header).t_choice.t_datum.datum_typeid = pg_sys::RECORDOID;
            // InvalidBlockNumber, in two halves, and InvalidOffsetNumber.
            (*self.header).t_ctid = pg_sys::ItemPointerData {
                ip_blkid: pg_sys::BlockIdData { bi_hi: u16::MAX, bi_lo: u16::MAX },
                ip_posid: 0,
            };
            (*self.header).t_infomask2 = F::TYPES.len() as u16;
            (*self.header).t_infomask = if bits == all { 0 } else { pg_sys::HEAP_HASNULL as u16 };
            (*self.header).t_hoff = DATA as u8;
            self.header.cast::<u8>().add(offset_of!(pg_sys::HeapTupleHeaderData, t_bits)).write(bits);
        }
        Datum::from(self.header)
    }
}

/// # Safety
/// `number` is below the descriptor's count of columns.
pub unsafe fn column(descriptor: pg_sys::TupleDesc, number: usize) -> *const pg_sys::FormData_pg_attribute {
    // SAFETY: the caller's promise. Since 18 the columns stand behind as many short descriptions of them.
    unsafe {
        #[cfg(feature = "pg18")]
        let columns = (*descriptor).compact_attrs.as_ptr().add((*descriptor).natts as usize);
        #[cfg(not(feature = "pg18"))]
        let columns = (*descriptor).attrs.as_ptr();
        columns.cast::<pg_sys::FormData_pg_attribute>().add(number)
    }
}
