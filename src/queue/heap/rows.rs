//! Rows of a queue's table: looking at one, deleting one, writing its attempts.
//!
//! A row is looked at with `SnapshotSelf`, which shows what is committed at this very moment: the index in the segment
//! moves on with each commit, not with the statement's snapshot.

use super::columns::{
    ATTEMPTS, DEDUP_KEY, DELIVER_AT, ENQUEUED_AT, EXPIRES_AT, GROUP_KEY, HEADERS, LAST_ERROR, MAX_ATTEMPTS, MESSAGE,
    MSG_ID, PRIORITY,
};
use super::table::{QueueTable, group_number, item_pointer, tid_of};
use crate::pg::argument::payload;
use crate::pg::fmgr::Value;
use crate::pg::server;
use crate::pg::table::rows::{self as plain, Tuple, fetched};
use crate::pg::table::snapshot::{Latest, fixed_snapshot, snapshot_self};
use enough_engine::queue::{Entry, Tag, Tid};
use pgrx::pg_sys::{self, Datum};

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
    /// Whether a delivery has failed, be it before it was redriven.
    pub has_failed: bool,
    /// 0 to 9.
    pub priority: i16,
    /// The group that it belongs to.
    pub group_key: Option<Datum>,
    /// Optional.
    pub headers: Option<Datum>,
    /// No delivery from then on, in microseconds.
    pub expires_at: Option<i64>,
    /// Not more deliveries than this, whatever the queue allows.
    pub max_attempts: Option<u32>,
    /// The payload; `None` only where somebody has let the column be NULL.
    pub message: Option<Datum>,
    tuple: Tuple,
}

/// The time (`-infinity`) since which a row isn't to be delivered whose dedup key another message has taken over.
pub const SUPERSEDED_AT: i64 = i64::MIN;

impl Row {
    /// Whether this transaction has written it, so that nobody else sees it as it is.
    pub fn is_own(&self) -> bool {
        self.tuple.is_written_here()
    }

    /// Whether another transaction, which is still open, is changing it or keeps others from it.
    pub fn is_being_changed(&self) -> bool {
        self.tuple.is_being_changed()
    }

    /// Whether it has limits of its own.
    #[inline]
    pub fn has_limits(&self) -> bool {
        self.expires_at.is_some() || self.max_attempts.is_some()
    }

    /// Whether it isn't to be delivered any more by that time.
    #[inline]
    pub fn has_expired(&self, now: i64) -> bool {
        self.expires_at.is_some_and(|at| at <= now)
    }

    /// Bytes that it takes in memory, about.
    pub fn size(&self) -> usize {
        // SAFETY: `row` has fetched the values.
        let values = unsafe { [self.message, self.headers].map(|value| value.map_or(0, |value| payload(value).len())) };
        self.tuple.size() + values[0] + values[1]
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
        tag(self.tuple, self.enqueued_at)
    }
}

/// What tells a row from others of its number.
pub(super) fn tag(tuple: Tuple, enqueued_at: i64) -> Tag {
    Tag::new(enqueued_at, tuple.inserted_by().map(Into::into))
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

/// A queue's table while a call works on it.
pub struct OpenTable<'t>(pub(super) plain::OpenTable<'t>);

impl QueueTable {
    /// The table, opened for looking at rows and changing them; `None` where it is gone.
    pub fn open(&self, write: bool) -> Option<OpenTable<'_>> {
        self.live.open(write).map(OpenTable)
    }
}

