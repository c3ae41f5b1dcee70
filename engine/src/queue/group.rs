//! Groups: of the messages with one group key only the first may be delivered, and the next when that is finished, or, with more lanes
//! than one (`lanes.rs`), when that is leased.
//!
//! Only the **head** of a group is in memory: the one message that stands in line (ready or delayed), is leased, or is being
//! changed by an open transaction. The messages behind it are its **followers**; they stay in the table, however many they
//! are. Of them the group's record keeps a copy of the **next** one, so that it stands in line as soon as the head has
//! left, without a look at the table.
//!
//! The record says by a flag whether its next message is *known*: then no committed follower comes between the head and it,
//! or there is none. How that is found out stands in `probe.rs`.
//!
//! # Order
//! Within a group the number decides, also among delayed messages: a delayed head holds its group up until its time has
//! come. A message that arrives late, with a smaller number than the head's, takes the head's place unless that has been
//! delivered before; then it is the next.
//!
//! # Nothing is lost
//! The frontier may lie above followers, because their group has a record. Where a head leaves and the next message isn't
//! known, the frontier goes back to the head's number, the record goes, and the next refill finds what there is. The same
//! where a head is dropped for lack of room.
//!
//! A follower that an open transaction is finishing or failing is set aside under its own number and is out of the order
//! until that transaction ends: its group doesn't wait for it.

use super::layout::{BUSY, DELAYED, FOLLOWER, GROUP, HELD, PARKED, PRIORITIES, Partition, Q, R, READY, g};
use super::marks::{NUMBERS, TIMES};
use super::records::Kind;
use super::{Entry, Tag, Tid, Wake};
use crate::fingerprint;
use crate::words::Corrupt;

/// Where a message went that was to be put into the index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Put {
    In,
    /// Behind the head of its group.
    Behind,
    NoRoom,
}

/// What a group's record knows, as bits of its flags.
pub(super) mod flag {
    /// It holds the next message.
    pub const NEXT: usize = 1;
    /// No committed follower comes between the head and the next message; without one, there is no follower.
    pub const KNOWN: usize = 2;
    /// No earlier message than the head can be in the table.
    pub const FIRST: usize = 4;
    /// Followers with a delivery time may have been passed over.
    pub const TIMED: usize = 8;
    /// Followers with smaller numbers than the head's may have been passed over.
    pub const LATE: usize = 16;
}

/// What of this file the layout version depends on.
pub(super) const LAYOUT: u64 = fingerprint![flag::NEXT, flag::KNOWN, flag::FIRST, flag::TIMED, flag::LATE];

