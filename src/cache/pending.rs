//! What waits for the commit: a log of writes in this process's memory, each with the savepoint that it belongs to.
//!
//! Savepoints nest, so what belongs to the current one is always the log's tail: rolling back pops it, releasing
//! relabels it. A write that replaces one of the same savepoint takes its place; one of an outer savepoint is kept
//! underneath, for a rollback to uncover. Clearing is in the log, too: it hides every write before it.

use super::store;
use crate::error::Error;
use crate::segment::xact::{self, Participant};
use crate::segment::{Segment, segment, server};
use enough_engine::cache::{Item, Kind, NEVER, Reservation};
use enough_engine::hash::KeyHash;
use pgrx::pg_sys::SubTransactionId;
use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::rc::Rc;

/// How long a log may grow before its keys are indexed.
const SCANNED: usize = 8;
/// What a session keeps allocated between transactions.
const KEPT: usize = 256;

/// What a write does.
#[derive(Debug, Clone)]
pub enum Effect {
    /// Puts a value there.
    Set {
        /// Shared with the writes that only change its expiry.
        value: Rc<[u8]>,
        /// What its bytes mean.
        kind: Kind,
        /// When it is over.
        expiry: u64,
    },
    /// Removes whatever is there.
    Delete,
    /// Changes the expiry of what others have committed.
    Touch {
        /// When it is over.
        expiry: u64,
    },
}

#[derive(Debug)]
struct Write {
    key: KeyHash,
    owner: SubTransactionId,
    effect: Effect,
    /// The write to the same key that this one hides.
    below: Option<usize>,
    /// Whether a later write hides this one.
    hidden: bool,
    /// Its memory in the segment, once the transaction is about to commit.
    reservation: Option<Reservation>,
}

/// `cache_clear` in the log.
#[derive(Debug)]
struct Clear {
    owner: SubTransactionId,
    /// Writes from this index on came later.
    at: usize,
}

/// A hash is its own hash.
#[derive(Default)]
struct ByItself(u64);

impl Hasher for ByItself {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(byte);
        }
    }
    fn write_u64(&mut self, word: u64) {
        self.0 = self.0.rotate_left(1) ^ word;
    }
}

#[derive(Default)]
struct Log {
    writes: Vec<Write>,
    /// Where each key's latest write is; filled only for logs longer than [`SCANNED`].
    latest: HashMap<KeyHash, usize, BuildHasherDefault<ByItself>>,
    clears: Vec<Clear>,
    /// The time that the commit goes by, taken just before it.
    now: u64,
}

impl Log {
    fn find(&self, key: KeyHash) -> Option<usize> {
        if self.writes.len() > SCANNED {
            return self.latest.get(&key).copied();
        }
        self.writes.iter().rposition(|write| write.key == key)
    }

    fn is_empty(&self) -> bool {
        self.writes.is_empty() && self.clears.is_empty()
    }

    /// The index of the first write that no clearing hides.
    fn visible(&self) -> usize {
        self.clears.last().map_or(0, |clear| clear.at)
    }

    fn effect(&self, key: KeyHash) -> Option<&Effect> {
        match self.find(key) {
            Some(index) if index >= self.visible() => Some(&self.writes[index].effect),
            _ if self.clears.is_empty() => None,
            _ => Some(&Effect::Delete),
        }
    }

    fn clear(&mut self, owner: SubTransactionId) {
        let at = self.writes.len();
        self.clears.push(Clear { owner, at });
    }

    /// The writes that the commit carries out.
    fn effective(&mut self) -> impl DoubleEndedIterator<Item = &mut Write> {
        let visible = self.visible();
        self.writes.iter_mut().skip(visible).filter(|write| !write.hidden)
    }

    fn write(&mut self, key: KeyHash, owner: SubTransactionId, effect: Effect) {
        let below = self.find(key);
        if let Some(index) = below {
            let visible = self.visible();
            let write = &mut self.writes[index];
            if write.owner == owner && index >= visible {
                write.effect = effect;
                return;
            }
            write.hidden = true;
        }
        self.writes.push(Write { key, owner, effect, below, hidden: false, reservation: None });
        match self.writes.len() {
            ..=SCANNED => {}
            len if len == SCANNED + 1 => {
                self.latest = self.writes.iter().enumerate().map(|(index, write)| (write.key, index)).collect();
            }
            len => {
                self.latest.insert(key, len - 1);
            }
        }
    }

