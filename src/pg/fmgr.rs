//! From SQL into Rust and back: arguments and results without copies that nobody needs.
//!
//! The SQL side of every function is written by hand in `sql/`, where its defaults, volatility, strictness and comment
//! can be seen; the Rust side is a plain function from a [`Call`] to a [`Value`], exported by [`export!`](crate::export)
//! under the name `enough_<function>`. This is thinner than pgrx's `#[pg_extern]`: a `jsonb` stays in the server's own
//! binary form, and a result row's descriptor is looked up once a statement instead of once a call.
//!
//! Argument numbers count from 0. All functions are called on NULL input, because NULL is an error that names the
//! argument or means a default, never a NULL result.

use super::encoding::decode_start;
use super::guard::guarded;
use super::row::{Fields, RowKind, column};
use super::server;
pub use super::value::{Buffer, Value};
use super::value::{copied, split};
use crate::error::Error;
use pgrx::pg_sys::{self, Datum, Oid};
use pgrx::varlena::{vardata_any, varsize_any, varsize_any_exhdr};
use std::ffi::CStr;
use std::marker::PhantomData;

/// Makes Rust functions callable by SQL: `export!(enough_cache_get = cache_get, …)`. With `enough_cache_get = short |
/// cache_get`, `short` is asked first, see [`dispatch_fast`].
#[macro_export]
macro_rules! export {
    (@dispatch $call:ident, $body:path) => {
        // SAFETY: the server calls it with a valid call.
        unsafe { $crate::pg::fmgr::dispatch($call, $body) }
    };
    (@dispatch $call:ident, $short:path, $body:path) => {
        // SAFETY: the server calls it with a valid call.
        unsafe { $crate::pg::fmgr::dispatch_fast($call, $short, $body) }
    };
    ($($symbol:ident = $body:path $(| $then:path)?),+ $(,)?) => { $(
        pastey::paste! {
            #[doc(hidden)]
            #[unsafe(no_mangle)]
            #[allow(unsafe_code, reason = "the server finds its functions by symbol")]
            pub extern "C-unwind" fn [<pg_finfo_ $symbol>]() -> &'static pgrx::pg_sys::Pg_finfo_record {
                const V1: pgrx::pg_sys::Pg_finfo_record = pgrx::pg_sys::Pg_finfo_record { api_version: 1 };
                &V1
            }
        }
        #[doc(hidden)]
        #[unsafe(no_mangle)]
        #[allow(unsafe_code, reason = "the server finds its functions by symbol")]
        pub unsafe extern "C-unwind" fn $symbol(call: pgrx::pg_sys::FunctionCallInfo) -> pgrx::pg_sys::Datum {
            $crate::export!(@dispatch call, $body $(, $then)?)
        }
    )+ };
}

/// Runs `body` for a call of the server; its errors and panics become the server's.
///
/// # Safety
/// `info` is what the server passed to a function of the version-1 calling convention.
#[inline]
pub unsafe fn dispatch<'c>(
    info: pg_sys::FunctionCallInfo,
    body: impl FnOnce(&mut Call<'c>) -> Result<Value<'static>, Error>,
) -> Datum {
    // SAFETY: the server's own function is the next frame above, and nothing here has to be dropped.
    unsafe {
        let answer = guarded(move || {
            if server::is_parallel_worker() {
                return Err(in_a_worker(info));
            }
            let value = body(&mut Call { info, lifetime: PhantomData })?;
            if let Value::Raise(error) = value {
                return Ok(Err(error));
            }
            let datum = value.into_datum();
            (*info).isnull = datum.is_none();
            Ok(Ok(datum.unwrap_or(Datum::from(0))))
        });
        match answer {
            Ok(datum) => datum,
            Err(error) => super::raise::raise(error),
        }
    }
}

/// A transaction's effects are kept in the session's own memory until it commits, and a worker's would be lost.
///
/// # Safety
/// As for [`dispatch`].
#[cold]
unsafe fn in_a_worker(info: pg_sys::FunctionCallInfo) -> Error {
    // SAFETY: the caller's promise; a name is a C string in the call's memory context.
    let name = unsafe {
        let name = pg_sys::get_func_name((*(*info).flinfo).fn_oid);
        if name.is_null() { "a function".into() } else { CStr::from_ptr(name).to_string_lossy() }
    };
    Error::Parallel { what: format!("execute enough.{name}()") }
}