impl Partition<'_> {
    /// The record of the group with that hash.
    pub(super) fn group(&self, slot: u32, hash: u64) -> Result<Option<u32>, Corrupt> {
        self.lookup(slot | g::BIT, hash.cast_signed())
    }

    /// Whether the group with that hash has a head.
    pub(super) fn has_group(&self, slot: u32, hash: u64) -> Result<bool, Corrupt> {
        self.group(slot, hash)?.map_or(Ok(false), |group| Ok(self.head_of(group)? != 0))
    }

    pub(super) fn flags(&self, group: u32) -> Result<usize, Corrupt> {
        Ok(self.kind(group)?.origin)
    }

    pub(super) fn set_flags(&self, group: u32, flags: usize) -> Result<(), Corrupt> {
        let kind = self.kind(group)?;
        self.set_kind(group, Kind { origin: flags, ..kind })
    }

    /// The head's record; 0 where there is none (`lanes.rs`).
    pub(super) fn head_of(&self, group: u32) -> Result<u32, Corrupt> {
        self.half(group, g::HEAD, true)
    }

    pub(super) fn number(&self, record: u32) -> Result<i64, Corrupt> {
        Ok(self.r(record, R::MsgId)?.cast_signed())
    }

    /// The group's record of a head or a member; 0 for messages without a group and for followers that are set aside.
    pub(super) fn group_of(&self, record: u32) -> Result<u32, Corrupt> {
        let kind = self.kind(record)?;
        if kind.owner != 0 && self.kind(kind.owner)?.list != GROUP {
            return Err(Corrupt);
        }
        Ok(kind.owner)
    }

    /// The message of a record that isn't leased.
    pub(super) fn entry(&self, record: u32, group: u64) -> Result<Entry, Corrupt> {
        let kind = self.kind(record)?;
        Ok(Entry {
            msg_id: self.number(record)?,
            tid: Tid::unpack(self.r(record, R::Tid)?),
            priority: kind.priority.min(PRIORITIES - 1) as u8,
            attempts: self.half(record, R::Attempts, true)?,
            deliver_at: kind.timed.then_some(self.r(record, R::Due)?.cast_signed()),
            group,
            tag: Tag { sent: (self.r(record, R::Tid)? >> 48) as u16, writer: kind.writer },
        })
    }

    /// The next message, as far as it is known.
    pub(super) fn next(&self, group: u32) -> Result<Option<Entry>, Corrupt> {
        if self.flags(group)? & flag::NEXT == 0 {
            return Ok(None);
        }
        let kind = self.kind(group)?;
        Ok(Some(Entry {
            msg_id: self.r(group, g::NEXT)?.cast_signed(),
            tid: Tid::unpack(self.r(group, g::NEXT_TID)?),
            priority: kind.priority.min(PRIORITIES - 1) as u8,
            attempts: self.half(group, g::NEXT_ATTEMPTS, true)?,
            deliver_at: kind.timed.then_some(self.r(group, g::NEXT_DUE)?.cast_signed()),
            group: self.r(group, g::HASH)?,
            tag: Tag { sent: (self.r(group, g::NEXT_TID)? >> 48) as u16, writer: kind.writer },
        }))
    }

    fn set_next(&self, group: u32, entry: &Entry) -> Result<(), Corrupt> {
        self.set_r(group, g::NEXT, entry.msg_id.cast_unsigned())?;
        self.set_row(group, entry.tid, entry.tag)?;
        self.set_r(group, g::NEXT_DUE, entry.deliver_at.unwrap_or(i64::MIN).cast_unsigned())?;
        self.set_half(group, g::NEXT_ATTEMPTS, true, entry.attempts)?;
        let kind = self.kind(group)?;
        let priority = usize::from(entry.priority).min(PRIORITIES - 1);
        let (timed, origin) = (entry.deliver_at.is_some(), kind.origin | flag::NEXT);
        self.set_kind(group, Kind { priority, timed, origin, ..kind })
    }

    /// A record for a group.
    fn new_group(&self, slot: u32, first: &Entry, now: i64) -> Result<Option<u32>, Corrupt> {
        let Some(group) = self.record_for(slot, now)? else { return Ok(None) };
        self.set_r(group, g::HASH, first.group)?;
        self.set_r(group, g::HEAD, 0)?;
        self.set_r(group, g::NEXT_ATTEMPTS, u64::from(slot | g::BIT))?;
        self.set_kind(group, Kind { list: GROUP, ..Kind::default() })?;
        self.hash_in(group, slot | g::BIT, first.group.cast_signed())?;
        self.count(slot, Q::Groups, 1)?;
        Ok(Some(group))
    }

    pub(super) fn free_group(&self, slot: u32, group: u32) -> Result<(), Corrupt> {
        self.hash_out(group, slot | g::BIT, self.r(group, g::HASH)?.cast_signed())?;
        self.count(slot, Q::Groups, -1)?;
        self.free(group)
    }

    /// Puts a message of a group into the index that isn't in it: as the head of its group, or behind it.
    pub(super) fn put_grouped(
        &self,
        slot: u32,
        entry: &Entry,
        room: bool,
        now: i64,
        wake: &mut Wake,
    ) -> Result<Put, Corrupt> {
        let group = self.group(slot, entry.group)?;
        if let Some(group) = group
            && self.head_of(group)? != 0
        {
            return self.join(slot, group, entry, room, now, wake);
        }
        let record = if room { self.record_for(slot, now)? } else { None };
        let Some(record) = record else { return Ok(Put::NoRoom) };
        let group = match group {
            None => self.new_group(slot, entry, now)?,
            group => group,
        };
        let Some(group) = group else {
            self.free(record)?;
            return Ok(Put::NoRoom);
        };
        // What isn't in memory is outside of the frontier or the horizon, so the marks say what may be in the table besides.
        self.set_flags(group, if self.outside(slot)? { 0 } else { flag::KNOWN | flag::FIRST })?;
        self.become_head(slot, group, record, entry, now, wake)?;
        Ok(Put::In)
    }

    /// Whether a head has never been delivered and is set aside by no transaction: an earlier message may take its place.
    fn untouched(&self, head: u32) -> Result<bool, Corrupt> {
        let list = self.kind(head)?.list;
        let waits = list < READY || matches!(list, DELAYED | PARKED | HELD);
        Ok(waits && self.half(head, R::Attempts, true)? == 0)
    }

    /// A message comes to a group that has a head.
    fn join(
        &self,
        slot: u32,
        group: u32,
        entry: &Entry,
        room: bool,
        now: i64,
        wake: &mut Wake,
    ) -> Result<Put, Corrupt> {
        let head = self.head_of(group)?;
        let number = self.number(head)?;
        if entry.msg_id < number && self.untouched(head)? {
            self.clear_timer(slot, head)?;
            self.unlink(slot, head)?;
            // Others that have come so have taken its place before.
            let known = self.flags(group)? & flag::FIRST != 0;
            self.replace_head(slot, group, head, entry, known)?;
            self.place(slot, head, entry.deliver_at, now, wake)?;
            // That may be delayed.
            self.release(slot, group, now, wake)?;
            return Ok(Put::In);
        }
        if room && self.succeed_with(slot, group, entry, now, wake)? {
            return Ok(Put::In);
        }
        self.follow(group, entry)?;
        Ok(Put::Behind)
    }

    /// Keeps a follower as the next message, unless an earlier one is.
    pub(super) fn follow(&self, group: u32, entry: &Entry) -> Result<(), Corrupt> {
        let next = self.next(group)?;
        let passed = match next {
            Some(next) if next.msg_id < entry.msg_id => *entry,
            _ => {
                self.set_next(group, entry)?;
                let Some(next) = next.filter(|next| next.msg_id != entry.msg_id) else { return Ok(()) };
                next
            }
        };
        if passed.deliver_at.is_some() {
            self.set_flags(group, self.flags(group)? | flag::TIMED)?;
        }
        Ok(())
    }

    /// Writes a message into a record, which is in no list, and puts it in line as the head.
    pub(super) fn become_head(
        &self,
        slot: u32,
        group: u32,
        record: u32,
        entry: &Entry,
        now: i64,
        wake: &mut Wake,
    ) -> Result<(), Corrupt> {
        self.fill_head(slot, group, record, entry)?;
        self.place(slot, record, entry.deliver_at, now, wake)
    }

    /// Writes a message into a record, which is in no list, as the head.
    pub(super) fn fill_head(&self, slot: u32, group: u32, record: u32, entry: &Entry) -> Result<(), Corrupt> {
        self.fill(slot, record, entry)?;
        let kind = self.kind(record)?;
        self.set_kind(record, Kind { owner: group, ..kind })?;
        self.set_half(group, g::HEAD, true, record)
    }

    /// An earlier message takes the head's place and record, which is in no list; what was the head is the next message,
    /// which is `known` where no other can come between the two.
    pub(super) fn replace_head(
        &self,
        slot: u32,
        group: u32,
        record: u32,
        earlier: &Entry,
        known: bool,
    ) -> Result<(), Corrupt> {
        let before = self.entry(record, self.r(group, g::HASH)?)?;
        self.hash_out(record, slot, before.msg_id)?;
        self.fill(slot, record, earlier)?;
        let kind = self.kind(record)?;
        self.set_kind(record, Kind { owner: group, ..kind })?;
        if self.next(group)?.is_some_and(|next| next.deliver_at.is_some()) {
            self.set_flags(group, self.flags(group)? | flag::TIMED)?;
        }
        self.set_next(group, &before)?;
        let kind = self.kind(group)?;
        let known = if known { flag::KNOWN } else { 0 };
        // A prober looks behind the number of before.
        self.set_kind(group, Kind { origin: kind.origin & !flag::KNOWN | known, owner: 0, ..kind })?;
        self.count(slot, Q::TimedOutside, i64::from(before.deliver_at.is_some()))
    }

    /// The head with the number `left` has left for good, and its record is free: the next message's turn.
    pub(super) fn advance(&self, slot: u32, group: u32, left: i64, now: i64, wake: &mut Wake) -> Result<(), Corrupt> {
        let flags = self.flags(group)?;
        self.set_half(group, g::HEAD, true, 0)?;
        let next = self.next(group)?;
        if next.is_none() && flags & flag::KNOWN != 0 {
            return self.vacate(slot, group);
        }
        let sure = |next: &Entry| flags & flag::KNOWN != 0 || (next.msg_id < left && flags & flag::LATE == 0);
        if let Some(next) = next.filter(sure)
            && let Some(record) = self.allocate()?
        {
            return self.bring_next(slot, group, record, &next, now, wake);
        }
        self.forget_followers(slot, group, left)?;
        self.vacate(slot, group)?;
        // A session that waits took it that there is nothing in the table.
        self.wake_one(slot, wake).map(drop)
    }

    /// Puts the next message of a group in line as its head. What comes after that isn't known.
    pub(super) fn bring_next(
        &self,
        slot: u32,
        group: u32,
        record: u32,
        next: &Entry,
        now: i64,
        wake: &mut Wake,
    ) -> Result<(), Corrupt> {
        self.pass_next(slot, group, next)?;
        self.become_head(slot, group, record, next, now, wake)
    }

    /// The next message of a group becomes its head.
    pub(super) fn pass_next(&self, slot: u32, group: u32, next: &Entry) -> Result<(), Corrupt> {
        let kind = self.kind(group)?;
        self.set_kind(group, Kind { origin: kind.origin & (flag::FIRST | flag::TIMED), owner: 0, ..kind })?;
        self.brought(slot, next.deliver_at.is_some())
    }

    /// Lowers the marks so that the next refill finds the followers of a group whose record goes; `left` is its head's
    /// number.
    fn forget_followers(&self, slot: u32, group: u32, left: i64) -> Result<(), Corrupt> {
        let next = self.next(group)?;
        let left = if self.flags(group)? & flag::LATE != 0 { i64::MIN } else { left };
        let below = next.map_or(left, |next| left.min(next.msg_id.saturating_sub(1)));
        self.lower(slot, NUMBERS, below, i64::MAX)?;
        let timed = self.flags(group)? & flag::TIMED != 0 || next.is_some_and(|next| next.deliver_at.is_some());
        if timed {
            self.lower(slot, TIMES, i64::MIN, i64::MAX)?;
        }
        Ok(())
    }

    /// Nothing is known of a group's followers any more: they may have been deleted with a message of it. A head that is in flight
    /// beside that one becomes a member, so that the next refill finds what is there.
    pub(super) fn forget_followers_of(&self, slot: u32, record: u32, wake: &mut Wake) -> Result<(), Corrupt> {
        let group = self.group_of(record)?;
        if group == 0 || self.head_of(group)? == 0 {
            return Ok(());
        }
        let head = self.head_of(group)?;
        let number = self.number(record)?.min(self.number(head)?);
        self.forget_followers(slot, group, number)?;
        self.set_flags(group, 0)?;
        if head != record && self.lanes(slot)? > 1 && self.is_in_flight(head)? {
            self.behead(slot, group)?;
            self.wake_one(slot, wake)?;
        }
        Ok(())
    }

    /// Drops a message of a group from the index; the head with all that is known of its group. The marks already lie below the message
    /// itself. Where another one of its group comes into line in its place, nobody is woken.
    pub(super) fn drop_of_group(&self, slot: u32, record: u32) -> Result<(), Corrupt> {
        let (group, number) = (self.group_of(record)?, self.number(record)?);
        let list = self.kind(record)?.list;
        let (head, ready) = (self.head_of(group)? == record, list < READY || list == HELD);
        self.unlink(slot, record)?;
        self.erase(slot, record)?;
        if head {
            self.forget_followers(slot, group, number)?;
            self.set_half(group, g::HEAD, true, 0)?;
            self.vacate(slot, group)?;
        } else {
            self.set_flags(group, self.flags(group)? & !flag::FIRST)?;
            self.member_left(slot, group)?;
        }
        if ready && self.kind(group)?.list == GROUP { self.unpark(slot, group).map(drop) } else { Ok(()) }
    }

    /// A head that is in no list and was never delivered lets an earlier message go first, which has come while it was in
    /// somebody's hands; false where there is none.
    pub(super) fn yield_head(&self, slot: u32, record: u32, now: i64, wake: &mut Wake) -> Result<bool, Corrupt> {
        let group = self.group_of(record)?;
        if group == 0 || self.head_of(group)? != record || self.half(record, R::Attempts, true)? > 0 {
            return Ok(false);
        }
        let number = self.number(record)?;
        let Some(next) = self.next(group)?.filter(|next| next.msg_id < number) else { return Ok(false) };
        self.clear_timer(slot, record)?;
        self.replace_head(slot, group, record, &next, false)?;
        self.brought(slot, next.deliver_at.is_some())?;
        self.place(slot, record, next.deliver_at, now, wake)?;
        Ok(true)
    }

    /// Whether a message is the head of a group whose next one isn't known, which its leaving should not come upon.
    pub(super) fn lacks_next(&self, record: u32) -> Result<bool, Corrupt> {
        let group = self.group_of(record)?;
        Ok(group != 0 && self.head_of(group)? == record && self.flags(group)? & flag::KNOWN == 0)
    }

    /// Sets a message of a group aside that isn't in the index; false where there is no room for it.
    pub(super) fn put_follower_aside(&self, slot: u32, entry: &Entry, now: i64) -> Result<bool, Corrupt> {
        let Some(record) = self.record_for(slot, now)? else { return Ok(false) };
        self.follower_left(slot, entry.group, entry.msg_id)?;
        self.fill(slot, record, entry)?;
        // By which it finds its group again.
        self.set_r(record, R::Lease, entry.group)?;
        let kind = self.kind(record)?;
        self.set_kind(record, Kind { origin: FOLLOWER, ..kind })?;
        self.link(slot, record, BUSY, false)?;
        self.count(slot, Q::BusyUnleased, 1)?;
        self.brought(slot, entry.deliver_at.is_some())?;
        Ok(true)
    }

    /// A follower that isn't in the index has left for good: what comes after it isn't known.
    pub(super) fn follower_left(&self, slot: u32, hash: u64, msg_id: i64) -> Result<(), Corrupt> {
        if hash != 0
            && let Some(group) = self.group(slot, hash)?
            && self.next(group)?.is_some_and(|next| next.msg_id == msg_id)
        {
            let flags = self.flags(group)? & !(flag::NEXT | flag::KNOWN);
            let late = msg_id < self.number(self.head_of(group)?)?;
            self.set_flags(group, if late { flags & !flag::FIRST | flag::LATE } else { flags })?;
        }
        Ok(())
    }

    /// Whether the group of a message that isn't in the index should be probed before the head leaves.
    pub(super) fn group_lacks_next(&self, slot: u32, hash: u64) -> Result<bool, Corrupt> {
        let Some(group) = self.group(slot, hash)? else { return Ok(false) };
        Ok(self.head_of(group)? != 0 && self.flags(group)? & flag::KNOWN == 0)
    }

    /// The transaction that had set a follower aside has ended, and its row is as the entry says. It is in the index no
    /// more.
    pub(super) fn return_follower(&self, slot: u32, entry: &Entry, now: i64, wake: &mut Wake) -> Result<(), Corrupt> {
        let inside = self.reached(slot, entry)? || self.has_group(slot, entry.group)?;
        let put = if inside { self.put_grouped(slot, entry, true, now, wake)? } else { Put::NoRoom };
        if put == Put::NoRoom {
            self.leave_out(slot, entry, wake)?;
        }
        if put != Put::In {
            self.count(slot, Q::TimedOutside, i64::from(entry.deliver_at.is_some()))?;
        }
        Ok(())
    }
}
