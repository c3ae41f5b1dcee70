//! A delivery that has failed: the message rests and is delivered again, or is dead.

use super::claim::{Claim, permitted, with_claim};
use super::finish::{Outcome, retire};
use crate::error::Error;
use crate::pg::fmgr::{Text, Value};
use crate::pg::server;
use crate::pg::spi::{Parameter, as_owner_of, each_row};
use crate::queue::entry::{ENTRY, entry_of};
use crate::queue::handle::Queue;
use crate::queue::heap::columns::{ATTEMPTS, DELIVER_AT, LAST_ERROR};
use crate::queue::heap::rows::{Missed, OpenTable};
use crate::queue::pending::{Action, Ending, backoff, forget_finished, remember};
use enough_engine::queue::{Entry, Fence};

/// What has become of a message whose delivery failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::queue) enum Fate {
    /// It will be delivered again.
    Retry,
    /// It is in the archive.
    Dead,
}

/// What is to become of a message whose delivery failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::queue) enum Then {
    /// It is delivered again, after so many microseconds, or the queue's backoff; unless it has been delivered as often as it
    /// may be.
    Retry(Option<i64>),
    /// It is dead.
    Die,
}

/// Lets a delivery fail. `None` where there is no such message, or `lease` isn't the current one.
/// A lease that a rollback has given back serves as long as the message rests: the worker's error is known only then.
pub(in crate::queue) fn fail(
    queue: &Queue,
    table: &OpenTable<'_>,
    msg_id: i64,
    error: Option<Text<'_>>,
    then: Then,
    lease: Option<u64>,
) -> Result<Option<Fate>, Error> {
    let options = queue.index(|index, slot| index.options(slot))?;
    with_claim(queue, table, msg_id, lease.map_or(Fence::None, Fence::Last), |claim| {
        let attempts = claim.attempts;
        let allowed = options.max_attempts.min(own_limit(queue, table, msg_id, claim));
        let retry_in = match then {
            Then::Retry(retry_in) if attempts < allowed => retry_in,
            _ => {
                let outcome = Outcome::Dead { error, attempts, ending: Ending::Failed };
                return Ok(retire(queue, table, msg_id, claim, outcome)?.map(|()| Fate::Dead));
            }
        };
        let now = server::now();
        // The clock tells apart messages that fail one after the other, their numbers those that fail together.
        let seed = (now ^ msg_id.rotate_left(32)).cast_unsigned();
        let rest = retry_in.unwrap_or_else(|| backoff(&options, attempts, seed));
        let end = Undelivered { msg_id, error, attempts, deliver_at: now.saturating_add(rest), released: false };
        Ok(end.write(queue, table, claim)?.map(|()| Fate::Retry))
    })
}

/// How often a message may be delivered by its own limit.
fn own_limit(queue: &Queue, table: &OpenTable<'_>, msg_id: i64, claim: Claim) -> u32 {
    let row = if queue.table.live.has_extra() { table.fetch(msg_id, claim.tid) } else { None };
    row.and_then(|row| row.max_attempts).unwrap_or(u32::MAX)
}

/// A delivery that has ended without finishing its message: what is to be written into the row.
pub(in crate::queue) struct Undelivered<'c> {
    /// The message's number.
    pub msg_id: i64,
    /// Why; `None` leaves the last error as it is.
    pub error: Option<Text<'c>>,
    /// Deliveries that count.
    pub attempts: u32,
    /// When it may be delivered again, in microseconds.
    pub deliver_at: i64,
    /// It was given back, and has not failed.
    pub released: bool,
}

impl Undelivered<'_> {
    /// Writes it. What is claimed is remembered before anything else.
    pub(in crate::queue) fn write(
        &self,
        queue: &Queue,
        table: &OpenTable<'_>,
        claim: Claim,
    ) -> Result<Result<(), Missed>, Error> {
        queue.touch();
        let expected = Entry {
            msg_id: self.msg_id,
            tid: claim.tid,
            priority: 0,
            attempts: self.attempts,
            deliver_at: Some(self.deliver_at),
            group: 0,
            tag: claim.tag.unwrap_or_default(),
        };
        if claim.busy {
            // Before the row is touched: should that fail, the rollback gives the message free again.
            remember(queue.key, self.action(expected, true, false));
        }
        let written =
            if queue.table.live.plain { self.directly(table, claim) } else { self.by_executor(queue, table, claim)? };
        let entry = match written {
            Ok(entry) => entry,
            Err(why) => return Ok(Err(why)),
        };
        if claim.busy {
            forget_finished(queue.key, self.msg_id);
        }
        // The index knows it by the tag by which it was claimed.
        let entry = Entry { tag: claim.tag.unwrap_or(entry.tag), ..entry };
        remember(queue.key, self.action(entry, claim.busy, claim.timed));
        Ok(Ok(()))
    }

    fn action(&self, entry: Entry, busy: bool, timed: bool) -> Action {
        Action::Failed { entry, busy, timed, released: self.released }
    }

    fn directly(&self, table: &OpenTable<'_>, claim: Claim) -> Result<Entry, Missed> {
        let error = self.error.map(Text::payload);
        let mut changes = vec![
            (ATTEMPTS, Value::I32(i32::try_from(self.attempts).unwrap_or(i32::MAX))),
            (DELIVER_AT, Value::Instant(self.deliver_at)),
        ];
        changes.extend(error.map(|error| (LAST_ERROR, Value::Bytes(error))));
        let (row, tid) = table.update(self.msg_id, claim.tid, claim.tag, &changes)?;
        Ok(Entry { tid, attempts: self.attempts, deliver_at: Some(self.deliver_at), ..row.entry() })
    }

    /// As the table's owner, because a consumer needn't have UPDATE; where policies let the caller see the row. Triggers
    /// may change what the index has to know, so that is read back.
    fn by_executor(&self, queue: &Queue, table: &OpenTable<'_>, claim: Claim) -> Result<Result<Entry, Missed>, Error> {
        if !permitted(queue, self.msg_id)? {
            return Ok(Err(Missed::Gone));
        }
        let row = table.fetch(self.msg_id, claim.tid);
        if row.is_some_and(|row| claim.tag.is_some_and(|tag| !tag.matches(row.tag()))) {
            return Ok(Err(Missed::Other));
        }
        let mut found = Err(Missed::Gone);
        as_owner_of(queue.table.live.relation, || {
            each_row(
                &format!(
                    "UPDATE {} SET attempts = $2, deliver_at = $3, last_error = coalesce($4, last_error) \
                     WHERE msg_id OPERATOR(pg_catalog.=) $1 RETURNING {}",
                    queue.relation("q_"),
                    ENTRY,
                ),
                &[
                    Parameter::I64(self.msg_id),
                    Parameter::I32(i32::try_from(self.attempts).unwrap_or(i32::MAX)),
                    Parameter::Instant(Some(self.deliver_at)),
                    Parameter::TextArgument(self.error),
                ],
                |row| {
                    found = Ok(entry_of(row, true)?);
                    Ok(())
                },
            )
        })?;
        Ok(found)
    }
}
