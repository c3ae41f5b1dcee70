//! Writing past the executor: a new version of a row that is there, where the space's table is as `kv_create` makes it, without a history and
//! without an index for documents. It does what the statement would do, and what the triggers would do for it.
//!
//! Only where each statement sees what is committed by then: a row that others have changed meanwhile is looked at again. A version is
//! drawn after the row was seen and before it is written. So where nobody else has changed it in between, it is greater than the row's.

use super::known::{self, Epoch};
use super::table::Space;
use super::{version, wake};
use crate::coherent::rows;
use crate::error::Error;
use crate::pg::backend_local::BackendLocal;
use crate::pg::catalog::{self, Privilege};
use crate::pg::fmgr::{Jsonb, Text, Value};
use crate::pg::table::rows::Columns;
use crate::pg::table::snapshot::fixed_snapshot;
use crate::pg::table::{Column, Design, Given, Index, PlainTable, Range, Trigger};
use crate::pg::{level, server};
use pgrx::pg_sys::{self, TM_Result};
use std::ffi::CStr;

// The numbers of the columns.
const KEY: i16 = known::KEY;
const VALUE: i16 = 2;
const VERSION: i16 = 3;
const FENCE: i16 = 4;
const UPDATED_AT: i16 = 5;
const EXPIRES_AT: i16 = 6;

/// `kv_<space>`, as `space.rs` makes it.
static DESIGN: Design = Design {
    columns: &[
        Column { not_null: true, bytewise: true, ..column(c"key", pg_sys::TEXTOID) },
        column(c"value", pg_sys::JSONBOID),
        given(c"version", pg_sys::INT8OID, Given::Next(c"_kv_version")),
        given(c"fence", pg_sys::XID8OID, Given::Own(c"_kv_fence")),
        given(c"updated_at", pg_sys::TIMESTAMPTZOID, Given::Server(pg_sys::F_CLOCK_TIMESTAMP)),
        column(c"expires_at", pg_sys::TIMESTAMPTZOID),
    ],
    extra: &[],
    indexes: &[
        Index { columns: &[KEY], partial: false, unique: true, conflicts: true },
        Index { columns: &[EXPIRES_AT], partial: true, unique: false, conflicts: false },
        // For those who watch. Without it a new version of a row that stays on its page takes no entry in any index.
        Index { columns: &[VERSION], partial: false, unique: false, conflicts: false },
    ],
    required: 2,
    identity: None,
    range: Some(Range { column: KEY, of_length: true, least: 1, most: 512 }),
    triggers: &[
        Trigger { always: true, ..trigger(c"kv_copies", c"_kv_copies", ROW | UPDATE | DELETE) },
        // What is written here has a version of its own, so this has nothing to do.
        trigger(c"kv_stamp", c"_kv_stamp", BEFORE | ROW | UPDATE),
        trigger(c"kv_changed", c"_kv_changed", INSERT | UPDATE | DELETE),
        trigger(c"kv_truncate", c"_kv_changed", BEFORE | TRUNCATE),
        trigger(c"kv_truncated", c"_kv_changed", TRUNCATE),
        trigger(c"kv_deleted", c"_kv_changed", ROW | DELETE),
    ],
};

const ROW: u32 = pg_sys::TRIGGER_TYPE_ROW;
const BEFORE: u32 = pg_sys::TRIGGER_TYPE_BEFORE;
const INSERT: u32 = pg_sys::TRIGGER_TYPE_INSERT;
const UPDATE: u32 = pg_sys::TRIGGER_TYPE_UPDATE;
const DELETE: u32 = pg_sys::TRIGGER_TYPE_DELETE;
const TRUNCATE: u32 = pg_sys::TRIGGER_TYPE_TRUNCATE;

const fn column(name: &'static CStr, kind: pg_sys::Oid) -> Column {
    Column { name, kind, not_null: false, bytewise: false, given: Given::Null }
}

const fn given(name: &'static CStr, kind: pg_sys::Oid, given: Given) -> Column {
    Column { not_null: true, given, ..column(name, kind) }
}

const fn trigger(name: &'static CStr, function: &'static CStr, fires: u32) -> Trigger {
    Trigger { name, function, fires, always: false }
}

/// The most tables that a session knows.
const MOST: usize = 16;

/// A table, and the role that may write it; 0 for none that is known.
#[derive(Clone, Copy)]
struct Known {
    table: PlainTable,
    writer: u32,
}

/// The tables as this session knows them, and the numbers of changes by which it has learned of them.
struct Tables {
    known: [Option<Known>; MOST],
    /// Which one gives way next.
    next: usize,
    epoch: Epoch,
}

