//! The memory of a limiter table: its slots, and the chains and the free list that they are on.
//!
//! ```text
//! header  16 words
//! slots   8 words each, a cache line. Of an entry:
//!   0, 1  the key's hash
//!   2     what it is: period (bits 0–44), kind (45–47), rule (48–51), capacity in short (52–63); 0: the slot is free
//!   3–6   the state, see `stored.rs`
//!   6     lower half: the next slot of the chain;
//!         of a free slot: the next (lower) and the previous one (upper half) of the free list
//!   7     lower half: the first slot of the chain that starts here, whatever else the slot is;
//!         upper half: the policy that the entry is counted for, or the slot that holds the rest of its state
//! ```
//! Slots are counted from 1; 0 is none. As many chains start as there are slots, and a new entry takes the slot that
//! its own chain starts at if that is free. So with room to spare the key that is looked for is in the cache line that
//! the search begins with.
//!
//! | kind | what the slot holds |
//! |---|---|
//! | fixed, sliding, bucket, calendar | a state |
//! | wide | the state of a sliding window, together with an extension |
//! | extension | the rest of a wide state; in no chain |
//! | note | what is known of a policy (its counters), or that a key is blocked: by its rule |
//!
//! No chain grows beyond [`MAX_CHAIN`]: an insert into a full one evicts from it.

use super::limit::{Algorithm, Limit, MAX_PERIOD};
use crate::fingerprint;
use crate::hash::KeyHash;
use crate::words::{Corrupt, Words, load, store, zero};

/// The longest chain. With as many chains as slots and keyed hashes, chance alone doesn't get near it.
pub(super) const MAX_CHAIN: usize = 64;

const MAGIC: u64 = u64::from_le_bytes(*b"limiter\x03");
const HEADER: usize = 16;
pub(super) const SLOT: usize = 8;

// Words of the header. A plain check needs the first eight, a cache line, and no other.
const AT_MAGIC: usize = 0;
const AT_CAPACITY: usize = 1;
/// The first slot of the free list (lower half); where the next eviction begins to look (upper half).
pub(super) const AT_FREE: usize = 2;
/// How many states there are (lower half); how many keys are blocked (upper half).
pub(super) const AT_KEYS: usize = 3;
pub(super) const AT_ALLOWED: usize = 4;
pub(super) const AT_DENIED: usize = 5;
pub(super) const AT_WOULD_HAVE_DENIED: usize = 6;
pub(super) const AT_EVICTIONS: usize = 7;
pub(super) const AT_ACTIVE_EVICTIONS: usize = 8;
pub(super) const AT_EXHAUSTED_EVICTIONS: usize = 9;
/// How many extensions there are (lower half); how many policies are counted (upper half).
pub(super) const AT_OTHERS: usize = 10;

// Words of a slot.
pub(super) const OF_HIGH: usize = 0;
pub(super) const OF_LOW: usize = 1;
pub(super) const OF_WHAT: usize = 2;
pub(super) const OF_TIME: usize = 3;
pub(super) const OF_FOURTH: usize = 4;
pub(super) const OF_FIFTH: usize = 5;
pub(super) const OF_NEXT: usize = 6;
pub(super) const OF_FIRST: usize = 7;

// What an entry is.
const PERIOD_BITS: u32 = 45;
pub(super) const PERIOD: u64 = (1 << PERIOD_BITS) - 1;
const KIND_SHIFT: u32 = PERIOD_BITS;
const RULE_SHIFT: u32 = KIND_SHIFT + 3;
const RULE: u64 = 15 << RULE_SHIFT;
const CAPACITY_SHIFT: u32 = RULE_SHIFT + 4;
const _: () = assert!(MAX_PERIOD <= PERIOD && CAPACITY_SHIFT + 12 == 64);

/// Kinds of entries. A wide sliding window differs from a narrow one by the bit that [`Sought::state`] leaves out.
pub(super) const FIXED: u64 = 1;
pub(super) const SLIDING: u64 = 2;
pub(super) const BUCKET: u64 = 3;
pub(super) const CALENDAR: u64 = 4;
pub(super) const NOTE: u64 = 5;
pub(super) const WIDE: u64 = 6;
pub(super) const EXTENSION: u64 = 7;

