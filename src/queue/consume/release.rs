//! A delivery that is given back: the message is delivered again as if this delivery had not been. And a message that gets
//! another delivery time, whatever its state.

use super::claim::with_claim;
use super::fail::Undelivered;
use crate::error::Error;
use crate::pg::server;
use crate::queue::handle::Queue;
use crate::queue::heap::rows::OpenTable;

/// Gives a leased message back: it rests for `delay` microseconds, and the delivery isn't counted. False where it isn't
/// leased, or not by `lease`.
pub(in crate::queue) fn release(
    queue: &Queue,
    table: &OpenTable<'_>,
    msg_id: i64,
    delay: i64,
    lease: Option<u64>,
) -> Result<bool, Error> {
    let running = match lease {
        Some(lease) => Some(lease),
        None => queue.index(|index, slot| index.running_lease(slot, msg_id, server::now()))?,
    };
    let Some(lease) = running else { return Ok(false) };
    let released = with_claim(queue, table, msg_id, Some(lease), |claim| {
        let deliver_at = server::now().saturating_add(delay);
        let attempts = claim.attempts.saturating_sub(1);
        Undelivered { msg_id, error: None, attempts, deliver_at, released: true }.write(queue, table, claim)
    })?;
    Ok(released.is_some())
}

/// Gives a message the delivery time `deliver_at`, in microseconds, whether it is ready, leased or delayed; its lease ends
/// with that. False where there is no such message.
pub(in crate::queue) fn reschedule(
    queue: &Queue,
    table: &OpenTable<'_>,
    msg_id: i64,
    deliver_at: i64,
) -> Result<bool, Error> {
    let changed = with_claim(queue, table, msg_id, None, |claim| {
        let attempts = claim.attempts;
        Undelivered { msg_id, error: None, attempts, deliver_at, released: true }.write(queue, table, claim)
    })?;
    Ok(changed.is_some())
}
