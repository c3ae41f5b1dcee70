//! Finding what has changed in a queue's table behind the index's back: by COPY, a restore, replication, an UPDATE or DELETE
//! by hand.

use crate::error::Error;
use crate::pg::server;
use crate::pg::table::snapshot::Latest;
use crate::queue::handle::Queue;
use crate::queue::heap::rows::OpenTable;
use crate::queue::heap::scan::{Order, Scanned};
use crate::queue::inspect::stats;
use crate::queue::pending;
use enough_engine::queue::{Entry, Found, Listed, Maintenance, Range, Tid};

/// Rows that are compared under one hold of the lock.
const BATCH: usize = 64;
/// Messages of the index that are listed under one hold of the lock.
const LISTED: usize = 256;

/// Compares a queue's table with its index, from where an earlier run has stopped (`reached`), until `deadline`; how many
/// messages were found. `whole` becomes false where there is more to be seen. Holds each lock for a batch of rows at the most.
/// The table is locked.
pub(in crate::queue) fn queue(
    queue: &Queue,
    reached: &mut Maintenance,
    deadline: i64,
    whole: &mut bool,
) -> Result<i64, Error> {
    let mut found = 0;
    for (order, from) in [(Order::Number, &mut reached.number), (Order::Time, &mut reached.time)] {
        if server::now() > deadline {
            *whole = false;
            break;
        }
        let (messages, stopped) = one(queue, order, *from, deadline)?;
        found += messages;
        *from = stopped.unwrap_or(0);
        *whole &= stopped.is_none();
    }
    if found > 0 {
        // They weren't counted when they came: the next call of queue_stats counts.
        queue.index(|index, slot| index.start_counting(slot))?;
    }
    found += look_for_gone(queue, deadline, whole)?;
    Ok(found)
}

/// Counts the tables again where that is due, with their owners' rights, as all of maintenance; before the visit has changed
/// any row.
pub(in crate::queue) fn count_again(queue: &Queue) -> Result<(), Error> {
    let due = queue.index(|index, slot| index.should_count(slot, server::now()))?;
    if due && !pending::is_waiting(queue.key) {
        stats::recount(queue)?;
    }
    Ok(())
}

/// Compares the messages in the index with the rows of the queue's table: what has vanished behind the index's back, or has
/// another row by now, is forgotten. How many those were.
fn look_for_gone(queue: &Queue, deadline: i64, whole: &mut bool) -> Result<i64, Error> {
    let table = queue.open_table(false)?;
    let (mut gone, mut from) = (0, Some(0));
    let mut listed = Vec::with_capacity(LISTED);
    while let Some(next) = from {
        if server::now() > deadline {
            *whole = false;
            break;
        }
        server::check_for_interrupts();
        from = queue.index(|index, slot| {
            listed.clear();
            index.list_from(slot, next, &mut listed)
        })?;
        for one in &listed {
            gone += i64::from(forget_gone(queue, &table, one)?);
        }
    }
    Ok(gone)
}

/// Forgets a message if its row is gone.
fn forget_gone(queue: &Queue, table: &OpenTable<'_>, one: &Listed) -> Result<bool, Error> {
    let row = table.fetch(one.msg_id, one.tid);
    let there = row.as_ref().is_some_and(|row| one.tag.matches(row.tag()));
    if there || queue.table.live.own_storage || table.is_there_for_others(one.msg_id, one.tag) {
        return Ok(false);
    }
    queue.index_and_wake(|index, slot, wake| {
        index.drop_vanished(slot, one.msg_id, one.tag, server::now(), wake)?;
        // Nobody has counted that its row went.
        index.start_counting(slot)
    })?;
    row.map_or(Ok(()), |row| queue.meet(&row))?;
    Ok(true)
}

/// The same in one order from above `from` on (0: from the beginning); how many were found, and where it has stopped before the end.
fn one(queue: &Queue, order: Order, from: i64, deadline: i64) -> Result<(i64, Option<i64>), Error> {
    let [numbers, times] = queue.index(|index, slot| index.outlying(slot))?;
    // What is in it is found by the next refill.
    let outlying = match order {
        Order::Number | Order::Group(_) => numbers,
        Order::Time => times,
    };
    if outlying == Some(Range { after: i64::MIN, end: i64::MAX }) {
        return Ok((0, None));
    }
    let table = queue.open_table(false)?;
    let mut batch: Vec<Entry> = Vec::with_capacity(BATCH);
    let (mut found, mut failure, mut stopped) = (0, None, None);
    // The place of the last row that was looked at, of which in the order of time there may be several.
    let mut last = i64::MIN;
    let range = Range { after: if from == 0 { i64::MIN } else { from }, end: i64::MAX };
    table.scan(&Latest::of_others(), order, range, |scanned| {
        let Scanned::Message(entry, _) = scanned else { return true };
        let place = match order {
            Order::Number | Order::Group(_) => entry.msg_id,
            Order::Time => entry.deliver_at.unwrap_or(i64::MIN),
        };
        if outlying.is_some_and(|outlying| outlying.has(place)) {
            return outlying.is_some_and(|outlying| outlying.end != i64::MAX);
        }
        if place > last && batch.is_empty() && last != i64::MIN && server::now() > deadline {
            // 0 stands for the beginning.
            stopped = Some(if last == 0 { -1 } else { last });
            return false;
        }
        last = place;
        batch.push(*entry);
        if batch.len() < BATCH {
            return true;
        }
        match flush(queue, &table, &mut batch) {
            Ok(new) => found += new,
            Err(error) => failure = Some(error),
        }
        failure.is_none()
    });
    match failure {
        Some(error) => Err(error),
        None => Ok((found + flush(queue, &table, &mut batch)?, stopped)),
    }
}

fn flush(queue: &Queue, table: &OpenTable<'_>, batch: &mut Vec<Entry>) -> Result<i64, Error> {
    // Under the lock nothing is allocated.
    let mut others = Vec::with_capacity(batch.len());
    let found = queue.index_and_wake(|index, slot, wake| {
        let (now, mut found) = (server::now(), 0);
        others.clear();
        for entry in batch.iter() {
            match index.reconcile(slot, entry, now, wake)? {
                Found::Brought => found += 1,
                Found::Other => others.push(entry.msg_id),
                Found::Known | Found::NoRoom => {}
            }
        }
        Ok(found)
    })?;
    batch.clear();
    for &msg_id in &others {
        table.fetch(msg_id, Tid::default()).map_or(Ok(()), |row| queue.meet(&row))?;
    }
    Ok(found + others.len() as i64)
}
