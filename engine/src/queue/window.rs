//! Ready and delayed messages: pushing, dropping for lack of room, refilling from the table.

use super::group::Put;
use super::layout::{BUSY, DELAYED, Head, LEASED, PRIORITIES, Partition, Q, R, READY, USED_UP};
use super::marks::{Marks, NUMBERS, Range, TIMES};
use super::records::Kind;
use super::timers::NEVER;
use super::{Entry, Found, Wake};
use crate::words::Corrupt;

/// A queue may keep so many messages, ready and leased, in the index before others may take its room.
const SHARE: u64 = 64;
/// Ready messages that are looked at to find one to drop.
const KEPT: usize = 16;
/// A refill also brings what is due within this time, in microseconds.
const SOON: i64 = 60_000_000;
/// How long a reader that waits goes on waiting for what is due and can't be brought at once, in microseconds.
pub(super) const RETRY: i64 = 1_000_000;
/// The most that one refill brings, of ready and of delayed messages each.
const REFILL: u64 = 4096;

/// The marks that say whether a row is outside, and its place by them.
pub(super) fn place(entry: &Entry) -> (Marks, i64) {
    entry.deliver_at.map_or((NUMBERS, entry.msg_id), |at| (TIMES, at))
}

/// How a queue stands, for deciding whether to read the table or to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueState {
    /// Messages that may be read now: ready in the index, and within the queue's limits.
    pub ready: u64,
    /// Whether the table may hold ready or due messages that aren't in the index and are wanted now.
    pub refill: bool,
    /// The process that is refilling the queue.
    pub refiller: Option<u32>,
    /// When the queue's next timer runs out, the next delayed message outside of the index may come due, or its rate allows
    /// another delivery; where one is due and can't be brought now, when to look again.
    pub next: Option<i64>,
    /// Whether reads return nothing on purpose.
    pub paused: bool,
    /// Whether prepared transactions have sent that aren't known to be decided.
    pub in_doubt: bool,
}

/// What a refill has to scan, and how much it may bring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refill {
    /// Scan rows without a delivery time with numbers in this range; `None`: they are all in the index.
    pub numbers: Option<Range>,
    /// Scan rows with a delivery time in this range; `None`: they are all in the index.
    pub times: Option<Range>,
    /// Rows that are due later may be left for another refill.
    pub soon: i64,
    /// The most to bring of each.
    pub limit: u64,
}

