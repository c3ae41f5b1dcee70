//! What happens at the end of transactions and savepoints.
//!
//! A capability whose calls take effect at commit is a [`Participant`]: it keeps what waits in this process's memory
//! and calls [`enlist`] when there is something. Fallible work belongs into `pre_commit`; `commit` only flips what was
//! prepared: the transaction is durable by then, and an ERROR would take the server down. So a panic in `commit` or
//! `abort` is caught here and becomes a WARNING: what it leaves undone is a lost hint, never lost data.

use super::guard::{guarded, message};
use crate::error::Error;
use pgrx::pg_sys::{self, SubTransactionId};
use pgrx::prelude::*;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU16, Ordering::Relaxed};

/// What a capability does at the end of transactions in which it has something to do.
pub trait Participant: Sync {
    /// What the user knows it as, for the error of `PREPARE TRANSACTION`.
    fn name(&self) -> &'static str;
    /// Whether something waits for the end of this transaction.
    fn waiting(&self) -> bool;
    /// The transaction is about to commit; an error aborts it.
    fn pre_commit(&self) -> Result<(), Error> {
        Ok(())
    }
    /// The transaction is about to be prepared (two-phase commit); an error aborts it. Where nothing waits for the end of the
    /// transaction there is nothing to do.
    fn prepare(&self) -> Result<(), Error> {
        if self.waiting() { Err(Error::Prepared { what: self.name() }) } else { Ok(()) }
    }
    /// The transaction has been prepared: this session has nothing to do with it any more.
    fn prepared(&self) {
        self.abort();
    }
    /// The transaction has committed and its rows are visible.
    fn commit(&self);
    /// The same where it has enlisted with nothing but writes ([`Enlisted::writes_of`]), without `pre_commit`. Can't fail.
    fn commit_writes(&self) {
        self.commit();
    }
    /// The transaction has been rolled back.
    fn abort(&self);
    /// A savepoint was released (or a PL/pgSQL block with an EXCEPTION clause ended well): what belonged to `from`
    /// belongs to `to` now.
    fn merge(&self, _from: SubTransactionId, _to: SubTransactionId) {}
    /// A savepoint was rolled back: what belonged to it is undone.
    fn undo(&self, _from: SubTransactionId) {}
}

/// The participants that may have enlisted, as bits: by its number, and once more for writes that wait for nothing but the commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Enlisted(u16);

/// Participants have a number below this.
const MOST: u8 = 8;

impl Enlisted {
    /// The participant of that number.
    pub const fn of(number: u8) -> Self {
        Enlisted(1 << number)
    }

    /// The same, with nothing but writes that [`Participant::commit_writes`] carries out.
    pub const fn writes_of(number: u8) -> Self {
        Enlisted(1 << (number + MOST))
    }
}

/// The participants by their numbers; set once, when the library is loaded.
static PARTICIPANTS: OnceLock<Vec<Option<&'static dyn Participant>>> = OnceLock::new();

/// The participants that have enlisted the current transaction: the callbacks below run at the end of each transaction of this session, also
/// of those that don't know `pg_enough`.
static ENLISTED: AtomicU16 = AtomicU16::new(0);

/// Says that something waits for the end of this transaction.
#[inline]
pub fn enlist(who: Enlisted) {
    ENLISTED.store(ENLISTED.load(Relaxed) | who.0, Relaxed);
}

/// Whether anybody has enlisted the current transaction.
#[inline]
pub fn is_enlisted() -> bool {
    ENLISTED.load(Relaxed) != 0
}

/// Whether anybody but `who` has enlisted the current transaction.
#[inline]
pub fn is_enlisted_by_others_than(who: Enlisted) -> bool {
    ENLISTED.load(Relaxed) & !who.0 != 0
}

fn participants(enlisted: u16) -> impl Iterator<Item = &'static dyn Participant> {
    let all = PARTICIPANTS.get().into_iter().flatten().enumerate();
    all.filter(move |(number, _)| (enlisted | enlisted >> MOST) & 1 << number != 0).filter_map(|(_, one)| *one)
}

/// The savepoint that the current call belongs to.
#[inline]
pub fn current() -> SubTransactionId {
    // SAFETY: reads a variable of this process.
    unsafe { super::unguarded::GetCurrentSubTransactionId() }
}

