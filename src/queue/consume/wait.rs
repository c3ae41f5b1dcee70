//! Waiting in a queue's list for something to read.

use crate::error::Error;
use crate::pg::server;
use crate::queue::handle::Queue;
use enough_engine::queue::Place;

/// What came of the wish to stand in a queue's list of waiting sessions.
pub(super) enum Stand {
    /// It does.
    In(Place),
    /// The memory has no room for another one.
    NoRoom,
    /// There may be something to read.
    NotIdle,
}

/// Puts this session into a queue's list of waiting ones, until the time that `until` says; not where there is something to
/// read by now. Both are decided under the same lock, so that no wake-up is missed.
pub(super) fn stand(queue: &Queue, process: u32, until: impl Fn(i64) -> i64) -> Result<Stand, Error> {
    queue.index(|index, slot| {
        let now = server::now();
        let queue_state = index.queue_state(slot, 1, now)?;
        // What is due while another session refills is that session's to find.
        let due = queue_state.next.is_some_and(|next| next <= now) && queue_state.refiller.is_none();
        let wanted = queue_state.refill && queue_state.refiller.is_none();
        let idle = queue_state.paused || (queue_state.ready == 0 && !due && !wanted);
        if !idle {
            return Ok(Stand::NotIdle);
        }
        Ok(index.wait(slot, process, now, until(now))?.map_or(Stand::NoRoom, Stand::In))
    })
}
