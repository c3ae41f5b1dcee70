//! Sessions that wait for the end of a message: until it is done, dead or gone.
//!
//! Each has a record in a list of the queue, and is found by the number of its message, which needn't be in the index. The session
//! that ends a message wakes them, as many as fit into what it wakes; those have the next ones woken when they look. A queue for
//! which nobody waits like that pays for it with a look at the length of the list.

use super::Wake;
use super::layout::{AWAITED, Partition, R};
use super::records::Kind;
use crate::fingerprint;
use crate::words::Corrupt;

/// Beside the queue's slot, in the lower half of `R::Attempts`: so that a session that waits for a message is none.
const BIT: u32 = 1 << 30;

impl Partition<'_> {
    /// Puts a session into the list of those that wait for the end of a message; its place, or `None` where there is no room.
    pub fn await_end(&self, slot: u32, process: u32, msg_id: i64, now: i64) -> Result<Option<u32>, Corrupt> {
        let Some(record) = self.record_for(slot, now)? else { return Ok(None) };
        self.set_r(record, R::MsgId, msg_id.cast_unsigned())?;
        self.set_r(record, R::Attempts, u64::from(slot | BIT))?;
        self.set_kind(record, Kind { list: AWAITED, owner: process, ..Kind::default() })?;
        self.hash_in(record, slot | BIT, msg_id)?;
        self.link(slot, record, AWAITED, false)?;
        Ok(Some(record))
    }

    /// Takes a session out of that list; nothing where it has been woken.
    pub fn leave_end(&self, slot: u32, place: u32, process: u32) -> Result<(), Corrupt> {
        let kind = self.kind(place)?;
        if kind.list == AWAITED && kind.owner == process && self.half(place, R::Attempts, false)? == slot | BIT {
            self.drop_awaiting(slot, place)?;
        }
        Ok(())
    }

    /// A message has ended, or stands otherwise than those that wait for its end have to know: they look at it.
    #[inline]
    pub fn ended(&self, slot: u32, msg_id: i64, wake: &mut Wake) -> Result<(), Corrupt> {
        if self.list(slot, AWAITED)?.2 > 0 { self.wake_awaiting(slot, msg_id, wake) } else { Ok(()) }
    }

    #[cold]
    fn wake_awaiting(&self, slot: u32, msg_id: i64, wake: &mut Wake) -> Result<(), Corrupt> {
        while !wake.is_full()
            && let Some(record) = self.lookup(slot | BIT, msg_id)?
        {
            wake.push(self.drop_awaiting(slot, record)?);
        }
        Ok(())
    }

    /// The same of messages that nobody knows one by one: as many sessions look as fit; true when none waits any more.
    pub fn all_ended(&self, slot: u32, wake: &mut Wake) -> Result<bool, Corrupt> {
        loop {
            let (first, _, len) = self.list(slot, AWAITED)?;
            if len == 0 || wake.is_full() {
                return Ok(len == 0);
            }
            wake.push(self.drop_awaiting(slot, first)?);
        }
    }

    /// Frees the record of a session that waits for an end; its process number.
    fn drop_awaiting(&self, slot: u32, record: u32) -> Result<u32, Corrupt> {
        let owner = self.kind(record)?.owner;
        self.unlink(slot, record)?;
        self.hash_out(record, slot | BIT, self.r(record, R::MsgId)?.cast_signed())?;
        self.free(record)?;
        Ok(owner)
    }
}

/// What of this file the layout version depends on.
pub(super) const LAYOUT: u64 = fingerprint![BIT];
