//! The log of what a transaction has done to the cache, each write with the savepoint that it belongs to.
//!
//! Savepoints nest, so what belongs to the current one is always the log's tail: rolling back pops it, releasing
//! relabels it. A write that replaces one of the same savepoint takes its place; one of an outer savepoint is kept
//! underneath, for a rollback to uncover. Clearing and invalidating are in the log, too, as invalidations: what was written
//! before a mark (by the log's own count, [`Write::stamp`]) and is meant by it is gone.
//!
//! # Memory
//! The log is never larger than what the cache could hold ([`Log::make_room`]): a transaction that writes more loses
//! what it wrote first, as if the cache had evicted it. Where not even the keys fit, or more tags were
//! invalidated than the cache can remember, the log becomes a removal of everything, or of everything that has tags: too
//! much is removed then, never too little.
//!
//! All of it lies in a few lists of the server's memory. Undoing, merging and carrying out need no more of it.

mod chains;
#[cfg(test)]
mod tests;

use super::barrier::Barrier;
use super::key::Key;
use crate::pg::memory::PgVec;
use chains::{Chains, KEPT, Link};
use enough_engine::cache::{Kind, LogicalTime, Reservation, Tags};
use enough_engine::hash::KeyHash;
use pgrx::pg_sys::SubTransactionId;

/// The same of values, in bytes.
const KEPT_BYTES: usize = 256 << 10;
/// Bytes of replaced values that aren't worth the work of getting rid of them.
const LOOSE_BYTES: usize = 64 << 10;
/// The savepoint that is the transaction itself.
const OUTERMOST: SubTransactionId = 1;

/// What a write does, with its value.
#[derive(Debug, Clone, Copy)]
pub enum Effect<'v> {
    /// Puts a value there.
    Set {
        /// The value.
        value: &'v [u8],
        /// What its bytes mean.
        kind: Kind,
        /// When it is over.
        expiry: u64,
        /// What it may be invalidated by.
        tags: &'v Tags,
    },
    /// The same for a jsonb that is kept for a while after its time.
    SetStale {
        /// The value.
        value: &'v [u8],
        /// When it is over.
        over: u64,
        /// When it goes.
        until: u64,
        /// What it may be invalidated by.
        tags: &'v Tags,
    },
    /// Removes whatever is there.
    Delete,
    /// Changes the expiry of what others have committed.
    Touch {
        /// When it is over.
        expiry: u64,
    },
    /// Keeps what was computed before the commit from being put there. The key itself has been removed at once.
    Removed,
}

/// What a write does, without its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    /// [`Effect::Set`]
    Set,
    /// [`Effect::SetStale`]
    SetStale,
    /// [`Effect::Delete`]
    Delete,
    /// [`Effect::Touch`]
    Touch,
    /// [`Effect::Removed`]
    Removed,
    /// A value that had to give way to later ones: the key is absent, as if it had been evicted at once.
    Evicted,
}

/// A write in the log.
#[derive(Debug, Clone, Copy)]
pub(super) struct Write {
    pub(super) key: KeyHash,
    /// When it was written: the later the larger, also among invalidations.
    stamp: u64,
    /// When the value is over; of [`Action::SetStale`] when it goes.
    pub(super) expiry: u64,
    /// When the value of [`Action::SetStale`] is over, else as `expiry`.
    pub(super) over: u64,
    /// Where its tags, its name and its value lie in [`Log::bytes`], one behind the other.
    at: usize,
    /// Bytes of the value.
    len: u32,
    /// Bytes of the name and 1 more, or 0 where it isn't kept.
    name: u16,
    owner: SubTransactionId,
    /// The write before it in its chain.
    before: Link,
    pub(super) action: Action,
    pub(super) kind: Kind,
    tags: u8,
    /// Whether this transaction has removed the key, be it to set it again: what others have computed before must not
    /// come back.
    pub(super) removes: bool,
    /// Whether a later write to the same key hides this one.
    hidden: bool,
}

impl Write {
    /// Bytes that it takes in [`Log::bytes`].
    fn size(&self) -> usize {
        usize::from(self.tags) * size_of::<u64>() + self.name_len() + self.len as usize
    }

