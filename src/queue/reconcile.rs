//! Finding what got into a queue's table behind the index's back: by COPY, a restore, replication, an UPDATE by hand.

use super::{Queue, stats};
use crate::error::Error;
use crate::segment::rows::{Latest, Order};
use crate::segment::server;
use enough_engine::queue::Entry;

const BATCH: usize = 64;

/// Compares every queue's table with its index until `deadline`; how many messages were found, and whether all queues
/// were seen to their end. Holds each lock for a batch of rows at the most.
pub fn all(deadline: i64) -> Result<(i64, bool), Error> {
    let (mut found, mut whole) = (0, true);
    for name in stats::names()? {
        let Ok(queue) = Queue::open(name.as_bytes()) else { continue };
        if !stats::visible(&queue) {
            continue;
        }
        // What is known of the table's indexes must hold while it is scanned.
        let Ok(queue) = Queue::open_locked(name.as_bytes(), false) else { continue };
        let before = found;
        for order in [Order::Number, Order::Time] {
            let (messages, ended) = one(&queue, order, deadline)?;
            found += messages;
            whole &= ended;
        }
        if found > before {
            // They weren't counted when they came: the next call of queue_stats counts.
            queue.index(|index, slot| index.start_counting(slot))?;
        }
    }
    Ok((found, whole))
}

fn one(queue: &Queue, order: Order, deadline: i64) -> Result<(i64, bool), Error> {
    let reach = queue.index(|index, slot| index.reach(slot))?;
    // What lies beyond is found by the next refill.
    let end = match order {
        Order::Number | Order::Group(_) => reach.0,
        Order::Time => reach.1,
    };
    if end == i64::MIN {
        return Ok((0, true));
    }
    let table = queue.open_table(false)?;
    let mut batch: Vec<Entry> = Vec::with_capacity(BATCH);
    let (mut found, mut failure, mut late) = (0, None, false);
    table.scan(&Latest::take(), order, i64::MIN, |entry| {
        let place = match order {
            Order::Number | Order::Group(_) => entry.msg_id,
            Order::Time => entry.deliver_at.unwrap_or(i64::MIN),
        };
        if place > end {
            return false;
        }
        batch.push(*entry);
        if batch.len() < BATCH {
            return true;
        }
        match flush(queue, &mut batch) {
            Ok(new) => found += new,
            Err(error) => failure = Some(error),
        }
        late = server::now() > deadline;
        failure.is_none() && !late
    });
    match failure {
        Some(error) => Err(error),
        None => Ok((found + flush(queue, &mut batch)?, !late)),
    }
}

fn flush(queue: &Queue, batch: &mut Vec<Entry>) -> Result<i64, Error> {
    let found = queue.index_and_wake(|index, slot, wake| {
        let (now, mut found) = (server::now(), 0);
        for entry in batch.iter() {
            found += i64::from(index.reconcile(slot, entry, now, wake)?);
        }
        Ok(found)
    })?;
    batch.clear();
    Ok(found)
}
