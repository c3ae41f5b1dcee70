//! The table against a `HashMap`, under memory pressure, and in memory that something else has written to.

use super::arithmetic::{algorithms, limits};
use super::{SECOND, cases, limit};
use crate::hash::{KeyHash, key_hash};
use crate::limiter::entries::MAX_CHAIN;
use crate::limiter::table::Table;
use crate::limiter::{Algorithm, Decision, Limit, MAX_PERIOD, MAX_REQUESTS, Request, State};
use crate::words::{Corrupt, allocate, store};
use proptest::prelude::*;
use std::collections::HashMap;

pub(super) fn hash(key: u32) -> KeyHash {
    key_hash([1, 2], 3, 4, &key.to_le_bytes())
}

/// Words that hold just so many entries.
pub(super) fn words_for(entries: usize) -> usize {
    (entries + 2) * 8
}

/// What a table without limits of memory would do.
#[derive(Default)]
struct Model {
    states: HashMap<(u32, Algorithm, u64), (State, i64)>,
}

impl Model {
    fn request(&mut self, key: u32, limit: &Limit, now: i64, request: Request) -> Decision {
        let id = (key, limit.algorithm(), limit.period());
        let live = self.states.get(&id).map(|&(state, expiry)| {
            let moved = state.rebase(now);
            (moved, expiry - (state.time() - moved.time()))
        });
        let live = live.filter(|(_, expiry)| *expiry > now);
        let (answer, changed) = limit.decide(live.map(|(state, _)| state).as_ref(), now, request);
        // What has expired stays where it is, as in the table, lest a clock that steps back tells the two apart.
        if let Some(state) = changed.or(live.map(|(state, _)| state)) {
            let until = now.saturating_add_unsigned(answer.reset_after);
            let until = live.map_or(until, |(_, expiry)| expiry.max(until));
            self.states.insert(id, (state, Self::expiry(limit, &state, until)));
        }
        answer
    }

    /// When a state is as good as new. That of a bucket depends on the limits that it was looked at by.
    fn expiry(limit: &Limit, state: &State, until: i64) -> i64 {
        match state {
            State::Fixed { opened, .. } => opened + limit.period().cast_signed(),
            State::Sliding(window) => {
                let step = limit.period().div_ceil(16).cast_signed();
                let last = |back: usize| window.start + step - 1 - step * i64::try_from(back).unwrap();
                let newest = window.counts.iter().position(|count| *count > 0);
                newest.map_or(window.start, |back| last(back) + limit.period().cast_signed())
            }
            State::Bucket { .. } => until,
        }
    }

    /// Removes what is as good as new.
    fn sweep(&mut self, now: i64) {
        self.states.retain(|_, (state, expiry)| {
            let moved = state.rebase(now);
            (*expiry, *state) = (*expiry - (state.time() - moved.time()), moved);
            *expiry > now
        });
    }

    fn active(&self, now: i64) -> usize {
        self.states.values().filter(|(_, expiry)| *expiry > now).count()
    }
}

#[derive(Debug, Clone)]
enum Op {
    Request(u32, Limit, Request),
    Refund(u32, Limit, u32),
    Reset(u32),
    Sweep(u32, u32),
    Pass(i64),
}

fn ops(keys: u32) -> impl Strategy<Value = Vec<Op>> {
    let few_limits = || {
        let small = (algorithms(), 1..6u32, prop_oneof![Just(1_000u64), Just(5_000u64)])
            .prop_map(|(algorithm, max, period)| limit(algorithm, max, period, None));
        let large = limit(Algorithm::TokenBucket, 1, MAX_PERIOD, Some(MAX_REQUESTS));
        prop_oneof![9 => small, 1 => Just(large)]
    };
    let request = prop_oneof![
        8 => (1..4u32).prop_map(Request::All),
        1 => Just(Request::All(MAX_REQUESTS - 2)),
        2 => (0..4u32).prop_map(Request::UpTo),
        2 => (0..4u32).prop_map(Request::Peek),
    ];
    let op = prop_oneof![
        20 => (0..keys, few_limits(), request).prop_map(|(key, limit, request)| Op::Request(key, limit, request)),
        1 => (0..keys, few_limits(), 0..4u32).prop_map(|(key, limit, amount)| Op::Refund(key, limit, amount)),
        1 => (0..keys).prop_map(Op::Reset),
        1 => (0..40u32, 0..40u32).prop_map(|(start, count)| Op::Sweep(start, count)),
        4 => prop_oneof![4 => 0..1_500i64, 1 => -3_000..12_000i64].prop_map(Op::Pass),
    ];
    proptest::collection::vec(op, 1..300)
}

/// A request of cost 0 as the table takes it.
fn normal(request: Request) -> Request {
    match request {
        Request::All(0) | Request::UpTo(0) | Request::Peek(0) => Request::Peek(1),
        other => other,
    }
}

