//! What waits for the commit, and how the commit carries it out.
//!
//! Before the commit, memory for large and tagged values is reserved in the segment and filled; the commit callback only
//! publishes it. Small values it copies itself. Neither can fail. Whatever goes wrong between the two leaves the key
//! absent rather than with an older value. Removals are carried out before the commit, under barriers ([`barrier`]).

use super::barrier::{self, ComputedFrom};
use super::clock::now;
use super::key::Key;
use super::log::{Action, Effect, Log, Own, Removed, Seen, Write};
use super::removal;
use super::settings::REGION;
use super::settled;
use super::store;
use super::undecided;
use crate::error::Error;
use crate::pg::backend_local::BackendLocal;
use crate::pg::fmgr::Buffer;
use crate::pg::key_lock::KeyLock;
use crate::pg::server;
use crate::pg::xact::{self, Enlisted, Participant};
use crate::shmem::{Segment, known, segment};
use enough_engine::cache::{Item, Kind, Reservation, Tags};
use enough_engine::hash::KeyHash;
use pgrx::pg_sys::SubTransactionId;
use std::cell::RefMut;

static LOG: BackendLocal<Log> = BackendLocal::new(Log::new());

/// The log of this session's transaction. No function that has it calls one that wants it.
fn log() -> RefMut<'static, Log> {
    LOG.get().expect("the cache's log is in use")
}

/// Whether nothing waits for the commit: the usual state of transactions that only read.
pub fn is_empty() -> bool {
    !xact::is_enlisted() || log().is_empty()
}

/// What this transaction has made of a key; `None` for nothing.
pub fn seen(key: KeyHash) -> Option<Seen> {
    log().seen(key)
}

/// A copy of a value of this transaction's own, in the call's memory.
pub fn copy(own: &Own) -> Buffer {
    Buffer::holding(log().value_of(own))
}

/// Whether this transaction has written, removed or invalidated what a key may hold.
pub fn concerns(key: KeyHash) -> bool {
    let log = log();
    log.has_marks() || log.seen(key).is_some()
}

/// Calls `each` with the names, values' lengths and expiries of what this transaction has written and kept the names of.
pub fn names(mut each: impl FnMut(KeyHash, &[u8], usize, u64)) {
    let log = log();
    for (_, write) in log.effective(log.len()) {
        if let (Some(name), false) = (log.name(write), log.is_marked(write)) {
            each(write.key, name, write.len(), write.over);
        }
    }
}

/// With what the cache enlists: whatever waits for the commit, and values that wait for nothing but it.
const ENLISTED: Enlisted = Enlisted::of(REGION.0);
pub const WRITES: Enlisted = Enlisted::writes_of(REGION.0);

/// Whether this transaction has invalidated anything.
pub fn has_marks() -> bool {
    log().has_marks()
}

/// Whether this transaction has invalidated what others have committed with these tags.
pub fn invalidates(tags: &Tags) -> bool {
    log().invalidates(tags)
}

/// Adds a write of the current savepoint.
pub fn write<'k>(key: impl Into<Key<'k>>, effect: Effect<'_>) -> Result<(), Error> {
    undecided::settle(segment()?)?;
    let mut log = log();
    set_limits(&mut log)?;
    let joined = match effect {
        Effect::Set { value, tags, .. } if is_put(value.len(), !tags.hashes().is_empty()) => WRITES,
        _ => ENLISTED,
    };
    if log.since.is_none() && matches!(effect, Effect::Set { .. } | Effect::SetStale { .. }) {
        log.since = Some(barrier::since());
    }
    log.write(key.into(), xact::current(), effect);
    xact::enlist(joined);
    Ok(())
}

/// Ends the copy of a row that this transaction has changed or deleted. It needs to know nothing of what is undecided.
pub fn end_copy(row: KeyHash) -> Result<(), Error> {
    let mut log = log();
    set_limits(&mut log)?;
    log.rows = true;
    log.write(row.into(), xact::current(), Effect::Delete);
    xact::enlist(ENLISTED);
    Ok(())
}