    fn name_len(&self) -> usize {
        usize::from(self.name).saturating_sub(1)
    }

    /// Bytes of its value.
    pub(super) fn len(&self) -> usize {
        self.len as usize
    }

    /// Whether it carries tags.
    pub(super) fn is_tagged(&self) -> bool {
        self.tags > 0
    }
}

fn name_bits(name: Option<&[u8]>) -> u16 {
    name.map_or(0, |name| name.len() as u16 + 1)
}

/// What a mark removes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removed {
    /// All entries of the database.
    Everything,
    /// All entries with any tags.
    Tagged,
    /// All entries with one tag.
    Tag(u64),
}

impl Removed {
    fn hash(self) -> u64 {
        match self {
            Removed::Everything => 0,
            Removed::Tagged => 1,
            Removed::Tag(tag) => tag,
        }
    }
}

/// `cache_clear` or `cache_invalidate` in the log.
#[derive(Debug, Clone, Copy)]
pub(super) struct Invalidation {
    pub(super) what: Removed,
    stamp: u64,
    owner: SubTransactionId,
    before: Link,
}

/// What a transaction has made of a key.
#[derive(Debug, Clone, Copy)]
pub enum Seen {
    /// Gone.
    Absent,
    /// A value of its own.
    Own(Own),
    /// What others have committed, with another expiry.
    Touched(u64),
}

/// A value in the log.
#[derive(Debug, Clone, Copy)]
pub struct Own {
    /// Where it is; good until the next write.
    index: usize,
    /// What its bytes mean.
    pub kind: Kind,
    /// When it is over.
    pub over: u64,
    /// What it may be invalidated by.
    pub tags: Tags,
}

/// Memory in the segment for the value of a write, once the transaction is about to commit.
#[derive(Debug)]
pub(super) struct Reserved {
    /// Of the write, which may have been replaced since.
    index: usize,
    stamp: u64,
    pub(super) key: KeyHash,
    pub(super) reservation: Reservation,
}

/// See the top of this file.
pub(super) struct Log {
    writes: PgVec<Write>,
    by_key: Chains,
    /// Tags and values of the writes, and what is left of replaced ones.
    bytes: PgVec<u8>,
    /// How many of [`Self::bytes`] belong to writes.
    used: usize,
    pub(super) invalidations: PgVec<Invalidation>,
    by_tag: Chains,
    /// The stamp of the last write or mark.
    stamp: u64,
    /// Which write gives way next.
    hand: usize,
    /// Whether a write or a mark may remove something.
    pub(super) removes: bool,
    /// The time that the commit goes by, taken just before it.
    pub(super) now: u64,
    /// Since when the values may be computed; set with the first of them.
    pub(super) since: Option<LogicalTime>,
    /// Of the last write first.
    pub(super) reserved: PgVec<Reserved>,
    /// The barriers that are raised from before the commit on.
    pub(super) barriers: PgVec<Barrier>,
    /// Whether rows were changed of which there may be copies: they are to be prepared whatever room there is for it.
    pub(super) rows: bool,
    /// The keys that this session has the turn to compute until the transaction ends.
    pub(super) turns: PgVec<KeyHash>,
    /// The transaction's number while it is being prepared and removes something; else 0.
    pub(super) prepared: u64,
    /// What it may be at most.
    pub(super) limits: Limits,
}

/// What a log may be at most; 0 before the segment is known.
#[derive(Debug, Clone, Copy, Default)]
pub struct Limits {
    /// Bytes, its records included.
    pub(super) bytes: usize,
    /// Tags that were invalidated.
    pub(super) tags: usize,
}

impl Log {
    pub(super) const fn new() -> Self {
        Log {
            writes: PgVec::new(),
            by_key: Chains::new(),
            bytes: PgVec::new(),
            used: 0,
            invalidations: PgVec::new(),
            by_tag: Chains::new(),
            stamp: 0,
            hand: 0,
            removes: false,
            now: 0,
            since: None,
            reserved: PgVec::new(),
            barriers: PgVec::new(),
            rows: false,
            turns: PgVec::new(),
            prepared: 0,
            limits: Limits { bytes: 0, tags: 0 },
        }
    }

