//! Reading: leases from the index, rows from the table; refilling the index from the table; waiting.
//!
//! A reader takes messages out of the index under the partition's lock, releases it, and looks at each row. It goes to
//! the table for more only when the index runs dry while the table may hold more; then one reader refills, and any reader that
//! needs the outcome waits for it, so that no read comes back empty while messages are ready.

use super::bury;
use super::reader::{REFILL_SLEEP, ReadRequest, Reader, require_read};
use super::wait::{Stand, stand};
use crate::error::Error;
use crate::pg::catalog;
use crate::pg::fmgr::Rows;
use crate::pg::{latch, server};
use crate::queue::handle::Queue;
use crate::queue::name::missing;
use crate::queue::pending;
use std::cell::Cell;
use std::rc::Rc;

/// A client that has waited for so long may be gone.
const LONG: i64 = 50_000;

/// Reads messages into `rows`.
pub(in crate::queue) fn read(queue: &Rc<Queue>, wish: &ReadRequest, rows: &mut Rows<'_>) -> Result<(), Error> {
    require_read(queue, wish)?;
    let mut deadline = None;
    let waited = Cell::new(false);
    loop {
        if wish.wait > 0 {
            latch::forget_wake_ups();
        }
        let current = Queue::open_locked(queue.name.as_bytes(), wish.delete)?;
        if current.table.live.relation != queue.table.live.relation {
            return Err(missing(&queue.name));
        }
        let deadline = *deadline.get_or_insert_with(|| deadline_of(wish));
        let mut reader = Reader::new(&current, wish, &waited);
        let queue_state = reader.attempt(rows)?;
        reader.put_back_hidden()?;
        if queue_state.is_none() || server::now() >= deadline {
            if queue_state.is_some() && waited.get() {
                reader.retire()?;
            }
            // Not before: a reader that waits has nothing open that others would wait for.
            return if reader.used_up { bury::bury_some(&current) } else { Ok(()) };
        }
        // Without a lock on the table, so that it can be altered, cleaned and dropped while this session sleeps.
        reader.unlock();
        catalog::unlock(current.table.live.relation, wish.delete);
        reader.sleep(deadline)?;
    }
}

/// Reads messages of several queues into `rows`, each with its queue's name: of an earlier one before those of a later one.
/// Where none has any, waits for the first of any of them.
pub(in crate::queue) fn read_any(queues: &[Rc<Queue>], wish: &ReadRequest, rows: &mut Rows<'_>) -> Result<(), Error> {
    queues.iter().try_for_each(|queue| require_read(queue, wish))?;
    let deadline = deadline_of(wish);
    let waited = Cell::new(false);
    // Queues that have woken this session, so that it has to see to what is ready in them.
    let mut woken = vec![false; queues.len()];
    loop {
        if wish.wait > 0 {
            latch::forget_wake_ups();
        }
        let (mut got, mut patience, mut used_up) = (0, i64::MAX, Vec::new());
        for (queue, woken) in queues.iter().zip(&mut woken) {
            if got == wish.qty {
                // What it was woken for is another one's to read.
                if std::mem::take(woken) {
                    queue.index_and_wake(|index, slot, wake| index.forward_wakeup(slot, wake))?;
                }
                continue;
            }
            let current = Queue::open_locked(queue.name.as_bytes(), wish.delete)?;
            if current.table.live.relation != queue.table.live.relation {
                return Err(missing(&queue.name));
            }
            if server::now().saturating_sub(server::statement_began()) > LONG {
                // It may have waited for a lock on the table, or for long, and its client have given up.
                latch::check_client();
            }
            let rest = ReadRequest { qty: wish.qty - got, ..*wish };
            let mut reader = Reader::new(&current, &rest, &waited);
            reader.names = true;
            match reader.attempt(rows) {
                // What was read before is the caller's.
                Err(Error::QueueMemory) if got > 0 => {}
                attempted => drop(attempted?),
            }
            reader.put_back_hidden()?;
            *woken = false;
            got += reader.got;
            if !reader.hidden.is_empty() {
                patience = patience.min(reader.patience());
            }
            reader.unlock();
            if reader.used_up {
                used_up.push(Rc::clone(&current));
            }
            if reader.got == 0 {
                catalog::unlock(current.table.live.relation, wish.delete);
            }
        }
        if got > 0 || server::now() >= deadline {
            return used_up.iter().try_for_each(|queue| bury::bury_some(queue));
        }
        stand_in_all(queues, deadline, patience, &mut woken)?;
    }
}

/// Sleeps in the lists of all queues, `patience` microseconds at the most, until one of them may have something to read.
/// Tells which have woken this session.
fn stand_in_all(queues: &[Rc<Queue>], deadline: i64, patience: i64, woken: &mut [bool]) -> Result<(), Error> {
    let process = latch::process();
    let now = server::now();
    let mut alarm = deadline.min(now.saturating_add(patience.min(latch::patience(now))));
    let mut places = Vec::with_capacity(queues.len());
    for queue in queues {
        match stand(queue, process, |_| alarm)? {
            Stand::In(place) => {
                alarm = alarm.min(place.alarm);
                pending::waiting_too(queue.key, place.record);
                places.push(Some(place.record));
            }
            Stand::NoRoom => {
                alarm = alarm.min(now.saturating_add(REFILL_SLEEP));
                places.push(None);
            }
            Stand::NotIdle => {
                alarm = now;
                break;
            }
        }
    }
    let left = alarm.saturating_sub(server::now());
    if left > 0 {
        latch::sleep(left);
    }
    for ((queue, place), woken) in queues.iter().zip(places).zip(woken) {
        let Some(place) = place else { continue };
        *woken = queue.index_and_wake(|index, slot, wake| {
            let there = index.leave(slot, place, process)?;
            if there {
                index.watch(slot, server::now(), wake)?;
            }
            Ok(!there)
        })?;
    }
    pending::left();
    Ok(())
}

/// When a read that begins now gives up.
fn deadline_of(wish: &ReadRequest) -> i64 {
    let now = server::now();
    if now.saturating_sub(server::statement_began()) > LONG {
        // It may have waited for a lock on the table, and its client have given up.
        latch::check_client();
    }
    now.saturating_add(wish.wait)
}
