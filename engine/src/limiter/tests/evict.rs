//! Who goes when a table is full: exactly whom the definition names, among the entries that an eviction looks at.

use super::table::{hash, words_for};
use super::{SECOND, cases, limit};
use crate::limiter::Algorithm::{FixedWindow, SlidingWindow, TokenBucket};
use crate::limiter::table::{Stats, Table};
use crate::limiter::{Limit, Request};
use crate::words::allocate;
use proptest::prelude::*;
use std::collections::BTreeMap;

/// What an eviction of the key would lose: its share of the limit, what was consumed, and until when it would count. As
/// good as new is nothing at all.
fn loss(table: &Table<'_>, key: u32, limit: &Limit, now: i64) -> (u64, u32, i64) {
    let found = table.request(hash(key), limit, now, Request::Peek(1)).unwrap();
    let used = limit.capacity() - found.remaining;
    let share = u64::from(used) * 1_000_000_000 / u64::from(limit.capacity());
    if used == 0 { (0, 0, 0) } else { (share, used, now.saturating_add_unsigned(found.reset_after)) }
}

proptest! {
    #![proptest_config(cases(100))]

    /// In a table whose entries an eviction can all look at.
    #[test]
    fn evicts_whom_the_definition_names(entries in 1..=64usize, keys in 1..200u32,
        calls in proptest::collection::vec((any::<u32>(), 0..6usize, 1..4u32, prop_oneof![5 => Just(0i64), 5 => 0..400_000i64]), 1..600))
    {
        let limits = [
            limit(FixedWindow, 1, SECOND, None), limit(FixedWindow, 3, 3_600 * SECOND, None),
            limit(SlidingWindow, 4, SECOND, None), limit(SlidingWindow, 100, 3_600 * SECOND, None),
            limit(TokenBucket, 3, SECOND, None), limit(TokenBucket, 1, 3_600 * SECOND, Some(9)),
        ];
        let words = allocate(words_for(entries));
        Table::format(&words).unwrap();
        let table = Table::open(&words).unwrap();
        // The limit that a key was first asked with is its own.
        let mut kept: BTreeMap<u32, Limit> = BTreeMap::new();
        let mut now = 1_000_000_000;
        for (key, which, cost, pass) in calls {
            now += pass;
            let key = key % keys;
            let limit = *kept.get(&key).unwrap_or(&limits[which]);
            let cost = cost.min(limit.capacity());
            let before = table.stats().unwrap();
            prop_assert_eq!(before.capacity, entries as u64);
            let losses: BTreeMap<_, _> = kept.iter().map(|(key, limit)| (*key, loss(&table, *key, limit, now))).collect();
            table.request(hash(key), &limit, now, Request::All(cost)).unwrap();
            table.verify().unwrap();
            let after = table.stats().unwrap();
            let gone: Vec<u32> = kept.keys().copied().filter(|other| *other != key && losses[other].0 > 0)
                .filter(|other| loss(&table, *other, &kept[other], now).0 == 0).collect();
            prop_assert_eq!(gone.len() as u64, after.evictions_of_active - before.evictions_of_active);
            if let [gone] = gone[..] {
                prop_assert_eq!(before.keys, before.capacity);
                let least = losses.iter().filter(|(other, _)| **other != key).map(|(_, loss)| *loss).min();
                prop_assert_eq!(Some(losses[&gone]), least);
                let exhausted = losses[&gone].0 == 1_000_000_000;
                prop_assert_eq!(after.evictions_of_exhausted - before.evictions_of_exhausted, u64::from(exhausted));
                kept.remove(&gone);
            }
            kept.insert(key, limit);
            kept.retain(|key, limit| loss(&table, *key, limit, now).0 > 0);
        }
    }
}

/// A table that holds `count` keys from `first` on, each asked once by `ask`.
fn ask_all(table: &Table<'_>, keys: std::ops::Range<u32>, limit: &Limit, cost: u32, now: i64) -> Stats {
    for key in keys {
        assert!(table.request(hash(key), limit, now, Request::All(cost)).unwrap().allowed, "{key}");
    }
    table.stats().unwrap()
}

/// How many of the keys are used up.
fn exhausted(table: &Table<'_>, keys: std::ops::Range<u32>, limit: &Limit, now: i64) -> usize {
    keys.filter(|key| !table.request(hash(*key), limit, now, Request::Peek(1)).unwrap().allowed).count()
}