/// Registers the callbacks; once, when the library is loaded.
pub fn init(all: impl IntoIterator<Item = Option<&'static dyn Participant>>) {
    // A second time nothing is set: there is one table of them.
    let _ = PARTICIPANTS.set(all.into_iter().collect());
    // SAFETY: the callbacks stay where they are as long as the process lives: libraries are never unloaded.
    unsafe {
        pg_sys::RegisterXactCallback(Some(transaction_ends), std::ptr::null_mut());
        pg_sys::RegisterSubXactCallback(Some(savepoint_ends), std::ptr::null_mut());
    }
}

/// For steps that come too late for an ERROR.
fn run_infallible(enlisted: u16, step: impl Fn(&dyn Participant)) {
    for participant in participants(enlisted) {
        // SAFETY: variables of this process.
        let holdoff = unsafe { (pg_sys::InterruptHoldoffCount, pg_sys::QueryCancelHoldoffCount) };
        let Err(panic) = catch_unwind(AssertUnwindSafe(|| step(participant))) else { continue };
        // An ERROR of the server's sets these to 0, while the end of a transaction goes on holding off interrupts.
        // SAFETY: as above.
        unsafe { (pg_sys::InterruptHoldoffCount, pg_sys::QueryCancelHoldoffCount) = holdoff };
        let (name, why) = (participant.name(), message(panic));
        warning!("pg_enough: a step at the end of the transaction failed; the {name} recovers: {why}");
    }
}

/// Called at the end of every transaction of a session that has loaded the library: without a guard, because most of
/// them have nothing to do here, or small values for the cache, which can't fail.
unsafe extern "C-unwind" fn transaction_ends(event: pg_sys::XactEvent::Type, arg: *mut std::ffi::c_void) {
    use pg_sys::XactEvent as E;
    /// Whether nothing but writes waits.
    const fn writes_only(enlisted: u16) -> bool {
        enlisted.trailing_zeros() >= MOST as u32
    }
    match (ENLISTED.load(Relaxed), event) {
        (0, _) => {}
        (enlisted, E::XACT_EVENT_PRE_COMMIT) if writes_only(enlisted) => {}
        (enlisted, E::XACT_EVENT_COMMIT) if writes_only(enlisted) => {
            ENLISTED.store(0, Relaxed);
            participants(enlisted).for_each(Participant::commit_writes);
        }
        // SAFETY: with the server's own arguments.
        (enlisted, _) => unsafe { enlisted_transaction_ends(enlisted, event, arg) },
    }
}

#[cold]
unsafe fn enlisted_transaction_ends(enlisted: u16, event: pg_sys::XactEvent::Type, _arg: *mut std::ffi::c_void) {
    use pg_sys::XactEvent as E;
    let work = move || match event {
        E::XACT_EVENT_PRE_COMMIT | E::XACT_EVENT_PRE_PREPARE => {
            for participant in participants(enlisted) {
                if event == E::XACT_EVENT_PRE_COMMIT {
                    participant.pre_commit()?;
                } else {
                    participant.prepare()?;
                }
            }
            Ok(())
        }
        E::XACT_EVENT_COMMIT => {
            ENLISTED.store(0, Relaxed);
            run_infallible(enlisted, |participant| participant.commit());
            Ok(())
        }
        E::XACT_EVENT_PREPARE => {
            ENLISTED.store(0, Relaxed);
            run_infallible(enlisted, |participant| participant.prepared());
            Ok(())
        }
        E::XACT_EVENT_ABORT => {
            ENLISTED.store(0, Relaxed);
            run_infallible(enlisted, |participant| participant.abort());
            Ok(())
        }
        _ => Ok(()),
    };
    // SAFETY: this is the last frame before the server's.
    unsafe { guarded(work) }
}

/// The same for savepoints.
unsafe extern "C-unwind" fn savepoint_ends(
    event: pg_sys::SubXactEvent::Type,
    own: SubTransactionId,
    parent: SubTransactionId,
    _arg: *mut std::ffi::c_void,
) {
    use pg_sys::SubXactEvent as E;
    let enlisted = ENLISTED.load(Relaxed);
    if enlisted == 0 {
        return;
    }
    let work = move || {
        match event {
            E::SUBXACT_EVENT_COMMIT_SUB => run_infallible(enlisted, |participant| participant.merge(own, parent)),
            E::SUBXACT_EVENT_ABORT_SUB => run_infallible(enlisted, |participant| participant.undo(own)),
            _ => {}
        }
        Ok(())
    };
    // SAFETY: this is the last frame before the server's.
    unsafe { guarded(work) }
}
