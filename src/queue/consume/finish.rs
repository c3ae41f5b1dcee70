//! Finishing a message: deleting its row or moving it to the archive; extending or ending its lease.

use super::claim::{Claim, permitted, with_claim};
use super::{groups, letters};
use crate::error::Error;
use crate::pg::fmgr::{Jsonb, Text};
use crate::pg::server;
use crate::pg::spi::{Parameter, each_row_kept, run};
use crate::queue::ack::Step;
use crate::queue::handle::Queue;
use crate::queue::heap::rows::{Missed, OpenTable, Row};
use crate::queue::pending::{Action, Ending, remember};

/// What the archive has in common with the table.
pub(in crate::queue) const ARCHIVED: &str =
    "msg_id, enqueued_at, attempts, priority, group_key, dedup_key, headers, message";

/// A row of that number can only be there where somebody has put it, or the message, there by hand: it must not keep the
/// message from ending.
pub(in crate::queue) const REPLACE: &str = "ON CONFLICT (msg_id) DO UPDATE SET enqueued_at = EXCLUDED.enqueued_at, \
    attempts = EXCLUDED.attempts, priority = EXCLUDED.priority, group_key = EXCLUDED.group_key, \
    dedup_key = EXCLUDED.dedup_key, headers = EXCLUDED.headers, message = EXCLUDED.message, outcome = EXCLUDED.outcome, \
    error = EXCLUDED.error, result = EXCLUDED.result, finished_at = EXCLUDED.finished_at";

/// Deletes a message; false where there is none, or where `lease` isn't the current one.
pub(in crate::queue) fn delete(
    queue: &Queue,
    table: &OpenTable<'_>,
    msg_id: i64,
    lease: Option<u64>,
) -> Result<bool, Error> {
    let deleted = with_claim(queue, table, msg_id, lease, |claim| {
        // Before the row is touched: should that fail, the rollback gives the message free again.
        if claim.busy {
            remember(queue.key, finished(msg_id, claim, Ending::Deleted));
        }
        remove(queue, table, msg_id, claim, Ending::Deleted)
    })?;
    Ok(deleted.is_some())
}

/// The action to be remembered for a claimed message that ends.
pub(in crate::queue) fn finished(msg_id: i64, claim: Claim, ending: Ending) -> Action {
    let tag = claim.tag.unwrap_or_default();
    Action::Finished { msg_id, tag, busy: claim.busy, timed: claim.timed, group: claim.group, ending }
}

/// Deletes a claimed message's row, and remembers that where it wasn't before; the row as it was.
pub(in crate::queue) fn remove(
    queue: &Queue,
    table: &OpenTable<'_>,
    msg_id: i64,
    claim: Claim,
    ending: Ending,
) -> Result<Result<Row, Missed>, Error> {
    let removed = if queue.table.live.plain {
        let step = Step::begin();
        let deleted = table.delete(msg_id, claim.tid, claim.tag);
        if claim.ack_async {
            step.has_finished();
        }
        deleted
    } else {
        match table.fetch(msg_id, claim.tid) {
            None => Err(Missed::Gone),
            Some(row) if claim.tag.is_some_and(|tag| !tag.matches(row.tag())) => Err(Missed::Other),
            Some(row) => {
                let statement = format!("DELETE FROM {} WHERE msg_id OPERATOR(pg_catalog.=) $1", queue.relation("q_"));
                if run(&statement, &[Parameter::I64(msg_id)])? == 0 { Err(Missed::Gone) } else { Ok(row) }
            }
        }
    };
    if let Ok(row) = &removed {
        if !claim.busy {
            remember(queue.key, finished(msg_id, claim, ending));
        }
        if claim.find_next {
            groups::prepare_leaving(queue, table, row)?;
        }
    }
    Ok(removed)
}

/// Lets a lease end `timeout` microseconds from now; with 0 the message is ready at once. When it ends, or `None` where
/// the message isn't leased, or not by that lease.
pub(in crate::queue) fn extend(
    queue: &Queue,
    table: &OpenTable<'_>,
    msg_id: i64,
    timeout: i64,
    lease: Option<u64>,
) -> Result<Option<i64>, Error> {
    if !queue.table.live.plain && !permitted(queue, msg_id)? {
        return Ok(None);
    }
    let extended = queue.index_and_wake(|index, slot, wake| {
        let now = server::now();
        index.extend(slot, msg_id, lease, now, now.saturating_add(timeout), wake)
    })?;
    let Some(extended) = extended else { return Ok(None) };
    let row = table.fetch(msg_id, extended.tid);
    if row.as_ref().is_some_and(|row| extended.tag.matches(row.tag())) || queue.table.live.own_storage {
        return Ok(Some(extended.until));
    }
    if table.is_there_for_others(msg_id, extended.tag) {
        return Ok(None);
    }
    // What was leased is gone.
    queue.index_and_wake(|index, slot, wake| index.drop_vanished(slot, msg_id, extended.tag, server::now(), wake))?;
    row.map_or(Ok(()), |row| queue.meet(&row)).map(|()| None)
}