    fn undo(&mut self, from: SubTransactionId) {
        while let Some(write) = self.writes.pop_if(|write| write.owner == from) {
            match write.below {
                Some(index) => {
                    self.writes[index].hidden = false;
                    self.latest.insert(write.key, index);
                }
                None => {
                    self.latest.remove(&write.key);
                }
            }
        }
        if self.writes.len() <= SCANNED {
            self.latest.clear();
        }
        while self.clears.pop_if(|clear| clear.owner == from).is_some() {}
    }

    /// A write that its new owner has overwritten takes the place of the older one, so that a loop over savepoints
    /// doesn't pile up what nobody can see any more.
    fn merge(&mut self, from: SubTransactionId, to: SubTransactionId) {
        let start = self.writes.iter().rposition(|write| write.owner != from).map_or(0, |index| index + 1);
        if self.clears.last().is_some_and(|clear| clear.owner == from) {
            // Positions in the log matter to it, so everything stays where it is.
            self.writes.iter_mut().skip(start).for_each(|write| write.owner = to);
            self.clears.iter_mut().rev().take_while(|clear| clear.owner == from).for_each(|clear| clear.owner = to);
            return;
        }
        let visible = self.visible();
        for write in self.writes.split_off(start) {
            let index = match write.below {
                Some(index) if self.writes[index].owner == to && index >= visible => {
                    self.writes[index].effect = write.effect;
                    self.writes[index].hidden = false;
                    index
                }
                _ => {
                    self.writes.push(Write { owner: to, ..write });
                    self.writes.len() - 1
                }
            };
            self.latest.insert(self.writes[index].key, index);
        }
        if self.writes.len() <= SCANNED {
            self.latest.clear();
        }
    }

    fn forget(&mut self) {
        self.writes.clear();
        self.writes.shrink_to(KEPT);
        self.latest.clear();
        self.latest.shrink_to(KEPT);
        self.clears.clear();
    }
}

thread_local! {
    static LOG: RefCell<Log> = RefCell::default();
}

/// What this transaction has done to a key.
pub fn effect(key: KeyHash) -> Option<Effect> {
    LOG.with_borrow(|log| if log.is_empty() { None } else { log.effect(key).cloned() })
}

/// Adds a write of the current savepoint.
pub fn write(key: KeyHash, effect: Effect) {
    let owner = xact::current();
    LOG.with_borrow_mut(|log| log.write(key, owner, effect));
    xact::join();
}

/// Ends all entries of this database, for the current savepoint.
pub fn clear() {
    let owner = xact::current();
    LOG.with_borrow_mut(|log| log.clear(owner));
    xact::join();
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
        LOG.with_borrow(|log| !log.is_empty())
    }

    fn pre_commit(&self) -> Result<(), Error> {
        LOG.with_borrow_mut(|log| {
            if log.is_empty() {
                return Ok(());
            }
            let (segment, now) = (segment()?, now());
            log.now = now;
            // Where one transaction writes more than the memory holds, the last of it stays.
            for write in log.effective().rev() {
                if let Effect::Set { value, .. } = &write.effect {
                    write.reservation = Some(store::reserve(segment, write.key, value, now)?);
                }
            }
            Ok(())
        })
    }

    fn commit(&self) {
        LOG.with_borrow_mut(|log| {
            if log.is_empty() {
                return;
            }
            if let Ok(segment) = segment() {
                let now = log.now;
                if !log.clears.is_empty() {
                    store::clear(segment, server::database());
                }
                for write in log.effective() {
                    // An error says that the partition was damaged and is empty now: then the key is absent, too.
                    let _ = apply(segment, write, now);
                }
            }
            log.forget();
        });
    }

    fn abort(&self) {
        LOG.with_borrow_mut(|log| {
            if let (false, Ok(segment)) = (log.writes.is_empty(), segment()) {
                Self::release(segment, log);
            }
            log.forget();
        });
    }

    fn merge(&self, from: SubTransactionId, to: SubTransactionId) {
        LOG.with_borrow_mut(|log| log.merge(from, to));
    }

    fn undo(&self, from: SubTransactionId) {
        LOG.with_borrow_mut(|log| log.undo(from));
    }
}