    #[inline]
    fn find(&self, key: KeyHash) -> Option<usize> {
        let mut link = self.by_key.first(key.low);
        while let Some(index) = (link as usize).checked_sub(1) {
            let write = self.writes.get(index)?;
            if write.key == key {
                return Some(index);
            }
            link = write.before;
        }
        None
    }

    fn find_mark(&self, what: Removed) -> Option<usize> {
        let mut link = self.by_tag.first(what.hash());
        while let Some(index) = (link as usize).checked_sub(1) {
            let mark = self.invalidations.get(index)?;
            if mark.what == what {
                return Some(index);
            }
            link = mark.before;
        }
        None
    }

    /// When something was removed last; 0 for never.
    fn removed(&self, what: Removed) -> u64 {
        self.find_mark(what).map_or(0, |index| self.invalidations[index].stamp)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.writes.is_empty() && self.invalidations.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.writes.len()
    }

    /// A write's tags.
    pub(super) fn tags(&self, write: &Write) -> Tags {
        let mut tags = Tags::default();
        let hashes = self.bytes.get(write.at..).unwrap_or_default().as_chunks::<8>().0;
        for hash in hashes.iter().take(usize::from(write.tags)) {
            tags.push(u64::from_ne_bytes(*hash));
        }
        tags
    }

    /// A write's value.
    #[inline]
    pub(super) fn value(&self, write: &Write) -> &[u8] {
        let (at, end) = (write.at + write.size() - write.len(), write.at + write.size());
        self.bytes.get(at..end).unwrap_or_default()
    }

    /// A write's name, where it is kept.
    pub(super) fn name(&self, write: &Write) -> Option<&[u8]> {
        if write.name == 0 {
            return None;
        }
        let at = write.at + usize::from(write.tags) * size_of::<u64>();
        self.bytes.get(at..at + write.name_len())
    }

    /// The value that a look at a key has found.
    pub(super) fn value_of(&self, own: &Own) -> &[u8] {
        self.value(&self.writes[own.index])
    }

    /// Whether any of these tags was invalidated after `stamp`.
    fn is_invalidated(&self, tags: &Tags, stamp: u64) -> bool {
        let hashes = tags.hashes();
        !hashes.is_empty()
            && (self.removed(Removed::Tagged) > stamp
                || hashes.iter().any(|&tag| self.removed(Removed::Tag(tag)) > stamp))
    }

    /// Whether a mark removes what the write has put there.
    pub(super) fn is_marked(&self, write: &Write) -> bool {
        !self.invalidations.is_empty()
            && (self.removed(Removed::Everything) > write.stamp
                || (write.tags > 0 && self.is_invalidated(&self.tags(write), write.stamp)))
    }

    /// Whether an entry with these tags that others have committed is gone for this transaction.
    pub(super) fn invalidates(&self, tags: &Tags) -> bool {
        !self.invalidations.is_empty() && self.is_invalidated(tags, 0)
    }

    /// Whether it has invalidated anything.
    pub(super) fn has_marks(&self) -> bool {
        !self.invalidations.is_empty()
    }

    /// What the transaction has made of a key; `None` for nothing.
    pub(super) fn seen(&self, key: KeyHash) -> Option<Seen> {
        let Some(index) = self.find(key) else {
            return (self.has_marks() && self.removed(Removed::Everything) > 0).then_some(Seen::Absent);
        };
        let write = &self.writes[index];
        if self.is_marked(write) {
            return Some(Seen::Absent);
        }
        match write.action {
            Action::Set | Action::SetStale => {
                Some(Seen::Own(Own { index, kind: write.kind, over: write.over, tags: self.tags(write) }))
            }
            Action::Delete | Action::Evicted => Some(Seen::Absent),
            Action::Touch => Some(Seen::Touched(write.expiry)),
            Action::Removed => None,
        }
    }

    /// Bytes that it takes, or would take if it were written again.
    fn size(&self) -> usize {
        self.used + self.writes.len() * size_of::<Write>() + self.invalidations.len() * size_of::<Invalidation>()
    }

