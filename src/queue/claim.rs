//! A message that a transaction is about to change: set aside in the index, so that nobody gets it meanwhile.

use super::Queue;
use super::pending::{doubt, forget_finished};
use crate::error::Error;
use crate::segment::catalog::Privilege;
use crate::segment::rows::{Missed, OpenTable};
use crate::segment::server;
use crate::segment::sql::{Parameter, read_rows};
use enough_engine::queue::{Busy, Tid};

/// The caller's claim on a message.
#[derive(Debug, Clone, Copy)]
pub(super) struct Claim {
    /// Whether it is set aside: not where another transaction has it, where the index has no room, or where nobody else can
    /// see its row yet.
    pub busy: bool,
    /// Whether its row, of which the index doesn't know, has a delivery time.
    pub timed: bool,
    /// Where its row is, if that is known.
    pub tid: Tid,
    /// Deliveries so far that the index knows of; the row may know of others.
    pub attempts: u32,
}

/// Checks that the caller may finish messages of the queue at all.
pub(super) fn require_consume(queue: &Queue, function: &'static str) -> Result<(), Error> {
    queue.require(Privilege::Consume)?;
    super::require_write(function)
}

/// Claims a message; `None` where there is none, or where `lease` isn't the current one. A claim that is `busy` has to be
/// remembered at once (`pending.rs`), or [given up](give_up).
pub(super) fn claim(
    queue: &Queue,
    table: &OpenTable<'_>,
    msg_id: i64,
    lease: Option<u64>,
) -> Result<Option<Claim>, Error> {
    if !queue.table.plain && !permitted(queue, msg_id)? {
        return Ok(None);
    }
    let (mut state, mut attempts, mut timed) = look(queue, table, msg_id, lease)?;
    if state == Busy::Others {
        // When that transaction ends the message is free again, or gone; its lease may have ended with it.
        table.lock(msg_id);
        (state, attempts, timed) = look(queue, table, msg_id, lease)?;
    }
    Ok(match state {
        Busy::Stale => None,
        Busy::Yours(tid) => Some(Claim { busy: true, timed: false, tid, attempts }),
        Busy::Others | Busy::Unknown => Some(Claim { busy: false, timed, tid: Tid::default(), attempts }),
    })
}

/// Claims messages of a batch under one hold of the lock: those that are in the index and that nobody else has. `None`: to
/// be claimed one by one. The claims are `busy`, and have to be remembered at once.
pub(super) fn claim_known(queue: &Queue, numbers: &[i64]) -> Result<Vec<Option<Claim>>, Error> {
    // Under the lock nothing is allocated.
    let mut claims = Vec::with_capacity(numbers.len());
    queue.index(|index, slot| {
        let now = server::now();
        claims.clear();
        for &msg_id in numbers {
            let attempts = index.seen(slot, msg_id, now)?.map_or(0, |seen| seen.attempts);
            claims.push(match index.start_busy(slot, msg_id, None, now)? {
                Busy::Yours(tid) => Some(Claim { busy: true, timed: false, tid, attempts }),
                Busy::Others | Busy::Unknown | Busy::Stale => None,
            });
        }
        Ok(())
    })?;
    Ok(claims)
}

/// Sets a message aside; what became of that, its deliveries so far, and whether its row has a delivery time where the index
/// doesn't know of it. `Stale` also where there is no such message.
fn look(queue: &Queue, table: &OpenTable<'_>, msg_id: i64, lease: Option<u64>) -> Result<(Busy, u32, bool), Error> {
    let (state, attempts) = queue.index(|index, slot| {
        let now = server::now();
        let attempts = index.seen(slot, msg_id, now)?.map_or(0, |seen| seen.attempts);
        Ok((index.start_busy(slot, msg_id, lease, now)?, attempts))
    })?;
    if state != Busy::Unknown {
        return Ok((state, attempts, false));
    }
    if lease.is_some() {
        return Ok((Busy::Stale, 0, false));
    }
    let Some(row) = table.fetch(msg_id, Tid::default()) else { return Ok((Busy::Stale, 0, false)) };
    let entry = row.entry();
    let timed = entry.deliver_at.is_some();
    if row.is_own() {
        return Ok((Busy::Unknown, entry.attempts, timed));
    }
    // Not read from the table yet: without a place in the index it would be, while this transaction is open.
    let state = queue.index(|index, slot| index.set_aside(slot, &entry, server::now()))?;
    Ok((state, entry.attempts, timed))
}

/// Gives up a claim that has been remembered: nothing was changed. `gone`: there is no such row.
pub(super) fn give_up(queue: &Queue, msg_id: i64, claim: Claim, gone: bool) -> Result<(), Error> {
    if !claim.busy {
        return Ok(());
    }
    forget_finished(queue.key, msg_id);
    queue.index_and_wake(|index, slot, wake| index.end_busy(slot, msg_id, gone, server::now(), wake))?;
    doubt(queue.key, false);
    Ok(())
}

/// What the caller is told where a row couldn't be changed: that there is none, or that the transaction must be retried.
pub(super) fn missed(queue: &Queue, msg_id: i64, claim: Claim, missed: Missed) -> Result<(), Error> {
    match missed {
        // The executor also finds nothing where a policy or a trigger keeps the row from this role: then the message
        // stays whose it is.
        Missed::Gone => give_up(queue, msg_id, claim, queue.table.plain),
        Missed::Conflict => Err(Error::Serialization { queue: queue.name.clone(), msg_id }),
    }
}

/// Whether the policies of the table let this role see a message's row.
pub(super) fn permitted(queue: &Queue, msg_id: i64) -> Result<bool, Error> {
    let statement = format!("SELECT 1 FROM {} WHERE msg_id OPERATOR(pg_catalog.=) $1", queue.relation("q_"));
    Ok(read_rows(&statement, &[Parameter::I64(msg_id)], |_| Ok(()))? > 0)
}
