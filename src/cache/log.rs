//! The log of what a transaction has done to the cache, each write with the savepoint that it belongs to.
//!
//! Savepoints nest, so what belongs to the current one is always the log's tail: rolling back pops it, releasing
//! relabels it. A write that replaces one of the same savepoint takes its place; one of an outer savepoint is kept
//! underneath, for a rollback to uncover. Clearing and invalidating are in the log, too, as marks that hide writes
//! before them.

use super::fence::Fence;
use enough_engine::cache::{Kind, Moment, Reservation, Tags};
use enough_engine::hash::KeyHash;
use pgrx::pg_sys::SubTransactionId;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::rc::Rc;

/// How long a log may grow before its keys are indexed.
const SCANNED: usize = 8;
/// What a session keeps allocated between transactions, in writes: what it gives back, the next one faults in again.
const KEPT: usize = 1024;

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
        /// What it may be invalidated by.
        tags: Tags,
    },
    /// The same for a jsonb that is kept for a while after its time.
    Keep {
        /// The value.
        value: Rc<[u8]>,
        /// When it is over.
        over: u64,
        /// When it goes.
        until: u64,
        /// What it may be invalidated by.
        tags: Tags,
    },
    /// Removes whatever is there.
    Delete,
    /// Changes the expiry of what others have committed.
    Touch {
        /// When it is over.
        expiry: u64,
    },
    /// Keeps what was computed before the commit from being put there. The key itself has been removed at once.
    Taken,
}

#[derive(Debug)]
pub(super) struct Write {
    pub(super) key: KeyHash,
    owner: SubTransactionId,
    pub(super) effect: Effect,
    /// Whether this transaction has removed the key, be it to set it again: what others have computed before must not
    /// come back.
    pub(super) removes: bool,
    /// The write to the same key that this one hides.
    below: Option<usize>,
    /// Whether a later write hides this one.
    hidden: bool,
    /// Its memory in the segment, once the transaction is about to commit.
    pub(super) reservation: Option<Reservation>,
}

/// `cache_clear` or `cache_invalidate` in the log.
#[derive(Debug)]
pub(super) struct Mark {
    owner: SubTransactionId,
    /// What is invalidated; `None`: everything.
    pub(super) tag: Option<u64>,
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

/// See the top of this file.
#[derive(Default)]
pub(super) struct Log {
    pub(super) writes: Vec<Write>,
    /// Where each key's latest write is; filled only for logs longer than [`SCANNED`].
    latest: HashMap<KeyHash, usize, BuildHasherDefault<ByItself>>,
    pub(super) marks: Vec<Mark>,
    /// The time that the commit goes by, taken just before it.
    pub(super) now: u64,
    /// Since when the values may be computed; set with the first of them.
    pub(super) since: Option<Moment>,
    /// The fences that are held from before the commit on.
    pub(super) fences: Vec<Fence>,
}

impl Log {
    fn find(&self, key: KeyHash) -> Option<usize> {
        if self.writes.len() > SCANNED {
            return self.latest.get(&key).copied();
        }
        self.writes.iter().rposition(|write| write.key == key)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.writes.is_empty() && self.marks.is_empty()
    }

    /// The index of the first write that no clearing hides.
    fn visible(&self) -> usize {
        self.marks.iter().rfind(|mark| mark.tag.is_none()).map_or(0, |mark| mark.at)
    }

    /// The index of the first write that no mark at all came after.
    fn unmarked(&self) -> usize {
        self.marks.last().map_or(0, |mark| mark.at)
    }

    /// Whether a tag of the write at `index` has been invalidated since.
    fn is_invalidated(&self, index: usize) -> bool {
        let (Effect::Set { tags, .. } | Effect::Keep { tags, .. }) = &self.writes[index].effect else { return false };
        self.marks.iter().any(|mark| mark.at > index && mark.tag.is_some_and(|tag| tags.any_of(&[tag])))
    }

    pub(super) fn effect(&self, key: KeyHash) -> Option<&Effect> {
        match self.find(key) {
            Some(index) if index >= self.visible() && !self.is_invalidated(index) => Some(&self.writes[index].effect),
            None if !self.clears() => None,
            _ => Some(&Effect::Delete),
        }
    }

    fn clears(&self) -> bool {
        self.marks.iter().any(|mark| mark.tag.is_none())
    }

    pub(super) fn mark(&mut self, owner: SubTransactionId, tag: Option<u64>) {
        let at = self.writes.len();
        self.marks.push(Mark { owner, tag, at });
    }

    /// Turns what an invalidation has hidden into removals: what lies under such a key is gone for this transaction.
    pub(super) fn settle(&mut self) {
        for index in 0..self.writes.len() {
            if self.is_invalidated(index) {
                self.writes[index].effect = Effect::Delete;
                self.writes[index].removes = true;
            }
        }
    }

    /// Whether the commit removes anything.
    pub(super) fn removes(&self) -> bool {
        !self.marks.is_empty() || self.writes.iter().any(|write| write.removes)
    }

    /// The writes that the commit carries out.
    pub(super) fn effective(&mut self) -> impl DoubleEndedIterator<Item = &mut Write> {
        let visible = self.visible();
        self.writes.iter_mut().skip(visible).filter(|write| !write.hidden)
    }