/// Lets `short` answer the call if it can, else `body`. `short` is for the plain case of calls whose price is their
/// number of cold cache lines: it has no guard, so it must neither panic nor call what may raise an error, and where it
/// can't answer it has done nothing.
///
/// # Safety
/// As for [`dispatch`].
#[inline(always)]
pub unsafe fn dispatch_fast<'c>(
    info: pg_sys::FunctionCallInfo,
    short: impl FnOnce(&Call<'c>) -> Option<FastResult>,
    body: impl FnOnce(&mut Call<'c>) -> Result<Value<'static>, Error>,
) -> Datum {
    let answer = if server::is_parallel_worker() { None } else { short(&Call { info, lifetime: PhantomData }) };
    match answer {
        // SAFETY: the caller's promise.
        Some(FastResult(datum)) => unsafe {
            (*info).isnull = false;
            datum
        },
        // SAFETY: the caller's promise.
        None => unsafe { enter_long(info, body) },
    }
}

/// # Safety
/// As for [`dispatch`].
#[inline(never)]
unsafe fn enter_long<'c>(
    info: pg_sys::FunctionCallInfo,
    body: impl FnOnce(&mut Call<'c>) -> Result<Value<'static>, Error>,
) -> Datum {
    // SAFETY: the caller's promise.
    unsafe { dispatch(info, body) }
}

/// The answer of a call's plain case: not NULL.
pub struct FastResult(Datum);

impl FastResult {
    /// `boolean`
    pub fn bool(value: bool) -> Self {
        FastResult(Datum::from(value))
    }

    /// What has been made for it.
    #[inline(always)]
    pub fn raw(datum: Datum) -> Self {
        FastResult(datum)
    }

    /// `text`, `bytea` or `jsonb`
    #[inline(always)]
    pub fn buffer(buffer: Buffer) -> Self {
        FastResult(buffer.datum())
    }
}

/// One call of an SQL function. Lives as long as the memory that the arguments are in.
pub struct Call<'c> {
    info: pg_sys::FunctionCallInfo,
    lifetime: PhantomData<&'c ()>,
}

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

impl Text<'static> {
    /// A copy in the memory of the call, by its bytes in the database's encoding.
    pub fn copied(bytes: &[u8]) -> Self {
        Text { datum: copied(bytes), lifetime: PhantomData }
    }
}

impl<'c> Jsonb<'c> {
    /// A value that lives as long as the call.
    ///
    /// # Safety
    /// `datum` is a `jsonb` that lives as long as `'c`, or as what is made of it is used.
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

impl<'c> Text<'c> {
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

/// A duration or instant that isn't a number of microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Time {
    /// Microseconds; of an instant, since PostgreSQL's epoch.
    Micros(i64),
    /// Beyond what a 64-bit number of microseconds holds.
    TooLong,
    /// `'infinity'`
    Infinite,
    /// `'-infinity'`
    NegativeInfinite,
}

impl Time {
    /// For messages.
    pub fn describe(self) -> String {
        match self {
            Time::Micros(micros) => describe_micros(micros),
            Time::TooLong => "an interval of over 292,000 years".into(),
            Time::Infinite => "infinity".into(),
            Time::NegativeInfinite => "-infinity".into(),
        }
    }
}

/// A number of microseconds in the units of intervals: `1 day 30 minutes`, `-250 ms`, `0 s`.
fn describe_micros(micros: i64) -> String {
    const UNITS: [(u64, &str); 6] = [
        (86_400_000_000, "day"),
        (3_600_000_000, "hour"),
        (60_000_000, "minute"),
        (1_000_000, "s"),
        (1_000, "ms"),
        (1, "us"),
    ];
    let mut rest = micros.unsigned_abs();
    let mut parts = Vec::new();
    for (size, unit) in UNITS {
        let (count, plural) = (rest / size, if unit.len() > 2 && rest / size > 1 { "s" } else { "" });
        if count > 0 {
            parts.push(format!("{count} {unit}{plural}"));
        }
        rest %= size;
    }
    if parts.is_empty() {
        return "0 s".into();
    }
    format!("{}{}", if micros < 0 { "-" } else { "" }, parts.join(" "))
}

/// An interval in microseconds, as `EXTRACT(EPOCH …)` counts: a year has 365.25 days, a month 30.
#[inline]
fn interval_micros(interval: pg_sys::Interval) -> Time {
    if interval.month == 0 && interval.day == 0 { Time::Micros(interval.time) } else { long_micros(interval) }
}

fn long_micros(interval: pg_sys::Interval) -> Time {
    const DAY: i128 = 86_400_000_000;
    // Since 17 an interval can be infinite, which is told by its fields' extremes.
    if interval.month == i32::MAX && interval.day == i32::MAX && interval.time == i64::MAX {
        return Time::Infinite;
    }
    if interval.month == i32::MIN && interval.day == i32::MIN && interval.time == i64::MIN {
        return Time::NegativeInfinite;
    }
    let (years, months) = (i128::from(interval.month / 12), i128::from(interval.month % 12));
    let micros = years * (DAY * 1461 / 4) + months * 30 * DAY + i128::from(interval.day) * DAY;
    i64::try_from(micros + i128::from(interval.time)).map_or(Time::TooLong, Time::Micros)
}

impl<'c> Call<'c> {
    #[inline(always)]
    fn argument(&self, index: usize) -> Option<Datum> {
        // SAFETY: the server fills as many arguments as the function has; a number beyond them is answered by None.
        unsafe {
            if index >= usize::try_from((*self.info).nargs).unwrap_or(0) {
                return None;
            }
            let argument = &*(*self.info).args.as_ptr().add(index);
            (!argument.isnull).then_some(argument.value)
        }
    }