fn apply(segment: &Segment, write: &mut Write, now: u64) -> Result<bool, Error> {
    match write.effect {
        Effect::Set { kind, expiry, .. } => {
            let item = Item { key: write.key, database: server::database(), expiry, kind };
            match &mut write.reservation {
                Some(reservation) => store::publish(segment, reservation, &item),
                // Written after the reservations were made: an older value must not stay, and a new one can't come.
                None => store::remove(segment, write.key, now),
            }
        }
        Effect::Delete => store::remove(segment, write.key, now),
        Effect::Touch { expiry } => store::touch(segment, write.key, now, expiry),
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

#[cfg(test)]
mod tests {
    use super::{Effect, Log};
    use enough_engine::hash::KeyHash;

    fn key(number: u64) -> KeyHash {
        KeyHash { high: number, low: number }
    }

    fn touch(log: &mut Log, number: u64, owner: u32, expiry: u64) {
        log.write(key(number), owner, Effect::Touch { expiry });
    }

    fn expiry(log: &Log, number: u64) -> Option<u64> {
        log.effect(key(number)).map(|effect| match effect {
            Effect::Touch { expiry } => *expiry,
            _ => unreachable!("only touches are written here"),
        })
    }

    /// Few keys are scanned, many are looked up.
    const LENGTHS: [u64; 4] = [1, 7, 8, 100];

    #[test]
    fn undo_uncovers_what_the_outer_savepoint_wrote() {
        for keys in LENGTHS {
            let mut log = Log::default();
            for number in 0..keys {
                touch(&mut log, number, 1, number);
            }
            for number in 0..keys * 2 {
                touch(&mut log, number, 2, 1000 + number);
            }
            assert_eq!(expiry(&log, 0), Some(1000));
            log.undo(2);
            for number in 0..keys * 2 {
                assert_eq!(expiry(&log, number), (number < keys).then_some(number));
            }
            assert!(log.writes.iter().all(|write| !write.hidden));
        }
    }

    #[test]
    fn merged_writes_are_undone_with_the_outer_savepoint() {
        for keys in LENGTHS {
            let mut log = Log::default();
            for owner in 1..=3 {
                for number in 0..keys {
                    touch(&mut log, number, owner, u64::from(owner));
                }
            }
            touch(&mut log, keys, 3, 3);
            log.merge(3, 2);
            assert_eq!(log.writes.len() as u64, keys * 2 + 1, "what can't be uncovered any more is gone");
            log.undo(3);
            assert!((0..=keys).all(|number| expiry(&log, number) == Some(3)));
            log.undo(2);
            assert!((0..keys).all(|number| expiry(&log, number) == Some(1)));
            assert_eq!(expiry(&log, keys), None);
            touch(&mut log, keys, 1, 5);
            assert_eq!(expiry(&log, keys), Some(5));
        }
    }

    #[test]
    fn clearing_hides_what_came_before_until_it_is_undone() {
        for keys in LENGTHS {
            let mut log = Log::default();
            let cleared = |log: &Log, number| matches!(log.effect(key(number)), Some(Effect::Delete));
            for number in 0..keys {
                touch(&mut log, number, 1, 1);
            }
            log.clear(2);
            assert!((0..=keys).all(|number| cleared(&log, number)));
            touch(&mut log, 0, 2, 2);
            log.clear(3);
            assert!(cleared(&log, 0));
            log.undo(3);
            assert_eq!(expiry(&log, 0), Some(2));
            log.merge(2, 1);
            assert_eq!(expiry(&log, 0), Some(2));
            assert!((1..=keys).all(|number| cleared(&log, number)));
            assert_eq!(log.effective().count(), 1);
            touch(&mut log, 0, 1, 3);
            assert_eq!(log.writes.len() as u64, keys + 1);
            log.undo(1);
            assert!(log.is_empty() && log.effect(key(0)).is_none());
        }
    }

    #[test]
    fn writes_of_one_savepoint_replace_each_other() {
        for keys in LENGTHS {
            let mut log = Log::default();
            for round in 0..5 {
                for number in 0..keys {
                    touch(&mut log, number, 1, round);
                }
            }
            assert_eq!(log.writes.len() as u64, keys);
            assert_eq!(expiry(&log, keys - 1), Some(4));
        }
    }
}
