//! The boundary to the server's error handling: what fails in Rust becomes an ERROR of the server's, and what the server
//! has raised passes through Rust unchanged.
//!
//! An ERROR of the server unwinds Rust's frames as a panic (pgrx's guard around each call of the server makes it one), so
//! that destructors run. That panic knows the SQLSTATE as far as pgrx has a name for it, message, detail and hint. The
//! rest (context, position, the names of table and constraint, a SQLSTATE of a user's own) is copied while the error is
//! being raised, by a callback of its error context, and thrown again from here.
//!
//! No Rust backtrace is ever taken: the panic hook, set at [`init`], notes the place and nothing else.

use super::backend_local::BackendLocal;
use super::encoding::encode;
use super::{unguarded, unguarded::try_palloc};
use crate::error::{Error, Report};
use pgrx::PgSqlErrorCode as Code;
use pgrx::pg_sys::elog::PgLogLevel;
use pgrx::pg_sys::panic::{CaughtError, ErrorReport, ErrorReportWithLevel};
use pgrx::pg_sys::{self, ErrorData};
use std::any::Any;
use std::borrow::Cow;
use std::ffi::{c_char, c_int, c_void};
use std::panic::{AssertUnwindSafe, Location, catch_unwind};
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering::Relaxed};

/// `ERROR`
const LEVEL: c_int = pg_sys::elog::PgLogLevel::ERROR as c_int;

/// Where the last panic was raised.
static PANICKED_AT: BackendLocal<Option<&'static Location<'static>>> = BackendLocal::new(None);

/// The frame of the call that is at work: of calls within one another, the one that an error meets first. The others need no
/// copy of what they will be thrown.
static INNERMOST: AtomicPtr<Frame> = AtomicPtr::new(ptr::null_mut());

