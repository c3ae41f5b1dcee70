//! This session's place in a name's line: whatever ends its wait early (an error, a cancel, the end of the session) takes it out of
//! there, and wakes the next one for whom that makes a difference.
//!
//! A token isn't given back at the end of a transaction: it stands until it is released or expires.

use super::place::{REGION, known_partition, open};
use crate::pg::{latch, xact};
use enough_engine::hash::KeyHash;
use pgrx::pg_sys::SubTransactionId;
use std::cell::Cell;

thread_local! {
    /// The name and the ticket. One, because a call that waits calls nothing that could wait.
    static PLACE: Cell<Option<(KeyHash, u64)>> = const { Cell::new(None) };
}

/// Notes that this session stands in a name's line, with that ticket.
pub(super) fn stand(hash: KeyHash, ticket: u64) {
    xact::enlist(xact::Enlisted::of(REGION.0));
    PLACE.set(Some((hash, ticket)));
}

/// It doesn't any more.
pub(super) fn left() {
    PLACE.set(None);
}

/// Leaves the line, if this session stands in one.
fn leave() {
    let Some((hash, ticket)) = PLACE.take() else { return };
    let Some(partition) = known_partition(hash) else { return };
    // Where the partition was damaged there is no line any more, and all that stood in one are awake.
    if let Ok(Some(process)) = partition.exclusive(|words| open(words)?.0.leave(hash, ticket)) {
        latch::wake(&[process]);
    }
}

/// The semaphores' part in the end of transactions.
pub struct Semaphores;

/// See [`Semaphores`].
pub static PARTICIPANT: Semaphores = Semaphores;

impl xact::Participant for Semaphores {
    fn name(&self) -> &'static str {
        "semaphores"
    }

    // What was taken stands, however the transaction ends.
    fn waiting(&self) -> bool {
        false
    }

    fn commit(&self) {
        leave();
    }

    fn abort(&self) {
        leave();
    }

    fn undo(&self, _from: SubTransactionId) {
        leave();
    }
}
