//! A refill: rows from the table into the index.
//!
//! It scans the table as all others see it. So what it tells the index is true whether its own transaction commits or not:
//! what that has sent comes at its commit, as any sender's, and what it has deleted is set aside, or noted as passed over.

use crate::error::Error;
use crate::pg::table::snapshot::Latest;
use crate::pg::{latch, server};
use crate::queue::handle::Queue;
use crate::queue::heap::rows::OpenTable;
use crate::queue::heap::scan::{Order, Scanned};
use crate::queue::pending;
use enough_engine::queue::{Entry, Found, Range, Refill, Tid};

/// Rows that a refill puts into the index under one hold of the lock.
const BATCH: usize = 64;
/// A refill that has brought something ends after so many rows for each message that it may bring: most rows that it
/// passes over are behind the heads of their groups.
const ROWS_A_MESSAGE: u64 = 16;
/// Delayed rows that a refill passes by before it notes how far it has come.
const NOTED: u64 = 1024;

/// Scans the table for what the index lacks. False where there is something and not a single message found room.
pub(in crate::queue) fn refill(queue: &Queue, table: &OpenTable<'_>, refill: &Refill) -> Result<bool, Error> {
    // One snapshot for both scans: a row whose delivery time is changed by hand in between is in one of them.
    let snapshot = Latest::of_others();
    let mut progress = Progress {
        queue,
        table,
        snapshot: &snapshot,
        soon: refill.soon,
        limit: refill.limit,
        brought: 0,
        rows: 0,
        passed: 0,
        refused: false,
        batch: Vec::with_capacity(BATCH),
        numbers: None,
        times: None,
    };
    // What is due first: the others find their places behind it by when they were sent. Where not all of that has been
    // brought, they wait for another refill.
    let now = server::now();
    if let Some(times) = refill.times {
        progress.scan(Order::Time, times)?;
    }
    let by_time = std::mem::take(&mut progress.brought);
    if let Some(numbers) = refill.numbers.filter(|_| progress.times.is_none_or(|reached| reached >= now)) {
        progress.scan(Order::Number, numbers)?;
    }
    let (brought, refused) = (by_time + progress.brought, progress.refused);
    let (frontier, horizon) = (progress.numbers, progress.times);
    let process = latch::process();
    let ready = queue.index_and_wake(|index, slot, wake| {
        index.end_refill(slot, process, frontier, horizon, wake)?;
        // At a time when nothing is due: only the ready ones are asked for.
        Ok(index.queue_state(slot, 1, i64::MIN)?.ready)
    })?;
    Ok(!refused || brought > 0 || ready > 0)
}

struct Progress<'q, 't> {
    queue: &'q Queue,
    table: &'q OpenTable<'t>,
    snapshot: &'q Latest,
    /// What is due later needn't be brought.
    soon: i64,
    limit: u64,
    /// By the current scan.
    brought: u64,
    /// That the current scan has seen.
    rows: u64,
    /// The same of rows that it needn't bring: delayed ones in the order of numbers, later ones in that of times.
    passed: u64,
    /// Whether a row that is due found no room in the index.
    refused: bool,
    /// Rows, each with when it was sent; `None` where this transaction has deleted it.
    batch: Vec<(Entry, Option<i64>)>,
    /// How far the scans have come, by number and by time; `i64::MAX` for the end of the range.
    numbers: Option<i64>,
    times: Option<i64>,
}

impl Progress<'_, '_> {
    /// Scans a range in one order, and notes how far it has come.
    fn scan(&mut self, order: Order, range: Range) -> Result<(), Error> {
        (self.brought, self.rows, self.passed) = (0, 0, 0);
        self.batch.clear();
        self.note(order, range.after);
        let mut outcome = Ok(true);
        let (table, snapshot) = (self.table, self.snapshot);
        let ended = table.scan(snapshot, order, range, |scanned| {
            outcome = self.step(order, scanned);
            matches!(outcome, Ok(true))
        });
        outcome?;
        if ended && self.flush(order)? {
            self.note(order, i64::MAX);
        }
        Ok(())
    }

