//! Reading a message, giving it back; what has become of those that were read.

use super::layout::{BUSY, FOLLOWER, Head, LEASED, PRIORITIES, Partition, Q, R, READY, USED_UP};
use super::records::Kind;
use super::registry::MISCOUNTED;
use super::{Entry, Tag, Tid, Wake};
use crate::words::Corrupt;

/// Messages that one read may find to be used up, or that have to be parked, under one hold of the lock.
pub(super) const PASSES: usize = 64;

/// A message that was read: leased to the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delivery {
    /// Its number.
    pub msg_id: i64,
    /// Where its row was when it was last seen.
    pub tid: Tid,
    /// What tells its row from others of the number.
    pub tag: Tag,
    /// The number of this lease; unique in the segment.
    pub lease: u64,
    /// Deliveries so far, this one included.
    pub attempts: u32,
    /// When the lease ends, in microseconds.
    pub until: i64,
    /// The next message of its group isn't known: the caller is to look for it behind that number (`probe.rs`).
    pub find_next: Option<i64>,
    /// An earlier message of its group may be in the table and not in the index: the caller is to look for one first. Never
    /// set for a message that was delivered before, which keeps its place at the head of its group.
    pub may_overtake: bool,
}

/// A lease that was made to end at another time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extended {
    /// When it ends, in microseconds.
    pub until: i64,
    /// Where the message's row was when it was last seen.
    pub tid: Tid,
    /// What tells its row from others of the number.
    pub tag: Tag,
}

