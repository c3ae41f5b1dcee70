//! Sessions that wait for a message: a list for each queue, first come, first woken.
//!
//! The last one in the list keeps **watch**: it looks when the queue's next timer runs out, or whatever else comes due. The
//! others sleep until they are woken, so a timer wakes one session and not all. A session that comes later goes before it; whatever
//! makes something come due earlier, or takes the watchman away, sees to it that there is one ([`Partition::watch`]).

use super::Wake;
use super::layout::{Partition, Q, R, WAITING};
use super::records::Kind;
use super::registry::OWED;
use crate::words::Corrupt;

/// A place in a queue's list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Which one it is.
    pub record: u32,
    /// When the session has to look by itself, in microseconds.
    pub alarm: i64,
}

impl Partition<'_> {
    /// Puts a session into the queue's list of waiting ones, which looks by itself at `until` at the latest, and where nobody
    /// keeps watch when something comes due; `None` where there is no room.
    pub fn wait(&self, slot: u32, process: u32, now: i64, until: i64) -> Result<Option<Place>, Corrupt> {
        let Some(record) = self.record_for(slot, now)? else {
            return Ok(None);
        };
        // What comes due in a queue that is paused doesn't matter.
        let next = if self.paused(slot)? { None } else { self.comes_due(slot, now)? };
        let watchman = match (self.watchman(slot)?, next) {
            (Some((last, alarm)), Some(next)) if alarm <= next => Some(last),
            _ => None,
        };
        let alarm = next.filter(|_| watchman.is_none()).map_or(until, |next| next.min(until));
        self.set_r(record, R::Attempts, u64::from(slot))?;
        self.set_r(record, R::Due, alarm.cast_unsigned())?;
        self.set_kind(record, Kind { list: WAITING, owner: process, ..Kind::default() })?;
        self.link(slot, record, WAITING, false)?;
        if let Some(last) = watchman {
            self.unlink(slot, last)?;
            self.link(slot, last, WAITING, false)?;
        }
        Ok(Some(Place { record, alarm }))
    }

    /// The last session in the list, and when it looks by itself.
    fn watchman(&self, slot: u32) -> Result<Option<(u32, i64)>, Corrupt> {
        match self.list(slot, WAITING)? {
            (_, _, 0) => Ok(None),
            (_, last, _) => Ok(Some((last, self.r(last, R::Due)?.cast_signed()))),
        }
    }

    /// Takes a session out of the list; false where it wasn't there any more, because it has been woken.
    pub fn leave(&self, slot: u32, place: u32, process: u32) -> Result<bool, Corrupt> {
        let kind = self.kind(place)?;
        if kind.list != WAITING || kind.owner != process || self.half(place, R::Attempts, false)? != slot {
            return Ok(false);
        }
        self.unlink(slot, place)?;
        self.free(place)?;
        Ok(true)
    }

    /// Passes on a wake-up that its session can't use: wakes the next one if a message is ready, or may be in the
    /// table and not in the index.
    pub fn forward_wakeup(&self, slot: u32, wake: &mut Wake) -> Result<(), Corrupt> {
        if self.ready(slot)? > 0 || self.outside(slot)? {
            self.wake_one(slot, wake)?;
        }
        Ok(())
    }

    /// Sees to it that one of those that wait looks when something comes due: for a session that has set a timer, or that
    /// goes away and may have kept watch. What others are owed (see [`Wake`]) they get as well.
    #[inline]
    pub fn watch(&self, slot: u32, now: i64, wake: &mut Wake) -> Result<(), Corrupt> {
        if self.list(slot, WAITING)?.2 > 0 { self.watch_by_one(slot, now, wake) } else { Ok(()) }
    }

    fn watch_by_one(&self, slot: u32, now: i64, wake: &mut Wake) -> Result<(), Corrupt> {
        if self.paused(slot)? {
            return Ok(());
        }
        let flags = self.q(slot, Q::Flags)?;
        if flags & OWED != 0 && !wake.is_full() {
            self.set_q(slot, Q::Flags, flags & !OWED)?;
            for _ in 0..self.ready(slot)? {
                // Where the list is full again, the rest is owed again.
                if !self.wake_one(slot, wake)? {
                    return Ok(());
                }
            }
        }
        // The session that it was owed to isn't there any more.
        let Some((last, alarm)) = self.watchman(slot)? else { return Ok(()) };
        if self.limits_rate(slot)? && self.ready(slot)?.min(self.allowance(slot, now)?) > 0 {
            // The time has come for more than one.
            self.wake_one(slot, wake)?;
        } else if self.comes_due(slot, now)?.is_some_and(|next| next < alarm) {
            self.wake_up(slot, last, wake)?;
        }
        Ok(())
    }

    /// Wakes as many as fit; true when none waits any more.
    pub fn wake_all(&self, slot: u32, wake: &mut Wake) -> Result<bool, Corrupt> {
        while self.list(slot, WAITING)?.2 > 0 {
            if !self.wake_one(slot, wake)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Wakes the session that has waited longest; false where none waits, or has a place in `wake`.
    pub(super) fn wake_one(&self, slot: u32, wake: &mut Wake) -> Result<bool, Corrupt> {
        let (first, _, len) = self.list(slot, WAITING)?;
        if len == 0 { Ok(false) } else { self.wake_up(slot, first, wake) }
    }

    /// Wakes a session that waits; false where it has no place in `wake`.
    fn wake_up(&self, slot: u32, place: u32, wake: &mut Wake) -> Result<bool, Corrupt> {
        if wake.is_full() {
            self.set_q(slot, Q::Flags, self.q(slot, Q::Flags)? | OWED)?;
            return Ok(false);
        }
        wake.push(self.kind(place)?.owner);
        self.unlink(slot, place)?;
        self.free(place)?;
        Ok(true)
    }
}
