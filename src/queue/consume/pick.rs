//! Reading messages whose numbers the caller knows; and messages that are this transaction's own.

use super::bury;
use super::claim::with_claim;
use super::fail::Undelivered;
use super::reader::{LEASES, ReadRequest, Reader, TIMERS, require_read};
use crate::error::Error;
use crate::pg::fmgr::{Rows, Value};
use crate::pg::{latch, server};
use crate::queue::handle::Queue;
use crate::queue::name::missing;
use crate::queue::pending::written_here;
use enough_engine::queue::{Delivery, Found, Picked, Tid};
use std::cell::Cell;
use std::collections::HashSet;
use std::rc::Rc;

/// Locks the queue's table for a call; fails where another table has the name by now.
fn locked(queue: &Queue, write: bool) -> Result<Rc<Queue>, Error> {
    let current = Queue::open_locked(queue.name.as_bytes(), write)?;
    if current.table.live.relation == queue.table.live.relation { Ok(current) } else { Err(missing(&queue.name)) }
}

/// Reads those of the messages that are ready into `rows`, in the order of `numbers`. Waits for nothing.
pub(in crate::queue) fn read_these(
    queue: &Queue,
    numbers: &[i64],
    wish: &ReadRequest,
    rows: &mut Rows<'_>,
) -> Result<(), Error> {
    require_read(queue, wish)?;
    let current = locked(queue, false)?;
    let waited = Cell::new(false);
    let mut reader = Reader::new(&current, wish, &waited);
    // All that has run out by now.
    while !current.index_and_wake(|index, slot, wake| index.expire(slot, server::now(), TIMERS, wake))? {
        server::check_for_interrupts();
    }
    for chunk in numbers.chunks(LEASES) {
        let picked = pick(&mut reader, &current, chunk, wish)?;
        reader.deliver_all(&picked, rows)?;
        server::check_for_interrupts();
    }
    reader.put_back_hidden()?;
    if reader.used_up { bury::bury_some(&current) } else { Ok(()) }
}

/// Leases those that are ready, in the order of `numbers`.
fn pick(reader: &mut Reader<'_>, queue: &Queue, numbers: &[i64], wish: &ReadRequest) -> Result<Vec<Delivery>, Error> {
    // Under the lock nothing is allocated.
    let (mut taken, mut unknown) = (Vec::with_capacity(numbers.len()), Vec::with_capacity(numbers.len()));
    lease(reader, queue, numbers, wish, &mut taken, &mut unknown)?;
    if taken.len() < numbers.len() && reader.settle()? {
        // What is decided may be ready.
        let others: Vec<i64> = numbers.iter().copied().filter(|id| taken.iter().all(|one| one.msg_id != *id)).collect();
        let mut more = Vec::with_capacity(others.len());
        lease(reader, queue, &others, wish, &mut more, &mut unknown)?;
        taken.append(&mut more);
    }
    if unknown.is_empty() {
        return Ok(taken);
    }
    let entries: Vec<_> = {
        let table = reader.table()?;
        let rows = unknown.iter().filter_map(|&msg_id| table.fetch(msg_id, Tid::default()));
        // One that this transaction has written becomes a message when it commits.
        rows.filter(|row| !row.is_own() && row.deliver_at.is_none_or(|at| at <= server::now()))
            .map(|row| (row.entry(), row.enqueued_at))
            .collect()
    };
    let mut outside = Vec::with_capacity(entries.len());
    let no_room = queue.index_and_wake(|index, slot, wake| {
        let now = server::now();
        outside.clear();
        for (entry, sent) in &entries {
            match index.found(slot, entry, (*sent).min(now), wake)? {
                Found::Brought | Found::Known => outside.push(entry.msg_id),
                Found::Other => {}
                Found::NoRoom => return Ok(true),
            }
        }
        Ok(false)
    })?;
    if no_room && taken.is_empty() && outside.is_empty() && reader.got == 0 {
        return Err(Error::QueueMemory);
    }
    let mut others = Vec::with_capacity(outside.len());
    lease(reader, queue, &outside, wish, &mut others, &mut unknown)?;
    taken.append(&mut others);
    let place = |one: &Delivery| numbers.iter().position(|&msg_id| msg_id == one.msg_id);
    taken.sort_by_cached_key(place);
    Ok(taken)
}

