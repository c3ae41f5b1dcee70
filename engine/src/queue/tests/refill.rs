//! The model's scans of a table, a few rows at a time, so that anything may happen in between.

use super::check::walk;
use super::model::World;
use crate::queue::{Decision, Entry, Found, Refill, Wake};

/// How far a scan in one order has come.
#[derive(Debug, Default)]
struct Run {
    /// Rows of the snapshot still to come, with their place in the order.
    left: Vec<(i64, Entry)>,
    /// Everything up to here has been scanned.
    reached: i64,
    brought: u64,
    over: bool,
}

/// A refill.
#[derive(Debug)]
pub(super) struct Scan {
    pub process: u32,
    /// Whether a session does it that waits for a message and will look for one at the end.
    pub reader: bool,
    refill: Refill,
    /// After the snapshot: rows with a delivery time, then, where all that were due then have been brought, rows without one.
    runs: Option<[Option<Run>; 2]>,
    /// When the snapshot was taken.
    began: i64,
    refused: bool,
}

impl World<'_> {
    /// Takes the refill mark; the snapshot comes later.
    pub fn start_refill(&mut self, q: usize, process: u32, reader: bool) {
        let Some(slot) = self.queues[q].slot else { return };
        let begun = self.p.start_refill(slot, process, self.now, None).unwrap();
        let queue = &mut self.queues[q];
        assert_eq!(begun.is_none(), queue.refill.is_some(), "one refill at a time");
        if let Some(refill) = begun {
            queue.refused = false;
            queue.refill = Some(Scan { process, reader, refill, runs: None, began: self.now, refused: false });
        }
    }

    /// Another session takes over from one that is gone.
    pub fn take_over(&mut self, q: usize) {
        let Some(slot) = self.queues[q].slot else { return };
        let process = self.process();
        let queue = &mut self.queues[q];
        let Some(gone) = queue.refill.take() else { return };
        assert_eq!(self.p.queue_state(slot, 1, self.now).unwrap().refiller, Some(gone.process));
        assert_eq!(self.p.start_refill(slot, process, self.now, Some(gone.process + 1000)), Ok(None));
        let refill = self.p.start_refill(slot, process, self.now, Some(gone.process)).unwrap().unwrap();
        queue.refill = Some(Scan { process, reader: false, refill, runs: None, began: self.now, refused: false });
        // The one that was thought gone comes back: its end changes nothing.
        let mut wake = Wake::default();
        self.p.end_refill(slot, gone.process, Some(i64::MAX), Some(i64::MAX), &mut wake).unwrap();
        assert!(wake.processes().is_empty());
    }

    /// The refill sees what is committed now.
    pub fn snapshot(&mut self, q: usize) {
        let queue = &mut self.queues[q];
        let Some(scan) = &mut queue.refill else { return };
        if scan.runs.is_some() {
            return;
        }
        scan.began = self.now;
        let numbers = scan.refill.numbers.map(|range| {
            let rows = queue.rows.values().filter(|row| row.deliver_at.is_none() && range.has(row.msg_id));
            Run { left: rows.map(|row| (row.msg_id, *row)).collect(), reached: range.after, ..Run::default() }
        });
        let times = scan.refill.times.map(|range| {
            let rows = queue.rows.values().filter_map(|row| Some((row.deliver_at?, *row)));
            let mut left: Vec<_> = rows.filter(|(at, _)| range.has(*at)).collect();
            left.sort_by_key(|(at, row)| (*at, row.msg_id));
            Run { left, reached: range.after, ..Run::default() }
        });
        scan.runs = Some([times, numbers]);
    }

    /// Scans some rows.
    pub fn scan(&mut self, q: usize, rows: usize) {
        self.snapshot(q);
        for _ in 0..rows {
            let queue = &mut self.queues[q];
            let (Some(slot), Some(scan)) = (queue.slot, &mut queue.refill) else { return };
            let limit = scan.refill.limit;
            if let Some([Some(later), Some(after)]) = &mut scan.runs {
                after.over |= later.over && later.reached < scan.began;
            }
            let Some(run) = scan.runs.iter_mut().flatten().flatten().find(|run| !run.over) else { return };
            let Some((place, entry)) = run.left.first().copied() else {
                (run.reached, run.over) = (i64::MAX, true);
                continue;
            };
            if self.p.comes_second(slot, &entry, self.now).unwrap() {
                (run.reached, run.over) = (place - 1, true);
                continue;
            }
            let (mut wake, mut other) = (Wake::default(), None);
            let sent = queue
                .committed
                .get(&entry.msg_id)
                .filter(|_| entry.deliver_at.is_none())
                .map_or(self.now, |sent| sent.0.min(self.now));
            let found = self.p.found(slot, &entry, sent, &mut wake).unwrap();
            if found == Found::NoRoom {
                run.reached = place - 1;
                run.over = true;
                scan.refused = true;
            } else {
                run.left.remove(0);
                run.brought += u64::from(found == Found::Brought);
                other = (found == Found::Other).then_some(entry.msg_id);
                // Rows with the same delivery time are scanned together, or a later scan would begin among them.
                match run.left.first() {
                    Some((next, _)) if *next == place => run.reached = place - 1,
                    next => {
                        run.reached = place;
                        run.over = run.brought >= limit && next.is_some();
                    }
                }
            }
            self.woke(&wake);
            // What gives way to one row may be brought back by the next one.
            self.queues[q].note_replaced(&walk(&self.p)[&slot]);
            if let Some(row) = other.and_then(|id| self.queues[q].rows.get(&id).copied()) {
                self.meet(q, &row, false);
            }
        }
    }

    /// Ends the refill wherever it is. A session that did it in order to read goes on.
    pub fn end_refill(&mut self, q: usize) {
        let queue = &mut self.queues[q];
        let (Some(slot), Some(scan)) = (queue.slot, queue.refill.take()) else { return };
        let [horizon, frontier] = scan.runs.unwrap_or_default().map(|run| run.map(|run| run.reached));
        queue.refused = scan.refused;
        let mut wake = Wake::default();
        self.p.end_refill(slot, scan.process, frontier, horizon, &mut wake).unwrap();
        self.woke(&wake);
        if scan.reader {
            self.act(q, scan.process);
        }
    }

    /// A refill without anything in between; whether it stopped for lack of room.
    pub fn refill(&mut self, q: usize) -> bool {
        let process = self.process();
        self.start_refill(q, process, false);
        self.scan(q, usize::MAX);
        self.end_refill(q);
        self.queues[q].refused
    }

    /// Everything that was sent can be had, from wherever the history stopped.
    pub fn drain(&mut self) {
        for q in 0..self.queues.len() {
            self.pause(q, false);
            self.limit_flight(q, 0);
            self.limit_group_rate(q, 0);
            self.queues[q].open.clear();
            while !self.queues[q].unannounced.is_empty() {
                self.announce(q, 0);
            }
            while !self.queues[q].prepared.is_empty() {
                self.decide(q, 0, Decision::RolledBack);
            }
            while !self.queues[q].busy.is_empty() {
                self.end_delete(q, 0, false);
            }
            self.take_over(q);
            self.end_refill(q);
            self.attach(q);
        }
        for q in 0..self.queues.len() {
            self.reconcile(q);
        }
        // After a year every rest, delay and lease is over.
        self.tick(365 * 86_400 * 1_000_000);
        self.expire(self.p.records);
        self.check();
        for q in 0..self.queues.len() {
            if self.queues[q].slot.is_none() {
                continue;
            }
            let mut rounds = 0;
            while !self.queues[q].rows.is_empty() {
                rounds += 1;
                assert!(rounds < 2000, "{:?} are never delivered", self.queues[q].rows.keys());
                // What came behind something that was due is due a moment later.
                self.now += 1;
                self.expire(self.p.records);
                if self.read(q, 10) == 0 {
                    self.refill(q);
                }
                self.start_burial(q, 10);
                while !self.queues[q].busy.is_empty() {
                    self.end_delete(q, 0, true);
                }
                let shape = walk(&self.p);
                let queue = &mut self.queues[q];
                queue.note_replaced(&shape[&queue.slot.unwrap()]);
                while let Some((_, id, _)) = self.lease(q, 0) {
                    self.start_delete(q, 0);
                    if self.queues[q].busy.contains_key(&id) {
                        self.end_delete(q, 0, true);
                    }
                }
            }
            self.check();
        }
    }
}