/// The rules of a policy are 1 to 8; a state of none has 0. These are what a note is.
pub(super) const OF_BLOCK: u64 = 14;
pub(super) const OF_POLICY: u64 = 15;

/// The memory of one table. The caller holds the partition's lock.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entries<'a> {
    pub(super) header: Words<'a>,
    slots: Words<'a>,
    pub(super) capacity: u32,
}

/// Which entry of a key is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sought {
    mask: u64,
    value: u64,
}

impl Sought {
    /// The state of a limit that belongs to no policy: told apart by algorithm and period.
    #[inline(always)]
    pub(super) fn state(limit: &Limit) -> Self {
        let kind = kind_of(limit.algorithm());
        Sought { mask: RULE | 3 << KIND_SHIFT | PERIOD, value: kind << KIND_SHIFT | limit.period() }
    }

    /// The state of a policy's rule, whatever algorithm and period it had when the state was written; or a note.
    pub(super) fn rule(rule: u64) -> Self {
        Sought { mask: RULE, value: rule << RULE_SHIFT }
    }

    #[inline(always)]
    pub(super) fn is(self, what: u64) -> bool {
        what & self.mask == self.value && what != 0
    }

    /// Whether an entry, whatever its rule, has this algorithm and period.
    pub(super) fn is_same_limit(self, what: u64) -> bool {
        (what ^ self.value) & (self.mask & !RULE) == 0
    }

    /// The rule.
    pub(super) fn rule_of(self) -> u64 {
        rule_of(self.value)
    }
}

/// The kind of a state, narrow where there are two.
#[inline(always)]
pub(super) fn kind_of(algorithm: Algorithm) -> u64 {
    match algorithm {
        Algorithm::FixedWindow => FIXED,
        Algorithm::SlidingWindow => SLIDING,
        Algorithm::TokenBucket => BUCKET,
        Algorithm::Calendar => CALENDAR,
    }
}

/// What an entry is: its kind, its rule, and the period and capacity that its state was last used with.
#[inline(always)]
pub(super) fn what(kind: u64, rule: u64, period: u64, capacity: u32) -> u64 {
    period & PERIOD | kind << KIND_SHIFT | rule << RULE_SHIFT | shortened(capacity) << CAPACITY_SHIFT
}

/// The kind of what an entry is.
#[inline(always)]
pub(super) fn kind(what: u64) -> u64 {
    what >> KIND_SHIFT & 7
}

/// The rule of what an entry is.
#[inline(always)]
pub(super) fn rule_of(what: u64) -> u64 {
    what >> RULE_SHIFT & 15
}

/// A capacity in 12 bits: seven binary digits, and how many follow.
#[inline(always)]
fn shortened(capacity: u32) -> u64 {
    let more = (u32::BITS - capacity.leading_zeros()).saturating_sub(7);
    u64::from(more << 7 | capacity >> more)
}

/// The capacity of what an entry is; above 127, up to 1/64 less than it was.
pub(super) fn capacity_in(what: u64) -> u32 {
    let short = (what >> CAPACITY_SHIFT) as u32;
    (short & 127) << (short >> 7).min(24)
}

#[inline]
pub(super) fn half(word: u64, upper: bool) -> u32 {
    if upper { (word >> 32) as u32 } else { word as u32 }
}

#[inline]
pub(super) fn with_half(word: u64, upper: bool, value: u32) -> u64 {
    if upper {
        word & u64::from(u32::MAX) | u64::from(value) << 32
    } else {
        word & !u64::from(u32::MAX) | u64::from(value)
    }
}

#[inline(always)]
fn home_of(key: KeyHash, capacity: u32) -> u32 {
    1 + half(u64::from(half(key.high, false)) * u64::from(capacity), true)
}

/// How many slots fit into `words`, beside the header.
#[inline(always)]
fn capacity_of(words: Words<'_>) -> u32 {
    u32::try_from((words.len() / SLOT).saturating_sub(HEADER / SLOT)).unwrap_or(u32::MAX - 1)
}

