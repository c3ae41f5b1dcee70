//! Lanes: how many messages of one group may be in flight at a time, where that is more than one.
//!
//! A group has a head (`group.rs`) whether it has one lane or many. With one, a head that is leased stays the head until it is
//! finished. With more, the next message takes its place as soon as it is known, and the former head becomes a **member**: a
//! message that has its group's record as its owner and isn't the head. So one of each group stands in line at a time, however many of it
//! are in flight, and groups take turns.
//!
//! * The group's record counts those in flight, *running*: leased, or leased and being finished by an open transaction.
//! * A member whose lease ends comes into line again, or rests, like any message. One that rests takes no lane, and where the
//!   head does so, it becomes a member: the next message doesn't wait for it.
//! * Whatever is met in line while all lanes are taken is **parked**: in a list of its own, and chained to the others of its group,
//!   so that it is found when a lane is free. Whatever frees a lane, or takes a message out of line otherwise, lets one that is parked
//!   come into line again. So where something is parked, all lanes are taken, or something of the group stands in line.
//! * Where the head has left and there is no next message, a group that has members keeps its record, without a head. What comes then
//!   is put into the index as if there were no group.
//!
//! # One lane and members
//! A reader that asks for whole groups gets the next messages beside the one it has ([`Partition::take_next`]), whatever the number of
//! lanes. So also a group with one lane may have members, as where the number of lanes has been lowered, which ends nothing that runs.
//! The order stays strict all the same. Such a group is closed while one of those is in flight, or rests as a member: that counts as
//! running, too. All that has come back is parked, in order, and where none is elsewhere the first has its turn. What comes behind
//! them, the head, waits with them; one that has come back with a smaller number than theirs is waited for.

use super::layout::{BUSY, DELAYED, GROUP, HELD, LEASED, PARKED, Partition, Q, R, READY, g};
use super::records::Kind;
use super::{Delivery, Entry, Wake};
use crate::fingerprint;
use crate::words::Corrupt;

/// What a delayed member's [`Kind`] says beside its list (`origin`): it counts as running.
const CLOSES: usize = 1;

/// Whether a message is in flight.
fn runs(kind: Kind) -> bool {
    kind.list == LEASED || (kind.list == BUSY && kind.origin == LEASED)
}

/// Whether a message counts as running in its group.
fn takes_lane(kind: Kind) -> bool {
    runs(kind) || (kind.list == DELAYED && kind.origin == CLOSES)
}

