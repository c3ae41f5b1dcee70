//! Transactions that are prepared (two-phase commit): what they have sent is durable and seen by nobody, what they have finished is set
//! aside, until another statement, in any session and maybe after a restart, decides.
//!
//! At PREPARE each queue gets a record of the transaction (`enough_engine::queue::Doubt`). The session that has prepared it, where it also decides,
//! does the rest when that ends. Else the reader that finds the queue dry does, or maintenance; one that waits looks once a second. After a
//! restart a queue begins with records of all transactions that are prepared then, and a reader that meets a row which one of
//! them has deleted leaves the message to the decision.

use super::action::{Action, Ending};
use super::backoff::backoff;
use crate::error::Error;
use crate::pg::prepared::{self, Status};
use crate::pg::{catalog, server, wal};
use crate::queue::index::{self, REGION};
use enough_engine::queue::{Decided, Decision, Doubt, Doubts, MOST_DOUBTS, QueueKey};
use std::cell::RefCell;
use std::collections::{HashMap, HashSet};

#[derive(Default)]
struct Own {
    /// Records that the transaction that is being prepared has made.
    made: Vec<(QueueKey, u64)>,
    /// The messages that it has read.
    read: HashSet<(QueueKey, i64)>,
    /// Records of transactions that this session has prepared, until they are decided.
    open: Vec<(QueueKey, u64)>,
}

thread_local! {
    static OWN: RefCell<Own> = RefCell::default();
}

/// The most records of which a session remembers that they are its own.
const MOST: usize = 1000;

/// Makes the records of a transaction that is about to be prepared and has done this; an error where it has done something that can't
/// be prepared, or where there is no room.
pub(super) fn prepare(changes: impl Iterator<Item = (QueueKey, Action)>) -> Result<(), Error> {
    let (mut doubts, mut read) = (HashMap::new(), HashSet::new());
    for (key, action) in changes {
        match action {
            Action::PassedOver(_) => {}
            // It stands, and ends by its timeout, unless the message is finished as well.
            Action::Leased { msg_id, .. } => drop(read.insert((key, msg_id))),
            action => note_change(doubts.entry(key).or_insert(Doubt::new(0)), action)?,
        }
    }
    // A transaction that has written no row has changed nothing.
    let Some(transaction) = wal::transaction_id() else { return Ok(()) };
    OWN.with_borrow_mut(|own| own.read = read);
    for (key, doubt) in doubts {
        let doubt = Doubt { transaction, ..doubt };
        OWN.with_borrow_mut(|own| own.made.push((key, transaction)));
        if !note(key, &doubt)? {
            // Nobody may have looked for what has been decided.
            settle(key)?;
            if !note(key, &doubt)? {
                return Err(Error::InDoubt { queue: name(key) });
            }
        }
    }
    Ok(())
}

fn note_change(doubt: &mut Doubt, action: Action) -> Result<(), Error> {
    match action {
        Action::Sent(entry) => {
            doubt.sent = doubt.sent.saturating_add(1);
            doubt.timed = doubt.timed.saturating_add(u32::from(entry.deliver_at.is_some()));
            doubt.cover(&entry);
        }
        Action::Finished { ending, .. } if ending != Ending::Purged => note_ending(doubt, ending),
        Action::Passing(ending) => {
            doubt.sent = doubt.sent.saturating_add(1);
            note_ending(doubt, ending);
        }
        Action::Failed { entry, busy, timed, released } => {
            doubt.failed = doubt.failed.saturating_add(u32::from(!released));
            if !busy {
                // Its new row is to be found as a sent one is.
                doubt.timed = doubt.timed.saturating_add(u32::from(!timed));
                doubt.cover(&entry);
            }
        }
        _ => {
            let what = "queues, other than to send, read, finish, fail, release and reschedule messages";
            return Err(Error::Prepared { what });
        }
    }
    Ok(())
}

fn note_ending(doubt: &mut Doubt, ending: Ending) {
    let [finished, archived, buried, failed] = match ending {
        Ending::Deleted => [1, 0, 0, 0],
        Ending::Archived => [1, 1, 0, 0],
        Ending::Buried => [0, 0, 1, 0],
        Ending::Failed => [0, 0, 1, 1],
        Ending::Purged => [0; 4],
    };
    doubt.finished = doubt.finished.saturating_add(finished);
    doubt.archived = doubt.archived.saturating_add(archived);
    doubt.buried = doubt.buried.saturating_add(buried);
    doubt.failed = doubt.failed.saturating_add(failed);
}

/// Makes a record; false where there is no room.
fn note(key: QueueKey, doubt: &Doubt) -> Result<bool, Error> {
    let noted = index::at(key, |index, slot, wake| index.doubt(slot, doubt, server::now(), wake))?;
    // Else the memory has been lost since the messages were changed.
    noted.ok_or(Error::Damaged { region: REGION.name() })
}

