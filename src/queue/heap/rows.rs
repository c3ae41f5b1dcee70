//! Rows of a queue's table: looking at one, deleting one, writing its attempts.
//!
//! A row is looked at with `SnapshotSelf`, which shows what is committed at this very moment: the index in the segment
//! moves on with each commit, not with the statement's snapshot.

use super::columns::{
    ATTEMPTS, COLUMNS, DEDUP_KEY, DELIVER_AT, ENQUEUED_AT, GROUP_KEY, HEADERS, LAST_ERROR, MESSAGE, MSG_ID, PRIORITY,
};
use super::table::{QueueTable, group_number, item_pointer, tid_of};
use crate::pg::fmgr::{Value, payload};
use crate::pg::relation::{Relation, insert_into_index};
use crate::pg::{catalog, server};
use enough_engine::queue::{Entry, Tag, Tid};
use pgrx::pg_sys::{self, Datum, Oid};
use pgrx::varlena::{varatt_is_1b_e, varatt_is_4b_c};

/// A row, with what the reader is told of it.
pub struct Row {
    /// Its number.
    pub msg_id: i64,
    /// When it was sent, in microseconds.
    pub enqueued_at: i64,
    /// Where it is.
    pub tid: Tid,
    /// Not before, in microseconds.
    pub deliver_at: Option<i64>,
    /// What the row knows of failed deliveries.
    pub attempts: i32,
    /// 0 to 9.
    pub priority: i16,
    /// The group that it belongs to.
    pub group_key: Option<Datum>,
    /// Optional.
    pub headers: Option<Datum>,
    /// The payload; `None` only where somebody has let the column be NULL.
    pub message: Option<Datum>,
    tuple: pg_sys::HeapTuple,
}

impl Row {
    /// Whether this transaction has written it, so that nobody else sees it as it is.
    pub fn is_own(&self) -> bool {
        // SAFETY: the row's tuple is whole.
        unsafe { written_here(self.tuple) }
    }

    /// Whether another transaction, which is still open, is changing it or keeps others from it.
    pub fn is_being_changed(&self) -> bool {
        // SAFETY: the row's tuple is whole. Who a mark in it stands for is asked for only where the mark is there.
        unsafe {
            let header = (*self.tuple).t_data;
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

    /// Bytes that it takes in memory, about.
    pub fn size(&self) -> usize {
        // SAFETY: `row` has fetched the values.
        let values = unsafe { [self.message, self.headers].map(|value| value.map_or(0, |value| payload(value).len())) };
        // SAFETY: the row's tuple is whole.
        unsafe { (*self.tuple).t_len as usize + values[0] + values[1] }
    }

    /// The row as the index knows it.
    pub fn entry(&self) -> Entry {
        Entry {
            msg_id: self.msg_id,
            tid: self.tid,
            priority: self.priority.clamp(0, 9) as u8,
            attempts: self.attempts.max(0) as u32,
            deliver_at: self.deliver_at,
            // SAFETY: `row` has fetched it.
            group: group_number(self.group_key.map(|key| unsafe { payload(key) })),
            tag: self.tag(),
        }
    }

    /// What tells it from other rows of its number.
    pub fn tag(&self) -> Tag {
        // SAFETY: the row's tuple is whole.
        unsafe { tag(self.tuple, self.enqueued_at) }
    }
}

/// # Safety
/// `tuple` is a whole tuple.
pub(super) unsafe fn tag(tuple: pg_sys::HeapTuple, enqueued_at: i64) -> Tag {
    // SAFETY: the caller's promise. The server leaves the writer's number in place when it freezes a row.
    unsafe {
        let header = (*tuple).t_data;
        let updated = u32::from((*header).t_infomask) & pg_sys::HEAP_UPDATED != 0;
        Tag::new(enqueued_at, (!updated).then(|| (*header).t_choice.t_heap.t_xmin.into()))
    }
}

/// Why a row couldn't be changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missed {
    /// There is no such row (any more).
    Gone,
    /// Another row has the number.
    Other,
    /// A concurrent transaction has changed it, and this transaction's isolation level forbids to look at the change.
    Conflict,
}

/// A registered snapshot that shows everything committed by now.
pub struct Latest(pub(super) pg_sys::Snapshot);

impl Latest {
    /// Takes it.
    pub fn take() -> Self {
        // SAFETY: no preconditions; registered until dropped.
        Latest(unsafe { pg_sys::RegisterSnapshot(pg_sys::GetLatestSnapshot()) })
    }

