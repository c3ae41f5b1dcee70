//! Groups: of the messages with one group key only the first may be delivered, and the next when that is finished.
//!
//! A group has a record of its own while one of its messages is in the index. It knows its **holder**, the one message
//! that is in the queue's lists (ready, delayed, leased or busy), and the **blocked** ones, in the order of their numbers.
//! The holder stays until it leaves the index; a message that has never been delivered gives way to an earlier one.
//!
//! * **More.** A group keeps a few messages blocked. Those with greater numbers than its mark `more` may be outside of
//!   the index although the queue's frontier is beyond them: so a long group neither fills the index nor hides the
//!   messages behind it. Who delivers the last one reads on in the table ([`Partition::start_group`]).
//! * **Nothing is lost.** Where a group runs out of messages and nobody has read on, the queue's frontier goes back to
//!   its mark: the next refill finds them.
//! * **Unsettled.** A sender's message from beyond the frontier, pushed because a refill is under way, must not become a
//!   holder before the scan has brought the earlier ones. It waits aside until the scan meets it, or ends.
//!
//! A blocked message that an open transaction deletes is out of the order until then: the group doesn't wait for it.

use super::layout::{BLOCKED, DELAYED, GROUP, PRIORITIES, Partition, Q, R, UNSETTLED, g};
use super::records::Kind;
use super::{Entry, Tid, Wake};
use crate::words::Corrupt;

/// The most messages of a group that wait in the index.
pub const MOST_BLOCKED: u32 = 64;
/// The most messages that wait for the end of a refill; further ones are left to the next.
const MOST_UNSETTLED: u64 = 1024;

/// Where a message went that was to be put into the index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Put {
    In,
    /// Outside, where its group will look for it.
    Beyond,
    NoRoom,
}

/// Whether a message of a group has to wait for an earlier one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overtaken {
    /// It may be delivered: an open transaction is finishing the earlier one.
    Not,
    /// It waits now.
    Waits,
}