/// In a table of many groups of entries that are looked at together: as long as one in five is as good as new.
#[test]
fn what_is_as_good_as_new_goes_before_anything_else() {
    const ENTRIES: u32 = 10_000;
    let words = allocate(words_for(ENTRIES as usize));
    Table::format(&words).unwrap();
    let table = Table::open(&words).unwrap();
    let (short, long) = (limit(FixedWindow, 1, SECOND, None), limit(FixedWindow, 100, 86_400 * SECOND, None));
    ask_all(&table, 0..ENTRIES / 5, &short, 1, 0);
    ask_all(&table, ENTRIES..2 * ENTRIES - ENTRIES / 5, &long, 1, 0);
    assert_eq!(table.stats().unwrap().keys, u64::from(ENTRIES));
    let now = 2 * SECOND.cast_signed();
    let after = ask_all(&table, 3 * ENTRIES..3 * ENTRIES + ENTRIES / 5, &long, 1, now);
    assert_eq!((after.evictions, after.evictions_of_active), (u64::from(ENTRIES / 5), 0));
}

/// A flood of more keys than fit three times over, whatever their limit: none that was used up before is forgotten.
#[test]
fn a_flood_of_keys_frees_none_that_is_used_up() {
    const ENTRIES: u32 = 10_000;
    const USED_UP: u32 = 1_000;
    for (algorithm, period) in [(FixedWindow, 3_600), (SlidingWindow, 3_600), (TokenBucket, 36_000)] {
        for (most, cost) in [(10, 1), (10, 9), (1, 1), (4, 4)] {
            let words = allocate(words_for(ENTRIES as usize));
            Table::format(&words).unwrap();
            let table = Table::open(&words).unwrap();
            let (strict, flood) =
                (limit(algorithm, 5, period * SECOND, None), limit(algorithm, most, period * SECOND, None));
            ask_all(&table, 0..USED_UP, &strict, 5, 0);
            let stats = ask_all(&table, USED_UP..USED_UP + 3 * ENTRIES, &flood, cost, 1_000_000);
            assert_eq!(
                exhausted(&table, 0..USED_UP, &strict, 1_000_000),
                USED_UP as usize,
                "{algorithm:?} {most} {cost}"
            );
            let of_flood = if cost == most { stats.evictions_of_active } else { 0 };
            assert_eq!(stats.evictions_of_exhausted, of_flood);
        }
    }
}

/// What remains possible: a flood of keys that consume as much each. Some are forgotten then, and each is counted.
#[test]
fn keys_that_are_all_used_up_go_by_their_age_and_are_counted() {
    const ENTRIES: u32 = 1_000;
    let words = allocate(words_for(ENTRIES as usize));
    Table::format(&words).unwrap();
    let table = Table::open(&words).unwrap();
    let strict = limit(SlidingWindow, 5, 3_600 * SECOND, None);
    ask_all(&table, 0..ENTRIES, &strict, 5, 0);
    let stats = ask_all(&table, ENTRIES..ENTRIES + 100, &strict, 5, 600_000_000);
    assert_eq!((stats.evictions_of_active, stats.evictions_of_exhausted), (100, 100));
    assert_eq!(exhausted(&table, 0..ENTRIES, &strict, 600_000_000), ENTRIES as usize - 100);
    assert_eq!(exhausted(&table, ENTRIES..ENTRIES + 100, &strict, 600_000_000), 100, "the newer ones stay");
}

#[test]
fn a_block_is_not_forgotten_in_a_flood() {
    const ENTRIES: u32 = 1_000;
    let words = allocate(words_for(ENTRIES as usize));
    Table::format(&words).unwrap();
    let table = Table::open(&words).unwrap();
    table.block(hash(0), 0, 3_600 * SECOND).unwrap();
    let strict = limit(SlidingWindow, 5, 3_600 * SECOND, None);
    ask_all(&table, 1..5 * ENTRIES, &strict, 5, 0);
    assert_eq!(table.block_left(hash(0), 0).unwrap(), 3_600 * SECOND);
}

/// The same in small tables, where entries that came together could lie together.
#[test]
fn wherever_it_lies() {
    const ENTRIES: u32 = 1020;
    for seed in 0..200 {
        let words = allocate(words_for(ENTRIES as usize));
        Table::format(&words).unwrap();
        let table = Table::open(&words).unwrap();
        let (short, long) = (limit(FixedWindow, 1, SECOND, None), limit(FixedWindow, 1, 86_400 * SECOND, None));
        let base = seed * 10_000;
        ask_all(&table, base..base + 340, &long, 1, 0);
        ask_all(&table, base + 1000..base + 1340, &short, 1, 0);
        let after = ask_all(&table, base + 2000..base + 2510, &long, 1, 3_000_000);
        assert_eq!((after.evictions, after.evictions_of_active), (170, 0));
    }
}
