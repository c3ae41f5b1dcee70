//! Which key goes when a table is full: of [`LOOKS`] entries, a state that is as good as new if there is one, else the one that
//! has least consumed of its limit, a key that is used up last. Of two that have consumed equal shares, the smaller
//! amount goes, then the one that is as good as new earlier.
//!
//! The entries that are looked at follow one another in memory, and the next eviction goes on behind them, so that all are
//! looked at in turn and states as good as new are all found before others go, unless they are rarer than one in
//! [`LOOKS`]. A key that is used up is evicted only where all of the entries looked at are: that needs a flood of keys which
//! are themselves used up, most of the table's, and it is counted.

use super::entries::{
    AT_ACTIVE_EVICTIONS, AT_EVICTIONS, AT_EXHAUSTED_EVICTIONS, AT_FREE, EXTENSION, Entries, NOTE, OF_POLICY, OF_WHAT,
    capacity_in, half, kind, rule_of, with_half,
};
use crate::words::{Corrupt, load, store};
use std::cmp::Ordering;

/// How many entries an eviction looks at: as many cache lines.
const LOOKS: u32 = 64;

/// An entry that may go, and what it would lose.
#[derive(Debug, Clone, Copy)]
pub(super) struct Candidate {
    entry: u32,
    /// What was consumed and still counts, at most `capacity`.
    used: u32,
    capacity: u32,
    expiry: i64,
}

impl Candidate {
    /// Whether nothing is lost.
    fn is_idle(&self, now: i64) -> bool {
        self.expiry <= now || self.used == 0
    }

    fn is_exhausted(&self) -> bool {
        self.used >= self.capacity
    }

    /// Less goes first.
    fn order(&self, other: &Self, now: i64) -> Ordering {
        let share = |one: &Self, other: &Self| u64::from(one.used) * u64::from(other.capacity);
        other
            .is_idle(now)
            .cmp(&self.is_idle(now))
            .then(share(self, other).cmp(&share(other, self)))
            .then(self.used.cmp(&other.used))
            .then(self.expiry.cmp(&other.expiry))
    }
}

impl Entries<'_> {
    /// Evicts an entry of a full table, but not `except`; false where there is no other.
    pub(super) fn make_room(&self, now: i64, except: u32) -> Result<bool, Corrupt> {
        let start = half(load(self.header, AT_FREE)?, true) % self.capacity;
        let mut victim: Option<Candidate> = None;
        let (mut looks, mut next) = (0, start);
        for step in 0..self.capacity {
            next = (start + step) % self.capacity;
            let entry = next + 1;
            if entry == except {
                continue;
            }
            let Some(candidate) = self.candidate(entry, now)? else { continue };
            looks += 1;
            if victim.is_none_or(|victim| candidate.order(&victim, now).is_lt()) {
                victim = Some(candidate);
            }
            if candidate.is_idle(now) || looks == LOOKS {
                break;
            }
        }
        store(self.header, AT_FREE, with_half(load(self.header, AT_FREE)?, true, next + 1))?;
        match victim {
            Some(victim) => self.evict(&victim, now).map(|()| true),
            None => Ok(false),
        }
    }

    /// Whichever of two is to go first.
    pub(super) fn rather(&self, old: Option<Candidate>, new: u32, now: i64) -> Result<Option<Candidate>, Corrupt> {
        let new = self.candidate(new, now)?;
        Ok(match (old, new) {
            (Some(old), Some(new)) if new.order(&old, now).is_lt() => Some(new),
            (old, new) => old.or(new),
        })
    }

    /// The slot's entry, if it is one that may go: a state or a block.
    fn candidate(&self, entry: u32, now: i64) -> Result<Option<Candidate>, Corrupt> {
        let what = self.word(entry, OF_WHAT)?;
        if what == 0 || kind(what) == EXTENSION {
            return Ok(None);
        }
        if kind(what) == NOTE {
            if rule_of(what) == OF_POLICY {
                return Ok(None);
            }
            // Nobody meant a blocked key to be forgotten: it goes last of all.
            let expiry = self.blocked_until(entry, now)?;
            return Ok(Some(Candidate { entry, used: u32::MAX, capacity: u32::MAX, expiry }));
        }
        // Under a limit of 0 whatever counts is all of it.
        let capacity = capacity_in(what).max(1);
        let former = self.read(entry, what, now)?;
        let (mut used, mut expiry) = (former.used(now).min(capacity), former.expiry);
        if used == 0 {
            // What its policy may still want counts as little as anything can.
            expiry = self.held(entry, what)?;
            used = u32::from(expiry > now);
        }
        Ok(Some(Candidate { entry, used, capacity, expiry }))
    }

    /// Removes an entry to make room, and counts that.
    pub(super) fn evict(&self, victim: &Candidate, now: i64) -> Result<(), Corrupt> {
        self.count(AT_EVICTIONS)?;
        if !victim.is_idle(now) {
            self.count(AT_ACTIVE_EVICTIONS)?;
            if victim.is_exhausted() {
                self.count(AT_EXHAUSTED_EVICTIONS)?;
            }
            let what = self.word(victim.entry, OF_WHAT)?;
            if kind(what) != NOTE {
                self.count_policy_eviction(self.policy_of(victim.entry, what)?)?;
            }
        }
        self.remove(victim.entry)
    }
}