impl OpenTable<'_> {
    /// Closes the table and releases its lock before the transaction ends; for callers that have changed nothing in it.
    pub fn unlock(self) {
        self.0.unlock();
    }

    /// Whether the table has no page at all.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
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

    /// The open transaction, another than this one, that has deleted a row: the lower bits of its number.
    pub fn deleted_by_other(&self, row: &Row) -> Option<u32> {
        self.0.deleted_by_other(row.tuple).map(Into::into)
    }

    /// Whether the transaction's own snapshot shows this version of the row too: not an older one, whose change it can't
    /// know of.
    pub fn shown(&self, row: &Row) -> bool {
        self.0.shown(row.tuple)
    }

    /// What an archive keeps of a row besides what the reader is told: its dedup key, and the error of its last failure.
    pub fn kept(&self, row: &Row) -> (Option<Datum>, Option<Datum>) {
        let columns = self.0.deform(row.tuple);
        // SAFETY: these are texts, and a value out of line is there as long as the row.
        let here = |datum| unsafe { fetched(datum) };
        (columns.get(DEDUP_KEY).map(here), columns.get(LAST_ERROR).map(here))
    }

    fn fetch_with(&self, snapshot: pg_sys::Snapshot, msg_id: i64, tid: Tid) -> Option<Row> {
        let by_place = self.at_place(snapshot, tid).filter(|row| row.msg_id == msg_id);
        by_place.or_else(|| self.by_number(snapshot, msg_id))
    }

    fn at_place(&self, snapshot: pg_sys::Snapshot, tid: Tid) -> Option<Row> {
        self.0.at_place(snapshot, item_pointer(tid)).map(|tuple| self.row(tuple))
    }

    fn by_number(&self, snapshot: pg_sys::Snapshot, msg_id: i64) -> Option<Row> {
        // SAFETY: the primary key's one column is a bigint.
        unsafe { self.0.by_key(snapshot, Datum::from(msg_id)) }.map(|tuple| self.row(tuple))
    }

    fn row(&self, tuple: Tuple) -> Row {
        let columns = self.0.deform(tuple);
        // SAFETY: these are texts and jsonbs. A value out of line is fetched now, while the row is sure to be there.
        let here = |datum| unsafe { fetched(datum) };
        let number = |column| columns.get(column).map_or(0, Datum::value);
        Row {
            msg_id: number(MSG_ID) as i64,
            enqueued_at: number(ENQUEUED_AT) as i64,
            tid: tid_of(tuple.place()),
            deliver_at: columns.get(DELIVER_AT).map(|at| at.value() as i64),
            attempts: number(ATTEMPTS) as i32,
            has_failed: columns.get(LAST_ERROR).is_some(),
            priority: number(PRIORITY) as i16,
            group_key: columns.get(GROUP_KEY).map(here),
            headers: columns.get(HEADERS).map(here),
            message: columns.get(MESSAGE).map(here),
            expires_at: columns.extra(EXPIRES_AT).map(|at| at.value() as i64),
            max_attempts: columns.extra(MAX_ATTEMPTS).map(|most| (most.value() as i32).max(0).cast_unsigned()),
            tuple,
        }
    }

    /// Deletes a message's row (with `tag`, only that one's), waiting for a transaction that is changing it; the row as it was.
    pub fn delete(&self, msg_id: i64, tid: Tid, tag: Option<Tag>) -> Result<Row, Missed> {
        let (row, ()) = self.change(msg_id, tid, tag, |row| (self.0.delete_row(row.tuple), ()))?;
        Ok(row)
    }

    /// Writes columns (by number) of a message's row (with `tag`, only that one's), waiting for a transaction that is changing it; the row as it was, and its new
    /// place.
    pub fn update(
        &self,
        msg_id: i64,
        tid: Tid,
        tag: Option<Tag>,
        changes: &[(i16, Value<'_>)],
    ) -> Result<(Row, Tid), Missed> {
        self.change(msg_id, tid, tag, |row| {
            let (result, place) = self.0.update_row(row.tuple, changes);
            (result, place.map_or_else(Tid::default, tid_of))
        })
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
        if !row.is_own() {
            let mode = pg_sys::LockTupleMode::LockTupleExclusive;
            self.0.lock_row(row.tuple, mode, pg_sys::LockWaitPolicy::LockWaitBlock);
        }
    }

    /// Writes the number of deliveries into a fetched row; `None` where somebody else is changing the row or keeps others
    /// from it, which isn't waited for: the number in the segment serves as long as the server runs. The answer is the
    /// row's new place.
    pub fn write_attempts(&self, row: &Row, attempts: u32) -> Option<Tid> {
        if !row.is_own() {
            let mode = pg_sys::LockTupleMode::LockTupleNoKeyExclusive;
            if self.0.lock_row(row.tuple, mode, pg_sys::LockWaitPolicy::LockWaitSkip) != pg_sys::TM_Result::TM_Ok {
                return None;
            }
        }
        let changes = [(ATTEMPTS, Value::I32(attempts.cast_signed()))];
        self.0.update_row(row.tuple, &changes).1.map(tid_of)
    }
}
