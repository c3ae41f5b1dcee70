//! Messages that prepared transactions have set aside (two-phase commit): busy, as those of open transactions are, until it is decided
//! what has become of their rows.
//!
//! Each is under the record of its transaction (`doubt.rs`). Those of one transaction stand side by side in the list of busy messages,
//! the record has the first of them, and each knows its record and what the transaction has done to it: in the half of a word that
//! is a timer's while one runs. So a decision finds its messages without a look at others, some under each hold of the lock.
//!
//! A message may also be **met** later, by its row: after a restart, or where the index had no room to set it aside in time. It is set
//! aside then, and when the transaction is decided it stands in line again, where its row says what has become of it.

use super::doubt::{Decision, Doubt};
use super::layout::{BUSY, DOUBTS, LEASED, Partition, Q, R};
use super::registry::Options;
use super::{Entry, Tag, Wake};
use crate::fingerprint;
use crate::words::Corrupt;

/// Messages of which the decision is carried out under one hold of the lock.
const AT_ONCE: usize = 256;

/// In a record's half word, above the place of its transaction plus 1: the message's row is gone by it.
const ENDED: u32 = 1 << 8;
/// Its delivery has ended by it, and its row says when it comes again.
const RETURNED: u32 = 1 << 9;
/// The delivery isn't counted where the transaction commits.
const UNCOUNTED: u32 = 1 << 10;
/// The lease was given in the same transaction.
const READ: u32 = 1 << 11;
const PLACE: u32 = 0xff;

/// What a transaction that has been prepared has done to a message that it had set aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Undecided {
    /// Deleted its row, or moved it to the archive.
    Ended,
    /// Ended its delivery; so many deliveries count.
    Returned {
        /// As its row has it.
        attempts: u32,
    },
}

/// What becomes of a message whose row a prepared transaction has deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Met {
    /// No prepared transaction that the queue knows of has that number.
    Nothing,
    /// It waits for the decision.
    Aside,
}

