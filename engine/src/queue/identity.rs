//! Which row an entry is about. A number may come again: after TRUNCATE RESTART IDENTITY, with a sequence set back, in a row
//! inserted by hand, from a restore. What the index knows of a number is true of the row that it was learnt from alone.
//!
//! * A **tag** tells two rows of a number apart: by when they were sent, and by the transaction that inserted them. An UPDATE
//!   writes another version of the same row, which the server marks; of such a version the second half says nothing. 16 bits
//!   of each are kept: two rows are never confused that were sent within 65 milliseconds of each other, or inserted by
//!   transactions with near numbers, and else with a probability of 2^-16 for each half. A tag stays what it was when the
//!   row was first met: a snapshot may show an earlier version than the index knows, and never another row's.
//! * A table's **storage** is known by the catalogs. Where its file is another and empty, as after TRUNCATE, every entry is
//!   forgotten. VACUUM FULL and CLUSTER keep the transaction that has inserted a row; what else rewrites a table (many forms
//!   of ALTER TABLE) writes all rows by its own transaction, and makes another TOAST table: from then on the second half of
//!   the tags says nothing.

use super::layout::{Partition, Q, R};
use super::registry::REWRITTEN;
use super::{Entry, Tag, Tid, Wake};
use crate::words::Corrupt;

/// A table's storage, by its numbers in the catalogs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Storage {
    /// Of its file.
    pub file: u32,
    /// Of its TOAST table; 0 where it has none.
    pub toast: u32,
    /// Whether there is no page in it.
    pub empty: bool,
}

impl Partition<'_> {
    /// The tag of a message's row.
    pub(super) fn tag(&self, slot: u32, record: u32) -> Result<Tag, Corrupt> {
        let sent = (self.r(record, R::Tid)? >> 48) as u16;
        let rewritten = self.q(slot, Q::Flags)? & REWRITTEN != 0;
        Ok(Tag { sent, writer: if rewritten { 0 } else { self.kind(record)?.writer } })
    }

    /// Notes where a row is, and its tag. `record` is a message's, or a group's for its next one.
    pub(super) fn set_row(&self, record: u32, tid: Tid, tag: Tag) -> Result<(), Corrupt> {
        self.set_r(record, R::Tid, tid.pack() | u64::from(tag.sent) << 48)?;
        let mut kind = self.kind(record)?;
        kind.writer = tag.writer;
        self.set_kind(record, kind)
    }

    /// Notes where a message's row is now.
    pub(super) fn set_place(&self, record: u32, tid: Tid) -> Result<(), Corrupt> {
        self.set_r(record, R::Tid, tid.pack() | self.r(record, R::Tid)? & 0xffff << 48)
    }

    /// The record of a message, where it was learnt from the entry's row. One that was learnt from another row of the
    /// number is forgotten.
    pub(super) fn record_of_row(
        &self,
        slot: u32,
        entry: &Entry,
        now: i64,
        wake: &mut Wake,
    ) -> Result<Option<u32>, Corrupt> {
        let Some(record) = self.lookup(slot, entry.msg_id)? else { return Ok(None) };
        if self.tag(slot, record)?.matches(entry.tag) {
            return Ok(Some(record));
        }
        self.supersede(slot, record, now, wake)?;
        self.start_counting(slot)?;
        Ok(None)
    }

    /// Forgets a message whose row has vanished behind the index's back; another may have its number. That a row went is
    /// not counted.
    pub(super) fn supersede(&self, slot: u32, record: u32, now: i64, wake: &mut Wake) -> Result<(), Corrupt> {
        // Those behind it in its group may have gone, too.
        self.forget_followers_of(slot, record, wake)?;
        self.forget(slot, record, now, wake)
    }

    /// Compares what is known of the table's storage with what the catalogs say, for a caller that holds a lock on the
    /// table. Where it has been emptied, all entries are forgotten, and the next refill begins from the start.
    pub fn set_storage(&self, slot: u32, storage: Storage, wake: &mut Wake) -> Result<(), Corrupt> {
        let files = u64::from(storage.file) << 32 | u64::from(storage.toast);
        let known = self.q(slot, Q::Files)?;
        if known == files {
            return Ok(());
        }
        self.set_q(slot, Q::Files, files)?;
        if known == 0 {
            return Ok(());
        }
        if known as u32 != storage.toast {
            self.set_q(slot, Q::Flags, self.q(slot, Q::Flags)? | REWRITTEN)?;
        }
        if !storage.empty {
            return Ok(());
        }
        // What goes may bring others of its group into a list.
        for _ in 0..self.records {
            let Some(list) = self.first_list(slot, false)? else { break };
            let (first, _, _) = self.list(slot, list)?;
            self.forget_followers_of(slot, first, &mut Wake::none())?;
            self.forget(slot, first, i64::MIN, &mut Wake::none())?;
        }
        self.invalidate_watermark(slot)?;
        self.start_counting(slot)?;
        self.all_ended(slot, wake)?;
        self.forward_wakeup(slot, wake)
    }
}