/// The same for a value that this transaction has written already: with another expiry.
pub fn rewrite(key: Key<'_>, own: &Own, expiry: u64) -> Result<(), Error> {
    let value = copy(own);
    write(key, Effect::Set { value: value.bytes(), kind: own.kind, expiry, tags: &own.tags })
}

/// This session's turn to compute a value ends with the transaction, after which others see it.
pub fn keep_turn(key: KeyHash) {
    log().turns.push(key);
}

/// [`write`] of a small value without tags, where the log has room for it, and for callers that must not fail: none where that
/// takes more.
#[inline(always)]
pub fn put(key: Key<'_>, expiry: u64, value: &[u8], kind: Kind) -> Option<()> {
    let mut log = LOG.get()?;
    let len = value.len() + key.name.map_or(0, <[u8]>::len);
    if !is_put(value.len(), false) || !log.has_room(len) || !settled::is_settled() {
        return None;
    }
    if log.since.is_none() {
        log.since = Some(barrier::since());
    }
    log.put_value(key, xact::current(), kind, expiry, value);
    xact::enlist(WRITES);
    Some(())
}

/// Ends all entries of this database, or those with a tag.
pub fn end(what: Removed) -> Result<(), Error> {
    undecided::settle(segment()?)?;
    let mut log = log();
    set_limits(&mut log)?;
    // Before anything is changed: the log may become a removal of more than this.
    xact::enlist(ENLISTED);
    log.mark(xact::current(), what);
    Ok(())
}

fn set_limits(log: &mut Log) -> Result<(), Error> {
    if log.limits.bytes == 0 {
        log.limits = store::limits(segment()?);
    }
    Ok(())
}

/// Carries out the writes of a transaction that has only put small values: in the commit callback, without a guard, so it
/// can't fail. A value for which there is no memory is absent.
pub fn commit_writes() {
    let (Some(mut log), Some(segment)) = (LOG.get(), known()) else { return };
    let origin = ComputedFrom::at(log.since.unwrap_or_default());
    if let Some(write) = log.only_write() {
        let item = Item { key: write.key, database: server::database(), expiry: write.expiry, kind: write.kind };
        let _ = store::put(segment, &item, log.name(write), log.value(write), &origin, now);
        log.forget_only_write();
    } else {
        carry_out(segment, &mut log, &origin, now);
        log.forget();
    }
}

fn carry_out(segment: &Segment, log: &mut Log, origin: &ComputedFrom<'_>, now: impl Fn() -> u64 + Copy) {
    let bucket = |key| store::prefetch_bucket(segment, key);
    let entry = |key| store::prefetch_entry(segment, key);
    log.each_effective(bucket, entry, |log, write, reservation| {
        // An error says that the partition was damaged and is empty now: then the key is absent, too.
        let _ = apply(segment, log, write, reservation, origin, now);
    });
}

/// The cache's part at the end of transactions.
pub static PARTICIPANT: Pending = Pending;

/// See [`PARTICIPANT`].
pub struct Pending;

impl Pending {
    /// Gives back what was reserved for values that weren't published.
    fn release(segment: &Segment, log: &mut Log) {
        for reserved in &mut *log.reserved {
            // A damaged partition has been emptied, which gives everything back.
            let _ = store::release(segment, reserved.key, &mut reserved.reservation);
        }
    }

    /// Reserves and fills memory in the segment for what isn't small. Where one transaction writes more than the memory
    /// holds, the last of it stays.
    fn reserve(segment: &Segment, log: &mut Log) -> Result<(), Error> {
        let mut next = log.len();
        loop {
            let found = log.effective(next).find(|(_, write)| match write.action {
                Action::Set => !is_put(write.len(), write.is_tagged()),
                Action::SetStale => true,
                _ => false,
            });
            let Some((index, &write)) = found else { return Ok(()) };
            next = index;
            // Before the memory is: an error must not lose it.
            log.reserved.reserve(1);
            let tags = log.tags(&write);
            let over = (write.action == Action::SetStale).then_some(write.over);
            let request = Reservation::kept(write.len(), tags, over);
            let key = Key { hash: write.key, name: log.name(&write) };
            let reservation = store::reserve(segment, key, log.value(&write), request, log.now)?;
            log.reserve_for(index, reservation);
        }
    }
}

