//! What a table knows beside the states: the counters of policies, and which keys are blocked.
//!
//! ```text
//! word    3         4        5                   6, upper half          7, upper half
//! policy  allowed   denied   would have denied   evictions of active    keys
//! block   since     length
//! ```
//! A policy's word 2 holds, in place of a period, until when its states are kept although they are as good as new.
//!
//! A policy's counters are in each table that has keys of it, so that counting costs a cache line and no second lock.
//! They stay as long as the table does. States name them by their slot.

use super::entries::{
    AT_KEYS, AT_OTHERS, Entries, NOTE, OF_BLOCK, OF_FIFTH, OF_FIRST, OF_FOURTH, OF_NEXT, OF_POLICY, OF_TIME, OF_WHAT,
    PERIOD, Sought, half, kind, rule_of, what,
};
use crate::fingerprint;
use crate::hash::KeyHash;
use crate::words::{Corrupt, load};

/// Until when states are held is counted in units of 2^20 microseconds.
const HELD_SHIFT: u32 = 20;

/// One slot in so many may be a policy's.
const SLOTS_PER_POLICY: u32 = 16;

/// What was counted for a policy.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PolicyStats {
    /// Requests granted.
    pub allowed: u64,
    /// Requests denied.
    pub denied: u64,
    /// Requests that were granted because the policy is in shadow mode.
    pub would_have_denied: u64,
    /// States held.
    pub keys: u64,
    /// States removed to make room although they were not as good as new.
    pub evictions_of_active: u64,
}

impl std::ops::Add for PolicyStats {
    type Output = PolicyStats;

    fn add(self, other: PolicyStats) -> PolicyStats {
        PolicyStats {
            allowed: self.allowed + other.allowed,
            denied: self.denied + other.denied,
            would_have_denied: self.would_have_denied + other.would_have_denied,
            keys: self.keys + other.keys,
            evictions_of_active: self.evictions_of_active + other.evictions_of_active,
        }
    }
}

/// How a counted request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Allowed,
    Denied,
    /// Granted, because the policy is in shadow mode.
    WouldHaveDenied,
}

