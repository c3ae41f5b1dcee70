//! Messages of groups at their delivery: what the index leaves to the table (see `enough_engine`, `queue/group.rs`).

use super::Queue;
use super::pending;
use crate::error::Error;
use crate::segment::rows::{Latest, OpenTable, Order, Row};
use crate::segment::{server, wait};
use enough_engine::queue::{MOST_BLOCKED, Overtaken, Taken};

/// Looks in the table for an earlier message of the group of one that was leased, and lets that one wait for it. Those
/// that open transactions are finishing are passed over.
pub(super) fn overtaken(queue: &Queue, table: &OpenTable<'_>, taken: &Taken, row: &Row) -> Result<Overtaken, Error> {
    let Some(key) = row.group_key else { return Ok(Overtaken::Not) };
    let mut outcome = Ok(Overtaken::Not);
    let scanned = table.scan(&Latest::take(), Order::Group(key), i64::MIN, |earlier| {
        if earlier.msg_id >= row.msg_id {
            return false;
        }
        outcome = queue.index_and_wake(|index, slot, wake| {
            index.overtaken(slot, taken.msg_id, taken.lease, earlier, server::now(), wake)
        });
        matches!(outcome, Ok(Overtaken::Not))
    });
    pending::doubt(queue.key, scanned.own);
    outcome
}

/// Brings the next messages of a group, whose last one in the index is about to be delivered.
pub(super) fn read_on(queue: &Queue, table: &OpenTable<'_>, row: &Row) -> Result<(), Error> {
    let Some(key) = row.group_key else { return Ok(()) };
    let (group, process) = (row.entry().group, wait::process());
    let Some(more) = queue.index(|index, slot| index.start_group(slot, group, process))? else { return Ok(()) };
    let mut entries = Vec::with_capacity(MOST_BLOCKED as usize);
    let scanned = table.scan(&Latest::take(), Order::Group(key), more, |entry| {
        entries.push(*entry);
        entries.len() < MOST_BLOCKED as usize
    });
    pending::doubt(queue.key, scanned.own);
    queue.index(|index, slot| {
        let now = server::now();
        let mut reached = if scanned.ended { i64::MAX } else { entries.last().map_or(more, |last| last.msg_id) };
        let mut last = more;
        for entry in &entries {
            if !index.found_in_group(slot, entry, now)? {
                reached = last;
                break;
            }
            last = entry.msg_id;
        }
        index.end_group(slot, group, process, reached)
    })
}
