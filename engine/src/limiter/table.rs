//! The table that keeps the states of all keys of one partition.
//!
//! A key has a state per algorithm and period, or per rule of a policy. They share a chain, so that [`Table::reset`] finds
//! them all. The state of a policy's rule goes with the rule, whatever algorithm and period it gets: it is converted
//! (`convert.rs`).
//!
//! A state that has become as good as new counts as absent from that moment on, whether it has been removed or not:
//! no answer depends on when [`Table::sweep`] runs. Every look at a token bucket's state by some limit keeps it at least
//! until it is as good as new by that limit; the other algorithms' states don't depend on the limit.
//!
//! Which key goes when a table is full is in `evict.rs`. A key that is asked with ever new periods pushes out its own states when
//! its chain has become too long.

use super::convert::Former;
use super::entries::{
    AT_ACTIVE_EVICTIONS, AT_ALLOWED, AT_DENIED, AT_EVICTIONS, AT_EXHAUSTED_EVICTIONS, AT_KEYS, AT_OTHERS,
    AT_WOULD_HAVE_DENIED, BUCKET, EXTENSION, Entries, FIXED, MAX_CHAIN, NOTE, OF_BLOCK, OF_FIRST, OF_FOURTH, OF_TIME,
    OF_WHAT, SLIDING, SLOT, Sought, capacity_in, half, kind, kind_of, rule_of, what,
};
use super::limit::{Algorithm, Decision, Limit, Request, State};
use super::notes::Outcome;
pub use super::notes::PolicyStats;
use super::{fixed_window, token_bucket};
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
    /// States held: one per key, algorithm and period, or per key and rule of a policy.
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
    /// Requests granted because their policy is in shadow mode.
    pub would_have_denied: u64,
    /// States removed to make room.
    pub evictions: u64,
    /// Those of them that weren't as good as new.
    pub evictions_of_active: u64,
    /// Those of them whose limit was used up.
    pub evictions_of_exhausted: u64,
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
            would_have_denied: self.would_have_denied + other.would_have_denied,
            evictions: self.evictions + other.evictions,
            evictions_of_active: self.evictions_of_active + other.evictions_of_active,
            evictions_of_exhausted: self.evictions_of_exhausted + other.evictions_of_exhausted,
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

/// One rule of a policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    /// Which, from 1 to [`MAX_RULES`].
    pub number: u32,
    /// What it allows a key.
    pub limit: Limit,
    /// Since when the policy has it with this algorithm and period, in microseconds. What was consumed before counts for
    /// it, too.
    pub since: i64,
}

/// The most rules of a policy.
pub const MAX_RULES: u32 = 8;

/// What is asked of a key.
#[derive(Debug, Clone, Copy)]
pub struct Question<'r> {
    /// The policy by its hash, which differs from that of every key.
    pub policy: KeyHash,
    /// Its rules.
    pub rules: &'r [Rule],
    /// Whether to grant what the rules deny.
    pub shadow: bool,
    /// For how many more microseconds the key is blocked.
    pub blocked: u64,
}

/// What a table holds for what was looked up.
#[derive(Debug, Clone, Copy, Default)]
struct Found {
    /// The entry and what it is; none where there is no entry yet.
    entry: Option<(u32, u64)>,
    /// The state, unless it is as good as new.
    state: Option<State>,
    /// When the entry's state is as good as new.
    expiry: i64,
    /// Whether the state isn't the entry's as it stands.
    converted: bool,
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

    /// Answers a request of the key and, where it is granted, keeps what was consumed. A cost of 0 is a peek of 1: it
    /// consumes nothing, isn't counted, and answers as a request of cost 1 would find.
    ///
    /// `now`: microseconds of the wall clock, read after the partition was locked.
    #[inline]
    pub fn request(&self, key: KeyHash, limit: &Limit, now: i64, request: Request) -> Result<Decision, Corrupt> {
        if let Request::All(cost) = request
            && cost > 0
            && let Some(decision) = self.decide(key, limit, now, cost)?
        {
            return Ok(decision);
        }
        self.request_any(key, limit, now, request)
    }

