//! Sending: rows into the table, and at commit into the index.

use super::keys;
use super::pending::{Action, remember};
use super::store::{insert_by_executor, insert_by_key, insert_directly, suppressed};
use crate::error::Error;
use crate::pg::catalog::Privilege;
use crate::pg::fmgr::Text;
use crate::pg::memory::PgVec;
use crate::pg::server;
use crate::pg::spi::{Parameter, as_owner_of, read_rows};
use crate::queue::consume::bury;
use crate::queue::consume::replace::{Replaced, replace};
use crate::queue::consume::supersede::supersede;
use crate::queue::handle::{Queue, require_write};
use crate::queue::heap::insert::NewRow;
use enough_engine::queue::Entry;

/// How often a message is tried to be sent whose dedup key is taken by one that can't be found.
const TRIES: usize = 10;

/// Sends messages; their numbers, in their order. Where another message has the dedup key of one, that one's number.
pub(super) fn send(queue: &Queue, function: &'static str, rows: &[NewRow<'_>]) -> Result<Vec<i64>, Error> {
    queue.require(Privilege::Send)?;
    require_write(function)?;
    queue.touch();
    let keyed = rows.iter().any(|row| row.dedup_key.is_some());
    if keyed && rows.len() > 1 && queue.table.live.has_sequence() {
        return send_by_key(queue, rows);
    }
    let mut numbers = Vec::with_capacity(rows.len());
    if keyed || !queue.table.live.plain || rows.iter().any(|row| !row.limits.is_none()) {
        for row in rows {
            numbers.push(match send_by_executor(queue, row, None)? {
                Sent::Stored(entry) => {
                    remember(queue.key, Action::Sent(entry));
                    entry.msg_id
                }
                Sent::Taken(msg_id) => msg_id,
            });
        }
    } else {
        insert_directly(queue, rows, &[], |entry| {
            numbers.push(entry.msg_id);
            remember(queue.key, Action::Sent(entry));
        })?;
    }
    Ok(numbers)
}

/// What has become of a message that was to be sent.
enum Sent {
    /// It is in the table.
    Stored(Entry),
    /// The message of that number has its dedup key.
    Taken(i64),
}

/// Sends a batch with dedup keys. The messages have the numbers of their order, but the keys are taken in the order of
/// theirs, so that two batches of the same keys wait for one another and never in a circle.
fn send_by_key(queue: &Queue, rows: &[NewRow<'_>]) -> Result<Vec<i64>, Error> {
    let mut numbers: Vec<i64> = rows.iter().map(|_| queue.table.live.next_number()).collect();
    let (mut by_executor, direct): (Vec<usize>, Vec<usize>) = (0..rows.len()).partition(|&place| {
        rows[place].dedup_key.is_some() || !rows[place].limits.is_none() || !queue.table.live.plain
    });
    by_executor.sort_by_key(|&place| rows[place].dedup_key.map(Text::payload));
    let mut stored = PgVec::with_capacity(rows.len());
    for place in by_executor {
        match send_by_executor(queue, &rows[place], Some(numbers[place]))? {
            Sent::Stored(entry) => stored.push(entry),
            Sent::Taken(msg_id) => numbers[place] = msg_id,
        }
    }
    for run in direct.chunk_by(|a, b| a + 1 == *b) {
        let places = run[0]..run[0] + run.len();
        insert_directly(queue, &rows[places.clone()], &numbers[places], |entry| stored.push(entry))?;
    }
    // Readers get them in the order of their numbers. Were one of them not stored, none of them would be.
    stored.sort_unstable_by_key(|entry| entry.msg_id);
    for &entry in &stored {
        remember(queue.key, Action::Sent(entry));
    }
    Ok(numbers)
}

/// What a sender wants where a live message has its dedup key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OnConflict {
    /// That one stays as it is.
    Keep,
    /// That one, unless it is leased, becomes the new one.
    Replace,
}

impl OnConflict {
    /// The wish of that name.
    pub(super) fn named(name: &str) -> Option<Self> {
        match name {
            "keep" => Some(OnConflict::Keep),
            "replace" => Some(OnConflict::Replace),
            _ => None,
        }
    }
}

/// What has become of a message with a dedup key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It is in the table.
    Sent,
    /// Another has the key, and is as it was.
    Kept,
    /// The one that had the key waits with its payload, for its time.
    Replaced,
}

impl Outcome {
    /// As the sender is told.
    pub(super) fn name(self) -> &'static str {
        match self {
            Outcome::Sent => "sent",
            Outcome::Kept => "kept",
            Outcome::Replaced => "replaced",
        }
    }
}

