//! How often messages of one group are delivered, where that is limited (`group_rate`).
//!
//! As for a queue's own rate (`limits.rs`), deliveries are counted in a strict sliding window (see [`window`](crate::window)): in no
//! trailing period are there more of one group than allowed, over all readers. The counts of a group have a record of their own, since
//! they outlive the group's: one that has run empty would begin with all that it is allowed again.
//!
//! * The records stand in a list of their queue, that of the group first that was delivered from longest ago. Each delivery looks at
//!   the first few, and frees those that say nothing any more.
//! * What is met in line while its group is allowed no other delivery is **held**: in a list of its own, with a timer. When that
//!   runs out it is read before those that haven't had their turn, because it had.
//! * The records of a queue take three eighths of the partition at the most, and what is held a quarter: while it does, nothing is brought
//!   from the table. Where there is no place for another record the first of the list gives way, and where the memory is full, for
//!   messages, those of all queues: these groups begin anew. So a rate is kept exactly for as many groups as there is room for, and keeps nobody from reading.
//!
//! A count above 255 in a step before the running one needs a second record, the *extension*; without room for one it counts for longer.

use super::Wake;
use super::layout::{EXTENSION, HELD, Partition, Q, R, RATED, g, w};
use super::limits::{Rate, steps};
use super::records::Kind;
use crate::limiter::Narrow;
use crate::window::{COUNTS, Window};
use crate::words::Corrupt;

/// Records that a delivery looks at that may say nothing any more.
const LOOKS: usize = 2;

/// By so much the number of a lease may be ahead of the clock, in microseconds: by as many as began at once, which is some hundreds.
const AHEAD: i64 = 1000;

/// The halves of a word: the lower one first.
fn halves(word: u64) -> [u32; 2] {
    [word as u32, (word >> 32) as u32]
}

fn word([lower, upper]: [u32; 2]) -> u64 {
    u64::from(upper) << 32 | u64::from(lower)
}