impl Partition<'_> {
    /// Whether the queue may take more of the partition, for a ready or a delayed message. The last eighth is for queues
    /// that hold little, so that none stands still because of another's leases.
    pub(super) fn has_room(&self, slot: u32, delayed: bool) -> Result<bool, Corrupt> {
        let (free, records) = (self.head(Head::FreeRecords)?, self.records as u64);
        if delayed {
            // Nobody can take its place before its time comes, so most of the partition is out of its reach.
            return Ok(free > records / 8 * 5);
        }
        let ready = self.ready(slot)?;
        if self.is_crowded(slot)? {
            return Ok(false);
        }
        if free > records / 8 {
            return Ok(ready < SHARE || ready < records / 4);
        }
        let (_, _, leased) = self.list(slot, LEASED)?;
        let (_, _, busy) = self.list(slot, BUSY)?;
        Ok(ready.saturating_add(leased).saturating_add(busy) < SHARE)
    }

    /// A record for the queue; where none is free, another queue with more than its share loses some.
    #[inline]
    pub(super) fn record_for(&self, slot: u32, now: i64) -> Result<Option<u32>, Corrupt> {
        match self.allocate()? {
            None => self.reclaim(slot, now),
            record => Ok(record),
        }
    }

    #[cold]
    fn reclaim(&self, slot: u32, now: i64) -> Result<Option<u32>, Corrupt> {
        // What nobody has looked at since its lease ended, or its delay was over, is in line as well.
        for other in 1..=self.queues as u32 {
            if self.q(other, Q::Key)? == 0 {
                continue;
            }
            if other != slot {
                self.expire(other, now, SHARE as usize / 2, &mut Wake::none())?;
            }
            self.forget_counts(other, now, SHARE as usize / 2)?;
        }
        if let Some(record) = self.allocate()? {
            return Ok(Some(record));
        }
        // In the end also what has been delivered before: that its row may not know of the last attempt is the lesser evil.
        for (least, delivered) in [(SHARE, false), (0, false), (0, true)] {
            for _ in 0..self.queues {
                let other = (self.head(Head::ReclaimHand)? as usize % self.queues) as u32 + 1;
                self.set_head(Head::ReclaimHand, u64::from(other))?;
                if self.q(other, Q::Key)? == 0 || other == slot || self.droppable(other, delivered)? <= least {
                    continue;
                }
                for _ in 0..SHARE / 2 {
                    if self.droppable(other, delivered)? > least {
                        self.drop_last(other, delivered, now)?;
                    }
                }
                if let Some(record) = self.allocate()? {
                    return Ok(Some(record));
                }
            }
        }
        for other in 1..=self.queues as u32 {
            if self.q(other, Q::Key)? != 0 {
                self.drop_counts(other, SHARE / 2)?;
            }
        }
        self.allocate()
    }

    /// How many messages of a queue may make room for another's.
    fn droppable(&self, slot: u32, delivered: bool) -> Result<u64, Corrupt> {
        let used_up = if delivered { self.list(slot, USED_UP)?.2 } else { 0 };
        Ok(self.ready(slot)?.saturating_add(used_up))
    }

    /// Drops the queue's last message in line of the lowest priority from the index; false where it stays. One that has
    /// been delivered stays, because its row may not know of that: it goes to the front, where the old ones are. With
    /// `delivered` it goes as any, and where none is ready one that is used up.
    fn drop_last(&self, slot: u32, delivered: bool, now: i64) -> Result<bool, Corrupt> {
        for _ in 0..KEPT {
            let bitmap = self.q(slot, Q::Bitmap)? & ((1 << READY) - 1);
            if bitmap == 0 {
                let (_, last, used_up) = self.list(slot, USED_UP)?;
                if delivered && used_up > 0 {
                    self.drop_known(slot, last)?;
                    return Ok(true);
                }
                return Ok(false);
            }
            let list = bitmap.trailing_zeros() as usize;
            let Some(last) = self.last_in_line(slot, list, now)? else { return Ok(false) };
            if delivered || self.r(last, R::Lease)? == 0 {
                self.drop_known(slot, last)?;
                return Ok(true);
            }
            self.unlink(slot, last)?;
            self.link(slot, last, list, true)?;
        }
        Ok(false)
    }

    /// The message of a ready list after which none of its priority is delivered; `None` where that can't be told in bounded
    /// time. What is due and that nobody has looked at since stands behind the list, what was sent after it, too.
    fn last_in_line(&self, slot: u32, list: usize, now: i64) -> Result<Option<u32>, Corrupt> {
        let mut limit = (now.saturating_add(2), i64::MIN);
        if self.first_due(slot)? < limit.0 {
            for _ in 0..SHARE {
                let record = self.last_timer_before(slot, limit)?;
                if record == 0 {
                    break;
                }
                let kind = self.kind(record)?;
                // One that was delivered stays, and a lease that has run out comes before the list.
                if kind.list == DELAYED && kind.priority <= list / 2 && self.r(record, R::Lease)? == 0 {
                    return Ok(Some(record));
                }
                limit = self.timer(record)?;
            }
            if self.last_timer_before(slot, limit)? != 0 {
                return Ok(None);
            }
        }
        Ok(Some(self.list(slot, list)?.1))
    }

    /// Drops a message from the index that waits for nothing, or is leased; its row is to bring it back.
    pub(super) fn drop_known(&self, slot: u32, record: u32) -> Result<(), Corrupt> {
        let msg_id = self.r(record, R::MsgId)?.cast_signed();
        if self.kind(record)?.timed {
            // Its delivery time has been overwritten by leases since; any time before it will do.
            self.lower(slot, TIMES, i64::MIN, i64::MAX)?;
            self.count(slot, Q::TimedOutside, 1)?;
        } else {
            self.lower(slot, NUMBERS, msg_id.saturating_sub(1), msg_id)?;
        }
        if self.group_of(record)? != 0 {
            return self.drop_of_group(slot, record);
        }
        self.unlink(slot, record)?;
        self.erase(slot, record)
    }

    /// Leaves a message out of the index.
    pub(super) fn leave_out(&self, slot: u32, entry: &Entry, wake: &mut Wake) -> Result<(), Corrupt> {
        let (marks, place) = place(entry);
        if place <= self.q_i64(slot, marks.mark)? {
            // A waiting session took it that everything up to the mark is in the index.
            self.wake_one(slot, wake)?;
        }
        // A delivery time that its record had no room for may be any.
        let end = if place == i64::MIN { i64::MAX } else { place };
        self.lower(slot, marks, place.saturating_sub(1), end)
    }

    /// Whether a message's number, or time, is at or below the mark up to which all are in the index.
    pub(super) fn reached(&self, slot: u32, entry: &Entry) -> Result<bool, Corrupt> {
        Ok(match entry.deliver_at {
            None => entry.msg_id <= self.q_i64(slot, Q::Frontier)?,
            Some(at) => at <= self.q_i64(slot, Q::Horizon)?,
        })
    }

    /// A sender's message, committed now. Wakes a session that waits for it.
    pub fn sent(&self, slot: u32, entry: &Entry, now: i64, wake: &mut Wake) -> Result<(), Corrupt> {
        self.count(slot, Q::Sent, 1)?;
        self.arrived(slot, entry, now, wake)
    }

    /// Counts a message that nobody else ever sees.
    pub fn count_sent(&self, slot: u32) -> Result<(), Corrupt> {
        self.count(slot, Q::Sent, 1)?;
        self.count(slot, Q::Live, 1)
    }

    /// A dead letter that is a message again, committed now.
    pub fn redriven(&self, slot: u32, entry: &Entry, now: i64, wake: &mut Wake) -> Result<(), Corrupt> {
        self.count(slot, Q::Dead, -1)?;
        self.arrived(slot, entry, now, wake)
    }

    fn arrived(&self, slot: u32, entry: &Entry, now: i64, wake: &mut Wake) -> Result<(), Corrupt> {
        self.count(slot, Q::Live, 1)?;
        let refilling = self.q(slot, Q::Refiller)? != 0;
        let reached = self.reached(slot, entry)?;
        // First of all, because this may be what comes into line where the head of its group is used up.
        self.expire_before(slot, now, wake)?;
        if let Some(record) = self.lookup(slot, entry.msg_id)? {
            // A refill may have been faster.
            if self.tag(slot, record)?.sent == entry.tag.sent {
                return Ok(());
            }
            self.supersede(slot, record, now, wake)?;
            self.start_counting(slot)?;
        }
        let delayed = entry.deliver_at.is_some_and(|at| at > now);
        // What has come due and isn't in the index goes first: a refill brings it, and then this one. One of a higher priority
        // doesn't wait for that: readers refill when nothing is ready, so they would take lower ones before it.
        let second = !delayed && entry.priority == 0 && self.q_i64(slot, Q::Horizon)? < now;
        if entry.group != 0 {
            // A first one of its group from beyond the frontier is left to a refill, which meets the earlier ones first.
            if (reached && !second) || self.has_group(slot, entry.group)? {
                match self.put_grouped(slot, entry, self.has_room(slot, delayed)?, now, wake)? {
                    Put::In => return Ok(()),
                    Put::Behind => {}
                    Put::NoRoom => self.leave_out(slot, entry, wake)?,
                }
            } else {
                self.leave_out(slot, entry, wake)?;
            }
        } else if refilling || reached || entry.priority > 0 {
            // A message of a higher priority is worth a place in any case: it overtakes those that are in.
            let room =
                !second && (self.has_room(slot, delayed)? || (!delayed && self.displace(slot, entry.priority, now)?));
            if room && self.insert(slot, entry, now, wake)? {
                return Ok(());
            }
            self.leave_out(slot, entry, wake)?;
        } else {
            let (marks, place) = place(entry);
            self.extend_end(slot, marks, place)?;
        }
        if entry.deliver_at.is_some() {
            self.count(slot, Q::TimedOutside, 1)?;
        }
        Ok(())
    }

    /// Makes room for a ready message at the cost of one with a lower priority; false where there is none.
    fn displace(&self, slot: u32, priority: u8, now: i64) -> Result<bool, Corrupt> {
        let lower = self.q(slot, Q::Bitmap)? & ((1 << (2 * usize::from(priority).min(PRIORITIES - 1))) - 1);
        if lower == 0 {
            return Ok(false);
        }
        self.drop_last(slot, false, now)
    }

    /// Writes a message into a record, which is in no list, and makes it known by its number.
    pub(super) fn fill(&self, slot: u32, record: u32, entry: &Entry) -> Result<(), Corrupt> {
        let priority = usize::from(entry.priority).min(PRIORITIES - 1);
        self.set_r(record, R::MsgId, entry.msg_id.cast_unsigned())?;
        self.set_r(record, R::Lease, 0)?;
        self.set_r(record, R::Attempts, u64::from(entry.attempts) << 32 | u64::from(slot))?;
        self.set_r(record, R::Due, entry.deliver_at.unwrap_or(i64::MIN).cast_unsigned())?;
        let (timed, writer) = (entry.deliver_at.is_some(), entry.tag.writer);
        self.set_kind(record, Kind { priority, timed, writer, ..Kind::default() })?;
        self.set_r(record, R::Tid, entry.tid.pack() | u64::from(entry.tag.sent) << 48)?;
        self.hash_in(record, slot, entry.msg_id)
    }

    /// Puts a message without a group into the index that isn't in it; false where there is no room for it.
    fn insert(&self, slot: u32, entry: &Entry, now: i64, wake: &mut Wake) -> Result<bool, Corrupt> {
        let Some(record) = self.record_for(slot, now)? else {
            return Ok(false);
        };
        self.fill(slot, record, entry)?;
        self.place(slot, record, entry.deliver_at, now, wake)?;
        Ok(true)
    }

    /// How the queue stands. A refill is wanted when fewer than `low` ready messages are in the index.
    pub fn queue_state(&self, slot: u32, low: u64, now: i64) -> Result<QueueState, Corrupt> {
        let ready = self.ready(slot)?;
        let allowance = self.allowance(slot, now)?;
        let horizon = self.q_i64(slot, Q::Horizon)?;
        let outside = self.q_i64(slot, Q::Frontier)? != i64::MAX;
        let refiller = self.q(slot, Q::Refiller)?;
        Ok(QueueState {
            ready: ready.min(allowance),
            refill: allowance > 0
                && ((outside && ready < low && !self.is_crowded(slot)?)
                    || (horizon < now && self.has_room(slot, false)?)),
            refiller: refiller.checked_sub(1).map(|process| process as u32),
            next: self.comes_due_of(slot, ready, allowance, now)?,
            paused: self.paused(slot)?,
            in_doubt: self.in_doubt(slot)?,
        })
    }

    /// When something comes due in the queue, by itself.
    pub(super) fn comes_due(&self, slot: u32, now: i64) -> Result<Option<i64>, Corrupt> {
        self.comes_due_of(slot, self.ready(slot)?, self.allowance(slot, now)?, now)
    }

    fn comes_due_of(&self, slot: u32, ready: u64, allowance: u64, now: i64) -> Result<Option<i64>, Corrupt> {
        let (frontier, horizon) = self.reach(slot)?;
        let mut next = self.first_due(slot)?;
        if self.in_doubt(slot)? {
            // To see whether it is decided.
            next = next.min(now.saturating_add(RETRY));
        }
        if horizon != i64::MAX && allowance > 0 {
            // Where something is due and there is no room for it, or another session is bringing it, to look again at once is in
            // vain.
            let at_once = horizon >= now || (self.has_room(slot, false)? && self.q(slot, Q::Refiller)? == 0);
            next = next.min(if at_once { horizon.saturating_add(1) } else { now.saturating_add(RETRY) });
        }
        if (ready > 0 || frontier != i64::MAX || horizon != i64::MAX)
            && let Some(allowed) = self.next_allowed(slot, now)?
        {
            next = next.min(allowed);
        }
        Ok((next != NEVER).then_some(next))
    }

    /// Takes the refill mark. `None` where another process has it, unless `take_over` says that this one is gone.
    pub fn start_refill(
        &self,
        slot: u32,
        process: u32,
        now: i64,
        take_over: Option<u32>,
    ) -> Result<Option<Refill>, Corrupt> {
        let owner = self.q(slot, Q::Refiller)?;
        if owner != 0 && take_over.is_none_or(|gone| u64::from(gone) + 1 != owner) {
            return Ok(None);
        }
        self.set_q(slot, Q::Refiller, u64::from(process) + 1)?;
        self.set_q_i64(slot, Q::FrontierFloor, i64::MAX)?;
        self.set_q_i64(slot, Q::HorizonFloor, i64::MAX)?;
        let [numbers, times] = self.outlying(slot)?;
        let soon = now.saturating_add(SOON);
        Ok(Some(Refill {
            numbers,
            times: times.filter(|times| times.after < soon),
            soon,
            limit: REFILL.min(self.records as u64 / 8).max(1),
        }))
    }

    /// Whether a message is in the index.
    pub fn knows(&self, slot: u32, msg_id: i64) -> Result<bool, Corrupt> {
        Ok(self.lookup(slot, msg_id)?.is_some())
    }

    /// A message that the refill's scan found; `now`: at the latest when it was sent, where it has no delivery time.
    pub fn found(&self, slot: u32, entry: &Entry, now: i64, wake: &mut Wake) -> Result<Found, Corrupt> {
        // First of all, as for what a sender brings.
        if entry.deliver_at.is_none() {
            self.expire_before(slot, now, wake)?;
        }
        if let Some(record) = self.lookup(slot, entry.msg_id)? {
            let same = self.tag(slot, record)?.matches(entry.tag);
            return Ok(if same { Found::Known } else { Found::Other });
        }
        Ok(match self.bring(slot, entry, now, wake)? {
            Put::In => {
                self.brought(slot, entry.deliver_at.is_some())?;
                Found::Brought
            }
            Put::Behind => Found::Known,
            Put::NoRoom => Found::NoRoom,
        })
    }

    /// Whether a row that the refill's scan has met is to wait for another refill, because something that is due before it has
    /// been left out since this one began.
    pub fn comes_second(&self, slot: u32, entry: &Entry, now: i64) -> Result<bool, Corrupt> {
        Ok(entry.deliver_at.is_none() && self.q_i64(slot, Q::HorizonFloor)? < now)
    }

    /// Counts a row that was outside of the index and isn't any more.
    pub(super) fn brought(&self, slot: u32, timed: bool) -> Result<(), Corrupt> {
        if timed {
            let outside = self.q_i64(slot, Q::TimedOutside)?;
            self.set_q_i64(slot, Q::TimedOutside, outside.saturating_sub(1).max(0))?;
        }
        Ok(())
    }

    /// The committed transaction has deleted or replaced a row without having set its message aside. `timed`: the row had a
    /// delivery time, by which it was counted where the index doesn't know the message; `group`: the hash of its group.
    pub fn left_outside(&self, slot: u32, msg_id: i64, timed: bool, group: u64) -> Result<(), Corrupt> {
        if self.knows(slot, msg_id)? {
            return Ok(());
        }
        self.follower_left(slot, group, msg_id)?;
        self.brought(slot, timed)
    }

    fn bring(&self, slot: u32, entry: &Entry, now: i64, wake: &mut Wake) -> Result<Put, Corrupt> {
        let room = self.has_room(slot, entry.deliver_at.is_some_and(|at| at > now))?;
        if self.takes_used_up(slot, entry.attempts)? {
            return self.bring_used_up(slot, entry, room, now);
        }
        if entry.group != 0 {
            return self.put_grouped(slot, entry, room, now, wake);
        }
        Ok(if room && self.insert(slot, entry, now, wake)? { Put::In } else { Put::NoRoom })
    }

    /// A row of which the index should know, as it is in the table: what differs is put right. [`Found::Brought`] where
    /// something did, never [`Found::NoRoom`].
    pub fn reconcile(&self, slot: u32, entry: &Entry, now: i64, wake: &mut Wake) -> Result<Found, Corrupt> {
        if let Some(record) = self.lookup(slot, entry.msg_id)? {
            if !self.tag(slot, record)?.matches(entry.tag) {
                return Ok(Found::Other);
            }
            let kind = self.kind(record)?;
            // What was delivered, or is in an open transaction's hands, the row knows less of.
            let waits = kind.list < READY || kind.list == DELAYED;
            let by_row =
                waits && self.r(record, R::Lease)? == 0 && self.half(record, R::Attempts, true)? <= entry.attempts;
            let due = kind.timed.then_some(self.r(record, R::Due)?.cast_signed());
            // Where one has been held, any time that is over.
            let on_time = due == entry.deliver_at
                || (kind.list < READY && due == Some(i64::MIN) && entry.deliver_at.is_some_and(|at| at <= now));
            if !by_row || (on_time && usize::from(entry.priority) == kind.priority) {
                return Ok(Found::Known);
            }
            self.forget(slot, record, now, wake)?;
        }
        match self.bring(slot, entry, now, wake)? {
            Put::In => {}
            // As are all others of its group but the head.
            Put::Behind => return Ok(Found::Known),
            Put::NoRoom => self.leave_out(slot, entry, wake)?,
        }
        Ok(Found::Brought)
    }

    /// A message that should be in the index by what is known of the table, and isn't, or is known from another row of its
    /// number: put in, or left for a refill.
    pub fn insert_or_leave_out(&self, slot: u32, entry: &Entry, now: i64, wake: &mut Wake) -> Result<(), Corrupt> {
        if self.record_of_row(slot, entry, now, wake)?.is_some() {
            return Ok(());
        }
        match self.bring(slot, entry, now, wake)? {
            Put::In => return Ok(()),
            Put::Behind => {}
            Put::NoRoom => self.leave_out(slot, entry, wake)?,
        }
        self.count(slot, Q::TimedOutside, i64::from(entry.deliver_at.is_some()))
    }

    /// Ends a refill by the process that holds the mark: everything at or below `frontier` has been scanned, and
    /// everything due at or before `horizon`; `None` for what wasn't scanned, `i64::MAX` where the scan came to the end of
    /// its range.
    /// Sessions that waited for the refill are woken.
    pub fn end_refill(
        &self,
        slot: u32,
        process: u32,
        frontier: Option<i64>,
        horizon: Option<i64>,
        wake: &mut Wake,
    ) -> Result<(), Corrupt> {
        if self.q(slot, Q::Refiller)? != u64::from(process) + 1 {
            return Ok(());
        }
        self.set_q(slot, Q::Refiller, 0)?;
        for (marks, scanned) in [(NUMBERS, frontier), (TIMES, horizon)] {
            if let Some(scanned) = scanned {
                self.set_q_i64(slot, marks.mark, scanned.min(self.q_i64(slot, marks.floor)?))?;
            }
        }
        for _ in 0..self.ready(slot)?.max(1) {
            if wake.is_full() || !self.wake_one(slot, wake)? {
                break;
            }
        }
        Ok(())
    }
}