proptest! {
    #![proptest_config(cases(400))]

    /// With room for every key, each answer is that of a map of states, whatever is swept when.
    #[test]
    fn answers_as_a_map_would(ops in ops(20)) {
        let words = allocate(words_for(200));
        Table::format(&words).unwrap();
        let table = Table::open(&words).unwrap();
        let mut model = Model::default();
        let mut now = 1_000_000;
        for op in ops {
            match op {
                Op::Request(key, limit, request) => {
                    let answer = table.request(hash(key), &limit, now, request).unwrap();
                    prop_assert_eq!(answer, model.request(key, &limit, now, normal(request)));
                }
                Op::Refund(key, limit, amount) => {
                    let id = (key, limit.algorithm(), limit.period());
                    // A look first, so that the model's state is moved if it has to be.
                    let before = table.request(hash(key), &limit, now, Request::Peek(1)).unwrap();
                    prop_assert_eq!(before, model.request(key, &limit, now, Request::Peek(1)));
                    if let Some((state, expiry)) = model.states.get_mut(&id).filter(|(_, expiry)| *expiry > now) {
                        *state = limit.refund(*state, now, amount);
                        *expiry = Model::expiry(&limit, state, *expiry);
                    }
                    let answer = table.refund(hash(key), &limit, now, amount).unwrap();
                    prop_assert_eq!(answer, model.request(key, &limit, now, Request::Peek(1)));
                    if answer.reset_after == 0 {
                        model.states.remove(&id);
                    }
                }
                Op::Reset(key) => {
                    let before = model.active(now);
                    model.states.retain(|id, _| id.0 != key);
                    let any = table.reset(hash(key), now).unwrap();
                    prop_assert_eq!(any, before > model.active(now));
                }
                Op::Sweep(_, count) => {
                    let (mut next, before) = (Some(0), table.stats().unwrap().keys);
                    let mut removed = 0;
                    while let Some(start) = next {
                        let sweep = table.sweep(now, start, count + 1).unwrap();
                        (next, removed) = (sweep.next, removed + sweep.removed);
                    }
                    model.sweep(now);
                    prop_assert_eq!(model.states.len() as u64, before - u64::from(removed));
                    prop_assert_eq!(table.stats().unwrap().keys, model.states.len() as u64);
                }
                Op::Pass(time) => now += time,
            }
            table.verify().unwrap();
        }
        prop_assert_eq!(table.stats().unwrap().evictions, 0);
    }

    /// Without room, an answer is that of the map or, after an eviction that was counted, that to a new key.
    #[test]
    fn forgets_no_more_than_it_counts(ops in ops(40), entries in 1..20usize) {
        let words = allocate(words_for(entries));
        Table::format(&words).unwrap();
        let table = Table::open(&words).unwrap();
        let mut model = Model::default();
        let (mut now, mut forgotten) = (1_000_000, 0);
        for op in ops {
            match op {
                Op::Request(key, limit, request) => {
                    let answer = table.request(hash(key), &limit, now, request).unwrap();
                    let id = (key, limit.algorithm(), limit.period());
                    let kept = model.states.get(&id).copied();
                    if answer != model.request(key, &limit, now, normal(request)) {
                        prop_assert!(kept.is_some_and(|(_, expiry)| expiry > now));
                        model.states.remove(&id);
                        forgotten += 1;
                        prop_assert_eq!(answer, model.request(key, &limit, now, normal(request)));
                    }
                }
                Op::Reset(key) => {
                    table.reset(hash(key), now).unwrap();
                    model.states.retain(|id, _| id.0 != key);
                }
                Op::Sweep(start, count) => drop(table.sweep(now, start, count).unwrap()),
                Op::Pass(time) => now += time.max(0),
                Op::Refund(..) => {}
            }
            table.verify().unwrap();
            let stats = table.stats().unwrap();
            prop_assert!(stats.keys <= stats.capacity);
            prop_assert!(stats.bytes_used <= stats.bytes_max);
            prop_assert!(forgotten <= stats.evictions_of_active);
            prop_assert!(stats.evictions_of_active <= stats.evictions);
        }
    }

    /// Whatever the memory holds: an answer or `Corrupt`, and soon.
    #[test]
    fn survives_any_memory(content in proptest::collection::vec(prop_oneof![0..30u64, any::<u64>(),
        (0..30u64, 0..30u64).prop_map(|(high, low)| high << 32 | low)], 200), formatted: bool, entries in 1..20usize,
        ops in ops(10), limit in limits())
    {
        let words = allocate(words_for(entries));
        Table::format(&words).unwrap();
        for (at, value) in content.iter().take(words.len()).enumerate().skip(if formatted { 2 } else { 0 }) {
            store(&words, at, *value).unwrap();
        }
        let Ok(table) = Table::open(&words) else { return Ok(()) };
        let mut now = 1_000_000;
        for op in ops {
            let ended: Result<(), Corrupt> = match op {
                Op::Request(key, _, request) => table.request(hash(key), &limit, now, request).map(drop),
                Op::Refund(key, limit, amount) => table.refund(hash(key), &limit, now, amount).map(drop),
                Op::Reset(key) => table.reset(hash(key), now).map(drop),
                Op::Sweep(start, count) => table.sweep(now, start, count).map(drop),
                Op::Pass(time) => { now += time; Ok(()) }
            };
            if ended.is_err() {
                Table::format(&words).unwrap();
            }
        }
    }
}