    /// The only write, where there is no other and no mark.
    #[inline]
    pub(super) fn only_write(&self) -> Option<&Write> {
        if let ([write], []) = (&*self.writes, &*self.invalidations) { Some(write) } else { None }
    }

    /// Whether a value of that length can be written without growing, evicting, or anything else that may fail.
    #[inline(always)]
    pub(super) fn has_room(&self, len: usize) -> bool {
        self.writes.room() > 0
            && !self.by_key.are_full(self.writes.len())
            && self.bytes.room() >= len
            && self.size() + size_of::<Write>() + len <= self.limits.bytes
            && self.bytes.len() - self.used <= self.used / 2 + LOOSE_BYTES
    }

    /// Makes room for a write of `more` bytes: for as long as the log would be too large a value gives way, near enough the
    /// first written first.
    fn make_room(&mut self, more: usize) {
        let limit = self.limits.bytes.max(more);
        let mut left = self.writes.len();
        while self.size() + more > limit {
            if left == 0 {
                return self.remove_everything();
            }
            left -= 1;
            self.hand = if self.hand < self.writes.len() { self.hand } else { 0 };
            let write = &mut self.writes[self.hand];
            self.hand += 1;
            if write.size() > 0 {
                self.used -= write.size();
                (write.len, write.name, write.tags) = (0, 0, 0);
                write.action = Action::Evicted;
                left = self.writes.len();
            }
        }
    }

    /// Becomes a removal of everything, for the whole transaction.
    #[cold]
    fn remove_everything(&mut self) {
        self.prepare_mark();
        self.forget_writes();
        self.by_tag.clear();
        self.invalidations.clear();
        self.put_mark(OUTERMOST, Removed::Everything);
    }

    /// Becomes a removal of all that has tags, instead of removals of many tags.
    #[cold]
    fn remove_all_tagged(&mut self) {
        self.prepare_mark();
        self.invalidations.retain(|mark| mark.what == Removed::Everything);
        self.by_tag.clear();
        for index in 0..self.invalidations.len() {
            self.invalidations[index].before = self.by_tag.push(self.invalidations[index].what.hash(), index);
        }
        self.put_mark(OUTERMOST, Removed::Tagged);
    }

    /// Frees what replaced values have left, where it is more than half of what is used, and what was undone, where it is much
    /// more.
    fn tidy(&mut self) {
        let (loose, spare) = (self.bytes.len() - self.used, self.bytes.room());
        if loose <= self.used / 2 + LOOSE_BYTES && spare <= 3 * self.bytes.len() + KEPT_BYTES {
            return;
        }
        let mut bytes = PgVec::with_capacity(self.used);
        for write in &mut *self.writes {
            let at = bytes.len();
            bytes.extend_from_slice(self.bytes.get(write.at..write.at + write.size()).unwrap_or_default());
            write.at = at;
        }
        self.bytes = bytes;
    }

    /// Removes something: everything, or what carries a tag.
    pub(super) fn mark(&mut self, owner: SubTransactionId, what: Removed) {
        if what == Removed::Everything {
            // What the same savepoint has done before can't be uncovered any more.
            self.undo(owner);
        }
        if let Some(index) = self.find_mark(what).filter(|&index| self.invalidations[index].owner == owner) {
            self.stamp += 1;
            self.invalidations[index].stamp = self.stamp;
            return;
        }
        if matches!(what, Removed::Tag(_)) && self.invalidations.len() >= self.limits.tags {
            return self.remove_all_tagged();
        }
        self.make_room(size_of::<Invalidation>());
        self.prepare_mark();
        self.put_mark(owner, what);
    }

    /// Finds the memory for one more mark.
    fn prepare_mark(&mut self) {
        self.invalidations.reserve(1);
        if self.by_tag.widen(self.invalidations.len()) {
            for index in 0..self.invalidations.len() {
                self.invalidations[index].before = self.by_tag.push(self.invalidations[index].what.hash(), index);
            }
        }
    }

