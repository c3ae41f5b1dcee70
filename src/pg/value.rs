//! Results: what a call gives back to SQL, made into Datums in the call's memory context.

use super::encoding::encode;
use super::raise::Raised;
use pgrx::pg_sys::{self, Datum, Oid};
use pgrx::varlena::set_varsize_4b;

/// Values as the server takes them: Datums, and which are NULL.
#[inline]
pub fn split<const COLUMNS: usize>(values: &[Value<'_>; COLUMNS]) -> ([Datum; COLUMNS], [bool; COLUMNS]) {
    let datums = values.map(Value::into_datum);
    (datums.map(|datum| datum.unwrap_or(Datum::null())), datums.map(|datum| datum.is_none()))
}

/// A result. What isn't a plain number is allocated in the call's memory context when it is made into a Datum.
#[derive(Clone, Copy)]
pub enum Value<'v> {
    /// NULL
    Null,
    /// `boolean`
    Bool(bool),
    /// `smallint`
    I16(i16),
    /// `int`
    I32(i32),
    /// `bigint`
    I64(i64),
    /// `timestamptz`, in microseconds since PostgreSQL's epoch
    Instant(i64),
    /// `interval` of that many microseconds
    Interval(i64),
    /// `text`, `bytea` or `jsonb`, by its payload, which is copied
    Bytes(&'v [u8]),
    /// `text` of Rust's, which is put into the database's encoding
    Text(&'v str),
    /// What the server made
    Raw(Datum),
    /// What a statement has answered, of that type
    Typed(Datum, Oid),
    /// No result but an error, which is raised when the call has returned
    Raise(Raised),
}

impl Value<'_> {
    /// What a function that returns `void` gives back: anything but NULL.
    pub const VOID: Value<'static> = Value::Bool(false);

    /// NULL where there is nothing.
    pub fn or_null<T>(value: Option<T>, make: impl FnOnce(T) -> Self) -> Self {
        value.map_or(Value::Null, make)
    }

    #[inline]
    #[allow(clippy::cast_sign_loss, reason = "a Datum holds the bits")]
    pub fn into_datum(self) -> Option<Datum> {
        Some(match self {
            Value::Null | Value::Raise(_) => return None,
            Value::Bool(value) => Datum::from(value),
            Value::I16(value) => Datum::from(value),
            Value::I32(value) => Datum::from(value),
            Value::I64(value) | Value::Instant(value) => Datum::from(value),
            Value::Interval(micros) => interval(micros),
            Value::Bytes(bytes) => copied(bytes),
            Value::Text(text) => copied(&encode(text)),
            Value::Raw(datum) | Value::Typed(datum, _) => datum,
        })
    }
}

/// A `text`, `bytea` or `jsonb` with that payload, in the call's memory context.
#[inline]
pub fn copied(bytes: &[u8]) -> Datum {
    Buffer::holding(bytes).datum()
}

#[inline]
fn interval(micros: i64) -> Datum {
    // SAFETY: palloc answers with that much memory or an error.
    unsafe {
        let interval = super::unguarded::palloc(size_of::<pg_sys::Interval>()).cast::<pg_sys::Interval>();
        // Without days, which are 23 or 25 hours long where the clock changes: added to a time it is exact.
        interval.write(pg_sys::Interval { time: micros, day: 0, month: 0 });
        Datum::from(interval)
    }
}

/// A varlena result that is filled in place, so that a value is copied once: from the segment into the result.
pub struct Buffer {
    varlena: *mut pg_sys::varlena,
    len: usize,
}

impl Buffer {
    /// Room for `len` bytes, in the call's memory context. Its content is whatever was there.
    #[inline]
    pub fn allocate(len: usize) -> Self {
        Buffer { varlena: super::unguarded::palloc(len + pg_sys::VARHDRSZ).cast(), len }
    }

    /// A copy of these bytes.
    #[inline]
    pub fn holding(bytes: &[u8]) -> Self {
        let buffer = Self::allocate(bytes.len());
        buffer.bytes().copy_from_slice(bytes);
        buffer
    }

    /// [`Self::allocate`] for callers that must not fail: none where there is no memory.
    #[inline(always)]
    pub fn try_allocate(len: usize) -> Option<Self> {
        let varlena = super::unguarded::try_palloc(len + pg_sys::VARHDRSZ);
        (!varlena.is_null()).then(|| Buffer { varlena: varlena.cast(), len })
    }

    /// The room.
    #[inline]
    #[allow(clippy::mut_from_ref, reason = "the buffer owns the memory and hands it to one caller at a time")]
    pub fn bytes(&self) -> &mut [u8] {
        // SAFETY: allocated with that length and owned by this buffer; uninitialised bytes are written before read by
        // every caller, and u8 has no invalid values.
        unsafe { std::slice::from_raw_parts_mut(vardata(self.varlena), self.len) }
    }

    /// Says that only the first `len` bytes count.
    #[inline]
    pub fn shorten(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    /// Says that the last `len` bytes don't count.
    #[inline(always)]
    pub fn cut(&mut self, len: usize) {
        self.len = self.len.saturating_sub(len);
    }

    /// As a result.
    #[inline]
    pub fn datum(self) -> Datum {
        // SAFETY: the header lies in the allocated memory. Sizes are capped at 1 GB by palloc.
        unsafe { set_varsize_4b(self.varlena, i32::try_from(self.len + pg_sys::VARHDRSZ).unwrap_or(i32::MAX)) };
        Datum::from(self.varlena)
    }

    /// As `text`, `bytea` or `jsonb`.
    #[inline]
    pub fn into_value(self) -> Value<'static> {
        Value::Raw(self.datum())
    }
}

/// # Safety
/// `varlena` has a 4-byte header.
#[inline]
unsafe fn vardata(varlena: *mut pg_sys::varlena) -> *mut u8 {
    // SAFETY: the caller's promise.
    unsafe { varlena.cast::<u8>().add(pg_sys::VARHDRSZ) }
}
