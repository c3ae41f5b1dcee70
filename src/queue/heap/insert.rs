//! New rows for a queue's table, past the executor: first as many rows as fit onto a page under one lock and in one WAL
//! record, then their index entries, one index after the other in the order of its keys.

use super::columns::{COLUMNS, MOST_COLUMNS};
use super::table::{NewRow, QueueTable, group_number, tid_of};
use crate::pg::catalog;
use crate::pg::fmgr::{Jsonb, Text};
use crate::pg::relation::{Relation, insert_into_index};
use enough_engine::queue::{Entry, Tag};
use pgrx::PgMemoryContexts;
use pgrx::pg_sys::{self, Datum, ItemPointerData};

/// Rows that go into the table at once, and bytes of their payloads: what bounds the copies of them that are made.
const ROWS: usize = 256;
const BYTES: usize = 64 << 10;

unsafe extern "C-unwind" {
    /// `commands/sequence.h`; not among pgrx's bindings.
    fn nextval_internal(relid: pg_sys::Oid, check_permissions: bool) -> i64;
}

impl QueueTable {
    /// The next message number.
    pub fn next_msg_id(&self) -> i64 {
        let sequence = self.sequence;
        // SAFETY: the closure holds nothing that would have to be dropped. The sequence belongs to the table whose
        // privileges the caller has checked.
        unsafe { pg_sys::ffi::pg_guard_ffi_boundary(|| nextval_internal(sequence, false)) }
    }

    /// Inserts rows without a `dedup_key`, by the given numbers and then by the next ones; what each has become goes to
    /// `inserted`. False where the table is gone.
    pub fn insert(&self, rows: &[NewRow<'_>], given: &[i64], inserted: impl FnMut(Entry)) -> bool {
        let Some(table) = Relation::table(self.relation, catalog::lock_mode(true)) else {
            return false;
        };
        // SAFETY: an open relation's descriptor.
        if !(COLUMNS.len()..=MOST_COLUMNS).contains(&(unsafe { (*table.descriptor()).natts } as usize)) {
            return false;
        }
        // SAFETY: no preconditions.
        let command = unsafe { pg_sys::GetCurrentCommandId(true) };
        let given = given.iter();
        let mut insertion =
            Insertion { facts: self, table, command, given, key: None, timed: None, grouped: None, inserted };
        match rows {
            [row] => insertion.one(row),
            _ => insertion.many(rows),
        }
        true
    }
}

/// An open index and what the server wants to know of it.
struct Target(Relation, *mut pg_sys::IndexInfo);

impl Target {
    fn open(index: pg_sys::Oid) -> Self {
        let index = Relation::index(index);
        // SAFETY: the index is open.
        let info = unsafe { pg_sys::BuildIndexInfo(index.0) };
        Target(index, info)
    }
}

struct Insertion<'t, F> {
    facts: &'t QueueTable,
    table: Relation,
    command: pg_sys::CommandId,
    given: std::slice::Iter<'t, i64>,
    // Opened when the first row wants to be in it.
    key: Option<Target>,
    timed: Option<Target>,
    grouped: Option<Target>,
    inserted: F,
}