fn name(key: QueueKey) -> String {
    let table = catalog::names_of(key.relation).map(|(_, table)| String::from_utf8_lossy(&table).into_owned());
    table.map_or_else(String::new, |table| table.strip_prefix("q_").unwrap_or(&table).to_owned())
}

/// The transaction has been prepared. Its number (0 where it has made no record), and whether this session has something to look
/// for from now on, after each transaction.
pub(super) fn prepared() -> (u64, bool) {
    OWN.with_borrow_mut(|own| {
        let Own { made, open, .. } = own;
        let transaction = made.first().map_or(0, |&(_, transaction)| transaction);
        for &(key, transaction) in made.iter() {
            // Where the memory was lost in between, the queue has begun without a record of it.
            let _ = index::at(key, |index, slot, wake| {
                let known = index.doubts(slot)?.iter().any(|doubt| doubt.transaction == transaction);
                if known { Ok(true) } else { index.doubt(slot, &Doubt::unknown(transaction), server::now(), wake) }
            });
        }
        open.append(made);
        // Others find out.
        open.truncate(MOST);
        (transaction, !open.is_empty())
    })
}

/// Whether the transaction that has been prepared had read the message itself.
pub(super) fn has_read(key: QueueKey, msg_id: i64) -> bool {
    OWN.with_borrow(|own| own.read.contains(&(key, msg_id)))
}

/// The transaction has been rolled back, maybe because it could not be prepared; as [`prepared`] otherwise.
pub(super) fn not_prepared() -> bool {
    let made = OWN.with_borrow_mut(|own| std::mem::take(&mut own.made));
    for (key, transaction) in made {
        decided(key, transaction, Decision::RolledBack);
    }
    OWN.with_borrow(|own| !own.open.is_empty())
}

/// A transaction has ended, which may have decided what this session has prepared; as [`prepared`] otherwise.
pub(super) fn look_for_decisions() -> bool {
    // Without allocating: this may be the end of a transaction that is committed.
    let mut open = OWN.with_borrow_mut(|own| std::mem::take(&mut own.open));
    open.retain(|&(key, transaction)| match prepared::has_committed(transaction) {
        None => true,
        Some(committed) => {
            decided(key, transaction, if committed { Decision::Committed } else { Decision::RolledBack });
            false
        }
    });
    OWN.with_borrow_mut(|own| {
        own.open = open;
        !own.open.is_empty()
    })
}

fn decided(key: QueueKey, transaction: u64, decision: Decision) {
    // Where the memory is lost, the queue begins with what is committed by then.
    while let Ok(Some(Decided::Partly)) =
        index::at(key, |index, slot, wake| index.decided(slot, transaction, decision, server::now(), wake, backoff))
    {
    }
}

/// Looks whether prepared transactions that have changed a queue are decided.
#[cold]
pub(super) fn settle(key: QueueKey) -> Result<(), Error> {
    let doubts = index::at(key, |index, slot, _| index.doubts(slot))?;
    for doubt in doubts.iter().flat_map(Doubts::iter) {
        if doubt.transaction == Doubt::ANY {
            settle_any(key)?;
            continue;
        }
        let decision = match prepared::status(doubt.transaction)? {
            Status::Open => continue,
            Status::RolledBack => Decision::RolledBack,
            Status::Committed => Decision::Committed,
            Status::Forgotten => Decision::Either,
        };
        decided(key, doubt.transaction, decision);
    }
    Ok(())
}

/// Whether one of the transactions that were undecided is decided.
pub(super) fn any_is_decided(doubts: &Doubts) -> Result<bool, Error> {
    for doubt in doubts.iter().filter(|doubt| doubt.transaction != Doubt::ANY) {
        if prepared::status(doubt.transaction)? != Status::Open {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The same where nobody knows which they are.
fn settle_any(key: QueueKey) -> Result<(), Error> {
    if server::in_recovery() {
        // What is prepared is known when it has ended.
        return Ok(());
    }
    if prepared::transactions()?.is_empty() {
        decided(key, Doubt::ANY, Decision::Either);
        return Ok(());
    }
    // One of them may have been decided.
    while index::at(key, |index, slot, wake| index.look_again(slot, server::now(), wake))? == Some(false) {}
    index::at(key, |index, slot, _| index.invalidate_watermark(slot)).map(drop)
}

/// The records with which a queue begins in the index.
#[cold]
pub(super) fn of_now() -> Result<Vec<Doubt>, Error> {
    let transactions = prepared::transactions()?;
    if server::in_recovery() || transactions.len() > MOST_DOUBTS {
        // Until none is left, a reader that finds the queue dry reads the whole table.
        return Ok(vec![Doubt::unknown(Doubt::ANY)]);
    }
    Ok(transactions.into_iter().map(Doubt::unknown).collect())
}