/// Leases those that are in the index and ready; `unknown` are those that it doesn't know.
fn lease(
    reader: &mut Reader<'_>,
    queue: &Queue,
    numbers: &[i64],
    wish: &ReadRequest,
    taken: &mut Vec<Delivery>,
    unknown: &mut Vec<i64>,
) -> Result<(), Error> {
    let (used_up, durable, in_doubt) = queue.index_and_wake(|index, slot, wake| {
        let now = server::now();
        taken.clear();
        unknown.clear();
        let timeout = match wish.timeout {
            Some(timeout) => timeout,
            None => index.options(slot)?.visibility_timeout,
        };
        for &msg_id in numbers {
            match index.pick(slot, msg_id, latch::process(), now, timeout, wake)? {
                Picked::Leased(one) => taken.push(one),
                Picked::NotReady => {}
                Picked::Unknown => unknown.push(msg_id),
            }
        }
        index.delivered(slot, taken.len())?;
        if !taken.is_empty() {
            index.watch(slot, now, wake)?;
        }
        Ok((index.has_used_up(slot)?, index.durable_attempts(slot)?, index.in_doubt(slot)?))
    })?;
    reader.used_up |= used_up;
    reader.durable = durable;
    reader.in_doubt = in_doubt;
    Ok(())
}

/// Reads messages into `rows` that this transaction has written and nobody else sees yet. They get their deliveries and the
/// end of their leases written into their rows: so it is known of them what is known of others, once the transaction
/// commits. Those of groups wait for that, because their order is the index's. With `only`, none but these.
pub(in crate::queue) fn read_own(
    queue: &Queue,
    wish: &ReadRequest,
    only: Option<&[i64]>,
    rows: &mut Rows<'_>,
) -> Result<(), Error> {
    require_read(queue, wish)?;
    let only: Option<HashSet<i64>> = only.map(|numbers| numbers.iter().copied().collect());
    let mut numbers = written_here(queue.key);
    numbers.retain(|number| only.as_ref().is_none_or(|only| only.contains(number)));
    if numbers.is_empty() {
        return Ok(());
    }
    let current = locked(queue, true)?;
    let options = current.index(|index, slot| index.options(slot))?;
    if options.paused {
        return Ok(());
    }
    let table = current.open_table(true)?;
    let mut left = wish.qty;
    for &msg_id in &numbers {
        if left == 0 {
            break;
        }
        server::check_for_interrupts();
        let Some(row) = table.fetch(msg_id, Tid::default()) else { continue };
        let now = server::now();
        let attempts = row.attempts.max(0).cast_unsigned();
        let due = row.deliver_at.is_none_or(|at| at <= now);
        if !row.is_own() || !due || row.group_key.is_some() || attempts >= options.max_attempts {
            continue;
        }
        let until = now.saturating_add(wish.timeout.unwrap_or(options.visibility_timeout));
        let attempts = attempts + 1;
        let leased = with_claim(&current, &table, msg_id, None, |claim| {
            Undelivered { msg_id, error: None, attempts, deliver_at: until, released: true }
                .write(&current, &table, claim)
        })?;
        if leased.is_none() {
            continue;
        }
        left -= 1;
        rows.push(&[
            Value::I64(msg_id),
            Value::I32(i32::try_from(attempts).unwrap_or(i32::MAX)),
            Value::Instant(row.enqueued_at),
            Value::Instant(until),
            Value::Null,
            Value::I16(row.priority),
            Value::Null,
            Value::or_null(row.headers, Value::Raw),
            Value::or_null(row.message, Value::Raw),
        ])?;
    }
    Ok(())
}
