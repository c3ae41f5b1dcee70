//! Removals of prepared transactions (two-phase commit), which are neither committed nor rolled back yet: their barriers
//! ([`barrier`](super::barrier)) stay raised, each with a record of its transaction, until it is decided.
//!
//! A partition that was made empty has lost its records. Where there may have been some it is **distrusted**: it refuses every value,
//! until somebody has looked which transactions are prepared, and has [raised](Partition::keep_raised) barriers for them anew.

use super::barrier::{DISTRUSTED, Removal};
use super::layout::{BARRIERS_RAISED, DISTRUST, EPOCH, Partition, RECORD_WORDS, RECORDS, UNDECIDED, UNDECIDED_COUNT};
use super::logical_time::LogicalTime;
use crate::fingerprint;
use crate::words::Corrupt;

/// Words of a record: the transaction, 0 for none, and its barrier.
const TRANSACTION: usize = 0;
const BARRIER: usize = 1;

/// In [`DISTRUST`]: values are taken as long as the server is a standby, on which nothing is decided.
const STANDBY: u64 = 2;

/// How far a partition may be trusted to know what prepared transactions have removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trust {
    /// It knows.
    Full,
    /// Somebody has to look.
    None,
    /// The same, when the server isn't a standby any more.
    OnStandby,
}

fn record(place: usize, word: usize) -> usize {
    UNDECIDED + place * RECORD_WORDS + word
}

impl Partition<'_> {
    /// How far the partition may be trusted.
    pub fn trust(&self) -> Result<Trust, Corrupt> {
        match self.get(DISTRUST)? {
            0 => Ok(Trust::Full),
            DISTRUSTED => Ok(Trust::None),
            STANDBY => Ok(Trust::OnStandby),
            _ => Err(Corrupt),
        }
    }

    /// Refuses every value until somebody has looked. Exclusive lock.
    pub fn distrust(&self) -> Result<(), Corrupt> {
        if self.trust()? == Trust::Full {
            // As by a barrier, so that sessions that publish look.
            self.add(BARRIERS_RAISED, 1)?;
        }
        self.set(DISTRUST, DISTRUSTED)
    }

    /// Takes values again, until [`Self::distrust`] or [`Self::restore_trust`]: the server is a standby. Exclusive lock.
    pub fn trust_on_standby(&self) -> Result<(), Corrupt> {
        if self.trust()? == Trust::None { self.set(DISTRUST, STANDBY) } else { Ok(()) }
    }

    /// Somebody has looked, not before `floor`: values computed since then are taken, where no barrier refuses them. Exclusive lock.
    pub fn restore_trust(&self, floor: LogicalTime) -> Result<(), Corrupt> {
        if self.trust()? == Trust::Full {
            return Ok(());
        }
        self.set(DISTRUST, 0)?;
        self.subtract(BARRIERS_RAISED, 1)?;
        // Transactions may have been decided before.
        self.raise_floor(floor)
    }

    /// Keeps a barrier that was raised in that epoch up until the transaction is [decided](Self::removal_decided); false where there is no
    /// room for it. Nothing where the partition has been formatted since. Exclusive lock.
    pub fn keep_raised(&self, transaction: u64, barrier: u32, epoch: u64) -> Result<bool, Corrupt> {
        if self.get(EPOCH)? != epoch {
            return Ok(true);
        }
        for place in 0..RECORDS {
            if self.get(record(place, TRANSACTION))? == 0 {
                self.set(record(place, TRANSACTION), transaction)?;
                self.set(record(place, BARRIER), u64::from(barrier))?;
                self.add(UNDECIDED_COUNT, 1)?;
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Raises the barrier of a transaction of which nobody knows what it has removed: everything of its database. False where there is no
    /// room. Exclusive lock.
    pub fn raise_for_unknown(&self, transaction: u64, database: u32) -> Result<bool, Corrupt> {
        let barrier = self.barrier_of(Removal::Everything(database));
        let epoch = self.raise(barrier)?;
        let kept = self.keep_raised(transaction, barrier, epoch)?;
        if !kept {
            self.lower(barrier, epoch, None)?;
        }
        Ok(kept)
    }

    /// Whether barriers are up that somebody may lower by looking: of prepared transactions, or because of distrust.
    #[inline]
    pub fn is_undecided(&self) -> Result<bool, Corrupt> {
        Ok(self.get(UNDECIDED_COUNT)? != 0 || self.get(DISTRUST)? == DISTRUSTED)
    }

    /// The transactions with records, one that has several as often.
    pub fn undecided(&self, mut each: impl FnMut(u64)) -> Result<(), Corrupt> {
        if self.get(UNDECIDED_COUNT)? == 0 {
            return Ok(());
        }
        for place in 0..RECORDS {
            match self.get(record(place, TRANSACTION))? {
                0 => {}
                transaction => each(transaction),
            }
        }
        Ok(())
    }

    /// Lowers the barriers of a transaction that is decided. `removed_at` as in [`Self::lower`]. Exclusive lock.
    pub fn removal_decided(&self, transaction: u64, removed_at: Option<LogicalTime>) -> Result<(), Corrupt> {
        let epoch = self.get(EPOCH)?;
        self.drop_records(transaction, |barrier| self.lower(barrier, epoch, removed_at).map(drop))
    }

    /// Forgets the records of a transaction that has not been prepared after all, and lowers its barriers itself. Exclusive lock.
    pub fn forget_undecided(&self, transaction: u64) -> Result<(), Corrupt> {
        self.drop_records(transaction, |_| Ok(()))
    }

    fn drop_records(&self, transaction: u64, each: impl Fn(u32) -> Result<(), Corrupt>) -> Result<(), Corrupt> {
        if transaction == 0 || self.get(UNDECIDED_COUNT)? == 0 {
            return Ok(());
        }
        for place in 0..RECORDS {
            if self.get(record(place, TRANSACTION))? != transaction {
                continue;
            }
            let barrier = u32::try_from(self.get(record(place, BARRIER))?).map_err(|_| Corrupt)?;
            if !self.is_barrier(barrier) {
                return Err(Corrupt);
            }
            self.set(record(place, TRANSACTION), 0)?;
            self.subtract(UNDECIDED_COUNT, 1)?;
            each(barrier)?;
        }
        Ok(())
    }
}

/// What of this file the layout version depends on.
pub(super) const LAYOUT: u64 = fingerprint![TRANSACTION, BARRIER, STANDBY];