    /// The plain case: all or nothing, of a state that the table has in one slot. None where it isn't that.
    #[inline(always)]
    fn decide(&self, key: KeyHash, limit: &Limit, now: i64, cost: u32) -> Result<Option<Decision>, Corrupt> {
        let entries = &self.entries;
        let Some((entry, found)) = entries.find(key, Sought::state(limit))? else { return Ok(None) };
        // A clock that has stepped back moves the state, too.
        if entries.has_blocks()? || entries.word(entry, OF_TIME)?.cast_signed() > now {
            return Ok(None);
        }
        let kind = kind(found);
        let decision = match kind {
            SLIDING => {
                let Some((decision, changed)) = entries.narrow(entry)?.decide(limit, now, cost) else {
                    return Ok(None);
                };
                if let Some(narrow) = changed {
                    entries.set_narrow(entry, &narrow)?;
                }
                decision
            }
            FIXED => {
                let (opened, used) = entries.fixed(entry)?;
                let (decision, changed) = fixed_window::decide(limit, opened, used, now, cost);
                if let Some((opened, used)) = changed {
                    entries.set_fixed(entry, opened, used)?;
                }
                decision
            }
            BUCKET => {
                let (time, level, expiry) = entries.bucket(entry)?;
                // What has expired is as good as new, whatever the rate says, and a look at it leaves it so.
                let live = expiry > now;
                let (decision, changed) = token_bucket::decide(limit, time, if live { level } else { 0 }, now, cost);
                let until = expiry.max(now.saturating_add_unsigned(decision.reset_after));
                match changed {
                    Some(level) => entries.set_bucket(entry, now, level, until)?,
                    None if live => entries.set_word(entry, OF_FOURTH, until.cast_unsigned())?,
                    None => {}
                }
                decision
            }
            _ => return Ok(None),
        };
        entries.set_word(entry, OF_WHAT, what(kind, 0, limit.period, limit.capacity))?;
        entries.count(if decision.allowed { AT_ALLOWED } else { AT_DENIED })?;
        Ok(Some(decision))
    }

    #[inline(never)]
    fn request_any(&self, key: KeyHash, limit: &Limit, now: i64, request: Request) -> Result<Decision, Corrupt> {
        let (request, counted) = normal(request);
        let sought = Sought::state(limit);
        let found = self.find(key, sought, limit, None, false, now)?;
        let blocked = if self.entries.has_blocks()? { self.entries.block_left(key, now)? } else { 0 };
        let asked = if blocked > 0 { without_consuming(request) } else { request };
        let (mut decision, changed) = limit.decide(found.state.as_ref(), now, asked);
        decision.block(blocked);
        self.keep(key, sought, limit, now, &found, changed, decision.reset_after, 0)?;
        if counted {
            self.entries.count(if decision.granted > 0 { AT_ALLOWED } else { AT_DENIED })?;
        }
        Ok(decision)
    }

    /// Answers a request of the key under a policy: all of its rules consume, or none does. `remaining` is the least of
    /// the rules' (`u32::MAX` without rules), and `retry_after` and `reset_after` are the longest.
    pub fn request_by(
        &self,
        key: KeyHash,
        question: &Question<'_>,
        now: i64,
        request: Request,
    ) -> Result<Decision, Corrupt> {
        let (request, counted) = normal(request);
        let note = if counted { self.entries.policy(question.policy, now)? } else { 0 };
        // One rule consumes at once; several are asked first, so that all consume or none does.
        let single = question.rules.len() == 1 && question.blocked == 0;
        let first = if single { request } else { without_consuming(request) };
        let mut decision = self.ask_all(key, question.rules, now, first, note, true)?;
        decision.block(question.blocked);
        if !single && decision.allowed && counted {
            decision = self.ask_all(key, question.rules, now, request, note, false)?;
        }
        let outcome = match (decision.allowed, question.shadow) {
            (true, _) => Outcome::Allowed,
            (false, false) => Outcome::Denied,
            (false, true) => Outcome::WouldHaveDenied,
        };
        if counted {
            self.entries.count_for_policy(note, outcome)?;
            self.entries.count(match outcome {
                Outcome::Allowed => AT_ALLOWED,
                Outcome::Denied => AT_DENIED,
                Outcome::WouldHaveDenied => AT_WOULD_HAVE_DENIED,
            })?;
        }
        if question.shadow {
            (decision.allowed, decision.retry_after) = (true, Some(0));
        }
        Ok(decision)
    }

