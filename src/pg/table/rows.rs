//! Rows that are there: found by place or key, locked, deleted, updated.

use super::design::{EXTRA, MOST_COLUMNS};
use super::facts::PlainTable;
use super::insert::keys;
use super::relation::{Relation, Target};
use super::snapshot::{Latest, is_serializable, scanned_by, shows, shows_slot};
use crate::pg::catalog;
use crate::pg::fmgr::{Text, Value};
use pgrx::pg_sys::{self, Datum, ItemPointerData, Oid};
use pgrx::varlena::{varatt_is_1b_e, varatt_is_4b_c};
use std::cell::OnceCell;

/// A copy of a version of a row, in the call's memory.
#[derive(Clone, Copy)]
pub struct Tuple(pg_sys::HeapTuple);

impl Tuple {
    /// # Safety
    /// `tuple` is a whole tuple, for as long as this value is used.
    pub unsafe fn at(tuple: pg_sys::HeapTuple) -> Self {
        Tuple(tuple)
    }

    /// Where it is.
    pub fn place(self) -> ItemPointerData {
        // SAFETY: the tuple is whole.
        unsafe { (*self.0).t_self }
    }

    /// Its bytes, without what is stored out of line.
    pub fn size(self) -> usize {
        // SAFETY: the tuple is whole.
        unsafe { (*self.0).t_len as usize }
    }

    /// The transaction that has inserted the row; `None` where another version came before this one. The server leaves the
    /// number in place when it freezes a row.
    pub fn inserted_by(self) -> Option<pg_sys::TransactionId> {
        // SAFETY: the tuple is whole.
        unsafe {
            let header = (*self.0).t_data;
            let updated = u32::from((*header).t_infomask) & pg_sys::HEAP_UPDATED != 0;
            (!updated).then(|| (*header).t_choice.t_heap.t_xmin)
        }
    }

    fn writer(self) -> pg_sys::TransactionId {
        // SAFETY: the tuple is whole.
        unsafe { (*(*self.0).t_data).t_choice.t_heap.t_xmin }
    }

    /// Whether this transaction has written that version.
    pub fn is_written_here(self) -> bool {
        // SAFETY: the tuple is whole. The mark of a committed writer is never there while the writer is at work.
        unsafe {
            let header = (*self.0).t_data;
            u32::from((*header).t_infomask) & pg_sys::HEAP_XMIN_COMMITTED == 0
                && pg_sys::TransactionIdIsCurrentTransactionId((*header).t_choice.t_heap.t_xmin)
        }
    }

    /// The transaction that has deleted this version, or put another one in its place, whatever has become of that.
    fn ended_by(self) -> Option<pg_sys::TransactionId> {
        // SAFETY: the tuple is whole. Which transaction of several has changed the row is asked for only where several are noted and
        // one of them has.
        unsafe {
            let header = (*self.0).t_data;
            let mask = u32::from((*header).t_infomask);
            if mask & (pg_sys::HEAP_XMAX_INVALID | pg_sys::HEAP_XMAX_LOCK_ONLY) != 0 {
                None
            } else if mask & pg_sys::HEAP_XMAX_IS_MULTI == 0 {
                Some((*header).t_choice.t_heap.t_xmax)
            } else {
                Some(pg_sys::HeapTupleGetUpdateXid(header))
            }
        }
    }

    /// The place of the version that was put in this one's place; `None` where none was.
    fn next_place(self) -> Option<ItemPointerData> {
        // SAFETY: the tuple is whole. A deleted row's place is its own; of an updated one it is that of the next version.
        let (next, own) = unsafe { ((*(*self.0).t_data).t_ctid, (*self.0).t_self) };
        let same = next.ip_posid == own.ip_posid
            && (next.ip_blkid.bi_hi, next.ip_blkid.bi_lo) == (own.ip_blkid.bi_hi, own.ip_blkid.bi_lo);
        (!same).then_some(next)
    }

