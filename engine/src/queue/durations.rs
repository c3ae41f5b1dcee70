//! How long messages wait for their first delivery, and how long consumers work on them: a histogram of each for every queue.
//!
//! Buckets double in width, so a quantile is off by less than a factor of 2, and by much less where a bucket's counts are
//! spread evenly. Waits are counted without the partition's lock: a reader knows when a message was sent only from its row,
//! which it reads after the lock.
//!
//! When a lease began is in its number. The numbers rise by 1 from lease to lease, and at least by 1 each microsecond; so they
//! need no place in a record. The clock that is set back starts the relation anew (`clock.rs`): how long the leases from
//! before that have run isn't known.

use super::layout::{BUSY, HISTOGRAM, HISTOGRAM_COUNT, Head, LEASED, Partition, Q, R};
use crate::fingerprint;
use crate::words::{Corrupt, Words};
use std::sync::atomic::Ordering::Relaxed;

/// Buckets of a histogram.
const BUCKETS: usize = 2 * HISTOGRAM;
/// The first bucket is for what takes less than 2 to the power of this, in microseconds.
const FIRST_BITS: u32 = 7;
/// Counts are halved before they reach the end of their half word.
const MANY: u32 = 1 << 31;

/// The histograms of a queue.
const WAITS: usize = 0;
const RUNS: usize = 1;
const _: () = assert!(WAITS < HISTOGRAM_COUNT && RUNS < HISTOGRAM_COUNT);

/// So many leases are looked at for the oldest one.
const LOOKS: u64 = 64;

/// How often something took how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Histogram([u32; BUCKETS]);

/// What is known of a queue's times.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Durations {
    /// From when a message was sent, or due, to its first delivery.
    pub waits: Histogram,
    /// From the last delivery of a message to its end.
    pub runs: Histogram,
    /// When the oldest running lease began, in microseconds; `None` where there is none, or that isn't known.
    pub oldest_lease: Option<i64>,
    /// When somebody has read last, or tried to, in microseconds; `None` for never.
    pub last_read: Option<i64>,
    /// Whether a session waits for a message.
    pub waiting: bool,
}

/// The bucket of a duration.
#[inline]
pub(super) fn bucket_of(micros: i64) -> usize {
    let bits = u64::BITS - micros.max(0).cast_unsigned().leading_zeros();
    (bits.saturating_sub(FIRST_BITS) as usize).min(BUCKETS - 1)
}

/// Where a bucket begins and ends, in microseconds. The last one's end stands for all that is longer.
fn bounds(bucket: usize) -> (i64, i64) {
    let end = 1 << (FIRST_BITS as usize + bucket);
    (if bucket == 0 { 0 } else { end / 2 }, end)
}

impl Histogram {
    fn read(words: Words<'_>) -> Self {
        let mut counts = [0; BUCKETS];
        for (pair, word) in counts.chunks_mut(2).zip(words) {
            let word = word.load(Relaxed);
            for (count, half) in pair.iter_mut().zip([word as u32, (word >> 32) as u32]) {
                *count = half;
            }
        }
        Histogram(counts)
    }

    /// How many durations there are.
    pub fn len(&self) -> u64 {
        self.0.iter().map(|&count| u64::from(count)).sum()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The duration that `per_mille` of all don't exceed, in microseconds, by linear interpolation in its bucket; `None`
    /// where there are none.
    pub fn quantile(&self, per_mille: u64) -> Option<i64> {
        let rank = (self.len().checked_mul(per_mille)?).div_ceil(1000).max(1);
        let mut before = 0;
        for (bucket, &count) in self.0.iter().enumerate() {
            let count = u64::from(count);
            if before + count >= rank {
                let (start, end) = bounds(bucket);
                // The middle of the rank's share of the bucket.
                let (part, whole) = (2 * (rank - before) - 1, 2 * count);
                let within = u128::from((end - start).unsigned_abs()) * u128::from(part) / u128::from(whole);
                return i64::try_from(within).ok().map(|within| start.saturating_add(within));
            }
            before += count;
        }
        None
    }
}

#[cold]
fn halve(words: Words<'_>) {
    for word in words {
        let counts = word.load(Relaxed);
        word.store((counts >> 33) << 32 | u64::from(counts as u32 >> 1), Relaxed);
    }
}

impl Partition<'_> {
    /// Counts how long a message has waited for its first delivery, in microseconds. The only call that needs no lock: the queue's
    /// slot is the one that was read from under the lock just before. Should another queue have it by now, that one has the
    /// count.
    #[inline]
    pub fn note_wait(&self, slot: u32, micros: i64) -> Result<(), Corrupt> {
        self.note(slot, WAITS, micros)
    }