    /// Asks all rules for the same. `first`: a rule without a state takes over what another knows, which by the second
    /// time knows of this request, too.
    fn ask_all(
        &self,
        key: KeyHash,
        rules: &[Rule],
        now: i64,
        request: Request,
        note: u32,
        first: bool,
    ) -> Result<Decision, Corrupt> {
        let granted = if let Request::All(cost) = request { cost } else { 0 };
        let mut all = Decision { allowed: true, granted, remaining: u32::MAX, retry_after: Some(0), reset_after: 0 };
        for rule in rules {
            let one = self.ask(key, rule, now, request, note, first)?;
            all.allowed &= one.allowed;
            all.granted = all.granted.min(one.granted);
            all.remaining = all.remaining.min(one.remaining);
            all.retry_after = all.retry_after.zip(one.retry_after).map(|(all, one)| all.max(one));
            all.reset_after = all.reset_after.max(one.reset_after);
        }
        Ok(all)
    }

    /// Asks one rule.
    fn ask(
        &self,
        key: KeyHash,
        rule: &Rule,
        now: i64,
        request: Request,
        note: u32,
        first: bool,
    ) -> Result<Decision, Corrupt> {
        let sought = Sought::rule(u64::from(rule.number.clamp(1, MAX_RULES)));
        let found = self.find(key, sought, &rule.limit, Some(rule.since), first, now)?;
        let (decision, changed) = rule.limit.decide(found.state.as_ref(), now, request);
        self.keep(key, sought, &rule.limit, now, &found, changed, decision.reset_after, note)?;
        Ok(decision)
    }

    /// How much of a rule could be consumed.
    pub fn remaining(&self, key: KeyHash, rule: &Rule, now: i64) -> Result<u32, Corrupt> {
        Ok(self.ask(key, rule, now, Request::Peek(1), 0, true)?.remaining)
    }

    /// Microseconds until more than `remaining` of the rule could be consumed; none where it is never more.
    pub fn more_after(
        &self,
        key: KeyHash,
        rule: Option<&Rule>,
        limit: &Limit,
        now: i64,
        remaining: u32,
    ) -> Result<Option<u64>, Corrupt> {
        let sought = rule.map_or(Sought::state(limit), |rule| Sought::rule(u64::from(rule.number)));
        let found = self.find(key, sought, limit, rule.map(|rule| rule.since), true, now)?;
        Ok(limit.wait(found.state.as_ref(), now, remaining.saturating_add(1)))
    }