    /// Whether an argument is NULL, or one that the function doesn't have.
    #[inline(always)]
    pub fn is_null(&self, index: usize) -> bool {
        self.argument(index).is_none()
    }

    /// A `text`, `bytea` or `jsonb` argument that is neither NULL nor compressed nor out of line: for [`dispatch_fast`].
    #[inline(always)]
    pub fn plain_bytes(&self, index: usize) -> Option<&'c [u8]> {
        if cfg!(target_endian = "big") {
            return None;
        }
        // SAFETY: the SQL declarations give such arguments a varlena type. `varatt.h` describes its header: the lowest
        // bit tells a header of one byte, which is 1 for what is out of line, else the next one what is compressed.
        unsafe {
            let varlena: *const u8 = self.argument(index)?.cast_mut_ptr();
            let first = *varlena;
            let (header, size) = if first & 1 == 1 {
                (1, usize::from(first >> 1))
            } else if first & 2 == 0 {
                (pg_sys::VARHDRSZ, (varlena.cast::<u32>().read() >> 2) as usize)
            } else {
                return None;
            };
            Some(std::slice::from_raw_parts(varlena.add(header), size.checked_sub(header)?))
        }
    }

    /// A `boolean` argument.
    #[inline]
    pub fn bool(&self, index: usize) -> Option<bool> {
        self.argument(index).map(|datum| datum.value() != 0)
    }

    /// An `int` argument.
    #[inline]
    #[allow(clippy::cast_possible_truncation, reason = "an int's Datum holds it in its lower half")]
    pub fn i32(&self, index: usize) -> Option<i32> {
        self.argument(index).map(|datum| datum.value() as i32)
    }

    /// A `bigint` argument.
    #[inline]
    #[allow(clippy::cast_possible_wrap, reason = "a bigint's Datum holds its bits")]
    pub fn i64(&self, index: usize) -> Option<i64> {
        self.argument(index).map(|datum| datum.value() as i64)
    }