#[test]
fn a_million_keys_in_64_megabytes() {
    // Partitions as a server would make them, with a head of 128 bytes; keys spread over them unevenly.
    const PARTITIONS: usize = 64;
    let len = (64 << 20) / 8 / PARTITIONS - 16;
    let partitions: Vec<_> = (0..PARTITIONS).map(|_| allocate(len)).collect();
    let tables: Vec<_> = partitions
        .iter()
        .map(|words| {
            Table::format(words).unwrap();
            Table::open(words).unwrap()
        })
        .collect();
    let limit = limit(Algorithm::SlidingWindow, 5, 3600 * SECOND, None);
    for key in 0..1_000_000 {
        let hash = hash(key);
        let answer = tables[hash.partition(PARTITIONS)].request(hash, &limit, i64::from(key), Request::All(1));
        assert_eq!(answer.unwrap().remaining, 4);
    }
    let stats: Vec<_> = tables.iter().map(|table| table.stats().unwrap()).collect();
    assert_eq!(stats.iter().map(|stats| stats.keys).sum::<u64>(), 1_000_000);
    assert_eq!(stats.iter().map(|stats| stats.evictions).sum::<u64>(), 0);
    assert!(stats.iter().map(|stats| stats.bytes_used).sum::<u64>() <= 64 << 20);
    for key in (0..1_000_000).step_by(1_000) {
        let hash = hash(key);
        let answer = tables[hash.partition(PARTITIONS)].request(hash, &limit, 1_000_000, Request::Peek(1));
        assert_eq!(answer.unwrap().remaining, 4, "key {key} is still there");
    }
}

#[test]
fn one_key_with_many_periods_pushes_out_its_own_states() {
    let words = allocate(words_for(1000));
    Table::format(&words).unwrap();
    let table = Table::open(&words).unwrap();
    let of = |period: u64| limit(Algorithm::FixedWindow, 1, period, None);
    for key in 1..100 {
        assert!(table.request(hash(key), &of(60 * SECOND), 0, Request::All(1)).unwrap().allowed);
    }
    // In the same chain, and used longest ago.
    let neighbour = KeyHash { low: 0, ..hash(0) };
    assert!(table.request(neighbour, &of(60 * SECOND), -1_000_000, Request::All(1)).unwrap().allowed);
    for more in 0..500 {
        assert!(table.request(hash(0), &of(60 * SECOND + more), 0, Request::All(1)).unwrap().allowed);
        table.verify().unwrap();
    }
    for key in 1..100 {
        assert!(!table.request(hash(key), &of(60 * SECOND), 0, Request::All(1)).unwrap().allowed);
    }
    assert!(!table.request(neighbour, &of(60 * SECOND), 0, Request::All(1)).unwrap().allowed);
    let stats = table.stats().unwrap();
    assert!(stats.keys <= 99 + MAX_CHAIN as u64);
    assert_eq!(stats.keys + stats.evictions, 100 + 500);
    assert!(table.reset(hash(0), 0).unwrap());
    assert_eq!(table.stats().unwrap().keys, 100);
    assert!(!table.reset(hash(0), 0).unwrap());
}

#[test]
fn counts_requests_but_not_peeks() {
    let words = allocate(words_for(10));
    Table::format(&words).unwrap();
    let table = Table::open(&words).unwrap();
    let limit = limit(Algorithm::SlidingWindow, 2, SECOND, None);
    let ask = |request| table.request(hash(1), &limit, 0, request).unwrap();
    for peek in [Request::Peek(1), Request::All(0), Request::UpTo(0)] {
        assert!(ask(peek).allowed);
    }
    assert!(!ask(Request::Peek(MAX_REQUESTS)).allowed);
    assert!(!ask(Request::All(3)).allowed);
    assert_eq!(table.stats().unwrap().keys, 0, "nothing was consumed, nothing is kept");
    assert!(ask(Request::All(2)).allowed);
    assert!(!ask(Request::All(0)).allowed, "a cost of 0 asks what a cost of 1 would find");
    let stats = table.stats().unwrap();
    assert_eq!((stats.keys, stats.allowed, stats.denied), (1, 1, 1));
}

#[test]
fn opens_only_what_was_formatted() {
    let words = allocate(100);
    assert_eq!(Table::open(&words).map(drop), Err(Corrupt));
    Table::format(&words).unwrap();
    assert!(Table::open(&words).is_ok());
    assert_eq!(Table::open(&words[..80]).map(drop), Err(Corrupt), "another size");
    assert_eq!(Table::format(&words[..10]), Err(Corrupt), "no room for an entry");
}
