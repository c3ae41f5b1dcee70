//! The log by example, and against a model in plain collections.

use super::{Action, Effect, Limits, Log, Removed, Seen};
use crate::coherent::key::Key;
use enough_engine::cache::{Kind, Tags};
use enough_engine::hash::KeyHash;
use std::collections::{BTreeMap, BTreeSet};

const NO_LIMITS: Limits = Limits { bytes: usize::MAX, tags: usize::MAX };

fn log(limits: Limits) -> Log {
    Log { limits, ..Log::new() }
}

fn key(number: u64) -> KeyHash {
    KeyHash { high: number, low: number.wrapping_mul(0x9e37_79b9_7f4a_7c15) }
}

fn named(number: u64) -> Key<'static> {
    // Some keep their names, the same key always.
    Key { hash: key(number), name: number.is_multiple_of(3).then_some(&b"a name of 17 byte"[..(number % 17) as usize]) }
}

fn tags(of: &[u64]) -> Tags {
    let mut tags = Tags::default();
    for &tag in of {
        assert!(tags.push(tag));
    }
    tags
}

fn touch(log: &mut Log, number: u64, owner: u32, expiry: u64) {
    log.write(named(number), owner, Effect::Touch { expiry });
}

fn expiry(log: &Log, number: u64) -> Option<u64> {
    log.seen(key(number)).map(|seen| match seen {
        Seen::Touched(expiry) => expiry,
        _ => unreachable!("only touches are written here"),
    })
}

const LENGTHS: [u64; 4] = [1, 7, 8, 100];

#[test]
fn undo_uncovers_what_the_outer_savepoint_wrote() {
    for keys in LENGTHS {
        let mut log = log(NO_LIMITS);
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
        assert_eq!(log.effective(log.len()).count() as u64, keys);
    }
}

