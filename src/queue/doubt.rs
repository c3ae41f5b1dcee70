//! What transactions have sent that are prepared (two-phase commit): durable, and seen by nobody until another statement, in
//! any session and maybe after a restart, decides.
//!
//! At PREPARE each queue gets a record of the transaction (`enough_engine::queue::Doubt`). The session that has prepared it, where it also decides,
//! does the rest when that ends. Else who finds the queue dry does, or maintenance; who waits looks once a second. After a
//! restart a queue begins with records of all transactions that are prepared then.

use crate::error::Error;
use crate::pg::prepared::{self, Status};
use crate::pg::{catalog, server, wal};
use crate::queue::index::{self, REGION};
use enough_engine::queue::{Decision, Doubt, Doubts, Entry, MOST_DOUBTS, QueueKey};
use std::cell::RefCell;
use std::collections::HashMap;

#[derive(Default)]
struct Own {
    /// Records that the transaction that is being prepared has made.
    made: Vec<(QueueKey, u64)>,
    /// Those of transactions that this session has prepared, until they are decided.
    open: Vec<(QueueKey, u64)>,
}

thread_local! {
    static OWN: RefCell<Own> = RefCell::default();
}

/// Stands for all prepared transactions, where they are more than a queue has records for.
const ANY: u64 = u64::MAX;

/// The most records of which a session remembers that they are its own.
const MOST: usize = 1000;

/// Makes the records of a transaction that is about to be prepared and has sent these messages.
pub(super) fn prepare(sent: impl Iterator<Item = Result<(QueueKey, Entry), Error>>) -> Result<(), Error> {
    let none = Doubt { transaction: 0, numbers: i64::MAX, times: i64::MAX, sent: 0, timed: 0 };
    let mut doubts: HashMap<QueueKey, Doubt> = HashMap::new();
    for message in sent {
        let (key, entry) = message?;
        let doubt = doubts.entry(key).or_insert(none);
        doubt.sent = doubt.sent.saturating_add(1);
        if let Some(at) = entry.deliver_at {
            doubt.timed = doubt.timed.saturating_add(1);
            doubt.times = doubt.times.min(at.saturating_sub(1));
        } else {
            doubt.numbers = doubt.numbers.min(entry.msg_id.saturating_sub(1));
        }
    }
    // Who has written no row has sent nothing.
    let Some(transaction) = wal::transaction_id() else { return Ok(()) };
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

/// Makes a record; false where there is no room.
fn note(key: QueueKey, doubt: &Doubt) -> Result<bool, Error> {
    let noted = index::at(key, |index, slot, wake| index.doubt(slot, doubt, server::now(), wake))?;
    // Else the memory has been lost since the messages were sent.
    noted.ok_or(Error::Damaged { region: REGION.name() })
}

fn name(key: QueueKey) -> String {
    let table = catalog::names_of(key.relation).map(|(_, table)| String::from_utf8_lossy(&table).into_owned());
    table.map_or_else(String::new, |table| table.strip_prefix("q_").unwrap_or(&table).to_owned())
}

/// The transaction has been prepared. Whether this session has something to look for from now on, after each transaction.
pub(super) fn prepared() -> bool {
    OWN.with_borrow_mut(|own| {
        let Own { made, open } = own;
        open.append(made);
        // Others find out.
        open.truncate(MOST);
        !open.is_empty()
    })
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
    let _ = index::at(key, |index, slot, wake| index.decided(slot, transaction, decision, wake));
}

/// Looks whether prepared transactions that have sent to a queue are decided.
#[cold]
pub(super) fn settle(key: QueueKey) -> Result<(), Error> {
    let doubts = index::at(key, |index, slot, _| index.doubts(slot))?;
    for doubt in doubts.iter().flat_map(Doubts::iter) {
        let decision = if doubt.transaction == ANY {
            if prepared::transactions()?.is_empty() { Some(Decision::Committed) } else { None }
        } else {
            match prepared::status(doubt.transaction)? {
                Status::Open => continue,
                Status::RolledBack => Some(Decision::RolledBack),
                Status::Committed | Status::Forgotten => Some(Decision::Committed),
            }
        };
        match decision {
            Some(decision) => decided(key, doubt.transaction, decision),
            // One of them may have been decided.
            None => {
                index::at(key, |index, slot, _| index.invalidate_watermark(slot))?;
            }
        }
    }
    Ok(())
}

/// The records with which a queue begins in the index.
#[cold]
pub(super) fn of_now() -> Result<Vec<Doubt>, Error> {
    let transactions = prepared::transactions()?;
    if transactions.len() > MOST_DOUBTS {
        // Until none is left, who finds the queue dry reads the whole table.
        return Ok(vec![Doubt::unknown(ANY)]);
    }
    Ok(transactions.into_iter().map(Doubt::unknown).collect())
}
