//! What the index leaves to the table of a group: which message is the next, and whether an earlier one is there. Why no
//! message is missed is said in `enough_engine`, `queue/probe.rs`.

use crate::error::Error;
use crate::pg::table::snapshot::Latest;
use crate::pg::{latch, server};
use crate::queue::handle::Queue;
use crate::queue::heap::rows::{OpenTable, Row};
use crate::queue::heap::scan::{Order, Scanned};
use crate::queue::pending::passed_over;
use enough_engine::queue::{Delivery, Entry, Offered, Range, Yielded};
use pgrx::pg_sys::Datum;

/// Looks in the table for an earlier message of the group of one that was leased, and lets that one go first. One that an
/// open transaction is finishing is passed over.
pub(in crate::queue) fn look_for_earlier(
    queue: &Queue,
    table: &OpenTable<'_>,
    taken: &Delivery,
    row: &Row,
) -> Result<Yielded, Error> {
    let Some(key) = row.group_key else { return Ok(Yielded::Passed) };
    let mut outcome = Ok(Yielded::Passed);
    let before = Range { after: i64::MIN, end: row.msg_id.saturating_sub(1) };
    scan(queue, table, key, before, |earlier| {
        outcome = queue.index_and_wake(|index, slot, wake| {
            index.yield_to(slot, taken.msg_id, taken.lease, earlier, server::now(), wake)
        });
        matches!(outcome, Ok(Yielded::Passed))
    })?;
    if matches!(outcome, Ok(Yielded::Passed)) {
        let group = row.entry().group;
        queue.index_and_wake(|index, slot, wake| index.comes_first(slot, group, row.msg_id, server::now(), wake))?;
    }
    outcome
}

/// Looks in the table for the next message of a row's group, where this session has been made its prober: behind the
/// number `after`.
pub(in crate::queue) fn look_for_next(
    queue: &Queue,
    table: &OpenTable<'_>,
    row: &Row,
    after: i64,
) -> Result<(), Error> {
    let Some(key) = row.group_key else { return Ok(()) };
    let process = latch::process();
    let mut outcome = Ok(Offered::Busy);
    scan(queue, table, key, Range { after, end: i64::MAX }, |entry| {
        outcome = queue.index_and_wake(|index, slot, wake| index.offer_next(slot, entry, process, server::now(), wake));
        matches!(outcome, Ok(Offered::Busy))
    })?;
    if outcome? == Offered::Busy {
        let group = row.entry().group;
        queue.index_and_wake(|index, slot, wake| index.end_probe(slot, group, process, server::now(), wake))?;
    }
    Ok(())
}

/// Reads a group's rows with numbers in a range, as all others see them, until `each` says that it has enough.
/// Those that this transaction has deleted are passed over.
fn scan(
    queue: &Queue,
    table: &OpenTable<'_>,
    key: Datum,
    range: Range,
    mut each: impl FnMut(&Entry) -> bool,
) -> Result<(), Error> {
    let mut failure = None;
    table.scan(&Latest::of_others(), Order::Group(key), range, |scanned| match scanned {
        Scanned::Message(entry, _) => each(entry),
        Scanned::Deleted(entry) => match queue.index(|index, slot| index.knows(slot, entry.msg_id)) {
            Ok(known) => {
                if !known {
                    passed_over(queue.key, entry);
                }
                true
            }
            Err(error) => {
                failure = Some(error);
                false
            }
        },
        Scanned::Delayed(_) => true,
    });
    failure.map_or(Ok(()), Err)
}

/// The same for a call that takes a message out of its queue by its number, before the transaction commits.
pub(in crate::queue) fn prepare_leaving(queue: &Queue, table: &OpenTable<'_>, row: &Row) -> Result<(), Error> {
    let group = row.entry().group;
    match queue.index(|index, slot| index.start_probe(slot, group, latch::process()))? {
        Some(after) => look_for_next(queue, table, row, after),
        None => Ok(()),
    }
}