#[test]
fn merged_writes_are_undone_with_the_outer_savepoint() {
    for keys in LENGTHS {
        let mut log = log(NO_LIMITS);
        for owner in 1..=3 {
            for number in 0..keys {
                touch(&mut log, number, owner, u64::from(owner));
            }
        }
        touch(&mut log, keys, 3, 3);
        log.merge(3, 2);
        assert_eq!(log.len() as u64, keys * 2 + 1, "what can't be uncovered any more is gone");
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
fn a_loop_piles_nothing_up() {
    let mut log = log(NO_LIMITS);
    let value = [7; 1000];
    for owner in 2..5_000 {
        // A savepoint a round, as of a PL/pgSQL block with an EXCEPTION clause.
        let size = 500 + owner as usize % 500;
        log.write(
            named(1),
            owner,
            Effect::Set { value: &value[..size], kind: Kind::Json, expiry: 1, tags: &tags(&[1, 2]) },
        );
        log.mark(owner, Removed::Tag(u64::from(owner % 3)));
        log.mark(owner, Removed::Tag(u64::from(owner % 3)));
        log.merge(owner, 1);
    }
    assert_eq!((log.len(), log.invalidations.len()), (1, 3));
    assert!(log.bytes.len() < 200_000, "{} bytes", log.bytes.len());
    for owner in 5_000..10_000 {
        touch(&mut log, 1, owner, 1);
        log.mark(owner, Removed::Everything);
        log.write(named(2), owner, Effect::Set { value: &value, kind: Kind::Json, expiry: 1, tags: &tags(&[]) });
        log.undo(owner);
    }
    assert_eq!((log.len(), log.invalidations.len()), (1, 3));
    log.mark(1, Removed::Everything);
    assert_eq!((log.len(), log.invalidations.len(), log.used), (0, 1, 0), "what is cleared takes no memory");
}

#[test]
fn savepoints_within_one_another_are_released_and_undone_in_linear_work() {
    const DEPTH: u32 = 2_000;
    for (undone, keys) in [(false, 1_000_000), (true, 1_000_000), (false, 10)] {
        let mut log = log(NO_LIMITS);
        for owner in 1..=DEPTH {
            touch(&mut log, u64::from(owner) % keys, owner, u64::from(owner));
            log.mark(owner, Removed::Tag(u64::from(owner) % keys));
        }
        let before = log.by_key.changes + log.by_tag.changes;
        for owner in (2..=DEPTH).rev() {
            if undone {
                log.undo(owner);
            } else {
                log.merge(owner, owner - 1);
            }
        }
        let work = log.by_key.changes + log.by_tag.changes - before;
        assert!(work < 20 * DEPTH as usize, "{work} changes of chains for {DEPTH} savepoints");
        let last = if undone { 1 } else { u64::from(DEPTH) };
        assert_eq!(expiry(&log, last % keys), Some(last));
        log.undo(1);
        assert_eq!((log.len(), log.invalidations.len(), log.used), (0, 0, 0));
    }
}

struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Modelled {
    Absent,
    Own { value: Vec<u8>, over: u64, tags: Vec<u64> },
    Touched(u64),
    Taken,
}

/// What a savepoint sees.
#[derive(Debug, Clone, Default)]
struct Model {
    keys: BTreeMap<u64, Modelled>,
    cleared: bool,
    /// What was removed since, for the commit.
    removed: BTreeSet<u64>,
    tags: BTreeSet<u64>,
}

impl Model {
    fn write(&mut self, number: u64, what: Modelled) {
        if matches!(what, Modelled::Absent | Modelled::Taken) {
            self.removed.insert(number);
        }
        self.keys.insert(number, what);
    }

    fn invalidate(&mut self, tag: u64) {
        self.tags.insert(tag);
        for what in self.keys.values_mut() {
            if matches!(what, Modelled::Own { tags, .. } if tags.contains(&tag)) {
                *what = Modelled::Absent;
            }
        }
    }

    fn clear(&mut self) {
        self.keys.clear();
        self.removed.clear();
        self.cleared = true;
    }

    fn seen(&self, number: u64) -> Option<Modelled> {
        self.keys.get(&number).cloned().or(self.cleared.then_some(Modelled::Absent))
    }
}

fn modelled(log: &Log, number: u64) -> Option<Modelled> {
    log.seen(key(number)).map(|seen| match seen {
        Seen::Absent => Modelled::Absent,
        Seen::Touched(expiry) => Modelled::Touched(expiry),
        Seen::Own(own) => {
            Modelled::Own { value: log.value_of(&own).to_vec(), over: own.over, tags: own.tags.hashes().to_vec() }
        }
    })
}

/// A savepoint's number and what was there when it began.
struct Level {
    owner: u32,
    before: Model,
}

struct History {
    log: Log,
    model: Model,
    levels: Vec<Level>,
    owners: u32,
    random: Random,
}

impl History {
    fn new(seed: u64, limits: Limits) -> Self {
        History { log: log(limits), model: Model::default(), levels: Vec::new(), owners: 1, random: Random(seed) }
    }

    fn step(&mut self, keys: u64, longest: u64) {
        let owner = self.levels.last().map_or(1, |level| level.owner);
        let number = self.random.below(keys);
        match self.random.below(22) {
            0..9 => {
                let value = vec![number as u8; self.random.below(longest) as usize];
                let of: Vec<u64> = (0..self.random.below(3)).map(|_| self.random.below(6)).collect();
                let over = 1 + self.random.below(100);
                let tags = tags(&of);
                let effect = if over.is_multiple_of(2) {
                    Effect::SetStale { value: &value, over, until: over + 1, tags: &tags }
                } else {
                    Effect::Set { value: &value, kind: Kind::Json, expiry: over, tags: &tags }
                };
                self.log.write(named(number), owner, effect);
                self.model.write(number, Modelled::Own { value, over, tags: of });
            }
            9..11 => {
                self.log.write(named(number), owner, Effect::Delete);
                self.model.write(number, Modelled::Absent);
            }
            11 => {
                touch(&mut self.log, number, owner, 7);
                self.model.write(number, Modelled::Touched(7));
            }
            12 => {
                self.log.write(named(number), owner, Effect::Removed);
                self.model.write(number, Modelled::Taken);
            }
            13..15 => {
                let tag = self.random.below(6);
                self.log.mark(owner, Removed::Tag(tag));
                self.model.invalidate(tag);
            }
            15 if self.random.below(4) == 0 => {
                self.log.mark(owner, Removed::Everything);
                self.model.clear();
            }
            15..18 => {
                self.owners += 1;
                self.levels.push(Level { owner: self.owners, before: self.model.clone() });
            }
            18..20 => {
                if let Some(level) = self.levels.pop() {
                    self.log.undo(level.owner);
                    self.model = level.before;
                }
            }
            _ => {
                if let Some(level) = self.levels.pop() {
                    self.log.merge(level.owner, self.levels.last().map_or(1, |level| level.owner));
                }
            }
        }
    }

    /// That the commit removes all that it should, and nothing else is put than what was written.
    fn commit(mut self, keys: u64, exact: bool) {
        while let Some(level) = self.levels.pop() {
            self.log.merge(level.owner, self.levels.last().map_or(1, |level| level.owner));
        }
        let Self { mut log, model, .. } = self;
        log.resolve();
        let has = |what| log.invalidations.iter().any(|mark| mark.what == what);
        let everything = has(Removed::Everything);
        assert!(everything || !model.cleared);
        let effective: BTreeMap<u64, _> = log.effective(log.len()).map(|(_, write)| (write.key.high, *write)).collect();
        assert_eq!(effective.len(), log.effective(log.len()).count(), "a key is written once");
        for number in &model.removed {
            assert!(everything || effective.get(number).is_some_and(|write| write.removes), "{number} comes back");
        }
        // Where its own value was invalidated, what lies under it must not show either.
        for (number, _) in model.keys.iter().filter(|(_, what)| **what == Modelled::Absent) {
            let gone = |write: &super::Write| write.removes || write.action == Action::Evicted;
            assert!(everything || effective.get(number).is_some_and(gone), "what lies under {number} shows");
        }
        for tag in model.tags {
            assert!(everything || has(Removed::Tagged) || has(Removed::Tag(tag)), "tag {tag} comes back");
        }
        for number in 0..keys {
            let put = effective.get(&number).filter(|write| matches!(write.action, Action::Set | Action::SetStale));
            assert!(put.is_none_or(|write| log.name(write) == named(number).name), "{number} has another name");
            let put = put.map(|write| log.value(write).to_vec());
            let wanted = match model.keys.get(&number) {
                Some(Modelled::Own { value, .. }) => Some(value.clone()),
                _ => None,
            };
            assert!(put == wanted || (!exact && put.is_none()), "{number}: {put:?} instead of {wanted:?}");
        }
    }
}

#[test]
fn random_histories_are_what_a_model_says() {
    for seed in 0..400 {
        let mut history = History::new(seed, NO_LIMITS);
        for _ in 0..150 {
            history.step(12, 40);
            for number in 0..12 {
                let (is, should) = (modelled(&history.log, number), history.model.seen(number));
                // Taken is committed state, which is gone already; where all was cleared, absent.
                let hidden = should == Some(Modelled::Taken);
                assert!(is == should || (hidden && is.is_none()), "seed {seed}, {number}: {is:?}, not {should:?}");
            }
        }
        history.commit(12, true);
    }
}

#[test]
fn a_log_that_is_full_loses_values_and_no_removals() {
    let mut lost = 0;
    for seed in 0..400 {
        let limits = Limits { bytes: 4_000, tags: 4 };
        let mut history = History::new(seed, limits);
        for _ in 0..300 {
            history.step(60, 300);
            assert!(history.log.size() <= limits.bytes, "it is never larger than it may be");
            for number in 0..60 {
                let (is, should) = (modelled(&history.log, number), history.model.seen(number));
                let hidden = should == Some(Modelled::Taken) && is.is_none();
                let gone = is == Some(Modelled::Absent);
                lost += u64::from(gone && should != is);
                assert!(is == should || hidden || gone, "seed {seed}, {number}: {is:?}, not {should:?}");
            }
        }
        history.commit(60, false);
    }
    assert!(lost > 0, "nothing had to give way");
}

#[test]
fn what_a_transaction_writes_last_stays() {
    let mut log = log(Limits { bytes: 100_000, tags: 10 });
    for number in 0..100_000 {
        log.write(
            named(number),
            1,
            Effect::Set { value: &[1; 100], kind: Kind::Json, expiry: 1, tags: &Tags::default() },
        );
        assert!(matches!(log.seen(key(number)), Some(Seen::Own(_))), "{number} isn't there");
    }
    let kept = (0..100_000).filter(|&number| matches!(log.seen(key(number)), Some(Seen::Own(_)))).count();
    assert!(kept > 100, "{kept} of 100000");
    // Nothing that gives way: the log removes everything instead, and goes on.
    for number in 0..100_000 {
        log.write(named(number), 1, Effect::Delete);
        log.mark(1, Removed::Tag(number));
    }
    assert!(log.invalidations.len() <= 11 && log.removed(Removed::Everything) > 0 && log.removed(Removed::Tagged) > 0);
}