/// Replaces the panic hook of pgrx, which would take a backtrace where `RUST_BACKTRACE` is set; once, when the library is
/// loaded.
pub fn init() {
    std::panic::set_hook(Box::new(|panic| {
        if let (Some(mut place), Some(location)) = (PANICKED_AT.get(), panic.location()) {
            // SAFETY: the compiler makes locations as constants of the library, which is never unloaded; the hook's
            // interface merely doesn't say so.
            *place = Some(unsafe { &*ptr::from_ref(location).cast::<Location<'static>>() });
        }
    }));
}

/// What one call has seen of the server's errors.
struct Frame {
    callback: pg_sys::ErrorContextCallback,
    /// The last ERROR that was raised within the call, as it was when it got here; NULL before the first.
    kept: *mut ErrorData,
    /// What the copy is allocated in.
    memory: pg_sys::MemoryContext,
}

impl Frame {
    /// # Safety
    /// `kept` is NULL or a copy that nobody else uses.
    unsafe fn forget(&mut self) {
        let kept = std::mem::replace(&mut self.kept, ptr::null_mut());
        if !kept.is_null() {
            // SAFETY: the caller's promise; frees memory only.
            unsafe { unguarded::FreeErrorData(kept) };
        }
    }
}

/// Called by the server while it raises an error or emits a message, after the callbacks of what was called from here and
/// before those of the callers. Whatever fails in here is raised instead.
unsafe extern "C-unwind" fn keep(frame: *mut c_void) {
    if INNERMOST.load(Relaxed) != frame.cast() {
        return;
    }
    // SAFETY: the frame outlives its place in the list of callbacks. The copy is made as a handler of the error would, in
    // memory that isn't the error's own.
    unsafe {
        // In a critical section nothing may be allocated. An error there is a PANIC, and everything else only a message.
        if pg_sys::CritSectionCount > 0 {
            return;
        }
        let frame = &mut *frame.cast::<Frame>();
        if unguarded::geterrcode() == Code::ERRCODE_OUT_OF_MEMORY as c_int {
            // What pgrx has of it must do.
            frame.forget();
            return;
        }
        let memory = pg_sys::CurrentMemoryContext;
        pg_sys::CurrentMemoryContext = frame.memory;
        let copy = unguarded::CopyErrorData();
        pg_sys::CurrentMemoryContext = memory;
        if (*copy).elevel == LEVEL {
            frame.forget();
            frame.kept = copy;
        } else {
            unguarded::FreeErrorData(copy);
        }
    }
}

/// Does `work` as the outermost of Rust's frames: its error, its panic, or the ERROR of the server's that has passed
/// through it, is raised.
///
/// # Safety
/// The caller is a function that the server has called and has nothing to be dropped.
#[inline]
pub(super) unsafe fn guarded<R>(work: impl FnOnce() -> Result<R, Error>) -> R {
    // SAFETY: variables of this process. The frame is in the list of callbacks only while this function is.
    unsafe {
        let mut frame = Frame {
            callback: pg_sys::ErrorContextCallback {
                previous: pg_sys::error_context_stack,
                callback: Some(keep),
                arg: ptr::null_mut(),
            },
            kept: ptr::null_mut(),
            memory: pg_sys::CurrentMemoryContext,
        };
        let place = &raw mut frame;
        (*place).callback.arg = place.cast();
        pg_sys::error_context_stack = &raw mut (*place).callback;
        let outer = INNERMOST.load(Relaxed);
        INNERMOST.store(place, Relaxed);
        let outcome = catch_unwind(AssertUnwindSafe(work));
        pg_sys::error_context_stack = (*place).callback.previous;
        INNERMOST.store(outer, Relaxed);
        let error = match outcome {
            Ok(Ok(result)) => {
                (*place).forget();
                return result;
            }
            Ok(Err(error)) => error_data(error.report()),
            Err(panic) => of_panic(panic, &mut *place),
        };
        // Nothing is left here that would have to be dropped.
        unguarded::ThrowErrorData(error);
        unreachable!("an ERROR doesn't return")
    }
}

/// What the last error said that was raised within the innermost call, in the database's encoding: for a caller that has just
/// caught it. What pgrx has of it is without what isn't UTF-8.
pub(super) fn last_message() -> Option<Vec<u8>> {
    // SAFETY: the frame is there as long as its call is, and what it keeps is its own. A message is a C string.
    unsafe {
        let kept = INNERMOST.load(Relaxed).as_ref()?.kept.as_ref()?;
        (!kept.message.is_null()).then(|| std::ffi::CStr::from_ptr(kept.message).to_bytes().to_vec())
    }
}

/// # Safety
/// `frame` is that of the call in which the panic was caught.
#[cold]
unsafe fn of_panic(panic: Box<dyn Any + Send>, frame: &mut Frame) -> *mut ErrorData {
    // SAFETY: the caller's promise.
    unsafe {
        match described(panic) {
            // The very error that was raised last, unless memory was short.
            (report, true) if is_that(frame.kept, &report) => frame.kept,
            (report, _) => error_data(report),
        }
    }
}

/// # Safety
/// `kept` is NULL or valid.
unsafe fn is_that(kept: *mut ErrorData, report: &Report) -> bool {
    // SAFETY: the caller's promise; a message is a C string.
    unsafe {
        !kept.is_null()
            && !(*kept).message.is_null()
            && std::ffi::CStr::from_ptr((*kept).message).to_string_lossy() == report.message
    }
}

/// What a panic says, and whether it is an ERROR of the server's.
fn described(panic: Box<dyn Any + Send>) -> (Report, bool) {
    let panic = match panic.downcast::<CaughtError>() {
        Ok(caught) => {
            return match *caught {
                CaughtError::PostgresError(report) => (of_report(&report), true),
                CaughtError::ErrorReport(report) => (of_report(&report), false),
                CaughtError::RustPanic { payload, .. } => (internal(&*payload), false),
            };
        }
        Err(other) => other,
    };
    if let Some(report) = panic.downcast_ref::<ErrorReportWithLevel>() {
        return (of_report(report), false);
    }
    if let Some(report) = panic.downcast_ref::<ErrorReport>() {
        let (code, message) = (Code::ERRCODE_INTERNAL_ERROR, report.message().to_owned());
        let (detail, hint) = (report.detail().map(str::to_owned), report.hint().map(str::to_owned));
        return (Report { code, message, detail, hint }, false);
    }
    (internal(&*panic), false)
}

fn of_report(report: &ErrorReportWithLevel) -> Report {
    Report {
        code: report.sql_error_code(),
        message: report.message().to_owned(),
        detail: report.detail().map(str::to_owned),
        hint: report.hint().map(str::to_owned),
    }
}

/// A panic is a bug.
fn internal(payload: &(dyn Any + Send)) -> Report {
    let said = payload.downcast_ref::<&str>().copied().or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    let place = PANICKED_AT.get().and_then(|place| *place);
    let place = place.map_or_else(String::new, |place| format!(" ({}:{})", place.file(), place.line()));
    Error::Internal { problem: format!("{}{place}", said.unwrap_or("a panic without a message")) }.report()
}

/// What a caught panic says; for what comes too late to be an ERROR.
pub(super) fn message(panic: Box<dyn Any + Send>) -> String {
    described(panic).0.message
}

/// An error as the server wants it.
#[cold]
fn error_data(report: Report) -> *mut ErrorData {
    let bytes = try_palloc(size_of::<ErrorData>());
    let message = c_string(&report.message);
    if bytes.is_null() || message.is_null() {
        return no_memory();
    }
    // SAFETY: the memory has that size, and a pattern of zeros is an error without anything.
    unsafe {
        bytes.cast::<u8>().write_bytes(0, size_of::<ErrorData>());
        let error = bytes.cast::<ErrorData>();
        (*error).elevel = LEVEL;
        (*error).sqlerrcode = report.code as c_int;
        (*error).message = message;
        (*error).detail = report.detail.map_or(ptr::null_mut(), |detail| c_string(&detail));
        (*error).hint = report.hint.map_or(ptr::null_mut(), |hint| c_string(&hint));
        (*error).funcname = c"pg_enough".as_ptr();
        error
    }
}

/// A copy in the database's encoding that ends with a zero byte, and before the first one in the text; NULL where there is no
/// memory.
fn c_string(text: &str) -> *mut c_char {
    let text = text.split('\0').next().unwrap_or_default();
    // The server's conversions may fail. This is no place for an ERROR, and what is ASCII needs none.
    let encoded = catch_unwind(|| encode(text)).unwrap_or(Cow::Borrowed(text.as_bytes()));
    let text = &*encoded;
    let copy: *mut u8 = try_palloc(text.len() + 1).cast();
    if !copy.is_null() {
        // SAFETY: the copy has room for the text and the zero.
        unsafe {
            ptr::copy_nonoverlapping(text.as_ptr(), copy, text.len());
            copy.add(text.len()).write(0);
        }
    }
    copy.cast()
}

/// Tells the client something that is no error.
pub fn notice(message: &str) {
    tell(PgLogLevel::NOTICE, Code::ERRCODE_SUCCESSFUL_COMPLETION, message.to_owned());
}

/// Tells the client, and the log, that something was done in spite of an error.
pub(super) fn warn(code: Code, message: String) {
    tell(PgLogLevel::WARNING, code, message);
}

fn tell(level: PgLogLevel, code: Code, message: String) {
    let report = error_data(Report { code, message, detail: None, hint: None });
    // SAFETY: a complete report; below ERROR the call returns.
    unsafe {
        (*report).elevel = level as c_int;
        pg_sys::ThrowErrorData(report);
    }
}

/// The error that needs no memory.
fn no_memory() -> *mut ErrorData {
    struct Fixed(std::cell::UnsafeCell<ErrorData>);
    // SAFETY: a server process has one thread.
    unsafe impl Sync for Fixed {}
    // SAFETY: a pattern of zeros is an error without anything.
    static FIXED: Fixed = Fixed(std::cell::UnsafeCell::new(unsafe { std::mem::zeroed() }));
    let error = FIXED.0.get();
    // SAFETY: nobody else uses it; the server copies what it is given.
    unsafe {
        (*error).elevel = LEVEL;
        (*error).sqlerrcode = Code::ERRCODE_OUT_OF_MEMORY as c_int;
        (*error).message = c"out of memory".as_ptr().cast_mut();
    }
    error
}