/// A step by which all slots are met before one is met again: about capacity / golden ratio, without a common divisor.
fn stride_of(capacity: u32) -> u32 {
    let divisor = |mut a: u32, mut b: u32| {
        while b != 0 {
            (a, b) = (b, a % b);
        }
        a
    };
    let near = (u64::from(capacity) * 618 / 1000) as u32;
    (near..capacity).find(|stride| divisor(*stride, capacity) == 1).unwrap_or(1)
}

impl<'a> Entries<'a> {
    /// Makes `words` empty, whatever they held.
    ///
    /// # Errors
    /// Less memory than a header and one slot.
    pub(super) fn format(words: Words<'_>) -> Result<(), Corrupt> {
        let capacity = capacity_of(words);
        if capacity == 0 {
            return Err(Corrupt);
        }
        zero(words);
        store(words, AT_CAPACITY, u64::from(capacity))?;
        store(words, AT_FREE, 1)?;
        let entries = Entries::of(words, capacity)?;
        // In an order without neighbours: entries that come together don't lie together, where an eviction looks.
        let stride = stride_of(capacity);
        let (mut slot, mut previous) = (1, 0);
        for step in 1..=capacity {
            let next = 1 + (u64::from(slot - 1) + u64::from(stride)) % u64::from(capacity);
            let next = if step < capacity { next as u32 } else { 0 };
            entries.set_word(slot, OF_NEXT, u64::from(next) | u64::from(previous) << 32)?;
            (previous, slot) = (slot, next);
        }
        store(words, AT_MAGIC, MAGIC)
    }

    /// What was formatted in `words`.
    ///
    /// # Errors
    /// Nothing was, or not with this size.
    #[inline]
    pub(super) fn open(words: Words<'a>) -> Result<Self, Corrupt> {
        let capacity = capacity_of(words);
        if capacity == 0 || load(words, AT_MAGIC)? != MAGIC || load(words, AT_CAPACITY)? != u64::from(capacity) {
            return Err(Corrupt);
        }
        Entries::of(words, capacity)
    }

    /// The parts of `words`.
    #[inline]
    fn of(words: Words<'a>, capacity: u32) -> Result<Self, Corrupt> {
        let (header, slots) = words.split_at_checked(HEADER).ok_or(Corrupt)?;
        Ok(Entries { header, slots, capacity })
    }

    /// The size of all of it.
    pub(super) fn bytes(&self) -> usize {
        (HEADER + self.slots.len()) * size_of::<u64>()
    }

    /// The entry of `key` that is sought, and what it is.
    #[inline(always)]
    pub(super) fn find(&self, key: KeyHash, sought: Sought) -> Result<Option<(u32, u64)>, Corrupt> {
        let mut entry = self.first(self.home(key))?;
        for _ in 0..=MAX_CHAIN {
            if entry == 0 {
                return Ok(None);
            }
            let what = self.word(entry, OF_WHAT)?;
            if sought.is(what) && self.is_of(entry, key)? {
                return Ok(Some((entry, what)));
            }
            entry = self.next(entry)?;
        }
        Err(Corrupt)
    }

    /// A new entry in the key's chain, behind its first one: that is most likely in the slot where the search begins.
    /// The caller fills in the state.
    pub(super) fn insert(&self, key: KeyHash, what: u64, now: i64) -> Result<u32, Corrupt> {
        let home = self.home(key);
        self.shorten(key, now)?;
        let entry = self.allocate(home, now)?;
        self.set_word(entry, OF_HIGH, key.high)?;
        self.set_word(entry, OF_LOW, key.low)?;
        self.set_word(entry, OF_WHAT, what)?;
        self.set_upper(entry, OF_FIRST, 0)?;
        // After the allocation, which may have evicted from this very chain.
        let first = self.first(home)?;
        if first == 0 || entry == home {
            self.set_word(entry, OF_NEXT, u64::from(first))?;
            self.set_first(home, entry)?;
        } else {
            let links = self.word(first, OF_NEXT)?;
            self.set_word(entry, OF_NEXT, u64::from(half(links, false)))?;
            self.set_word(first, OF_NEXT, with_half(links, false, entry))?;
        }
        self.tally(what, 1)?;
        Ok(entry)
    }