impl<F: FnMut(Entry)> Insertion<'_, F> {
    fn number(&mut self) -> i64 {
        self.given.next().copied().unwrap_or_else(|| self.facts.next_msg_id())
    }

    fn one(&mut self, row: &NewRow<'_>) {
        let msg_id = self.number();
        let (mut values, mut nulls) = columns(row, msg_id);
        // SAFETY: the tuple is formed by the table's own descriptor, which `plain` has compared with the columns.
        let (place, writer) = unsafe {
            let tuple = pg_sys::heap_form_tuple(self.table.descriptor(), values.as_mut_ptr(), nulls.as_mut_ptr());
            pg_sys::heap_insert(self.table.0, tuple, self.command, 0, std::ptr::null_mut());
            let inserted = ((*tuple).t_self, (*(*tuple).t_data).t_choice.t_heap.t_xmin);
            pg_sys::heap_freetuple(tuple);
            inserted
        };
        self.index(std::slice::from_ref(row), &[msg_id], &mut [place], writer);
    }

    fn many(&mut self, rows: &[NewRow<'_>]) {
        // What the server copies a row into on its way, which it leaves to its caller to free.
        let mut copies = PgMemoryContexts::new("rows of a batch");
        let (mut numbers, mut slots, mut places) = (Vec::new(), Slots::default(), Vec::new());
        let mut rest = rows;
        while !rest.is_empty() {
            let (now, later) = rest.split_at(portion(rest));
            rest = later;
            numbers.clear();
            numbers.extend(now.iter().map(|_| self.number()));
            let filled = slots.fill(&self.table, now, &numbers);
            let (table, command, count) = (self.table.0, self.command, now.len() as i32);
            // SAFETY: as many slots as rows are filled. The server reads them, and writes the rows' places into them.
            let writer = unsafe {
                copies.switch_to(|_| {
                    pg_sys::heap_multi_insert(table, filled, count, command, 0, std::ptr::null_mut());
                });
                copies.reset();
                pg_sys::GetCurrentTransactionIdIfAny()
            };
            places.clear();
            places.extend(slots.places());
            self.index(now, &numbers, &mut places, writer);
        }
    }

    /// Makes the index entries of rows that are in the table, and tells what they have become.
    fn index(
        &mut self,
        rows: &[NewRow<'_>],
        numbers: &[i64],
        places: &mut [ItemPointerData],
        writer: pg_sys::TransactionId,
    ) {
        let (facts, table) = (self.facts, &self.table);
        // SAFETY: the indexes are the table's own and have these columns; the rows were just inserted at these places.
        unsafe {
            let Target(index, info) = self.key.get_or_insert_with(|| Target::open(facts.key_index));
            for (msg_id, place) in numbers.iter().zip(&mut *places) {
                insert_into_index(index, *info, table, [Datum::from(*msg_id)], place, true);
            }
            for (row, place) in rows.iter().zip(&mut *places) {
                let Some(deliver_at) = row.deliver_at else { continue };
                let Target(index, info) = self.timed.get_or_insert_with(|| Target::open(facts.timed_index));
                insert_into_index(index, *info, table, [Datum::from(deliver_at)], place, false);
            }
            for ((row, msg_id), place) in rows.iter().zip(numbers).zip(&mut *places) {
                let Some(group) = row.group_key else { continue };
                let Target(index, info) = self.grouped.get_or_insert_with(|| Target::open(facts.group_index));
                insert_into_index(index, *info, table, [group.datum(), Datum::from(*msg_id)], place, false);
            }
        }
        for ((row, msg_id), place) in rows.iter().zip(numbers).zip(places) {
            (self.inserted)(Entry {
                msg_id: *msg_id,
                tid: tid_of(*place),
                priority: row.priority as u8,
                attempts: 0,
                deliver_at: row.deliver_at,
                group: group_number(row.group_key.map(Text::payload)),
                tag: Tag::new(row.enqueued_at, Some(writer.into())),
            });
        }
    }
}

/// How many of the leading rows go into the table at once; one at the least.
fn portion(rows: &[NewRow<'_>]) -> usize {
    let mut bytes = 0;
    let fit = rows.iter().take(ROWS).take_while(|row| {
        bytes += row.message.size() + row.headers.map_or(0, Jsonb::size);
        bytes <= BYTES
    });
    fit.count().max(1)
}

/// The row's values, and which are NULL: also in the columns behind those of a queue, which are dropped ones.
fn columns(row: &NewRow<'_>, msg_id: i64) -> ([Datum; MOST_COLUMNS], [bool; MOST_COLUMNS]) {
    let columns: [Option<Datum>; COLUMNS.len()] = [
        Some(Datum::from(msg_id)),
        Some(Datum::from(row.enqueued_at)),
        row.deliver_at.map(Datum::from),
        Some(Datum::from(0_i32)),
        Some(Datum::from(row.priority)),
        row.group_key.map(Text::datum),
        None,
        row.headers.map(Jsonb::datum),
        Some(row.message.datum()),
        None,
    ];
    let (mut values, mut nulls) = ([Datum::null(); MOST_COLUMNS], [true; MOST_COLUMNS]);
    for ((value, null), column) in values.iter_mut().zip(&mut nulls).zip(columns) {
        (*value, *null) = (column.unwrap_or(Datum::null()), column.is_none());
    }
    (values, nulls)
}

/// Rows on their way into the table, as the server wants them. Made here and not by the server, whose slots cost more than
/// what they hold: these own nothing that would have to be freed.
#[derive(Default)]
struct Slots {
    columns: Vec<([Datum; MOST_COLUMNS], [bool; MOST_COLUMNS])>,
    filled: Vec<pg_sys::VirtualTupleTableSlot>,
    pointers: Vec<*mut pg_sys::TupleTableSlot>,
}

impl Slots {
    /// Pointers to the filled slots, one a row. They are good until the next call.
    fn fill(&mut self, table: &Relation, rows: &[NewRow<'_>], numbers: &[i64]) -> *mut *mut pg_sys::TupleTableSlot {
        self.columns.clear();
        self.columns.extend(rows.iter().zip(numbers).map(|(row, msg_id)| columns(row, *msg_id)));
        self.filled.clear();
        // SAFETY: an open relation's descriptor.
        let valid = unsafe { (*table.descriptor()).natts } as i16;
        // A slot that says that it owns its values isn't made to copy them.
        let flags = pg_sys::TTS_FLAG_SHOULDFREE as u16;
        self.filled.extend(self.columns.iter_mut().map(|(values, nulls)| pg_sys::VirtualTupleTableSlot {
            base: pg_sys::TupleTableSlot {
                type_: pg_sys::NodeTag::T_TupleTableSlot,
                tts_flags: flags,
                tts_nvalid: valid,
                tts_ops: &raw const pg_sys::TTSOpsVirtual,
                tts_tupleDescriptor: table.descriptor(),
                tts_values: values.as_mut_ptr(),
                tts_isnull: nulls.as_mut_ptr(),
                ..Default::default()
            },
            data: std::ptr::null_mut(),
        }));
        self.pointers.clear();
        self.pointers.extend(self.filled.iter_mut().map(|slot| &raw mut slot.base));
        self.pointers.as_mut_ptr()
    }

    /// Where the rows are now.
    fn places(&self) -> impl Iterator<Item = ItemPointerData> {
        self.filled.iter().map(|slot| slot.base.tts_tid)
    }
}
