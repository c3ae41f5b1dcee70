//! What happens at the end of transactions and savepoints.
//!
//! A capability whose calls take effect at commit is a [`Participant`]: it keeps what waits in this process's memory
//! and calls [`join`] when there is something. Fallible work belongs into `pre_commit`; `commit` only flips what was
//! prepared: the transaction is durable by then, and an ERROR would take the server down. So a panic in `commit` or
//! `abort` is caught here and becomes a WARNING: what it leaves undone is a lost hint, never lost data.

use crate::error::Error;
use pgrx::pg_sys::{self, SubTransactionId};
use pgrx::prelude::*;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// What a capability does at the end of transactions in which it has something to do.
pub trait Participant: Sync {
    /// What the user knows it as, for the error of `PREPARE TRANSACTION`.
    fn name(&self) -> &'static str;
    /// Whether something waits for the end of this transaction.
    fn waiting(&self) -> bool;
    /// The transaction is about to commit; an error aborts it.
    fn pre_commit(&self) -> Result<(), Error>;
    /// The transaction has committed and its rows are visible.
    fn commit(&self);
    /// The transaction has been rolled back.
    fn abort(&self);
    /// A savepoint was released (or a PL/pgSQL block with an EXCEPTION clause ended well): what belonged to `from`
    /// belongs to `to` now.
    fn merge(&self, from: SubTransactionId, to: SubTransactionId);
    /// A savepoint was rolled back: what belonged to it is undone.
    fn undo(&self, from: SubTransactionId);
}

static PARTICIPANTS: [&dyn Participant; 2] = [&crate::queue::pending::PARTICIPANT, &crate::cache::PARTICIPANT];

/// Whether any participant has joined the current transaction: the callbacks below run at the end of each
/// transaction of this session, also of those that don't know `pg_enough`.
static JOINED: AtomicBool = AtomicBool::new(false);

/// Says that something waits for the end of this transaction.
#[inline]
pub fn join() {
    JOINED.store(true, Relaxed);
}

/// The savepoint that the current call belongs to.
#[inline]
pub fn current() -> SubTransactionId {
    // SAFETY: reads a variable of this process.
    unsafe { super::bare::GetCurrentSubTransactionId() }
}

/// Registers the callbacks; once, when the library is loaded.
pub(super) fn init() {
    // SAFETY: the callbacks stay where they are as long as the process lives: libraries are never unloaded.
    unsafe {
        pg_sys::RegisterXactCallback(Some(transaction_ends), std::ptr::null_mut());
        pg_sys::RegisterSubXactCallback(Some(savepoint_ends), std::ptr::null_mut());
    }
}

/// For steps that come too late for an ERROR.
fn unfailing(step: impl Fn(&dyn Participant)) {
    for participant in PARTICIPANTS {
        if catch_unwind(AssertUnwindSafe(|| step(participant))).is_err() {
            warning!("pg_enough: a step at the end of the transaction failed; the {} recovers", participant.name());
        }
    }
}

/// Called at the end of every transaction of a session that has loaded the library: without a guard, because most of
/// them have nothing to do here.
unsafe extern "C-unwind" fn transaction_ends(event: pg_sys::XactEvent::Type, arg: *mut std::ffi::c_void) {
    if JOINED.load(Relaxed) {
        // SAFETY: with the server's own arguments.
        unsafe { joined_transaction_ends(event, arg) };
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn joined_transaction_ends(event: pg_sys::XactEvent::Type, _arg: *mut std::ffi::c_void) {
    use pg_sys::XactEvent as E;
    match event {
        E::XACT_EVENT_PRE_COMMIT | E::XACT_EVENT_PRE_PREPARE => {
            for participant in PARTICIPANTS {
                let outcome = if event == E::XACT_EVENT_PRE_COMMIT {
                    participant.pre_commit()
                } else if participant.waiting() {
                    Err(Error::Prepared { what: participant.name() })
                } else {
                    Ok(())
                };
                if let Err(error) = outcome {
                    std::panic::panic_any(pg_sys::panic::ErrorReport::from(error));
                }
            }
        }
        E::XACT_EVENT_COMMIT => {
            JOINED.store(false, Relaxed);
            unfailing(|participant| participant.commit());
        }
        // After PREPARE nothing waits, or it would have been refused above.
        E::XACT_EVENT_ABORT | E::XACT_EVENT_PREPARE => {
            JOINED.store(false, Relaxed);
            unfailing(|participant| participant.abort());
        }
        _ => {}
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn savepoint_ends(
    event: pg_sys::SubXactEvent::Type,
    own: SubTransactionId,
    parent: SubTransactionId,
    _arg: *mut std::ffi::c_void,
) {
    use pg_sys::SubXactEvent as E;
    if !JOINED.load(Relaxed) {
        return;
    }
    match event {
        E::SUBXACT_EVENT_COMMIT_SUB => unfailing(|participant| participant.merge(own, parent)),
        E::SUBXACT_EVENT_ABORT_SUB => unfailing(|participant| participant.undo(own)),
        _ => {}
    }
}