/// Sends a message with a dedup key; the number of the message that has the key then, and what has become of the one to be
/// sent.
pub(super) fn send_unique(queue: &Queue, row: &NewRow<'_>, on_conflict: OnConflict) -> Result<(i64, Outcome), Error> {
    queue.require(Privilege::Send)?;
    require_write("queue_send_unique")?;
    queue.touch();
    let mut leased = None;
    for _ in 0..TRIES {
        let taken = match send_once(queue, row, None)? {
            Sent::Stored(entry) => {
                remember(queue.key, Action::Sent(entry));
                return Ok((entry.msg_id, Outcome::Sent));
            }
            Sent::Taken(msg_id) => msg_id,
        };
        if on_conflict == OnConflict::Keep {
            return Ok((taken, Outcome::Kept));
        }
        match replace(queue, taken, row)? {
            Replaced::Yes => return Ok((taken, Outcome::Replaced)),
            // It was leased after it was found to wait: the next try takes its key.
            Replaced::Leased if queue.options.dedup_waiting => leased = Some(taken),
            Replaced::Leased | Replaced::Hidden => return Ok((taken, Outcome::Kept)),
            // It is finished, and has its key still.
            Replaced::Changed if has_key_still(queue, row, taken)? => return Ok((taken, Outcome::Kept)),
            // Its key is free, or another message's.
            Replaced::Changed => {}
        }
        server::check_for_interrupts();
    }
    leased.map(|taken| (taken, Outcome::Kept)).ok_or_else(|| suppressed(queue))
}

/// Whether a dedup key is taken is the executor's business, also where the table is plain.
fn send_by_executor(queue: &Queue, row: &NewRow<'_>, number: Option<i64>) -> Result<Sent, Error> {
    if row.dedup_key.is_some() {
        return send_once(queue, row, number);
    }
    Ok(Sent::Stored(insert_by_executor(queue, row, number)?.ok_or_else(|| suppressed(queue))?))
}

/// Whether a message is the last that has taken the key in a queue where keys stay taken.
fn has_key_still(queue: &Queue, row: &NewRow<'_>, msg_id: i64) -> Result<bool, Error> {
    match (queue.options.dedup_for, row.dedup_key) {
        (Some(_), Some(key)) => Ok(keys::holder(queue, key)? == Some(msg_id)),
        _ => Ok(false),
    }
}

/// Sends a message unless its dedup key is taken.
fn send_once(queue: &Queue, row: &NewRow<'_>, number: Option<i64>) -> Result<Sent, Error> {
    let (Some(window), Some(key)) = (queue.options.dedup_for, row.dedup_key) else {
        return send_unless_live(queue, row, number);
    };
    let table = &queue.table.live;
    let number = number.or_else(|| table.has_sequence().then(|| table.next_number()));
    let until = row.enqueued_at.saturating_add(window);
    if let Some(taken) = keys::take(queue, key, number.unwrap_or(0), row.enqueued_at, until)? {
        return Ok(Sent::Taken(taken));
    }
    let sent = send_unless_live(queue, row, number)?;
    match sent {
        // A trigger may have given it another one.
        Sent::Stored(entry) if number != Some(entry.msg_id) => keys::note(queue, key, entry.msg_id)?,
        Sent::Stored(_) => {}
        // By one that has lived longer than its key was taken.
        Sent::Taken(_) => keys::give_up(queue, key)?,
    }
    Ok(sent)
}

/// Sends a message unless a live one has its dedup key; one that is used up gives way, and where the queue has it so, one that
/// a consumer has.
fn send_unless_live(queue: &Queue, row: &NewRow<'_>, number: Option<i64>) -> Result<Sent, Error> {
    let relation = queue.table.live.relation;
    for _ in 0..TRIES {
        let sent = insert_by_key(queue, row, number)?;
        if let Some(sent) = sent {
            return Ok(Sent::Stored(sent));
        }
        let mut taken = None;
        as_owner_of(relation, || {
            read_rows(
                &format!("SELECT msg_id FROM {} WHERE dedup_key OPERATOR(pg_catalog.=) $1", queue.relation("q_")),
                &[Parameter::TextArgument(row.dedup_key)],
                |row| {
                    taken = row.get::<i64>(1)?;
                    Ok(())
                },
            )
        })?;
        if let Some(taken) = taken
            && !bury::bury_holder(queue, taken)?
            && !(queue.options.dedup_waiting && supersede(queue, taken, row.dedup_key)?)
        {
            return Ok(Sent::Taken(taken));
        }
        // It was finished in between, is buried or has given it up: the key is free again.
        server::check_for_interrupts();
    }
    Err(suppressed(queue))
}
