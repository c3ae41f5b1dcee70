//! Messages that are used up: delivered as often as they may be, and their last lease is over. All that is left to do is to
//! bury them, and until somebody does they hold nothing: they aren't ready or in flight, and have no place in their groups.
//!
//! They stand in a list of their own. A message is put there when its last lease ends, when a scan of the table meets it, or
//! when a reader comes upon it in line because `max_attempts` was lowered. The session that buries it sets it aside like any message that
//! a transaction changes; should that transaction be rolled back, it stands there again.
//!
//! In its record the time gives way to the hash of its group, by which it finds its place again where `max_attempts` is raised.
//! The lease's number stays only where a rollback has given the lease back: its worker may still say why
//! ([`Fence::Last`](super::Fence::Last)).

use super::busy::{Aside, Busy, Claimed};
use super::group::Put;
use super::layout::{BUSY, FOLLOWER, LEASED, Partition, Q, R, USED_UP, g};
use super::records::Kind;
use super::{Entry, Wake};
use crate::words::Corrupt;

/// So many are brought in from the table; others stand in line, where a reader meets them.
const BROUGHT: u64 = 256;

impl Partition<'_> {
    /// Whether so many deliveries are as many as a message may have.
    #[inline]
    pub(super) fn is_used_up(&self, slot: u32, attempts: u32) -> Result<bool, Corrupt> {
        Ok(attempts >= self.q(slot, Q::MaxAttempts)? as u32)
    }

    /// Puts a message, which is in no list, with the used-up ones where it is one; else false.
    pub(super) fn use_up(&self, slot: u32, record: u32, now: i64, wake: &mut Wake) -> Result<bool, Corrupt> {
        let used_up = self.is_used_up(slot, self.half(record, R::Attempts, true)?)?;
        if used_up {
            self.put_with_used_up(slot, record, now, wake)?;
        }
        Ok(used_up)
    }

    /// Puts a message, which is in no list, with the used-up ones.
    #[cold]
    pub(super) fn put_with_used_up(&self, slot: u32, record: u32, now: i64, wake: &mut Wake) -> Result<(), Corrupt> {
        self.leave_order(slot, record, now, wake)?;
        self.link(slot, record, USED_UP, false)?;
        self.ended(slot, self.r(record, R::MsgId)?.cast_signed(), wake)
    }

    /// A message whose lease has not been used, because it is over by limits of its own, is used up; the attempt isn't counted.
    pub fn end_unused(&self, slot: u32, msg_id: i64, lease: u64, now: i64, wake: &mut Wake) -> Result<(), Corrupt> {
        let Some(record) = self.leased(slot, msg_id, Some(lease))? else { return Ok(()) };
        self.unspend_in_group(slot, record, now)?;
        self.clear_timer(slot, record)?;
        self.unlink(slot, record)?;
        self.undo_attempt(record)?;
        self.put_with_used_up(slot, record, now, wake)?;
        self.in_flight_decreased(slot, wake)
    }

    /// Takes a message, which is in no list, out of the order of its group, and notes the group in its record.
    fn leave_order(&self, slot: u32, record: u32, now: i64, wake: &mut Wake) -> Result<(), Corrupt> {
        self.set_r(record, R::Lease, 0)?;
        let group = self.group_of(record)?;
        if group == 0 {
            return self.set_r(record, R::Due, 0);
        }
        self.set_r(record, R::Due, self.r(group, g::HASH)?)?;
        let kind = self.kind(record)?;
        self.set_kind(record, Kind { owner: 0, ..kind })?;
        self.leave_group(slot, group, record, self.number(record)?, now, wake)
    }

    /// Puts a used-up message of the table into the index.
    pub(super) fn bring_used_up(&self, slot: u32, entry: &Entry, room: bool, now: i64) -> Result<Put, Corrupt> {
        let record = if room { self.record_for(slot, now)? } else { None };
        let Some(record) = record else { return Ok(Put::NoRoom) };
        self.fill(slot, record, entry)?;
        self.set_r(record, R::Due, entry.group)?;
        self.link(slot, record, USED_UP, false)?;
        Ok(Put::In)
    }

    /// Whether the index takes in another one that the table's scan finds to be used up.
    pub(super) fn takes_used_up(&self, slot: u32, attempts: u32) -> Result<bool, Corrupt> {
        Ok(attempts > 0 && self.is_used_up(slot, attempts)? && self.list(slot, USED_UP)?.2 < BROUGHT)
    }

    /// Whether messages wait to be buried.
    #[inline]
    pub fn has_used_up(&self, slot: u32) -> Result<bool, Corrupt> {
        Ok(self.list(slot, USED_UP)?.2 > 0)
    }

    /// Sets used-up messages aside to be buried, as many as fit into what `aside` has reserved. Each is the caller's until it
    /// says how its transaction ended.
    pub fn set_used_up_aside(&self, slot: u32, aside: &mut Vec<Aside>) -> Result<(), Corrupt> {
        while aside.len() < aside.capacity() {
            let (record, _, len) = self.list(slot, USED_UP)?;
            if len == 0 {
                break;
            }
            aside.push(self.put_one_aside(slot, record)?);
        }
        Ok(())
    }

    /// Sets a message aside by its row, to be buried; `Stale` where it isn't used up.
    pub fn start_burial(&self, slot: u32, entry: &Entry, now: i64, wake: &mut Wake) -> Result<Busy, Corrupt> {
        let Some(record) = self.record_of_row(slot, entry, now, wake)? else {
            if !self.is_used_up(slot, entry.attempts)? {
                return Ok(Busy::Stale);
            }
            return self.set_aside(slot, entry, now);
        };
        let Kind { list, origin, .. } = self.kind(record)?;
        let attempts = self.half(record, R::Attempts, true)?;
        // The lease of one that a transaction is finishing doesn't run out.
        let runs = match list {
            LEASED => self.r(record, R::Due)?.cast_signed() > now,
            BUSY => origin == LEASED,
            _ => false,
        };
        if runs || !self.is_used_up(slot, attempts.max(entry.attempts))? {
            return Ok(Busy::Stale);
        }
        if list == BUSY {
            return Ok(Busy::Others);
        }
        if list != USED_UP {
            self.clear_timer(slot, record)?;
            self.unlink(slot, record)?;
            self.put_with_used_up(slot, record, now, wake)?;
            if list == LEASED {
                self.count(slot, Q::Failed, 1)?;
                self.in_flight_decreased(slot, wake)?;
            }
        }
        let Aside { tid, tag, .. } = self.put_one_aside(slot, record)?;
        Ok(Busy::Yours(Claimed { tid, tag, attempts, find_next: false, ack_async: false }))
    }

    /// More deliveries are allowed than before: what isn't used up by that stands in line again. Nobody is woken.
    pub(super) fn put_in_line_again(&self, slot: u32, now: i64) -> Result<(), Corrupt> {
        let wake = &mut Wake::none();
        for _ in 0..self.list(slot, USED_UP)?.2.min(self.records as u64) {
            let (record, _, _) = self.list(slot, USED_UP)?;
            self.unlink(slot, record)?;
            let (attempts, group) = (self.half(record, R::Attempts, true)?, self.r(record, R::Due)?);
            if self.is_used_up(slot, attempts)? {
                self.link(slot, record, USED_UP, false)?;
                continue;
            }
            self.set_r(record, R::Due, i64::MIN.cast_unsigned())?;
            if group == 0 {
                self.line_up(slot, record, true, wake)?;
            } else {
                let entry = self.entry(record, group)?;
                self.erase(slot, record)?;
                self.return_follower(slot, &entry, now, wake)?;
            }
        }
        // Those that are being buried, should that be rolled back.
        let (mut record, _, len) = self.list(slot, BUSY)?;
        for _ in 0..len.min(self.records as u64) {
            let (kind, group) = (self.kind(record)?, self.r(record, R::Due)?);
            if kind.origin == USED_UP && !self.is_used_up(slot, self.half(record, R::Attempts, true)?)? {
                let mut origin = FOLLOWER;
                if group == 0 {
                    origin = self.ready_list(record, true)?;
                } else {
                    self.set_r(record, R::Lease, group)?;
                }
                self.set_r(record, R::Due, i64::MIN.cast_unsigned())?;
                self.set_kind(record, Kind { origin, ..kind })?;
            }
            record = self.half(record, R::Links, true)?;
        }
        Ok(())
    }
}