static TABLES: BackendLocal<Tables> =
    BackendLocal::new(Tables { known: [None; MOST], next: 0, epoch: Epoch { relations: 0, roles: 0 } });

/// The table of a space, where it may be written here by the current role, with the lock that writing takes.
fn writable(space: &Space) -> Option<PlainTable> {
    catalog::lock(space.oid, true);
    let (epoch, role) = (Epoch::now(), level::current_role());
    let known = TABLES.get().filter(|tables| tables.epoch == epoch).and_then(|tables| {
        let mut all = tables.known.iter().map_while(Option::as_ref);
        all.find(|known| known.table.relation == space.oid && known.writer == role).copied()
    });
    let known = known.or_else(|| look(space, epoch, role))?;
    (known.table.plain && known.writer == role).then_some(known.table)
}

#[cold]
fn look(space: &Space, epoch: Epoch, role: u32) -> Option<Known> {
    let table = PlainTable::read(&DESIGN, space.oid).ok()??;
    let may_set = [Privilege::Observe, Privilege::Send].into_iter().all(|one| catalog::has_privilege(space.oid, one))
        && catalog::may_update(space.oid);
    let writer = if may_set { role } else { 0 };
    let read = Known { table, writer };
    // Reading the catalogs may itself have taken in an announcement. What matters of this table can't have changed, because of the lock.
    if epoch == Epoch::now()
        && let Some(mut known) = TABLES.get()
    {
        if known.epoch != epoch {
            *known = Tables { known: [None; MOST], next: 0, epoch };
        }
        let next = known.next;
        if let Some(place) = known.known.get_mut(next) {
            *place = Some(read);
        }
        known.next = (next + 1) % MOST;
    }
    Some(read)
}

/// An entry, before its row is written.
pub(super) struct Live {
    pub version: i64,
}

impl Live {
    /// The entry that a row is; `None` where it is deleted or over.
    fn of(row: &Columns, now: i64) -> Option<Self> {
        let number = |column| row.get(column).map(|value| value.value().cast_signed() as i64);
        let expires_at = number(EXPIRES_AT);
        row.get(VALUE).filter(|_| expires_at.is_none_or(|at| at > now))?;
        Some(Live { version: number(VERSION)? })
    }
}

/// What a row becomes.
pub(super) struct New<'n> {
    /// `None` where the key is deleted.
    pub value: Option<Jsonb<'n>>,
    /// In microseconds since PostgreSQL's epoch; `None` for never.
    pub expires_at: Option<i64>,
}

/// What has come of it.
pub(super) enum Outcome {
    /// The row is written, and has that version.
    Written(i64),
    /// The entry isn't to be changed.
    Kept,
    /// A statement has to do it: there is no row, or the table or the transaction isn't one for this.
    Left,
}

/// Writes the row of a key: what `new` makes of the entry that it is now, if it is one.
pub(super) fn change<'n>(
    space: &Space,
    key: Text<'_>,
    new: impl Fn(Option<Live>) -> Option<New<'n>>,
) -> Result<Outcome, Error> {
    if fixed_snapshot() || server::in_parallel_mode() {
        return Ok(Outcome::Left);
    }
    let Some(facts) = writable(space) else { return Ok(Outcome::Left) };
    // What this transaction has done so far is to be seen, as by a statement.
    let mut now = server::has_written();
    if now {
        server::next_command();
    }
    let Some(table) = facts.open(true) else { return Ok(Outcome::Left) };
    loop {
        let Some(row) = table.by_text(key, now) else { return Ok(Outcome::Left) };
        let Some(new) = new(Live::of(&table.deform(row), server::now())) else { return Ok(Outcome::Kept) };
        let version = version::draw_from(facts.sequence.to_u32())?;
        let changes = [
            (VALUE, Value::or_null(new.value, |value| Value::Raw(value.datum()))),
            (VERSION, Value::I64(version)),
            // Both are 64 bits.
            (FENCE, Value::I64(server::next_transaction().cast_signed())),
            (UPDATED_AT, Value::Instant(server::now())),
            (EXPIRES_AT, Value::or_null(new.expires_at, Value::Instant)),
        ];
        match table.update_row(row, &changes).0 {
            TM_Result::TM_Ok => {
                if let Some(domain) = known::of_table(space.oid)? {
                    rows::end(domain, key.payload())?;
                }
                wake::note(space.oid);
                return Ok(Outcome::Written(version));
            }
            // By a transaction that has committed since: look again.
            TM_Result::TM_Updated | TM_Result::TM_Deleted => now = true,
            _ => return Ok(Outcome::Left),
        }
        server::check_for_interrupts();
    }
}