    /// Takes in a row; whether the scan is to go on.
    fn step(&mut self, order: Order, scanned: Scanned<'_>) -> Result<bool, Error> {
        match scanned {
            Scanned::Message(entry, _) | Scanned::Deleted(entry) => {
                let sent = if let Scanned::Message(_, sent) = scanned { Some(sent) } else { None };
                self.batch.push((*entry, sent));
                self.passed += u64::from(order == Order::Time && entry.deliver_at.is_some_and(|at| at > self.soon));
                let far = order == Order::Time && self.passed >= self.limit;
                if self.batch.len() < BATCH && !far {
                    return Ok(true);
                }
                Ok(self.flush(order)? && !far && !self.enough())
            }
            Scanned::Delayed(number) => {
                self.passed += 1;
                if !self.passed.is_multiple_of(NOTED) {
                    return Ok(true);
                }
                let room = self.flush(order)?;
                if room {
                    self.note(order, number);
                }
                Ok(room)
            }
        }
    }

    fn note(&mut self, order: Order, reached: i64) {
        match order {
            Order::Number | Order::Group(_) => self.numbers = Some(reached),
            Order::Time => self.times = Some(reached),
        }
        pending::scanned(self.numbers, self.times);
    }

    /// Whether the current scan has brought what one refill should.
    fn enough(&self) -> bool {
        self.brought >= self.limit || (self.brought > 0 && self.rows >= self.limit * ROWS_A_MESSAGE)
    }

    /// Puts the batch into the index; false where one of it found no room, or has to wait.
    fn flush(&mut self, order: Order) -> Result<bool, Error> {
        let batch = std::mem::take(&mut self.batch);
        // Under the lock nothing is allocated.
        let (mut others, mut passed) = (Vec::with_capacity(batch.len()), Vec::with_capacity(batch.len()));
        let (new, stopped) = self.queue.index_and_wake(|index, slot, wake| {
            let (now, mut new) = (server::now(), 0);
            others.clear();
            passed.clear();
            for (entry, sent) in &batch {
                let Some(sent) = *sent else {
                    // One that is known is set aside for this transaction, most likely.
                    if !index.knows(slot, entry.msg_id)? {
                        passed.push(*entry);
                    }
                    continue;
                };
                if index.comes_second(slot, entry, now)? {
                    return Ok((new, Some((*entry, false))));
                }
                // It stands behind what was due when it was sent, and before what has come due since.
                let since = if entry.deliver_at.is_none() { sent.min(now) } else { now };
                match index.found(slot, entry, since, wake)? {
                    Found::Brought => new += 1,
                    Found::Known => {}
                    Found::Other => others.push(entry.msg_id),
                    Found::NoRoom => return Ok((new, Some((*entry, true)))),
                }
            }
            Ok((new, None))
        })?;
        for entry in &passed {
            pending::passed_over(self.queue.key, entry);
        }
        for msg_id in others {
            if let Some(row) = self.table.fetch(msg_id, Tid::default()) {
                self.queue.meet(&row)?;
            }
        }
        self.brought += new;
        self.rows += batch.len() as u64;
        // What comes due later has time to find room.
        let is_due = |entry: &Entry| entry.deliver_at.is_none_or(|at| at <= server::now());
        self.refused |= stopped.is_some_and(|(entry, refused)| refused && is_due(&entry));
        // Several rows may share a delivery time: the scan has come to the moment before the last one seen.
        let place = |entry: &Entry| match order {
            Order::Number | Order::Group(_) => entry.msg_id,
            Order::Time => entry.deliver_at.unwrap_or(i64::MIN).saturating_sub(1),
        };
        match (&stopped, batch.last()) {
            (Some((entry, _)), _) if order != Order::Time => self.note(order, entry.msg_id.saturating_sub(1)),
            (Some((last, _)), _) | (None, Some((last, _))) => self.note(order, place(last)),
            (None, None) => {}
        }
        self.batch = batch;
        self.batch.clear();
        Ok(stopped.is_none())
    }
}