    /// Counts entries of what this is.
    fn tally(&self, what: u64, change: i32) -> Result<(), Corrupt> {
        match (kind(what), rule_of(what)) {
            (NOTE, OF_BLOCK) => self.add(AT_KEYS, true, change),
            (NOTE, _) => self.add(AT_OTHERS, true, change),
            (EXTENSION, _) => self.add(AT_OTHERS, false, change),
            _ => self.add(AT_KEYS, false, change),
        }
    }

    /// Makes room in a chain that has reached its limit: at the cost of another state of the same key if it has one, so
    /// that a key asked with ever new periods pushes out none but its own.
    fn shorten(&self, key: KeyHash, now: i64) -> Result<(), Corrupt> {
        let first = self.first(self.home(key))?;
        let mut entry = first;
        for _ in 0..MAX_CHAIN {
            if entry == 0 {
                return Ok(());
            }
            entry = self.next(entry)?;
        }
        let (mut own, mut any) = (None, None);
        entry = first;
        for _ in 0..MAX_CHAIN {
            any = self.rather(any, entry, now)?;
            if self.is_of(entry, key)? {
                own = self.rather(own, entry, now)?;
            }
            entry = self.next(entry)?;
        }
        self.evict(&own.or(any).ok_or(Corrupt)?, now)
    }

    /// A free slot, `home` if it is one, if need be at the cost of another key.
    fn allocate(&self, home: u32, now: i64) -> Result<u32, Corrupt> {
        if self.word(home, OF_WHAT)? == 0 {
            self.unlink(home)?;
            return Ok(home);
        }
        if self.first_free()? == 0 && !self.make_room(now, 0)? {
            return Err(Corrupt);
        }
        let free = self.first_free()?;
        self.unlink(free)?;
        Ok(free)
    }

    /// A slot for the rest of the state of `owner`; none where there is nothing but it.
    pub(super) fn extend(&self, owner: u32, now: i64) -> Result<Option<u32>, Corrupt> {
        if self.first_free()? == 0 && !self.make_room(now, owner)? {
            return Ok(None);
        }
        let free = self.first_free()?;
        self.unlink(free)?;
        let what = what(EXTENSION, OF_POLICY, u64::from(owner), 0);
        self.set_word(free, OF_WHAT, what)?;
        self.tally(what, 1)?;
        Ok(Some(free))
    }

    /// Gives an extension's slot back.
    pub(super) fn free_extension(&self, slot: u32) -> Result<(), Corrupt> {
        let what = self.word(slot, OF_WHAT)?;
        if kind(what) != EXTENSION {
            return Err(Corrupt);
        }
        self.free(slot, what)
    }

    fn first_free(&self) -> Result<u32, Corrupt> {
        Ok(half(load(self.header, AT_FREE)?, false))
    }

    fn set_first_free(&self, slot: u32) -> Result<(), Corrupt> {
        store(self.header, AT_FREE, with_half(load(self.header, AT_FREE)?, false, slot))
    }

    /// Takes a slot from the free list.
    fn unlink(&self, free: u32) -> Result<(), Corrupt> {
        if self.word(free, OF_WHAT)? != 0 {
            return Err(Corrupt);
        }
        let links = self.word(free, OF_NEXT)?;
        let (next, previous) = (half(links, false), half(links, true));
        if next != 0 {
            self.set_upper(next, OF_NEXT, previous)?;
        }
        if previous == 0 {
            self.set_first_free(next)
        } else {
            self.set_word(previous, OF_NEXT, with_half(self.word(previous, OF_NEXT)?, false, next))
        }
    }