/// What becomes of a message that goes to the archive.
#[derive(Clone, Copy)]
pub(in crate::queue) enum Outcome<'c> {
    /// Done, with what came of it.
    Done(Option<Jsonb<'c>>),
    /// Failed once too often, by `attempts` deliveries.
    Dead { error: Option<Text<'c>>, attempts: u32, ending: Ending },
}

/// Moves a message to the archive: done; false where there is none, or where `lease` isn't the current one.
pub(in crate::queue) fn archive(
    queue: &Queue,
    table: &OpenTable<'_>,
    msg_id: i64,
    result: Option<Jsonb<'_>>,
    lease: Option<u64>,
) -> Result<bool, Error> {
    let archived =
        with_claim(queue, table, msg_id, lease, |claim| retire(queue, table, msg_id, claim, Outcome::Done(result)))?;
    Ok(archived.is_some())
}

impl Outcome<'_> {
    fn ending(&self) -> Ending {
        match self {
            Outcome::Done(_) => Ending::Archived,
            Outcome::Dead { ending, .. } => *ending,
        }
    }
}

/// Moves a claimed message to the archive.
pub(in crate::queue) fn retire(
    queue: &Queue,
    table: &OpenTable<'_>,
    msg_id: i64,
    claim: Claim,
    outcome: Outcome<'_>,
) -> Result<Result<(), Missed>, Error> {
    if claim.busy {
        remember(queue.key, finished(msg_id, claim, outcome.ending()));
    }
    move_to_archive(queue, table, msg_id, claim, outcome)
}

/// Moves a claimed message to the archive, where a claim that is busy has been remembered. The row is deleted with the
/// caller's rights; a role that may do that may also put it into the archive.
pub(in crate::queue) fn move_to_archive(
    queue: &Queue,
    table: &OpenTable<'_>,
    msg_id: i64,
    claim: Claim,
    outcome: Outcome<'_>,
) -> Result<Result<(), Missed>, Error> {
    let ending = outcome.ending();
    let row = match remove(queue, table, msg_id, claim, ending)? {
        Ok(row) => row,
        Err(why) => return Ok(Err(why)),
    };
    let (dedup_key, last_error) = table.kept(&row);
    let known = claim.attempts.max(row.attempts.max(0).cast_unsigned());
    let (name, attempts, error, result) = match outcome {
        Outcome::Done(result) => ("done", known, Parameter::TextOfRow(None), result),
        Outcome::Dead { error: None, attempts, .. } => ("dead", attempts, Parameter::TextOfRow(last_error), None),
        Outcome::Dead { error, attempts, .. } => ("dead", attempts, Parameter::TextArgument(error), None),
    };
    let step = Step::begin();
    queue.as_archive_owner(|| {
        each_row_kept(
            &format!(
                "INSERT INTO {} ({ARCHIVED}, outcome, error, result, finished_at) \
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, coalesce($10, $11), $12, pg_catalog.clock_timestamp()) {REPLACE}",
                queue.relation("a_")
            ),
            &[
                Parameter::I64(msg_id),
                Parameter::Instant(Some(row.enqueued_at)),
                Parameter::I32(i32::try_from(attempts).unwrap_or(i32::MAX)),
                Parameter::I16(row.priority),
                Parameter::TextOfRow(row.group_key),
                Parameter::TextOfRow(dedup_key),
                Parameter::JsonOfRow(row.headers),
                Parameter::JsonOfRow(row.message),
                Parameter::Text(name),
                error,
                Parameter::OptionalText(match ending {
                    Ending::Failed => Some("the consumer gave no reason"),
                    Ending::Buried => Some("its last lease ran out"),
                    Ending::Deleted | Ending::Archived | Ending::Purged => None,
                }),
                Parameter::Json(result),
            ],
            |_| Ok(()),
        )
    })?;
    if claim.ack_async && queue.has_quiet_archive() {
        step.has_finished();
    }
    if name == "dead"
        && let Some(to) = &queue.options.dead_letter_queue
    {
        letters::send_dead_letter(queue, msg_id, to)?;
    }
    Ok(Ok(()))
}
