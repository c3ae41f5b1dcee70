//! When listeners are to be told that a queue is ready: not more often than so, and only where it was empty.

use super::layout::{Partition, Q};
use crate::words::Corrupt;

/// Listeners are told once in this time at the most, in microseconds.
pub const NOTIFY_INTERVAL: i64 = 250_000;

impl Partition<'_> {
    /// Whether listeners are to be told of what becomes ready now.
    pub fn should_notify(&self, slot: u32, now: i64) -> Result<bool, Corrupt> {
        Ok(self.ready(slot)? == 0 && self.may_notify(slot, now)?)
    }

    /// Whether listeners are to be told of what is ready, of which nobody may have told them.
    pub fn should_remind(&self, slot: u32, now: i64) -> Result<bool, Corrupt> {
        Ok(self.ready(slot)? > 0 && self.may_notify(slot, now)?)
    }

    fn may_notify(&self, slot: u32, now: i64) -> Result<bool, Corrupt> {
        let since = now.saturating_sub(self.q_i64(slot, Q::Notified)?);
        // A clock that was set back silences nobody.
        Ok(!self.paused(slot)? && !(0..NOTIFY_INTERVAL).contains(&since))
    }

    /// Listeners have been told, by a transaction that has committed.
    pub fn notified(&self, slot: u32, now: i64) -> Result<(), Corrupt> {
        self.set_q_i64(slot, Q::Notified, now)
    }
}
