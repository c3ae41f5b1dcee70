//! Who goes when a table is full: exactly whom the definition names, as far as a table's groups can be looked into.

use super::table::{hash, words_for};
use super::{SECOND, cases, limit};
use crate::limiter::Algorithm::FixedWindow;
use crate::limiter::table::Table;
use crate::limiter::{Limit, Request};
use crate::words::allocate;
use proptest::prelude::*;
use std::collections::HashMap;

/// What a key's use has left: its period, when it will be as good as new, and when it was last used.
#[derive(Debug, Clone, Copy)]
struct Use {
    limit: Limit,
    expiry: i64,
    last: i64,
}

proptest! {
    #![proptest_config(cases(60))]

    /// While a state is as good as new no other is evicted; else it is one of those whose last use is longest ago.
    #[test]
    fn evicts_whom_the_definition_names(entries in 1..400usize, keys in 1..900u32,
        calls in proptest::collection::vec((any::<u32>(), any::<bool>(), prop_oneof![5 => Just(0i64), 5 => 0..400_000i64]), 1..1000))
    {
        let words = allocate(words_for(entries));
        Table::format(&words).unwrap();
        let table = Table::open(&words).unwrap();
        let mut kept: HashMap<u32, Use> = HashMap::new();
        let mut now = 1_000_000_000;
        for (key, short, pass) in calls {
            now += pass;
            let key = key % keys;
            let old = kept.get(&key).copied().filter(|old| old.expiry > now);
            let period = if short { SECOND } else { 3_600 * SECOND };
            let limit = old.map_or_else(|| limit(FixedWindow, 1, period, None), |old| old.limit);
            let before = table.stats().unwrap();
            prop_assert_eq!(before.capacity, entries as u64);
            let active: Vec<(u32, Use)> = kept.iter().map(|(key, of)| (*key, *of)).filter(|(_, of)| of.expiry > now).collect();
            let allowed = table.request(hash(key), &limit, now, Request::All(1)).unwrap().allowed;
            prop_assert_eq!(allowed, old.is_none(), "a state was forgotten without an eviction");
            table.verify().unwrap();
            let after = table.stats().unwrap();
            if after.evictions_of_active > before.evictions_of_active {
                prop_assert_eq!(before.keys, before.capacity);
                prop_assert_eq!(active.len() as u64, before.keys, "one as good as new was there");
                let peek = |key, limit: &Limit| table.request(hash(key), limit, now, Request::Peek(1)).unwrap().allowed;
                let gone: Vec<_> = active.iter().filter(|(other, of)| *other != key && peek(*other, &of.limit)).collect();
                prop_assert_eq!(gone.len(), 1);
                let oldest = active.iter().map(|(_, of)| of.last >> 16).min();
                prop_assert_eq!(Some(gone[0].1.last >> 16), oldest, "one that was used longer ago was there");
                kept.remove(&gone[0].0);
            }
            let expiry = old.map_or(now + period.cast_signed(), |old| old.expiry);
            kept.insert(key, Use { limit, expiry, last: now });
        }
    }
}

/// In a table of many groups: one state among thousands is as good as new, wherever it lies.
#[test]
fn the_only_full_one_is_found() {
    const ENTRIES: u32 = 10_000;
    let words = allocate(words_for(ENTRIES as usize));
    Table::format(&words).unwrap();
    let table = Table::open(&words).unwrap();
    let (short, long) = (limit(FixedWindow, 1, SECOND, None), limit(FixedWindow, 1, 86_400 * SECOND, None));
    let check = |key, now, limit: &Limit| table.request(hash(key), limit, now, Request::All(1)).unwrap().allowed;
    for key in 0..ENTRIES {
        assert!(check(key, 0, &long));
    }
    let mut now = 0;
    for round in 0..50 {
        // The first takes the place of an active one, or of the one before; the second finds the first due.
        assert!(check(ENTRIES + 2 * round, now, &short));
        let before = table.stats().unwrap();
        now += SECOND.cast_signed();
        assert!(check(ENTRIES + 2 * round + 1, now, &long));
        let after = table.stats().unwrap();
        assert_eq!(after.evictions, before.evictions + 1, "round {round}");
        assert_eq!(after.evictions_of_active, before.evictions_of_active, "round {round}");
    }
}

/// In a table of many groups that no eviction has looked into yet.
#[test]
fn the_least_recently_used_go_in_their_order() {
    const ENTRIES: u32 = 2_000;
    let words = allocate(words_for(ENTRIES as usize));
    Table::format(&words).unwrap();
    let table = Table::open(&words).unwrap();
    let long = limit(FixedWindow, 1, 86_400 * SECOND, None);
    let ask = |key, now, request| table.request(hash(key), &long, now, request).unwrap().allowed;
    // Each in a unit of the clock of its own, some ten in a second.
    let mut now = 1_000_000_000;
    for key in 0..ENTRIES {
        now += 100_000;
        assert!(ask(key, now, Request::All(1)));
    }
    for more in 0..ENTRIES / 2 {
        now += 100_000;
        assert!(ask(ENTRIES + more, now, Request::All(1)));
        assert!(ask(more, now, Request::Peek(1)), "{more} was the one to go");
        assert!(!ask(more + 1, now, Request::Peek(1)), "{} went before its time", more + 1);
    }
    assert_eq!(table.stats().unwrap().evictions_of_active, u64::from(ENTRIES / 2));
}
