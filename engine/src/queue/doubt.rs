//! Messages in doubt: those of transactions that are prepared (two-phase commit), and neither committed nor rolled back yet.
//!
//! Their rows are durable, seen by nobody, and may be at or below the marks, since refills pass them over. A record of each such
//! transaction says how low they are. Nobody tells the index of the decision; who finds the queue dry asks for it, and where the
//! transaction has committed the marks go down, so that the next refill meets the rows.

use super::Wake;
use super::layout::{DOUBT, DOUBTS, Partition, Q};
use super::marks::{NUMBERS, TIMES};
use crate::words::Corrupt;

/// What a queue has of a prepared transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Doubt {
    /// Its number, of 64 bits; 0 for no transaction.
    pub transaction: u64,
    /// All its rows without a delivery time have numbers above this; `i64::MAX` where there is none.
    pub numbers: i64,
    /// All the others are due after this.
    pub times: i64,
    /// How many rows there are.
    pub sent: u32,
    /// How many of them have a delivery time.
    pub timed: u32,
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
    /// Its rows are messages.
    Committed,
    /// They are none.
    RolledBack,
}

impl Doubt {
    /// Of a transaction whose rows in the queue nobody knows.
    pub fn unknown(transaction: u64) -> Self {
        Doubt { transaction, numbers: i64::MIN, times: i64::MIN, sent: 0, timed: 0 }
    }

    const NONE: Doubt = Doubt { transaction: 0, numbers: 0, times: 0, sent: 0, timed: 0 };
}

impl Partition<'_> {
    /// Notes a transaction that is about to be prepared; false where the queue has no room for another one.
    pub fn doubt(&self, slot: u32, doubt: &Doubt, now: i64, wake: &mut Wake) -> Result<bool, Corrupt> {
        for place in 0..DOUBTS {
            if self.doubt_at(slot, place)?.transaction == 0 {
                self.set_doubt(slot, place, doubt)?;
                self.count(slot, Q::InDoubt, 1)?;
                // Nobody wakes those that wait when another session decides: one of them looks now and then.
                self.watch(slot, now, wake)?;
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether there are messages in doubt.
    #[inline]
    pub(super) fn in_doubt(&self, slot: u32) -> Result<bool, Corrupt> {
        Ok(self.q(slot, Q::InDoubt)? != 0)
    }

    /// The transactions whose messages are in doubt.
    pub fn doubts(&self, slot: u32) -> Result<Doubts, Corrupt> {
        let mut doubts = [Doubt::NONE; DOUBTS];
        for (place, doubt) in doubts.iter_mut().enumerate() {
            *doubt = self.doubt_at(slot, place)?;
        }
        Ok(Doubts(doubts))
    }

    /// A transaction is decided, and what it has committed is visible. False where that is known already.
    pub fn decided(&self, slot: u32, transaction: u64, decision: Decision, wake: &mut Wake) -> Result<bool, Corrupt> {
        for place in 0..DOUBTS {
            let doubt = self.doubt_at(slot, place)?;
            if doubt.transaction != transaction {
                continue;
            }
            self.set_doubt(slot, place, &Doubt::NONE)?;
            self.count(slot, Q::InDoubt, -1)?;
            if decision == Decision::Committed {
                for (marks, above) in [(NUMBERS, doubt.numbers), (TIMES, doubt.times)] {
                    if above != i64::MAX {
                        self.lower(slot, marks, above, i64::MAX)?;
                    }
                }
                self.count(slot, Q::Sent, i64::from(doubt.sent))?;
                self.count(slot, Q::Live, i64::from(doubt.sent))?;
                self.count(slot, Q::TimedOutside, i64::from(doubt.timed))?;
                self.forward_wakeup(slot, wake)?;
            }
            return Ok(true);
        }
        Ok(false)
    }

    fn doubt_at(&self, slot: u32, place: usize) -> Result<Doubt, Corrupt> {
        let word = |offset| self.doubt_word(slot, place * DOUBT + offset);
        let counts = word(3)?;
        Ok(Doubt {
            transaction: word(0)?,
            numbers: word(1)?.cast_signed(),
            times: word(2)?.cast_signed(),
            sent: (counts >> 32) as u32,
            timed: counts as u32,
        })
    }

    fn set_doubt(&self, slot: u32, place: usize, doubt: &Doubt) -> Result<(), Corrupt> {
        let counts = u64::from(doubt.sent) << 32 | u64::from(doubt.timed);
        let words = [doubt.transaction, doubt.numbers.cast_unsigned(), doubt.times.cast_unsigned(), counts];
        for (offset, value) in words.into_iter().enumerate() {
            self.set_doubt_word(slot, place * DOUBT + offset, value)?;
        }
        Ok(())
    }
}