impl Partition<'_> {
    /// The transaction that had set a message aside has been prepared. `read`: it had leased it as well. Nothing where the memory has
    /// been lost since: then the message is met by its row.
    pub fn leave_undecided(
        &self,
        slot: u32,
        msg_id: i64,
        tag: Tag,
        transaction: u64,
        what: Undecided,
        read: bool,
    ) -> Result<(), Corrupt> {
        let Some(record) = self.lookup(slot, msg_id)? else { return Ok(()) };
        let Some(place) = self.doubt_of(slot, |at| at != 0 && at == transaction)? else { return Ok(()) };
        let kind = self.kind(record)?;
        if kind.list != BUSY || !self.tag(slot, record)?.matches(tag) || self.half(record, R::Chain, false)? != 0 {
            return Ok(());
        }
        let what = match what {
            Undecided::Ended => ENDED,
            Undecided::Returned { attempts } if attempts < self.half(record, R::Attempts, true)? => {
                RETURNED | UNCOUNTED
            }
            Undecided::Returned { .. } => RETURNED,
        };
        self.unlink(slot, record)?;
        self.put_under(slot, record, place, what | if read { READ } else { 0 })
    }

    /// Puts a message, which is in no list, with those of a record.
    fn put_under(&self, slot: u32, record: u32, place: usize, what: u32) -> Result<(), Corrupt> {
        let (first, count) = self.aside_under(slot, place)?;
        if count == 0 {
            // In front of all others: between none of another record.
            self.link(slot, record, BUSY, true)?;
        } else {
            self.link_behind(slot, record, BUSY, first)?;
            if self.kind(record)?.owner != 0 {
                self.enter_lane(record)?;
            }
        }
        if self.kind(record)?.origin != LEASED {
            self.count(slot, Q::BusyUnleased, 1)?;
        }
        self.set_half(record, R::Chain, false, what | (place as u32 + 1))?;
        self.set_aside_under(slot, place, if count == 0 { record } else { first }, count.saturating_add(1))
    }

    /// A message of a record is about to be taken out of its list.
    #[cold]
    pub(super) fn leave_doubt(&self, slot: u32, record: u32) -> Result<(), Corrupt> {
        let what = self.half(record, R::Chain, false)?;
        let place = (what & PLACE).checked_sub(1).ok_or(Corrupt)? as usize;
        if place >= DOUBTS {
            return Err(Corrupt);
        }
        let (first, count) = self.aside_under(slot, place)?;
        let left = count.checked_sub(1).ok_or(Corrupt)?;
        let next = if left == 0 { 0 } else { self.half(record, R::Links, true)? };
        self.set_aside_under(slot, place, if first == record { next } else { first }, left)?;
        self.set_half(record, R::Chain, false, 0)
    }

    /// A reader has met the row of a message that it has leased: another transaction, of which these are the number's lower bits,
    /// has deleted it and is open. Where that is prepared the message waits for the decision, as if it had not been leased.
    pub fn meet_undecided(
        &self,
        slot: u32,
        msg_id: i64,
        lease: u64,
        transaction: u32,
        now: i64,
        wake: &mut Wake,
    ) -> Result<Met, Corrupt> {
        let is_it = |at: u64| at != 0 && at != Doubt::ANY && at as u32 == transaction;
        let place = match self.doubt_of(slot, is_it)? {
            None => self.doubt_of(slot, |at| at == Doubt::ANY)?,
            place => place,
        };
        let Some(place) = place else { return Ok(Met::Nothing) };
        // Where another one has it by now, that meets its row.
        let Some(record) = self.leased(slot, msg_id, Some(lease))? else { return Ok(Met::Aside) };
        if self.kind(record)?.owner == 0 && self.list(slot, BUSY)?.2 >= self.records as u64 / 8 {
            // Of its group none may be read before it; the others have no order to keep, and room is scarce.
            self.leave_out_undecided(slot, record, place, now, wake)?;
            return Ok(Met::Aside);
        }
        self.unspend_in_group(slot, record, now)?;
        self.clear_timer(slot, record)?;
        self.undo_attempt(record)?;
        self.unlink(slot, record)?;
        self.set_r(record, R::Due, i64::MIN.cast_unsigned())?;
        let turn = self.half(record, R::Attempts, true)? > 0;
        let mut kind = self.kind(record)?;
        kind.origin = self.ready_list(record, turn)?;
        self.set_kind(record, kind)?;
        self.put_under(slot, record, place, 0)?;
        self.free_lane(slot, record, false, now, wake)?;
        self.in_flight_decreased(slot, wake)?;
        Ok(Met::Aside)
    }

    fn leave_out_undecided(
        &self,
        slot: u32,
        record: u32,
        place: usize,
        now: i64,
        wake: &mut Wake,
    ) -> Result<(), Corrupt> {
        let mut doubt = self.doubt_at(slot, place)?;
        doubt.left_out = doubt.left_out.saturating_add(1);
        if self.kind(record)?.timed {
            // Its delivery time has been overwritten by the lease.
            doubt.times = i64::MIN;
            self.count(slot, Q::TimedOutside, 1)?;
        } else {
            doubt.numbers = doubt.numbers.min(self.number(record)?.saturating_sub(1));
        }
        self.set_doubt(slot, place, &doubt)?;
        self.forget(slot, record, now, wake)
    }

    /// Where a record stands for all prepared transactions, of which some may have been decided: what was met stands in line again, and
    /// is met again where it is not. False where some is left.
    pub fn look_again(&self, slot: u32, now: i64, wake: &mut Wake) -> Result<bool, Corrupt> {
        match self.doubt_of(slot, |at| at == Doubt::ANY)? {
            Some(place) => self.end_undecided(slot, place, Decision::Either, now, wake, |_, _, _| 0),
            None => Ok(true),
        }
    }

    /// Carries out a decision for messages that are set aside under a record; false where some are left.
    pub(super) fn end_undecided(
        &self,
        slot: u32,
        place: usize,
        decision: Decision,
        now: i64,
        wake: &mut Wake,
        rest: fn(&Options, u32, u64) -> i64,
    ) -> Result<bool, Corrupt> {
        for _ in 0..AT_ONCE {
            let (record, count) = self.aside_under(slot, place)?;
            if count == 0 {
                return Ok(true);
            }
            if wake.has_ended() {
                return Ok(false);
            }
            self.end_one(slot, record, decision, now, wake, rest)?;
            if self.aside_under(slot, place)?.1 >= count {
                return Err(Corrupt);
            }
        }
        Ok(self.aside_under(slot, place)?.1 == 0)
    }

    fn end_one(
        &self,
        slot: u32,
        record: u32,
        decision: Decision,
        now: i64,
        wake: &mut Wake,
        rest: fn(&Options, u32, u64) -> i64,
    ) -> Result<(), Corrupt> {
        let (what, msg_id, tag) = (self.half(record, R::Chain, false)?, self.number(record)?, self.tag(slot, record)?);
        let (kind, attempts) = (self.kind(record)?, self.half(record, R::Attempts, true)?);
        if decision == Decision::Committed && what & ENDED != 0 {
            self.end_busy(slot, msg_id, tag, true, now, wake)?;
            return self.ended(slot, msg_id, wake);
        }
        if decision == Decision::Committed && what & RETURNED != 0 {
            // When it comes again is in its row, which its next reader looks at.
            let entry = Entry {
                attempts: attempts.saturating_sub(u32::from(what & UNCOUNTED != 0)),
                deliver_at: Some(i64::MIN),
                tag,
                ..self.entry(record, 0)?
            };
            return self.schedule_retry(slot, &entry, now, wake);
        }
        let lease = self.r(record, R::Lease)?;
        self.end_busy(slot, msg_id, tag, false, now, wake)?;
        if decision != Decision::RolledBack || what & READ == 0 || kind.origin != LEASED {
            return Ok(());
        }
        let options = self.options(slot)?;
        if options.forgets_deliveries() {
            return self.undo_lease(slot, msg_id, lease, now, wake);
        }
        self.release_with_backoff(slot, msg_id, lease, now, rest(&options, attempts, lease), wake)
    }
}

/// What of this file the layout version depends on.
pub(super) const LAYOUT: u64 = fingerprint![ENDED, RETURNED, UNCOUNTED, READ, PLACE];