    /// A `text` or `bytea` argument; text in the database's encoding.
    #[inline]
    pub fn bytes(&self, index: usize) -> Option<&'c [u8]> {
        // SAFETY: the SQL declarations give such arguments a varlena type.
        self.argument(index).map(|datum| unsafe { payload(datum) })
    }

    /// A `text` argument, also for calls into the server.
    #[inline]
    pub fn raw_text(&self, index: usize) -> Option<Text<'c>> {
        self.argument(index).map(|datum| Text { datum, lifetime: PhantomData })
    }

    /// A `text` argument for people, or a word that means something; what is longer than any such text is cut off.
    pub fn text(&self, index: usize) -> Option<String> {
        const LONGEST: usize = 4096;
        self.bytes(index).map(|bytes| decode_start(bytes, LONGEST))
    }

    /// A `jsonb` argument.
    #[inline]
    pub fn jsonb(&self, index: usize) -> Option<Jsonb<'c>> {
        self.argument(index).map(|datum| Jsonb { datum, lifetime: PhantomData })
    }

    /// An `interval` argument.
    #[inline(always)]
    pub fn interval(&self, index: usize) -> Option<Time> {
        // SAFETY: the SQL declarations give such arguments the type interval, passed by reference.
        self.argument(index).map(|datum| interval_micros(unsafe { *datum.cast_mut_ptr::<pg_sys::Interval>() }))
    }

    /// A `timestamptz` argument.
    #[inline]
    pub fn instant(&self, index: usize) -> Option<Time> {
        self.i64(index).map(|micros| match micros {
            i64::MAX => Time::Infinite,
            i64::MIN => Time::NegativeInfinite,
            micros => Time::Micros(micros),
        })
    }

    /// A `text[]` argument's elements; an array of more than one dimension gives them in storage order.
    pub fn text_array(&self, index: usize) -> Option<Array<'c, &'c [u8]>> {
        // SAFETY: elements of such an array are varlenas, which live as long as the call.
        self.array(index, pg_sys::TEXTOID, -1, false, b'i', |datum| unsafe { payload(datum) })
    }

    /// The same, also for calls into the server.
    pub fn raw_text_array(&self, index: usize) -> Option<Array<'c, Text<'c>>> {
        self.array(index, pg_sys::TEXTOID, -1, false, b'i', |datum| Text { datum, lifetime: PhantomData })
    }

    /// A `bytea[]` argument's elements.
    pub fn bytes_array(&self, index: usize) -> Option<Array<'c, &'c [u8]>> {
        // SAFETY: elements of such an array are varlenas, which live as long as the call.
        self.array(index, pg_sys::BYTEAOID, -1, false, b'i', |datum| unsafe { payload(datum) })
    }

    /// A `jsonb[]` argument's elements.
    pub fn jsonb_array(&self, index: usize) -> Option<Array<'c, Jsonb<'c>>> {
        self.array(index, pg_sys::JSONBOID, -1, false, b'i', |datum| Jsonb { datum, lifetime: PhantomData })
    }

    /// A `bigint[]` argument's elements.
    #[allow(clippy::cast_possible_wrap, reason = "a bigint's Datum holds its bits")]
    pub fn i64_array(&self, index: usize) -> Option<Array<'c, i64>> {
        self.array(index, pg_sys::INT8OID, 8, true, b'd', |datum| datum.value() as i64)
    }

    /// An `int[]` argument's elements.
    pub fn i32_array(&self, index: usize) -> Option<Array<'c, i32>> {
        self.array(index, pg_sys::INT4OID, 4, true, b'i', |datum| datum.value() as i32)
    }

    /// An `interval[]` argument's elements.
    pub fn interval_array(&self, index: usize) -> Option<Array<'c, Time>> {
        // SAFETY: elements of such an array are intervals, passed by reference.
        let micros = |datum: Datum| interval_micros(unsafe { *datum.cast_mut_ptr::<pg_sys::Interval>() });
        self.array(index, pg_sys::INTERVALOID, size_of::<pg_sys::Interval>() as i32, false, b'd', micros)
    }

    fn array<T>(
        &self,
        index: usize,
        element: pg_sys::Oid,
        len: i32,
        by_value: bool,
        align: u8,
        make: fn(Datum) -> T,
    ) -> Option<Array<'c, T>> {
        let datum = self.argument(index)?;
        let (mut items, mut nulls, mut count) = (std::ptr::null_mut(), std::ptr::null_mut(), 0);
        // SAFETY: the SQL declarations give such arguments that array type; the server allocates both lists with
        // `count` elements each, in the call's memory context.
        unsafe {
            let array = pg_sys::pg_detoast_datum(datum.cast_mut_ptr());
            pg_sys::deconstruct_array(
                array.cast(),
                element,
                len as _,
                by_value,
                align as std::ffi::c_char,
                &raw mut items,
                &raw mut nulls,
                &raw mut count,
            );
            let count = usize::try_from(count).unwrap_or(0);
            let (items, nulls) = if count == 0 {
                (&[] as &[Datum], &[] as &[bool])
            } else {
                (std::slice::from_raw_parts(items, count), std::slice::from_raw_parts(nulls, count))
            };
            Some(Array { items, nulls, make })
        }
    }

    /// What the caller tells besides the arguments; NULL for nothing.
    pub(super) fn context(&self) -> *mut pg_sys::Node {
        // SAFETY: the call is valid.
        unsafe { (*self.info).context }
    }

    /// The OID of the function that is called.
    #[inline(always)]
    pub fn function(&self) -> pg_sys::Oid {
        // SAFETY: a valid call names its function.
        unsafe { (*(*self.info).flinfo).fn_oid }
    }

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