    /// Adds a mark.
    fn put_mark(&mut self, owner: SubTransactionId, what: Removed) {
        self.removes = true;
        self.stamp += 1;
        let before = self.by_tag.push(what.hash(), self.invalidations.len());
        self.invalidations.push(Invalidation { what, stamp: self.stamp, owner, before });
    }

    /// Adds a write.
    pub(super) fn write(&mut self, key: Key<'_>, owner: SubTransactionId, effect: Effect<'_>) {
        let none = Tags::default();
        let (action, value, tags, kind, over, expiry) = match effect {
            Effect::Set { value, kind, expiry, tags } => (Action::Set, value, tags, kind, expiry, expiry),
            Effect::SetStale { value, over, until, tags } => (Action::SetStale, value, tags, Kind::Json, over, until),
            Effect::Delete => (Action::Delete, [].as_slice(), &none, Kind::Json, 0, 0),
            Effect::Touch { expiry } => (Action::Touch, [].as_slice(), &none, Kind::Json, expiry, expiry),
            Effect::Removed => (Action::Removed, [].as_slice(), &none, Kind::Json, 0, 0),
        };
        let removes = matches!(action, Action::Delete | Action::Removed);
        self.removes |= removes;
        let hashes = tags.hashes();
        let name = key.name.filter(|_| matches!(action, Action::Set | Action::SetStale));
        let write = Write {
            key: key.hash,
            stamp: 0,
            expiry,
            over,
            at: 0,
            len: value.len() as u32,
            name: name_bits(name),
            owner,
            before: 0,
            action,
            kind,
            tags: hashes.len() as u8,
            removes,
            hidden: false,
        };
        self.make_room(size_of::<Write>() + write.size());
        // What may fail comes before anything is changed.
        self.tidy();
        self.bytes.reserve(write.size());
        self.prepare_write();
        let mut at = self.put(write);
        for hash in hashes {
            at = self.copy(at, &hash.to_ne_bytes());
        }
        if let Some(name) = name {
            at = self.copy(at, name);
        }
        if !value.is_empty() {
            self.copy(at, value);
        }
    }

    /// Adds a small value without tags, where [`Self::has_room`] says that it can't fail.
    #[inline(always)]
    pub(super) fn put_value(&mut self, key: Key<'_>, owner: SubTransactionId, kind: Kind, expiry: u64, value: &[u8]) {
        let mut at = self.put(Write {
            key: key.hash,
            stamp: 0,
            expiry,
            over: expiry,
            at: 0,
            len: value.len() as u32,
            name: name_bits(key.name),
            owner,
            before: 0,
            action: Action::Set,
            kind,
            tags: 0,
            removes: false,
            hidden: false,
        });
        if let Some(name) = key.name {
            at = self.copy(at, name);
        }
        self.copy(at, value);
    }

    /// Copies to a place in [`Self::bytes`], or to their end; where the copy ends.
    #[inline(always)]
    fn copy(&mut self, at: usize, bytes: &[u8]) -> usize {
        let end = at + bytes.len();
        if at == self.bytes.len() {
            self.bytes.extend_from_slice(bytes);
        } else if let Some(place) = self.bytes.get_mut(at..end) {
            place.copy_from_slice(bytes);
        }
        end
    }

    /// Adds a record; where its tags and its value are to be put: over those of the one that it replaces, or at the end.
    #[inline(always)]
    fn put(&mut self, mut write: Write) -> usize {
        self.stamp += 1;
        write.stamp = self.stamp;
        let size = write.size();
        write.at = self.bytes.len();
        let below = self.find(write.key);
        if let Some(index) = below.filter(|&index| self.writes[index].owner == write.owner) {
            let old = &mut self.writes[index];
            self.used -= old.size();
            // What is no longer than what was there takes its place.
            if size <= old.size() {
                write.at = old.at;
            }
            *old = Write { before: old.before, removes: old.removes || write.removes, ..write };
        } else {
            if let Some(index) = below {
                let old = &mut self.writes[index];
                old.hidden = true;
                write.removes |= old.removes;
            }
            let before = self.by_key.push(write.key.low, self.writes.len());
            self.writes.push(Write { before, ..write });
        }
        self.used += size;
        write.at
    }

