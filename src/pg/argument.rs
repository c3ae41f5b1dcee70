//! Arguments whose size varies, as they came: read in place, and handed on to calls into the server.

use super::value::{Value, copied};
use pgrx::pg_sys::{self, Datum};
use pgrx::varlena::{vardata_any, varsize_any, varsize_any_exhdr};
use std::marker::PhantomData;

/// A `jsonb` argument as it came: maybe compressed, maybe out of line.
#[derive(Clone, Copy)]
pub struct Jsonb<'c> {
    datum: Datum,
    lifetime: PhantomData<&'c ()>,
}

impl Jsonb<'static> {
    /// A copy in the memory of the call, by its binary form without the varlena header.
    pub fn copied(payload: &[u8]) -> Self {
        Jsonb { datum: copied(payload), lifetime: PhantomData }
    }
}

impl<'c> Jsonb<'c> {
    /// A value that lives as long as the call.
    ///
    /// # Safety
    /// `datum` is a `jsonb` that lives as long as `'c`, or as what is made of it is used.
    #[inline]
    pub(super) unsafe fn of(datum: Datum) -> Self {
        Jsonb { datum, lifetime: PhantomData }
    }

    /// Its binary form, without the varlena header.
    #[inline]
    pub fn payload(self) -> &'c [u8] {
        // SAFETY: made from an argument of a varlena type.
        unsafe { payload(self.datum) }
    }

    /// Its bytes as it came: a value out of line counts as what points to it.
    pub(crate) fn size(self) -> usize {
        // SAFETY: made from an argument of a varlena type.
        unsafe { varsize_any(self.datum.cast_mut_ptr()) }
    }

    /// For calls into the server.
    #[inline]
    pub(crate) fn datum(self) -> Datum {
        self.datum
    }
}

/// A `text` argument as it came, in the database's encoding.
#[derive(Clone, Copy)]
pub struct Text<'c> {
    datum: Datum,
    lifetime: PhantomData<&'c ()>,
}

impl Text<'static> {
    /// A copy in the memory of the call, by its bytes in the database's encoding.
    pub fn copied(bytes: &[u8]) -> Self {
        Text { datum: copied(bytes), lifetime: PhantomData }
    }
}

impl<'c> Text<'c> {
    /// A value that lives as long as the call.
    ///
    /// # Safety
    /// `datum` is a `text` that lives as long as `'c`, or as what is made of it is used.
    #[inline]
    pub(super) unsafe fn of(datum: Datum) -> Self {
        Text { datum, lifetime: PhantomData }
    }

    /// Its bytes.
    #[inline]
    pub fn payload(self) -> &'c [u8] {
        // SAFETY: made from an argument of a varlena type.
        unsafe { payload(self.datum) }
    }

    /// For calls into the server.
    #[inline]
    pub(crate) fn datum(self) -> Datum {
        self.datum
    }

    /// As a result.
    #[inline]
    pub fn into_value(self) -> Value<'static> {
        Value::Raw(self.datum)
    }
}

/// The elements of an array argument; NULLs are `None`. They are in the call's memory, as the server has laid them out.
pub struct Array<'c, T> {
    items: &'c [Datum],
    nulls: &'c [bool],
    make: fn(Datum) -> T,
}

impl<'c, T> Array<'c, T> {
    /// An array whose elements are made of their data by `make`.
    pub(super) fn of(items: &'c [Datum], nulls: &'c [bool], make: fn(Datum) -> T) -> Self {
        Array { items, nulls, make }
    }
}

impl<T> Clone for Array<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Array<'_, T> {}

#[allow(clippy::len_without_is_empty, reason = "nobody has asked yet")]
impl<'c, T: 'c> Array<'c, T> {
    /// How many there are.
    pub fn len(self) -> usize {
        self.items.len()
    }

    /// The `index`-th element; `None` where it is NULL, or there are fewer.
    pub fn get(self, index: usize) -> Option<T> {
        let item = self.items.get(index).filter(|_| self.nulls.get(index) == Some(&false))?;
        Some((self.make)(*item))
    }

    /// The elements in their order.
    pub fn iter(self) -> impl ExactSizeIterator<Item = Option<T>> + 'c {
        let make = self.make;
        self.items.iter().zip(self.nulls).map(move |(&item, &null)| (!null).then(|| make(item)))
    }
}

/// The bytes of a varlena, fetched and decompressed where it must be.
///
/// # Safety
/// `datum` is a varlena that lives as long as `'c`.
#[inline]
pub(crate) unsafe fn payload<'c>(datum: Datum) -> &'c [u8] {
    // SAFETY: the caller's promise; what detoasting allocates lives in the call's memory context.
    unsafe {
        let mut varlena = datum.cast_mut_ptr::<pg_sys::varlena>();
        // A guarded call for the few that are compressed or out of line.
        if pgrx::varlena::varatt_is_4b_c(varlena) || pgrx::varlena::varatt_is_1b_e(varlena) {
            varlena = pg_sys::pg_detoast_datum_packed(varlena);
        }
        std::slice::from_raw_parts(vardata_any(varlena).cast(), varsize_any_exhdr(varlena))
    }
}
