//! The columns of a queue's table.

use pgrx::pg_sys::{self, Oid};
use std::ffi::CStr;

/// The columns of `q_<name>`, in their order.
pub const COLUMNS: [(&CStr, Oid); 10] = [
    (c"msg_id", pg_sys::INT8OID),
    (c"enqueued_at", pg_sys::TIMESTAMPTZOID),
    (c"deliver_at", pg_sys::TIMESTAMPTZOID),
    (c"attempts", pg_sys::INT4OID),
    (c"priority", pg_sys::INT2OID),
    (c"group_key", pg_sys::TEXTOID),
    (c"dedup_key", pg_sys::TEXTOID),
    (c"headers", pg_sys::JSONBOID),
    (c"message", pg_sys::JSONBOID),
    (c"last_error", pg_sys::TEXTOID),
];
/// With those that upgrades have dropped, of which the server keeps the places.
pub(super) const MOST_COLUMNS: usize = 16;
// Their numbers.
pub(super) const MSG_ID: i16 = 1;
pub(super) const ENQUEUED_AT: i16 = 2;
pub const DELIVER_AT: i16 = 3;
pub const ATTEMPTS: i16 = 4;
pub(super) const PRIORITY: i16 = 5;
pub(super) const GROUP_KEY: i16 = 6;
pub(super) const DEDUP_KEY: i16 = 7;
pub(super) const HEADERS: i16 = 8;
pub(super) const MESSAGE: i16 = 9;
pub const LAST_ERROR: i16 = 10;
