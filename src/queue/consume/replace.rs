//! A message that waits and is replaced by another with its dedup key: the debounce of `queue_send_unique`.

use super::claim::{Claim, LOOKS, missed, pause, permitted};
use crate::error::Error;
use crate::pg::catalog::row_security;
use crate::pg::server;
use crate::pg::spi::{Parameter, as_owner_of, each_row};
use crate::queue::entry::{ENTRY, entry_of};
use crate::queue::handle::Queue;
use crate::queue::heap::insert::NewRow;
use crate::queue::heap::rows::{Missed, OpenTable};
use crate::queue::pending::{Action, forget_finished, is_changed_here, remember};
use enough_engine::queue::{Busy, Entry, Fence, Tid};

/// What has become of the wish to replace a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::queue) enum Replaced {
    /// It has the new payload and delivery time.
    Yes,
    /// A consumer has it, or another transaction is about to end it.
    Leased,
    /// Policies keep it from the caller.
    Hidden,
    /// It has ended, or has another key.
    Changed,
}

/// Gives a message that waits the payload, headers and delivery time of another with its dedup key. It keeps its number,
/// priority and group, and has no deliveries behind it.
pub(in crate::queue) fn replace(queue: &Queue, msg_id: i64, new: &NewRow<'_>) -> Result<Replaced, Error> {
    let table = queue.open_table(true)?;
    let claim = match claim_waiting(queue, &table, msg_id)? {
        Ok(claim) => claim,
        Err(why) => return Ok(why),
    };
    // A time, also where it is over: what is due is found by it, whatever the index has read of the table.
    let deliver_at = new.deliver_at.unwrap_or(new.enqueued_at);
    let action = |entry, busy, timed| Action::Failed { entry, busy, timed, released: true };
    if claim.busy {
        // Before the row is touched: should that fail, the rollback gives the message free again.
        let tag = claim.tag.unwrap_or_default();
        let expected =
            Entry { msg_id, tid: claim.tid, priority: 0, attempts: 0, deliver_at: Some(deliver_at), group: 0, tag };
        remember(queue.key, action(expected, true, false));
    }
    let Some(entry) = write(queue, msg_id, new, deliver_at)? else {
        missed(queue, &table, msg_id, claim, Missed::Gone)?;
        let hidden = row_security(queue.table.live.relation);
        return Ok(if hidden { Replaced::Hidden } else { Replaced::Changed });
    };
    if claim.busy {
        forget_finished(queue.key, msg_id);
    }
    // The index knows it by the tag by which it was claimed.
    let entry = Entry { tag: claim.tag.unwrap_or(entry.tag), ..entry };
    remember(queue.key, action(entry, claim.busy, claim.timed));
    Ok(Replaced::Yes)
}

/// Claims a message that no consumer has. The row is locked before the message is set aside: senders of one key take turns,
/// and none of them holds what another waits for.
fn claim_waiting(queue: &Queue, table: &OpenTable<'_>, msg_id: i64) -> Result<Result<Claim, Replaced>, Error> {
    if !queue.table.live.plain && row_security(queue.table.live.relation) && !permitted(queue, msg_id)? {
        return Ok(Err(Replaced::Hidden));
    }
    let Some(row) = table.fetch(msg_id, Tid::default()) else { return Ok(Err(Replaced::Changed)) };
    if row.is_own() || is_changed_here(queue.key, msg_id) {
        // It is what this transaction has made of it; its lease ended with that.
        return Ok(Ok(Claim::outside(&row.entry())));
    }
    // Its consumer shall not have to wait for this transaction.
    if is_leased(queue, msg_id)? {
        return Ok(Err(Replaced::Leased));
    }
    table.lock(msg_id);
    for look in 0..LOOKS {
        let Some(row) = table.fetch(msg_id, Tid::default()) else { return Ok(Err(Replaced::Changed)) };
        let entry = row.entry();
        let busy = queue.index(|index, slot| {
            let now = server::now();
            // Under one hold of the lock: no reader comes in between.
            if index.running_lease(slot, msg_id, now)?.is_some() {
                return Ok(Busy::Stale);
            }
            match index.start_busy(slot, msg_id, Fence::None, now)? {
                Busy::Unknown => index.set_aside(slot, &entry, now),
                known => Ok(known),
            }
        })?;
        match busy {
            Busy::Yours(claimed) => return Ok(Ok(Claim::of(claimed))),
            Busy::Unknown => return Ok(Ok(Claim::outside(&entry))),
            Busy::Stale => return Ok(Err(Replaced::Leased)),
            Busy::Others => pause(look),
        }
    }
    Ok(Err(Replaced::Leased))
}

fn is_leased(queue: &Queue, msg_id: i64) -> Result<bool, Error> {
    let lease = queue.index(|index, slot| index.running_lease(slot, msg_id, server::now()))?;
    Ok(lease.is_some())
}

/// Writes the row; `None` where there is none that has the key. As the table's owner, because a sender needn't have UPDATE;
/// but where policies have a say, as the caller. Triggers may change what the index has to know, so that is read back.
fn write(queue: &Queue, msg_id: i64, new: &NewRow<'_>, deliver_at: i64) -> Result<Option<Entry>, Error> {
    let mut found = None;
    let mut update = || {
        each_row(
            &format!(
                "UPDATE {} SET message = $3, headers = $4, deliver_at = $5, attempts = 0, last_error = NULL {} \
                 WHERE msg_id OPERATOR(pg_catalog.=) $1 AND dedup_key OPERATOR(pg_catalog.=) $2 RETURNING {ENTRY}",
                queue.relation("q_"),
                if queue.table.live.has_extra() { ", expires_at = NULL, max_attempts = NULL" } else { "" },
            ),
            &[
                Parameter::I64(msg_id),
                Parameter::TextArgument(new.dedup_key),
                Parameter::Json(Some(new.message)),
                Parameter::Json(new.headers),
                Parameter::Instant(Some(deliver_at)),
            ],
            |row| {
                found = Some(entry_of(row, true)?);
                Ok(())
            },
        )
    };
    let relation = queue.table.live.relation;
    if row_security(relation) {
        update()?
    } else {
        as_owner_of(relation, update)?
    };
    Ok(found)
}
