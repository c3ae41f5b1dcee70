//! From SQL into Rust and back: calls, and their arguments without copies that nobody needs.
//!
//! The SQL side of every function is written by hand in `sql/`, where its defaults, volatility, strictness and comment
//! can be seen; the Rust side is a plain function from a [`Call`] to a [`Value`], exported by [`export!`](crate::export)
//! under the name `enough_<function>`. This is thinner than pgrx's `#[pg_extern]`: a `jsonb` stays in the server's own
//! binary form, and a result row's descriptor is looked up once a session instead of once a call.
//!
//! Argument numbers count from 0. All functions are called on NULL input, because NULL is an error that names the
//! argument or means a default, never a NULL result.

use super::argument::payload;
pub use super::argument::{Array, Jsonb, Text};
use super::encoding::decode_start;
use super::guard::guarded;
pub use super::results::Rows;
use super::server;
pub use super::time::Time;
use super::time::interval_micros;
pub use super::value::{Buffer, Value};
use crate::error::Error;
use pgrx::pg_sys::{self, Datum};
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
            let value = body(&mut Call::of(info))?;
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
    // SAFETY: the caller's promise.
    let call = unsafe { Call::of(info) };
    let answer = if server::is_parallel_worker() { None } else { short(&call) };
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
    pub(super) info: pg_sys::FunctionCallInfo,
    lifetime: PhantomData<&'c ()>,
}

impl<'c> Call<'c> {
    /// # Safety
    /// As for [`dispatch`]; the arguments live as long as `'c`.
    #[inline(always)]
    unsafe fn of(info: pg_sys::FunctionCallInfo) -> Self {
        Call { info, lifetime: PhantomData }
    }

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

    /// An argument that is the OID of something, as a `regclass`.
    pub fn oid(&self, index: usize) -> Option<u32> {
        self.argument(index).map(|datum| datum.value() as u32)
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
        // SAFETY: the SQL declarations give such arguments the type text.
        self.argument(index).map(|datum| unsafe { Text::of(datum) })
    }

    /// A `text` argument for people, or a word that means something; what is longer than any such text is cut off.
    pub fn text(&self, index: usize) -> Option<String> {
        const LONGEST: usize = 4096;
        self.bytes(index).map(|bytes| decode_start(bytes, LONGEST))
    }

    /// A `jsonb` argument.
    #[inline]
    pub fn jsonb(&self, index: usize) -> Option<Jsonb<'c>> {
        // SAFETY: the SQL declarations give such arguments the type jsonb.
        self.argument(index).map(|datum| unsafe { Jsonb::of(datum) })
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
        // SAFETY: elements of such an array are texts, which live as long as the call.
        self.array(index, pg_sys::TEXTOID, -1, false, b'i', |datum| unsafe { Text::of(datum) })
    }

    /// A `bytea[]` argument's elements.
    pub fn bytes_array(&self, index: usize) -> Option<Array<'c, &'c [u8]>> {
        // SAFETY: elements of such an array are varlenas, which live as long as the call.
        self.array(index, pg_sys::BYTEAOID, -1, false, b'i', |datum| unsafe { payload(datum) })
    }

    /// A `jsonb[]` argument's elements.
    pub fn jsonb_array(&self, index: usize) -> Option<Array<'c, Jsonb<'c>>> {
        // SAFETY: elements of such an array are jsonb, which live as long as the call.
        self.array(index, pg_sys::JSONBOID, -1, false, b'i', |datum| unsafe { Jsonb::of(datum) })
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
            Some(Array::of(items, nulls, make))
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
}