    /// The same without anything that this transaction has done: its rows aren't there, and what it has deleted or changed
    /// is as it was. So the index learns only what is true whether the transaction commits or not.
    pub fn of_others() -> Self {
        let latest = Self::take();
        // SAFETY: a registered snapshot is this value's own copy. Of what this transaction has done it shows what commands
        // before `curcid` did, and there is none before the first.
        unsafe { (*latest.0).curcid = pg_sys::FirstCommandId };
        latest
    }
}

impl Drop for Latest {
    fn drop(&mut self) {
        // SAFETY: registered by `take`.
        unsafe { pg_sys::UnregisterSnapshot(self.0) };
    }
}

fn snapshot_self() -> pg_sys::Snapshot {
    &raw mut pg_sys::SnapshotSelfData
}

/// The snapshot to scan with where `snapshot` says which rows are there, and whether each row's visibility is then to be
/// looked at. In SERIALIZABLE transactions the server locks all that a scan by an MVCC snapshot reads, down to pages: what a
/// refill passes over is none of the transaction's business, and workers would fail for one another's.
pub(super) fn scanned_by(snapshot: pg_sys::Snapshot) -> (pg_sys::Snapshot, bool) {
    // SAFETY: a snapshot is there as long as its user.
    if is_serializable() && unsafe { (*snapshot).snapshot_type } == pg_sys::SnapshotType::SNAPSHOT_MVCC {
        (&raw mut pg_sys::SnapshotAnyData, true)
    } else {
        (snapshot, false)
    }
}

fn is_serializable() -> bool {
    // SAFETY: reads a variable of this process.
    unsafe { pg_sys::XactIsoLevel == pg_sys::XACT_SERIALIZABLE as i32 }
}

/// Whether a snapshot shows the row that a scan stands at, without a predicate lock.
///
/// # Safety
/// `scan` has just returned a row by [`SnapshotAnyData`](pg_sys::SnapshotAnyData), and `snapshot` is registered or active.
pub(super) unsafe fn shows(scan: pg_sys::SysScanDesc, snapshot: pg_sys::Snapshot) -> bool {
    // SAFETY: the caller's promise.
    unsafe { shows_slot((*scan).heap_rel, (*scan).slot, snapshot) }
}

/// # Safety
/// `slot` is of the table's own kind and holds a row of it with a pin on its buffer, and `snapshot` is registered or active.
unsafe fn shows_slot(table: pg_sys::Relation, slot: *mut pg_sys::TupleTableSlot, snapshot: pg_sys::Snapshot) -> bool {
    // SAFETY: the caller's promise, which is what the table's method wants.
    unsafe {
        let Some(satisfies) = (*(*table).rd_tableam).tuple_satisfies_snapshot else { return false };
        pg_sys::ffi::pg_guard_ffi_boundary(|| satisfies(table, slot, snapshot))
    }
}

/// Whether the transaction reads from one snapshot throughout (REPEATABLE READ, SERIALIZABLE).
pub fn fixed_snapshot() -> bool {
    // SAFETY: reads a variable of this process.
    unsafe { pg_sys::XactIsoLevel >= pg_sys::XACT_REPEATABLE_READ as i32 }
}

/// Whether this transaction has written that version of a row.
///
/// # Safety
/// `tuple` is a whole tuple.
unsafe fn written_here(tuple: pg_sys::HeapTuple) -> bool {
    // SAFETY: the caller's promise. The mark of a committed writer is never there while the writer is at work.
    unsafe {
        let header = (*tuple).t_data;
        u32::from((*header).t_infomask) & pg_sys::HEAP_XMIN_COMMITTED == 0
            && pg_sys::TransactionIdIsCurrentTransactionId((*header).t_choice.t_heap.t_xmin)
    }
}

/// The values of a row, by the columns' numbers.
pub(super) struct Columns {
    values: [Datum; COLUMNS.len()],
    nulls: [bool; COLUMNS.len()],
}

impl Columns {
    /// `None` for NULL.
    #[inline]
    pub(super) fn get(&self, column: i16) -> Option<Datum> {
        let place = column as usize - 1;
        (!self.nulls[place]).then(|| self.values[place])
    }
}

/// A queue's table while a call works on it.
pub struct OpenTable<'t> {
    pub(super) facts: &'t QueueTable,
    pub(super) table: Relation,
    pub(super) write: bool,
    pub(super) blocks: u32,
}