    /// Books `cost` of a token bucket ahead, see [`Limit::reserve`].
    pub fn reserve(
        &self,
        key: KeyHash,
        limit: &Limit,
        now: i64,
        cost: u32,
        max_wait: u64,
    ) -> Result<Decision, Corrupt> {
        let sought = Sought::state(limit);
        let found = self.find(key, sought, limit, None, false, now)?;
        let blocked = self.entries.block_left(key, now)?;
        // What is blocked waits for the end of the block first.
        let patience = max_wait.checked_sub(blocked);
        let (mut decision, mut changed) = limit.reserve(found.state.as_ref(), now, cost, patience.unwrap_or(0));
        if patience.is_none() {
            (decision.allowed, decision.granted, changed) = (false, 0, None);
        }
        decision.retry_after = decision.retry_after.map(|wait| wait.max(blocked));
        self.keep(key, sought, limit, now, &found, changed, decision.reset_after, 0)?;
        if cost > 0 {
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
        let sought = Sought::state(limit);
        let found = self.find(key, sought, limit, None, false, now)?;
        let changed = found.state.map(|state| limit.refund(state, now, amount));
        let (mut decision, _) = limit.decide(changed.as_ref(), now, Request::Peek(1));
        match found.entry {
            Some((entry, _)) if decision.reset_after == 0 => self.entries.remove(entry)?,
            _ => self.keep(key, sought, limit, now, &found, changed, decision.reset_after, 0)?,
        }
        decision.block(self.entries.block_left(key, now)?);
        Ok(decision)
    }

    /// Forgets every state of the key; whether there was one that wasn't as good as new. A block stays.
    pub fn reset(&self, key: KeyHash, now: i64) -> Result<bool, Corrupt> {
        let mut any = false;
        let mut entry = self.entries.first(self.entries.home(key))?;
        for _ in 0..=MAX_CHAIN {
            if entry == 0 {
                return Ok(any);
            }
            let next = self.entries.next(entry)?;
            let what = self.entries.word(entry, OF_WHAT)?;
            if kind(what) != NOTE && self.entries.is_of(entry, key)? {
                any |= self.entries.read(entry, what, now)?.used(now) > 0;
                self.entries.remove(entry)?;
            }
            entry = next;
        }
        Err(Corrupt)
    }

    /// Blocks the key for `length` microseconds: every request of it is denied until then.
    pub fn block(&self, key: KeyHash, now: i64, length: u64) -> Result<(), Corrupt> {
        self.entries.block(key, now, length)
    }

    /// Ends a block; whether the key was blocked.
    pub fn unblock(&self, key: KeyHash, now: i64) -> Result<bool, Corrupt> {
        self.entries.unblock(key, now)
    }

    /// For how many more microseconds the key is blocked; 0 if it isn't.
    pub fn block_left(&self, key: KeyHash, now: i64) -> Result<u64, Corrupt> {
        self.entries.block_left(key, now)
    }

    /// Whether any key is blocked, as far as can be told without the partition's lock.
    pub fn may_have_blocks(words: Words<'_>) -> bool {
        load(words, AT_KEYS).is_ok_and(|word| half(word, true) != 0)
    }

    /// Keeps every state of the policy until `until` (microseconds), although it is as good as new: a longer period may
    /// find it.
    pub fn hold(&self, policy: KeyHash, until: i64) -> Result<(), Corrupt> {
        self.entries.hold(policy, until)
    }

    /// Removes what is as good as new from `count` entries from `start` on (0 at first), in time proportional to
    /// `count`.
    pub fn sweep(&self, now: i64, start: u32, count: u32) -> Result<Sweep, Corrupt> {
        let end = start.saturating_add(count).min(self.entries.capacity);
        let mut removed = 0;
        for entry in start.saturating_add(1)..=end {
            let what = self.entries.word(entry, OF_WHAT)?;
            let over = match kind(what) {
                NOTE if rule_of(what) == OF_BLOCK => self.entries.blocked_until(entry, now)? <= now,
                NOTE | EXTENSION => false,
                _ if what == 0 => false,
                _ => self.entries.read(entry, what, now)?.expiry <= now && self.entries.held(entry, what)? <= now,
            };
            if over {
                self.entries.remove(entry)?;
                removed += 1;
            }
        }
        Ok(Sweep { removed, next: (end < self.entries.capacity).then_some(end) })
    }

    /// How full the table is, and what it has counted.
    pub fn stats(&self) -> Result<Stats, Corrupt> {
        let header = |at| load(self.entries.header, at);
        let keys = u64::from(half(header(AT_KEYS)?, false));
        let slots = keys + u64::from(half(header(AT_OTHERS)?, false));
        Ok(Stats {
            keys,
            capacity: u64::from(self.entries.capacity),
            bytes_used: slots * (SLOT * size_of::<u64>()) as u64,
            bytes_max: self.entries.bytes() as u64,
            allowed: header(AT_ALLOWED)?,
            denied: header(AT_DENIED)?,
            would_have_denied: header(AT_WOULD_HAVE_DENIED)?,
            evictions: header(AT_EVICTIONS)?,
            evictions_of_active: header(AT_ACTIVE_EVICTIONS)?,
            evictions_of_exhausted: header(AT_EXHAUSTED_EVICTIONS)?,
        })
    }

    /// What was counted for a policy.
    pub fn policy_stats(&self, policy: KeyHash) -> Result<PolicyStats, Corrupt> {
        self.entries.policy_stats(policy)
    }

    /// What the key has for `limit`. `since`: when a policy got the rule, if it is one's; `derive`: where the rule has no
    /// state yet it takes over what another knows.
    fn find(
        &self,
        key: KeyHash,
        sought: Sought,
        limit: &Limit,
        since: Option<i64>,
        derive: bool,
        now: i64,
    ) -> Result<Found, Corrupt> {
        let Some((entry, what)) = self.entries.find(key, sought)? else {
            let state = match since {
                Some(since) if derive => self.derive(key, limit, since, now)?,
                _ => None,
            };
            return Ok(Found { state, converted: state.is_some(), ..Found::default() });
        };
        let former = self.entries.read(entry, what, now)?;
        let found = Found { entry: Some((entry, what)), expiry: former.expiry, ..Found::default() };
        if let Some(since) = since
            && !(Sought::state(limit).is_same_limit(what) && former.is_of_window(limit, now))
        {
            let state = former.convert(limit, since, now);
            return Ok(Found { state, converted: state.is_some(), ..found });
        }
        Ok(Found { state: (former.expiry > now).then_some(former.state), ..found })
    }

    /// The state of a rule that the policy has got since the key was last asked: of what another of its rules knows.
    fn derive(&self, key: KeyHash, limit: &Limit, since: i64, now: i64) -> Result<Option<State>, Corrupt> {
        let mut longest: Option<Former> = None;
        let mut entry = self.entries.first(self.entries.home(key))?;
        for _ in 0..=MAX_CHAIN {
            if entry == 0 {
                return Ok(longest.and_then(|former| former.derive(limit, since, now)));
            }
            let what = self.entries.word(entry, OF_WHAT)?;
            if kind(what) != NOTE && rule_of(what) != 0 && self.entries.is_of(entry, key)? {
                let former = self.entries.read(entry, what, now)?;
                if longest.is_none_or(|longest| longest.period < former.period) {
                    longest = Some(former);
                }
            }
            entry = self.entries.next(entry)?;
        }
        Err(Corrupt)
    }

    /// Writes back what a request has left: the new state, if it has one, and what the entry was last used with.
    #[inline]
    fn keep(
        &self,
        key: KeyHash,
        sought: Sought,
        limit: &Limit,
        now: i64,
        found: &Found,
        changed: Option<State>,
        reset_after: u64,
        note: u32,
    ) -> Result<(), Corrupt> {
        let changed = changed.or(if found.converted { found.state } else { None });
        let until = now.saturating_add_unsigned(reset_after);
        let expiry = if found.expiry > now && !found.converted { found.expiry.max(until) } else { until };
        let rule = sought.rule_of();
        let (entry, state) = match (found.entry, changed) {
            (Some((entry, _)), Some(state)) => (entry, state),
            (Some((entry, what)), None) => return self.touch(entry, what, limit, found.state.is_some(), expiry),
            (None, Some(state)) => {
                let new = what(kind_of(limit.algorithm), rule, limit.period, limit.capacity);
                let entry = self.entries.insert(key, new, now)?;
                if note != 0 {
                    self.entries.set_upper(entry, OF_FIRST, note)?;
                    self.entries.add_policy_keys(note, 1)?;
                }
                (entry, state)
            }
            (None, None) => return Ok(()),
        };
        self.entries.write(entry, rule, limit, state, expiry, now)
    }

    /// Notes what a state that stays as it is was last used with. What has expired is not to come back to life by that.
    #[inline]
    fn touch(&self, entry: u32, what: u64, limit: &Limit, is_live: bool, expiry: i64) -> Result<(), Corrupt> {
        if !is_live {
            return Ok(());
        }
        if capacity_in(what) != limit.capacity {
            let new = super::entries::what(kind(what), rule_of(what), limit.period, limit.capacity);
            self.entries.set_word(entry, OF_WHAT, new)?;
        }
        if limit.algorithm == Algorithm::TokenBucket {
            self.entries.set_word(entry, OF_FOURTH, expiry.cast_unsigned())?;
        }
        Ok(())
    }

    /// That every entry is in exactly one place: its own chain or the free list.
    #[cfg(test)]
    pub(super) fn verify(&self) -> Result<(), String> {
        self.entries.verify()
    }
}

/// A request of nothing is a peek of 1; whether it is one that is counted.
#[inline]
fn normal(request: Request) -> (Request, bool) {
    match request {
        Request::All(0) | Request::UpTo(0) => (Request::Peek(1), false),
        Request::Peek(cost) => (Request::Peek(cost.max(1)), false),
        counted => (counted, true),
    }
}

/// What the request would find.
fn without_consuming(request: Request) -> Request {
    match request {
        Request::All(cost) | Request::UpTo(cost) | Request::Peek(cost) => Request::Peek(cost),
    }
}

impl Decision {
    /// Denies, if the key is blocked for `left` more microseconds.
    fn block(&mut self, left: u64) {
        if left > 0 {
            (self.allowed, self.granted, self.remaining) = (false, 0, 0);
            self.retry_after = self.retry_after.map(|wait| wait.max(left));
            self.reset_after = self.reset_after.max(left);
        }
    }
}