impl Partition<'_> {
    /// The rate of the queue's groups; `None` where there is no limit.
    #[inline]
    fn group_rate(&self, slot: u32) -> Result<Option<Rate>, Corrupt> {
        let most = self.q(slot, Q::GroupRate)?;
        if most == 0 {
            return Ok(None);
        }
        Ok(Some(Rate { most, steps: steps(self.q_i64(slot, Q::GroupRatePeriod)?) }))
    }

    /// Whether so much is held that nothing else is to be brought.
    #[inline]
    pub(super) fn is_crowded(&self, slot: u32) -> Result<bool, Corrupt> {
        Ok(self.list_len(slot, HELD)? > self.records as u64 / 4)
    }

    /// Holds a message of a group, which is in no list, until another delivery is allowed; false where it is now.
    #[cold]
    pub(super) fn hold(&self, slot: u32, record: u32, now: i64, wake: &mut Wake) -> Result<bool, Corrupt> {
        let wait = self.rate_wait(slot, self.group_of(record)?, now)?;
        if wait == 0 {
            return Ok(false);
        }
        self.set_r(record, R::Due, now.saturating_add_unsigned(wait).cast_unsigned())?;
        self.link(slot, record, HELD, false)?;
        self.set_timer(slot, record)?;
        self.watch(slot, now, wake)?;
        Ok(true)
    }

    /// A held record is about to be taken out of its list. Its delivery time, if it has one, is over, and has given way to the time until
    /// which it was held.
    pub(super) fn release_held(&self, slot: u32, record: u32) -> Result<(), Corrupt> {
        self.clear_timer(slot, record)?;
        self.set_r(record, R::Due, i64::MIN.cast_unsigned())
    }

    /// How long until another delivery of a group is allowed, in microseconds.
    pub(super) fn rate_wait(&self, slot: u32, group: u32, now: i64) -> Result<u64, Corrupt> {
        let Some(rate) = self.group_rate(slot)? else { return Ok(0) };
        let Some(counts) = self.counts_of(slot, self.r(group, g::HASH)?)? else { return Ok(0) };
        Ok(self.window_in(counts)?.at(rate.steps, now).wait(rate.steps, now, rate.most - 1))
    }

    /// Counts a delivery of a group's message.
    #[cold]
    pub(super) fn spend_in_group(&self, slot: u32, group: u32, now: i64) -> Result<(), Corrupt> {
        let Some(rate) = self.group_rate(slot)? else { return Ok(()) };
        let hash = self.r(group, g::HASH)?;
        let (counts, mut window) = if let Some(counts) = self.counts_of(slot, hash)? {
            self.unlink(slot, counts)?;
            self.link(slot, counts, RATED, false)?;
            (counts, self.window_in(counts)?.at(rate.steps, now))
        } else if let Some(counts) = self.new_counts(slot, hash, now)? {
            (counts, Window::new(rate.steps, now))
        } else {
            // All places are taken by what is leased.
            return Ok(());
        };
        window.consume(1);
        self.set_window_in(counts, &window)?;
        self.forget_counts(slot, now, LOOKS)
    }

    /// The delivery of a leased message, which may have a group, has not come about: it doesn't count.
    pub(super) fn unspend_in_group(&self, slot: u32, record: u32, now: i64) -> Result<(), Corrupt> {
        let lease = self.r(record, R::Lease)?;
        if self.kind(record)?.owner == 0 || lease < self.q(slot, Q::GroupCounted)? {
            return Ok(());
        }
        let Some(rate) = self.group_rate(slot)? else { return Ok(()) };
        let group = self.group_of(record)?;
        let Some(counts) = self.counts_of(slot, self.r(group, g::HASH)?)? else { return Ok(()) };
        let mut window = self.window_in(counts)?.at(rate.steps, now);
        let began = self.lease_began(lease)?;
        window.refund_about(rate.steps, now, began.map_or(now, |began| began.min(now)), AHEAD);
        self.set_window_in(counts, &window)
    }

    /// A leased message that was not delivered is about to be forgotten: the delivery doesn't count for its group.
    pub fn not_delivered_of_group(&self, slot: u32, msg_id: i64, lease: u64, now: i64) -> Result<(), Corrupt> {
        match self.leased(slot, msg_id, Some(lease))? {
            Some(record) => self.unspend_in_group(slot, record, now),
            None => Ok(()),
        }
    }

    /// The queue's groups have another rate or period than before; `former`: the period in which is counted so far. What is held
    /// comes into line again, to be looked at by that. Nobody is woken.
    pub(super) fn change_group_rate(&self, slot: u32, former: i64, now: i64) -> Result<(), Corrupt> {
        for _ in 0..self.list(slot, HELD)?.2.min(self.records as u64) {
            let (record, _, _) = self.list(slot, HELD)?;
            self.unlink(slot, record)?;
            self.stand_in_line(slot, record)?;
        }
        let rate = self.group_rate(slot)?;
        let (mut counts, _, len) = self.list(slot, RATED)?;
        for _ in 0..len.min(self.records as u64) {
            let next = self.half(counts, R::Links, true)?;
            match &rate {
                None => self.free_counts(slot, counts)?,
                Some(rate) if rate.steps != steps(former) => {
                    let window = self.window_in(counts)?.divided_by(steps(former), rate.steps, now);
                    self.set_window_in(counts, &window)?;
                }
                Some(_) => {}
            }
            counts = next;
        }
        Ok(())
    }

    /// Frees up to `limit` of a queue's records of counts that say nothing any more.
    pub fn forget_counts(&self, slot: u32, now: i64, limit: usize) -> Result<(), Corrupt> {
        let Some(rate) = self.group_rate(slot)? else { return Ok(()) };
        for _ in 0..limit {
            let (first, _, len) = self.list(slot, RATED)?;
            if len == 0 || self.window_in(first)?.at(rate.steps, now).total() > 0 {
                break;
            }
            self.free_counts(slot, first)?;
        }
        Ok(())
    }

    /// Frees up to `limit` of a queue's records of counts, whatever they say: those groups begin anew.
    pub(super) fn drop_counts(&self, slot: u32, limit: u64) -> Result<(), Corrupt> {
        for _ in 0..self.list(slot, RATED)?.2.min(limit) {
            let (first, _, _) = self.list(slot, RATED)?;
            self.free_counts(slot, first)?;
        }
        Ok(())
    }

    /// The record with the counts of the group with that hash.
    fn counts_of(&self, slot: u32, hash: u64) -> Result<Option<u32>, Corrupt> {
        self.lookup(slot | w::BIT, hash.cast_signed())
    }

    /// A record for the counts of a group; `None` where there is no place for one.
    fn new_counts(&self, slot: u32, hash: u64, now: i64) -> Result<Option<u32>, Corrupt> {
        let full = self.list(slot, RATED)?.2 >= self.records as u64 / 8 * 3;
        let mut record = if full { None } else { self.record_for(slot, now)? };
        if record.is_none() {
            self.drop_counts(slot, 1)?;
            record = self.allocate()?;
        }
        let Some(counts) = record else { return Ok(None) };
        self.set_r(counts, w::HASH, hash)?;
        self.set_r(counts, R::Attempts, u64::from(slot | w::BIT))?;
        self.set_kind(counts, Kind { list: RATED, ..Kind::default() })?;
        self.hash_in(counts, slot | w::BIT, hash.cast_signed())?;
        self.link(slot, counts, RATED, false)?;
        Ok(Some(counts))
    }

    fn free_counts(&self, slot: u32, counts: u32) -> Result<(), Corrupt> {
        self.shrink(counts)?;
        self.unlink(slot, counts)?;
        self.hash_out(counts, slot | w::BIT, self.r(counts, w::HASH)?.cast_signed())?;
        self.free(counts)
    }

    /// Frees the extension of a record of counts where it has one.
    fn shrink(&self, counts: u32) -> Result<(), Corrupt> {
        let extension = self.extension_of(counts)?;
        if extension == 0 {
            return Ok(());
        }
        self.set_half(counts, w::EXTENSION, false, 0)?;
        self.free(extension)
    }

    pub(super) fn extension_of(&self, counts: u32) -> Result<u32, Corrupt> {
        let extension = self.half(counts, w::EXTENSION, false)?;
        if extension != 0 && self.kind(extension)?.list != EXTENSION {
            return Err(Corrupt);
        }
        Ok(extension)
    }

    /// The counts in a record.
    pub(super) fn window_in(&self, counts: u32) -> Result<Window, Corrupt> {
        let (start, running) = (self.r(counts, w::START)?.cast_signed(), self.half(counts, w::RUNNING, true)?);
        let [low, high] = [self.r(counts, w::BEFORE[0])?, self.r(counts, w::BEFORE[1])?];
        let extension = self.extension_of(counts)?;
        if extension == 0 {
            return Ok(Narrow { start, running, before: u128::from(high) << 64 | u128::from(low) }.window());
        }
        let mut window = Window { start, counts: [0; COUNTS] };
        window.counts[0] = running;
        let mut pairs = window.counts[1..].chunks_exact_mut(2);
        for (word, pair) in [low, high].into_iter().zip(pairs.by_ref()) {
            pair.copy_from_slice(&halves(word));
        }
        for (further, pair) in w::FURTHER.into_iter().zip(pairs) {
            pair.copy_from_slice(&halves(self.r(extension, further)?));
        }
        Ok(window)
    }

    fn set_window_in(&self, counts: u32, window: &Window) -> Result<(), Corrupt> {
        let narrow = match (Narrow::of(window), self.extension_of(counts)?) {
            (Some(narrow), 0) => narrow,
            (Some(narrow), _) => {
                self.shrink(counts)?;
                narrow
            }
            (None, 0) => match self.widen_counts(counts)? {
                Some(extension) => return self.set_wide(counts, extension, window),
                None => Narrow::late(window),
            },
            (None, extension) => return self.set_wide(counts, extension, window),
        };
        self.set_r(counts, w::START, narrow.start.cast_unsigned())?;
        self.set_half(counts, w::RUNNING, true, narrow.running)?;
        self.set_r(counts, w::BEFORE[0], narrow.before as u64)?;
        self.set_r(counts, w::BEFORE[1], (narrow.before >> 64) as u64)
    }

    /// An extension for a record of counts; `None` where nothing is free.
    fn widen_counts(&self, counts: u32) -> Result<Option<u32>, Corrupt> {
        let Some(extension) = self.allocate()? else { return Ok(None) };
        self.set_kind(extension, Kind { list: EXTENSION, ..Kind::default() })?;
        self.set_half(counts, w::EXTENSION, false, extension)?;
        Ok(Some(extension))
    }

    fn set_wide(&self, counts: u32, extension: u32, window: &Window) -> Result<(), Corrupt> {
        self.set_r(counts, w::START, window.start.cast_unsigned())?;
        self.set_half(counts, w::RUNNING, true, window.counts[0])?;
        let mut pairs = window.counts[1..].chunks_exact(2).map(|pair| word([pair[0], pair[1]]));
        for (before, pair) in w::BEFORE.into_iter().zip(pairs.by_ref()) {
            self.set_r(counts, before, pair)?;
        }
        for (further, pair) in w::FURTHER.into_iter().zip(pairs) {
            self.set_r(extension, further, pair)?;
        }
        Ok(())
    }
}
