//! The tasks of `maintain()`. Each stops at the deadline and says whether it came to its end; many sessions may run them
//! at once. None holds a lock of the segment for longer than a batch of rows.

use crate::error::Error;
use crate::segment::server;
use crate::{cache, cron, queue, rate_limit};

/// What a task did.
pub(super) struct Outcome {
    /// Its name.
    pub task: &'static str,
    /// How many rows, entries or queues it removed or found.
    pub items: i64,
    /// How long it took, in microseconds.
    pub elapsed: i64,
    /// What an administrator may want to know.
    pub note: Option<String>,
}

type Task = (&'static str, fn(i64) -> Result<(i64, bool), Error>);

/// In the order of their worth, because the deadline cuts off the last ones.
const TASKS: [Task; 6] = [
    ("queue_reconcile", queue::reconcile::all),
    ("queue_archive", queue::archive::expire),
    ("queue_forget", queue::archive::forget_dropped),
    ("cache_expired", |deadline| cache::sweep(deadline).map(counted)),
    ("rate_limit_expired", |deadline| rate_limit::sweep(deadline).map(counted)),
    ("cron_notes", |_| cron::trim_notes().map(|items| (items, true))),
];

fn counted((items, whole): (u64, bool)) -> (i64, bool) {
    (i64::try_from(items).unwrap_or(i64::MAX), whole)
}

/// Runs them all, for `max_duration` microseconds at the most.
pub(super) fn run(max_duration: i64) -> Result<Vec<Outcome>, Error> {
    let deadline = server::now().saturating_add(max_duration);
    TASKS
        .iter()
        .map(|(task, work)| {
            let started = server::now();
            let (items, whole) = if started > deadline { (0, false) } else { work(deadline)? };
            server::check_for_interrupts();
            Ok(Outcome {
                task,
                items,
                elapsed: server::now().saturating_sub(started),
                note: (!whole).then(|| "stopped at max_duration; the next run goes on".into()),
            })
        })
        .collect()
}
