//! How a state lies in its slot.
//!
//! ```text
//! word   3            4                  5                  6, upper half       until when it matters
//! fixed  opened                          used                                   opened + period
//! narrow start        before, 1 to 8     before, 9 to 16    running             by its counts
//! wide   start        before, 1 and 2    before, 3 and 4    running             by its counts
//! bucket time         expiry             level, low         level, high         expiry
//! ```
//! The counts of a sliding window's steps before the running one are bytes while none is above 255 ("narrow"): most never
//! are, and a key then takes one cache line. Else ("wide") they are 32 bits each and an extension holds what doesn't fit,
//! from the fifth on: in its words 0, 1, 3, 4, 5 and 6. Its word 2 names the slot that it belongs to, the upper half of
//! its word 7 the policy, in whose place there the extended slot names the extension.

use super::convert::Former;
use super::entries::{
    BUCKET, CALENDAR, Entries, FIXED, OF_FIFTH, OF_FIRST, OF_FOURTH, OF_HIGH, OF_LOW, OF_NEXT, OF_TIME, OF_WHAT,
    PERIOD, SLIDING, WIDE, kind, kind_of, what,
};
use super::limit::{Limit, MIN_PERIOD, State, level};
use super::sliding_window::Narrow;
use crate::window::{STEPS, Steps, Window};
use crate::words::Corrupt;

