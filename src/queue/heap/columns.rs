//! What a queue's table is made as.

use crate::pg::table::{Column, Design, Given, Index, Range};
use pgrx::pg_sys::{self, Oid};
use std::ffi::CStr;

// The numbers of its columns.
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

/// How many there are, besides the extra ones.
pub const COUNT: usize = 10;

// The places of its extra columns in [`DESIGN`]: a message's own limits. A table of an earlier version may lack them.
pub(super) const EXPIRES_AT: usize = 0;
pub(super) const MAX_ATTEMPTS: usize = 1;

// The places of its indexes in [`DESIGN`].
pub(super) const BY_NUMBER: usize = 0;
pub(super) const BY_TIME: usize = 1;
pub(super) const BY_GROUP: usize = 2;

/// `q_<name>`.
pub static DESIGN: Design = Design {
    columns: &[
        column(c"msg_id", pg_sys::INT8OID).not_null(),
        column(c"enqueued_at", pg_sys::TIMESTAMPTZOID).not_null(),
        column(c"deliver_at", pg_sys::TIMESTAMPTZOID),
        Column { given: Given::Zero, ..column(c"attempts", pg_sys::INT4OID).not_null() },
        column(c"priority", pg_sys::INT2OID).not_null(),
        column(c"group_key", pg_sys::TEXTOID).bytewise(),
        column(c"dedup_key", pg_sys::TEXTOID).bytewise(),
        column(c"headers", pg_sys::JSONBOID),
        column(c"message", pg_sys::JSONBOID).not_null(),
        Column { given: Given::Null, ..column(c"last_error", pg_sys::TEXTOID) },
    ],
    extra: &[(c"expires_at", pg_sys::TIMESTAMPTZOID), (c"max_attempts", pg_sys::INT4OID)],
    indexes: &[
        // Messages by number.
        Index { columns: &[MSG_ID], partial: false, unique: true, conflicts: false },
        // Those with a delivery time, by that.
        Index { columns: &[DELIVER_AT], partial: true, unique: false, conflicts: false },
        // Those of groups, by group and number.
        Index { columns: &[GROUP_KEY, MSG_ID], partial: true, unique: false, conflicts: false },
        // One live message a deduplication key.
        Index { columns: &[DEDUP_KEY], partial: true, unique: true, conflicts: true },
    ],
    required: 4,
    identity: Some(MSG_ID),
    range: Some(Range { column: PRIORITY, of_length: false, least: 0, most: 9 }),
    triggers: &[],
};
const _: () = assert!(COUNT == LAST_ERROR as usize);

const fn column(name: &'static CStr, kind: Oid) -> Column {
    Column { name, kind, not_null: false, bytewise: false, given: Given::Always }
}

impl Column {
    const fn not_null(self) -> Self {
        Column { not_null: true, ..self }
    }

    const fn bytewise(self) -> Self {
        Column { bytewise: true, ..self }
    }
}
