//! A message that a transaction is about to change: set aside in the index, so that nobody gets it meanwhile.

use crate::error::Error;
use crate::pg::catalog::Privilege;
use crate::pg::spi::{Parameter, read_rows};
use crate::pg::{latch, server};
use crate::queue::doubt;
use crate::queue::handle::Queue;
use crate::queue::heap::rows::{Missed, OpenTable};
use crate::queue::pending::{forget_finished, is_changed_here};
use enough_engine::queue::{Busy, Claimed, Entry, Fence, Tag, Tid};

/// How often a claim is tried again because another row has the number by now.
const TRIES: usize = 10;

/// How often a message that another transaction has set aside is looked at before it is left to that: 127 milliseconds in all.
pub(super) const LOOKS: u32 = 7;

/// Pauses before the next of the [`LOOKS`], each time for twice as long. That transaction has committed, and is about to
/// tell the index; or it waits for the row.
pub(super) fn pause(looks: u32) {
    latch::forget_wake_ups();
    latch::sleep(1000 << looks);
}

/// The caller's claim on a message.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools, reason = "what the index has answered, each of its own")]
pub(in crate::queue) struct Claim {
    /// Whether it is set aside: not where another transaction has it, where the index has no room, or where nobody else can
    /// see its row yet.
    pub busy: bool,
    /// Whether its row, of which the index doesn't know, has a delivery time.
    pub timed: bool,
    /// The hash of its row's group, where the index doesn't know of the row.
    pub group: u64,
    /// Where its row is, if that is known.
    pub tid: Tid,
    /// What tells its row from others of the number, if that is known.
    pub tag: Option<Tag>,
    /// Deliveries so far that the index knows of; the row may know of others.
    pub attempts: u32,
    /// The call that takes it out of the queue looks for the next of its group first.
    pub find_next: bool,
    /// Whether its end needs to be on no disk when the transaction commits.
    pub ack_async: bool,
}

/// Checks that the caller may finish messages of the queue at all.
pub(in crate::queue) fn require_consume(queue: &Queue, function: &'static str) -> Result<(), Error> {
    queue.require(Privilege::Consume)?;
    crate::queue::handle::require_write(function)
}

/// Claims a message; `None` where there is none, or where the `fence` keeps the caller from it. A claim that is `busy` has to be
/// remembered at once (`pending.rs`), or [given up](give_up).
pub(in crate::queue) fn claim(
    queue: &Queue,
    table: &OpenTable<'_>,
    msg_id: i64,
    fence: Fence,
) -> Result<Option<Claim>, Error> {
    if !queue.table.live.plain && !permitted(queue, msg_id)? {
        return Ok(None);
    }
    let mut claim = look(queue, table, msg_id, fence)?;
    if claim == Looked::Others && is_changed_here(queue.key, msg_id) {
        // Its lease ended with that change. Without one, its row is what this transaction has made of it.
        let row = if fence == Fence::None { table.fetch(msg_id, Tid::default()) } else { None };
        return Ok(row.map(|row| Claim::outside(&row.entry())));
    }
    if claim == Looked::Others {
        // When that transaction ends the message is free again, or gone; its lease may have ended with it.
        table.lock(msg_id);
        claim = look(queue, table, msg_id, fence)?;
        if claim == Looked::Others && queue.index(|index, slot| index.in_doubt(slot))? {
            // It was prepared, and nobody has told the index of the decision.
            doubt::settle(queue.key)?;
            claim = look(queue, table, msg_id, fence)?;
        }
    }
    Ok(match claim {
        Looked::None => None,
        Looked::Claimed(claim) => Some(claim),
        Looked::Others => Some(Claim::default()),
    })
}

/// What came of the wish to set a message aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Looked {
    /// There is no such message, or the lease isn't the current one.
    None,
    Claimed(Claim),
    /// An open transaction is changing it.
    Others,
}

impl Claim {
    /// On a message that is set aside.
    pub(in crate::queue) fn of(claimed: Claimed) -> Self {
        let Claimed { tid, tag, attempts, find_next, ack_async } = claimed;
        Claim { busy: true, timed: false, group: 0, tid, tag: Some(tag), attempts, find_next, ack_async }
    }

    /// On a message that isn't set aside, by its row.
    pub(in crate::queue) fn outside(row: &Entry) -> Self {
        Claim {
            timed: row.deliver_at.is_some(),
            group: row.group,
            tag: Some(row.tag),
            attempts: row.attempts,
            ..Claim::default()
        }
    }
}

/// Claims a message and changes its row by `change`, which says what there was to change. `None` where there is no such
/// message, or where the `fence` keeps the caller from it. What is claimed has to be remembered by `change` before anything else.
pub(in crate::queue) fn with_claim<R>(
    queue: &Queue,
    table: &OpenTable<'_>,
    msg_id: i64,
    fence: impl Into<Fence>,
    mut change: impl FnMut(Claim) -> Result<Result<R, Missed>, Error>,
) -> Result<Option<R>, Error> {
    let fence = fence.into();
    for _ in 0..TRIES {
        let Some(claim) = claim(queue, table, msg_id, fence)? else { return Ok(None) };
        let why = match change(claim)? {
            Ok(changed) => return Ok(Some(changed)),
            Err(why) => why,
        };
        missed(queue, table, msg_id, claim, why)?;
        // Without a lease the number is meant, whichever row has it.
        if why != Missed::Other || fence != Fence::None {
            return Ok(None);
        }
    }
    Ok(None)
}

