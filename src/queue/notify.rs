//! Telling listeners that an empty queue has become ready, where it has the option `notify`.
//!
//! Whether to tell is decided just before the commit, when NOTIFY still can be had, by what the index knows then; that they were
//! told is noted when it has committed. So a rollback silences nobody, and two transactions that commit at once may both tell.

use crate::pg::notify::notify;
use enough_engine::queue::QueueKey;
use std::cell::RefCell;

thread_local! {
    /// Queues in which this transaction may have made something ready.
    static TOUCHED: RefCell<Vec<(QueueKey, String)>> = const { RefCell::new(Vec::new()) };
}

/// Notes that this transaction makes something ready in a queue, for whose listeners it is to be told.
pub(super) fn touch(key: QueueKey, name: &str) {
    TOUCHED.with_borrow_mut(|touched| {
        if !touched.iter().any(|(known, _)| *known == key) {
            touched.push((key, name.into()));
        }
    });
}

/// Those queues, of which none is noted any more.
pub(super) fn touched() -> Vec<(QueueKey, String)> {
    TOUCHED.take()
}

/// Tells the listeners of a queue when the transaction commits.
pub(super) fn tell(queue: &str) {
    notify(&format!("enough_{queue}"));
}