    /// Counts how long the work under a lease has taken that ends now.
    #[inline]
    pub(super) fn note_run(&self, slot: u32, lease: u64, now: i64) -> Result<(), Corrupt> {
        match self.lease_began(lease)? {
            Some(began) => self.note(slot, RUNS, now.saturating_sub(began)),
            None => Ok(()),
        }
    }

    /// Counts a duration. Others may do so at the same time; where counts are halved meanwhile, a few may be lost.
    #[inline]
    fn note(&self, slot: u32, histogram: usize, micros: i64) -> Result<(), Corrupt> {
        let bucket = bucket_of(micros);
        let word = self.words.get(self.histogram_place(slot, histogram, bucket / 2)?).ok_or(Corrupt)?;
        let shift = 32 * (bucket % 2);
        let former = word.fetch_add(1 << shift, Relaxed);
        if (former >> shift) as u32 >= MANY {
            halve(self.histogram(slot, histogram)?);
        }
        Ok(())
    }

    /// From here on the numbers of leases follow the clock.
    pub(super) fn start_lease_clock(&self, now: i64) -> Result<(), Corrupt> {
        self.set_head(Head::LeaseSince, now.cast_unsigned())?;
        self.set_head(Head::LeaseOffset, self.head(Head::NextLease)?.wrapping_sub(now.cast_unsigned()))
    }

    /// The number of the first lease of those that begin now.
    #[inline]
    pub(super) fn first_lease_at(&self, now: i64) -> Result<u64, Corrupt> {
        let by_clock = self.head(Head::LeaseOffset)?.cast_signed().wrapping_add(now);
        Ok(self.head(Head::NextLease)?.cast_signed().max(by_clock).cast_unsigned())
    }

    /// When a lease began, in microseconds, if that is known.
    #[inline]
    pub(super) fn lease_began(&self, lease: u64) -> Result<Option<i64>, Corrupt> {
        let began = lease.wrapping_sub(self.head(Head::LeaseOffset)?).cast_signed();
        Ok((began >= self.head(Head::LeaseSince)?.cast_signed()).then_some(began))
    }

    /// What is known of a queue's times.
    pub fn durations(&self, slot: u32) -> Result<Durations, Corrupt> {
        let last_read = self.q_i64(slot, Q::LastRead)?;
        Ok(Durations {
            waits: Histogram::read(self.histogram(slot, WAITS)?),
            runs: Histogram::read(self.histogram(slot, RUNS)?),
            oldest_lease: self.oldest_lease(slot)?,
            last_read: (last_read != 0).then_some(last_read),
            waiting: self.list(slot, super::layout::WAITING)?.2 > 0,
        })
    }

    /// When the oldest lease began. The lists have the leases in the order in which they began, but for those that a rollback has
    /// brought back, which are in front.
    fn oldest_lease(&self, slot: u32) -> Result<Option<i64>, Corrupt> {
        let mut oldest: Option<u64> = None;
        for list in [LEASED, BUSY] {
            let (mut record, _, len) = self.list(slot, list)?;
            for _ in 0..len.min(LOOKS) {
                if list == LEASED || self.kind(record)?.origin == LEASED {
                    let lease = self.r(record, R::Lease)?;
                    oldest = Some(oldest.map_or(lease, |oldest| oldest.min(lease)));
                }
                record = self.half(record, R::Links, true)?;
            }
        }
        oldest.map_or(Ok(None), |lease| self.lease_began(lease))
    }
}

/// What of this file the layout version depends on.
pub(super) const LAYOUT: u64 = fingerprint![BUCKETS, FIRST_BITS, WAITS, RUNS];
