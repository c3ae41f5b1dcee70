//! What a transaction's end means for the index.

use enough_engine::queue::{Entry, Options, Range, Tag};

/// What becomes true at commit, or is undone at rollback.
#[derive(Debug, Clone, Copy)]
pub(super) enum Action {
    /// A row was inserted.
    Sent(Entry),
    /// A message was leased to this session: nothing at commit, given back at rollback.
    Leased { msg_id: i64, lease: u64, attempts: u32 },
    /// A row was deleted, or moved to the archive. `busy`: its message was set aside in the index. `timed`: it was not, and
    /// the row had a delivery time. `group`: it was not, and the row's group has that hash.
    Finished { msg_id: i64, tag: Tag, busy: bool, timed: bool, group: u64, ending: Ending },
    /// A message was sent and has ended, both in this transaction: nobody else ever sees it.
    Passing(Ending),
    /// A message's delivery has failed, or was given back as if it had not been (`released`), and its row is now as this
    /// says. `busy` and `timed`: as above.
    Failed { entry: Entry, busy: bool, timed: bool, released: bool },
    /// Rows were purged; `timed`: those with a delivery time that the index didn't know.
    Purged { rows: i64, timed: i64 },
    /// A dead letter's row was moved back.
    Redriven(Entry),
    /// Rows of the archive are gone.
    Forgotten { done: i64, dead: i64 },
    /// The queue's options were changed.
    Altered(Options),
    /// Rows in these ranges, by number and by delivery time, which this transaction had deleted without their messages being
    /// set aside, were passed over by a scan: a rollback brings them back.
    PassedOver([Option<Range>; 2]),
    /// Listeners are told that the queue has become ready.
    Notified,
    /// The queue was made.
    Created,
    /// The queue was dropped.
    Dropped,
}

/// How a message has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// Its row is deleted.
    Deleted,
    /// Its row is in the archive: done.
    Archived,
    /// Its row is in the archive: dead, because it couldn't be delivered.
    Buried,
    /// Its row is in the archive: dead, because the reader said so.
    Failed,
    /// Its row was deleted with all others, and counted with them.
    Purged,
}

impl Action {
    /// Whether it may have made a message ready by that time.
    pub(super) fn makes_ready(&self, now: i64) -> bool {
        match self {
            Action::Sent(entry) | Action::Redriven(entry) | Action::Failed { entry, .. } => {
                entry.deliver_at.is_none_or(|at| at <= now)
            }
            Action::Altered(options) => !options.paused,
            _ => false,
        }
    }
}