    /// Takes an entry out of its chain and puts its slots on the free list. A policy's note is only removed while no
    /// state is counted for it.
    pub(super) fn remove(&self, entry: u32) -> Result<(), Corrupt> {
        let what = self.word(entry, OF_WHAT)?;
        if what == 0 || kind(what) == EXTENSION {
            return Err(Corrupt);
        }
        if kind(what) != NOTE {
            self.add_policy_keys(self.policy_of(entry, what)?, -1)?;
        }
        if kind(what) == WIDE {
            self.free_extension(self.upper(entry, OF_FIRST)?)?;
        }
        let home = self.home(KeyHash { high: self.word(entry, OF_HIGH)?, low: self.word(entry, OF_LOW)? });
        let next = self.next(entry)?;
        let mut before = self.first(home)?;
        if before == entry {
            self.set_first(home, next)?;
        } else {
            let mut steps = 0;
            loop {
                let after = self.next(before)?;
                if after == entry {
                    break;
                }
                steps += 1;
                if after == 0 || steps > MAX_CHAIN {
                    return Err(Corrupt);
                }
                before = after;
            }
            self.set_word(before, OF_NEXT, with_half(self.word(before, OF_NEXT)?, false, next))?;
        }
        self.free(entry, what)
    }

    /// Puts a slot, which is in no chain any more, on the free list.
    fn free(&self, slot: u32, what: u64) -> Result<(), Corrupt> {
        let free = self.first_free()?;
        if free != 0 {
            self.set_upper(free, OF_NEXT, slot)?;
        }
        self.set_word(slot, OF_WHAT, 0)?;
        self.set_word(slot, OF_NEXT, u64::from(free))?;
        self.set_first_free(slot)?;
        self.tally(what, -1)
    }

    #[inline(always)]
    pub(super) fn is_of(&self, entry: u32, key: KeyHash) -> Result<bool, Corrupt> {
        Ok(self.word(entry, OF_HIGH)? == key.high && self.word(entry, OF_LOW)? == key.low)
    }

    #[inline(always)]
    pub(super) fn count(&self, at: usize) -> Result<(), Corrupt> {
        store(self.header, at, load(self.header, at)?.wrapping_add(1))
    }

    /// Changes a number in half a word of the header.
    fn add(&self, at: usize, upper: bool, change: i32) -> Result<(), Corrupt> {
        let word = load(self.header, at)?;
        let number = half(word, upper).checked_add_signed(change).ok_or(Corrupt)?;
        store(self.header, at, with_half(word, upper, number))
    }

    /// The slot at which the key's chain starts: by the lower half of the hash's first word, the upper one has chosen
    /// the partition.
    #[inline(always)]
    pub(super) fn home(&self, key: KeyHash) -> u32 {
        home_of(key, self.capacity)
    }

    /// The first entry of the chain that starts at the slot `home`.
    #[inline(always)]
    pub(super) fn first(&self, home: u32) -> Result<u32, Corrupt> {
        Ok(half(self.word(home, OF_FIRST)?, false))
    }

    fn set_first(&self, home: u32, entry: u32) -> Result<(), Corrupt> {
        self.set_word(home, OF_FIRST, with_half(self.word(home, OF_FIRST)?, false, entry))
    }

    #[inline(always)]
    pub(super) fn next(&self, entry: u32) -> Result<u32, Corrupt> {
        Ok(half(self.word(entry, OF_NEXT)?, false))
    }

    /// The upper half of a slot's word.
    #[inline(always)]
    pub(super) fn upper(&self, slot: u32, of: usize) -> Result<u32, Corrupt> {
        Ok(half(self.word(slot, of)?, true))
    }

    /// Sets the upper half of a slot's word.
    #[inline(always)]
    pub(super) fn set_upper(&self, slot: u32, of: usize, value: u32) -> Result<(), Corrupt> {
        self.set_word(slot, of, with_half(self.word(slot, of)?, true, value))
    }

    #[inline(always)]
    pub(super) fn word(&self, slot: u32, of: usize) -> Result<u64, Corrupt> {
        load(self.slots, (slot as usize).checked_sub(1).ok_or(Corrupt)? * SLOT + of)
    }

    #[inline(always)]
    pub(super) fn set_word(&self, slot: u32, of: usize, value: u64) -> Result<(), Corrupt> {
        store(self.slots, (slot as usize).checked_sub(1).ok_or(Corrupt)? * SLOT + of, value)
    }
}

