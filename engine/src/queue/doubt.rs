//! Prepared transactions (two-phase commit): neither committed nor rolled back yet, and nobody tells the index of the decision.
//!
//! What they have **sent** is durable, seen by nobody, and may be at or below the marks, since refills pass it over. A record of each such
//! transaction says how low its rows are; a reader that finds the queue dry asks for the decision, and where the transaction has committed the marks
//! go down, so that the next refill meets the rows.
//!
//! What they have **finished** stays set aside under the record (`undecided.rs`).

use super::layout::{DOUBT, DOUBTS, Partition, Q};
use super::marks::{NUMBERS, TIMES};
use super::registry::Options;
use super::window::place;
use super::{Entry, Wake};
use crate::fingerprint;
use crate::words::Corrupt;

/// What a queue has of a prepared transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Doubt {
    /// Its number, of 64 bits; 0 for no transaction.
    pub transaction: u64,
    /// All rows without a delivery time that its decision may bring have numbers above this; `i64::MAX` where there is none.
    pub numbers: i64,
    /// All the others are due after this.
    pub times: i64,
    /// How many rows it has sent.
    pub sent: u32,
    /// How many rows outside of the index get a delivery time by it.
    pub timed: u32,
    /// How many messages it has deleted or moved to the archive: done, those included that it has sent itself.
    pub finished: u32,
    /// How many of them went to the archive.
    pub archived: u32,
    /// How many it has moved to the archive: dead.
    pub buried: u32,
    /// How many deliveries have failed by it.
    pub failed: u32,
    /// How many of its messages were left out of the index, to be met again when it is decided.
    pub left_out: u32,
}

/// What a queue has of prepared transactions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Doubts([Doubt; DOUBTS]);

impl Doubts {
    /// Those that are there.
    pub fn iter(&self) -> impl Iterator<Item = &Doubt> {
        self.0.iter().filter(|doubt| doubt.transaction != 0)
    }
}

/// What has become of a prepared transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Its rows are messages, and what it has finished is gone.
    Committed,
    /// It has done nothing.
    RolledBack,
    /// One of the two.
    Either,
}

/// How far the index has got with a decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decided {
    /// It was known already.
    Known,
    /// More of what was set aside is left: to be called again.
    Partly,
    /// All is done.
    Done,
}

impl Doubt {
    /// Stands for all prepared transactions, where they are more than a queue has records for.
    pub const ANY: u64 = u64::MAX;

    /// Of a transaction that has done nothing in the queue so far.
    pub fn new(transaction: u64) -> Self {
        Doubt { transaction, numbers: i64::MAX, times: i64::MAX, ..Self::NONE }
    }

    /// Of a transaction whose rows in the queue nobody knows.
    pub fn unknown(transaction: u64) -> Self {
        Doubt { transaction, numbers: i64::MIN, times: i64::MIN, ..Self::NONE }
    }

    fn is_unknown(&self) -> bool {
        self.numbers == i64::MIN && self.times == i64::MIN
    }

    const NONE: Doubt = Doubt {
        transaction: 0,
        numbers: 0,
        times: 0,
        sent: 0,
        timed: 0,
        finished: 0,
        archived: 0,
        buried: 0,
        failed: 0,
        left_out: 0,
    };

    /// A row that others see when the transaction has committed.
    pub fn cover(&mut self, entry: &Entry) {
        let below = place(entry).1.saturating_sub(1);
        if entry.deliver_at.is_some() {
            self.times = self.times.min(below);
        } else {
            self.numbers = self.numbers.min(below);
        }
    }
}

