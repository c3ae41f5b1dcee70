//! The memory of a limiter table: its entries, and the chains and the free list that they are on.
//!
//! ```text
//! header  8 words
//! slots   8 words each, a cache line:
//!   0, 1  the key's hash
//!   2     period (bits 0–44), algorithm from 1 (45–46), the upper part of the level (47–57); 0: the slot is free
//!   3     the time of the state
//!   4     when the state will be as good as new
//!   5     the lower part of the level
//!   6     the next slot of the chain (lower half), when it was last used (upper half);
//!         of a free slot: the next (lower) and the previous one (upper half) of the free list
//!   7     the first slot of the chain that starts here (lower half), whatever else the slot is
//! groups  2 words for each 64 slots, see `evict.rs`
//! ```
//! Slots are counted from 1; 0 is none. As many chains start as there are slots, and a new entry takes the slot that
//! its own chain starts at if that is free. So with room to spare the key that is looked for is in the cache line that
//! the search begins with.
//!
//! No chain grows beyond [`MAX_CHAIN`]: an insert into a full one evicts from it.

use super::evict::{GROUP, GROUP_WORDS};
use super::{Algorithm, LEVEL_BITS, Limit, MAX_PERIOD, MAX_REQUESTS};
use crate::hash::KeyHash;
use crate::words::{Corrupt, Words, load, store, zero};

/// The longest chain. With as many chains as slots and keyed hashes, chance alone doesn't get near it.
pub(super) const MAX_CHAIN: usize = 64;

const MAGIC: u64 = u64::from_le_bytes(*b"limiter\x02");
const HEADER: usize = 8;
pub(super) const SLOT: usize = 8;

// Words of the header.
const AT_MAGIC: usize = 0;
const AT_CAPACITY: usize = 1;
/// The first slot of the free list.
const AT_FREE: usize = 2;
/// How many slots are in use (lower half); the group where the next eviction begins (upper half).
pub(super) const AT_KEYS: usize = 3;
pub(super) const AT_ALLOWED: usize = 4;
pub(super) const AT_DENIED: usize = 5;
pub(super) const AT_EVICTIONS: usize = 6;
pub(super) const AT_ACTIVE_EVICTIONS: usize = 7;

// Words of a slot.
const OF_HIGH: usize = 0;
const OF_LOW: usize = 1;
pub(super) const OF_WHAT: usize = 2;
pub(super) const OF_TIME: usize = 3;
pub(super) const OF_EXPIRY: usize = 4;
pub(super) const OF_LEVEL: usize = 5;
pub(super) const OF_NEXT: usize = 6;
const OF_FIRST: usize = 7;

const PERIOD_BITS: u32 = 45;
/// Period and algorithm: what tells the states of one key apart.
pub(super) const IDENTITY_BITS: u32 = PERIOD_BITS + 2;
pub(super) const IDENTITY: u64 = (1 << IDENTITY_BITS) - 1;
const _: () = assert!(MAX_PERIOD < 1 << PERIOD_BITS);
const _: () = assert!((MAX_PERIOD as u128 * MAX_REQUESTS as u128) >> LEVEL_BITS == 0);
const _: () = assert!(LEVEL_BITS - 64 + IDENTITY_BITS <= 64);

/// The memory of one table. The caller holds the partition's lock.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entries<'a> {
    pub(super) header: Words<'a>,
    /// The slots, and behind them the groups.
    rest: Words<'a>,
    pub(super) capacity: u32,
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

/// When something was used, in units of 65.536 ms: wraps around after nine years, so only differences mean anything.
#[inline]
pub(super) fn tick(now: i64) -> u32 {
    (now >> 16) as u32
}

/// Period and algorithm, as they are in an entry.
#[inline]
pub(super) fn identity(limit: &Limit) -> u64 {
    let algorithm = match limit.algorithm() {
        Algorithm::FixedWindow => 1,
        Algorithm::SlidingWindow => 2,
        Algorithm::TokenBucket => 3,
    };
    limit.period() | algorithm << PERIOD_BITS
}

#[inline(always)]
fn home_of(key: KeyHash, capacity: u32) -> u32 {
    1 + half(u64::from(half(key.high, false)) * u64::from(capacity), true)
}