    /// Whether another transaction, which is still open, is changing the row or keeps others from it.
    pub fn is_being_changed(self) -> bool {
        // SAFETY: the tuple is whole. The transaction that a mark in it stands for is asked for only where the mark is there.
        unsafe {
            let header = (*self.0).t_data;
            let mask = u32::from((*header).t_infomask);
            let other = (*header).t_choice.t_heap.t_xmax;
            if mask & pg_sys::HEAP_XMAX_INVALID != 0 {
                return false;
            }
            if mask & pg_sys::HEAP_XMAX_IS_MULTI != 0 {
                return pg_sys::MultiXactIdIsRunning(other, mask & pg_sys::HEAP_XMAX_LOCK_ONLY != 0);
            }
            !pg_sys::TransactionIdIsCurrentTransactionId(other) && pg_sys::TransactionIdIsInProgress(other)
        }
    }
}

/// The values of a row's leading columns.
pub struct Columns {
    values: [Datum; MOST_COLUMNS],
    nulls: [bool; MOST_COLUMNS],
    extra: [i16; EXTRA],
}

impl Columns {
    /// The value of the column with that number; `None` for NULL.
    #[inline]
    pub fn get(&self, column: i16) -> Option<Datum> {
        let place = column as usize - 1;
        (!self.nulls[place]).then(|| self.values[place])
    }

    /// The value of one of the design's extra columns; `None` for NULL, or where the table hasn't got it.
    #[inline]
    pub fn extra(&self, which: usize) -> Option<Datum> {
        match self.extra[which] {
            0 => None,
            column => self.get(column),
        }
    }
}

/// A varlena that is neither compressed nor out of line, with the same value.
///
/// # Safety
/// `datum` is a varlena; where it is out of line, its row is still there.
pub unsafe fn fetched(datum: Datum) -> Datum {
    let varlena = datum.cast_mut_ptr();
    // SAFETY: the caller's promise. A guarded call for the few that are compressed or out of line.
    unsafe {
        if varatt_is_4b_c(varlena) || varatt_is_1b_e(varlena) {
            return Datum::from(pg_sys::pg_detoast_datum_packed(varlena));
        }
    }
    datum
}

/// A table while a call works on it.
pub struct OpenTable<'t> {
    facts: &'t PlainTable,
    relation: Relation,
    write: bool,
    blocks: OnceCell<u32>,
}

impl PlainTable {
    /// The table, opened for looking at rows and changing them; `None` where it is gone.
    pub fn open(&self, write: bool) -> Option<OpenTable<'_>> {
        let relation = Relation::table(self.relation, catalog::lock_mode(write))?;
        Some(OpenTable { facts: self, relation, write, blocks: OnceCell::new() })
    }
}

