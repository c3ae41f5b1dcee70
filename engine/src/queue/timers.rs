//! Timers: when a lease ends, when a delay is over, when what is held may be delivered. Each queue has its own, ordered by time, and by number where the times
//! are the same.
//!
//! They are a treap (Seidel and Aragon, "Randomized search trees", 1996): a search tree by time and number, and a heap by a
//! rank that is as good as random, so its depth is about 2 ln n whatever the order in which timers start and stop. A timer is
//! found by its time, so a record needs no link to the one above it: two halves of a word a record are all that a tree takes,
//! as many as a place in an array and a way back from it.

use super::Wake;
use super::layout::{DELAYED, HELD, LEASED, Partition, Q, R};
use crate::fingerprint;
use crate::words::Corrupt;

/// Beside the later child, in a record's half word: its timer runs.
const RUNS: u32 = 1 << 31;

/// What [`Q::FirstDue`] says where no timer runs.
pub(super) const NEVER: i64 = i64::MAX;

/// Timers that run out, at the most, before one message is brought.
const AHEAD: usize = 8;

/// Where a link is.
#[derive(Clone, Copy)]
enum Link {
    Root,
    /// To what is due earlier than the record.
    Earlier(u32),
    /// To what is due later than the record.
    Later(u32),
}

/// Which of two timers is above the other. Every bit of a record's number counts, and no two have the same rank.
#[inline]
fn rank(record: u32) -> u32 {
    let mut mixed = record.wrapping_mul(0x9e37_79b9);
    mixed ^= mixed >> 15;
    mixed = mixed.wrapping_mul(0x85eb_ca6b);
    mixed ^ mixed >> 13
}