    /// The same for `work`, each key having been given to `first` and, then, to `second` a while before: what a key needs
    /// is on its way from memory while others are at work.
    pub(super) fn each_effective(
        &mut self,
        first: impl Fn(KeyHash),
        second: impl Fn(KeyHash),
        mut work: impl FnMut(&mut Write),
    ) {
        /// Keys: each has some lines fetched.
        const AHEAD: usize = 8;
        let visible = self.visible();
        let writes = self.writes.get_mut(visible..).unwrap_or_default();
        writes.iter().take(2 * AHEAD).for_each(|write| first(write.key));
        writes.iter().take(AHEAD).for_each(|write| second(write.key));
        for index in 0..writes.len() {
            if let Some(later) = writes.get(index + 2 * AHEAD) {
                first(later.key);
            }
            if let Some(later) = writes.get(index + AHEAD) {
                second(later.key);
            }
            if let Some(write) = writes.get_mut(index).filter(|write| !write.hidden) {
                work(write);
            }
        }
    }

    pub(super) fn write(&mut self, key: KeyHash, owner: SubTransactionId, effect: Effect) {
        let below = self.find(key);
        let mut removes = matches!(effect, Effect::Delete | Effect::Taken);
        if let Some(index) = below {
            let unmarked = self.unmarked();
            let write = &mut self.writes[index];
            removes |= write.removes;
            if write.owner == owner && index >= unmarked {
                write.effect = effect;
                write.removes = removes;
                return;
            }
            write.hidden = true;
        }
        self.writes.push(Write { key, owner, effect, removes, below, hidden: false, reservation: None });
        match self.writes.len() {
            ..=SCANNED => {}
            len if len == SCANNED + 1 => {
                debug_assert!(self.latest.is_empty(), "short logs have no index");
                self.latest.extend(self.writes.iter().enumerate().map(|(index, write)| (write.key, index)));
            }
            len => {
                self.latest.insert(key, len - 1);
            }
        }
    }

    pub(super) fn undo(&mut self, from: SubTransactionId) {
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
        while self.marks.pop_if(|mark| mark.owner == from).is_some() {}
    }

    /// A write that its new owner has overwritten takes the place of the older one, so that a loop over savepoints
    /// doesn't pile up what nobody can see any more.
    pub(super) fn merge(&mut self, from: SubTransactionId, to: SubTransactionId) {
        let start = self.writes.iter().rposition(|write| write.owner != from).map_or(0, |index| index + 1);
        if self.marks.last().is_some_and(|mark| mark.owner == from) {
            // Positions in the log matter to it, so everything stays where it is.
            self.writes.iter_mut().skip(start).for_each(|write| write.owner = to);
            self.marks.iter_mut().rev().take_while(|mark| mark.owner == from).for_each(|mark| mark.owner = to);
            return;
        }
        let unmarked = self.unmarked();
        for write in self.writes.split_off(start) {
            let index = match write.below {
                Some(index) if self.writes[index].owner == to && index >= unmarked => {
                    self.writes[index].effect = write.effect;
                    self.writes[index].removes = write.removes;
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

    pub(super) fn forget(&mut self) {
        self.writes.clear();
        self.writes.shrink_to(KEPT);
        self.latest.clear();
        self.latest.shrink_to(KEPT);
        self.marks.clear();
        self.since = None;
        self.fences.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::{Effect, Log};
    use enough_engine::cache::{Kind, Tags};
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
            log.mark(2, None);
            assert!((0..=keys).all(|number| cleared(&log, number)));
            touch(&mut log, 0, 2, 2);
            log.mark(3, None);
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
    fn invalidating_hides_what_carries_the_tag_until_it_is_undone() {
        let mut log = Log::default();
        let tagged = |log: &mut Log, number, owner, tag| {
            let mut tags = Tags::default();
            assert!(tags.push(tag));
            log.write(key(number), owner, Effect::Set { value: [].into(), kind: Kind::Json, expiry: 0, tags });
        };
        let set = |log: &Log, number| matches!(log.effect(key(number)), Some(Effect::Set { .. }));
        tagged(&mut log, 1, 1, 7);
        tagged(&mut log, 2, 1, 8);
        log.mark(2, Some(7));
        assert_eq!([1, 2].map(|number| set(&log, number)), [false, true]);
        assert!(log.effect(key(3)).is_none(), "what is committed depends on its own tags");
        tagged(&mut log, 1, 2, 7);
        tagged(&mut log, 2, 2, 7);
        log.merge(2, 1);
        assert_eq!([1, 2].map(|number| set(&log, number)), [true, true]);
        log.mark(3, Some(7));
        assert_eq!([1, 2].map(|number| set(&log, number)), [false, false]);
        log.undo(3);
        assert_eq!([1, 2].map(|number| set(&log, number)), [true, true]);
        log.settle();
        assert!(log.effective().all(|write| matches!(write.effect, Effect::Set { .. })));
        log.mark(1, Some(7));
        log.settle();
        assert!(log.effective().all(|write| matches!(write.effect, Effect::Delete)));
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
