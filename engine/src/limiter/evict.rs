//! Who goes when a table is full: a state that is as good as new if there is one, else the one whose last use is longest
//! ago.
//!
//! Slots form groups of [`GROUP`]. Of each group two words say, without a look at its slots, that none of its states
//! becomes as good as new before the one, and none was last used before the other. Both are bounds: a use moves its
//! state's own words only, so that it costs nothing here, and a bound that lies too early is put right when an eviction
//! looks into the group in vain. What an eviction does is bounded, too: it passes over [`MOST_GROUPS`] groups at most
//! and looks into [`MOST_LOOKS`] of them. In a table that is larger, or where many bounds are out of date at the same
//! time, it may miss the state that is due.

use super::entries::{AT_ACTIVE_EVICTIONS, AT_EVICTIONS, AT_KEYS, Entries, OF_EXPIRY, OF_NEXT, half, tick, with_half};
use crate::words::{Corrupt, load, store};

/// Slots of a group. Looking into one touches as many cache lines.
pub(super) const GROUP: u32 = 64;
/// Words that a group has.
pub(super) const GROUP_WORDS: usize = 2;
/// How many groups an eviction passes over: those of 128 Ki states.
const MOST_GROUPS: u32 = 2048;
/// How many groups an eviction looks into.
const MOST_LOOKS: u32 = 8;

/// No state of the group becomes as good as new before this time; `i64::MAX` where it has none.
const OF_EARLIEST: usize = 0;
/// No state of the group was last used before this time, in units of [`tick`].
const OF_OLDEST: usize = 1;

/// What a group holds.
#[derive(Default)]
struct Content {
    /// A state that is as good as new.
    idle: Option<u32>,
    /// The state whose last use is longest ago, and how many ticks that is.
    oldest: Option<(u32, u32)>,
}