impl Partition<'_> {
    /// How many messages of one group may be in flight.
    #[inline]
    pub(super) fn lanes(&self, slot: u32) -> Result<u32, Corrupt> {
        Ok(((self.q(slot, Q::MaxAttempts)? >> 32) as u32).max(1))
    }

    /// Messages of a group that are in flight.
    pub(super) fn running(&self, group: u32) -> Result<u32, Corrupt> {
        self.half(group, g::RUNNING, false)
    }

    /// Messages of a group in the index besides its head.
    pub(super) fn members(&self, group: u32) -> Result<u32, Corrupt> {
        self.half(group, g::MEMBERS, false)
    }

    /// Counts a group's messages in flight ([`g::RUNNING`]), or its members.
    fn count_in_group(&self, group: u32, what: R, by: i32) -> Result<(), Corrupt> {
        let count = self.half(group, what, false)?.checked_add_signed(by).ok_or(Corrupt)?;
        self.set_half(group, what, false, count)
    }

    fn count_member(&self, group: u32) -> Result<(), Corrupt> {
        self.count_in_group(group, g::MEMBERS, 1)
    }

    /// The message of a group that was parked first; 0 where none is.
    pub(super) fn first_parked(&self, group: u32) -> Result<u32, Corrupt> {
        self.slot_half((group as usize).wrapping_sub(1), false)
    }

    fn set_first_parked(&self, group: u32, record: u32) -> Result<(), Corrupt> {
        self.set_slot_half((group as usize).wrapping_sub(1), false, record)
    }

    /// Of the chain of those that are parked, which is a ring: the one after a record.
    fn parked_after(&self, record: u32) -> Result<u32, Corrupt> {
        self.half(record, R::Chain, false)
    }

    /// The one before it.
    fn parked_before(&self, record: u32) -> Result<u32, Corrupt> {
        self.slot_half((record as usize).wrapping_sub(1), false)
    }

    fn chain(&self, record: u32, next: u32) -> Result<(), Corrupt> {
        self.set_half(record, R::Chain, false, next)?;
        self.set_slot_half((next as usize).wrapping_sub(1), false, record)
    }

    /// A record with an owner has been put into a list.
    #[cold]
    pub(super) fn enter_lane(&self, record: u32) -> Result<(), Corrupt> {
        let mut kind = self.kind(record)?;
        if kind.list == DELAYED {
            let one = self.lanes(self.half(record, R::Attempts, false)?)? == 1;
            let closes = one && self.head_of(self.group_of(record)?)? != record;
            kind.origin = if closes { CLOSES } else { 0 };
            self.set_kind(record, kind)?;
        }
        if takes_lane(kind) {
            self.count_in_group(self.group_of(record)?, g::RUNNING, 1)?;
        } else if kind.list == PARKED {
            self.enter_ring(self.group_of(record)?, record)?;
        }
        Ok(())
    }

    /// Puts a record into the ring of those that are parked: at its end, or, where the group has one lane, at its place by number.
    fn enter_ring(&self, group: u32, record: u32) -> Result<(), Corrupt> {
        let first = self.first_parked(group)?;
        if first == 0 {
            self.chain(record, record)?;
            return self.set_first_parked(group, record);
        }
        let (last, number) = (self.parked_before(first)?, self.number(record)?);
        let (mut before, mut leads) = (last, false);
        if self.lanes(self.half(record, R::Attempts, false)?)? == 1 {
            for _ in 0..self.records {
                if self.number(before)? < number {
                    break;
                }
                if before == first {
                    (before, leads) = (last, true);
                    break;
                }
                before = self.parked_before(before)?;
            }
        }
        let after = self.parked_after(before)?;
        self.chain(before, record)?;
        self.chain(record, after)?;
        if leads { self.set_first_parked(group, record) } else { Ok(()) }
    }

    /// A record with an owner is about to be taken out of its list.
    #[cold]
    pub(super) fn leave_lane(&self, slot: u32, record: u32) -> Result<(), Corrupt> {
        let kind = self.kind(record)?;
        if takes_lane(kind) {
            self.count_in_group(self.group_of(record)?, g::RUNNING, -1)?;
        } else if kind.list == HELD {
            self.release_held(slot, record)?;
        } else if kind.list == PARKED {
            let group = self.group_of(record)?;
            let (before, after) = (self.parked_before(record)?, self.parked_after(record)?);
            if after == record {
                self.set_first_parked(group, 0)?;
            } else {
                self.chain(before, after)?;
                if self.first_parked(group)? == record {
                    self.set_first_parked(group, after)?;
                }
            }
            self.set_half(record, R::Chain, false, 0)?;
            self.set_slot_half((record as usize).wrapping_sub(1), false, 0)?;
        }
        Ok(())
    }

    /// Parks a message of a group, which is in no list, where all lanes are taken or it isn't its turn, or holds it where the group is
    /// allowed no other delivery now; else false.
    #[cold]
    pub(super) fn park(&self, slot: u32, record: u32, now: i64, wake: &mut Wake) -> Result<bool, Corrupt> {
        let (group, lanes) = (self.group_of(record)?, self.lanes(slot)?);
        if self.running(group)? >= lanes {
            self.link(slot, record, PARKED, false)?;
            return Ok(true);
        }
        if lanes == 1 && self.members(group)? > 0 {
            self.link(slot, record, PARKED, false)?;
            match self.turn(group)? {
                Some(first) if first == record => self.unlink(slot, record)?,
                // Nobody is woken: it stands in line in the other's place.
                Some(_) => return self.unpark(slot, group),
                None => return Ok(true),
            }
        }
        self.hold(slot, record, now, wake)
    }

    /// Of a group with one lane: the parked one that may be delivered, because all others are parked behind it. The head is waited for
    /// where it comes before.
    fn turn(&self, group: u32) -> Result<Option<u32>, Corrupt> {
        let (first, head) = (self.first_parked(group)?, self.head_of(group)?);
        if first == 0 || self.running(group)? > 0 {
            return Ok(None);
        }
        let mut all = self.members(group)?;
        if head != 0 {
            if self.kind(head)?.list == PARKED {
                all = all.saturating_add(1);
            } else if self.number(head)? < self.number(first)? {
                return Ok(None);
            }
        }
        let (mut parked, mut record) = (1, self.parked_after(first)?);
        while record != first && parked <= all.min(self.records as u32) {
            parked += 1;
            record = self.parked_after(record)?;
        }
        Ok((parked == all).then_some(first))
    }

    /// Leases to `process` the next message of the group of one that it has under `lease`, beside that; where the group has one lane, first
    /// of all what has come back. `None` where there is none, where it may not be delivered now, or where other readers' messages are in between. The
    /// caller has looked for what the lease of the first said ([`Delivery::find_next`], [`Delivery::may_overtake`]).
    pub fn take_next(
        &self,
        slot: u32,
        msg_id: i64,
        lease: u64,
        process: u32,
        now: i64,
        timeout: i64,
        wake: &mut Wake,
    ) -> Result<Option<Delivery>, Corrupt> {
        self.follow_clock(now)?;
        let Some(record) = self.leased(slot, msg_id, Some(lease))? else { return Ok(None) };
        let group = self.group_of(record)?;
        let runs = self.r(record, R::Due)?.cast_signed() > now;
        if group == 0 || !runs || self.paused(slot)? || self.allowance(slot, now)? == 0 {
            return Ok(None);
        }
        if self.rate_wait(slot, group, now)? > 0 {
            return Ok(None);
        }
        let Some(next) = self.next_beside(slot, group, record, now)? else { return Ok(None) };
        let attempts = self.half(next, R::Attempts, true)?.saturating_add(1);
        let (lease, until) = (self.first_lease_at(now)?, now.saturating_add(timeout));
        let taken = self.lease(slot, next, lease, attempts, now, until, process, wake)?;
        self.spend(slot, 1, now)?;
        Ok(Some(taken))
    }

    /// The record, which is in no list any more, of the message that follows on one of its group that is leased.
    fn next_beside(&self, slot: u32, group: u32, record: u32, now: i64) -> Result<Option<u32>, Corrupt> {
        let (parked, head) = (self.first_parked(group)?, self.head_of(group)?);
        let there = if parked != 0 && self.lanes(slot)? == 1 {
            parked
        } else if head != 0 && head != record && self.kind(head)?.list < READY {
            head
        } else {
            0
        };
        if there != 0 {
            let earlier = self.number(there)? < self.number(record)?;
            if earlier || self.is_used_up(slot, self.half(there, R::Attempts, true)?)? {
                return Ok(None);
            }
            self.unlink(slot, there)?;
            return Ok(Some(there));
        }
        if head != record || self.lacks_next(head)? {
            return Ok(None);
        }
        if self.half(head, R::Attempts, true)? == 1 && self.may_overtake(slot, head)? {
            return Ok(None);
        }
        let Some(next) = self.next(group)? else { return Ok(None) };
        if next.deliver_at.is_some_and(|at| at > now) || self.is_used_up(slot, next.attempts)? {
            return Ok(None);
        }
        let Some(new) = self.record_for(slot, now)? else { return Ok(None) };
        self.count_member(group)?;
        self.pass_next(slot, group, &next)?;
        self.fill_head(slot, group, new, &next)?;
        Ok(Some(new))
    }

    /// A message of a group has been leased to `process`: behind which number that has to look for the next one, and whether it
    /// has to look for an earlier one.
    #[cold]
    pub(super) fn leased_of_group(
        &self,
        slot: u32,
        record: u32,
        process: u32,
        now: i64,
        wake: &mut Wake,
    ) -> Result<(Option<i64>, bool), Corrupt> {
        let group = self.group_of(record)?;
        self.spend_in_group(slot, group, now)?;
        if self.head_of(group)? != record {
            return Ok((None, false));
        }
        let may_overtake = self.half(record, R::Attempts, true)? == 1 && self.may_overtake(slot, record)?;
        let find_next = self.begin_probe(group, process)?;
        if find_next.is_none() && !may_overtake {
            self.succeed(slot, group, now, wake)?;
        }
        Ok((find_next, may_overtake))
    }

    /// Whether the group's next message may take the place of the head: that is in flight, there is a lane for another one, and none
    /// comes between the two or before both.
    fn may_be_succeeded(&self, slot: u32, group: u32) -> Result<bool, Corrupt> {
        let (lanes, head) = (self.lanes(slot)?, self.head_of(group)?);
        if lanes == 1
            || head == 0
            || self.running(group)? >= lanes
            || self.lacks_next(head)?
            || !self.is_in_flight(head)?
        {
            return Ok(false);
        }
        Ok(self.half(head, R::Attempts, true)? > 1 || !self.may_overtake(slot, head)?)
    }

    /// Puts the next message of a group in line where it is known and there is a lane for it; the head becomes a member.
    pub(super) fn succeed(&self, slot: u32, group: u32, now: i64, wake: &mut Wake) -> Result<(), Corrupt> {
        let Some(next) = self.next(group)? else { return Ok(()) };
        if !self.may_be_succeeded(slot, group)? || !self.has_room(slot, false)? {
            return Ok(());
        }
        let Some(record) = self.record_for(slot, now)? else { return Ok(()) };
        self.count_member(group)?;
        self.bring_next(slot, group, record, &next, now, wake)
    }

    /// Puts a message that comes to a group in line where that has no next one and a lane for this; false where it is to be a follower.
    pub(super) fn succeed_with(
        &self,
        slot: u32,
        group: u32,
        entry: &Entry,
        now: i64,
        wake: &mut Wake,
    ) -> Result<bool, Corrupt> {
        if self.next(group)?.is_some() || !self.may_be_succeeded(slot, group)? {
            return Ok(false);
        }
        let Some(record) = self.record_for(slot, now)? else { return Ok(false) };
        self.count_member(group)?;
        self.become_head(slot, group, record, entry, now, wake)?;
        Ok(true)
    }

    /// A message, which may have a group, has settled after its lease ended; it may rest.
    #[inline]
    pub(super) fn free_lane(
        &self,
        slot: u32,
        record: u32,
        rests: bool,
        now: i64,
        wake: &mut Wake,
    ) -> Result<(), Corrupt> {
        if self.kind(record)?.owner == 0 { Ok(()) } else { self.free_lane_of_group(slot, record, rests, now, wake) }
    }

    #[cold]
    fn free_lane_of_group(
        &self,
        slot: u32,
        record: u32,
        rests: bool,
        now: i64,
        wake: &mut Wake,
    ) -> Result<(), Corrupt> {
        let group = self.group_of(record)?;
        if rests && self.head_of(group)? == record && self.lanes(slot)? > 1 {
            self.count_member(group)?;
            self.advance(slot, group, self.number(record)?, now, wake)?;
        }
        self.release(slot, group, now, wake)
    }

    /// A message has left its group for good, and its record is in no list; the group may go with it.
    pub(super) fn leave_group(
        &self,
        slot: u32,
        group: u32,
        record: u32,
        number: i64,
        now: i64,
        wake: &mut Wake,
    ) -> Result<(), Corrupt> {
        if self.head_of(group)? == record {
            self.advance(slot, group, number, now, wake)?;
        } else {
            self.member_left(slot, group)?;
        }
        // Where it is there still.
        if self.kind(group)?.list == GROUP { self.release(slot, group, now, wake) } else { Ok(()) }
    }

    /// A group has a member less.
    pub(super) fn member_left(&self, slot: u32, group: u32) -> Result<(), Corrupt> {
        self.count_in_group(group, g::MEMBERS, -1)?;
        if self.head_of(group)? == 0 { self.vacate(slot, group) } else { Ok(()) }
    }

    /// Whether a message is in flight.
    pub(super) fn is_in_flight(&self, record: u32) -> Result<bool, Corrupt> {
        Ok(runs(self.kind(record)?))
    }

    /// The head of a group, of which nothing else is known, becomes a member.
    pub(super) fn behead(&self, slot: u32, group: u32) -> Result<(), Corrupt> {
        self.count_member(group)?;
        self.set_half(group, g::HEAD, true, 0)?;
        self.vacate(slot, group)
    }

    /// A member becomes the head of its group, which has none.
    pub(super) fn crown(&self, group: u32, member: u32) -> Result<(), Corrupt> {
        self.count_in_group(group, g::MEMBERS, -1)?;
        self.set_half(group, g::HEAD, true, member)
    }

    /// The group has no head any more, and nothing is known of what comes next: it stays while it has members.
    pub(super) fn vacate(&self, slot: u32, group: u32) -> Result<(), Corrupt> {
        if self.members(group)? == 0 {
            return self.free_group(slot, group);
        }
        let kind = self.kind(group)?;
        self.set_kind(group, Kind { origin: 0, owner: 0, ..kind })
    }

    /// Lets one that is parked, or the next message, come into line where there is a lane for it.
    pub(super) fn release(&self, slot: u32, group: u32, now: i64, wake: &mut Wake) -> Result<(), Corrupt> {
        if self.unpark(slot, group)? {
            return self.wake_one(slot, wake).map(drop);
        }
        self.succeed(slot, group, now, wake)
    }

    /// Lets one that is parked come into line where there is a lane for it, and wakes nobody; false where none does.
    pub(super) fn unpark(&self, slot: u32, group: u32) -> Result<bool, Corrupt> {
        let parked = match self.lanes(slot)? {
            1 => self.turn(group)?.unwrap_or(0),
            lanes if self.running(group)? < lanes => self.first_parked(group)?,
            _ => 0,
        };
        if parked == 0 {
            return Ok(false);
        }
        self.unlink(slot, parked)?;
        self.stand_in_line(slot, parked)?;
        Ok(true)
    }

    /// The queue's groups have more lanes than before. Nobody is woken.
    pub(super) fn widen(&self, slot: u32, now: i64) -> Result<(), Corrupt> {
        let wake = &mut Wake::none();
        for _ in 0..self.list(slot, PARKED)?.2.min(self.records as u64) {
            let (record, _, _) = self.list(slot, PARKED)?;
            self.unlink(slot, record)?;
            self.stand_in_line(slot, record)?;
        }
        for list in [LEASED, BUSY, DELAYED] {
            let (mut record, _, len) = self.list(slot, list)?;
            for _ in 0..len.min(self.records as u64) {
                let kind = self.kind(record)?;
                if kind.owner != 0 && list == DELAYED && kind.origin == CLOSES {
                    self.count_in_group(self.group_of(record)?, g::RUNNING, -1)?;
                    self.set_kind(record, Kind { origin: 0, ..kind })?;
                }
                if kind.owner != 0 && list != DELAYED {
                    self.succeed(slot, self.group_of(record)?, now, wake)?;
                } else if kind.owner != 0 && self.half(record, R::Attempts, true)? > 0 && !self.lacks_next(record)? {
                    self.free_lane(slot, record, true, now, wake)?;
                }
                record = self.half(record, R::Links, true)?;
            }
        }
        Ok(())
    }

    /// Puts a message, which is in no list, at the end of its priority's ready ones, and wakes nobody.
    pub(super) fn stand_in_line(&self, slot: u32, record: u32) -> Result<(), Corrupt> {
        let turn = self.half(record, R::Attempts, true)? > 0;
        self.link(slot, record, self.ready_list(record, turn)?, false)
    }
}

/// What of this file the layout version depends on.
pub(super) const LAYOUT: u64 = fingerprint![CLOSES];