impl Partition<'_> {
    fn group(&self, slot: u32, hash: u64) -> Result<Option<u32>, Corrupt> {
        self.lookup(slot | g::BIT, hash.cast_signed())
    }

    fn new_group(&self, slot: u32, hash: u64) -> Result<Option<u32>, Corrupt> {
        let Some(group) = self.record_for(slot)? else { return Ok(None) };
        self.set_r(group, g::HASH, hash)?;
        self.set_r(group, g::BLOCKED, 0)?;
        self.set_r(group, g::COUNTS, 0)?;
        self.set_r(group, g::HOLDER, 0)?;
        self.set_r(group, g::MORE, i64::MAX.cast_unsigned())?;
        self.set_r(group, g::FLOOR, u64::from(slot | g::BIT))?;
        self.set_kind(group, Kind { list: GROUP, ..Kind::default() })?;
        self.hash_in(group, slot | g::BIT, hash.cast_signed())?;
        Ok(Some(group))
    }

    fn more(&self, group: u32) -> Result<i64, Corrupt> {
        Ok(self.r(group, g::MORE)?.cast_signed())
    }

    fn holder(&self, group: u32) -> Result<u32, Corrupt> {
        self.half(group, g::HOLDER, false)
    }

    fn number(&self, record: u32) -> Result<i64, Corrupt> {
        Ok(self.r(record, R::MsgId)?.cast_signed())
    }

    fn blocked(&self, group: u32) -> Result<u32, Corrupt> {
        self.half(group, g::COUNTS, true)
    }

    /// The first of the messages that wait for this one.
    pub(super) fn first_blocked(&self, record: u32) -> Result<Option<u32>, Corrupt> {
        let group = self.group_of(record)?;
        if group == 0 {
            return Ok(None);
        }
        let first = self.half(group, g::BLOCKED, true)?;
        Ok((first != 0).then_some(first))
    }

    /// Messages of the queue that wait for earlier ones of their groups.
    pub fn waiting_in_groups(&self, slot: u32) -> Result<u64, Corrupt> {
        self.q(slot, Q::Blocked)
    }

    /// The record of a message's group; 0 where it has none.
    fn group_of(&self, record: u32) -> Result<u32, Corrupt> {
        let kind = self.kind(record)?;
        if kind.owner != 0 && self.kind(kind.owner)?.list != GROUP {
            return Err(Corrupt);
        }
        Ok(kind.owner)
    }

    /// Puts a message of a group into the index that isn't in it. Where there is no room, a message that would have to
    /// wait for others is left to its group.
    pub(super) fn put_grouped(
        &self,
        slot: u32,
        entry: &Entry,
        room: bool,
        now: i64,
        wake: &mut Wake,
    ) -> Result<Put, Corrupt> {
        let known = self.group(slot, entry.group)?;
        if let Some(group) = known {
            let holder = self.holder(group)?;
            if entry.msg_id > self.more(group)? {
                self.skip(slot, group, entry)?;
                return Ok(Put::Beyond);
            }
            if !room && holder != 0 && entry.msg_id > self.number(holder)? {
                self.cut(slot, group, entry.msg_id.saturating_sub(1))?;
                self.skip(slot, group, entry)?;
                return Ok(Put::Beyond);
            }
        }
        let record = if room { self.record_for(slot)? } else { None };
        let Some(record) = record else { return Ok(Put::NoRoom) };
        let group = match known {
            Some(group) => Some(group),
            None => self.new_group(slot, entry.group)?,
        };
        let Some(group) = group else {
            self.free(record)?;
            return Ok(Put::NoRoom);
        };
        self.fill(slot, record, entry)?;
        self.join(slot, record, group, now, wake)?;
        // Of too many that wait, the last one goes; it may be this one.
        let beyond = self.lookup(slot, entry.msg_id)? != Some(record);
        Ok(if beyond { Put::Beyond } else { Put::In })
    }

    /// A message is left out because its number is beyond the group's mark.
    fn skip(&self, slot: u32, group: u32, entry: &Entry) -> Result<(), Corrupt> {
        self.note_left_out(slot, group, entry.msg_id, entry.deliver_at.is_some())
    }

    fn note_left_out(&self, slot: u32, group: u32, msg_id: i64, timed: bool) -> Result<(), Corrupt> {
        if timed {
            self.count(slot, Q::TimedOutside, 1)?;
            let mut kind = self.kind(group)?;
            kind.timed = true;
            self.set_kind(group, kind)?;
        }
        let distance = msg_id.saturating_sub(1).saturating_sub(self.more(group)?);
        let distance = u32::try_from(distance.max(0)).unwrap_or(u32::MAX - 1);
        let floor = self.half(group, g::FLOOR, true)?;
        self.set_half(group, g::FLOOR, true, floor.min(distance))
    }

    /// Makes a record, which is in no list, a member of a group.
    fn join(&self, slot: u32, record: u32, group: u32, now: i64, wake: &mut Wake) -> Result<(), Corrupt> {
        let mut kind = self.kind(record)?;
        kind.owner = group;
        self.set_kind(record, kind)?;
        let members = self.half(group, g::COUNTS, false)?;
        self.set_half(group, g::COUNTS, false, members.saturating_add(1))?;
        if self.r(record, R::Due)?.cast_signed() > now {
            self.set_timer(record)?;
        }
        self.sort_in(slot, record, group, wake)
    }

    /// Makes an unsettled message a member of its group, whose hash is in place of its lease.
    fn join_unsettled(&self, slot: u32, record: u32, group: u32, now: i64, wake: &mut Wake) -> Result<(), Corrupt> {
        self.unlink(slot, record)?;
        self.set_r(record, R::Lease, 0)?;
        self.join(slot, record, group, now, wake)
    }

    /// A member that is in no list finds its place: the holder's, or among the blocked ones. Its timer runs if its time
    /// has not come.
    pub(super) fn sort_in(&self, slot: u32, record: u32, group: u32, wake: &mut Wake) -> Result<(), Corrupt> {
        let holder = self.holder(group)?;
        if holder == 0 {
            return self.hold(slot, record, group, wake);
        }
        let list = self.kind(holder)?.list;
        let untouched = (list < PRIORITIES || list == DELAYED) && self.half(holder, R::Attempts, true)? == 0;
        if untouched && self.number(record)? < self.number(holder)? {
            self.unlink(slot, holder)?;
            self.hold(slot, record, group, wake)?;
            return self.block(slot, holder, group);
        }
        self.block(slot, record, group)
    }

    /// Makes a record the holder of its group, ready or delayed.
    fn hold(&self, slot: u32, record: u32, group: u32, wake: &mut Wake) -> Result<(), Corrupt> {
        self.set_half(group, g::HOLDER, false, record)?;
        if !self.has_timer(record)? {
            return self.make_ready(slot, record, false, wake);
        }
        self.link(slot, record, DELAYED, false)?;
        // Rare enough to wake one without a look at the clock.
        self.wake_one(slot, wake).map(drop)
    }

    /// Puts a record among the blocked ones of its group, by its number.
    fn block(&self, slot: u32, record: u32, group: u32) -> Result<(), Corrupt> {
        let number = self.number(record)?;
        let (mut before, mut after) = (self.half(group, g::BLOCKED, false)?, 0);
        for _ in 0..=MOST_BLOCKED {
            if before == 0 || self.number(before)? < number {
                break;
            }
            after = before;
            before = self.half(before, R::Links, false)?;
        }
        self.set_r(record, R::Links, u64::from(after) << 32 | u64::from(before))?;
        match before {
            0 => self.set_half(group, g::BLOCKED, true, record)?,
            _ => self.set_half(before, R::Links, true, record)?,
        }
        match after {
            0 => self.set_half(group, g::BLOCKED, false, record)?,
            _ => self.set_half(after, R::Links, false, record)?,
        }
        let mut kind = self.kind(record)?;
        kind.list = BLOCKED;
        self.set_kind(record, kind)?;
        let count = self.blocked(group)?.saturating_add(1);
        self.set_half(group, g::COUNTS, true, count)?;
        self.count(slot, Q::Blocked, 1)?;
        if self.has_timer(record)? {
            self.count(slot, Q::BlockedDelayed, 1)?;
        }
        if count > MOST_BLOCKED {
            let last = self.half(group, g::BLOCKED, false)?;
            self.leave_out_last(slot, group, last)?;
        }
        Ok(())
    }

    /// Takes a record out of its group's list of blocked ones. Its timer goes on.
    pub(super) fn unblock(&self, slot: u32, group: u32, record: u32) -> Result<(), Corrupt> {
        let (next, previous) = (self.half(record, R::Links, true)?, self.half(record, R::Links, false)?);
        match next {
            0 => self.set_half(group, g::BLOCKED, false, previous)?,
            _ => self.set_half(next, R::Links, false, previous)?,
        }
        match previous {
            0 => self.set_half(group, g::BLOCKED, true, next)?,
            _ => self.set_half(previous, R::Links, true, next)?,
        }
        let count = self.blocked(group)?.checked_sub(1).ok_or(Corrupt)?;
        self.set_half(group, g::COUNTS, true, count)?;
        self.count(slot, Q::Blocked, -1)?;
        if self.has_timer(record)? {
            self.count(slot, Q::BlockedDelayed, -1)?;
        }
        self.set_r(record, R::Links, 0)
    }

    /// Drops the last blocked message of a group.
    fn leave_out_last(&self, slot: u32, group: u32, last: u32) -> Result<(), Corrupt> {
        let (number, timed) = (self.number(last)?, self.kind(last)?.timed);
        let more = self.more(group)?.min(number.saturating_sub(1));
        self.set_r(group, g::MORE, more.cast_unsigned())?;
        self.note_left_out(slot, group, number, timed)?;
        self.unlink(slot, last)?;
        self.erase(slot, last)?;
        let members = self.half(group, g::COUNTS, false)?;
        self.set_half(group, g::COUNTS, false, members.saturating_sub(1))
    }

    /// Lowers a group's mark: what is blocked with a greater number goes.
    fn cut(&self, slot: u32, group: u32, more: i64) -> Result<(), Corrupt> {
        let more = more.min(self.more(group)?);
        self.set_r(group, g::MORE, more.cast_unsigned())?;
        for _ in 0..=MOST_BLOCKED {
            let last = self.half(group, g::BLOCKED, false)?;
            if last == 0 || self.number(last)? <= more {
                return Ok(());
            }
            self.leave_out_last(slot, group, last)?;
        }
        Err(Corrupt)
    }

    /// A message leaves the index, and with it its group, which is in no list any more: the next one's turn.
    pub(super) fn leave_group(&self, slot: u32, record: u32, wake: &mut Wake) -> Result<(), Corrupt> {
        let group = self.group_of(record)?;
        if group == 0 {
            return Ok(());
        }
        let members = self.half(group, g::COUNTS, false)?.checked_sub(1).ok_or(Corrupt)?;
        self.set_half(group, g::COUNTS, false, members)?;
        if self.holder(group)? == record {
            self.set_half(group, g::HOLDER, false, 0)?;
            self.promote(slot, group, wake)?;
        }
        self.close_group(slot, group, wake)
    }

    /// The first blocked message becomes the holder. Where the group has none, the queue looks for its next ones.
    fn promote(&self, slot: u32, group: u32, wake: &mut Wake) -> Result<(), Corrupt> {
        let more = self.more(group)?;
        // Left behind by a session that read the group and did not come to the end.
        self.cut(slot, group, more)?;
        let first = self.half(group, g::BLOCKED, true)?;
        if first != 0 {
            self.unlink(slot, first)?;
            return self.hold(slot, first, group, wake);
        }
        if more == i64::MAX {
            return Ok(());
        }
        self.lower(slot, Q::Frontier, Q::FrontierFloor, more)?;
        if self.kind(group)?.timed {
            self.lower(slot, Q::Horizon, Q::HorizonFloor, i64::MIN)?;
        }
        self.set_r(group, g::MORE, i64::MAX.cast_unsigned())?;
        self.wake_one(slot, wake)?;
        Ok(())
    }

    /// A holder that is in no list and was never delivered gives way to an earlier one that has come since and is blocked;
    /// false where there is none. Its timer runs if its time has not come.
    pub(super) fn give_way(&self, slot: u32, record: u32, wake: &mut Wake) -> Result<bool, Corrupt> {
        let Some(first) = self.first_blocked(record)? else { return Ok(false) };
        if self.half(record, R::Attempts, true)? > 0 || self.number(first)? > self.number(record)? {
            return Ok(false);
        }
        let group = self.group_of(record)?;
        self.unlink(slot, first)?;
        self.hold(slot, first, group, wake)?;
        self.block(slot, record, group)?;
        Ok(true)
    }

    /// Frees a group without members.
    fn close_group(&self, slot: u32, group: u32, wake: &mut Wake) -> Result<(), Corrupt> {
        if self.half(group, g::COUNTS, false)? != 0 {
            return Ok(());
        }
        if self.more(group)? != i64::MAX {
            self.promote(slot, group, wake)?;
        }
        self.hash_out(group, slot | g::BIT, self.r(group, g::HASH)?.cast_signed())?;
        self.free(group)
    }

    /// Drops the holder, and the messages that wait for it.
    pub(super) fn drop_group(&self, slot: u32, holder: u32) -> Result<(), Corrupt> {
        let group = self.group_of(holder)?;
        let number = self.number(holder)?;
        self.cut(slot, group, number)?;
        // Nothing is blocked any more, so the frontier goes back to where the group's rest is found.
        self.forget(slot, holder, &mut Wake::nobody())
    }

    /// The holder's lease was taken while this message was the last of its group in the index.
    pub(super) fn ends_group(&self, record: u32) -> Result<bool, Corrupt> {
        let group = self.group_of(record)?;
        Ok(group != 0 && self.blocked(group)? == 0 && self.more(group)? != i64::MAX)
    }

    /// Whether an earlier message of its group may be in the table and not in the index: one with a delivery time beyond
    /// the horizon, or one without beyond the frontier.
    pub(super) fn unsure(&self, slot: u32, record: u32) -> Result<bool, Corrupt> {
        Ok(self.q_i64(slot, Q::Horizon)? != i64::MAX || self.number(record)? > self.q_i64(slot, Q::Frontier)?)
    }

    /// Whether a record belongs to a group.
    pub(super) fn grouped(&self, record: u32) -> Result<bool, Corrupt> {
        Ok(self.group_of(record)? != 0)
    }

    /// A sender's message from beyond the frontier while a refill is under way; false where there is no room.
    pub(super) fn put_unsettled(&self, slot: u32, entry: &Entry, room: bool) -> Result<bool, Corrupt> {
        if !room || self.list(slot, UNSETTLED)?.2 >= MOST_UNSETTLED {
            return Ok(false);
        }
        let Some(record) = self.record_for(slot)? else { return Ok(false) };
        self.fill(slot, record, entry)?;
        self.set_r(record, R::Lease, entry.group)?;
        self.link(slot, record, UNSETTLED, false)?;
        Ok(true)
    }

    /// Whether everything before this message, which has no group yet, is in the index.
    fn settled(&self, slot: u32, record: u32) -> Result<bool, Corrupt> {
        Ok(if self.kind(record)?.timed {
            self.r(record, R::Due)?.cast_signed() <= self.q_i64(slot, Q::Horizon)?
        } else {
            self.number(record)? <= self.q_i64(slot, Q::Frontier)?
        })
    }

    /// Gives an unsettled message, which is in no list, to its group, or drops it where there is no room.
    pub(super) fn settle(&self, slot: u32, record: u32, now: i64, wake: &mut Wake) -> Result<(), Corrupt> {
        let hash = self.r(record, R::Lease)?;
        let kind = self.kind(record)?;
        let entry = Entry {
            msg_id: self.number(record)?,
            tid: Tid::unpack(self.r(record, R::Tid)?),
            priority: kind.priority.min(PRIORITIES - 1) as u8,
            attempts: self.half(record, R::Attempts, true)?,
            deliver_at: kind.timed.then_some(self.r(record, R::Due)?.cast_signed()),
            group: hash,
        };
        self.erase(slot, record)?;
        if self.put_grouped(slot, &entry, true, now, wake)? == Put::NoRoom {
            self.leave_out(slot, &entry, wake)?;
            self.count(slot, Q::TimedOutside, i64::from(kind.timed))?;
        }
        Ok(())
    }

    /// After a refill: what it has come past goes to its group, the rest is outside.
    pub(super) fn settle_all(&self, slot: u32, now: i64, wake: &mut Wake) -> Result<(), Corrupt> {
        for _ in 0..self.list(slot, UNSETTLED)?.2.min(self.records as u64) {
            let (first, _, _) = self.list(slot, UNSETTLED)?;
            self.unlink(slot, first)?;
            if self.settled(slot, first)? {
                self.settle(slot, first, now, wake)?;
            } else {
                self.count(slot, Q::TimedOutside, i64::from(self.kind(first)?.timed))?;
                self.erase(slot, first)?;
            }
        }
        Ok(())
    }

    /// An unsettled message is no longer busy.
    pub(super) fn unsettle(&self, slot: u32, record: u32, now: i64, wake: &mut Wake) -> Result<(), Corrupt> {
        if self.settled(slot, record)? {
            self.settle(slot, record, now, wake)
        } else if self.q(slot, Q::Refiller)? != 0 {
            self.link(slot, record, UNSETTLED, false)
        } else {
            self.count(slot, Q::TimedOutside, i64::from(self.kind(record)?.timed))?;
            self.erase(slot, record)
        }
    }

    /// A session that delivers the last of a group sets out to read the group's next messages from the table: those with
    /// greater numbers than the answer. `None` where there is nothing to read, or somebody does.
    pub fn start_group(&self, slot: u32, hash: u64, process: u32) -> Result<Option<i64>, Corrupt> {
        let Some(group) = self.group(slot, hash)? else { return Ok(None) };
        let more = self.more(group)?;
        if more == i64::MAX || self.blocked(group)? > 0 {
            return Ok(None);
        }
        let mut kind = self.kind(group)?;
        kind.owner = process.saturating_add(1);
        self.set_kind(group, kind)?;
        self.set_half(group, g::FLOOR, true, u32::MAX)?;
        Ok(Some(more))
    }

    /// A row that was read; it must be one of the group's. False where there is no room for it.
    pub fn found_in_group(&self, slot: u32, entry: &Entry, now: i64) -> Result<bool, Corrupt> {
        let Some(group) = self.group(slot, entry.group)? else { return Ok(false) };
        if let Some(known) = self.lookup(slot, entry.msg_id)? {
            if self.kind(known)?.list == UNSETTLED {
                self.join_unsettled(slot, known, group, now, &mut Wake::nobody())?;
            }
            return Ok(true);
        }
        if self.blocked(group)? >= MOST_BLOCKED || self.holder(group)? == 0 {
            return Ok(false);
        }
        let Some(record) = self.record_for(slot)? else { return Ok(false) };
        self.fill(slot, record, entry)?;
        // Behind a holder nobody can be woken for it.
        self.join(slot, record, group, now, &mut Wake::nobody())?;
        self.brought(slot, entry.deliver_at.is_some())?;
        Ok(true)
    }

    /// Ends the reading: everything of the group at or below `scanned` has been brought, `i64::MAX` for all.
    pub fn end_group(&self, slot: u32, hash: u64, process: u32, scanned: i64) -> Result<(), Corrupt> {
        let Some(group) = self.group(slot, hash)? else { return Ok(()) };
        let mut kind = self.kind(group)?;
        let more = self.more(group)?;
        if kind.owner != process.saturating_add(1) || more == i64::MAX {
            return Ok(());
        }
        kind.owner = 0;
        kind.timed &= scanned != i64::MAX;
        self.set_kind(group, kind)?;
        let floor = match self.half(group, g::FLOOR, true)? {
            u32::MAX => i64::MAX,
            distance => more.saturating_add(i64::from(distance)),
        };
        let reached = scanned.min(floor).max(more);
        self.set_r(group, g::MORE, reached.cast_unsigned())?;
        self.cut(slot, group, reached)
    }

    /// A reader found that the table holds an earlier message of the leased one's group: where the index doesn't know it,
    /// the reader's goes back, not counted, and waits for the other; where there is no room for that, in the table.
    pub fn overtaken(
        &self,
        slot: u32,
        msg_id: i64,
        lease: u64,
        earlier: &Entry,
        now: i64,
        wake: &mut Wake,
    ) -> Result<Overtaken, Corrupt> {
        let Some(record) = self.leased(slot, msg_id, Some(lease))? else { return Ok(Overtaken::Waits) };
        let group = self.group_of(record)?;
        let known = self.lookup(slot, earlier.msg_id)?;
        let list = known.map(|known| self.kind(known)).transpose()?.map(|kind| kind.list);
        if group == 0 || list.is_some_and(|list| list != BLOCKED && list != UNSETTLED) {
            return Ok(Overtaken::Not);
        }
        self.uncount(record)?;
        let first = if let Some(known) = known {
            known
        } else {
            let Some(room) = self.record_for(slot)? else {
                // It makes room itself, so that the two don't keep each other out.
                self.drop_known(slot, record)?;
                if self.put_grouped(slot, earlier, true, now, wake)? == Put::In {
                    self.brought(slot, earlier.deliver_at.is_some())?;
                }
                return Ok(Overtaken::Waits);
            };
            self.fill(slot, room, earlier)?;
            self.brought(slot, earlier.deliver_at.is_some())?;
            room
        };
        self.clear_timer(record)?;
        self.unlink(slot, record)?;
        self.set_r(record, R::Lease, 0)?;
        self.set_r(record, R::Due, i64::MIN.cast_unsigned())?;
        self.set_half(group, g::HOLDER, false, 0)?;
        match list {
            Some(BLOCKED) => {
                self.unlink(slot, first)?;
                self.hold(slot, first, group, wake)?;
            }
            Some(_) => self.join_unsettled(slot, first, group, now, wake)?,
            None => self.join(slot, first, group, now, wake)?,
        }
        self.block(slot, record, group)?;
        self.landed(slot, wake)?;
        Ok(Overtaken::Waits)
    }
}