/// What the index answers for a message of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::queue) enum Known {
    /// It is claimed, and has to be remembered at once.
    Claimed(Claim),
    /// The lease isn't the current one.
    Stale,
    /// It isn't in the index, or another transaction is changing it: to be claimed by itself.
    Elsewhere,
}

/// A message of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::queue) struct Member {
    /// Its number.
    pub msg_id: i64,
    /// Its place in the caller's arrays, from 0.
    pub place: usize,
    /// The lease under which the caller changes it; `None` for without one.
    pub lease: Option<u64>,
}

/// Claims messages of a batch under one hold of the lock.
pub(in crate::queue) fn claim_known(queue: &Queue, members: &[Member]) -> Result<Vec<Known>, Error> {
    // Under the lock nothing is allocated.
    let mut claims = Vec::with_capacity(members.len());
    queue.index(|index, slot| {
        let now = server::now();
        claims.clear();
        for member in members {
            claims.push(match index.start_busy(slot, member.msg_id, member.lease, now)? {
                Busy::Yours(claimed) => Known::Claimed(Claim::of(claimed)),
                Busy::Stale => Known::Stale,
                Busy::Others | Busy::Unknown => Known::Elsewhere,
            });
        }
        Ok(())
    })?;
    Ok(claims)
}

/// Sets a message aside, where the index has it or has room for it, and nobody else sees its row yet.
fn look(queue: &Queue, table: &OpenTable<'_>, msg_id: i64, fence: Fence) -> Result<Looked, Error> {
    match queue.index(|index, slot| index.start_busy(slot, msg_id, fence, server::now()))? {
        Busy::Yours(claimed) => return Ok(Looked::Claimed(Claim::of(claimed))),
        Busy::Others => return Ok(Looked::Others),
        Busy::Stale => return Ok(Looked::None),
        Busy::Unknown if fence != Fence::None => return Ok(Looked::None),
        Busy::Unknown => {}
    }
    let Some(row) = table.fetch(msg_id, Tid::default()) else { return Ok(Looked::None) };
    let entry = row.entry();
    let outside = Claim::outside(&entry);
    if row.is_own() {
        return Ok(Looked::Claimed(outside));
    }
    // Not read from the table yet: without a place in the index it would be, while this transaction is open.
    Ok(match queue.index(|index, slot| index.set_aside(slot, &entry, server::now()))? {
        Busy::Yours(claimed) => Looked::Claimed(Claim::of(claimed)),
        Busy::Others => Looked::Others,
        Busy::Stale | Busy::Unknown => Looked::Claimed(outside),
    })
}

/// Gives up a claim that has been remembered: nothing was changed. `gone`: this transaction sees no such row.
pub(in crate::queue) fn give_up(
    queue: &Queue,
    table: &OpenTable<'_>,
    msg_id: i64,
    claim: Claim,
    gone: bool,
) -> Result<(), Error> {
    if !claim.busy {
        return Ok(());
    }
    forget_finished(queue.key, msg_id);
    let tag = claim.tag.unwrap_or_default();
    // Where the table's storage is this transaction's own, or the row was deleted by hand, it may come back.
    let gone = gone && !queue.table.live.own_storage && !table.is_there_for_others(msg_id, tag);
    queue.index_and_wake(|index, slot, wake| index.end_busy(slot, msg_id, tag, gone, server::now(), wake))
}

/// What the caller is told where a row couldn't be changed: that there is none, or that the transaction must be retried.
pub(in crate::queue) fn missed(
    queue: &Queue,
    table: &OpenTable<'_>,
    msg_id: i64,
    claim: Claim,
    missed: Missed,
) -> Result<(), Error> {
    match missed {
        // The executor also finds nothing where a policy or a trigger keeps the row from this role: then the message
        // stays whose it is.
        Missed::Gone => give_up(queue, table, msg_id, claim, queue.table.live.plain),
        Missed::Other => {
            give_up(queue, table, msg_id, claim, true)?;
            table.fetch(msg_id, Tid::default()).map_or(Ok(()), |row| queue.meet(&row))
        }
        Missed::Conflict => Err(Error::Serialization { queue: queue.name.clone(), msg_id }),
    }
}

/// Whether the policies of the table let this role see a message's row.
pub(in crate::queue) fn permitted(queue: &Queue, msg_id: i64) -> Result<bool, Error> {
    let statement = format!("SELECT 1 FROM {} WHERE msg_id OPERATOR(pg_catalog.=) $1", queue.relation("q_"));
    Ok(read_rows(&statement, &[Parameter::I64(msg_id)], |_| Ok(()))? > 0)
}
