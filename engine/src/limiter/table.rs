//! The table that keeps the states of all keys of one partition.
//!
//! A key has a state per algorithm and period. They share a chain, so that [`Table::reset`] finds them all.
//!
//! A state that has become as good as new counts as absent from that moment on, whether it has been removed or not:
//! no answer depends on when [`Table::sweep`] runs. Every look at a state by some limit keeps it at least until it is
//! as good as new by that limit.
//!
//! A full table evicts what is as good as new, else what was used longest ago. A key that is asked with ever new periods
//! pushes out its own states when its chain has become too long.

use super::entries::{
    AT_ACTIVE_EVICTIONS, AT_ALLOWED, AT_DENIED, AT_EVICTIONS, AT_KEYS, Entries, IDENTITY, IDENTITY_BITS, MAX_CHAIN,
    OF_EXPIRY, OF_LEVEL, OF_NEXT, OF_TIME, OF_WHAT, SLOT, half, identity, tick, with_half,
};
use super::{Decision, Limit, Request, State};
use crate::hash::KeyHash;
use crate::words::{Corrupt, Words, load};

/// The table in one partition. The caller holds the partition's lock.
#[derive(Debug, Clone, Copy)]
pub struct Table<'a> {
    entries: Entries<'a>,
}

/// Counts since the partition was formatted, and how full it is now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// States held: one per key, algorithm and period.
    pub keys: u64,
    /// The most states that fit.
    pub capacity: u64,
    /// Bytes taken by the states held.
    pub bytes_used: u64,
    /// Bytes of the partition.
    pub bytes_max: u64,
    /// Requests granted.
    pub allowed: u64,
    /// Requests denied.
    pub denied: u64,
    /// States removed to make room.
    pub evictions: u64,
    /// Those of them that weren't as good as new.
    pub evictions_of_active: u64,
}

impl std::ops::Add for Stats {
    type Output = Stats;

    fn add(self, other: Stats) -> Stats {
        Stats {
            keys: self.keys + other.keys,
            capacity: self.capacity + other.capacity,
            bytes_used: self.bytes_used + other.bytes_used,
            bytes_max: self.bytes_max + other.bytes_max,
            allowed: self.allowed + other.allowed,
            denied: self.denied + other.denied,
            evictions: self.evictions + other.evictions,
            evictions_of_active: self.evictions_of_active + other.evictions_of_active,
        }
    }
}

/// What one step of a sweep did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sweep {
    /// How many states were removed.
    pub removed: u32,
    /// Where to go on; none at the end.
    pub next: Option<u32>,
}

/// An entry of the table for what was looked up.
struct Found {
    entry: u32,
    state: State,
    expiry: i64,
}

/// Upper and lower word of a level.
#[inline]
fn halves(level: u128) -> (u64, u64) {
    ((level >> 64) as u64, level as u64)
}

impl<'a> Table<'a> {
    /// Makes an empty table of `words`, whatever they held.
    ///
    /// # Errors
    /// Less memory than a header and one entry.
    pub fn format(words: Words<'_>) -> Result<(), Corrupt> {
        Entries::format(words)
    }

    /// The table that was formatted in `words`.
    ///
    /// # Errors
    /// None was, or not with this size.
    #[inline]
    pub fn open(words: Words<'a>) -> Result<Self, Corrupt> {
        Ok(Table { entries: Entries::open(words)? })
    }

    /// The word of the slot where the search for a key begins, without a look at the words.
    #[inline(always)]
    pub fn place_of(words: Words<'_>, key: KeyHash) -> usize {
        Entries::place_of(words, key)
    }

    /// Answers a request of the key and, where it is granted, keeps what was consumed. A cost of 0 is a peek of 1: it
    /// consumes nothing, isn't counted, and answers as a request of cost 1 would find.
    ///
    /// `now`: microseconds of the wall clock, read after the partition was locked.
    #[inline]
    pub fn request(&self, key: KeyHash, limit: &Limit, now: i64, request: Request) -> Result<Decision, Corrupt> {
        let (request, counted) = match request {
            Request::All(0) | Request::UpTo(0) => (Request::Peek(1), false),
            Request::Peek(cost) => (Request::Peek(cost.max(1)), false),
            counted => (counted, true),
        };
        let found = self.find(key, limit, now)?;
        let (decision, changed) = limit.decide(found.as_ref().and_then(|found| found.live(now)), now, request);
        self.keep(key, limit, now, found, changed, decision.reset_after, counted)?;
        if counted {
            self.entries.count(if decision.granted > 0 { AT_ALLOWED } else { AT_DENIED })?;
        }
        Ok(decision)
    }

    /// Counts a request that was denied before it came to the table.
    pub(super) fn count_denied(&self) -> Result<(), Corrupt> {
        self.entries.count(AT_DENIED)
    }

    /// Gives back `amount` of what the key has consumed, at most all of it, and answers as a peek of 1 then would.
    pub fn refund(&self, key: KeyHash, limit: &Limit, now: i64, amount: u32) -> Result<Decision, Corrupt> {
        let found = self.find(key, limit, now)?;
        let changed = found.as_ref().and_then(|found| found.live(now)).map(|state| limit.refund(state, now, amount));
        let (decision, _) = limit.decide(changed, now, Request::Peek(1));
        match found {
            Some(found) if decision.reset_after == 0 => self.entries.remove(found.entry)?,
            found => self.keep(key, limit, now, found, changed, decision.reset_after, true)?,
        }
        Ok(decision)
    }