#[cfg(test)]
impl Entries<'_> {
    /// That every slot is in exactly one place: its own chain, the free list, or the extension of an entry; and that what
    /// is counted is there.
    pub(super) fn verify(&self) -> Result<(), String> {
        use std::collections::HashMap;
        let wrong = |what: &str| Err(what.to_string());
        let mut seen = vec![false; self.capacity as usize + 1];
        let mut visit = |entry: u32| match seen.get_mut(entry as usize) {
            Some(seen) if !*seen => {
                *seen = true;
                Ok(())
            }
            _ => Err(format!("entry {entry} is met twice or out of range")),
        };
        let (mut keys, mut blocks, mut extensions, mut policies) = (0, 0, 0, HashMap::new());
        let mut of_policies = HashMap::<u32, u32>::new();
        for home in 1..=self.capacity {
            let mut entry = self.first(home).unwrap();
            let mut length = 0;
            while entry != 0 {
                visit(entry)?;
                let key = KeyHash { high: self.word(entry, OF_HIGH).unwrap(), low: self.word(entry, OF_LOW).unwrap() };
                let what = self.word(entry, OF_WHAT).unwrap();
                if self.home(key) != home || what == 0 || kind(what) == EXTENSION {
                    return wrong("an entry in a chain that isn't its own");
                }
                match (kind(what), rule_of(what)) {
                    (NOTE, OF_BLOCK) => blocks += 1,
                    (NOTE, _) => drop(policies.insert(entry, self.upper(entry, OF_FIRST).unwrap())),
                    _ => {
                        keys += 1;
                        *of_policies.entry(self.policy_of(entry, what).unwrap()).or_default() += 1;
                    }
                }
                if kind(what) == WIDE {
                    let extension = self.upper(entry, OF_FIRST).unwrap();
                    visit(extension)?;
                    extensions += 1;
                    let what = self.word(extension, OF_WHAT).unwrap();
                    if kind(what) != EXTENSION || what & PERIOD != u64::from(entry) {
                        return wrong("an extension of something else");
                    }
                }
                (entry, length) = (self.next(entry).unwrap(), length + 1);
            }
            if length > MAX_CHAIN {
                return wrong("a chain above its limit");
            }
        }
        let mut free = self.first_free().unwrap();
        let mut previous = 0;
        while free != 0 {
            visit(free)?;
            if self.word(free, OF_WHAT).unwrap() != 0 || self.upper(free, OF_NEXT).unwrap() != previous {
                return wrong("the free list");
            }
            (previous, free) = (free, self.next(free).unwrap());
        }
        if seen.iter().filter(|seen| **seen).count() != self.capacity as usize {
            return wrong("an entry is lost");
        }
        let counted = |at, upper| half(load(self.header, at).unwrap(), upper);
        if (keys, blocks) != (counted(AT_KEYS, false), counted(AT_KEYS, true)) {
            return wrong("the number of keys or blocks");
        }
        if (extensions, policies.len() as u32) != (counted(AT_OTHERS, false), counted(AT_OTHERS, true)) {
            return wrong("the number of extensions or policies");
        }
        of_policies.remove(&0);
        policies.retain(|_, keys| *keys > 0);
        if of_policies != policies {
            return wrong("the keys of a policy");
        }
        Ok(())
    }
}

/// What of this file the layout version depends on.
pub(super) const LAYOUT: u64 = fingerprint![
    MAX_CHAIN,
    MAGIC,
    HEADER,
    SLOT,
    AT_MAGIC,
    AT_CAPACITY,
    AT_FREE,
    AT_KEYS,
    AT_ALLOWED,
    AT_DENIED,
    AT_WOULD_HAVE_DENIED,
    AT_EVICTIONS,
    AT_ACTIVE_EVICTIONS,
    AT_EXHAUSTED_EVICTIONS,
    AT_OTHERS,
    OF_HIGH,
    OF_LOW,
    OF_WHAT,
    OF_TIME,
    OF_FOURTH,
    OF_FIFTH,
    OF_NEXT,
    OF_FIRST,
    PERIOD_BITS,
    PERIOD,
    KIND_SHIFT,
    RULE_SHIFT,
    RULE,
    CAPACITY_SHIFT,
    FIXED,
    SLIDING,
    BUCKET,
    CALENDAR,
    NOTE,
    WIDE,
    EXTENSION,
    OF_BLOCK,
    OF_POLICY
];
