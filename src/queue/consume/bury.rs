//! Burying messages that are used up: delivered as often as they may be, and under no lease any more. They move to the
//! archive in the transaction of the session that finds them, which may be a reader, a sender of their dedup key, maintenance or a
//! redrive. Until then they hold nothing (`enough_engine`, `queue/used_up.rs`).

use super::claim::{Claim, give_up, missed, permitted};
use super::finish::{Outcome, finished, move_to_archive};
use crate::error::Error;
use crate::pg::fmgr::Text;
use crate::pg::savepoint::{attempt, warn};
use crate::pg::server;
use crate::pg::spi::as_owner_of;
use crate::pg::table::snapshot::fixed_snapshot;
use crate::queue::handle::Queue;
use crate::queue::heap::rows::{Missed, OpenTable, Row, SUPERSEDED_AT};
use crate::queue::pending::{Ending, remember};
use enough_engine::queue::{Aside, Busy, Entry, Tid};

/// Messages set aside under one hold of the lock.
const CHUNK: usize = 64;
/// Messages that one read buries at the most.
const A_READ: i64 = 256;
/// The error of messages that were not delivered in time.
const EXPIRED: &str = "expired";
/// The error of messages whose dedup key another has taken over.
const SUPERSEDED: &str = "superseded";
/// Timers that run out under one hold of the lock.
const TIMERS: usize = 256;

/// Why a message is not delivered from that time on.
pub(in crate::queue) fn why_expired(expires_at: Option<i64>) -> &'static str {
    if expires_at == Some(SUPERSEDED_AT) { SUPERSEDED } else { EXPIRED }
}

/// What a message is said to have died of: one that has had as many deliveries as it may have, by `most`, of the last of them.
fn outcome(row: &Row, attempts: u32, most: u32) -> Outcome<'static> {
    let allowed = row.max_attempts.map_or(most, |own| own.min(most));
    let expired = attempts < allowed && row.has_expired(server::now());
    let error = expired.then(|| Text::copied(why_expired(row.expires_at).as_bytes()));
    Outcome::Dead { error, attempts, ending: Ending::Buried }
}

/// Lets what is due run out, until `deadline`: leases may have been the last ones.
pub(in crate::queue) fn expire(queue: &Queue, deadline: i64) -> Result<(), Error> {
    loop {
        let (now, all) = queue.index_and_wake(|index, slot, wake| {
            let now = server::now();
            Ok((now, index.expire(slot, now, TIMERS, wake)?))
        })?;
        if all || now > deadline {
            return Ok(());
        }
        server::check_for_interrupts();
    }
}

/// Buries used-up messages that the index knows of, up to `most` and until `deadline`; how many. Those whose rows other
/// transactions hold are left to others.
pub(in crate::queue) fn bury(queue: &Queue, most: i64, deadline: i64) -> Result<i64, Error> {
    let (known, allowed) =
        queue.index(|index, slot| Ok((index.counters(slot)?.used_up, index.options(slot)?.max_attempts)))?;
    // Those that are left go behind the others.
    let (mut left, mut buried) = (known.min(most), 0);
    if left == 0 {
        return Ok(0);
    }
    let Some(table) = queue.open_for_notes()? else { return Ok(0) };
    let mut aside = Vec::with_capacity(CHUNK);
    while left > 0 && server::now() <= deadline {
        queue.index(|index, slot| {
            aside.clear();
            index.set_used_up_aside(slot, &mut aside)
        })?;
        for one in &aside {
            // Before any row is touched: should that fail, the rollback gives all of them back.
            remember(queue.key, finished(one.msg_id, claim_of(one), Ending::Buried));
        }
        if aside.is_empty() {
            break;
        }
        for one in &aside {
            buried += i64::from(bury_one(queue, &table, one, allowed)?);
        }
        left -= aside.len() as i64;
        server::check_for_interrupts();
    }
    Ok(buried)
}

/// What a reader does before it leaves: an archive that takes nothing doesn't keep it from what it has read.
pub(in crate::queue) fn bury_some(queue: &Queue) -> Result<(), Error> {
    if !server::may_write() {
        return Ok(());
    }
    if let Err(failure) = attempt(|| bury(queue, A_READ, i64::MAX)) {
        let (code, message) = failure.answered()?;
        warn(code, format!("dead messages of queue \"{}\" can't be moved to the archive: {message}", queue.name));
    }
    Ok(())
}

fn claim_of(one: &Aside) -> Claim {
    Claim { busy: true, tid: one.tid, tag: Some(one.tag), attempts: one.attempts, ..Claim::default() }
}

/// Buries a message that has been set aside and remembered; false where its row isn't this transaction's to move.
fn bury_one(queue: &Queue, table: &OpenTable<'_>, one: &Aside, allowed: u32) -> Result<bool, Error> {
    let claim = claim_of(one);
    let row = table.fetch(one.msg_id, one.tid);
    let Some(row) = row.as_ref().filter(|row| one.tag.matches(row.tag())) else {
        give_up(queue, table, one.msg_id, claim, true)?;
        // Nobody has counted that its row went.
        queue.index(|index, slot| index.start_counting(slot).map(drop))?;
        return row.map_or(Ok(()), |row| queue.meet(&row)).map(|()| false);
    };
    let movable = !row.is_being_changed()
        && (!fixed_snapshot() || table.shown(row))
        && (queue.table.live.plain || permitted(queue, one.msg_id)?);
    if movable && move_to_archive(queue, table, one.msg_id, claim, outcome(row, one.attempts, allowed))?.is_ok() {
        return Ok(true);
    }
    give_up(queue, table, one.msg_id, claim, false)?;
    Ok(false)
}

/// Buries the live message of that number, which has the dedup key that a sender wants, where it is used up. False where it
/// isn't: then the key is taken. With the rights of the table's owner: a sender needn't have any on what is there.
pub(in crate::queue) fn bury_holder(queue: &Queue, msg_id: i64) -> Result<bool, Error> {
    let table = queue.open_table(true)?;
    // One that was finished in between has given up its key.
    let Some(row) = table.fetch(msg_id, Tid::default()) else { return Ok(true) };
    if row.is_own() {
        return Ok(false);
    }
    let entry = row.entry();
    // One that has expired is used up, however seldom it was delivered.
    let expired = row.has_expired(server::now());
    let judged = if expired { Entry { attempts: u32::MAX, ..entry } } else { entry };
    let (busy, allowed) = queue.index_and_wake(|index, slot, wake| {
        Ok((index.start_burial(slot, &judged, server::now(), wake)?, index.options(slot)?.max_attempts))
    })?;
    let claim = match busy {
        Busy::Stale => return Ok(false),
        Busy::Others => {
            // When that transaction ends it is buried, or free again.
            table.lock(msg_id);
            return Ok(true);
        }
        Busy::Yours(claimed) => Claim::of(claimed),
        Busy::Unknown => Claim::outside(&entry),
    };
    if claim.busy {
        remember(queue.key, finished(msg_id, claim, Ending::Buried));
    }
    let known = if claim.attempts == u32::MAX { 0 } else { claim.attempts };
    let claim = Claim { attempts: known, ..claim };
    let outcome = outcome(&row, known.max(entry.attempts), allowed);
    let moved = as_owner_of(queue.table.live.relation, || move_to_archive(queue, &table, msg_id, claim, outcome))?;
    match moved {
        Ok(()) => Ok(true),
        Err(why) => {
            missed(queue, &table, msg_id, claim, why)?;
            // A trigger keeps it where it is.
            Ok(queue.table.live.plain || why != Missed::Gone)
        }
    }
}