impl Entries<'_> {
    /// How many groups there are.
    fn count_groups(&self) -> u32 {
        self.capacity.div_ceil(GROUP)
    }

    fn bound(&self, group: u32, of: usize) -> Result<i64, Corrupt> {
        Ok(self.group_word(group, of)?.cast_signed())
    }

    fn set_bound(&self, group: u32, of: usize, value: i64) -> Result<(), Corrupt> {
        self.set_group_word(group, of, value.cast_unsigned())
    }

    /// Moves the bounds of all groups to where empty ones have them.
    pub(super) fn clear_bounds(&self) -> Result<(), Corrupt> {
        (0..self.count_groups()).try_for_each(|group| {
            self.set_bound(group, OF_EARLIEST, i64::MAX)?;
            self.set_bound(group, OF_OLDEST, i64::MAX)
        })
    }

    /// Notes that a state will be as good as new at `expiry`, which may be earlier than its group knew, and was last used
    /// at `used`.
    #[inline(never)]
    pub(super) fn note(&self, entry: u32, expiry: i64, used: i64) -> Result<(), Corrupt> {
        let group = entry.checked_sub(1).ok_or(Corrupt)? / GROUP;
        if expiry < self.bound(group, OF_EARLIEST)? {
            self.set_bound(group, OF_EARLIEST, expiry)?;
        }
        if used >> 16 < self.bound(group, OF_OLDEST)? {
            self.set_bound(group, OF_OLDEST, used >> 16)?;
        }
        Ok(())
    }

    /// Evicts one entry of a full table.
    pub(super) fn make_room(&self, now: i64) -> Result<(), Corrupt> {
        let word = load(self.header, AT_KEYS)?;
        let groups = self.count_groups();
        let first = half(word, true) % groups.max(1);
        let passed = || (0..groups.min(MOST_GROUPS)).map(|step| (first + step) % groups);
        let mut looks = 0;
        for group in passed() {
            if self.bound(group, OF_EARLIEST)? <= now && looks < MOST_LOOKS {
                looks += 1;
                if let Some(idle) = self.look(group, now)?.idle {
                    // The next eviction goes on from here, where there may be more.
                    store(self.header, AT_KEYS, with_half(word, true, group))?;
                    return self.evict(idle, now);
                }
            }
        }
        // The groups by their bounds, the oldest first, until none can hold an older state than what was found.
        let mut victim: Option<(u32, u32)> = None;
        let mut last = first;
        for _ in 0..MOST_LOOKS {
            let mut oldest = (i64::MAX, first);
            for group in passed() {
                oldest = oldest.min((self.bound(group, OF_OLDEST)?, group));
            }
            if victim.is_some_and(|(_, age)| oldest.0 >= (now >> 16) - i64::from(age)) {
                break;
            }
            last = oldest.1;
            victim = match (victim, self.look(last, now)?.oldest) {
                (Some(known), Some(found)) if known.1 >= found.1 => Some(known),
                (known, found) => found.or(known),
            };
        }
        // Where only a part is passed over, another part is next.
        let next = if groups > MOST_GROUPS { (first + MOST_GROUPS) % groups } else { last };
        store(self.header, AT_KEYS, with_half(word, true, next))?;
        let (victim, _) = victim.ok_or(Corrupt)?;
        self.evict(victim, now)
    }

    /// Looks into a group, and puts its bounds right.
    fn look(&self, group: u32, now: i64) -> Result<Content, Corrupt> {
        let mut content = Content::default();
        let (mut earliest, mut age) = (i64::MAX, 0);
        let first = group * GROUP + 1;
        for entry in first..(first + GROUP).min(self.capacity + 1) {
            let expiry = self.word(entry, OF_EXPIRY)?.cast_signed();
            earliest = earliest.min(expiry);
            if expiry <= now {
                content.idle = Some(entry);
            }
            let own = self.age(entry, now)?;
            if content.oldest.is_none() || own > age {
                (content.oldest, age) = (Some((entry, own)), own);
            }
        }
        self.set_bound(group, OF_EARLIEST, earliest)?;
        self.set_bound(group, OF_OLDEST, (now >> 16) - i64::from(age))?;
        Ok(content)
    }

    /// How many ticks ago the entry was last used.
    pub(super) fn age(&self, entry: u32, now: i64) -> Result<u32, Corrupt> {
        let age = tick(now).wrapping_sub(half(self.word(entry, OF_NEXT)?, true));
        // More than the clock can tell: it has stepped back since.
        Ok(if age > u32::MAX / 2 { 0 } else { age })
    }

    /// Which of two to evict, with its age: what is as good as new rather than anything, else what was used longer ago.
    #[inline]
    pub(super) fn rather(&self, old: Option<(u32, u32)>, new: u32, now: i64) -> Result<Option<(u32, u32)>, Corrupt> {
        let age = if self.is_active(new, now)? { self.age(new, now)? } else { u32::MAX };
        Ok(match old {
            Some((_, oldest)) if oldest >= age => old,
            _ => Some((new, age)),
        })
    }

    /// Removes an entry to make room, and counts that.
    pub(super) fn evict(&self, entry: u32, now: i64) -> Result<(), Corrupt> {
        self.count(AT_EVICTIONS)?;
        if self.is_active(entry, now)? {
            self.count(AT_ACTIVE_EVICTIONS)?;
        }
        self.remove(entry)
    }

    /// That no state is due before its group's bound says so.
    #[cfg(test)]
    pub(super) fn verify_bounds(&self) -> Result<(), String> {
        for entry in (1..=self.capacity).filter(|entry| self.word(*entry, super::entries::OF_WHAT) != Ok(0)) {
            let expiry = self.word(entry, OF_EXPIRY).unwrap().cast_signed();
            if expiry < self.bound((entry - 1) / GROUP, OF_EARLIEST).unwrap() {
                return Err(format!("entry {entry} is due before its group is"));
            }
        }
        Ok(())
    }
}
