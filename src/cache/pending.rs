//! What waits for the commit, and how the commit carries it out.
//!
//! Before the commit, memory for large and tagged values is reserved in the segment and filled; the commit callback only
//! publishes it. Small values it copies itself. Neither can fail. Whatever goes wrong between the two leaves the key
//! absent rather than with an older value. Removals are carried out before the commit, under fences ([`fence`]).

use super::fence::{self, Origin};
use super::log::{Effect, Log, Write};
use super::single::{self, commit_write};
use super::store;
use crate::error::Error;
use crate::segment::xact::{self, Joined, Participant};
use crate::segment::{Segment, segment, server};
use enough_engine::cache::{Item, Kind, NEVER, Reservation, Tags};
use enough_engine::hash::KeyHash;
use pgrx::pg_sys::SubTransactionId;
use std::cell::RefCell;

thread_local! {
    static LOG: RefCell<Log> = RefCell::default();
}

/// Moves the single write into the log, for whatever else is to be done or asked.
fn collect() {
    single::hand_over(|item, owner, since, value| {
        let Item { key, expiry, kind, .. } = *item;
        let effect = Effect::Set { value: value.into(), kind, expiry, tags: Tags::default() };
        LOG.with_borrow_mut(|log| {
            log.since = log.since.or(Some(since));
            log.write(key, owner, effect);
        });
        xact::join(Joined::Cache);
    });
}

/// Whether nothing waits for the commit: the usual state of those who only read.
pub fn is_empty() -> bool {
    if !xact::is_joined() {
        return true;
    }
    collect();
    LOG.with_borrow(Log::is_empty)
}

/// What this transaction has done to a key.
pub fn effect(key: KeyHash) -> Option<Effect> {
    collect();
    LOG.with_borrow(|log| log.effect(key).cloned())
}

/// Whether this transaction has written, removed or invalidated what a key may hold.
pub fn concerns(key: KeyHash) -> bool {
    collect();
    LOG.with_borrow(|log| !log.marks.is_empty() || log.effect(key).is_some())
}

/// Adds a write of the current savepoint.
pub fn write(key: KeyHash, effect: Effect) {
    collect();
    let owner = xact::current();
    LOG.with_borrow_mut(|log| {
        if log.since.is_none() && matches!(effect, Effect::Set { .. } | Effect::Keep { .. }) {
            log.since = Some(fence::since());
        }
        log.write(key, owner, effect);
    });
    xact::join(Joined::Cache);
}

/// Ends all entries of this database, or those with a tag.
pub fn end(tag: Option<u64>) {
    collect();
    let owner = xact::current();
    LOG.with_borrow_mut(|log| log.mark(owner, tag));
    xact::join(Joined::Cache);
}

/// The tags that this transaction has invalidated.
pub fn invalidated() -> Vec<u64> {
    LOG.with_borrow(|log| log.marks.iter().filter_map(|mark| mark.tag).collect())
}

/// The cache's part at the end of transactions.
pub static PARTICIPANT: Pending = Pending;

/// See [`PARTICIPANT`].
pub struct Pending;

impl Pending {
    /// Gives back what was reserved for a transaction that didn't commit.
    fn release(segment: &Segment, log: &mut Log) {
        for write in &mut log.writes {
            if let Some(mut reservation) = write.reservation.take() {
                // A damaged partition has been emptied, which gives everything back.
                let _ = store::release(segment, write.key, &mut reservation);
            }
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
        collect();
        LOG.with_borrow_mut(|log| {
            if log.is_empty() {
                return Ok(());
            }
            let (segment, now) = (segment()?, now());
            log.now = now;
            if !log.marks.is_empty() {
                log.settle();
            }
            // Where one transaction writes more than the memory holds, the last of it stays.
            for write in log.effective().rev() {
                let request = match &write.effect {
                    Effect::Set { value, tags, .. } if !is_put(value, tags) => {
                        (value, Reservation::tagged(value.len(), *tags))
                    }
                    Effect::Keep { value, tags, over, .. } => {
                        (value, Reservation::kept(value.len(), *tags, Some(*over)))
                    }
                    _ => continue,
                };
                let (value, request) = request;
                write.reservation = Some(store::reserve(segment, write.key, value, request, now)?);
            }
            if log.removes() {
                fence::begin_removals(segment, log);
            }
            Ok(())
        })
    }

    fn commit(&self) {
        commit_write();
        LOG.with_borrow_mut(|log| {
            // Where all of it was rolled back to a savepoint, the log is empty but not as new.
            if let (false, Ok(segment)) = (log.is_empty(), segment()) {
                let now = log.now;
                let own = std::mem::take(&mut log.fences);
                let origin = Origin { since: log.since.unwrap_or_default(), own: &own };
                let bucket = |key| store::fetch_bucket(segment, key);
                let entry = |key| store::fetch_entry(segment, key);
                log.each_effective(bucket, entry, |write| {
                    // An error says that the partition was damaged and is empty now: then the key is absent, too.
                    let _ = apply(segment, write, &origin, now);
                });
                log.fences = own;
                fence::end_removals(segment, log, true);
            }
            log.forget();
        });
    }

    fn abort(&self) {
        single::forget();
        LOG.with_borrow_mut(|log| {
            if let (false, Ok(segment)) = (log.is_empty(), segment()) {
                Self::release(segment, log);
                fence::end_removals(segment, log, false);
            }
            log.forget();
        });
    }

    fn merge(&self, from: SubTransactionId, to: SubTransactionId) {
        collect();
        LOG.with_borrow_mut(|log| log.merge(from, to));
    }

    fn undo(&self, from: SubTransactionId) {
        collect();
        LOG.with_borrow_mut(|log| log.undo(from));
    }
}

/// Whether a value is copied when the transaction has committed, instead of into memory reserved before: a small one,
/// whose copy takes no longer than to take the lock twice. That can't fail either: a value for which there is no memory
/// is absent, as if it had been evicted at once.
fn is_put(value: &[u8], tags: &Tags) -> bool {
    value.len() <= store::FILL_AT_ONCE && tags.hashes().is_empty()
}

fn apply(segment: &Segment, write: &mut Write, origin: &Origin<'_>, now: u64) -> Result<bool, Error> {
    let (key, database) = (write.key, server::database());
    let item = match write.effect {
        Effect::Set { ref value, kind, expiry, ref tags } => {
            let item = Item { key, database, expiry, kind };
            if is_put(value, tags) {
                return store::put(segment, &item, value, origin, || now);
            }
            item
        }
        Effect::Keep { until, .. } => Item { key, database, expiry: until, kind: Kind::Json },
        // Carried out before the commit.
        Effect::Delete | Effect::Taken => return Ok(true),
        Effect::Touch { expiry } => return store::touch(segment, key, now, expiry),
    };
    match &mut write.reservation {
        Some(reservation) => store::publish(segment, reservation, &item, origin),
        // Written after the reservations were made: an older value must not stay, and a new one can't come.
        None => store::remove(segment, key, now),
    }
}

/// The server's clock as the engine counts: microseconds since `PostgreSQL`'s epoch.
pub fn now() -> u64 {
    u64::try_from(server::now()).unwrap_or(0)
}

/// Whether `expiry` has come.
pub fn is_over(expiry: u64, now: u64) -> bool {
    expiry != NEVER && expiry <= now
}