impl Participant for Pending {
    fn name(&self) -> &'static str {
        "the cache"
    }

    fn waiting(&self) -> bool {
        !is_empty()
    }

    fn pre_commit(&self) -> Result<(), Error> {
        let mut log = log();
        if log.is_empty() {
            return Ok(());
        }
        let segment = segment()?;
        log.now = now();
        if log.has_marks() {
            log.resolve();
        }
        Self::reserve(segment, &mut log)?;
        if log.removes {
            removal::begin(segment, &mut log);
        }
        Ok(())
    }

    fn prepare(&self) -> Result<(), Error> {
        let mut log = log();
        if log.is_empty() {
            return Ok(());
        }
        let segment = segment()?;
        log.now = now();
        // Others compute the values meanwhile; here they aren't stored.
        log.turns.iter().for_each(|&key| KeyLock::end_if_held(key));
        if log.has_marks() {
            log.resolve();
        }
        log.remove_what_was_written();
        if log.removes {
            log.prepared = undecided::begin(segment)?;
            removal::begin(segment, &mut log);
            if !undecided::keep_raised(segment, log.prepared, &log.barriers, log.rows)? {
                removal::end(segment, &mut log, false);
            }
        }
        Ok(())
    }

    fn prepared(&self) {
        let mut log = log();
        if log.prepared != 0 {
            undecided::prepared(log.prepared);
        }
        log.forget();
        if undecided::look_for_decisions() {
            xact::enlist(ENLISTED);
        }
    }

    fn commit(&self) {
        let mut log = log();
        // Where all of it was rolled back to a savepoint, the log is empty but not as new.
        if let (false, Ok(segment)) = (log.is_empty(), segment()) {
            let (now, since) = (log.now, log.since.unwrap_or_default());
            let own = std::mem::take(&mut log.barriers);
            carry_out(segment, &mut log, &ComputedFrom { since, own: &own }, || now);
            log.barriers = own;
            Self::release(segment, &mut log);
            removal::end(segment, &mut log, true);
        }
        log.forget();
        if undecided::look_for_decisions() {
            xact::enlist(ENLISTED);
        }
    }

    fn commit_writes(&self) {
        commit_writes();
    }

    fn abort(&self) {
        let mut log = log();
        if let (false, Ok(segment)) = (log.is_empty(), segment()) {
            Self::release(segment, &mut log);
            if log.prepared != 0 {
                undecided::forget(segment, log.prepared);
            }
            removal::end(segment, &mut log, false);
        }
        log.forget();
        if undecided::look_for_decisions() {
            xact::enlist(ENLISTED);
        }
    }

    fn merge(&self, from: SubTransactionId, to: SubTransactionId) {
        log().merge(from, to);
    }

    fn undo(&self, from: SubTransactionId) {
        log().undo(from);
    }
}

/// Whether a value is copied when the transaction has committed, instead of into memory reserved before: a small one,
/// whose copy takes no longer than to take the lock twice. That can't fail either: a value for which there is no memory
/// is absent, as if it had been evicted at once.
#[inline(always)]
fn is_put(len: usize, tagged: bool) -> bool {
    len <= store::FILL_AT_ONCE && !tagged
}

fn apply(
    segment: &Segment,
    log: &Log,
    write: &Write,
    reservation: Option<&mut Reservation>,
    origin: &ComputedFrom<'_>,
    now: impl Fn() -> u64,
) -> Result<bool, Error> {
    let (key, database) = (write.key, server::database());
    let item = Item { key, database, expiry: write.expiry, kind: write.kind };
    match write.action {
        Action::Set if is_put(write.len(), write.is_tagged()) => {
            store::put(segment, &item, log.name(write), log.value(write), origin, now)
        }
        Action::Set | Action::SetStale => match reservation {
            Some(reservation) => store::publish(segment, reservation, &item, origin),
            // Written after the reservations were made: an older value must not stay, and a new one can't come.
            None => store::remove(segment, key, now()),
        },
        Action::Evicted => store::publish(segment, &mut Reservation::new(0), &item, origin),
        // Carried out before the commit.
        Action::Delete | Action::Removed => Ok(true),
        Action::Touch => store::touch(segment, key, now(), write.expiry),
    }
}