impl Partition<'_> {
    /// When the queue's first timer runs out; [`NEVER`] where none runs.
    #[inline]
    pub(super) fn first_due(&self, slot: u32) -> Result<i64, Corrupt> {
        self.q_i64(slot, Q::FirstDue)
    }

    #[inline]
    fn linked(&self, slot: u32, link: Link) -> Result<u32, Corrupt> {
        match link {
            Link::Root => Ok(self.q(slot, Q::Timers)? as u32),
            Link::Earlier(record) => self.slot_half((record as usize).wrapping_sub(1), false),
            Link::Later(record) => Ok(self.half(record, R::Chain, false)? & !RUNS),
        }
    }

    #[inline]
    fn set_linked(&self, slot: u32, link: Link, to: u32) -> Result<(), Corrupt> {
        match link {
            Link::Root => self.set_q(slot, Q::Timers, u64::from(to)),
            Link::Earlier(record) => self.set_slot_half((record as usize).wrapping_sub(1), false, to),
            Link::Later(record) => self.set_half(record, R::Chain, false, to | RUNS),
        }
    }

    /// By what timers are ordered.
    #[inline]
    pub(super) fn timer(&self, record: u32) -> Result<(i64, i64), Corrupt> {
        Ok((self.r(record, R::Due)?.cast_signed(), self.r(record, R::MsgId)?.cast_signed()))
    }

    /// The link below a record on the way to a timer.
    #[inline]
    fn towards(&self, record: u32, timer: (i64, i64)) -> Result<Link, Corrupt> {
        Ok(if timer < self.timer(record)? { Link::Earlier(record) } else { Link::Later(record) })
    }

    /// Starts the timer of a record, which doesn't run, for its time `Due`.
    pub(super) fn set_timer(&self, slot: u32, record: u32) -> Result<(), Corrupt> {
        let mut link = Link::Root;
        let mut below = self.linked(slot, link)?;
        if below == 0 {
            // A record without a timer has no children.
            self.set_linked(slot, Link::Later(record), 0)?;
            self.set_linked(slot, Link::Root, record)?;
            return self.set_q(slot, Q::FirstDue, self.r(record, R::Due)?);
        }
        let (timer, rank_of_it) = (self.timer(record)?, rank(record));
        let mut steps = 0..self.records;
        while below != 0 && rank(below) > rank_of_it {
            steps.next().ok_or(Corrupt)?;
            link = self.towards(below, timer)?;
            below = self.linked(slot, link)?;
        }
        self.set_linked(slot, link, record)?;
        // What was there is divided into what is due before it and what is due after it.
        let (mut earlier, mut later) = (Link::Earlier(record), Link::Later(record));
        while below != 0 {
            steps.next().ok_or(Corrupt)?;
            let next = self.towards(below, timer)?;
            let following = self.linked(slot, next)?;
            if let Link::Later(_) = next {
                self.set_linked(slot, earlier, below)?;
                earlier = next;
            } else {
                self.set_linked(slot, later, below)?;
                later = next;
            }
            below = following;
        }
        self.set_linked(slot, earlier, 0)?;
        self.set_linked(slot, later, 0)?;
        if timer.0 < self.first_due(slot)? {
            self.set_q_i64(slot, Q::FirstDue, timer.0)?;
        }
        Ok(())
    }

    /// Stops the timer of a record, if it runs.
    pub(super) fn clear_timer(&self, slot: u32, record: u32) -> Result<(), Corrupt> {
        let later = self.half(record, R::Chain, false)?;
        if later & RUNS == 0 {
            return Ok(());
        }
        if later == RUNS && self.linked(slot, Link::Root)? == record && self.linked(slot, Link::Earlier(record))? == 0 {
            self.set_half(record, R::Chain, false, 0)?;
            self.set_linked(slot, Link::Root, 0)?;
            return self.set_q_i64(slot, Q::FirstDue, NEVER);
        }
        self.take_out(slot, record)
    }

    fn take_out(&self, slot: u32, record: u32) -> Result<(), Corrupt> {
        let timer = self.timer(record)?;
        let mut link = Link::Root;
        let mut steps = 0..self.records;
        loop {
            let at = self.linked(slot, link)?;
            if at == record {
                break;
            }
            steps.next().ok_or(Corrupt)?;
            // A link to nothing is none to a record: an error.
            link = self.towards(at, timer)?;
        }
        let mut earlier = self.linked(slot, Link::Earlier(record))?;
        let mut later = self.linked(slot, Link::Later(record))?;
        self.set_half(record, R::Chain, false, 0)?;
        self.set_linked(slot, Link::Earlier(record), 0)?;
        // What was below it becomes one tree again.
        while earlier != 0 && later != 0 {
            steps.next().ok_or(Corrupt)?;
            if rank(earlier) > rank(later) {
                self.set_linked(slot, link, earlier)?;
                link = Link::Later(earlier);
                earlier = self.linked(slot, link)?;
            } else {
                self.set_linked(slot, link, later)?;
                link = Link::Earlier(later);
                later = self.linked(slot, link)?;
            }
        }
        self.set_linked(slot, link, earlier.max(later))?;
        if timer.0 == self.first_due(slot)? {
            let first = match self.first_timer(slot)? {
                0 => NEVER,
                first => self.timer(first)?.0,
            };
            self.set_q_i64(slot, Q::FirstDue, first)?;
        }
        Ok(())
    }

    /// The record whose timer runs out first; 0 where none runs.
    fn first_timer(&self, slot: u32) -> Result<u32, Corrupt> {
        let mut first = self.linked(slot, Link::Root)?;
        if first == 0 {
            return Ok(0);
        }
        for _ in 0..=self.records {
            match self.linked(slot, Link::Earlier(first))? {
                0 => return Ok(first),
                earlier => first = earlier,
            }
        }
        Err(Corrupt)
    }

    /// The last record whose timer comes before `limit`, a time and a number; 0 where there is none.
    pub(super) fn last_timer_before(&self, slot: u32, limit: (i64, i64)) -> Result<u32, Corrupt> {
        let (mut at, mut last) = (self.linked(slot, Link::Root)?, 0);
        for _ in 0..=self.records {
            if at == 0 {
                return Ok(last);
            }
            let mut link = Link::Earlier(at);
            if self.timer(at)? < limit {
                (last, link) = (at, Link::Later(at));
            }
            at = self.linked(slot, link)?;
        }
        Err(Corrupt)
    }

    /// How many records are below each other at the most.
    #[cfg(test)]
    pub(super) fn depth_of_timers(&self, slot: u32) -> usize {
        fn depth(p: &Partition<'_>, slot: u32, record: u32) -> usize {
            let below = [Link::Earlier(record), Link::Later(record)].map(|link| p.linked(slot, link).unwrap());
            if record == 0 {
                0
            } else {
                1 + below.map(|record| if record == 0 { 0 } else { depth(p, slot, record) }).into_iter().max().unwrap()
            }
        }
        depth(self, slot, self.linked(slot, Link::Root).unwrap())
    }

    /// The records whose timers run, the first to run out first; panics where the tree isn't sound.
    #[cfg(test)]
    pub(super) fn timers(&self, slot: u32) -> Vec<u32> {
        fn visit(p: &Partition<'_>, slot: u32, record: u32, found: &mut Vec<u32>) {
            let [earlier, later] =
                [Link::Earlier(record), Link::Later(record)].map(|link| p.linked(slot, link).unwrap());
            assert!(p.half(record, R::Chain, false).unwrap() & RUNS != 0, "record {record}: a timer that doesn't run");
            for below in [earlier, later] {
                assert!(below == 0 || rank(below) < rank(record), "record {below} is above {record}");
            }
            if earlier != 0 {
                visit(p, slot, earlier, found);
            }
            found.push(record);
            assert!(found.len() <= p.records, "the timers go round in a circle");
            if later != 0 {
                visit(p, slot, later, found);
            }
        }
        let (root, mut found) = (self.linked(slot, Link::Root).unwrap(), Vec::new());
        if root != 0 {
            visit(self, slot, root, &mut found);
        }
        found
    }

    /// Lets up to `limit` timers of the queue run out that are due: leases end, delays are over. Sessions that wait for
    /// those messages are woken. False where more are due.
    pub fn expire(&self, slot: u32, now: i64, limit: usize, wake: &mut Wake) -> Result<bool, Corrupt> {
        for _ in 0..limit {
            if self.first_due(slot)? > now {
                return Ok(true);
            }
            if wake.has_ended() {
                return Ok(false);
            }
            let record = self.first_timer(slot)?;
            let was = self.kind(record)?.list;
            if was != LEASED && was != DELAYED && was != HELD {
                return Err(Corrupt);
            }
            self.clear_timer(slot, record)?;
            self.unlink(slot, record)?;
            if was == LEASED {
                self.count(slot, Q::Failed, 1)?;
            }
            if self.use_up(slot, record, now, wake)? {
                self.in_flight_decreased(slot, wake)?;
                continue;
            }
            // A message whose lease ran out is older than those that wait, one that was held has been the first of them; one whose
            // delay is over is neither.
            self.line_up(slot, record, was != DELAYED, wake)?;
            if was == LEASED {
                self.free_lane(slot, record, false, now, wake)?;
            }
        }
        Ok(self.first_due(slot)? > now)
    }

    /// Puts a message, which is in no list, at its place by time: behind all that is due by `now`, or, where it has a delivery
    /// time, among the timers; be that over, too, so that what comes due stands in line in the order of the times.
    #[inline]
    pub(super) fn place(
        &self,
        slot: u32,
        record: u32,
        deliver_at: Option<i64>,
        now: i64,
        wake: &mut Wake,
    ) -> Result<(), Corrupt> {
        if deliver_at.is_some() {
            return self.delay(slot, record, now, wake);
        }
        if self.first_due(slot)? > now {
            return self.line_up_last(slot, record, false, wake);
        }
        // As if it came due now, or, so that the numbers don't decide, a moment later; but one that has become the head of its group
        // because another's lease ran out is for the same read. Nothing else runs out here: this may come of that.
        let moment = i64::from(self.kind(record)?.owner == 0);
        self.set_r(record, R::Due, now.saturating_add(moment).cast_unsigned())?;
        self.delay(slot, record, now, wake)?;
        self.wake_one(slot, wake).map(drop)
    }

    /// Lets a few timers run out that are due: for a session that brings a message whose place is behind them.
    #[inline]
    pub(super) fn expire_before(&self, slot: u32, now: i64, wake: &mut Wake) -> Result<(), Corrupt> {
        if self.first_due(slot)? > now { Ok(()) } else { self.expire(slot, now, AHEAD, wake).map(drop) }
    }

    /// Lets a message, which is in no list, wait until its time `Due`.
    pub(super) fn delay(&self, slot: u32, record: u32, now: i64, wake: &mut Wake) -> Result<(), Corrupt> {
        self.link(slot, record, DELAYED, false)?;
        self.set_timer(slot, record)?;
        self.watch(slot, now, wake)
    }
}

/// What of this file the layout version depends on.
pub(super) const LAYOUT: u64 = fingerprint![RUNS, NEVER];
