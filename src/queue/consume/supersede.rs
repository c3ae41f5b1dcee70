//! A leased message that gives up its dedup key to one that is sent meanwhile (queues with `dedup` waiting). The new one does
//! its work should the lease end otherwise than by the message's end. So that never two of a key are to be delivered, the old
//! one isn't delivered again: its row says that it has expired before all time. The reader that meets it buries it.

use super::claim::{LOOKS, pause};
use crate::error::Error;
use crate::pg::fmgr::Text;
use crate::pg::server;
use crate::pg::spi::{Parameter, as_owner_of, run};
use crate::queue::handle::Queue;
use crate::queue::heap::rows::SUPERSEDED_AT;
use crate::queue::pending::is_changed_here;
use crate::queue::store::require_limits;
use enough_engine::queue::Tid;

/// Takes the dedup key from a message that a consumer has. False where none has it: then the key is taken. With the rights of
/// the table's owner: a sender needn't have any on what is there.
pub(in crate::queue) fn supersede(queue: &Queue, msg_id: i64, key: Option<Text<'_>>) -> Result<bool, Error> {
    if held(queue, msg_id)?.is_none() {
        return Ok(false);
    }
    require_limits(queue)?;
    let table = queue.open_table(true)?;
    // Where a consumer is finishing it, or another sender takes its key, that comes first.
    table.lock(msg_id);
    for look in 0..LOOKS {
        match held(queue, msg_id)? {
            Some(Held::Quietly) => break,
            Some(Held::InChange) => pause(look),
            None => return Ok(false),
        }
    }
    let relation = queue.table.live.relation;
    let changed = as_owner_of(relation, || {
        run(
            &format!(
                "UPDATE {} SET dedup_key = NULL, expires_at = $3 \
                 WHERE msg_id OPERATOR(pg_catalog.=) $1 AND dedup_key OPERATOR(pg_catalog.=) $2",
                queue.relation("q_")
            ),
            &[Parameter::I64(msg_id), Parameter::TextArgument(key), Parameter::Instant(Some(SUPERSEDED_AT))],
        )
    })?;
    // Where it was finished in between the key is free. One that is there still is kept from the owner by a policy or a trigger.
    Ok(changed > 0 || table.fetch(msg_id, Tid::default()).is_none())
}

/// How a consumer has a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Held {
    Quietly,
    /// And a transaction is changing it.
    InChange,
}

/// How a consumer has the message; `None` where none has it. What this transaction itself has given back waits, whatever the
/// index says until the commit.
fn held(queue: &Queue, msg_id: i64) -> Result<Option<Held>, Error> {
    if is_changed_here(queue.key, msg_id) {
        return Ok(None);
    }
    queue.index(|index, slot| {
        if index.running_lease(slot, msg_id, server::now())?.is_none() {
            return Ok(None);
        }
        Ok(Some(if index.is_being_changed(slot, msg_id)? { Held::InChange } else { Held::Quietly }))
    })
}
