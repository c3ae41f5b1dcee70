//! Errors with a SQLSTATE that isn't among the server's own, which the server's log doesn't get.
//!
//! A limit that is exceeded is an answer to the client and no fault of anything: a client that is denied a thousand times a
//! second must not fill the disk with it. So such an error is raised here and not through pgrx, which knows the server's
//! SQLSTATEs only.

use super::unguarded::c_string;
use pgrx::pg_sys;
use std::ffi::{c_char, c_int};

unsafe extern "C-unwind" {
    fn errstart(level: c_int, domain: *const c_char) -> bool;
    fn errcode(sqlstate: c_int) -> c_int;
    fn errmsg_internal(format: *const c_char, ...) -> c_int;
    fn errdetail_internal(format: *const c_char, ...) -> c_int;
    fn errhint(format: *const c_char, ...) -> c_int;
    fn errfinish(file: *const c_char, line: c_int, function: *const c_char);
}

/// An error to be raised when no frame of Rust is left that has something to drop. Its texts are in the call's memory
/// context, in the database's encoding.
#[derive(Clone, Copy)]
pub struct Raised {
    sqlstate: c_int,
    message: *const c_char,
    detail: *const c_char,
    hint: *const c_char,
}

impl Raised {
    /// The error of that SQLSTATE, five digits and upper-case letters.
    pub fn new(sqlstate: [u8; 5], message: &[u8], detail: &[u8], hint: Option<&[u8]>) -> Self {
        // As the server packs it: six bits a character, the first in the lowest.
        let packed =
            sqlstate.iter().rev().fold(0, |packed, &byte| packed << 6 | c_int::from(byte.wrapping_sub(b'0') & 63));
        Raised {
            sqlstate: packed,
            message: c_string(message),
            detail: c_string(detail),
            hint: hint.map_or(std::ptr::null(), c_string),
        }
    }
}

/// Raises the error.
///
/// # Safety
/// No frame between this one and the server's has anything to drop.
pub(super) unsafe fn raise(error: Raised) -> ! {
    // SAFETY: the texts end with a zero byte and live as long as the call. `errstart` answers true for an ERROR. Whether
    // the log gets it is decided there and then, by a variable of this process which has its value again right after:
    // nothing in between can fail. Where even debugging messages are logged, this is logged, too.
    unsafe {
        let logged_from = pg_sys::log_min_messages;
        if logged_from > pg_sys::DEBUG1 as c_int {
            pg_sys::log_min_messages = pg_sys::FATAL as c_int;
        }
        errstart(pg_sys::elog::PgLogLevel::ERROR as c_int, std::ptr::null());
        pg_sys::log_min_messages = logged_from;
        errcode(error.sqlstate);
        errmsg_internal(c"%s".as_ptr(), error.message);
        errdetail_internal(c"%s".as_ptr(), error.detail);
        if !error.hint.is_null() {
            errhint(c"%s".as_ptr(), error.hint);
        }
        errfinish(c"raise.rs".as_ptr(), line!() as c_int, c"raise".as_ptr());
        std::process::abort()
    }
}
