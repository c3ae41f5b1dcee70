//! Acknowledgement that doesn't wait for the disk: `queue_create(…, ack => 'async')`.
//!
//! A transaction whose only work is to finish messages of such queues commits without waiting. A crash in the next moments
//! (three times `wal_writer_delay` at most) loses that commit, and the messages are delivered again, which at-least-once
//! allows. A transaction that does anything else waits as ever: all WAL records that it has written since its first call
//! here are compared with those that finishing messages has written, and one more makes it wait.

use crate::pg::{server, wal};
use std::cell::Cell;

/// What is known of the current transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Work {
    /// It has done nothing here.
    None,
    /// It began here with so many WAL records, and of those since then so many are accounted for. `finished`: it has
    /// finished a message.
    Accounted { began: i64, own: i64, finished: bool },
    /// It has written something before its first call here.
    Other,
}

thread_local! {
    static WORK: Cell<Work> = const { Cell::new(Work::None) };
}

/// The WAL at the beginning of a step.
#[derive(Clone, Copy)]
pub(in crate::queue) struct Step {
    records: i64,
    /// Whether the transaction had written before.
    written: bool,
}

impl Step {
    /// Begins one.
    #[inline]
    pub fn begin() -> Self {
        Step { records: wal::records(), written: server::has_written() }
    }

    /// The step has done nothing but to finish a message of a queue with `ack => 'async'`.
    pub fn has_finished(self) {
        self.account(true);
    }

    /// The step has only read: what it has written to the WAL, pruning a page, nobody needs. Not for one that has written rows.
    pub fn has_read(self) {
        if !server::has_written() {
            self.account(false);
        }
    }

    fn account(self, finishes: bool) {
        let written = wal::records().wrapping_sub(self.records);
        WORK.set(match WORK.get() {
            Work::None if self.written => Work::Other,
            Work::None => Work::Accounted { began: self.records, own: written, finished: finishes },
            Work::Accounted { began, own, finished } => {
                Work::Accounted { began, own: own.wrapping_add(written), finished: finished || finishes }
            }
            Work::Other => Work::Other,
        });
    }
}

/// The transaction is about to commit: it doesn't wait where it has done nothing else.
#[inline]
pub(in crate::queue) fn before_commit() {
    if let Work::Accounted { began, own, finished: true } = WORK.get()
        && wal::records().wrapping_sub(began) == own
    {
        wal::let_commit_not_wait();
    }
}

/// The transaction has ended.
#[inline]
pub(in crate::queue) fn ended() {
    WORK.set(Work::None);
    wal::restore();
}
