//! What has come of a message, and waiting for it: a call over a queue.
//!
//! A session that waits stands in a list of the index by the number of its message (`engine`, `awaited.rs`) and sleeps on its
//! latch; the transaction that ends the message wakes it when it commits. It takes its place before it looks, so it misses
//! nothing. That a last lease runs out nobody needs to notice: for that it looks by itself.

use super::look::{Standing, not_over, standing};
use crate::error::Error;
use crate::pg::catalog::{self, Privilege};
use crate::pg::fmgr::Rows;
use crate::pg::{latch, server};
use crate::queue::handle::Queue;
use crate::queue::name::missing;
use crate::queue::pending;
use enough_engine::queue::Tid;
use std::rc::Rc;

/// How long a session sleeps at the most that the memory has no room for, in microseconds.
const NO_ROOM: i64 = 100_000;
/// The same where prepared transactions have changed the queue: the session that decides one tells nobody.
const IN_DOUBT: i64 = 1_000_000;

/// Adds the row that says what has come of a message, after up to `wait` microseconds, if by then it is neither done nor dead;
/// none where there is no such message any more.
pub(in crate::queue) fn result(queue: &Rc<Queue>, msg_id: i64, wait: i64, rows: &mut Rows<'_>) -> Result<(), Error> {
    queue.require(Privilege::Observe)?;
    if wait == 0 {
        return standing(queue, msg_id, true, rows).map(drop);
    }
    if server::in_recovery() {
        // Sessions are told of a message's end on the primary alone.
        return Err(Error::ReadOnly { function: "queue_result" });
    }
    require_visible(queue, msg_id)?;
    let deadline = server::now().saturating_add(wait);
    loop {
        latch::forget_wake_ups();
        let current = Queue::open_locked(queue.name.as_bytes(), false)?;
        if current.table.live.relation != queue.table.live.relation {
            return Err(missing(&queue.name));
        }
        let process = latch::process();
        let (place, in_doubt) = current
            .index(|index, slot| Ok((index.await_end(slot, process, msg_id, server::now())?, index.in_doubt(slot)?)))?;
        if let Some(place) = place {
            pending::awaiting(current.key, place);
        }
        let now = server::now();
        let over = now >= deadline;
        // As long as it is not over no statement looks, whose locks would keep others from altering and dropping the tables.
        let stands = match if over { None } else { not_over(&current, msg_id)? } {
            Some(stands) => stands,
            None => standing(&current, msg_id, over, rows)?,
        };
        if let Standing::Live { ends } = stands
            && !over
        {
            catalog::unlock(current.table.live.relation, false);
            let longest = match (place, in_doubt) {
                (None, _) => NO_ROOM,
                (Some(_), true) => IN_DOUBT,
                (Some(_), false) => latch::patience(now),
            };
            let alarm = deadline.min(ends.unwrap_or(i64::MAX)).min(now.saturating_add(longest));
            latch::sleep(alarm.saturating_sub(now));
        }
        current.index_and_wake(|index, slot, wake| {
            if let Some(place) = place {
                index.leave_end(slot, place, process)?;
            }
            // Others for which there was no place among those to be woken.
            match stands {
                Standing::Live { .. } => Ok(()),
                Standing::Ended => index.ended(slot, msg_id, wake),
                Standing::Gone => index.all_ended(slot, wake).map(drop),
            }
        })?;
        pending::left_end();
        if over || !matches!(stands, Standing::Live { .. }) {
            return Ok(());
        }
    }
}

/// Fails where the message is one that this transaction has sent: nobody could begin with it while the caller waits.
fn require_visible(queue: &Queue, msg_id: i64) -> Result<(), Error> {
    let table = queue.open_table(false)?;
    let own = table.fetch(msg_id, Tid::default()).is_some_and(|row| row.is_own());
    table.unlock();
    if !own {
        return Ok(());
    }
    Err(Error::NotReady {
        problem: format!(
            "message {msg_id} of queue \"{}\" was sent or changed by this transaction, which is not committed",
            queue.name
        ),
        hint: "Nobody else sees that before the commit. COMMIT, then wait for the result.".into(),
    })
}