impl QueueTable {
    /// The table, opened for looking at rows and changing them; `None` where it is gone.
    pub fn open(&self, write: bool) -> Option<OpenTable<'_>> {
        let table = Relation::table(self.relation, catalog::lock_mode(write))?;
        // SAFETY: the relation is open.
        let blocks = unsafe { pg_sys::RelationGetNumberOfBlocksInFork(table.0, pg_sys::ForkNumber::MAIN_FORKNUM) };
        Some(OpenTable { facts: self, table, write, blocks })
    }
}

impl OpenTable<'_> {
    /// Closes the table and lets go of its lock before the transaction ends; for who has changed nothing in it.
    pub fn unlock(self) {
        catalog::unlock(self.facts.relation, self.write);
    }

    /// Whether the table has no page at all.
    pub fn is_empty(&self) -> bool {
        self.blocks == 0
    }

    /// The row of a message as it is committed now (or was changed by this transaction): by its place first, and where
    /// another row is there, by its number.
    pub fn fetch(&self, msg_id: i64, tid: Tid) -> Option<Row> {
        // A version that was current when the index was read and another that becomes current while the look-up is on
        // its way can both be missed by `SnapshotSelf`; a snapshot taken once shows one of them.
        self.fetch_with(snapshot_self(), msg_id, tid).or_else(|| self.by_number(Latest::take().0, msg_id))
    }

    /// Whether all other transactions see a message's row, the one with that tag, though this one sees it no more: it has
    /// deleted it, or put another in its place, and may be rolled back.
    pub fn is_there_for_others(&self, msg_id: i64, tag: Tag) -> bool {
        server::has_written() && self.by_number(Latest::of_others().0, msg_id).is_some_and(|row| tag.matches(row.tag()))
    }

    /// Whether the transaction's own snapshot shows this version of the row too: not an older one, whose change it can't
    /// know of.
    pub fn shown(&self, row: &Row) -> bool {
        // SAFETY: a call of a function has an active snapshot.
        let snapshot = unsafe { pg_sys::GetActiveSnapshot() };
        row.is_own()
            || if is_serializable() {
                self.shows_place(snapshot, row)
            } else {
                self.at_place(snapshot, row.tid).is_some()
            }
    }

    /// Whether a snapshot shows a fetched row, without a predicate lock: it would soon be one of the row's whole page.
    fn shows_place(&self, snapshot: pg_sys::Snapshot, row: &Row) -> bool {
        // SAFETY: the row was just fetched, so its place is one of the table's; the slot is of the table's own kind.
        unsafe {
            let table = self.table.0;
            let Some(fetch) = (*(*table).rd_tableam).tuple_fetch_row_version else { return false };
            let slot = pg_sys::table_slot_create(table, std::ptr::null_mut());
            let mut place = item_pointer(row.tid);
            let any = &raw mut pg_sys::SnapshotAnyData;
            let there = pg_sys::ffi::pg_guard_ffi_boundary(|| fetch(table, &raw mut place, any, slot));
            let shown = there && shows_slot(table, slot, snapshot);
            pg_sys::ExecDropSingleTupleTableSlot(slot);
            shown
        }
    }

    /// What an archive keeps of a row besides what the reader is told: its dedup key, and the error of its last failure.
    pub fn kept(&self, row: &Row) -> (Option<Datum>, Option<Datum>) {
        // SAFETY: the row's tuple is whole, and a value out of line is there as long as the row.
        unsafe {
            let columns = self.deform(row.tuple);
            let here = |datum: Datum| {
                let varlena = datum.cast_mut_ptr();
                // A guarded call for the few that are compressed or out of line.
                if varatt_is_4b_c(varlena) || varatt_is_1b_e(varlena) {
                    return Datum::from(pg_sys::pg_detoast_datum_packed(varlena));
                }
                datum
            };
            (columns.get(DEDUP_KEY).map(here), columns.get(LAST_ERROR).map(here))
        }
    }

    fn fetch_with(&self, snapshot: pg_sys::Snapshot, msg_id: i64, tid: Tid) -> Option<Row> {
        let by_place = self.at_place(snapshot, tid).filter(|row| row.msg_id == msg_id);
        by_place.or_else(|| self.by_number(snapshot, msg_id))
    }

    fn at_place(&self, snapshot: pg_sys::Snapshot, tid: Tid) -> Option<Row> {
        // After TRUNCATE a place may lie beyond the table's end, where reading would be an error.
        if tid.block >= self.blocks || tid.offset == 0 {
            return None;
        }
        // SAFETY: the block exists; an offset beyond its line pointers is answered by false. The tuple is copied while
        // its buffer is pinned.
        unsafe {
            let mut tuple: pg_sys::HeapTupleData = std::mem::zeroed();
            tuple.t_self = item_pointer(tid);
            let mut buffer = 0;
            if !pg_sys::heap_fetch(self.table.0, snapshot, &raw mut tuple, &raw mut buffer, false) {
                return None;
            }
            let copy = pg_sys::heap_copytuple(&raw mut tuple);
            pg_sys::ReleaseBuffer(buffer);
            Some(self.row(copy))
        }
    }

    fn by_number(&self, snapshot: pg_sys::Snapshot, msg_id: i64) -> Option<Row> {
        // SAFETY: the key fits the primary key's one column; the tuple is copied before the scan ends.
        unsafe {
            let mut key: pg_sys::ScanKeyData = std::mem::zeroed();
            pg_sys::ScanKeyInit(
                &raw mut key,
                MSG_ID,
                pg_sys::BTEqualStrategyNumber as u16,
                Oid::from(pg_sys::F_INT8EQ),
                Datum::from(msg_id),
            );
            let (by, check) = scanned_by(snapshot);
            let scan = pg_sys::systable_beginscan(self.table.0, self.facts.key_index, true, by, 1, &raw mut key);
            let mut tuple = pg_sys::systable_getnext(scan);
            while check && !tuple.is_null() && !shows(scan, snapshot) {
                tuple = pg_sys::systable_getnext(scan);
            }
            let row = (!tuple.is_null()).then(|| self.row(pg_sys::heap_copytuple(tuple)));
            pg_sys::systable_endscan(scan);
            row
        }
    }

    /// # Safety
    /// `tuple` is a whole tuple of this table in the call's memory context.
    unsafe fn row(&self, tuple: pg_sys::HeapTuple) -> Row {
        // SAFETY: the caller's promise; `has_columns` has compared the leading columns' types.
        unsafe {
            let columns = self.deform(tuple);
            // A value out of line is fetched now, while the row is sure to be there.
            let here = |datum: Datum| {
                let varlena = datum.cast_mut_ptr();
                // A guarded call for the few that are compressed or out of line.
                if varatt_is_4b_c(varlena) || varatt_is_1b_e(varlena) {
                    return Datum::from(pg_sys::pg_detoast_datum_packed(varlena));
                }
                datum
            };
            let number = |column| columns.get(column).map_or(0, Datum::value);
            Row {
                msg_id: number(MSG_ID) as i64,
                enqueued_at: number(ENQUEUED_AT) as i64,
                tid: tid_of((*tuple).t_self),
                deliver_at: columns.get(DELIVER_AT).map(|at| at.value() as i64),
                attempts: number(ATTEMPTS) as i32,
                priority: number(PRIORITY) as i16,
                group_key: columns.get(GROUP_KEY).map(here),
                headers: columns.get(HEADERS).map(here),
                message: columns.get(MESSAGE).map(here),
                tuple,
            }
        }
    }

    /// # Safety
    /// `tuple` is a tuple of this table.
    pub(super) unsafe fn deform(&self, tuple: pg_sys::HeapTuple) -> Columns {
        let columns = self.table.descriptor();
        // SAFETY: room for as many columns as the table has, of which the leading ones are wanted.
        unsafe {
            let count = (*columns).natts as usize;
            if count == COLUMNS.len() {
                let (mut values, mut nulls) = ([Datum::null(); COLUMNS.len()], [true; COLUMNS.len()]);
                pg_sys::heap_deform_tuple(tuple, columns, values.as_mut_ptr(), nulls.as_mut_ptr());
                return Columns { values, nulls };
            }
            let (mut values, mut nulls) = (vec![Datum::null(); count], vec![true; count]);
            pg_sys::heap_deform_tuple(tuple, columns, values.as_mut_ptr(), nulls.as_mut_ptr());
            Columns { values: std::array::from_fn(|i| values[i]), nulls: std::array::from_fn(|i| nulls[i]) }
        }
    }

    /// Deletes a message's row (with `tag`, only that one's), waiting for whoever is changing it; the row as it was.
    pub fn delete(&self, msg_id: i64, tid: Tid, tag: Option<Tag>) -> Result<Row, Missed> {
        let (row, ()) = self.change(msg_id, tid, tag, |row| (self.delete_at(row), ()))?;
        Ok(row)
    }

    /// Writes columns (by number) of a message's row (with `tag`, only that one's), waiting for whoever is changing it; the row as it was, and its new
    /// place.
    pub fn update(
        &self,
        msg_id: i64,
        tid: Tid,
        tag: Option<Tag>,
        changes: &[(i16, Value<'_>)],
    ) -> Result<(Row, Tid), Missed> {
        self.change(msg_id, tid, tag, |row| self.update_at(row, changes))
    }

    /// Does `step` with the row of a message until nobody else has changed it meanwhile.
    fn change<R>(
        &self,
        msg_id: i64,
        tid: Tid,
        tag: Option<Tag>,
        step: impl Fn(&Row) -> (pg_sys::TM_Result::Type, R),
    ) -> Result<(Row, R), Missed> {
        let mut at = tid;
        loop {
            let row = self.fetch(msg_id, at).ok_or(Missed::Gone)?;
            if tag.is_some_and(|tag| !tag.matches(row.tag())) {
                return Err(Missed::Other);
            }
            if fixed_snapshot() && !self.shown(&row) {
                return Err(Missed::Conflict);
            }
            let (result, answer) = step(&row);
            match result {
                pg_sys::TM_Result::TM_Ok => return Ok((row, answer)),
                pg_sys::TM_Result::TM_Deleted | pg_sys::TM_Result::TM_SelfModified => return Err(Missed::Gone),
                _ if fixed_snapshot() => return Err(Missed::Conflict),
                // Changed by a transaction that has committed meanwhile: look where the row is now.
                _ => at = Tid::default(),
            }
            server::check_for_interrupts();
        }
    }

    /// Waits until no other transaction is changing a message's row, and keeps others from it until this one ends.
    pub fn lock(&self, msg_id: i64) {
        let Some(row) = self.fetch(msg_id, Tid::default()) else { return };
        // SAFETY: the row's tuple is whole.
        if unsafe { !written_here(row.tuple) } {
            let mode = pg_sys::LockTupleMode::LockTupleExclusive;
            self.lock_at(&row, mode, pg_sys::LockWaitPolicy::LockWaitBlock);
        }
    }

    /// Locks a fetched row; `TM_Ok` where it is locked, else what keeps it from that.
    fn lock_at(
        &self,
        row: &Row,
        mode: pg_sys::LockTupleMode::Type,
        others: pg_sys::LockWaitPolicy::Type,
    ) -> pg_sys::TM_Result::Type {
        // SAFETY: the row was just fetched from this table under a snapshot that keeps its place from being pruned. The
        // buffer comes back pinned whatever the answer, and is let go of.
        unsafe {
            let mut tuple: pg_sys::HeapTupleData = std::mem::zeroed();
            tuple.t_self = item_pointer(row.tid);
            let mut buffer = 0;
            let mut failure: pg_sys::TM_FailureData = std::mem::zeroed();
            let command = pg_sys::GetCurrentCommandId(true);
            let (table, tuple, buffer) = (self.table.0, &raw mut tuple, &raw mut buffer);
            let result = pg_sys::heap_lock_tuple(table, tuple, command, mode, others, false, buffer, &raw mut failure);
            pg_sys::ReleaseBuffer(*buffer);
            result
        }
    }

    fn delete_at(&self, row: &Row) -> pg_sys::TM_Result::Type {
        // SAFETY: the row was just fetched from this table. What this very command inserted can't be deleted by it, so
        // the command counter moves on first.
        unsafe {
            if written_here(row.tuple) {
                pg_sys::CommandCounterIncrement();
            }
            let mut place = item_pointer(row.tid);
            let mut failure: pg_sys::TM_FailureData = std::mem::zeroed();
            pg_sys::heap_delete(
                self.table.0,
                &raw mut place,
                pg_sys::GetCurrentCommandId(true),
                std::ptr::null_mut(),
                true,
                &raw mut failure,
                false,
            )
        }
    }

    /// Writes the number of deliveries into a fetched row; `None` where somebody else is changing the row or keeps others
    /// from it, which isn't waited for: the number in the segment serves as long as the server runs. The answer is the
    /// row's new place.
    pub fn write_attempts(&self, row: &Row, attempts: u32) -> Option<Tid> {
        // `heap_update` can't be asked not to wait: it must be called with a row that nobody else has locked.
        // SAFETY: the row's tuple is whole.
        if unsafe { !written_here(row.tuple) } {
            let mode = pg_sys::LockTupleMode::LockTupleNoKeyExclusive;
            if self.lock_at(row, mode, pg_sys::LockWaitPolicy::LockWaitSkip) != pg_sys::TM_Result::TM_Ok {
                return None;
            }
        }
        let (result, tid) = self.update_at(row, &[(ATTEMPTS, Value::I32(attempts.cast_signed()))]);
        (result == pg_sys::TM_Result::TM_Ok).then_some(tid)
    }

    /// Writes columns of a fetched row, waiting for whoever is changing it.
    fn update_at(&self, row: &Row, changes: &[(i16, Value<'_>)]) -> (pg_sys::TM_Result::Type, Tid) {
        // SAFETY: the row was just fetched from this table, whose descriptor forms the new version; where the new
        // version isn't on the same page, the indexes are told, as for any update.
        unsafe {
            if written_here(row.tuple) {
                pg_sys::CommandCounterIncrement();
            }
            let columns = (*self.table.descriptor()).natts as usize;
            let mut values = vec![Datum::null(); columns];
            let mut nulls = vec![false; columns];
            let mut replace = vec![false; columns];
            for &(column, value) in changes {
                let (place, value) = (column as usize - 1, value.into_datum());
                (values[place], nulls[place]) = (value.unwrap_or(Datum::null()), value.is_none());
                replace[place] = true;
            }
            let new = pg_sys::heap_modify_tuple(
                row.tuple,
                self.table.descriptor(),
                values.as_mut_ptr(),
                nulls.as_mut_ptr(),
                replace.as_mut_ptr(),
            );
            let mut place = item_pointer(row.tid);
            let mut failure: pg_sys::TM_FailureData = std::mem::zeroed();
            let mut mode = pg_sys::LockTupleMode::LockTupleNoKeyExclusive;
            let command = pg_sys::GetCurrentCommandId(true);
            let none = std::ptr::null_mut();
            #[cfg(feature = "pg15")]
            let result = pg_sys::heap_update(
                self.table.0,
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
                self.table.0,
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
                return (result, Tid::default());
            }
            let heap_only = (*(*new).t_data).t_infomask2 & pg_sys::HEAP_ONLY_TUPLE as u16 != 0;
            if !heap_only {
                self.index_again(new);
            }
            (result, tid_of((*new).t_self))
        }
    }

    /// # Safety
    /// `tuple` was just inserted into this table as a new version of a row.
    unsafe fn index_again(&self, tuple: pg_sys::HeapTuple) {
        // SAFETY: the caller's promise; the indexes are the table's own.
        unsafe {
            let columns = self.deform(tuple);
            let Some(msg_id) = columns.get(MSG_ID) else { return };
            let place = (*tuple).t_self;
            self.index_row(self.facts.key_index, [msg_id], place, true);
            if let Some(at) = columns.get(DELIVER_AT) {
                self.index_row(self.facts.timed_index, [at], place, false);
            }
            if let Some(key) = columns.get(GROUP_KEY) {
                self.index_row(self.facts.group_index, [key, msg_id], place, false);
            }
            if let Some(key) = columns.get(DEDUP_KEY) {
                self.index_row(self.facts.dedup_index, [key], place, true);
            }
        }
    }

    /// # Safety
    /// The table's index has columns of these values' types, and the row is there.
    unsafe fn index_row<const COLUMNS: usize>(
        &self,
        index: Oid,
        values: [Datum; COLUMNS],
        mut place: pg_sys::ItemPointerData,
        unique: bool,
    ) {
        // SAFETY: the caller's promise.
        unsafe {
            let index = Relation::index(index);
            let info = pg_sys::BuildIndexInfo(index.0);
            insert_into_index(&index, info, &self.table, values, &mut place, unique);
        }
    }
}