impl Entries<'_> {
    /// The counters of a policy, made where there are none; 0 where there are too many policies in this table.
    pub(super) fn policy(&self, policy: KeyHash, now: i64) -> Result<u32, Corrupt> {
        if let Some((note, _)) = self.find(policy, Sought::rule(OF_POLICY))? {
            return Ok(note);
        }
        if half(load(self.header, AT_OTHERS)?, true) >= self.capacity / SLOTS_PER_POLICY {
            return Ok(0);
        }
        let note = self.insert(policy, what(NOTE, OF_POLICY, 0, 0), now)?;
        for of in [OF_TIME, OF_FOURTH, OF_FIFTH] {
            self.set_word(note, of, 0)?;
        }
        self.set_upper(note, OF_NEXT, 0)?;
        Ok(note)
    }

    /// Counts a request of the policy; `note` is 0 for none.
    pub(super) fn count_for_policy(&self, note: u32, outcome: Outcome) -> Result<(), Corrupt> {
        if note == 0 {
            return Ok(());
        }
        let of = match outcome {
            Outcome::Allowed => OF_TIME,
            Outcome::Denied => OF_FOURTH,
            Outcome::WouldHaveDenied => OF_FIFTH,
        };
        self.is_policy(note)?;
        self.set_word(note, of, self.word(note, of)?.wrapping_add(1))
    }

    /// Counts a state of the policy that came or went.
    pub(super) fn add_policy_keys(&self, note: u32, change: i32) -> Result<(), Corrupt> {
        if note == 0 {
            return Ok(());
        }
        self.is_policy(note)?;
        let keys = self.upper(note, OF_FIRST)?.checked_add_signed(change).ok_or(Corrupt)?;
        self.set_upper(note, OF_FIRST, keys)
    }

    /// Counts an eviction of a state of the policy.
    pub(super) fn count_policy_eviction(&self, note: u32) -> Result<(), Corrupt> {
        if note == 0 {
            return Ok(());
        }
        self.is_policy(note)?;
        self.set_upper(note, OF_NEXT, self.upper(note, OF_NEXT)?.saturating_add(1))
    }

    /// Keeps the policy's states until `until`.
    pub(super) fn hold(&self, policy: KeyHash, until: i64) -> Result<(), Corrupt> {
        let Some((note, _)) = self.find(policy, Sought::rule(OF_POLICY))? else { return Ok(()) };
        // Rounded up to some seconds, of which 45 bits hold more than there are.
        let until = (until >> HELD_SHIFT).saturating_add(1).max(0).cast_unsigned();
        self.set_word(note, OF_WHAT, what(NOTE, OF_POLICY, until, 0))
    }

    /// Until when an entry, which is no note, is kept for its policy.
    pub(super) fn held(&self, entry: u32, what: u64) -> Result<i64, Corrupt> {
        match self.policy_of(entry, what)? {
            0 => Ok(i64::MIN),
            note => {
                self.is_policy(note)?;
                Ok(((self.word(note, OF_WHAT)? & PERIOD) << HELD_SHIFT).cast_signed())
            }
        }
    }

    fn is_policy(&self, note: u32) -> Result<(), Corrupt> {
        let what = self.word(note, OF_WHAT)?;
        if kind(what) == NOTE && rule_of(what) == OF_POLICY { Ok(()) } else { Err(Corrupt) }
    }

    /// What was counted for a policy.
    pub(super) fn policy_stats(&self, policy: KeyHash) -> Result<PolicyStats, Corrupt> {
        let Some((note, _)) = self.find(policy, Sought::rule(OF_POLICY))? else { return Ok(PolicyStats::default()) };
        Ok(PolicyStats {
            allowed: self.word(note, OF_TIME)?,
            denied: self.word(note, OF_FOURTH)?,
            would_have_denied: self.word(note, OF_FIFTH)?,
            keys: u64::from(self.upper(note, OF_FIRST)?),
            evictions_of_active: u64::from(self.upper(note, OF_NEXT)?),
        })
    }

    /// Whether any key is blocked.
    #[inline(always)]
    pub(super) fn has_blocks(&self) -> Result<bool, Corrupt> {
        Ok(half(load(self.header, AT_KEYS)?, true) != 0)
    }

    /// For how many microseconds from `now` on the key is blocked; 0 if it isn't.
    pub(super) fn block_left(&self, key: KeyHash, now: i64) -> Result<u64, Corrupt> {
        let Some((note, _)) = self.find(key, Sought::rule(OF_BLOCK))? else { return Ok(0) };
        let until = self.blocked_until(note, now)?;
        Ok(if until > now { until.abs_diff(now) } else { 0 })
    }

    /// Until when the key of a block is blocked. A clock that has stepped back takes it along.
    pub(super) fn blocked_until(&self, note: u32, now: i64) -> Result<i64, Corrupt> {
        let since = self.word(note, OF_TIME)?.cast_signed();
        if since > now {
            self.set_word(note, OF_TIME, now.cast_unsigned())?;
        }
        Ok(since.min(now).saturating_add_unsigned(self.word(note, OF_FOURTH)?))
    }

    /// Blocks the key for `length` microseconds from `now` on.
    pub(super) fn block(&self, key: KeyHash, now: i64, length: u64) -> Result<(), Corrupt> {
        let note = match self.find(key, Sought::rule(OF_BLOCK))? {
            Some((note, _)) => note,
            None => self.insert(key, what(NOTE, OF_BLOCK, 0, 0), now)?,
        };
        self.set_word(note, OF_TIME, now.cast_unsigned())?;
        self.set_word(note, OF_FOURTH, length)
    }

    /// Ends the block of a key; whether it was blocked.
    pub(super) fn unblock(&self, key: KeyHash, now: i64) -> Result<bool, Corrupt> {
        let Some((note, _)) = self.find(key, Sought::rule(OF_BLOCK))? else { return Ok(false) };
        let was = self.blocked_until(note, now)? > now;
        self.remove(note)?;
        Ok(was)
    }
}

/// What of this file the layout version depends on.
pub(super) const LAYOUT: u64 = fingerprint![HELD_SHIFT, SLOTS_PER_POLICY];