    /// Finds the memory for one more record.
    fn prepare_write(&mut self) {
        self.writes.reserve(1);
        if self.by_key.widen(self.writes.len()) {
            for index in 0..self.writes.len() {
                self.writes[index].before = self.by_key.push(self.writes[index].key.low, index);
            }
        }
    }

    /// Undoes what belongs to a savepoint. Never fails.
    pub(super) fn undo(&mut self, from: SubTransactionId) {
        let mut end = self.bytes.len();
        while let Some(&write) = self.writes.last().filter(|write| write.owner == from) {
            self.writes.pop();
            self.by_key.pop(write.key.low, write.before);
            if let Some(index) = self.find(write.key) {
                self.writes[index].hidden = false;
            }
            if write.size() > 0 {
                self.used -= write.size();
                end = end.min(write.at);
            }
        }
        // Savepoints nest: what lies behind the first of these bytes was written by this one, too.
        self.bytes.truncate(end);
        while let Some(mark) = self.invalidations.last().filter(|mark| mark.owner == from) {
            self.by_tag.pop(mark.what.hash(), mark.before);
            self.invalidations.pop();
        }
    }

    /// What belongs to a savepoint belongs to the outer one now. A write that its new owner has overwritten takes the place
    /// of the older one, so that a loop over savepoints doesn't pile up what nobody can see any more. Never fails.
    pub(super) fn merge(&mut self, from: SubTransactionId, to: SubTransactionId) {
        let end = self.writes.len();
        let start = self.writes.iter().rposition(|write| write.owner != from).map_or(0, |index| index + 1);
        let outer = self.writes[..start].iter().rev().take(end - start).take_while(|write| write.owner == to).count();
        if 2 * outer < end - start {
            // Few lie underneath: what was overwritten of them stays, hidden. Else what the innermost of many nested savepoints
            // wrote would be looked up and moved for each of them.
            self.writes[start..].iter_mut().for_each(|write| write.owner = to);
            return self.merge_marks(from, to);
        }
        for index in (start..end).rev() {
            self.by_key.pop(self.writes[index].key.low, self.writes[index].before);
        }
        let mut kept = start;
        for index in start..end {
            let write = Write { owner: to, ..self.writes[index] };
            if let Some(below) = self.find(write.key).filter(|&below| self.writes[below].owner == to) {
                let old = &mut self.writes[below];
                self.used -= old.size();
                *old = Write { before: old.before, ..write };
            } else {
                let before = self.by_key.push(write.key.low, kept);
                self.writes[kept] = Write { before, ..write };
                kept += 1;
            }
        }
        self.writes.truncate(kept);
        self.merge_marks(from, to);
    }

    fn merge_marks(&mut self, from: SubTransactionId, to: SubTransactionId) {
        let end = self.invalidations.len();
        let start = self.invalidations.iter().rposition(|mark| mark.owner != from).map_or(0, |index| index + 1);
        let outer =
            self.invalidations[..start].iter().rev().take(end - start).take_while(|mark| mark.owner == to).count();
        if 2 * outer < end - start {
            self.invalidations[start..].iter_mut().for_each(|mark| mark.owner = to);
            return;
        }
        for index in (start..end).rev() {
            self.by_tag.pop(self.invalidations[index].what.hash(), self.invalidations[index].before);
        }
        let mut kept = start;
        for index in start..end {
            let mark = Invalidation { owner: to, ..self.invalidations[index] };
            if let Some(below) = self.find_mark(mark.what).filter(|&below| self.invalidations[below].owner == to) {
                self.invalidations[below].stamp = mark.stamp;
            } else {
                let before = self.by_tag.push(mark.what.hash(), kept);
                self.invalidations[kept] = Invalidation { before, ..mark };
                kept += 1;
            }
        }
        self.invalidations.truncate(kept);
    }

    /// Turns what an invalidation has hidden into removals: what lies under such a key is gone for this transaction.
    pub(super) fn resolve(&mut self) {
        for index in 0..self.writes.len() {
            let write = &self.writes[index];
            if write.tags > 0 && self.is_invalidated(&self.tags(write), write.stamp) {
                let write = &mut self.writes[index];
                write.action = Action::Delete;
                write.removes = true;
            }
        }
    }

