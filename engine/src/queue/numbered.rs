//! Messages that stand in line by their numbers, whatever they have waited for.
//!
//! A queue without a limit of deliveries and without a rest after a rollback is one of a table whose rows are read in the
//! order of their numbers, and that forgets what is rolled back: the semantics of queues that are a table alone. What comes
//! back, because its lease or its delay is over, belongs before whatever has a higher number. Its place is mostly at one
//! of the ends, because messages come back in about the order in which they were read; so it is looked for from both, and
//! not without end: where it isn't near one of them, the message stands among the first.

use super::Wake;
use super::layout::{Partition, R};
use crate::words::Corrupt;

/// Messages that are looked at from each end of the list.
const NEAR: usize = 64;

impl Partition<'_> {
    /// Puts a message, which is in no list, among its priority's ready ones, at its place by its number.
    #[cold]
    #[inline(never)]
    pub(super) fn line_up_by_number(&self, slot: u32, record: u32, wake: &mut Wake) -> Result<(), Corrupt> {
        self.link_by_number(slot, record, self.ready_list(record, false)?)?;
        self.wake_one(slot, wake).map(drop)
    }

    fn link_by_number(&self, slot: u32, record: u32, list: usize) -> Result<(), Corrupt> {
        let (first, last, len) = self.list(slot, list)?;
        let number = self.number(record)?;
        if len == 0 || number < self.number(first)? {
            return self.link(slot, record, list, true);
        }
        let mut at = last;
        for _ in 0..NEAR {
            // It ends before it comes to the first one's other side.
            if self.number(at)? <= number {
                return self.link_behind(slot, record, list, at);
            }
            at = self.half(at, R::Links, false)?;
        }
        at = first;
        for _ in 1..NEAR {
            let next = self.half(at, R::Links, true)?;
            if self.number(next)? > number {
                break;
            }
            at = next;
        }
        self.link_behind(slot, record, list, at)
    }
}
