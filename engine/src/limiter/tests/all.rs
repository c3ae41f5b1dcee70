//! Several keys at once, against the same requests one by one.

use super::arithmetic::algorithms;
use super::{Key, cases, limit};
use crate::hash::{KeyHash, key_hash};
use crate::limiter::all::{Claim, request_all};
use crate::limiter::table::Table;
use crate::limiter::{Decision, Request};
use crate::words::allocate;
use proptest::prelude::*;

const PARTITIONS: usize = 3;

fn hash(key: usize) -> KeyHash {
    key_hash([1, 2], 3, 4, &key.to_le_bytes())
}

proptest! {
    #![proptest_config(cases(1_000))]

    #[test]
    fn all_or_nothing(
        limits in proptest::collection::vec((algorithms(), 1..8u32, prop_oneof![Just(1_000u64), Just(5_000u64)]), 5),
        calls in proptest::collection::vec((proptest::collection::vec(0..5usize, 0..6), 0..4u32, 0..800i64), 1..30),
    ) {
        let partitions: Vec<_> = (0..PARTITIONS).map(|_| allocate(8 + 8 * 20)).collect();
        for words in &partitions {
            Table::format(words).unwrap();
        }
        let words: Vec<_> = partitions.iter().map(Vec::as_slice).collect();
        let mut keys: Vec<_> =
            limits.into_iter().map(|(algorithm, max, period)| Key::new(limit(algorithm, max, period, None))).collect();
        let mut now = 0;
        for (list, cost, pass) in calls {
            now += pass;
            let claims: Vec<_> = list
                .iter()
                .enumerate()
                .map(|(at, &key)| Claim {
                    partition: hash(key).partition(PARTITIONS),
                    key: hash(key),
                    limit: keys[key].limit,
                    before: u32::try_from(list[..at].iter().filter(|other| **other == key).count()).unwrap(),
                })
                .collect();
            let mut answers = vec![Decision::default(); list.len()];
            let granted = request_all(&words, &claims, now, cost, &mut answers).unwrap();

            let mut after = keys.clone();
            let one_by_one: Vec<_> = list.iter().map(|&key| after[key].check(now, cost.max(1))).collect();
            prop_assert_eq!(granted, one_by_one.iter().all(|answer| answer.allowed));
            if granted && cost > 0 {
                keys = after;
                prop_assert_eq!(&answers, &one_by_one);
            } else {
                let consumed: u32 = answers.iter().map(|answer| answer.granted).sum();
                prop_assert_eq!(consumed, 0);
                prop_assert_eq!(granted, answers.iter().all(|answer| answer.allowed));
            }
            for (key, model) in keys.iter().enumerate() {
                let table = Table::open(words[hash(key).partition(PARTITIONS)]).unwrap();
                let found = table.request(hash(key), &model.limit, now, Request::Peek(1)).unwrap();
                prop_assert_eq!(found, model.peek(now, 1));
            }
        }
    }
}