impl OpenTable<'_> {
    /// What the catalogs say of it.
    pub fn facts(&self) -> &PlainTable {
        self.facts
    }

    /// The open relation.
    pub fn relation(&self) -> &Relation {
        &self.relation
    }

    /// Closes the table and releases its lock before the transaction ends; for callers that have changed nothing in it.
    pub fn unlock(self) {
        catalog::unlock(self.facts.relation, self.write);
    }

    /// How many pages the table had when it was first asked for.
    fn blocks(&self) -> u32 {
        // SAFETY: the relation is open.
        let count =
            || unsafe { pg_sys::RelationGetNumberOfBlocksInFork(self.relation.0, pg_sys::ForkNumber::MAIN_FORKNUM) };
        *self.blocks.get_or_init(count)
    }

    /// Whether the table has no page at all.
    pub fn is_empty(&self) -> bool {
        self.blocks() == 0
    }

    /// The values of a tuple of this table.
    pub fn deform(&self, tuple: Tuple) -> Columns {
        let columns = self.relation.descriptor();
        let extra = self.facts.extra;
        let (mut values, mut nulls) = ([Datum::null(); MOST_COLUMNS], [true; MOST_COLUMNS]);
        // SAFETY: room for as many columns as the table has, of which the leading ones are wanted.
        unsafe {
            let count = (*columns).natts as usize;
            if count <= MOST_COLUMNS {
                pg_sys::heap_deform_tuple(tuple.0, columns, values.as_mut_ptr(), nulls.as_mut_ptr());
                return Columns { values, nulls, extra };
            }
            let (mut all, mut all_nulls) = (vec![Datum::null(); count], vec![true; count]);
            pg_sys::heap_deform_tuple(tuple.0, columns, all.as_mut_ptr(), all_nulls.as_mut_ptr());
            values.copy_from_slice(&all[..MOST_COLUMNS]);
            nulls.copy_from_slice(&all_nulls[..MOST_COLUMNS]);
            Columns { values, nulls, extra }
        }
    }

    /// The row at a place, where the snapshot shows one there.
    pub fn at_place(&self, snapshot: pg_sys::Snapshot, place: ItemPointerData) -> Option<Tuple> {
        let block = u32::from(place.ip_blkid.bi_hi) << 16 | u32::from(place.ip_blkid.bi_lo);
        // After TRUNCATE a place may lie beyond the table's end, where reading would be an error.
        if block >= self.blocks() || place.ip_posid == 0 {
            return None;
        }
        // SAFETY: the block exists; an offset beyond its line pointers is answered by false. The tuple is copied while
        // its buffer is pinned.
        unsafe {
            let mut tuple: pg_sys::HeapTupleData = std::mem::zeroed();
            tuple.t_self = place;
            let mut buffer = 0;
            if !pg_sys::heap_fetch(self.relation.0, snapshot, &raw mut tuple, &raw mut buffer, false) {
                return None;
            }
            let copy = pg_sys::heap_copytuple(&raw mut tuple);
            pg_sys::ReleaseBuffer(buffer);
            Some(Tuple(copy))
        }
    }

    /// Whether this transaction has deleted the row, which others still see, be it after it has put other versions in its place.
    pub fn is_deleted_here(&self, row: Tuple) -> bool {
        // SAFETY: looks at this process's own transaction.
        self.deleted_by(row, |by| unsafe { pg_sys::TransactionIdIsCurrentTransactionId(by) }).is_some()
    }

    /// The open transaction, another than this one, that has deleted the row, be it after it has put other versions in its place; the
    /// topmost one of its savepoints.
    pub fn deleted_by_other(&self, row: Tuple) -> Option<pg_sys::TransactionId> {
        // SAFETY: looks at this process's own transaction, and at shared memory.
        let open =
            |by| unsafe { !pg_sys::TransactionIdIsCurrentTransactionId(by) && pg_sys::TransactionIdIsInProgress(by) };
        // SAFETY: of which topmost one a transaction is, the server knows while it is open.
        self.deleted_by(row, open).map(|by| unsafe { pg_sys::SubTransGetTopmostTransaction(by) })
    }

    /// The transaction that has deleted the last version of a row, where that and the versions since this one are by such as `is_it`.
    fn deleted_by(&self, row: Tuple, is_it: impl Fn(pg_sys::TransactionId) -> bool) -> Option<pg_sys::TransactionId> {
        let mut version = row;
        loop {
            let by = version.ended_by().filter(|&by| is_it(by))?;
            let Some(next) = version.next_place() else { return Some(by) };
            // Where that was rolled back meanwhile, another row may have the place.
            version = self.at_place(&raw mut pg_sys::SnapshotAnyData, next).filter(|next| next.writer() == by)?;
        }
    }

    /// The row with a text as its key, as the statement at hand sees it, or with `now` what is committed by now; none where keys
    /// are no texts.
    pub fn by_text(&self, key: Text<'_>, now: bool) -> Option<Tuple> {
        let design = self.facts.design;
        if design.column(design.indexes[0].columns[0]).kind != pg_sys::TEXTOID {
            return None;
        }
        // SAFETY: the column is a text. A call of a function has an active snapshot.
        unsafe {
            if now {
                self.by_key(Latest::take().0, key.datum())
            } else {
                self.by_key(pg_sys::GetActiveSnapshot(), key.datum())
            }
        }
    }

    /// The row with a key, by the primary key's only column, where the snapshot shows one.
    ///
    /// # Safety
    /// `value` is of that column's type.
    pub unsafe fn by_key(&self, snapshot: pg_sys::Snapshot, value: Datum) -> Option<Tuple> {
        let design = self.facts.design;
        let column = design.indexes[0].columns[0];
        let equals = if design.column(column).kind == pg_sys::TEXTOID { pg_sys::F_TEXTEQ } else { pg_sys::F_INT8EQ };
        // SAFETY: the caller's promise; the tuple is copied before the scan ends. With a text the key compares byte by byte.
        unsafe {
            let mut key: pg_sys::ScanKeyData = std::mem::zeroed();
            let strategy = pg_sys::BTEqualStrategyNumber as u16;
            pg_sys::ScanKeyInit(&raw mut key, column, strategy, Oid::from(equals), value);
            let (by, check) = scanned_by(snapshot);
            let (table, index) = (self.relation.0, self.facts.indexes[0]);
            let scan = pg_sys::systable_beginscan(table, index, true, by, 1, &raw mut key);
            let mut tuple = pg_sys::systable_getnext(scan);
            while check && !tuple.is_null() && !shows(scan, snapshot) {
                tuple = pg_sys::systable_getnext(scan);
            }
            let row = (!tuple.is_null()).then(|| Tuple(pg_sys::heap_copytuple(tuple)));
            pg_sys::systable_endscan(scan);
            row
        }
    }

    /// Whether the transaction's own snapshot shows this version of the row too: not an older one, whose change it can't
    /// know of.
    pub fn shown(&self, row: Tuple) -> bool {
        // SAFETY: a call of a function has an active snapshot.
        let snapshot = unsafe { pg_sys::GetActiveSnapshot() };
        row.is_written_here()
            || if is_serializable() {
                self.shows_place(snapshot, row.place())
            } else {
                self.at_place(snapshot, row.place()).is_some()
            }
    }

    /// Whether a snapshot shows the row that was just fetched from a place, without a predicate lock: it would soon be one
    /// of the row's whole page.
    fn shows_place(&self, snapshot: pg_sys::Snapshot, mut place: ItemPointerData) -> bool {
        // SAFETY: the place is one of the table's; the slot is of the table's own kind.
        unsafe {
            let table = self.relation.0;
            let Some(fetch) = (*(*table).rd_tableam).tuple_fetch_row_version else { return false };
            let slot = pg_sys::table_slot_create(table, std::ptr::null_mut());
            let any = &raw mut pg_sys::SnapshotAnyData;
            let there = pg_sys::ffi::pg_guard_ffi_boundary(|| fetch(table, &raw mut place, any, slot));
            let shown = there && shows_slot(table, slot, snapshot);
            pg_sys::ExecDropSingleTupleTableSlot(slot);
            shown
        }
    }

    /// Locks a row that was just fetched; `TM_Ok` where it is locked, else what keeps it from that.
    pub fn lock_row(
        &self,
        row: Tuple,
        mode: pg_sys::LockTupleMode::Type,
        others: pg_sys::LockWaitPolicy::Type,
    ) -> pg_sys::TM_Result::Type {
        // SAFETY: the row was just fetched from this table under a snapshot that keeps its place from being pruned. The
        // buffer comes back pinned whatever the answer, and is released.
        unsafe {
            let mut tuple: pg_sys::HeapTupleData = std::mem::zeroed();
            tuple.t_self = row.place();
            let mut buffer = 0;
            let mut failure: pg_sys::TM_FailureData = std::mem::zeroed();
            let command = pg_sys::GetCurrentCommandId(true);
            let (table, tuple, buffer) = (self.relation.0, &raw mut tuple, &raw mut buffer);
            let result = pg_sys::heap_lock_tuple(table, tuple, command, mode, others, false, buffer, &raw mut failure);
            pg_sys::ReleaseBuffer(*buffer);
            result
        }
    }

    /// Deletes a row that was just fetched, waiting for any transaction that is changing it.
    pub fn delete_row(&self, row: Tuple) -> pg_sys::TM_Result::Type {
        // SAFETY: the row was just fetched from this table. What this very command inserted can't be deleted by it, so
        // the command counter moves on first.
        unsafe {
            if row.is_written_here() {
                pg_sys::CommandCounterIncrement();
            }
            let mut place = row.place();
            let mut failure: pg_sys::TM_FailureData = std::mem::zeroed();
            pg_sys::heap_delete(
                self.relation.0,
                &raw mut place,
                pg_sys::GetCurrentCommandId(true),
                std::ptr::null_mut(),
                true,
                &raw mut failure,
                false,
            )
        }
    }

    /// Writes columns, by their numbers, of a row that was just fetched, waiting for any transaction that is changing it;
    /// where the new version is. The primary key isn't changed.
    pub fn update_row(
        &self,
        row: Tuple,
        changes: &[(i16, Value<'_>)],
    ) -> (pg_sys::TM_Result::Type, Option<ItemPointerData>) {
        // SAFETY: the row was just fetched from this table, whose descriptor forms the new version; where the new
        // version isn't on the same page, the indexes are told, as for any update.
        unsafe {
            if row.is_written_here() {
                pg_sys::CommandCounterIncrement();
            }
            let columns = (*self.relation.descriptor()).natts as usize;
            let mut values = vec![Datum::null(); columns];
            let mut nulls = vec![false; columns];
            let mut replace = vec![false; columns];
            for &(column, value) in changes {
                let (place, value) = (column as usize - 1, value.into_datum());
                (values[place], nulls[place]) = (value.unwrap_or(Datum::null()), value.is_none());
                replace[place] = true;
            }
            let new = pg_sys::heap_modify_tuple(
                row.0,
                self.relation.descriptor(),
                values.as_mut_ptr(),
                nulls.as_mut_ptr(),
                replace.as_mut_ptr(),
            );
            let mut place = row.place();
            let mut failure: pg_sys::TM_FailureData = std::mem::zeroed();
            let mut mode = pg_sys::LockTupleMode::LockTupleNoKeyExclusive;
            let command = pg_sys::GetCurrentCommandId(true);
            let none = std::ptr::null_mut();
            #[cfg(feature = "pg15")]
            let result = pg_sys::heap_update(
                self.relation.0,
                &raw mut place,
                new,
                command,
                none,
                true,
                &raw mut failure,
                &raw mut mode,
            );
            #[cfg(not(feature = "pg15"))]
            let mut indexes = pg_sys::TU_UpdateIndexes::TU_None;
            #[cfg(not(feature = "pg15"))]
            let result = pg_sys::heap_update(
                self.relation.0,
                &raw mut place,
                new,
                command,
                none,
                true,
                &raw mut failure,
                &raw mut mode,
                &raw mut indexes,
            );
            if result != pg_sys::TM_Result::TM_Ok {
                return (result, None);
            }
            let heap_only = (*(*new).t_data).t_infomask2 & pg_sys::HEAP_ONLY_TUPLE as u16 != 0;
            if !heap_only {
                self.index_again(Tuple(new), |column| replace[column as usize - 1]);
            }
            (result, Some((*new).t_self))
        }
    }

    /// # Safety
    /// `tuple` was just inserted into this table as a new version of a row, in which those columns are other ones.
    unsafe fn index_again(&self, tuple: Tuple, changed: impl Fn(i16) -> bool) {
        let columns = self.deform(tuple);
        let mut place = tuple.place();
        for (index, oid) in self.facts.indexes() {
            let Some(keys) = keys(index.columns, |column| columns.get(column)) else { continue };
            let unchanged = !index.columns.iter().any(|&column| changed(column));
            // SAFETY: the caller's promise; the indexes are the table's own.
            unsafe { Target::open(oid).insert(&self.relation, keys, &mut place, index.unique, unchanged) };
        }
    }
}
