//! Sessions that wait for a message: a list for each queue, first come, first woken.

use super::layout::{Partition, R, WAITING};
use super::records::Kind;
use crate::words::Corrupt;

/// How long a session that waits may sleep before it looks again by itself, in microseconds. What comes due until then
/// is worth a wake-up: later timers it finds when it looks.
pub const LOOK_AGAIN: i64 = 1_000_000;

/// Sessions to wake once the lock is released. Of fixed size, because under a lock nothing is allocated; who has no
/// place in it wakes up by its own alarm.
#[derive(Debug, Clone)]
pub struct Wake {
    processes: [u32; Self::MOST],
    len: usize,
}

impl Default for Wake {
    fn default() -> Self {
        Wake { processes: [0; Self::MOST], len: 0 }
    }
}

impl Wake {
    const MOST: usize = 64;

    /// A list in which no session has a place: nobody is woken.
    pub(super) fn nobody() -> Self {
        Wake { processes: [0; Self::MOST], len: Self::MOST }
    }

    /// Whether no further session fits.
    pub fn is_full(&self) -> bool {
        self.len == Self::MOST
    }

    pub(super) fn push(&mut self, process: u32) {
        if let Some(place) = self.processes.get_mut(self.len) {
            *place = process;
            self.len += 1;
        }
    }

    /// The process numbers.
    pub fn processes(&self) -> &[u32] {
        self.processes.get(..self.len).unwrap_or_default()
    }
}

impl Partition<'_> {
    /// Puts a session into the queue's list of waiting ones; `None` where there is no room. The answer is its place.
    pub fn wait(&self, slot: u32, process: u32) -> Result<Option<u32>, Corrupt> {
        let Some(record) = self.record_for(slot)? else {
            return Ok(None);
        };
        self.set_r(record, R::Attempts, u64::from(slot))?;
        self.set_kind(record, Kind { list: WAITING, owner: process, ..Kind::default() })?;
        self.link(slot, record, WAITING, false)?;
        Ok(Some(record))
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
    pub fn pass_on(&self, slot: u32, wake: &mut Wake) -> Result<(), Corrupt> {
        if self.ready(slot)? > 0 || self.outside(slot)? {
            self.wake_one(slot, wake)?;
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

    /// Wakes one for a timer that runs out before it would look again by itself: it goes to sleep again until then.
    pub(super) fn wake_for_timer(&self, slot: u32, due: i64, now: i64, wake: &mut Wake) -> Result<(), Corrupt> {
        if due.saturating_sub(now) < LOOK_AGAIN {
            self.wake_one(slot, wake)?;
        }
        Ok(())
    }

    /// Wakes the session that has waited longest; false where none waits.
    pub(super) fn wake_one(&self, slot: u32, wake: &mut Wake) -> Result<bool, Corrupt> {
        let (first, _, len) = self.list(slot, WAITING)?;
        if len == 0 || wake.is_full() {
            return Ok(false);
        }
        wake.push(self.kind(first)?.owner);
        self.unlink(slot, first)?;
        self.free(first)?;
        Ok(true)
    }
}