impl Partition<'_> {
    /// Notes a transaction that is about to be prepared; false where the queue has no room for another one.
    pub fn doubt(&self, slot: u32, doubt: &Doubt, now: i64, wake: &mut Wake) -> Result<bool, Corrupt> {
        let Some(place) = self.doubt_of(slot, |transaction| transaction == 0)? else { return Ok(false) };
        self.set_doubt(slot, place, doubt)?;
        self.set_aside_under(slot, place, 0, 0)?;
        self.count(slot, Q::InDoubt, 1)?;
        // Nobody wakes those that wait when another session decides: one of them looks now and then.
        self.watch(slot, now, wake)?;
        Ok(true)
    }

    /// Whether prepared transactions have changed the queue that aren't known to be decided.
    #[inline]
    pub fn in_doubt(&self, slot: u32) -> Result<bool, Corrupt> {
        Ok(self.q(slot, Q::InDoubt)? != 0)
    }

    /// Those transactions.
    pub fn doubts(&self, slot: u32) -> Result<Doubts, Corrupt> {
        let mut doubts = [Doubt::NONE; DOUBTS];
        for (place, doubt) in doubts.iter_mut().enumerate() {
            *doubt = self.doubt_at(slot, place)?;
        }
        Ok(Doubts(doubts))
    }

    /// A transaction is decided, and what it has committed is visible. Of what it has set aside so much at a time as one hold of the
    /// lock allows. `rest` says how long a message rests whose reader's transaction was rolled back.
    pub fn decided(
        &self,
        slot: u32,
        transaction: u64,
        decision: Decision,
        now: i64,
        wake: &mut Wake,
        rest: fn(&Options, u32, u64) -> i64,
    ) -> Result<Decided, Corrupt> {
        let is_it = |at| at != 0 && at == transaction;
        let Some(place) = self.doubt_of(slot, is_it)? else { return Ok(Decided::Known) };
        if !self.end_undecided(slot, place, decision, now, wake, rest)? {
            return Ok(Decided::Partly);
        }
        let doubt = self.doubt_at(slot, place)?;
        self.set_doubt(slot, place, &Doubt::NONE)?;
        self.count(slot, Q::InDoubt, -1)?;
        if decision != Decision::RolledBack || doubt.left_out > 0 {
            for (marks, above) in [(NUMBERS, doubt.numbers), (TIMES, doubt.times)] {
                if above != i64::MAX {
                    self.lower(slot, marks, above, i64::MAX)?;
                }
            }
        }
        if decision != Decision::RolledBack && (doubt.is_unknown() || decision == Decision::Either) {
            // Nobody knows what the counts of rows are now.
            self.start_counting(slot)?;
        }
        if decision == Decision::Committed {
            self.count(slot, Q::Sent, i64::from(doubt.sent))?;
            self.count(slot, Q::Live, i64::from(doubt.sent))?;
            self.count(slot, Q::TimedOutside, i64::from(doubt.timed))?;
            self.finished(slot, i64::from(doubt.finished))?;
            self.count(slot, Q::Archived, i64::from(doubt.archived))?;
            self.buried(slot, i64::from(doubt.buried))?;
            self.failed(slot, i64::from(doubt.failed))?;
        }
        self.forward_wakeup(slot, wake)?;
        Ok(Decided::Done)
    }

    /// The place of the record of a transaction that is the one; `None` where there is none.
    pub(super) fn doubt_of(&self, slot: u32, is_it: impl Fn(u64) -> bool) -> Result<Option<usize>, Corrupt> {
        for place in 0..DOUBTS {
            if is_it(self.doubt_word(slot, place * DOUBT)?) {
                return Ok(Some(place));
            }
        }
        Ok(None)
    }

    pub(super) fn doubt_at(&self, slot: u32, place: usize) -> Result<Doubt, Corrupt> {
        let word = |offset| self.doubt_word(slot, place * DOUBT + offset);
        let halves = |offset| word(offset).map(|word| ((word >> 32) as u32, word as u32));
        let ((sent, timed), (finished, archived), (buried, failed)) = (halves(3)?, halves(4)?, halves(5)?);
        let (transaction, numbers, times) = (word(0)?, word(1)?.cast_signed(), word(2)?.cast_signed());
        let left_out = halves(6)?.1;
        Ok(Doubt { transaction, numbers, times, sent, timed, finished, archived, buried, failed, left_out })
    }

    pub(super) fn set_doubt(&self, slot: u32, place: usize, doubt: &Doubt) -> Result<(), Corrupt> {
        let halves = |upper, lower| u64::from(upper) << 32 | u64::from(lower);
        let words = [
            doubt.transaction,
            doubt.numbers.cast_unsigned(),
            doubt.times.cast_unsigned(),
            halves(doubt.sent, doubt.timed),
            halves(doubt.finished, doubt.archived),
            halves(doubt.buried, doubt.failed),
            halves(0, doubt.left_out),
        ];
        for (offset, value) in words.into_iter().enumerate() {
            self.set_doubt_word(slot, place * DOUBT + offset, value)?;
        }
        Ok(())
    }

    /// The first message that is set aside under a record, and how many are.
    pub(super) fn aside_under(&self, slot: u32, place: usize) -> Result<(u32, u32), Corrupt> {
        let word = self.doubt_word(slot, place * DOUBT + 7)?;
        Ok(((word >> 32) as u32, word as u32))
    }

    pub(super) fn set_aside_under(&self, slot: u32, place: usize, first: u32, count: u32) -> Result<(), Corrupt> {
        self.set_doubt_word(slot, place * DOUBT + 7, u64::from(first) << 32 | u64::from(count))
    }
}

/// What of this file the layout version depends on.
pub(super) const LAYOUT: u64 = fingerprint![Doubt::ANY];