impl Partition<'_> {
    /// Leases up to `want` ready messages to `process`, as many as fit into what `taken` has reserved. Some that are used up
    /// are put with the others of the kind on the way, and sessions that wait for what they held up are woken. `now` is the time by the
    /// clock at this moment, under the lock.
    pub fn take(
        &self,
        slot: u32,
        process: u32,
        now: i64,
        want: usize,
        timeout: i64,
        taken: &mut Vec<Delivery>,
        wake: &mut Wake,
    ) -> Result<(), Corrupt> {
        self.follow_clock(now)?;
        if self.paused(slot)? {
            return Ok(());
        }
        self.set_q_i64(slot, Q::LastRead, now)?;
        let most = self.q(slot, Q::MaxAttempts)? as u32;
        let mut next_lease = self.first_lease_at(now)?;
        let until = now.saturating_add(timeout);
        let allowance = usize::try_from(self.allowance(slot, now)?).unwrap_or(usize::MAX);
        let before = taken.len();
        let (mut left, mut passes) = (want.min(allowance).min(taken.capacity() - before), PASSES);
        while left > 0 {
            let bitmap = self.q(slot, Q::Bitmap)? & ((1 << READY) - 1);
            if bitmap == 0 {
                break;
            }
            let (record, _, _) = self.list(slot, bitmap.ilog2() as usize)?;
            self.unlink(slot, record)?;
            let attempts = self.half(record, R::Attempts, true)?;
            let passed = if attempts >= most {
                self.put_with_used_up(slot, record, now, wake)?;
                true
            } else {
                self.kind(record)?.owner != 0 && self.park(slot, record, now, wake)?
            };
            if passed {
                passes -= 1;
                if passes == 0 {
                    break;
                }
                continue;
            }
            left -= 1;
            taken.push(self.lease(slot, record, next_lease, attempts + 1, now, until, process, wake)?);
            next_lease = next_lease.wrapping_add(1);
        }
        if allowance == usize::MAX {
            return Ok(());
        }
        self.spend(slot, u32::try_from(taken.len() - before).unwrap_or(u32::MAX), now)
    }

    /// Leases a message, which is in no list, under the number `lease` for its `attempts`-th delivery.
    #[inline(always)]
    pub(super) fn lease(
        &self,
        slot: u32,
        record: u32,
        lease: u64,
        attempts: u32,
        now: i64,
        until: i64,
        process: u32,
        wake: &mut Wake,
    ) -> Result<Delivery, Corrupt> {
        self.set_head(Head::NextLease, lease.wrapping_add(1))?;
        self.set_half(record, R::Attempts, true, attempts)?;
        let mut kind = self.kind(record)?;
        kind.counted = true;
        self.set_kind(record, kind)?;
        self.set_r(record, R::Lease, lease)?;
        self.set_r(record, R::Due, until.cast_unsigned())?;
        self.link(slot, record, LEASED, false)?;
        self.set_timer(slot, record)?;
        self.ended(slot, self.r(record, R::MsgId)?.cast_signed(), wake)?;
        let (find_next, may_overtake) = match kind.owner {
            0 => (None, false),
            _ => self.leased_of_group(slot, record, process, now, wake)?,
        };
        Ok(Delivery {
            msg_id: self.r(record, R::MsgId)?.cast_signed(),
            tid: Tid::unpack(self.r(record, R::Tid)?),
            tag: self.tag(slot, record)?,
            lease,
            attempts,
            until,
            find_next,
            may_overtake,
        })
    }

    /// Counts deliveries, in the hope that their rows will be found.
    pub fn delivered(&self, slot: u32, count: usize) -> Result<(), Corrupt> {
        self.count(slot, Q::Delivered, i64::try_from(count).unwrap_or(i64::MAX))
    }

    /// Some of them have not come about.
    pub fn not_delivered(&self, slot: u32, count: usize, now: i64) -> Result<(), Corrupt> {
        self.count(slot, Q::Delivered, -i64::try_from(count).unwrap_or(i64::MAX))?;
        self.unspend(slot, u32::try_from(count).unwrap_or(u32::MAX), now)
    }

    /// The record of a message under that lease.
    pub(super) fn leased(&self, slot: u32, msg_id: i64, lease: Option<u64>) -> Result<Option<u32>, Corrupt> {
        let Some(record) = self.lookup(slot, msg_id)? else {
            return Ok(None);
        };
        let current =
            self.kind(record)?.list == LEASED && lease.is_none_or(|lease| self.r(record, R::Lease) == Ok(lease));
        Ok(current.then_some(record))
    }

    /// The number of a message's lease, also while an open transaction is changing the message; `None` where it isn't
    /// leased, or the lease is over.
    pub fn running_lease(&self, slot: u32, msg_id: i64, now: i64) -> Result<Option<u64>, Corrupt> {
        let Some(record) = self.lookup(slot, msg_id)? else { return Ok(None) };
        let kind = self.kind(record)?;
        let running = match kind.list {
            LEASED => self.r(record, R::Due)?.cast_signed() > now,
            BUSY => kind.origin == LEASED,
            _ => false,
        };
        Ok(if running { Some(self.r(record, R::Lease)?) } else { None })
    }

    /// Whether an open transaction has set the message aside.
    pub fn is_being_changed(&self, slot: u32, msg_id: i64) -> Result<bool, Corrupt> {
        self.lookup(slot, msg_id)?.map_or(Ok(false), |record| Ok(self.kind(record)?.list == BUSY))
    }

    /// Notes where the row of a leased message is now.
    pub fn moved(&self, slot: u32, msg_id: i64, lease: u64, tid: Tid) -> Result<(), Corrupt> {
        match self.leased(slot, msg_id, Some(lease))? {
            Some(record) => self.set_place(record, tid),
            None => Ok(()),
        }
    }

    /// Forgets a message whose row is gone: the one with that tag.
    pub fn drop_message(&self, slot: u32, msg_id: i64, tag: Tag, now: i64, wake: &mut Wake) -> Result<(), Corrupt> {
        match self.lookup(slot, msg_id)? {
            Some(record) if self.tag(slot, record)?.matches(tag) => self.forget(slot, record, now, wake),
            _ => Ok(()),
        }
    }

    /// Forgets a message whose row has vanished behind the index's back: the one with that tag.
    pub fn drop_vanished(&self, slot: u32, msg_id: i64, tag: Tag, now: i64, wake: &mut Wake) -> Result<(), Corrupt> {
        match self.lookup(slot, msg_id)? {
            Some(record) if self.kind(record)?.list != BUSY && self.tag(slot, record)?.matches(tag) => {
                self.supersede(slot, record, now, wake)
            }
            _ => Ok(()),
        }
    }

    /// The same, of a leased one.
    pub fn drop_leased(&self, slot: u32, msg_id: i64, lease: u64, now: i64, wake: &mut Wake) -> Result<(), Corrupt> {
        match self.leased(slot, msg_id, Some(lease))? {
            Some(record) => {
                self.unspend_in_group(slot, record, now)?;
                self.set_q(slot, Q::Flags, self.q(slot, Q::Flags)? | MISCOUNTED)?;
                self.supersede(slot, record, now, wake)
            }
            None => Ok(()),
        }
    }

    /// Lets a lease end at `until` instead; at or before `now` the message is ready again at once. `None` where it isn't
    /// leased, or not by that lease.
    pub fn extend(
        &self,
        slot: u32,
        msg_id: i64,
        lease: Option<u64>,
        now: i64,
        until: i64,
        wake: &mut Wake,
    ) -> Result<Option<Extended>, Corrupt> {
        self.follow_clock(now)?;
        let Some(record) = self.leased(slot, msg_id, lease)? else {
            return Ok(None);
        };
        if self.r(record, R::Due)?.cast_signed() <= now {
            // It has run out already; nobody has looked since.
            return Ok(None);
        }
        self.clear_timer(slot, record)?;
        self.set_r(record, R::Due, until.cast_unsigned())?;
        if until > now {
            self.set_timer(slot, record)?;
            self.watch(slot, now, wake)?;
        } else {
            self.unlink(slot, record)?;
            if self.use_up(slot, record, now, wake)? {
                self.in_flight_decreased(slot, wake)?;
            } else {
                self.line_up(slot, record, true, wake)?;
                self.free_lane(slot, record, false, now, wake)?;
            }
        }
        let (tid, tag) = (Tid::unpack(self.r(record, R::Tid)?), self.tag(slot, record)?);
        Ok(Some(Extended { until, tid, tag }))
    }

    /// The reader's transaction was rolled back: the message rests for `delay` microseconds, and is ready again.
    pub fn release_with_backoff(
        &self,
        slot: u32,
        msg_id: i64,
        lease: u64,
        now: i64,
        delay: i64,
        wake: &mut Wake,
    ) -> Result<(), Corrupt> {
        self.follow_clock(now)?;
        let Some(record) = self.leased(slot, msg_id, Some(lease))? else {
            return Ok(());
        };
        self.clear_timer(slot, record)?;
        self.unlink(slot, record)?;
        if self.use_up(slot, record, now, wake)? {
            // The worker may still say why.
            self.set_r(record, R::Lease, lease)?;
            return self.in_flight_decreased(slot, wake);
        }
        if delay <= 0 {
            self.line_up_first(slot, record, wake)?;
            return self.free_lane(slot, record, false, now, wake);
        }
        self.set_r(record, R::Due, now.saturating_add(delay).cast_unsigned())?;
        self.delay(slot, record, now, wake)?;
        self.free_lane(slot, record, true, now, wake)?;
        self.in_flight_decreased(slot, wake)
    }

    /// Undoes a lease as if it had not been: the attempt isn't counted. For a message whose row the reader's snapshot
    /// doesn't show.
    pub fn undo_lease(&self, slot: u32, msg_id: i64, lease: u64, now: i64, wake: &mut Wake) -> Result<(), Corrupt> {
        let Some(record) = self.leased(slot, msg_id, Some(lease))? else {
            return Ok(());
        };
        self.unspend_in_group(slot, record, now)?;
        self.clear_timer(slot, record)?;
        self.unlink(slot, record)?;
        self.undo_attempt(record)?;
        // The lease's time says nothing any more, also where the message goes behind another of its group.
        self.set_r(record, R::Due, i64::MIN.cast_unsigned())?;
        if self.yield_head(slot, record, now, wake)? {
            self.free_lane(slot, record, false, now, wake)?;
            return self.in_flight_decreased(slot, wake);
        }
        self.line_up_first(slot, record, wake)?;
        self.free_lane(slot, record, false, now, wake)
    }

    /// The attempt of the lease that runs isn't one.
    pub(super) fn undo_attempt(&self, record: u32) -> Result<(), Corrupt> {
        let mut kind = self.kind(record)?;
        if std::mem::take(&mut kind.counted) {
            let attempts = self.half(record, R::Attempts, true)?;
            self.set_half(record, R::Attempts, true, attempts.saturating_sub(1))?;
            self.set_kind(record, kind)?;
        }
        Ok(())
    }

    /// The list of ready messages of its priority that a message belongs into: that of those that had their `turn` before, or of the
    /// others.
    #[inline]
    pub(super) fn ready_list(&self, record: u32, turn: bool) -> Result<usize, Corrupt> {
        Ok(2 * self.kind(record)?.priority.min(PRIORITIES - 1) + usize::from(turn))
    }

    /// Puts a message, which is in no list, at the end of its priority's ready ones: of those that had their `turn` before, in
    /// the order in which they come back, or of the others, which are read after them.
    pub(super) fn line_up(&self, slot: u32, record: u32, turn: bool, wake: &mut Wake) -> Result<(), Corrupt> {
        if self.is_numbered(slot)? {
            return self.line_up_by_number(slot, record, wake);
        }
        self.line_up_last(slot, record, turn, wake)
    }

    /// The same where the message's number is higher than theirs.
    #[inline]
    pub(super) fn line_up_last(&self, slot: u32, record: u32, turn: bool, wake: &mut Wake) -> Result<(), Corrupt> {
        self.link(slot, record, self.ready_list(record, turn)?, false)?;
        self.wake_one(slot, wake)?;
        Ok(())
    }

    /// Puts a message, which is in no list, at the front of its priority's ready ones: of those that were delivered before, or
    /// of the others.
    fn line_up_first(&self, slot: u32, record: u32, wake: &mut Wake) -> Result<(), Corrupt> {
        if self.is_numbered(slot)? {
            return self.line_up_by_number(slot, record, wake);
        }
        let turn = self.half(record, R::Attempts, true)? > 0;
        self.link(slot, record, self.ready_list(record, turn)?, true)?;
        self.wake_one(slot, wake)?;
        Ok(())
    }

    /// The committed transaction has given a message that it didn't finish a new row: it rests until its delivery time, at
    /// its place in its group. Whatever the index knew of it, its lease and that it was set aside, is over.
    pub fn schedule_retry(&self, slot: u32, entry: &Entry, now: i64, wake: &mut Wake) -> Result<(), Corrupt> {
        let Some(record) = self.lookup(slot, entry.msg_id)?.filter(|&record| {
            // Another row of the number is dealt with there.
            self.tag(slot, record).is_ok_and(|tag| tag.matches(entry.tag))
        }) else {
            return self.insert_or_leave_out(slot, entry, now, wake);
        };
        let kind = self.kind(record)?;
        let was = if kind.list == BUSY { kind.origin } else { kind.list };
        // Of one that has no place in its group's order.
        let group = match was {
            FOLLOWER => self.r(record, R::Lease)?,
            USED_UP => self.r(record, R::Due)?,
            _ => 0,
        };
        self.unlink(slot, record)?;
        self.clear_timer(slot, record)?;
        let priority = usize::from(entry.priority).min(PRIORITIES - 1);
        self.set_kind(record, Kind { priority, timed: entry.deliver_at.is_some(), counted: false, ..kind })?;
        self.set_place(record, entry.tid)?;
        self.set_r(record, R::Due, entry.deliver_at.unwrap_or(i64::MIN).cast_unsigned())?;
        self.set_half(record, R::Attempts, true, entry.attempts)?;
        if group != 0 {
            // What the caller knows of it may lack the group.
            let entry = self.entry(record, group)?;
            self.erase(slot, record)?;
            return self.return_follower(slot, &entry, now, wake);
        }
        self.set_r(record, R::Lease, 0)?;
        // An earlier one may have come while this was set aside.
        let mut rests = false;
        if !self.yield_head(slot, record, now, wake)? {
            rests = entry.deliver_at.is_some_and(|at| at > now);
            if rests {
                self.delay(slot, record, now, wake)?;
            } else {
                // It is older than those that wait.
                self.line_up(slot, record, true, wake)?;
            }
        }
        self.free_lane(slot, record, rests, now, wake)?;
        if was == LEASED { self.in_flight_decreased(slot, wake) } else { Ok(()) }
    }

    /// Counts rows that the committed transaction deleted.
    pub fn finished(&self, slot: u32, rows: i64) -> Result<(), Corrupt> {
        self.count(slot, Q::Finished, rows)?;
        self.count(slot, Q::Live, -rows)
    }

    /// Counts rows that the committed transaction moved to the archive as done.
    pub fn archived(&self, slot: u32, rows: i64) -> Result<(), Corrupt> {
        self.count(slot, Q::Archived, rows)?;
        self.finished(slot, rows)
    }

    /// Counts rows that the committed transaction purged; `timed`: those with a delivery time that weren't in the index.
    pub fn purged(&self, slot: u32, rows: i64, timed: i64) -> Result<(), Corrupt> {
        self.count(slot, Q::TimedOutside, -timed)?;
        self.count(slot, Q::Live, -rows)
    }

    /// Counts archive rows that are gone.
    pub fn forgotten(&self, slot: u32, done: i64, dead: i64) -> Result<(), Corrupt> {
        self.count(slot, Q::Archived, -done)?;
        self.count(slot, Q::Dead, -dead)
    }

    /// Counts deliveries that the reader said have failed.
    pub fn failed(&self, slot: u32, count: i64) -> Result<(), Corrupt> {
        self.count(slot, Q::Failed, count)
    }

    /// Counts rows that the committed transaction moved to the archive because they could not be delivered.
    pub fn buried(&self, slot: u32, rows: i64) -> Result<(), Corrupt> {
        self.count(slot, Q::Dead, rows)?;
        self.count(slot, Q::Live, -rows)
    }

    /// The leading ready messages' numbers and places, one a list: the oldest is among them.
    pub fn heads(&self, slot: u32) -> Result<[Option<(i64, Tid)>; READY], Corrupt> {
        let mut heads = [None; READY];
        for (list, head) in heads.iter_mut().enumerate() {
            let (first, _, len) = self.list(slot, list)?;
            if len > 0 {
                *head = Some((self.r(first, R::MsgId)?.cast_signed(), Tid::unpack(self.r(first, R::Tid)?)));
            }
        }
        Ok(heads)
    }
}
