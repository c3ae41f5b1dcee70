//! Rows of new messages, stored in a queue's table: past the executor where that has nothing to decide, else by it.

use super::entry::{ENTRY, entry_of};
use super::pending::{Action, remember};
use crate::error::Error;
use crate::pg::catalog::{Privilege, row_security};
use crate::pg::spi::{Parameter, as_owner_of, each_row_kept};
use crate::queue::handle::Queue;
use crate::queue::heap::insert::NewRow;
use crate::queue::name::missing;
use enough_engine::queue::Entry;

/// Stores one message, with the caller's rights, and lets it be ready at the commit; its number, or `None` where another has
/// its dedup key.
pub(super) fn store(queue: &Queue, row: &NewRow<'_>) -> Result<Option<i64>, Error> {
    queue.touch();
    let mut stored = None;
    if row.dedup_key.is_some() {
        stored = insert_by_key(queue, row, None)?;
        if stored.is_none() {
            return Ok(None);
        }
    } else if queue.table.live.plain {
        insert_directly(queue, std::slice::from_ref(row), &[], |entry| stored = Some(entry))?;
    } else {
        stored = insert_by_executor(queue, row, None)?;
    }
    let entry = stored.ok_or_else(|| suppressed(queue))?;
    remember(queue.key, Action::Sent(entry));
    Ok(Some(entry.msg_id))
}

/// Inserts rows without a dedup key into a plain table, by the `given` numbers where there are any.
#[inline]
pub(super) fn insert_directly(
    queue: &Queue,
    rows: &[NewRow<'_>],
    given: &[i64],
    inserted: impl FnMut(Entry),
) -> Result<(), Error> {
    if queue.table.insert(rows, given, inserted) { Ok(()) } else { Err(missing(&queue.name)) }
}

/// Stores a message that has a dedup key; `None` where another one has it. Waits for a transaction that is sending or finishing
/// a message with the key.
pub(super) fn insert_by_key(queue: &Queue, row: &NewRow<'_>, number: Option<i64>) -> Result<Option<Entry>, Error> {
    let relation = queue.table.live.relation;
    let insert = || insert_by_executor(queue, row, number);
    // To see whether the key is taken needs SELECT, which a sender needn't have. Policies are the caller's own.
    if queue.may(Privilege::Observe) || row_security(relation) { insert() } else { as_owner_of(relation, insert) }
}

/// Fails where the queue's table has no columns for a message's own limits.
pub(super) fn require_limits(queue: &Queue) -> Result<(), Error> {
    if queue.table.live.has_extra() {
        return Ok(());
    }
    Err(Error::NotReady {
        problem: format!("the table of queue \"{}\" has no columns \"expires_at\" and \"max_attempts\"", queue.name),
        hint: format!(
            "It is of an earlier version. Its owner calls enough.queue_create('{}', if_not_exists => true), which adds them.",
            queue.name
        ),
    })
}

/// What is said where no row came of a message.
pub(super) fn suppressed(queue: &Queue) -> Error {
    Error::NotReady {
        problem: format!("a trigger on the table of queue \"{}\" suppressed the message", queue.name),
        hint: "Let the trigger raise an error of its own where a message is unwanted.".into(),
    }
}

/// For dedup keys, and tables with triggers, policies and the like. A trigger may change what the index has to know, so that
/// is read back. `number`: the message's, where it has one already. `None` where the dedup key is taken or a trigger has
/// suppressed the row.
pub(super) fn insert_by_executor(queue: &Queue, row: &NewRow<'_>, number: Option<i64>) -> Result<Option<Entry>, Error> {
    let once =
        if row.dedup_key.is_some() { "ON CONFLICT (dedup_key) WHERE dedup_key IS NOT NULL DO NOTHING" } else { "" };
    // Of a number that is given no default has a say, whatever kind of identity the column is by now.
    let (column, value, overriding) =
        if number.is_some() { (", msg_id", ", $8", "OVERRIDING SYSTEM VALUE") } else { ("", "", "") };
    let mut parameters = vec![
        Parameter::Instant(Some(row.enqueued_at)),
        Parameter::Instant(row.deliver_at),
        Parameter::I16(row.priority),
        Parameter::TextArgument(row.group_key),
        Parameter::TextArgument(row.dedup_key),
        Parameter::Json(row.headers),
        Parameter::Json(Some(row.message)),
    ];
    parameters.extend(number.map(Parameter::I64));
    let (mut limits, mut limit_values) = (String::new(), String::new());
    if !row.limits.is_none() {
        require_limits(queue)?;
        let next = parameters.len() + 1;
        limits = ", expires_at, max_attempts".into();
        limit_values = format!(", ${next}, ${}", next + 1);
        parameters.extend([Parameter::Instant(row.limits.expires_at), Parameter::OptionalI32(row.limits.max_attempts)]);
    }
    let mut sent = None;
    each_row_kept(
        &format!(
            "INSERT INTO {} (enqueued_at, deliver_at, priority, group_key, dedup_key, headers, message{column}{limits}) \
             {overriding} VALUES ($1, $2, $3, $4, $5, $6, $7{value}{limit_values}) {once} RETURNING {ENTRY}",
            queue.relation("q_")
        ),
        &parameters,
        |answer| {
            sent = Some(entry_of(answer, false)?);
            Ok(())
        },
    )?;
    Ok(sent)
}