    /// Forgets every state of the key; whether there was one that wasn't as good as new.
    pub fn reset(&self, key: KeyHash, now: i64) -> Result<bool, Corrupt> {
        let mut any = false;
        let mut entry = self.entries.first(self.entries.home(key))?;
        for _ in 0..=MAX_CHAIN {
            if entry == 0 {
                return Ok(any);
            }
            let next = self.entries.next(entry)?;
            if self.entries.is_of(entry, key)? {
                any |= self.entries.is_active(entry, now)?;
                self.entries.remove(entry)?;
            }
            entry = next;
        }
        Err(Corrupt)
    }

    /// Removes what is as good as new from `count` entries from `start` on (0 at first), in time proportional to
    /// `count`.
    pub fn sweep(&self, now: i64, start: u32, count: u32) -> Result<Sweep, Corrupt> {
        let end = start.saturating_add(count).min(self.entries.capacity);
        let mut removed = 0;
        for entry in start.saturating_add(1)..=end {
            let what = self.entries.word(entry, OF_WHAT)?;
            if what != 0 && self.settled(entry, what, now)?.live(now).is_none() {
                self.entries.remove(entry)?;
                removed += 1;
            }
        }
        Ok(Sweep { removed, next: (end < self.entries.capacity).then_some(end) })
    }

    /// How full the table is, and what it has counted.
    pub fn stats(&self) -> Result<Stats, Corrupt> {
        let keys = u64::from(half(load(self.entries.header, AT_KEYS)?, false));
        Ok(Stats {
            keys,
            capacity: u64::from(self.entries.capacity),
            bytes_used: keys * (SLOT * size_of::<u64>()) as u64,
            bytes_max: self.entries.bytes() as u64,
            allowed: load(self.entries.header, AT_ALLOWED)?,
            denied: load(self.entries.header, AT_DENIED)?,
            evictions: load(self.entries.header, AT_EVICTIONS)?,
            evictions_of_active: load(self.entries.header, AT_ACTIVE_EVICTIONS)?,
        })
    }

    /// The entry of this key, algorithm and period, its time moved to `now` if it lay ahead.
    #[inline]
    fn find(&self, key: KeyHash, limit: &Limit, now: i64) -> Result<Option<Found>, Corrupt> {
        let identity = identity(limit);
        let mut entry = self.entries.first(self.entries.home(key))?;
        for _ in 0..=MAX_CHAIN {
            if entry == 0 {
                return Ok(None);
            }
            let what = self.entries.word(entry, OF_WHAT)?;
            if what & IDENTITY == identity && self.entries.is_of(entry, key)? {
                return self.settled(entry, what, now).map(Some);
            }
            entry = self.entries.next(entry)?;
        }
        Err(Corrupt)
    }

    /// What an entry in use holds. A clock that has stepped back behind its time takes it along: as far as the state
    /// moves, so does the moment at which it will be as good as new.
    #[inline]
    fn settled(&self, entry: u32, what: u64, now: i64) -> Result<Found, Corrupt> {
        let time = self.entries.word(entry, OF_TIME)?.cast_signed();
        let mut expiry = self.entries.word(entry, OF_EXPIRY)?.cast_signed();
        let level = u128::from(what >> IDENTITY_BITS) << 64 | u128::from(self.entries.word(entry, OF_LEVEL)?);
        let state = State { time, level }.rebase(now);
        if state.time < time {
            expiry = expiry.saturating_sub_unsigned(time.abs_diff(state.time));
            self.entries.set_word(entry, OF_TIME, state.time.cast_unsigned())?;
            self.entries.set_word(entry, OF_EXPIRY, expiry.cast_unsigned())?;
            self.entries.note(entry, expiry, now)?;
        }
        Ok(Found { entry, state, expiry })
    }

    /// Writes back what a request has left: the new state, if it has one, and until when it matters to this limit.
    #[inline]
    fn keep(
        &self,
        key: KeyHash,
        limit: &Limit,
        now: i64,
        found: Option<Found>,
        changed: Option<State>,
        reset_after: u64,
        used: bool,
    ) -> Result<(), Corrupt> {
        let until = now.saturating_add_unsigned(reset_after);
        let (entry, expiry) = match found {
            // What has expired is not to come back to life by a look at it.
            Some(found) if found.expiry <= now && changed.is_none() => return Ok(()),
            Some(found) => (found.entry, if found.expiry > now { found.expiry.max(until) } else { until }),
            None if changed.is_some() => {
                let entry = self.entries.insert(key, now)?;
                self.entries.note(entry, until, now)?;
                (entry, until)
            }
            None => return Ok(()),
        };
        if let Some(state) = changed {
            let (upper, lower) = halves(state.level);
            self.entries.set_word(entry, OF_WHAT, identity(limit) | upper << IDENTITY_BITS)?;
            self.entries.set_word(entry, OF_TIME, state.time.cast_unsigned())?;
            self.entries.set_word(entry, OF_LEVEL, lower)?;
        }
        self.entries.set_word(entry, OF_EXPIRY, expiry.cast_unsigned())?;
        if used {
            let next = self.entries.word(entry, OF_NEXT)?;
            self.entries.set_word(entry, OF_NEXT, with_half(next, true, tick(now)))?;
        }
        Ok(())
    }

    /// That every entry is in exactly one place: its own chain or the free list.
    #[cfg(test)]
    pub(super) fn verify(&self) -> Result<(), String> {
        self.entries.verify()
    }
}

impl Found {
    /// The state, unless it has become as good as new.
    #[inline]
    fn live(&self, now: i64) -> Option<State> {
        (self.expiry > now).then_some(self.state)
    }
}
