//! Looking at the table of a group: which message is the next, and whether an earlier one than the head is there.
//!
//! # Which message is the next
//! The record says by a flag whether its next message is *known*: then no committed follower comes between the head and it,
//! or there is none. When the head has been replaced the flag is off. The session that delivers the new head turns it on by one
//! probe of the table's index on `(group_key, msg_id)`, from the head's number on:
//!
//! 1. Under the lock, when the head is leased, the record notes the session as its *prober*.
//! 2. Without the lock it takes a snapshot and looks for the first row behind the head.
//! 3. Under the lock it offers that row. If it still is the prober, the row competes with what senders have brought since,
//!    and the flag goes on.
//!
//! No message is missed: one that was committed before the snapshot is found by the probe. One committed after it is
//! brought by its sender's commit, after step 1, and senders always leave the smaller number as the next message. A second
//! session that probes takes the mark over; what the first one offers is ignored then, because it may lack what was
//! brought between the two. A session that fails between the steps leaves the flag off.
//!
//! A session that finishes a head that was never delivered (it knows the number from elsewhere) probes before its transaction commits.
//!
//! # Whether there is an earlier one
//! A head may have come into memory before an earlier message that is still outside, beyond the horizon or the frontier.
//! While that is possible the session that is the first to deliver it looks at the table, and lets an earlier message go
//! first ([`Partition::yield_to`]).

use super::group::flag;
use super::layout::{Partition, R};
use super::records::Kind;
use super::{Entry, Wake};
use crate::words::Corrupt;

/// What became of an earlier message that a reader has found in the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Yielded {
    /// It isn't in line, because an open transaction is finishing it: the reader's message may be delivered.
    Passed,
    /// It is the head now, and the reader's message is behind it.
    Overtaken,
}

/// What became of a row that a prober has offered as the next message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offered {
    /// The group's next message is known now.
    Known,
    /// An open transaction is changing that one: the prober looks for another.
    Busy,
    /// Another session probes, or the head has left: nothing is to be done any more.
    Moot,
}

impl Partition<'_> {
    /// Whether an earlier message of the head's group may be in the table and not in the index: one with a delivery time
    /// beyond the horizon, or one without beyond the frontier.
    pub(super) fn may_overtake(&self, slot: u32, head: u32) -> Result<bool, Corrupt> {
        let group = self.group_of(head)?;
        let flags = self.flags(group)?;
        if flags & flag::FIRST != 0 {
            return Ok(false);
        }
        let (frontier, horizon) = self.reach(slot)?;
        if horizon != i64::MAX || self.number(head)? > frontier {
            return Ok(true);
        }
        self.set_flags(group, flags | flag::FIRST)?;
        Ok(false)
    }

    /// Makes `process` the prober of a group whose next message isn't known; behind which number it has to look, passing
    /// over the head.
    pub(super) fn begin_probe(&self, group: u32, process: u32) -> Result<Option<i64>, Corrupt> {
        let kind = self.kind(group)?;
        if kind.origin & flag::KNOWN != 0 || self.head_of(group)? == 0 {
            return Ok(None);
        }
        self.set_kind(group, Kind { owner: process.wrapping_add(1), ..kind })?;
        let late = kind.origin & flag::LATE != 0;
        Ok(Some(if late { i64::MIN } else { self.number(self.head_of(group)?)? }))
    }

    /// The calling process sets out to look for a group's next message, where that isn't known: behind the number in the
    /// answer, passing over the head.
    pub fn start_probe(&self, slot: u32, hash: u64, process: u32) -> Result<Option<i64>, Corrupt> {
        self.group(slot, hash)?.map_or(Ok(None), |group| self.begin_probe(group, process))
    }

    /// The record of a group that `process` probes.
    fn probed(&self, slot: u32, hash: u64, process: u32) -> Result<Option<u32>, Corrupt> {
        let Some(group) = self.group(slot, hash)? else { return Ok(None) };
        Ok((self.kind(group)?.owner == process.wrapping_add(1)).then_some(group))
    }

    /// The prober has found a follower, the first that its snapshot shows.
    pub fn offer_next(
        &self,
        slot: u32,
        entry: &Entry,
        process: u32,
        now: i64,
        wake: &mut Wake,
    ) -> Result<Offered, Corrupt> {
        let Some(group) = self.probed(slot, entry.group, process)? else { return Ok(Offered::Moot) };
        if self.knows(slot, entry.msg_id)? {
            return Ok(Offered::Busy);
        }
        self.follow(group, entry)?;
        self.known(slot, group, now, wake)?;
        Ok(Offered::Known)
    }

    /// The prober has found no (further) follower.
    pub fn end_probe(&self, slot: u32, hash: u64, process: u32, now: i64, wake: &mut Wake) -> Result<(), Corrupt> {
        match self.probed(slot, hash, process)? {
            Some(group) => self.known(slot, group, now, wake),
            None => Ok(()),
        }
    }

    fn known(&self, slot: u32, group: u32, now: i64, wake: &mut Wake) -> Result<(), Corrupt> {
        let kind = self.kind(group)?;
        self.set_kind(group, Kind { origin: kind.origin & !flag::LATE | flag::KNOWN, owner: 0, ..kind })?;
        self.succeed(slot, group, now, wake)
    }

    /// A reader has found an earlier message in the table, the first of the leased one's group that it hasn't been told to
    /// pass over: unless that is in an open transaction's hands, it is the head from now on. The reader's message is behind
    /// it, as if it had not been read.
    pub fn yield_to(
        &self,
        slot: u32,
        msg_id: i64,
        lease: u64,
        earlier: &Entry,
        now: i64,
        wake: &mut Wake,
    ) -> Result<Yielded, Corrupt> {
        let Some(record) = self.leased(slot, msg_id, Some(lease))? else { return Ok(Yielded::Overtaken) };
        let group = self.group_of(record)?;
        if group == 0 || self.knows(slot, earlier.msg_id)? {
            return Ok(Yielded::Passed);
        }
        match self.head_of(group)? {
            head if head == record => {}
            // It was the head when it was read, and lost that with another message of the group, whose row has vanished.
            0 => self.crown(group, record)?,
            _ => return Ok(Yielded::Passed),
        }
        self.unspend_in_group(slot, record, now)?;
        self.clear_timer(slot, record)?;
        self.unlink(slot, record)?;
        self.undo_attempt(record)?;
        self.set_r(record, R::Due, i64::MIN.cast_unsigned())?;
        self.replace_head(slot, group, record, earlier, false)?;
        self.brought(slot, earlier.deliver_at.is_some())?;
        self.set_flags(group, self.flags(group)? | flag::FIRST)?;
        self.place(slot, record, earlier.deliver_at, now, wake)?;
        self.free_lane(slot, record, false, now, wake)?;
        self.in_flight_decreased(slot, wake)?;
        Ok(Yielded::Overtaken)
    }

    /// A reader has found that no message of its group comes before a head.
    pub fn comes_first(&self, slot: u32, hash: u64, msg_id: i64, now: i64, wake: &mut Wake) -> Result<(), Corrupt> {
        let Some(group) = self.group(slot, hash)? else { return Ok(()) };
        let head = self.head_of(group)?;
        if head == 0 || self.number(head)? != msg_id {
            return Ok(());
        }
        self.set_flags(group, self.flags(group)? | flag::FIRST)?;
        self.succeed(slot, group, now, wake)
    }
}
