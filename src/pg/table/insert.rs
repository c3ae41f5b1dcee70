//! New rows: first as many as fit onto a page under one lock and in one WAL record, then their index entries, one index
//! after the other in the order of its keys.

use super::design::{MOST_COLUMNS, MOST_INDEXES, MOST_KEYS};
use super::facts::PlainTable;
use super::relation::{Relation, Target};
use crate::pg::{catalog, sequence};
use pgrx::PgMemoryContexts;
use pgrx::pg_sys::{self, Datum, ItemPointerData};

/// Rows that go into the table at once, and bytes of what they hold: what bounds the copies of them that are made.
const ROWS: usize = 256;
const BYTES: usize = 64 << 10;

/// The values of a row, and which of them are NULL: also in the columns behind those of the design, which are dropped ones.
pub struct Values(pub [Datum; MOST_COLUMNS], pub [bool; MOST_COLUMNS]);

impl Values {
    /// Of the leading columns; the others are NULL.
    pub fn of<const COLUMNS: usize>(columns: [Option<Datum>; COLUMNS]) -> Self {
        let (mut values, mut nulls) = ([Datum::null(); MOST_COLUMNS], [true; MOST_COLUMNS]);
        for ((value, null), column) in values.iter_mut().zip(&mut nulls).zip(columns) {
            (*value, *null) = (column.unwrap_or(Datum::null()), column.is_none());
        }
        Values(values, nulls)
    }

    fn get(&self, column: i16) -> Option<Datum> {
        let place = column as usize - 1;
        (!self.1[place]).then(|| self.0[place])
    }
}

/// What is to be inserted.
pub trait NewRow {
    /// Its values, as the design has the columns; `number` is that of the identity column.
    fn values(&self, number: i64) -> Values;

    /// The bytes of its large values.
    fn size(&self) -> usize;
}

impl PlainTable {
    /// The next number of its identity column, which [has a sequence](Self::has_sequence): that of the table whose privileges the
    /// caller has checked.
    pub fn next_number(&self) -> i64 {
        sequence::next(self.sequence.to_u32())
    }

    /// Inserts rows into a plain table, by the given numbers and then by the next ones. What each has become goes to
    /// `inserted`: the row, its number, its place, and the transaction that has written it. False where the table is gone.
    pub fn insert<R: NewRow>(
        &self,
        rows: &[R],
        given: &[i64],
        inserted: impl FnMut(&R, i64, ItemPointerData, pg_sys::TransactionId),
    ) -> bool {
        let Some(table) = Relation::table(self.relation, catalog::lock_mode(true)) else {
            return false;
        };
        // SAFETY: an open relation's descriptor.
        if !(self.design.columns.len()..=MOST_COLUMNS).contains(&(unsafe { (*table.descriptor()).natts } as usize)) {
            return false;
        }
        // SAFETY: no preconditions.
        let command = unsafe { pg_sys::GetCurrentCommandId(true) };
        let given = given.iter();
        let mut insertion = Insertion { facts: self, table, command, given, targets: [const { None }; _], inserted };
        match rows {
            [row] => insertion.one(row),
            _ => insertion.many(rows),
        }
        true
    }
}

struct Insertion<'t, F> {
    facts: &'t PlainTable,
    table: Relation,
    command: pg_sys::CommandId,
    given: std::slice::Iter<'t, i64>,
    /// The indexes, opened when the first row wants to be in them.
    targets: [Option<Target>; MOST_INDEXES],
    inserted: F,
}

impl<F> Insertion<'_, F> {
    fn number(&mut self) -> i64 {
        self.given.next().copied().unwrap_or_else(|| self.facts.next_number())
    }

    fn one<R: NewRow>(&mut self, row: &R)
    where
        F: FnMut(&R, i64, ItemPointerData, pg_sys::TransactionId),
    {
        let number = self.number();
        let mut values = row.values(number);
        // SAFETY: the tuple is formed by the table's own descriptor, which `shape.rs` has compared with the design.
        let (place, writer) = unsafe {
            let tuple = pg_sys::heap_form_tuple(self.table.descriptor(), values.0.as_mut_ptr(), values.1.as_mut_ptr());
            pg_sys::heap_insert(self.table.0, tuple, self.command, 0, std::ptr::null_mut());
            let inserted = ((*tuple).t_self, (*(*tuple).t_data).t_choice.t_heap.t_xmin);
            pg_sys::heap_freetuple(tuple);
            inserted
        };
        self.index(std::slice::from_ref(&values), &mut [place]);
        (self.inserted)(row, number, place, writer);
    }

    fn many<R: NewRow>(&mut self, rows: &[R])
    where
        F: FnMut(&R, i64, ItemPointerData, pg_sys::TransactionId),
    {
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
            self.index(&slots.values, &mut places);
            for ((row, number), place) in now.iter().zip(&numbers).zip(&places) {
                (self.inserted)(row, *number, *place, writer);
            }
        }
    }

    /// Makes the index entries of rows that are in the table.
    fn index(&mut self, rows: &[Values], places: &mut [ItemPointerData]) {
        let facts = self.facts;
        for ((index, oid), target) in facts.indexes().zip(&mut self.targets) {
            for (row, place) in rows.iter().zip(&mut *places) {
                let Some(keys) = keys(index.columns, |column| row.get(column)) else { continue };
                let target = target.get_or_insert_with(|| Target::open(oid));
                // SAFETY: the indexes are the table's own and have these columns; the row was just inserted there.
                unsafe { target.insert(&self.table, keys, place, index.unique, false) };
            }
        }
    }
}

/// The values of an index's columns; `None` where the first is NULL, for an index that has no such rows.
#[inline]
pub(super) fn keys(columns: &[i16], value: impl Fn(i16) -> Option<Datum>) -> Option<[Datum; MOST_KEYS]> {
    let mut keys = [Datum::null(); MOST_KEYS];
    for (key, column) in keys.iter_mut().zip(columns) {
        *key = value(*column)?;
    }
    Some(keys)
}

/// How many of the leading rows go into the table at once; one at the least.
fn portion<R: NewRow>(rows: &[R]) -> usize {
    let mut bytes = 0;
    let fit = rows.iter().take(ROWS).take_while(|row| {
        bytes += row.size();
        bytes <= BYTES
    });
    fit.count().max(1)
}

/// Rows on their way into the table, as the server wants them. Made here and not by the server, whose slots cost more than
/// what they hold: these own nothing that would have to be freed.
#[derive(Default)]
struct Slots {
    values: Vec<Values>,
    filled: Vec<pg_sys::VirtualTupleTableSlot>,
    pointers: Vec<*mut pg_sys::TupleTableSlot>,
}

impl Slots {
    /// Pointers to the filled slots, one a row. They are good until the next call.
    fn fill<R: NewRow>(&mut self, table: &Relation, rows: &[R], numbers: &[i64]) -> *mut *mut pg_sys::TupleTableSlot {
        self.values.clear();
        self.values.extend(rows.iter().zip(numbers).map(|(row, number)| row.values(*number)));
        self.filled.clear();
        // SAFETY: an open relation's descriptor.
        let valid = unsafe { (*table.descriptor()).natts } as i16;
        // A slot that says that it owns its values isn't made to copy them.
        let flags = pg_sys::TTS_FLAG_SHOULDFREE as u16;
        self.filled.extend(self.values.iter_mut().map(|Values(values, nulls)| pg_sys::VirtualTupleTableSlot {
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