/// How many slots fit into `words`, beside the header and the words of the groups: a line of [`SLOT`] words in 256, and
/// two, which is enough for those of the last, smaller group. Without a division, because every call asks.
#[inline(always)]
fn capacity_of(words: Words<'_>) -> u32 {
    const _: () = assert!(GROUP as usize / GROUP_WORDS * SLOT == 256 && HEADER == SLOT);
    let lines = words.len() / SLOT;
    u32::try_from(lines.saturating_sub(3 + lines / 256)).unwrap_or(u32::MAX - 1)
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
        entries.clear_bounds()?;
        for slot in 1..=capacity {
            let next = if slot < capacity { slot + 1 } else { 0 };
            entries.set_word(slot, OF_NEXT, u64::from(next) | u64::from(slot - 1) << 32)?;
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
        let (header, rest) = words.split_at_checked(HEADER).ok_or(Corrupt)?;
        Ok(Entries { header, rest, capacity })
    }

    /// The first word of the slot where the search for a key begins.
    #[inline(always)]
    pub(super) fn place_of(words: Words<'_>, key: KeyHash) -> usize {
        HEADER + (home_of(key, capacity_of(words)) as usize).saturating_sub(1) * SLOT
    }

    /// The size of all of it.
    pub(super) fn bytes(&self) -> usize {
        (HEADER + self.rest.len()) * size_of::<u64>()
    }

    /// A new entry in the key's chain, behind its first one: that is most likely in the slot where the search begins.
    /// The caller fills in all but the key.
    pub(super) fn insert(&self, key: KeyHash, now: i64) -> Result<u32, Corrupt> {
        let home = self.home(key);
        self.shorten(key, now)?;
        let entry = self.allocate(home, now)?;
        self.set_word(entry, OF_HIGH, key.high)?;
        self.set_word(entry, OF_LOW, key.low)?;
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
        self.add_keys(1)?;
        Ok(entry)
    }

    /// Makes room in a chain that has reached its limit: at the cost of another state of the same key if it has one, so
    /// that a key asked with ever new periods pushes out none but its own.
    pub(super) fn shorten(&self, key: KeyHash, now: i64) -> Result<(), Corrupt> {
        let (mut own, mut any) = (None, None);
        let mut entry = self.first(self.home(key))?;
        for _ in 0..MAX_CHAIN {
            if entry == 0 {
                return Ok(());
            }
            any = self.rather(any, entry, now)?;
            if self.is_of(entry, key)? {
                own = self.rather(own, entry, now)?;
            }
            entry = self.next(entry)?;
        }
        let (victim, _) = own.or(any).ok_or(Corrupt)?;
        self.evict(victim, now)
    }

    /// A free slot, `home` if it is one, if need be at the cost of another key.
    fn allocate(&self, home: u32, now: i64) -> Result<u32, Corrupt> {
        if self.word(home, OF_WHAT)? == 0 {
            self.unlink(home)?;
            return Ok(home);
        }
        if load(self.header, AT_FREE)? == 0 {
            self.make_room(now)?;
        }
        let free = half(load(self.header, AT_FREE)?, false);
        self.unlink(free)?;
        Ok(free)
    }

    /// Takes a slot from the free list.
    fn unlink(&self, free: u32) -> Result<(), Corrupt> {
        if self.word(free, OF_WHAT)? != 0 {
            return Err(Corrupt);
        }
        let links = self.word(free, OF_NEXT)?;
        let (next, previous) = (half(links, false), half(links, true));
        if next != 0 {
            self.set_word(next, OF_NEXT, with_half(self.word(next, OF_NEXT)?, true, previous))?;
        }
        if previous == 0 {
            store(self.header, AT_FREE, u64::from(next))
        } else {
            self.set_word(previous, OF_NEXT, with_half(self.word(previous, OF_NEXT)?, false, next))
        }
    }

    /// Takes an entry out of its chain and puts its slot on the free list.
    pub(super) fn remove(&self, entry: u32) -> Result<(), Corrupt> {
        if self.word(entry, OF_WHAT)? == 0 {
            return Err(Corrupt);
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
        let free = half(load(self.header, AT_FREE)?, false);
        if free != 0 {
            self.set_word(free, OF_NEXT, with_half(self.word(free, OF_NEXT)?, true, entry))?;
        }
        self.set_word(entry, OF_WHAT, 0)?;
        self.set_word(entry, OF_NEXT, u64::from(free))?;
        store(self.header, AT_FREE, u64::from(entry))?;
        self.add_keys(-1)
    }

    pub(super) fn is_of(&self, entry: u32, key: KeyHash) -> Result<bool, Corrupt> {
        Ok(self.word(entry, OF_HIGH)? == key.high && self.word(entry, OF_LOW)? == key.low)
    }

    pub(super) fn is_active(&self, entry: u32, now: i64) -> Result<bool, Corrupt> {
        Ok(self.word(entry, OF_EXPIRY)?.cast_signed() > now)
    }

    pub(super) fn count(&self, at: usize) -> Result<(), Corrupt> {
        store(self.header, at, load(self.header, at)?.wrapping_add(1))
    }

    pub(super) fn add_keys(&self, change: i32) -> Result<(), Corrupt> {
        let word = load(self.header, AT_KEYS)?;
        let keys = half(word, false).checked_add_signed(change).ok_or(Corrupt)?;
        store(self.header, AT_KEYS, with_half(word, false, keys))
    }

    /// The slot at which the key's chain starts: by the lower half of the hash's first word, the upper one has chosen
    /// the partition.
    #[inline]
    pub(super) fn home(&self, key: KeyHash) -> u32 {
        home_of(key, self.capacity)
    }

    /// The first entry of the chain that starts at the slot `home`.
    #[inline]
    pub(super) fn first(&self, home: u32) -> Result<u32, Corrupt> {
        Ok(half(self.word(home, OF_FIRST)?, false))
    }

    fn set_first(&self, home: u32, entry: u32) -> Result<(), Corrupt> {
        self.set_word(home, OF_FIRST, u64::from(entry))
    }

    #[inline]
    pub(super) fn next(&self, entry: u32) -> Result<u32, Corrupt> {
        Ok(half(self.word(entry, OF_NEXT)?, false))
    }

    /// Word `of` of a group, see `evict.rs`.
    pub(super) fn group_word(&self, group: u32, of: usize) -> Result<u64, Corrupt> {
        load(self.rest, self.group_place(group) + of)
    }

    pub(super) fn set_group_word(&self, group: u32, of: usize, value: u64) -> Result<(), Corrupt> {
        store(self.rest, self.group_place(group) + of, value)
    }

    fn group_place(&self, group: u32) -> usize {
        self.capacity as usize * SLOT + group as usize * GROUP_WORDS
    }

    #[inline]
    pub(super) fn word(&self, entry: u32, of: usize) -> Result<u64, Corrupt> {
        load(self.rest, (entry as usize).checked_sub(1).ok_or(Corrupt)? * SLOT + of)
    }

    #[inline]
    pub(super) fn set_word(&self, entry: u32, of: usize, value: u64) -> Result<(), Corrupt> {
        store(self.rest, (entry as usize).checked_sub(1).ok_or(Corrupt)? * SLOT + of, value)
    }
}

#[cfg(test)]
impl Entries<'_> {
    /// That every entry is in exactly one place: its own chain or the free list.
    pub(super) fn verify(&self) -> Result<(), String> {
        let wrong = |what: &str| Err(what.to_string());
        let mut seen = vec![false; self.capacity as usize + 1];
        let mut visit = |entry: u32| match seen.get_mut(entry as usize) {
            Some(seen) if !*seen => {
                *seen = true;
                Ok(())
            }
            _ => Err(format!("entry {entry} is met twice or out of range")),
        };
        let mut keys = 0;
        for home in 1..=self.capacity {
            let mut entry = self.first(home).unwrap();
            let mut length = 0;
            while entry != 0 {
                visit(entry)?;
                let key = KeyHash { high: self.word(entry, OF_HIGH).unwrap(), low: self.word(entry, OF_LOW).unwrap() };
                if self.home(key) != home || self.word(entry, OF_WHAT).unwrap() == 0 {
                    return wrong("an entry in a chain that isn't its own");
                }
                (entry, length, keys) = (self.next(entry).unwrap(), length + 1, keys + 1);
            }
            if length > MAX_CHAIN {
                return wrong("a chain above its limit");
            }
        }
        let mut free = half(load(self.header, AT_FREE).unwrap(), false);
        let mut previous = 0;
        while free != 0 {
            visit(free)?;
            if self.word(free, OF_WHAT).unwrap() != 0 || half(self.word(free, OF_NEXT).unwrap(), true) != previous {
                return wrong("the free list");
            }
            (previous, free) = (free, self.next(free).unwrap());
        }
        if seen.iter().filter(|seen| **seen).count() != self.capacity as usize {
            return wrong("an entry is lost");
        }
        if keys != half(load(self.header, AT_KEYS).unwrap(), false) {
            return wrong("the number of keys");
        }
        self.verify_bounds()
    }
}