impl Entries<'_> {
    /// The state of an entry, which is no note. A clock that has stepped back behind its time takes it along: as far as
    /// the state moves, so does the moment at which it is as good as new.
    #[inline]
    pub(super) fn read(&self, entry: u32, what: u64, now: i64) -> Result<Former, Corrupt> {
        let period = what & PERIOD;
        let time = self.word(entry, OF_TIME)?.cast_signed();
        if time > now {
            self.set_word(entry, OF_TIME, now.cast_unsigned())?;
            if kind(what) == BUCKET {
                let expiry = self.word(entry, OF_FOURTH)?.cast_signed().saturating_sub_unsigned(time.abs_diff(now));
                self.set_word(entry, OF_FOURTH, expiry.cast_unsigned())?;
            }
        }
        let time = time.min(now);
        let (state, expiry) = match kind(what) {
            FIXED | CALENDAR => {
                let (opened, used) = self.fixed(entry)?;
                (State::Fixed { opened, used }, opened.saturating_add_unsigned(period))
            }
            BUCKET => {
                let (time, level, expiry) = self.bucket(entry)?;
                (State::Bucket { time, level }, expiry)
            }
            SLIDING | WIDE if period >= MIN_PERIOD => {
                let window = self.window(entry, kind(what), time)?;
                let newest = window.counts.iter().position(|count| *count > 0);
                let lasts = newest.map_or(0, |back| Steps::of(period).release(back));
                (State::Sliding(window), time.saturating_add_unsigned(lasts))
            }
            _ => return Err(Corrupt),
        };
        Ok(Former { state, period, expiry })
    }

    fn window(&self, entry: u32, kind: u64, start: i64) -> Result<Window, Corrupt> {
        if kind == SLIDING {
            return self.narrow(entry).map(|narrow| Narrow { start, ..narrow }.window());
        }
        let mut window = Window { start, counts: [0; STEPS + 1] };
        window.counts[0] = self.upper(entry, OF_NEXT)?;
        let places = places(entry, self.upper(entry, OF_FIRST)?);
        for (counts, (slot, of)) in window.counts[1..].chunks_exact_mut(2).zip(places) {
            let word = self.word(slot, of)?;
            counts.copy_from_slice(&[word as u32, (word >> 32) as u32]);
        }
        Ok(window)
    }

    /// When the fixed window of an entry opened, and what was consumed in it.
    #[inline(always)]
    pub(super) fn fixed(&self, entry: u32) -> Result<(i64, u32), Corrupt> {
        Ok((self.word(entry, OF_TIME)?.cast_signed(), self.word(entry, OF_FIFTH)? as u32))
    }

    /// Sets the fixed window of an entry.
    #[inline(always)]
    pub(super) fn set_fixed(&self, entry: u32, opened: i64, used: u32) -> Result<(), Corrupt> {
        self.set_word(entry, OF_TIME, opened.cast_unsigned())?;
        self.set_word(entry, OF_FIFTH, u64::from(used))
    }

    /// Time, level and expiry of the token bucket of an entry.
    #[inline(always)]
    pub(super) fn bucket(&self, entry: u32) -> Result<(i64, u128, i64), Corrupt> {
        let level = level(u64::from(self.upper(entry, OF_NEXT)?), self.word(entry, OF_FIFTH)?);
        Ok((self.word(entry, OF_TIME)?.cast_signed(), level, self.word(entry, OF_FOURTH)?.cast_signed()))
    }

    /// Sets the token bucket of an entry.
    #[inline(always)]
    pub(super) fn set_bucket(&self, entry: u32, time: i64, level: u128, expiry: i64) -> Result<(), Corrupt> {
        self.set_word(entry, OF_TIME, time.cast_unsigned())?;
        self.set_word(entry, OF_FOURTH, expiry.cast_unsigned())?;
        self.set_word(entry, OF_FIFTH, level as u64)?;
        self.set_upper(entry, OF_NEXT, (level >> 64) as u32)
    }

    /// The narrow sliding window of an entry.
    #[inline(always)]
    pub(super) fn narrow(&self, entry: u32) -> Result<Narrow, Corrupt> {
        Ok(Narrow {
            start: self.word(entry, OF_TIME)?.cast_signed(),
            running: self.upper(entry, OF_NEXT)?,
            before: u128::from(self.word(entry, OF_FIFTH)?) << 64 | u128::from(self.word(entry, OF_FOURTH)?),
        })
    }

    /// Sets the narrow sliding window of an entry.
    #[inline(always)]
    pub(super) fn set_narrow(&self, entry: u32, narrow: &Narrow) -> Result<(), Corrupt> {
        self.set_word(entry, OF_TIME, narrow.start.cast_unsigned())?;
        self.set_word(entry, OF_FOURTH, narrow.before as u64)?;
        self.set_word(entry, OF_FIFTH, (narrow.before >> 64) as u64)?;
        self.set_upper(entry, OF_NEXT, narrow.running)
    }

    /// Writes a state of `limit` over what an entry held; `expiry` is a bucket's.
    pub(super) fn write(
        &self,
        entry: u32,
        rule: u64,
        limit: &Limit,
        state: State,
        expiry: i64,
        now: i64,
    ) -> Result<(), Corrupt> {
        let before = self.word(entry, OF_WHAT)?;
        let set_what = |kind| self.set_word(entry, OF_WHAT, what(kind, rule, limit.period(), limit.capacity()));
        if let State::Sliding(window) = state {
            let narrow = if let Some(narrow) = Narrow::of(&window) {
                self.shrink(entry, before)?;
                narrow
            } else if let Some(extension) = self.extension(entry, before, now)? {
                set_what(WIDE)?;
                return self.set_wide(entry, extension, &window);
            } else {
                Narrow::late(&window)
            };
            set_what(SLIDING)?;
            return self.set_narrow(entry, &narrow);
        }
        self.shrink(entry, before)?;
        set_what(kind_of(limit.algorithm()))?;
        match state {
            State::Fixed { opened, used } => self.set_fixed(entry, opened, used),
            State::Bucket { time, level } => self.set_bucket(entry, time, level, expiry),
            State::Sliding(_) => Ok(()),
        }
    }

    /// The extension of an entry; a new one where it has none, and none where there is no room.
    fn extension(&self, entry: u32, before: u64, now: i64) -> Result<Option<u32>, Corrupt> {
        let other = self.upper(entry, OF_FIRST)?;
        if kind(before) == WIDE {
            return Ok(Some(other));
        }
        let Some(extension) = self.extend(entry, now)? else { return Ok(None) };
        self.set_upper(extension, OF_FIRST, other)?;
        self.set_upper(entry, OF_FIRST, extension)?;
        Ok(Some(extension))
    }

    /// Gives back the extension of an entry if it has one.
    fn shrink(&self, entry: u32, before: u64) -> Result<(), Corrupt> {
        if kind(before) != WIDE {
            return Ok(());
        }
        let extension = self.upper(entry, OF_FIRST)?;
        self.set_upper(entry, OF_FIRST, self.upper(extension, OF_FIRST)?)?;
        self.free_extension(extension)
    }

    fn set_wide(&self, entry: u32, extension: u32, window: &Window) -> Result<(), Corrupt> {
        self.set_word(entry, OF_TIME, window.start.cast_unsigned())?;
        self.set_upper(entry, OF_NEXT, window.counts[0])?;
        for (counts, (slot, of)) in window.counts[1..].chunks_exact(2).zip(places(entry, extension)) {
            self.set_word(slot, of, counts.iter().rev().fold(0, |word, count| word << 32 | u64::from(*count)))?;
        }
        Ok(())
    }

    /// The policy that an entry, which is no note, is counted for; 0 for none.
    pub(super) fn policy_of(&self, entry: u32, what: u64) -> Result<u32, Corrupt> {
        let own = self.upper(entry, OF_FIRST)?;
        if kind(what) == WIDE { self.upper(own, OF_FIRST) } else { Ok(own) }
    }
}

/// Where the counts of a wide window's steps before the running one are, two in a word.
fn places(entry: u32, extension: u32) -> [(u32, usize); STEPS / 2] {
    let own = [OF_FOURTH, OF_FIFTH].map(|of| (entry, of));
    let other = [OF_HIGH, OF_LOW, OF_TIME, OF_FOURTH, OF_FIFTH, OF_NEXT].map(|of| (extension, of));
    let mut places = [(0, 0); STEPS / 2];
    for (place, of) in places.iter_mut().zip(own.into_iter().chain(other)) {
        *place = of;
    }
    places
}