    /// Turns what was written into removals of the keys. A value of [`Action::SetStale`] is only left out: it is what anybody would compute.
    pub(super) fn remove_what_was_written(&mut self) {
        for index in 0..self.writes.len() {
            let write = &mut self.writes[index];
            write.removes |= write.action != Action::SetStale;
            if write.removes && write.action != Action::Removed {
                write.action = Action::Delete;
            }
            self.removes |= write.removes;
        }
    }

    /// The writes before the `end`-th that the commit carries out, the last first, with where they are.
    pub(super) fn effective(&self, end: usize) -> impl Iterator<Item = (usize, &Write)> {
        let (cleared, writes) = (self.cleared(), self.writes.get(..end).unwrap_or_default());
        writes.iter().enumerate().rev().filter(move |(_, write)| !write.hidden && write.stamp > cleared)
    }

    /// The stamp of the last clearing.
    fn cleared(&self) -> u64 {
        if self.invalidations.is_empty() { 0 } else { self.removed(Removed::Everything) }
    }

    /// The same for `work`, with the memory that was reserved for each, and each key having been given to `first` and, then,
    /// to `second` a while before: what a key needs is on its way from memory while others are at work.
    #[inline]
    pub(super) fn each_effective(
        &mut self,
        first: impl Fn(KeyHash),
        second: impl Fn(KeyHash),
        mut work: impl FnMut(&Self, &Write, Option<&mut Reservation>),
    ) {
        /// Keys: each has some lines fetched.
        const AHEAD: usize = 8;
        let cleared = self.cleared();
        let mut reserved = std::mem::take(&mut self.reserved);
        let mut left = reserved.len();
        self.writes.iter().take(2 * AHEAD).for_each(|write| first(write.key));
        self.writes.iter().take(AHEAD).for_each(|write| second(write.key));
        for (index, write) in self.writes.iter().enumerate() {
            if let Some(later) = self.writes.get(index + 2 * AHEAD) {
                first(later.key);
            }
            if let Some(later) = self.writes.get(index + AHEAD) {
                second(later.key);
            }
            if write.hidden || write.stamp <= cleared {
                continue;
            }
            while left > 0 && reserved[left - 1].index < index {
                left -= 1;
            }
            let own = reserved[..left].last_mut().filter(|own| own.index == index && own.stamp == write.stamp);
            work(self, write, own.map(|own| &mut own.reservation));
        }
        self.reserved = reserved;
    }

    /// Remembers memory that was reserved for the write at `index`; those with larger ones come first.
    pub(super) fn reserve_for(&mut self, index: usize, reservation: Reservation) {
        let Write { key, stamp, .. } = self.writes[index];
        self.reserved.push(Reserved { index, stamp, key, reservation });
    }

    fn forget_writes(&mut self) {
        self.by_key.forget(self.writes.iter().map(|write| write.key.low));
        self.writes.empty(KEPT);
        self.bytes.empty(KEPT_BYTES);
        (self.used, self.hand) = (0, 0);
    }

    /// The same for a log that has [`Self::only_write`].
    #[inline(always)]
    pub(super) fn forget_only_write(&mut self) {
        if let Some(write) = self.writes.first() {
            self.by_key.pop(write.key.low, 0);
        }
        self.writes.clear();
        self.bytes.clear();
        (self.used, self.hand, self.since, self.removes) = (0, 0, None, false);
    }

    pub(super) fn forget(&mut self) {
        self.forget_writes();
        if !self.invalidations.is_empty() {
            self.by_tag.forget(self.invalidations.iter().map(|mark| mark.what.hash()));
            self.invalidations.empty(KEPT);
        }
        self.since = None;
        self.removes = false;
        self.rows = false;
        if !self.reserved.is_empty() || !self.barriers.is_empty() {
            self.reserved.empty(KEPT);
            self.barriers.empty(KEPT);
        }
        if !self.turns.is_empty() {
            self.turns.empty(KEPT);
        }
        self.prepared = 0;
    }
}
